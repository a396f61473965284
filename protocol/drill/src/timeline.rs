//! What happened when, for people: each volume's configurations, who served it, which faults struck,
//! what was refused or had no answer. Kept beside a run; nothing judges by it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use trefoil_protocol::config::{MemberState, VolumeConfig};

use crate::duration::{MILLISECOND, Seconds};

/// Two looks at a volume are at most so far apart.
const BETWEEN_LOOKS: u64 = 500 * MILLISECOND;

/// A configuration of a volume, from when it was seen first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reign {
    /// True time.
    pub at_ns: u64,
    /// The epoch.
    pub epoch: u64,
    /// Whether it may acknowledge.
    pub activated: bool,
    /// The primary, if there is one.
    pub primary: Option<String>,
    /// The members; those that catch up have a star.
    pub members: Vec<String>,
    /// The rule.
    pub protection: String,
}

impl Reign {
    /// What a configuration comes to.
    #[must_use]
    pub fn of(config: &VolumeConfig, at_ns: u64) -> Self {
        let member = |member: &trefoil_protocol::config::Member| {
            let star = if member.state == MemberState::InSync { "" } else { "*" };
            format!("{}{star}", member.node)
        };
        Self {
            at_ns,
            epoch: config.epoch.0,
            activated: config.activated,
            primary: config.primary.map(|node| node.as_str().to_owned()),
            members: config.members.iter().map(member).collect(),
            protection: format!("{:?}", config.protection),
        }
    }

    /// In words.
    #[must_use]
    pub fn text(&self) -> String {
        let primary = self.primary.as_deref().unwrap_or("nobody");
        let waits = if self.activated { "" } else { ", not activated" };
        let (epoch, members, protection) = (self.epoch, self.members.join(" "), &self.protection);
        format!("epoch {epoch}: {primary} of {members}, {protection}{waits}")
    }
}

/// A time for which one node served a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Who.
    pub node: String,
    /// From when.
    pub from_ns: u64,
    /// Until when it was seen last.
    pub until_ns: u64,
}

/// One volume's line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeLine {
    /// Its configurations.
    pub reigns: Vec<Reign>,
    /// Who served it.
    pub service: Vec<Service>,
}

impl VolumeLine {
    fn since(&self, moment: u64) -> Self {
        let holds = self.reigns.iter().rposition(|reign| reign.at_ns <= moment).unwrap_or_default();
        let shifted = |reign: &Reign| Reign { at_ns: reign.at_ns.saturating_sub(moment), ..reign.clone() };
        let service = self.service.iter().filter(|service| service.until_ns >= moment);
        let service = service.map(|service| Service {
            node: service.node.clone(),
            from_ns: service.from_ns.saturating_sub(moment),
            until_ns: service.until_ns - moment,
        });
        Self { reigns: self.reigns.iter().skip(holds).map(shifted).collect(), service: service.collect() }
    }
}

/// A moment with a word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moment {
    /// True time.
    pub at_ns: u64,
    /// What happened.
    pub what: String,
}

/// What happened in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeline {
    /// The volumes, by number.
    pub volumes: BTreeMap<u64, VolumeLine>,
    /// The faults, healing ones included.
    pub faults: Vec<Moment>,
    /// Operations without an answer, and refusals.
    pub errors: Vec<Moment>,
    /// How long everything took.
    pub ends_ns: u64,
}

impl Timeline {
    /// A look at a volume: its configuration, and who serves it.
    pub fn look(&mut self, volume: u64, reign: Reign, served_by: Option<&str>) {
        let now = reign.at_ns;
        let line = self.volumes.entry(volume).or_default();
        let same = |known: &Reign| Reign { at_ns: now, ..known.clone() } == reign;
        if !line.reigns.last().is_some_and(same) {
            line.reigns.push(reign);
        }
        self.ends_ns = self.ends_ns.max(now);
        let Some(node) = served_by else { return };
        match line.service.last_mut().filter(|last| last.node == node && now - last.until_ns <= BETWEEN_LOOKS)
        {
            Some(last) => last.until_ns = now,
            None => line.service.push(Service { node: node.to_owned(), from_ns: now, until_ns: now }),
        }
    }

    /// The same with times that count from a moment; what was before it is left out.
    #[must_use]
    pub fn since(&self, moment: u64) -> Self {
        let later = |moments: &[Moment]| {
            let later = moments.iter().filter(|one| one.at_ns >= moment);
            later.map(|one| Moment { at_ns: one.at_ns - moment, what: one.what.clone() }).collect()
        };
        let volumes = self.volumes.iter().map(|(volume, line)| (*volume, line.since(moment)));
        Self {
            volumes: volumes.collect(),
            faults: later(&self.faults),
            errors: later(&self.errors),
            ends_ns: self.ends_ns.saturating_sub(moment),
        }
    }

    /// The lines as text, in order of time.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut lines: Vec<(u64, String)> = Vec::new();
        for (volume, line) in &self.volumes {
            for reign in &line.reigns {
                lines.push((reign.at_ns, format!("volume {volume} {}", reign.text())));
            }
            for service in &line.service {
                let until = Seconds(service.until_ns).to_string();
                let what = format!("volume {volume} served by {} until {}", service.node, until.trim_start());
                lines.push((service.from_ns, what));
            }
        }
        let faults = self.faults.iter().map(|fault| (fault.at_ns, format!("FAULT {}", fault.what)));
        let errors = self.errors.iter().map(|error| (error.at_ns, format!("client: {}", error.what)));
        lines.extend(faults.chain(errors));
        lines.sort();
        lines.iter().fold(String::new(), |mut text, (at, what)| {
            writeln!(text, "{} {what}", Seconds(*at)).expect("a string takes another line");
            text
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Reign, Timeline};
    use crate::duration::MILLISECOND;

    fn reign(epoch: u64, at_ns: u64) -> Reign {
        let (primary, members, protection) = (None, Vec::new(), "BothDcs".to_owned());
        Reign { at_ns, epoch, activated: false, primary, members, protection }
    }

    fn in_quarters<T>((at, epoch, by): (u64, u64, T)) -> (u64, u64, T) {
        (at * 250 * MILLISECOND, epoch, by)
    }

    #[test]
    fn a_line_changes_when_something_changes() {
        let mut timeline = Timeline::default();
        for (now, epoch, by) in
            [(1, 1, Some("a1")), (2, 1, Some("a1")), (3, 2, None), (9, 2, Some("a1"))].map(in_quarters)
        {
            timeline.look(1, reign(epoch, now), by);
        }
        let line = &timeline.volumes[&1];
        let quarter = |at: u64| at / (250 * MILLISECOND);
        assert_eq!(line.reigns.iter().map(|reign| quarter(reign.at_ns)).collect::<Vec<_>>(), [1, 3]);
        let spans: Vec<(u64, u64)> =
            line.service.iter().map(|s| (quarter(s.from_ns), quarter(s.until_ns))).collect();
        assert_eq!(spans, [(1, 2), (9, 9)]);
        assert_eq!(timeline.to_text().lines().count(), 4);
    }
}
