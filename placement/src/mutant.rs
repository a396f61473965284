//! Seeded bugs: each switches one guard off, so that the simulator can show that it would notice.
//! Compiled only with the feature `mutants`; without it [`mutant!`](crate::mutant!) is its right-hand
//! version and nothing else is in the program.

/// Whether this build can switch guards off. Only builds of the simulator for that purpose can.
pub const COMPILED_IN: bool = cfg!(feature = "mutants");

/// Chooses between a guard and the bug that the guard prevents: `mutant!(M05, right, wrong)`.
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

pub(crate) use crate::mutant;

#[cfg(feature = "mutants")]
pub use selection::{Mutant, select, selected};

#[cfg(feature = "mutants")]
mod selection {
    use std::cell::Cell;

    /// The seeded bugs of this crate.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    pub enum Mutant {
        /// A new primary is activated before the old one's grant has ended.
        M05,
        /// A store that does not hold everything may lead.
        M07,
        /// A certificate needs no receipt of a store that is away.
        M15,
        /// The custodian mixes up whose key of a version it gives out.
        M16,
        /// An old image of a store may join.
        M24,
        /// A data centre counts as restored before it has caught up.
        M26,
    }

    impl Mutant {
        /// Every seeded bug of this crate.
        pub const ALL: [Self; 6] = [Self::M05, Self::M07, Self::M15, Self::M16, Self::M24, Self::M26];
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
