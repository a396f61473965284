//! Writers that never stop while things are broken: each puts, reads back at once, and books what
//! was acknowledged. What they saw between two moments is what the verdicts judge.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinSet;
use trefoil_client::{Client, WriteError};
use trefoil_protocol::key::ObjectKey;

use super::ledger::{Ledger, read};
use super::verdict::Window;

/// Writers of each tenant.
const WRITERS_EACH: usize = 4;

/// Keys that a writer goes round; old ones are overwritten.
const KEYS_EACH: u64 = 100;

/// A writer rests this long between operations: the demo shows pauses, not speed.
const REST: Duration = Duration::from_millis(15);

/// Operations that every writer must have ended after a fault before the fault is judged: enough to
/// have reached every volume of its tenant.
const OPERATIONS_AFTER: u64 = 24;

/// The running load.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    samples: Arc<Mutex<Vec<Sample>>>,
    writers: JoinSet<()>,
    count: usize,
}

/// What the writers of a load saw.
pub(crate) struct Samples(Arc<Mutex<Vec<Sample>>>);

impl Samples {
    /// What ended after `since`.
    pub(crate) fn window(&self, since: Instant) -> Window {
        window(&lock(&self.0), since)
    }
}

/// One operation.
#[derive(Clone, Debug)]
struct Sample {
    writer: usize,
    began: Instant,
    ended: Instant,
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Fine,
    Failed(String),
    Stale(String),
}

impl Load {
    /// Starts writing for every tenant. Loads of different rounds write different bytes.
    pub(crate) fn start(clients: &[Client], ledger: &Ledger, round: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let samples = Arc::new(Mutex::new(Vec::new()));
        let mut writers = JoinSet::new();
        for (tenant, client) in clients.iter().enumerate() {
            for number in 0..WRITERS_EACH {
                let writer = Writer {
                    id: tenant * WRITERS_EACH + number,
                    tenant,
                    client: client.clone(),
                    ledger: ledger.clone(),
                    samples: Arc::clone(&samples),
                    stop: Arc::clone(&stop),
                    round,
                };
                writers.spawn(writer.run());
            }
        }
        Self { stop, samples, count: writers.len(), writers }
    }

    /// Waits until every writer has ended enough operations that began after `fault`.
    pub(crate) async fn passed(&self, fault: Instant, patience: Duration) -> bool {
        let began = Instant::now();
        while began.elapsed() < patience {
            if (0..self.count).all(|writer| self.ended_since(writer, fault) >= OPERATIONS_AFTER) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    }

    fn ended_since(&self, writer: usize, since: Instant) -> u64 {
        let samples = lock(&self.samples);
        samples.iter().filter(|sample| sample.writer == writer && sample.began >= since).count() as u64
    }

    /// What the writers see; still there when they have stopped.
    pub(crate) fn samples(&self) -> Samples {
        Samples(Arc::clone(&self.samples))
    }

    /// Ends the load after the operations that are under way.
    pub(crate) async fn stop(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        while self.writers.join_next().await.is_some() {}
    }
}

fn window(samples: &[Sample], since: Instant) -> Window {
    let mut window = Window::default();
    for sample in samples.iter().filter(|sample| sample.ended >= since) {
        window.operations += 1;
        window.slowest = window.slowest.max(sample.ended - sample.began);
        match &sample.outcome {
            Outcome::Fine => {}
            Outcome::Failed(reason) => window.failed.push(reason.clone()),
            Outcome::Stale(key) => window.stale.push(key.clone()),
        }
    }
    window
}

fn lock(samples: &Mutex<Vec<Sample>>) -> MutexGuard<'_, Vec<Sample>> {
    samples.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Writer {
    id: usize,
    tenant: usize,
    client: Client,
    ledger: Ledger,
    samples: Arc<Mutex<Vec<Sample>>>,
    stop: Arc<AtomicBool>,
    round: u64,
}

impl Writer {
    async fn run(self) {
        let mut number = 0;
        while !self.stop.load(Ordering::SeqCst) {
            let key =
                ObjectKey::new(format!("load/{}/{}", self.id, number % KEYS_EACH)).expect("a valid key");
            let seed = self.round << 48 | (self.id as u64) << 32 | number;
            let content = content(seed, length(number));
            self.put(&key, content).await;
            number += 1;
            tokio::time::sleep(REST).await;
        }
    }

    /// Puts and, once acknowledged, reads back: nobody else writes this key, so the read must give
    /// exactly that.
    async fn put(&self, key: &ObjectKey, content: Bytes) {
        let hash = blake3::hash(&content);
        let owned = (self.tenant, key.clone());
        let began = Instant::now();
        match self.client.put(key, content).await {
            Ok(_) => self.ledger.acknowledge(owned, hash),
            Err(error) => {
                // Only what is known not to have happened is not in doubt.
                if !matches!(error, WriteError::NotApplied(_) | WriteError::Refused(_)) {
                    self.ledger.doubt(owned, hash);
                }
                return self.note(began, Outcome::Failed(format!("put {key}: {error}")));
            }
        }
        self.note(began, Outcome::Fine);
        let began = Instant::now();
        let outcome = match read(&self.client, key).await {
            Ok(content) if content == hash => Outcome::Fine,
            Ok(_) => Outcome::Stale(key.to_string()),
            Err(error) => Outcome::Failed(format!("get {key}: {error}")),
        };
        self.note(began, outcome);
    }

    fn note(&self, began: Instant, outcome: Outcome) {
        lock(&self.samples).push(Sample { writer: self.id, began, ended: Instant::now(), outcome });
    }
}

/// Mostly small objects, which ride in their record, and now and then a streamed one.
fn length(number: u64) -> usize {
    match number % 8 {
        0 => 100_000,
        1 => 20_000,
        2 => 0,
        rest => 300 * usize::try_from(rest).expect("below 8"),
    }
}

/// Bytes that no compression and no accident gives twice.
pub(crate) fn content(seed: u64, length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_holds_what_ended_in_it_however_early_it_began() {
        let base = Instant::now();
        let sample = |began: u64, ended: u64, outcome: Outcome| Sample {
            writer: 0,
            began: base + Duration::from_secs(began),
            ended: base + Duration::from_secs(ended),
            outcome,
        };
        let samples = [
            sample(0, 1, Outcome::Failed("before".into())),
            sample(1, 9, Outcome::Fine),
            sample(9, 10, Outcome::Stale("k".into())),
        ];
        let seen = window(&samples, base + Duration::from_secs(5));
        assert_eq!((seen.operations, seen.slowest), (2, Duration::from_secs(8)));
        assert_eq!((seen.failed.len(), seen.stale.len()), (0, 1));
    }
}
