//! The list of rules in docs/raft-rules.md: what it names exists, and it names every script.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The proofs of each rule, as the table spells them.
fn rules() -> BTreeMap<u32, Vec<String>> {
    let text = fs::read_to_string(root().join("docs/raft-rules.md")).expect("the list of rules");
    let mut rules = BTreeMap::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, rule, _, proofs, _] = cells[..] else {
            continue;
        };
        if let Ok(rule) = rule.parse() {
            let proofs = proofs.split(", ").map(|it| it.trim_matches('`').to_owned());
            let known = rules.insert(rule, proofs.collect());
            assert!(known.is_none(), "rule {rule} is listed twice");
        }
    }
    assert!(rules.len() > 40, "the table was not understood");
    rules
}

fn script(name: &str) -> PathBuf {
    let scripts = root().join("crates/raft/tests/scripts");
    scripts.join(name).with_extension("txt")
}

#[test]
fn every_proof_exists() {
    for (rule, proofs) in rules() {
        for proof in proofs {
            let Some((file, test)) = proof.split_once("::") else {
                assert!(script(&proof).is_file(), "rule {rule}: no script {proof}");
                continue;
            };
            let text = fs::read_to_string(root().join(file)).unwrap_or_default();
            assert!(
                text.contains(&format!("fn {test}(")),
                "rule {rule}: no test {proof}"
            );
        }
    }
}

#[test]
fn every_script_proves_the_rules_that_it_names() {
    let rules = rules();
    for folder in fs::read_dir(script("").with_extension("")).expect("the scripts") {
        let folder = folder.expect("a folder of scripts").path();
        for found in fs::read_dir(&folder).expect("a folder of scripts") {
            let path = found.expect("a script").path();
            let (Some(area), Some(name)) = (folder.file_name(), path.file_stem()) else {
                continue;
            };
            let name = format!("{}/{}", area.to_string_lossy(), name.to_string_lossy());
            let text = fs::read_to_string(&path).expect("a script is text");
            let (named, _) = text.split_once(':').unwrap_or_default();
            assert!(named.starts_with("# Rule"), "{name} begins with {named:?}");
            let numbers = named.split(|it: char| !it.is_ascii_digit());
            for rule in numbers.filter_map(|it| it.parse::<u32>().ok()) {
                let listed = rules.get(&rule).is_some_and(|it| it.contains(&name));
                assert!(listed, "rule {rule} does not list {name}");
            }
        }
    }
}
