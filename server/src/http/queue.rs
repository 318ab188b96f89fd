//! Topics by REST: the same commands as by text. Bodies have exactly the members that are promised.
//!
//! A follower answers 400, never a redirect; in forward mode it forwards. What is not committed within
//! 0.8 s is 408: it may have been carried out, or may still be.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use command::{
    Command, Key, MessageBytes, Outcome, Refusal, Reply, Take, TopicChange, TopicSettings,
    TopicWrite, Write,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::router::Site;

/// So long a command may take.
const COMMIT_MAX: Duration = Duration::from_millis(800);

/// The largest body of a request. One that is larger is answered 413.
pub(super) const BODY_BYTES_MAX: usize = 1 << 20;

/// `PUT /topic`. Other members are passed over.
#[derive(Debug, Deserialize)]
struct NewTopic {
    topic: String,
}

/// `PUT /message`.
#[derive(Debug, Deserialize)]
struct NewMessage {
    topic: String,
    message: String,
}

#[derive(Debug, Serialize)]
struct Success {
    success: bool,
}

#[derive(Debug, Serialize)]
struct Topics {
    success: bool,
    topics: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Taken {
    success: bool,
    message: String,
}

type Body = Result<Bytes, BytesRejection>;

/// `PUT /topic`.
pub(super) async fn create(State(site): State<Arc<Site>>, body: Body) -> Response {
    let NewTopic { topic } = match read(body) {
        Ok(new) => new,
        Err(status) => return failure(status),
    };
    let Some(topic) = name(&topic) else {
        return failure(StatusCode::BAD_REQUEST);
    };
    let change = TopicChange::Create(TopicSettings::default());
    match ask(&site, topic, change, 0).await {
        Ok(Reply::Created) => success(),
        Ok(_) => failure(StatusCode::BAD_REQUEST),
        Err(status) => failure(status),
    }
}

/// `GET /topic`.
pub(super) async fn list(State(site): State<Arc<Site>>) -> Response {
    let Some(topics) = site.asker.topics(COMMIT_MAX).await else {
        return failure(StatusCode::SERVICE_UNAVAILABLE);
    };
    let names = topics.iter().map(|line| text(line.topic.as_bytes()));
    answer(Topics {
        success: true,
        topics: names.collect(),
    })
}

/// `PUT /message`.
pub(super) async fn push(State(site): State<Arc<Site>>, body: Body) -> Response {
    let NewMessage { topic, message } = match read(body) {
        Ok(new) => new,
        Err(status) => return failure(status),
    };
    let Some(topic) = name(&topic) else {
        return failure(no_such_topic(&site, StatusCode::NOT_FOUND));
    };
    let bytes = message.len();
    if topic.as_bytes().len() + bytes + command::ITEM_OVERHEAD_BYTES > site.item_bytes_max {
        return failure(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let change = TopicChange::Push {
        message: Bytes::from(message),
        priority: 0,
        delay: 0,
    };
    match ask(&site, topic, change, bytes).await {
        Ok(Reply::Pushed(_)) => success(),
        Ok(Reply::NotFound) => failure(StatusCode::NOT_FOUND),
        Ok(_) => failure(StatusCode::BAD_REQUEST),
        Err(status) => failure(status),
    }
}

/// `GET /message/{topic}`.
pub(super) async fn get(method: Method, State(site): State<Arc<Site>>, uri: Uri) -> Response {
    // Where there is a GET there is a HEAD, which is to change nothing.
    if method == Method::HEAD {
        let allowed = [(header::ALLOW, "GET")];
        return (StatusCode::METHOD_NOT_ALLOWED, allowed).into_response();
    }
    let topic = uri.path().strip_prefix("/message/");
    pop(&site, topic.unwrap_or_default()).await
}

/// `POST /message/{topic}/pop`.
pub(super) async fn post(State(site): State<Arc<Site>>, uri: Uri) -> Response {
    let topic = uri.path().strip_prefix("/message/");
    let topic = topic.and_then(|rest| rest.strip_suffix("/pop"));
    pop(&site, topic.unwrap_or_default()).await
}

/// Takes the first message of a topic whose name is percent-encoded.
async fn pop(site: &Site, topic: &str) -> Response {
    let take = TopicChange::Take(Take { ttr: None, wait: 0 });
    let Some(topic) = protocol::topic_name(topic.as_bytes()) else {
        return failure(no_such_topic(site, StatusCode::OK));
    };
    match ask(site, topic, take, 0).await {
        Ok(Reply::Message(message)) => answer(Taken {
            success: true,
            message: taken(&message.data),
        }),
        Ok(_) => failure(StatusCode::OK),
        Err(status) => failure(status),
    }
}

/// With what a name is answered that no topic can have: as the leader answers one that is not there.
fn no_such_topic(site: &Site, status: StatusCode) -> StatusCode {
    let newest = site.view.now();
    let asks_leader = site.view.leads() || newest.is_some_and(|newest| newest.status.forwards);
    match asks_leader {
        true => status,
        false => StatusCode::BAD_REQUEST,
    }
}

fn taken(message: &MessageBytes) -> String {
    text(message.as_slice())
}

/// JSON knows no bytes: what is no UTF-8 is replaced.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn name(topic: &str) -> Option<Key> {
    Key::new(Bytes::copy_from_slice(topic.as_bytes()))
}

/// The members of a body, or with which status it is refused.
fn read<T: DeserializeOwned>(body: Body) -> Result<T, StatusCode> {
    let body = body.map_err(|rejection| rejection.status())?;
    let Json(members) = Json::from_bytes(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
    Ok(members)
}

/// What has become of a change of a topic, or the status that says that it was not carried out, or
/// that nobody knows.
async fn ask(
    site: &Site,
    topic: Key,
    change: TopicChange,
    bytes: usize,
) -> Result<Reply, StatusCode> {
    let command = Command::Write(Write::Topic(TopicWrite { topic, change }));
    let outcome = site.asker.ask(command, bytes, false, COMMIT_MAX).await;
    match outcome {
        Some(Outcome::Done(reply)) => Ok(reply),
        // A leader that has lost its majority.
        Some(Outcome::NotDone(Refusal::NoLeader)) if is_leader(site) => {
            Err(StatusCode::REQUEST_TIMEOUT)
        }
        Some(Outcome::NotDone(_)) => Err(StatusCode::BAD_REQUEST),
        Some(Outcome::Unknown) => Err(StatusCode::REQUEST_TIMEOUT),
        None if site.asker.source().is_none() => Err(StatusCode::BAD_REQUEST),
        None => Err(StatusCode::REQUEST_TIMEOUT),
    }
}

/// Whether `/status` says so.
fn is_leader(site: &Site) -> bool {
    let newest = site.view.now();
    newest.is_some_and(|newest| newest.status.role == "Leader")
}

fn success() -> Response {
    answer(Success { success: true })
}

fn failure(status: StatusCode) -> Response {
    (status, answer(Success { success: false })).into_response()
}

fn answer(body: impl Serialize) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}
