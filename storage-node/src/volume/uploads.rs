//! Payload on its way in: a streamed put at the primary, cut through to every member as it arrives,
//! and the same leaves at the members, which pass them on to their neighbour where they are asked to.
//!
//! A leaf is staged only after its hash was computed from its bytes; a relay acknowledges nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use trefoil_engine::{Disk, DiskError, StageError};
use trefoil_protocol::config::VolumeConfig;
use trefoil_protocol::ids::{DcId, Hash, NodeId, PrincipalId, StoreId, UploadId};
use trefoil_protocol::message::peer::PeerBody;
use trefoil_protocol::message::tenant::{PutRequest, Refusal, UploadEnd, UploadPart};
use trefoil_protocol::record::{INLINE_MAX, METADATA_MAX};
use trefoil_protocol::tree::{self, LEAF_LEN, LeafPlace, NodeHash, leaf_hash};

use super::calls::Ask;
use super::holding::Holding;
use super::mutations::{Intent, Mutation};
use crate::effect::{Effect, Lane};
use crate::event::RequestId;
use crate::outbox::Context;

/// Bytes of payload in one message between nodes.
const MESSAGE_LEAVES: usize = 16;
/// The longest sealed object.
const SEALED_MAX: u64 = LEAF_LEN * u32::MAX as u64;

/// A put whose bytes are arriving.
#[derive(Debug)]
struct Upload {
    principal: PrincipalId,
    /// For how long the client waits once its last frame is sent.
    within: Duration,
    put: Box<PutRequest>,
    hash: Hash,
    /// Hashes of the leaves so far, without the one held back.
    leaves: Vec<NodeHash>,
    length: u64,
    /// The first leaf, while it may be the only one: then it hashes differently.
    held: Option<Bytes>,
    /// A short leaf came: nothing may follow it.
    ended: bool,
}

/// The streamed puts of one volume.
#[derive(Debug, Default)]
pub struct Uploads {
    streams: BTreeMap<RequestId, Upload>,
}

/// What a part of an upload led to.
#[derive(Debug)]
pub enum Arrived {
    /// More is to come.
    More,
    /// All bytes are there and are what they should be.
    Whole(Box<Mutation>),
}

impl Uploads {
    /// Begins a streamed put.
    pub fn begin(&mut self, ask: Ask, put: Box<PutRequest>, hash: Hash) {
        let Ask { request, scope, within, .. } = ask;
        let upload = Upload {
            principal: scope.principal(),
            within,
            put,
            hash,
            leaves: Vec::new(),
            length: 0,
            held: None,
            ended: false,
        };
        self.streams.insert(request, upload);
    }

    /// Whether a request streams here.
    pub fn has(&self, request: RequestId) -> bool {
        self.streams.contains_key(&request)
    }

    /// The requests that stream here.
    pub fn open(&self) -> impl Iterator<Item = RequestId> {
        self.streams.keys().copied()
    }

    /// Whether bytes of an upload are arriving.
    pub fn is_arriving(&self, upload: UploadId) -> bool {
        self.streams.values().any(|stream| stream.put.upload == upload)
    }

    /// The client went away, or the request is answered.
    pub fn end(&mut self, request: RequestId) {
        self.streams.remove(&request);
    }

    /// Ends all of them with a refusal.
    pub fn abandon<D: Disk>(&mut self, refusal: &Refusal, cx: &mut Context<'_, D>) {
        for request in std::mem::take(&mut self.streams).into_keys() {
            cx.out.refuse(request, refusal.clone());
        }
    }

    /// A frame of a stream.
    pub fn part<D: Disk>(
        &mut self,
        request: RequestId,
        part: UploadPart,
        bulk: Bytes,
        holding: &mut Holding<D>,
        config: &VolumeConfig,
        cx: &mut Context<'_, D>,
    ) -> Result<Arrived, Refusal> {
        let upload = self.streams.get_mut(&request).ok_or(Refusal::Unavailable)?;
        let outcome = match part {
            UploadPart::Leaves { first } => {
                let taken = bulk.len() as u64;
                upload.leaves(first, bulk, holding, config, cx).map(|()| {
                    cx.out.push(Effect::Taken { request, bytes: taken });
                    Arrived::More
                })
            }
            UploadPart::End(end) => upload.finish(request, end, holding, config, cx),
        };
        if !matches!(outcome, Ok(Arrived::More)) {
            self.streams.remove(&request);
        }
        outcome
    }
}

