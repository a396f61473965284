//! From a command's outcome to the answer of whoever waited for it. Orders and certificates are
//! signed here, after their commands are committed and never before.

use trefoil_protocol::deletion::DeletionCertificate;
use trefoil_protocol::ids::{TenantId, VolumeId};
use trefoil_protocol::message::admin::AdminAnswer;
use trefoil_protocol::message::control::{ControlAnswer, ControlRefusal, PurgeEvidence};
use trefoil_protocol::message::plan::PlanView;
use trefoil_protocol::message::tenant::{KeysView, Refusal, TenantAnswer, TenantKeyGrant, TenantResponse};
use trefoil_protocol::mutant;
use trefoil_protocol::time::{CpTime, Millis};

use crate::controller::outbox::Waiting;
use crate::controller::{Controller, Turn, orders};
use crate::custodian::Keyring;
use crate::event::Answer;
use crate::state::{NONCE_BLOCK, Outcome, Rejection, State};

/// When to ask for keys again that could not be counted out just now.
const KEYS_AGAIN: Millis = Millis(100);

impl Controller {
    /// A command of this leadership was applied.
    pub(crate) fn settled(&mut self, turn: &mut Turn<'_>, waiting: Waiting, outcome: Outcome) {
        match waiting {
            Waiting::Register(id, node) => {
                if matches!(outcome, Outcome::Registered(_)) {
                    self.grants.registered(node, turn.now);
                }
                turn.out.answer(id, Answer::Control(registered(turn, outcome)));
            }
            Waiting::Renew(id, node, renew) => match outcome {
                Outcome::Done => self.confirm_then_grant(turn, id, node, renew),
                _ => {
                    let refused = ControlAnswer::Refused(ControlRefusal::Unregistered);
                    turn.out.answer(id, Answer::Control(refused));
                }
            },
            // A report that came too late is as good as heard.
            Waiting::Control(id) => turn.out.answer(id, Answer::Control(ControlAnswer::Done)),
            Waiting::Order(id) => match outcome {
                Outcome::Order(order) => self.countersigning.order(turn, id, order),
                other => turn.out.answer(id, Answer::Control(refuse(other))),
            },
            Waiting::Note(id) => {
                let answer = match outcome {
                    Outcome::Noted(noted) => ControlAnswer::Noted(noted),
                    other => refuse(other),
                };
                turn.out.answer(id, Answer::Control(answer));
            }
            Waiting::Differs(id) => {
                let answer = match outcome {
                    Outcome::Heard(up_to, all) => ControlAnswer::Heard { up_to, all },
                    other => refuse(other),
                };
                turn.out.answer(id, Answer::Control(answer));
            }
            Waiting::Certify(id, volume, evidence) => match outcome {
                Outcome::Certified(times) => {
                    let certificates = certificates(turn, volume, evidence, times);
                    self.countersigning.certificates(turn, id, certificates);
                }
                other => turn.out.answer(id, Answer::Control(refuse(other))),
            },
            Waiting::Admin(id) => {
                self.attention.note_all();
                turn.out.answer(id, Answer::Admin(administered(turn, outcome)));
            }
            Waiting::Plan(id, view) => {
                let answer = match outcome {
                    Outcome::Plan(number) => AdminAnswer::Plan(PlanView { number, ..*view }),
                    other => administered(turn, other),
                };
                turn.out.answer(id, Answer::Admin(answer));
            }
            Waiting::Keys(id, tenant) => {
                turn.out.answer(id, Answer::Tenant(keys(turn, tenant, outcome)));
            }
            Waiting::Volume(volume) => {
                self.busy_volumes.remove(&volume);
                self.attention.note(volume);
            }
            Waiting::Node(node) => {
                self.busy_nodes.remove(&node);
            }
            Waiting::Tick => {
                self.tick_under_way = false;
                return;
            }
            Waiting::Council => self.council.is_free(),
            Waiting::Nobody => {}
        }
        self.dirty = true;
    }
}

