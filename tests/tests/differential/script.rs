//! What is said to both servers: steps, each a command or something like one, and how their bytes
//! are cut into writes.

use std::fmt::Write;

/// A conversation of one client on a new connection.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) steps: Vec<Step>,
    /// The bytes are sent in writes of these lengths, round and round.
    pub(crate) lengths: Vec<usize>,
}

/// A command with its data block, or what resembles one. Behind it both servers are at the start of
/// a line, whatever they took it for.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) parts: Vec<Part>,
    /// Nothing of it is sent before all replies to what came before are read.
    pub(crate) waits: bool,
    /// The connection is closed over it, so it is the last.
    pub(crate) closes: bool,
}

/// A piece of what is sent.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    Bytes(Vec<u8>),
    /// A unique that this server has shown for the key: the last one, or one of those before it.
    Unique {
        key: Vec<u8>,
        age: usize,
    },
}

/// A step as the table of differences looks at it.
#[derive(Debug)]
pub(crate) struct Sent {
    bytes: Vec<u8>,
    /// The length of the first line, without its end.
    line: usize,
    /// Where what follows the first line begins.
    rest: usize,
}

/// Runs of one byte from this length on are not written out.
const RUN_BYTES_MIN: usize = 100;

impl Step {
    pub(crate) fn new(bytes: impl Into<Vec<u8>>) -> Step {
        Step {
            parts: vec![Part::Bytes(bytes.into())],
            waits: false,
            closes: false,
        }
    }

    pub(crate) fn waiting(self) -> Step {
        Step {
            waits: true,
            ..self
        }
    }

    pub(crate) fn closing(self) -> Step {
        Step {
            waits: true,
            closes: true,
            ..self
        }
    }

    /// With `1` for each unique, which is as good as any for whoever looks at the form alone.
    pub(crate) fn sent(&self) -> Sent {
        let mut bytes = Vec::new();
        for part in &self.parts {
            match part {
                Part::Bytes(piece) => bytes.extend_from_slice(piece),
                Part::Unique { .. } => bytes.push(b'1'),
            }
        }
        Sent::new(bytes)
    }
}

impl Sent {
    pub(crate) fn new(bytes: Vec<u8>) -> Sent {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let (mut line, rest) = end.map_or((bytes.len(), bytes.len()), |end| (end, end + 1));
        if line > 0 && bytes[line - 1] == b'\r' {
            line -= 1;
        }
        Sent { bytes, line, rest }
    }

    /// The first line, without its end.
    pub(crate) fn line(&self) -> &[u8] {
        &self.bytes[..self.line]
    }

    /// What stands between the spaces of the line.
    pub(crate) fn words(&self) -> Vec<&[u8]> {
        let words = self.line().split(|byte| *byte == b' ');
        words.filter(|word| !word.is_empty()).collect()
    }

    /// The word at this place, empty if there are not so many.
    pub(crate) fn word(&self, place: usize) -> &[u8] {
        self.words().get(place).copied().unwrap_or_default()
    }

    /// What follows the first line.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.bytes[self.rest..]
    }

    /// How many lines follow the first one.
    pub(crate) fn lines_behind(&self) -> usize {
        self.rest().iter().filter(|byte| **byte == b'\n').count()
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.words().last() == Some(&b"noreply".as_slice())
    }
}

impl Script {
    /// A shell's command that says the same to a server, for people.
    pub(crate) fn to_shell(&self) -> String {
        let mut text = String::from("{\n");
        for step in &self.steps {
            let mut line = String::from("  printf '");
            for part in &step.parts {
                match part {
                    Part::Bytes(bytes) => write_bytes(bytes, &mut line),
                    Part::Unique { key, age } => write!(
                        line,
                        "<unique {age} before the last of {}>",
                        key.escape_ascii()
                    )
                    .expect("a string takes all"),
                }
            }
            line.push_str("'\n");
            text.push_str(&line);
        }
        text.push_str("} | nc -q 1 127.0.0.1 11211");
        if self.lengths != [usize::MAX] {
            write!(text, "\nin writes of {:?} bytes", self.lengths).expect("a string takes all");
        }
        text
    }
}

/// Writes bytes as `printf` of a shell takes them.
fn write_bytes(bytes: &[u8], line: &mut String) {
    for run in bytes.chunk_by(|a, b| a == b) {
        let escaped = match run[0] {
            b'%' => "%%".to_owned(),
            b'\'' => "'\\''".to_owned(),
            b'\\' => "\\\\".to_owned(),
            b'\r' => "\\r".to_owned(),
            b'\n' => "\\n".to_owned(),
            byte @ 0x20..=0x7e => char::from(byte).to_string(),
            byte => format!("\\{byte:03o}"),
        };
        if run.len() < RUN_BYTES_MIN {
            line.push_str(&escaped.repeat(run.len()));
        } else {
            let length = run.len();
            write!(
                line,
                "'\"$(head -c {length} /dev/zero | tr '\\0' '{escaped}')\"'"
            )
            .expect("a string takes all");
        }
    }
}
