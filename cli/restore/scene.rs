//! What there is to begin from, and where: a saved state, the voter whose log begins, and who keeps it.

use std::fs;
use std::path::Path;

use trefoil_client::Trust;
use trefoil_placement::shell::{Saved, Settings, has_log};
use trefoil_protocol::backup::SignedBackup;
use trefoil_protocol::config::VoterEntry;
use trefoil_protocol::deletion::Signers;

use super::Place;
use super::paper::Wanted;
use crate::config::server::PlacementFile;
use crate::failure::{Failure, Kind, Verdict, at};
use crate::process::occupy;
use crate::serve::placement_settings;

/// What there is to begin from, and where.
pub(super) struct Scene {
    from: &'static str,
    pub(super) settings: Settings,
    pub(super) saved: Saved,
    pub(super) voters: Vec<VoterEntry>,
    pub(super) without: Vec<VoterEntry>,
    /// Held so that the process cannot start meanwhile.
    _occupied: fs::File,
}

impl Scene {
    pub(super) fn open(place: &Place) -> Verdict<Self> {
        let occupied = occupy(&place.config)?;
        let settings = placement_settings(PlacementFile::read(&place.config)?, None)
            .map_err(|failure| failure.within(place.config.display()))?;
        let (from, saved) = match &place.source.backup {
            Some(path) => ("a backup", from_backup(path, place, &settings)?),
            None => ("what one voter knows", Saved::by_survivor(&settings).map_err(Failure::failed)?),
        };
        let own = |entry: &VoterEntry| entry.voter == settings.voter;
        let voters: Vec<VoterEntry> = match place.source.survivor {
            true => settings.voters.iter().copied().filter(own).collect(),
            false => settings.voters.clone(),
        };
        if place.source.survivor && settings.keys.is_none() {
            return Err(Failure::refused("a witness holds no keys: it cannot be the only voter"));
        }
        let kept = |entry: &VoterEntry| voters.iter().any(|voter| voter.voter == entry.voter);
        let without = saved.voters().into_iter().filter(|entry| !kept(entry)).collect();
        Ok(Self { from, settings, saved, voters, without, _occupied: occupied })
    }

    pub(super) fn wanted(&self, begins: u64, given_up: Vec<String>, reason: String, proposed: u64) -> Wanted {
        let names = |entries: &[VoterEntry]| entries.iter().map(|entry| entry.name.to_string()).collect();
        Wanted {
            cluster: self.settings.cluster.clone(),
            from: self.from.to_owned(),
            generation: self.saved.generation(),
            index: self.saved.index().0,
            hash: self.saved.hash.to_string(),
            begins,
            voters: names(&self.voters),
            without: names(&self.without),
            given_up,
            reason,
            proposed,
        }
    }
}

fn from_backup(path: &Path, place: &Place, settings: &Settings) -> Verdict<Saved> {
    if has_log(settings).map_err(Failure::failed)? {
        let data = settings.data.display();
        return Err(Failure::refused(format!(
            "{data}: there is a log: a backup is older than it; begin with --survivor, or take the folder away"
        )));
    }
    let trust = place.trust.as_ref().ok_or_else(|| Failure::usage("--backup needs --trust FILE"))?;
    let trust = Trust::load(trust).map_err(Failure::usage)?;
    let signers = Signers { terms: trust.signers };
    let file = fs::read(path).map_err(at(path))?;
    let opened = SignedBackup::open(&file, &signers);
    let (_, state) = opened.map_err(|error| {
        Failure { kind: Kind::Integrity, message: error.to_string() }.within(path.display())
    })?;
    Saved::from_backup(state).map_err(Failure::failed)
}
