//! A control plane that was lost everywhere and restored from a backup that is older than what happened
//! since: nothing is numbered twice, no store is believed to be what it was, and no volume comes up before
//! everybody has spoken who could have led it later.

use trefoil_placement::log_store::{LogStore, MemoryLogStore};
use trefoil_placement::state::{RefusalDraft, State};
use trefoil_placement::{RefoundError, Refounding, last_known};
use trefoil_protocol::backup::SignedBackup;
use trefoil_protocol::config::{MemberState, Protection};
use trefoil_protocol::deletion::{SignerTerm, Signers};
use trefoil_protocol::ids::{Epoch, Incarnation, NodeId, VolumeId};
use trefoil_protocol::message::admin::{AdminAnswer, AdminRequest};
use trefoil_protocol::message::control::{ControlAnswer, ControlRefusal, ControlRequest};
use trefoil_protocol::message::holdings::{GENERATION_STEP, Holdings, VolumeHolding};
use trefoil_protocol::message::refused::Override;

use crate::cluster::{Cluster, entropy, keyring, node, voter};

const VOLUME: VolumeId = VolumeId(1);

fn refounding(generation: Option<u64>) -> Refounding {
    let (cluster, voters) = ("test".to_owned(), vec![voter("p-a1")]);
    Refounding { cluster, voters, generation, given_up: Vec::new(), refused: Vec::new() }
}

impl Cluster {
    /// A backup, as an operator fetches it.
    fn backup(&mut self) -> State {
        let AdminAnswer::Backup { head, part, .. } = self.admin(AdminRequest::Backup { offset: 0 }) else {
            panic!()
        };
        assert_eq!(head.statement.length, part.len() as u64);
        let signers = Signers { terms: vec![SignerTerm::founding(keyring().signatory.public())] };
        let file = head.to_file(&part);
        let (_, state) = SignedBackup::open(&file, &signers).unwrap();
        State::from_bytes(state).unwrap()
    }

    /// The log is lost; another one begins with what was saved.
    fn restore(&mut self, saved: State) {
        let mut store = MemoryLogStore::default();
        refounding(None).begin(saved, &mut store, entropy().as_mut()).unwrap();
        self.placement = None;
        self.open(store);
    }

    /// The node hears that it is not known, and registers again.
    fn registers_again(&mut self, name: &str) -> ControlAnswer {
        let id = node(name);
        let answer = self.renew(id);
        assert_eq!(answer, ControlAnswer::Refused(ControlRefusal::Unregistered));
        let (store, last) = (self.nodes[&id].store, self.nodes[&id].incarnation);
        self.ask(id, ControlRequest::Register(Self::register(name, store, last)))
    }

    /// The node says what it holds and goes on.
    fn speaks(&mut self, name: &str) {
        let id = node(name);
        let answer = self.registers_again(name);
        let ControlAnswer::Registered { incarnation, generation, .. } = answer else { panic!("{answer:?}") };
        assert!(incarnation.0 >= GENERATION_STEP * generation);
        let known = self.nodes.get_mut(&id).unwrap();
        known.incarnation = incarnation;
        let held = known.configs.values().map(|config| VolumeHolding {
            volume: config.volume,
            tenant: config.tenant,
            promised: config.epoch,
            adopted: Some(config.clone()),
            written: if config.activated { config.epoch } else { Epoch(config.epoch.0 - 1) },
            orders: Vec::new(),
        });
        let said = Holdings { store: known.store, incarnation, volumes: held.collect(), last: true };
        known.configs.clear();
        known.applied = trefoil_protocol::ids::ConfigIndex(0);
        assert_eq!(self.ask(id, ControlRequest::Holdings(said)), ControlAnswer::Done);
        self.nodes.get_mut(&id).unwrap().renews = true;
        self.renew(id);
    }

    fn waits_for(&self) -> Vec<NodeId> {
        let views = self.state().sought();
        let stores = views.flat_map(|view| view.waits_for);
        stores.map(|store| self.state().topology.store(store).unwrap().node).collect()
    }
}

