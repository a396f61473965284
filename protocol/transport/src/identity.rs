//! Who a peer is: the names that certificates carry, parsed.
//!
//! An identity travels as one URI, `spiffe://<cluster>/<role path>`, and has exactly one spelling:
//! what does not print back to the same text is refused, so that two spellings can never name one
//! peer. Nothing here may look at a certificate; that is [`crate::verify`].

use std::fmt;
use std::str::FromStr;

use trefoil_protocol::ids::{InvalidId, NodeId, OperatorId, PrincipalId, TenantId};

/// The longest cluster name in bytes.
pub const CLUSTER_NAME_BYTES_MAX: usize = 63;

/// Why a text names no identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// A name or number in the path is not one.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// A cluster name is not `[a-z0-9.-]{1,63}`.
    #[error("cluster name {got:?}: expected 1 to {CLUSTER_NAME_BYTES_MAX} of a-z, 0-9, . and -")]
    Cluster {
        /// The text found.
        got: String,
    },
    /// The path means an identity but spells it another way than it is printed.
    #[error("identity path {got:?}: expected its only spelling, {expected}")]
    Spelling {
        /// The path found.
        got: String,
        /// How the identity is printed.
        expected: Identity,
    },
    /// The URI belongs to another trust domain.
    #[error("identity {got:?}: expected the trust domain spiffe://{expected}/")]
    TrustDomain {
        /// The URI found.
        got: String,
        /// The cluster it should belong to.
        expected: ClusterName,
    },
    /// The path after the trust domain names no role.
    #[error(
        "identity path {got:?}: expected tenant/<id>/principal/<id>, node/<id>, placement/<id> \
         or operator/<id>"
    )]
    Path {
        /// The path found.
        got: String,
    },
}

/// The name of a cluster, which is also its trust domain: `[a-z0-9.-]{1,63}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterName(String);

/// Who a peer is, without the cluster it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// A person or service of one tenant.
    Principal {
        /// The tenant's number.
        tenant: TenantId,
        /// The principal's number within the tenant.
        principal: PrincipalId,
    },
    /// A storage node.
    Node(NodeId),
    /// A placement server.
    Placement(NodeId),
    /// A person who operates the cluster.
    Operator(OperatorId),
}

/// What kind of peer an identity names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A person or service of one tenant.
    Principal,
    /// A storage node.
    Node,
    /// A placement server.
    Placement,
    /// A person who operates the cluster.
    Operator,
}

impl Identity {
    /// The identity of the node called `name`.
    ///
    /// # Errors
    /// When `name` is not a short name.
    pub fn node(name: &str) -> Result<Self, IdentityError> {
        Ok(Self::Node(name.parse()?))
    }

    /// The identity of the placement server called `name`.
    ///
    /// # Errors
    /// When `name` is not a short name.
    pub fn placement(name: &str) -> Result<Self, IdentityError> {
        Ok(Self::Placement(name.parse()?))
    }

    /// The identity of the operator called `name`.
    ///
    /// # Errors
    /// When `name` is not a short name.
    pub fn operator(name: &str) -> Result<Self, IdentityError> {
        Ok(Self::Operator(name.parse()?))
    }

    /// What kind of peer this is.
    pub fn role(&self) -> Role {
        match self {
            Self::Principal { .. } => Role::Principal,
            Self::Node(_) => Role::Node,
            Self::Placement(_) => Role::Placement,
            Self::Operator(_) => Role::Operator,
        }
    }

    /// The URI a certificate carries for this identity in `cluster`.
    pub fn to_uri(&self, cluster: &ClusterName) -> String {
        format!("{}{self}", trust_domain_prefix(cluster))
    }

