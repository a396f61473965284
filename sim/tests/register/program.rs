//! A register on three replicas with a fixed primary: just enough of a protocol to have something
//! to lose. The primary answers a put when every replica has it on disk; with the seeded bug it
//! answers when its own write was merely handed to the system.

use std::collections::{BTreeSet, VecDeque};

use trefoil_engine::{Disk, DiskFile};
use trefoil_sim::clock::NodeTime;
use trefoil_sim::cluster::{Boot, Input, Output, Program, TimerId};
use trefoil_sim::disk::{SECTOR, SimDisk, SimFile};
use trefoil_sim::kernel::{MILLISECOND, SECOND};
use trefoil_sim::network::{Link, NodeIndex};
use trefoil_sim::trace::{Digest, Traced};

const RESEND: TimerId = TimerId(1);
const GIVE_UP: TimerId = TimerId(2);

/// Whether the primary is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Build {
    Right,
    AcksBeforeSync,
}

#[derive(Clone, Debug)]
pub(crate) enum Spec {
    Primary { backups: Vec<NodeIndex>, build: Build },
    Backup,
    Client { primary: NodeIndex },
}

/// A value with its place in the log. Value zero is "no object".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) lsn: u64,
    pub(crate) value: u64,
}

#[derive(Clone, Debug)]
pub(crate) enum Message {
    Request { operation: u64, put: Option<u64> },
    Reply { operation: u64, value: u64 },
    Replicate(Entry),
    Ack { lsn: u64 },
}

impl Traced for Message {
    fn digest(&self, digest: &mut Digest) {
        let words = match self {
            Self::Request { operation, put } => [1, *operation, put.unwrap_or(0)],
            Self::Reply { operation, value } => [2, *operation, *value],
            Self::Replicate(entry) => [3, entry.lsn, entry.value],
            Self::Ack { lsn } => [4, *lsn, 0],
        };
        words.into_iter().for_each(|word| digest.word(word));
    }
}

/// A client is to put a value, or to read.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) operation: u64,
    pub(crate) put: Option<u64>,
}

impl Traced for Command {
    fn digest(&self, digest: &mut Digest) {
        digest.word(self.operation);
        digest.word(self.put.unwrap_or(0));
    }
}

#[derive(Debug)]
pub(crate) enum Seen {
    Invoked { operation: u64, put: Option<u64> },
    Answered { operation: u64, value: u64 },
    GaveUp { operation: u64 },
    Acknowledged(Entry),
}

#[derive(Debug)]
pub(crate) struct Sync {
    file: SimFile,
    entry: Entry,
    from: Option<NodeIndex>,
}

#[derive(Debug)]
pub(crate) struct Register {
    role: Role,
    node: NodeIndex,
    log: Option<SimFile>,
    last: Entry,
}

#[derive(Debug)]
enum Role {
    Primary(Primary),
    Backup,
    Client { primary: NodeIndex, pending: Option<Command> },
}

#[derive(Debug)]
struct Primary {
    backups: Vec<NodeIndex>,
    build: Build,
    committed: Entry,
    /// Who has the last entry on disk.
    holders: BTreeSet<NodeIndex>,
    /// Who asked for the last entry; nobody, if it was found in the log.
    asked: Option<(NodeIndex, u64)>,
    waiting: VecDeque<(NodeIndex, u64, u64)>,
}

fn open_log(disk: &SimDisk) -> SimFile {
    let file = disk.create("log").expect("a toy's disk does not fail");
    disk.sync_directory("").expect("a toy's disk does not fail");
    file
}

fn write(file: &SimFile, entry: Entry) {
    let value = entry.value.to_le_bytes();
    let check = (entry.value ^ u64::MAX).to_le_bytes();
    file.write_at(entry.lsn * SECTOR, &[&value, &check]).expect("a toy's disk does not fail");
}

