//! `quorate-client snapshot save`: how it goes, and what it came to.

use std::io::{self, IsTerminal};
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::servers::Server;
use super::{Exit, Form, Global, print};
use crate::backup::{SaveError, Saved, save};

/// Saves a backup. Whoever is interrupted leaves nothing.
pub(super) async fn run(file: &Path, servers: &[Server], global: &Global) -> Exit {
    let addresses: Vec<_> = servers.iter().map(|server| server.http.clone()).collect();
    let bar = match io::stderr().is_terminal() && global.form() == Form::Text {
        true => ProgressBar::new_spinner().with_style(style()),
        false => ProgressBar::hidden(),
    };
    let mut progress = |bytes| bar.set_position(bytes);
    // From before there is anything to be left.
    let interrupted = interrupted();
    let saved = tokio::select! {
        saved = save(&addresses, file, global.timeout, &mut progress) => saved,
        () = interrupted => {
            bar.finish_and_clear();
            print::not_done(&"interrupted", global.form());
            return Exit::Unreachable;
        }
    };
    bar.finish_and_clear();
    match saved {
        Ok(saved) => {
            show(file, &saved, global.form());
            Exit::Ok
        }
        Err(error) => {
            print::not_done(&error, global.form());
            match error {
                SaveError::File { .. }
                | SaveError::NoRegularFile { .. }
                | SaveError::Name { .. } => Exit::Usage,
                SaveError::Unreachable { .. }
                | SaveError::BrokenOff { .. }
                | SaveError::NotWhole(_) => Exit::Unreachable,
            }
        }
    }
}

fn show(file: &Path, saved: &Saved, form: Form) {
    let file = file.display();
    let Saved {
        bytes,
        backup,
        cluster,
        index,
        term,
    } = saved;
    match form {
        Form::Text => print::text(&format!(
            "saved {file}: {bytes} bytes, backup {backup} of cluster {cluster} up to index {index} \
             of term {term}"
        )),
        Form::Json => print::json(&json!({
            "file": file.to_string(),
            "bytes": bytes,
            "backup": backup,
            "cluster": cluster,
            "index": index,
            "term": term,
        })),
    }
}

fn style() -> ProgressStyle {
    let style = ProgressStyle::with_template("{spinner} {bytes} saved, {bytes_per_sec}");
    style.unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// Comes to an end with SIGINT or SIGTERM, which end the process no more from now on.
fn interrupted() -> impl Future<Output = ()> {
    let signals = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    );
    async move {
        let (Ok(mut interrupt), Ok(mut terminate)) = signals else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}
