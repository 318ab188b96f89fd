//! Runs the scripts: each tells what servers do, with what came of it recorded behind `---`.
//! `UPDATE_GOLDENFILES=1 cargo test -p quorate-raft --test script` records anew.
//!
//! There is one clock for all servers, which moves only when a script says so; a server sees its
//! deadlines only when it is told to `tick`. Messages wait in the network until they are delivered.
//! Disks sync at once unless a script makes one `manual`.

mod parse;
mod show;
mod simulated;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use goldenscript::{Command, Context};
use parse::{Args, Result, duration, keyed, next, server};
use quorate_raft::{
    Body, Candidacy, ClusterId, Index, Input, InstallSnapshot, Instance, Message, Position, ReadId,
    Restart, Role, Sender, ServerId, Snapshot, Term, Timestamp,
};
use simulated::{Cluster, Packet, Sizes, Stepped};

#[test]
fn every_script_gives_its_recorded_output() {
    let mut failed = Vec::new();
    for path in scripts() {
        let done = std::panic::catch_unwind(|| {
            goldenscript::run(&mut Script::default(), &path).expect("the script runs");
        });
        if done.is_err() {
            failed.push(path);
        }
    }
    assert!(failed.is_empty(), "failed: {failed:#?}");
}

fn scripts() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let (mut folders, mut scripts) = (vec![root], Vec::new());
    while let Some(folder) = folders.pop() {
        for found in std::fs::read_dir(folder).expect("a folder of scripts") {
            let path = found.expect("a file in it").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "txt") {
                scripts.push(path);
            }
        }
    }
    scripts.sort();
    assert!(!scripts.is_empty(), "there are no scripts");
    scripts
}

/// What one script works on.
#[derive(Default)]
struct Script {
    cluster: Option<Cluster>,
    now: Timestamp,
    /// Pairs of servers between which nothing is delivered.
    cuts: BTreeSet<(ServerId, ServerId)>,
    /// Messages that are held back until `late`.
    held: Vec<Packet>,
}

impl goldenscript::Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String> {
        let mut args = command.consume_args();
        let mut output = String::new();
        self.command(command.name.as_str(), &mut args, &mut output)?;
        args.reject_next()?;
        Ok(output)
    }
}

impl Script {
    fn command(&mut self, name: &str, args: &mut Args<'_>, output: &mut String) -> Result<()> {
        match name {
            "servers" => self.servers(args)?,
            "elect" => self.elect(args, output)?,
            "timeout" => self.timeout(next(args)?, output),
            "time" => self.now = self.now + duration(args)?,
            "tick" => self.tick(args, output)?,
            "run" => self.run_for(duration(args)?, output),
            "deliver" => self.deliver(args, output)?,
            "stabilize" => self.stabilize(output),
            "drop" => drop(self.taken(args)?),
            "hold" => self.hold(args)?,
            "late" => self.late(args, output)?,
            "duplicate" => self.duplicate(args)?,
            "cut" => self.cut(args)?,
            "heal" => self.cuts.clear(),
            "disk" => self.disk(args)?,
            "sync" => self.sync(next(args)?, output)?,
            "fetch" => self.fetch(next(args)?, output)?,
            "propose" => self.propose(args, output)?,
            "read" => self.read(args, output)?,
            "snapshot" => self.snapshot(next(args)?, output),
            "drop_log" => self.drop_log(args, output)?,
            "install" => self.install(args, output)?,
            "install_ended" => self.install_ended(args, output)?,
            "candidacy" => self.candidacy(args, output)?,
            "transfer" => self.input(next(args)?, Input::Transfer, output),
            "connected" => self.connected(args, output)?,
            "crash" => self.crash(args)?,
            "restart" => self.restart(next(args)?, output),
            "wipe" => self.wipe(next(args)?),
            "restore" => self.restore(args)?,
            "damage" => self.damage(args)?,
            "status" => self.status(args, output)?,
            "log" => self.log(args, output)?,
            "inject" => self.inject(args, output)?,
            other => return Err(format!("no command {other}").into()),
        }
        Ok(())
    }

    fn cluster(&mut self) -> &mut Cluster {
        self.cluster.as_mut().expect("`servers` comes first")
    }

