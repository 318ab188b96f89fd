//! Quorate's client, as a library and as a command.
//!
//! [`Client`] finds the leader of a cluster, follows redirects, keeps connections and sends again
//! what was certainly not carried out. Each command has one of three fates, an [`Outcome`].
//!
//! ```no_run
//! use quorate_client::{Client, ItemOptions, Outcome};
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new(vec!["127.0.0.1:9000".parse()?]);
//! match client.set("greeting", "hello", ItemOptions::default()).await {
//!     Outcome::Done(()) => println!("on the disks of a majority"),
//!     Outcome::NotDone(reason) => println!("certainly not stored: {reason}"),
//!     Outcome::Unknown(doubt) => println!("stored or not, who knows: {doubt}"),
//! }
//! # Ok(())
//! # }
//! ```

mod address;
pub mod backup;
mod bench;
mod client;
mod command_line;
mod connection;
mod leader;
mod outcome;
mod request;
pub mod status;
mod topic;

pub use address::{Address, AddressError, HOST_BYTES_MAX};
pub use client::{CONNECTIONS_MAX, Client, ItemOptions, Stored, Swapped, TIMEOUT_DEFAULT};
pub use command_line::main;
pub use connection::ANSWER_BYTES_MAX;
pub use outcome::{Doubt, KeyError, NotDone, Outcome, key};
pub use topic::{Nacked, PushOptions, Taken, Topic};
