//! What two operators decide of volumes whose complete stores are lost: which of them go on, and which stores
//! give up what they have. They look at the committed state, as `trefoil status` shows it.

use trefoil_drill::Deed;
use trefoil_placement::state::{State, VolumeRecord};
use trefoil_protocol::config::{NodeEntry, NodeState};
use trefoil_protocol::message::admin::ClusterStatus;
use trefoil_protocol::message::approval::JointAction;
use trefoil_protocol::message::refused::Override;

/// What they want done.
pub(super) fn wanted(deed: Deed, state: &State) -> Vec<JointAction> {
    match deed {
        Deed::AcceptLoss => state.volumes.all().filter_map(|record| goes_on(state, record)).collect(),
        Deed::Discard => state.volumes.all().flat_map(|record| discarded(state, record)).collect(),
        Deed::DeclareDead => state.volumes.all().filter_map(elsewhere).collect(),
        Deed::Backup | Deed::Lose | Deed::Restore | Deed::Survive => Vec::new(),
    }
}

fn up(state: &State) -> impl Iterator<Item = &NodeEntry> {
    state.topology.nodes().map(|record| &record.entry).filter(|entry| entry.state == NodeState::Up)
}

/// A volume that is down goes on with any store that held it and is there.
fn goes_on(state: &State, record: &VolumeRecord) -> Option<JointAction> {
    let config = &record.config;
    let (volume, epoch) = (config.volume, config.epoch);
    let complete = record.complete_stores();
    if config.primary.is_some() || up(state).any(|entry| complete.contains(&entry.store)) {
        return None;
    }
    let held = |entry: &&NodeEntry| config.ever_held.contains(&entry.store) && record.may_hold(entry.store);
    let store = up(state).find(held)?.store;
    Some(JointAction::AcceptLoss { volume, epoch, store })
}

fn discarded<'s>(state: &'s State, record: &'s VolumeRecord) -> impl Iterator<Item = JointAction> + 's {
    let volume = record.config.volume;
    let estranged = up(state).filter(|entry| record.is_estranged(entry.store));
    estranged.map(move |entry| JointAction::Discard { volume, store: entry.store })
}

/// A volume shall go on in the data centre that does not lead it.
fn elsewhere(record: &VolumeRecord) -> Option<JointAction> {
    let config = &record.config;
    let dc = config.primary_member()?.dc;
    let other = config.members.iter().find(|member| member.dc != dc);
    let held = config.ever_held.iter().find(|store| config.member_of_store(**store).is_none());
    let store = other.map(|member| member.store).or(held.copied())?;
    Some(JointAction::AcceptLoss { volume: config.volume, epoch: config.epoch, store })
}

/// Whether the state as operators are told it says that this was wanted, why, and that it was refused.
pub(super) fn tells_of(status: &ClusterStatus, action: JointAction) -> bool {
    let wanted = Override::Propose(action);
    status.refused.iter().any(|refused| {
        refused.what == wanted
            && !refused.reason.is_empty()
            && !refused.why.is_empty()
            && refused.at <= status.now
    })
}
