//! What is to be started: the members, their ports and directories. Everything that can be seen to
//! fail is refused here, before any process is started.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};
use cluster::{Cluster, SERVERS_MAX, Server};
use thiserror::Error;

const HOST: &str = "127.0.0.1";

/// How far the ports of a server are from those of the one before.
const PORTS_EACH: u16 = 10;

/// Starts a whole quorate cluster on this machine, and stops it on Ctrl-C.
#[derive(Clone, Debug, Parser)]
#[command(name = "quorate-spawner", version)]
pub(crate) struct Arguments {
    /// How many servers
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=SERVERS_MAX as i64))]
    servers: u16,
    /// The client port of server 1; its RPC port is one above it, its HTTP port two, and the ports
    /// of each further server are ten above those of the one before
    #[arg(long, default_value_t = 9000, value_parser = clap::value_parser!(u16).range(1..))]
    base_port: u16,
    /// Where the servers keep their data; it is used again when it is there
    #[arg(long, default_value = "quorate-data")]
    data_dir: PathBuf,
    /// What a server that is not the leader does with a client's command
    #[arg(long, value_enum)]
    pub(crate) followers: Option<Followers>,
    /// Begin with the state of this backup: the servers have no data yet
    #[arg(long, value_name = "FILE")]
    pub(crate) restore: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Followers {
    /// Answers with the address of the leader
    Redirect,
    /// Sends it to the leader and gives back the reply
    Forward,
}

/// A cluster that can be started.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) servers: Vec<Server>,
    /// The cluster.toml, which is there.
    pub(crate) config: PathBuf,
    data_dir: PathBuf,
}

/// Why it can't be started. Each is one line.
#[derive(Debug, Error)]
pub(crate) enum PlanError {
    #[error("there are no ports for {servers} servers from {base_port} on")]
    Ports { servers: u16, base_port: u16 },
    #[error("{}: {error}", path.display())]
    Path { path: PathBuf, error: io::Error },
    #[error("{}: {error}", config.display())]
    Cluster {
        config: PathBuf,
        error: cluster::Error,
    },
    #[error(
        "{} holds a cluster of {found} server(s), not of {asked}: add --servers {found}, or \
         choose another --data-dir",
        data_dir.display(),
    )]
    OtherSize {
        data_dir: PathBuf,
        found: usize,
        asked: usize,
    },
    #[error(
        "{} holds a cluster with other ports (server 1 has {found}): add --base-port {found}, or \
         choose another --data-dir",
        data_dir.display(),
    )]
    OtherPorts { data_dir: PathBuf, found: u16 },
    #[error("port {port} can't be used as server {id}'s {use_of_it} port: {error}")]
    Port {
        id: u64,
        use_of_it: &'static str,
        port: u16,
        error: io::Error,
    },
}

impl Plan {
    /// Makes the data directory and its cluster.toml, unless they are there from another time.
    pub(crate) fn prepare(arguments: &Arguments) -> Result<Plan, PlanError> {
        let servers = servers(arguments.servers, arguments.base_port)?;
        let data_dir = arguments.data_dir.clone();
        let config = data_dir.join("cluster.toml");
        let found = read(&config)?;
        if let Some(cluster) = &found {
            check_same(cluster, &servers, &data_dir)?;
        }
        check_ports(&servers)?;
        if found.is_none() {
            write(&data_dir, &config, &servers)?;
        }
        Ok(Plan {
            servers,
            config,
            data_dir,
        })
    }

    /// Where a server keeps its data.
    pub(crate) fn directory(&self, id: u64) -> PathBuf {
        self.data_dir.join(format!("server-{id}"))
    }

    /// Whether the cluster is the one that `quorate-client` talks to without being told.
    pub(crate) fn is_usual(&self) -> bool {
        self.servers.len() == 5 && self.servers[0].client_port == 9000
    }
}

fn servers(servers: u16, base_port: u16) -> Result<Vec<Server>, PlanError> {
    let error = || PlanError::Ports { servers, base_port };
    let server = |number: u16| {
        let first = number.checked_mul(PORTS_EACH)?.checked_add(base_port)?;
        Some(Server {
            id: u64::from(number) + 1,
            host: HOST.to_owned(),
            client_port: first,
            rpc_port: first.checked_add(1)?,
            http_port: first.checked_add(2)?,
            bind: None,
        })
    };
    (0..servers)
        .map(|number| server(number).ok_or_else(error))
        .collect()
}

/// The cluster that this file describes; `None` if there is no such file.
fn read(config: &Path) -> Result<Option<Cluster>, PlanError> {
    let text = match fs::read_to_string(config) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(config)(error)),
    };
    let cluster = Cluster::parse(&text).map_err(|error| PlanError::Cluster {
        config: config.to_owned(),
        error,
    })?;
    Ok(Some(cluster))
}

fn check_same(cluster: &Cluster, servers: &[Server], data_dir: &Path) -> Result<(), PlanError> {
    let data_dir = data_dir.to_owned();
    let (found, asked) = (cluster.servers().len(), servers.len());
    if found != asked {
        return Err(PlanError::OtherSize {
            data_dir,
            found,
            asked,
        });
    }
    if cluster.servers() != servers {
        let found = cluster.servers()[0].client_port;
        return Err(PlanError::OtherPorts { data_dir, found });
    }
    Ok(())
}

/// Tries each port; a server that can't have one says so too, but among the lines of the others.
fn check_ports(servers: &[Server]) -> Result<(), PlanError> {
    for server in servers {
        let ports = [
            ("client", server.client_port),
            ("RPC", server.rpc_port),
            ("HTTP", server.http_port),
        ];
        for (use_of_it, port) in ports {
            TcpListener::bind((HOST, port)).map_err(|error| PlanError::Port {
                id: server.id,
                use_of_it,
                port,
                error,
            })?;
        }
    }
    Ok(())
}

/// Writes the cluster.toml, or nothing: half a file would be in the way of the next start.
fn write(data_dir: &Path, config: &Path, servers: &[Server]) -> Result<(), PlanError> {
    let cluster = Cluster::new(servers.to_vec()).map_err(|error| PlanError::Cluster {
        config: config.to_owned(),
        error,
    })?;
    fs::create_dir_all(data_dir).map_err(at(data_dir))?;
    let draft = data_dir.join("cluster.toml.draft");
    fs::write(&draft, cluster.to_toml()).map_err(at(&draft))?;
    fs::rename(&draft, config).map_err(at(config))
}

fn at(path: &Path) -> impl Fn(io::Error) -> PlanError {
    move |error| PlanError::Path {
        path: path.to_owned(),
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_i_has_three_ports_from_10_times_i_on() {
        let servers = servers(5, 9000).unwrap();
        let ports: Vec<_> = servers
            .iter()
            .map(|server| {
                (
                    server.id,
                    server.client_port,
                    server.rpc_port,
                    server.http_port,
                )
            })
            .collect();
        assert_eq!(ports[0], (1, 9000, 9001, 9002));
        assert_eq!(ports[4], (5, 9040, 9041, 9042));
        assert_eq!(ports.len(), 5);
    }

    #[test]
    fn ports_end_at_65535() {
        assert!(servers(2, 65_523).is_ok());
        assert!(servers(2, 65_524).is_err());
        assert!(servers(19, u16::MAX).is_err());
    }
}
