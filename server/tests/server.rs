//! One server as its users meet it: its ports, its signals, its data and its refusals.

mod harness;

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Stdio;
use std::time::{Duration, Instant};

use bytes::Buf;
use harness::{Cluster, Process, end, line, wait, within_deadline};
use raft::{ClusterId, Index, Instance, Position, Restart, ServerId, Term};
use rustix::process::{Pid, Signal, test_kill_process};
use wire::{Frame, Hello, Offer, Outgoing, Transfer, VERSIONS};

/// What a server keeps of its open files for all but clients, and for how many of these there must
/// be room at least.
const FILES_RESERVED: usize = 320;
const CLIENTS_MIN: usize = 16;

/// How many calls a server takes on its RPC port.
const CALLS_MAX: usize = 64;

#[test]
fn one_server_is_a_cluster_and_keeps_what_it_acknowledged() {
    let cluster = Cluster::new(1);
    let server = cluster.start(1, &[]);
    assert_eq!(server.leader(), 1);
    assert_eq!(
        server.ask(b"set a 7 0 5\r\nh\r\nlo\r\nget a\r\n"),
        "STORED\r\nVALUE a 7 5\r\nh\r\nlo\r\nEND\r\n"
    );

    let (code, took) = server.stop();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(5), "it took {took:?}");

    // The same ports at once, although connections on them have just been closed.
    let server = cluster.start(1, &[]);
    assert_eq!(server.leader(), 1);
    assert_eq!(
        server.ask(b"get a\r\n"),
        "VALUE a 7 5\r\nh\r\nlo\r\nEND\r\n"
    );
    assert_eq!(server.ask(b"set b 0 0 1\r\nx\r\n"), "STORED\r\n");
    server.kill();

    let server = cluster.start(1, &[]);
    assert_eq!(server.leader(), 1);
    let both = "VALUE a 7 5\r\nh\r\nlo\r\nVALUE b 0 1\r\nx\r\nEND\r\n";
    assert_eq!(server.ask(b"get a b\r\n"), both);
    let (code, _) = server.stop();
    assert_eq!(code, Some(0));
}

#[test]
fn the_status_has_what_is_promised_before_and_after_there_is_a_leader() {
    let cluster = Cluster::new(3);
    let first = cluster.start(1, &[]);
    let status = first.status();
    assert_eq!(status["id"], 1);
    assert!(status["leader"].is_null());
    assert_eq!(status["quorum"], false);
    assert_eq!(first.http("/healthz").0, 200);
    assert_eq!(first.http("/readyz").0, 503);
    assert_eq!(first.http("/").0, 200);
    assert_eq!(first.http("/nothing").0, 404);
    assert_eq!(first.ask(b"get a\r\n"), "SERVER_ERROR no leader\r\n");

    let _second = cluster.start(2, &[]);
    let leader = first.leader();
    within_deadline("the server is ready", || first.http("/readyz").0 == 200);
    let status = first.status();
    let role = if leader == 1 { "Leader" } else { "Follower" };
    assert_eq!(status["role"], role);
    assert_eq!(status["quorum"], true);
    within_deadline("the leader's first entry is applied", || {
        let status = first.status();
        ["term", "commit_index", "last_applied", "last_log_index"]
            .iter()
            .all(|member| status[member].as_u64().is_some_and(|number| number > 0))
    });
}

#[test]
fn a_follower_names_the_leader_and_takes_over_when_it_stops() {
    let cluster = Cluster::new(3);
    let mut servers: Vec<_> = (1..=3).map(|id| cluster.start(id, &[])).collect();
    all_are_seated(&servers);
    let leader = usize::try_from(servers[0].leader()).unwrap();
    let follower = leader % 3;
    assert_eq!(servers[follower].leader(), leader as u64);
    let redirect = format!(
        "ERR_REDIRECT 127.0.0.1 {}\r\n",
        cluster.ports[leader - 1][0]
    );
    assert_eq!(servers[follower].ask(b"set a 0 0 3\r\nget\r\n"), redirect);
    let stored = servers[leader - 1].ask(b"set a 0 0 1\r\nx\r\n");
    assert_eq!(stored, "STORED\r\n");

    let (code, took) = servers.remove(leader - 1).stop();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(5), "it took {took:?}");
    let survivors = &servers;
    within_deadline("another server leads and has the value", || {
        let answers = survivors.iter().map(|server| server.ask(b"get a\r\n"));
        answers
            .into_iter()
            .any(|answer| answer.starts_with("VALUE"))
    });
}

