//! What a server asks the system for about itself: as many open files as it may have, since every
//! volume keeps some open, and no core dump, since memory may hold keys.
//!
//! It never lowers a limit that an operator raised, and never fails a start: a system that refuses is
//! said so in the log.

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// Files that fewer than make a server of many volumes fail later: two for each volume.
const OPEN_FILES_FEW: u64 = 4096;

/// Asks for both.
pub(crate) fn settle() {
    raise_open_files();
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let refused = setrlimit(Resource::Core, none).and(set_dumpable_behavior(DumpableBehavior::NotDumpable));
    if let Err(error) = refused {
        tracing::warn!(%error, "core dumps of this process cannot be switched off");
    }
}

fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
    if let Some(files) = getrlimit(Resource::Nofile).current.filter(|files| *files < OPEN_FILES_FEW) {
        tracing::warn!(files, "few files may be open; every volume takes two: raise the limit (ulimit -n)");
    }
}
