//! Who does not answer: what `trefoil status` tells of them, and of what they alone hold, is what was known last.

use trefoil_protocol::config::NodeState;
use trefoil_protocol::message::admin::ClusterStatus;

/// Nodes that are down and voters that the leader does not hear, by name.
pub(super) fn names(status: &ClusterStatus) -> Vec<String> {
    let nodes = status.nodes.iter().filter(|node| node.state == NodeState::Down);
    let nodes = nodes.map(|node| node.node.to_string());
    let voters = status.voters.iter().filter(|voter| !voter.reachable);
    let voters = voters.map(|voter| voter.entry.name.to_string());
    nodes.chain(voters).collect()
}

/// A line for people, if there is anybody.
pub(super) fn text(names: &[String]) -> Option<String> {
    let told = || format!("no answer from {}: what is told of them was known last", names.join(", "));
    (!names.is_empty()).then(told)
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn a_line_names_everybody() {
        let line = text(&["b1".to_owned(), "p-b1".to_owned()]).unwrap();
        assert_eq!(line, "no answer from b1, p-b1: what is told of them was known last");
        assert_eq!(text(&[]), None);
    }
}
