//! The simulator on a toy: that one seed is one run, that crashes lose what they may and nothing
//! else, and that the checkers see a bug which was put in on purpose.

mod program;

use std::collections::BTreeMap;

use program::{Build, Command, Entry, Register, Seen, Spec};
use trefoil_sim::checkers::durable_at_ack::{self, Acknowledgement, Copy, Protection};
use trefoil_sim::checkers::{Violation, linearizable};
use trefoil_sim::cluster::{Agenda, Cluster, Driver, View};
use trefoil_sim::disk::{DiskModel, SECTOR};
use trefoil_sim::faults::FaultPlan;
use trefoil_sim::history::{History, ObjectId, Pending, Step, Value, Verb, VersionTag};
use trefoil_sim::kernel::{MILLISECOND, SECOND};
use trefoil_sim::network::{NodeIndex, Site};
use trefoil_sim::random::{Draws, Stream};
use trefoil_sim::trace::{Trace, TraceSummary};

const REPLICAS: usize = 3;
const CLIENTS: u16 = 4;

struct Watcher {
    draws: BTreeMap<NodeIndex, Draws>,
    history: History,
    pending: BTreeMap<u64, Pending>,
    violations: Vec<Violation>,
    next_operation: u64,
    think_mean: u64,
    answered: u64,
}

impl Watcher {
    fn new(seed: u64, think_mean: u64) -> Self {
        let clients = (REPLICAS as u16..REPLICAS as u16 + CLIENTS).map(NodeIndex);
        let draws = |client: NodeIndex| (client, Draws::new(seed, Stream::Workload, u64::from(client.0)));
        Self {
            draws: clients.map(draws).collect(),
            history: History::default(),
            pending: BTreeMap::new(),
            violations: Vec::new(),
            next_operation: 1,
            think_mean,
            answered: 0,
        }
    }

    fn next_command(&mut self, client: NodeIndex, now: u64) -> (u64, Command) {
        let draws = self.draws.get_mut(&client).expect("a client has draws");
        let at = now + draws.exponential(self.think_mean);
        let operation = self.next_operation;
        self.next_operation += 1;
        let put = draws.chance(500_000).then_some(operation);
        (at, Command { operation, put })
    }

    fn value(value: u64) -> Value {
        if value == 0 { Value::Absent } else { Value::Version(VersionTag(u128::from(value))) }
    }

    fn acknowledged(&mut self, view: &View<'_, Register>, entry: Entry) {
        let copy = |node: &trefoil_sim::cluster::Node<Register>| Copy {
            node: node.name().to_owned(),
            dc: if node.name().starts_with('a') { Site::A } else { Site::B },
            durable: node.disk().is_durable("log", entry.lsn * SECTOR, 16),
        };
        let acknowledgement = Acknowledgement {
            at_ns: view.now,
            object: "acme/register".to_owned(),
            protection: Protection::BothDcs,
            copies: view.nodes[..REPLICAS].iter().map(copy).collect(),
        };
        // The toy promises all three copies, the checker asks for two in both data centres.
        if acknowledgement.copies.iter().any(|copy| !copy.durable) {
            let only_primary_missing = durable_at_ack::check(&Acknowledgement {
                protection: Protection::SingleDc,
                copies: acknowledgement.copies.iter().filter(|copy| copy.dc == Site::A).cloned().collect(),
                ..acknowledgement
            });
            self.violations.extend(only_primary_missing);
        }
    }
}

impl Driver<Register> for Watcher {
    fn observe(
        &mut self,
        view: &View<'_, Register>,
        node: NodeIndex,
        seen: Seen,
        agenda: &mut Agenda<Register>,
    ) {
        match seen {
            Seen::Invoked { operation, put } => {
                let object = ObjectId { tenant: "acme".to_owned(), key: "register".to_owned() };
                let verb = if put.is_some() { Verb::Put } else { Verb::Get };
                let step = Step { requires: None, becomes: put.map(Self::value) };
                let pending = self.history.invoke(object, u32::from(node.0), verb, step, view.now);
                self.pending.insert(operation, pending);
                return;
            }
            Seen::Answered { operation, value } => {
                let pending = self.pending.remove(&operation).expect("it was invoked");
                let put = value == operation;
                let value = Some(Self::value(value));
                let step = match put {
                    true => Step { requires: None, becomes: value },
                    false => Step { requires: value, becomes: None },
                };
                self.history.answer(&pending, step, view.now);
                self.answered += 1;
            }
            Seen::GaveUp { operation } => {
                self.pending.remove(&operation);
            }
            Seen::Acknowledged(entry) => return self.acknowledged(view, entry),
        }
        let (at, command) = self.next_command(node, view.now);
        agenda.command(at, node, command);
    }
}

fn cluster(seed: u64, build: Build, watcher: &mut Watcher) -> Cluster<Register> {
    let mut cluster = Cluster::new(seed, Trace::silent(), 200);
    let disk = DiskModel::default;
    let backups = vec![NodeIndex(1), NodeIndex(2)];
    let primary = cluster.add_node("a1", Site::A, Spec::Primary { backups, build }, disk());
    cluster.add_node("a2", Site::A, Spec::Backup, disk());
    cluster.add_node("b1", Site::B, Spec::Backup, disk());
    for client in 0..CLIENTS {
        let node = cluster.add_node(&format!("c{client}"), Site::A, Spec::Client { primary }, disk());
        let (at, command) = watcher.next_command(node, 0);
        cluster.command(at, node, command);
    }
    cluster.start_all(watcher);
    cluster
}

