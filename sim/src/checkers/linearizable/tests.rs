//! Doctored histories, and both checkers against an exhaustive search.

use super::{Verdict, check, frontier, verdict, zones};
use crate::history::{History, ObjectId, Operation, Outcome, Step, Value, Verb, VersionTag};
use crate::random::{Draws, Stream};

const V1: Value = Value::Version(VersionTag(1));
const V2: Value = Value::Version(VersionTag(2));

fn put(value: Value, from: u64, to: u64) -> Operation {
    Operation::write(Verb::Put, 1, value, from, Outcome::Answered(to))
}

fn delete(from: u64, to: u64) -> Operation {
    Operation::write(Verb::Delete, 1, Value::Absent, from, Outcome::Answered(to))
}

fn read(value: Value, from: u64, to: u64) -> Operation {
    Operation::read(2, value, from, to)
}

#[test]
fn a_stale_read_is_named_with_the_write_that_it_missed() {
    let mut history = History::default();
    let object = ObjectId { tenant: "acme".to_owned(), key: "k".to_owned() };
    for operation in [put(V1, 1, 2), put(V2, 3, 4), read(V1, 5, 6)] {
        let step = operation.step;
        let pending = history.invoke(object.clone(), 1, operation.verb, step, operation.invoked_at);
        history.answer(&pending, step, operation.answered_at());
    }
    let findings = check(&history);
    let [violation] = &findings.violations[..] else { panic!("{findings:?}") };
    assert_eq!((violation.checker, violation.at_ns), ("linearizable", 6));
    assert!(violation.sentence.contains("read by client 1 (version 1)"), "{violation}");
    assert!(violation.sentence.contains("although put by client 1 (version 2)"), "{violation}");
}

#[test]
fn a_deleted_object_stays_deleted() {
    let good = [put(V1, 1, 2), delete(3, 4), read(Value::Absent, 5, 6), put(V2, 7, 8), delete(9, 10)];
    assert_eq!(verdict(&good), Verdict::Linearizable);
    let bad = [put(V1, 1, 2), delete(3, 4), put(V2, 5, 6), delete(7, 8), read(V2, 9, 10)];
    assert_eq!(verdict(&bad), Verdict::Violated(4));
}

#[test]
fn an_undelete_brings_back_only_what_was_deleted() {
    let undelete = |from, to| Operation {
        step: Step { requires: Some(Value::Absent), becomes: Some(V1) },
        verb: Verb::Undelete,
        ..put(V1, from, to)
    };
    let good = [put(V1, 1, 2), delete(3, 4), undelete(5, 6), read(V1, 7, 8)];
    assert_eq!(verdict(&good), Verdict::Linearizable);
    let bad = [put(V1, 1, 2), undelete(5, 6), read(V1, 7, 8)];
    assert_eq!(verdict(&bad), Verdict::Violated(1));
}

#[test]
fn an_unanswered_put_may_appear_late_and_never_vanish_again() {
    let hanging = Operation { outcome: Outcome::Unknown, ..put(V2, 1, 2) };
    let late = [put(V1, 1, 2), hanging.clone(), read(V1, 3, 4), read(V2, 5, 6), read(V2, 7, 8)];
    assert_eq!(verdict(&late), Verdict::Linearizable);
    let vanished = [put(V1, 1, 2), hanging, read(V2, 5, 6), read(V1, 7, 8)];
    assert!(matches!(verdict(&vanished), Verdict::Violated(_)));
}

#[test]
fn a_refused_put_must_never_be_read() {
    let refused = Operation { outcome: Outcome::Refused(2), ..put(V1, 1, 2) };
    assert_eq!(verdict(&[refused.clone(), read(Value::Absent, 3, 4)]), Verdict::Linearizable);
    assert_eq!(verdict(&[refused, read(V1, 3, 4)]), Verdict::Violated(1));
}

#[test]
fn many_unanswered_operations_stay_cheap() {
    let mut history = Vec::new();
    for at in 0..60 {
        let hanging = if at % 2 == 0 { delete(at, at) } else { put(V1, at, at) };
        history.push(Operation { outcome: Outcome::Unknown, ..hanging });
    }
    for at in 60..400u64 {
        let value = Value::Version(VersionTag(u128::from(at)));
        history.push(put(value, 3 * at, 3 * at + 1));
        history.push(read(value, 3 * at + 2, 3 * at + 2));
    }
    assert_eq!(verdict(&history), Verdict::Linearizable);
}

