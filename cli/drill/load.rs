//! The load of a drill: clients in closed loops, each with keys of its own, each keeping the book of what it was
//! told. They work until the horizon, whatever happens to the cluster.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinSet;
use trefoil_client::{Client, ReadError, WriteError};
use trefoil_drill::timeline::Moment;
use trefoil_drill::{DrillFile, End, Kind, Load as Shape, Sample};
use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::message::tenant::Refusal;

use super::arrivals::Schedule;
use super::book::{Book, Entry, Value, Wrong};

/// Each client works on so many keys at most: every copy of every object is read in the end.
const KEYS_MAX: u64 = 64;

/// Of those that do not wait for each other there are many more.
const KEYS_MAX_OPEN: u64 = 4;

/// Everything that the clients of a load saw, as it grows.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) samples: Vec<Sample>,
    pub(crate) errors: Vec<Moment>,
    pub(crate) protections: BTreeSet<String>,
    pub(crate) wrong: Vec<Wrong>,
}

/// A running load.
pub(crate) struct Load {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    workers: JoinSet<Vec<(usize, Book)>>,
}

impl Load {
    /// Starts the clients of a file; their keys begin with `prefix`. Times count from `began`.
    pub(crate) fn start(file: &DrillFile, tenants: &[Client], prefix: &str, began: Instant) -> Self {
        let (seen, stop) = (Arc::<Mutex<Seen>>::default(), Arc::new(AtomicBool::new(false)));
        let mut workers = JoinSet::new();
        let horizon = Duration::from_nanos(file.horizon.0);
        let (clients, prefix, shape, noted) =
            (tenants.to_vec(), prefix.to_owned(), file.load.clone(), Arc::clone(&seen));
        let make = move |number: u32| {
            let tenant = number as usize % clients.len();
            let worker = Worker {
                number,
                client: clients[tenant].clone(),
                shape: shape.clone(),
                prefix: format!("{prefix}/{number}/"),
                draws: Draws::new(&prefix, number),
                book: Book::new(),
                seen: Arc::clone(&noted),
                began,
            };
            (tenant, worker)
        };
        if file.load.arrivals.is_empty() {
            let clients = u32::try_from(tenants.len()).unwrap_or(u32::MAX) * file.load.clients_per_tenant;
            for (tenant, worker) in (0..clients).map(make) {
                let stop = Arc::clone(&stop);
                workers.spawn(async move { vec![(tenant, worker.run(horizon, &stop).await)] });
            }
        } else {
            let schedule = Schedule { rates: file.load.arrivals.clone(), began, horizon };
            workers.spawn(schedule.run(Arc::clone(&stop), make));
        }
        Self { seen, stop, workers }
    }

    /// What was seen so far.
    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }

    /// Ends the load after the operations that are under way; gives each tenant's books and what was seen.
    pub(crate) async fn end(mut self) -> (Vec<(usize, Book)>, Seen) {
        self.stop.store(true, Ordering::SeqCst);
        let mut books = Vec::new();
        while let Some(done) = self.workers.join_next().await {
            books.extend(done.expect("a client of the load does not panic"));
        }
        let seen = std::mem::take(&mut *lock(&self.seen));
        (books, seen)
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    // Every change is one push: a panic elsewhere leaves no half of one.
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Numbers that look random and are the same for the same client of the same drill.
struct Draws(blake3::OutputReader);

impl Draws {
    fn new(prefix: &str, client: u32) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(prefix.as_bytes()).update(&client.to_le_bytes());
        Self(hasher.finalize_xof())
    }

    fn below(&mut self, bound: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes) % bound.max(1)
    }

    fn content(&mut self) -> Bytes {
        // Mostly small objects, which ride in their record, and now and then a streamed one.
        let length = match self.below(8) {
            0 => 100_000,
            1 => 20_000,
            rest => 300 * rest,
        };
        let mut bytes = vec![0; usize::try_from(length).expect("small")];
        self.0.fill(&mut bytes);
        bytes.into()
    }
}

/// What is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Put,
    Get,
    Head,
    List,
    Delete,
    Undelete,
}