impl Upload {
    fn leaves<D: Disk>(
        &mut self,
        first: u32,
        bulk: Bytes,
        holding: &mut Holding<D>,
        config: &VolumeConfig,
        cx: &mut Context<'_, D>,
    ) -> Result<(), Refusal> {
        let next = self.leaves.len() + usize::from(self.held.is_some());
        if first as usize != next || self.ended || bulk.is_empty() {
            return Err(Refusal::Invalid("leaves come whole and in order".into()));
        }
        self.length += bulk.len() as u64;
        if self.length > SEALED_MAX {
            return Err(Refusal::Invalid("the object is too long".into()));
        }
        self.ended = !self.length.is_multiple_of(LEAF_LEN);
        let mut arrived = cut_into_leaves(bulk);
        if next == 0 && arrived.len() == 1 {
            self.held = arrived.pop();
            return Ok(());
        }
        if let Some(held) = self.held.take() {
            arrived.insert(0, held);
        }
        self.pass_on(arrived, LeafPlace::Among, holding, config, cx)
    }

    fn finish<D: Disk>(
        &mut self,
        request: RequestId,
        end: UploadEnd,
        holding: &mut Holding<D>,
        config: &VolumeConfig,
        cx: &mut Context<'_, D>,
    ) -> Result<Arrived, Refusal> {
        check_metadata(&end)?;
        if end.sealed_length != self.length {
            return Err(Refusal::Corrupt);
        }
        if end.sealed_length <= INLINE_MAX {
            return Err(Refusal::Invalid("a small object rides in its request".into()));
        }
        if let Some(held) = self.held.take() {
            self.pass_on(vec![held], LeafPlace::Only, holding, config, cx)?;
        }
        if tree::root_from_leaves(&self.leaves, self.length) != Ok(end.root.0) {
            return Err(Refusal::Corrupt);
        }
        let intent = Intent::Put { request: self.put.clone(), end, inline: None };
        let (principal, token, hash) = (self.principal, self.put.token, self.hash);
        let until = cx.now + self.within;
        Ok(Arrived::Whole(Box::new(Mutation { request, principal, token, hash, intent, until })))
    }

    /// Stages leaves here and sends them to every member, as they came.
    fn pass_on<D: Disk>(
        &mut self,
        leaves: Vec<Bytes>,
        place: LeafPlace,
        holding: &mut Holding<D>,
        config: &VolumeConfig,
        cx: &mut Context<'_, D>,
    ) -> Result<(), Refusal> {
        let upload = self.put.upload;
        for batch in leaves.chunks(MESSAGE_LEAVES) {
            let first = self.leaves.len() as u64;
            let mut hashes = Vec::with_capacity(batch.len());
            for (leaf, index) in batch.iter().zip(first..) {
                let hash = leaf_hash(index, leaf, place);
                stage(holding, upload, index, hash, leaf, cx)?;
                hashes.push(Hash(hash));
            }
            self.leaves.extend(hashes.iter().map(|hash| hash.0));
            for (to, relay_to) in routes(config, cx.identity.store) {
                let first = u32::try_from(first).expect("the length is limited");
                let leaves = hashes.clone();
                let body = PeerBody::Payload { upload, first, leaves, relay_to, fetched: false };
                cx.send(config, to, Lane::Payload, body, batch.to_vec());
            }
        }
        Ok(())
    }
}