/// Waits until every server knows that every server has its seat: from then on any majority can
/// make progress.
fn all_are_seated(servers: &[Process]) {
    within_deadline("all are seated", || {
        let filled = |server: &Process| server.status()["seats_filled"] == servers.len();
        servers.iter().all(filled)
    });
}

#[test]
fn a_wiped_disk_and_a_foreign_one_end_the_server_with_one_line() {
    let cluster = Cluster::new(3);
    let mut servers: Vec<_> = (1..=3).map(|id| cluster.start(id, &[])).collect();
    within_deadline("all are seated", || {
        servers
            .iter()
            .all(|server| server.status()["seats_empty"] == 0)
            && servers
                .iter()
                .all(|server| server.status()["seats_filled"] == 3)
    });
    servers.pop().expect("there are three").kill();

    fs::rename(cluster.data_dir(3), cluster.folder.path().join("kept")).expect("it is there");
    let (code, said) = cluster.refusal(3, &["--log-level", "error"]);
    assert_ne!(code, 0);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("was the disk wiped"), "{said}");

    // A data directory that has its seat in another cluster, of which it is the only server.
    let other = Cluster::new(3);
    let text = fs::read_to_string(other.config()).expect("it was written");
    let third = text.rfind("[[server]]").expect("there are three");
    fs::write(other.config(), &text[third..]).expect("it can be written");
    let foreign = other.start(3, &[]);
    assert_eq!(foreign.leader(), 3);
    assert_eq!(foreign.ask(b"set a 0 0 1\r\nx\r\n"), "STORED\r\n");
    assert_eq!(foreign.stop().0, Some(0));
    fs::remove_dir_all(cluster.data_dir(3)).expect("the wiped server made one");
    fs::rename(other.data_dir(3), cluster.data_dir(3)).expect("it is there");
    let (code, said) = cluster.refusal(3, &["--log-level", "error"]);
    assert_ne!(code, 0);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("another cluster"), "{said}");
}

#[test]
fn a_cluster_keeps_its_members_whatever_cluster_toml_says_later() {
    let cluster = Cluster::new(3);
    let servers: Vec<_> = (1..=3).map(|id| cluster.start(id, &[])).collect();
    all_are_seated(&servers);
    drop(servers);
    let text = fs::read_to_string(cluster.config()).expect("it was written");
    let second = text
        .match_indices("[[server]]")
        .nth(1)
        .expect("there are three")
        .0;
    fs::write(cluster.config(), &text[..second]).expect("it can be written");
    let (code, said) = cluster.refusal(1, &["--log-level", "error"]);
    assert_ne!(code, 0);
    assert_eq!(said.lines().count(), 1, "{said}");
    let reason = "its log names the servers 1, 2, 3, cluster.toml names 1";
    assert!(said.contains(reason), "{said}");
    fs::write(cluster.config(), &text).expect("it can be written");
    let servers: Vec<_> = (1..=3).map(|id| cluster.start(id, &[])).collect();
    within_deadline("there is a leader", || {
        servers
            .iter()
            .any(|server| server.status()["quorum"] == true)
    });
}

