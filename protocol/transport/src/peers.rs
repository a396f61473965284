//! The links to one remote peer: a connection on each, probed, and messages on whichever is healthy.
//!
//! A message is handed to one link and may be lost or repeated when traffic moves to the other:
//! who needs an answer sends again. A lane keeps its order within one link. Which link is healthy
//! and which to take is decided by [`LinkChoice`]; this file dials, probes, queues and writes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use trefoil_protocol::frame::{FrameHeader, FrameHeaderError};
use trefoil_protocol::ids::LinkId;
use trefoil_protocol::links::{LinkChoice, LinkHealth};
use trefoil_protocol::message::traffic::{Class, Traffic, TrafficByClass};
use trefoil_protocol::time::BootTime;

use crate::connection::{CloseReason, Connection};
use crate::endpoint::Endpoint;
use crate::identity::Identity;
use crate::lane::{Lane, LaneQueue, Message, Push, bytes_of};
use crate::plane::Plane;
use crate::probe::{PROBE_BYTES, common_ticks, probe};
use crate::stream::{Bulk, SendStream};

/// The first pause before a lost link is dialled again.
const REDIAL_PAUSE_MIN: Duration = Duration::from_millis(100);

/// The longest pause before a lost link is dialled again.
const REDIAL_PAUSE_MAX: Duration = Duration::from_secs(2);

/// How long one dial and its first probe may take: short, so that a restored link is found soon.
const DIAL_TIME_MAX: Duration = Duration::from_secs(2);

/// A connection that gave no answer for this long is replaced by a new one.
const ANSWER_AGE_HOPELESS: Duration = Duration::from_secs(3);

/// How long a replaced connection stays to deliver what was already written to it.
const DELIVERY_TIME_MAX: Duration = Duration::from_secs(5);

/// An upload lane that carried nothing for this long ends.
const UPLOAD_IDLE_MAX: Duration = Duration::from_secs(10);

/// The pause after a stream failed, so that a peer that stops every stream costs no busy loop.
const STREAM_RETRY_PAUSE: Duration = Duration::from_millis(50);

