//! Two operators, by their certificates: `dev` makes two, `operator issue` makes more, and nobody can
//! propose a loss that is none.

use crate::cluster::shared;
use crate::program::run;

#[test]
fn r108_operators_have_certificates_of_their_own_and_no_loss_is_proposed_that_is_none() {
    let cluster = shared();
    let third = cluster.path("third.toml");
    let issued = cluster.operator(&["operator", "issue", "third", "-o", third.to_str().unwrap()]);
    assert_eq!(issued.held().json()["operator"], "third");
    for profile in [cluster.path("admin-2.toml"), third] {
        let seen = run(&["--profile", profile.to_str().unwrap(), "--json", "approvals"]);
        assert_eq!(seen.held().json(), serde_json::json!([]));
    }
    let propose = ["loss", "accept", "1", "--node", "a1", "--reason", "a try"];
    cluster.operator(&propose).failed(4, "not down");
    cluster.operator(&["approve", "1"]).failed(4, "no such proposal");
}