impl Task {
    fn drawn(shape: &Shape, draws: &mut Draws) -> Self {
        let weights = [
            (Self::Put, shape.put),
            (Self::Get, shape.get),
            (Self::Head, shape.head),
            (Self::List, shape.list),
            (Self::Delete, shape.delete),
            (Self::Undelete, shape.undelete),
        ];
        let mut left = draws.below(weights.iter().map(|(_, weight)| weight).sum());
        for (task, weight) in weights {
            match left.checked_sub(weight) {
                None => return task,
                Some(rest) => left = rest,
            }
        }
        Self::Get
    }
}

/// One client of the load.
pub(super) struct Worker {
    number: u32,
    client: Client,
    shape: Shape,
    prefix: String,
    draws: Draws,
    book: Book,
    seen: Arc<Mutex<Seen>>,
    began: Instant,
}

impl Worker {
    async fn run(mut self, horizon: Duration, stop: &AtomicBool) -> Book {
        while self.began.elapsed() < horizon && !stop.load(Ordering::SeqCst) {
            self.operate().await;
            let think = self.draws.below(2 * self.shape.think.0);
            tokio::time::sleep(Duration::from_nanos(think)).await;
        }
        self.book
    }

    /// One operation, until its answer.
    pub(super) async fn operate(&mut self) {
        let most = if self.shape.arrivals.is_empty() { KEYS_MAX } else { KEYS_MAX_OPEN };
        let number = self.draws.below(self.shape.keys.min(most));
        let key = ObjectKey::new(format!("{}{number}", self.prefix)).expect("a valid key");
        let task = Task::drawn(&self.shape, &mut self.draws);
        self.work(task, &key).await;
    }

    /// What it was told.
    pub(super) fn into_book(self) -> Book {
        self.book
    }

    async fn work(&mut self, task: Task, key: &ObjectKey) {
        let hidden = self.book.get(key).and_then(Entry::hidden);
        match (task, hidden) {
            (Task::Put, _) => self.put(key).await,
            (Task::Delete, _) => self.delete(key).await,
            (Task::Undelete, Some((version, value))) => self.undelete(key, version, value).await,
            (Task::Head, _) => self.head(key).await,
            (Task::List, _) => self.list().await,
            (Task::Get | Task::Undelete, _) => self.get(key).await,
        }
    }

    async fn put(&mut self, key: &ObjectKey) {
        let content = self.draws.content();
        let value = Value::Content(blake3::hash(&content));
        let began = self.now();
        match self.client.put(key, content).await {
            Ok(stored) => {
                let rule = format!("{:?}", stored.receipt.protection);
                lock(&self.seen).protections.insert(rule);
                self.entry(key).acknowledge(value, stored.receipt.version);
                self.note(Kind::Writes, began, End::Answered);
            }
            Err(error) => self.failed_write(key, value, began, &error),
        }
    }

    async fn delete(&mut self, key: &ObjectKey) {
        let began = self.now();
        match self.client.delete(key).await {
            Ok(hidden) => {
                self.entry(key).acknowledge_delete(hidden.version);
                self.note(Kind::Writes, began, End::Answered);
            }
            Err(WriteError::NotFound) => self.read_as(Kind::Writes, key, Value::Absent, began),
            Err(error) => self.failed_write(key, Value::Absent, began, &error),
        }
    }

    async fn undelete(&mut self, key: &ObjectKey, version: trefoil_protocol::ids::VersionId, value: Value) {
        let began = self.now();
        match self.client.undelete(key, Some(version)).await {
            Ok(_) => {
                self.entry(key).acknowledge(value, version);
                self.note(Kind::Writes, began, End::Answered);
            }
            // Its window has passed.
            Err(WriteError::Gone) => self.note(Kind::Writes, began, End::Answered),
            Err(error) => self.failed_write(key, value, began, &error),
        }
    }

    async fn get(&mut self, key: &ObjectKey) {
        let began = self.now();
        match read(&self.client, key).await {
            Ok(value) => self.read_as(Kind::Reads, key, value, began),
            Err(error) => self.failed_read(key, began, &error),
        }
    }

    async fn head(&mut self, key: &ObjectKey) {
        let began = self.now();
        match self.client.head(key).await {
            Ok(_) => {
                let entry = self.entry(key);
                let gone = entry.must_be_listed() == Some(false);
                let wrong = gone.then(|| entry.back(format!("{key} was deleted and is described")));
                self.note(Kind::Reads, began, End::Answered);
                self.wrong(wrong);
            }
            Err(ReadError::NotFound) => self.read_as(Kind::Reads, key, Value::Absent, began),
            Err(error) => self.failed_read(key, began, &error),
        }
    }

