//! Whether a step held, as pure functions of what was observed from outside: no verdict asks a node
//! how it feels. Each has a test that hands it a doctored observation and sees it fail.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::scan::Found;
use crate::local::Traffic;

/// Copies of every object.
const COPIES: usize = 3;

/// What one node's loss may cost: its lease is waited out, then another leads.
const PAUSE_OF_A_NODE: Duration = Duration::from_secs(15);

/// What a data centre's loss may cost before writes are acknowledged again.
const PAUSE_OF_A_DATA_CENTRE: Duration = Duration::from_secs(60);

/// What a cut link may cost: connections on the other one are there already.
const PAUSE_OF_A_LINK: Duration = Duration::from_secs(3);

/// Whether a step held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// It did.
    pub(crate) ok: bool,
    /// The longest an operation had to wait.
    pub(crate) pause: Option<Duration>,
    /// What was seen, in plain words.
    pub(crate) detail: String,
}

impl Judgement {
    fn new(faults: Vec<String>, pause: Option<Duration>, held: String) -> Self {
        let ok = faults.is_empty();
        Self { ok, pause, detail: if ok { held } else { format!("{}; {held}", faults.join("; ")) } }
    }
}

/// Collects what does not hold.
fn unless(holds: bool, faults: &mut Vec<String>, fault: impl FnOnce() -> String) {
    if !holds {
        faults.push(fault());
    }
}

/// Where a copy is said to be: node and data centre.
pub(crate) type Told = (String, String);

/// What the acknowledgements of the first puts said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Receipts {
    pub(crate) acknowledged: u64,
    pub(crate) bytes: u64,
    pub(crate) failed: Vec<String>,
    /// Acknowledgements without a copy in each data centre.
    pub(crate) lopsided: u64,
    /// Acknowledgements that were not under `BothDcs`.
    pub(crate) weak: u64,
}

pub(crate) fn stored(seen: &Receipts) -> Judgement {
    let mut faults = Vec::new();
    unless(seen.acknowledged > 0, &mut faults, || "nothing was stored".into());
    unless(seen.failed.is_empty(), &mut faults, || {
        format!("{} puts failed, first: {}", seen.failed.len(), seen.failed[0])
    });
    unless(seen.lopsided == 0, &mut faults, || {
        format!("{} acknowledged without both data centres", seen.lopsided)
    });
    unless(seen.weak == 0, &mut faults, || format!("{} acknowledged under SingleDc", seen.weak));
    let size = crate::output::bytes(seen.bytes);
    let held =
        format!("{} objects, {size}, each acknowledged from disks in both data centres", seen.acknowledged);
    Judgement::new(faults, None, held)
}

/// Where an object's copies are said to be, and where its ciphertext was found.
#[derive(Clone, Debug)]
pub(crate) struct Copies {
    pub(crate) told: Vec<Told>,
    pub(crate) found: Vec<String>,
}

pub(crate) fn three_copies(seen: &Copies) -> Judgement {
    let mut faults = Vec::new();
    let nodes: BTreeSet<&str> = seen.told.iter().map(|(node, _)| node.as_str()).collect();
    let centres: BTreeSet<&str> = seen.told.iter().map(|(_, dc)| dc.as_str()).collect();
    let found: BTreeSet<&str> = seen.found.iter().map(String::as_str).collect();
    unless(nodes.len() == COPIES, &mut faults, || format!("{} copies are told", nodes.len()));
    unless(centres.len() == 2, &mut faults, || format!("they are in {} data centres", centres.len()));
    unless(found == nodes, &mut faults, || format!("its ciphertext is on {}", seen.found.join(" ")));
    let told: Vec<String> = seen.told.iter().map(|(node, dc)| format!("{node} in {dc}")).collect();
    Judgement::new(
        faults,
        None,
        format!("copies told: {}; ciphertext found on the same disks", told.join(", ")),
    )
}

/// What a tenant sees of another's objects.
#[derive(Clone, Debug)]
pub(crate) struct Isolation {
    /// The answers to reads, heads and deletes of another tenant's keys.
    pub(crate) foreign: Vec<String>,
    /// The answers to the same questions about keys that nobody has.
    pub(crate) absent: Vec<String>,
    /// Another tenant's keys in this one's listing.
    pub(crate) listed: u64,
    /// Whether the owner still reads its object.
    pub(crate) owner_reads: bool,
}

