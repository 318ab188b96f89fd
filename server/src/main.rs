fn main() -> std::process::ExitCode {
    quorate_server::run(std::env::args_os())
}