const CRASHES: &str = r#"
[[fault]]
at = "3s"
crash = { nodes = ["a1"] }
[[fault]]
at = "4s"
restart = "a1"
[[fault]]
at = "6s"
crash = { nodes = ["a1", "a2", "b1"] }
[[fault]]
at = "7s"
restart = "all"
[[fault]]
at = "8s"
cut = "x1"
[[fault]]
at = "9s"
heal = "all"
[[fault]]
at = "10s"
pause = { node = "a2", for = "1500ms" }
"#;

const SLOW: &str = "[[fault]]\nat = \"0s\"\nslow = { node = \"a1\", times = 100 }\n";

struct Run {
    summary: TraceSummary,
    watcher: Watcher,
    violations: Vec<Violation>,
}

fn run(seed: u64, build: Build, plan: &str, until: u64) -> Run {
    let mut watcher = Watcher::new(seed, 20 * MILLISECOND);
    let mut cluster = cluster(seed, build, &mut watcher);
    let plan = FaultPlan::parse(plan).expect("a good plan");
    cluster.load(&plan).expect("its names are known");
    cluster.run_until(until, &mut watcher);
    let findings = linearizable::check(&watcher.history);
    assert_eq!(findings.undecided, 0);
    let violations = [std::mem::take(&mut watcher.violations), findings.violations].concat();
    Run { summary: cluster.finish(), watcher, violations }
}

#[test]
fn r119_one_seed_is_one_run_and_another_seed_another() {
    let summary = |seed| run(seed, Build::Right, CRASHES, 12 * SECOND).summary;
    for seed in 0..5 {
        assert_eq!(summary(seed), summary(seed));
        assert_ne!(summary(seed).hash, summary(seed + 1).hash);
    }
}

/// Run by [`r119_two_processes_are_one_run`] in a process of its own.
#[test]
fn the_hash_of_a_run_is_printed() {
    println!("hash {}", run(9, Build::Right, CRASHES, 12 * SECOND).summary.hash);
}

#[test]
fn r119_two_processes_are_one_run() {
    let this = std::env::current_exe().expect("a test knows its own file");
    let other = std::process::Command::new(this)
        .args(["--exact", "the_hash_of_a_run_is_printed", "--nocapture"])
        .output()
        .expect("a test can start itself");
    let printed = String::from_utf8_lossy(&other.stdout).into_owned();
    let here = run(9, Build::Right, CRASHES, 12 * SECOND).summary.hash;
    assert!(printed.contains(&format!("hash {here}")), "{printed}");
}

#[test]
fn r119_a_removed_fault_changes_nothing_before_it() {
    let summary = |plan| run(3, Build::Right, plan, 12 * SECOND).summary;
    let early = "[[fault]]\nat = \"11s\"\ncut = \"x1\"\n";
    let until = |plan| run(3, Build::Right, plan, 10 * SECOND).summary;
    assert_eq!(until(early).hash, until("").hash);
    assert_ne!(summary(early).hash, summary("").hash);
}

#[test]
fn a_right_register_survives_crashes_cuts_and_pauses() {
    for seed in 0..40 {
        let run = run(seed, Build::Right, CRASHES, 12 * SECOND);
        assert_eq!(run.violations, [], "seed {seed}");
        assert!(run.watcher.answered > 200, "seed {seed}: {} answers", run.watcher.answered);
    }
}

#[test]
fn an_acknowledgement_before_the_sync_is_seen_at_once() {
    let caught = (0..10).filter(|seed| {
        let run = run(*seed, Build::AcksBeforeSync, SLOW, 3 * SECOND);
        run.violations.iter().any(|violation| violation.checker == "durable_at_ack")
    });
    assert!(caught.count() >= 9);
}

#[test]
fn a_fault_waits_for_its_mark_and_unknown_names_are_refused() {
    let mut watcher = Watcher::new(1, SECOND);
    let mut cluster = cluster(1, Build::Right, &mut watcher);
    let plan = FaultPlan::parse("[[fault]]\nat = \"1s\"\ncrash = { nodes = [\"z9\"] }").expect("good");
    let error = cluster.load(&plan).expect_err("there is no z9").to_string();
    assert_eq!(error, "fault 1 names \"z9\", which is no node of this cluster");
}

/// Prints how fast the kernel is: `cargo test --release -p trefoil-sim --test register -- --nocapture rate`.
#[test]
fn the_rate_of_events_is_measured() {
    let begin = cpu_ticks();
    let run = run(1, Build::Right, "", 60 * SECOND);
    let spent = (cpu_ticks() - begin).max(1);
    let per_second = run.summary.events * 100 / spent;
    println!("{} events in {spent} ticks of 10 ms: {per_second} events/CPU-s", run.summary.events);
    assert!(run.summary.events > 50_000);
}

/// User time of this thread in ticks of 10 ms. The simulator itself never asks.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default();
    fields.split(' ').nth(11).and_then(|ticks| ticks.parse().ok()).unwrap_or(0)
}