    /// Parses the URI of a certificate of `cluster`.
    ///
    /// # Errors
    /// When the URI belongs to another trust domain or its path is not a role path, spelled in
    /// its only way.
    pub fn from_uri(uri: &str, cluster: &ClusterName) -> Result<Self, IdentityError> {
        uri.strip_prefix(&trust_domain_prefix(cluster))
            .ok_or_else(|| IdentityError::TrustDomain { got: uri.to_owned(), expected: cluster.clone() })?
            .parse()
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    /// Parses the role path, e.g. `node/a1`.
    fn from_str(path: &str) -> Result<Self, IdentityError> {
        let segments: Vec<&str> = path.split('/').collect();
        let identity = match segments.as_slice() {
            ["tenant", tenant, "principal", principal] => {
                Self::Principal { tenant: tenant.parse()?, principal: principal.parse()? }
            }
            ["node", name] => Self::node(name)?,
            ["placement", name] => Self::placement(name)?,
            ["operator", name] => Self::operator(name)?,
            _ => return Err(IdentityError::Path { got: path.to_owned() }),
        };
        // `+7` and `007` are numbers too.
        if identity.to_string() != path {
            return Err(IdentityError::Spelling { got: path.to_owned(), expected: identity });
        }
        Ok(identity)
    }
}

impl fmt::Display for Identity {
    /// Prints the role path, e.g. `node/a1`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Principal { tenant, principal } => {
                write!(out, "tenant/{tenant}/principal/{principal}")
            }
            Self::Node(name) => write!(out, "node/{name}"),
            Self::Placement(name) => write!(out, "placement/{name}"),
            Self::Operator(name) => write!(out, "operator/{name}"),
        }
    }
}

impl ClusterName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClusterName {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let fits = (1..=CLUSTER_NAME_BYTES_MAX).contains(&text.len());
        if fits && text.bytes().all(|byte| is_name_byte(byte) || byte == b'.') {
            return Ok(Self(text.to_owned()));
        }
        Err(IdentityError::Cluster { got: text.to_owned() })
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// What every identity of `cluster` begins with.
pub(crate) fn trust_domain_prefix(cluster: &ClusterName) -> String {
    format!("spiffe://{cluster}/")
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cluster() -> ClusterName {
        "demo.trefoil".parse().expect("a cluster name")
    }

    #[test]
    fn every_role_has_its_path() {
        for path in ["tenant/7/principal/12", "node/a1", "placement/w1", "operator/ada"] {
            let uri = format!("spiffe://demo.trefoil/{path}");
            let identity = Identity::from_uri(&uri, &cluster()).expect("a valid identity");
            assert_eq!(identity.to_string(), path);
            assert_eq!(identity.to_uri(&cluster()), uri);
        }
    }

    #[test]
    fn another_spelling_is_refused() {
        for uri in [
            "spiffe://demo.trefoil/node/a1/",
            "spiffe://demo.trefoil//node/a1",
            "spiffe://demo.trefoil/node/A1",
            "spiffe://demo.trefoil/node/",
            "spiffe://demo.trefoil/node/sixteen-letters-",
            "spiffe://demo.trefoil/tenant/07/principal/1",
            "spiffe://demo.trefoil/tenant/+7/principal/1",
            "spiffe://demo.trefoil/tenant/7/principal/18446744073709551616",
            "spiffe://demo.trefoil/tenant/7",
            "spiffe://demo.trefoil/root/a1",
            "spiffe://demo.trefoil.evil/node/a1",
            "spiffe://other/node/a1",
            "SPIFFE://demo.trefoil/node/a1",
            "node/a1",
            "",
        ] {
            assert!(Identity::from_uri(uri, &cluster()).is_err(), "{uri}");
        }
    }

    proptest! {
        #[test]
        fn what_parses_prints_back(path in "[a-z0-9/+-]{0,30}") {
            if let Ok(identity) = path.parse::<Identity>() {
                prop_assert_eq!(identity.to_string(), path);
            }
        }

        #[test]
        fn every_principal_survives_the_round_trip(tenant: u64, principal: u64) {
            let identity = Identity::Principal { tenant: TenantId(tenant), principal: PrincipalId(principal) };
            let uri = identity.to_uri(&cluster());
            prop_assert_eq!(Identity::from_uri(&uri, &cluster()), Ok(identity));
        }
    }
}