#[test]
fn the_members_of_a_cluster_are_known_when_only_the_snapshot_names_them() {
    let cluster = Cluster::new(1);
    let small = ["--snapshot-entries", "50", "--log-segment-bytes", "8192"];
    let arguments = [&small[..], &["--log-kept-bytes", "0"]].concat();
    let server = cluster.start(1, &arguments);
    server.leader();
    let value = "v".repeat(100);
    let sets = format!("set a 0 0 100\r\n{value}\r\n").repeat(10);
    within_deadline("the log's beginning is dropped", || {
        assert_eq!(server.ask(sets.as_bytes()), "STORED\r\n".repeat(10));
        // The configuration is among the first entries.
        server.status()["log_begins_behind"].as_u64() > Some(20)
    });
    server.kill();
    let mut text = fs::read_to_string(cluster.config()).expect("it was written");
    text += "[[server]]\nid = 2\nhost = \"127.0.0.1\"\nclient_port = 1\nrpc_port = 2\n\
             http_port = 3\n";
    fs::write(cluster.config(), &text).expect("it can be written");
    let (code, said) = cluster.refusal(1, &["--log-level", "error"]);
    assert_eq!(code, 1, "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    let reason = "its log names the servers 1, cluster.toml names 1, 2";
    assert!(said.contains(reason), "{said}");
}

#[test]
fn what_cannot_work_ends_with_one_clear_line() {
    let cluster = Cluster::new(1);
    let refused = |id: usize, arguments: &[&str], reason: &str| {
        let (code, said) = cluster.refusal(id, arguments);
        assert_ne!(code, 0, "{said}");
        assert_eq!(
            said.lines().filter(|line| !line.contains("INFO")).count(),
            1,
            "{said}"
        );
        assert!(said.contains(reason), "{reason:?} is not in {said}");
    };
    refused(2, &[], "there is no server 2 in");
    refused(1, &["--heartbeat-ms", "x"], "--heartbeat-ms: \"x\" is not");
    refused(1, &["--heartbeat-ms", "60"], "more than a third");
    refused(1, &["--log-level", "a=b=c"], "log_level");
    refused(
        1,
        &["--die-with-parent=1234567"],
        "the process that started this server",
    );

    let port = cluster.ports[0][1];
    let taken = TcpListener::bind(("127.0.0.1", port)).expect("it is free");
    refused(
        1,
        &[],
        &format!("cannot listen on 127.0.0.1:{port}, the rpc_port"),
    );
    drop(taken);

    fs::write(cluster.data_dir(1), "a file").expect("the folder can be written");
    refused(1, &[], "data-1");
    fs::remove_file(cluster.data_dir(1)).expect("it is there");

    fs::write(cluster.config(), "[[server]]\nid = one\n").expect("it can be written");
    refused(1, &[], "cluster.toml: line 2:");
    fs::remove_file(cluster.config()).expect("it is there");
    refused(1, &[], "cluster.toml: No such file");
}

#[test]
fn a_data_directory_belongs_to_one_server_at_a_time_and_for_ever() {
    let cluster = Cluster::new(2);
    let first = cluster.start(1, &[]);
    within_deadline("the log is open", || first.status()["starting"] == false);
    // Servers with other ports, and the same data directory.
    let others = Cluster::new(2);
    for id in [1, 2] {
        symlink(cluster.data_dir(1), others.data_dir(id)).expect("the folder can be written");
    }
    let (code, said) = others.refusal(1, &["--log-level", "error"]);
    assert_ne!(code, 0);
    assert!(
        said.contains("another process is using this data directory"),
        "{said}"
    );
    first.kill();
    let (code, said) = others.refusal(2, &["--log-level", "error"]);
    assert_ne!(code, 0);
    assert!(
        said.contains("is the data directory of server 1, not of server 2"),
        "{said}"
    );
}

#[test]
fn a_data_directory_that_cannot_be_read_is_named() {
    let cluster = Cluster::new(1);
    cluster.start(1, &[]).leader();
    let meta = cluster.data_dir(1).join("meta.0");
    fs::set_permissions(&meta, fs::Permissions::from_mode(0o000)).expect("it is ours");
    if fs::read(&meta).is_ok() {
        // Root reads everything.
        return;
    }
    let (code, said) = cluster.refusal(1, &["--log-level", "error"]);
    assert_ne!(code, 0);
    assert!(said.contains("meta.0"), "{said}");
}

#[test]
fn the_configuration_is_printed_with_its_sources() {
    let cluster = Cluster::new(1);
    let mut command = cluster.command(1, &["--print-config", "--heartbeat-ms", "40"]);
    let output = command
        .env("QUORATE_CONNECTIONS_MAX", "9")
        .output()
        .expect("the server can be run");
    let text = String::from_utf8(output.stdout).expect("it is text");
    assert!(output.status.success());
    assert!(text.contains("heartbeat_ms = 40 # flag"), "{text}");
    assert!(text.contains("connections_max = 9 # environment"), "{text}");
    assert!(
        text.contains("followers = \"redirect\" # default"),
        "{text}"
    );
    assert!(!cluster.data_dir(1).exists());
}

#[test]
fn a_connection_too_many_is_told_so_and_room_comes_back() {
    let cluster = Cluster::new(1);
    let server = cluster.start(1, &["--connections-max", "2"]);
    server.leader();
    let mut first = server.connect();
    let mut second = server.connect();
    for stream in [&mut first, &mut second] {
        stream.write_all(b"mn\r\n").expect("the server reads");
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).expect("it answers");
    }
    let mut third = server.connect();
    let mut answer = String::new();
    third.read_to_string(&mut answer).expect("it is text");
    assert_eq!(answer, "ERROR Too many open connections\r\n");
    drop(first);
    within_deadline("there is room again", || server.ask(b"mn\r\n") == "MN\r\n");
}

