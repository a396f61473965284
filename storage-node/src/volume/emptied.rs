//! A tree keeps its last node when it becomes empty. A volume that was written once would keep some for
//! ever, and a node has thousands of such volumes.

use std::collections::BTreeMap;

/// Gives the memory of a tree back if nothing is in it.
pub(super) fn give_back<K, V>(tree: &mut BTreeMap<K, V>) {
    if tree.is_empty() {
        *tree = BTreeMap::new();
    }
}
