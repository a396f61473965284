//! Whether each volume could be served now, seen from outside: which machines are well, what they
//! reach, and whether a whole copy is among them.

use std::collections::BTreeSet;

use trefoil_placement::state::{State, VolumeRecord};
use trefoil_protocol::ids::{Lsn, StoreId, VolumeId};
use trefoil_protocol::time::BootTime;

use super::Oracle;
use crate::checkers::liveness::Sight;
use crate::cluster::{Node, View};
use crate::kernel::MILLISECOND;
use crate::network::{Link, NodeIndex, Site};
use crate::product::control::Control;
use crate::product::process::Process;
use crate::product::roster;
use crate::product::storage::Storage;
use crate::product::timeline::Reign;

/// A disk may be so many times slower than usual and still count as well.
const SLOWDOWN_MAX: u64 = 20;

/// A message may be on its way for this long between two machines that count as well.
const DELAY_MAX: u64 = 100 * MILLISECOND;

/// The machines that are well, and whether the data centres reach each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Health {
    placement: bool,
    storage: BTreeSet<NodeIndex>,
    joined: bool,
}

impl Health {
    fn of(view: &View<'_, Process>) -> Self {
        let council: Vec<NodeIndex> = voters(view).map(|(index, _)| index).collect();
        let awake = |index: &NodeIndex| is_well(&view.nodes[usize::from(index.0)]);
        let voters: Vec<NodeIndex> = council.iter().copied().filter(awake).collect();
        let hear_each_other =
            voters.iter().all(|one| voters.iter().all(|other| one == other || reach(view, *one, *other)));
        let placement = hear_each_other && 2 * voters.len() > council.len();
        let places = (0..).map(NodeIndex).zip(roster::STORAGE);
        let well = places.filter(|(index, (_, site))| {
            is_well(&view.nodes[usize::from(index.0)])
                && voters.iter().all(|voter| reach(view, *index, *voter))
                && carries(view, *index, *index, Link::Inside(*site))
        });
        let storage: BTreeSet<NodeIndex> = well.map(|(index, _)| index).collect();
        let (a, b) = (NodeIndex(0), NodeIndex(3));
        let joined = [Link::CrossOne, Link::CrossTwo].into_iter().any(|link| carries(view, a, b, link));
        Self { placement, storage, joined }
    }

    /// Whether the well machines could serve a volume that one of them holds whole.
    fn suffices(&self) -> bool {
        let at = |site: Site| self.storage.iter().filter(|index| site_of(**index) == site).count();
        let split = at(Site::A) > 0 && at(Site::B) > 0 && !self.joined;
        self.placement && self.storage.len() >= 2 && !split
    }
}

fn site_of(index: NodeIndex) -> Site {
    roster::STORAGE[usize::from(index.0)].1
}

fn is_well(node: &Node<Process>) -> bool {
    node.program().is_some() && !node.is_paused() && !node.is_starved() && node.disk().is_well(SLOWDOWN_MAX)
}

/// The places of the voters.
fn voters<'v>(view: &'v View<'_, Process>) -> impl Iterator<Item = (NodeIndex, &'v Control)> {
    let places = roster::voter_places(roster::VOTERS.len());
    places.filter_map(|index| {
        let control = view.nodes[usize::from(index.0)].program().and_then(Process::placement)?;
        Some((index, control))
    })
}

/// The newest state that a voter has applied.
pub(in crate::product) fn newest_state<'v>(view: &'v View<'_, Process>) -> Option<&'v State> {
    voters(view).map(|(_, control)| control.core().state()).max_by_key(|state| state.applied)
}

/// Whether two machines hear each other over some line.
fn reach(view: &View<'_, Process>, one: NodeIndex, other: NodeIndex) -> bool {
    let site = |index| roster::site_at(index).expect("nodes and voters stand somewhere");
    Link::between(site(one), site(other)).iter().all(|link| carries(view, one, other, *link))
}

