//! What takes two operators: nobody approves alone, nothing is approved late, and what both decided on is
//! kept. A volume whose complete stores are gone goes on only so.

use trefoil_placement::state::PROPOSAL_LASTS;
use trefoil_placement::{Answer, Request};
use trefoil_protocol::config::Protection;
use trefoil_protocol::ids::VolumeId;
use trefoil_protocol::message::admin::{AdminAnswer, AdminRequest};
use trefoil_protocol::message::approval::{JointAction, ProposalState, ProposalView};
use trefoil_protocol::message::refused::{Override, RefusedOverride};
use trefoil_protocol::time::CpTime;

use crate::cluster::{Cluster, node, store};

const VOLUME: VolumeId = VolumeId(1);

impl Cluster {
    pub(crate) fn operator(&mut self, name: &str, request: AdminRequest) -> AdminAnswer {
        let id = self.send(Request::Admin(name.parse().unwrap(), request));
        match self.answer(id) {
            Some(Answer::Admin(answer)) => answer.clone(),
            other => panic!("no answer but {other:?}"),
        }
    }

    pub(crate) fn proposal(&mut self, name: &str, request: AdminRequest) -> ProposalView {
        match self.operator(name, request) {
            AdminAnswer::Proposal(proposal) => proposal,
            other => panic!("{other:?}"),
        }
    }

