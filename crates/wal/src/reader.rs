//! Giving entries back: where each one is, and a handle for another thread that reads them.
//!
//! The log only ever grows, so what a place once held it holds until the segment goes: a reader
//! needs no lock while it reads, and checks afterwards that what it read was not superseded. A
//! segment's places go before its file does.

use std::collections::VecDeque;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::{Buf, Bytes};
use mutants::Mutant;
use raft::{Entry, Fetch, Index};

use crate::disk::Disk;
use crate::error::{Error, Problem};
use crate::record::{Chain, HEADER_BYTES, Header, Kind, checksum};
use crate::scan::corrupt;
use crate::segment::SegmentHeader;
use crate::snapshots::Catalog;

/// What one read of the disk asks for at most, unless a single entry is larger.
const READ_BYTES_MAX: usize = 1 << 20;
/// Entries of which the places are kept in one allocation, so that none is ever large to move.
const CHUNK_ENTRIES: usize = 1 << 13;
/// How many places are looked up at once.
const FETCH_ENTRIES_MAX: u64 = 1 << 13;

/// Where an entry's record starts: the segment's sequence in the upper half, the offset in units
/// of 8 bytes in the lower one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(u64);

impl Place {
    pub(crate) fn new(segment: u64, offset: u64) -> Place {
        assert!(segment < 1 << 32, "segment {segment} has no place");
        assert!(
            offset.is_multiple_of(8) && offset < 1 << 35,
            "offset {offset} has no place"
        );
        Place((segment << 32) | (offset / 8))
    }

    fn segment(self) -> u64 {
        self.0 >> 32
    }

    fn offset(self) -> u64 {
        (self.0 & u64::from(u32::MAX)) * 8
    }

    /// What the payload of the entry here has at least if that of the next one is there, as long
    /// as nothing lies between them that was superseded.
    fn payload_bytes_min(self, next: Place) -> u64 {
        if self.segment() != next.segment() {
            return 0;
        }
        let record = next.offset().saturating_sub(self.offset());
        record.saturating_sub(HEADER_BYTES as u64 + 7)
    }
}

/// Where each entry is that the log holds.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// The entry before the first that has a place.
    before: Index,
    /// The entry before the first of `chunks`; at most `before`.
    base: Index,
    /// All but the last are full.
    chunks: VecDeque<Vec<Place>>,
    /// Consecutive, the oldest first.
    pub(crate) segments: VecDeque<Arc<SegmentHeader>>,
    /// How far the last of them is synced.
    pub(crate) end: End,
}

/// Where a log ends.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct End {
    /// In its last segment.
    pub(crate) offset: u64,
    pub(crate) batch: u64,
    pub(crate) chain: Chain,
}

/// What is known of one segment.
#[derive(Debug)]
pub(crate) struct Extent {
    pub(crate) header: Arc<SegmentHeader>,
    /// How far the last one is synced; any other has its end record.
    pub(crate) end: Option<u64>,
    /// The last batch in it, and the chain behind that.
    pub(crate) batch: u64,
    pub(crate) chain: Chain,
}

impl Places {
    pub(crate) fn last_index(&self) -> Index {
        let full = self.chunks.len().saturating_sub(1) * CHUNK_ENTRIES;
        self.base + (full + self.chunks.back().map_or(0, Vec::len)) as u64
    }

