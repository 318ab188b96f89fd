//! Reading the log back at start, and telling a torn end from corruption.
//!
//! A batch counts once its last record is there, so a write of the core is in the log wholly or
//! not at all. The first place where no valid record is ends the log, and is one of two things:
//!
//! - *Torn*: the batch that starts there or reaches over it was never synced, and so nothing in it
//!   was acknowledged. That holds if the place is in the last segment and not below the synced
//!   mark, if it looks like sectors that did not reach the disk (a header all zeros, or a payload
//!   with more parts of zeros than its header counts), and if no record of a later batch is
//!   behind it, since a batch is only written when the one before is synced. The whole batch is
//!   erased.
//! - *Corrupt*: everything else. Nothing is changed.
//!
//! One thing can't be told from a torn batch, and lies outside what the log survives: a disk that
//! said that the newest batch was synced, and lost a sector of it (or the only bit that was set
//! in one) before the mark was moved on.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use mutants::Mutant;
use raft::{Entry, EntryKind, HardState, Position};

use crate::contents::Contents;
use crate::disk::Disk;
use crate::error::{Error, Problem};
use crate::inspect::{Seen, Tally};
use crate::mend::mend;
use crate::meta::Mark;
use crate::reader::{Place, Places};
use crate::record::{
    Chain, HEADER_BYTES, Header, Invalid, Kind, VERSION, checksum, decode_hard_state, header_start,
    is_zero, zero_parts,
};
use crate::segment::{
    Identity, SEGMENT_HEADER_BYTES, Segment, SegmentHeader, Unreadable, block_start, parse_name,
};
use crate::window::Window;

/// A batch at the end of the log that was never synced, and is erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    pub file: PathBuf,
    /// Where the log ends.
    pub offset: u64,
    /// How many bytes of the batch there were.
    pub bytes: u64,
}

/// What the segments held.
pub(crate) struct Log<F> {
    pub(crate) contents: Contents,
    pub(crate) configurations: Vec<Entry>,
    pub(crate) places: Places,
    /// The last batch.
    pub(crate) batch: u64,
    /// The last segment.
    pub(crate) segment: Segment<F>,
    pub(crate) chain: Chain,
    /// That segment has its end record: the log has to go on in the next one, which was not made.
    pub(crate) has_ended: bool,
    pub(crate) torn: Option<Torn>,
    /// Segments that the log does without: what is in them was given up or dropped.
    pub(crate) useless: Vec<String>,
}

/// Reads all segments among these names, and erases a torn end. `None` if there is no segment
/// and never was one. What it returns is durable. Whether it may begin where it does is for the
/// caller to say, who knows the snapshots.
pub(crate) fn recover<D: Disk>(
    disk: &D,
    identity: Identity,
    mark: Mark,
    names: &[String],
) -> Result<Option<Log<D::File>>, Error> {
    let Segments { names, useless } = segments(disk, mark, names)?;
    let mut scan = Scan::new(disk, identity, mark, Some(Places::default()), |_| Ok(()));
    let mut last = None;
    for (at, name) in names.iter().enumerate() {
        last = Some(scan.segment(name, at + 1 == names.len())?);
    }
    let Some(scanned) = last else {
        return Ok(None);
    };
    mend(disk, &scanned)?;
    Ok(Some(Log {
        contents: scan.contents,
        configurations: scan.configurations,
        places: scan.places.expect("it was given some"),
        batch: scan.batch,
        segment: scanned.segment,
        chain: scan.chain,
        has_ended: scan.has_ended,
        torn: scanned.torn,
        useless,
    }))
}

/// The names of segments.
pub(crate) struct Segments<'a> {
    /// Those of the log, in order and none missing.
    pub(crate) names: Vec<&'a String>,
    pub(crate) useless: Vec<String>,
}

