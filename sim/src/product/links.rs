//! Which of the two links a storage node uses to each node in the other data centre: the production
//! choice, fed by probes. Nobody tells a node that a link is cut; it notices that probes are not
//! answered.

use std::collections::BTreeMap;

use trefoil_protocol::ids::LinkId;
use trefoil_protocol::links::{LinkChoice, PROBE_INTERVAL};
use trefoil_protocol::time::BootTime;

use super::message::Message;
use super::process::Process;
use super::roster;
use crate::cluster::Output;
use crate::network::{Link, NodeIndex, Site};

/// One node's view of the links to its far peers.
#[derive(Debug)]
pub(super) struct Links {
    here: Site,
    choices: BTreeMap<NodeIndex, LinkChoice>,
    /// When each unanswered probe left, and to whom over which link.
    probes: BTreeMap<u64, (NodeIndex, LinkId, BootTime)>,
    next_probe: u64,
    due: BootTime,
}

impl Links {
    pub(super) fn of(me: NodeIndex, now: BootTime) -> Self {
        let here = roster::STORAGE[usize::from(me.0)].1;
        let far = (0..).map(NodeIndex).zip(roster::STORAGE).filter(|(_, (_, site))| *site != here);
        let mut choices = BTreeMap::new();
        for (peer, _) in far {
            let mut choice = LinkChoice::new();
            for link in LinkId::ALL {
                choice.connected(link, now);
            }
            choices.insert(peer, choice);
        }
        Self { here, choices, probes: BTreeMap::new(), next_probe: 0, due: now }
    }

    /// The link for a message to a peer now.
    pub(super) fn choose(&self, to: NodeIndex, now: BootTime) -> Link {
        match self.choices.get(&to) {
            Some(choice) => choice.choose(now).map_or(Link::CrossOne, cross),
            None => Link::Inside(self.here),
        }
    }

    /// When the next probes are due.
    pub(super) fn due(&self) -> BootTime {
        self.due
    }

    /// Sends probes over every link if they are due.
    pub(super) fn probe(&mut self, now: BootTime, outputs: &mut Vec<Output<Process>>) {
        if now < self.due {
            return;
        }
        self.due = now + PROBE_INTERVAL;
        let oldest = self.next_probe.saturating_sub(256);
        self.probes = self.probes.split_off(&oldest);
        for to in self.choices.keys() {
            for link in LinkId::ALL {
                self.probes.insert(self.next_probe, (*to, link, now));
                let message = Message::Probe(self.next_probe);
                let size = message.size();
                outputs.push(Output::Send { to: *to, link: cross(link), size, message });
                self.next_probe += 1;
            }
        }
    }

    /// A probe was answered.
    pub(super) fn answered(&mut self, number: u64, now: BootTime) {
        if let Some((peer, link, sent)) = self.probes.remove(&number)
            && let Some(choice) = self.choices.get_mut(&peer)
        {
            choice.answered(link, now, now.since(sent));
        }
    }
}

fn cross(link: LinkId) -> Link {
    if link == LinkId::ALL[0] { Link::CrossOne } else { Link::CrossTwo }
}