pub(crate) fn isolated(seen: &Isolation) -> Judgement {
    let mut faults = Vec::new();
    unless(!seen.foreign.is_empty(), &mut faults, || "nothing was asked".into());
    unless(seen.foreign == seen.absent, &mut faults, || {
        format!("answers differ: {:?} and {:?}", seen.foreign, seen.absent)
    });
    unless(seen.foreign.iter().all(|answer| answer == NO_SUCH_OBJECT), &mut faults, || {
        format!("another tenant's object answers {:?}", seen.foreign)
    });
    unless(seen.listed == 0, &mut faults, || format!("{} foreign keys are listed", seen.listed));
    unless(seen.owner_reads, &mut faults, || "the owner cannot read its object".into());
    let held = format!(
        "{} questions about the other's objects: \"{NO_SUCH_OBJECT}\", as for keys nobody has",
        seen.foreign.len()
    );
    Judgement::new(faults, None, held)
}

/// What a key that is not there answers.
pub(crate) const NO_SUCH_OBJECT: &str = "no such object";

/// What a raw scan of all node files found of a plaintext and, to show that it can find, of a
/// ciphertext.
pub(crate) fn no_plaintext(found: &Found, plaintext: &str, ciphertext: &str) -> Judgement {
    let mut faults = Vec::new();
    let (leaked, control) = (found.runs_of(plaintext), found.runs_of(ciphertext));
    unless(leaked == 0, &mut faults, || format!("{leaked} runs of plaintext"));
    unless(control > 0, &mut faults, || "the scan did not even find the ciphertext".into());
    Judgement::new(faults, None, format!("{}; ciphertext is there, plaintext is not", looked_at(found)))
}

/// The same scan before and after a purge.
pub(crate) fn erased(before: &Found, after: &Found, texts: &[&str]) -> Judgement {
    let mut faults = Vec::new();
    for text in texts {
        let (was, is) = (before.runs_of(text), after.runs_of(text));
        unless(was > 0, &mut faults, || format!("{text} was not found before the delete either"));
        unless(is == 0, &mut faults, || {
            format!("{is} runs of {text} on {}", after.places_of(text).join(" "))
        });
    }
    unless(after.bytes > 0, &mut faults, || "nothing was looked at".into());
    let held = format!("{}: no run of 64 bytes of the deleted ciphertext", looked_at(after));
    Judgement::new(faults, None, held)
}

fn looked_at(found: &Found) -> String {
    format!("{} in {} files", crate::output::bytes(found.bytes), found.files)
}

/// What the load saw during a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Window {
    /// Operations that ended.
    pub(crate) operations: u64,
    /// Operations that failed, with their reasons.
    pub(crate) failed: Vec<String>,
    /// Reads that gave something else than what was last acknowledged.
    pub(crate) stale: Vec<String>,
    /// The longest any operation took.
    pub(crate) slowest: Duration,
}

impl Window {
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        unless(self.operations > 0, &mut faults, || "there was no load".into());
        unless(self.failed.is_empty(), &mut faults, || {
            format!("{} operations failed, first: {}", self.failed.len(), self.failed[0])
        });
        unless(self.stale.is_empty(), &mut faults, || {
            format!("{} wrong reads, first: {}", self.stale.len(), self.stale[0])
        });
        faults
    }
}

/// A link that was cut under load.
#[derive(Clone, Debug)]
pub(crate) struct Cut {
    pub(crate) load: Window,
    pub(crate) before: Traffic,
    pub(crate) after: Traffic,
}

pub(crate) fn link_survived(seen: &Cut) -> Judgement {
    let mut faults = seen.load.faults();
    let swallowed = seen.after.swallowed - seen.before.swallowed;
    unless(seen.before.forwarded > 0, &mut faults, || "the link carried nothing before".into());
    unless(swallowed > 0, &mut faults, || "the cut swallowed nothing".into());
    unless(seen.after.forwarded == seen.before.forwarded, &mut faults, || {
        "the cut let datagrams through".into()
    });
    unless(seen.load.slowest <= PAUSE_OF_A_LINK, &mut faults, || {
        format!("an operation took {:.1} s", seen.load.slowest.as_secs_f64())
    });
    let held =
        format!("{} operations, none failed; the cut swallowed {swallowed} datagrams", seen.load.operations);
    Judgement::new(faults, Some(seen.load.slowest), held)
}

/// Servers that were killed under load.
#[derive(Clone, Debug)]
pub(crate) struct Killed {
    pub(crate) names: Vec<String>,
    /// The signals that ended them, as the system reported them.
    pub(crate) signals: Vec<Option<i32>>,
    pub(crate) load: Window,
}

impl Killed {
    fn faults(&self, pause_max: Duration) -> Vec<String> {
        let mut faults = self.load.faults();
        let by_kill = self.signals.iter().all(|signal| *signal == Some(9));
        unless(
            !self.names.is_empty() && self.names.len() == self.signals.len() && by_kill,
            &mut faults,
            || format!("not everything ended by signal 9: {:?}", self.signals),
        );
        unless(self.load.slowest <= pause_max, &mut faults, || {
            let (took, most) = (self.load.slowest.as_secs_f64(), pause_max.as_secs());
            format!("the pause of {took:.1} s is longer than {most} s")
        });
        faults
    }

