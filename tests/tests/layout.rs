//! Holds the sources to `docs/architecture.md`: who may use whom, who may have sockets, threads and
//! files, how long a file may be; and `docs/raft-rules.md` to the sources: every rule names a proof
//! that is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The longest source file, in lines.
const FILE_LINES_MAX: usize = 700;

/// The crates that may have sockets, threads and tokio.
const PROGRAMS: [&str; 4] = ["server", "client", "spawner", "tests"];

/// The crate that may have threads besides: it runs one simulated cluster on each.
const WITH_THREADS: &str = "sim";

/// The crates that may also have files.
const WITH_FILES: [&str; 6] = ["wal", "cluster", "server", "client", "spawner", "tests"];

/// Where a proof without an extension is a script.
const SCRIPTS: &str = "crates/raft/tests/scripts";

/// The rules that are built: the table may not lose one of them.
const RULES: [RangeInclusive<u32>; 6] = [1..=36, 38..=39, 41..=41, 43..=55, 57..=57, 59..=63];

#[test]
fn a_crate_uses_only_what_the_table_allows() {
    let allowed = who_may_use_whom();
    let crates = crates();
    let names: BTreeSet<&str> = crates.keys().map(String::as_str).collect();
    let rows: BTreeSet<&str> = allowed.keys().map(String::as_str).collect();
    assert_eq!(rows, names, "the table's rows are the workspace's crates");
    for (name, directory) in &crates {
        for used in dependencies(directory) {
            let ours = names.contains(used.trim_start_matches("quorate-"));
            assert!(
                !ours || allowed[name].contains(used.trim_start_matches("quorate-")),
                "{name} uses {used}, which docs/architecture.md does not allow"
            );
        }
    }
}

/// What the compiler is told that cargo runs through `.cargo/rustc-with-profile`, whose `-vV` says this.
fn told(version: &str, arguments: &[&str]) -> Vec<String> {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("version"), version).expect("it is written");
    // By another process, so that no file that is written here is open while it is run.
    let write = r#"printf '#!/bin/sh\n[ "$1" = -vV ] && exec cat "${0%%/*}/version"\nprintf "%%s\\n" "$@"\n' > "$0"
chmod +x "$0""#;
    let compiler = directory.path().join("compiler");
    let written = Command::new("sh")
        .args(["-c", write])
        .arg(&compiler)
        .status();
    assert!(written.expect("sh runs").success());
    let output = Command::new(workspace().join(".cargo/rustc-with-profile"))
        .arg(&compiler)
        .args(arguments)
        .env_remove("QUORATE_PROFILE_INTO")
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let told = String::from_utf8(output.stdout).expect("text");
    told.lines().map(str::to_owned).collect()
}

#[test]
fn release_builds_by_the_compiler_of_the_profile_use_it_and_no_others() {
    let version =
        fs::read_to_string(workspace().join(".cargo/release.rustc")).expect("it is there");
    let release = ["-C", "opt-level=3", "a b"];
    let used = told(&version, &release);
    assert_eq!(used[..3], release);
    let path = used[3].strip_prefix("-Cprofile-use=").expect("the profile");
    assert!(Path::new(path).is_file(), "{path}");
    let simulation = ["-C", "opt-level=3", "-C", "debug-assertions=on"];
    let counted = ["-C", "opt-level=3", "-C", "instrument-coverage"];
    for arguments in [&["-C", "opt-level=1"][..], &simulation, &counted, &["-vV"]] {
        let said = told(&version, arguments);
        assert!(!said.iter().any(|it| it.contains("profile")), "{said:?}");
    }
    assert_eq!(told("rustc 1.0.0", &release), release, "another compiler");
}

#[test]
fn the_server_is_known_to_others_only_as_a_program() {
    for name in ["spawner", "tests"] {
        for file in sources(&crates()[name]) {
            for (number, line) in code(&file) {
                for (program, entry) in [("server", "run("), ("spawner", "main(")] {
                    let used = uses(&line, program).any(|rest| !rest.starts_with(entry));
                    assert!(!used, "{}:{number}: {line}", file.display());
                }
            }
        }
    }
}

#[test]
fn sockets_threads_and_tokio_are_the_programs_alone() {
    for (name, directory) in crates() {
        if PROGRAMS.contains(&name.as_str()) {
            continue;
        }
        let dependencies = dependencies(&directory);
        for dependency in ["tokio", "tokio-util", "axum", "socket2"] {
            assert!(!dependencies.contains(dependency), "{name}: {dependency}");
        }
        assert_no_use_of("net", &directory.join("src"));
        if name != WITH_THREADS {
            assert_no_use_of("thread", &directory.join("src"));
        }
    }
}