#[test]
fn a_server_with_few_files_serves_as_many_clients_as_it_can() {
    let cluster = Cluster::new(1);
    let files_max = FILES_RESERVED + CLIENTS_MIN;
    let server = cluster.start_with(1, &mut cluster.command_with_files(1, files_max));
    server.leader();
    let mut early = server.connect();
    let http: Vec<_> = (0..64).map(|_| server.connect_http()).collect();
    let calls: Vec<_> = (0..64).map(|_| server.connect_rpc()).collect();
    let clients: Vec<_> = (0..200).map(|_| server.connect()).collect();
    assert_eq!(server.http("/healthz").0, 200);

    // More than what is synced before the mark in meta is moved on, twice.
    let value = "v".repeat(1_000_000);
    let set = format!("set a 0 0 {}\r\n{value}\r\n", value.len());
    let mut replies = BufReader::new(early.try_clone().expect("there is a file left"));
    for _ in 0..10 {
        early.write_all(set.as_bytes()).expect("the server reads");
        assert_eq!(line(&mut replies).expect("it answers"), "STORED");
    }

    drop((http, calls, clients));
    within_deadline("there is room again", || {
        // Until then it may be turned away without a word.
        let mut late = server.connect();
        late.write_all(b"mn\r\n").is_ok()
            && line(&mut BufReader::new(late)).is_ok_and(|reply| reply == "MN")
    });
}

#[test]
fn what_is_damaged_is_refused_with_what_to_do_about_it() {
    let refused = |cluster: &Cluster, arguments: &[&str], reasons: [&str; 2]| {
        let (code, said) = cluster.refusal(1, &[&["--log-level", "error"], arguments].concat());
        assert_eq!(code, 1, "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        for reason in reasons {
            assert!(said.contains(reason), "{reason:?} is not in {said}");
        }
    };
    let spoil = |cluster: &Cluster, is_spoilt: &dyn Fn(&str) -> bool| {
        for file in fs::read_dir(cluster.data_dir(1)).expect("it is there") {
            let path = file.expect("it was listed").path();
            if is_spoilt(&path.display().to_string()) {
                let mut bytes = fs::read(&path).expect("it is ours");
                bytes[100] ^= 1;
                fs::write(&path, bytes).expect("it is ours");
            }
        }
    };
    let alone = Cluster::new(1);
    let server = alone.start(1, &[]);
    server.leader();
    assert_eq!(server.ask(b"set a 0 0 1\r\nx\r\n"), "STORED\r\n");
    server.kill();
    spoil(&alone, &|name| name.ends_with(".log"));
    let reasons = [
        ".log: corrupt at byte 0",
        "put the files that --check names back",
    ];
    refused(&alone, &[], reasons);

    let three = Cluster::new(3);
    let server = three.start(1, &[]);
    within_deadline("the log is open", || server.status()["starting"] == false);
    server.kill();
    spoil(&three, &|name| name.contains("/meta."));
    refused(
        &three,
        &[],
        ["/meta.", "put one of the two back from a copy"],
    );

    let other = Cluster::new(1);
    let backup = other.folder.path().join("backup");
    fs::write(&backup, [1; 5000]).expect("it is ours");
    let restore = ["--restore", backup.to_str().expect("it is text")];
    refused(&other, &restore, ["/backup: corrupt", "use another copy"]);
}

#[test]
fn a_limit_on_files_that_leaves_no_room_for_clients_is_refused() {
    let cluster = Cluster::new(1);
    for files_max in [200, FILES_RESERVED + CLIENTS_MIN - 1] {
        let refused = cluster.command_with_files(1, files_max).spawn();
        let (code, said) = end(refused.expect("there is a shell"));
        assert_ne!(code, 0, "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        let reason = format!("the limit of {files_max} open files (ulimit -n) is too low");
        assert!(said.contains(&reason), "{said}");
        assert!(!cluster.data_dir(1).exists());
    }
}

#[test]
fn who_says_nothing_on_the_rpc_port_gives_way_to_who_belongs_there() {
    let cluster = Cluster::new(3);
    let server = cluster.start(1, &[]);
    within_deadline("the log is open", || server.status()["starting"] == false);
    let mut idle: Vec<_> = (0..CALLS_MAX).map(|_| server.connect_rpc()).collect();
    let start = Instant::now();
    let second = handshake(&cluster, &server, 2);
    assert!(idle[0].read(&mut [0]).is_ok_and(|bytes| bytes == 0));

    // Who has said who it is stays.
    idle.extend((0..2 * CALLS_MAX).map(|_| server.connect_rpc()));
    let _third = handshake(&cluster, &server, 3);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(4), "it took {took:?}");
    second.set_nonblocking(true).expect("it is connected");
    let still_open = (&second).read(&mut [0]).expect_err("nothing is to be read");
    assert_eq!(still_open.kind(), ErrorKind::WouldBlock);
}

