//! Makes a failing run smaller: fewer faults, less load, less time, until nothing can be left out
//! without the failure going away. Faults and load are data, and every draw is keyed, so what is left
//! meets the same world.
//!
//! A smaller run counts only if the same checker fires in it; another failure is another failure.

use super::run::{RunError, Setting, run};
use crate::faults::{FaultPlan, Trigger};
use crate::kernel::SECOND;
use crate::workload::Weights;

/// What is being looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The seed.
    pub seed: u64,
    /// The checker that fires.
    pub checker: String,
}

/// Why there is nothing to shrink.
#[derive(Debug, thiserror::Error)]
pub enum ShrinkError {
    /// The run is clean.
    #[error("no checker fires: there is nothing to shrink")]
    Clean,
    /// It cannot be run.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// How it goes on, for whoever watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Runs so far.
    pub runs: u64,
    /// Faults that are left.
    pub faults: usize,
}

/// Looks for what fires.
///
/// # Errors
/// If nothing does.
pub fn aim(seed: u64, setting: &Setting) -> Result<Target, ShrinkError> {
    // What fires on the way is reached sooner, and oftener, than what fires in the end.
    let hurried = Setting { ends_at_first: true, ..setting.clone() };
    let report = run(seed, &hurried, None)?;
    let first = report.violations.iter().min_by_key(|violation| violation.at_ns).ok_or(ShrinkError::Clean)?;
    Ok(Target { seed, checker: first.checker.to_owned() })
}

/// The smallest setting found in at most `runs_max` runs.
///
/// # Errors
/// If a run cannot be begun.
pub fn shrink(
    target: &Target,
    setting: &Setting,
    runs_max: u64,
    watch: impl FnMut(Step),
) -> Result<Setting, ShrinkError> {
    let mut shrinker = Shrinker { target, best: setting.clone(), runs: 0, runs_max, watch };
    shrinker.offer(Setting { ends_at_first: true, ..setting.clone() })?;
    // The load first: every later run is cheaper by it.
    loop {
        let before = shrinker.best.clone();
        shrinker.load()?;
        shrinker.faults()?;
        shrinker.time()?;
        if shrinker.best == before || shrinker.runs >= runs_max {
            return Ok(shrinker.best);
        }
    }
}

struct Shrinker<'t, W> {
    target: &'t Target,
    best: Setting,
    runs: u64,
    runs_max: u64,
    watch: W,
}

impl<W: FnMut(Step)> Shrinker<'_, W> {
    /// Takes a candidate over if it still fails.
    fn offer(&mut self, candidate: Setting) -> Result<bool, RunError> {
        if candidate == self.best || self.runs >= self.runs_max {
            return Ok(false);
        }
        self.runs += 1;
        (self.watch)(Step { runs: self.runs, faults: self.best.plan.faults.len() });
        let report = run(self.target.seed, &candidate, None)?;
        let fires = report.violations.iter().any(|violation| violation.checker == self.target.checker);
        if fires {
            self.best = candidate;
        }
        Ok(fires)
    }

    fn load(&mut self) -> Result<(), RunError> {
        let one_tenant = |setting: &mut Setting| setting.shape.tenants.truncate(1);
        let one_client = |setting: &mut Setting| setting.shape.clients_per_tenant = 1;
        let one_volume = |setting: &mut Setting| setting.volumes = 1;
        let one_key = |setting: &mut Setting| setting.shape.keys = 1;
        let fewer_keys = |setting: &mut Setting| setting.shape.keys = setting.shape.keys.div_ceil(2);
        let no_drift = |setting: &mut Setting| setting.rate_ppm_max = 0;
        let slower = |setting: &mut Setting| setting.shape.think_mean *= 2;
        let changes: [&dyn Fn(&mut Setting); 7] =
            [&one_tenant, &one_client, &one_volume, &one_key, &fewer_keys, &no_drift, &slower];
        for change in changes {
            let mut candidate = self.best.clone();
            change(&mut candidate);
            self.offer(candidate)?;
        }
        for kind in 0..6 {
            let mut candidate = self.best.clone();
            silence(&mut candidate.shape.weights, kind);
            if candidate.shape.weights.put > 0 {
                self.offer(candidate)?;
            }
        }
        Ok(())
    }

    /// Delta debugging: ever smaller parts of the plan are left out.
    fn faults(&mut self) -> Result<(), RunError> {
        let mut parts = 2;
        while self.best.plan.faults.len() > 1 || parts == 2 {
            let count = self.best.plan.faults.len();
            let part = count.div_ceil(parts).max(1);
            let mut smaller = false;
            for first in (0..count).step_by(part) {
                smaller = self.offer(without(&self.best, first, part))?;
                if smaller {
                    break;
                }
            }
            match (smaller, part) {
                (true, _) => parts = 2.max(parts - 1),
                (false, 1) => return Ok(()),
                (false, _) => parts = (parts * 2).min(count),
            }
            if count == 0 {
                return Ok(());
            }
        }
        Ok(())
    }

    /// A shorter run, and times that are easier to read.
    fn time(&mut self) -> Result<(), RunError> {
        for horizon in [self.best.horizon / 2, self.best.horizon * 3 / 4] {
            let horizon = horizon / SECOND * SECOND;
            if horizon > 0 {
                self.offer(Setting { horizon, ..self.best.clone() })?;
            }
        }
        for unit in [SECOND, SECOND / 10] {
            for number in 0..self.best.plan.faults.len() {
                let mut candidate = self.best.clone();
                if let Trigger::At(at) = &mut candidate.plan.faults[number].trigger {
                    at.0 = at.0 / unit * unit;
                    self.offer(candidate)?;
                }
            }
        }
        Ok(())
    }
}

fn without(setting: &Setting, first: usize, count: usize) -> Setting {
    let outside = |(number, _): &(usize, &crate::faults::Fault)| *number < first || *number >= first + count;
    let faults = setting.plan.faults.iter().enumerate().filter(outside);
    let faults = faults.map(|(_, fault)| fault.clone()).collect();
    Setting { plan: FaultPlan { faults }, ..setting.clone() }
}

fn silence(weights: &mut Weights, kind: usize) {
    let Weights { put, get, head, list, delete, undelete, version } = weights;
    *[put, get, head, list, delete, undelete, version][kind] = 0;
}

#[cfg(test)]
mod tests {
    use super::{Target, aim, shrink, without};
    use crate::product::run::Setting;

    /// A wait that no cluster can keep: it is certain to fire once a volume has no primary.
    fn impatient() -> Setting {
        Setting { serves_within: 0, ..Setting::drawn(3) }
    }

    #[test]
    fn a_clean_run_has_nothing_to_shrink() {
        let healthy = Setting { horizon: 1_000_000_000, ..Setting::healthy(1) };
        assert!(aim(1, &healthy).is_err());
    }

    #[test]
    fn what_is_left_still_fires_and_is_smaller() {
        let setting = impatient();
        let target = Target { seed: 3, checker: "serves_again".to_owned() };
        if aim(3, &setting).is_ok_and(|found| found == target) {
            let small = shrink(&target, &setting, 25, |_| {}).expect("it can be run");
            assert!(small.plan.faults.len() < setting.plan.faults.len());
            assert_eq!(aim(3, &small).expect("it still fires"), target);
        }
    }

    #[test]
    fn a_part_of_a_plan_is_left_out() {
        let setting = Setting::drawn(3);
        let count = setting.plan.faults.len();
        assert_eq!(without(&setting, 1, 2).plan.faults.len(), count - 2);
        assert_eq!(without(&setting, 0, count).plan.faults.len(), 0);
    }
}
