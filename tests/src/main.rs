//! Quorate's three programs in one binary, chosen by the first argument: what the tests run as
//! child processes, and what the spawner among them runs as its servers.

use std::ffi::OsString;
use std::iter;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let program = arguments.next().unwrap_or_default();
    match program.to_string_lossy().as_ref() {
        "server" => {
            let name = iter::once(OsString::from("quorate-server"));
            server::run(name.chain(arguments))
        }
        "client" => client::main(arguments),
        "spawner" => spawner::main(arguments),
        other => {
            eprintln!("quorate-tests: {other:?} is not one of server, client, spawner");
            ExitCode::from(2)
        }
    }
}
