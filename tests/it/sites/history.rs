//! What several clients saw of the same few objects while something was broken, and whether one
//! order of everything explains it. The judge is the simulator's checker; the clocks are real.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use trefoil_client::{Client, ReadError, WriteError};
use trefoil_sim::checkers::linearizable;
use trefoil_sim::history::{History, ObjectId, Pending, Step, Value, Verb, VersionTag};

use crate::outside::{Outside, PATIENCE};
use crate::storing::{content, key};

/// Clients at work.
const CLIENTS: u32 = 6;

/// Objects that all of them fight for.
const OBJECTS: u64 = 24;

/// A client rests this long between two operations, so that two cores can serve them and faults,
/// not queues, are what is seen.
const REST: Duration = Duration::from_millis(8);

/// The first bytes of an object say which put they are from.
const TAG: usize = 16;

/// What the clients share.
struct Book {
    history: Mutex<History>,
    began: Instant,
    stop: AtomicBool,
    /// The last tag given out.
    tag: AtomicU64,
    ended: Mutex<Vec<Ended>>,
}

/// One operation that ended.
struct Ended {
    client: u32,
    writes: bool,
    from: Instant,
    until: Instant,
    failure: Option<String>,
}

/// Clients at work, and what they saw so far.
pub(crate) struct Contest {
    book: Arc<Book>,
    clients: JoinSet<()>,
}

/// What a fault did to requests.
#[derive(Debug)]
pub(crate) struct Pause {
    /// The longest that a write took which ended after the fault.
    pub(crate) writes: Duration,
    /// The longest that a read took.
    pub(crate) reads: Duration,
}

impl Contest {
    /// Starts it and waits until every client has done something.
    pub(crate) fn start(outside: &Outside, client: &Client) -> Self {
        let book = Arc::new(Book {
            history: Mutex::default(),
            began: Instant::now(),
            stop: AtomicBool::new(false),
            tag: AtomicU64::new(0),
            ended: Mutex::default(),
        });
        let contest = outside.block_on(async {
            let mut clients = JoinSet::new();
            for number in 0..CLIENTS {
                clients.spawn(contend(number, client.clone(), Arc::clone(&book)));
            }
            Self { book, clients }
        });
        contest.goes_on(Instant::now(), 10);
        contest
    }

    /// Waits until every client has ended so many operations that began after `fault`.
    #[track_caller]
    pub(crate) fn goes_on(&self, fault: Instant, operations: usize) {
        let began = Instant::now();
        let behind = || {
            let ended = self.book.ended();
            let of = |client| ended.iter().filter(|end| end.client == client && end.from >= fault).count();
            (0..CLIENTS).any(|client| of(client) < operations)
        };
        while behind() {
            assert!(began.elapsed() < PATIENCE, "the clients do not go on");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The median of what writes took that began at some time or later and have ended.
    pub(crate) fn median_write(&self, since: Instant) -> Duration {
        let ended = self.book.ended();
        let writes = ended.iter().filter(|end| end.writes && end.from >= since);
        let mut took: Vec<Duration> = writes.map(|end| end.until - end.from).collect();
        took.sort_unstable();
        took.get(took.len() / 2).copied().unwrap_or_default()
    }

    /// How many operations began at some time or later and have ended.
    pub(crate) fn answered_since(&self, since: Instant) -> usize {
        self.book.ended().iter().filter(|end| end.from >= since).count()
    }

    /// The longest waits since a fault.
    pub(crate) fn pause(&self, fault: Instant) -> Pause {
        let ended = self.book.ended();
        let longest = |writes| {
            let since = ended.iter().filter(|end| end.until >= fault && end.writes == writes);
            since.map(|end| end.until - end.from).max().unwrap_or_default()
        };
        Pause { writes: longest(true), reads: longest(false) }
    }

    /// No operation has failed so far.
    #[track_caller]
    pub(crate) fn none_failed(&self) {
        let ended = self.book.ended();
        let failures: Vec<_> = ended.iter().filter_map(|end| end.failure.as_ref()).collect();
        assert!(failures.is_empty(), "{} of {} failed: {:?}", failures.len(), ended.len(), failures.first());
    }

    /// Ends it, reads every object once more, and judges: one order must explain every answer.
    #[track_caller]
    pub(crate) fn judge(mut self, outside: &Outside, client: &Client) {
        self.book.stop.store(true, Ordering::SeqCst);
        outside.block_on(async {
            while let Some(ended) = self.clients.join_next().await {
                ended.unwrap();
            }
            for object in 0..OBJECTS {
                read(&self.book, CLIENTS, client, &name(object)).await.unwrap();
            }
        });
        let history = self.book.history.lock().unwrap();
        let findings = linearizable::check(&history);
        assert!(findings.violations.is_empty(), "{:#?}", findings.violations);
        let (zones, both) = linearizable::compare(&history);
        println!(
            "{} operations on {OBJECTS} objects are linearizable; {} undecided; of {zones} histories that both \
             checkers decide, they agree on {both}",
            history.operations(),
            findings.undecided,
        );
        assert_eq!((findings.undecided, zones), (0, both));
    }
}

impl Book {
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).expect("a short test")
    }