#[test]
fn files_are_the_logs_and_the_programs_alone() {
    for (name, directory) in crates() {
        if WITH_FILES.contains(&name.as_str()) {
            continue;
        }
        let dependencies = dependencies(&directory);
        assert!(!dependencies.contains("rustix"), "{name}: rustix");
        assert_no_use_of("fs", &directory.join("src"));
    }
}

/// Cargo builds a crate once for all that use it: one manifest that asks for the mutants would put
/// them into the server.
#[test]
fn no_crate_has_mutants_but_by_a_feature_that_is_off() {
    let mut manifests: Vec<toml::Table> = crates().values().map(|it| manifest(it)).collect();
    for (name, directory) in crates() {
        let features = manifest(&directory)
            .remove("features")
            .unwrap_or_else(empty);
        let default = features
            .get("default")
            .map_or(String::new(), toml::Value::to_string);
        assert!(
            default.is_empty() || default == "[]",
            "{name} has {default} on"
        );
    }
    manifests.extend(manifest(&workspace())["workspace"].as_table().cloned());
    let sections = ["dependencies", "dev-dependencies", "build-dependencies"];
    for manifest in manifests {
        for section in sections {
            let used = manifest.get(section).and_then(|it| it.get("mutants"));
            let features = used.and_then(|used| used.get("features"));
            assert!(features.is_none(), "mutants with {features:?}");
        }
    }
}

#[test]
fn no_source_file_is_too_long_to_be_one_idea() {
    for file in crates().values().flat_map(|directory| sources(directory)) {
        let lines = read(&file).lines().count();
        assert!(lines <= FILE_LINES_MAX, "{}: {lines} lines", file.display());
    }
}

#[test]
fn what_is_left_to_do_has_an_issue() {
    let mark = ["TO", "DO"].concat();
    for file in crates().values().flat_map(|directory| sources(directory)) {
        for (number, line) in (1..).zip(read(&file).lines()) {
            for (at, _) in line.match_indices(&mark) {
                let issue = line[at + mark.len()..].strip_prefix("(#");
                let digits = issue.and_then(|rest| rest.split(')').next());
                let numbered = digits.is_some_and(|digits| digits.parse::<u32>().is_ok());
                assert!(numbered, "{}:{number}: {line}", file.display());
            }
        }
    }
}

#[test]
fn every_rule_names_a_proof_that_is_there() {
    let path = workspace().join("docs/raft-rules.md");
    let mut proved = BTreeSet::new();
    for row in table_rows(&read(&path)) {
        let (Some(rule), Some(proof)) = (row.first(), row.last()) else {
            continue;
        };
        let Ok(rule) = rule.parse::<u32>() else {
            continue;
        };
        let proofs = quoted(proof);
        assert!(!proofs.is_empty(), "rule {rule} names no proof: {proof:?}");
        for proof in proofs {
            check_proof(&format!("rule {rule}"), &proof);
        }
        proved.insert(rule);
    }
    for rule in RULES.into_iter().flatten() {
        assert!(proved.contains(&rule), "rule {rule} is not in the table");
    }
}

/// The page says of every command which test holds it to what it says.
#[test]
fn every_command_of_the_page_names_a_proof_that_is_there() {
    let page = read(&workspace().join("docs/memcached.md"));
    let section = |title: &str| {
        let section = page.split(&format!("\n## {title}\n")).nth(1);
        let section = section.unwrap_or_else(|| panic!("docs/memcached.md has no {title:?}"));
        let section = section.split("\n## ").next().unwrap_or_default();
        // The names of its lines are no commands.
        table_rows(section.split("\n### stats\n").next().unwrap_or_default())
    };
    let mut proved = BTreeSet::new();
    for row in section("What proves it").iter().skip(2) {
        let [what, proof] = &row[..] else {
            panic!("{row:?} is not what and proof");
        };
        let proofs = quoted(proof);
        assert!(!proofs.is_empty(), "{what} names no proof: {proof:?}");
        for proof in proofs {
            check_proof(what, &proof);
        }
        proved.extend(quoted(what));
    }
    for row in section("Commands") {
        let lines = row.first().map(|cell| quoted(cell)).unwrap_or_default();
        for line in lines {
            let name = line.split(' ').next().unwrap_or_default();
            // Error lines stand there too.
            let others = ["", "…", "ERROR", "CLIENT_ERROR", "SERVER_ERROR"];
            let is_command = !others.contains(&name);
            assert!(!is_command || proved.contains(name), "{name} has no proof");
        }
    }
}

