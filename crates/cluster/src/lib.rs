//! The members that a cluster starts with, and the settings of its servers: `cluster.toml`, read,
//! checked and written. Text in, text out; opening the file is left to the caller.

mod file;
mod settings;

pub use file::{Cluster, Error, SERVERS_MAX, Server};
pub use settings::{Followers, LogFormat, SETTINGS, Setting, SettingError, Settings, Source};
