//! What goes wrong in a cluster while it is used: servers killed, paused and cut off, in an order
//! that a seed determines, and all put right again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};

use crate::cluster::Cluster;
use crate::wait::let_pass;
use crate::workload::Workload;

/// Faults that are there at the same time.
const FAULTS_MAX: usize = 3;

/// From one fault to the next while they add up, in milliseconds.
const GAP_MS_MAX: u64 = 400;

/// How long faults stay, in milliseconds: from less than an election takes to several of them.
const STAY_MS: [u64; 2] = [50, 1_500];

/// Operations that must be answered after all is healed, before the next fault; but not each time.
const ANSWERED_BETWEEN: u64 = 100;

/// How often faults begin with an unsuspecting leader: one whose election timeout is so long that
/// it does not notice that it is cut off while the others elect another.
const UNSUSPECTING_SHARE: f64 = 0.5;
const UNSUSPECTING_ELECTION_TIMEOUT_MS: &str = "5000..6000";

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    KillLeader,
    KillOne,
    KillMajority,
    KillAll,
    /// SIGTERM: leadership is handed over, to a server that might be slow to stand by itself.
    StopLeader,
    PauseLeader,
    PauseOne,
    /// The others hear the leader no more, and it hears them.
    MuteLeader,
    /// The leader hears the others no more, and they hear it.
    DeafenLeader,
    IsolateLeader,
    /// A leader that does not notice it.
    IsolateUnsuspectingLeader,
    /// The leader and another server.
    IsolateMinority,
    /// One link, in one direction.
    CutOneWay,
    /// Between two servers, in both directions.
    CutBothWays,
    /// The connections of one server, in the middle of whatever they carry.
    ResetConnections,
}

/// Each as often as it is to be drawn.
const FAULTS: [Fault; 24] = [
    Fault::KillLeader,
    Fault::KillLeader,
    Fault::KillOne,
    Fault::KillMajority,
    Fault::KillAll,
    Fault::StopLeader,
    Fault::StopLeader,
    Fault::StopLeader,
    Fault::StopLeader,
    Fault::PauseLeader,
    Fault::PauseLeader,
    Fault::PauseOne,
    Fault::MuteLeader,
    Fault::MuteLeader,
    Fault::DeafenLeader,
    Fault::DeafenLeader,
    Fault::IsolateLeader,
    Fault::IsolateLeader,
    Fault::IsolateLeader,
    Fault::IsolateMinority,
    Fault::IsolateMinority,
    Fault::CutOneWay,
    Fault::CutBothWays,
    Fault::ResetConnections,
];

/// Whoever does it.
#[derive(Debug)]
pub struct Nemesis {
    random: StdRng,
    paused: BTreeSet<u64>,
    /// The server that would take long to miss others.
    unsuspecting: Option<u64>,
    done: BTreeMap<Fault, u64>,
}

impl Nemesis {
    /// The same faults in the same order for the same seed, though at what moments of the cluster's
    /// life depends on the machine.
    #[must_use]
    pub fn new(seed: u64) -> Nemesis {
        Nemesis {
            random: StdRng::seed_from_u64(seed),
            paused: BTreeSet::new(),
            unsuspecting: None,
            done: BTreeMap::new(),
        }
    }

    /// Does it for about this long. At the end all servers run and all links are open.
    ///
    /// # Panics
    /// When the cluster, healed, answers nothing.
    pub fn run(&mut self, cluster: &mut Cluster, workload: &Workload, duration: Duration) {
        let start = Instant::now();
        while start.elapsed() < duration {
            for number in 0..self.random.random_range(1..=FAULTS_MAX) {
                let begins = number == 0 && self.random.random_bool(UNSUSPECTING_SHARE);
                let fault = *FAULTS.choose(&mut self.random).expect("there are some");
                // What it draws depends on who leads, and must not change the next fault.
                let mut random = StdRng::seed_from_u64(self.random.random());
                let fault = match begins && self.make_leader_unsuspecting(cluster, &mut random) {
                    true => Fault::IsolateUnsuspectingLeader,
                    false => fault,
                };
                if self.strike(cluster, fault, &mut random) {
                    *self.done.entry(fault).or_default() += 1;
                }
                let gap = self.random.random_range(0..GAP_MS_MAX);
                let_pass(Duration::from_millis(gap));
            }
            let stay = self.random.random_range(STAY_MS[0]..STAY_MS[1]);
            let_pass(Duration::from_millis(stay));
            self.heal(cluster);
            if self.random.random_bool(0.7) {
                workload.wait_for_more(ANSWERED_BETWEEN);
            }
            assert_all_run(cluster);
        }
        workload.wait_for_more(ANSWERED_BETWEEN);
        assert_all_run(cluster);
    }

