//! Whatever the power or the process does, a log gives back everything that was acknowledged and
//! nothing that was never written (rules 1, 2, 7, 8).

use std::sync::{Arc, Mutex};

use quorate_wal::{Disk, Error, Failure, MemoryDisk, Opened, Options, Wal};
use raft::{Index, Restart, Snapshot};

use crate::support::hooked_disk::{Act, HookedDisk};
use crate::support::script::{Operation, script, script_behind, script_with_snapshots};
use crate::support::{
    Done, Model, assert_grown, healing_options, mix, observe, open, operate, options, write,
};

/// What must be recovered at the moment.
#[derive(Clone, Debug, Default)]
struct Watch {
    acknowledged: Model,
    /// With everything that was appended since.
    appended: Model,
    snapshot: Option<Snapshot>,
    /// The one that is being written.
    next_snapshot: Option<Snapshot>,
    /// The log begins behind an entry between these two.
    dropped: (Index, Index),
    drops: u32,
    restart: Restart,
    /// The server is marked as recovering: with what is acknowledged, and with what was appended.
    /// Only one that was may be.
    marks: (bool, bool),
    was_marked: bool,
    moments: u64,
}

/// Crashes a copy of the disk, in every way.
fn crash(disk: &MemoryDisk, watch: &mut Watch) {
    watch.moments += 1;
    power_cut(disk, watch);
    if watch.moments.is_multiple_of(3) {
        kill(disk, watch);
    }
}

impl Watch {
    /// Opens what a crash left, checks what it holds, and that it is marked if it must be.
    fn open(&self, disk: &MemoryDisk, seed: u64) -> (Wal<MemoryDisk>, Opened, Model) {
        let (wal, opened) = Wal::open(disk.clone(), self.options(seed))
            .unwrap_or_else(|error| panic!("moment {}: {error}", self.moments));
        assert!(opened.lost.is_none(), "moment {}", self.moments);
        let found = observe(&wal, &opened);
        self.check(&found, opened.recovered.recovering);
        assert_grown(opened.restart, self.restart);
        (wal, opened, found)
    }

    fn options(&self, seed: u64) -> Options {
        Options {
            heals: self.was_marked,
            ..options(seed)
        }
    }

    /// A batch is in the log wholly or not at all, and a snapshot is there or not. The mark goes only
    /// behind the batch that says so, and once that is acknowledged it does not come back.
    fn check(&self, found: &Model, is_marked: bool) {
        let snapshots = [&self.snapshot, &self.next_snapshot];
        let (with_acknowledged, with_appended) = self.marks;
        let logs = [
            (&self.acknowledged, is_marked == with_acknowledged),
            (
                &self.appended,
                is_marked == with_acknowledged || is_marked == with_appended,
            ),
        ];
        let is_expected = logs
            .into_iter()
            .filter(|(_, is_marked_so)| *is_marked_so)
            .flat_map(|(log, _)| snapshots.map(|snapshot| log.recovered_with(snapshot.as_ref())))
            .any(|expected| self.is_dropped(expected, found));
        assert!(
            is_expected,
            "moment {}: acknowledged {}, appended {}, dropped {:?}, snapshots {:?}, marks {:?}, \
             found {}, marked {is_marked}",
            self.moments,
            self.acknowledged,
            self.appended,
            self.dropped,
            snapshots.map(|snapshot| snapshot.as_ref().map(|snapshot| snapshot.position)),
            self.marks,
            found,
        );
    }

    /// True if what was found is this, but for what was dropped.
    fn is_dropped(&self, mut expected: Model, found: &Model) -> bool {
        let (least, most) = self.dropped;
        let begin = expected.before.index;
        let before = found.before;
        if before.index < least.max(begin)
            || before.index > most.max(begin)
            || expected.position_at(before.index) != Some(before)
        {
            return false;
        }
        expected.drop_to(before);
        *found == expected
    }

