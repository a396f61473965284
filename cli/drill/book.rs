//! What a client of the load was told of its keys, and so what must be there. Each client has keys of its own: what
//! was acknowledged last is what a read must give, or anything that was sent since and not answered.

use std::collections::BTreeMap;

use blake3::Hash;
use trefoil_protocol::ids::VersionId;
use trefoil_protocol::key::ObjectKey;

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// Never written, or deleted.
    Absent,
    /// These bytes.
    Content(Hash),
}

/// What is known of one key.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// What was acknowledged last.
    acknowledged: Value,
    /// What was sent since, and may take effect at any time.
    in_doubt: Vec<Value>,
    /// The version that the last acknowledged delete hid, and what it was.
    hidden: Option<(VersionId, Value)>,
    /// The version that the last acknowledged change made, hid or brought back.
    version: Option<VersionId>,
}

impl Default for Entry {
    fn default() -> Self {
        Self { acknowledged: Value::Absent, in_doubt: Vec::new(), hidden: None, version: None }
    }
}

impl Entry {
    /// A change of this version was acknowledged.
    pub(crate) fn acknowledge(&mut self, value: Value, version: VersionId) {
        *self = Self { acknowledged: value, version: Some(version), ..Self::default() };
    }

    /// A delete of this version was acknowledged. What another version than the one known held, nobody here knows: it is
    /// not brought back.
    pub(crate) fn acknowledge_delete(&mut self, version: VersionId) {
        let is_known = self.is_certain() && self.version == Some(version);
        let hidden = is_known.then_some((version, self.acknowledged));
        *self = Self { hidden, version: Some(version), ..Self::default() };
    }

    /// Nobody knows whether a change took effect.
    pub(crate) fn doubt(&mut self, value: Value) {
        self.in_doubt.push(value);
        self.hidden = None;
    }

    /// What an undelete would bring back.
    pub(crate) fn hidden(&self) -> Option<(VersionId, Value)> {
        self.hidden
    }

    /// Whether a read may give this.
    pub(crate) fn allows(&self, value: Value) -> bool {
        self.acknowledged == value || self.in_doubt.contains(&value)
    }

    /// Whether nothing is in doubt.
    pub(crate) fn is_certain(&self) -> bool {
        self.in_doubt.is_empty()
    }

    /// Whether a listing must show the key, may not, or may do either.
    pub(crate) fn must_be_listed(&self) -> Option<bool> {
        self.is_certain().then_some(self.acknowledged != Value::Absent)
    }

    /// What is wrong with what was read, if something is. What was acknowledged and is not there is lost; what was
    /// deleted and is there has come back.
    pub(crate) fn judge(&self, key: &ObjectKey, read: Value) -> Option<Wrong> {
        match (self.allows(read), read, self.acknowledged) {
            (true, _, _) => None,
            (false, Value::Absent, _) => Some(self.lost(format!("{key} is not there"))),
            (false, Value::Content(_), Value::Absent) => {
                Some(self.back(format!("{key} was deleted and is there")))
            }
            (false, Value::Content(_), Value::Content(_)) => {
                Some(self.lost(format!("{key} holds other bytes")))
            }
        }
    }

    /// What was acknowledged last is not there.
    pub(crate) fn lost(&self, what: String) -> Wrong {
        Wrong { finding: Finding::Lost, what, version: self.version }
    }

    /// What was deleted is there.
    pub(crate) fn back(&self, what: String) -> Wrong {
        Wrong { finding: Finding::Back, what, version: self.version }
    }
}

/// What is wrong with a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) finding: Finding,
    pub(crate) what: String,
    /// The version that the last acknowledged change made, hid or brought back.
    pub(crate) version: Option<VersionId>,
}

/// What kind of wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// An acknowledged change is not there.
    Lost,
    /// A deleted object is.
    Back,
}

/// All keys of one client.
pub(crate) type Book = BTreeMap<ObjectKey, Entry>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_acknowledged_must_be_there_and_what_was_not_may_be() {
        let key = ObjectKey::new("k").unwrap();
        let [one, two, three] = [b"1", b"2", b"3"].map(|text| Value::Content(blake3::hash(text)));
        let mut entry = Entry::default();
        assert_eq!(entry.judge(&key, Value::Absent), None);
        entry.acknowledge(one, VersionId([7; 16]));
        entry.doubt(two);
        assert!(entry.allows(one) && entry.allows(two) && entry.must_be_listed().is_none());
        let found =
            |entry: &Entry, value| entry.judge(&key, value).map(|wrong| (wrong.finding, wrong.version));
        let lost = Some((Finding::Lost, Some(VersionId([7; 16]))));
        assert_eq!((found(&entry, three), found(&entry, Value::Absent)), (lost, lost));
        entry.acknowledge(three, VersionId([8; 16]));
        assert!(!entry.allows(one) && !entry.allows(two) && entry.must_be_listed() == Some(true));
        let mut other = entry.clone();
        other.acknowledge_delete(VersionId([1; 16]));
        assert_eq!(other.hidden(), None, "it hid another version: the known one was lost");
        entry.acknowledge_delete(VersionId([8; 16]));
        assert_eq!(entry.hidden(), Some((VersionId([8; 16]), three)));
        assert_eq!(found(&entry, three), Some((Finding::Back, Some(VersionId([8; 16])))));
        entry.doubt(one);
        assert_eq!((entry.hidden(), entry.judge(&key, one)), (None, None));
    }
}