    /// How many faults there have been.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.done.values().sum()
    }

    /// How often each has been, for people.
    #[must_use]
    pub fn summary(&self) -> String {
        let done = self.done.iter();
        let done: Vec<String> = done
            .map(|(fault, count)| format!("{count} {fault:?}"))
            .collect();
        done.join(", ")
    }

    /// `false` if there is nobody to do it to.
    fn strike(&mut self, cluster: &mut Cluster, fault: Fault, random: &mut StdRng) -> bool {
        let leader = self.leader(cluster);
        let Some(victim) = self.victim(cluster, fault, leader, random) else {
            return false;
        };
        let others = cluster.others(victim);
        let other = *others.choose(random).expect("it is not alone");
        match fault {
            Fault::KillLeader | Fault::KillOne => self.kill(cluster, &[victim]),
            Fault::KillMajority => {
                let mut running = cluster.running();
                running.shuffle(random);
                running.truncate(cluster.majority());
                self.kill(cluster, &running);
            }
            Fault::KillAll => self.kill(cluster, &cluster.running()),
            Fault::StopLeader => {
                let ended = cluster.terminate(victim);
                self.unsuspecting = self.unsuspecting.filter(|id| *id != victim);
                assert_eq!(ended.code(), Some(0), "server {victim} was told to stop");
            }
            Fault::PauseLeader | Fault::PauseOne => {
                cluster.pause(victim);
                self.paused.insert(victim);
            }
            Fault::MuteLeader => others.iter().for_each(|other| cluster.cut(victim, *other)),
            Fault::DeafenLeader => others.iter().for_each(|other| cluster.cut(*other, victim)),
            Fault::IsolateLeader | Fault::IsolateUnsuspectingLeader => cluster.isolate(&[victim]),
            Fault::IsolateMinority => cluster.isolate(&[victim, other]),
            Fault::CutOneWay => cluster.cut(victim, other),
            Fault::CutBothWays => {
                cluster.cut(victim, other);
                cluster.cut(other, victim);
            }
            Fault::ResetConnections => {
                for other in others {
                    cluster.reset(victim, other);
                    cluster.reset(other, victim);
                }
            }
        }
        true
    }

    /// The server that is to suffer it, of those that run and are not paused.
    fn victim(
        &self,
        cluster: &Cluster,
        fault: Fault,
        leader: Option<u64>,
        random: &mut StdRng,
    ) -> Option<u64> {
        match fault {
            Fault::KillLeader
            | Fault::StopLeader
            | Fault::PauseLeader
            | Fault::MuteLeader
            | Fault::DeafenLeader
            | Fault::IsolateLeader
            | Fault::IsolateUnsuspectingLeader => leader,
            // Often the leader, whom it concerns most.
            Fault::IsolateMinority if leader.is_some() => leader,
            _ => self.working(cluster).choose(random).copied(),
        }
    }

    fn kill(&mut self, cluster: &mut Cluster, ids: &[u64]) {
        cluster.kill_together(ids);
        for id in ids {
            self.paused.remove(id);
            self.unsuspecting = self.unsuspecting.filter(|unsuspecting| unsuspecting != id);
        }
    }

    /// Tries to have a cluster without faults led by a server that would take long to miss the
    /// others. It would hardly stand for election by itself, so that leadership is handed over, by
    /// a leader that has only two to choose from.
    fn make_leader_unsuspecting(&mut self, cluster: &mut Cluster, random: &mut StdRng) -> bool {
        let mut leader = cluster.agreed_leader();
        let mut followers = cluster.others(leader);
        followers.shuffle(random);
        let unsuspecting = *self.unsuspecting.get_or_insert_with(|| {
            cluster.kill(followers[0]);
            let mut command = cluster.server_command(followers[0]);
            command.args(["--election-timeout-ms", UNSUSPECTING_ELECTION_TIMEOUT_MS]);
            cluster.start_as(followers[0], command);
            followers[0]
        });
        leader = cluster.agreed_leader();
        if leader != unsuspecting {
            followers.retain(|id| ![leader, unsuspecting].contains(id));
            let paused = &followers[..cluster.majority() - 1];
            paused.iter().for_each(|id| cluster.pause(*id));
            cluster.terminate(leader);
            paused.iter().for_each(|id| cluster.resume(*id));
            cluster.start(leader);
            leader = cluster.agreed_leader();
        }
        leader == unsuspecting
    }

    fn working(&self, cluster: &Cluster) -> Vec<u64> {
        let mut running = cluster.running();
        running.retain(|id| !self.paused.contains(id));
        running
    }

    /// The server that leads in the latest term, or believes that it does.
    fn leader(&self, cluster: &Cluster) -> Option<u64> {
        let mut leaders = Vec::new();
        for id in self.working(cluster) {
            if let Ok(status) = cluster.status(id)
                && status["role"] == "Leader"
            {
                leaders.push((status["term"].as_u64(), id));
            }
        }
        leaders.into_iter().max().map(|(_, id)| id)
    }

    /// Puts everything right, in any order.
    ///
    /// # Panics
    /// When a server has ended by itself.
    fn heal(&mut self, cluster: &mut Cluster) {
        assert_all_run(cluster);
        let mut cures = [0, 1, 2];
        cures.shuffle(&mut self.random);
        for cure in cures {
            match cure {
                0 => cluster.heal(),
                1 => cluster.start_all(),
                _ => {
                    for id in std::mem::take(&mut self.paused) {
                        cluster.resume(id);
                    }
                }
            }
        }
    }
}

/// A server that has found its own invariants broken ends: that is a failure as well.
fn assert_all_run(cluster: &mut Cluster) {
    for id in cluster.running() {
        if let Some(status) = cluster.process(id).ended_with() {
            panic!("server {id} has ended by itself: {status}");
        }
    }
}