    async fn list(&mut self) {
        let began = self.now();
        let mut listed = BTreeSet::new();
        let mut pages = self.client.list(&self.prefix);
        loop {
            match pages.next().await {
                Ok(Some(page)) => listed.extend(page.lines.into_iter().map(|line| line.key)),
                Ok(None) => break,
                Err(error) => {
                    let prefix = self.prefix.clone();
                    return self.failed(format!("list {prefix}"), Kind::Reads, began, End::Failed, &error);
                }
            }
        }
        self.note(Kind::Reads, began, End::Answered);
        let wrong: Vec<Wrong> = self
            .book
            .iter()
            .filter_map(|(key, entry)| match (entry.must_be_listed()?, listed.contains(key)) {
                (true, false) => Some(entry.lost(format!("{key} is not listed"))),
                (false, true) => Some(entry.back(format!("{key} was deleted and is listed"))),
                _ => None,
            })
            .collect();
        lock(&self.seen).wrong.extend(wrong);
    }

    /// A read was answered, or a question that implies one.
    fn read_as(&mut self, kind: Kind, key: &ObjectKey, value: Value, began: u64) {
        let wrong = self.entry(key).judge(key, value);
        self.note(kind, began, End::Answered);
        self.wrong(wrong);
    }

    fn failed_write(&mut self, key: &ObjectKey, value: Value, began: u64, error: &WriteError) {
        let end = match error {
            WriteError::Refused(Refusal::SingleDc) => End::Refused,
            WriteError::Refused(_) | WriteError::NotApplied(_) => End::Failed,
            _ => {
                self.entry(key).doubt(value);
                End::Failed
            }
        };
        self.failed(format!("change {key}"), Kind::Writes, began, end, error);
    }

    fn failed_read(&mut self, key: &ObjectKey, began: u64, error: &ReadError) {
        if matches!(error, ReadError::Integrity(_)) {
            let wrong = self.entry(key).lost(format!("{key}: {error}"));
            self.wrong(Some(wrong));
        }
        self.failed(format!("read {key}"), Kind::Reads, began, End::Failed, error);
    }

    fn failed(&self, what: String, kind: Kind, began: u64, end: End, error: &dyn std::fmt::Display) {
        let (now, client) = (self.now(), self.number);
        let waited = (now - began) / 1_000_000;
        let moment =
            Moment { at_ns: now, what: format!("client {client}: {what} after {waited} ms: {error}") };
        lock(&self.seen).errors.push(moment);
        self.note(kind, began, end);
    }

    fn note(&self, kind: Kind, began: u64, end: End) {
        let sample = Sample { client: self.number, kind, began, ended: self.now(), end };
        lock(&self.seen).samples.push(sample);
    }

    fn wrong(&self, wrong: Option<Wrong>) {
        lock(&self.seen).wrong.extend(wrong);
    }

    fn entry(&mut self, key: &ObjectKey) -> &mut Entry {
        self.book.entry(key.clone()).or_default()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// What an object is now.
pub(crate) async fn read(client: &Client, key: &ObjectKey) -> Result<Value, ReadError> {
    let mut download = match client.get(key).await {
        Err(ReadError::NotFound | ReadError::Gone) => return Ok(Value::Absent),
        other => other?,
    };
    let mut hasher = blake3::Hasher::new();
    while let Some(bytes) = download.next().await? {
        hasher.update(&bytes);
    }
    Ok(Value::Content(hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_drawn_as_often_as_it_is_asked_for() {
        let shape = Shape { put: 1, get: 3, head: 0, list: 0, delete: 0, undelete: 0, ..Shape::default() };
        let mut draws = Draws::new("d", 1);
        let drawn: Vec<Task> = (0..4_000).map(|_| Task::drawn(&shape, &mut draws)).collect();
        let puts = drawn.iter().filter(|task| **task == Task::Put).count();
        assert!((800..1_200).contains(&puts), "{puts}");
        assert!(drawn.iter().all(|task| matches!(task, Task::Put | Task::Get)));
        let again = Draws::new("d", 1).content();
        assert_eq!(again, Draws::new("d", 1).content());
        assert_ne!(again, Draws::new("d", 2).content());
    }
}