    /// Before an operation.
    fn begin(&mut self, operation: &Operation) {
        match operation {
            Operation::Append(write) => {
                self.appended.apply(write);
                self.marks.1 &= !write.recovered;
            }
            Operation::Snapshot(snapshot) | Operation::Receive(snapshot) => {
                self.next_snapshot = Some(snapshot.clone());
            }
            Operation::Drop(index, _) => self.dropped.1 = *index,
            Operation::Sync | Operation::Prepare => {}
        }
    }

    /// After it.
    fn end(&mut self, operation: &Operation, done: &Done) {
        match (operation, done) {
            (_, Done::Synced) => {
                self.acknowledged = self.appended.clone();
                self.marks.0 = self.marks.1;
            }
            (_, Done::Dropped(before)) => {
                self.drops += u32::from(before.is_some());
                let before = before.map_or(self.dropped.0, |before| before.index);
                self.dropped = (before, before);
            }
            _ => self.snapshot = self.next_snapshot.clone(),
        }
    }
}

fn power_cut(disk: &MemoryDisk, watch: &Watch) {
    let seed = mix(watch.moments, 1);
    let disk = disk.after_power_cut(seed);
    crash_in_recovery(&disk, watch);
    let (_, opened, found) = watch.open(&disk, seed);

    // What a start has said is durable.
    let disk = disk.after_power_cut(mix(seed, 2));
    let (mut wal, again, found_again) = watch.open(&disk, seed);
    assert_eq!(found_again, found);
    assert_eq!(again.recovered.recovering, opened.recovered.recovering);
    assert_tidy(&disk);
    assert_eq!(again.torn, None);
    assert_grown(again.restart, opened.restart);
    if watch.moments.is_multiple_of(16) {
        go_on(&mut wal, found_again, &disk, watch.options(seed));
    }
}

/// What an earlier start left behind is gone.
fn assert_tidy(disk: &MemoryDisk) {
    let names = disk.list().expect("the disk is sound");
    let snapshots = names.iter().filter(|name| name.ends_with(".snap")).count();
    let is_left = |name: &String| name.ends_with(".tmp") && name.starts_with("snap-");
    assert!(snapshots <= 2 && !names.iter().any(is_left), "{names:?}");
}

/// The recovery itself is cut off, and then done again: at each of its operations for some moments,
/// at another one each time for the others.
fn crash_in_recovery(disk: &MemoryDisk, watch: &Watch) {
    let counting = disk.copy();
    let before = counting.operations();
    Wal::open(counting.clone(), watch.options(1)).expect("the disk is sound");
    let operations = counting.operations() - before;
    let is_thorough = watch.moments.is_multiple_of(16);
    for operation in 0..operations {
        if !is_thorough && operation != watch.moments % operations {
            continue;
        }
        let disk = disk.copy();
        disk.cut_power_at(disk.operations() + 1 + operation);
        Wal::open(disk.clone(), watch.options(1)).expect_err("the power goes while it opens");
        watch.open(&disk.after_power_cut(mix(watch.moments, 3 + operation)), 2);
    }
}

/// The process is killed, the next one recovers from what was not synced, and then the power
/// goes: what it recovered must still be there.
fn kill(disk: &MemoryDisk, watch: &Watch) {
    let disk = disk.copy();
    let (_, opened, found) = watch.open(&disk, watch.moments);
    let disk = disk.after_power_cut(mix(watch.moments, 4));
    let (_, again, found_again) = watch.open(&disk, 2);
    assert_eq!(found_again, found);
    assert_eq!(again.recovered.recovering, opened.recovered.recovering);
}

/// A recovered log takes more, and gives that back too.
fn go_on(wal: &mut Wal<MemoryDisk>, mut model: Model, disk: &MemoryDisk, options: Options) {
    let last = model.last();
    let term = last.term.0.max(model.hard_state.term.0).max(1);
    let write = write(1, term, last.index.0, &[b"one", &[7; 700], b"three"]);
    model.apply(&write);
    wal.append(&write).expect("the log takes it");
    wal.sync().expect("the disk is sound");
    let disk = disk.after_power_cut(mix(options.seed, 5));
    let (wal, opened) = Wal::open(disk, options).expect("the disk is sound");
    assert_eq!(observe(&wal, &opened), model);
}

