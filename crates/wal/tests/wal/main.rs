//! The log, on disks that lose power, rot or are full. All in one program: in each of several the
//! log would be built once more for the disks that are there for tests.

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
