//! The product in the simulator: what every change must keep.

mod rows;
mod scenarios;

use trefoil_sim::product::run::{Setting, run};
use trefoil_sim::product::swarm;
use trefoil_sim::side_by_side::side_by_side;

#[test]
fn a_healthy_cluster_keeps_every_promise() {
    for seed in 0..4 {
        let report = run(seed, &Setting::healthy(seed), None).expect("no plan, no trace");
        assert_eq!(report.violations, [], "seed {seed}");
        assert!(report.answered > 50, "seed {seed}: {} answers", report.answered);
    }
}

#[test]
fn r119_a_seed_of_the_product_is_one_run() {
    for seed in [3, 4] {
        let trace = || run(seed, &Setting::drawn(seed), None).expect("a drawn plan fits").trace;
        assert_eq!(trace(), trace(), "seed {seed}");
    }
}

#[test]
fn r033_forty_drawn_clusters_keep_every_promise() {
    let run = |seed| (seed, swarm::run_seed(seed, &Setting::drawn(seed)).expect("a drawn plan fits"));
    side_by_side(0..40, run, |(seed, report)| assert_eq!(report.violations, [], "seed {seed}"));
}
