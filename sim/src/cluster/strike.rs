//! How a fault plan meets a cluster: which faults wait for which moment, and what each one does.

use super::node::Starvation;
use super::program::{Driver, Program};
use super::{Cluster, Happening};
use crate::clock::SuspendedClock;
use crate::disk::DiskFault;
use crate::faults::{Action, Crash, CrashKind, Fault, FaultPlan, Pause, Starve, Trigger};
use crate::network::{ALL_LINKS, Link, NodeIndex};
use crate::random::{Draws, Stream};

/// A plan speaks of something that the cluster does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("fault {number} names {name:?}, which is no {kind} of this cluster")]
pub struct UnknownName {
    /// Counted from one.
    number: usize,
    /// The name.
    name: String,
    /// `node` or `link`.
    kind: &'static str,
}

/// A laid-down plan: what struck and what waits.
#[derive(Debug, Default)]
pub(super) struct Strikes {
    faults: Vec<Fault>,
    struck: Vec<bool>,
    triggered: Vec<bool>,
}

impl Strikes {
    pub(super) fn of(plan: &FaultPlan) -> Self {
        let none = vec![false; plan.faults.len()];
        Self { faults: plan.faults.clone(), struck: none.clone(), triggered: none }
    }

    /// The faults that wait for a moment of true time.
    pub(super) fn timed(&self) -> Vec<(usize, u64)> {
        let time = |(number, fault): (usize, &Fault)| match &fault.trigger {
            Trigger::At(at) => Some((number, at.0)),
            Trigger::When { .. } => None,
        };
        self.faults.iter().enumerate().filter_map(time).collect()
    }

    /// The faults that this mark sets off, with their delays.
    pub(super) fn at_mark(&mut self, reported: &str, by: &str) -> Vec<(usize, u64)> {
        let mut set_off = Vec::new();
        for (number, fault) in self.faults.iter().enumerate() {
            let Trigger::When { mark, node, delay } = &fault.trigger else {
                continue;
            };
            let its_turn = !self.triggered[number] && (number == 0 || self.struck[number - 1]);
            if its_turn && mark == reported && node.as_ref().is_none_or(|node| node == by) {
                self.triggered[number] = true;
                set_off.push((number, delay.0));
            }
        }
        set_off
    }
}

/// Checks every name of a plan.
pub(super) fn check_names(plan: &FaultPlan, nodes: &[&str]) -> Result<(), UnknownName> {
    for (index, fault) in plan.faults.iter().enumerate() {
        let (named_nodes, links) = names_of(&fault.action);
        let no_node = named_nodes.iter().find(|name| !is_all(name) && !nodes.contains(&name.as_str()));
        let no_link = links.iter().find(|name| !is_all(name) && Link::named(name).is_none());
        let unknown = no_node.map(|name| (name, "node")).or(no_link.map(|name| (name, "link")));
        if let Some((name, kind)) = unknown {
            return Err(UnknownName { number: index + 1, name: name.clone(), kind });
        }
    }
    Ok(())
}

/// The nodes and the links that an action names.
fn names_of(action: &Action) -> (Vec<String>, Vec<String>) {
    let node = |name: &String| (vec![name.clone()], Vec::new());
    match action {
        Action::Cut(links) | Action::Heal(links) => (Vec::new(), links.clone()),
        Action::CutOneWay(one_way) => (Vec::new(), vec![one_way.link.clone()]),
        Action::Model(change) => (Vec::new(), vec![change.link.clone()]),
        Action::Break(pair) | Action::Part(pair) => (pair.to_vec(), Vec::new()),
        Action::Crash(crash) => (crash.nodes.clone(), Vec::new()),
        Action::Restart(nodes) | Action::Repair(nodes) => (nodes.clone(), Vec::new()),
        Action::Pause(pause) => node(&pause.node),
        Action::Starve(starve) => node(&starve.node),
        Action::Disk(change) => node(&change.node),
        Action::Rot(rot) => node(&rot.node),
        Action::Garble(garble) => (garble.nodes.clone(), Vec::new()),
        Action::Slow(slow) => node(&slow.node),
        Action::Wall(jump) => node(&jump.node),
        Action::Rate(change) => node(&change.node),
        Action::Image(name) | Action::RollBack(name) | Action::LoseDisk(name) => node(name),
    }
}

fn is_all(name: &str) -> bool {
    name == "all"
}

fn links_named(names: &[String]) -> Vec<Link> {
    if names.iter().any(|name| is_all(name)) {
        return ALL_LINKS.to_vec();
    }
    names.iter().filter_map(|name| Link::named(name)).collect()
}

impl<P: Program> Cluster<P> {
    pub(super) fn strike(&mut self, number: usize, driver: &mut impl Driver<P>) {
        self.strikes.struck[number] = true;
        let action = self.strikes.faults[number].action.clone();
        self.act(action, driver);
    }