/// Of all segments those that are the log: the last ones without a gap, from the last one that
/// begins a log on. What is before a gap was dropped for a snapshot, and came back or was not yet
/// gone at a crash; or else the log begins too late for the snapshot.
pub(crate) fn segments<'a, D: Disk>(
    disk: &D,
    mark: Mark,
    names: &'a [String],
) -> Result<Segments<'a>, Error> {
    let mut segments: Vec<_> = names
        .iter()
        .filter_map(|name| Some((parse_name(name)?.0, name)))
        .collect();
    segments.sort_unstable();
    let last = segments.last().map_or(0, |(sequence, _)| *sequence);
    if last < mark.segment {
        return Err(missing(disk, last + 1));
    }
    let mut first = segments.len();
    for (at, (sequence, name)) in segments.iter().enumerate().rev() {
        if sequence + (segments.len() - 1 - at) as u64 != last {
            break;
        }
        first = at;
        if begins(disk, name)? {
            break;
        }
    }
    let names = segments.split_off(first);
    Ok(Segments {
        names: names.into_iter().map(|(_, name)| name).collect(),
        useless: segments.into_iter().map(|(_, name)| name.clone()).collect(),
    })
}

/// The error for a segment that is not there.
pub(crate) fn missing<D: Disk>(disk: &D, sequence: u64) -> Error {
    Error::Missing {
        file: disk.path().join(segments_named(sequence)),
    }
}

/// The names that a segment may have, as far as its sequence tells.
pub(crate) fn segments_named(sequence: u64) -> String {
    format!("wal-{sequence:016x}-*.log")
}

/// True if the log begins with this segment. One that can't be read is complained of later.
fn begins<D: Disk>(disk: &D, name: &str) -> Result<bool, Error> {
    Ok(header_of(disk, name)?.is_some_and(|header| header.begins))
}

/// The header of this segment, if it can be read.
pub(crate) fn header_of<D: Disk>(disk: &D, name: &str) -> Result<Option<SegmentHeader>, Error> {
    let window = Window::open(disk, name)?;
    if window.file_bytes < SEGMENT_HEADER_BYTES as u64 {
        return Ok(None);
    }
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    window.read_header(&mut bytes)?;
    Ok(SegmentHeader::decode(&bytes).ok())
}

/// One effect of a batch that is not known to be whole yet, with the offset of its record.
struct Step {
    offset: u64,
    /// The chain behind it.
    chain: Chain,
    effect: Effect,
}

enum Effect {
    Entry(Position, Option<Bytes>),
    HardState(HardState),
    Truncate(Position),
    End(Position),
}

/// A place where no valid record is.
struct Bad {
    offset: u64,
    problem: Problem,
    /// It looks like sectors that did not reach the disk.
    incomplete: bool,
}

/// A segment that was read.
pub(crate) struct Scanned<F> {
    pub(crate) segment: Segment<F>,
    pub(crate) torn: Option<Torn>,
    /// The block in which the last whole batch of the log begins.
    pub(crate) again_from: u64,
    /// The verified bytes from there to the end of the batch.
    pub(crate) again: Vec<u8>,
}

/// Reads segments in order, and changes nothing.
pub(crate) struct Scan<'a, D: Disk, S> {
    disk: &'a D,
    identity: Identity,
    mark: Mark,
    pub(crate) contents: Contents,
    pub(crate) configurations: Vec<Entry>,
    /// `None` if nobody wants to know where the entries are.
    places: Option<Places>,
    /// The segment that was begun last.
    current: Option<SegmentHeader>,
    batch: u64,
    chain: Chain,
    has_ended: bool,
    /// Of the segment that was begun last.
    pub(crate) tally: Tally,
    /// What the batch that is being read came to so far.
    steps: Vec<Step>,
    /// Is shown each record, before it is known that its batch is whole.
    pub(crate) see: S,
}