    pub(crate) fn push(&mut self, place: Place) {
        match self.chunks.back_mut() {
            Some(chunk) if chunk.len() < CHUNK_ENTRIES => chunk.push(place),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK_ENTRIES);
                chunk.push(place);
                self.chunks.push_back(chunk);
            }
        }
    }

    /// Drops all places behind this one, which is `before` or behind it.
    pub(crate) fn truncate_to(&mut self, last: Index) {
        assert!(
            last >= self.before,
            "truncated to {last}, the log begins behind {}",
            self.before
        );
        let entries = usize::try_from(last - self.base).expect("every place is in memory");
        self.chunks.truncate(entries.div_ceil(CHUNK_ENTRIES));
        if let Some(chunk) = self.chunks.back_mut()
            && !entries.is_multiple_of(CHUNK_ENTRIES)
        {
            chunk.truncate(entries % CHUNK_ENTRIES);
        }
    }

    /// Drops all places up to this one.
    pub(crate) fn drop_to(&mut self, before: Index) {
        assert!(
            before >= self.before && before <= self.last_index(),
            "dropped up to {before} of {} to {}",
            self.before,
            self.last_index()
        );
        self.before = before;
        while self.base + CHUNK_ENTRIES as u64 <= before {
            self.chunks.pop_front();
            self.base = self.base + CHUNK_ENTRIES as u64;
        }
    }

    /// Drops all places, and goes on behind this one.
    pub(crate) fn begin_behind(&mut self, before: Index) {
        self.chunks.clear();
        self.base = before;
        self.before = before;
    }

    /// The last entry that is in a segment before this one; `before` if there is none.
    pub(crate) fn last_before_segment(&self, sequence: u64) -> Index {
        let is_before = |place: &Place| place.segment() < sequence;
        // A later entry is never in an earlier segment.
        let whole = self
            .chunks
            .partition_point(|chunk| chunk.last().is_some_and(is_before));
        let part = self.chunks.get(whole);
        let part = part.map_or(0, |chunk| chunk.partition_point(is_before));
        let last = self.base + (whole * CHUNK_ENTRIES + part) as u64;
        last.min(self.last_index()).max(self.before)
    }

    /// The segment with this sequence, if the log still has it.
    pub(crate) fn extent(&self, sequence: u64) -> Option<Extent> {
        let at = self.position_of(sequence)?;
        let header = Arc::clone(self.segments.get(at)?);
        Some(match self.segments.get(at + 1) {
            Some(behind) => Extent {
                header,
                end: None,
                batch: behind.first_batch - 1,
                chain: behind.chain,
            },
            None => Extent {
                header,
                end: Some(self.end.offset),
                batch: self.end.batch,
                chain: self.end.chain,
            },
        })
    }

    fn position_of(&self, sequence: u64) -> Option<usize> {
        let first = self.segments.front()?.sequence;
        usize::try_from(sequence.checked_sub(first)?).ok()
    }

    fn get(&self, index: Index) -> Option<Place> {
        if index <= self.before {
            return None;
        }
        let at = usize::try_from(index.0 - self.base.0 - 1).ok()?;
        let chunk = self.chunks.get(at / CHUNK_ENTRIES)?;
        chunk.get(at % CHUNK_ENTRIES).copied()
    }

    fn header(&self, place: Place) -> Option<&Arc<SegmentHeader>> {
        self.segments.get(self.position_of(place.segment())?)
    }
}

/// What the log and its readers share.
#[derive(Debug)]
pub(crate) struct Shared<D> {
    pub(crate) disk: D,
    places: RwLock<Places>,
    pub(crate) snapshots: Catalog,
}

impl<D> Shared<D> {
    pub(crate) fn new(disk: D, places: Places, snapshots: Catalog) -> Shared<D> {
        Shared {
            disk,
            places: RwLock::new(places),
            snapshots,
        }
    }

    pub(crate) fn places(&self) -> RwLockReadGuard<'_, Places> {
        self.places.read().expect("no holder of this lock panics")
    }

    pub(crate) fn places_mut(&self) -> RwLockWriteGuard<'_, Places> {
        self.places.write().expect("no holder of this lock panics")
    }
}

/// Gives synced entries back, on whatever thread it is taken to.
#[derive(Debug)]
pub struct Reader<D> {
    shared: Arc<Shared<D>>,
}