    /// Does what a fault does, now.
    pub fn act(&mut self, action: Action, driver: &mut impl Driver<P>) {
        driver.struck(self.kernel.now(), &action);
        match action {
            Action::Cut(links) => {
                links_named(&links).into_iter().for_each(|link| self.network.cut(link));
            }
            Action::CutOneWay(one_way) => {
                for link in links_named(&[one_way.link]) {
                    self.network.cut_one_way(link, one_way.direction);
                }
            }
            Action::Heal(links) => {
                if links.iter().any(|name| is_all(name)) {
                    self.network.heal_all();
                }
                links_named(&links).into_iter().for_each(|link| self.network.heal(link));
            }
            Action::Model(change) => {
                for link in links_named(&[change.link]) {
                    *self.network.model_mut(link) = change.to.clone();
                }
            }
            Action::Break(pair) => {
                let ends = self.named(&pair);
                if let [one, other] = ends[..] {
                    self.network.break_connections(one, other);
                }
            }
            Action::Part(pair) => {
                let ends = self.named(&pair);
                if let [one, other] = ends[..] {
                    self.network.cut_pair(one, other);
                    self.network.cut_pair(other, one);
                }
            }
            Action::Crash(Crash { nodes, how }) => {
                for node in self.named(&nodes) {
                    self.stop(node, how, driver);
                }
            }
            Action::Restart(nodes) => {
                for node in self.named(&nodes) {
                    self.start(node, driver);
                }
            }
            Action::Pause(pause) => self.pause(&pause),
            Action::Starve(starve) => self.starve(&starve),
            Action::Disk(change) => {
                let fault = DiskFault {
                    kind: change.kind,
                    path: change.file,
                    persistence: change.persistence,
                    after: change.after,
                };
                self.on_disks(&[change.node], |disk| disk.arm(fault.clone()));
            }
            Action::Rot(rot) => self.rot(&rot.node, &rot.file),
            Action::Garble(garble) => {
                self.on_disks(&garble.nodes, |disk| disk.garble_record(garble.volume, garble.lsn));
            }
            Action::Slow(slow) => self.on_disks(&[slow.node], |disk| disk.slow_down(slow.times)),
            Action::Repair(nodes) => self.on_disks(&nodes, crate::disk::SimDisk::repair),
            Action::Wall(jump) => {
                for node in self.named(&[jump.node]) {
                    let nanoseconds = jump.seconds.saturating_mul(1_000_000_000);
                    self.node_mut(node).clock.jump_wall(nanoseconds);
                }
            }
            Action::Rate(change) => self.change_rate(&change.node, change.ppm),
            Action::Image(name) => {
                for node in self.named(&[name]) {
                    self.node_mut(node).take_image();
                }
            }
            Action::RollBack(name) => {
                for node in self.named(&[name]) {
                    self.stop(node, CrashKind::Power, driver);
                    self.node_mut(node).roll_back();
                }
            }
            Action::LoseDisk(name) => {
                for node in self.named(&[name]) {
                    self.stop(node, CrashKind::Power, driver);
                    self.node_mut(node).lose_disk();
                }
            }
        }
    }

    fn pause(&mut self, pause: &Pause) {
        let now = self.kernel.now();
        for index in self.named(std::slice::from_ref(&pause.node)) {
            let node = self.node_mut(index);
            if node.program().is_some() {
                self.stand_still(index, now, pause.lasts.0, pause.clock);
            }
        }
    }

    fn stand_still(&mut self, index: NodeIndex, now: u64, lasts: u64, clock: SuspendedClock) {
        let node = self.node_mut(index);
        node.pause(now, lasts, clock);
        let (until, incarnation) = (node.stands_still_until(), node.incarnation());
        let resume = Happening::Resume { node: index, incarnation };
        self.kernel.schedule(until, super::origin_of(index), resume);
    }

    fn starve(&mut self, starve: &Starve) {
        let (seed, now) = (self.kernel.seed(), self.kernel.now());
        for index in self.named(std::slice::from_ref(&starve.node)) {
            let entity = u64::from(index.0) << 40 | ((now / 1_000_000) & ((1 << 40) - 1));
            let node = self.node_mut(index);
            if node.program().is_none() {
                continue;
            }
            node.starve(Starvation {
                until: now.saturating_add(starve.lasts.0),
                stall: starve.stall.0,
                run: starve.run.0,
                draws: Draws::new(seed, Stream::Starvation, entity),
            });
            let stall = Happening::Stall { node: index, incarnation: node.incarnation() };
            self.kernel.schedule(now, super::origin_of(index), stall);
        }
    }

    /// The next stall of a starved process begins, and the one after it is planned.
    pub(super) fn stall(&mut self, index: NodeIndex, incarnation: u64) {
        let now = self.kernel.now();
        let node = self.node_mut(index);
        if node.incarnation() != incarnation || node.program().is_none() {
            return;
        }
        let Some((stall, run)) = node.next_stall(now) else { return };
        self.stand_still(index, now, stall, SuspendedClock::RunsOn);
        let next = Happening::Stall { node: index, incarnation };
        self.kernel.schedule(now.saturating_add(stall + run), super::origin_of(index), next);
    }

    fn rot(&mut self, node: &str, file: &str) {
        for index in self.named(&[node.to_owned()]) {
            if let Some((_, offset)) = self.node_mut(index).disk.rot(file) {
                self.kernel.decide("rot", offset);
            }
        }
    }

    /// Timers that are set may now be late; one that would be early is put off when it is due.
    fn change_rate(&mut self, node: &str, ppm: i32) {
        let now = self.kernel.now();
        for index in self.named(&[node.to_owned()]) {
            self.node_mut(index).clock.set_rate(now, ppm);
        }
    }

    fn on_disks(&mut self, nodes: &[String], change: impl Fn(&crate::disk::SimDisk)) {
        for index in self.named(nodes) {
            change(self.nodes[usize::from(index.0)].disk());
        }
    }

    fn named(&self, names: &[String]) -> Vec<NodeIndex> {
        let wanted = |name: &str| names.iter().any(|wanted| is_all(wanted) || wanted == name);
        self.indexes()
            .zip(&self.nodes)
            .filter(|(_, node)| wanted(node.name()))
            .map(|(index, _)| index)
            .collect()
    }
}
