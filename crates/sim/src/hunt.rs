//! The hunt for mutants: each known mistake must be shown by a seed that the correct code survives.
//! Those that random runs find too rarely, or that break a promise of which the simulation has
//! nothing, are each shown by a test that says so; that test is run with the mistake in the code.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use mutants::Mutant;
use quorate_sim::{Failure, Run};

use crate::built_tests::{BuiltTests, Test, Verdict};

/// The test that kills this mutant, if the simulation is not to.
fn test_of(mutant: Mutant) -> Option<Test> {
    let test = |package, file, name| {
        Some(Test {
            package,
            file,
            name,
        })
    };
    let script = || {
        let name = "every_script_gives_its_recorded_output";
        test("quorate-raft", "script", name)
    };
    let wal = |name| test("quorate-wal", "wal", name);
    let forward = |name| test("quorate-evaluator", "forward", name);
    match mutant {
        // What costs an election, a message or time, and no safety.
        Mutant::TimerResetByRefusal
        | Mutant::PreVoteWithLiveLeader
        | Mutant::PreVoteRaisesTerm
        | Mutant::LiveLeaderDisturbed
        | Mutant::StaleLeaderUntold
        | Mutant::TransferUncommitted
        | Mutant::CandidacyIgnored
        | Mutant::TransferTakesProposals
        | Mutant::EveryConflictProbes
        | Mutant::NoWindow => script(),
        // What takes an interleaving that is too rare.
        Mutant::UpToDateByLength
        | Mutant::VoteOfOlderTerm
        | Mutant::AckOfOlderTerm
        | Mutant::RestartIgnored
        | Mutant::DuplicateVotes
        | Mutant::ReadWithoutRound
        | Mutant::ReadByEarlierRound
        | Mutant::ReadByEarlierCommit
        | Mutant::ReadJoinsRound
        | Mutant::CampaignUnapplied
        | Mutant::SeatBeforeCommit
        | Mutant::ConfigurationKept
        | Mutant::MetServerVotes
        | Mutant::SeatedVotesForUnseated
        | Mutant::MixedVotes
        | Mutant::WipedDiskAdmitted
        | Mutant::UnknownSeatCommits
        | Mutant::InstallBelowCommit
        | Mutant::InstallKeepsConflict
        | Mutant::InstallBeforeSync
        | Mutant::InstallOfOlderTerm
        | Mutant::SnapshotWithoutConfiguration
        | Mutant::RecoveringConfirmsReads
        | Mutant::HealedBeforeSync
        | Mutant::HealedByOldEntry
        | Mutant::HealedByOldWord => script(),
        // What takes damage at one place of a log.
        Mutant::DamageTruncates | Mutant::DamageSkipped | Mutant::LostRemoved => {
            wal("recovering::every_damaged_byte_of_a_log_leaves_what_is_in_front_of_it_and_a_mark")
        }
        Mutant::MarkForgotten => {
            wal("recovering::a_crash_at_any_moment_of_a_recovery_leaves_the_mark_or_the_damage")
        }
        Mutant::LaterBatchIgnored => {
            wal("corruption::a_batch_behind_a_lost_one_proves_that_it_was_synced")
        }
        Mutant::MarkIgnored => {
            wal("corruption::a_lost_sector_below_the_mark_or_with_a_later_batch_behind_it_is_found")
        }
        Mutant::RotReadBack => wal("corruption::one_rotten_bit_of_a_value_is_found_by_the_reader"),
        Mutant::ScrubBelievesMisreads => {
            wal("scrub::what_is_misread_once_is_told_and_is_not_taken_for_rotten")
        }
        Mutant::ScrubSkipsLast => {
            wal("scrub::every_flipped_bit_below_the_synced_end_is_found_and_named")
        }
        Mutant::RottenDropsUncovered => {
            wal("scrub::a_rotten_segment_goes_once_a_snapshot_has_what_is_in_it_and_not_before")
        }
        Mutant::RottenSnapshotKept => {
            wal("scrub::a_rotten_snapshot_goes_with_the_next_one_or_is_written_again")
        }
        Mutant::WantedIgnored => test(
            "quorate-evaluator",
            "snapshots",
            "a_snapshot_that_is_wanted_is_taken_at_once_and_again_while_nothing_is_written",
        ),
        Mutant::RestartReused => {
            wal("corruption::a_rotten_meta_file_never_lets_a_restart_number_be_used_twice")
        }
        Mutant::TornTailKept => {
            wal("crash::a_crash_at_any_moment_loses_nothing_acknowledged_and_invents_nothing")
        }
        Mutant::SnapshotNotSynced
        | Mutant::SnapshotNameNotSynced
        | Mutant::DropsUncovered
        | Mutant::OldLogDeletedFirst => wal(
            "crash::a_crash_at_any_moment_finds_the_old_snapshot_or_the_new_one_and_the_log_that_goes_with_it",
        ),
        Mutant::SnapshotNotReadBack => {
            wal("snapshots::a_snapshot_that_is_not_read_back_as_it_was_written_does_not_count")
        }
        Mutant::BadBlockAccepted => wal("snapshots::every_flipped_bit_is_found"),
        Mutant::RestoreKeepsCluster | Mutant::RestoreUnmarked => wal(
            "backup::what_is_restored_is_what_a_start_begins_with_and_belongs_to_the_cluster_that_it_becomes",
        ),
        Mutant::LoadForgetsExpiry | Mutant::LoadForgetsUnique => test(
            "quorate-store",
            "snapshot",
            "what_is_frozen_outlives_every_change_of_a_large_store",
        ),
        Mutant::LoadForgetsMarks => test(
            "quorate-store",
            "snapshot",
            "a_loaded_store_goes_on_as_the_frozen_one_does",
        ),
        Mutant::PriorityIgnored => test(
            "quorate-store",
            "topics",
            "the_lower_priority_number_is_taken_first",
        ),
        Mutant::LoadForgetsReservations => test(
            "quorate-store",
            "topics_model",
            "every_command_answers_as_the_model_does_and_so_does_a_loaded_state",
        ),
        Mutant::ConsumersForgotten => test(
            "quorate-evaluator",
            "consumers",
            "what_becomes_ready_by_itself_wakes_who_waits",
        ),
        Mutant::GoneConsumerTakes => test(
            "quorate-evaluator",
            "consumers",
            "a_consumer_that_goes_away_before_its_turn_is_proposed_leaves_the_message_to_the_next",
        ),
        Mutant::StaleIsRead => test(
            "quorate-evaluator",
            "meta",
            "a_pipeline_wins_what_it_has_made_stale_itself",
        ),
        Mutant::LowUniqueTaken | Mutant::RaisedUniqueForgotten => {
            test("quorate-store", "meta", "a_unique_may_only_be_raised")
        }
        Mutant::ObsoleteLogKept => {
            wal("beginning::a_log_is_given_up_for_a_snapshot_that_it_does_not_reach_or_contradicts")
        }
        // Promises about time and room.
        Mutant::NoTicks => test(
            "quorate-evaluator",
            "time",
            "an_item_is_gone_a_second_after_its_time_at_the_latest_though_nothing_is_written",
        ),
        Mutant::NoDeadline => test(
            "quorate-evaluator",
            "refusals",
            "a_write_that_is_not_committed_within_900_ms_is_unknown_and_may_be_applied_later",
        ),
        Mutant::RedirectToSilent => test(
            "quorate-evaluator",
            "refusals",
            "a_follower_cut_off_from_its_leader_ceases_to_redirect",
        ),
        Mutant::ReplacedIsAnswered => test(
            "quorate-evaluator",
            "refusals",
            "a_write_in_whose_place_another_entry_is_committed_is_certainly_not_done",
        ),
        Mutant::ProposedBeforeApplied => test(
            "quorate-evaluator",
            "order",
            "a_leader_proposes_nothing_before_it_has_applied_what_was_committed_before",
        ),
        Mutant::ForwardGapIgnored => {
            forward("what_comes_behind_a_missing_message_is_not_carried_out")
        }
        Mutant::ForwardRepeated => forward("a_message_that_comes_again_is_not_carried_out_again"),
        Mutant::ForwardedIsRefused => {
            forward("a_broken_connection_leaves_writes_unknown_and_reads_undone")
        }
        Mutant::ForwardOfOtherTerm => {
            forward("a_leader_carries_out_nothing_that_was_meant_for_another_term")
        }
        Mutant::ForwardedAgain => forward("a_forwarded_command_is_never_forwarded_again"),
        Mutant::ForwardedMisattributed => {
            forward("a_forwarded_command_is_answered_within_900_ms_and_a_late_outcome_is_nobodys")
        }
        Mutant::ForwardsRemembered => {
            forward("the_leader_forgets_the_connections_of_a_follower_that_is_gone")
        }
        Mutant::NoBackpressure => test(
            "quorate-evaluator",
            "order",
            "clients_are_left_alone_while_many_commands_are_owed_an_answer",
        ),
        Mutant::StateHashIgnored => test(
            "quorate-evaluator",
            "state_hashes",
            "a_server_whose_state_differs_stops_serving_and_hands_over",
        ),
        Mutant::OutOfDiskIgnored => test(
            "quorate-evaluator",
            "out_of_disk",
            "without_a_reserve_anywhere_reads_go_on_and_writes_return_with_the_space",
        ),
        Mutant::UnreadIsLater => test(
            "quorate-protocol",
            "refusals",
            "the_tail_of_a_pipeline_that_is_still_in_the_kernel_is_refused_too",
        ),
        Mutant::SilentRefusalForgotten => test(
            "quorate-protocol",
            "refusals",
            "a_noreply_command_refused_after_the_refusal_was_written_asks_for_another",
        ),
        Mutant::EpochBeginsEarly => test(
            "quorate-protocol",
            "refusals",
            "one_before_the_boundary_holds_back_those_behind_it",
        ),
        Mutant::NoReplyBound => test(
            "quorate-protocol",
            "limits",
            "with_8_mebibytes_unwritten_nothing_more_is_parsed_or_wanted",
        ),
        _ => None,
    }
}