#[test]
fn a_crash_at_any_moment_loses_nothing_acknowledged_and_invents_nothing() {
    let (watch, disk) = crash_at_every_moment(&script(1, 2200));
    let segments = disk.list().expect("the disk is sound").len();
    assert!(
        watch.moments > 2000 && segments > 20,
        "{} moments and {segments} files are too few",
        watch.moments
    );
}

#[test]
fn a_crash_at_any_moment_finds_the_old_snapshot_or_the_new_one_and_the_log_that_goes_with_it() {
    let mut drops = 0;
    for seed in [11, 12] {
        let script = script_with_snapshots(seed, 1000);
        let of = |is: fn(&Operation) -> bool| script.iter().filter(|of| is(of)).count();
        let written = of(|operation| matches!(operation, Operation::Snapshot(_)));
        let received = of(|operation| matches!(operation, Operation::Receive(_)));
        let (watch, disk) = crash_at_every_moment(&script);
        let files = disk.list().expect("the disk is sound").len();
        assert!(
            watch.moments > 1000 && written > 10 && received > 3 && files < 20,
            "{} moments, {written} snapshots, {received} received, {files} files",
            watch.moments
        );
        drops += watch.drops;
    }
    assert!(drops > 10, "the log was dropped {drops} times");
}

/// A server that is marked as recovering takes what it lost, snapshots too, and then more.
#[test]
fn a_crash_at_any_moment_leaves_the_mark_until_everything_is_back_and_not_after_it() {
    let disk = MemoryDisk::new();
    let (mut wal, _, _) = open(disk.clone(), 14);
    for operation in script_with_snapshots(14, 400) {
        operate(&mut wal, &operation).expect("the disk is sound");
    }
    wal.sync().expect("the disk is sound");
    let mut names = disk.list().expect("the disk is sound");
    names.retain(|name| name.ends_with(".log"));
    let (mut moments, mut from_snapshot) = (0, 0);
    for (seed, name) in (1..).zip(&names) {
        let disk = disk.copy();
        disk.rot(name, 5000, 0x10);
        let (wal, opened) = Wal::open(disk.clone(), healing_options(seed)).expect("it heals");
        assert!(opened.recovered.recovering, "nothing is lost in {name}");
        let model = observe(&wal, &opened);
        from_snapshot += u32::from(model.entries.is_empty());
        let mut script = script_behind(model.clone(), seed, 200);
        let (_, behind) = script.split_at_mut(100);
        let says_so = behind.iter_mut().find_map(|operation| match operation {
            Operation::Append(write) => Some(write),
            _ => None,
        });
        says_so.expect("a script is half of writes").recovered = true;
        let watch = Watch {
            acknowledged: model.clone(),
            snapshot: model.snapshot.clone(),
            next_snapshot: model.snapshot.clone(),
            appended: model,
            restart: opened.restart,
            marks: (true, true),
            was_marked: true,
            ..Watch::default()
        };
        drop(wal);
        let (watch, _) = crash_from(disk.after_kill(), watch, &script);
        assert_eq!(watch.marks, (false, false));
        moments += watch.moments;
    }
    assert!(
        moments > 500 && from_snapshot > 0 && from_snapshot < names.len() as u32,
        "{moments} moments, {from_snapshot} of {} kept no entries",
        names.len()
    );
}

/// Runs a script in an empty directory, with a crash before each operation of the disk.
fn crash_at_every_moment(script: &[Operation]) -> (Watch, MemoryDisk) {
    crash_from(MemoryDisk::new(), Watch::default(), script)
}

