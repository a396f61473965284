//! Draws a fault plan from a seed. Each run switches every kind of fault on or off first (swarm
//! testing: a rare pair of kinds meets more often when the other kinds are silent).
//!
//! A drawn plan is in contract: faults that destroy bytes strike one storage node per run, so that
//! every object and the control plane keep a valid copy; and in the end all is healed, so that
//! the cluster must recover in full.

use super::{
    Action, Crash, CrashKind, DiskChange, Duration, Fault, FaultPlan, ModelChange, OneWay, Pause, RateChange,
    Rot, Slow, Starve, Trigger, WallJump,
};
use crate::clock::SuspendedClock;
use crate::disk::{FaultKind, Persistence};
use crate::kernel::{MICROSECOND, MILLISECOND, SECOND};
use crate::network::{Direction, LinkModel, Site};
use crate::random::{Draws, Stream};

/// What a plan may do at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// How many faults do damage.
    pub faults: u64,
    /// When the last of them may strike; everything is healed then.
    pub horizon: u64,
    /// The most that a boot clock may be wrong.
    pub rate_ppm_max: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self { faults: 12, horizon: 60 * SECOND, rate_ppm_max: 200 }
    }
}

/// Knows whom faults may strike.
#[derive(Clone, Debug)]
pub struct Generator {
    /// Storage nodes with their sites.
    pub storage: Vec<(String, Site)>,
    /// Placement nodes with their sites.
    pub placement: Vec<(String, Site)>,
}

/// The kinds that a run may switch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    CutLink,
    CutOneWay,
    Flap,
    BothLinks,
    BreakConnections,
    PowerLoss,
    ProcessDeath,
    SiteLoss,
    Pause,
    DiskError,
    DiskFull,
    Damage,
    SlowDisk,
    WallJump,
    RateChange,
    Starve,
    NoisyLink,
    SlowControl,
    LostDisk,
}

const KINDS: [Kind; 19] = [
    Kind::CutLink,
    Kind::CutOneWay,
    Kind::Flap,
    Kind::BothLinks,
    Kind::BreakConnections,
    Kind::PowerLoss,
    Kind::ProcessDeath,
    Kind::SiteLoss,
    Kind::Pause,
    Kind::DiskError,
    Kind::DiskFull,
    Kind::Damage,
    Kind::SlowDisk,
    Kind::WallJump,
    Kind::RateChange,
    Kind::Starve,
    Kind::NoisyLink,
    Kind::SlowControl,
    Kind::LostDisk,
];

const LINKS: [&str; 4] = ["x1", "x2", "wa", "wb"];

impl Generator {
    /// The plan of a seed.
    #[must_use]
    pub fn draw(&self, seed: u64, budget: &Budget) -> FaultPlan {
        let mut choice = Draws::new(seed, Stream::FaultPlan, 0);
        let enabled: Vec<Kind> = KINDS.into_iter().filter(|_| choice.chance(400_000)).collect();
        let count = choice.below(budget.faults + 1);
        let victim = choice.pick(&self.storage).map(|(name, _)| name.clone());
        let mut timed = Vec::new();
        for number in 0..count {
            // Each fault has a stream of its own: taking one out changes no other.
            let mut draws = Draws::new(seed, Stream::FaultPlan, number + 1);
            // Whole microseconds read better, and delays keep races at every nanosecond.
            let at = draws.below(budget.horizon) / MICROSECOND * MICROSECOND;
            if let Some(kind) = draws.pick(&enabled) {
                let strike = Strike { at, until: budget.horizon, ppm: budget.rate_ppm_max };
                timed.extend(self.strike(*kind, strike, victim.as_deref(), &mut draws));
            }
        }
        timed.sort_by_key(|(at, _)| *at);
        let all = || vec!["all".to_owned()];
        let healed = [Action::Heal(all()), Action::Repair(all()), Action::Restart(all())];
        timed.extend(healed.map(|action| (budget.horizon, action)));
        let fault = |(at, action)| Fault { trigger: Trigger::At(Duration(at)), action };
        FaultPlan { faults: timed.into_iter().map(fault).collect() }
    }

