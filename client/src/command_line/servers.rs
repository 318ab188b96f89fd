//! Which servers the command line means, and where each is asked for its status.

use std::path::PathBuf;

use cluster::Cluster;
use thiserror::Error;

use super::Global;
use crate::Address;

/// How far the HTTP port is above the client port, unless a cluster.toml says otherwise.
const HTTP_PORT_ABOVE: u16 = 2;

/// One server as the command line names it.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// Known from a cluster.toml alone.
    pub(super) id: Option<u64>,
    pub(super) client: Address,
    pub(super) http: Address,
}

/// The cluster.toml is of no use.
#[derive(Debug, Error)]
pub(super) enum ServersError {
    #[error("{}: {error}", file.display())]
    Read {
        file: PathBuf,
        error: std::io::Error,
    },
    #[error("{}: {error}", file.display())]
    Cluster {
        file: PathBuf,
        error: cluster::Error,
    },
}

/// The servers of `--config`, or else of `--servers`: at least one.
pub(super) fn given(global: &Global) -> Result<Vec<Server>, ServersError> {
    let Some(file) = &global.config else {
        return Ok(global.servers.iter().map(with_usual_ports).collect());
    };
    let text = std::fs::read_to_string(file).map_err(|error| ServersError::Read {
        file: file.clone(),
        error,
    })?;
    let cluster = Cluster::parse(&text).map_err(|error| ServersError::Cluster {
        file: file.clone(),
        error,
    })?;
    let server = |server: &cluster::Server| Server {
        id: Some(server.id),
        client: Address::new(&*server.host, server.client_port),
        http: Address::new(&*server.host, server.http_port),
    };
    Ok(cluster.servers().iter().map(server).collect())
}

fn with_usual_ports(client: &Address) -> Server {
    Server {
        id: None,
        client: client.clone(),
        http: Address::new(&*client.host, client.port.saturating_add(HTTP_PORT_ABOVE)),
    }
}
