//! Quorate's log on disk.
