//! Frozen bytes of what is hashed or signed: whole records with their chain hashes, and the exact bytes
//! under each signature.

use std::collections::BTreeMap;

use bytes::Bytes;
use trefoil_protocol::deletion::{DeletionCertificate, EraseReceipt, PurgeOrder};
use trefoil_protocol::ids::Lsn;
use trefoil_protocol::loss_list::LossStatement;
use trefoil_protocol::message::peer::encode_records;
use trefoil_protocol::record::{Erasable, Record, RecordBody, RecordPosition};
use trefoil_protocol::sign::{Signatory, Signed64, Statement};

use crate::draw::{Draw, Source};
use crate::golden::compare;
use crate::shapes::Shape;

/// A record of any kind, a put with all of its parts.
pub(crate) fn record(source: Source, lsn: Lsn) -> Record {
    of_body(source, lsn, RecordBody::draw(source.field("body")))
}

fn of_body(source: Source, lsn: Lsn, body: RecordBody) -> Record {
    let position = RecordPosition {
        tenant: Draw::draw(source.field("tenant")),
        volume: Draw::draw(source.field("volume")),
        epoch: Draw::draw(source.field("epoch")),
        lsn,
        previous: Draw::draw(source.field("previous")),
    };
    let parts = matches!(body, RecordBody::Put(_)).then(|| {
        let wrapped = Bytes::copy_from_slice(&<[u8; 64]>::draw(source.field("wrapped")));
        (wrapped, Erasable::draw(source.field("erasable")))
    });
    let (wrapped, erasable) = parts.unzip();
    Record::new(position, body, wrapped, erasable.as_ref())
}

#[test]
fn every_record_keeps_its_bytes_and_its_chain_hash() {
    let mut lines = BTreeMap::new();
    for (index, case) in RecordBody::CASES.iter().enumerate() {
        let body = RecordBody::case(index, Source::golden());
        let record = of_body(Source::golden(), Lsn(7), body);
        lines.insert(format!("{}.bulk", case.name), encode_records([&record]).to_vec());
        lines.insert(format!("{}.chain_hash", case.name), record.chain_hash().0.to_vec());
    }
    compare("records", &lines);
}

#[test]
fn what_a_signature_covers_never_changes() {
    let signatory = Signatory::from_secret(&[7; 32]);
    let mut lines = BTreeMap::new();
    let mut freeze = |domain: &str, bytes: Vec<u8>, signature: Signed64| {
        assert!(bytes.starts_with(format!("trefoil/v1/{domain}\0").as_bytes()));
        lines.insert(format!("{domain}.signed_bytes"), bytes);
        lines.insert(format!("{domain}.signature"), signature.signature.to_vec());
    };
    let (order, receipt, certificate) = (
        PurgeOrder::draw(Source::golden()),
        EraseReceipt::draw(Source::golden()),
        DeletionCertificate::draw(Source::golden()),
    );
    freeze(PurgeOrder::DOMAIN, order.signed_bytes(), signatory.sign(&order));
    freeze(EraseReceipt::DOMAIN, receipt.signed_bytes(), signatory.sign(&receipt));
    freeze(DeletionCertificate::DOMAIN, certificate.signed_bytes(), signatory.sign(&certificate));
    let loss = LossStatement::draw(Source::golden());
    freeze(LossStatement::DOMAIN, loss.signed_bytes(), signatory.sign(&loss));
    compare("signed", &lines);
}

#[test]
fn a_signature_under_one_kind_of_paper_is_none_under_another() {
    let signatory = Signatory::from_secret(&[7; 32]);
    let receipt = EraseReceipt::draw(Source::golden());
    let order = PurgeOrder::draw(Source::golden());
    let signed = signatory.sign(&receipt);
    assert!(signed.verify(&receipt, |_| true).is_ok());
    assert!(signed.verify(&order, |_| true).is_err());
    assert!(signed.verify(&receipt, |_| false).is_err());
}
