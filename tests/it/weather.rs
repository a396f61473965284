//! Links between the data centres that are late, out of order, lossy and double, as real processes meet them: the
//! relay of `trefoil dev` has weather, since the kernel of a small machine has none. What clients saw is judged
//! by both of the simulator's checkers.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cluster::Alone;
use crate::outside::{Outside, is_whole};
use crate::sites::history::Contest;

/// Operations of every client after a change of the weather.
const ENOUGH: usize = 25;

/// 40 ms there and 40 ms back, some jitter; one datagram in a hundred is overtaken, one in a thousand is lost, as
/// many come twice.
const FAR: &str = r#"{"delay_min": 40000000, "delay_mean": 4000000, "spike_per_million": 10000,
    "spike_mean": 20000000, "late_per_million": 1000, "lost_per_million": 0, "twice_per_million": 1000,
    "bytes_per_second": 0}"#;

/// A quarter of a second late, and well otherwise.
const SLOW: &str = r#"{"delay_min": 250000000, "delay_mean": 1000000, "spike_per_million": 0, "spike_mean": 0,
    "late_per_million": 0, "lost_per_million": 0, "twice_per_million": 0, "bytes_per_second": 0}"#;

/// The hands that `dev` lends; it heals when this is dropped.
struct Hands {
    requests: UnixStream,
    answers: BufReader<UnixStream>,
}

impl Hands {
    fn take(cluster: &Outside) -> Self {
        let requests = UnixStream::connect(cluster.path("hands")).unwrap();
        let mut hands = Self { answers: BufReader::new(requests.try_clone().unwrap()), requests };
        hands.answer();
        hands
    }

    fn act(&mut self, deed: &str) {
        let line = format!("{}\n", deed.replace('\n', " "));
        self.requests.write_all(line.as_bytes()).unwrap();
        self.answer();
    }

    #[track_caller]
    fn answer(&mut self) {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert!(line.starts_with("ok"), "{line}");
    }
}

/// The primary of a volume, and its member in the other data centre.
fn primary_and_far_member(status: &Value) -> [String; 2] {
    let volume = &status["volumes"][0];
    let primary = volume["primary"].as_str().unwrap();
    let mut members = volume["in_sync"].as_array().unwrap().iter().map(|node| node.as_str().unwrap());
    let far = members.find(|node| node[..1] != primary[..1]).expect("one in each data centre");
    [primary.to_owned(), far.to_owned()]
}

fn tell(what: &str, contest: &Contest, since: Instant) {
    let pause = contest.pause(since);
    let median = contest.median_write(since);
    println!("{what}: writes {median:.1?} in the median, {:.1?} at most", pause.writes);
}

#[test]
fn row_12_a_path_breaks_over_far_links_that_reorder_and_one_order_explains_every_answer() {
    let cluster = Alone::start_relayed("weather-far");
    let client = cluster.client("acme");
    let mut hands = Hands::take(&cluster);
    let contest = Contest::start(&cluster, &client);
    let changed = Instant::now();
    for link in ["1", "2"] {
        hands.act(&format!("model {link} {FAR}"));
    }
    contest.goes_on(changed, 2 * ENOUGH);
    tell("40 ms, jitter, 1 % overtaken, 0.1 % lost and double", &contest, changed);
    let crossing = contest.median_write(changed);
    assert!(crossing >= Duration::from_millis(80), "writes cross and come back: {crossing:?}");
    let broken = Instant::now();
    let [one, other] = primary_and_far_member(&cluster.status().unwrap());
    hands.act(&format!("part {one} {other}"));
    contest.goes_on(broken, ENOUGH);
    tell(&format!("row 12, {one} and {other} parted; target 20 s"), &contest, broken);
    drop(hands);
    cluster.wait_for("a whole cluster", is_whole);
    contest.goes_on(Instant::now(), ENOUGH);
    contest.none_failed();
    contest.judge(&cluster, &client);
    cluster.nothing_panicked();
}

#[test]
fn row_13_a_link_that_has_become_slow_leaves_the_write_path() {
    let cluster = Alone::start_relayed("weather-slow");
    let client = cluster.client("acme");
    let mut hands = Hands::take(&cluster);
    let contest = Contest::start(&cluster, &client);
    let slowed = Instant::now();
    hands.act(&format!("model 1 {SLOW}"));
    // Until it is spared, whatever takes it waits for a quarter of a second each way.
    let spared = loop {
        let since = Instant::now();
        contest.goes_on(since, ENOUGH);
        if contest.median_write(since) < Duration::from_millis(250) {
            break Instant::now();
        }
        assert!(slowed.elapsed() < Duration::from_secs(30), "the slow link stays in the write path");
    };
    contest.goes_on(Instant::now(), 2 * ENOUGH);
    println!("row 13, link 1 is 250 ms late: spared within {:.1?}; target 30 s", spared - slowed);
    tell("afterwards", &contest, spared);
    let median = contest.median_write(spared);
    assert!(median < Duration::from_millis(250), "{median:?}");
    drop(hands);
    contest.goes_on(Instant::now(), ENOUGH);
    contest.none_failed();
    contest.judge(&cluster, &client);
    cluster.nothing_panicked();
}
