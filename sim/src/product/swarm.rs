//! Many seeds, each a cluster, a workload and faults of its own; one in twenty runs twice, because
//! a run that is not repeated exactly proves nothing.

use super::run::{Report, RunError, Setting, run};
use crate::checkers::Violation;

/// Every so many seeds one runs twice.
const TWICE_EVERY: u64 = 20;

/// Runs one seed of a swarm, and again if it is its turn.
///
/// # Errors
/// As [`run`].
pub fn run_seed(seed: u64, setting: &Setting) -> Result<Report, RunError> {
    let mut report = run(seed, setting, None)?;
    if seed.is_multiple_of(TWICE_EVERY) {
        let again = run(seed, setting, None)?;
        if let Some(before) = report.trace.parted_before(&again.trace) {
            report.violations.push(Violation {
                checker: "determinism",
                object: format!("seed {seed}"),
                at_ns: report.sim_time,
                sentence: format!("two runs of this seed part before event {before}"),
            });
        }
    }
    Ok(report)
}
