//! Profiles: a TOML file that says which cluster, as whom, and through which endpoints.
//!
//! A key that is not known is an error with its line: a misspelt `endpoints` must not become silence.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use trefoil_protocol::ids::{DcId, InvalidId, TenantName};
use trefoil_transport::{ClusterName, IdentityError, OwnCertificate, TrustStore};
use zeroize::Zeroizing;

use super::put::Padding;

/// A profile as it stands in its file: `trust`, `certificate` and `key` are PEM text or paths relative
/// to the file.
///
/// ```
/// # use trefoil_client::shell::{Padding, ProfileFile, ProfileRole};
/// let text = ProfileFile {
///     cluster: "dev".into(),
///     role: ProfileRole::Tenant,
///     tenant: Some("acme".into()),
///     dc: None,
///     padding: Padding::None,
///     endpoints: vec!["127.0.0.1:7001".into()],
///     trust: "../ca/ca.pem".into(),
///     certificate: "acme.pem".into(),
///     key: "acme.key".into(),
/// }
/// .to_toml();
/// assert!(text.starts_with("cluster = \"dev\"\nrole = \"tenant\"\n"));
/// ```
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileFile {
    /// The cluster's name.
    pub cluster: String,
    /// As what to speak.
    pub role: ProfileRole,
    /// The tenant's name, in a tenant's profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The data centre this program runs in, if it runs in one: reads prefer it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dc: Option<String>,
    /// What the lengths of this program's objects may tell.
    #[serde(default, skip_serializing_if = "Padding::is_none")]
    pub padding: Padding,
    /// Where to begin: `host:port` of storage nodes and placement servers.
    pub endpoints: Vec<String>,
    /// The cluster's root certificates.
    pub trust: String,
    /// The certificate to show.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// As what a profile speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProfileRole {
    /// A principal of a tenant.
    Tenant,
    /// An operator of the cluster.
    Operator,
}

impl ProfileFile {
    /// The file's text.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("strings and lists of strings are TOML")
    }
}

/// A profile, read and checked.
pub struct Profile {
    /// The cluster's name.
    pub cluster: ClusterName,
    /// As what to speak.
    pub role: ProfileRole,
    /// The tenant's name, in a tenant's profile.
    pub tenant: Option<TenantName>,
    /// The data centre this program runs in.
    pub dc: Option<DcId>,
    /// What the lengths of this program's objects may tell.
    pub padding: Padding,
    /// `host:port` of storage nodes and placement servers.
    pub endpoints: Vec<String>,
    /// The cluster's root certificates, PEM.
    pub trust: String,
    /// The certificate chain to show, PEM.
    pub certificate: String,
    /// Its private key, PEM.
    pub key: Zeroizing<String>,
}

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The profile or a file it names cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The text is not a profile; the message names the line.
    #[error("{path}: {error}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        error: Box<toml::de::Error>,
    },
    /// The cluster's name is not one.
    #[error("{path}: {error}")]
    Cluster {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: IdentityError,
    },
    /// The tenant or data centre is not a name.
    #[error("{path}: {error}")]
    Name {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: InvalidId,
    },
    /// There is no endpoint.
    #[error("{path}: `endpoints` is empty")]
    NoEndpoint {
        /// The file.
        path: PathBuf,
    },
}

impl Profile {
    /// Reads a profile and the files it names.
    ///
    /// # Errors
    /// When one cannot be read or is not what it must be.
    ///
    /// ```no_run
    /// let profile = trefoil_client::Profile::load("tenants/acme.toml")?;
    /// # Ok::<(), trefoil_client::ProfileError>(())
    /// ```
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ProfileError> {
        let path = path.as_ref();
        let text = Zeroizing::new(read(path)?);
        Self::parse(&text, path)
    }

