//! Tests of our packages with the mutants in them: built together, once, and then run with one
//! mutant after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mutants::Mutant;
use serde_json::Value;

/// Where cargo builds them, apart from all that is without mutants. `CARGO_BUILD_BUILD_DIR` has it build
/// elsewhere, where only the names differ.
const TARGET: &str = "target/mutants";

/// A test of one of our packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Test {
    pub(crate) package: &'static str,
    pub(crate) file: &'static str,
    /// With the modules that it is in.
    pub(crate) name: &'static str,
}

/// Tests that can be run.
#[derive(Debug, Default)]
pub(crate) struct BuiltTests {
    programs: BTreeMap<Test, Program>,
}

#[derive(Debug)]
struct Program {
    path: PathBuf,
    /// Where cargo would run it.
    directory: PathBuf,
}

/// What a test says of a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It passes without the mutant, and fails with it.
    Killed,
    /// It passes with it as well, or comes to no end.
    Survives,
    /// It does not pass without it: it says nothing.
    Unsound,
}

impl BuiltTests {
    /// Has cargo build these tests. What it has to say goes to standard error.
    ///
    /// # Errors
    /// When cargo can't be run, or can't build all of them.
    pub(crate) fn build(tests: &BTreeSet<Test>) -> io::Result<BuiltTests> {
        if tests.is_empty() {
            return Ok(BuiltTests::default());
        }
        let packages: BTreeSet<&str> = tests.iter().map(|test| test.package).collect();
        let files: BTreeSet<&str> = tests.iter().map(|test| test.file).collect();
        let mut cargo = Command::new("cargo");
        cargo
            .args(["test", "--no-run", "--quiet", "--locked"])
            .args(["--message-format", "json-render-diagnostics"])
            .args(["--features", "mutants/switch", "--target-dir", TARGET])
            .args(packages.iter().flat_map(|package| ["--package", package]))
            .args(files.iter().flat_map(|file| ["--test", file]))
            .stderr(Stdio::inherit());
        let output = cargo.output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let built: Vec<(String, PathBuf, PathBuf)> =
            text.lines().filter_map(test_program).collect();
        let mut programs = BTreeMap::new();
        for test in tests {
            let (_, path, directory) = built
                .iter()
                .find(|(file, _, directory)| file == test.file && test.is_in(directory))
                .ok_or_else(|| io::Error::other(format!("there is no {test}")))?;
            let program = Program {
                path: path.clone(),
                directory: directory.clone(),
            };
            programs.insert(*test, program);
        }
        Ok(BuiltTests { programs })
    }

    /// Runs a test without the mutant and with it.
    pub(crate) fn judge(&self, test: Test, mutant: Mutant) -> Verdict {
        let passes = |mutant| {
            let program = self.programs.get(&test);
            program.and_then(|program| program.passes(test, mutant))
        };
        match (passes(None), passes(Some(mutant))) {
            (Some(true), Some(false)) => Verdict::Killed,
            (Some(true), _) => Verdict::Survives,
            _ => Verdict::Unsound,
        }
    }
}

impl Program {
    /// Runs one test; `None` if it came to no end, or there is none of this name.
    fn passes(&self, test: Test, mutant: Option<Mutant>) -> Option<bool> {
        let mut command = Command::new(&self.path);
        command
            .args(["--exact", test.name])
            .current_dir(&self.directory)
            .env_remove(mutants::VARIABLE)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(mutant) = mutant {
            command.env(mutants::VARIABLE, mutant.name());
        }
        let output = command.output();
        let text = output.map(|output| output.stdout).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        match (text.contains("1 passed"), text.contains("1 failed")) {
            (true, false) => Some(true),
            (false, true) => Some(false),
            _ => None,
        }
    }
}

impl Test {
    /// Whether this is the directory of its package.
    fn is_in(&self, directory: &Path) -> bool {
        let name = directory.file_name().and_then(|name| name.to_str());
        name.is_some() && name == self.package.strip_prefix("quorate-")
    }
}

impl fmt::Display for Test {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}, {}: {}", self.package, self.file, self.name)
    }
}

/// The test file, the program and the package's directory, if this line of cargo's is of a test program.
fn test_program(line: &str) -> Option<(String, PathBuf, PathBuf)> {
    let message: Value = serde_json::from_str(line).ok()?;
    let path = message["executable"].as_str()?;
    let target = &message["target"];
    let is_test = target["kind"].as_array()?.iter().any(|kind| kind == "test");
    let file = target["name"].as_str().filter(|_| is_test)?;
    let manifest = Path::new(message["manifest_path"].as_str()?);
    let directory = manifest.parent()?;
    Some((file.to_owned(), path.into(), directory.to_owned()))
}
