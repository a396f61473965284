//! The client's own book of what was acknowledged: for each tenant and key, the hash of the bytes
//! that a read must give. Kept in the demo's memory, outside of everything that is being broken.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use blake3::{Hash, Hasher};
use bytes::Bytes;
use tokio::task::JoinSet;
use trefoil_client::shell::FileSource;
use trefoil_client::{Client, ReadError, Source};
use trefoil_protocol::key::ObjectKey;

use super::verdict::ReadBack;

/// Objects that are read back at once.
const READS_AT_ONCE: usize = 16;

/// Whose an object is: the tenant's place among the demo's tenants, and the key.
pub(crate) type Owned = (usize, ObjectKey);

/// What a read may give.
#[derive(Clone, Debug, Default)]
struct Entry {
    /// What was acknowledged last.
    acknowledged: Option<Hash>,
    /// What was sent since and neither acknowledged nor refused for good.
    in_doubt: Vec<Hash>,
}

/// The book; clones share it.
#[derive(Clone, Default)]
pub(crate) struct Ledger {
    entries: Arc<Mutex<BTreeMap<Owned, Entry>>>,
}

impl Ledger {
    /// A put was acknowledged.
    pub(crate) fn acknowledge(&self, owned: Owned, content: Hash) {
        self.lock().insert(owned, Entry { acknowledged: Some(content), in_doubt: Vec::new() });
    }

    /// A put ended without an answer: it may have happened.
    pub(crate) fn doubt(&self, owned: Owned, content: Hash) {
        self.lock().entry(owned).or_default().in_doubt.push(content);
    }

    /// How many objects were acknowledged.
    pub(crate) fn count(&self) -> u64 {
        self.lock().values().filter(|entry| entry.acknowledged.is_some()).count() as u64
    }

    /// Some objects of a tenant, spread over all of them.
    pub(crate) fn sample(&self, tenant: usize, count: usize) -> Vec<ObjectKey> {
        let entries = self.lock();
        let keys: Vec<&ObjectKey> = entries
            .iter()
            .filter(|((owner, _), entry)| *owner == tenant && entry.acknowledged.is_some())
            .map(|((_, key), _)| key)
            .collect();
        let stride = keys.len().div_ceil(count).max(1);
        keys.into_iter().step_by(stride).cloned().collect()
    }

    /// Reads everything back.
    pub(crate) async fn read_back(&self, clients: &[Client], progress: impl Fn(u64)) -> ReadBack {
        let entries: Vec<(Owned, Entry)> = self.lock().iter().map(|(k, e)| (k.clone(), e.clone())).collect();
        let mut result = ReadBack::default();
        let mut reading = JoinSet::new();
        let mut waiting = entries.into_iter().filter(|(_, entry)| entry.acknowledged.is_some());
        loop {
            while reading.len() < READS_AT_ONCE
                && let Some((owned, entry)) = waiting.next()
            {
                let client = clients[owned.0].clone();
                reading.spawn(async move { (read(&client, &owned.1).await, owned, entry) });
            }
            let Some(done) = reading.join_next().await else { break };
            let (content, owned, entry) = done.expect("a read does not panic");
            result.acknowledged += 1;
            progress(result.acknowledged);
            match content {
                Ok(content) if entry.allows(&content) => {}
                Ok(_) => result.lost.push(format!("{} holds other bytes", owned.1)),
                Err(ReadError::NotFound | ReadError::Gone) => {
                    result.lost.push(format!("{} is not there", owned.1))
                }
                Err(error) => result.unreadable.push(format!("{}: {error}", owned.1)),
            }
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Owned, Entry>> {
        // Entries are inserted whole: a panic elsewhere leaves no half of one.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn allows(&self, content: &Hash) -> bool {
        self.acknowledged.as_ref() == Some(content) || self.in_doubt.contains(content)
    }
}

/// The hash of an object's plaintext, read whole.
pub(crate) async fn read(client: &Client, key: &ObjectKey) -> Result<Hash, ReadError> {
    let mut download = client.get(key).await?;
    let mut hasher = Hasher::new();
    while let Some(bytes) = download.next().await? {
        hasher.update(&bytes);
    }
    Ok(hasher.finalize())
}

/// A file that is hashed while it is sent, so that the book holds what was sent even if the file
/// changes meanwhile.
pub(crate) struct HashedFile {
    file: FileSource,
    hasher: Arc<Mutex<Hasher>>,
}

impl HashedFile {
    /// Wraps a file; the second value tells the hash when the put is done.
    pub(crate) fn new(file: FileSource) -> (Self, Arc<Mutex<Hasher>>) {
        let hasher = Arc::new(Mutex::new(Hasher::new()));
        (Self { file, hasher: Arc::clone(&hasher) }, hasher)
    }

    fn lock(&self) -> MutexGuard<'_, Hasher> {
        self.hasher.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for HashedFile {
    async fn next(&mut self) -> io::Result<Bytes> {
        let bytes = self.file.next().await?;
        self.lock().update(&bytes);
        Ok(bytes)
    }

    fn is_repeatable(&self) -> bool {
        self.file.is_repeatable()
    }

    async fn rewind(&mut self) -> io::Result<()> {
        self.lock().reset();
        self.file.rewind().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(key: &str) -> Owned {
        (0, ObjectKey::new(key.to_owned()).unwrap())
    }

    #[test]
    fn a_read_must_give_what_was_acknowledged_or_is_in_doubt() {
        let [first, second, third] = [b"1", b"2", b"3"].map(|text| blake3::hash(text));
        let ledger = Ledger::default();
        ledger.acknowledge(owned("k"), first);
        ledger.doubt(owned("k"), second);
        let entry = ledger.lock()[&owned("k")].clone();
        assert!(entry.allows(&first) && entry.allows(&second) && !entry.allows(&third));
        ledger.acknowledge(owned("k"), third);
        let entry = ledger.lock()[&owned("k")].clone();
        assert!(entry.allows(&third) && !entry.allows(&first) && !entry.allows(&second));
    }

    #[test]
    fn what_was_never_acknowledged_is_not_counted() {
        let ledger = Ledger::default();
        ledger.doubt(owned("k"), blake3::hash(b"1"));
        assert_eq!(ledger.count(), 0);
        assert!(ledger.sample(0, 5).is_empty());
        for n in 0..100 {
            ledger.acknowledge(owned(&format!("{n}")), blake3::hash(b"1"));
        }
        assert_eq!((ledger.count(), ledger.sample(0, 10).len()), (100, 10));
    }
}