#[test]
fn nonsense_about_snapshots_ends_its_call_with_one_line_and_nothing_else() {
    let cluster = Cluster::new(3);
    let server = cluster.start_heard(1);
    within_deadline("the log is open", || server.status()["starting"] == false);
    let offer = Offer {
        cluster: ClusterId(7),
        position: Position {
            term: Term(1),
            index: Index(9),
        },
        file_bytes: 10_000,
        checksum: 1,
    };
    let sound = Transfer::Offer(offer);
    let of_another = Transfer::Offer(Offer {
        cluster: ClusterId(8),
        ..offer
    });
    let absurd = Transfer::Offer(Offer {
        file_bytes: 1 << 41,
        ..offer
    });
    let piece = |offset, length: usize| Transfer::Piece {
        offset,
        bytes: vec![0; length].into(),
    };
    for (steps, line) in [
        (vec![of_another], "of another cluster than its own"),
        (vec![absurd], "of more than a tebibyte"),
        (vec![piece(0, 1)], "a frame that does not belong there"),
        (
            vec![sound.clone(), piece(1, 1)],
            "other bytes than it was asked for",
        ),
        (
            vec![sound.clone(), piece(0, 10_001)],
            "than it was asked for",
        ),
        (
            vec![sound.clone(), Transfer::Loaded],
            "does not belong there",
        ),
        (
            vec![sound.clone(), piece(0, 10_000)],
            "a snapshot is not received",
        ),
    ] {
        let mut outgoing = Outgoing::new();
        for step in &steps {
            outgoing.push_transfer(*VERSIONS.end(), step);
        }
        let bytes = outgoing.copy_to_bytes(outgoing.remaining());
        assert_hangs_up(call(&cluster, &server, 2, Some(ClusterId(7))), &bytes, line);
    }
    let too_long = u32::MAX.to_le_bytes();
    assert_hangs_up(
        call(&cluster, &server, 2, Some(ClusterId(7))),
        &too_long,
        "length",
    );
    let mut outgoing = Outgoing::new();
    outgoing.push_transfer(*VERSIONS.end(), &sound);
    let bytes = outgoing.copy_to_bytes(outgoing.remaining());
    assert_hangs_up(
        handshake(&cluster, &server, 2),
        &bytes,
        "a snapshot among messages",
    );

    assert_eq!(server.ask(b"mn\r\n"), "MN\r\n");
    let said = server.stop_and_hear();
    let count = |part: &str| said.lines().filter(|line| line.contains(part)).count();
    assert_eq!(count("ends the transfer of server 2"), 7, "{said}");
    assert_eq!(count("a snapshot is not received"), 1, "{said}");
    assert_eq!(count("ends the call of server 2"), 1, "{said}");
    assert_eq!(count("ERROR") + count("panicked"), 0, "{said}");
}

/// Writes these bytes, upon which the server closes the connection.
fn assert_hangs_up(mut stream: TcpStream, bytes: &[u8], why: &str) {
    stream.write_all(bytes).expect("the server reads");
    match stream.read_to_end(&mut Vec::new()) {
        Ok(_) => {}
        // It was closed with bytes of ours unread.
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{why}"),
    }
}

/// Calls `server`, which is server 1, as the server with this id would: the call is taken.
fn handshake(cluster: &Cluster, server: &Process, from: u64) -> TcpStream {
    call(cluster, server, from, None)
}

