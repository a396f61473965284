//! What went over a link, by what it was for. For operators only; nothing is decided by it.

use std::ops::AddAssign;

use minicbor::{Decode, Encode};

/// Messages and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Traffic {
    /// How many.
    #[n(0)]
    pub frames: u64,
    /// How long they were together.
    #[n(1)]
    pub bytes: u64,
}

impl Traffic {
    /// One message.
    pub fn one(bytes: u64) -> Self {
        Self { frames: 1, bytes }
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.frames = self.frames.saturating_add(other.frames);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// What a message between nodes is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Records and payload as they come from clients.
    Clients,
    /// Payload that somebody catches up on.
    Repair,
    /// Everything else: acknowledgements, questions, probes.
    Control,
}

/// What went over a link, by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct TrafficByClass {
    /// Records and payload as they come from clients.
    #[n(0)]
    pub clients: Traffic,
    /// Payload that somebody catches up on.
    #[n(1)]
    pub repair: Traffic,
    /// Everything else.
    #[n(2)]
    pub control: Traffic,
}

impl TrafficByClass {
    /// A message of a class went out.
    pub fn count(&mut self, class: Class, traffic: Traffic) {
        let sum = match class {
            Class::Clients => &mut self.clients,
            Class::Repair => &mut self.repair,
            Class::Control => &mut self.control,
        };
        *sum += traffic;
    }
}

impl AddAssign for TrafficByClass {
    fn add_assign(&mut self, other: Self) {
        self.clients += other.clients;
        self.repair += other.repair;
        self.control += other.control;
    }
}
