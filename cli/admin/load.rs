//! What `status` says of how much nodes have to do, and of what they refuse.

use serde::Serialize;
use trefoil_protocol::message::load::NodeLoad;

/// How much a node has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LoadView {
    /// Requests of clients under way.
    pub(crate) under_way: u32,
    /// How many may be under way now; fewer when answers take long.
    pub(crate) room: u32,
    /// Requests refused in this run of the node because there was too much.
    pub(crate) refused: u64,
    /// Work dropped in this run because its client did not listen any more.
    pub(crate) late: u64,
    /// Bytes read or written in this run for repair, backfill and scrub.
    pub(crate) repaired_bytes: u64,
    /// How many of these by force, because the debt of a data centre was overdue.
    pub(crate) forced_bytes: u64,
    /// How often such work was put off because clients had work.
    pub(crate) put_off: u64,
}

impl LoadView {
    /// What the node said.
    pub(crate) fn of(load: NodeLoad) -> Self {
        let NodeLoad { under_way, room, refused, late, repaired, forced, put_off } = load;
        let (repaired_bytes, forced_bytes) = (repaired, forced);
        Self { under_way, room, refused, late, repaired_bytes, forced_bytes, put_off }
    }

    /// For people, if the node has too much to do.
    pub(crate) fn text(&self, node: &str) -> Option<String> {
        let Self { under_way, room, refused, late, .. } = self;
        (under_way * 10 >= room * 9).then(|| {
            format!(
                "overloaded: {node} has {under_way} requests under way and takes {room} at most; \
                 {refused} were refused and {late} dropped since it started"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_with_all_the_room_taken_is_named() {
        let load = NodeLoad { under_way: 63, room: 64, refused: 5, late: 1, ..NodeLoad::default() };
        let text = LoadView::of(load).text("a1").expect("it has too much to do");
        assert!(text.contains("a1") && text.contains("63") && text.contains("5 were refused"), "{text}");
        assert_eq!(LoadView::of(NodeLoad { under_way: 5, ..load }).text("a1"), None);
    }
}
