//! One server of a quorate cluster: sockets, threads and files around an evaluator. Wiring, and
//! nothing clever.

mod arguments;
mod bell;
mod client;
mod clock;
mod error;
mod evaluator_thread;
mod fatal;
mod files;
mod http;
mod inspect;
mod listen;
mod log_writer_thread;
mod logging;
mod peer;
mod places;
mod published;
mod recovery;
mod room;
mod scrub_thread;
mod signals;
mod snapshot_thread;
mod snapshots;
mod start;
mod turns;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::arguments::Task;
use crate::error::Error;

/// Does what a command line asks for; `arguments` begin with the program's name. Meant to be all
/// that a process does: it takes over its signals, its log and what a panic does.
///
/// Gives 0 after a stop that was asked for, 2 for a command line that makes no sense, and 1, with
/// one line on standard error, for anything else that can't work. A look at a data directory gives
/// what `inspect::run` says.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match try_run(arguments) {
        Ok(code) => code,
        Err(Error::Arguments(error)) => {
            // It goes to standard output if it was asked for.
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
        }
        Err(error) => {
            fatal::tell(&error);
            ExitCode::FAILURE
        }
    }
}

fn try_run(arguments: impl IntoIterator<Item = OsString>) -> Result<ExitCode, Error> {
    let service = match arguments::read(arguments)? {
        Task::Serve(service) => service,
        Task::Print(configuration) => {
            print!("{configuration}");
            return Ok(ExitCode::SUCCESS);
        }
        Task::Inspect(inspect) => return Ok(inspect::run(&inspect)),
    };
    if let Some(which) = service.die_with_parent {
        signals::die_with_parent(which)?;
    }
    files::check_limit(service.settings.connections_max)?;
    logging::start(&service.settings)?;
    fatal::end_on_panic();
    start::serve(*service)?;
    Ok(ExitCode::SUCCESS)
}
