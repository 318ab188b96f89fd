//! Reading the segments of a log from front to back, up to the first place where no valid record
//! is, and telling a torn end from damage. Every reader of a whole log reads it here: a start, a
//! check and a dump. Nothing is changed; what it all comes to is for `recover.rs` to say.

use std::sync::Arc;

use bytes::Bytes;
use mutants::Mutant;
use raft::{Entry, EntryKind, HardState, Position};

use crate::contents::Contents;
use crate::disk::Disk;
use crate::error::{Error, Problem};
use crate::inspect::{Seen, Tally};
use crate::meta::Mark;
use crate::reader::{Place, Places};
use crate::record::{
    Chain, HEADER_BYTES, Header, Invalid, Kind, VERSION, checksum, decode_hard_state, header_start,
    is_zero, zero_parts,
};
use crate::recover::{Log, Torn};
use crate::segment::{
    Identity, SEGMENT_HEADER_BYTES, Segment, SegmentHeader, Unreadable, block_start, parse_name,
};
use crate::window::Window;

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

/// What segments one behind the other hold.
pub(crate) struct Scanned<F> {
    /// `None` if not even the header of the first can be used.
    pub(crate) log: Option<Log<F>>,
    /// What it ends at, if that is not where it was written to.
    pub(crate) damage: Option<Error>,
}

/// Reads these segments, which follow each other, up to the first damage. Only the newest of all
/// can have a torn end.
pub(crate) fn scan<D: Disk>(
    disk: &D,
    identity: Identity,
    mark: Mark,
    names: &[&String],
    has_newest: bool,
    notes_places: bool,
) -> Result<Scanned<D::File>, Error> {
    let mut stop = None;
    loop {
        let is_first = stop.is_none();
        let mut scan = Scan::new(disk, identity, mark, notes_places, |_| Ok(()));
        scan.stop = stop.take();
        let mut last = None;
        for (at, name) in names.iter().enumerate() {
            let is_last = has_newest && at + 1 == names.len();
            let Some(read) = scan.segment(name, is_last)? else {
                break;
            };
            last = Some(read);
            if scan.damage.is_some() {
                break;
            }
        }
        // Part of a batch that makes no sense was taken in: again, and only up to there.
        if is_first && scan.senseless.is_some() {
            stop = scan.senseless.take().zip(scan.damage.take());
            continue;
        }
        return Ok(scan.finish(last));
    }
}

/// Reads segments in order, up to the first damage.
pub(crate) struct Scan<'a, D: Disk, S> {
    disk: &'a D,
    identity: Identity,
    mark: Mark,
    contents: Contents,
    configurations: Vec<Entry>,
    /// The segments that were begun; the entries' places only if they are noted.
    places: Places,
    /// Whether somebody wants to know where the entries are.
    notes_places: bool,
    /// The last batch that counts, and the chain behind it.
    pub(crate) batch: u64,
    pub(crate) chain: Chain,
    /// A segment is read up to here, and not to its end.
    pub(crate) until: Option<u64>,
    has_ended: bool,
    /// Of the segment that was begun last.
    pub(crate) tally: Tally,
    /// What the batch that is being read came to so far.
    steps: Vec<Step>,
    /// The batch that starts at this segment and offset does not count, for this reason.
    stop: Option<((u64, u64), Error)>,
    /// What ended the log.
    pub(crate) damage: Option<Error>,
    /// The segment and the offset of a batch that was taken in in part before it made no sense.
    senseless: Option<(u64, u64)>,
    /// Is shown each record, before it is known that its batch is whole.
    pub(crate) see: S,
}

/// One segment.
pub(crate) struct Read<F> {
    pub(crate) segment: Segment<F>,
    pub(crate) torn: Option<Torn>,
    again: (u64, Vec<u8>),
    dirty_end: u64,
}

