//! The four planes, and who may speak to whom on each: one table, used by both ends.

use std::fmt;

use crate::identity::Role;

/// What a connection is for. Each plane has its own ALPN protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Plane {
    /// Principals of tenants, to storage nodes and to the custodian.
    Tenant,
    /// Storage nodes among themselves.
    Node,
    /// Storage nodes to placement, and placement servers among themselves.
    Control,
    /// Operators to placement and to storage nodes.
    Admin,
}

impl Plane {
    /// All planes.
    pub const ALL: [Plane; 4] = [Plane::Tenant, Plane::Node, Plane::Control, Plane::Admin];

    /// The ALPN protocol of this plane.
    pub fn alpn(self) -> &'static [u8] {
        match self {
            Plane::Tenant => b"trefoil-tenant/1",
            Plane::Node => b"trefoil-node/1",
            Plane::Control => b"trefoil-control/1",
            Plane::Admin => b"trefoil-admin/1",
        }
    }

    /// The plane with this ALPN protocol, if there is one.
    pub fn from_alpn(protocol: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|plane| plane.alpn() == protocol)
    }

    /// Whether a peer of `role` may open connections on this plane.
    pub fn admits(self, role: Role) -> bool {
        match self {
            Plane::Tenant => role == Role::Principal,
            Plane::Node => role == Role::Node,
            Plane::Control => matches!(role, Role::Node | Role::Placement),
            Plane::Admin => role == Role::Operator,
        }
    }

    /// Whether a peer of `role` may answer connections on this plane.
    pub fn is_served_by(self, role: Role) -> bool {
        match self {
            Plane::Node => role == Role::Node,
            Plane::Control => role == Role::Placement,
            Plane::Tenant | Plane::Admin => matches!(role, Role::Node | Role::Placement),
        }
    }
}

impl fmt::Display for Plane {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Plane::Tenant => "tenant",
            Plane::Node => "node",
            Plane::Control => "control",
            Plane::Admin => "admin",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLES: [Role; 4] = [Role::Principal, Role::Node, Role::Placement, Role::Operator];

    #[test]
    fn each_plane_has_its_own_protocol() {
        for plane in Plane::ALL {
            assert_eq!(Plane::from_alpn(plane.alpn()), Some(plane));
        }
        assert_eq!(Plane::from_alpn(b"h3"), None);
    }

    #[test]
    fn principals_and_operators_never_answer() {
        for plane in Plane::ALL {
            assert!(!plane.is_served_by(Role::Principal));
            assert!(!plane.is_served_by(Role::Operator));
        }
    }

    #[test]
    fn a_principal_or_an_operator_reaches_one_plane_only() {
        let planes = |role| Plane::ALL.into_iter().filter(move |plane| plane.admits(role));
        assert_eq!(planes(Role::Principal).collect::<Vec<_>>(), [Plane::Tenant]);
        assert_eq!(planes(Role::Operator).collect::<Vec<_>>(), [Plane::Admin]);
        assert!(ROLES.iter().all(|role| planes(*role).count() <= 2));
    }
}
