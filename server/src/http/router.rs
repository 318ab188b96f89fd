//! Which path answers what. Anything else is 404.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use raft::ServerId;

use super::asker::Asker;
use super::backup::{self, Backups};
use super::queue;
use super::status::StatusBody;
use crate::client::Counters;
use crate::peer::Queue;
use crate::published::View;
use crate::scrub_thread;
use crate::snapshots::Figures;

/// What the answers are made of.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) view: View,
    pub(crate) clients: Arc<Counters>,
    pub(crate) queues: BTreeMap<ServerId, Arc<Queue>>,
    pub(crate) snapshots: Arc<Figures>,
    pub(crate) scrubs: Arc<scrub_thread::Figures>,
    pub(crate) backups: Arc<Backups>,
    pub(crate) asker: Arc<Asker>,
    /// The largest item: key + value + 56.
    pub(crate) item_bytes_max: usize,
}

/// All paths of the HTTP port.
pub(crate) fn router(site: Site) -> Router {
    Router::new()
        .route("/", get(front))
        .route("/status", get(status))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/snapshot", get(snapshot))
        .route("/topic", put(queue::create).get(queue::list))
        .route("/message", put(queue::push))
        .route("/message/{topic}", get(queue::get))
        .route("/message/{topic}/pop", post(queue::post))
        .layer(DefaultBodyLimit::max(queue::BODY_BYTES_MAX))
        .with_state(Arc::new(site))
}

async fn status(State(site): State<Arc<Site>>) -> Response {
    let fresh = [(header::CACHE_CONTROL, "no-store")];
    (fresh, Json(StatusBody::new(&site))).into_response()
}

/// Whether the process works.
async fn healthz(State(site): State<Arc<Site>>) -> Response {
    verdict(site.view.is_alive(), "ok", "the evaluator does not turn")
}

/// Whether it can serve clients, or tell them who does.
async fn readyz(State(site): State<Arc<Site>>) -> Response {
    let newest = site.view.now().filter(|_| site.view.is_alive());
    let (ready, why) = newest.map_or((false, "no leader is known"), |newest| {
        let status = &newest.status;
        match status.leader {
            _ if status.differs_at.is_some() => (false, "its state is not that of a majority"),
            _ if status.recovering => (false, "it gets back from its peers what its disk has lost"),
            None => (false, "no leader is known"),
            Some(leader) if leader == status.id => (status.serves, "the log is being applied"),
            Some(_) => (true, ""),
        }
    });
    verdict(ready, "ok", why)
}

async fn snapshot(State(site): State<Arc<Site>>) -> Response {
    backup::answer(&site).await
}

fn verdict(good: bool, yes: &str, no: &str) -> Response {
    let (status, text) = match good {
        true => (StatusCode::OK, yes),
        false => (StatusCode::SERVICE_UNAVAILABLE, no),
    };
    (status, format!("{text}\n")).into_response()
}

async fn front(State(site): State<Arc<Site>>) -> String {
    let server = &site.view.server;
    let StatusBody {
        role, term, leader, ..
    } = StatusBody::new(&site);
    let leader = leader.map_or("none is known".to_owned(), |id| format!("server {id}"));
    format!(
        "quorate server {}\n\n\
         role     {role} in term {term}\n\
         leader   {leader}\n\
         clients  {}:{} (memcached's text protocol)\n\n\
         /status   how it is, as JSON\n\
         /healthz  whether the process works\n\
         /readyz   whether it can serve or redirect\n\
         /topic    the topics, as JSON\n\
         /snapshot  the whole state, from the leader: quorate-client snapshot save FILE\n",
        server.id, server.host, server.client_port,
    )
}
