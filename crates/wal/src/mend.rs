//! What a start does to the end of the log before it relies on it.

use mutants::Mutant;

use crate::disk::Disk;
use crate::error::Error;
use crate::recover::Scanned;

/// How much is erased with one write.
const ERASE_BYTES: usize = 1 << 20;

/// Erases the torn end of the last segment, and makes everything before it durable.
pub(crate) fn mend<D: Disk>(disk: &D, scanned: &Scanned<D::File>) -> Result<(), Error> {
    let segment = &scanned.segment;
    let name = segment.header.name();
    if let Some(torn) = &scanned.torn
        && !mutants::is_on(Mutant::TornTailKept)
    {
        erase(disk, &name, &segment.file, torn.offset, torn.bytes)?;
    }
    // The last batch is written again, as it is: if its sync failed, or the process was killed
    // before, it may be in the kernel's memory alone, and if the sync failed the kernel takes that
    // for written, so that no later sync would write it (rule 7). It is the only one: none is
    // written before the one before it is synced.
    disk.write_at(&segment.file, &scanned.again, scanned.again_from)
        .map_err(Error::io(disk, &name, "write"))?;
    disk.sync(&segment.file)
        .map_err(Error::io(disk, &name, "sync"))
}

/// Writes zeros; `mend` makes them durable.
fn erase<D: Disk>(
    disk: &D,
    name: &str,
    file: &D::File,
    offset: u64,
    bytes: u64,
) -> Result<(), Error> {
    let zeros = vec![0; ERASE_BYTES];
    let end = offset + bytes;
    let mut offset = offset;
    while offset < end {
        let length = (end - offset).min(ERASE_BYTES as u64) as usize;
        let (zeros, _) = zeros.split_at(length);
        disk.write_at(file, zeros, offset)
            .map_err(Error::io(disk, name, "erase a torn end"))?;
        offset += length as u64;
    }
    Ok(())
}
