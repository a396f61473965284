//! The one thread that owns the core. It may wait for the disk, which the network's thread must not.
//! Requests come through a bounded queue; a full queue refuses at once instead of growing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use trefoil_protocol::ids::VoterId;
use trefoil_protocol::message::voter::VoterMessage;

use crate::event::{Answer, Effect, Event, Request, RequestId};
use crate::log_store::LogStore;
use crate::placement::Placement;
use crate::shell::clock::boot_time;
use crate::shell::voters::Said;

/// Requests that may wait for the core.
const QUEUE_MAX: usize = 1024;

/// The longest the core sleeps.
const SLEEP_MAX: Duration = Duration::from_secs(1);

enum Input {
    Ask(RequestId, Box<Request>, oneshot::Sender<Answer>),
    Gone(RequestId),
    Voter(VoterId, Box<VoterMessage>),
    Stop,
}

/// The running core.
pub(super) struct CoreThread {
    handle: CoreHandle,
    failed: oneshot::Receiver<String>,
    thread: Option<JoinHandle<()>>,
}

/// A way to ask the core; cheap to clone.
#[derive(Clone)]
pub(super) struct CoreHandle {
    inputs: SyncSender<Input>,
    last_request: Arc<AtomicU64>,
}

impl CoreThread {
    /// Starts the thread; what the core has to say to other voters goes to `said`.
    pub(super) fn start<S: LogStore + Send + 'static>(
        placement: Placement<S>,
        said: mpsc::Sender<Said>,
    ) -> Self {
        let (inputs, received) = sync_channel(QUEUE_MAX);
        let (failure, failed) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("placement-core".into())
            .spawn(move || {
                let standing = Standing::default();
                Running { placement, waiting: BTreeMap::new(), said, standing }.run(&received, failure);
            })
            .expect("a process that starts can start a thread");
        let handle = CoreHandle { inputs, last_request: Arc::default() };
        Self { handle, failed, thread: Some(thread) }
    }

    /// A way to ask the core.
    pub(super) fn handle(&self) -> CoreHandle {
        self.handle.clone()
    }

    /// Waits until the core had to stop, and says why.
    pub(super) async fn failed(&mut self) -> String {
        let reason = (&mut self.failed).await;
        reason.unwrap_or_else(|_| "its thread has ended; the log says more".to_owned())
    }

    /// Stops the core after what it is doing.
    pub(super) fn stop(mut self) {
        // A core that has ended already takes no word and needs none.
        let _ = self.handle.inputs.send(Input::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Tells the core when whoever asked stops listening.
struct Asked<'a> {
    id: RequestId,
    inputs: &'a SyncSender<Input>,
    settled: bool,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        // A full queue may miss it: the answer then goes nowhere, which harms nobody.
        let _ = self.inputs.try_send(Input::Gone(self.id));
    }
}

impl CoreHandle {
    /// Asks; `None` when the core is too busy or stops.
    pub(super) async fn ask(&self, request: Request) -> Option<Answer> {
        let id = RequestId(self.last_request.fetch_add(1, Ordering::Relaxed) + 1);
        let (sender, answer) = oneshot::channel();
        self.inputs.try_send(Input::Ask(id, Box::new(request), sender)).ok()?;
        let mut asked = Asked { id, inputs: &self.inputs, settled: false };
        let answer = answer.await.ok();
        asked.settled = true;
        answer
    }

    /// Another voter says something. A core that is too busy misses it: it is said again.
    pub(super) fn hear(&self, from: VoterId, message: VoterMessage) {
        let _ = self.inputs.try_send(Input::Voter(from, Box::new(message)));
    }
}

/// Who led when it was looked at last.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Standing {
    leads_in: Option<u64>,
    leader: Option<VoterId>,
}

struct Running<S> {
    placement: Placement<S>,
    waiting: BTreeMap<RequestId, oneshot::Sender<Answer>>,
    said: mpsc::Sender<Said>,
    standing: Standing,
}

impl<S: LogStore> Running<S> {
    fn run(mut self, inputs: &Receiver<Input>, failure: oneshot::Sender<String>) {
        loop {
            let event = match inputs.recv_timeout(self.sleep()) {
                Ok(Input::Ask(id, request, sender)) => {
                    self.waiting.insert(id, sender);
                    Event::Request(id, *request)
                }
                Ok(Input::Gone(id)) => {
                    self.waiting.remove(&id);
                    Event::Gone(id)
                }
                Ok(Input::Voter(from, message)) => Event::Voter(from, message),
                Err(RecvTimeoutError::Timeout) => Event::Wakeup,
                Ok(Input::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            };
            if let Some(reason) = self.step(event) {
                tracing::error!(reason, "the control plane stops");
                // Nobody listens any more only if the process is ending anyway.
                let _ = failure.send(reason);
                return;
            }
        }
    }

    fn sleep(&self) -> Duration {
        let due = self.placement.next_wakeup().map(|due| due.since(boot_time()));
        due.unwrap_or(SLEEP_MAX).min(SLEEP_MAX)
    }

    /// Takes an event; gives back why the core must stop, if it must.
    fn step(&mut self, event: Event) -> Option<String> {
        for effect in self.placement.step(boot_time(), event) {
            match effect {
                Effect::Answer(id, answer) => {
                    if let Some(sender) = self.waiting.remove(&id) {
                        // Whoever asked may be gone.
                        let _ = sender.send(answer);
                    }
                }
                Effect::Send(voter, message) => self.say(voter, message),
                Effect::Fatal(reason) => return Some(reason),
            }
        }
        self.tell_standing();
        None
    }

    fn say(&self, voter: VoterId, message: Box<VoterMessage>) {
        if let Some(entry) = self.placement.state().voters.entry(voter) {
            // What does not fit is lost, as on the way.
            let _ = self.said.try_send(Said { to: *entry, message });
        }
    }

    /// Logs who leads, for operators, when that changed.
    fn tell_standing(&mut self) {
        let leader = self.placement.leader();
        let leads_in = self.placement.leads_in();
        let standing = Standing { leads_in, leader: leader.map(|entry| entry.voter) };
        if standing == self.standing {
            return;
        }
        self.standing = standing;
        match (leads_in, leader) {
            (Some(term), _) => tracing::info!(term, "leads the control plane"),
            (None, Some(entry)) if entry.voter != self.placement.voter() => {
                tracing::info!(leader = %entry.name, "follows");
            }
            _ => tracing::info!("no leader is known"),
        }
    }
}
