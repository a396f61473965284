//! The second signature. What two voters must sign is signed by the leader after it is committed, and
//! by another one after that found it in its own committed state; until then it is no paper. A voter
//! that leads and one that is compromised are one voter: alone it signs nothing that counts.

use std::collections::BTreeMap;
use std::time::Duration;

use trefoil_protocol::deletion::{
    DeletionCertificate, PurgeOrder, SignedCertificate, SignedPurgeOrder, Signers,
};
use trefoil_protocol::ids::ConfigIndex;
use trefoil_protocol::loss_list::{LossStatement, SignedLossStatement};
use trefoil_protocol::message::admin::AdminAnswer;
use trefoil_protocol::message::control::{ControlAnswer, ControlRefusal, PurgeEvidence};
use trefoil_protocol::message::voter::{Papers, VoterBody};
use trefoil_protocol::sign::{Signatory, Signed64};
use trefoil_protocol::time::BootTime;

use crate::controller::outbox::Outbox;
use crate::controller::{Turn, orders};
use crate::event::{Answer, RequestId};
use crate::state::State;

/// How often it is asked again.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// After this long it is given up: who wanted it asks again.
const GIVE_UP_AFTER: Duration = Duration::from_secs(10);

/// So many may wait for a signature.
const OPEN_MAX: usize = 256;

/// What waits for its second signature.
#[derive(Default)]
pub(crate) struct Countersigning {
    last: u64,
    open: BTreeMap<u64, Open>,
}

struct Open {
    request: RequestId,
    papers: Papers,
    own: Vec<Signed64>,
    /// The papers follow from the state up to here.
    applied: ConfigIndex,
    since: BootTime,
    asked: BootTime,
}

impl Countersigning {
    /// Signs an order and answers it, at once or with the second signature.
    pub(crate) fn order(&mut self, turn: &mut Turn<'_>, request: RequestId, order: PurgeOrder) {
        let needed = turn.state.voters.signers().needed_at(order.at);
        self.sign(turn, request, Papers::Order(order), needed);
    }

    /// Likewise certificates, all of one moment's state.
    pub(crate) fn certificates(
        &mut self,
        turn: &mut Turn<'_>,
        request: RequestId,
        certificates: Vec<DeletionCertificate>,
    ) {
        let needed = certificates.iter().map(|certificate| certificate.signers).max().unwrap_or(1);
        self.sign(turn, request, Papers::Certificates(certificates), needed);
    }

    /// Likewise what a volume went on without, for an operator.
    pub(crate) fn loss(&mut self, turn: &mut Turn<'_>, request: RequestId, statement: LossStatement) {
        let needed = turn.state.voters.signers().needed_at(statement.at);
        self.sign(turn, request, Papers::Loss(statement), needed);
    }

    fn sign(&mut self, turn: &mut Turn<'_>, request: RequestId, papers: Papers, needed: u32) {
        let own = papers.sign(&turn.keyring.expect("who holds no key drafts no paper").signatory);
        if needed <= 1 {
            return turn.out.answer(request, signed(papers, vec![own]));
        }
        if self.open.len() >= OPEN_MAX {
            return turn.out.answer(request, not_yet(&papers));
        }
        self.last += 1;
        let (applied, now) = (turn.state.applied, turn.now);
        let open = Open { request, papers, own, applied, since: now, asked: now };
        ask(turn, self.last, &open);
        self.open.insert(self.last, open);
    }

    /// Asks again, and gives up what was asked for in vain.
    pub(crate) fn look(&mut self, turn: &mut Turn<'_>) {
        let is_over = |open: &Open| turn.now.since(open.since) >= GIVE_UP_AFTER;
        let over: Vec<u64> = self.open.iter().filter(|(_, open)| is_over(open)).map(|(n, _)| *n).collect();
        for number in over {
            if let Some(open) = self.open.remove(&number) {
                turn.out.answer(open.request, not_yet(&open.papers));
            }
        }
        for (number, open) in &mut self.open {
            if turn.now.since(open.asked) >= ASK_EVERY {
                open.asked = turn.now;
                ask(turn, *number, open);
            }
        }
    }

