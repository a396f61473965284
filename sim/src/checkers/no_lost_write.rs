//! When everything is healed and quiet, every object is what some last mutation made it: no
//! acknowledged mutation is missing, and nothing that was refused has appeared.

use crate::checkers::Violation;
use crate::history::{ObjectId, Operation, Outcome, Value};

/// Fires if the final value of an object cannot be the last one of its history.
#[must_use]
pub fn check(object: &ObjectId, operations: &[Operation], last: Value, now: u64) -> Option<Violation> {
    let mutations: Vec<&Operation> = operations.iter().filter(|o| happened(o)).collect();
    let may_be_last = |mutation: &&&Operation| {
        !mutations.iter().any(|later| is_answered(later) && later.invoked_at > mutation.answered_at())
    };
    let nothing_acknowledged = !mutations.iter().any(|mutation| is_answered(mutation));
    let explained = (last == Value::Absent && nothing_acknowledged)
        || mutations.iter().filter(may_be_last).any(|mutation| mutation.step.becomes == Some(last));
    if explained {
        return None;
    }
    let newest = mutations.iter().filter(|o| is_answered(o)).max_by_key(|o| o.answered_at());
    let sentence = match newest {
        Some(newest) => format!("at the end there is {last}, although {newest} was acknowledged"),
        None => format!("at the end there is {last}, which nobody wrote"),
    };
    let object = object.to_string();
    Some(Violation { checker: "no_lost_write", object, at_ns: now, sentence })
}

fn happened(operation: &Operation) -> bool {
    operation.step.becomes.is_some() && !matches!(operation.outcome, Outcome::Refused(_))
}

fn is_answered(operation: &Operation) -> bool {
    matches!(operation.outcome, Outcome::Answered(_))
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::history::{ObjectId, Operation, Outcome, Value, Verb, VersionTag};

    const V1: Value = Value::Version(VersionTag(1));
    const V2: Value = Value::Version(VersionTag(2));

    fn fires(operations: &[Operation], last: Value) -> bool {
        let object = ObjectId { tenant: "acme".to_owned(), key: "k".to_owned() };
        check(&object, operations, last, 99).is_some()
    }

    fn put(value: Value, from: u64, outcome: Outcome) -> Operation {
        Operation::write(Verb::Put, 1, value, from, outcome)
    }

    #[test]
    fn it_fires_when_an_acknowledged_put_is_gone_or_went_back() {
        let history = [put(V1, 1, Outcome::Answered(2)), put(V2, 3, Outcome::Answered(4))];
        assert!(!fires(&history, V2));
        assert!(fires(&history, V1));
        assert!(fires(&history, Value::Absent));
    }

    #[test]
    fn it_accepts_either_of_two_concurrent_puts_and_one_that_nobody_answered() {
        let history = [put(V1, 1, Outcome::Answered(5)), put(V2, 3, Outcome::Unknown)];
        assert!(!fires(&history, V1) && !fires(&history, V2));
        assert!(!fires(&history[1..], Value::Absent));
    }

    #[test]
    fn it_fires_when_a_refused_put_appears() {
        assert!(fires(&[put(V1, 1, Outcome::Refused(2))], V1));
    }
}