/// A backup was made, then a member was replaced and the volume went on: the backup knows nothing of it.
fn moved_on() -> (Cluster, State) {
    let mut cluster = Cluster::with_volume();
    let saved = cluster.backup();
    let lost = cluster.neighbour();
    cluster.stop(&[&lost]);
    cluster.run_until(30_000, |c| {
        c.config().activated && c.config().members.len() == 3 && c.config().member(node(&lost)).is_none()
    });
    cluster.complete_all();
    cluster.run_until(30_000, |c| c.config().activated && c.in_sync().len() == 3);
    cluster.run(2_000);
    (cluster, saved)
}

#[test]
fn r045_a_restored_volume_is_the_one_that_stores_know_and_its_epoch_is_above_all_of_theirs() {
    let (mut cluster, saved) = moved_on();
    let before = cluster.config();
    let known = saved.volumes.get(VOLUME).unwrap().config.clone();
    assert!(known.epoch < before.epoch && known.members != before.members);
    let all: Vec<String> = cluster.nodes.keys().map(ToString::to_string).collect();
    cluster.nodes.values_mut().for_each(|node| node.renews = false);
    cluster.restore(saved);
    assert_eq!(cluster.state().generation, 2);
    for name in &all {
        let waits = !cluster.waits_for().is_empty();
        assert!(cluster.config().primary.is_none() || !waits, "before everybody has spoken who must");
        cluster.speaks(name);
        cluster.run(500);
    }
    cluster.run_until(30_000, |c| c.config().activated);
    let after = cluster.config();
    let stores = |config: &trefoil_protocol::config::VolumeConfig| {
        let mut stores: Vec<_> = config.in_sync().map(|member| member.store).collect();
        stores.sort_unstable();
        stores
    };
    assert_eq!(stores(&after), stores(&before), "not the members that the backup knew");
    assert!(after.epoch.0 >= before.epoch.0 + GENERATION_STEP, "{:?}", after.epoch);
    assert_eq!(after.protection, Protection::BothDcs);
    assert!(known.ever_held.iter().all(|store| after.ever_held.contains(store)));
}

#[test]
fn r045_a_volume_stays_down_until_who_could_have_led_it_has_spoken_and_says_for_whom_it_waits() {
    let (mut cluster, saved) = moved_on();
    let last = cluster.primary();
    let others: Vec<String> =
        cluster.nodes.keys().map(ToString::to_string).filter(|name| *name != last).collect();
    cluster.nodes.values_mut().for_each(|node| node.renews = false);
    cluster.restore(saved);
    for name in &others {
        cluster.speaks(name);
    }
    cluster.run(60_000);
    assert_eq!(cluster.config().primary, None);
    assert_eq!(cluster.waits_for(), [node(&last)]);
    let AdminAnswer::Status(status) = cluster.admin(AdminRequest::Status { behind: VolumeId(0) }) else {
        panic!()
    };
    assert_eq!(status.sought.len(), 1);
    cluster.speaks(&last);
    cluster.run_until(30_000, |c| c.config().activated);
    assert!(cluster.waits_for().is_empty());
}

#[test]
fn r045_nothing_is_numbered_twice_and_no_nonce_is_given_twice() {
    let (cluster, saved) = moved_on();
    let tenant = saved.tenants.all().next().unwrap().clone();
    let restored = refounding(None).state(saved.clone()).unwrap();
    let tenant = restored.tenants.get(tenant.entry.tenant).unwrap();
    assert!(tenant.is_used_up(), "blocks since the backup are not known: the next wrap takes a new key");
    assert!(tenant.next_key() > tenant.newest_key() + 1, "a version that nobody can have made since");
    assert!(restored.tenants.next_id().0 > GENERATION_STEP);
    assert!(restored.volumes.next_id().0 > GENERATION_STEP);
    assert!(restored.applied.0 > cluster.state().applied.0);
    let kept = tenant.keys.keys().copied().collect::<Vec<_>>();
    assert_eq!(kept, saved.tenants.all().next().unwrap().keys.keys().copied().collect::<Vec<_>>());
    assert_eq!(refounding(Some(1)).state(saved.clone()).unwrap_err(), RefoundError::Generation { known: 1 });
    let other = Refounding { cluster: "other".to_owned(), ..refounding(None) };
    assert!(matches!(other.state(saved), Err(RefoundError::Cluster { .. })));
}

