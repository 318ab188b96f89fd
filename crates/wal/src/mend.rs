//! What a start does to a directory, once it has looked at all of it and before it relies on it. If
//! something is lost, the mark comes first: a crash at any moment finds it, or finds the damage again.

use mutants::Mutant;

use crate::aside::Aside;
use crate::disk::{BLOCK_BYTES, Disk};
use crate::error::Error;
use crate::meta;
use crate::recover::{Log, Look};

/// How much is erased with one write.
const ERASE_BYTES: u64 = 1 << 20;

/// Marks this server as recovering in both files.
fn mark<D: Disk>(disk: &D, claimed: &mut meta::Loaded<D::File>) -> Result<(), Error> {
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

/// Sets aside what the log goes on without, with the segment that it is cut off in as that is now,
/// once this server is marked.
pub(crate) fn give_up<D: Disk>(
    disk: &D,
    names: &[String],
    claimed: &mut meta::Loaded<D::File>,
    look: &mut Look<D::File>,
) -> Result<(), Error> {
    let aside = Aside::new(disk, claimed.state.restart, names);
    aside.meta(names)?;
    mark(disk, claimed)?;
    let cut = look.log.as_ref().map(|log| &log.segment);
    let cut = cut.map(|segment| segment.header.name());
    let mut useless = std::mem::take(&mut look.useless);
    let damaged = look.found.damaged.iter();
    let damaged = damaged.filter_map(|damaged| damaged.file.file_name()?.to_str());
    useless.extend(damaged.map(str::to_owned));
    aside.log(cut.as_deref(), &useless)
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
        // Whole blocks from the first on: a write of a part of one reads it, which a worn-out
        // sector refuses.
        let to_block = offset.next_multiple_of(BLOCK_BYTES) - offset;
        let most = if to_block > 0 { to_block } else { ERASE_BYTES };
        let length = (log.dirty_end - offset).min(most);
        disk.write_at(&segment.file, &vec![0; length as usize], offset)
            .map_err(Error::io(disk, &name, "erase its end"))?;
        offset += length;
    }
    disk.sync(&segment.file)
        .map_err(Error::io(disk, &name, "sync"))
}
