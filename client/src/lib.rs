//! Quorate's client, as a library and as a command.
