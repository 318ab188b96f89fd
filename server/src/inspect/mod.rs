//! `--check` and `--dump`: what the data directory of a stopped server holds, and whether it is as
//! it was written. Nothing in it is changed.

mod text;

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use bytes::Bytes;
use store::{LoadError, Viewer};
use wal::{DirectoryDisk, Error, FileReport, Finding, Holds, Seen, Verdict};

use crate::arguments::Inspect;
use crate::fatal;
use text::Output;

/// What the process exits with.
const SOUND: u8 = 0;
const DAMAGED: u8 = 1;
const NOT_CHECKED: u8 = 2;

/// Says on standard output what there is, a line for each file and one for all of it; for a dump also
/// one for each record, and for each item of a snapshot. Gives 0 if everything is sound, which a torn
/// end is, 1 if something is damaged or missing, or may be since the server is marked as recovering,
/// and 2 if that can't be told, with a line on standard error, or a snapshot is whole and no state that
/// this release can read, which its line says.
pub(crate) fn run(inspect: &Inspect) -> ExitCode {
    let mut look = Look::new(BufWriter::new(io::stdout().lock()), inspect.dump);
    let result = look.run(inspect);
    let code = result.unwrap_or_else(|error| {
        // What was found before it is worth having. If there is nobody to see it, so be it.
        let _ = look.output.flush();
        if !is_closed(&error) {
            fatal::tell(&error);
        }
        NOT_CHECKED
    });
    ExitCode::from(code)
}

/// A look at a data directory.
struct Look<W> {
    output: Output<W>,
    /// Whether records are shown. What is behind a damaged place can't be told to follow from what
    /// is before it, and is not.
    dumps_records: bool,
    dumps_items: bool,
    /// Of the snapshot that is being read.
    viewer: Viewer,
    /// Why that is no state.
    unreadable: Option<LoadError>,
    /// One of the snapshots was no state, though all of it is as it was written.
    is_unreadable: bool,
}

impl<W: Write> Look<W> {
    fn new(to: W, dumps: bool) -> Look<W> {
        Look {
            output: Output::new(to),
            dumps_records: dumps,
            dumps_items: dumps,
            viewer: Viewer::new(),
            unreadable: None,
            is_unreadable: false,
        }
    }

    /// What the process exits with.
    fn run(&mut self, inspect: &Inspect) -> Result<u8, Error> {
        let disk = DirectoryDisk::open_to_read(&inspect.data_dir)?;
        let verdict = wal::inspect(&disk, &mut |seen| self.see(seen).map_err(printed))?;
        self.output.verdict(&verdict).map_err(printed)?;
        self.output.flush().map_err(printed)?;
        Ok(match self.is_unreadable {
            true => NOT_CHECKED,
            false if is_damaged(&verdict) => DAMAGED,
            false => SOUND,
        })
    }

    fn see(&mut self, seen: Seen<'_>) -> io::Result<()> {
        match seen {
            Seen::Record {
                file,
                offset,
                header,
                payload,
            } if self.dumps_records => self.output.record(file, offset, header, payload),
            Seen::Record { .. } => Ok(()),
            Seen::Piece { file, content } => self.piece(file, &content),
            Seen::File(report) => {
                self.dumps_records &= !matches!(report.finding, Finding::Damaged(_));
                self.output.file(&report)?;
                self.end_of_file(&report)
            }
        }
    }

    /// Looks at the next piece of a snapshot.
    fn piece(&mut self, file: &str, content: &Bytes) -> io::Result<()> {
        let (output, dumps) = (&mut self.output, self.dumps_items);
        let mut shown = Ok(());
        let pushed = self.viewer.push(content, &mut |view| {
            if dumps && shown.is_ok() {
                shown = output.view(file, view);
            }
        });
        self.unreadable = pushed.err();
        shown
    }

    /// Says whether a snapshot that is as it was written is one that this release can read.
    fn end_of_file(&mut self, report: &FileReport<'_>) -> io::Result<()> {
        let viewer = std::mem::take(&mut self.viewer);
        let unreadable = self.unreadable.take();
        if !matches!(report.holds, Holds::Snapshot { .. }) {
            return Ok(());
        }
        match unreadable.map_or_else(|| viewer.finish(), Err) {
            Ok(()) => Ok(()),
            Err(problem) => {
                self.is_unreadable = true;
                self.output.unreadable(report.file, problem)
            }
        }
    }
}

fn is_damaged(verdict: &Verdict) -> bool {
    let recovers = verdict.start.as_ref().is_ok_and(|it| it.recovering);
    verdict.damaged > 0 || recovers
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

#[cfg(test)]
mod tests {
    use raft::{Index, Position, Snapshot, Term};

    use super::*;

    #[test]
    fn a_snapshot_that_is_no_state_of_this_release_is_named_and_not_called_sound() {
        let mut bytes = Vec::new();
        let mut look = Look::new(&mut bytes, true);
        let content = Bytes::from_static(&[255; 100]);
        let report = FileReport {
            file: "a.snap",
            holds: Holds::Snapshot {
                snapshot: Snapshot {
                    position: Position {
                        term: Term(1),
                        index: Index(7),
                    },
                    configuration: None,
                },
                content_bytes: 100,
                is_reached: true,
            },
            finding: Finding::Sound,
        };
        let piece = Seen::Piece {
            file: "a.snap",
            content,
        };
        look.see(piece).expect("a vector takes all");
        look.see(Seen::File(report)).expect("a vector takes all");
        assert!(look.is_unreadable);
        drop(look);
        let lines = String::from_utf8(bytes).expect("text");
        let last = lines.lines().last();
        assert_eq!(
            last,
            Some("a.snap: no state that this release can read: snapshot version 255 is unknown")
        );
    }
}
