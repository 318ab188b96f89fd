//! What runs reached: a fault or a path that no run ever takes proves nothing.

use std::fmt;

macro_rules! coverage {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// How often each thing happened.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Coverage {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Coverage {
            /// Each with its name.
            #[must_use]
            pub fn counts(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }

            /// Adds what another run reached.
            pub fn add(&mut self, other: &Coverage) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

coverage! {
    /// Events that happened in the simulated world.
    events,
    /// Commands that clients sent, were told to be done, not done, and of unknown outcome.
    commands,
    done,
    not_done,
    unknown,
    redirects,
    /// Commands that followers sent to leaders, and those that leaders refused there.
    forwarded,
    forwards_refused,
    /// Streams that broke off with commands under way.
    forwards_broken,
    /// Messages of followers that came again, behind a missing one, or in a stream of old.
    forwards_repeated,
    forwards_gaps,
    forwards_late,
    forward_frames,
    noreply,
    /// Meta commands that were done.
    metas,
    /// Commands on topics that were done, and messages that were taken.
    topics,
    taken,
    /// Reads and what they found.
    hits,
    misses,
    /// Committed entries, and commands in them.
    entries,
    applied,
    /// Entries without commands that a leader proposed because something fell due.
    ticks,
    /// Items that were over when their second came.
    expirations,
    elections,
    leaders,
    suspensions,
    truncations,
    /// Turns of a leader with more entries for a follower than its window took.
    full_windows,
    /// Turns of a leader with entries for a follower far behind whose time had not come.
    paced,
    deferred,
    /// Entries that a follower, or the store, needed back from the log.
    fetches,
    /// Messages of older terms or of an older start.
    stale_messages,
    /// Snapshots that were written, that a crash cut short, and that a start loaded.
    state_hashes,
    snapshots,
    snapshots_cut,
    loads,
    /// Times when a log lost what a snapshot covers.
    drops,
    /// Snapshots that a server began to receive, and was told to install.
    transfers_begun,
    installs,
    /// Of these, those that took the place of the state.
    installed,
    /// Servers that were restored from a backup before they began, and crashes meanwhile.
    restores,
    restores_cut,
    kills,
    power_cuts,
    /// Crashes while a write waited for its sync.
    crashes_unsynced,
    /// Starts that found an end of the log that was never synced.
    torn_ends,
    restarts,
    /// Ends of servers that had only just started.
    crashes_young,
    /// Disks that were looked at as if the power had gone.
    disks_checked,
    storms,
    pauses,
    stops,
    transfers,
    wipes,
    refused_handshakes,
    stalls,
    failed_syncs,
    full_disks,
    /// Starts, snapshots and transfers that came to nothing for want of space.
    out_of_space,
    /// Logs that lost the reserve for their next segment, and those that came to their end without
    /// one.
    lost_reserves,
    waits_for_space,
    /// Writes refused for want of space.
    out_of_disk,
    /// Committed commands that the memory limit refused.
    out_of_memory,
    rotten_disks,
    misreads,
    /// Files that were found rotten by a server that ran, and logs that lost a rotten segment.
    scrub_hits,
    rotten_logs_replaced,
    /// Wrong bytes that a server found, and did not go on with.
    corruptions,
    /// Of these, those that made it mark itself as recovering; and how often one was whole again.
    recoveries,
    healed,
    /// Files of a server that were cut short, or went missing.
    lost_files,
    frames,
    lost_frames,
    duplicated_frames,
    late_frames,
    /// Frames that were under way when their connection broke, and those that waited for others on
    /// a slow link.
    cut_frames,
    slow_frames,
    resets,
    one_way_cuts,
    partitions,
    isolated_leaders,
    jumps,
    /// Segments behind the first of a log.
    segments,
    /// Turns in which a leader left clients alone because too much was under way.
    throttled,
    /// Replies that a client's socket took only in part.
    partial_writes,
    leavers,
    /// Clients that waited for a message, and closed their half of the connection.
    half_closed,
    malformed,
    /// Turns after a gap longer than an election timeout.
    graces,
}

impl Coverage {
    /// What was never reached.
    #[must_use]
    pub fn gaps(&self) -> Vec<&'static str> {
        let counts = self.counts().into_iter();
        counts
            .filter(|(_, count)| *count == 0)
            .map(|(name, _)| name)
            .collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts();
        for (at, (name, count)) in counts.iter().enumerate() {
            let end = if at % 4 == 3 || at + 1 == counts.len() {
                "\n"
            } else {
                ""
            };
            write!(f, "{:>20} {count:<10}{end}", name.replace('_', " "))?;
        }
        Ok(())
    }
}
