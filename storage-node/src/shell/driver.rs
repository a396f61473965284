//! Steps the core and does what it says. Every event of the node passes through [`Driver::handle`],
//! one after the other.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::{Instant, interval, sleep_until};
use trefoil_engine::disk::file::FileDisk;
use trefoil_engine::superblock::SuperblockError;

use super::clock;
use super::control::Control;
use super::disk_threads::DiskThreads;
use super::peers::Peers;
use super::tenants::Requests;
use super::{Event, LinkEndpoint, Settings};
use crate::{Effect, Fatal, NodeCore, Notice};

/// How often the core hears how the links look.
const LINK_REPORT_EVERY: Duration = Duration::from_secs(1);

/// The core with everything it can act on.
pub(super) struct Driver {
    /// Taken away when the store is closed.
    core: RefCell<Option<NodeCore<FileDisk>>>,
    /// Events that arrived while the core was being stepped (an effect can cause one at once).
    waiting: RefCell<VecDeque<Event>>,
    disk: DiskThreads,
    peers: Peers,
    requests: Requests,
    control: Control,
    ended: UnboundedSender<Fatal>,
    /// Told when the core's next wakeup may have become earlier.
    rescheduled: Notify,
}

impl Driver {
    /// Starts to step a core. The receiver hears once if the process must end.
    pub(super) fn start(
        settings: &Settings,
        core: NodeCore<FileDisk>,
        endpoints: &[LinkEndpoint],
    ) -> (Rc<Self>, UnboundedReceiver<Fatal>) {
        let (events, from_threads) = mpsc::unbounded_channel();
        let (ended, hear_end) = mpsc::unbounded_channel();
        let driver = Rc::new(Self {
            core: RefCell::new(Some(core)),
            waiting: RefCell::default(),
            disk: DiskThreads::start(&events),
            peers: Peers::new(settings, endpoints),
            requests: Requests::default(),
            control: Control::new(settings, endpoints),
            ended,
            rescheduled: Notify::new(),
        });
        tokio::task::spawn_local(hear_threads(Rc::clone(&driver), from_threads));
        tokio::task::spawn_local(wake(Rc::clone(&driver)));
        tokio::task::spawn_local(hear_peers(Rc::clone(&driver)));
        tokio::task::spawn_local(look_at_links(Rc::clone(&driver)));
        (driver, hear_end)
    }

    /// The connections to other nodes.
    pub(super) fn peers(&self) -> &Peers {
        &self.peers
    }

    /// The clients' requests under way.
    pub(super) fn requests(&self) -> &Requests {
        &self.requests
    }

    /// Steps the core with `event` and does everything that follows from it.
    pub(super) fn handle(self: &Rc<Self>, event: Event) {
        self.waiting.borrow_mut().push_back(event);
        let Ok(mut core) = self.core.try_borrow_mut() else {
            return; // The step under way takes it next.
        };
        let Some(stepped) = core.as_mut() else { return };
        loop {
            let next = self.waiting.borrow_mut().pop_front();
            let Some(event) = next else { break };
            for effect in stepped.step(clock::now(), event) {
                self.act(effect);
            }
        }
        drop(core);
        self.rescheduled.notify_one();
    }

    fn act(self: &Rc<Self>, effect: Effect<FileDisk>) {
        match effect {
            Effect::SendPeer { to, lane, message, bulk } => self.peers.send(to, lane, &message, bulk),
            Effect::Reply { request, response, bulk, last } => {
                self.requests.reply(request, &response, bulk, last)
            }
            Effect::Data { request, part, bulk } => self.requests.data(request, &part, bulk),
            Effect::Abort { request } => self.requests.abort(request),
            Effect::Taken { request, bytes } => self.requests.taken(request, bytes),
            Effect::Control { ticket, request } => self.control.ask(Rc::clone(self), ticket, request),
            Effect::Sync { volume, job, place } => self.disk.sync(volume, job, place),
            Effect::Hurry { volume } => self.disk.hurry(volume),
            Effect::Read { ticket, job } => self.disk.read(ticket, job),
            Effect::Erase { volume, job } => self.disk.erase(volume, job),
            Effect::Rotate { volume, job } => self.disk.rotate(volume, job),
            Effect::Create { volume, job } => self.disk.create(volume, job),
            Effect::Wipe { volume, job } => self.disk.wipe(volume, job),
            Effect::Scrub { volume, job } => self.disk.scrub(volume, job),
            Effect::Verify { volume, job } => self.disk.verify(volume, job),
            Effect::Probe { job } => self.disk.probe(job),
            Effect::Notice(notice) => log(&notice),
            Effect::Fatal(fatal) => {
                tracing::error!(%fatal, "this node must end");
                // Nobody listens only when the process already ends.
                let _ = self.ended.send(fatal);
            }
        }
    }

    /// Closes the store, so that the next start knows that nothing is missing. Nothing is stepped
    /// any more.
    pub(super) fn shut_down(&self) -> Result<(), SuperblockError> {
        self.requests.abort_all();
        let core = self.core.borrow_mut().take();
        core.map_or(Ok(()), NodeCore::shut_down)
    }
}

fn log(notice: &Notice) {
    match notice {
        Notice::Stopped(_) => tracing::error!(%notice, "this node needs somebody to look"),
        Notice::Damaged { .. } => tracing::warn!(%notice, "it is mended from peers"),
        Notice::Verifying { .. } | Notice::Verified { .. } => tracing::warn!(%notice, "suspect store"),
    }
}

async fn hear_threads(driver: Rc<Driver>, mut events: UnboundedReceiver<Event>) {
    while let Some(event) = events.recv().await {
        driver.handle(event);
    }
}

async fn hear_peers(driver: Rc<Driver>) {
    loop {
        let event = driver.peers.next().await;
        driver.handle(event);
    }
}

/// Wakes the core when it asked to be woken.
async fn wake(driver: Rc<Driver>) {
    driver.handle(Event::Wakeup);
    loop {
        let wakeup = driver.core.borrow().as_ref().and_then(NodeCore::next_wakeup);
        let rescheduled = driver.rescheduled.notified();
        match wakeup {
            None => rescheduled.await,
            Some(at) => {
                let pause = at.since(clock::now());
                tokio::select! {
                    () = sleep_until(Instant::now() + pause) => driver.handle(Event::Wakeup),
                    () = rescheduled => {}
                }
            }
        }
    }
}

/// Tells the core now and then how the links look, for status.
async fn look_at_links(driver: Rc<Driver>) {
    let mut ticks = interval(LINK_REPORT_EVERY);
    loop {
        ticks.tick().await;
        driver.handle(Event::Links(driver.peers.reports()));
    }
}
