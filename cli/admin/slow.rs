//! Slow stores in `trefoil status`: which one, how slow, beside what is usual, and since when.

use std::time::Duration;

use serde::Serialize;
use trefoil_protocol::message::admin::{SlowState, SlowStore};

use crate::quantity;

/// A store that was put out because it is or was slow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct SlowLine {
    pub(crate) node: String,
    pub(crate) store: String,
    /// `slow`, or `probation`: well again, and not for long enough.
    pub(crate) state: &'static str,
    pub(crate) since_ms: u64,
    /// What a small piece of work took there when it was slow last.
    pub(crate) took_us: u32,
    /// And elsewhere.
    pub(crate) usual_us: u32,
}

impl SlowLine {
    pub(super) fn of(store: &SlowStore) -> Self {
        let state = match store.state {
            SlowState::Slow => "slow",
            SlowState::Probation => "probation",
        };
        let (node, id) = (store.node.to_string(), store.store.to_string());
        let SlowStore { since, took_us, usual_us, .. } = *store;
        Self { node, store: id, state, since_ms: since.0, took_us, usual_us }
    }

    pub(super) fn text(&self) -> String {
        let since = quantity::duration_text(Duration::from_millis(self.since_ms));
        let millis = |micros: u32| f64::from(micros) / 1000.0;
        let (took, usual) = (millis(self.took_us), millis(self.usual_us));
        match self.state {
            "slow" => format!(
                "slow store of {}: {took:.1} ms for what takes {usual:.1} ms elsewhere, for {since}; it leads \
                 nothing and nothing waits for it where others hold a copy",
                self.node
            ),
            _ => format!(
                "store of {} on probation: it took {took:.1} ms for what takes {usual:.1} ms elsewhere, and \
                 has been well for {since}",
                self.node
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_protocol::ids::StoreId;
    use trefoil_protocol::time::Millis;

    #[test]
    fn a_slow_store_is_told_by_name_and_with_figures() {
        let store = |state| SlowStore {
            node: "b2".parse().unwrap(),
            store: StoreId([1; 16]),
            state,
            since: Millis(12_000),
            took_us: 412_300,
            usual_us: 2_100,
        };
        let slow = SlowLine::of(&store(SlowState::Slow)).text();
        assert!(slow.contains("b2: 412.3 ms for what takes 2.1 ms elsewhere, for 12s"), "{slow}");
        let well = SlowLine::of(&store(SlowState::Probation)).text();
        assert!(well.contains("probation") && well.contains("well for 12s"), "{well}");
    }
}