    fn judge(&self, pause_max: Duration, more: &str) -> Judgement {
        let names = self.names.join(", ");
        let held = format!("kill -9 of {names}: {} operations, none failed{more}", self.load.operations);
        Judgement::new(self.faults(pause_max), Some(self.load.slowest), held)
    }
}

pub(crate) fn node_loss_survived(seen: &Killed) -> Judgement {
    seen.judge(PAUSE_OF_A_NODE, "")
}

pub(crate) fn placement_restart_survived(seen: &Killed) -> Judgement {
    seen.judge(PAUSE_OF_A_NODE, ", and it is back")
}

/// A lost data centre, and what was read back while it was away.
#[derive(Clone, Debug)]
pub(crate) struct CentreLost {
    pub(crate) killed: Killed,
    /// What `status` called the protection meanwhile.
    pub(crate) protection: String,
    /// Nodes of the lost centre that `status` still called up.
    pub(crate) still_up: u64,
    pub(crate) read_back: ReadBack,
}

pub(crate) fn centre_loss_survived(seen: &CentreLost) -> Judgement {
    let mut faults = seen.killed.faults(PAUSE_OF_A_DATA_CENTRE);
    unless(seen.protection == "SingleDc", &mut faults, || {
        format!("status says {} with one data centre", seen.protection)
    });
    unless(seen.still_up == 0, &mut faults, || format!("status still calls {} lost nodes up", seen.still_up));
    faults.extend(seen.read_back.faults());
    let names = seen.killed.names.join(", ");
    let held = format!(
        "kill -9 of {names}: {} operations, none failed; declared SingleDc; all {} acknowledged objects read back",
        seen.killed.load.operations, seen.read_back.acknowledged
    );
    Judgement::new(faults, Some(seen.killed.load.slowest), held)
}

/// After a return.
#[derive(Clone, Debug)]
pub(crate) struct Restored {
    pub(crate) took: Duration,
    pub(crate) protection: String,
    pub(crate) short: u64,
    /// For each object looked at, the data centres of its copies.
    pub(crate) copies: Vec<Vec<Told>>,
}

pub(crate) fn restored(seen: &Restored) -> Judgement {
    let mut faults = Vec::new();
    let whole = |copies: &Vec<Told>| {
        let nodes: BTreeSet<_> = copies.iter().map(|(node, _)| node).collect();
        let centres: BTreeSet<_> = copies.iter().map(|(_, dc)| dc).collect();
        nodes.len() == COPIES && centres.len() == 2
    };
    let bad: Vec<_> = seen.copies.iter().filter(|copies| !whole(copies)).collect();
    unless(!seen.copies.is_empty(), &mut faults, || "no object was looked at".into());
    unless(bad.is_empty(), &mut faults, || {
        let nodes: Vec<&str> = bad[0].iter().map(|(node, _)| node.as_str()).collect();
        format!("{} of {} objects are not 2+1, first on {}", bad.len(), seen.copies.len(), nodes.join(" "))
    });
    unless(seen.protection == "BothDcs", &mut faults, || format!("protection is {}", seen.protection));
    unless(seen.short == 0, &mut faults, || format!("{} objects are short of a copy", seen.short));
    let took = seen.took.as_secs_f64();
    let held = format!("everything is back to 2+1 in {took:.1} s; {} objects looked at", seen.copies.len());
    Judgement::new(faults, None, held)
}

/// Everything acknowledged, read back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReadBack {
    /// Objects that were acknowledged.
    pub(crate) acknowledged: u64,
    /// Keys that are not there, or hold something that was never acknowledged.
    pub(crate) lost: Vec<String>,
    /// Keys that could not be read, and why.
    pub(crate) unreadable: Vec<String>,
}

impl ReadBack {
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        unless(self.acknowledged > 0, &mut faults, || "nothing was acknowledged".into());
        unless(self.lost.is_empty(), &mut faults, || {
            format!("{} lost, first: {}", self.lost.len(), self.lost[0])
        });
        unless(self.unreadable.is_empty(), &mut faults, || {
            format!("{} unreadable, first: {}", self.unreadable.len(), self.unreadable[0])
        });
        faults
    }
}

pub(crate) fn nothing_lost(seen: &ReadBack) -> Judgement {
    Judgement::new(
        seen.faults(),
        None,
        format!("{} acknowledged, all read back, byte for byte", seen.acknowledged),
    )
}

