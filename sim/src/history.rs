//! What clients saw of each object, in true time: the material that checkers judge.
//!
//! An operation is a step on one register: what it requires of the value before it, and what the
//! value is afterwards. Put, delete and undelete write, reads require. An operation that was never
//! answered may have taken effect at any later time or never; one that failed for certain must
//! never take effect.

use std::collections::BTreeMap;
use std::fmt;

use crate::trace::Seconds;

/// A version of an object, as the client that made it named it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionTag(pub u128);

/// An object as the checkers know it: whose it is and under which key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectId {
    /// The tenant's name.
    pub tenant: String,
    /// The object's key.
    pub key: String,
}

impl fmt::Display for ObjectId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.tenant, self.key)
    }
}

/// What an object is at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// Never written, or deleted.
    Absent,
    /// This version is the latest.
    Version(VersionTag),
}

impl fmt::Display for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => write!(formatter, "no object"),
            Self::Version(tag) => write!(formatter, "version {:x}", tag.0),
        }
    }
}

/// What a client asked for, for sentences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// Write a version.
    Put,
    /// Read the latest version, or its metadata.
    Get,
    /// Hide the object.
    Delete,
    /// Bring it back.
    Undelete,
}

impl fmt::Display for Verb {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Put => "put",
            Self::Get => "read",
            Self::Delete => "delete",
            Self::Undelete => "undelete",
        })
    }
}

/// What an operation requires and does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step {
    /// The value just before it, if its answer tells.
    pub requires: Option<Value>,
    /// The value just after it, if it changes it.
    pub becomes: Option<Value>,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered at this time: it took effect between invocation and answer.
    Answered(u64),
    /// Nobody knows; it may take effect at any time after its invocation, or never.
    Unknown,
    /// The client was told for certain that it has not taken effect and never will.
    Refused(u64),
}

/// One operation of one client on one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The client that asked.
    pub client: u32,
    /// What it asked for.
    pub verb: Verb,
    /// What that means for the register.
    pub step: Step,
    /// True time of the invocation.
    pub invoked_at: u64,
    /// How it ended.
    pub outcome: Outcome,
}

impl Operation {
    /// True time of the answer; for ever away if there was none.
    #[must_use]
    pub fn answered_at(&self) -> u64 {
        match self.outcome {
            Outcome::Answered(at) => at,
            Outcome::Unknown | Outcome::Refused(_) => u64::MAX,
        }
    }

    /// A write of a value whose answer says nothing about the value before it.
    #[must_use]
    pub fn write(verb: Verb, client: u32, value: Value, invoked_at: u64, outcome: Outcome) -> Self {
        let step = Step { requires: None, becomes: Some(value) };
        Self { client, verb, step, invoked_at, outcome }
    }

    /// A read that was answered with a value.
    #[must_use]
    pub fn read(client: u32, value: Value, invoked_at: u64, answered_at: u64) -> Self {
        let step = Step { requires: Some(value), becomes: None };
        let outcome = Outcome::Answered(answered_at);
        Self { client, verb: Verb::Get, step, invoked_at, outcome }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.step.becomes.or(self.step.requires);
        write!(formatter, "{} by client {}", self.verb, self.client)?;
        if let Some(value) = value {
            write!(formatter, " ({value})")?;
        }
        write!(formatter, " invoked at{} s", Seconds(self.invoked_at))?;
        match self.outcome {
            Outcome::Answered(at) => write!(formatter, ", answered at{} s", Seconds(at)),
            Outcome::Unknown => write!(formatter, ", never answered"),
            Outcome::Refused(at) => write!(formatter, ", refused at{} s", Seconds(at)),
        }
    }
}

/// Names an operation that waits for its answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pending {
    object: ObjectId,
    index: usize,
}

/// Everything that clients saw, by object.
#[derive(Clone, Debug, Default)]
pub struct History {
    objects: BTreeMap<ObjectId, Vec<Operation>>,
    operations: u64,
}

impl History {
    /// A client invokes an operation. Until it is answered it counts as unknown.
    pub fn invoke(&mut self, object: ObjectId, client: u32, verb: Verb, step: Step, now: u64) -> Pending {
        let operations = self.objects.entry(object.clone()).or_default();
        let operation = Operation { client, verb, step, invoked_at: now, outcome: Outcome::Unknown };
        operations.push(operation);
        self.operations += 1;
        Pending { object, index: operations.len() - 1 }
    }

    /// The answer tells what the operation required and did.
    pub fn answer(&mut self, pending: &Pending, step: Step, now: u64) {
        let operation = self.operation_mut(pending);
        operation.step = step;
        operation.outcome = Outcome::Answered(now);
    }

    /// The client was told that the operation has not taken effect and never will.
    pub fn refuse(&mut self, pending: &Pending, now: u64) {
        self.operation_mut(pending).outcome = Outcome::Refused(now);
    }

    /// The objects and their operations, in order of invocation.
    pub fn objects(&self) -> impl Iterator<Item = (&ObjectId, &[Operation])> {
        self.objects.iter().map(|(object, operations)| (object, operations.as_slice()))
    }

    /// How many operations were invoked.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.operations
    }

    fn operation_mut(&mut self, pending: &Pending) -> &mut Operation {
        self.objects
            .get_mut(&pending.object)
            .and_then(|operations| operations.get_mut(pending.index))
            .expect("a pending operation was invoked in this history")
    }
}
