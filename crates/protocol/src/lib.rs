//! memcached's text protocol, in both directions; bytes in, bytes out.
//!
//! A server gives each connection a [`Session`]: received bytes become runs of commands, and the
//! outcomes of these become reply bytes, in order. A client writes commands with
//! [`client::write_request`] and reads what became of them with [`client::ReplyParser`]. No part
//! of it knows a socket, a clock or a thread.
//!
//! Keys and values of parsed commands are slices of the receive buffer. They are meant to be
//! encoded into a log entry soon; whoever keeps one for longer copies it, or a few bytes keep the
//! whole buffer alive (rule 59).

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod base64;
mod classic;
pub mod client;
mod client_topics;
mod due;
mod dump;
mod limits;
mod local;
mod meta;
mod meta_reply;
mod output;
mod parser;
mod reply;
mod request;
mod session;
mod topic_name;
mod topics;
mod words;

pub use dump::{CACHEDUMP_BYTES_MAX, Dump, DumpItem};
pub use limits::Limits;
pub use local::VERSION;
pub use output::Output;
pub use parser::{Parsed, Parser};
pub use reply::write_reply;
pub use request::{MessageShape, MetaCommand, MetaShape, Request, Shape};
pub use session::{Run, Session, StatLine};
pub use topic_name::{append_topic_name, decode as topic_name};
