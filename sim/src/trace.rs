//! The trace: a running 128-bit hash of every event and decision, with checkpoints, and if asked
//! for a file with one line per event.
//!
//! The hash proves that two runs were one and the same run; the checkpoints say where two runs
//! parted. Writing the file must never change the hash.

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

pub use trefoil_drill::Seconds;

/// A checkpoint of the hash is kept after every so many events.
pub const CHECKPOINT_EVENTS: u64 = 10_000;

/// Bytes gathered before blake3 sees them; it is several times faster on whole chunks.
const BATCH_BYTES: usize = 16 * 1024;

/// Something that enters the trace hash.
pub trait Traced: Debug {
    /// Feeds everything that tells this event from another one.
    fn digest(&self, digest: &mut Digest);
}

/// Where bytes of the trace are gathered for hashing.
#[derive(Debug)]
pub struct Digest {
    hasher: blake3::Hasher,
    batch: Vec<u8>,
}

impl Digest {
    fn new() -> Self {
        Self { hasher: blake3::Hasher::new(), batch: Vec::with_capacity(2 * BATCH_BYTES) }
    }

    /// Feeds one number.
    pub fn word(&mut self, word: u64) {
        self.batch.extend_from_slice(&word.to_le_bytes());
    }

    /// Feeds bytes, their count first, so that no two sequences run together.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        self.batch.extend_from_slice(bytes);
    }

    fn flush_full_batch(&mut self) {
        if self.batch.len() >= BATCH_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.hasher.update(&self.batch);
        self.batch.clear();
    }

    fn value(&mut self) -> TraceHash {
        self.flush();
        let whole = self.hasher.finalize();
        let mut half = [0; 16];
        half.copy_from_slice(&whole.as_bytes()[..16]);
        TraceHash(u128::from_be_bytes(half))
    }
}

/// 128 bits that name a run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TraceHash(pub u128);

impl std::fmt::Display for TraceHash {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

impl Debug for TraceHash {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{self}")
    }
}

/// What remains of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceSummary {
    /// The hash of everything.
    pub hash: TraceHash,
    /// How many events were taken.
    pub events: u64,
    /// The hash after each [`CHECKPOINT_EVENTS`] events.
    pub checkpoints: Vec<TraceHash>,
}

impl TraceSummary {
    /// The first checkpoint at which two runs differ: they parted in the events before it.
    #[must_use]
    pub fn parted_before(&self, other: &Self) -> Option<u64> {
        let same = self.checkpoints.iter().zip(&other.checkpoints).take_while(|(a, b)| a == b);
        let checkpoint = same.count() as u64;
        (self.hash != other.hash).then_some((checkpoint + 1) * CHECKPOINT_EVENTS)
    }
}

/// The running trace.
#[derive(Debug)]
pub struct Trace {
    digest: Digest,
    events: u64,
    checkpoints: Vec<TraceHash>,
    lines: Option<BufWriter<File>>,
}

impl Trace {
    /// A trace that only hashes.
    #[must_use]
    pub fn silent() -> Self {
        Self { digest: Digest::new(), events: 0, checkpoints: Vec::new(), lines: None }
    }

    /// A trace that also writes one line per event and decision.
    ///
    /// # Errors
    /// If the file cannot be created.
    pub fn written_to(path: &Path) -> io::Result<Self> {
        let lines = BufWriter::new(File::create(path)?);
        Ok(Self { lines: Some(lines), ..Self::silent() })
    }

    /// How many events were taken.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    pub(crate) fn event<E: Traced>(&mut self, at: u64, tie: u64, event: &E) {
        self.digest.word(at);
        self.digest.word(tie);
        event.digest(&mut self.digest);
        self.digest.flush_full_batch();
        self.events += 1;
        if self.lines.is_some() {
            self.write_line(format_args!("{} {event:?}", Seconds(at)));
        }
        if self.events.is_multiple_of(CHECKPOINT_EVENTS) {
            let checkpoint = self.digest.value();
            self.checkpoints.push(checkpoint);
        }
    }

    pub(crate) fn decision(&mut self, at: u64, label: &'static str, value: u64) {
        self.digest.bytes(label.as_bytes());
        self.digest.word(value);
        if self.lines.is_some() {
            self.write_line(format_args!("{}   decided {label} = {value}", Seconds(at)));
        }
    }

    fn write_line(&mut self, line: std::fmt::Arguments<'_>) {
        if let Some(lines) = &mut self.lines {
            // A trace that cannot be written is a broken tool, not a verdict about the cluster.
            writeln!(lines, "{line}").expect("the trace file takes another line");
        }
    }

    pub(crate) fn finish(mut self) -> TraceSummary {
        if let Some(lines) = &mut self.lines {
            lines.flush().expect("the trace file takes its last lines");
        }
        let hash = self.digest.value();
        TraceSummary { hash, events: self.events, checkpoints: self.checkpoints }
    }
}

#[cfg(test)]
mod tests {
    use super::{CHECKPOINT_EVENTS, Digest, Trace, Traced};

    #[derive(Debug)]
    struct Beat(u64);

    impl Traced for Beat {
        fn digest(&self, digest: &mut Digest) {
            digest.word(self.0);
        }
    }

    #[test]
    fn checkpoints_tell_where_two_runs_parted() {
        let run = |odd: u64| {
            let mut trace = Trace::silent();
            for beat in 0..3 * CHECKPOINT_EVENTS {
                trace.event(beat, 0, &Beat(if beat == odd { 77 } else { 0 }));
            }
            trace.finish()
        };
        let (plain, other) = (run(u64::MAX), run(CHECKPOINT_EVENTS + 5));
        assert_eq!(plain.checkpoints.len(), 3);
        assert_eq!(plain.parted_before(&other), Some(2 * CHECKPOINT_EVENTS));
        assert_eq!(plain.parted_before(&run(u64::MAX)), None);
    }

    #[test]
    fn writing_the_trace_does_not_change_its_hash() {
        let path = std::env::temp_dir().join(format!("trefoil-trace-{}", std::process::id()));
        let mut written = Trace::written_to(&path).expect("the temporary directory is writable");
        let mut silent = Trace::silent();
        for trace in [&mut written, &mut silent] {
            trace.event(1, 2, &Beat(3));
            trace.decision(1, "drop", 4);
        }
        assert_eq!(written.finish(), silent.finish());
        let text = std::fs::read_to_string(&path).expect("the trace was written");
        std::fs::remove_file(&path).expect("the trace can be removed");
        assert_eq!(text, "    0.000000001 Beat(3)\n    0.000000001   decided drop = 4\n");
    }
}