/// `proof` is a script or a file of the workspace, or `file::name` where the file has a function
/// of that name.
fn check_proof(what: &str, proof: &str) {
    let (file, function) = match proof.split_once("::") {
        Some((file, function)) => (file, Some(function)),
        None => (proof, None),
    };
    let path = match Path::new(file).extension() {
        Some(_) => workspace().join(file),
        None => workspace().join(SCRIPTS).join(file).with_extension("txt"),
    };
    assert!(path.is_file(), "{what}: there is no {}", path.display());
    if let Some(name) = function {
        let found = read(&path).contains(&format!("fn {name}("));
        assert!(found, "{what}: {file} has no {name}");
    }
}

/// What the table of `docs/architecture.md` allows each crate.
fn who_may_use_whom() -> BTreeMap<String, BTreeSet<String>> {
    let text = read(&workspace().join("docs/architecture.md"));
    let section = text.split("\n## Who may use whom\n").nth(1);
    let section = section.expect("docs/architecture.md has the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    table_rows(section)
        .into_iter()
        .filter_map(|row| {
            let name = quoted(row.first()?).into_iter().next()?;
            Some((name, quoted(row.get(1)?).into_iter().collect()))
        })
        .collect()
}

/// The cells of each row of the tables in `text`.
fn table_rows(text: &str) -> Vec<Vec<String>> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix('|')?.strip_suffix('|'))
        .map(|row| row.split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

/// What stands between backquotes in `cell`.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// The crates of the workspace, by the names of their folders.
fn crates() -> BTreeMap<String, PathBuf> {
    let manifest = manifest(&workspace());
    let members = manifest["workspace"]["members"].as_array();
    let mut crates = BTreeMap::new();
    for member in members.expect("a list of folders") {
        let member = member.as_str().expect("a folder");
        let directories = match member.strip_suffix("/*") {
            Some(parent) => entries(&workspace().join(parent)),
            None => vec![workspace().join(member)],
        };
        for directory in directories {
            if directory.join("Cargo.toml").is_file() {
                let name = directory.file_name().expect("it has a name");
                crates.insert(name.to_string_lossy().into_owned(), directory);
            }
        }
    }
    crates
}

/// The packages that a crate depends on, in whatever section.
fn dependencies(directory: &Path) -> BTreeSet<String> {
    let manifest = manifest(directory);
    ["dependencies", "dev-dependencies", "build-dependencies"]
        .into_iter()
        .filter_map(|section| manifest.get(section)?.as_table())
        .flat_map(|section| section.keys().cloned())
        .collect()
}

fn assert_no_use_of(module: &str, directory: &Path) {
    for file in sources(directory) {
        for (number, line) in code(&file) {
            let named = uses(&line, "std").any(|rest| {
                let listed = rest.strip_prefix('{').unwrap_or(rest);
                let mut words = listed.split([',', ' ', '}', ';']);
                match rest.starts_with('{') {
                    true => words.any(|word| word.split("::").next() == Some(module)),
                    false => uses_of_word(rest.split("::").next().unwrap_or_default(), module),
                }
            });
            assert!(!named, "{}:{number}: {line}", file.display());
        }
    }
}

/// What follows each `name::` in `line`.
fn uses<'a>(line: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    line.match_indices(name).filter_map(move |(at, _)| {
        let before = line[..at].chars().next_back();
        let whole = !before.is_some_and(|before| before.is_alphanumeric() || "_:".contains(before));
        line[at + name.len()..].strip_prefix("::").filter(|_| whole)
    })
}

/// Whether `text` holds `word` with no further letter of a name after it.
fn uses_of_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let after = text[at + word.len()..].chars().next();
        !after.is_some_and(|after| after.is_alphanumeric() || after == '_')
    })
}

/// The lines of a source file without comments, numbered from 1.
fn code(file: &Path) -> Vec<(usize, String)> {
    let text = read(file);
    let lines = (1..).zip(text.lines());
    lines
        .map(|(number, line)| {
            (
                number,
                line.split("//").next().unwrap_or_default().to_owned(),
            )
        })
        .collect()
}

/// All Rust files below `directory`.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in entries(directory) {
        if entry.is_dir() {
            found.extend(sources(&entry));
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            found.push(entry);
        }
    }
    found
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory);
    let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a directory can be read").path())
        .collect();
    paths.sort();
    paths
}

fn manifest(directory: &Path) -> toml::Table {
    let text = read(&directory.join("Cargo.toml"));
    text.parse()
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
}

fn empty() -> toml::Value {
    toml::Value::Table(toml::Table::new())
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn workspace() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package
        .parent()
        .expect("the package is a folder of it")
        .to_owned()
}
