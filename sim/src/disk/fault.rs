//! What can be wrong with a simulated disk, as data.

use trefoil_drill::{FaultKind, Persistence};

/// A fault waiting for its operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFault {
    /// How it fails.
    pub kind: FaultKind,
    /// Which files, e.g. `*/seg*`.
    pub path: String,
    /// For how long.
    pub persistence: Persistence,
    /// How many matching operations succeed first.
    pub after: u32,
}

impl DiskFault {
    /// Fails the next matching operation.
    #[must_use]
    pub fn once(kind: FaultKind, path: &str) -> Self {
        Self { kind, path: path.to_owned(), persistence: Persistence::Once, after: 0 }
    }

    /// Fails every matching operation.
    #[must_use]
    pub fn sticky(kind: FaultKind, path: &str) -> Self {
        Self { persistence: Persistence::Sticky, ..Self::once(kind, path) }
    }
}

/// Whether an operation of this kind on this path is struck; spends what strikes once.
pub(super) fn strikes(faults: &mut Vec<DiskFault>, kind: FaultKind, path: &str) -> bool {
    let matches = |fault: &DiskFault| fault.kind == kind && path_matches(&fault.path, path);
    let Some(index) = faults.iter().position(matches) else {
        return false;
    };
    if faults[index].after > 0 {
        faults[index].after -= 1;
        return false;
    }
    if faults[index].persistence == Persistence::Once {
        faults.remove(index);
    }
    true
}

/// Whether `path` is what `pattern` describes; `*` stands for any characters, `/` included.
pub(super) fn path_matches(pattern: &str, path: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else {
        return pattern == path;
    };
    let Some(rest) = path.strip_prefix(head) else {
        return false;
    };
    (0..=rest.len())
        .filter(|start| rest.is_char_boundary(*start))
        .any(|start| path_matches(tail, &rest[start..]))
}

#[cfg(test)]
mod tests {
    use super::{DiskFault, FaultKind, path_matches, strikes};

    #[test]
    fn a_pattern_matches_whole_paths() {
        assert!(path_matches("*/seg*", "v1/seg0001"));
        assert!(path_matches("*", ""));
        assert!(path_matches("superblock", "superblock"));
        assert!(!path_matches("*/seg", "v1/seg0001"));
        assert!(!path_matches("seg*", "v1/seg0001"));
    }

    #[test]
    fn a_fault_waits_its_turn_and_strikes_once() {
        let mut faults = vec![DiskFault { after: 1, ..DiskFault::once(FaultKind::ReadError, "*") }];
        let struck: Vec<bool> = (0..4).map(|_| strikes(&mut faults, FaultKind::ReadError, "seg")).collect();
        assert_eq!(struck, [false, true, false, false]);
    }
}