    /// `servers N [append=BYTES] [window=BYTES] [cache=BYTES] [rate=BYTES] [deferral=MS]`: all are
    /// started.
    fn servers(&mut self, args: &mut Args<'_>) -> Result<()> {
        let mut sizes = Sizes::default();
        for (key, size) in [
            ("append", &mut sizes.append_bytes_max),
            ("window", &mut sizes.window_bytes_max),
            ("cache", &mut sizes.cache_bytes_max),
            ("rate", &mut sizes.catch_up_bytes_per_second),
            ("deferral", &mut sizes.deferral_ms),
        ] {
            if let Some(bytes) = keyed(args, key)? {
                *size = bytes;
            }
        }
        self.cluster = Some(Cluster::new(next(args)?, 1, sizes));
        Ok(())
    }

    /// `elect S`: S leads and all that it reaches are settled. Tells only who leads.
    fn elect(&mut self, args: &mut Args<'_>, output: &mut String) -> Result<()> {
        let id = next(args)?;
        let quiet = &mut String::new();
        for _ in 0..10 {
            self.timeout(id, quiet);
            // A leader that has lost its majority notices.
            for other in self.cluster().leaders_now() {
                self.input(other, Input::Tick, quiet);
            }
            self.stabilize(quiet);
            if self.status_of(id).role == Role::Leader {
                for _ in 0..3 {
                    self.timeout(id, quiet);
                    self.stabilize(quiet);
                }
                writeln!(output, "s{id} leads term {}", self.status_of(id).term)?;
                return Ok(());
            }
        }
        Err(format!("server {id} is not elected").into())
    }

    fn status_of(&mut self, id: ServerId) -> quorate_raft::Status {
        let raft = self.cluster().server(id).raft.as_ref();
        raft.expect("the server runs").status()
    }

    /// `timeout S`: the clock moves to S's next deadline, and S ticks.
    fn timeout(&mut self, id: ServerId, output: &mut String) {
        let raft = self.cluster().server(id).raft.as_ref();
        let deadline = raft.expect("the server runs").next_deadline();
        assert!(deadline < Timestamp::NEVER, "server {id} waits for nothing");
        self.now = self.now.max(deadline);
        self.input(id, Input::Tick, output);
    }

    /// `run TIME`: time passes, every server sees its deadlines, and every message arrives.
    fn run_for(&mut self, time: Duration, output: &mut String) {
        let end = self.now + time;
        loop {
            let servers = self.cluster().servers.iter();
            let due = servers.filter_map(|it| Some((it.raft.as_ref()?.next_deadline(), it.id)));
            let Some((at, id)) = due.min().filter(|(at, _)| *at <= end) else {
                break;
            };
            self.now = self.now.max(at);
            self.input(id, Input::Tick, output);
            self.stabilize(output);
        }
        self.now = end;
    }

    /// `tick S...`: each sees what the clock says; of all servers without any.
    fn tick(&mut self, args: &mut Args<'_>, output: &mut String) -> Result<()> {
        for id in self.listed(args)? {
            self.input(id, Input::Tick, output);
        }
        Ok(())
    }

    fn listed(&mut self, args: &mut Args<'_>) -> Result<Vec<ServerId>> {
        let mut ids = Vec::new();
        while let Some(id) = args.next_pos() {
            ids.push(server(id)?);
        }
        if ids.is_empty() {
            ids = self.cluster().ids();
        }
        Ok(ids)
    }

    /// `[FROM] [TO] [n=N]`: takes these messages, or the first N of them, out of the network.
    fn taken(&mut self, args: &mut Args<'_>) -> Result<Vec<Packet>> {
        let mut most: usize = keyed(args, "n")?.unwrap_or(usize::MAX);
        let from = args.next_pos().map(server).transpose()?;
        let to = args.next_pos().map(server).transpose()?;
        let (mut taken, mut left) = (Vec::new(), Vec::new());
        for packet in std::mem::take(&mut self.cluster().network) {
            let wanted = from.is_none_or(|from| from == packet.from)
                && to.is_none_or(|to| to == packet.to)
                && most > 0;
            if wanted {
                most -= 1;
                taken.push(packet);
            } else {
                left.push(packet);
            }
        }
        self.cluster().network = left;
        Ok(taken)
    }

