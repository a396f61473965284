//! What a drill keeps in the cluster, as objects of its first tenant: a sign that it is under way, so that no other one
//! begins, and its report. Who believes a report believes the operator's signature, not the place where it lay.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use trefoil_client::{Client, Profile, PutOptions, ReadError, WriteError};
use trefoil_drill::{Document, Place, Report, Signature, WallTime};
use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::message::tenant::{Precondition, Refusal};
use trefoil_transport::{Identity, paper};

use crate::failure::{Failure, Kind, Verdict};

/// The sign of a drill that is under way.
const SIGN: &str = "drill/under-way";

/// Reports lie under this.
const REPORTS: &str = "drill/reports/";

/// What the sign says.
#[derive(Debug, Serialize, Deserialize)]
struct Sign {
    id: String,
    operator: String,
    /// Afterwards it is a leftover.
    until: WallTime,
}

/// The wall clock.
pub(crate) fn now() -> WallTime {
    WallTime(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

fn key(text: &str) -> Verdict<ObjectKey> {
    ObjectKey::new(text.to_owned()).map_err(Failure::usage)
}

/// Puts up the sign, unless another drill has.
pub(crate) async fn begin(client: &Client, id: &str, operator: &str, lasts: Duration) -> Verdict {
    let sign = key(SIGN)?;
    match text(client, &sign).await {
        Ok(text) => {
            let other: Sign = serde_json::from_str(&text).map_err(Failure::failed)?;
            if other.until > now() {
                let Sign { id, operator, until } = other;
                return Err(Failure::refused(format!(
                    "drill {id} of {operator} is under way, until {until} at most"
                )));
            }
            client.delete(&sign).await?;
        }
        Err(ReadError::NotFound | ReadError::Gone) => {}
        Err(error) => return Err(error.into()),
    }
    let until = WallTime(now().0 + lasts.as_secs());
    let body = Sign { id: id.to_owned(), operator: operator.to_owned(), until };
    let body = serde_json::to_vec(&body).expect("plain fields");
    let options = PutOptions { precondition: Precondition::Absent, ..PutOptions::default() };
    match client.put_with(&sign, body, options).await {
        Err(WriteError::Refused(Refusal::PreconditionFailed)) => {
            Err(Failure::refused("another drill began at this very moment"))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Takes the sign down.
pub(crate) async fn end(client: &Client) -> Verdict {
    client.delete(&key(SIGN)?).await?;
    Ok(())
}

/// Who an operator is, by the certificate that will vouch for the report.
pub(crate) fn who(operator: &Profile) -> Verdict<String> {
    Ok(identity(operator)?.to_string())
}

/// Who shows the certificate of a profile, if the cluster believes it now.
pub(crate) fn identity(operator: &Profile) -> Verdict<Identity> {
    let word = b"trefoil/v1/drill-preflight\0";
    let trust = operator.trust_store().map_err(Failure::usage)?;
    let signed = paper::sign(&operator.certificate, &operator.key, word).map_err(Failure::usage)?;
    let identity = paper::verify(&signed, &trust, Duration::from_secs(now().0), word);
    identity.map_err(|error| Failure::usage(format!("the operator's profile: {error}")))
}

/// Signs a report as the operator of a profile.
pub(crate) fn sign(report: Report, operator: &Profile) -> Verdict<Document> {
    let signed = paper::sign(&operator.certificate, &operator.key, &Document::statement(&report));
    let signed = signed.map_err(Failure::failed)?;
    let (certificate, bytes) = (to_hex(&signed.certificate), to_hex(&signed.signature));
    Ok(Document { report, signature: Some(Signature { certificate, bytes }) })
}

/// Who signed a document, if anybody did and a profile's roots believe it.
pub(crate) fn signer(document: &Document, profile: &Profile) -> Verdict<String> {
    let wrong =
        |message: &dyn std::fmt::Display| Failure { kind: Kind::Integrity, message: message.to_string() };
    let Place::Live { operator, began, .. } = &document.report.place else {
        return Err(Failure::refused("a simulated run is not signed: its seed and its hash vouch for it"));
    };
    let signature = document.signature.as_ref().ok_or_else(|| wrong(&"the report is not signed"))?;
    let bytes = |text: &str| from_hex(text).ok_or_else(|| wrong(&"the signature is no hexadecimal number"));
    let signed =
        paper::Signed { certificate: bytes(&signature.certificate)?, signature: bytes(&signature.bytes)? };
    let trust = profile.trust_store().map_err(Failure::usage)?;
    let statement = Document::statement(&document.report);
    let identity = paper::verify(&signed, &trust, Duration::from_secs(began.0), &statement);
    let identity = identity.map_err(|error| wrong(&error))?.to_string();
    if identity != *operator {
        return Err(wrong(&format!("the report names {operator}, {identity} signed it")));
    }
    Ok(identity)
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// Who is said to have run a drill.
pub(crate) fn operator_of(place: &Place) -> String {
    match place {
        Place::Live { operator, .. } => operator.clone(),
        Place::Simulated { seed, .. } => format!("seed {seed}"),
    }
}

/// Keeps a document in the cluster.
pub(crate) async fn keep(client: &Client, document: &Document) -> Verdict {
    let key = key(&format!("{REPORTS}{}", document.report.id))?;
    client.put(&key, document.to_json()).await?;
    Ok(())
}

/// Every report that is kept, the oldest first.
pub(crate) async fn all(client: &Client) -> Verdict<Vec<Document>> {
    let mut pages = client.list(REPORTS);
    let mut documents = Vec::new();
    while let Some(page) = pages.next().await? {
        for line in page.lines {
            documents.push(document(client, &line.key).await?);
        }
    }
    Ok(documents)
}

/// The report of this name.
pub(crate) async fn fetch(client: &Client, id: &str) -> Verdict<Document> {
    document(client, &key(&format!("{REPORTS}{id}"))?).await.map_err(|failure| failure.within(id))
}

async fn document(client: &Client, key: &ObjectKey) -> Verdict<Document> {
    let text = text(client, key).await?;
    Document::parse(&text).map_err(Failure::failed)
}

async fn text(client: &Client, key: &ObjectKey) -> Result<String, ReadError> {
    let bytes = client.get(key).await?.bytes().await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::{from_hex, to_hex};

    #[test]
    fn hexadecimal_digits_are_read_and_nothing_else() {
        assert_eq!(from_hex(&to_hex(&[0, 255, 26])), Some(vec![0, 255, 26]));
        for text in ["0", "0g", "\u{e9}", "+1"] {
            assert_eq!(from_hex(text), None, "{text}");
        }
    }
}
