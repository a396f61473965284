//! The index as a function of records.

use bytes::Bytes;
use trefoil_engine::Index;
use trefoil_engine::index::{Applied, TOKEN_WINDOW, TokenResult, TokenState, VersionState};
use trefoil_protocol::deletion::{PurgeItem, PurgeOrder, PurgeScope, SignedPurgeOrder, items_root};
use trefoil_protocol::ids::{
    ClientInstance, Epoch, Hash, Lsn, NameTag, OrderId, PrincipalId, StoreId, Token, UploadId, VersionId,
};
use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::record::{
    Cause, Delete, Erasable, OthersErased, Purging, Put, Record, RecordBody, RecordPosition, Undelete,
};
use trefoil_protocol::sign::Signatory;
use trefoil_protocol::time::{CpTime, Millis};

use crate::fixture::OWNER;

/// An index and the records that made it.
#[derive(Default)]
struct Story {
    index: Index,
    previous: Hash,
    sequence: u64,
}

impl Story {
    fn tell(&mut self, body: RecordBody, erasable: Option<&Erasable>) -> (Lsn, Applied) {
        let position = RecordPosition {
            tenant: OWNER.tenant,
            volume: OWNER.volume,
            epoch: Epoch(1),
            lsn: self.index.applied().next(),
            previous: self.previous,
        };
        let record = Record::new(position, body, None, erasable);
        self.previous = record.chain_hash();
        (record.lsn(), self.index.apply(&record))
    }

    fn cause(&mut self) -> Cause {
        self.sequence += 1;
        Cause {
            token: token(self.sequence),
            confirmed_below: 0,
            request: Hash([self.sequence as u8; 32]),
            principal: PrincipalId(7),
            at: CpTime(1000 * self.sequence),
        }
    }

    fn put(&mut self, key: &str, version: u8) -> (Lsn, Applied) {
        let live = self.index.latest(&name(key)).map(|object| object.version());
        let body = RecordBody::Put(Put {
            upload: UploadId { version: VersionId([version; 16]), attempt: 0 },
            root: Hash([version; 32]),
            sealed_length: 10,
            name_tag: NameTag([key.len() as u8; 16]),
            kek_version: 1,
            replaces: live,
            window: Millis(500),
            cause: self.cause(),
        });
        let erasable = Erasable {
            salt: [0; 16],
            key: name(key),
            metadata: Bytes::new(),
            payload: Some(Bytes::from_static(b"0123456789")),
        };
        self.tell(body, Some(&erasable))
    }

    fn delete(&mut self, version: u8) -> (Lsn, Applied) {
        let cause = self.cause();
        let version = VersionId([version; 16]);
        self.tell(RecordBody::Delete(Delete { version, window: Millis(500), cause }), None)
    }

    fn undelete(&mut self, version: u8, tombstone: Lsn) -> (Lsn, Applied) {
        let cause = self.cause();
        let version = VersionId([version; 16]);
        self.tell(RecordBody::Undelete(Undelete { version, tombstone, cause }), None)
    }

    fn purge(&mut self, version: u8, tombstone: Lsn) -> (Lsn, Applied) {
        let items = vec![PurgeItem { version: VersionId([version; 16]), tombstone }];
        let order = PurgeOrder {
            id: OrderId(9),
            tenant: OWNER.tenant,
            volume: OWNER.volume,
            epoch: Epoch(1),
            count: 1,
            items: items_root(&items),
            at: CpTime(9),
            generation: 0,
            scope: PurgeScope::Others,
        };
        let order = SignedPurgeOrder::new(order, &Signatory::from_secret(&[1; 32]));
        self.tell(RecordBody::Purging(Purging { order, items, retained: StoreId([9; 16]) }), None)
    }

    fn state(&self, version: u8) -> VersionState {
        self.index.version(VersionId([version; 16])).expect("was put").state
    }

    fn live(&self, key: &str) -> Option<u8> {
        Some(self.index.latest(&name(key))?.version().0[0])
    }
}

fn name(key: &str) -> ObjectKey {
    ObjectKey::new(key.to_owned()).expect("a key")
}

fn token(sequence: u64) -> Token {
    Token { instance: ClientInstance([1; 16]), sequence }
}

#[test]
fn r063_an_overwritten_version_enters_the_window() {
    let mut story = Story::default();
    story.put("key", 1);
    let (second, _) = story.put("key", 2);
    assert_eq!(story.live("key"), Some(2));
    let VersionState::Deleted(tombstone) = story.state(1) else {
        panic!("{:?}", story.state(1));
    };
    assert_eq!(tombstone.lsn, second);
    assert_eq!(tombstone.ends(), CpTime(2500));
    assert_eq!(story.index.statistics().live.versions, 1);
    assert_eq!(story.index.statistics().deleted.bytes, 10);
}