impl<'a, D: Disk, S: FnMut(Seen<'_>) -> Result<(), Error>> Scan<'a, D, S> {
    pub(crate) fn new(
        disk: &'a D,
        identity: Identity,
        mark: Mark,
        places: Option<Places>,
        see: S,
    ) -> Scan<'a, D, S> {
        Scan {
            disk,
            identity,
            mark,
            contents: Contents::default(),
            configurations: Vec::new(),
            places,
            current: None,
            batch: 0,
            chain: Chain::default(),
            has_ended: false,
            tally: Tally::default(),
            steps: Vec::new(),
            see,
        }
    }

    pub(crate) fn segment(&mut self, name: &str, is_last: bool) -> Result<Scanned<D::File>, Error> {
        self.tally = Tally::default();
        let mut window = Window::open(self.disk, name)?;
        let header = self.header(name, &mut window)?;
        self.current = Some(header);
        if let Some(places) = &mut self.places {
            places.segments.push_back(Arc::new(header));
        }
        self.has_ended = false;
        // Where the last whole batch begins and ends, and where the last record ends.
        let mut begin = SEGMENT_HEADER_BYTES as u64;
        let mut whole = begin;
        let mut end = whole;
        let mut torn = None;
        while !self.has_ended {
            match self.record(&header, &mut window, end)? {
                Ok((record_end, last)) => {
                    end = record_end;
                    if last {
                        self.apply(name)?;
                        begin = whole;
                        whole = end;
                    }
                }
                Err(bad) => {
                    torn = self.judge(&bad, name, &header, &mut window, is_last, whole)?;
                    break;
                }
            }
        }
        self.steps.clear();
        let again_from = if is_last { block_start(begin) } else { whole };
        let again = window.bytes(again_from, (whole - again_from) as usize)?;
        let again = again.to_vec();
        let tail_start = block_start(whole);
        let tail = window.bytes(tail_start, (whole - tail_start) as usize)?;
        let segment = Segment {
            tail: tail.to_vec(),
            file: window.file,
            header,
            end: whole,
            zeroed: whole,
        };
        Ok(Scanned {
            segment,
            torn,
            again_from,
            again,
        })
    }

    /// Reads the segment's header, and checks that it goes on where the segment before ended. The
    /// first one says where the log begins.
    fn header(&mut self, name: &str, window: &mut Window<'_, D>) -> Result<SegmentHeader, Error> {
        let corrupt = |problem| Unreadable::Corrupt(problem).into_error(self.disk, name);
        let must_be = |what, expected: u64, found: u64| {
            if expected == found {
                return Ok(());
            }
            Err(corrupt(Problem::Unexpected {
                what,
                expected,
                found,
            }))
        };
        if window.file_bytes < SEGMENT_HEADER_BYTES as u64 {
            return Err(corrupt(Problem::Lost));
        }
        let bytes = window.bytes(0, SEGMENT_HEADER_BYTES)?;
        let header =
            SegmentHeader::decode(bytes).map_err(|error| error.into_error(self.disk, name))?;
        if header.identity.server != self.identity.server {
            return Err(Error::OtherServer {
                directory: self.disk.path().join(name),
                expected: self.identity.server,
                found: header.identity.server,
            });
        }
        if self.current.is_none() && header.sequence > 1 {
            self.begin_behind(header.previous);
            self.batch = header.first_batch.saturating_sub(1);
            self.chain = header.chain;
        }
        let (sequence, first_index) = parse_name(name).unwrap_or_default();
        let previous = header.previous;
        must_be(
            "directory's instance number",
            self.identity.instance.0,
            header.identity.instance.0,
        )?;
        must_be("segment's sequence", sequence, header.sequence)?;
        must_be(
            "segment's first index",
            first_index.0,
            previous.index.next().0,
        )?;
        must_be(
            "entry index before the segment",
            self.contents.last.index.0,
            previous.index.0,
        )?;
        must_be(
            "term before the segment",
            self.contents.last.term.0,
            previous.term.0,
        )?;
        must_be("segment's first batch", self.batch + 1, header.first_batch)?;
        must_be("length of the file", header.file_bytes, window.file_bytes)?;
        must_be(
            "sum of all checksums before",
            self.chain.0.into(),
            header.chain.0.into(),
        )?;
        Ok(header)
    }

    fn begin_behind(&mut self, before: Position) {
        self.contents.begin_behind(before);
        if let Some(places) = &mut self.places {
            places.begin_behind(before.index);
        }
    }

    /// Reads the record behind `end` into a step. Returns where it ends, and whether its batch
    /// does.
    fn record(
        &mut self,
        segment: &SegmentHeader,
        window: &mut Window<'_, D>,
        end: u64,
    ) -> Result<Result<(u64, bool), Bad>, Error> {
        let file = window.name();
        let start = header_start(end);
        let bad = |problem, incomplete| {
            Ok(Err(Bad {
                offset: start,
                problem,
                incomplete,
            }))
        };
        let room = segment.file_bytes.saturating_sub(start);
        if room < HEADER_BYTES as u64 {
            return bad(Problem::Lost, false);
        }
        let gap = (start - end) as usize;
        let bytes = window.bytes(end, gap + HEADER_BYTES)?;
        let (gap, bytes) = bytes.split_at(gap);
        if !is_zero(gap) {
            return Ok(Err(Bad {
                offset: end,
                problem: Problem::Padding,
                incomplete: false,
            }));
        }
        let (bytes, _) = bytes.split_first_chunk().expect("the window is that long");
        let header = match Header::decode(bytes, segment.salt) {
            Ok(header) => header,
            Err(invalid) => return bad(invalid.into(), invalid == Invalid::Zeros),
        };
        let mut chain = self.steps.last().map_or(self.chain, |step| step.chain);
        chain.add(bytes);
        if header.batch != self.batch + 1 {
            return bad(
                unexpected("record's batch", self.batch + 1, header.batch),
                false,
            );
        }
        if header.record_bytes() as u64 > room {
            return bad(
                unexpected("record's length", room, header.record_bytes() as u64),
                false,
            );
        }
        let payload = window.bytes(
            start + HEADER_BYTES as u64,
            header.record_bytes() - HEADER_BYTES,
        )?;
        if let Some((problem, incomplete)) = damage(&header, start, segment.salt, payload) {
            return bad(problem, incomplete);
        }
        let (payload, _) = payload.split_at(header.payload_bytes as usize);
        let effect = match effect(&header, payload) {
            Ok(effect) => effect,
            Err(problem) => return bad(problem, false),
        };
        (self.see)(Seen::Record {
            file,
            offset: start,
            header: &header,
            payload,
        })?;
        self.steps.push(Step {
            offset: start,
            chain,
            effect,
        });
        Ok(Ok((start + header.record_bytes() as u64, header.last)))
    }

    /// Takes the steps of a whole batch.
    fn apply(&mut self, name: &str) -> Result<(), Error> {
        let mut steps = std::mem::take(&mut self.steps);
        for step in steps.drain(..) {
            self.chain = step.chain;
            self.tally.records += 1;
            let taken = self.take(step.effect, step.offset);
            taken.map_err(|problem| Error::Corrupt {
                file: self.disk.path().join(name),
                offset: step.offset,
                problem,
            })?;
        }
        // For its memory.
        self.steps = steps;
        self.batch += 1;
        Ok(())
    }

    /// Takes what the record at this offset does.
    fn take(&mut self, effect: Effect, offset: u64) -> Result<(), Problem> {
        let contents = &mut self.contents;
        let last = contents.last;
        match effect {
            Effect::Entry(position, payload) if contents.takes(position) => {
                self.take_entry(position, payload, offset);
                Ok(())
            }
            Effect::HardState(hard_state) if hard_state.term >= contents.hard_state.term => {
                contents.hard_state = hard_state;
                Ok(())
            }
            Effect::Truncate(to) if contents.position_at(to.index) == Some(to) => {
                contents.truncate_to(to);
                if let Some(places) = &mut self.places {
                    places.truncate_to(to.index);
                }
                self.configurations.retain(|entry| entry.index <= to.index);
                Ok(())
            }
            // The entries in between were superseded before the log was made to begin here.
            Effect::Truncate(to)
                if to.index < contents.before.index && to.term <= contents.before.term =>
            {
                self.begin_behind(to);
                self.configurations.clear();
                Ok(())
            }
            Effect::End(position) if position == last => {
                self.has_ended = true;
                Ok(())
            }
            Effect::Entry(position, _) if position.index != last.index.next() => Err(unexpected(
                "entry's index",
                last.index.next().0,
                position.index.0,
            )),
            Effect::Entry(position, _) => Err(unexpected(
                "entry's term",
                last.term.0.max(1),
                position.term.0,
            )),
            Effect::HardState(hard_state) => Err(unexpected(
                "hard state's term",
                contents.hard_state.term.0,
                hard_state.term.0,
            )),
            Effect::Truncate(position) | Effect::End(position) => Err(unexpected(
                "last entry's index",
                last.index.0,
                position.index.0,
            )),
        }
    }

    fn take_entry(&mut self, position: Position, configuration: Option<Bytes>, offset: u64) {
        self.contents.append(position);
        self.tally.entries += 1;
        self.tally.first = self.tally.first.or(Some(position));
        self.tally.last = Some(position);
        let segment = self.current.expect("a batch is in a segment").sequence;
        if let Some(places) = &mut self.places {
            places.push(Place::new(segment, offset));
        }
        self.configurations
            .extend(configuration.map(|payload| Entry {
                term: position.term,
                index: position.index,
                kind: EntryKind::Configuration,
                payload,
            }));
    }

    /// Decides what a bad place is: a torn batch, which is to be erased, or the end of the log with
    /// nothing behind it, or else corruption. `whole` is where the last whole batch ends.
    fn judge(
        &self,
        bad: &Bad,
        name: &str,
        header: &SegmentHeader,
        window: &mut Window<'_, D>,
        is_last: bool,
        whole: u64,
    ) -> Result<Option<Torn>, Error> {
        let file = self.disk.path().join(name);
        let is_marked = self.mark.segment == header.sequence
            && whole < self.mark.offset
            && !mutants::is_on(Mutant::MarkIgnored);
        let may_be_torn = is_last && !is_marked && bad.incomplete;
        let mut written_end = if may_be_torn {
            window.written_end(bad.offset, header.salt, self.batch + 1)?
        } else {
            None
        };
        if mutants::is_on(Mutant::DamageTruncates) && is_last {
            written_end = written_end.or(Some(header.file_bytes));
        }
        let Some(written_end) = written_end else {
            return Err(Error::Corrupt {
                file,
                offset: bad.offset,
                problem: bad.problem.clone(),
            });
        };
        if written_end == bad.offset && self.steps.is_empty() {
            return Ok(None);
        }
        Ok(Some(Torn {
            file,
            offset: whole,
            bytes: written_end - whole,
        }))
    }
}

