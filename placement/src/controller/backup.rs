//! A backup of the state, in parts: taken whole at one position of the log, signed, and kept by the leader
//! until its last part was fetched.

use trefoil_protocol::backup::{BackupStatement, SignedBackup};
use trefoil_protocol::ids::Hash;
use trefoil_protocol::message::admin::{AdminAnswer, BACKUP_PART_MAX};

use crate::controller::Turn;

/// The backup that is being fetched, if one is.
#[derive(Default)]
pub(crate) struct Backup {
    taken: Option<(SignedBackup, Vec<u8>)>,
}

impl Backup {
    /// The part from `offset` on; from 0 on it is one of the state as it is now.
    pub(crate) fn part(&mut self, turn: &Turn<'_>, offset: u64) -> AdminAnswer {
        // A witness signs nothing.
        let Some(keyring) = turn.keyring else { return AdminAnswer::NotLeader { leader: None } };
        if offset == 0 {
            let state = turn.state.to_bytes();
            let statement = BackupStatement {
                cluster: turn.state.cluster.clone(),
                generation: turn.state.generation,
                index: turn.state.applied,
                at: turn.state.clock.now(),
                length: state.len() as u64,
                hash: Hash(*blake3::hash(&state).as_bytes()),
            };
            self.taken = Some((SignedBackup::new(statement, &keyring.signatory), state));
        }
        let Some((head, state)) = &self.taken else { return begin_anew() };
        let Some(rest) = usize::try_from(offset).ok().and_then(|offset| state.get(offset..)) else {
            return begin_anew();
        };
        let part = rest[..rest.len().min(BACKUP_PART_MAX)].to_vec().into();
        let (head, is_last) = (head.clone(), rest.len() <= BACKUP_PART_MAX);
        if is_last {
            self.taken = None;
        }
        AdminAnswer::Backup { head, offset, part }
    }
}

fn begin_anew() -> AdminAnswer {
    AdminAnswer::Refused("the leader does not have this backup any more: begin it anew".to_owned())
}