#[test]
fn r053_an_undelete_needs_the_tombstone_it_saw_and_a_free_name() {
    let mut story = Story::default();
    story.put("key", 1);
    let (first, _) = story.delete(1);
    assert_eq!(story.live("key"), None);
    assert_eq!(story.undelete(1, first).1, Applied::Effective);
    assert_eq!(story.live("key"), Some(1));
    let (second, _) = story.delete(1);
    assert_eq!(story.undelete(1, first).1, Applied::Refused, "another tombstone");
    story.put("key", 2);
    assert_eq!(story.undelete(1, second).1, Applied::Refused, "the name means another version");
    assert_eq!(story.live("key"), Some(2));
}

#[test]
fn r053_undelete_and_purge_race_and_exactly_one_wins() {
    let mut story = Story::default();
    story.put("key", 1);
    let (tombstone, _) = story.delete(1);
    story.undelete(1, tombstone);
    assert_eq!(story.purge(1, tombstone).1, Applied::Refused);
    assert_eq!(story.live("key"), Some(1));

    let (tombstone, _) = story.delete(1);
    assert_eq!(story.purge(1, tombstone).1, Applied::Effective);
    assert_eq!(story.undelete(1, tombstone).1, Applied::Refused);
    let tag = NameTag([3; 16]);
    let gone = story.index.by_tag(tag).next().expect("its keyed hash still finds it");
    assert_eq!(gone.key, None, "its name is forgotten");
    assert!(story.index.list_deleted("", None, 10).versions.is_empty());

    let versions = vec![VersionId([1; 16])];
    let erased = OthersErased { order: OrderId(9), versions, at: CpTime(0) };
    story.tell(RecordBody::OthersErased(erased), None);
    assert!(matches!(story.state(1), VersionState::OthersErased { .. }));
    assert_eq!(story.index.statistics().purging.versions, 1);
}

#[test]
fn windows_end_in_control_plane_time_oldest_first() {
    let mut story = Story::default();
    for version in 1..4 {
        story.put(&format!("key-{version}"), version);
    }
    for version in [3, 1, 2] {
        story.delete(version);
    }
    let due = |now| story.index.due(CpTime(now), 10);
    assert!(due(4499).is_empty());
    let versions: Vec<u8> = due(5500).iter().map(|(version, _)| version.0[0]).collect();
    assert_eq!(versions, [3, 1]);
    assert_eq!(story.index.due(CpTime(99_999), 2).len(), 2);
}

#[test]
fn listings_are_paged_by_key() {
    let mut story = Story::default();
    for (version, key) in ["b/2", "a", "b/1", "c", "b/3", "b"].into_iter().enumerate() {
        story.put(key, version as u8 + 1);
    }
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = story.index.list("b", after.as_ref(), 2);
        let keys = page.versions.iter().filter_map(|object| object.key.clone());
        seen.extend(keys.map(|key| key.as_str().to_owned()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["b", "b/1", "b/2", "b/3"]);
    assert_eq!(story.index.list("", None, 100).versions.len(), 6);
    assert_eq!(story.index.list("x", None, 100).versions.len(), 0);
    story.delete(1);
    assert_eq!(story.index.list("b/", None, 100).versions.len(), 2);
    assert_eq!(story.index.list_deleted("b/", None, 100).versions.len(), 1);
}

#[test]
fn r032_a_token_takes_effect_once_and_a_voided_one_never() {
    let mut story = Story::default();
    story.put("key", 1);
    story.sequence = 0;
    assert_eq!(story.put("key", 2).1, Applied::Refused, "the same token again");
    assert_eq!(story.live("key"), Some(1));
    let decided = story.index.token(&token(1), &Hash([1; 32]));
    let TokenState::Decided(outcome) = decided else {
        panic!("{decided:?}");
    };
    assert_eq!(outcome.result, TokenResult::Put { version: VersionId([1; 16]) });
    assert_eq!(story.index.token(&token(1), &Hash([2; 32])), TokenState::Mismatch);
    assert_eq!(story.index.token(&token(2), &Hash([2; 32])), TokenState::Open);
    story.tell(RecordBody::Void { token: token(2) }, None);
    assert_eq!(story.put("other", 3).1, Applied::Refused);
    let voided = story.index.token(&token(2), &Hash([9; 32]));
    assert!(matches!(voided, TokenState::Decided(outcome) if outcome.result == TokenResult::Void));
    story.tell(RecordBody::Void { token: token(1) }, None);
    let kept = story.index.token_outcome(&token(1));
    assert_eq!(kept, TokenState::Decided(outcome), "whichever is first wins");
}

#[test]
fn r032_the_table_holds_one_window_per_client() {
    let mut story = Story::default();
    story.put("key", 1);
    for _ in 0..TOKEN_WINDOW {
        story.delete(200);
    }
    assert_eq!(story.index.token_outcome(&token(1)), TokenState::Expired);
    assert_eq!(story.index.statistics().tokens, TOKEN_WINDOW);
}
