//! `cluster.toml`: who the members are and where each is reached, and the settings written there.
//!
//! ```toml
//! [[server]]
//! id = 1
//! host = "127.0.0.1"
//! client_port = 9000
//! rpc_port = 9001
//! http_port = 9002
//! bind = "0.0.0.0"    # optional: the address to listen on, if it is not `host`
//!
//! [settings]          # optional
//! heartbeat_ms = 50
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::settings::Setting;

/// The most servers that a cluster may have.
pub const SERVERS_MAX: usize = 19;

/// The longest name of a host, in bytes (RFC 1035).
const HOST_BYTES_MAX: usize = 253;

/// A checked `cluster.toml`: 1 to 19 servers, ids ascending and above 0, no two servers or ports
/// in the same place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    servers: Vec<Server>,
    settings: BTreeMap<String, String>,
}

/// One `[[server]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    pub id: u64,
    /// The name or address that clients and peers are told. Printable, without spaces.
    pub host: String,
    pub client_port: u16,
    pub rpc_port: u16,
    pub http_port: u16,
    /// The name or address that is listened on; `None` for `host`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bind: Option<String>,
}

impl Server {
    /// The name or address that this server listens on.
    #[must_use]
    pub fn bind(&self) -> &str {
        self.bind.as_deref().unwrap_or(&self.host)
    }

    /// Its three ports with the names that `cluster.toml` gives them.
    fn ports(&self) -> [(&'static str, u16); 3] {
        [
            ("client_port", self.client_port),
            ("rpc_port", self.rpc_port),
            ("http_port", self.http_port),
        ]
    }
}

/// What is wrong with a `cluster.toml`. Each is one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is no TOML, or not of this shape. Lines count from 1.
    #[error("line {line}: {problem}")]
    Syntax { line: usize, problem: String },
    #[error("there is no [[server]]")]
    NoServers,
    #[error("{found} servers, at most {SERVERS_MAX} are possible")]
    TooManyServers { found: usize },
    #[error("a server has id 0, ids start at 1")]
    IdZero,
    #[error("two servers have id {id}")]
    SameId { id: u64 },
    #[error("server {id}: {field} {host:?} is no host name or address")]
    Host {
        id: u64,
        field: &'static str,
        host: String,
    },
    #[error("server {id}: {field} is 0")]
    PortZero { id: u64, field: &'static str },
    #[error("{host}:{port} is both server {one}'s and server {other}'s")]
    SamePort {
        host: String,
        port: u16,
        one: u64,
        other: u64,
    },
    #[error("[settings] {name}: there is no such setting")]
    UnknownSetting { name: String },
    #[error("[settings] {name} stands there twice")]
    SettingTwice { name: String },
    #[error("[settings] {name}: neither a number nor a string")]
    SettingType { name: String },
}

/// The file as it is written; `Cluster` is what is left once it is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    server: Vec<Server>,
    #[serde(default)]
    settings: BTreeMap<String, toml::Value>,
}

impl Cluster {
    /// The cluster of these servers, in any order, without settings.
    ///
    /// # Errors
    /// What is wrong with the servers.
    pub fn new(servers: Vec<Server>) -> Result<Cluster, Error> {
        check_servers(servers, BTreeMap::new())
    }

    /// Reads the text of a `cluster.toml`.
    ///
    /// # Errors
    /// The first thing that is wrong with it. The values of settings are judged by
    /// `Settings::resolve`.
    pub fn parse(text: &str) -> Result<Cluster, Error> {
        let file: File = toml::from_str(text).map_err(|error| syntax_error(text, &error))?;
        let mut settings = BTreeMap::new();
        for (name, value) in file.settings {
            let Some(setting) = Setting::named(&name) else {
                return Err(Error::UnknownSetting { name });
            };
            let value = match value {
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::String(text) => text,
                _ => return Err(Error::SettingType { name }),
            };
            if settings.insert(setting.name.to_owned(), value).is_some() {
                return Err(Error::SettingTwice {
                    name: setting.name.to_owned(),
                });
            }
        }
        check_servers(file.server, settings)
    }

