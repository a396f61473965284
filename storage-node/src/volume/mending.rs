//! Records that are damaged here: the other stores are asked for their copies. If nobody has one, the
//! volume stops and says which record it is, until a copy turns up.
//!
//! It never passes over a record, and never asks without a pause.

use std::collections::BTreeSet;
use std::time::Duration;

use trefoil_engine::Disk;
use trefoil_protocol::config::VolumeConfig;
use trefoil_protocol::ids::{Lsn, StoreId};
use trefoil_protocol::message::peer::{LogPoint, PeerBody};
use trefoil_protocol::record::Record;
use trefoil_protocol::time::BootTime;

use super::holding::Holding;
use super::primary::is_due;
use crate::outbox::Context;

/// How often others are asked for a record that is damaged here.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// How often, once nobody had it.
const ASK_AGAIN_EVERY: Duration = Duration::from_secs(5);
/// So many times in a row all members say that they cannot give a record before it counts as lost: what
/// is damaged on one of them may be about to be mended there.
const BARREN_ROUNDS: u32 = 4;

/// The record that is being asked for.
#[derive(Debug, Default)]
pub(super) struct Mending {
    hole: Option<Lsn>,
    asked_at: Option<BootTime>,
    /// Who said, since it was asked last, that it cannot give the record.
    without: BTreeSet<StoreId>,
    /// How often in a row everybody said so.
    barren: u32,
}

impl Mending {
    /// Asks every other member for the first damaged record, and whoever else may have it if this store
    /// leads. Answers the record when it turns out to be damaged on all of them.
    pub(super) fn ask<D: Disk>(
        &mut self,
        holding: &Holding<D>,
        config: &VolumeConfig,
        cx: &mut Context<'_, D>,
    ) -> Option<Lsn> {
        let hole = holding.hole();
        if hole != self.hole {
            *self = Self { hole, ..Self::default() };
        }
        let hole = hole?;
        let after = holding.point(hole.previous())?;
        if !is_due(self.asked_at, self.pace(), cx.now) {
            return None;
        }
        let was_lost = self.lost().is_some();
        self.count_round(config, cx.identity.store);
        self.asked_at = Some(cx.now);
        for member in config.members.iter().filter(|member| member.store != cx.identity.store) {
            cx.tell(config, member.node, PeerBody::FetchLog { after });
        }
        if config.primary == Some(cx.identity.node) {
            ask_former_holders(after, config, cx);
        }
        self.lost().filter(|_| !was_lost)
    }

    fn count_round(&mut self, config: &VolumeConfig, me: StoreId) {
        let mut others = config.members.iter().filter(|member| member.store != me);
        let nobody = self.asked_at.is_some() && others.all(|member| self.without.contains(&member.store));
        self.barren = if nobody { self.barren + 1 } else { 0 };
        self.without.clear();
    }

    /// A store sent records behind a point of its log, possibly none.
    pub(super) fn answered(&mut self, store: StoreId, after: LogPoint, records: &[Record]) {
        let Some(hole) = self.hole else { return };
        // A log that parts from this one further on answers another question.
        let about_this = after.lsn <= hole.previous();
        if about_this && records.is_empty() {
            self.without.insert(store);
        }
    }

    /// The record that nobody who answers has, if there is one.
    pub(super) fn lost(&self) -> Option<Lsn> {
        self.hole.filter(|_| self.barren >= BARREN_ROUNDS)
    }

    fn pace(&self) -> Duration {
        if self.lost().is_some() { ASK_AGAIN_EVERY } else { ASK_EVERY }
    }

    /// When to look again.
    pub(super) fn next_wakeup(&self) -> Option<BootTime> {
        self.hole.and(self.asked_at).map(|at| at + self.pace())
    }
}

/// Stores that are no members any more and held the volume: a copy is a copy, whoever has it.
fn ask_former_holders<D: Disk>(after: LogPoint, config: &VolumeConfig, cx: &mut Context<'_, D>) {
    let former = config.ever_held.iter().filter(|store| config.member_of_store(**store).is_none());
    let nodes: Vec<_> = former.filter_map(|store| cx.view.node_of_store(*store)).map(|n| n.node).collect();
    for node in nodes {
        // It answers nothing before it has promised the epoch.
        cx.tell(config, node, PeerBody::Peer);
        cx.tell(config, node, PeerBody::FetchLog { after });
    }
}