    fn refusal(&mut self, name: &str, request: AdminRequest) -> String {
        match self.operator(name, request) {
            AdminAnswer::Refused(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    /// What the state of the cluster tells of refused overrides.
    fn told(&mut self) -> Vec<RefusedOverride> {
        match self.operator("dan", AdminRequest::Status { behind: VolumeId(0) }) {
            AdminAnswer::Status(status) => status.refused,
            other => panic!("{other:?}"),
        }
    }

    /// All that are kept.
    fn refusals(&mut self) -> Vec<RefusedOverride> {
        match self.operator("dan", AdminRequest::Refusals) {
            AdminAnswer::Refusals(refused) => refused,
            other => panic!("{other:?}"),
        }
    }

    fn accept(&self, name: &str) -> AdminRequest {
        let store = self.nodes[&node(name)].store;
        let action = JointAction::AcceptLoss { volume: VOLUME, epoch: self.config().epoch, store };
        AdminRequest::Propose { action, reason: "A burnt down".to_owned() }
    }
}

/// A is lost, B goes on alone, and B's complete store dies before the next ones have caught up, with one of these. The
/// name is that of the node that has caught up in part.
fn row_16() -> (Cluster, String) {
    let mut cluster = Cluster::with_volume();
    cluster.stop(&["a1", "a2", "a3"]);
    cluster.run_until(30_000, |c| {
        c.config().members.len() >= 2 && c.primary().starts_with('b') && c.config().activated
    });
    let primary = cluster.primary();
    let behind: Vec<String> = cluster.config().catching_up().map(|member| member.node.to_string()).collect();
    let next = behind[0].clone();
    // With both of them the volume would go on by itself.
    cluster.stop(&[&primary, &behind[1]]);
    cluster.run_until(20_000, |c| c.config().primary.is_none());
    (cluster, next)
}

#[test]
fn r108_nobody_approves_what_is_his_own_and_both_names_are_kept() {
    let (mut cluster, next) = row_16();
    let open = cluster.proposal("ann", cluster.accept(&next));
    assert_eq!((open.state, open.by.as_str()), (ProposalState::Open, "ann"));
    let again = cluster.proposal("ann", cluster.accept(&next));
    assert_eq!(again.number, open.number, "asked again, it is the same proposal");
    let number = open.number;
    let own = cluster.refusal("ann", AdminRequest::Approve { number });
    assert!(own.contains("another operator"), "{own}");
    assert_eq!(cluster.config().primary, None, "nothing was done");
    let done = cluster.proposal("bob", AdminRequest::Approve { number });
    assert!(matches!(done.state, ProposalState::Approved { by, .. } if by.as_str() == "bob"));
    assert_eq!((done.reason.as_str(), &done.shown), ("A burnt down", &open.shown));
    assert_eq!(cluster.proposal("bob", AdminRequest::Approve { number }), done, "a repeat changes nothing");
    let third = cluster.refusal("cal", AdminRequest::Approve { number });
    assert!(third.contains("approved by another"), "{third}");
    let AdminAnswer::Proposals(all) = cluster.operator("cal", AdminRequest::Proposals) else { panic!() };
    assert_eq!(all, [done]);
}

#[test]
fn r109_a_loss_is_accepted_by_two_for_what_both_were_shown() {
    let (mut cluster, _) = row_16();
    // One that has every record leads, and somebody is there to acknowledge with.
    let missing = cluster.config().catching_up().nth(1).unwrap().node.to_string();
    cluster.restart(&missing);
    cluster.run_until(20_000, |c| c.config().owing().is_some() && c.config().activated);
    let next = cluster.primary();
    let epoch = cluster.config().epoch;
    let open = cluster.proposal("ann", cluster.accept(&next));
    assert!(open.shown.iter().any(|line| line.contains("objects and")), "{:?}", open.shown);
    cluster.proposal("bob", AdminRequest::Approve { number: open.number });
    assert_eq!((cluster.primary(), cluster.protection()), (next.clone(), Protection::SingleDc));
    assert!(cluster.config().epoch > epoch);
    cluster.run_until(20_000, |c| c.config().activated);
    cluster.run_until(20_000, |c| c.config().members.len() >= 2);
    let parting = cluster.record().parting.clone().unwrap();
    assert_eq!(parting.proposal, open.number);
    assert!(!parting.estranged.contains_key(&store(&next)));
    // Whoever was lost comes back: it is neither a member nor wiped, because nobody knows what it has.
    for name in ["a1", "a2", "a3"] {
        cluster.restart(name);
        cluster.nodes.get_mut(&node(name)).unwrap().renews = true;
    }
    cluster.run(60_000);
    let members: Vec<_> = cluster.config().members.iter().map(|member| member.store).collect();
    assert!(parting.estranged.keys().all(|store| !members.contains(store)), "{members:?}");
    assert!(cluster.nodes.values().all(|node| node.retire.is_empty()));
}

#[test]
fn no_loss_is_accepted_while_somebody_has_everything() {
    let mut cluster = Cluster::with_volume();
    let next = cluster.others().pop().unwrap();
    let refused = cluster.refusal("ann", cluster.accept(&next));
    assert!(refused.contains("not down"), "{refused}");
    let (mut cluster, next) = row_16();
    let request = cluster.accept(&next);
    let open = cluster.proposal("ann", request);
    let elsewhere = cluster.refusal("ann", cluster.accept("a1"));
    assert!(elsewhere.contains("no such"), "{elsewhere}");
    // The lost store returns before the second operator has decided.
    let complete = cluster.record().complete_stores();
    let returning = cluster.nodes.values().find(|node| complete.contains(&node.store)).unwrap().id;
    cluster.restart(returning.as_str());
    let refused = cluster.refusal("bob", AdminRequest::Approve { number: open.number });
    assert!(refused.contains("complete store that is up") || refused.contains("changed"), "{refused}");
    let action = open.action;
    let wanted: Vec<Override> = cluster.refusals().into_iter().map(|refused| refused.what).collect();
    assert!(matches!(wanted[0], Override::Propose(JointAction::AcceptLoss { volume: VOLUME, .. })));
    assert_eq!(wanted[1..], [Override::Approve { number: open.number, action: Some(action) }]);
}

#[test]
fn r041_row_19_who_was_refused_what_and_why_is_told_and_kept() {
    let mut cluster = Cluster::with_volume();
    let next = cluster.others().pop().unwrap();
    let request = cluster.accept(&next);
    let AdminRequest::Propose { action, .. } = request.clone() else { panic!() };
    let why = cluster.refusal("ann", request.clone());
    cluster.run(5_000);
    cluster.refusal("ann", request);
    let number = 7;
    let unknown = cluster.refusal("bob", AdminRequest::Approve { number });
    let begin = AdminRequest::BeginRefused {
        begins: 2,
        without: vec![node("w1")],
        reason: "W is gone".to_owned(),
        why: "voter w1 answers".to_owned(),
    };
    assert_eq!(cluster.operator("cal", begin), AdminAnswer::Done);
    let told = cluster.told();
    let short: Vec<_> =
        told.iter().map(|line| (line.by.as_str(), &line.what, &line.why, line.times)).collect();
    let alone = Override::Begin { begins: 2, without: vec![node("w1")] };
    let expected = [
        ("ann", &Override::Propose(action), &why, 2),
        ("bob", &Override::Approve { number, action: None }, &unknown, 1),
        ("cal", &alone, &"voter w1 answers".to_owned(), 1),
    ];
    assert_eq!(short, expected, "a repeat is one line with a number");
    assert_eq!(told[0].reason, "A burnt down");
    assert!(told[0].at >= CpTime(5_000) && told.is_sorted_by_key(|line| line.at));
    assert_eq!(cluster.refusals(), told);
}

#[test]
fn what_nobody_approved_in_time_is_void() {
    let (mut cluster, next) = row_16();
    let open = cluster.proposal("ann", cluster.accept(&next));
    cluster.run(u64::try_from(PROPOSAL_LASTS.as_millis()).unwrap() + 1_000);
    let late = cluster.refusal("bob", AdminRequest::Approve { number: open.number });
    assert!(late.contains("expired"), "{late}");
    let AdminAnswer::Proposals(all) = cluster.operator("bob", AdminRequest::Proposals) else { panic!() };
    assert_eq!(all[0].state, ProposalState::Expired);
    let anew = cluster.proposal("ann", cluster.accept(&next));
    assert!(anew.number > open.number);
}