impl<'a, D: Disk, S: FnMut(Seen<'_>) -> Result<(), Error>> Scan<'a, D, S> {
    pub(crate) fn new(
        disk: &'a D,
        identity: Identity,
        mark: Mark,
        notes_places: bool,
        see: S,
    ) -> Scan<'a, D, S> {
        Scan {
            disk,
            identity,
            mark,
            contents: Contents::default(),
            configurations: Vec::new(),
            places: Places::default(),
            notes_places,
            batch: 0,
            chain: Chain::default(),
            until: None,
            has_ended: false,
            tally: Tally::default(),
            steps: Vec::new(),
            stop: None,
            damage: None,
            senseless: None,
            see,
        }
    }

    fn finish(self, last: Option<Read<D::File>>) -> Scanned<D::File> {
        let damage = self.damage;
        let log = last.map(|read| Log {
            contents: self.contents,
            configurations: self.configurations,
            places: self.places,
            batch: self.batch,
            segment: read.segment,
            chain: self.chain,
            has_ended: self.has_ended,
            torn: read.torn,
            again: read.again,
            dirty_end: read.dirty_end,
        });
        Scanned { log, damage }
    }

    /// Reads one segment; `None` if it can't be told that it is one.
    pub(crate) fn segment(
        &mut self,
        name: &str,
        is_last: bool,
    ) -> Result<Option<Read<D::File>>, Error> {
        self.tally = Tally::default();
        let mut window = Window::open(self.disk, name)?;
        let header = match self.header(name, &mut window) {
            Ok(header) => header,
            Err(error @ Error::Corrupt { .. }) => {
                self.damage = Some(error);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        self.places.segments.push_back(Arc::new(header));
        self.has_ended = false;
        // Where the last whole batch begins and ends, and where the last record ends.
        let mut begin = SEGMENT_HEADER_BYTES as u64;
        let mut whole = begin;
        let mut end = whole;
        let mut bad_place = None;
        while !self.has_ended
            && self.until.is_none_or(|until| end < until)
            && !self.stops_at(header.sequence, end)
        {
            window.keep_from(block_start(begin));
            match self.record(&header, &mut window, end).or_else(unreadable)? {
                Ok((record_end, last)) => {
                    end = record_end;
                    if last {
                        if let Err(senseless) = self.apply(name) {
                            self.damage = Some(senseless);
                            self.senseless = Some((header.sequence, whole));
                            break;
                        }
                        begin = whole;
                        whole = end;
                    }
                }
                Err(bad) => {
                    bad_place = Some(bad);
                    break;
                }
            }
        }
        // As it was read when it was checked: it is written again.
        let again = block_start(begin);
        let bytes = window.bytes(again, (whole - again) as usize)?;
        let tail = bytes.get((block_start(whole) - again) as usize..);
        let tail = tail.expect("it ends where that ends").to_vec();
        let again = (again, bytes.to_vec());
        window.keep_nothing();
        let torn = match bad_place {
            Some(bad) => self.judge(&bad, name, &header, &mut window, is_last, whole)?,
            None => None,
        };
        self.steps.clear();
        let dirty_end = match (&self.damage, &torn) {
            (Some(_), _) => header.file_bytes,
            (None, Some(torn)) if !mutants::is_on(Mutant::TornTailKept) => torn.offset + torn.bytes,
            (None, _) => whole,
        };
        let segment = Segment {
            tail,
            file: window.file,
            header,
            end: whole,
            zeroed: whole,
        };
        Ok(Some(Read {
            segment,
            torn,
            again,
            dirty_end,
        }))
    }

    fn stops_at(&mut self, segment: u64, offset: u64) -> bool {
        match self.stop.take_if(|(at, _)| *at == (segment, offset)) {
            Some((_, error)) => {
                self.damage = Some(error);
                true
            }
            None => false,
        }
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
        if self.places.segments.is_empty() && header.sequence > 1 {
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
        self.places.begin_behind(before.index);
    }

    /// Reads the record behind `end` into a step. Returns where it ends, and whether its batch
    /// does.
    fn record(
        &mut self,
        segment: &SegmentHeader,
        window: &mut Window<'_, D>,
        end: u64,
    ) -> Result<Result<(u64, bool), Bad>, Error> {
        let start = header_start(end);
        let (header, chain) = match self.record_header(segment, window, end)? {
            Ok(found) => found,
            Err(bad) => return Ok(Err(bad)),
        };
        let bad = |problem, incomplete| {
            Ok(Err(Bad {
                offset: start,
                problem,
                incomplete,
            }))
        };
        let name = window.name();
        let payload = window.bytes(
            start + HEADER_BYTES as u64,
            header.record_bytes() - HEADER_BYTES,
        )?;
        if let Some((problem, incomplete)) = damage(&header, start, segment.salt, payload) {
            if mutants::is_on(Mutant::DamageSkipped) && !incomplete {
                let effect = Effect::HardState(self.contents.hard_state);
                self.steps.push(Step {
                    offset: start,
                    chain,
                    effect,
                });
                return Ok(Ok((start + header.record_bytes() as u64, header.last)));
            }
            return bad(problem, incomplete);
        }
        let (payload, _) = payload.split_at(header.payload_bytes as usize);
        let effect = match effect(&header, payload) {
            Ok(effect) => effect,
            Err(problem) => return bad(problem, false),
        };
        (self.see)(Seen::Record {
            file: name,
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

    /// Reads the header behind `end`, and the chain with it. Its record has room in the file.
    fn record_header(
        &self,
        segment: &SegmentHeader,
        window: &mut Window<'_, D>,
        end: u64,
    ) -> Result<Result<(Header, Chain), Bad>, Error> {
        let name = window.name();
        let start = header_start(end);
        let bad_at = |offset, problem, incomplete| {
            Ok(Err(Bad {
                offset,
                problem,
                incomplete,
            }))
        };
        let room = segment.file_bytes.saturating_sub(start);
        if room < HEADER_BYTES as u64 {
            return bad_at(start, Problem::Lost, false);
        }
        let gap = (start - end) as usize;
        let bytes = window.bytes(end, gap + HEADER_BYTES)?;
        let (gap, bytes) = bytes.split_at(gap);
        if !is_zero(gap) {
            return bad_at(end, Problem::Padding, false);
        }
        let (bytes, _) = bytes.split_first_chunk().expect("the window is that long");
        let header = match Header::decode(bytes, segment.salt) {
            Ok(header) => header,
            Err(Invalid::Version(found)) if found > VERSION => {
                let newer = Unreadable::Newer(found.into());
                return Err(newer.into_error(self.disk, name));
            }
            Err(invalid) => return bad_at(start, invalid.into(), invalid == Invalid::Zeros),
        };
        if header.batch != self.batch + 1 {
            let problem = unexpected("record's batch", self.batch + 1, header.batch);
            return bad_at(start, problem, false);
        }
        let record_bytes = header.record_bytes() as u64;
        if record_bytes > room {
            let problem = unexpected("record's length", room, record_bytes);
            return bad_at(start, problem, false);
        }
        let mut chain = self.steps.last().map_or(self.chain, |step| step.chain);
        chain.add(bytes);
        Ok(Ok((header, chain)))
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
                if self.notes_places {
                    self.places.truncate_to(to.index);
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
        if self.notes_places {
            let segment = self.places.segments.back();
            let segment = segment.expect("a batch is in a segment").sequence;
            self.places.push(Place::new(segment, offset));
        }
        self.configurations
            .extend(configuration.map(|payload| Entry {
                term: position.term,
                index: position.index,
                kind: EntryKind::Configuration,
                payload,
            }));
    }

    /// Decides what a bad place is: a torn batch, or the end of the log with nothing behind it, or
    /// else damage, which it notes. `whole` is where the last whole batch ends.
    fn judge(
        &mut self,
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
        let written_end = match may_be_torn {
            true => window.written_end(bad.offset, header.salt, self.batch + 1),
            false => Ok(None),
        };
        let written_end = match written_end {
            // A later batch may be there.
            Err(unreadable @ Error::Corrupt { .. }) => {
                self.damage = Some(unreadable);
                return Ok(None);
            }
            written_end => written_end?,
        };
        let Some(written_end) = written_end else {
            self.damage = Some(Error::Corrupt {
                file,
                offset: bad.offset,
                problem: bad.problem.clone(),
            });
            return Ok(None);
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

/// A place that the disk can't give back is a bad one; any other error ends it all.
fn unreadable<T>(error: Error) -> Result<Result<T, Bad>, Error> {
    match error {
        Error::Corrupt {
            offset, problem, ..
        } => Ok(Err(Bad {
            offset,
            problem,
            incomplete: false,
        })),
        other => Err(other),
    }
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
