//! The clients' side: their errands, what they were told, and what that means for each object's
//! history.

use bytes::Bytes;
use trefoil_drill::{End, Kind, Sample};
use trefoil_protocol::ids::VersionId;
use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::message::tenant::Refusal;

use super::records::token_key;
use super::{Made, Oracle, tag};
use crate::checkers::isolation::{self, Answered};
use crate::checkers::{Violation, linearizable, no_lost_write};
use crate::cluster::{Agenda, View};
use crate::history::{ObjectId, Pending, Step, Value, Verb};
use crate::kernel::MILLISECOND;
use crate::network::NodeIndex;
use crate::product::client::keys::Keys;
use crate::product::process::{Process, client_at};
use crate::product::roster;
use crate::product::seen::{Command, Ending, Errand, SealedPut};
use crate::product::timeline::Moment;
use crate::workload::Task;

/// An operation that waits for its end.
#[derive(Debug)]
pub(super) struct Under {
    object: ObjectId,
    task: Task,
    version: Option<VersionId>,
    invoked_at: u64,
    pending: Vec<(ObjectId, Pending)>,
    /// The hash of what a put writes.
    plain: [u8; 32],
}

impl Under {
    /// On which object.
    pub(super) fn object(&self) -> &ObjectId {
        &self.object
    }

    /// Whether this version was asked for by its name.
    pub(super) fn asked_for(&self, version: VersionId) -> bool {
        self.task == Task::Version && self.version == Some(version)
    }
}

const NOTHING: Step = Step { requires: None, becomes: None };

impl Oracle {
    /// The first errand of every client; the rest follow from their answers.
    pub(crate) fn begin(&mut self, now: u64, ends_at: u64) -> Vec<(u64, NodeIndex, Command)> {
        self.began_at = now;
        self.ends_at = ends_at;
        let clients: Vec<u32> = self.workload.workers().iter().map(|worker| worker.client).collect();
        clients.into_iter().map(|client| self.assign(client, now)).collect()
    }

    fn assign(&mut self, client: u32, now: u64) -> (u64, NodeIndex, Command) {
        let assignment = self.workload.next(client, now, now.saturating_sub(self.began_at));
        let payload = match assignment.task {
            Task::Put { length } => Bytes::from(self.workload.payload(&assignment, length)),
            _ => Bytes::new(),
        };
        if payload.len() >= 16 {
            self.payloads.insert(*blake3::hash(&payload).as_bytes(), assignment.object.clone());
        }
        // An undelete names its version, so that an answer that never came is not ambiguous.
        let version = match assignment.task {
            Task::Version => self.last_stored.get(&assignment.object).copied(),
            _ => self.last_deleted.get(&assignment.object).copied(),
        };
        let task = match assignment.task {
            Task::Undelete | Task::Version if version.is_none() => Task::Get,
            task => task,
        };
        let version = version.filter(|_| matches!(task, Task::Undelete | Task::Version));
        let errand =
            Errand { operation: assignment.operation, object: assignment.object, task, payload, version };
        self.expect(&errand);
        (assignment.at, client_at(client), Command::Run(Box::new(errand)))
    }

    fn expect(&mut self, errand: &Errand) {
        let under = Under {
            object: errand.object.clone(),
            task: errand.task.clone(),
            version: errand.version,
            invoked_at: 0,
            pending: Vec::new(),
            plain: *blake3::hash(&errand.payload).as_bytes(),
        };
        self.under_way.insert(errand.operation, under);
    }

    pub(super) fn invoked(&mut self, view: &View<'_, Process>, operation: u64, sealed: Option<SealedPut>) {
        let client = client_number(operation);
        let Some(mut under) = self.under_way.remove(&operation) else { return };
        under.invoked_at = view.now;
        let put = sealed.as_ref().map(|sealed| Value::Version(tag(sealed.upload.version)));
        let (verb, becomes) = match under.task {
            Task::Put { .. } => (Verb::Put, put),
            Task::Delete => (Verb::Delete, Some(Value::Absent)),
            Task::Undelete => (Verb::Undelete, under.version.map(|version| Value::Version(tag(version)))),
            Task::Get | Task::Head | Task::List | Task::Version => (Verb::Get, None),
        };
        if let (Task::Undelete, Some(version)) = (&under.task, under.version) {
            self.undeleting.insert(version);
            self.resurrection.undeleting(tag(version));
        }
        let objects = match under.task {
            Task::List => self.objects_of(&under.object.tenant),
            // An older version may be read: that is no read of the object.
            Task::Version => Vec::new(),
            _ => vec![under.object.clone()],
        };
        for object in objects {
            let step = Step { requires: None, becomes };
            let pending = self.history.invoke(object.clone(), client, verb, step, view.now);
            under.pending.push((object, pending));
        }
        if let Some(sealed) = sealed {
            under.version = Some(sealed.upload.version);
            self.plains.insert(sealed.upload.version, under.plain);
            self.try_other_tenants_keys(view, &under.object, &sealed);
            let SealedPut { upload, sealed: bytes, wrapped } = sealed;
            let made = Made { object: under.object.clone(), sealed: bytes, wrapped, upload };
            self.made.insert(upload.version, made);
        }
        self.under_way.insert(operation, under);
    }

