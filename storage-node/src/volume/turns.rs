//! Whose turn it is to rotate its key bag. The primary gives it to one store of the volume at a time,
//! so that a fault that ruins bags ruins one; a store that says nothing may still be at it, so
//! nobody else is let before it has spoken in this epoch or is no member any more.

use std::time::Duration;

use trefoil_engine::Disk;
use trefoil_protocol::config::VolumeConfig;
use trefoil_protocol::ids::{Incarnation, StoreId};
use trefoil_protocol::message::peer::{BagTurn, BagWord, PeerBody};
use trefoil_protocol::time::BootTime;

use super::by_store::ByStore;
use super::primary::is_due;
use crate::outbox::Context;

/// How often a store is asked the same thing.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// Whose wish was granted.
#[derive(Clone, Copy, Debug)]
struct Holder {
    store: StoreId,
    run: Incarnation,
    number: u64,
}

/// The turns of one epoch, at its primary.
#[derive(Debug, Default)]
pub struct Turns {
    words: ByStore<(Incarnation, BagWord)>,
    holder: Option<Holder>,
    /// Who was let last: the others come first.
    last: Option<StoreId>,
    asked_at: Option<BootTime>,
}

impl Turns {
    /// A store says where it is.
    pub fn heard(&mut self, store: StoreId, run: Incarnation, word: BagWord) {
        let known = self.words.get_or_insert(store, (run, word));
        *known = (*known).max((run, word));
    }

    /// Gives the turn on, if it is free; asks whoever has to be heard before. Answers the number of
    /// this store's own wish while it is granted.
    pub fn settle<D: Disk>(&mut self, config: &VolumeConfig, cx: &mut Context<'_, D>) -> Option<u64> {
        let me = cx.identity.store;
        self.words.retain(|store| config.member_of_store(store).is_some());
        self.holder = self.holder.filter(|holder| !self.is_over(*holder)).or_else(|| self.at_it());
        if self.holder.is_none() {
            let next = self.next_wish()?;
            let unheard = config.members.iter().filter(|member| self.words.get(&member.store).is_none());
            let unheard: Vec<StoreId> = unheard.map(|member| member.store).collect();
            if !unheard.is_empty() {
                self.ask(unheard, 0, config, cx);
                return None;
            }
            (self.holder, self.last, self.asked_at) = (Some(next), Some(next.store), None);
        }
        let holder = self.holder?;
        if holder.store == me {
            return Some(holder.number);
        }
        self.ask(vec![holder.store], holder.number, config, cx);
        None
    }

    fn ask<D: Disk>(
        &mut self,
        stores: Vec<StoreId>,
        number: u64,
        config: &VolumeConfig,
        cx: &mut Context<'_, D>,
    ) {
        if !is_due(self.asked_at, ASK_EVERY, cx.now) {
            return;
        }
        self.asked_at = Some(cx.now);
        for member in stores.into_iter().filter_map(|store| config.member_of_store(store)) {
            cx.tell(config, member.node, PeerBody::BagTurn { number });
        }
    }

    fn is_over(&self, holder: Holder) -> bool {
        match self.words.get(&holder.store) {
            Some((run, word)) => {
                *run > holder.run || *word >= BagWord { number: holder.number, turn: BagTurn::Over }
            }
            // It is no member any more.
            None => true,
        }
    }

    /// A store that began under an earlier epoch.
    fn at_it(&self) -> Option<Holder> {
        self.stores(BagTurn::Taken).next()
    }

    fn next_wish(&self) -> Option<Holder> {
        let behind = self.stores(BagTurn::Wanted).find(|holder| Some(holder.store) > self.last);
        behind.or_else(|| self.stores(BagTurn::Wanted).next())
    }

    fn stores(&self, turn: BagTurn) -> impl Iterator<Item = Holder> {
        let such = self.words.iter().filter(move |(_, (_, word))| word.turn == turn);
        such.map(|(store, (run, word))| Holder { store: *store, run: *run, number: word.number })
    }

    /// When to look again.
    pub fn next_wakeup(&self) -> Option<BootTime> {
        let waits = self.holder.is_some() || self.stores(BagTurn::Wanted).next().is_some();
        self.asked_at.filter(|_| waits).map(|at| at + ASK_EVERY)
    }
}
