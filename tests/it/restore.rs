//! The control plane is lost, as real processes see it: everywhere, and restored from a backup that is
//! older than writes, deletes and purges; or but for one voter, which two operators let go on alone.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use trefoil_client::ReadError;

use crate::cluster::{Alone, Cluster};
use crate::ledger::Load;
use crate::outside::{PATIENCE, is_whole};
use crate::program::{Run, run};
use crate::storing::{content, key};

impl Cluster {
    pub(crate) fn second(&self, arguments: &[&str]) -> Run {
        let profile = self.path("admin-2.toml");
        run(&[&["--profile", profile.to_str().unwrap(), "--json"], arguments].concat())
    }

    fn text(&self, inner: &str) -> String {
        self.path(inner).to_str().unwrap().to_owned()
    }

    fn certificate(&self, tenant: &str, name: &str, file: &str) {
        let began = Instant::now();
        loop {
            let run = self.tenant(tenant, &["certificate", name, "-o", file]);
            if run.code == 0 {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "no certificate: {}", run.stderr);
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn r045_row_15_everything_is_there_after_a_restore_from_an_older_backup_and_nothing_deleted_returns() {
    let mut cluster = Alone::start("restore");
    cluster.found("initech", "2s");
    let client = cluster.client("initech");
    cluster.block_on(async {
        for name in ["early", "doomed", "fading"] {
            client.put(&key(name), content(3, 50_000)).await.unwrap();
        }
    });
    let (backup, trust) = (cluster.text("backup"), cluster.text("trust.toml"));
    let made = cluster.operator(&["backup", "-o", &backup]);
    assert_eq!(made.held().json()["generation"], 1);

    // What the backup knows nothing of: writes, a certified delete, a delete under way, another member.
    cluster.block_on(client.delete(&key("doomed"))).unwrap();
    cluster.certificate("initech", "doomed", &cluster.text("doomed.cert"));
    let load = Load::at_work(&cluster, &cluster.client("acme"), 100);
    cluster.signal("a1", Signal::KILL);
    cluster.block_on(load.goes_on(50));
    cluster.wait_for("a1 to be replaced", |status| {
        let volumes = status["volumes"].as_array().unwrap();
        volumes
            .iter()
            .all(|volume| volume["active"] == true && volume["in_sync"].as_array().unwrap().len() == 3)
    });
    cluster.restart("a1");
    cluster.block_on(client.put(&key("late"), content(5, 50_000))).unwrap();
    cluster.block_on(client.delete(&key("fading"))).unwrap();
    let ledger = cluster.block_on(load.stop());

    cluster.signal("w1", Signal::KILL);
    cluster.wait_for_end("w1");
    fs::remove_dir_all(cluster.data("w1")).unwrap();
    let (config, paper) = (cluster.text("w1/config.toml"), cluster.text("paper.json"));
    let place = ["--config", &config, "--backup", &backup, "--trust", &trust];
    let propose = [&["restore", "propose", "--reason", "the disk burnt", "-o", &paper], &place[..]].concat();
    let proposed = cluster.operator(&propose);
    assert_eq!(proposed.held().json()["signed_by"], serde_json::json!(["admin"]));
    let begin = [&["restore", "begin", &paper], &place[..]].concat();
    cluster.operator(&begin).failed(4, "another operator must approve it");
    cluster.operator(&["restore", "approve", &paper]).failed(4, "another operator must approve it");
    cluster.second(&["restore", "approve", &paper]).held();
    cluster.operator(&begin).held();
    let record = fs::read_to_string(cluster.data("w1").join("restores.jsonl")).unwrap();
    assert_eq!(record.lines().count(), 4, "each attempt, and what became of it: {record}");
    assert!(record.contains("\"begun\"") && record.contains("admin-2"), "{record}");

    cluster.restart("w1");
    let restored = Instant::now();
    cluster.wait_for("every volume", is_whole);
    println!("row 15: whole {:.1?} after the restored control plane started", restored.elapsed());
    cluster.block_on(ledger.nothing_is_lost(&cluster.client("acme")));
    let client = cluster.client("initech");
    cluster.block_on(async {
        for name in ["early", "late"] {
            client.get(&key(name)).await.unwrap().bytes().await.unwrap();
        }
        for name in ["doomed", "fading"] {
            assert!(
                matches!(client.get(&key(name)).await, Err(ReadError::NotFound | ReadError::Gone)),
                "{name}"
            );
        }
        client.put(&key("after"), content(7, 5_000)).await.unwrap();
    });
    let verify = ["verify-certificate", &cluster.text("doomed.cert"), "--trust", &trust];
    run(&verify).held();
    // What was under way when the control plane was lost comes to its end.
    cluster.certificate("initech", "fading", &cluster.text("fading.cert"));
    let both = cluster.operator(&["voter", "trust", "dev"]).held();
    fs::write(&trust, both.text()).unwrap();
    for name in ["doomed.cert", "fading.cert"] {
        run(&["verify-certificate", &cluster.text(name), "--trust", &trust]).held();
    }
    cluster.nothing_panicked();
}

#[test]
fn r041_row_19_no_voter_goes_on_alone_while_another_one_answers() {
    let mut cluster = Alone::start_with("restore-alone", &["--voters", "3"]);
    let client = cluster.client("acme");
    let load = Load::at_work(&cluster, &client, 100);
    let ledger = cluster.block_on(load.stop());
    for server in ["p-a1", "p-b1"] {
        cluster.signal(server, Signal::KILL);
        cluster.wait_for_end(server);
    }
    let (config, paper) = (cluster.text("p-a1/config.toml"), cluster.text("paper.json"));
    let place = ["--config", &config, "--survivor"];
    let propose =
        [&["restore", "propose", "--reason", "B and W are gone", "-o", &paper], &place[..]].concat();
    let proposed = cluster.operator(&propose).held().json();
    assert_eq!(proposed["wanted"]["without"], serde_json::json!(["p-b1", "w1"]));
    cluster.second(&["restore", "approve", &paper]).held();
    let begin = [&["restore", "begin", &paper], &place[..]].concat();
    // The witness is there: whoever thinks that it is gone is wrong.
    cluster.operator(&begin).failed(4, "w1");
    let record = fs::read_to_string(cluster.data("p-a1").join("restores.jsonl")).unwrap();
    assert!(record.contains("answers") && record.contains("\"refused\":true"), "{record}");

    cluster.signal("w1", Signal::KILL);
    cluster.wait_for_end("w1");
    let began = Instant::now();
    cluster.operator(&begin).held();
    assert!(began.elapsed() >= Duration::from_secs(7), "every lease was waited out");
    cluster.restart("p-a1");
    cluster.wait_for("every volume", is_whole);
    // Whoever asks what goes on learns that it was tried too early, and that one operator alone tries more.
    let volume = cluster.status().unwrap()["volumes"][0]["id"].to_string();
    let accept = ["loss", "accept", &volume, "--node", "b1", "--reason", "A is gone"];
    cluster.second(&accept).failed(4, "is not down");
    let status = cluster.status().unwrap();
    let refused = status["refused"].as_array().unwrap();
    let told = |place: usize, word: &str| refused[place][word].as_str().unwrap();
    assert_eq!((refused.len(), told(0, "by"), told(1, "by")), (2, "admin", "admin-2"));
    assert_eq!(told(0, "what"), "restore begin, generation 2 without p-b1, w1");
    assert!(told(0, "why").contains("voter w1") && told(0, "reason") == "B and W are gone", "{refused:?}");
    assert_eq!(told(1, "what"), format!("loss accept {volume}"));
    let shown = run(&["--profile", &cluster.text("admin.toml"), "status"]).held();
    assert!(shown.text().contains("ALERT override refused: admin-2 at "), "{}", shown.text());
    let kept = cluster.operator(&["approvals", "--refused"]).held().json();
    assert_eq!(kept.as_array().unwrap(), refused);
    cluster.block_on(ledger.nothing_is_lost(&cluster.client("acme")));
    // The others come back: they are told that they keep nothing any more, and end.
    for server in ["p-b1", "w1"] {
        cluster.restart(server);
    }
    for server in ["p-b1", "w1"] {
        cluster.wait_for_end(server);
    }
    cluster.wait_for("every volume", is_whole);
    cluster.nothing_panicked();
}
