//! What takes two operators: nobody approves alone, nothing is approved late, and what both decided on is
//! kept. A volume whose complete stores are gone goes on only so.

use trefoil_placement::state::PROPOSAL_LASTS;
use trefoil_placement::{Answer, Request};
use trefoil_protocol::config::{MemberState, Protection};
use trefoil_protocol::ids::VolumeId;
use trefoil_protocol::message::admin::{AdminAnswer, AdminRequest};
use trefoil_protocol::message::approval::{JointAction, ProposalState, ProposalView};

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

    fn accept(&self, name: &str) -> AdminRequest {
        let store = self.nodes[&node(name)].store;
        let action = JointAction::AcceptLoss { volume: VOLUME, epoch: self.config().epoch, store };
        AdminRequest::Propose { action, reason: "A burnt down".to_owned() }
    }
}

/// A is lost, B goes on alone, and B's complete store dies before the next one has caught up. The name is
/// that of the node that has caught up in part.
fn row_16() -> (Cluster, String) {
    let mut cluster = Cluster::with_volume();
    cluster.stop(&["a1", "a2", "a3"]);
    cluster.run_until(30_000, |c| {
        c.config().members.len() >= 2 && c.primary().starts_with('b') && c.config().activated
    });
    let primary = cluster.primary();
    let next = cluster.config().members.iter().find(|m| m.state == MemberState::CatchingUp).unwrap().node;
    cluster.stop(&[&primary]);
    cluster.run_until(20_000, |c| c.config().primary.is_none());
    (cluster, next.to_string())
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
    let (mut cluster, next) = row_16();
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
