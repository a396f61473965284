//! Random schedules against a model of the log: whatever is lost, late or repeated, a mutation takes
//! effect at most once, and the client's word about it is true for ever.

use std::collections::BTreeMap;

use proptest::prelude::*;
use trefoil_protocol::message::tenant::Refusal;

use super::*;

#[derive(Clone, Debug)]
enum Fate {
    /// Arrives and is answered.
    Answered,
    /// Arrives, the answer is lost.
    AnswerLost,
    /// Is lost on the way.
    Lost,
    /// Arrives after everything else is over; the client hears nothing.
    Late,
    /// The node refuses for now.
    Refused,
}

/// The fate of each ask, and whether the object is there to be deleted when it is served.
fn fates() -> impl Strategy<Value = Vec<(Fate, bool)>> {
    let fate = prop_oneof![
        Just(Fate::Answered),
        Just(Fate::AnswerLost),
        Just(Fate::Lost),
        Just(Fate::Late),
        Just(Fate::Refused)
    ];
    prop::collection::vec((fate, any::<bool>()), 1..20)
}

/// What the volume's log says of each token.
#[derive(Default)]
struct Log {
    tokens: BTreeMap<Token, Option<TenantAnswer>>,
    executions: u32,
    is_live: bool,
}

impl Log {
    fn serve(&mut self, call: &TenantCall) -> TenantResponse {
        match call {
            TenantCall::Delete { token, .. } => match self.tokens.get(&token.token) {
                Some(Some(first)) => Ok(first.clone()),
                Some(None) => Err(Refusal::Expired),
                None if !self.is_live => Err(Refusal::NotFound),
                None => {
                    self.executions += 1;
                    self.tokens.insert(token.token, Some(deleted()));
                    Ok(deleted())
                }
            },
            TenantCall::Outcome { token } => match self.tokens.entry(*token).or_insert(None) {
                Some(first) => Ok(TenantAnswer::Applied(Box::new(first.clone()))),
                None => Ok(TenantAnswer::NotApplied),
            },
            TenantCall::Route => Ok(TenantAnswer::Route(view(vec![volume(0, 1, Some("a1"))]))),
            _ => unreachable!("the test asks nothing else"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn r032_a_late_original_never_executes_twice_and_the_client_is_told_the_truth(fates in fates()) {
        let mut log = Log::default();
        let mut late = Vec::new();
        let mutation =
            Mutation::new(key("k"), delete(1), Bytes::new(), Patience::default(), BootTime(0), 3);
        let mut rig = Rig::new(mutation, routes(vec![volume(0, 1, Some("a1"))]));
        let mut schedule = fates.into_iter();
        while rig.output.is_none() {
            let call = rig.last().request.call.clone();
            let before = rig.asked.len();
            let (fate, is_live) = schedule.next().unwrap_or((Fate::Lost, true));
            log.is_live = is_live;
            match fate {
                _ if call == TenantCall::Route => rig.answer(log.serve(&call)),
                Fate::Answered => rig.answer(log.serve(&call)),
                Fate::AnswerLost => {
                    let _ = log.serve(&call);
                    rig.fail(Failed::Lost);
                }
                Fate::Lost => rig.fail(Failed::Lost),
                Fate::Late => late.push(call),
                Fate::Refused => rig.answer(Err(Refusal::LeaseExpired)),
            }
            if rig.asked.len() == before && rig.output.is_none() {
                rig.wait();
            }
        }
        log.is_live = true;
        for call in late {
            let _ = log.serve(&call);
        }
        prop_assert!(log.executions <= 1);
        match rig.output.unwrap() {
            Ok(_) => prop_assert_eq!(log.executions, 1),
            Err(MutationFailure::NotApplied(_)) => prop_assert_eq!(log.executions, 0),
            Err(MutationFailure::Unknown(_)) => {}
            Err(MutationFailure::Refused(_)) => prop_assert_eq!(log.executions, 0),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}