/// How to reach a peer over one link.
#[derive(Clone)]
pub struct PeerPath {
    /// Which link this is.
    pub link: LinkId,
    /// The local endpoint of that link.
    pub local: Endpoint,
    /// The peer's address on that link.
    pub remote: SocketAddr,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// A part is longer than a frame may carry.
    #[error(transparent)]
    TooLong(#[from] FrameHeaderError),
    /// The upload lane is full; wait for [`PeerLinks::send`] instead.
    #[error("the upload lane is full")]
    Full,
}

/// The links to one remote peer. Dropped, it closes its connections.
pub struct PeerLinks {
    shared: Arc<Shared>,
    lanes: Lanes,
    tasks: Mutex<JoinSet<()>>,
}

/// Lanes that take messages. Their tasks remove them when idle, hence shared.
type Lanes = Arc<Mutex<BTreeMap<Lane, Arc<LaneQueue>>>>;

struct Shared {
    peer: Identity,
    plane: Plane,
    /// Where this peer's clock readings begin.
    origin: Instant,
    state: Mutex<State>,
    /// Marked whenever a link comes, goes, or turns healthy or unhealthy.
    changed: watch::Sender<()>,
    dropped: AtomicU64,
}

#[derive(Default)]
struct State {
    choice: LinkChoice,
    connections: BTreeMap<LinkId, Connection>,
    traffic: BTreeMap<LinkId, TrafficByClass>,
}

impl PeerLinks {
    /// Begins to keep a connection to `peer` on every path. Must be called within a tokio runtime.
    pub fn open(peer: Identity, plane: Plane, paths: Vec<PeerPath>) -> Self {
        let shared = Arc::new(Shared {
            peer,
            plane,
            origin: Instant::now(),
            state: Mutex::default(),
            changed: watch::Sender::new(()),
            dropped: AtomicU64::new(0),
        });
        let mut tasks = JoinSet::new();
        for path in paths {
            tasks.spawn(keep_link(Arc::clone(&shared), path));
        }
        Self { shared, lanes: Lanes::default(), tasks: Mutex::new(tasks) }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> Identity {
        self.shared.peer
    }

    /// What is known about `link` now.
    pub fn health(&self, link: LinkId) -> LinkHealth {
        self.shared.lock().choice.health(link, self.shared.now())
    }

    /// What was sent over `link`.
    pub fn traffic(&self, link: LinkId) -> TrafficByClass {
        self.shared.lock().traffic.get(&link).copied().unwrap_or_default()
    }

    /// Packets `(sent, lost)` of the present connection over `link`.
    pub fn packets(&self, link: LinkId) -> (u64, u64) {
        self.shared.lock().connections.get(&link).map_or((0, 0), Connection::packets)
    }

    /// The connection that new traffic should take now; `None` when there is none at all.
    pub fn choose(&self) -> Option<Connection> {
        self.shared.choose().map(|(_, connection)| connection)
    }

    /// The link that new traffic should take now.
    pub fn link(&self) -> Option<LinkId> {
        self.shared.choose().map(|(link, _)| link)
    }

    /// Waits until some link is healthy.
    pub async fn until_up(&self) {
        let mut changed = self.shared.changed.subscribe();
        while !LinkId::ALL.into_iter().any(|link| self.health(link).up) {
            // The sender lives in `self`, so this cannot fail.
            let _ = changed.changed().await;
        }
    }

    /// Moves traffic off `link`, as long as there is another.
    pub fn drain(&self, link: LinkId) {
        self.shared.change(|state| state.choice.drain(link));
    }

    /// Lets traffic use `link` again.
    pub fn restore(&self, link: LinkId) {
        self.shared.change(|state| state.choice.restore(link));
    }

    /// How many control messages were dropped because their lane was full.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Puts a message on a lane. A full control lane drops its oldest message; a full upload lane
    /// makes this wait.
    ///
    /// # Errors
    /// When a part is longer than a frame may carry.
    pub async fn send(
        &self,
        lane: Lane,
        class: Class,
        body: Bytes,
        bulk: impl Into<Bulk>,
    ) -> Result<(), FrameHeaderError> {
        let bulk = bulk.into();
        FrameHeader::new(body.len(), bulk.len())?;
        let mut message = Message { body, bulk, class };
        while let Err((back, queue)) = self.put(lane, message) {
            queue.room().await;
            message = back;
        }
        Ok(())
    }

    /// Puts a message on a lane without waiting. A full control lane drops its oldest message.
    ///
    /// # Errors
    /// When a part is longer than a frame may carry, or the upload lane is full.
    pub fn try_send(
        &self,
        lane: Lane,
        class: Class,
        body: Bytes,
        bulk: impl Into<Bulk>,
    ) -> Result<(), SendError> {
        let bulk = bulk.into();
        FrameHeader::new(body.len(), bulk.len())?;
        self.put(lane, Message { body, bulk, class }).map_err(|_| SendError::Full)
    }

    /// Ends a lane once what is on it was sent. Another message begins it anew.
    pub fn finish(&self, lane: Lane) {
        if let Some(queue) = lock(&self.lanes).remove(&lane) {
            queue.finish();
        }
    }

    /// Puts a message on a lane, which begins if it is not there; without room, gives the message
    /// back with the lane to wait for.
    fn put(&self, lane: Lane, message: Message) -> Result<(), (Message, Arc<LaneQueue>)> {
        // The push happens under the lock of the lanes, so that a lane cannot end for idleness
        // between being found and being used.
        let mut lanes = lock(&self.lanes);
        let queue = lanes.entry(lane).or_insert_with(|| self.begin(lane));
        match queue.push(message) {
            Push::Queued { dropped } => {
                self.shared.dropped.fetch_add(dropped, Ordering::Relaxed);
                Ok(())
            }
            Push::Full(back) => Err((back, Arc::clone(queue))),
        }
    }

    fn begin(&self, lane: Lane) -> Arc<LaneQueue> {
        let queue = Arc::new(LaneQueue::new(lane));
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(run_lane(Arc::clone(&self.shared), Arc::clone(&self.lanes), lane, Arc::clone(&queue)));
        queue
    }
}

impl Shared {
    fn now(&self) -> BootTime {
        BootTime::default() + self.origin.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.send_replace(());
    }

    fn choose(&self) -> Option<(LinkId, Connection)> {
        let state = self.lock();
        let link = state.choice.choose(self.now())?;
        Some((link, state.connections.get(&link)?.clone()))
    }

    fn connected(&self, link: LinkId, connection: &Connection) {
        let now = self.now();
        self.change(|state| {
            state.choice.connected(link, now);
            state.connections.insert(link, connection.clone());
        });
    }

    /// `connection` is of no more use; a newer one on the same link is left alone.
    fn lost(&self, link: LinkId, connection: &Connection) {
        self.change(|state| {
            if state.connections.get(&link).is_some_and(|current| current.is_same(connection)) {
                state.connections.remove(&link);
                state.choice.disconnected(link);
            }
        });
    }

