//! What a run is made of: each seed draws which faults there are at all, how often each happens,
//! how small the limits are and what the clients do (swarm testing). Never all faults at once: that
//! mostly measures outages.

use std::collections::BTreeSet;
use std::fmt;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// A kind of fault, or of extreme configuration, that a run has or has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Frames get lost.
    Loss,
    /// Frames arrive twice.
    Duplicates,
    /// Frames arrive up to a second late: old ones find what new ones do not.
    Late,
    /// Connections between servers break, often with all that is under way.
    Resets,
    /// Links carry a few bytes in a millisecond.
    SlowLinks,
    /// Frames get through one way only.
    OneWay,
    /// Servers are split into groups.
    Partitions,
    /// The leader is cut off.
    IsolatedLeader,
    /// Processes are killed.
    Kills,
    /// The power of a server goes off: what is not synced is lost, kept or torn.
    PowerCuts,
    /// Crashes hit servers between a write and its sync.
    Unsynced,
    /// All servers crash at once, and again while they start.
    Storms,
    /// Processes are stopped and go on later.
    Pauses,
    /// Servers are told to stop, and hand over.
    Stops,
    /// A server loses its disk.
    Wipes,
    /// Syncs take up to two seconds.
    Stalls,
    /// Syncs fail.
    FailedSyncs,
    /// Disks are full for a while.
    FullDisks,
    /// Bytes on a disk turn into others.
    Rot,
    /// Disks give back other bytes than they hold.
    Misreads,
    /// Turns take up to five milliseconds.
    SlowTurns,
    /// Clocks go at other rates.
    Drift,
    /// Wall clocks differ.
    Offsets,
    /// Wall clocks jump.
    Jumps,
    /// Limits of a few hundred bytes.
    Small,
    /// Segments of 8 KiB.
    SmallSegments,
    /// Clients that lose no time: half of them know at once who leads, the others stay with a leader
    /// of old.
    Nimble,
    /// Clients leave amid their commands.
    Leavers,
    /// Clients send what is no command.
    Malformed,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 29] = [
        Fault::Loss,
        Fault::Duplicates,
        Fault::Late,
        Fault::Resets,
        Fault::SlowLinks,
        Fault::OneWay,
        Fault::Partitions,
        Fault::IsolatedLeader,
        Fault::Kills,
        Fault::PowerCuts,
        Fault::Unsynced,
        Fault::Storms,
        Fault::Pauses,
        Fault::Stops,
        Fault::Wipes,
        Fault::Stalls,
        Fault::FailedSyncs,
        Fault::FullDisks,
        Fault::Rot,
        Fault::Misreads,
        Fault::SlowTurns,
        Fault::Drift,
        Fault::Offsets,
        Fault::Jumps,
        Fault::Small,
        Fault::SmallSegments,
        Fault::Nimble,
        Fault::Leavers,
        Fault::Malformed,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> String {
        let mut name = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.extend(letter.to_lowercase());
        }
        name
    }

    /// The fault of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Fault> {
        Fault::ALL.into_iter().find(|fault| fault.name() == name)
    }

    /// One that a seed without faults may have all the same.
    fn is_configuration(self) -> bool {
        matches!(
            self,
            Fault::Drift | Fault::Offsets | Fault::Small | Fault::SmallSegments | Fault::Malformed
        )
    }
}

/// How the clients share out their commands, in parts of their sum.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    pub set: u32,
    pub get: u32,
    pub gets: u32,
    pub cas: u32,
    pub add: u32,
    pub append: u32,
    pub count: u32,
    pub delete: u32,
    pub touch: u32,
    pub expiring: u32,
    pub flush: u32,
    /// Commands on topics, in twenty of all.
    pub topics: u32,
}

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    /// Simulated time with faults.
    pub faulty_ms: u64,
    pub servers: u64,
    pub faults: BTreeSet<Fault>,
    /// How often a fault strikes: the mean time between two of them, of all kinds.
    pub chaos_ms: u64,
    /// Of frames, in a thousand.
    pub loss: u32,
    pub duplicates: u32,
    pub late: u32,
    /// The longest time that a frame takes if it is not late, in microseconds.
    pub latency_us: u64,
    /// What a link carries in a millisecond, if links are slow.
    pub link_bytes: u64,
    /// The longest time of a usual sync, in microseconds.
    pub sync_us: u64,
    pub drift_percent: u64,
    pub append_bytes_max: usize,
    pub window_bytes_max: usize,
    pub cache_bytes_max: usize,
    /// How long entries may be kept from followers that a majority is there without.
    pub deferral_ms: u64,
    pub unsettled_bytes_max: usize,
    pub owed_commands_max: usize,
    pub segment_bytes: u64,
    /// A snapshot is due after so many entries, and so much of the log stays behind it.
    pub snapshot_entries: u64,
    pub state_hash_ms: u64,
    pub keep_bytes: u64,
    pub clients: usize,
    pub keys: u64,
    /// The most commands that a client sends before it waits.
    pub pipeline_max: u64,
    /// How long a client thinks, at most.
    pub think_ms: u64,
    /// Of writes, in a hundred.
    pub noreply: u32,
    pub value_bytes_max: usize,
    pub mix: Mix,
    /// Which servers forward commands while they follow.
    pub forwards: Forwards,
    /// All servers are restored from a backup before they begin.
    pub restored: bool,
    /// Servers read again what is on their disks.
    pub scrubs: bool,
}

/// Which servers forward commands while they follow; the others redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwards {
    None,
    EverySecond,
    All,
}

impl Forwards {
    /// Whether this server does.
    #[must_use]
    pub fn has(self, id: u64) -> bool {
        match self {
            Forwards::None => false,
            Forwards::EverySecond => id.is_multiple_of(2),
            Forwards::All => true,
        }
    }
}

