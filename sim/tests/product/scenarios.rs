//! Every scenario in `sim/scenarios`, under each of its seeds; those of the decision table are run beside its page.

use std::fs;
use std::path::PathBuf;

use trefoil_sim::product::scenario::Scenario;

pub(crate) fn scenarios() -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let entries = fs::read_dir(folder).expect("the scenarios lie beside the sources");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("it can be listed").path()).collect();
    files.sort();
    files
}

#[test]
fn every_scenario_ends_as_it_must() {
    let mut failed = Vec::new();
    for file in scenarios() {
        let text = fs::read_to_string(&file).expect("a scenario can be read");
        let scenario = Scenario::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        if scenario.file.row.is_some() {
            continue;
        }
        for seed in scenario.seeds() {
            let report = scenario.run(seed, None).expect("its names are known");
            for violation in &report.violations {
                failed.push(format!(
                    "{} under seed {seed}: {} on {}: {}",
                    file.display(),
                    violation.checker,
                    violation.object,
                    violation.sentence
                ));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
