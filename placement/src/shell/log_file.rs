//! The log in a redb file. redb keeps transactions whole but does not check what it reads, so each
//! value carries a hash of its own, bound to its key; a value that does not match is an error that
//! says where, never a shorter history.
//!
//! | table | key | value |
//! |---|---|---|
//! | `entries` | index | hash (8 bytes), CBOR of [`LogEntry`] |
//! | `log` | `hard_state`, `snapshot` | hash (8 bytes), CBOR |

use std::fs::File;
use std::path::Path;

use minicbor::{Decode, Encode};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use trefoil_protocol::codec;

use crate::log_store::{HardState, LogBatch, LogEntry, LogSnapshot, LogStore, LogStoreError, StoredLog};

const ENTRIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("entries");
const LOG: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("log");
const HARD_STATE: &str = "hard_state";
const SNAPSHOT: &str = "snapshot";
const HASH_LENGTH: usize = 8;

/// A voter's log on disk.
pub struct LogFile {
    database: Database,
    written: Vec<LogBatch>,
}

impl LogFile {
    /// Opens the file or makes it.
    ///
    /// # Errors
    /// When the file cannot be used, or its structure is damaged.
    pub fn open(path: &Path) -> Result<Self, LogStoreError> {
        let mut database = Database::create(path).map_err(failed("read"))?;
        database.check_integrity().map_err(failed("read"))?;
        // The file's name must be as durable as what will be in it.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or_else(|| Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("synced"))?;
        let log = Self { database, written: Vec::new() };
        log.commit(Vec::new())?;
        Ok(log)
    }

    fn commit(&self, batches: Vec<LogBatch>) -> Result<(), LogStoreError> {
        let transaction = self.database.begin_write().map_err(failed("written"))?;
        {
            let mut entries = transaction.open_table(ENTRIES).map_err(failed("written"))?;
            let mut log = transaction.open_table(LOG).map_err(failed("written"))?;
            for batch in batches {
                if let Some(snapshot) = &batch.snapshot {
                    let keep = |index, _: &[u8]| index > snapshot.index && !batch.drops_entries;
                    entries.retain(keep).map_err(failed("written"))?;
                    let value = seal(SNAPSHOT.as_bytes(), snapshot);
                    log.insert(SNAPSHOT, value.as_slice()).map_err(failed("written"))?;
                }
                if let Some(first) = batch.entries.first() {
                    entries.retain_in(first.index.., |_, _| false).map_err(failed("written"))?;
                }
                for entry in &batch.entries {
                    let value = seal(&entry.index.to_le_bytes(), entry);
                    entries.insert(entry.index, value.as_slice()).map_err(failed("written"))?;
                }
                if let Some(hard_state) = &batch.hard_state {
                    let value = seal(HARD_STATE.as_bytes(), hard_state);
                    log.insert(HARD_STATE, value.as_slice()).map_err(failed("written"))?;
                }
            }
        }
        transaction.commit().map_err(failed("synced"))
    }

    fn load_entries(&self, snapshot: &LogSnapshot) -> Result<Vec<LogEntry>, LogStoreError> {
        let transaction = self.database.begin_read().map_err(failed("read"))?;
        let table = transaction.open_table(ENTRIES).map_err(failed("read"))?;
        let mut entries = Vec::new();
        for (expected, row) in (snapshot.index + 1..).zip(table.iter().map_err(failed("read"))?) {
            let (key, value) = row.map_err(failed("read"))?;
            let entry: LogEntry =
                open(&key.value().to_le_bytes(), value.value(), || format!("entry {expected}"))?;
            if entry.index != expected || key.value() != expected {
                let got = key.value();
                return Err(LogStoreError::Damaged(format!("entry {expected} is missing, {got} follows")));
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn load_value<T: for<'b> Decode<'b, ()>>(&self, name: &str) -> Result<Option<T>, LogStoreError> {
        let transaction = self.database.begin_read().map_err(failed("read"))?;
        let table = transaction.open_table(LOG).map_err(failed("read"))?;
        let value = table.get(name).map_err(failed("read"))?;
        value.map(|value| open(name.as_bytes(), value.value(), || name.to_owned())).transpose()
    }
}

impl LogStore for LogFile {
    fn load(&self) -> Result<Option<StoredLog>, LogStoreError> {
        let Some(snapshot) = self.load_value::<LogSnapshot>(SNAPSHOT)? else { return Ok(None) };
        let hard_state: Option<HardState> = self.load_value(HARD_STATE)?;
        let hard_state =
            hard_state.ok_or_else(|| LogStoreError::Damaged("hard_state is missing".to_owned()))?;
        let entries = self.load_entries(&snapshot)?;
        Ok(Some(StoredLog { hard_state, snapshot, entries }))
    }

    fn write(&mut self, batch: LogBatch) -> Result<(), LogStoreError> {
        self.written.push(batch);
        Ok(())
    }

    /// One transaction: after a crash all of it is there or nothing.
    fn sync(&mut self) -> Result<(), LogStoreError> {
        let written = std::mem::take(&mut self.written);
        self.commit(written)
    }
}

fn failed<E: std::fmt::Display>(action: &'static str) -> impl Fn(E) -> LogStoreError {
    move |error| LogStoreError::Failed { action, reason: error.to_string() }
}

fn seal<T: Encode<()>>(key: &[u8], value: &T) -> Vec<u8> {
    let encoded = codec::to_vec(value);
    [hash(key, &encoded).as_slice(), encoded.as_slice()].concat()
}

fn open<T: for<'b> Decode<'b, ()>>(
    key: &[u8],
    value: &[u8],
    what: impl Fn() -> String,
) -> Result<T, LogStoreError> {
    let damaged = |reason: &dyn std::fmt::Display| LogStoreError::Damaged(format!("{}: {reason}", what()));
    let (stored, encoded) =
        value.split_first_chunk::<HASH_LENGTH>().ok_or_else(|| damaged(&"shorter than its hash"))?;
    if *stored != hash(key, encoded) {
        return Err(damaged(&"its hash does not match"));
    }
    codec::from_slice(encoded).map_err(|error| damaged(&error))
}

fn hash(key: &[u8], encoded: &[u8]) -> [u8; HASH_LENGTH] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(encoded);
    hasher.finalize().as_bytes()[..HASH_LENGTH].try_into().expect("a hash is longer")
}
