//! One data centre acknowledged alone and is lost, and two operators let the other one go on: what was
//! hidden there is replayed before anything is served, and what only the lost stores have is kept apart
//! until two operators discard it.

use trefoil_protocol::config::Protection;
use trefoil_protocol::ids::{Epoch, Lsn, VersionId, VolumeId};
use trefoil_protocol::message::admin::AdminRequest;
use trefoil_protocol::message::approval::JointAction;
use trefoil_protocol::message::control::{
    ControlAnswer, ControlRefusal, ControlRequest, Note, Visibility, VisibilityChange,
};
use trefoil_protocol::message::loss::Difference;

use crate::cluster::{Cluster, node, store};

const VOLUME: VolumeId = VolumeId(1);

fn change(version: u8, lsn: u64, visibility: Visibility) -> VisibilityChange {
    VisibilityChange { version: VersionId([version; 16]), lsn: Lsn(lsn), visibility }
}

/// B is lost, A acknowledges these changes alone and is lost, and B returns. The name is that of a node of
/// B that held the volume.
pub(crate) fn b_returns(changes: Vec<VisibilityChange>) -> (Cluster, String) {
    let mut cluster = Cluster::with_volume();
    let held = cluster.config().members.iter().find(|member| member.dc.as_str() == "b").unwrap().node;
    cluster.stop(&["b1", "b2", "b3"]);
    cluster.run_until(20_000, |c| c.protection() == Protection::SingleDc && c.config().activated);
    let up_to = changes.iter().map(|change| change.lsn).max().unwrap_or_default();
    let epoch = cluster.config().epoch;
    cluster.report(ControlRequest::Note(Note { up_to, changes, ..Note::question(VOLUME, epoch) }));
    cluster.stop(&["a1", "a2", "a3"]);
    cluster.run_until(20_000, |c| c.config().primary.is_none());
    for name in ["b1", "b2", "b3"] {
        cluster.restart(name);
        cluster.nodes.get_mut(&node(name)).unwrap().renews = true;
    }
    cluster.run(10_000);
    assert_eq!(cluster.config().primary, None, "who may lack what was acknowledged never leads by itself");
    (cluster, held.to_string())
}

fn decide(cluster: &mut Cluster, action: JointAction) {
    let reason = "A burnt down".to_owned();
    let open = cluster.proposal("ann", AdminRequest::Propose { action, reason });
    cluster.proposal("bob", AdminRequest::Approve { number: open.number });
}

pub(crate) fn take_over(cluster: &mut Cluster, by: &str) {
    let epoch = cluster.config().epoch;
    decide(cluster, JointAction::AcceptLoss { volume: VOLUME, epoch, store: store(by) });
    cluster.run_until(20_000, |c| c.config().activated);
}

