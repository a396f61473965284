//! The README's first command, on a small input.

use std::fs;

use crate::places::Place;
use crate::program::{Folder, run};

#[test]
fn every_step_of_the_demo_holds_and_nothing_is_left_behind() {
    let _place = Place::take();
    let folder = Folder::new("demo");
    let input = folder.join("input");
    fs::create_dir_all(input.join("inner")).unwrap();
    for n in 0..20_usize {
        fs::write(input.join(format!("inner/{n}")), vec![n as u8; n * 3000]).unwrap();
    }
    let (input, data) = (input.to_str().unwrap(), folder.join("data"));
    let summary = run(&["--json", "demo", "--input", input, "--data", data.to_str().unwrap()]).held().json();
    assert_eq!(summary["ok"], true);
    assert_eq!(summary["lost"], 0);
    assert!(summary["acknowledged"].as_u64().unwrap() > 40);
    assert_eq!(summary["steps"].as_array().unwrap().len(), 15);
    assert!(!data.exists(), "the demo left its files behind");
}
