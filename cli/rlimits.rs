//! What a server asks the system for about itself: as many open files as it may have, since every
//! volume keeps some open, and no core dump, since memory may hold keys.
//!
//! It never lowers the limit of open files, and never fails a start: where the system refuses, the
//! log says so.

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// With fewer open files than this a server of many volumes fails later: it keeps two for each.
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