    /// Every key that the tenant's clients may use.
    fn objects_of(&self, tenant: &str) -> Vec<ObjectId> {
        let key = |number: u64| match self.shape.shared_names {
            true => format!("k{number}"),
            false => format!("{tenant}-k{number}"),
        };
        (0..self.shape.keys).map(|number| ObjectId { tenant: tenant.to_owned(), key: key(number) }).collect()
    }

    /// No tenant's keys open what another tenant sealed, whatever the stores may mix up.
    fn try_other_tenants_keys(&mut self, view: &View<'_, Process>, object: &ObjectId, sealed: &SealedPut) {
        let key = ObjectKey::new(object.key.clone()).expect("a workload's keys are short text");
        let clients = self.workload.workers().iter();
        let keys_of = |client: u32| -> Option<&Keys> {
            let node = &view.nodes[usize::from(client_at(client).0)];
            node.program().and_then(Process::client).and_then(|client| client.keys())
        };
        let owner = clients.clone().find(|worker| worker.tenant == object.tenant);
        let Some(victim) = owner.and_then(|worker| keys_of(worker.client)) else { return };
        let thief = clients.clone().filter(|worker| worker.tenant != object.tenant).find(|worker| {
            keys_of(worker.client)
                .is_some_and(|keys| keys.would_open(victim, &key, sealed.upload, &sealed.wrapped))
        });
        let found = thief.map(|thief| Violation {
            checker: "isolation",
            object: object.to_string(),
            at_ns: view.now,
            sentence: format!("{} has a key that opens it", thief.tenant),
        });
        self.once(found);
    }

    pub(super) fn ended(
        &mut self,
        view: &View<'_, Process>,
        node: NodeIndex,
        operation: u64,
        ending: Ending,
        agenda: &mut Agenda<Process>,
    ) {
        if let Some(under) = self.under_way.remove(&operation) {
            self.judge(view.now, operation, &under, ending);
        }
        if self.reading_back {
            if let Some((at, command)) = self.next_reading(node, view.now) {
                agenda.command(at, node, command);
            }
        } else if !self.workload.is_open() {
            self.go_on(view.now, operation, agenda);
        }
    }

    /// What the client of an operation does next.
    pub(super) fn go_on(&mut self, now: u64, operation: u64, agenda: &mut Agenda<Process>) {
        if now < self.ends_at {
            let (at, node, command) = self.assign(client_number(operation), now);
            if at < self.ends_at {
                agenda.command(at, node, command);
            }
        }
    }

    /// An operation begins: in an open loop the next one does not wait for its end.
    pub(super) fn arrived(&mut self, now: u64, operation: u64, agenda: &mut Agenda<Process>) {
        if self.workload.is_open() && !self.reading_back {
            self.go_on(now, operation, agenda);
        }
    }

