//! Objects that travel together, as a directory is put or got: a few at once, with a bar, a sum of
//! those that arrived, and every failure told.

use indicatif::ProgressBar;
use tokio::task::JoinSet;

use crate::failure::{Failure, Verdict};
use crate::{output, progress};

/// How many objects move at once.
const OBJECTS_AT_ONCE: usize = 16;

/// Objects under way, and what became of those before them.
pub(super) struct Convoy {
    under_way: JoinSet<Verdict<u64>>,
    bar: ProgressBar,
    arrived: Arrived,
    failures: Vec<Failure>,
}

/// What arrived.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Arrived {
    pub(super) objects: u64,
    pub(super) bytes: u64,
}

impl Convoy {
    /// One whose bar bears `name`. How many come is told with [`Convoy::expect`].
    pub(super) fn new(name: &str) -> Self {
        Self {
            under_way: JoinSet::new(),
            bar: progress::objects(name),
            arrived: Arrived::default(),
            failures: Vec::new(),
        }
    }

    /// So many objects more will come.
    pub(super) fn expect(&self, objects: u64) {
        self.bar.inc_length(objects);
    }

    /// Sends an object on its way, when there is room. `journey` gives its length.
    pub(super) async fn send(&mut self, journey: impl Future<Output = Verdict<u64>> + Send + 'static) {
        if self.under_way.len() >= OBJECTS_AT_ONCE {
            self.settle_one().await;
        }
        self.under_way.spawn(journey);
    }

    /// An object that cannot even begin.
    pub(super) fn fail(&mut self, failure: Failure) {
        self.failures.push(failure);
    }

    /// Waits for those under way.
    pub(super) async fn arrive(mut self) -> (Arrived, Vec<Failure>) {
        while !self.under_way.is_empty() {
            self.settle_one().await;
        }
        self.bar.finish_and_clear();
        (self.arrived, self.failures)
    }

    async fn settle_one(&mut self) {
        let Some(done) = self.under_way.join_next().await else { return };
        self.bar.inc(1);
        match done.expect("a journey does not panic") {
            Ok(bytes) => {
                self.arrived.objects += 1;
                self.arrived.bytes += bytes;
                self.bar.set_message(output::bytes(self.arrived.bytes));
            }
            Err(failure) => self.failures.push(failure),
        }
    }
}

impl Arrived {
    /// The sum in words.
    pub(super) fn in_words(self) -> String {
        format!("{}, {}", output::counted(self.objects, "object"), output::bytes(self.bytes))
    }
}

/// Tells every failure; the first one decides the exit code.
pub(super) fn all_or(failures: Vec<Failure>, what: &str) -> Verdict {
    for failure in &failures {
        output::note(&failure.message);
    }
    let count = output::counted(failures.len() as u64, "object");
    match failures.into_iter().next() {
        None => Ok(()),
        Some(first) => Err(Failure { kind: first.kind, message: format!("{count} {what}") }),
    }
}
