//! What a cluster is to be like, before it is there.

use crate::cluster::Cluster;
use crate::programs::Programs;

/// A cluster to be started.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) programs: Programs,
    pub(crate) servers: u64,
    pub(crate) settings: Vec<(String, String)>,
}

impl Plan {
    /// This many servers with the default settings.
    #[must_use]
    pub fn new(programs: Programs, servers: u64) -> Plan {
        Plan {
            programs,
            servers,
            settings: Vec::new(),
        }
    }

    /// The same with this setting (named as in `[settings]`) on all servers.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Plan {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same with an election timeout that no starved machine reaches, for tests that are about
    /// anything but elections.
    #[must_use]
    pub fn patient(self) -> Plan {
        self.setting("election_timeout_ms", "600..1200")
            .setting("heartbeat_ms", "100")
    }

    /// The same with snapshots often, and little log beside them, in short segments.
    #[must_use]
    pub fn snapshots_often(self) -> Plan {
        self.setting("snapshot_entries", "300")
            .setting("log_segment_bytes", "32768")
            .setting("log_kept_bytes", "65536")
    }

    /// Starts all servers and waits until the cluster takes writes.
    #[must_use]
    pub fn start(self) -> Cluster {
        let mut cluster = self.prepare();
        cluster.start_all();
        cluster.leader();
        cluster
    }

    /// Everything but the processes: ports, directory, cluster.toml.
    #[must_use]
    pub fn prepare(self) -> Cluster {
        Cluster::prepare(self)
    }
}
