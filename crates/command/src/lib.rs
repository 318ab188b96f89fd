//! What can be asked of quorate's store, and what it can answer.

mod codec;
mod codec_meta;
mod codec_topic;
mod command;
mod key;
mod key_value;
mod keys;
mod message;
mod meta;
mod outcome;
mod time;
mod topic;

pub use codec::*;
pub use command::*;
pub use key::*;
pub use key_value::*;
pub use keys::*;
pub use message::*;
pub use meta::*;
pub use outcome::*;
pub use time::*;
pub use topic::*;