impl Options {
    /// What this seed draws. Faults in `without` are left out, and nothing else changes.
    #[must_use]
    pub fn draw(seed: u64, faulty_ms: u64, without: &BTreeSet<Fault>) -> Options {
        let mut options = Options::draw_all(seed, faulty_ms, without);
        // By a chance of its own, so that what else a seed draws does not hang on it.
        let mut random = StdRng::seed_from_u64(seed ^ 0x7091c5);
        if random.random_bool(0.5) {
            options.mix.topics = random.random_range(1..=12);
        }
        options.deferral_ms = [0, 5, 5, 30][random.random_range(0..4)];
        options
    }

    fn draw_all(seed: u64, faulty_ms: u64, without: &BTreeSet<Fault>) -> Options {
        let mut random = StdRng::seed_from_u64(seed);
        let random = &mut random;
        let servers = [1, 2, 3, 3, 3, 5, 5, 5, 7][random.random_range(0..9)];
        let calm = random.random_range(0..4) == 0;
        let mut faults = BTreeSet::new();
        for fault in Fault::ALL {
            let often = if fault == Fault::Nimble { 0.1 } else { 0.4 };
            let drawn = random.random_bool(often);
            let fits = !calm || fault.is_configuration();
            if drawn && fits && !without.contains(&fault) {
                faults.insert(fault);
            }
        }
        let small = faults.contains(&Fault::Small);
        let nimble = faults.contains(&Fault::Nimble);
        if nimble && servers > 2 && !calm && !without.contains(&Fault::IsolatedLeader) {
            faults.insert(Fault::IsolatedLeader);
        }
        let of = |fault, value: u32| if faults.contains(&fault) { value } else { 0 };
        let (loss, duplicates, late) = (
            logarithmic(random, 2, 200),
            logarithmic(random, 2, 200),
            logarithmic(random, 5, 50),
        );
        let bytes = |random: &mut StdRng, least, most, usual: usize| {
            let drawn = logarithmic(random, least, most) as usize;
            if small { drawn } else { usual }
        };
        Options {
            seed,
            faulty_ms,
            servers,
            chaos_ms: u64::from(logarithmic(random, 100, if nimble { 400 } else { 3000 })),
            loss: of(Fault::Loss, loss),
            duplicates: of(Fault::Duplicates, duplicates),
            late: of(Fault::Late, late),
            latency_us: u64::from(logarithmic(random, 50, if nimble { 1000 } else { 20_000 })),
            link_bytes: u64::from(logarithmic(random, 10, 2000)),
            sync_us: u64::from(logarithmic(random, 50, if nimble { 1000 } else { 30_000 })),
            drift_percent: u64::from(of(Fault::Drift, 10)),
            append_bytes_max: bytes(random, 100, 4000, 1 << 20),
            window_bytes_max: bytes(random, 200, 8000, 8 << 20),
            cache_bytes_max: bytes(random, 100, 8000, 1 << 20),
            deferral_ms: 0,
            unsettled_bytes_max: bytes(random, 500, 20_000, 64 << 20),
            owed_commands_max: bytes(random, 2, 100, 16 << 10),
            segment_bytes: if faults.contains(&Fault::SmallSegments) {
                8 << 10
            } else {
                64 << 10
            },
            snapshot_entries: u64::from(logarithmic(random, 10, 2000)),
            state_hash_ms: u64::from(logarithmic(random, 50, 5000)),
            keep_bytes: u64::from(logarithmic(random, 1, 100)) << 10,
            clients: if nimble {
                6
            } else {
                random.random_range(1..=5)
            },
            keys: u64::from(logarithmic(random, 1, 16)),
            pipeline_max: u64::from(logarithmic(random, 1, if nimble { 3 } else { 40 })),
            think_ms: if nimble {
                4
            } else {
                u64::from(logarithmic(random, 20, 400))
            },
            noreply: [0, 0, 10, 50][random.random_range(0..4)],
            value_bytes_max: logarithmic(random, 8, 600) as usize,
            mix: Mix::draw(random),
            forwards: match random.random_range(0..10) {
                0..5 => Forwards::None,
                5 => Forwards::EverySecond,
                _ => Forwards::All,
            },
            faults,
            restored: random.random_range(0..8) == 0,
            scrubs: random.random_range(0..4) > 0,
        }
    }

    /// Whether the run has this fault.
    #[must_use]
    pub fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }
}

impl Mix {
    fn draw(random: &mut StdRng) -> Mix {
        let mut part = |most: u32| {
            let drawn = random.random_range(1..=most);
            if random.random_bool(0.7) { drawn } else { 0 }
        };
        Mix {
            set: 1 + part(10),
            get: 1 + part(10),
            gets: part(5),
            cas: part(5),
            add: part(3),
            append: part(3),
            count: part(5),
            delete: part(3),
            touch: part(3),
            expiring: part(4),
            flush: part(1),
            topics: 0,
        }
    }
}

/// Between the two, each order of magnitude as likely as the other.
fn logarithmic(random: &mut StdRng, least: u32, most: u32) -> u32 {
    let (low, high) = (f64::from(least).ln(), f64::from(most).ln());
    let drawn = random.random_range(low..=high).exp();
    (drawn.round() as u32).clamp(least, most)
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.faults.iter().map(|fault| fault.name()).collect();
        write!(
            f,
            "{} servers{} ({:?} forward), {} clients, {} ms with [{}]",
            self.servers,
            if self.restored { " from a backup" } else { "" },
            self.forwards,
            self.clients,
            self.faulty_ms,
            names.join(" "),
        )
    }
}
