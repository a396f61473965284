//! What simulated clients do: closed loops with time to think, over few keys, so that operations
//! on one object meet each other, and sometimes over the same keys in several tenants, so that a
//! confusion of tenants would show.
//!
//! Each client draws from a stream of its own: taking one client out changes no other's work.

use crate::disk::PAGE;
use crate::history::{ObjectId, Verb};
use crate::kernel::{MILLISECOND, SECOND};
use crate::random::{Draws, Stream};

/// What kind of work a run does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadShape {
    /// The tenants' names.
    pub tenants: Vec<String>,
    /// Clients per tenant.
    pub clients_per_tenant: u32,
    /// Keys per tenant.
    pub keys: u64,
    /// Whether all tenants use the same keys.
    pub shared_names: bool,
    /// The mean time between an answer and the next operation.
    pub think_mean: u64,
    /// How many operations begin in a second from some time on, of all clients together; none for closed loops.
    pub arrivals: Vec<(u64, u64)>,
    /// How long an operation may go on without progress before its client gives up.
    pub deadline: u64,
    /// The longest payload that rides in a record.
    pub inline_max: u64,
    /// The length of an integrity leaf.
    pub leaf: u64,
    /// How often each kind of work is drawn.
    pub weights: Weights,
    /// The tenants that take exact versions from replicas without a control plane.
    pub stale_reads: Vec<String>,
}

/// How often each kind of work is drawn, in proportion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weights {
    /// Puts.
    pub put: u64,
    /// Reads of the latest version.
    pub get: u64,
    /// Reads of metadata.
    pub head: u64,
    /// Listings of a tenant's keys.
    pub list: u64,
    /// Deletes.
    pub delete: u64,
    /// Undeletes.
    pub undelete: u64,
    /// Reads of the version that was stored last, by whoever takes what may be stale.
    pub version: u64,
}

impl Default for WorkloadShape {
    fn default() -> Self {
        Self {
            tenants: vec!["acme".to_owned(), "globex".to_owned()],
            clients_per_tenant: 2,
            keys: 6,
            shared_names: true,
            think_mean: 50 * MILLISECOND,
            arrivals: Vec::new(),
            deadline: 60 * SECOND,
            inline_max: 16 * 1024,
            leaf: 64 * 1024,
            weights: Weights { put: 30, get: 35, head: 8, list: 5, delete: 14, undelete: 8, version: 0 },
            stale_reads: Vec::new(),
        }
    }
}

impl WorkloadShape {
    /// A shape drawn for a run: how many keys, how hurried the clients, which work prevails.
    #[must_use]
    pub fn drawn(seed: u64) -> Self {
        let mut draws = Draws::new(seed, Stream::Workload, u64::MAX);
        let shape = Self::default();
        let mut weight = |usual: u64| if draws.chance(150_000) { 0 } else { draws.between(1, 2 * usual) };
        let weights = Weights {
            put: weight(30).max(1),
            get: weight(35).max(1),
            head: weight(8),
            list: weight(5),
            delete: weight(14),
            undelete: weight(8),
            version: 0,
        };
        Self {
            clients_per_tenant: u32::try_from(draws.between(1, 4)).expect("small"),
            keys: draws.between(1, 12),
            shared_names: draws.chance(500_000),
            think_mean: MILLISECOND + draws.exponential(60 * MILLISECOND),
            weights,
            ..shape
        }
    }
}

/// What a client is to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Task {
    /// Write a payload of this length.
    Put {
        /// Plain bytes.
        length: u64,
    },
    /// Read the latest version.
    Get,
    /// Read its metadata.
    Head,
    /// List the tenant's keys.
    List,
    /// Delete the object.
    Delete,
    /// Undelete it.
    Undelete,
    /// Read the version that was stored last, also where it may be stale.
    Version,
}

impl Task {
    /// What it is on the object's register; a listing is nothing there.
    #[must_use]
    pub fn verb(&self) -> Option<Verb> {
        match self {
            Self::Put { .. } => Some(Verb::Put),
            Self::Get | Self::Head => Some(Verb::Get),
            Self::Delete => Some(Verb::Delete),
            Self::Undelete => Some(Verb::Undelete),
            Self::List | Self::Version => None,
        }
    }
}

/// A client's next operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// True time at which the client begins.
    pub at: u64,
    /// Names the operation within the run; unique.
    pub operation: u64,
    /// On which object.
    pub object: ObjectId,
    /// What to do.
    pub task: Task,
}

/// A client of the workload.
#[derive(Clone, Debug)]
pub struct Worker {
    /// Its number in the run.
    pub client: u32,
    /// The tenant that it belongs to.
    pub tenant: String,
    draws: Draws,
    done: u64,
}

/// The workload of a run.
#[derive(Clone, Debug)]
pub struct Workload {
    seed: u64,
    shape: WorkloadShape,
    workers: Vec<Worker>,
}

impl Workload {
    /// The workload of a seed.
    #[must_use]
    pub fn new(seed: u64, shape: WorkloadShape) -> Self {
        let clients = shape.clients_per_tenant;
        let worker = |client: u32, tenant: &String| Worker {
            client,
            tenant: tenant.clone(),
            draws: Draws::new(seed, Stream::Workload, u64::from(client)),
            done: 0,
        };
        let owners = shape.tenants.iter().flat_map(|tenant| (0..clients).map(move |_| tenant));
        let workers = (0..).zip(owners).map(|(client, tenant)| worker(client, tenant)).collect();
        Self { seed, shape, workers }
    }

    /// The clients.
    #[must_use]
    pub fn workers(&self) -> &[Worker] {
        &self.workers
    }

