//! Seeded bugs: each switches one guard off, so that the simulator can show that it would notice.
//! Compiled only with the feature `mutants`; without it [`mutant!`] is its right-hand version and
//! nothing else is in the program.

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

pub use crate::mutant;

#[cfg(feature = "mutants")]
pub use selection::{Mutant, select, selected};

#[cfg(feature = "mutants")]
mod selection {
    use std::cell::Cell;

    /// The seeded bugs of this crate.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    pub enum Mutant {
        /// Acknowledges before the sync.
        M01,
        /// Acknowledges with too few copies, or copies in one data centre only.
        M02,
        /// Serves reads after the lease is over.
        M03,
        /// Counts the lease from the arrival of the grant.
        M04,
        /// Accepts messages of an old epoch.
        M06,
        /// Leads although its copy is not complete.
        M07,
        /// Serves before its peering is done.
        M09,
        /// Brings back what a tombstone hides, because it is merely absent elsewhere.
        M11,
        /// Purges what was undeleted meanwhile.
        M13,
        /// Forgets which tokens were used when the primary changes.
        M25,
    }

    impl Mutant {
        /// Every seeded bug of this crate.
        pub const ALL: [Self; 10] = [
            Self::M01,
            Self::M02,
            Self::M03,
            Self::M04,
            Self::M06,
            Self::M07,
            Self::M09,
            Self::M11,
            Self::M13,
            Self::M25,
        ];
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