    /// The text of a `cluster.toml` that `parse` reads back as this cluster.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::from("# The members that a new cluster starts with.\n");
        for server in &self.servers {
            text.push_str("[[server]]\n");
            text.push_str(&toml::to_string(server).expect("numbers and strings are valid TOML"));
            text.push('\n');
        }
        if !self.settings.is_empty() {
            text.push_str("[settings]\n");
            for (name, value) in &self.settings {
                text.push_str(&format!("{name} = {}\n", toml_value(value)));
            }
        }
        text
    }

    /// The servers, ids ascending.
    #[must_use]
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The server with this id.
    #[must_use]
    pub fn server(&self, id: u64) -> Option<&Server> {
        self.servers.iter().find(|server| server.id == id)
    }

    /// The lines of `[settings]`: name, with underscores, and value. Names are known, values are
    /// not checked.
    #[must_use]
    pub fn settings(&self) -> &BTreeMap<String, String> {
        &self.settings
    }

    /// A hash of the members, ids and places: the same for two servers that were given the same
    /// members, in whatever order (rule 41). `bind` is each server's own business and no part
    /// of it.
    #[must_use]
    pub fn members_hash(&self) -> u64 {
        let mut hash = Fnv1a::new();
        for server in &self.servers {
            hash.write(&server.id.to_le_bytes());
            hash.write(&(server.host.len() as u64).to_le_bytes());
            hash.write(server.host.as_bytes());
            for (_, port) in server.ports() {
                hash.write(&port.to_le_bytes());
            }
        }
        hash.0
    }
}

/// A setting's value as TOML writes it: whole numbers bare, anything else quoted.
pub(crate) fn toml_value(value: &str) -> String {
    match value.parse::<i64>() {
        Ok(number) if number.to_string() == value => number.to_string(),
        _ => toml::Value::String(value.to_owned()).to_string(),
    }
}

fn syntax_error(text: &str, error: &toml::de::Error) -> Error {
    let start = error.span().map_or(0, |span| span.start);
    let before = text.get(..start).unwrap_or(text);
    Error::Syntax {
        line: before.bytes().filter(|byte| *byte == b'\n').count() + 1,
        problem: error.message().replace('\n', ", "),
    }
}

fn check_servers(
    mut servers: Vec<Server>,
    settings: BTreeMap<String, String>,
) -> Result<Cluster, Error> {
    if servers.is_empty() {
        return Err(Error::NoServers);
    }
    if servers.len() > SERVERS_MAX {
        return Err(Error::TooManyServers {
            found: servers.len(),
        });
    }
    servers.sort_by_key(|server| server.id);
    let mut ids = BTreeSet::new();
    let mut places: BTreeMap<(&str, u16), u64> = BTreeMap::new();
    for server in &servers {
        let id = server.id;
        if id == 0 {
            return Err(Error::IdZero);
        }
        if !ids.insert(id) {
            return Err(Error::SameId { id });
        }
        check_host(id, "host", &server.host)?;
        check_host(id, "bind", server.bind())?;
        for (field, port) in server.ports() {
            if port == 0 {
                return Err(Error::PortZero { id, field });
            }
            if let Some(one) = places.insert((&server.host, port), id) {
                return Err(Error::SamePort {
                    host: server.host.clone(),
                    port,
                    one,
                    other: id,
                });
            }
        }
    }
    Ok(Cluster { servers, settings })
}

/// A host is sent to clients in a line of words, so that it may hold neither spaces nor controls.
fn check_host(id: u64, field: &'static str, host: &str) -> Result<(), Error> {
    let fits = (1..=HOST_BYTES_MAX).contains(&host.len());
    if fits && host.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(Error::Host {
        id,
        field,
        host: host.chars().take(HOST_BYTES_MAX).collect(),
    })
}

/// FNV-1a with 64 bits: stable over releases, and no defence against an attacker.
struct Fnv1a(u64);

impl Fnv1a {
    fn new() -> Fnv1a {
        Fnv1a(0xcbf2_9ce4_8422_2325)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