    /// Whether operations begin whatever becomes of those before.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.shape.arrivals.is_empty()
    }

    /// The mean time between two operations of one client, so long after the beginning.
    fn pause_mean(&self, since: u64) -> u64 {
        let rate = self.shape.arrivals.iter().rev().find(|(from, _)| *from <= since);
        rate.map_or(self.shape.think_mean, |(_, rate)| self.workers.len() as u64 * SECOND / rate)
    }

    /// What a client does next: in a closed loop after an answer at `now`, in an open one after what it began
    /// then; `since` is how long ago all of it began.
    ///
    /// # Panics
    /// If there is no such client.
    pub fn next(&mut self, client: u32, now: u64, since: u64) -> Assignment {
        let mean = self.pause_mean(since);
        let shape = &self.shape;
        let index = usize::try_from(client).expect("a client's number is an index");
        let worker = &mut self.workers[index];
        let at = now + worker.draws.exponential(mean);
        let object = object(shape, worker);
        let task = task(shape, &mut worker.draws);
        let operation = u64::from(client) << 40 | worker.done;
        worker.done += 1;
        Assignment { at, operation, object, task }
    }

    /// The bytes that an operation writes: they belong to one object of one tenant, so that bytes
    /// in the wrong place are recognised.
    #[must_use]
    pub fn payload(&self, assignment: &Assignment, length: u64) -> Vec<u8> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes());
        hasher.update(&assignment.operation.to_le_bytes());
        hasher.update(assignment.object.to_string().as_bytes());
        let mut bytes = vec![0; usize::try_from(length).expect("a simulated payload fits memory")];
        hasher.finalize_xof().fill(&mut bytes);
        bytes
    }
}

fn object(shape: &WorkloadShape, worker: &mut Worker) -> ObjectId {
    let number = worker.draws.below(shape.keys);
    let key = match shape.shared_names {
        true => format!("k{number}"),
        false => format!("{}-k{number}", worker.tenant),
    };
    ObjectId { tenant: worker.tenant.clone(), key }
}

fn task(shape: &WorkloadShape, draws: &mut Draws) -> Task {
    let Weights { put, get, head, list, delete, undelete, version } = shape.weights;
    let length = length(shape, draws);
    let choices = [
        (put, Task::Put { length }),
        (get, Task::Get),
        (head, Task::Head),
        (list, Task::List),
        (delete, Task::Delete),
        (undelete, Task::Undelete),
        (version, Task::Version),
    ];
    let total = choices.iter().map(|(weight, _)| weight).sum();
    let mut drawn = draws.below(total);
    for (weight, task) in choices {
        if drawn < weight {
            return task;
        }
        drawn -= weight;
    }
    unreachable!("a draw below the sum of the weights falls on one of them")
}

/// Lengths at which something changes: nothing, inline, just above inline, several leaves.
fn length(shape: &WorkloadShape, draws: &mut Draws) -> u64 {
    let class = draws.below(10);
    let within = draws.next();
    match class {
        0 => 0,
        1..=5 => 1 + within % 1_024,
        6 => shape.inline_max - 64 + within % 128,
        7 => shape.inline_max + 1 + within % PAGE,
        8 => shape.leaf - 64 + within % 128,
        _ => 2 * shape.leaf + within % (2 * shape.leaf),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Task, Workload, WorkloadShape};

    fn tasks(client: u32, shape: &WorkloadShape) -> Vec<super::Assignment> {
        let mut workload = Workload::new(1, shape.clone());
        (0..400).map(|now| workload.next(client, now, now)).collect()
    }

    #[test]
    fn a_client_does_the_same_whoever_works_beside_it() {
        let shape = WorkloadShape::default();
        let mut beside = Workload::new(1, shape.clone());
        let mut seen = Vec::new();
        for now in 0..400 {
            beside.next(0, now, now);
            seen.push(beside.next(1, now, now));
        }
        assert_eq!(tasks(1, &shape), seen);
    }

    #[test]
    fn every_kind_of_work_and_every_class_of_length_comes() {
        let tasks = tasks(0, &WorkloadShape::default());
        let lengths: BTreeSet<u64> = tasks
            .iter()
            .filter_map(|assignment| match assignment.task {
                Task::Put { length } => Some(length),
                _ => None,
            })
            .collect();
        assert!(lengths.contains(&0));
        assert!(lengths.iter().any(|length| (16_385..20_500).contains(length)));
        assert!(lengths.iter().any(|length| *length > 131_072));
        for kind in [Task::Get, Task::Head, Task::List, Task::Delete, Task::Undelete] {
            assert!(tasks.iter().any(|assignment| assignment.task == kind), "{kind:?}");
        }
    }

    #[test]
    fn operations_are_unique_and_payloads_tell_their_owner() {
        let mut workload = Workload::new(1, WorkloadShape::default());
        assert_eq!(workload.workers().len(), 4);
        assert_eq!(workload.workers()[3].tenant, "globex");
        let (one, other) = (workload.next(0, 0, 0), workload.next(3, 0, 0));
        assert_ne!(one.operation, other.operation);
        assert_ne!(workload.payload(&one, 64), workload.payload(&other, 64));
        assert_eq!(workload.payload(&one, 64), workload.payload(&one, 64));
    }

    #[test]
    fn drawn_shapes_differ_and_always_write_and_read() {
        let shapes: Vec<WorkloadShape> = (0..50).map(WorkloadShape::drawn).collect();
        assert!(shapes.iter().all(|shape| shape.weights.put > 0 && shape.weights.get > 0));
        assert!(shapes.iter().any(|shape| shape.weights.delete == 0));
        assert!(shapes.iter().any(|shape| !shape.shared_names));
    }
}
