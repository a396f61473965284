//! Seeded bugs: each switches one guard of a core off, so that the simulator can show that it would
//! notice. Compiled only with the feature `mutants`, which nothing but the simulator's own feature
//! turns on; without it [`mutant!`](crate::mutant!) is its right-hand version and nothing else is in
//! the program.

/// Whether this build can switch guards off. Only builds of the simulator for that purpose can.
pub const COMPILED_IN: bool = cfg!(feature = "mutants");

/// Chooses between a guard and the bug that the guard prevents: `mutant!(M01, right, wrong)`.
#[cfg(feature = "mutants")]
#[macro_export]
macro_rules! mutant {
    ($id:ident, $right:expr, $wrong:expr) => {
        if $crate::mutant::selected($crate::mutant::Mutant::$id) { $wrong } else { $right }
    };
}

/// Chooses the guard; the bug is not compiled.
#[cfg(not(feature = "mutants"))]
#[macro_export]
macro_rules! mutant {
    ($id:ident, $right:expr, $wrong:expr) => {
        // A call, so that lints judge the code around it as they do when the bug is compiled.
        ::core::convert::identity($right)
    };
}

#[cfg(feature = "mutants")]
pub use selection::{Mutant, select, selected};

#[cfg(feature = "mutants")]
mod selection {
    use std::cell::Cell;

    /// The seeded bugs. One number may stand at several guards, which then fail together.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    pub enum Mutant {
        /// A vote or an entry of the control plane's log is promised before it is durable.
        C01,
        /// A snapshot of the control plane names a position before the one that its state has reached.
        C02,
        /// A snapshot of the control plane does not say who votes.
        C03,
        /// One signature is as good as two.
        C04,
        /// Acknowledges before the sync.
        M01,
        /// Acknowledges with too few copies, or copies in one data centre only.
        M02,
        /// Serves reads after the lease is over.
        M03,
        /// Counts the lease from the arrival of the grant.
        M04,
        /// A new primary is activated before the old one's grant has ended.
        M05,
        /// Accepts messages of an old epoch.
        M06,
        /// A store leads although it does not hold everything.
        M07,
        /// Does not wait for a member that is slow, and says so later.
        M08,
        /// Serves before its peering is done.
        M09,
        /// Brings back what a tombstone hides, because it is merely absent elsewhere.
        M11,
        /// Purges what was undeleted meanwhile.
        M13,
        /// Erases whatever version is the newest under the key.
        M14,
        /// A certificate needs no receipt of a store that is away.
        M15,
        /// The custodian mixes up whose key of a version it gives out.
        M16,
        /// A sync that failed counts as done.
        M22,
        /// An old image of a store may join.
        M24,
        /// Forgets which tokens were used when the primary changes.
        M25,
        /// A data centre counts as restored before it has caught up.
        M26,
        /// A store that still catches up leads although not all are heard that have the records with it.
        R03,
        /// Gives an exact version although its delete may be on the store and cannot be read.
        R11,
        /// Answers "not applied" without a record that seals it.
        R14,
        /// Goes on without lost stores, and without the deletes that only they had.
        R16,
        /// Whoever is primary keeps the first copy, instead of the store that was named.
        R18,
        /// Acknowledges a record before its payload has come.
        R21,
        /// Lists what some volumes answered when others did not.
        R22,
    }

    thread_local! {
        static SELECTED: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Switches one bug on in this thread, or all off.
    pub fn select(mutant: Option<Mutant>) {
        SELECTED.set(mutant);
    }

    /// Whether this bug is on in this thread.
    pub fn selected(mutant: Mutant) -> bool {
        SELECTED.get() == Some(mutant)
    }
}