    /// `deliver [FROM] [TO] [n=N]`: what is in the network now, not what comes of it.
    fn deliver(&mut self, args: &mut Args<'_>, output: &mut String) -> Result<()> {
        for packet in self.taken(args)? {
            self.deliver_packet(packet, output);
        }
        Ok(())
    }

    fn deliver_packet(&mut self, packet: Packet, output: &mut String) {
        let runs = self.cluster().server(packet.to).raft.is_some();
        if runs && !self.cuts.contains(&(packet.from, packet.to)) {
            self.input(packet.to, Input::Message(packet.message), output);
        }
    }

    /// `stabilize`: delivers and reads back whatever there is, until there is nothing.
    fn stabilize(&mut self, output: &mut String) {
        for turn in 0.. {
            assert!(turn < 1000, "the servers never come to rest");
            let packets = std::mem::take(&mut self.cluster().network);
            let rests = packets.is_empty();
            for packet in packets {
                self.deliver_packet(packet, output);
            }
            let mut fetched = false;
            for id in self.cluster().ids() {
                fetched |= self.fetch(id, output).is_ok();
            }
            if rests && !fetched {
                return;
            }
        }
    }

    /// `hold [FROM] [TO] [n=N]`: these stay under way until `late`.
    fn hold(&mut self, args: &mut Args<'_>) -> Result<()> {
        let held = self.taken(args)?;
        if held.is_empty() {
            return Err("there is nothing to hold".into());
        }
        self.held.extend(held);
        Ok(())
    }

    /// `late [FROM] [TO]`: what was held back arrives.
    fn late(&mut self, args: &mut Args<'_>, output: &mut String) -> Result<()> {
        let held = std::mem::take(&mut self.held);
        let other = std::mem::replace(&mut self.cluster().network, held);
        let packets = self.taken(args)?;
        self.held = std::mem::replace(&mut self.cluster().network, other);
        for packet in packets {
            self.deliver_packet(packet, output);
        }
        Ok(())
    }

    /// `duplicate [FROM] [TO] [n=N]`: these are under way twice.
    fn duplicate(&mut self, args: &mut Args<'_>) -> Result<()> {
        let taken = self.taken(args)?;
        self.cluster().network.extend(taken.iter().cloned());
        self.cluster().network.extend(taken);
        Ok(())
    }

    /// `cut A [B] [oneway=yes]`: nothing passes between these two; or between A and all others.
    fn cut(&mut self, args: &mut Args<'_>) -> Result<()> {
        let one_way = args.take_key("oneway").is_some();
        let one: ServerId = next(args)?;
        for other in self.listed(args)? {
            self.cuts.insert((one, other));
            if !one_way {
                self.cuts.insert((other, one));
            }
        }
        Ok(())
    }

    /// `disk S manual|auto`: writes wait for `sync`, or are synced at once.
    fn disk(&mut self, args: &mut Args<'_>) -> Result<()> {
        let id = next(args)?;
        let automatic = match args.next_pos() {
            Some("auto") => true,
            Some("manual") => false,
            other => return Err(format!("a disk is no {other:?}").into()),
        };
        self.cluster().server_mut(id).syncs_at_once = automatic;
        Ok(())
    }

    /// `sync S`: the oldest write is on disk.
    fn sync(&mut self, id: ServerId, output: &mut String) -> Result<()> {
        let before = self.before(id);
        let stepped = self.cluster().sync(id).ok_or("nothing to sync")?;
        self.tell(id, before, stepped, output);
        Ok(())
    }

    /// `fetch S`: the oldest wish of S for entries of its log is answered.
    fn fetch(&mut self, id: ServerId, output: &mut String) -> Result<()> {
        let before = self.before(id);
        let stepped = self.cluster().answer_fetch(id).ok_or("nothing to fetch")?;
        self.tell(id, before, stepped, output);
        Ok(())
    }