/// The last entry of the log that is whole.
fn recover(file: &SimFile) -> Entry {
    let length = file.length().expect("a toy's disk does not fail");
    let mut last = Entry::default();
    for lsn in 1..length.div_ceil(SECTOR) {
        let mut bytes = [0; 16];
        if file.read_at(lsn * SECTOR, &mut bytes).is_ok() {
            let (value, check) = bytes.split_at(8);
            let value = u64::from_le_bytes(value.try_into().expect("eight bytes"));
            let check = u64::from_le_bytes(check.try_into().expect("eight bytes"));
            if value != 0 && value ^ check == u64::MAX {
                last = Entry { lsn, value };
            }
        }
    }
    last
}

impl Program for Register {
    type Spec = Spec;
    type Message = Message;
    type Command = Command;
    type Job = Sync;
    type Done = Sync;
    type Observation = Seen;

    fn start(spec: &Spec, boot: Boot) -> Self {
        let log = (!matches!(spec, Spec::Client { .. })).then(|| open_log(&boot.disk));
        let last = log.as_ref().map(recover).unwrap_or_default();
        let role = match spec.clone() {
            Spec::Primary { backups, build } => Role::Primary(Primary {
                backups,
                build,
                committed: Entry::default(),
                holders: BTreeSet::new(),
                asked: None,
                waiting: VecDeque::new(),
            }),
            Spec::Backup => Role::Backup,
            Spec::Client { primary } => Role::Client { primary, pending: None },
        };
        Self { role, node: boot.node, log, last }
    }

    fn run(job: Sync) -> Sync {
        job.file.sync_data().expect("a toy's disk does not fail");
        job
    }

    fn step(&mut self, now: NodeTime, input: Input<Self>, outputs: &mut Vec<Output<Self>>) {
        match input {
            Input::Started => self.started(now, outputs),
            Input::Message { from, message, .. } => self.message(now, from, message, outputs),
            Input::Timer(RESEND) => self.resend(now, outputs),
            Input::Timer(_) => self.give_up(outputs),
            Input::Done { done, .. } => self.synced(&done, outputs),
            Input::Command(command) => self.command(now, command, outputs),
        }
    }
}

impl Register {
    fn started(&mut self, now: NodeTime, outputs: &mut Vec<Output<Self>>) {
        let found = self.last;
        if let Role::Primary(primary) = &mut self.role {
            if found == Entry::default() {
                primary.holders.insert(self.node);
                primary.holders.extend(&primary.backups);
            } else {
                self.append(found, outputs);
            }
            self.resend(now, outputs);
        }
    }

    fn append(&mut self, entry: Entry, outputs: &mut Vec<Output<Self>>) {
        self.persist(entry, None, outputs);
        if let Role::Primary(primary) = &mut self.role {
            primary.holders.clear();
            if primary.build == Build::AcksBeforeSync {
                primary.holders.insert(self.node);
            }
            for to in primary.backups.clone() {
                send(to, Message::Replicate(entry), outputs);
            }
        }
    }

    fn persist(&mut self, entry: Entry, from: Option<NodeIndex>, outputs: &mut Vec<Output<Self>>) {
        let file = self.log.clone().expect("a replica has a log");
        if self.last != entry || from.is_none() {
            // Writing a record again that others count on would put it at risk until the next sync.
            write(&file, entry);
        }
        self.last = entry;
        outputs.push(Output::Work(Sync { file, entry, from }));
    }

    fn message(&mut self, now: NodeTime, from: NodeIndex, message: Message, outputs: &mut Vec<Output<Self>>) {
        match message {
            Message::Request { operation, put: Some(value) } => {
                if let Role::Primary(primary) = &mut self.role {
                    primary.waiting.push_back((from, operation, value));
                    self.next_put(outputs);
                }
            }
            Message::Request { operation, put: None } => self.read(from, operation, outputs),
            Message::Replicate(entry) if entry.lsn >= self.last.lsn => {
                self.persist(entry, Some(from), outputs);
            }
            Message::Replicate(_) => {}
            Message::Ack { lsn } if lsn == self.last.lsn => self.held_by(from, outputs),
            Message::Ack { .. } => {}
            Message::Reply { operation, value } => self.reply(now, operation, value, outputs),
        }
    }