/// Runs a script behind what this disk holds, with a crash before each operation of the disk.
fn crash_from(disk: MemoryDisk, watch: Watch, script: &[Operation]) -> (Watch, MemoryDisk) {
    let options = watch.options(9);
    let watch = Arc::new(Mutex::new(watch));
    let watched = Arc::clone(&watch);
    let disk = HookedDisk::new(disk, move |disk, act| {
        if act == Act::Change {
            crash(
                disk,
                &mut watched.lock().expect("no holder of this lock panics"),
            );
        }
    });
    let watch = || watch.lock().expect("no holder of this lock panics");
    let (mut wal, opened) = Wal::open(disk.clone(), options).expect("the disk is sound");
    watch().restart = opened.restart;
    for operation in script {
        watch().begin(operation);
        let done = operate(&mut wal, operation).expect("the disk is sound");
        watch().end(operation, &done);
    }
    crash(&disk.disk, &mut watch());
    let watch = watch().clone();
    (watch, disk.disk)
}

#[test]
fn a_failed_operation_is_reported_and_nothing_is_written_after_it() {
    let script = script(2, 400);
    let total = {
        let disk = MemoryDisk::new();
        run(&disk, &script).expect("the disk is sound");
        disk.operations()
    };
    assert!(total > 300, "{total} operations are too few");
    for failing in 1..=total {
        for failure in [Failure::Device, Failure::Full] {
            let disk = MemoryDisk::new();
            disk.fail_at(failing, failure);
            let (acknowledged, appended) = match run(&disk, &script) {
                Err(outcome) => *outcome,
                // Only the preparation of the next segment goes on without space (rule 7).
                Ok(model) if failure == Failure::Full => (model.clone(), model),
                Ok(_) => panic!("operation {failing} failed and nobody was told"),
            };
            let (_, _, found) = open(disk.after_power_cut(mix(failing, 6)), 3);
            assert!(
                found == acknowledged || found == appended,
                "operation {failing}: acknowledged up to {:?}, appended up to {:?}, found up to {:?}",
                acknowledged.last(),
                appended.last(),
                found.last(),
            );
        }
    }
}

#[test]
fn a_failed_operation_around_snapshots_loses_nothing_and_a_full_disk_ends_only_the_snapshot() {
    let script = script_with_snapshots(13, 300);
    let total = {
        let disk = MemoryDisk::new();
        assert!(fail(&disk, &script).1.is_none());
        disk.operations()
    };
    assert!(total > 300, "{total} operations are too few");
    let mut without_space = 0;
    for failing in 1..=total {
        for failure in [Failure::Device, Failure::Full] {
            let disk = MemoryDisk::new();
            disk.fail_at(failing, failure);
            let (watch, error) = fail(&disk, &script);
            match error {
                Some(Error::Io { .. }) => {}
                Some(Error::NoSpace { .. }) if failure == Failure::Full => without_space += 1,
                None if failure == Failure::Full => {}
                other => panic!("operation {failing}: {other:?}"),
            }
            let (_, _, found) = open(disk.after_power_cut(mix(failing, 6)), 3);
            watch.check(&found, false);
        }
    }
    assert!(
        without_space > 30,
        "{without_space} snapshots found no room"
    );
}

/// Runs a script until the disk fails. If there is no space for a snapshot, the log still takes
/// what is left of the batch.
fn fail(disk: &MemoryDisk, script: &[Operation]) -> (Watch, Option<Error>) {
    let mut watch = Watch::default();
    let mut wal = match Wal::open(disk.clone(), options(4)) {
        Ok((wal, _)) => wal,
        Err(error) => return (watch, Some(error)),
    };
    for operation in script {
        watch.begin(operation);
        match operate(&mut wal, operation) {
            Ok(done) => watch.end(operation, &done),
            Err(error @ Error::NoSpace { .. }) => {
                watch.next_snapshot = watch.snapshot.clone();
                wal.sync().expect("the log goes on");
                watch.acknowledged = watch.appended.clone();
                return (watch, Some(error));
            }
            Err(error) => return (watch, Some(error)),
        }
    }
    (watch, None)
}

