//! What names a run for another person: `commit:profile:seed:features`.

use std::fmt;
use std::process::Command;
use std::str::FromStr;

use trefoil_sim::product::run::{NoProfile, Profile};

/// What this program can do besides.
const FEATURES: &str = if cfg!(feature = "mutants") { "mutants" } else { "-" };

/// A run's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SeedId {
    pub(crate) commit: String,
    pub(crate) profile: Profile,
    pub(crate) seed: u64,
    pub(crate) features: String,
}

impl SeedId {
    /// The name of a run of this program.
    pub(crate) fn here(profile: Profile, seed: u64, commit: &str) -> Self {
        Self { commit: commit.to_owned(), profile, seed, features: FEATURES.to_owned() }
    }

    /// Why this program may run it differently, if it may.
    pub(crate) fn foreign(&self, commit: &str) -> Option<String> {
        if self.features != FEATURES {
            return Some(format!("it was run with features {}, this program has {FEATURES}", self.features));
        }
        (self.commit != commit).then(|| format!("it was run at commit {}, this is {commit}", self.commit))
    }
}

/// The commit that lies here, `+` behind it if something was changed; `unknown` without git.
pub(crate) fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output =
            Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(head) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".to_owned() };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_none_or(|text| !text.is_empty());
    if changed { format!("{head}+") } else { head }
}

impl fmt::Display for SeedId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}:{}:{}", self.commit, self.profile.name(), self.seed, self.features)
    }
}

/// What is no name of a run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoSeedId {
    /// Not four parts.
    #[error("a seed id is commit:profile:seed:features, for example 1a2b3c:drawn:7:-")]
    Form,
    /// Not a number.
    #[error("{0:?} is no seed")]
    Seed(String),
    /// Not a profile.
    #[error(transparent)]
    Profile(#[from] NoProfile),
}

impl FromStr for SeedId {
    type Err = NoSeedId;

    fn from_str(text: &str) -> Result<Self, NoSeedId> {
        let parts: Vec<&str> = text.split(':').collect();
        let [commit, profile, seed, features] = parts[..] else { return Err(NoSeedId::Form) };
        let number = seed.parse().map_err(|_| NoSeedId::Seed(seed.to_owned()))?;
        let profile = profile.parse()?;
        Ok(Self { commit: commit.to_owned(), profile, seed: number, features: features.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::{FEATURES, SeedId};
    use trefoil_sim::product::run::Profile;

    #[test]
    fn what_is_printed_is_read_again() {
        let id = SeedId::here(Profile::Stress, 7, "abc");
        assert_eq!(id.to_string(), format!("abc:stress:7:{FEATURES}"));
        assert_eq!(id.to_string().parse::<SeedId>().expect("it is one"), id);
        assert_eq!(id.foreign("abc"), None);
        assert!(id.foreign("abd").is_some_and(|reason| reason.contains("commit abc")));
    }

    #[test]
    fn what_is_none_is_refused() {
        for (text, reason) in [("7", "commit:profile"), ("a:drawn:x:-", "\"x\""), ("a:wild:1:-", "wild")] {
            let error = text.parse::<SeedId>().expect_err("it is none").to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