#[test]
fn a_hundred_thousand_operations_are_judged_by_both_checkers() {
    let mut draws = Draws::new(1, Stream::Workload, 1);
    let mut history = Vec::new();
    let mut latest = Value::Absent;
    for number in 0..50_000u64 {
        let at = 10 * number;
        latest = if draws.chance(200_000) { latest } else { Value::Version(VersionTag(number.into())) };
        if latest == Value::Version(VersionTag(number.into())) {
            history.push(put(latest, at, at + draws.between(1, 5)));
        }
        history.push(read(latest, at + 6, at + 9));
    }
    assert_eq!(zones::verdict(&history), Some(Verdict::Linearizable));
    assert_eq!(frontier::verdict(&history), Verdict::Linearizable);
    let stale = history[1].clone();
    history.push(Operation { invoked_at: 600_000, outcome: Outcome::Answered(600_001), ..stale });
    let blamed = Verdict::Violated(history.len() - 1);
    assert_eq!((zones::verdict(&history), frontier::verdict(&history)), (Some(blamed), blamed));
}

/// Tries every order that respects real time. For a handful of operations only.
fn exhaustive(operations: &[Operation]) -> bool {
    let remaining: Vec<&Operation> =
        operations.iter().filter(|o| !matches!(o.outcome, Outcome::Refused(_))).collect();
    explains(&remaining, Value::Absent)
}

fn explains(remaining: &[&Operation], value: Value) -> bool {
    if remaining.iter().all(|operation| operation.outcome == Outcome::Unknown) {
        return true;
    }
    let horizon = remaining.iter().map(|operation| operation.answered_at()).min();
    (0..remaining.len()).any(|index| {
        let next = remaining[index];
        let in_time = Some(next.invoked_at) <= horizon;
        let fits = next.step.requires.is_none_or(|required| required == value);
        let rest = [&remaining[..index], &remaining[index + 1..]].concat();
        in_time && fits && explains(&rest, next.step.becomes.unwrap_or(value))
    })
}

/// Seven operations of three clients; `kinds` chooses among unique puts, reads, deletes, undeletes.
fn random_history(seed: u64, kinds: u64) -> Vec<Operation> {
    let mut draws = Draws::new(seed, Stream::Workload, kinds);
    let mut history: Vec<Operation> = Vec::new();
    // Every instant is used once, so that no checker's reading of "at the same time" matters.
    let mut instants: Vec<u64> = (0..14).collect();
    let mut version = 0;
    for _ in 0..7 {
        let mut instant = || {
            let index = draws.below(instants.len() as u64);
            instants.swap_remove(usize::try_from(index).expect("small"))
        };
        let (one, two) = (instant(), instant());
        let (from, to) = (one.min(two), one.max(two));
        let seen = match draws.below(4) {
            0 => Value::Absent,
            n => Value::Version(VersionTag(u128::from(n))),
        };
        let mut operation = match draws.below(kinds) {
            0 => {
                version += 1;
                put(Value::Version(VersionTag(version)), from, to)
            }
            1 => read(seen, from, to),
            2 => delete(from, to),
            _ => Operation {
                step: Step { requires: Some(Value::Absent), becomes: Some(seen) },
                ..put(seen, from, to)
            },
        };
        if draws.chance(150_000) {
            operation.outcome = Outcome::Unknown;
        }
        history.push(operation);
    }
    history
}

#[test]
fn both_checkers_agree_with_an_exhaustive_search() {
    let (mut good, mut bad, mut zoned) = (0, 0, 0);
    for seed in 0..6_000 {
        let history = random_history(seed, 2 + seed % 3);
        let truth = exhaustive(&history);
        let judged = |verdict: Verdict| match verdict {
            Verdict::Linearizable => true,
            Verdict::Violated(_) => false,
            Verdict::Undecided => panic!("seven operations can be decided"),
        };
        assert_eq!(judged(frontier::verdict(&history)), truth, "seed {seed}: {history:#?}");
        if let Some(verdict) = zones::verdict(&history) {
            assert_eq!(judged(verdict), truth, "seed {seed}: {history:#?}");
            zoned += 1;
        }
        *(if truth { &mut good } else { &mut bad }) += 1;
    }
    assert!(good > 500 && bad > 500 && zoned > 1_000, "{good} good, {bad} bad, {zoned} by zones");
}