/// What is wrong with a padded payload, and whether it looks like sectors that did not reach the
/// disk; `None` if it is as it was written.
fn damage(header: &Header, start: u64, salt: u32, payload: &[u8]) -> Option<(Problem, bool)> {
    let (payload, padding) = payload.split_at(header.payload_bytes as usize);
    let expected = header.payload_checksum;
    let found = checksum(salt, payload);
    if found != expected && !mutants::is_on(Mutant::BadChecksumAccepted) {
        let problem = Problem::Checksum { expected, found };
        return Some((problem, zero_parts(start, payload) > header.zero_parts));
    }
    (!is_zero(padding)).then_some((Problem::Padding, false))
}

/// What a valid record does.
fn effect(header: &Header, payload: &[u8]) -> Result<Effect, Problem> {
    let position = header.position;
    match header.kind {
        Kind::Entry(EntryKind::Configuration) => Ok(Effect::Entry(
            position,
            Some(Bytes::copy_from_slice(payload)),
        )),
        Kind::Entry(_) => Ok(Effect::Entry(position, None)),
        Kind::HardState => decode_hard_state(position.term, payload)
            .map(Effect::HardState)
            .ok_or(unexpected("hard state", 0, payload.len() as u64)),
        Kind::Truncate => Ok(Effect::Truncate(position)),
        Kind::SegmentEnd => Ok(Effect::End(position)),
        Kind::Recovering => Err(unexpected("record's kind", 1, 5)),
        Kind::Recovered => Err(unexpected("record's kind", 1, 6)),
    }
}

fn unexpected(what: &'static str, expected: u64, found: u64) -> Problem {
    Problem::Unexpected {
        what,
        expected,
        found,
    }
}

/// The error for a synced header that is none.
pub(crate) fn corrupt<D: Disk>(disk: &D, name: &str, offset: u64, invalid: Invalid) -> Error {
    Error::Corrupt {
        file: disk.path().join(name),
        offset,
        problem: invalid.into(),
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Problem {
        match invalid {
            Invalid::Zeros => Problem::Lost,
            Invalid::Checksum { expected, found } => Problem::Checksum { expected, found },
            Invalid::Version(found) => unexpected("record's version", VERSION.into(), found.into()),
            Invalid::Field {
                what,
                expected,
                found,
            } => unexpected(what, expected, found),
        }
    }
}
