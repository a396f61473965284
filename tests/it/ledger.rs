//! A book of acknowledged writes, kept by writers that never stop while a test breaks things, and
//! read back at the end: nothing that was acknowledged may be missing, older or different.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use trefoil_client::{Client, FailureKind};

use crate::outside::{Outside, PATIENCE};
use crate::storing::{content, key};

/// How many operations are under way at once.
const WRITERS: u64 = 6;

/// Keys of one writer; they are written over and over.
const KEYS: u64 = 40;

/// What is known of one key.
#[derive(Default)]
struct Entry {
    /// The content acknowledged last; `None` after an acknowledged delete or before the first put.
    acknowledged: Option<u64>,
    /// What was sent since and got no answer: it may have happened or not.
    in_doubt: Vec<Option<u64>>,
}

/// What the writers share.
#[derive(Default)]
struct Book {
    entries: BTreeMap<String, Entry>,
    acknowledged: u64,
    failed: Vec<String>,
    longest: Duration,
}

/// Writers at work.
pub(crate) struct Load {
    book: Arc<Mutex<Book>>,
    stop: Arc<AtomicBool>,
    writers: JoinSet<()>,
}

impl Load {
    /// Starts writing. Must be called in a runtime.
    fn start(client: &Client) -> Self {
        let (book, stop) = (Arc::default(), Arc::default());
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            writers.spawn(write(client.clone(), writer, Arc::clone(&book), Arc::clone(&stop)));
        }
        Self { book, stop, writers }
    }

    /// Starts writing and waits for so many acknowledgements.
    pub(crate) fn at_work(cluster: &Outside, client: &Client, operations: u64) -> Self {
        cluster.block_on(async {
            let load = Self::start(client);
            load.goes_on(operations).await;
            load
        })
    }

    /// How many operations were acknowledged.
    fn acknowledged(&self) -> u64 {
        self.book.lock().unwrap().acknowledged
    }

    /// Waits until so many more operations were acknowledged.
    pub(crate) async fn goes_on(&self, operations: u64) {
        let (began, goal) = (Instant::now(), self.acknowledged() + operations);
        while self.acknowledged() < goal {
            assert!(began.elapsed() < PATIENCE, "the load stands still");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends the load and gives the book.
    pub(crate) async fn stop(mut self) -> Ledger {
        self.stop.store(true, Ordering::SeqCst);
        while let Some(ended) = self.writers.join_next().await {
            ended.unwrap();
        }
        Ledger(self.book)
    }

    /// Drops the writers in the middle of what they do, as the death of their process would: what is
    /// under way is in doubt.
    pub(crate) fn abandon(self) -> Ledger {
        Ledger(self.book)
    }
}

/// One writer: puts of all sizes, and a delete now and then.
async fn write(client: Client, writer: u64, book: Arc<Mutex<Book>>, stop: Arc<AtomicBool>) {
    for round in 0.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let name = format!("load/{writer}/{}", round % KEYS);
        let seed = writer << 32 | round;
        let wanted = (round % 11 != 7).then_some(seed);
        // In doubt from the moment it is sent; an acknowledgement settles that.
        book.lock().unwrap().entries.entry(name.clone()).or_default().in_doubt.push(wanted);
        let began = Instant::now();
        let done = match wanted {
            Some(seed) => client.put(&key(&name), content(seed, length(seed))).await.map(drop),
            None => client.delete(&key(&name)).await.map(drop),
        };
        let mut book = book.lock().unwrap();
        book.longest = book.longest.max(began.elapsed());
        match done {
            Ok(()) => {
                book.acknowledged += 1;
                book.entries.insert(name, Entry { acknowledged: wanted, in_doubt: Vec::new() });
            }
            Err(error) if error.kind() == FailureKind::NotFound => {
                let entry = book.entries.get_mut(&name).expect("entered above");
                entry.in_doubt.pop();
                if entry.acknowledged.is_some() && entry.in_doubt.iter().all(Option::is_some) {
                    book.failed.push(format!("{name}: there was nothing to delete"));
                }
            }
            Err(error) => book.failed.push(format!("{name}: {error}")),
        }
    }
}

/// Mostly small objects, some of several leaves.
fn length(seed: u64) -> usize {
    match seed % 10 {
        0 => 0,
        1..=6 => 1000 + seed as usize % 9000,
        7 | 8 => 40_000 + seed as usize % 60_000,
        _ => 400_000,
    }
}

/// The book of a load that has ended.
pub(crate) struct Ledger(Arc<Mutex<Book>>);

impl Ledger {
    /// No operation failed; tells how many were acknowledged and what the longest took.
    #[track_caller]
    pub(crate) fn none_failed(&self) -> (u64, Duration) {
        let book = self.0.lock().unwrap();
        assert!(book.failed.is_empty(), "{} failed: {:?}", book.failed.len(), book.failed.first());
        (book.acknowledged, book.longest)
    }

    /// Reads every key and compares.
    pub(crate) async fn nothing_is_lost(&self, client: &Client) -> usize {
        let entries = std::mem::take(&mut self.0.lock().unwrap().entries);
        let mut lost = Vec::new();
        let count = entries.len();
        for (name, entry) in entries {
            let read = match client.get(&key(&name)).await {
                Ok(download) => download.bytes().await.map(Some),
                Err(error) if error.kind() == FailureKind::NotFound => Ok(None),
                Err(error) => Err(error),
            };
            let allowed = entry.in_doubt.iter().chain([&entry.acknowledged]);
            let is = |seed: &Option<u64>, bytes: &Option<bytes::Bytes>| match (seed, bytes) {
                (Some(seed), Some(bytes)) => *bytes == content(*seed, length(*seed)),
                (None, None) => true,
                _ => false,
            };
            match read {
                Ok(bytes) if allowed.into_iter().any(|seed| is(seed, &bytes)) => {}
                Ok(bytes) => lost.push(format!("{name}: {:?} bytes", bytes.map(|bytes| bytes.len()))),
                Err(error) => lost.push(format!("{name}: {error}")),
            }
        }
        assert!(lost.is_empty(), "lost: {lost:?}");
        count
    }
}
