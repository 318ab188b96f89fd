//! The HTTP port: how the server is, for people and for what watches over it, and topics. How it is, is
//! answered from what the evaluator thread published last, so that it can't wait for it; for topics,
//! and for the whole state, the evaluator is asked, no longer than promised.

mod asker;
mod backup;
mod listener;
mod queue;
mod router;
mod status;

pub(crate) use asker::{Asker, Source};
pub(crate) use backup::Backups;
pub(crate) use listener::LimitedListener;
pub(crate) use router::{Site, router};