    fn judge(&mut self, now: u64, operation: u64, under: &Under, ending: Ending) {
        self.note_error(now, operation, under, &ending);
        self.note_sample(now, operation, under, &ending);
        if !matches!(ending, Ending::Unknown(_)) {
            self.answered += 1;
            self.longest_wait = self.longest_wait.max(now - under.invoked_at);
        }
        let is_mutation = matches!(under.task, Task::Put { .. } | Task::Delete | Task::Undelete);
        match ending {
            Ending::Stored => {
                let becomes = under.version.map(|version| Value::Version(tag(version)));
                self.last_stored.extend(under.version.map(|version| (under.object.clone(), version)));
                self.answer(under, Step { requires: None, becomes }, now);
            }
            Ending::Found(version, bytes) => self.found(now, operation, under, version, bytes),
            Ending::FoundStale(version, bytes) => self.found_stale(now, under, version, bytes),
            Ending::NotFound if under.task == Task::Undelete => self.refuse(under, now),
            Ending::NotFound => {
                self.answer(under, Step { requires: Some(Value::Absent), becomes: None }, now);
                self.note_read_back(under, Value::Absent);
            }
            Ending::Listed(lines) => self.listed(now, operation, under, &lines),
            Ending::Deleted(version) => {
                self.last_deleted.insert(under.object.clone(), version);
                if !self.undeleting.contains(&version) {
                    self.resurrection.deleted(tag(version), &under.object.to_string(), now);
                }
                let requires = Some(Value::Version(tag(version)));
                self.answer(under, Step { requires, becomes: Some(Value::Absent) }, now);
            }
            Ending::Undeleted(version) => {
                let becomes = Some(Value::Version(tag(version)));
                self.answer(under, Step { requires: Some(Value::Absent), becomes }, now);
            }
            Ending::NotApplied(token) => {
                self.refuse(under, now);
                let found = self.idempotency.not_applied(token_key(token), &under.object.to_string(), now);
                self.once(found);
            }
            Ending::Refused(_) if is_mutation => self.refuse(under, now),
            Ending::Refused(_) | Ending::Unknown(_) => {}
            Ending::Damaged(reason) => self.once(Some(Violation {
                checker: "integrity",
                object: under.object.to_string(),
                at_ns: now,
                sentence: reason,
            })),
        }
    }

    /// What the client saw of it, as long as it worked.
    fn note_sample(&mut self, now: u64, operation: u64, under: &Under, ending: &Ending) {
        if self.reading_back {
            return;
        }
        let kind = match under.task {
            Task::Put { .. } | Task::Delete | Task::Undelete => Kind::Writes,
            Task::Get | Task::Head | Task::List | Task::Version => Kind::Reads,
        };
        let end = match ending {
            Ending::Unknown(_) | Ending::Damaged(_) | Ending::NotApplied(_) => End::Failed,
            Ending::Refused(reason) if *reason == Refusal::SingleDc.to_string() => End::Refused,
            _ => End::Answered,
        };
        let since = |moment: u64| moment.saturating_sub(self.began_at);
        let (client, began, ended) = (client_number(operation), since(under.invoked_at), since(now));
        self.course.samples.push(Sample { client, kind, began, ended, end });
    }

    fn note_error(&mut self, now: u64, operation: u64, under: &Under, ending: &Ending) {
        let (Ending::Unknown(reason) | Ending::Refused(reason) | Ending::Damaged(reason)) = ending else {
            return;
        };
        let (client, waited) = (client_number(operation), (now - under.invoked_at) / MILLISECOND);
        let what = format!("c{client} {} after {waited} ms: {reason}", under.object);
        self.timeline.errors.push(Moment { at_ns: now, what });
    }

    fn answer(&mut self, under: &Under, step: Step, now: u64) {
        for (_, pending) in &under.pending {
            self.history.answer(pending, step, now);
        }
    }

    fn refuse(&mut self, under: &Under, now: u64) {
        for (_, pending) in &under.pending {
            self.history.refuse(pending, now);
        }
    }

    fn found(&mut self, now: u64, operation: u64, under: &Under, version: VersionId, bytes: Option<Bytes>) {
        let value = Value::Version(tag(version));
        self.answer(under, Step { requires: Some(value), becomes: None }, now);
        self.note_read_back(under, value);
        if under.task == Task::Version {
            self.check_version(now, under, version, bytes.clone());
        }
        let by = format!("client {}", client_number(operation));
        let seen = self.resurrection.seen(tag(version), &by, under.invoked_at, now);
        self.once(seen);
        let Some(bytes) = bytes.filter(|bytes| bytes.len() >= 16) else { return };
        let written = self.payloads.get(blake3::hash(&bytes).as_bytes());
        let (tenant, key) = match written {
            Some(object) => (object.tenant.clone(), object.key.clone()),
            None => ("nobody".to_owned(), "bytes that nobody wrote".to_owned()),
        };
        let found = isolation::check(&Answered {
            at_ns: now,
            asked_by: under.object.tenant.clone(),
            key: under.object.key.clone(),
            written_for: tenant,
            written_under: key,
        });
        self.once(found);
    }

