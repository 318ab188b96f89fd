//! `quorate-spawner`.
fn main() -> std::process::ExitCode {
    quorate_spawner::main(std::env::args_os().skip(1))
}
