//! `quorate-client`.
fn main() -> std::process::ExitCode {
    quorate_client::main(std::env::args_os().skip(1))
}
