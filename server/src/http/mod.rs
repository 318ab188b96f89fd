//! The HTTP port: how the server is, for people and for what watches over it. Everything is
//! answered from what the evaluator thread published last, so that nothing here can wait for it;
//! but for the whole state, which is asked for once in a while.

mod backup;
mod listener;
mod router;
mod status;

pub(crate) use backup::{Backups, Source};
pub(crate) use listener::LimitedListener;
pub(crate) use router::{Site, router};
