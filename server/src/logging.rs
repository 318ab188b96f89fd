//! Log lines on standard error.

use std::io::IsTerminal;

use cluster::{LogFormat, Settings};
use tracing_subscriber::EnvFilter;

use crate::error::Error;

/// From here on, what `settings` asks for is printed.
pub(crate) fn start(settings: &Settings) -> Result<(), Error> {
    let filter = EnvFilter::try_new(&settings.log_level).map_err(|error| Error::LogLevel {
        problem: error.to_string(),
    })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    // A second server in one process keeps the first one's log.
    let _ = match settings.log_format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
    Ok(())
}