    /// `propose S TEXT...` or `propose S size=BYTES`.
    fn propose(&mut self, args: &mut Args<'_>, output: &mut String) -> Result<()> {
        let id = next(args)?;
        let mut payloads = Vec::new();
        if let Some(bytes) = keyed(args, "size")? {
            payloads.push(Bytes::from(vec![b'x'; bytes]));
        }
        while let Some(text) = args.next_pos() {
            payloads.push(Bytes::from(text.to_owned()));
        }
        for payload in payloads {
            let before = self.before(id);
            let stepped = self.cluster().step(id, Input::Propose(payload));
            match stepped.accepted {
                Some(at) => writeln!(output, "s{id} proposes {}", show::position(at))?,
                None => writeln!(output, "s{id} takes no proposal")?,
            }
            self.tell(id, before, stepped, output);
        }
        Ok(())
    }

    /// `read S N...`
    fn read(&mut self, args: &mut Args<'_>, output: &mut String) -> Result<()> {
        let id = next(args)?;
        while let Some(read) = args.next_pos() {
            self.input(id, Input::Read(ReadId(read.parse()?)), output);
        }
        Ok(())
    }

    /// `snapshot S`: of its state as it is; it is on disk.
    fn snapshot(&mut self, id: ServerId, output: &mut String) {
        let raft = self.cluster().server(id).raft.as_ref();
        let snapshot = raft.expect("the server runs").applied_snapshot();
        output.push_str(&format!("s{id} has {}\n", show::snapshot(&snapshot)));
        self.input(id, Input::Snapshot(snapshot), output);
    }

    /// `drop_log S until=N [untold=yes]`: its log begins behind entry N; it is told unless that is
    /// still under way.
    fn drop_log(&mut self, args: &mut Args<'_>, output: &mut String) -> Result<()> {
        let until = Index(keyed(args, "until")?.ok_or("until where?")?);
        let untold = args.take_key("untold").is_some();
        let id = next(args)?;
        let disk = &mut self.cluster().server_mut(id).disk;
        let dropped = match disk.drop_until(until) {
            Some(dropped) => dropped,
            None if disk.before().index == until => disk.before(),
            None => return Err(format!("the disk does not hold {until}").into()),
        };
        if !untold {
            self.input(id, Input::Dropped(dropped), output);
        }
        Ok(())
    }

    /// `install FROM TO`: FROM's newest snapshot has been sent to TO, and the word of it follows.
    fn install(&mut self, args: &mut Args<'_>, output: &mut String) -> Result<()> {
        let (from, to) = (next(args)?, next(args)?);
        let server = self.cluster().server(from);
        let snapshot = server.disk.snapshot().ok_or("there is no snapshot")?;
        let raft = server.raft.as_ref().ok_or("the server is down")?;
        let message = raft.install_message(snapshot.clone());
        let message = message.ok_or("the server does not lead")?;
        writeln!(output, "{}", show::message(from, to, &message))?;
        self.cluster().network.push(Packet { from, to, message });
        Ok(())
    }

    /// `install_ended S FOLLOWER`: the transfer is over, well or not.
    fn install_ended(&mut self, args: &mut Args<'_>, output: &mut String) -> Result<()> {
        let (id, follower) = (next(args)?, next(args)?);
        self.input(id, Input::InstallEnded(follower), output);
        Ok(())
    }

    /// `connected S PEER`
    fn connected(&mut self, args: &mut Args<'_>, output: &mut String) -> Result<()> {
        let (id, peer) = (next(args)?, next(args)?);
        self.input(id, Input::Connected(peer), output);
        Ok(())
    }

    /// `crash S [kept=N] [torn=N]`: of the unsynced writes the oldest N survive, and of the next
    /// one its first N parts.
    fn crash(&mut self, args: &mut Args<'_>) -> Result<()> {
        let kept = keyed(args, "kept")?.unwrap_or(0);
        let torn = keyed(args, "torn")?.unwrap_or(0);
        let id = next(args)?;
        self.cluster().crash(id, kept, torn);
        Ok(())
    }

    fn restart(&mut self, id: ServerId, output: &mut String) {
        let now = self.now;
        self.cluster().server_mut(id).now = now;
        self.cluster().start(id);
        self.input(id, Input::Tick, output);
    }

    /// `wipe S`: it crashed, and its data directory is lost.
    fn wipe(&mut self, id: ServerId) {
        let disk = self.cluster().fresh_disk();
        let server = self.cluster().server_mut(id);
        assert!(server.raft.is_none(), "server {id} runs");
        server.disk = disk;
    }

