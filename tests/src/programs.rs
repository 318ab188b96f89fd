//! The three programs as child processes of the tests: this package's own binary, which becomes
//! any of them, since Cargo builds no other package's binary for `cargo test`.

use std::env;
use std::process::Command;

/// Where this package's binary is.
#[derive(Clone, Copy, Debug)]
pub struct Programs {
    path: &'static str,
}

impl Programs {
    /// The binary at `path`: `env!("CARGO_BIN_EXE_quorate-tests")`, which Cargo sets for the tests
    /// of this package.
    #[must_use]
    pub const fn at(path: &'static str) -> Programs {
        Programs { path }
    }

    /// `quorate-server`, without arguments.
    #[must_use]
    pub fn server(self) -> Command {
        self.program("server")
    }

    /// `quorate-client`, without arguments.
    #[must_use]
    pub fn client(self) -> Command {
        self.program("client")
    }

    /// `quorate-spawner`, without arguments.
    #[must_use]
    pub fn spawner(self) -> Command {
        self.program("spawner")
    }

    /// Whatever is set in the environment of the tests must not change what they find.
    fn program(self, name: &str) -> Command {
        let mut command = Command::new(self.path);
        command
            .arg(name)
            .env("NO_COLOR", "1")
            .env_remove("RUST_LOG");
        for (variable, _) in env::vars_os() {
            if variable.to_string_lossy().starts_with("QUORATE_") {
                command.env_remove(variable);
            }
        }
        command
    }
}
