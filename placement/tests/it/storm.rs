//! Everything at once, from seeds: nodes cut off, back, restarted and wiped, reports true and false,
//! control-plane restarts; after every step what must always hold is checked against what the nodes
//! themselves believe.

use std::collections::BTreeSet;

use trefoil_protocol::config::{MemberState, Protection, VolumeConfig};
use trefoil_protocol::ids::{Epoch, Incarnation, Lsn, StoreId, VolumeId};
use trefoil_protocol::message::control::ControlRequest;

use crate::cluster::{Cluster, node};

const NAMES: [&str; 6] = ["a1", "a2", "a3", "b1", "b2", "b3"];
const VOLUME: VolumeId = VolumeId(1);

struct Dice {
    seed: u64,
    rolls: u64,
}

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.rolls += 1;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes());
        hasher.update(&self.rolls.to_le_bytes());
        u64::from_le_bytes(hasher.finalize().as_bytes()[..8].try_into().unwrap()) % sides
    }

    fn name(&mut self) -> &'static str {
        NAMES[self.roll(NAMES.len() as u64) as usize]
    }
}

/// What was true one step ago.
struct Before {
    config: VolumeConfig,
    /// The stores without which nothing acknowledged so far could have been.
    holders: BTreeSet<StoreId>,
    /// Stores of which one has each of it, if there are such.
    vouching: Option<BTreeSet<StoreId>>,
}

impl Before {
    fn of(cluster: &Cluster) -> Self {
        let record = cluster.record();
        let (holders, vouching) = (record.knowing_stores(), record.vouching_stores());
        Self { config: cluster.config(), holders, vouching }
    }
}

fn check(cluster: &Cluster, before: &Before, seed: u64) {
    let config = cluster.config();
    let context = || format!("seed {seed} at {} ms: {config:#?}", cluster.now);
    // Leases: never two that answer "latest", and none of an epoch that was followed by an activated one.
    let serving: Vec<Epoch> =
        cluster.nodes.values().filter_map(|node| node.serves(VOLUME, cluster.now)).collect();
    assert!(serving.len() <= 1, "{serving:?} serve, {}", context());
    if config.activated {
        assert!(serving.iter().all(|epoch| *epoch == config.epoch), "{serving:?}, {}", context());
    }
    // Configurations.
    let changed = (config.primary, &config.members, config.protection)
        != (before.config.primary, &before.config.members, before.config.protection);
    assert!(config.epoch >= before.config.epoch && (!changed || config.epoch > before.config.epoch));
    assert!((1..=4).contains(&config.members.len()), "{}", context());
    assert!(config.members.iter().all(|member| config.ever_held.contains(&member.store)));
    let members: BTreeSet<StoreId> = config.members.iter().map(|member| member.store).collect();
    // One store at least goes on from every configuration that may have acknowledged to the next, or all of those
    // that have everything together.
    let all = before.vouching.as_ref().is_some_and(|stores| stores.is_subset(&members));
    if !config.activated {
        let goes_on = config.required().any(|member| before.holders.contains(&member.store));
        assert!(goes_on || all, "{}", context());
    }
    if let Some(primary) = config.primary_member() {
        let record = cluster.record();
        let knows = match primary.state {
            // One that owed and says that it owes nothing more is complete from the activation on.
            MemberState::InSync => record.knowing_stores().contains(&primary.store),
            MemberState::Owing => record.knowing_stores().contains(&primary.store) || all,
            MemberState::CatchingUp => false,
        };
        assert!(knows, "{}", context());
    }
    assert!(config.owing().is_none_or(|member| config.primary.is_none_or(|primary| primary == member.node)));
    // A volume that claims both data centres has members there.
    let dcs: BTreeSet<_> = config.members.iter().map(|member| member.dc).collect();
    if config.activated && config.protection != Protection::SingleDc {
        assert_eq!(dcs.len(), 2, "{}", context());
    }
}