    /// `restore S INDEX@TERM`: as `wipe`, and the new disk begins with the backup of another cluster.
    fn restore(&mut self, args: &mut Args<'_>) -> Result<()> {
        let id = next(args)?;
        let position = parse::position(args.next_pos().ok_or("no position is given")?)?;
        self.cluster().restore(id, position);
        Ok(())
    }

    /// `damage S last=N [term=T] [voted_for=S]`: it crashed, and its disk has lost what is behind
    /// entry N, and all hard states behind this one.
    fn damage(&mut self, args: &mut Args<'_>) -> Result<()> {
        let last = Index(keyed(args, "last")?.ok_or("up to where is it whole?")?);
        let term = Term(keyed(args, "term")?.unwrap_or(1));
        let voted_for = args.take_key("voted_for").map(server).transpose()?;
        let id = next(args)?;
        let server = self.cluster().server_mut(id);
        assert!(server.raft.is_none(), "server {id} runs");
        server.disk.damage(last, term, voted_for);
        Ok(())
    }

    fn status(&mut self, args: &mut Args<'_>, output: &mut String) -> Result<()> {
        for id in self.listed(args)? {
            if self.cluster().server(id).raft.is_none() {
                writeln!(output, "s{id} is down")?;
                continue;
            }
            let status = self.status_of(id);
            let leader = status.leader.map_or("none".into(), |it| it.to_string());
            let serves = if status.serves { ", serves" } else { "" };
            let health = match (status.recovering, status.stranded) {
                (false, _) => "",
                (true, false) => ", recovering",
                (true, true) => ", recovering, stranded",
            };
            writeln!(
                output,
                "s{id} {:?} term={} voted_for={} leader={leader} commit={} applied={} last={}, {}{serves}{health}",
                status.role,
                status.term,
                show::voted_for(status.hard_state),
                status.commit_index,
                status.last_applied,
                status.last_log_index,
                show::seating(status.hard_state.seating),
            )?;
            let counters = status.counters;
            for (name, count) in [
                ("from strangers", counters.from_strangers),
                ("from impostors", counters.from_impostors),
                ("contradicted", counters.contradicted),
                ("malformed", counters.malformed),
            ] {
                if count > 0 {
                    writeln!(output, "s{id} {count} {name}")?;
                }
            }
        }
        Ok(())
    }

    /// `log S...`: what is on these disks, behind what if not all.
    fn log(&mut self, args: &mut Args<'_>, output: &mut String) -> Result<()> {
        for id in self.listed(args)? {
            let disk = &self.cluster().server(id).disk;
            let entries: Vec<String> = disk.entries().iter().map(show::entry).collect();
            let entries = entries.join(", ");
            match disk.before() {
                Position {
                    index: Index(0), ..
                } => writeln!(output, "s{id} {entries}")?,
                before if entries.is_empty() => {
                    writeln!(output, "s{id} nothing behind {}", show::position(before))?;
                }
                before => writeln!(output, "s{id} behind {}: {entries}", show::position(before))?,
            }
        }
        Ok(())
    }

    fn before(&mut self, id: ServerId) -> Before {
        let now = self.now;
        self.cluster().server_mut(id).now = now;
        match self.cluster().server(id).raft.as_ref() {
            Some(raft) => Before::of(&raft.status()),
            None => Before::default(),
        }
    }

    /// `candidacy S willing|reluctant|barred`
    fn candidacy(&mut self, args: &mut Args<'_>, output: &mut String) -> Result<()> {
        let id = next(args)?;
        let candidacy = match args.next_pos() {
            Some("willing") => Candidacy::Willing,
            Some("reluctant") => Candidacy::Reluctant,
            Some("barred") => Candidacy::Barred,
            other => return Err(format!("no candidacy {other:?}").into()),
        };
        self.input(id, Input::Candidacy(candidacy), output);
        Ok(())
    }

    fn input(&mut self, id: ServerId, input: Input, output: &mut String) {
        let before = self.before(id);
        let stepped = self.cluster().step(id, input);
        self.tell(id, before, stepped, output);
    }

