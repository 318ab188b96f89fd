//! What a start does to a directory, once it has looked at all of it and before it relies on it. If
//! something is lost, the mark comes first: a crash at any moment finds it, or finds the damage again.

use mutants::Mutant;

use crate::disk::Disk;
use crate::error::Error;
use crate::meta;
use crate::recover::Log;
use crate::snapshots::remove;

/// How much is erased with one write.
const ERASE_BYTES: u64 = 1 << 20;

/// Marks this server as recovering in both files.
pub(crate) fn mark<D: Disk>(disk: &D, claimed: &mut meta::Loaded<D::File>) -> Result<(), Error> {
    if mutants::is_on(Mutant::DamageTruncates) {
        return Ok(());
    }
    claimed.state.recovering = true;
    for _ in 0..2 {
        claimed.state.sequence += 1;
        claimed.files.write(disk, &claimed.state)?;
    }
    Ok(())
}

/// Removes the segments that the log does without, for good.
pub(crate) fn give_up<D: Disk>(disk: &D, useless: &[String]) -> Result<(), Error> {
    remove(disk, useless, |_| true)?;
    disk.sync_directory()
        .map_err(Error::io(disk, "", "sync the data directory"))
}

/// Makes durable what was found of the log, and nothing behind it.
///
/// The last batch is written again as it is: if its sync failed, or the process was killed before,
/// it may be in the kernel's memory alone, and if the sync failed the kernel takes that for written,
/// so that no later sync would write it (rule 7). It is the only one: none is written before the one
/// before it is synced.
pub(crate) fn mend<D: Disk>(disk: &D, log: &Log<D::File>) -> Result<(), Error> {
    let segment = &log.segment;
    let name = segment.header.name();
    let (offset, bytes) = &log.again;
    disk.write_at(&segment.file, bytes, *offset)
        .map_err(Error::io(disk, &name, "write"))?;
    let mut offset = segment.end;
    while offset < log.dirty_end {
        let length = (log.dirty_end - offset).min(ERASE_BYTES);
        disk.write_at(&segment.file, &vec![0; length as usize], offset)
            .map_err(Error::io(disk, &name, "erase the end of"))?;
        offset += length;
    }
    disk.sync(&segment.file)
        .map_err(Error::io(disk, &name, "sync"))
}
