//! The machines against scripted nodes: what is asked, of whom, and what the caller is told.

mod hedge;
mod lenient;
mod listing;
mod model;
mod mutation;
mod parts;
mod question;
mod route;

use std::time::Duration;

use bytes::Bytes;
use trefoil_protocol::config::{
    LinkAddress, Member, MemberState, NodeEntry, NodeState, Protection, SingleDcPolicy, TenantEntry,
    VolumeConfig, VoterEntry,
};
use trefoil_protocol::ids::{
    ClientInstance, ConfigIndex, Epoch, Incarnation, LinkId, NodeId, PrincipalId, PublicKey, StoreId,
    TenantId, Token, VersionId, VolumeId, VoterId,
};
use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::message::tenant::{
    ListEntry, Precondition, RouteView, TenantAnswer, TenantCall, TenantRequest, TenantResponse, TokenUse,
};
use trefoil_protocol::time::{BootTime, CpTime, Millis};

use super::*;

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text.to_owned()).unwrap()
}

fn member(name: &str) -> Member {
    let dc = name[..1].parse().unwrap();
    let store = StoreId([name.as_bytes()[1]; 16]);
    Member { node: node(name), dc, store, state: MemberState::InSync }
}

fn volume(slot: u32, epoch: u64, primary: Option<&str>) -> VolumeConfig {
    VolumeConfig {
        volume: VolumeId(u64::from(slot) + 10),
        tenant: TenantId(1),
        slot,
        epoch: Epoch(epoch),
        primary: primary.map(node),
        members: ["a1", "a2", "b1"].map(member).into(),
        protection: Protection::BothDcs,
        activated: true,
        changed: ConfigIndex(epoch),
        intervals: vec![],
        ever_held: vec![],
        window: Millis(5),
        first_copy_retention: Millis(0),
        single_dc: SingleDcPolicy::Allow,
        handover: None,
        replays: false,
        stale_reads: Default::default(),
    }
}

fn entry(name: &str) -> NodeEntry {
    NodeEntry {
        node: node(name),
        dc: name[..1].parse().unwrap(),
        rack: "r1".parse().unwrap(),
        store: member(name).store,
        store_key: PublicKey([0; 32]),
        incarnation: Incarnation(1),
        capacity: 1,
        addresses: vec![LinkAddress { link: LinkId::One, address: "127.0.0.1:1".parse().unwrap() }],
        state: NodeState::Up,
        pid: 1,
        duty: Default::default(),
    }
}

fn voter(port: u16) -> VoterEntry {
    VoterEntry {
        voter: VoterId(u64::from(port)),
        name: node("p"),
        dc: "a".parse().unwrap(),
        witness: false,
        control: ([127, 0, 0, 1], 1).into(),
        tenants: ([127, 0, 0, 1], port).into(),
    }
}

fn view(volumes: Vec<VolumeConfig>) -> RouteView {
    RouteView {
        tenant: TenantEntry {
            tenant: TenantId(1),
            name: "acme".parse().unwrap(),
            volume_count: volumes.len().max(1) as u32,
            window: Millis(5),
            first_copy_retention: Millis(0),
            single_dc: SingleDcPolicy::Allow,
            stale_reads: Default::default(),
        },
        volumes,
        nodes: ["a1", "a2", "b1"].map(entry).into(),
        now: CpTime(1),
        principal: PrincipalId(1),
        voters: Vec::new(),
    }
}

fn routes(volumes: Vec<VolumeConfig>) -> RouteCache {
    let mut routes = RouteCache::new(2);
    routes.learn(view(volumes)).unwrap();
    routes
}

fn token(sequence: u64) -> TokenUse {
    TokenUse { token: Token { instance: ClientInstance([1; 16]), sequence }, confirmed_below: 1 }
}

fn delete(sequence: u64) -> TenantCall {
    TenantCall::Delete { key: key("k"), precondition: Precondition::Any, token: token(sequence) }
}

fn deleted() -> TenantAnswer {
    TenantAnswer::Deleted {
        version: VersionId([1; 16]),
        tombstone: trefoil_protocol::ids::Lsn(9),
        window_ends: CpTime(100),
    }
}

fn line(text: &str) -> ListEntry {
    ListEntry {
        key: key(text),
        version: VersionId([1; 16]),
        sealed_length: 160,
        root: Default::default(),
        created: CpTime(1),
        window_ends: None,
    }
}

/// What an operation asked, without the noise.
#[derive(Clone, Debug, PartialEq)]
struct Asked {
    exchange: ExchangeId,
    to: Peer,
    request: TenantRequest,
    bulk: Bytes,
}

/// Runs one operation by hand.
struct Rig<O: Operation> {
    operation: O,
    routes: RouteCache,
    now: BootTime,
    asked: Vec<Asked>,
    output: Option<O::Output>,
}

impl<O: Operation> Rig<O> {
    fn new(operation: O, routes: RouteCache) -> Self {
        let mut rig = Self { operation, routes, now: BootTime(0), asked: vec![], output: None };
        rig.feed(Event::Wakeup);
        rig
    }

    fn feed(&mut self, event: Event) {
        for effect in self.operation.step(self.now, &mut self.routes, event) {
            match effect {
                Effect::Ask { exchange, to, request, bulk } => {
                    self.asked.push(Asked { exchange, to, request: *request, bulk });
                }
                Effect::Forget(_) => {}
                Effect::Done(output) => {
                    assert!(self.output.replace(output).is_none(), "an operation ends once");
                }
            }
        }
    }

    /// Lets time pass until the operation asks something new or ends.
    fn wait(&mut self) {
        let before = self.asked.len();
        while self.asked.len() == before && self.output.is_none() {
            let wakeup = self.operation.next_wakeup().expect("an open operation wants to be woken");
            self.now = self.now.max(wakeup);
            self.feed(Event::Wakeup);
        }
    }

    fn last(&self) -> &Asked {
        self.asked.last().expect("something was asked")
    }

    fn answer(&mut self, response: TenantResponse) {
        let exchange = self.last().exchange;
        self.feed(Event::Answered(exchange, Box::new(response)));
    }

    fn fail(&mut self, failed: Failed) {
        let exchange = self.last().exchange;
        self.feed(Event::Failed(exchange, failed));
    }

    /// Answers route questions with `view` until something else is asked or the operation ends.
    fn route(&mut self, view: &RouteView) {
        while self.output.is_none() && self.last().request.call == TenantCall::Route {
            self.answer(Ok(TenantAnswer::Route(view.clone())));
            if self.output.is_none() && self.last().request.call == TenantCall::Route {
                self.wait();
            }
        }
    }
}