    fn strike(
        &self,
        kind: Kind,
        strike: Strike,
        victim: Option<&str>,
        draws: &mut Draws,
    ) -> Vec<(u64, Action)> {
        let node = self.any_node(draws);
        let storage = draws.pick(&self.storage).map_or_else(|| node.clone(), |(name, _)| name.clone());
        let lasts = (MILLISECOND + draws.exponential(8 * SECOND)) / MICROSECOND * MICROSECOND;
        let link = (*draws.pick(&LINKS).expect("there are four")).to_owned();
        match kind {
            Kind::CutLink => strike.cut(vec![link], lasts),
            Kind::Flap => strike.flap(&link, draws),
            Kind::BothLinks => strike.cut(vec!["x1".to_owned(), "x2".to_owned()], lasts),
            Kind::CutOneWay => {
                let forth = draws.chance(500_000);
                let direction = if forth { Direction::Forth } else { Direction::Back };
                let cut = Action::CutOneWay(OneWay { link: link.clone(), direction });
                strike.then(cut, lasts, Action::Heal(vec![link]))
            }
            Kind::BreakConnections => strike.only(Action::Break([node, storage])),
            Kind::PowerLoss => strike.crash(vec![node], CrashKind::Power, lasts),
            Kind::ProcessDeath => strike.crash(vec![node], CrashKind::Process, lasts),
            Kind::SiteLoss => strike.crash(self.servers_of_a_site(draws), CrashKind::Power, lasts),
            Kind::Pause => strike.only(Action::Pause(Pause {
                node,
                lasts: Duration(lasts),
                clock: SuspendedClock::RunsOn,
            })),
            Kind::DiskError => {
                let kinds = [FaultKind::ReadError, FaultKind::WriteError, FaultKind::SyncError];
                let kind = *draws.pick(&kinds).expect("there are three");
                // A failed write or sync ends a store for good, as lost bytes would.
                let struck = victim.map_or(storage, str::to_owned);
                strike.only(disk(struck, kind, Persistence::Once, draws))
            }
            Kind::DiskFull => {
                let full = disk(storage.clone(), FaultKind::Full, Persistence::Sticky, draws);
                strike.then(full, lasts, Action::Repair(vec![storage]))
            }
            Kind::Damage => victim.map_or(Vec::new(), |victim| strike.only(damage(victim, draws))),
            Kind::SlowDisk => {
                let slow = Action::Slow(Slow { node: storage.clone(), times: draws.between(5, 500) });
                strike.then(slow, lasts, Action::Repair(vec![storage]))
            }
            Kind::WallJump => {
                let hours = i64::try_from(draws.below(3)).expect("small") - 1;
                let seconds = hours * 3_600 + i64::try_from(draws.below(120)).expect("small") - 60;
                strike.only(Action::Wall(WallJump { node, seconds }))
            }
            Kind::Starve => strike.only(Action::Starve(Starve {
                node,
                lasts: Duration(lasts.min(strike.until.saturating_sub(strike.at))),
                stall: Duration(draws.between(10, 1_500) * MILLISECOND),
                run: Duration(draws.between(10, 500) * MILLISECOND),
            })),
            Kind::NoisyLink => strike.behave(link, noisy(draws), lasts),
            Kind::SlowControl => {
                let link = if draws.chance(500_000) { "wa" } else { "wb" };
                let delay_min = draws.between(100, 1_400) * MILLISECOND;
                let slow = LinkModel { delay_min, ..LinkModel::between_sites() };
                strike.behave(link.to_owned(), slow, lasts)
            }
            Kind::LostDisk => victim.map_or(Vec::new(), |victim| {
                strike.then(
                    Action::LoseDisk(victim.to_owned()),
                    lasts,
                    Action::Restart(vec![victim.to_owned()]),
                )
            }),
            Kind::RateChange => {
                let bound = i32::try_from(strike.ppm).expect("a rate bound is far below 2^31 ppm");
                let drawn = draws.between(0, 2 * u64::from(strike.ppm));
                let ppm = i32::try_from(drawn).expect("twice the bound fits") - bound;
                strike.only(Action::Rate(RateChange { node, ppm }))
            }
        }
    }

    fn any_node(&self, draws: &mut Draws) -> String {
        let nodes: Vec<&String> = self.storage.iter().chain(&self.placement).map(|(name, _)| name).collect();
        draws.pick(&nodes).map_or_else(String::new, |name| (*name).clone())
    }

    fn servers_of_a_site(&self, draws: &mut Draws) -> Vec<String> {
        let lost = if draws.chance(500_000) { Site::A } else { Site::B };
        self.storage
            .iter()
            .chain(&self.placement)
            .filter(|(_, site)| *site == lost)
            .map(|(name, _)| name.clone())
            .collect()
    }
}

/// When a fault strikes and by when it is over.
#[derive(Clone, Copy)]
struct Strike {
    at: u64,
    until: u64,
    ppm: u32,
}

impl Strike {
    fn only(self, action: Action) -> Vec<(u64, Action)> {
        vec![(self.at, action)]
    }

    fn then(self, action: Action, lasts: u64, healing: Action) -> Vec<(u64, Action)> {
        vec![(self.at, action), (self.at.saturating_add(lasts).min(self.until), healing)]
    }

