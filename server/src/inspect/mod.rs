//! `--check` and `--dump`: what the data directory of a stopped server holds, and whether it is as
//! it was written. Nothing in it is changed.

mod text;

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use wal::{DirectoryDisk, Error, Finding, Seen, Verdict};

use crate::arguments::Inspect;
use crate::fatal;
use text::Output;

/// What the process exits with.
const SOUND: u8 = 0;
const DAMAGED: u8 = 1;
const NOT_CHECKED: u8 = 2;

/// Says on standard output what there is, a line for each file and one for all of it; for a dump
/// also one for each record. Gives 0 if everything is sound, which a torn end is, 1 if something is
/// damaged or missing, or may be since the server is marked as recovering, and 2, with a line on
/// standard error, if that can't be told.
pub(crate) fn run(inspect: &Inspect) -> ExitCode {
    let mut output = Output::new(BufWriter::new(io::stdout().lock()));
    let result = look(inspect, &mut output).and_then(|verdict| {
        output.verdict(&verdict).map_err(printed)?;
        output.flush().map_err(printed)?;
        let recovers = verdict.start.as_ref().is_ok_and(|it| it.recovering);
        let is_damaged = verdict.damaged > 0 || recovers;
        Ok(if is_damaged { DAMAGED } else { SOUND })
    });
    let code = result.unwrap_or_else(|error| {
        // What was found before it is worth having. If there is nobody to see it, so be it.
        let _ = output.flush();
        if !is_closed(&error) {
            fatal::tell(&error);
        }
        NOT_CHECKED
    });
    ExitCode::from(code)
}

fn look(inspect: &Inspect, output: &mut Output<impl Write>) -> Result<Verdict, Error> {
    let disk = DirectoryDisk::open_to_read(&inspect.data_dir)?;
    let mut dumps = inspect.dump;
    wal::inspect(&disk, &mut |seen| {
        let printed_so_far = match seen {
            Seen::Record {
                file,
                offset,
                header,
                payload,
            } if dumps => output.record(file, offset, header, payload),
            Seen::Record { .. } | Seen::Piece { .. } => Ok(()),
            Seen::File(report) => {
                // What is behind a damaged place can't be told to follow from what is before it.
                dumps &= !matches!(report.finding, Finding::Damaged(_));
                output.file(&report)
            }
        };
        printed_so_far.map_err(printed)
    })
}

/// What a failure to print is to those who read the directory.
fn printed(source: io::Error) -> Error {
    Error::Io {
        file: PathBuf::from("standard output"),
        operation: "write",
        source,
    }
}

/// Whether nobody reads what is printed any more, as behind `| head`.
fn is_closed(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
}
