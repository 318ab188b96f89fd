//! The list. Each mutant breaks one of the rules in docs/raft-rules.md.

use std::fmt;
use std::str::FromStr;

/// Declares the mutants with their names, so that there is one list of them.
macro_rules! mutants {
    ($($(#[$doc:meta])* $mutant:ident = $name:literal,)*) => {
        /// One mistake.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Mutant {
            $($(#[$doc])* $mutant,)*
        }

        impl Mutant {
            /// All of them, by the part that they are in.
            pub const ALL: &[Mutant] = &[$(Mutant::$mutant,)*];

            /// Its name in words, as the command line has it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Mutant::$mutant => $name,)*
                }
            }
        }
    };
}

mutants! {
    // Elections and votes.

    /// A vote is granted before it is on disk (rule 1).
    VoteBeforeSync = "vote-before-sync",
    /// A candidate asks for votes before its own is on disk (rule 1).
    CandidacyBeforeSync = "candidacy-before-sync",
    /// Entries and heartbeats of a term are answered before the term is on disk (rule 1).
    TermBeforeSync = "term-before-sync",
    /// A restarted server has forgotten whom it voted for (rule 22).
    VoteForgotten = "vote-forgotten",
    /// A restarted server takes its term from its last entry (rule 1).
    TermForgotten = "term-forgotten",
    /// A second candidate of a term gets a vote as well (rule 22).
    GrantTwice = "grant-twice",
    /// Entries of the term's leader free the vote of the term (rule 22).
    VoteReset = "vote-reset",
    /// Whoever asks gets a vote, however old its log is (rule 23).
    NoUpToDate = "no-up-to-date",
    /// Logs are compared by their length, whatever their terms are (rule 23).
    UpToDateByLength = "up-to-date-by-length",
    /// A vote that arrives twice counts twice (rule 24).
    DuplicateVotes = "duplicate-votes",
    /// Half of the members are a majority (rule 24).
    HalfIsMajority = "half-is-majority",
    /// Votes of an older term count in this one (rule 16).
    VoteOfOlderTerm = "vote-of-older-term",
    /// A refused vote puts off this server's own election (rule 25).
    TimerResetByRefusal = "timer-reset-by-refusal",
    /// A pre-vote is granted although the leader is alive (rule 27).
    PreVoteWithLiveLeader = "pre-vote-with-live-leader",
    /// A server that grants a pre-vote takes over its term (rule 27).
    PreVoteRaisesTerm = "pre-vote-raises-term",
    /// A candidate is heard although the leader is alive (rule 31).
    LiveLeaderDisturbed = "live-leader-disturbed",
    /// A server campaigns with a committed configuration that it has not applied (rule 32).
    CampaignUnapplied = "campaign-unapplied",

    // A leader and its majority.

    /// A leader that hears from nobody leads on (rule 29).
    NoCheckQuorum = "no-check-quorum",
    /// A suspended leader leads its old term on when it hears from someone (rule 29).
    SuspendedResumes = "suspended-resumes",
    /// Whoever leads an older term is not told of the present one (rule 30).
    StaleLeaderUntold = "stale-leader-untold",
    /// A leader hands over before everything is committed (rule 33).
    TransferUncommitted = "transfer-uncommitted",
    /// A server whose state is not that of a majority goes on (rule 47).
    StateHashIgnored = "state-hash-ignored",
    /// A leader without a reserve on its disk takes writes (rule 9).
    OutOfDiskIgnored = "out-of-disk-ignored",
    /// A server that should not lead stands and leads like any other (rule 33).
    CandidacyIgnored = "candidacy-ignored",
    /// A leader takes proposals while it hands over (rule 33).
    TransferTakesProposals = "transfer-takes-proposals",

    // Entries on their way.

    /// A follower acknowledges entries before they are on disk (rule 2).
    AckBeforeSync = "ack-before-sync",
    /// A leader counts itself for entries that are not on its disk (rule 3).
    LeaderCountsUnsynced = "leader-counts-unsynced",
    /// The sync of entries that were replaced vouches for those in their place (rule 6).
    LateSyncVouches = "late-sync-vouches",
    /// The entry before is compared by its index alone (rule 10).
    PrevByIndex = "prev-by-index",
    /// Entries that are there already are taken back and written anew (rule 11).
    TruncateAlways = "truncate-always",
    /// Entries stay although the leader has others in their place (rule 11).
    KeepConflicting = "keep-conflicting",
    /// A follower acknowledges its own last entry, whatever the message held (rule 14).
    MatchLast = "match-last",
    /// Acknowledgements of entries from an older term count in this one (rule 16).
    AckOfOlderTerm = "ack-of-older-term",
    /// Answers to heartbeats of an older term count in this one (rule 16).
    HeartbeatReplyOfOlderTerm = "heartbeat-reply-of-older-term",
    /// Entries from the leader of an older term are taken (rule 16).
    AppendOfOlderTerm = "append-of-older-term",
    /// What a follower acknowledged before it was started again still counts (rule 15).
    RestartIgnored = "restart-ignored",
    /// Every conflict that is reported sends entries anew, even one that is known (rule 19).
    EveryConflictProbes = "every-conflict-probes",
    /// Entries are sent however many are on their way (rule 59).
    NoWindow = "no-window",
    /// What is kept back from a follower that a majority is there without is never sent.
    DeferredForGood = "deferred-for-good",
    /// One message holds all entries that there are (rule 61).
    NoAppendLimit = "no-append-limit",

    // Commit and apply.

    /// A restarted server takes all of its log for committed (rule 5).
    CommitAtRestart = "commit-at-restart",
    /// A follower commits as far as the leader has, beyond what the message covers (rule 13).
    CommitUnbounded = "commit-unbounded",
    /// Entries of older terms are committed by counting (rule 20).
    CommitOlderTerm = "commit-older-term",
    /// A new leader appends no entry of its own (rule 21).
    NoNoOp = "no-no-op",
    /// What is proposed is committed, and so answered, when it is in the leader's log (rule 52).
    CommitAtAppend = "commit-at-append",

    // Reads.

    /// A leader answers reads before an entry of its term is committed (rule 21).
    ServesBeforeCommit = "serves-before-commit",
    /// Reads are answered without a round (rule 35).
    ReadWithoutRound = "read-without-round",
    /// An answer confirms the round that is under way, whichever heartbeat it is to (rule 35).
    ReadByEarlierRound = "read-by-earlier-round",
    /// The commit of an entry that was proposed before a read confirms it (rule 35).
    ReadByEarlierCommit = "read-by-earlier-commit",
    /// A read is answered before the state has come as far as it must (rule 35).
    ReadBeforeApplied = "read-before-applied",
    /// A read joins the round that is under way (rule 36).
    ReadJoinsRound = "read-joins-round",

    // Seats.

    /// A seat is given while the one before is not committed (rule 39).
    SeatBeforeCommit = "seat-before-commit",
    /// The seats of entries that were taken back stay (rule 39).
    ConfigurationKept = "configuration-kept",
    /// A server without a seat that has met a seated one still votes (rule 41).
    MetServerVotes = "met-server-votes",
    /// A seated server votes for one without a seat (rule 41).
    SeatedVotesForUnseated = "seated-votes-for-unseated",
    /// Votes of servers without a seat elect a seated one, and the other way round (rule 41).
    MixedVotes = "mixed-votes",
    /// A wiped disk is taken for the one that had the seat (rule 41).
    WipedDiskAdmitted = "wiped-disk-admitted",
    /// Who does not know of its seat commits entries (rule 41).
    UnknownSeatCommits = "unknown-seat-commits",

    // A server that has lost something.

    /// A server that is recovering grants votes.
    RecoveringVotes = "recovering-votes",
    /// A server that is recovering stands for election.
    RecoveringCampaigns = "recovering-campaigns",
    /// What a recovering server acknowledges counts for a commit.
    RecoveringCommits = "recovering-commits",
    /// A recovering server's answer confirms a round of reads.
    RecoveringConfirmsReads = "recovering-confirms-reads",
    /// A server takes itself for whole before what it was sent is on its disk.
    HealedBeforeSync = "healed-before-sync",
    /// A server takes itself for whole with an entry that is older than its start.
    HealedByOldEntry = "healed-by-old-entry",
    /// A server takes itself for whole by a word to an earlier start.
    HealedByOldWord = "healed-by-old-word",

    // Snapshots.

    /// A snapshot is installed that is older than what is committed (rule 44).
    InstallBelowCommit = "install-below-commit",
    /// The log stays behind an installed snapshot although it has another entry there (rule 44).
    InstallKeepsConflict = "install-keeps-conflict",
    /// A snapshot is acknowledged before the log on disk begins behind it (rule 44).
    InstallBeforeSync = "install-before-sync",
    /// A snapshot from the leader of an older term is installed (rule 16).
    InstallOfOlderTerm = "install-of-older-term",
    /// The configuration in a snapshot is left out (rule 40).
    SnapshotWithoutConfiguration = "snapshot-without-configuration",

    // The log on disk.

    /// Batches are not synced (rule 2).
    NoSync = "no-sync",
    /// A batch whose sync has failed counts as synced (rule 7).
    SyncErrorIgnored = "sync-error-ignored",
    /// The directory is not synced when a segment has its name (rule 8).
    NoDirectorySync = "no-directory-sync",
    /// Entries that were superseded are not marked as such (rule 11).
    NoTruncateRecord = "no-truncate-record",
    /// The restart number is not on disk when it is used (rule 15).
    RestartNotDurable = "restart-not-durable",
    /// A restart number is used again when one of the meta files is unreadable (rule 15).
    RestartReused = "restart-reused",
    /// A record of the right length is taken whatever its checksum is (rule 2).
    BadChecksumAccepted = "bad-checksum-accepted",
    /// A damaged record ends the log, all behind it is erased, and nobody is told (rule 2).
    DamageTruncates = "damage-truncates",
    /// What is behind a damaged record is removed while the server has not healed (rule 63).
    LostRemoved = "lost-removed",
    /// A damaged record is passed over, and the log goes on behind it (rule 2).
    DamageSkipped = "damage-skipped",
    /// A server that was recovering has forgotten that when it starts again (rule 15).
    MarkForgotten = "mark-forgotten",
    /// A lost batch counts as torn although a later one is behind it (rule 2).
    LaterBatchIgnored = "later-batch-ignored",
    /// A lost batch counts as torn although it was known to be synced (rule 2).
    MarkIgnored = "mark-ignored",
    /// The bytes of a torn batch stay behind the end of the log (rule 2).
    TornTailKept = "torn-tail-kept",
    /// A snapshot has its name before it is synced (rule 43).
    SnapshotNotSynced = "snapshot-not-synced",
    /// The directory is not synced when a snapshot has its name (rule 8).
    SnapshotNameNotSynced = "snapshot-name-not-synced",
    /// A snapshot counts, and older ones go, before it was read back (rule 43).
    SnapshotNotReadBack = "snapshot-not-read-back",
    /// A block of a snapshot is taken whatever its checksum is (rule 43).
    BadBlockAccepted = "bad-block-accepted",
    /// Segments are dropped that the snapshot does not cover (rule 43).
    DropsUncovered = "drops-uncovered",
    /// The old log is deleted before the one that begins behind a snapshot is there (rule 44).
    OldLogDeletedFirst = "old-log-deleted-first",
    /// A log that a snapshot has overtaken is kept at the next start (rule 44).
    ObsoleteLogKept = "obsolete-log-kept",
    /// An entry is read back whatever its checksum is (rule 2).
    RotReadBack = "rot-read-back",
    /// The state of a backup stays that of the old cluster (rule 41).
    RestoreKeepsCluster = "restore-keeps-cluster",
    /// A restored directory does not know of which backup it is (rule 41).
    RestoreUnmarked = "restore-unmarked",
    /// What was read wrongly once counts as rotten (rule 64).
    ScrubBelievesMisreads = "scrub-believes-misreads",
    /// The segment that the log ends in is not read again (rule 64).
    ScrubSkipsLast = "scrub-skips-last",
    /// A rotten segment goes before a snapshot has what is in it (rules 43 and 64).
    RottenDropsUncovered = "rotten-drops-uncovered",
    /// A rotten snapshot stays beside the one that was taken in its place (rule 64).
    RottenSnapshotKept = "rotten-snapshot-kept",
    /// No snapshot is taken for what has rotted (rule 64).
    WantedIgnored = "wanted-ignored",

    // What is applied.

    /// Time goes on by this server's clock, and not by the log (rule 49).
    LocalTime = "local-time",
    /// Time in the log follows the leader's clock back (rule 48).
    TimeGoesBack = "time-goes-back",
    /// Nothing is proposed when something falls due (rule 49).
    NoTicks = "no-ticks",
    /// A clock that jumps ahead is followed (rule 50).
    ClockJumpFollowed = "clock-jump-followed",
    /// Uniques come from a source of each server's own (rule 57).
    LocalUnique = "local-unique",
    /// Items are judged by this server's limit, and not by the entry's (rule 47).
    LocalLimit = "local-limit",
    /// The memory limit is this server's setting, and not the entry's (rule 47).
    LocalMemoryLimit = "local-memory-limit",
    /// What goes over the memory limit is stored (rule 47).
    OverMemoryLimit = "over-memory-limit",
    /// Hits are in the order of a hash map (rule 47).
    UnorderedHits = "unordered-hits",
    /// Items that come from a snapshot or a backup never expire (rule 49).
    LoadForgetsExpiry = "load-forgets-expiry",
    /// Items that come from a snapshot or a backup have no uniques (rule 57).
    LoadForgetsUnique = "load-forgets-unique",
    /// Items that come from a snapshot are not stale, and nobody has won them (rule 38).
    LoadForgetsMarks = "load-forgets-marks",
    /// A message that is popped stays.
    TakenStays = "taken-stays",
    /// A reserved message never comes back.
    ReservationNeverEnds = "reservation-never-ends",
    /// Messages are taken in the order of their ids, whatever their priorities.
    PriorityIgnored = "priority-ignored",
    /// A loaded state has nothing reserved.
    LoadForgetsReservations = "load-forgets-reservations",
    /// Who waits for a message is never carried out again.
    ConsumersForgotten = "consumers-forgotten",
    /// A client that has closed its half of a connection goes on waiting for a message.
    StopWaitingIgnored = "stop-waiting-ignored",
    /// A consumer that is gone takes a message with it.
    GoneConsumerTakes = "gone-consumer-takes",
    /// An `mg` of what is under way to be stale is a read (rule 38).
    StaleIsRead = "stale-is-read",
    /// A unique that a client has chosen may be a lower one (rule 57).
    LowUniqueTaken = "low-unique-taken",
    /// A change of an item whose unique was raised has a lower one again (rule 57).
    RaisedUniqueForgotten = "raised-unique-forgotten",

    // Replies.

    /// An entry is proposed twice (rule 52).
    ProposedTwice = "proposed-twice",
    /// Commands are proposed before the state that they come after is there (rule 21).
    ProposedBeforeApplied = "proposed-before-applied",
    /// A command that is in the log is refused as if it were not (rule 52).
    ProposedIsRefused = "proposed-is-refused",
    /// Another leader's entry is answered like the one that it replaces (rule 52).
    ReplacedIsAnswered = "replaced-is-answered",
    /// What was accepted waits without an end (rule 53).
    NoDeadline = "no-deadline",
    /// A read that waits when leadership is lost is never answered (rule 53).
    ReadForgotten = "read-forgotten",
    /// A follower points to its leader however long that has been silent (rule 53).
    RedirectToSilent = "redirect-to-silent",
    /// A read sees a later write of its connection (rule 54).
    ReadSeesLaterWrite = "read-sees-later-write",
    /// A read overtakes the `noreply` write before it (rule 54).
    ReadOvertakesSilent = "read-overtakes-silent",
    /// What was sent before a refusal was seen is carried out in the next batch (rule 54).
    RefusedEpochServed = "refused-epoch-served",
    /// What lies unread in the socket counts as sent after the refusal (rule 54).
    UnreadIsLater = "unread-is-later",
    /// An epoch begins while commands of the one before are unanswered (rule 54).
    EpochBeginsEarly = "epoch-begins-early",
    /// After the refusal of a `noreply` command, the next ones are carried out (rule 54).
    SilentRefusalForgotten = "silent-refusal-forgotten",
    /// A message of a follower that comes again is carried out again (rule 56).
    ForwardRepeated = "forward-repeated",
    /// What a follower sends behind a message that is missing is carried out (rule 56).
    ForwardGapIgnored = "forward-gap-ignored",
    /// A forwarded command is carried out in whichever term (rule 56).
    ForwardOfOtherTerm = "forward-of-other-term",
    /// A forwarded command is forwarded once more (rule 56).
    ForwardedAgain = "forwarded-again",
    /// A forwarded write is refused as if the leader did not have it (rule 56).
    ForwardedIsRefused = "forwarded-is-refused",
    /// The outcome of a command that was refused meanwhile is that of a later one (rule 56).
    ForwardedMisattributed = "forwarded-misattributed",
    /// The connections of a follower are remembered when the connection to it is gone (rule 59).
    ForwardsRemembered = "forwards-remembered",
    /// Clients are listened to however much is under way (rule 59).
    NoBackpressure = "no-backpressure",
    /// Replies are made however many a client leaves unread (rule 59).
    NoReplyBound = "no-reply-bound",
}

/// There is no mutant of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no mutant is called {name:?}")]
pub struct UnknownMutant {
    pub name: String,
}

impl FromStr for Mutant {
    type Err = UnknownMutant;

    fn from_str(name: &str) -> Result<Mutant, UnknownMutant> {
        let mut all = Mutant::ALL.iter().copied();
        let found = all.find(|mutant| mutant.name() == name);
        found.ok_or_else(|| UnknownMutant {
            name: name.to_owned(),
        })
    }
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