/// The same with a snapshot of this cluster, if one is named.
fn call(
    cluster: &Cluster,
    server: &Process,
    from: u64,
    snapshot_of: Option<ClusterId>,
) -> TcpStream {
    let text = fs::read_to_string(cluster.config()).expect("it was written");
    let members = cluster::Cluster::parse(&text).expect("it is sound");
    let hello = Hello {
        versions: (*VERSIONS.start(), *VERSIONS.end()),
        from: ServerId(from),
        to: ServerId(1),
        cluster: snapshot_of,
        instance: Instance(from),
        restart: Restart(1),
        members_hash: members.members_hash(),
        backup: 0,
    };
    let mut outgoing = Outgoing::new();
    match snapshot_of {
        None => outgoing.push_hello(&hello),
        Some(_) => outgoing.push_transfer_hello(&hello),
    }
    let mut stream = server.connect_rpc();
    stream
        .write_all(&outgoing.copy_to_bytes(outgoing.remaining()))
        .expect("the server reads");
    let mut length = [0; wire::LENGTH_BYTES];
    stream.read_exact(&mut length).expect("it answers");
    let mut frame = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut frame).expect("it answers");
    match wire::decode(frame.into()).expect("it is a frame") {
        Frame::Answer(answer) => assert_eq!(answer.verdict, Ok(1)),
        other => panic!("no answer but {other:?}"),
    }
    stream
}

#[test]
fn a_command_that_does_not_come_to_an_end_is_not_waited_for() {
    let cluster = Cluster::new(1);
    let server = cluster.start(1, &["--incomplete-command-ms", "300"]);
    server.leader();
    let mut idle = server.connect();
    let mut slow = server.connect();
    slow.write_all(b"mn\r\nset a 0 0 10\r\nabc")
        .expect("the server reads");
    let mut answer = String::new();
    slow.read_to_string(&mut answer).expect("the server closes");
    assert_eq!(answer, "MN\r\n");
    // Who has not begun a command may take all the time in the world.
    idle.write_all(b"mn\r\n").expect("the server reads");
    assert_eq!(line(&mut BufReader::new(idle)).expect("it answers"), "MN");
}

#[test]
fn a_client_that_never_reads_is_not_read_from_for_ever() {
    let cluster = Cluster::new(1);
    let server = cluster.start(1, &[]);
    server.leader();
    let value = "v".repeat(1 << 20).split_off(1000);
    let set = format!("set a 0 0 {}\r\n{value}\r\n", value.len());
    assert_eq!(server.ask(set.as_bytes()), "STORED\r\n");
    let mut deaf = server.connect();
    deaf.set_write_timeout(Some(Duration::from_millis(500)))
        .expect("it is connected");
    let gets = b"get a\r\n".repeat(1000);
    let stopped = (0..10_000).any(|_| deaf.write_all(&gets).is_err());
    assert!(
        stopped,
        "70 MB of commands were read, and none of the replies"
    );
    assert_eq!(server.ask(b"mn\r\n"), "MN\r\n", "others are served");
}

#[test]
fn no_server_outlives_the_process_that_started_it() {
    let cluster = Cluster::new(1);
    let server = cluster.command(1, &["--die-with-parent"]);
    let words = std::iter::once(server.get_program()).chain(server.get_args());
    let words: Vec<_> = words
        .map(|word| word.to_str().expect("it is text"))
        .collect();
    let script = format!("{} >/dev/null 2>&1 & echo $!; wait", words.join(" "));
    let mut shell = std::process::Command::new("sh")
        .args(["-c", &script])
        .stdout(Stdio::piped())
        .spawn()
        .expect("there is a shell");
    let stdout = shell.stdout.take().expect("it is piped");
    let mut first = String::new();
    BufReader::new(stdout)
        .read_line(&mut first)
        .expect("it says the number");
    let id = Pid::from_raw(first.trim().parse().expect("it is a number")).expect("not 0");
    within_deadline("the log is open", || {
        cluster.data_dir(1).join("meta.0").exists()
    });
    test_kill_process(id).expect("the server runs");
    shell.kill().expect("it runs");
    wait(&mut shell);
    within_deadline("the server has ended", || test_kill_process(id).is_err());
}

#[test]
fn an_interrupt_stops_a_server_as_a_termination_does() {
    let cluster = Cluster::new(1);
    let mut command = cluster.command(1, &[]);
    let child = command.spawn().expect("the server can be run");
    within_deadline("the log is open", || {
        cluster.data_dir(1).join("meta.0").exists()
    });
    let pid = Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::INT).expect("it runs");
    let (code, _) = end(child);
    assert_eq!(code, 0);
}