fn carries(view: &View<'_, Process>, one: NodeIndex, other: NodeIndex, link: Link) -> bool {
    let model = view.network.model(link);
    view.network.passes(one, other, link)
        && view.network.passes(other, one, link)
        && model.delay_min + model.delay_mean <= DELAY_MAX
        && model.lost_per_million == 0
}

impl Oracle {
    /// Looks at every volume: is it served, and could it be?
    pub(crate) fn look_at_liveness(&mut self, view: &View<'_, Process>) {
        let health = Health::of(view);
        if self.health != health {
            self.liveness.disturbed(view.now);
            self.health.clone_from(&health);
        }
        for (node, control) in voters(view) {
            let now = BootTime(view.nodes[usize::from(node.0)].clock().read(view.now).boot);
            let slow = control.core().slow_stores(now);
            self.put_out.extend(slow.into_iter().map(|store| store.store));
        }
        let Some(state) = newest_state(view) else { return };
        let unknown =
            |record: &&VolumeRecord| record.at_risk.as_ref().is_some_and(|account| !account.is_exact());
        self.unknown.extend(state.volumes.all().filter(unknown).map(|record| record.config.volume));
        for record in state.volumes.all() {
            let by = serving(view, record.config.volume).map(|(name, _)| name);
            self.timeline.look(record.config.volume.0, Reign::of(&record.config, view.now), by);
            self.look_at_losses(record, view.now);
            let sight = self.sight(view, &health, state, record);
            let found = self.liveness.look(record.config.volume.0, sight, view.now);
            self.once(found);
        }
    }

    fn sight(
        &mut self,
        view: &View<'_, Process>,
        health: &Health,
        state: &State,
        record: &VolumeRecord,
    ) -> Sight {
        if self.is_served(view, record.config.volume) {
            Sight::Served
        } else if health.suffices() && holds_whole(view, health, state, record) {
            Sight::Waiting
        } else {
            Sight::Excused
        }
    }

    /// Somebody would answer "latest", and what it has to commit goes on.
    fn is_served(&mut self, view: &View<'_, Process>, volume: VolumeId) -> bool {
        let serving = serving(view, volume).and_then(|(_, storage)| storage.core().volumes().get(&volume));
        let Some(holding) = serving.map(|replica| replica.holding()) else { return false };
        let (committed, last): (Lsn, Lsn) = (holding.committed(), holding.last().lsn);
        let before = self.progress.insert(volume, committed);
        committed == last || before != Some(committed)
    }
}

/// Who would answer "latest" of a volume now.
fn serving<'v>(view: &View<'v, Process>, volume: VolumeId) -> Option<(&'v str, &'v Storage)> {
    view.nodes[..roster::STORAGE.len()].iter().find_map(|node| {
        let now = BootTime(node.clock().read(view.now).boot);
        let storage = node.program().and_then(Process::storage)?;
        storage.core().serves(volume, now).then_some((node.name(), storage))
    })
}

/// Whether a well machine is known to have every record that was acknowledged: one store without which nothing
/// was, whose log is in no doubt, or all of them.
fn holds_whole(view: &View<'_, Process>, health: &Health, state: &State, record: &VolumeRecord) -> bool {
    let complete = record.knowing_stores();
    let storage = |store: &StoreId| -> Option<&Storage> {
        let place = roster::place_of(state.topology.runner(*store)?.node)?;
        let node = &view.nodes[usize::from(place.0)];
        node.program().filter(|_| health.storage.contains(&place)).and_then(Process::storage)
    };
    let certain = |store: &StoreId| {
        let replica = storage(store).and_then(|storage| storage.core().volumes().get(&record.config.volume));
        replica.is_some_and(|replica| {
            let holding = replica.holding();
            replica.stopped().is_none() && holding.is_verified() && holding.hole().is_none()
        })
    };
    complete.iter().any(certain) || complete.iter().all(|store| storage(store).is_some())
}