    /// Another voter signed.
    pub(crate) fn signed(&mut self, turn: &mut Turn<'_>, number: u64, signatures: Vec<Signed64>) {
        let Some(open) = self.open.get(&number) else { return };
        let own = |signature: &Signed64| open.own.iter().any(|own| own.key == signature.key);
        let counts = open.papers.are_signed(&signatures, &turn.state.voters.signers());
        if !counts || signatures.iter().any(own) {
            return;
        }
        let open = self.open.remove(&number).expect("it was just there");
        let answer = signed(open.papers, vec![open.own, signatures]);
        turn.out.answer(open.request, answer);
    }

    /// The leadership is over.
    pub(crate) fn give_up(self, out: &mut Outbox) {
        for open in self.open.into_values() {
            let refused = match open.papers {
                Papers::Loss(_) => Answer::Admin(AdminAnswer::NotLeader { leader: None }),
                _ => Answer::Control(ControlAnswer::Refused(ControlRefusal::NotLeader { leader: None })),
            };
            out.answer(open.request, refused);
        }
    }
}

fn not_yet(papers: &Papers) -> Answer {
    match papers {
        Papers::Loss(_) => Answer::Admin(AdminAnswer::Refused(
            "no second voter with keys signed it: look at `trefoil voter list`, and ask again".to_owned(),
        )),
        _ => Answer::Control(ControlAnswer::Refused(ControlRefusal::NotYet)),
    }
}

fn ask(turn: &mut Turn<'_>, number: u64, open: &Open) {
    for voter in turn.state.voters.countersigners(turn.voter) {
        let (applied, papers) = (open.applied, open.papers.clone());
        turn.out.said.push((voter, VoterBody::AskSign { number, applied, papers }));
    }
}

/// The papers with what each signer signed, as they go to whoever wanted them.
fn signed(papers: Papers, by_signer: Vec<Vec<Signed64>>) -> Answer {
    let of = |place: usize| -> Vec<Signed64> {
        by_signer.iter().filter_map(|signatures| signatures.get(place).copied()).collect()
    };
    match papers {
        Papers::Loss(statement) => {
            let signed = SignedLossStatement { statement, signatures: of(0) };
            Answer::Admin(AdminAnswer::LossList(signed))
        }
        Papers::Order(order) => {
            Answer::Control(ControlAnswer::Order(SignedPurgeOrder { order, signatures: of(0) }))
        }
        Papers::Certificates(papers) => {
            let signed = papers
                .into_iter()
                .enumerate()
                .map(|(place, certificate)| SignedCertificate { certificate, signatures: of(place) });
            Answer::Control(ControlAnswer::Certificates(signed.collect()))
        }
    }
}

/// What a voter that is asked signs: papers that follow from its own committed state, all or none.
pub(crate) fn countersign(state: &State, papers: &Papers, signatory: &Signatory) -> Option<Vec<Signed64>> {
    let signers = state.voters.signers();
    let is_right = match papers {
        Papers::Order(order) => is_issued(state, order, &signers, signatory),
        Papers::Certificates(certificates) => {
            certificates.iter().all(|certificate| is_earned(state, certificate, &signers, signatory))
        }
        Papers::Loss(statement) => is_known(state, statement, &signers, signatory),
    };
    is_right.then(|| papers.sign(signatory))
}

fn is_issued(state: &State, order: &PurgeOrder, signers: &Signers, signatory: &Signatory) -> bool {
    state.deletions.order(order.volume, order.id) == Some(order)
        && order.generation == state.generation
        && signers.may_sign(&signatory.public(), order.at)
}

/// Whether this voter would say the same of the loss, and not of a time to come.
fn is_known(state: &State, statement: &LossStatement, signers: &Signers, signatory: &Signatory) -> bool {
    let own = state.loss_statement(statement.volume, statement.epoch, statement.at);
    own.as_ref() == Some(statement)
        && statement.at <= state.clock.now()
        && signers.may_sign(&signatory.public(), statement.at)
}

