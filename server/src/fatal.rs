//! The end of a process that can't go on.

use std::fmt::Display;

/// Tells why on standard error, in one line.
pub(crate) fn tell(error: &dyn Display) {
    let line = error.to_string().replace('\n', " ");
    eprintln!("quorate-server: {}", line.trim_end());
}

/// Tells why and ends the process, whatever its other threads are doing.
pub(crate) fn end(error: &dyn Display) -> ! {
    tell(error);
    std::process::exit(1);
}

/// From here on, a thread that panics takes the process with it: what is left of a server without
/// one of its threads would look alive and be of no use.
pub(crate) fn end_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        std::process::abort();
    }));
}
