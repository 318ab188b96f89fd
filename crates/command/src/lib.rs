//! What can be asked of quorate's store, and what it can answer.

mod codec;
mod command;
mod key;
mod key_value;
mod keys;
mod outcome;
mod time;

pub use codec::*;
pub use command::*;
pub use key::*;
pub use key_value::*;
pub use keys::*;
pub use outcome::*;
pub use time::*;