    /// A message went out over a link.
    fn count(&self, link: LinkId, class: Class, bytes: u64) {
        self.lock().traffic.entry(link).or_default().count(class, Traffic::one(bytes));
    }

    /// Whether traffic on this connection of `link` must move.
    fn must_move(&self, link: LinkId, connection: &Connection) -> bool {
        let state = self.lock();
        let current = state.connections.get(&link);
        !current.is_some_and(|current| current.is_same(connection))
            || state.choice.move_from(link, self.now()).is_some()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these locks guard is changed by single steps that a panic cannot tear.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps one link connected, for ever.
async fn keep_link(shared: Arc<Shared>, path: PeerPath) {
    let mut pause = REDIAL_PAUSE_MIN;
    // A connection that became too old carries traffic until the next one answers.
    let mut aged: Option<Connection> = None;
    loop {
        let dialled = dial(&shared, &path).await;
        let begun = Instant::now();
        let end = match &dialled {
            Some(connection) => use_connection(&shared, &path, connection, &mut aged).await,
            None => End::Lost,
        };
        if let Some(unreplaced) = aged.take() {
            shared.lost(path.link, &unreplaced);
            unreplaced.close(CloseReason::Superseded);
        }
        match (end, dialled) {
            (End::Aged, connection) => {
                aged = connection;
                continue;
            }
            (End::Lost, Some(connection)) => {
                shared.lost(path.link, &connection);
                connection.close(CloseReason::Superseded);
            }
            (End::Lost, None) => {}
        }
        if begun.elapsed() > REDIAL_PAUSE_MAX {
            pause = REDIAL_PAUSE_MIN;
        }
        sleep(pause).await;
        pause = (pause * 2).min(REDIAL_PAUSE_MAX);
    }
}

async fn dial(shared: &Shared, path: &PeerPath) -> Option<Connection> {
    let dial = path.local.connect(path.remote, shared.plane, Some(shared.peer));
    match timeout(DIAL_TIME_MAX, dial).await {
        Ok(Ok(connection)) => return Some(connection),
        Ok(Err(error)) => tracing::debug!(peer = %shared.peer, link = %path.link, %error, "no link"),
        Err(_) => tracing::debug!(peer = %shared.peer, link = %path.link, "no link in time"),
    }
    None
}

/// Why a connection is no longer used.
enum End {
    /// It is gone or hopeless.
    Lost,
    /// It works, and is old enough to be replaced.
    Aged,
}

/// Probes a new connection and offers it to the lanes from its first answer on, until it is gone,
/// hopeless or old. Before that answer the peer may still refuse us.
async fn use_connection(
    shared: &Shared,
    path: &PeerPath,
    connection: &Connection,
    aged: &mut Option<Connection>,
) -> End {
    let link = path.link;
    let mut offered = false;
    let answered = |round_trip| {
        if !offered {
            offered = true;
            shared.connected(link, connection);
            if let Some(old) = aged.take() {
                tokio::spawn(close_after_delivery(old));
            }
        }
        let now = shared.now();
        shared.lock().choice.answered(link, now, round_trip);
        shared.count(link, Class::Control, PROBE_BYTES as u64);
    };
    tokio::select! {
        () = probe(connection, answered) => End::Lost,
        _ = connection.closed() => End::Lost,
        () = until_hopeless(shared, link) => End::Lost,
        () = sleep(path.local.limits().connection_age_max) => End::Aged,
    }
}

async fn close_after_delivery(old: Connection) {
    // Closed meanwhile or not, there is nothing more to wait for.
    let _ = timeout(DELIVERY_TIME_MAX, old.closed()).await;
    old.close(CloseReason::Superseded);
}

/// Tells the lanes when the link's health turns, and returns when it is past hope.
async fn until_hopeless(shared: &Shared, link: LinkId) {
    let begun = Instant::now();
    let mut ticks = common_ticks(SystemTime::now());
    let mut was_up = false;
    loop {
        ticks.tick().await;
        let health = shared.lock().choice.health(link, shared.now());
        if health.up != was_up {
            was_up = health.up;
            tracing::info!(peer = %shared.peer, %link, up = health.up, "link");
            shared.changed.send_replace(());
        }
        let hopeless = match health.last_answer_age {
            Some(age) => age > ANSWER_AGE_HOPELESS,
            None => begun.elapsed() > DIAL_TIME_MAX,
        };
        if hopeless {
            return;
        }
    }
}

/// A lane's stream, and its place in the count by which lanes spread over links.
struct LaneStream<'a> {
    shared: &'a Shared,
    link: LinkId,
    connection: Connection,
    stream: SendStream,
}

impl LaneStream<'_> {
    /// Ends the stream between two messages: what was written may still arrive.
    fn end(mut self) {
        // A stream that its peer stopped needs no end.
        let _ = self.stream.finish();
    }
}

impl Drop for LaneStream<'_> {
    fn drop(&mut self) {
        self.shared.lock().choice.lane_closed(self.link);
    }
}

/// Writes a lane's messages to its stream, and opens another stream where it must.
async fn run_lane(shared: Arc<Shared>, lanes: Lanes, lane: Lane, queue: Arc<LaneQueue>) {
    let mut changed = shared.changed.subscribe();
    let mut current = None;
    while let Some(message) = next_message(&lanes, lane, &queue).await {
        current = Some(write(&shared, lane, current, message, &mut changed).await);
    }
    if let Some(last) = current {
        last.end();
    }
}

/// The lane's next message; `None` when the lane is finished, or idle and now removed.
async fn next_message(lanes: &Lanes, lane: Lane, queue: &Arc<LaneQueue>) -> Option<Message> {
    loop {
        match lane {
            Lane::Control => return queue.next().await,
            Lane::Upload(_) => {}
        }
        if let Ok(next) = timeout(UPLOAD_IDLE_MAX, queue.next()).await {
            return next;
        }
        let mut lanes = lock(lanes);
        if queue.is_empty() {
            // Finished meanwhile and begun anew, the lane is another queue by now.
            if lanes.get(&lane).is_some_and(|current| Arc::ptr_eq(current, queue)) {
                lanes.remove(&lane);
            }
            return None;
        }
    }
}

/// Writes one message, on the current stream if that may stay, and again on another until a write
/// passes.
async fn write<'a>(
    shared: &'a Shared,
    lane: Lane,
    mut current: Option<LaneStream<'a>>,
    message: Message,
    changed: &mut watch::Receiver<()>,
) -> LaneStream<'a> {
    loop {
        let mut on = match current.take() {
            Some(on) if !shared.must_move(on.link, &on.connection) => on,
            Some(on) => {
                on.end();
                open_stream(shared, lane, changed).await
            }
            None => open_stream(shared, lane, changed).await,
        };
        let (link, connection) = (on.link, on.connection.clone());
        let written = tokio::select! {
            written = on.stream.write_frame(message.body.clone(), message.bulk.clone()) => written,
            () = until_moved(shared, link, &connection, changed) => {
                on.stream.abandon(CloseReason::Superseded);
                continue;
            }
        };
        match written {
            Ok(()) => {
                shared.count(link, message.class, bytes_of(&message) as u64);
                return on;
            }
            Err(error) => {
                tracing::debug!(peer = %shared.peer, %link, %error, "lane must find another stream");
                give_up_if_closed(shared, link, &connection);
                sleep(STREAM_RETRY_PAUSE).await;
            }
        }
    }
}

