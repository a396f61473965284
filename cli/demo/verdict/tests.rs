//! Each verdict, given what it should see and then a doctored observation: it must fail.

use super::*;

/// Asserts that `judge` holds of `good`, and fails after each of the changes.
fn fails_when_doctored<T: Clone>(good: &T, judge: impl Fn(&T) -> Judgement, changes: &[fn(&mut T)]) {
    let judgement = judge(good);
    assert!(judgement.ok, "{}", judgement.detail);
    for (number, change) in changes.iter().enumerate() {
        let mut doctored = good.clone();
        change(&mut doctored);
        let judgement = judge(&doctored);
        assert!(!judgement.ok, "change {number} was not noticed: {}", judgement.detail);
    }
}

fn told() -> Vec<Told> {
    [("a1", "a"), ("a2", "a"), ("b1", "b")].map(|(node, dc)| (node.to_owned(), dc.to_owned())).to_vec()
}

fn load() -> Window {
    Window { operations: 100, slowest: Duration::from_secs(1), ..Window::default() }
}

fn killed() -> Killed {
    Killed { names: vec!["a1".into()], signals: vec![Some(9)], load: load() }
}

fn read_back() -> ReadBack {
    ReadBack { acknowledged: 10, ..ReadBack::default() }
}

fn found(runs: &[(&str, &str, u64)]) -> Found {
    let runs = runs.iter().map(|(text, place, count)| ((text.to_string(), place.to_string()), *count));
    Found { runs: runs.collect(), files: 3, bytes: 1000 }
}

#[test]
fn storing_fails_without_both_data_centres_or_with_a_failure() {
    let good = Receipts { acknowledged: 10, bytes: 100, ..Receipts::default() };
    fails_when_doctored(
        &good,
        stored,
        &[
            |seen| seen.acknowledged = 0,
            |seen| seen.failed.push("disk".into()),
            |seen| seen.lopsided = 1,
            |seen| seen.weak = 1,
        ],
    );
}

#[test]
fn three_copies_fail_with_two_or_in_one_place_or_elsewhere_on_disk() {
    let good = Copies { told: told(), found: ["a1", "a2", "b1"].map(str::to_owned).to_vec() };
    fails_when_doctored(
        &good,
        three_copies,
        &[
            |seen| drop(seen.told.pop()),
            |seen| seen.told[2] = ("a3".into(), "a".into()),
            |seen| drop(seen.found.pop()),
            |seen| seen.found.push("b2".into()),
        ],
    );
}

#[test]
fn isolation_fails_when_anything_of_the_other_shows() {
    let answer = || vec![NO_SUCH_OBJECT.to_owned(); 3];
    let good = Isolation { foreign: answer(), absent: answer(), listed: 0, owner_reads: true };
    fails_when_doctored(
        &good,
        isolated,
        &[
            |seen| seen.foreign[1] = "forbidden".into(),
            |seen| seen.foreign.clear(),
            |seen| {
                seen.foreign[0] = "forbidden".into();
                seen.absent[0] = "forbidden".into();
            },
            |seen| seen.listed = 1,
            |seen| seen.owner_reads = false,
        ],
    );
}

#[test]
fn a_run_of_plaintext_or_a_blind_scan_fails() {
    let judge = |seen: &Found| no_plaintext(seen, "plain", "cipher");
    fails_when_doctored(
        &found(&[("cipher", "a1", 9)]),
        judge,
        &[
            |seen| seen.runs = found(&[("cipher", "a1", 9), ("plain", "b3", 1)]).runs,
            |seen| seen.runs.clear(),
        ],
    );
}

#[test]
fn an_erase_fails_when_one_run_is_left_or_the_scan_never_saw_it() {
    let good = (found(&[("small", "a1", 1), ("large", "b1", 7)]), found(&[]));
    let judge = |seen: &(Found, Found)| erased(&seen.0, &seen.1, &["small", "large"]);
    fails_when_doctored(
        &good,
        judge,
        &[
            |seen| seen.1.runs = found(&[("large", "b2", 1)]).runs,
            |seen| seen.0.runs.clear(),
            |seen| seen.1.bytes = 0,
        ],
    );
}

#[test]
fn a_cut_link_fails_with_a_failed_request_or_if_it_was_not_cut() {
    let good = Cut {
        load: load(),
        before: Traffic { forwarded: 50, swallowed: 0 },
        after: Traffic { forwarded: 50, swallowed: 20 },
    };
    fails_when_doctored(
        &good,
        link_survived,
        &[
            |seen| seen.load.failed.push("unavailable".into()),
            |seen| seen.load.operations = 0,
            |seen| seen.load.slowest = Duration::from_secs(4),
            |seen| seen.after.swallowed = 0,
            |seen| seen.after.forwarded = 51,
            |seen| (seen.before.forwarded, seen.after.forwarded) = (0, 0),
        ],
    );
}

