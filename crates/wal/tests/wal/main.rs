//! The log, on disks that lose power, rot or are full. All in one program: each of several would have
//! the log, which is generic over its disk, compiled for the disks of the tests once more.

mod backup;
mod beginning;
mod corruption;
mod crash;
mod formats;
mod inspect;
mod log;
mod recovering;
mod scrub;
mod snapshots;
mod support;
mod sweep;