/// A new stream on the link to take now; waits until there is one.
async fn open_stream<'a>(
    shared: &'a Shared,
    lane: Lane,
    changed: &mut watch::Receiver<()>,
) -> LaneStream<'a> {
    loop {
        let Some((link, connection)) = shared.choose() else {
            // The sender lives as long as `shared`, so this cannot fail.
            let _ = changed.changed().await;
            continue;
        };
        let opened = tokio::select! {
            opened = connection.open_uni() => opened,
            () = until_moved(shared, link, &connection, changed) => continue,
        };
        if let Ok(mut stream) = opened {
            stream.set_urgency(lane.urgency());
            shared.lock().choice.lane_opened(link);
            return LaneStream { shared, link, connection, stream };
        }
        give_up_if_closed(shared, link, &connection);
        sleep(STREAM_RETRY_PAUSE).await;
    }
}

/// Waits until traffic on this connection must move.
async fn until_moved(
    shared: &Shared,
    link: LinkId,
    connection: &Connection,
    changed: &mut watch::Receiver<()>,
) {
    while !shared.must_move(link, connection) {
        // The sender lives as long as `shared`, so this cannot fail.
        let _ = changed.changed().await;
    }
}

/// A writer may notice the end of a connection before the one who keeps the link does.
fn give_up_if_closed(shared: &Shared, link: LinkId, connection: &Connection) {
    if connection.close_reason().is_some() {
        shared.lost(link, connection);
    }
}
