//! What goes into the control plane and what comes out of it. The shell and the simulator speak to
//! [`Placement`](crate::Placement) in these words only.

use trefoil_protocol::ids::{NodeId, OperatorId, PrincipalId, TenantId, VoterId};
use trefoil_protocol::message::admin::{AdminAnswer, AdminRequest};
use trefoil_protocol::message::control::{ControlAnswer, ControlRequest};
use trefoil_protocol::message::tenant::{TenantRequest, TenantResponse};
use trefoil_protocol::message::voter::VoterMessage;

/// Names one request until it is answered; given out by the caller, never twice in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// A request with the identity that the connection's certificate proved. Nothing in a request is
/// believed about who sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A storage node asks.
    Control(NodeId, ControlRequest),
    /// An operator asks.
    Admin(OperatorId, AdminRequest),
    /// A tenant's principal asks; only `Route` and the calls for keys are answered here.
    Tenant(TenantId, PrincipalId, TenantRequest),
}

/// The answer to a request, of the same plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`Request::Control`].
    Control(ControlAnswer),
    /// To [`Request::Admin`].
    Admin(AdminAnswer),
    /// To [`Request::Tenant`].
    Tenant(TenantResponse),
}

/// What happened.
#[allow(clippy::large_enum_variant, reason = "an event is made, taken once and gone")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody asks. Every request gets exactly one [`Effect::Answer`], unless [`Event::Gone`]
    /// comes first.
    Request(RequestId, Request),
    /// Whoever asked does not listen any more; what was begun goes on.
    Gone(RequestId),
    /// A message of another voter, which the connection proved to be that one.
    Voter(VoterId, Box<VoterMessage>),
    /// Nothing but time passed.
    Wakeup,
}

/// What is to be done.
#[allow(clippy::large_enum_variant, reason = "an effect is made, carried out and gone")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Answer the request.
    Answer(RequestId, Answer),
    /// Pass this to another voter; it may be lost.
    Send(VoterId, Box<VoterMessage>),
    /// The log cannot be kept any more: answer nobody and stop. Everything committed is on disk.
    Fatal(String),
}