#[test]
fn a_store_that_knows_another_restore_is_refused_and_an_older_control_plane_leads_nobody() {
    let (mut cluster, saved) = moved_on();
    cluster.nodes.values_mut().for_each(|node| node.renews = false);
    cluster.restore(saved.clone());
    cluster.speaks("a1");
    let known = cluster.nodes[&node("a1")].incarnation;
    // Restored once more from the same backup, under the same number.
    cluster.restore(saved.clone());
    let refused = cluster.registers_again("a1");
    let ControlAnswer::Refused(ControlRefusal::Denied(reason)) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("--generation 3"), "{reason}");
    // One from before any restore comes back.
    let mut old = Cluster::empty();
    let store = cluster.nodes[&node("a1")].store;
    let register = ControlRequest::Register(Cluster::register("a1", store, known));
    let answer = old.ask(node("a1"), register);
    assert!(matches!(answer, ControlAnswer::Refused(ControlRefusal::NotLeader { .. })), "{answer:?}");
    // However high a number a node names, nothing comes of it.
    let absurd = Cluster::register("a2", crate::cluster::store("a2"), Incarnation(u64::MAX));
    let answer = old.ask(node("a2"), ControlRequest::Register(absurd));
    assert!(matches!(answer, ControlAnswer::Refused(_)), "{answer:?}");
}

#[test]
fn r041_a_data_centre_that_is_given_up_is_not_waited_for_and_what_it_may_know_is_not_believed() {
    let mut cluster = Cluster::with_volume();
    let saved = cluster.backup();
    let gone = cluster.remote();
    cluster.nodes.values_mut().for_each(|node| node.renews = false);
    let mut store = MemoryLogStore::default();
    let what = Override::Begin { begins: 2, without: Vec::new() };
    let (by, reason, why) = ("ann".parse().unwrap(), "B is gone".to_owned(), "it answers".to_owned());
    let refused = RefusalDraft { by, what, reason, why };
    let (given_up, refused) = (vec!["b".parse().unwrap()], vec![refused.clone(), refused]);
    let given_up = Refounding { given_up, refused, ..refounding(None) };
    let begun = given_up.begin(saved, &mut store, entropy().as_mut()).unwrap();
    assert_eq!(begun.refusals.all().map(|kept| kept.times).collect::<Vec<_>>(), [1], "it is told once");
    cluster.placement = None;
    cluster.open(store);
    for name in ["a1", "a2", "a3"] {
        cluster.speaks(name);
    }
    cluster.run_until(60_000, |c| c.config().activated);
    assert_eq!(cluster.protection(), Protection::SingleDc);
    let lost = cluster.nodes[&node(&gone)].store;
    assert!(cluster.record().is_estranged(lost) && cluster.config().member_of_store(lost).is_none());
    let unknown = |cluster: &Cluster| {
        let loss = cluster.record().loss_views().next().unwrap();
        (loss.unknown_since.is_some(), loss.open, loss.proposal)
    };
    assert_eq!(unknown(&cluster), (true, true, 0), "nobody knows what it had");
    // It returns and knows nothing later: it is a store like any other again.
    cluster.speaks(&gone);
    assert!(!cluster.record().is_estranged(lost));
    assert_eq!(unknown(&cluster), (false, false, 0));
}

#[test]
fn r041_what_one_voter_knows_is_all_that_its_log_has() {
    let (mut cluster, _) = moved_on();
    let before = cluster.state().clone();
    let all: Vec<String> = cluster.nodes.keys().map(ToString::to_string).collect();
    cluster.nodes.values_mut().for_each(|node| node.renews = false);
    let store = cluster.placement.take().unwrap().into_store();
    let known = last_known(&store.load().unwrap().unwrap()).unwrap();
    assert_eq!(known, before);
    cluster.restore(known);
    for name in &all {
        cluster.speaks(name);
    }
    cluster.run_until(30_000, |c| c.config().activated);
    assert!(cluster.config().members.iter().all(|member| member.state == MemberState::InSync));
}
