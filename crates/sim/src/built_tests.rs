//! Tests of our packages with the mutants in them: built together, once, and then run with one
//! mutant after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use mutants::Mutant;
use serde_json::Value;

/// Where the programs go, and what they are built of unless `CARGO_BUILD_BUILD_DIR` says otherwise:
/// apart from all that is without mutants.
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
    /// Whether the test passes without a mutant, once that is known.
    is_sound: OnceLock<bool>,
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
        let built: Vec<(String, PathBuf, PathBuf)> = text.lines().filter_map(built).collect();
        let mut programs = BTreeMap::new();
        for test in tests {
            let (_, path, directory) = built
                .iter()
                .find(|(file, _, directory)| file == test.file && test.is_in(directory))
                .ok_or_else(|| io::Error::other(format!("{test:?} was not built")))?;
            let program = Program {
                path: path.clone(),
                directory: directory.clone(),
                is_sound: OnceLock::new(),
            };
            programs.insert(*test, program);
        }
        Ok(BuiltTests { programs })
    }

    /// Whether the test, which passes as it is, fails with the mutant.
    pub(crate) fn kill(&self, test: Test, mutant: Mutant) -> bool {
        let Some(program) = self.programs.get(&test) else {
            return false;
        };
        let is_sound = *program
            .is_sound
            .get_or_init(|| program.passes(test, None) == Some(true));
        is_sound && program.passes(test, Some(mutant)) == Some(false)
    }
}

impl Program {
    /// Runs one test; `None` if it came to no end, or there is none of this name.
    fn passes(&self, test: Test, mutant: Option<Mutant>) -> Option<bool> {
        let mut program = Command::new(&self.path);
        program
            .args(["--exact", test.name])
            .current_dir(&self.directory)
            .env_remove(mutants::VARIABLE)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(mutant) = mutant {
            program.env(mutants::VARIABLE, mutant.name());
        }
        let output = program.output();
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

/// The test file, the program and the package's directory, if this line of cargo's is of a program.
fn built(line: &str) -> Option<(String, PathBuf, PathBuf)> {
    let message: Value = serde_json::from_str(line).ok()?;
    let path = message["executable"].as_str()?;
    let file = message["target"]["name"].as_str()?;
    let manifest = Path::new(message["manifest_path"].as_str()?);
    let directory = manifest.parent()?;
    Some((file.to_owned(), path.into(), directory.to_owned()))
}
