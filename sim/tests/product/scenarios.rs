//! Every scenario in `sim/scenarios`, under each of its seeds; those of the decision table are run beside its page.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use trefoil_sim::product::scenario::Scenario;
use trefoil_sim::side_by_side::side_by_side;

pub(crate) fn scenarios() -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let entries = fs::read_dir(folder).expect("the scenarios lie beside the sources");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("it can be listed").path()).collect();
    files.sort();
    files
}

#[test]
fn every_scenario_ends_as_it_must() {
    let mut runs = Vec::new();
    for file in scenarios() {
        let text = fs::read_to_string(&file).expect("a scenario can be read");
        let scenario = Scenario::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        if scenario.file.row.is_none() {
            let (name, scenario) = (file.display().to_string(), Arc::new(scenario));
            runs.extend(scenario.seeds().map(|seed| (name.clone(), seed, Arc::clone(&scenario))));
        }
    }
    let mut failed = Vec::new();
    let run = |(name, seed, scenario): (String, u64, Arc<Scenario>)| {
        (name, seed, scenario.run(seed, None).expect("its names are known"))
    };
    side_by_side(runs, run, |(name, seed, report)| {
        failed.extend(
            report.violations.iter().map(|violation| format!("{name} under seed {seed}: {violation}")),
        );
    });
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
