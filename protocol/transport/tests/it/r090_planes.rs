//! A peer reaches only the planes its role has a place on.

use rustls::client::Resumption;
use trefoil_transport::{Closed, DialError, LEAF_LIFETIME, Plane};

use crate::cluster::{Cluster, RawClient, identity, verdict};

const PATHS: [&str; 4] = ["tenant/7/principal/1", "node/a1", "placement/w1", "operator/ada"];

#[tokio::test]
async fn r090_each_role_is_admitted_to_its_planes_and_refused_on_all_others() {
    let cluster = Cluster::new();
    for plane in Plane::ALL {
        let server_path =
            if plane.is_served_by(identity("node/b1").role()) { "node/b1" } else { "placement/w1" };
        let (server, address) = cluster.server(server_path, &Plane::ALL);
        for path in PATHS {
            let client = cluster.client(path);
            let connection = match client.connect(address, plane, None).await {
                Ok(connection) => connection,
                Err(error) => {
                    assert_eq!(error, DialError::Refused { remote: address });
                    assert!(!plane.admits(identity(path).role()), "{path} on {plane}");
                    continue;
                }
            };
            if plane.admits(identity(path).role()) {
                let (_, accepted_plane, peer) = server.accept().await.expect("an accepted connection");
                assert_eq!((accepted_plane, peer.identity()), (plane, identity(path)));
                assert_eq!(connection.peer().identity(), identity(server_path));
            } else {
                assert_eq!(verdict(&connection).await, Some(Closed::Refused), "{path} on {plane}");
            }
        }
    }
}

#[tokio::test]
async fn r090_a_plane_that_is_not_served_is_refused() {
    let cluster = Cluster::new();
    let (_server, address) = cluster.server("node/b1", &[Plane::Node]);
    let client = cluster.client("tenant/7/principal/1");
    let error = client.connect(address, Plane::Tenant, None).await.expect_err("no such plane here");
    assert_eq!(error, DialError::Refused { remote: address });
}

#[tokio::test]
async fn r090_a_client_that_names_no_plane_is_refused() {
    let cluster = Cluster::new();
    let (_server, address) = cluster.server("node/b1", &Plane::ALL);
    let issued = cluster.authority.issue(&identity("node/a1"), LEAF_LIFETIME).expect("a leaf");
    for protocols in [&[][..], &[&b"h3"[..]][..]] {
        let client =
            RawClient::new(&issued.certificate_pem, &issued.key_pem, protocols, Resumption::disabled());
        // Alert 120, no_application_protocol.
        assert!(client.refusal(address).await.contains("crypto(78)"));
    }
}

#[tokio::test]
async fn a_client_refuses_a_server_of_the_wrong_role_or_name() {
    let cluster = Cluster::new();
    let (_node, node_address) = cluster.server("node/b1", &Plane::ALL);
    let (_principal, principal_address) = cluster.server("tenant/7/principal/2", &Plane::ALL);
    let node = cluster.client("node/a1");
    for (address, plane, expected) in [
        (node_address, Plane::Control, None),
        (node_address, Plane::Node, Some(identity("node/b2"))),
        (principal_address, Plane::Node, None),
    ] {
        let error = node.connect(address, plane, expected).await.expect_err("not who it must be");
        assert_eq!(error, DialError::Refused { remote: address });
    }
    let expected = Some(identity("node/b1"));
    assert!(node.connect(node_address, Plane::Node, expected).await.is_ok());
}
