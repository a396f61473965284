//! A tenant's reader of exact versions: what it is given, marked or not, and what is refused.

use std::fs;

use serde_json::Value;

use super::Sites;
use crate::program::Run;

/// How long it listens for what nobody may answer.
const PATIENCE: &str = "5s";

/// A tenant with two objects, `kept` and `gone`, of which the second one is deleted.
pub(super) struct Reader {
    tenant: &'static str,
    kept: String,
    gone: String,
}

impl Reader {
    /// Puts both, and deletes one: then every member in sync has the delete.
    pub(super) fn with_objects(sites: &Sites, tenant: &'static str) -> Self {
        let put = |key: &str| {
            let file = sites.path(format!("{tenant}-{key}"));
            fs::write(&file, contents(tenant, key)).unwrap();
            let put = sites.tenant(tenant, &["put", key, file.to_str().unwrap()]).held().json();
            put["version"].as_str().unwrap().to_owned()
        };
        let (kept, gone) = (put("kept"), put("gone"));
        sites.tenant(tenant, &["rm", "gone"]).held();
        Self { tenant, kept, gone }
    }

    /// The words that ask for the version of a key that was put, and `more`.
    pub(super) fn version_of<'w>(&'w self, key: &'w str, more: &[&'w str]) -> Vec<&'w str> {
        let version = if key == "kept" { &self.kept } else { &self.gone };
        [&[key, "--version", version][..], more].concat()
    }

    /// It takes what may be stale, is given its bytes, and told that they may be.
    pub(super) fn is_given_marked(&self, key: &str, sites: &Sites) {
        let (run, told) = self.get(&self.version_of(key, &["--stale-possible"]), sites);
        assert_eq!(told["stale_possible"], true, "{told}");
        assert!(run.stderr.contains("warning: stale possible"), "{}", run.stderr);
    }

    /// It takes what may be stale, and is given what is not.
    pub(super) fn is_given(&self, key: &str, sites: &Sites) {
        let (run, told) = self.get(&self.version_of(key, &["--stale-possible"]), sites);
        assert_eq!(told["stale_possible"], false, "{told}");
        assert_eq!(run.stderr, "");
    }

    /// It is given nothing: nobody may answer now.
    pub(super) fn is_refused(&self, words: &[&str], sites: &Sites) {
        let run = self.run(words, sites);
        run.failed(5, "unavailable");
        assert!(run.stdout.is_empty(), "{run:?}");
    }

    fn get(&self, words: &[&str], sites: &Sites) -> (Run, Value) {
        let file = sites.path(format!("{}-read", self.tenant));
        let run = self.run(&[words, &["-o", file.to_str().unwrap()]].concat(), sites).held();
        assert_eq!(fs::read(&file).unwrap(), contents(self.tenant, words[0]));
        let told = run.json();
        (run, told)
    }

    fn run(&self, words: &[&str], sites: &Sites) -> Run {
        let json: &[&str] = if words.contains(&"-o") { &["--json"] } else { &[] };
        sites.plain(self.tenant, &[json, &["--deadline", PATIENCE, "get"], words].concat())
    }
}

fn contents(tenant: &str, key: &str) -> Vec<u8> {
    format!("{key} of {tenant}").into_bytes()
}