    /// Says what a step came to, a line for each thing.
    fn tell(&mut self, id: ServerId, before: Before, stepped: Stepped, output: &mut String) {
        let after = self.before(id);
        let mut lines = Vec::new();
        if (after.role, &after.hard_state) != (before.role, &before.hard_state) {
            let role = after.role.map_or("down".into(), |role| format!("{role:?}"));
            lines.push(format!("{role} {}", after.hard_state));
        }
        if after.seating != before.seating {
            lines.push(after.seating.to_owned());
        }
        if !self.cluster().server(id).syncs_at_once {
            lines.extend(stepped.write.iter().map(show::write));
        }
        for fetch in stepped.fetches {
            lines.push(format!("fetches {}..={}", fetch.from, fetch.to));
        }
        for follower in stepped.installs {
            lines.push(format!("asks for an install on s{follower}"));
        }
        for snapshot in stepped.installed {
            lines.push(format!("installs {}", show::snapshot(&snapshot)));
        }
        for line in lines {
            output.push_str(&format!("s{id} {line}\n"));
        }
        for packet in stepped.sent {
            output.push_str(&show::message(packet.from, packet.to, &packet.message));
            output.push('\n');
        }
        for entry in stepped.committed {
            output.push_str(&format!("s{id} applies {}\n", show::entry(&entry)));
        }
        for (read, index) in stepped.reads {
            output.push_str(&format!("s{id} answers read {read} at {index}\n"));
        }
        for read in stepped.refused_reads {
            output.push_str(&format!("s{id} refuses read {read}\n"));
        }
    }

    /// `inject FROM TO KIND [term=T] ...`: a message that FROM might not have sent. `cluster=N`,
    /// `instance=N` and `restart=N` stand for those of FROM's own.
    fn inject(&mut self, args: &mut Args<'_>, output: &mut String) -> Result<()> {
        let (from, to): (ServerId, ServerId) = (next(args)?, next(args)?);
        let known = self.cluster().servers.iter().find(|it| it.id == from);
        let raft = known.and_then(|it| it.raft.as_ref());
        let seating = raft.map(|raft| raft.status().hard_state.seating);
        let cluster = seating
            .filter(|it| it.is_seated())
            .and_then(|it| it.cluster());
        let sender = Sender {
            id: from,
            cluster: match args.take_key("cluster") {
                Some("none") => None,
                Some(number) => Some(ClusterId(number.parse()?)),
                None => cluster,
            },
            instance: match keyed(args, "instance")? {
                Some(number) => Instance(number),
                None => known.map_or(Instance(1), |it| it.disk.instance),
            },
            restart: match keyed(args, "restart")? {
                Some(number) => Restart(number),
                None => known.map_or(Restart(1), |it| it.disk.restart),
            },
            recovering: args.take_key("recovering").is_some(),
        };
        let term = Term(keyed(args, "term")?.ok_or("a message has a term")?);
        let kind = args.next_pos().ok_or("a message has a kind")?;
        let body = match kind {
            "InstallSnapshot" => self.install_body(from, args)?,
            kind => parse::body(kind, args)?,
        };
        let message = Message { sender, term, body };
        self.input(to, Input::Message(message), output);
        Ok(())
    }

    /// `InstallSnapshot snapshot=index@term [configuration=index@term|none]`: the configuration is
    /// the newest that FROM has applied, unless it is said to be none, or one that can't be read.
    fn install_body(&mut self, from: ServerId, args: &mut Args<'_>) -> Result<Body> {
        let configuration = match args.take_key("configuration") {
            Some("none") => None,
            Some(at) => Some(parse::entry(&format!("{at}:Configuration"))?),
            None => {
                let raft = self.cluster().server(from).raft.as_ref();
                raft.and_then(|raft| raft.applied_snapshot().configuration)
            }
        };
        let snapshot = Snapshot {
            position: parse::positioned(args, "snapshot")?,
            configuration,
        };
        Ok(Body::InstallSnapshot(InstallSnapshot { snapshot }))
    }
}

/// What is told only when it changes.
#[derive(Default)]
struct Before {
    role: Option<Role>,
    hard_state: String,
    seating: &'static str,
}

impl Before {
    fn of(status: &quorate_raft::Status) -> Before {
        let voted_for = show::voted_for(status.hard_state);
        Before {
            role: Some(status.role),
            hard_state: format!("term={} voted_for={voted_for}", status.term),
            seating: show::seating(status.hard_state.seating),
        }
    }
}
