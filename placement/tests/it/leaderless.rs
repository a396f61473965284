//! A voter without a leader tells tenants that allow stale reads what they read with, and nobody anything else.

use trefoil_placement::{Answer, Event, Request, RequestId};
use trefoil_protocol::config::StaleReads;
use trefoil_protocol::ids::{Epoch, Incarnation, PrincipalId, TenantId, VolumeId, VoterId};
use trefoil_protocol::message::admin::{AdminAnswer, AdminRequest};
use trefoil_protocol::message::control::{ControlAnswer, ControlRequest, Renew};
use trefoil_protocol::message::tenant::{
    KeysView, Refusal, TenantAnswer, TenantCall, TenantRequest, TenantResponse,
};
use trefoil_protocol::time::Millis;

use crate::cluster::{Cluster, node, store};
use crate::voters::Voters;

/// Numbers of requests, beside those that the voters' own are.
struct Asker(u64);

impl Asker {
    fn ask(&mut self, voters: &mut Voters, voter: VoterId, request: Request) -> Option<Answer> {
        self.0 += 1;
        let id = RequestId(self.0);
        voters.step(voter, Event::Request(id, request));
        voters.answers.get(&id).cloned()
    }

    fn admin(&mut self, voters: &mut Voters, voter: VoterId, request: AdminRequest) -> AdminAnswer {
        match self.ask(voters, voter, Request::Admin("op".parse().unwrap(), request)) {
            Some(Answer::Admin(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn call(
        &mut self,
        voters: &mut Voters,
        voter: VoterId,
        (tenant, principal): (TenantId, PrincipalId),
        call: TenantCall,
    ) -> TenantResponse {
        let request = TenantRequest { volume: VolumeId(0), epoch: Epoch(0), call, within: Millis(60_000) };
        match self.ask(voters, voter, Request::Tenant(tenant, principal, request)) {
            Some(Answer::Tenant(response)) => response,
            other => panic!("{other:?}"),
        }
    }

    /// A tenant with this policy, and a principal of it.
    fn tenant(
        &mut self,
        voters: &mut Voters,
        voter: VoterId,
        name: &str,
        stale_reads: StaleReads,
    ) -> (TenantId, PrincipalId) {
        let name = name.parse().unwrap();
        let create = AdminRequest::CreateTenant {
            name,
            volumes: 1,
            window: Millis(1_000),
            first_copy_retention: Millis(0),
            single_dc: Default::default(),
            stale_reads,
        };
        let made = self.admin(voters, voter, create);
        assert!(matches!(made, AdminAnswer::Tenant(_)), "{made:?}");
        match self.admin(voters, voter, AdminRequest::CreatePrincipal { tenant: name }) {
            AdminAnswer::Principal { tenant, principal } => (tenant, principal),
            other => panic!("{other:?}"),
        }
    }
}

fn keys(response: TenantResponse) -> KeysView {
    match response {
        Ok(TenantAnswer::Keys(view)) => view,
        other => panic!("{other:?}"),
    }
}

#[test]
fn r040_without_a_leader_keys_to_read_with_go_to_tenants_that_allow_stale_reads_alone() {
    let mut voters = Voters::new(&["p-a1", "p-b1", "w1"]);
    let mut asker = Asker(1_000_000);
    voters.run(2_000);
    let leader = voters.leader();
    for name in ["a1", "a2", "a3", "b1", "b2", "b3"] {
        let register = ControlRequest::Register(Cluster::register(name, store(name), Incarnation(0)));
        let told = asker.ask(&mut voters, leader, Request::Control(node(name), register));
        let Some(Answer::Control(ControlAnswer::Registered { incarnation, .. })) = told else {
            panic!("{name}: {told:?}");
        };
        let renew = Renew { store: store(name), ..voters.renewal(incarnation) };
        asker.ask(&mut voters, leader, Request::Control(node(name), ControlRequest::Renew(renew)));
    }
    let allows = asker.tenant(&mut voters, leader, "acme", StaleReads::Allow);
    let refuses = asker.tenant(&mut voters, leader, "globex", StaleReads::Refuse);
    let before = keys(asker.call(&mut voters, leader, allows, TenantCall::Keys));
    let to_read = keys(asker.call(&mut voters, leader, refuses, TenantCall::KeysToRead));
    assert_eq!((to_read.keys.len(), to_read.nonce_count), (2, 0), "a leader gives them to anybody");
    voters.run(2_000);
    let keepers = [0, 1].map(|place: usize| voters.entries[place].voter);
    let witness = voters.entries[2].voter;
    voters.cut_off.extend(keepers.into_iter().chain([witness]));
    voters.run(5_000);
    assert_eq!(voters.leaders(), []);
    for voter in keepers {
        let view = keys(asker.call(&mut voters, voter, allows, TenantCall::KeysToRead));
        assert_eq!((&view.keys, view.nonce_count), (&before.keys, 0), "nothing is counted out");
        let route = asker.call(&mut voters, voter, allows, TenantCall::Route);
        assert!(matches!(route, Ok(TenantAnswer::Route(view)) if view.volumes.len() == 1));
        for (who, call) in [
            (allows, TenantCall::Keys),
            (refuses, TenantCall::KeysToRead),
            (refuses, TenantCall::Route),
            ((allows.0, refuses.1), TenantCall::KeysToRead),
            ((refuses.0, allows.1), TenantCall::Route),
        ] {
            let told = asker.call(&mut voters, voter, who, call.clone());
            assert_eq!(told, Err(Refusal::Unavailable), "{call:?} of {who:?}");
        }
    }
    let of_witness = asker.call(&mut voters, witness, allows, TenantCall::KeysToRead);
    assert_eq!(of_witness, Err(Refusal::Unavailable), "it holds none");
}
