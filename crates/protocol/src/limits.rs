//! Every limit of a client connection.

use command::ITEM_BYTES_MAX_DEFAULT;

/// What one connection may ask for and hold. The defaults are memcached's where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest item: key + value + 56. A value that does not fit is never buffered.
    pub item_bytes_max: usize,
    /// The longest line that is waited for, without its `\n`. A longer one closes the connection
    /// unless its `\n` has been received with it.
    pub line_bytes_max: usize,
    /// The same for `get` and `gets`; no line at all may be longer than this.
    pub get_line_bytes_max: usize,
    /// The room that a connection makes for one read of its socket.
    pub read_bytes: usize,
    /// The most commands in one run.
    pub run_commands_max: usize,
    /// A run ends with the command that reaches this (see [`crate::Run::bytes`]).
    pub run_bytes_max: usize,
    /// The most requests whose replies are owed. At the limit nothing more is parsed.
    pub in_flight_requests_max: usize,
    /// When this many reply bytes or more wait to be written, nothing more is parsed and no further
    /// reply or hit is encoded. One may go beyond it.
    pub unwritten_bytes_max: usize,
    /// No more requests are taken than have replies of so many bytes together, judged by the latest
    /// ones; but always a few. For replies that are not shared with the store. `usize::MAX` is no
    /// such limit.
    pub reply_ahead_bytes: usize,
    /// A list of keys goes on when fewer reply bytes than this wait to be written.
    pub dump_ahead_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            item_bytes_max: ITEM_BYTES_MAX_DEFAULT,
            line_bytes_max: 2048,
            get_line_bytes_max: 1 << 20,
            read_bytes: 16 << 10,
            run_commands_max: 64,
            run_bytes_max: 256 << 10,
            in_flight_requests_max: 1024,
            unwritten_bytes_max: 8 << 20,
            reply_ahead_bytes: usize::MAX,
            dump_ahead_bytes: 256 << 10,
        }
    }
}