    fn ended(&self) -> std::sync::MutexGuard<'_, Vec<Ended>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn invoke(&self, client: u32, verb: Verb, name: &str, step: Step) -> Pending {
        let object = ObjectId { tenant: "acme".to_owned(), key: name.to_owned() };
        self.history.lock().unwrap().invoke(object, client, verb, step, self.now())
    }

    fn answer(&self, pending: &Pending, step: Step) {
        self.history.lock().unwrap().answer(pending, step, self.now());
    }

    fn refuse(&self, pending: &Pending) {
        self.history.lock().unwrap().refuse(pending, self.now());
    }
}

fn name(object: u64) -> String {
    format!("contested/{object}")
}

async fn contend(number: u32, client: Client, book: Arc<Book>) {
    let mut turn = u64::from(number) * 7;
    while !book.stop.load(Ordering::SeqCst) {
        turn += 1;
        // A walk of its own for each client, over all objects.
        let object = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) % OBJECTS;
        let name = name(object);
        let from = Instant::now();
        let (writes, done) = match turn % 9 {
            // Every second object is never deleted: only such histories are for both checkers.
            0 if object.is_multiple_of(2) => (true, delete(&book, number, &client, &name).await),
            1..=4 => (true, put(&book, number, &client, &name).await),
            _ => (false, read(&book, number, &client, &name).await),
        };
        let failure = done.err();
        book.ended().push(Ended { client: number, writes, from, until: Instant::now(), failure });
        tokio::time::sleep(REST).await;
    }
}

async fn put(book: &Book, number: u32, client: &Client, name: &str) -> Result<(), String> {
    let tag = book.tag.fetch_add(1, Ordering::Relaxed);
    let step = Step { requires: None, becomes: Some(value(tag)) };
    let pending = book.invoke(number, Verb::Put, name, step);
    let mut bytes = u128::from(tag).to_le_bytes().to_vec();
    bytes.extend(content(tag, length(tag)));
    end(book, &pending, step, client.put(&key(name), bytes).await.map(drop), &format!("put {name}"))
}

async fn delete(book: &Book, number: u32, client: &Client, name: &str) -> Result<(), String> {
    let step = Step { requires: None, becomes: Some(Value::Absent) };
    let pending = book.invoke(number, Verb::Delete, name, step);
    match client.delete(&key(name)).await {
        // There was nothing: the answer tells what a read would.
        Err(WriteError::NotFound | WriteError::Gone) => {
            book.answer(&pending, Step { requires: Some(Value::Absent), becomes: None });
            Ok(())
        }
        done => end(book, &pending, step, done.map(drop), &format!("delete {name}")),
    }
}

fn end(
    book: &Book,
    pending: &Pending,
    step: Step,
    done: Result<(), WriteError>,
    what: &str,
) -> Result<(), String> {
    match done {
        Ok(()) => book.answer(pending, step),
        Err(WriteError::NotApplied(_) | WriteError::Refused(_)) => book.refuse(pending),
        // Anything else may have happened, now or later.
        Err(_) => {}
    }
    done.map_err(|error| format!("{what}: {error}"))
}

async fn read(book: &Book, number: u32, client: &Client, name: &str) -> Result<(), String> {
    let nothing = Step { requires: None, becomes: None };
    let pending = book.invoke(number, Verb::Get, name, nothing);
    let seen = loop {
        let bytes = match client.get(&key(name)).await {
            Ok(download) => download.bytes().await,
            Err(error) => Err(error),
        };
        match bytes {
            Ok(bytes) => break Ok(value_of(&bytes)),
            Err(ReadError::NotFound | ReadError::Gone) => break Ok(Value::Absent),
            // It was replaced while it was being read, as the answer says: to be read again.
            Err(ReadError::Changed) => {}
            Err(error) => break Err(format!("get {name}: {error}")),
        }
    };
    match seen {
        Ok(value) => book.answer(&pending, Step { requires: Some(value), becomes: None }),
        Err(_) => book.refuse(&pending),
    }
    seen.map(drop)
}

fn value(tag: u64) -> Value {
    Value::Version(VersionTag(tag.into()))
}

/// Whose bytes these are; all of them must be.
fn value_of(bytes: &[u8]) -> Value {
    let (tag, rest) = bytes.split_first_chunk::<TAG>().expect("every object begins with a tag");
    let tag = u64::try_from(u128::from_le_bytes(*tag)).expect("a tag");
    assert!(rest == content(tag, length(tag)), "put {tag} came back with other bytes");
    value(tag)
}

/// Most ride in their record; some are streamed.
fn length(tag: u64) -> usize {
    match tag % 8 {
        0 => 0,
        1..=5 => 100 + tag as usize % 3000,
        6 => 20_000,
        _ => 150_000,
    }
}