fn refuse(outcome: Outcome) -> ControlAnswer {
    ControlAnswer::Refused(match outcome {
        Outcome::Rejected(Rejection::Stale | Rejection::NotYet) => ControlRefusal::NotYet,
        Outcome::Rejected(rejection) => ControlRefusal::Denied(rejection.to_string()),
        other => unreachable!("no such outcome for this command: {other:?}"),
    })
}

fn registered(turn: &Turn<'_>, outcome: Outcome) -> ControlAnswer {
    match outcome {
        Outcome::Registered(incarnation) => ControlAnswer::Registered {
            incarnation,
            cluster: turn.state.cluster.clone(),
            generation: turn.state.generation,
        },
        // The store knows a later restore: this control plane is none any more, and it is asked elsewhere.
        Outcome::Rejected(Rejection::OtherGeneration(heard)) if heard > turn.state.generation => {
            ControlAnswer::Refused(ControlRefusal::NotLeader { leader: None })
        }
        other => refuse(other),
    }
}

fn certificates(
    turn: &Turn<'_>,
    volume: VolumeId,
    evidence: Vec<PurgeEvidence>,
    times: Vec<CpTime>,
) -> Vec<DeletionCertificate> {
    let versions = evidence.into_iter().zip(times);
    versions.map(|(version, at)| orders::certificate(turn.state, volume, version, at)).collect()
}

fn administered(turn: &Turn<'_>, outcome: Outcome) -> AdminAnswer {
    match outcome {
        Outcome::Tenant(tenant) => {
            let record = turn.state.tenants.get(tenant).expect("it was just made");
            AdminAnswer::Tenant(record.entry.clone())
        }
        Outcome::Principal(tenant, principal) => AdminAnswer::Principal { tenant, principal },
        Outcome::Done => AdminAnswer::Done,
        Outcome::Proposal(number) => {
            let proposal = turn.state.proposals.get(number, turn.state.clock.now());
            AdminAnswer::Proposal(proposal.expect("it was just entered or approved"))
        }
        Outcome::Rejected(rejection) => AdminAnswer::Refused(rejection.to_string()),
        other => unreachable!("no operator's command results in {other:?}"),
    }
}

/// All keys of the tenant, opened for one of its principals, with a block of nonces of its own.
fn keys(turn: &Turn<'_>, tenant: TenantId, outcome: Outcome) -> TenantResponse {
    let Outcome::Nonces { prefix, .. } = outcome else {
        return Err(Refusal::Busy { retry_after: KEYS_AGAIN });
    };
    // The bug: keys are found by their version alone, and the first tenant's come first.
    let tenant =
        mutant!(M16, tenant, turn.state.tenants.all().next().map_or(tenant, |record| record.entry.tenant));
    let keys = open_keys(turn.state, turn.keyring, tenant)?;
    Ok(TenantAnswer::Keys(KeysView { keys, nonce_prefix: prefix, nonce_count: NONCE_BLOCK }))
}

/// All keys of the tenant, and no nonces: nothing can be wrapped with them.
pub(crate) fn keys_to_read(state: &State, keyring: Option<&Keyring>, tenant: TenantId) -> TenantResponse {
    let keys = open_keys(state, keyring, tenant)?;
    Ok(TenantAnswer::Keys(KeysView { keys, nonce_prefix: 0, nonce_count: 0 }))
}

fn open_keys(
    state: &State,
    keyring: Option<&Keyring>,
    tenant: TenantId,
) -> Result<Vec<TenantKeyGrant>, Refusal> {
    let record = state.tenants.get(tenant).ok_or(Refusal::NotFound)?;
    let keyring = keyring.ok_or(Refusal::Unavailable)?;
    let open = |version: &u32, wrapped: &[u8]| {
        let key = keyring.master.unwrap(tenant, *version, wrapped).map_err(|_| Refusal::Unavailable)?;
        Ok(TenantKeyGrant { version: *version, key: *key })
    };
    let keys = record.keys.iter().map(|(version, key)| open(version, &key.wrapped));
    keys.collect()
}
