//! When this store moves wrapped keys from their records into the key bag, and keys of erased
//! versions out of it: in batches, behind everything that somebody waits for, and only when it is
//! this store's turn.
//!
//! It decides when. Where keys are is [`super::keys`]'s; the order of steps on disk, the engine's.

use std::time::Duration;

use trefoil_engine::{BagError, Disk, Rotated};
use trefoil_protocol::ids::{Incarnation, StoreId};
use trefoil_protocol::message::peer::{BagTurn, BagWord, PeerBody};
use trefoil_protocol::time::{BootTime, CpTime};

use super::holding::Holding;
use super::primary::is_due;
use super::replica::{Replica, Role};
use crate::effect::Effect;
use crate::outbox::Context;
use crate::pace::Pace;

/// How often the primary is told that this store waits for its turn.
const SAY_EVERY: Duration = Duration::from_secs(1);
/// After a rotation the disk belongs to others for this many times as long as it took, or this long.
const REST: u32 = 9;
const REST_MAX: Duration = Duration::from_secs(600);
/// A full disk is tried again after this long.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// A bag waits for one key in so many of its own.
const BAG_SHARE: usize = 8;

#[derive(Clone, Copy, Debug)]
enum Stage {
    Idle { not_before: BootTime },
    Waiting,
    Running { since: BootTime },
}

/// This store's rotations.
#[derive(Debug)]
pub struct Rotation {
    stage: Stage,
    number: u64,
    said_at: Option<BootTime>,
    /// The primary has not heard of the last change.
    is_news: bool,
}

impl Default for Rotation {
    fn default() -> Self {
        let stage = Stage::Idle { not_before: BootTime(0) };
        Self { stage, number: 0, said_at: None, is_news: false }
    }
}

impl Rotation {
    /// Where this store is.
    fn word(&self) -> BagWord {
        let turn = match self.stage {
            Stage::Idle { .. } => BagTurn::Over,
            Stage::Waiting => BagTurn::Wanted,
            Stage::Running { .. } => BagTurn::Taken,
        };
        BagWord { number: self.number, turn }
    }

    /// Begins to wait for a turn if there is work; answers what the primary should hear now.
    fn settle<D: Disk>(&mut self, holding: &Holding<D>, cx: &Context<'_, D>) -> Option<BagWord> {
        if let Stage::Idle { not_before } = self.stage
            && cx.now >= not_before
            && is_wanted(holding, cx.pace, cx.view.now)
        {
            self.number += 1;
            self.stage = Stage::Waiting;
            self.said_at = None;
        }
        let waits = matches!(self.stage, Stage::Waiting) && is_due(self.said_at, SAY_EVERY, cx.now);
        let says = waits || std::mem::take(&mut self.is_news);
        says.then(|| {
            self.said_at = Some(cx.now);
            self.word()
        })
    }

    /// It is this store's turn, if it still waits with this wish.
    fn begin<D: Disk>(&mut self, number: u64, holding: &mut Holding<D>, cx: &mut Context<'_, D>) -> bool {
        if !matches!(self.stage, Stage::Waiting) || number != self.number {
            return false;
        }
        self.stage = Stage::Running { since: cx.now };
        let (volume, bag_key) = (holding.log().identity().volume, cx.out.salt().into());
        cx.out.push(Effect::Rotate { volume, job: holding.rotation_job(bag_key) });
        true
    }

    fn ended(&mut self, had_room: bool, now: BootTime) {
        let Stage::Running { since } = self.stage else {
            unreachable!("a rotation ends that was begun");
        };
        let rest = if had_room { (now.since(since) * REST).min(REST_MAX) } else { TRY_AGAIN_AFTER };
        self.stage = Stage::Idle { not_before: now + rest };
        self.is_news = true;
    }

    /// When to look again; what time alone makes due is noticed when the control plane's clock is
    /// heard.
    pub fn next_wakeup<D: Disk>(&self, holding: &Holding<D>) -> Option<BootTime> {
        match self.stage {
            Stage::Idle { not_before } => {
                let rests = not_before > BootTime(0) && holding.keys().must_rotate(holding.volume());
                rests.then_some(not_before)
            }
            Stage::Waiting => self.said_at.map(|at| at + SAY_EVERY),
            Stage::Running { .. } => None,
        }
    }
}

/// Since when, or from when on, there is enough to do or something that cannot wait.
pub(super) fn wanted_at<D: Disk>(holding: &Holding<D>, pace: &Pace) -> Option<CpTime> {
    let (count, oldest) = holding.keys().riding();
    let enough = pace.keys_move_count.max(holding.volume().bag().len() / BAG_SHARE);
    match holding.keys().must_rotate(holding.volume()) || count >= enough {
        true => Some(CpTime::default()),
        false => oldest.map(|at| at + pace.keys_move_after),
    }
}

fn is_wanted<D: Disk>(holding: &Holding<D>, pace: &Pace, now: CpTime) -> bool {
    wanted_at(holding, pace).is_some_and(|at| at <= now)
}

impl<D: Disk> Replica<D> {
    /// Lets the key bag be rotated, here or elsewhere, as far as it is due.
    pub(super) fn settle_rotation(&mut self, cx: &mut Context<'_, D>) {
        if let Err(error) = self.holding.zero_moved_keys() {
            return cx.out.fail_store(error);
        }
        let said = self.rotation.settle(&self.holding, cx);
        match &self.role {
            Role::Primary(_) => {
                self.turns.heard(cx.identity.store, cx.identity.incarnation, self.rotation.word());
                let granted = self.turns.settle(&self.config, cx);
                if granted.is_some_and(|number| self.rotation.begin(number, &mut self.holding, cx)) {
                    self.turns.heard(cx.identity.store, cx.identity.incarnation, self.rotation.word());
                }
            }
            Role::Member(_) => self.say_bag(said, cx),
            Role::Absent | Role::Peering(_) | Role::Stopped(_) => {}
        }
    }

    /// The primary asks where this store is, or gives it the turn.
    pub(super) fn bag_turn(&mut self, number: u64, cx: &mut Context<'_, D>) {
        if matches!(self.role, Role::Member(_)) {
            self.rotation.begin(number, &mut self.holding, cx);
            self.say_bag(Some(self.rotation.word()), cx);
        }
    }

    /// A member says where it is.
    pub(super) fn bag_said(&mut self, store: StoreId, run: Incarnation, word: BagWord) {
        if matches!(self.role, Role::Primary(_)) {
            self.turns.heard(store, run, word);
        }
    }

    fn say_bag(&mut self, word: Option<BagWord>, cx: &mut Context<'_, D>) {
        let primary = self.config.primary.filter(|_| self.holding.has_promised(self.config.epoch));
        if let (Some(word), Some(primary)) = (word, primary) {
            cx.tell(&self.config, primary, PeerBody::Bag(word));
        }
    }

    /// A rotation ended.
    pub fn rotated(&mut self, result: Result<Rotated<D>, BagError>, cx: &mut Context<'_, D>) {
        match result {
            Ok(rotated) => {
                let had_room = self.holding.rotated(rotated);
                self.rotation.ended(had_room, cx.now);
                self.settle(cx);
            }
            Err(error) => cx.out.fail_store(error),
        }
    }
}