#[test]
fn a_kill_fails_with_a_failed_request_a_wrong_read_a_long_pause_or_without_a_kill() {
    let changes: &[fn(&mut Killed)] = &[
        |seen| seen.load.failed.push("unavailable".into()),
        |seen| seen.load.stale.push("k".into()),
        |seen| seen.load.slowest = Duration::from_secs(16),
        |seen| seen.load.operations = 0,
        |seen| seen.signals = vec![None],
        |seen| seen.signals.clear(),
    ];
    fails_when_doctored(&killed(), node_loss_survived, changes);
    fails_when_doctored(&killed(), placement_restart_survived, changes);
}

#[test]
fn a_lost_data_centre_fails_when_undeclared_or_when_something_is_lost() {
    let good =
        CentreLost { killed: killed(), protection: "SingleDc".into(), still_up: 0, read_back: read_back() };
    fails_when_doctored(
        &good,
        centre_loss_survived,
        &[
            |seen| seen.protection = "BothDcs".into(),
            |seen| seen.still_up = 1,
            |seen| seen.read_back.lost.push("k".into()),
            |seen| seen.read_back.unreadable.push("k".into()),
            |seen| seen.killed.signals = vec![Some(15)],
            |seen| seen.killed.load.failed.push("refused".into()),
        ],
    );
}

#[test]
fn a_return_fails_while_a_copy_is_missing() {
    let good = Restored {
        took: Duration::from_secs(9),
        protection: "BothDcs".into(),
        short: 0,
        copies: vec![told(), told()],
    };
    fails_when_doctored(
        &good,
        restored,
        &[
            |seen| seen.protection = "SingleDc".into(),
            |seen| seen.short = 1,
            |seen| drop(seen.copies[1].pop()),
            |seen| seen.copies[0][2].1 = "a".into(),
            |seen| seen.copies.clear(),
        ],
    );
}

#[test]
fn one_lost_object_is_a_loss() {
    fails_when_doctored(
        &read_back(),
        nothing_lost,
        &[
            |seen| seen.lost.push("k".into()),
            |seen| seen.unreadable.push("k".into()),
            |seen| seen.acknowledged = 0,
        ],
    );
}

#[test]
fn an_undelete_fails_with_other_bytes_or_when_nothing_was_hidden() {
    let good = Undeleted {
        hidden_as: NO_SUCH_OBJECT.into(),
        listed: false,
        in_deleted: true,
        same_bytes: true,
        same_version: true,
    };
    fails_when_doctored(
        &good,
        undeleted,
        &[
            |seen| seen.hidden_as = "7 bytes".into(),
            |seen| seen.listed = true,
            |seen| seen.in_deleted = false,
            |seen| seen.same_bytes = false,
            |seen| seen.same_version = false,
        ],
    );
}

#[test]
fn a_purge_fails_inside_the_window_out_of_order_or_when_a_copy_is_left() {
    let states = [("DELETED", 3), ("PURGING", 2), ("ERASED_OTHERS", 1), ("ERASED", 0)];
    let good = Purged {
        states: states.map(|(state, left)| (state.to_owned(), left)).to_vec(),
        window: Duration::from_secs(6),
        window_min: Duration::from_secs(5),
        undelete: "the object is being purged or is gone".into(),
    };
    fails_when_doctored(
        &good,
        purged,
        &[
            |seen| seen.window = Duration::from_secs(4),
            |seen| seen.states.swap(1, 2),
            |seen| seen.states[3].1 = 1,
            |seen| drop(seen.states.pop()),
            |seen| drop(seen.states.remove(0)),
            |seen| seen.states[1].0 = "LIVE".into(),
            |seen| seen.undelete = "back".into(),
        ],
    );
}

#[test]
fn a_certificate_fails_when_a_changed_one_is_believed_or_a_receipt_is_missing() {
    let good = Checked {
        genuine: Ok(()),
        doctored: 500,
        believed: 0,
        stores: BTreeMap::from([("a".to_owned(), 2), ("b".to_owned(), 1)]),
        same_version: true,
        names_it: false,
    };
    fails_when_doctored(
        &good,
        certified,
        &[
            |seen| seen.genuine = Err("forged".into()),
            |seen| seen.believed = 1,
            |seen| seen.doctored = 0,
            |seen| seen.stores.retain(|dc, _| dc == "a"),
            |seen| seen.same_version = false,
            |seen| seen.names_it = true,
        ],
    );
}