    fn cut(self, links: Vec<String>, lasts: u64) -> Vec<(u64, Action)> {
        self.then(Action::Cut(links.clone()), lasts, Action::Heal(links))
    }

    /// The link goes and comes, faster than anybody can decide anything about it.
    fn flap(self, link: &str, draws: &mut Draws) -> Vec<(u64, Action)> {
        let mut at = self.at;
        let mut flapping = Vec::new();
        for _ in 0..draws.between(3, 8) {
            let down = draws.between(10, 1_000) * MILLISECOND;
            flapping.extend(Self { at, ..self }.cut(vec![link.to_owned()], down));
            at = (at + down + draws.between(10, 1_000) * MILLISECOND).min(self.until);
        }
        flapping
    }

    /// A link behaves differently for a time.
    fn behave(self, link: String, to: LinkModel, lasts: u64) -> Vec<(u64, Action)> {
        let change = |to: LinkModel| Action::Model(ModelChange { link: link.clone(), to });
        self.then(change(to), lasts, change(LinkModel::between_sites()))
    }

    fn crash(self, nodes: Vec<String>, how: CrashKind, lasts: u64) -> Vec<(u64, Action)> {
        self.then(Action::Crash(Crash { nodes: nodes.clone(), how }), lasts, Action::Restart(nodes))
    }
}

fn disk(node: String, kind: FaultKind, persistence: Persistence, draws: &mut Draws) -> Action {
    let after = u32::try_from(draws.below(8)).expect("small");
    Action::Disk(DiskChange { node, kind, file: "*".to_owned(), persistence, after })
}

/// Messages come twice, late, out of order, or not at all.
fn noisy(draws: &mut Draws) -> LinkModel {
    let mut often = || u32::try_from(draws.below(100_000)).expect("small");
    LinkModel {
        twice_per_million: often(),
        late_per_million: often(),
        spike_per_million: often(),
        lost_per_million: often() / 20,
        ..LinkModel::between_sites()
    }
}

/// A fault that destroys bytes which were good.
fn damage(victim: &str, draws: &mut Draws) -> Action {
    let (node, file) = (victim.to_owned(), "*".to_owned());
    if draws.chance(600_000) {
        Action::Rot(Rot { node, file })
    } else {
        disk(node, FaultKind::Misdirect, Persistence::Once, draws)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Budget, Generator};
    use crate::disk::FaultKind;
    use crate::faults::{Action, FaultPlan, Trigger};
    use crate::network::Site;

    fn generator() -> Generator {
        let named = |names: [&str; 3], site| names.map(|name| (name.to_owned(), site));
        Generator {
            storage: [named(["a1", "a2", "a3"], Site::A), named(["b1", "b2", "b3"], Site::B)].concat(),
            placement: vec![("w1".to_owned(), Site::W)],
        }
    }

    #[test]
    fn a_seed_draws_one_plan_and_another_seed_another() {
        let draw = |seed| generator().draw(seed, &Budget::default());
        assert_eq!(draw(5), draw(5));
        let different: BTreeSet<String> = (0..50).map(|seed| draw(seed).to_toml()).collect();
        assert!(different.len() > 40, "{} different plans", different.len());
    }

    #[test]
    fn every_drawn_plan_has_a_written_form_and_ends_healed() {
        for seed in 0..200 {
            let plan = generator().draw(seed, &Budget::default());
            assert_eq!(FaultPlan::parse(&plan.to_toml()).as_ref(), Ok(&plan));
            let tail = &plan.faults[plan.faults.len() - 3..];
            assert!(tail.iter().all(|fault| fault.action.is_healing()));
            let last = plan.faults.iter().map(|fault| match &fault.trigger {
                Trigger::At(at) => at.0,
                Trigger::When { .. } => 0,
            });
            assert_eq!(last.max(), Some(Budget::default().horizon));
        }
    }

    #[test]
    fn only_one_node_loses_good_bytes() {
        let mut damaged = 0;
        for seed in 0..300 {
            let plan = generator().draw(seed, &Budget::default());
            let victims: BTreeSet<&str> = plan
                .faults
                .iter()
                .filter_map(|fault| match &fault.action {
                    Action::Rot(rot) => Some(rot.node.as_str()),
                    Action::Disk(change) if change.kind == FaultKind::Misdirect => Some(&change.node),
                    _ => None,
                })
                .collect();
            assert!(victims.len() <= 1, "seed {seed} damages {victims:?}");
            damaged += victims.len();
        }
        assert!(damaged > 30, "damage is drawn now and then");
    }
}
