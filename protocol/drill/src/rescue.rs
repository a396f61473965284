//! What people do in a drill when the rules alone cannot go on: to the control plane's logs, which are saved,
//! lost and begun again, and to volumes whose complete stores are lost.

use serde::{Deserialize, Serialize};

use crate::duration::Duration;

/// One step, as a file has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rescue {
    /// When, counted from the moment the clients begin.
    pub at: Duration,
    /// What.
    #[serde(rename = "do")]
    pub deed: Deed,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deed {
    /// A backup of the state as it is then.
    Backup,
    /// Every placement process dies with its log.
    Lose,
    /// All begin again from the backup.
    Restore,
    /// The voters that are down stay out; the first one with keys that is alive goes on alone, from what it
    /// knows.
    Survive,
    /// Two operators let every volume that is down go on with the stores that are there.
    AcceptLoss,
    /// Two operators let the stores that volumes went on without give up what they have.
    Discard,
    /// An operator believes that the data centre which leads is dead, and wants every volume to go on without
    /// it. It must be refused.
    DeclareDead,
}

impl Deed {
    /// Whether clients may go on after it who could not before.
    #[must_use]
    pub fn is_healing(self) -> bool {
        match self {
            Self::Backup | Self::Restore | Self::Survive | Self::AcceptLoss | Self::Discard => true,
            Self::Lose | Self::DeclareDead => false,
        }
    }

    /// In words, for a report.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Backup => "the control plane's state is saved",
            Self::Lose => "the control plane's logs are lost",
            Self::Restore => "the control plane is restored from the backup",
            Self::Survive => "one voter goes on alone, from what it knows",
            Self::AcceptLoss => "two operators accept the loss of the complete stores",
            Self::DeclareDead => "an operator declares the wrong data centre dead",
            Self::Discard => "two operators discard what only the lost stores have",
        }
    }
}
