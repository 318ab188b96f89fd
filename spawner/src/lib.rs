//! `quorate-spawner`: starts a whole cluster on this machine, shows its logs, and stops it. The
//! servers are processes of this very program, which becomes one when its first argument is
//! `server`.

mod console;
mod plan;
mod process;
mod ready;
mod relay;
mod supervise;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use plan::Arguments;

/// The first argument of a process that is to be a server.
const SERVER: &str = "server";

/// Runs `quorate-spawner` with these arguments, the program's name not among them.
///
/// Call it on the process's main thread: the servers end when the thread that started them does.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter().peekable();
    if arguments.next_if(|first| first == SERVER).is_some() {
        return server::run(named("quorate-server", arguments));
    }
    let arguments = match Arguments::try_parse_from(named("quorate-spawner", arguments)) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help for those who asked goes to standard output and is no failure.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match supervise::run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quorate-spawner: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The arguments with the program's name before them.
fn named(
    program: &str,
    arguments: impl Iterator<Item = OsString>,
) -> impl Iterator<Item = OsString> {
    std::iter::once(OsString::from(program)).chain(arguments)
}