#[test]
fn a_log_without_space_for_its_next_segment_waits_and_loses_nothing() {
    for full_from in [0, 3, 20, 60] {
        let disk = MemoryDisk::new();
        let script = script(9, 400);
        let (mut wal, _, mut model) = open(disk.clone(), 9);
        let mut acknowledged = model.clone();
        let mut waits = 0;
        for (at, operation) in script.iter().chain([&Operation::Sync]).enumerate() {
            if at == full_from {
                disk.set_full(true);
            }
            if let Operation::Append(write) = operation {
                model.apply(write);
            }
            let mut done = operate(&mut wal, operation);
            if matches!(done, Err(Error::NoSpace { .. })) {
                waits += 1;
                assert!(!wal.has_reserve());
                let again = operate(&mut wal, operation);
                assert!(matches!(again, Err(Error::NoSpace { .. })), "{again:?}");
                let (_, _, found) = open(disk.after_power_cut(9), 9);
                assert_eq!(found, acknowledged);
                disk.set_full(false);
                done = operate(&mut wal, operation);
            }
            if let Done::Synced = done.expect("there is space") {
                acknowledged = model.clone();
            }
        }
        assert_eq!(waits, 1, "400 operations found room on a full disk");
        let (_, _, found) = open(disk.after_power_cut(9), 9);
        assert_eq!(found, model);
    }
}

#[test]
fn the_space_of_the_next_segment_is_reserved_before_this_one_is_used() {
    let disk = MemoryDisk::new();
    let (mut wal, _, _) = open(disk.clone(), 1);
    let prepare = |wal: &mut Wal<MemoryDisk>| {
        while wal.prepare_next().expect("a full disk is no error") {}
        wal.has_reserve()
    };
    assert!(prepare(&mut wal));
    disk.set_full(true);
    let payload = vec![7; 1000];
    let mut id = 0;
    while prepare(&mut wal) {
        id += 1;
        wal.append(&write(id, 1, id - 1, &[&payload]))
            .expect("the log takes it");
        wal.sync().expect("the reserve has room for it");
    }
    // It has begun the reserve, which has room for what is under way.
    assert!(id >= 3, "{id} entries of a quarter of a segment");
    disk.set_full(false);
    assert!(prepare(&mut wal));
}

/// Runs a script until the disk fails, and then everything that must be refused. Returns what
/// was acknowledged at the end; or if it failed, that and what was appended.
fn run(disk: &MemoryDisk, script: &[Operation]) -> Result<Model, Box<(Model, Model)>> {
    let mut acknowledged = Model::default();
    let mut appended = Model::default();
    let Ok((mut wal, _)) = Wal::open(disk.clone(), options(4)) else {
        return Err(Box::new((acknowledged, appended)));
    };
    for operation in script.iter().chain([&Operation::Sync]) {
        if let Operation::Append(write) = operation {
            appended.apply(write);
        }
        let mut done = operate(&mut wal, operation);
        if matches!(done, Err(Error::NoSpace { .. })) {
            done = operate(&mut wal, operation);
        }
        match done {
            Ok(Done::Synced) => acknowledged = appended.clone(),
            Ok(_) => {}
            Err(error) => {
                assert!(matches!(error, Error::Io { .. }), "{error}");
                let operations = disk.operations();
                for operation in script.iter().take(20) {
                    let refused = operate(&mut wal, operation);
                    assert!(matches!(refused, Err(Error::Failed)), "{refused:?}");
                }
                assert!(matches!(wal.close(), Err(Error::Failed)));
                assert_eq!(disk.operations(), operations);
                return Err(Box::new((acknowledged, appended)));
            }
        }
    }
    Ok(acknowledged)
}

#[test]
fn the_same_script_and_seed_make_the_same_files() {
    let script = script(5, 300);
    let contents = || {
        let disk = MemoryDisk::new();
        run(&disk, &script).expect("the disk is sound");
        let mut names = disk.list().expect("the disk is sound");
        names.sort();
        names
            .into_iter()
            .map(|name| (disk.content(&name), name))
            .collect::<Vec<_>>()
    };
    assert_eq!(contents(), contents());
}
