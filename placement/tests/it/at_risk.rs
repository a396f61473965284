//! What one data centre alone acknowledged: the account is open before the first acknowledgement and
//! closed by the proof that both data centres hold everything.

use trefoil_placement::state::AtRisk;
use trefoil_protocol::config::Protection;
use trefoil_protocol::ids::{Epoch, Lsn, VersionId, VolumeId};
use trefoil_protocol::message::admin::{AdminAnswer, AdminRequest};
use trefoil_protocol::message::control::{
    ControlAnswer, ControlRefusal, ControlRequest, Note, Noted, Visibility, VisibilityChange,
};

use crate::cluster::{Cluster, store};

const VOLUME: VolumeId = VolumeId(1);

/// B is lost and the volume acknowledges in A alone.
fn alone() -> Cluster {
    let mut cluster = Cluster::with_volume();
    assert_eq!(cluster.record().at_risk, None);
    cluster.stop(&["b1", "b2", "b3"]);
    cluster.run_until(20_000, |c| c.protection() == Protection::SingleDc && c.config().activated);
    cluster
}

fn note(cluster: &Cluster, version: u8) -> Note {
    let change =
        VisibilityChange { version: VersionId([version; 16]), lsn: Lsn(1), visibility: Visibility::Hidden };
    Note { up_to: Lsn(1), changes: vec![change], ..Note::question(VOLUME, cluster.config().epoch) }
}

fn noted(answer: ControlAnswer) -> Noted {
    match answer {
        ControlAnswer::Noted(noted) => noted,
        other => panic!("{other:?}"),
    }
}

fn knows(cluster: &Cluster, version: u8) -> bool {
    let account: Option<&AtRisk> = cluster.record().at_risk.as_ref();
    account.is_some_and(|account| account.change(VersionId([version; 16])).is_some())
}

#[test]
fn r017_the_account_is_open_when_the_first_single_dc_epoch_is_activated() {
    let mut cluster = alone();
    assert!(cluster.record().at_risk.is_some());
    let told = note(&cluster, 1);
    assert_eq!(noted(cluster.report(ControlRequest::Note(told))).up_to, Lsn(1));
    assert!(knows(&cluster, 1));
    let AdminAnswer::Status(status) = cluster.admin(AdminRequest::Status { behind: VolumeId(0) }) else {
        panic!()
    };
    assert_eq!((status.at_risk[0].volume, status.at_risk[0].hidden), (VOLUME, 1));
}

#[test]
fn a_note_of_an_epoch_that_is_over_is_refused_and_what_is_known_outlives_placement() {
    let mut cluster = alone();
    let (told, stale) = (note(&cluster, 1), Note { epoch: Epoch(1), ..note(&cluster, 2) });
    cluster.report(ControlRequest::Note(told));
    let refused = cluster.report(ControlRequest::Note(stale));
    assert!(matches!(refused, ControlAnswer::Refused(ControlRefusal::StaleEpoch(_))), "{refused:?}");
    cluster.restart_placement();
    assert!(knows(&cluster, 1) && !knows(&cluster, 2));
    // The next primary asks where the account ends.
    cluster.run(1_000);
    let question = Note::question(VOLUME, cluster.config().epoch);
    assert_eq!(noted(cluster.report(ControlRequest::Note(question))).up_to, Lsn(1));
}

#[test]
fn the_account_is_kept_until_both_data_centres_hold_everything() {
    let mut cluster = alone();
    let told = note(&cluster, 1);
    cluster.report(ControlRequest::Note(told));
    for name in ["b1", "b2", "b3"] {
        cluster.start(name, store(name), cluster.nodes[&crate::cluster::node(name)].incarnation);
    }
    for _ in 0..200 {
        if cluster.protection() == Protection::Restoring && cluster.config().activated {
            break;
        }
        cluster.run(500);
        cluster.complete_all();
    }
    assert_eq!(cluster.protection(), Protection::Restoring);
    assert!(knows(&cluster, 1), "the other data centre has not proven anything yet");
    let epoch = cluster.config().epoch;
    let restored =
        ControlRequest::Restored { volume: VOLUME, epoch, last_single_dc: Lsn(1), persisted: Lsn(2) };
    cluster.report(restored);
    cluster.run_until(90_000, |c| c.protection() == Protection::BothDcs);
    assert_eq!(cluster.record().at_risk, None);
}