fn stage<D: Disk>(
    holding: &mut Holding<D>,
    upload: UploadId,
    index: u64,
    hash: NodeHash,
    leaf: &Bytes,
    cx: &mut Context<'_, D>,
) -> Result<(), Refusal> {
    match holding.stage_leaf(upload, index, hash, leaf) {
        Ok(()) => Ok(()),
        Err(StageError::Disk(DiskError::Full { .. })) => Err(Refusal::Full),
        Err(StageError::Erased { .. }) => Err(Refusal::Expired),
        Err(StageError::Conflict { .. } | StageError::LeafLength { .. }) => Err(Refusal::Corrupt),
        Err(error) => {
            cx.out.fail_store(error);
            Err(Refusal::Unavailable)
        }
    }
}

/// To whom payload goes: to each member here, and once to each other data centre, whose first
/// member passes it on to its neighbour.
fn routes(config: &VolumeConfig, me: StoreId) -> Vec<(NodeId, Option<StoreId>)> {
    let home = config.member_of_store(me).map(|member| member.dc);
    let mut routes = Vec::new();
    let mut abroad: BTreeMap<DcId, Vec<(NodeId, StoreId)>> = BTreeMap::new();
    for member in config.members.iter().filter(|member| member.store != me) {
        if Some(member.dc) == home {
            routes.push((member.node, None));
        } else {
            abroad.entry(member.dc).or_default().push((member.node, member.store));
        }
    }
    for members in abroad.into_values() {
        // A relay has one neighbour; a third member over there is sent to directly.
        for pair in members.chunks(2) {
            routes.push((pair[0].0, pair.get(1).map(|(_, store)| *store)));
        }
    }
    routes
}

/// Leaves that another node sent.
#[derive(Debug)]
pub struct SentLeaves {
    /// The upload.
    pub upload: UploadId,
    /// Index of the first.
    pub first: u32,
    /// Their hashes.
    pub hashes: Vec<Hash>,
    /// Their bytes.
    pub bulk: Bytes,
    /// To whom they are passed on.
    pub relay_to: Option<StoreId>,
}

/// Takes leaves from another node: checks each against its hash, passes them on, stages them. What
/// does not fit is dropped; the sender's message proves nothing.
pub(super) fn take_sent<D: Disk>(
    sent: SentLeaves,
    holding: &mut Holding<D>,
    config: &VolumeConfig,
    cx: &mut Context<'_, D>,
) -> Result<(), Refusal> {
    let upload = sent.upload;
    if holding.index().is_upload_void(upload) || holding.is_past_return(upload.version) {
        return Ok(());
    }
    let leaves = cut_into_leaves(sent.bulk);
    if leaves.len() != sent.hashes.len() || leaves.is_empty() {
        return Err(Refusal::Corrupt);
    }
    if let Some(neighbour) = sent.relay_to.and_then(|store| config.member_of_store(store)) {
        let (first, hashes) = (sent.first, sent.hashes.clone());
        let body = PeerBody::Payload { upload, first, leaves: hashes, relay_to: None, fetched: false };
        cx.send(config, neighbour.node, Lane::Payload, body, leaves.clone());
    }
    for ((leaf, hash), index) in leaves.iter().zip(&sent.hashes).zip(u64::from(sent.first)..) {
        let among = !leaf.is_empty() && leaf_hash(index, leaf, LeafPlace::Among) == hash.0;
        let only = index == 0 && !among && leaf_hash(0, leaf, LeafPlace::Only) == hash.0;
        if !among && !only {
            return Err(Refusal::Corrupt);
        }
        stage(holding, upload, index, hash.0, leaf, cx)?;
    }
    holding.refresh_payload();
    Ok(())
}

/// Metadata comes with the end of the bytes and rides in the record.
pub(super) fn check_metadata(end: &UploadEnd) -> Result<(), Refusal> {
    if end.metadata.len() > METADATA_MAX {
        return Err(Refusal::Invalid("the metadata is too long".into()));
    }
    Ok(())
}

/// Cuts contiguous leaves apart without copying.
fn cut_into_leaves(mut bulk: Bytes) -> Vec<Bytes> {
    let mut leaves = Vec::with_capacity(bulk.len().div_ceil(LEAF_LEN as usize));
    while bulk.len() > LEAF_LEN as usize {
        leaves.push(bulk.split_to(LEAF_LEN as usize));
    }
    leaves.push(bulk);
    leaves
}
