//! A report as it stands in a file: the report, and who vouches for it. A simulated run vouches for itself
//! by its seed and hash; a drill on a cluster is signed by the operator who ran it.

use serde::{Deserialize, Serialize};

use crate::report::Report;

/// What a signature says first, so that it can be taken for no other statement.
const DOMAIN: &[u8] = b"trefoil/v1/drill-report\0";

/// Who vouches for a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// The certificate of the signer in hexadecimal digits; it names the operator.
    pub certificate: String,
    /// The Ed25519 signature of [`Document::statement`] with that certificate's key, in hexadecimal digits.
    pub bytes: String,
}

/// A report and its signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// The report.
    pub report: Report,
    /// Who vouches for it; nobody for a simulated one.
    pub signature: Option<Signature>,
}

/// Why a text is no document.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON of this form.
    #[error("this is no report of a drill: {0}")]
    Form(#[from] serde_json::Error),
    /// Of a form that this program does not know.
    #[error("the report has form {got}, this program reads form {known}", known = Report::FORMAT)]
    Format {
        /// What stands in it.
        got: u32,
    },
}

impl Document {
    /// Reads a document. What is not known is refused: nothing stands beside what was signed.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(text: &str) -> Result<Self, DocumentError> {
        let document: Self = serde_json::from_str(text)?;
        match document.report.format {
            Report::FORMAT => Ok(document),
            got => Err(DocumentError::Format { got }),
        }
    }

    /// The text of a file.
    ///
    /// # Panics
    /// Never: a report has plain fields.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report has plain fields") + "\n"
    }

    /// What is signed: a word of its own, then the report as JSON without spaces, its fields in the order
    /// in which they are written.
    ///
    /// # Panics
    /// Never: a report has plain fields.
    #[must_use]
    pub fn statement(report: &Report) -> Vec<u8> {
        let body = serde_json::to_vec(report).expect("a report has plain fields");
        [DOMAIN, &body].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::{Document, Signature};
    use crate::report::tests::a_report;

    #[test]
    fn what_is_written_is_read_again_and_signs_the_same() {
        let signature = Some(Signature { certificate: "PEM".to_owned(), bytes: "00".to_owned() });
        let document = Document { report: a_report(), signature };
        let again = Document::parse(&document.to_json()).expect("it was written here");
        assert_eq!(again, document);
        assert_eq!(Document::statement(&again.report), Document::statement(&document.report));
    }

    #[test]
    fn what_stands_beside_a_report_is_refused() {
        let document = Document { report: a_report(), signature: None };
        let text = document.to_json();
        for (from, to, reason) in [
            ("\"format\": 1", "\"format\": 2", "form 2"),
            ("\"name\"", "\"by\": \"me\", \"name\"", "unknown field `by`"),
            ("{", "[", "no report"),
        ] {
            let error = Document::parse(&text.replacen(from, to, 1)).expect_err("changed").to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
