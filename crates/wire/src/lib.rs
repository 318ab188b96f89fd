//! The frames between quorate's servers.