fn asked(cluster: &mut Cluster, from: u32) -> (Vec<VisibilityChange>, bool) {
    let epoch = cluster.config().epoch;
    match cluster.report(ControlRequest::Replay { volume: VOLUME, epoch, from }) {
        ControlAnswer::Replay { changes, last, .. } => (changes, last),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_hidden_is_replayed_and_outlives_placement_until_it_is() {
    let (first, second) = (change(2, 1, Visibility::Hidden), change(1, 2, Visibility::Live));
    let (mut cluster, held) = b_returns(vec![second, first]);
    take_over(&mut cluster, &held);
    assert!(cluster.config().replays);
    assert_eq!(asked(&mut cluster, 0), (vec![first, second], true), "in the order in which they were made");
    assert_eq!(asked(&mut cluster, 1), (vec![second], true));
    assert_eq!(asked(&mut cluster, 7), (vec![], true));
    cluster.restart_placement();
    cluster.run(10_000);
    assert_eq!(asked(&mut cluster, 0).0, [first, second]);
    let stale = cluster.report(ControlRequest::Replayed { volume: VOLUME, epoch: Epoch(1) });
    assert!(matches!(stale, ControlAnswer::Refused(ControlRefusal::StaleEpoch(_))), "{stale:?}");
    assert!(cluster.config().replays);
    let epoch = cluster.config().epoch;
    cluster.report(ControlRequest::Replayed { volume: VOLUME, epoch });
    assert!(!cluster.config().replays);
    assert_eq!(cluster.config().epoch, epoch, "nobody has to begin anew");
    assert_eq!(asked(&mut cluster, 0), (vec![], true));
}

#[test]
fn a_second_loss_before_the_replay_is_over_forgets_nothing_of_the_first() {
    let (mut cluster, held) =
        b_returns(vec![change(1, 1, Visibility::Hidden), change(2, 2, Visibility::Hidden)]);
    take_over(&mut cluster, &held);
    let epoch = cluster.config().epoch;
    let again = vec![change(2, 3, Visibility::Live)];
    let after = match cluster.report(ControlRequest::Note(Note::question(VOLUME, epoch))) {
        ControlAnswer::Noted(noted) => noted.up_to,
        other => panic!("{other:?}"),
    };
    let note = Note { after, up_to: Lsn(9), changes: again.clone(), ..Note::question(VOLUME, epoch) };
    cluster.report(ControlRequest::Note(note));
    cluster.stop(&["b1", "b2", "b3"]);
    cluster.run_until(20_000, |c| c.config().primary.is_none());
    cluster.restart(&held);
    cluster.nodes.get_mut(&node(&held)).unwrap().renews = true;
    cluster.run(10_000);
    if cluster.config().primary.is_none() {
        take_over(&mut cluster, &held);
    }
    let (changes, _) = asked(&mut cluster, 0);
    assert_eq!(changes.first(), Some(&change(1, 1, Visibility::Hidden)));
}

#[test]
fn nothing_is_to_be_replayed_where_nothing_was_hidden() {
    let (mut cluster, held) = b_returns(Vec::new());
    take_over(&mut cluster, &held);
    assert!(!cluster.config().replays);
}

#[test]
fn stores_of_the_data_centre_that_takes_over_are_not_estranged() {
    let (mut cluster, held) = b_returns(Vec::new());
    take_over(&mut cluster, &held);
    let parting = cluster.record().parting.clone().unwrap();
    let estranged = |name: &str| parting.estranged.contains_key(&store(name));
    assert!(!["b1", "b2", "b3"].into_iter().any(estranged));
    assert!(["a1", "a2", "a3"].into_iter().any(estranged));
}

#[test]
fn a_lost_store_holds_the_volume_anew_when_two_operators_discard_what_it_has() {
    let (mut cluster, held) = b_returns(Vec::new());
    take_over(&mut cluster, &held);
    for name in ["a1", "a2", "a3"] {
        cluster.restart(name);
        cluster.nodes.get_mut(&node(name)).unwrap().renews = true;
    }
    cluster.run(60_000);
    let lost = *cluster.record().parting.as_ref().unwrap().estranged.keys().next().unwrap();
    let id = cluster.nodes.values().find(|node| node.store == lost).unwrap().id;
    assert!(cluster.nodes[&id].retire.is_empty());
    let epoch = cluster.config().epoch;
    let nothing = Difference {
        volume: VOLUME,
        epoch,
        store: lost,
        shared: Lsn(1),
        after: Lsn(1),
        up_to: Lsn(1),
        versions: Vec::new(),
        unreadable: 0,
        last: true,
    };
    cluster.ask(id, ControlRequest::Differs(nothing));
    decide(&mut cluster, JointAction::Discard { volume: VOLUME, store: lost });
    cluster.run(5_000);
    assert!(cluster.nodes[&id].retire.contains(&VOLUME), "it is told to wipe what it has");
    assert!(!cluster.record().may_hold(lost));
    let epoch = cluster.config().epoch;
    cluster.ask(id, ControlRequest::Retired { volume: VOLUME, store: lost, epoch });
    assert!(cluster.record().may_hold(lost) && !cluster.config().ever_held.contains(&lost));
}