/// What became of one mutant.
enum Fate {
    Killed(Failure),
    KilledBy(Test),
    /// No seed shows it.
    Survives,
    /// Its test passes with it.
    SurvivesTest(Test),
    /// The seed that shows it fails without it as well.
    Wrong(Failure),
    /// Its test does not pass without it.
    Unproved(Test),
}

impl Fate {
    fn by(test: Test, verdict: Verdict) -> Fate {
        match verdict {
            Verdict::Killed => Fate::KilledBy(test),
            Verdict::Survives => Fate::SurvivesTest(test),
            Verdict::Unsound => Fate::Unproved(test),
        }
    }
}

/// Tries seeds on each mutant, or its test; fails unless each is killed.
pub(crate) fn hunt(seeds: u64, ms: u64, threads: usize, only: &[Mutant]) -> ExitCode {
    let began = Instant::now();
    let hunted = if only.is_empty() { Mutant::ALL } else { only };
    let tests = match BuiltTests::build(&hunted.iter().copied().filter_map(test_of).collect()) {
        Ok(tests) => tests,
        Err(error) => {
            eprintln!("quorate-sim: the tests of the mutants can't be built: {error}");
            return ExitCode::FAILURE;
        }
    };
    let next = AtomicUsize::new(0);
    let survivors = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(mutant) = hunted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let began = Instant::now();
                    let fate = match test_of(*mutant) {
                        Some(test) => Fate::by(test, tests.judge(test, *mutant)),
                        None => fate(*mutant, seeds, ms),
                    };
                    let took = began.elapsed().as_secs_f64();
                    if !tell(*mutant, &fate, seeds, took)
                        && let Ok(mut survivors) = survivors.lock()
                    {
                        survivors.push(*mutant);
                    }
                }
            });
        }
    });
    let survivors = survivors.into_inner().unwrap_or_default();
    println!(
        "{} mutants, {} alive, {} s",
        hunted.len(),
        survivors.len(),
        began.elapsed().as_secs()
    );
    match survivors.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn fate(mutant: Mutant, seeds: u64, ms: u64) -> Fate {
    for seed in 0..seeds {
        let mut run = Run {
            seed,
            faulty_ms: ms,
            without: BTreeSet::new(),
            mutant: Some(mutant),
        };
        if let Err(failure) = run.go(false) {
            run.mutant = None;
            return match run.go(false) {
                Ok(_) => Fate::Killed(failure),
                Err(failure) => Fate::Wrong(failure),
            };
        }
    }
    Fate::Survives
}

fn tell(mutant: Mutant, fate: &Fate, seeds: u64, took: f64) -> bool {
    let name = mutant.name();
    let (line, killed) = match fate {
        Fate::Killed(failure) => {
            let what = failure.what.lines().nth(1).unwrap_or(&failure.what);
            let what: String = what.chars().take(120).collect();
            let (seed, at_ms) = (failure.run.seed, failure.at_ms);
            let line = format!("seed {seed:<4} at {at_ms:>6} ms, {took:>5.1} s: {what}");
            (line, true)
        }
        Fate::KilledBy(test) => (test.to_string(), true),
        Fate::Survives => (format!("SURVIVES {seeds} seeds, {took:.1} s"), false),
        Fate::SurvivesTest(test) => (format!("SURVIVES {test}"), false),
        Fate::Wrong(failure) => (format!("the correct code fails too: {failure}"), false),
        Fate::Unproved(test) => (format!("the correct code does not pass {test}"), false),
    };
    let mut out = std::io::stdout().lock();
    // That nobody reads it is no failure of the hunt.
    let _ = writeln!(out, "{name:<30} {line}");
    let _ = out.flush();
    killed
}
