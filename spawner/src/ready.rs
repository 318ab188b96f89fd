//! When the cluster can be used: a server leads, and a write has gone through the log.

use std::time::Duration;

use client::status::{self, Status};
use client::{Address, Client, Outcome};
use tokio::time::{Instant, sleep};

use crate::plan::Plan;

/// Deleted to see a write succeed. It goes through the log like any other and changes nothing:
/// nobody stores anything under such a name.
const KEY: &str = "quorate-spawner:is-the-cluster-ready";

/// How long one attempt takes; there is always another one.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(2);

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(20);

/// The cluster as it was when the first write succeeded.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    pub(crate) leader: Status,
    pub(crate) write: Duration,
}

/// Waits until the cluster can be used, for as long as that takes.
pub(crate) async fn wait(plan: &Plan) -> Ready {
    let address = |port| move |host: &str| Address::new(host, port);
    let servers = plan.servers.iter();
    let clients = servers.map(|server| address(server.client_port)(&server.host));
    let clients: Vec<Address> = clients.collect();
    loop {
        let Ok(client) = Client::connect(clients.clone(), ATTEMPT_TIME_MAX).await else {
            sleep(PAUSE).await;
            continue;
        };
        let start = Instant::now();
        let written = client.delete(KEY).await;
        let write = start.elapsed();
        if matches!(written, Outcome::Done(_))
            && let Some(leader) = leader(plan).await
        {
            return Ready { leader, write };
        }
        sleep(PAUSE).await;
    }
}

/// The status of the server that leads; of two that say so, that with the higher term.
async fn leader(plan: &Plan) -> Option<Status> {
    let deadline = Instant::now() + ATTEMPT_TIME_MAX;
    let mut leader: Option<Status> = None;
    for server in &plan.servers {
        let http = Address::new(&*server.host, server.http_port);
        let Ok(status) = status::fetch(&http, deadline).await else {
            continue;
        };
        if status.leads() && leader.as_ref().is_none_or(|known| known.term < status.term) {
            leader = Some(status);
        }
    }
    leader
}