    /// Reads a profile from `text`, which stands in the file `path`: files it names are relative to that.
    ///
    /// # Errors
    /// When a file cannot be read or something is not what it must be.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ProfileError> {
        let here = || path.to_owned();
        let file: ProfileFile = toml::from_str(text)
            .map_err(|error| ProfileError::Syntax { path: here(), error: Box::new(error) })?;
        if file.endpoints.is_empty() {
            return Err(ProfileError::NoEndpoint { path: here() });
        }
        let name_error = |error| ProfileError::Name { path: here(), error };
        Ok(Self {
            cluster: file.cluster.parse().map_err(|error| ProfileError::Cluster { path: here(), error })?,
            role: file.role,
            tenant: file.tenant.map(|name| name.parse()).transpose().map_err(name_error)?,
            dc: file.dc.map(|name| name.parse()).transpose().map_err(name_error)?,
            padding: file.padding,
            endpoints: file.endpoints,
            trust: pem(file.trust, path)?,
            certificate: pem(file.certificate, path)?,
            key: Zeroizing::new(pem(file.key, path)?),
        })
    }

    /// Whom to believe.
    ///
    /// # Errors
    /// When the root certificates are none.
    pub fn trust_store(&self) -> Result<Arc<TrustStore>, trefoil_transport::trust::TrustError> {
        TrustStore::from_pem(self.cluster.clone(), &self.trust)
    }

    /// What to show.
    ///
    /// # Errors
    /// When the certificate or key is none, or they do not belong together.
    pub fn own_certificate(
        &self,
    ) -> Result<Arc<OwnCertificate>, trefoil_transport::own_certificate::OwnCertificateError> {
        OwnCertificate::from_pem(&self.certificate, &self.key)
    }
}

impl std::fmt::Debug for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Profile")
            .field("cluster", &self.cluster)
            .field("role", &self.role)
            .field("tenant", &self.tenant)
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

/// PEM text as it is, or the content of the file that `value` names.
fn pem(value: String, profile: &Path) -> Result<String, ProfileError> {
    if value.contains("-----BEGIN") {
        return Ok(value);
    }
    let folder = profile.parent().unwrap_or(Path::new("."));
    read(&folder.join(value))
}

fn read(path: &Path) -> Result<String, ProfileError> {
    std::fs::read_to_string(path).map_err(|error| ProfileError::Read { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &str = "-----BEGIN X-----\\n-----END X-----\\n";

    fn text() -> String {
        format!(
            "cluster = \"dev\"\nrole = \"tenant\"\ntenant = \"acme\"\ndc = \"a\"\nendpoints = [\"127.0.0.1:1\"]\n\
             trust = \"{PEM}\"\ncertificate = \"{PEM}\"\nkey = \"{PEM}\"\n"
        )
    }

    fn error(text: &str) -> String {
        Profile::parse(text, Path::new("acme.toml")).expect_err("a bad profile").to_string()
    }

    #[test]
    fn a_profile_with_inline_pem_needs_no_file() {
        let profile = Profile::parse(&text(), Path::new("nowhere/acme.toml")).unwrap();
        assert_eq!(profile.tenant.unwrap().as_str(), "acme");
        assert!(profile.key.contains("BEGIN"));
    }

    #[test]
    fn an_unknown_key_is_an_error_with_its_line() {
        let message = error(&text().replace("dc = ", "data_centre = "));
        assert!(message.contains("line 4") && message.contains("data_centre"), "{message}");
    }

    #[test]
    fn padding_is_off_unless_asked_for_by_its_name() {
        let padding = |text: &str| Profile::parse(text, Path::new("acme.toml")).unwrap().padding;
        assert_eq!(padding(&text()), Padding::None);
        assert_eq!(padding(&(text() + "padding = \"padme\"\n")), Padding::Padme);
        assert!(error(&(text() + "padding = \"much\"\n")).contains("padme"));
    }

    #[test]
    fn a_value_of_a_wrong_type_is_an_error_with_its_line() {
        let message = error(&text().replace("[\"127.0.0.1:1\"]", "7"));
        assert!(message.contains("line 5"), "{message}");
    }

    #[test]
    fn paths_are_relative_to_the_profile() {
        let message = error(&text().replace(&format!("trust = \"{PEM}\""), "trust = \"ca/none.pem\""));
        assert!(message.contains("ca/none.pem"), "{message}");
    }

    #[test]
    fn a_profile_without_endpoints_or_with_a_bad_name_is_refused() {
        assert!(error(&text().replace("\"127.0.0.1:1\"", "")).contains("endpoints"));
        assert!(error(&text().replace("acme", "ACME")).contains("ACME"));
        assert!(error(&text().replace("\"dev\"", "\"D E V\"")).contains("D E V"));
    }

    #[test]
    fn r088_debug_of_a_profile_shows_no_key() {
        let profile = Profile::parse(&text(), Path::new("acme.toml")).unwrap();
        assert!(!format!("{profile:?}").contains("BEGIN"));
    }
}
