//! Reading a segment from front to back in large parts, and looking for what is left of a batch.

use mutants::Mutant;

use crate::disk::{BLOCK_BYTES, Disk};
use crate::error::{Error, is_unreadable};
use crate::record::{Header, Invalid, SECTOR_BYTES, header_places, is_zero};

/// What one read of the disk asks for, unless a record is larger.
const READ_BYTES: usize = 1 << 20;

/// A file and the part of it that was read last.
pub(crate) struct Window<'a, D: Disk> {
    disk: &'a D,
    name: &'a str,
    pub(crate) file: D::File,
    pub(crate) file_bytes: u64,
    part: Vec<u8>,
    part_offset: u64,
    /// What was read from here on stays in the part.
    kept_from: Option<u64>,
}

impl<'a, D: Disk> Window<'a, D> {
    pub(crate) fn open(disk: &'a D, name: &'a str) -> Result<Window<'a, D>, Error> {
        let file = disk.open(name).map_err(Error::io(disk, name, "open"))?;
        let file_bytes = disk.length(&file).map_err(Error::io(disk, name, "read"))?;
        Ok(Window {
            disk,
            name,
            file,
            file_bytes,
            part: Vec::new(),
            part_offset: 0,
            kept_from: None,
        })
    }

    /// What was read from this offset on is not read a second time from now on, as long as what is
    /// asked for follows it without a gap: whoever has checked it gets what he has checked.
    pub(crate) fn keep_from(&mut self, offset: u64) {
        self.kept_from = Some(offset);
    }

    /// What is read from now on makes room for what follows.
    pub(crate) fn keep_nothing(&mut self) {
        self.kept_from = None;
    }

    pub(crate) fn name(&self) -> &'a str {
        self.name
    }

    /// This many bytes at this offset. The file is that long.
    ///
    /// # Errors
    /// `Error::Io`; `Error::Corrupt` if the disk can't give them back.
    pub(crate) fn bytes(&mut self, offset: u64, length: usize) -> Result<&[u8], Error> {
        let is_held = offset >= self.part_offset
            && offset + length as u64 <= self.part_offset + self.part.len() as u64;
        if !is_held {
            let kept = self.keep(offset);
            let needed = (offset - self.part_offset) as usize + length;
            let left = self
                .file_bytes
                .saturating_sub(self.part_offset + kept as u64);
            let left = usize::try_from(left).unwrap_or(usize::MAX);
            let ahead = kept + READ_BYTES.min(left);
            self.part.resize(needed.max(ahead), 0);
            self.fill(kept, needed)?;
        }
        let start = (offset - self.part_offset) as usize;
        Ok(self
            .part
            .get(start..start + length)
            .expect("it was read just above, or is held"))
    }

    /// Drops what is not to be kept, so that the part goes on to this offset or begins there. How
    /// many bytes it has.
    fn keep(&mut self, offset: u64) -> usize {
        let part_end = self.part_offset + self.part.len() as u64;
        let held = self.part_offset..=part_end.min(offset);
        match self.kept_from.filter(|from| held.contains(from)) {
            Some(from) if offset <= part_end => {
                self.part.drain(..(from - self.part_offset) as usize);
                self.part_offset = from;
            }
            _ => {
                self.part.clear();
                self.part_offset = offset;
            }
        }
        self.part.len()
    }

    /// Reads the part behind its first `kept` bytes. Where the disk can't give it back, what is in
    /// front of that place is read; `needed` bytes of the part there must be.
    fn fill(&mut self, kept: usize, needed: usize) -> Result<(), Error> {
        let failed = Error::io(self.disk, self.name, "read");
        let (disk, offset) = (self.disk, self.part_offset);
        let unread = self.part.get_mut(kept..).expect("it was made longer");
        match disk.read_at(&self.file, unread, offset + kept as u64) {
            Err(error) if is_unreadable(&error) => {}
            read => return read.map_err(failed),
        }
        let mut readable = kept;
        while readable < self.part.len() {
            let at = offset + readable as u64;
            let end = (at / BLOCK_BYTES + 1) * BLOCK_BYTES - offset;
            let end = self.part.len().min(end as usize);
            let block = self.part.get_mut(readable..end);
            let block = block.expect("it ends in the part");
            match disk.read_at(&self.file, block, at) {
                Ok(()) => readable = end,
                Err(error) if is_unreadable(&error) && readable >= needed => break,
                Err(error) => {
                    self.part.truncate(kept);
                    return Err(failed(error).or_damage(at));
                }
            }
        }
        self.part.truncate(readable);
        Ok(())
    }

    /// Fills the buffer from the start of the file, which is that long, and reads no more.
    pub(crate) fn read_header(&self, buffer: &mut [u8]) -> Result<(), Error> {
        let read = self.disk.read_at(&self.file, buffer, 0);
        let failed = Error::io(self.disk, self.name, "read");
        read.map_err(|error| failed(error).or_damage(0))
    }

    /// Where what was written ends, looking from `offset` on: behind the last sector that is not
    /// all zeros, or at `offset`. `None` if there is a record of another batch than `batch`: it
    /// was written when that batch was synced.
    pub(crate) fn written_end(
        &mut self,
        offset: u64,
        salt: u32,
        batch: u64,
    ) -> Result<Option<u64>, Error> {
        let sector_bytes = SECTOR_BYTES as u64;
        let mut written_end = offset;
        let mut start = offset;
        while start < self.file_bytes {
            let end = (start / sector_bytes + 1) * sector_bytes;
            let end = end.min(self.file_bytes);
            let sector = self.bytes(start, (end - start) as usize)?;
            if !is_zero(sector) {
                let proves_sync = |bytes| match Header::decode(bytes, salt) {
                    Ok(header) => header.batch != batch,
                    Err(Invalid::Zeros | Invalid::Checksum { .. }) => false,
                    Err(Invalid::Version(_) | Invalid::Field { .. }) => true,
                };
                if header_places(sector).any(proves_sync)
                    && !mutants::is_on(Mutant::LaterBatchIgnored)
                {
                    return Ok(None);
                }
                written_end = end;
            }
            start = end;
        }
        Ok(Some(written_end))
    }
}