fn disturb(cluster: &mut Cluster, dice: &mut Dice, wiped: &mut u8) {
    match dice.roll(100) {
        0..=11 => {
            let name = dice.name();
            cluster.stop(&[name]);
        }
        12..=27 => {
            let name = dice.name();
            cluster.nodes.get_mut(&node(name)).unwrap().renews = true;
        }
        28..=35 => {
            let name = dice.name();
            cluster.restart(name);
        }
        36 if *wiped < 2 => {
            *wiped += 1;
            let name = dice.name();
            cluster.start(name, StoreId([*wiped; 16]), Incarnation(0));
        }
        37 => cluster.restart_placement(),
        38..=55 if cluster.config().primary.is_some() => cluster.complete_all(),
        56..=60 if cluster.config().primary.is_some() => {
            let config = cluster.config();
            let stores = config.members.iter().map(|m| m.store).filter(|_| dice.roll(2) == 0).collect();
            cluster.report(ControlRequest::Lagging { volume: VOLUME, epoch: config.epoch, stores });
        }
        61..=63 if cluster.config().primary.is_some() => {
            let config = cluster.config();
            let better = config.members[dice.roll(config.members.len() as u64) as usize].store;
            cluster.report(ControlRequest::Unfit { volume: VOLUME, epoch: config.epoch, better });
        }
        64..=75 if cluster.config().primary.is_some() => {
            let epoch = cluster.config().epoch;
            let (last_single_dc, persisted) = (Lsn(5), Lsn(5));
            cluster.report(ControlRequest::Restored { volume: VOLUME, epoch, last_single_dc, persisted });
        }
        76..=78 => cluster.run(7_000),
        _ => {}
    }
}

fn storm(seed: u64) {
    let mut cluster = Cluster::with_volume();
    let mut dice = Dice { seed, rolls: 0 };
    let mut wiped = 0;
    for _ in 0..600 {
        let before = Before::of(&cluster);
        disturb(&mut cluster, &mut dice, &mut wiped);
        check(&cluster, &before, seed);
        let before = Before::of(&cluster);
        cluster.run(100);
        check(&cluster, &before, seed);
    }
    calm(&mut cluster, seed, wiped);
}

/// Everybody comes back: the volume must work again, with three complete copies in both data centres.
fn calm(cluster: &mut Cluster, seed: u64, wiped: u8) {
    NAMES.iter().for_each(|name| cluster.restart(name));
    for _ in 0..120 {
        cluster.run(1_000);
        if cluster.config().primary.is_none() {
            // Only who was wiped may have taken the last complete copy along.
            assert!(wiped > 0 || cluster.now < 700_000, "seed {seed}");
            continue;
        }
        cluster.complete_all();
        cluster.run(1_000);
        if cluster.config().primary.is_some() {
            let epoch = cluster.config().epoch;
            let (last_single_dc, persisted) = (Lsn(5), Lsn(5));
            cluster.report(ControlRequest::Restored { volume: VOLUME, epoch, last_single_dc, persisted });
        }
    }
    let config = cluster.config();
    if config.primary.is_none() && wiped > 0 {
        return;
    }
    assert!(config.activated, "seed {seed}: {config:#?}");
    assert_eq!(config.protection, Protection::BothDcs, "seed {seed}: {config:#?}");
    assert_eq!(config.in_sync().count(), 3, "seed {seed}: {config:#?}");
    assert_eq!(config.members.len(), 3, "seed {seed}: {config:#?}");
    let at_home = config.members.iter().filter(|member| member.dc == cluster.record().home).count();
    assert_eq!(at_home, 2, "seed {seed}: {config:#?}");
}

#[test]
fn r019_no_two_primaries_serve_whatever_happens() {
    let count = std::env::var("TREFOIL_STORMS").ok().and_then(|text| text.parse().ok()).unwrap_or(40);
    (0..count).for_each(storm);
}

/// The storm notices guards that are switched off, so that its silence means something.
#[cfg(feature = "mutants")]
#[test]
fn the_storm_finds_the_seeded_bugs_of_leases_and_failover() {
    use trefoil_protocol::mutant::{Mutant, select};
    for mutant in [Mutant::M05, Mutant::M07] {
        select(Some(mutant));
        let found = (0..40).find(|seed| std::panic::catch_unwind(|| storm(*seed)).is_err());
        select(None);
        assert!(found.is_some(), "{mutant:?} survives");
    }
}
