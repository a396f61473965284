//! The model in bounds that a test can afford. `trefoil-sim model` looks through more.

use std::ops::ControlFlow;

use trefoil_sim::model::{Bounds, INVARIANTS, LANDMARKS, Mutation, Outcome, PARTS, check};

fn look(bounds: &Bounds) -> Outcome {
    check(bounds, &mut |_| ControlFlow::Continue(())).expect("there is such a model")
}

fn part(name: &str) -> Bounds {
    PARTS.into_iter().find(|(part, _)| *part == name).expect("there is such a part").1
}

#[test]
fn r034_every_invariant_holds_in_every_state_of_the_model() {
    let mut landmarks = [0; LANDMARKS.len()];
    for bounds in [Bounds { epochs: 2, ..part("failover") }, part("purge"), part("return")] {
        assert_eq!(bounds.stores, 3);
        let outcome = look(&bounds);
        println!("{bounds:?}: {:?}", outcome.progress);
        assert_eq!(outcome.broken, None, "{bounds:?}");
        assert!(outcome.exhausted);
        for (sum, count) in landmarks.iter_mut().zip(outcome.landmarks) {
            *sum += count;
        }
    }
    for (name, count) in LANDMARKS.iter().zip(landmarks) {
        assert!(count > 0, "the model never came to where {name}");
    }
}

#[test]
fn r034_each_guard_that_the_model_lacks_is_missed() {
    for (mutation, invariant) in [
        (Mutation::DropFencing, "one_history"),
        (Mutation::GcByTime, "certificate_is_true"),
        (Mutation::AckAtTwo, "copies_at_ack"),
        (Mutation::AckWithoutMember, "deleted_stays_deleted"),
        (Mutation::ServeBeforeLeaseOver, "one_primary"),
        (Mutation::SingleDcNotCommitted, "copies_at_ack"),
        (Mutation::UndeleteAfterOrder, "undelete_or_purge"),
        (Mutation::EverHeldTrimmed, "certificate_is_true"),
        (Mutation::ActivateUnprepared, "deleted_stays_deleted"),
    ] {
        let outcome = look(&Bounds { mutation: Some(mutation), ..part(mutation.part()) });
        let found = outcome.broken.map(|found| (INVARIANTS[found.invariant].name, found.steps.is_empty()));
        assert_eq!(found, Some((invariant, false)), "{}", mutation.name());
    }
}
