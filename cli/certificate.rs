//! Deletion certificates: fetched from the cluster, and checked without one; so are lists of lost versions.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use trefoil_client::{Client, Trust, verify_certificate};
use trefoil_protocol::deletion::SignedCertificate;
use trefoil_protocol::ids::VersionId;
use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::loss_list::SignedLossList;
use trefoil_protocol::message::tenant::PurgeStage;

use crate::admin::loss_list;
use crate::config;
use crate::data::key;
use crate::failure::{Failure, Kind, Verdict, at};
use crate::output::{self, Format};
use crate::quantity;

/// Arguments of `certificate`.
#[derive(Debug, Args)]
pub(crate) struct CertificateArguments {
    /// The object's key
    #[arg(value_parser = key)]
    key: ObjectKey,
    /// The version, if not the one erased last
    #[arg(long)]
    version: Option<VersionId>,
    /// Where the certificate goes; without, to standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Arguments of `verify-certificate`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// The certificate, or the list
    file: PathBuf,
    /// The keys to believe, such as the cluster's trust.toml
    #[arg(long, value_name = "FILE")]
    trust: PathBuf,
}

#[derive(Serialize)]
struct Fetched {
    key: String,
    version: String,
    issued_at_ms: u64,
    stores: usize,
    file: Option<String>,
}

/// What `verify-certificate --json` says.
#[derive(Serialize)]
struct Checked {
    valid: bool,
    reason: Option<String>,
    /// Whose signatures it bears.
    signers: Vec<String>,
}

/// Fetches a certificate.
pub(crate) async fn fetch(arguments: &CertificateArguments, client: &Client, format: Format) -> Verdict {
    let certificate = newest(arguments, client).await?;
    let bytes = certificate.to_bytes();
    match &arguments.output {
        Some(path) => config::write_whole(path, &bytes, 0o644)?,
        None if format == Format::Json => {
            return Err(Failure::usage("a certificate is not JSON: say where it goes with -o FILE"));
        }
        None => output::raw(&bytes),
    }
    let fetched = Fetched {
        key: arguments.key.to_string(),
        version: certificate.certificate.version.to_string(),
        issued_at_ms: certificate.certificate.issued_at.0,
        stores: certificate.certificate.stores.len(),
        file: arguments.output.as_ref().map(|path| path.display().to_string()),
    };
    format.answer(&fetched, |fetched| match &fetched.file {
        Some(file) => format!("version {} is erased on {} stores: {file}", fetched.version, fetched.stores),
        None => String::new(),
    });
    Ok(())
}

async fn newest(arguments: &CertificateArguments, client: &Client) -> Verdict<SignedCertificate> {
    let wanted = |version: VersionId| arguments.version.is_none_or(|named| named == version);
    let certificates = match client.certificates(&arguments.key).await.map_err(Failure::from) {
        Err(failure) if failure.kind != Kind::NotFound => return Err(failure),
        found => found.unwrap_or_default(),
    };
    let mut found = certificates.into_iter().filter(|signed| wanted(signed.certificate.version));
    if let Some(certificate) = found.next_back() {
        return Ok(certificate);
    }
    let purges = client.purge_status(&arguments.key).await?;
    let under_way = purges.into_iter().filter(|purge| wanted(purge.version));
    match under_way.map(|purge| purge.stage).rfind(|stage| *stage > PurgeStage::Live) {
        Some(stage) => Err(Failure::unavailable(format!(
            "the delete is not complete: it is {}; ask again later",
            stage.name()
        ))),
        None => Err(Failure::not_found("no version of this object was erased")),
    }
}

/// Checks a certificate, or a list of lost versions, offline.
pub(crate) fn verify(arguments: &VerifyArguments, format: Format) -> Verdict {
    let trust = Trust::load(&arguments.trust).map_err(Failure::usage)?;
    let bytes = fs::read(&arguments.file).map_err(at(&arguments.file))?;
    let outcome = match SignedLossList::from_bytes(&bytes) {
        Ok(list) => loss_list::verify(&list, &trust),
        Err(_) => verify_certificate(&bytes, &trust).map_err(|error| error.to_string()).map(|signed| {
            let signers = signed.signatures.iter().map(|by| by.key.to_string()).collect();
            (signers, in_words(&signed))
        }),
    };
    let (checked, said) = match outcome {
        Ok((signers, said)) => (Checked { valid: true, reason: None, signers }, said),
        Err(reason) => {
            let said = format!("NOT VALID: {reason}");
            (Checked { valid: false, reason: Some(reason), signers: Vec::new() }, said)
        }
    };
    format.answer(&checked, |_| said);
    if checked.valid { Ok(()) } else { Err(Failure::failed("the paper does not hold")) }
}

fn in_words(signed: &SignedCertificate) -> String {
    let certificate = &signed.certificate;
    let signers: Vec<String> = signed.signatures.iter().map(|by| by.key.to_string()).collect();
    let stores = certificate.stores.iter().map(|store| format!("{} ({})", store.node, store.dc));
    format!(
        "valid: version {} of tenant {} in cluster {}\n\
         ciphertext {} (at most {}), could be undeleted for {}\n\
         erased on {}, {} exceptions, issued by {}\n\
         signed by {}",
        certificate.version,
        certificate.tenant,
        certificate.cluster,
        certificate.root,
        output::bytes(certificate.size_class),
        quantity::duration_text(certificate.window.into()),
        stores.collect::<Vec<_>>().join(", "),
        certificate.exceptions.len(),
        certificate.software,
        signers.join(" and "),
    )
}