    /// A listing reads every key of its tenant at some moment while it runs.
    fn listed(&mut self, now: u64, operation: u64, under: &Under, lines: &[(String, VersionId)]) {
        for (object, pending) in &under.pending {
            let line = lines.iter().find(|(key, _)| *key == object.key);
            let value = line.map_or(Value::Absent, |(_, version)| Value::Version(tag(*version)));
            self.history.answer(pending, Step { requires: Some(value), ..NOTHING }, now);
        }
        let in_order = lines.windows(2).all(|pair| pair[0].0.as_bytes() < pair[1].0.as_bytes());
        self.once((!in_order).then(|| Violation {
            checker: "listing",
            object: under.object.tenant.clone(),
            at_ns: now,
            sentence: "the pages of a listing repeat a key, or are out of order".to_owned(),
        }));
        let by = format!("a listing of client {}", client_number(operation));
        for (key, version) in lines {
            let seen = self.resurrection.seen(tag(*version), &by, under.invoked_at, now);
            self.once(seen);
            let foreign = !under.pending.iter().any(|(object, _)| object.key == *key);
            let found = foreign.then(|| Violation {
                checker: "isolation",
                object: format!("{}/{key}", under.object.tenant),
                at_ns: now,
                sentence: "a listing shows a key that its tenant never used".to_owned(),
            });
            self.once(found);
        }
    }

    fn note_read_back(&mut self, under: &Under, value: Value) {
        if self.reading_back {
            self.read_back.insert(under.object.clone(), value);
        }
    }

    /// Whether no client waits for an answer.
    pub(crate) fn is_idle(&self) -> bool {
        self.under_way.values().all(|under| under.invoked_at == 0)
    }

    /// Everything is to be read back now: the first reading of each tenant's first client.
    pub(crate) fn read_everything_back(&mut self, now: u64) -> Vec<(u64, NodeIndex, Command)> {
        self.reading_back = true;
        let objects: Vec<ObjectId> = self.history.objects().map(|(object, _)| object.clone()).collect();
        for object in objects {
            let owner = self.workload.workers().iter().find(|worker| worker.tenant == object.tenant);
            if let Some(owner) = owner {
                self.to_read.entry(client_at(owner.client)).or_default().push(object);
            }
        }
        let clients: Vec<NodeIndex> = self.to_read.keys().copied().collect();
        let first =
            |client: NodeIndex| self.next_reading(client, now).map(|(at, command)| (at, client, command));
        clients.into_iter().filter_map(first).collect()
    }

    fn next_reading(&mut self, client: NodeIndex, now: u64) -> Option<(u64, Command)> {
        let object = self.to_read.get_mut(&client)?.pop()?;
        // The number keeps its client's part, by which histories name clients.
        let number = u64::from(client.0 - roster::FIRST_CLIENT.0);
        self.next_reading += 1;
        let operation = number << 40 | self.next_reading & ((1 << 40) - 1) | 1 << 39;
        let errand = Errand { operation, object, task: Task::Get, payload: Bytes::new(), version: None };
        self.expect(&errand);
        Some((now + 1, Command::Run(Box::new(errand))))
    }

    /// Whether everything was read back.
    pub(crate) fn has_read_back(&self) -> bool {
        self.reading_back && self.to_read.values().all(Vec::is_empty) && self.is_idle()
    }

    /// Judges the whole run: order of operations, what is there at the end, what must be gone.
    pub(crate) fn conclude(&mut self, view: &View<'_, Process>) -> u64 {
        let findings = linearizable::check(&self.history);
        self.violations.extend(findings.violations);
        let mut lost = Vec::new();
        for (object, operations) in self.history.objects() {
            if let Some(last) = self.read_back.get(object) {
                lost.extend(no_lost_write::check(object, operations, *last, view.now));
            }
        }
        self.violations.extend(lost);
        // A fenced store's disk is out of reach; its certificates say so.
        let reachable = |node: &&crate::cluster::Node<Process>| !self.is_refused(node.name());
        let stores: Vec<_> = view.nodes[..roster::STORAGE.len()].iter().filter(reachable).collect();
        for node in stores {
            let found = self.resurrection.scan(node.name(), node.disk(), view.now);
            self.violations.extend(found);
        }
        findings.undecided
    }
}

fn client_number(operation: u64) -> u32 {
    u32::try_from(operation >> 40).expect("the number of a client is short")
}