impl<D> Clone for Reader<D> {
    fn clone(&self) -> Reader<D> {
        Reader {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<D: Disk> Reader<D> {
    pub(crate) fn new(shared: Arc<Shared<D>>) -> Reader<D> {
        Reader { shared }
    }

    /// The entries that a fetch wants: consecutive from `fetch.from`, not beyond `fetch.to`, and
    /// not more than `fetch.bytes_max` of payload but for the first. Fewer, or none, if what
    /// follows is not synced or was superseded; none if the log begins behind `fetch.from`; fewer
    /// also when there are very many.
    ///
    /// # Errors
    /// `Error::Io` if the first of them can't be read, `Error::Corrupt` if it is not what was
    /// written; what is read wrongly once is read again.
    pub fn read(&self, fetch: &Fetch) -> Result<Vec<Entry>, Error> {
        let first = match self.read_once(fetch) {
            Ok(entries) => return Ok(entries),
            Err(error) => error,
        };
        if let Some(file) = first.file_name() {
            self.shared.disk.forget(file);
        }
        self.read_once(fetch)
    }

    fn read_once(&self, fetch: &Fetch) -> Result<Vec<Entry>, Error> {
        let wanted = self.look_up(fetch);
        let mut entries = Vec::new();
        let mut bytes_left = fetch.bytes_max;
        let mut file: Option<OpenSegment<'_, D>> = None;
        for (index, place, header) in &wanted {
            if file.as_ref().is_none_or(|file| file.header != *header) {
                match OpenSegment::open(&self.shared.disk, header) {
                    Ok(opened) => file = Some(opened),
                    // The segment went while this was on its way to it.
                    Err(_) if self.shared.places().get(*index) != Some(*place) => break,
                    Err(error) if entries.is_empty() => return Err(error),
                    Err(_) => break,
                }
            }
            let file = file.as_mut().expect("it was opened just above");
            let required = entries.is_empty();
            let entry = match file.entry(*index, place.offset(), bytes_left, required) {
                Ok(Some(entry)) => entry,
                Err(error) if required => return Err(error),
                // What is in front of it is sound.
                Ok(None) | Err(_) => break,
            };
            bytes_left = bytes_left.saturating_sub(entry.payload.len());
            entries.push(entry);
        }
        // What was superseded or dropped while it was read has another place now, or none.
        let places = self.shared.places();
        let still_there = wanted
            .iter()
            .take_while(|(index, place, _)| places.get(*index) == Some(*place))
            .count();
        entries.truncate(still_there);
        Ok(entries)
    }

    fn look_up(&self, fetch: &Fetch) -> Vec<(Index, Place, Arc<SegmentHeader>)> {
        let places = self.shared.places();
        let to = fetch
            .to
            .min(places.last_index())
            .min(Index(fetch.from.0.saturating_add(FETCH_ENTRIES_MAX)));
        let mut wanted: Vec<(Index, Place, Arc<SegmentHeader>)> = Vec::new();
        let mut payload_bytes = 0;
        for index in (fetch.from.0..=to.0).map(Index) {
            let Some((place, header)) = places
                .get(index)
                .and_then(|place| Some((place, places.header(place)?)))
            else {
                break;
            };
            let before = wanted.last().map(|(_, before, _)| *before);
            payload_bytes += before.map_or(0, |before| before.payload_bytes_min(place));
            if payload_bytes > fetch.bytes_max as u64 {
                break;
            }
            wanted.push((index, place, Arc::clone(header)));
        }
        wanted
    }
}

/// A segment that is being read, and the last part that was read of it.
struct OpenSegment<'a, D: Disk> {
    disk: &'a D,
    header: Arc<SegmentHeader>,
    name: String,
    file: D::File,
    part: Bytes,
    part_offset: u64,
}

impl<'a, D: Disk> OpenSegment<'a, D> {
    fn open(disk: &'a D, header: &Arc<SegmentHeader>) -> Result<OpenSegment<'a, D>, Error> {
        let name = header.name();
        let file = disk.open(&name).map_err(Error::io(disk, &name, "open"))?;
        Ok(OpenSegment {
            disk,
            header: Arc::clone(header),
            name,
            file,
            part: Bytes::new(),
            part_offset: 0,
        })
    }

    /// The entry at this offset; `None` if it has more than `bytes_max` bytes, unless it is
    /// required.
    fn entry(
        &mut self,
        index: Index,
        offset: u64,
        bytes_max: usize,
        required: bool,
    ) -> Result<Option<Entry>, Error> {
        let ahead = bytes_max.saturating_add(HEADER_BYTES);
        let mut bytes = self.bytes(offset, HEADER_BYTES, ahead)?;
        let mut header = [0; HEADER_BYTES];
        bytes.copy_to_slice(&mut header);
        let header = Header::decode(&header, self.header.salt)
            .map_err(|invalid| corrupt(self.disk, &self.name, offset, invalid))?;
        let Kind::Entry(kind) = header.kind else {
            return Err(self.unexpected(offset, "record's kind", 1, 0));
        };
        if header.position.index != index {
            let found = header.position.index.0;
            return Err(self.unexpected(offset, "entry's index", index.0, found));
        }
        let payload_bytes = header.payload_bytes as usize;
        if payload_bytes > bytes_max && !required {
            return Ok(None);
        }
        let payload_offset = offset + HEADER_BYTES as u64;
        let payload = self.bytes(payload_offset, payload_bytes, payload_bytes)?;
        let found = checksum(self.header.salt, &payload);
        let expected = header.payload_checksum;
        if found != expected && !mutants::is_on(Mutant::RotReadBack) {
            return Err(Error::Corrupt {
                file: self.disk.path().join(&self.name),
                offset,
                problem: Problem::Checksum { expected, found },
            });
        }
        Ok(Some(Entry {
            term: header.position.term,
            index,
            kind,
            payload,
        }))
    }

    /// `length` bytes at this offset; if they have to be read, up to `ahead` bytes with them.
    fn bytes(&mut self, offset: u64, length: usize, ahead: usize) -> Result<Bytes, Error> {
        let held = |part: &Bytes, part_offset: u64| {
            let start = usize::try_from(offset.checked_sub(part_offset)?).ok()?;
            let end = start.checked_add(length)?;
            (end <= part.len()).then(|| part.slice(start..end))
        };
        if let Some(bytes) = held(&self.part, self.part_offset) {
            return Ok(bytes);
        }
        let left = self.header.file_bytes.saturating_sub(offset);
        let wanted = length.max(ahead.min(READ_BYTES_MAX));
        let read_bytes = wanted.min(usize::try_from(left).unwrap_or(usize::MAX));
        if read_bytes < length {
            return Err(self.unexpected(offset, "room in the segment", length as u64, left));
        }
        let mut part = vec![0; read_bytes];
        self.disk
            .read_at(&self.file, &mut part, offset)
            .map_err(Error::io(self.disk, &self.name, "read"))?;
        self.part = part.into();
        self.part_offset = offset;
        Ok(self.part.slice(..length))
    }

    fn unexpected(&self, offset: u64, what: &'static str, expected: u64, found: u64) -> Error {
        Error::Corrupt {
            file: self.disk.path().join(&self.name),
            offset,
            problem: Problem::Unexpected {
                what,
                expected,
                found,
            },
        }
    }
}
