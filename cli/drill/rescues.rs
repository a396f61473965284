//! What operators do in a drill, between the hands and the verbs: who is killed before, and who is started after.

use trefoil_drill::Deed as Rescue;
use trefoil_protocol::config::VoterEntry;

use super::conduct::Conductor;
use crate::failure::{Failure, Verdict};
use crate::local::hands::Deed;

/// What the report says when one voter goes on alone.
const ALONE: &str =
    "one voter keeps the control plane's log from now on: the others left for good, add new ones";

impl Conductor<'_> {
    /// Does it. What is broken by it is remembered, as with any other deed.
    pub(super) async fn rescue(&mut self, rescue: Rescue) -> Verdict {
        match rescue {
            Rescue::Backup => {
                let cluster = self.field.operator.cluster.as_str().to_owned();
                self.field.rescuer.back_up(&cluster).await
            }
            Rescue::Lose => self.lose().await,
            Rescue::Restore => self.restore().await,
            Rescue::Survive => self.survive().await,
            Rescue::AcceptLoss | Rescue::Discard | Rescue::DeclareDead => {
                self.field.rescuer.decide(rescue, &self.field.admin).await
            }
        }
    }

    async fn lose(&mut self) -> Verdict {
        self.kill_voters().await?;
        for entry in self.voters.clone() {
            self.act(&Deed::Lose(entry.name.to_string())).await?;
        }
        Ok(())
    }

    async fn restore(&mut self) -> Verdict {
        self.field.rescuer.restore(&self.voters).await?;
        for entry in self.voters.clone() {
            let name = entry.name.to_string();
            self.broken.retain(|undo| *undo != Deed::Regain(name.clone()));
            self.act(&Deed::Start(name)).await?;
        }
        Ok(())
    }

    async fn survive(&mut self) -> Verdict {
        let survivor = self.alive().into_iter().find(|entry| !entry.witness);
        let survivor = survivor.ok_or_else(|| Failure::refused("no voter with keys is left"))?;
        self.kill_voters().await?;
        let given_up = self.centres.iter().copied().filter(|dc| *dc != survivor.dc);
        let given_up: Vec<_> = given_up.collect();
        self.field.rescuer.survive(&survivor, &given_up).await?;
        self.notes.push(ALONE.to_owned());
        self.act(&Deed::Start(survivor.name.to_string())).await
    }

    async fn kill_voters(&mut self) -> Verdict {
        for entry in self.alive() {
            self.act(&Deed::Kill(entry.name.to_string())).await?;
        }
        Ok(())
    }

    /// Voters that the drill has not killed.
    fn alive(&self) -> Vec<VoterEntry> {
        let is_down = |entry: &&VoterEntry| self.broken.contains(&Deed::Start(entry.name.to_string()));
        self.voters.iter().filter(|entry| !is_down(entry)).copied().collect()
    }
}
