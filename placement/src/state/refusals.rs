//! Overrides that were refused, kept for operators and auditors: who wanted what, when, and why it was refused.

use std::collections::VecDeque;
use std::time::Duration;

use minicbor::{Decode, Encode};
use trefoil_protocol::ids::OperatorId;
use trefoil_protocol::message::approval::JointAction;
use trefoil_protocol::message::refused::{Override, RefusedOverride, STATUS_REFUSED_MAX};
use trefoil_protocol::time::CpTime;

use super::State;
use super::command::Rejection;
use super::proposals::ProposalDraft;

/// So long a refused override is told with the state of the cluster.
pub const REFUSAL_IS_NEWS_FOR: Duration = Duration::from_secs(24 * 3600);

/// So many are kept; beyond, the oldest go.
const KEPT_MAX: usize = 128;

/// A refused override to be noted.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RefusalDraft {
    /// Who wanted it.
    #[n(0)]
    pub by: OperatorId,
    /// What.
    #[n(1)]
    pub what: Override,
    /// What for, in the operator's words.
    #[n(2)]
    pub reason: String,
    /// Why it was refused.
    #[n(3)]
    pub why: String,
}

impl RefusalDraft {
    fn is(&self, kept: &RefusedOverride) -> bool {
        (kept.by, &kept.what, &kept.reason, &kept.why) == (self.by, &self.what, &self.reason, &self.why)
    }
}

/// All that are kept, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Refusals(#[n(0)] VecDeque<RefusedOverride>);

impl Refusals {
    /// All of them, the oldest first.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = &RefusedOverride> {
        self.0.iter()
    }

    /// Those that are told with the state of the cluster at `now`, the newest last.
    pub fn news(&self, now: CpTime) -> impl Iterator<Item = &RefusedOverride> {
        let over = self.0.partition_point(|refused| refused.at + REFUSAL_IS_NEWS_FOR <= now);
        self.0.iter().skip(over.max(self.0.len().saturating_sub(STATUS_REFUSED_MAX)))
    }

    /// Notes one. Whoever tries the same again and again is told of once, with how often.
    fn note(&mut self, draft: &RefusalDraft, at: CpTime) {
        let before = self.0.iter().position(|kept| draft.is(kept)).and_then(|place| self.0.remove(place));
        if self.0.len() >= KEPT_MAX {
            self.0.pop_front();
        }
        let RefusalDraft { by, what, reason, why } = draft.clone();
        let times = before.map_or(0, |kept| kept.times).saturating_add(1);
        self.0.push_back(RefusedOverride { at, by, what, reason, why, times });
    }
}

impl State {
    /// Takes what was written down elsewhere, unless it was told before.
    pub(crate) fn remember_refusals(&mut self, drafts: &[RefusalDraft]) {
        for draft in drafts {
            if !self.refusals.all().any(|kept| draft.is(kept)) {
                self.refused(draft);
            }
        }
    }

    pub(super) fn refused(&mut self, draft: &RefusalDraft) {
        self.refusals.note(draft, self.clock.now());
    }

    /// What was proposed was refused.
    pub(super) fn refused_to_propose(&mut self, draft: &ProposalDraft, why: &Rejection) {
        let (by, reason) = (draft.by, draft.reason.clone());
        self.refused(&RefusalDraft {
            by,
            what: Override::Propose(draft.action),
            reason,
            why: why.to_string(),
        });
    }

    /// An approval was refused.
    pub(super) fn refused_to_approve(&mut self, number: u64, by: OperatorId, why: &Rejection) {
        let proposal = self.proposals.get(number, self.clock.now());
        let action: Option<JointAction> = proposal.as_ref().map(|proposal| proposal.action);
        let reason = proposal.map_or_else(String::new, |proposal| proposal.reason);
        let what = Override::Approve { number, action };
        self.refused(&RefusalDraft { by, what, reason, why: why.to_string() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(begins: u64) -> RefusalDraft {
        let what = Override::Begin { begins, without: Vec::new() };
        let (by, reason, why) = ("ann".parse().unwrap(), "gone".to_owned(), "it answers".to_owned());
        RefusalDraft { by, what, reason, why }
    }

    fn numbers<'r>(refused: impl Iterator<Item = &'r RefusedOverride>) -> Vec<u64> {
        let number = |refused: &RefusedOverride| match refused.what {
            Override::Begin { begins, .. } => begins,
            _ => 0,
        };
        refused.map(number).collect()
    }

    #[test]
    fn a_refusal_is_news_for_a_day_and_kept_until_many_newer_ones_push_it_out() {
        let mut refusals = Refusals::default();
        let day = u64::try_from(REFUSAL_IS_NEWS_FOR.as_millis()).unwrap();
        for begins in 0..3 {
            refusals.note(&draft(begins), CpTime(begins * 1_000));
        }
        assert_eq!(numbers(refusals.news(CpTime(day - 1))), [0, 1, 2]);
        assert_eq!(numbers(refusals.news(CpTime(day + 1_000))), [2]);
        refusals.note(&draft(0), CpTime(day));
        assert_eq!(numbers(refusals.news(CpTime(day + 2_000))), [0], "it was tried again");
        assert_eq!(numbers(refusals.all()), [1, 2, 0]);
        for begins in 3..=129 {
            refusals.note(&draft(begins), CpTime(day));
        }
        assert_eq!(refusals.all().count(), KEPT_MAX);
        let news = numbers(refusals.news(CpTime(day)));
        assert_eq!((news.len(), news.last()), (STATUS_REFUSED_MAX, Some(&129)), "the newest of them");
    }
}