/// A delete that was taken back.
#[derive(Clone, Debug)]
pub(crate) struct Undeleted {
    /// What a read answered after the delete.
    pub(crate) hidden_as: String,
    /// Whether `ls` still listed it.
    pub(crate) listed: bool,
    /// Whether `deleted` listed it.
    pub(crate) in_deleted: bool,
    /// Whether the bytes after the undelete are the ones before the delete.
    pub(crate) same_bytes: bool,
    /// Whether the version is the same.
    pub(crate) same_version: bool,
}

pub(crate) fn undeleted(seen: &Undeleted) -> Judgement {
    let mut faults = Vec::new();
    unless(seen.hidden_as == NO_SUCH_OBJECT, &mut faults, || {
        format!("after the delete a read answers: {}", seen.hidden_as)
    });
    unless(!seen.listed, &mut faults, || "the deleted object is still listed".into());
    unless(seen.in_deleted, &mut faults, || "it cannot be found among the deleted".into());
    unless(seen.same_bytes, &mut faults, || "the bytes are not the same".into());
    unless(seen.same_version, &mut faults, || "it is another version".into());
    Judgement::new(
        faults,
        None,
        "hidden at once, listed as deleted, back with the same bytes and version".into(),
    )
}

/// A delete whose window passed.
#[derive(Clone, Debug)]
pub(crate) struct Purged {
    /// States and copies left, as they were seen one after the other.
    pub(crate) states: Vec<(String, u32)>,
    /// From the delete to the first state past `DELETED`.
    pub(crate) window: Duration,
    /// The shortest it may be.
    pub(crate) window_min: Duration,
    /// What an undelete answered at the end.
    pub(crate) undelete: String,
}

pub(crate) fn purged(seen: &Purged) -> Judgement {
    const ORDER: [&str; 4] = ["DELETED", "PURGING", "ERASED_OTHERS", "ERASED"];
    let mut faults = Vec::new();
    let ranks: Vec<Option<usize>> =
        seen.states.iter().map(|(state, _)| ORDER.iter().position(|known| known == state)).collect();
    let forward = ranks.iter().all(Option::is_some) && ranks.is_sorted();
    unless(forward, &mut faults, || format!("states in a wrong order: {:?}", seen.states));
    unless(seen.states.first().is_some_and(|(state, _)| state == "DELETED"), &mut faults, || {
        "it was never seen as deleted".into()
    });
    unless(seen.states.last() == Some(&("ERASED".to_owned(), 0)), &mut faults, || {
        format!("it ended as {:?}", seen.states.last())
    });
    unless(seen.window >= seen.window_min, &mut faults, || {
        format!("the purge began after {:.1} s, inside the window", seen.window.as_secs_f64())
    });
    unless(seen.undelete.contains("gone"), &mut faults, || format!("an undelete answers: {}", seen.undelete));
    let mut steps: Vec<&str> = seen.states.iter().map(|(state, _)| state.as_str()).collect();
    steps.dedup();
    Judgement::new(faults, None, format!("{}; an undelete now answers \"gone\"", steps.join(" -> ")))
}

/// A certificate, checked offline.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    /// Whether it verified as it came.
    pub(crate) genuine: Result<(), String>,
    /// How many copies of it were tried with one byte changed, and how many of those verified.
    pub(crate) doctored: u64,
    pub(crate) believed: u64,
    /// Stores that gave a receipt, by data centre.
    pub(crate) stores: BTreeMap<String, u64>,
    /// Whether it is about the version that was deleted.
    pub(crate) same_version: bool,
    /// Whether the object's name or metadata stand in it.
    pub(crate) names_it: bool,
}

pub(crate) fn certified(seen: &Checked) -> Judgement {
    let mut faults = Vec::new();
    unless(seen.genuine.is_ok(), &mut faults, || format!("it does not verify: {:?}", seen.genuine));
    unless(seen.doctored > 0 && seen.believed == 0, &mut faults, || {
        format!("{} of {} changed certificates verify", seen.believed, seen.doctored)
    });
    let receipts: u64 = seen.stores.values().sum();
    unless(receipts >= COPIES as u64 && seen.stores.len() >= 2, &mut faults, || {
        format!("receipts of {receipts} stores in {} data centres", seen.stores.len())
    });
    unless(seen.same_version, &mut faults, || "it is about another version".into());
    unless(!seen.names_it, &mut faults, || "the object's name stands in it".into());
    let held = format!(
        "receipts of {receipts} stores; verifies offline; refused with any one byte changed ({} tried)",
        seen.doctored
    );
    Judgement::new(faults, None, held)
}

#[cfg(test)]
mod tests;