/// Whether the ledger has the version, and the certificate is the one that this voter would make of
/// the same evidence.
fn is_earned(
    state: &State,
    certificate: &DeletionCertificate,
    signers: &Signers,
    signatory: &Signatory,
) -> bool {
    let Some(record) = state.volumes.get(certificate.volume) else { return false };
    let entered = state.deletions.certified(certificate.volume, certificate.version);
    let evidence = PurgeEvidence {
        version: certificate.version,
        tombstone: certificate.tombstone,
        root: certificate.root,
        sealed_length: certificate.size_class,
        requested_by: certificate.requested_by,
        requested_at: certificate.requested_at,
        window: certificate.window,
        orders: certificate.orders.clone(),
        receipts: certificate.receipts.clone(),
    };
    let is_entered = entered.is_some_and(|entry| {
        (entry.tombstone, entry.issued_at) == (certificate.tombstone, certificate.issued_at)
    });
    if !is_entered || orders::draft_certificates(state, record, std::slice::from_ref(&evidence)).is_err() {
        return false;
    }
    let mut own = orders::certificate(state, certificate.volume, evidence, certificate.issued_at);
    // A voter of the next version signs what one of this version made.
    own.software.clone_from(&certificate.software);
    own == *certificate && signers.may_sign(&signatory.public(), certificate.issued_at)
}

#[cfg(test)]
mod tests {
    use trefoil_protocol::config::{Member, MemberState, SingleDcPolicy, VoterEntry};
    use trefoil_protocol::deletion::PurgeScope;
    use trefoil_protocol::ids::{Epoch, Hash, NodeId, StoreId, TenantId, VolumeId, VoterId};
    use trefoil_protocol::time::{CpTime, Millis};

    use super::*;
    use crate::custodian::{Keyring, MasterKey};
    use crate::state::{Command, NewTenant, NewVolume, OrderDraft, Outcome, WrappedKey};

    fn keyring(secret: u8) -> Keyring {
        Keyring::new(MasterKey::from_secrets(&[1; 32], &[2; 32]), &[secret; 32])
    }

    fn voter(name: &str, witness: bool) -> VoterEntry {
        let name: NodeId = name.parse().unwrap();
        let address = "127.0.0.1:7000".parse().unwrap();
        let (voter, dc) = (VoterId::of(name), "a".parse().unwrap());
        VoterEntry { voter, name, dc, witness, control: address, tenants: address }
    }

    fn member(number: u8, dc: &str) -> Member {
        let node = format!("{dc}{number}").parse().unwrap();
        let store = StoreId([number; 16]);
        Member { node, dc: dc.parse().unwrap(), store, state: MemberState::InSync }
    }

    /// A control plane of two voters with keys and a witness, which has committed one order.
    fn ordered() -> (State, PurgeOrder) {
        let voters = [voter("p-a1", false), voter("p-b1", false), voter("w1", true)];
        let mut state = State::new("test", &voters);
        let introduce = |place: usize| {
            let key = Some(keyring(place as u8).signatory.public());
            Command::IntroduceVoter(voters[place].voter, place as u64, key, None)
        };
        let tenant = NewTenant {
            tenant: TenantId(1),
            name: "acme".parse().unwrap(),
            window: Millis(0),
            first_copy_retention: Millis(0),
            single_dc: SingleDcPolicy::Allow,
            stale_reads: Default::default(),
            volumes: vec![NewVolume {
                home: "a".parse().unwrap(),
                members: vec![member(1, "a"), member(2, "a"), member(3, "b")],
            }],
            keys: vec![WrappedKey { version: 0, wrapped: bytes::Bytes::new() }],
        };
        let draft = OrderDraft {
            volume: VolumeId(1),
            epoch: Epoch(1),
            scope: PurgeScope::Others,
            count: 1,
            items: Hash([7; 32]),
            due: CpTime(0),
            judged: CpTime(0),
        };
        let commands =
            [introduce(0), introduce(1), Command::CreateTenant(tenant), Command::IssueOrder(draft)];
        let outcomes: Vec<Outcome> =
            (1..).zip(&commands).map(|(index, command)| state.apply(ConfigIndex(index), command)).collect();
        match outcomes.last() {
            Some(Outcome::Order(order)) => (state.clone(), order.clone()),
            other => panic!("{other:?}"),
        }
    }

    /// To whom, and what.
    type Said = (VoterId, VoterBody);