    fn synced(&mut self, sync: &Sync, outputs: &mut Vec<Output<Self>>) {
        match sync.from {
            Some(primary) => send(primary, Message::Ack { lsn: sync.entry.lsn }, outputs),
            None if sync.entry == self.last => self.held_by(self.node, outputs),
            None => {}
        }
    }

    fn held_by(&mut self, holder: NodeIndex, outputs: &mut Vec<Output<Self>>) {
        let last = self.last;
        let Role::Primary(primary) = &mut self.role else {
            return;
        };
        primary.holders.insert(holder);
        let complete = primary.holders.len() == primary.backups.len() + 1;
        if complete && primary.committed.lsn < last.lsn {
            primary.committed = last;
            if let Some((client, operation)) = primary.asked.take() {
                outputs.push(Output::Observe(Seen::Acknowledged(last)));
                send(client, Message::Reply { operation, value: last.value }, outputs);
            }
            self.next_put(outputs);
        }
    }

    fn next_put(&mut self, outputs: &mut Vec<Output<Self>>) {
        let last = self.last;
        let Role::Primary(primary) = &mut self.role else {
            return;
        };
        if primary.committed.lsn == last.lsn
            && let Some((client, operation, value)) = primary.waiting.pop_front()
        {
            primary.asked = Some((client, operation));
            self.append(Entry { lsn: last.lsn + 1, value }, outputs);
        }
    }

    fn read(&mut self, from: NodeIndex, operation: u64, outputs: &mut Vec<Output<Self>>) {
        if let Role::Primary(primary) = &self.role {
            // After a restart, what was found is current only when everybody has it.
            let found_is_shared = primary.committed.lsn > 0 || self.last.lsn == 0 || primary.asked.is_some();
            if found_is_shared {
                let value = primary.committed.value;
                send(from, Message::Reply { operation, value }, outputs);
            }
        }
    }

    fn resend(&mut self, now: NodeTime, outputs: &mut Vec<Output<Self>>) {
        if let Role::Primary(primary) = &self.role {
            let missing = primary.backups.iter().filter(|backup| !primary.holders.contains(backup));
            for to in missing {
                send(*to, Message::Replicate(self.last), outputs);
            }
            let at_boot = now.boot + 100 * MILLISECOND;
            outputs.push(Output::SetTimer { timer: RESEND, at_boot });
        }
    }

    fn command(&mut self, now: NodeTime, command: Command, outputs: &mut Vec<Output<Self>>) {
        if let Role::Client { primary, pending } = &mut self.role {
            let Command { operation, put } = command;
            outputs.push(Output::Observe(Seen::Invoked { operation, put }));
            send(*primary, Message::Request { operation, put }, outputs);
            outputs.push(Output::SetTimer { timer: GIVE_UP, at_boot: now.boot + SECOND });
            *pending = Some(command);
        }
    }

    fn reply(&mut self, _: NodeTime, operation: u64, value: u64, outputs: &mut Vec<Output<Self>>) {
        if let Role::Client { pending, .. } = &mut self.role
            && pending.take_if(|command| command.operation == operation).is_some()
        {
            outputs.push(Output::CancelTimer(GIVE_UP));
            outputs.push(Output::Observe(Seen::Answered { operation, value }));
        }
    }

    fn give_up(&mut self, outputs: &mut Vec<Output<Self>>) {
        if let Role::Client { pending, .. } = &mut self.role
            && let Some(command) = pending.take()
        {
            let operation = command.operation;
            outputs.push(Output::Observe(Seen::GaveUp { operation }));
        }
    }
}

fn send(to: NodeIndex, message: Message, outputs: &mut Vec<Output<Register>>) {
    outputs.push(Output::Send { to, link: Link::CrossOne, size: 32, message });
}
