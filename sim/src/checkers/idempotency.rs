//! One token has one effect: a retried mutation is applied once, and every answer to it names the
//! same result.

use std::collections::BTreeMap;

use crate::checkers::Violation;

/// A client's mutation, by principal, client instance and sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token {
    /// The principal's number.
    pub principal: u64,
    /// The client instance.
    pub instance: u64,
    /// The mutation within the instance.
    pub sequence: u64,
}

/// Where a mutation took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Effect {
    /// The volume.
    pub volume: u64,
    /// The record.
    pub lsn: u64,
}

/// What became of every token.
#[derive(Clone, Debug, Default)]
pub struct Idempotency {
    effects: BTreeMap<Token, Effect>,
    not_applied: BTreeMap<Token, u64>,
}

impl Idempotency {
    /// A record with this token is committed, or an answer to the token names this record. Every
    /// replica may report it again.
    pub fn effect(&mut self, token: Token, effect: Effect, object: &str, now: u64) -> Option<Violation> {
        if let Some(at) = self.not_applied.get(&token) {
            let sentence =
                format!("{token:?} took effect after its client heard at {at} ns that it never will");
            return Some(violation(object, sentence, now));
        }
        let first = *self.effects.entry(token).or_insert(effect);
        let sentence = || format!("{token:?} took effect twice, as {first:?} and {effect:?}");
        (first != effect).then(|| violation(object, sentence(), now))
    }

    /// The record with this token is lost: operators let its volume go on without it.
    pub fn forget(&mut self, token: Token) {
        self.effects.remove(&token);
        self.not_applied.remove(&token);
    }

    /// The client is told that the token has no effect and never will.
    pub fn not_applied(&mut self, token: Token, object: &str, now: u64) -> Option<Violation> {
        self.not_applied.insert(token, now);
        let effect = self.effects.get(&token)?;
        let sentence = format!("{token:?} is called not applied, and it is {effect:?}");
        Some(violation(object, sentence, now))
    }
}

fn violation(object: &str, sentence: String, now: u64) -> Violation {
    Violation { checker: "idempotency", object: object.to_owned(), at_ns: now, sentence }
}

#[cfg(test)]
mod tests {
    use super::{Effect, Idempotency, Token};

    const TOKEN: Token = Token { principal: 1, instance: 2, sequence: 3 };
    const FIRST: Effect = Effect { volume: 1, lsn: 10 };
    const SECOND: Effect = Effect { volume: 1, lsn: 11 };

    #[test]
    fn it_fires_when_a_retry_becomes_a_second_record() {
        let mut checker = Idempotency::default();
        assert_eq!(checker.effect(TOKEN, FIRST, "acme/k", 1), None);
        assert_eq!(checker.effect(TOKEN, FIRST, "acme/k", 2), None);
        assert!(checker.effect(TOKEN, SECOND, "acme/k", 3).is_some());
    }

    #[test]
    fn it_fires_when_not_applied_was_not_true_before_or_after() {
        let mut after = Idempotency::default();
        assert_eq!(after.not_applied(TOKEN, "acme/k", 1), None);
        assert!(after.effect(TOKEN, FIRST, "acme/k", 2).is_some());
        let mut before = Idempotency::default();
        assert_eq!(before.effect(TOKEN, FIRST, "acme/k", 1), None);
        assert!(before.not_applied(TOKEN, "acme/k", 2).is_some());
    }
}