    /// What the leader `p-a1` says and answers in `act`.
    fn led(
        state: &State,
        now: u64,
        act: impl FnOnce(&mut Turn<'_>),
    ) -> (Vec<Said>, Vec<(RequestId, Answer)>) {
        let (own, mut out) = (keyring(0), Outbox::default());
        let mut entropy = |bytes: &mut [u8]| bytes.fill(0);
        act(&mut Turn {
            now: BootTime(now * 1_000_000),
            state,
            keyring: Some(&own),
            entropy: &mut entropy,
            voter: voter("p-a1", false).voter,
            peers: &Vec::new,
            out: &mut out,
        });
        (out.said, out.answers)
    }

    #[test]
    fn two_sign_and_the_witness_never() {
        let (state, order) = ordered();
        let signers = state.voters.signers();
        let (id, other) = (RequestId(9), voter("p-b1", false).voter);
        let mut countersigning = Countersigning::default();
        let (said, answers) = led(&state, 0, |turn| countersigning.order(turn, id, order.clone()));
        assert!(answers.is_empty(), "one signature is no answer");
        let [(to, VoterBody::AskSign { number, applied, papers })] = &said[..] else { panic!("{said:?}") };
        assert_eq!((*to, *applied), (other, state.applied), "the witness is not asked");
        // Whoever leads signs again, and then a stranger: neither counts.
        for wrong in [keyring(0), keyring(5)] {
            let signatures = papers.sign(&wrong.signatory);
            let (_, answers) = led(&state, 1, |turn| countersigning.signed(turn, *number, signatures));
            assert!(answers.is_empty());
        }
        let signatures = countersign(&state, papers, &keyring(1).signatory).unwrap();
        let (_, answers) = led(&state, 2, |turn| countersigning.signed(turn, *number, signatures));
        let [(answered, Answer::Control(ControlAnswer::Order(signed)))] = &answers[..] else {
            panic!("{answers:?}")
        };
        assert_eq!(*answered, id);
        signed.verify(&signers).unwrap();
        let alone = SignedPurgeOrder { signatures: vec![signed.signatures[0]], ..signed.clone() };
        assert!(alone.verify(&signers).is_err(), "one voter alone signs nothing that counts");
    }

    #[test]
    fn it_is_asked_again_until_it_is_given_up() {
        let (state, order) = ordered();
        let mut countersigning = Countersigning::default();
        let papers = Papers::Order(order.clone());
        led(&state, 0, |turn| countersigning.order(turn, RequestId(9), order));
        assert_eq!(led(&state, 100, |turn| countersigning.look(turn)).0.len(), 0);
        assert_eq!(led(&state, 600, |turn| countersigning.look(turn)).0.len(), 1);
        let (_, answers) = led(&state, 10_000, |turn| countersigning.look(turn));
        assert_eq!(answers, [(RequestId(9), not_yet(&papers))]);
    }

    #[test]
    fn nobody_signs_a_loss_that_its_own_state_does_not_know() {
        let (state, _) = ordered();
        let statement = LossStatement {
            cluster: "test".to_owned(),
            tenant: TenantId(1),
            volume: VolumeId(1),
            epoch: Epoch(2),
            accepted_at: CpTime(0),
            operators: Vec::new(),
            unknown_since: None,
            account: None,
            stores: Vec::new(),
            count: 0,
            versions: trefoil_protocol::loss_list::hash_of(&[]),
            unlisted: 0,
            at: CpTime(0),
        };
        assert_eq!(countersign(&state, &Papers::Loss(statement), &keyring(1).signatory), None);
    }

    #[test]
    fn a_voter_signs_what_its_own_state_says_and_nothing_else() {
        let (state, order) = ordered();
        let signatory = keyring(1).signatory;
        let signs =
            |order: &PurgeOrder| countersign(&state, &Papers::Order(order.clone()), &signatory).is_some();
        assert!(signs(&order));
        let mut forged = vec![order.clone(); 4];
        forged[0].items = Hash([8; 32]);
        forged[1].epoch = Epoch(9);
        forged[2].at = CpTime(5);
        forged[3].scope = PurgeScope::FirstCopy;
        assert!(!forged.iter().any(signs), "what was never committed is not signed");
        let before = State::new("test", &[voter("p-b1", false)]);
        assert!(countersign(&before, &Papers::Order(order), &signatory).is_none());
    }
}
