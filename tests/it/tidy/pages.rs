//! The pages tell the truth where a test can see it: links lead somewhere, the map shows what is
//! there, the commands that are promised are the ones that are run.

use super::sources::{files, none, root};

#[test]
fn every_link_of_a_page_leads_somewhere() {
    let mut findings = Vec::new();
    for page in files(".md") {
        let folder = root().join(&page.path).parent().expect("in a folder").to_owned();
        for target in links(&page.text) {
            let path = target.split('#').next().unwrap_or_default();
            let outside = target.contains("://") || target.starts_with("mailto:");
            if !outside && !path.is_empty() && !folder.join(path).exists() {
                findings.push(format!("{}: {target}", page.path));
            }
        }
    }
    none("dead links", findings);
}

fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// Who says a thing twice says it differently after a while.
#[test]
fn no_page_has_two_sections_of_one_name() {
    let mut findings = Vec::new();
    for page in files(".md") {
        let mut names: Vec<&str> = page.text.lines().filter(|line| line.starts_with("## ")).collect();
        names.sort_unstable();
        let twice = names.windows(2).filter(|pair| pair[0] == pair[1]);
        findings.extend(twice.map(|pair| format!("{}: {}", page.path, pair[0])));
    }
    none("one thing, one place", findings);
}

/// A step that names no function is held by nobody.
#[test]
fn every_step_of_a_way_names_the_functions_that_take_it() {
    let map = std::fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let ways: Vec<&str> = map.split("\n## ").filter(|section| section.starts_with("The way of a ")).collect();
    assert_eq!(ways.len(), 2, "a PUT and a DELETE");
    let steps = ways.iter().flat_map(|way| way.lines().filter(|line| line.starts_with("| ")).skip(1));
    let bare = steps.filter(|line| !line.contains(".rs::"));
    none("docs/architecture.md", bare.map(str::to_owned).collect());
}

/// A path on the map exists, and `path::name` names a function in it.
#[test]
fn every_path_on_the_map_exists() {
    let map = std::fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let mut findings = Vec::new();
    for span in map.split('`').skip(1).step_by(2).filter(|span| is_path(span)) {
        let (path, function) = span.split_once("::").map_or((span, None), |(path, name)| (path, Some(name)));
        let held = function.is_none_or(|name| {
            let text = std::fs::read_to_string(root().join(path)).unwrap_or_default();
            text.contains(&format!("fn {name}(")) || text.contains(&format!("fn {name}<"))
        });
        if !root().join(path).exists() || !held {
            findings.push(span.to_owned());
        }
    }
    none("docs/architecture.md", findings);
}

fn is_path(span: &str) -> bool {
    let folders =
        ["protocol/", "placement/", "storage-node/", "client/", "cli/", "sim/", "tests/", "benches/"];
    folders.iter().any(|folder| span.starts_with(folder)) && !span.contains(' ')
}

#[test]
fn the_commands_of_the_readme_are_the_ones_that_ci_runs() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let (readme, ci) = (read("README.md"), read(".ci/run"));
    assert!(readme.contains("\n    cargo run --release -- demo\n"));
    assert!(readme.contains("\n    cargo test --workspace\n"));
    assert!(ci.contains("cargo test --workspace;"));
}

#[test]
fn every_decision_is_on_the_list() {
    let list = std::fs::read_to_string(root().join("docs/decisions/README.md")).unwrap();
    let missing = files(".md").into_iter().filter(|page| {
        let name = page.path.strip_prefix("docs/decisions/").unwrap_or("README.md");
        name != "README.md" && !list.contains(&format!("({name})"))
    });
    none("docs/decisions/README.md", missing.map(|page| page.path).collect());
}
