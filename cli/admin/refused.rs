//! Overrides that were refused: an alert in `status` for a day, and all that are kept in `approvals --refused`.

use serde::Serialize;
use trefoil_protocol::message::admin::{AdminAnswer, AdminRequest};
use trefoil_protocol::message::refused::{Override, RefusedOverride};

use super::connection::{Admin, unexpected};
use super::joint::words;
use crate::failure::Verdict;
use crate::output::Format;

/// So many are told to people with the state of the cluster.
const SHOWN: usize = 4;

/// Who wanted what, and why it was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct RefusedLine {
    pub(crate) by: String,
    /// When last, in the control plane's time.
    pub(crate) at: String,
    pub(crate) at_ms: u64,
    pub(crate) what: String,
    /// The operator's words.
    pub(crate) reason: String,
    pub(crate) why: String,
    pub(crate) times: u64,
}

impl RefusedLine {
    pub(super) fn of(refused: &RefusedOverride) -> Self {
        Self {
            by: refused.by.to_string(),
            at: refused.at.to_string(),
            at_ms: refused.at.0,
            what: what(&refused.what),
            reason: refused.reason.clone(),
            why: refused.why.clone(),
            times: refused.times,
        }
    }

    pub(super) fn text(&self) -> String {
        let Self { by, at, what, reason, why, times, .. } = self;
        let often = if *times > 1 { format!(", {times} times") } else { String::new() };
        let reason = if reason.is_empty() { String::new() } else { format!(" (\"{reason}\")") };
        format!("ALERT override refused: {by} at {at}{often} wanted `{what}`{reason}: {why}")
    }
}

/// The newest first, as many as people are told with the state.
pub(super) fn newest(refused: &[RefusedLine]) -> impl Iterator<Item = &RefusedLine> {
    refused.iter().rev().take(SHOWN)
}

fn what(wanted: &Override) -> String {
    match wanted {
        Override::Propose(action) => words(action),
        Override::Approve { number, action } => {
            let action = action.as_ref().map_or_else(String::new, |action| format!(", {}", words(action)));
            format!("approve {number}{action}")
        }
        Override::Begin { begins, without } => {
            let without: Vec<String> = without.iter().map(ToString::to_string).collect();
            match without.is_empty() {
                true => format!("restore begin, generation {begins}"),
                false => format!("restore begin, generation {begins} without {}", without.join(", ")),
            }
        }
    }
}

/// `trefoil approvals --refused`.
pub(super) async fn list(admin: &Admin, format: Format) -> Verdict {
    let refused = match admin.ask(AdminRequest::Refusals).await? {
        AdminAnswer::Refusals(refused) => refused,
        other => return Err(unexpected(&other)),
    };
    let lines: Vec<RefusedLine> = refused.iter().map(RefusedLine::of).collect();
    format.answer(&lines, |lines| match lines.is_empty() {
        true => "no override was refused".to_owned(),
        false => lines.iter().map(RefusedLine::text).collect::<Vec<_>>().join("\n"),
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use trefoil_protocol::ids::{Epoch, StoreId, VolumeId};
    use trefoil_protocol::message::approval::JointAction;
    use trefoil_protocol::time::CpTime;

    use super::*;

    fn refused(what: Override) -> RefusedLine {
        let (by, reason, why) =
            ("ann".parse().unwrap(), "A burnt down".to_owned(), "voter w1 answers".to_owned());
        RefusedLine::of(&RefusedOverride { at: CpTime(5_000), by, what, reason, why, times: 2 })
    }

    #[test]
    fn an_alert_says_who_wanted_what_when_and_why_it_was_refused() {
        let without = vec!["p-b1".parse().unwrap(), "w1".parse().unwrap()];
        let text = refused(Override::Begin { begins: 2, without }).text();
        let at = CpTime(5_000);
        assert_eq!(
            text,
            format!(
                "ALERT override refused: ann at {at}, 2 times wanted `restore begin, generation 2 without p-b1, w1` \
                 (\"A burnt down\"): voter w1 answers"
            )
        );
        let action =
            JointAction::AcceptLoss { volume: VolumeId(4), epoch: Epoch(3), store: StoreId([1; 16]) };
        assert_eq!(refused(Override::Propose(action)).what, "loss accept 4");
        assert_eq!(
            refused(Override::Approve { number: 7, action: Some(action) }).what,
            "approve 7, loss accept 4"
        );
    }

    #[test]
    fn people_are_told_of_the_newest() {
        let line = |times| RefusedLine { times, ..refused(Override::Approve { number: 1, action: None }) };
        let lines: Vec<RefusedLine> = (1..=9).map(line).collect();
        assert_eq!(newest(&lines).map(|line| line.times).collect::<Vec<_>>(), [9, 8, 7, 6]);
    }
}
