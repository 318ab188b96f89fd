//! Lists of all keys, as one connection sees them.

use bytes::Buf;
use command::{Command, Outcome, Read, Refusal, Reply, Stats};
use quorate_protocol::{CACHEDUMP_BYTES_MAX, Dump, DumpItem, Limits, Session};

fn confirmed() -> Outcome {
    Outcome::Done(Reply::Confirmed { last_applied: 7 })
}

/// Receives these bytes, and gives the commands that are to be carried out.
fn receive(session: &mut Session, bytes: &[u8]) -> Vec<Command> {
    session.receive_buffer().extend_from_slice(bytes);
    std::iter::from_fn(|| session.next_run())
        .flat_map(|run| run.commands)
        .collect()
}

fn outcome(session: &mut Session, outcome: Outcome) {
    session.outcomes([outcome], |_| Vec::new());
}

/// The client reads all that is there.
fn written(session: &mut Session) -> String {
    let mut text = Vec::new();
    while session.output().has_remaining() {
        let chunk = session.output().chunk().to_vec();
        session.written(chunk.len(), 0);
        text.extend_from_slice(&chunk);
    }
    String::from_utf8(text).expect("tests list text")
}

fn item(key: &[u8]) -> DumpItem<'_> {
    DumpItem {
        key,
        value_bytes: 3,
        flags: 5,
        unique: 65_536,
        over_at: None,
        last_access: 1_700_000_000,
        fetched: false,
        bytes: 60,
    }
}

/// Ends the list with these keys.
fn list(session: &mut Session, keys: &[&str]) {
    session.begin_dump();
    for key in keys {
        session.dump_item(&item(key.as_bytes()));
    }
    session.end_dump();
}

#[test]
fn a_list_begins_when_the_server_has_confirmed_that_it_leads() {
    let mut it = Session::new(Limits::default());
    let commands = receive(&mut it, b"lru_crawler metadump all\r\n");
    assert_eq!(commands, [Command::Read(Read::Confirm)]);
    assert_eq!(it.dump(), None);
    outcome(&mut it, confirmed());
    assert_eq!(it.dump(), Some((Dump::Metadump, 7)));
    list(&mut it, &["a", "b"]);
    assert_eq!(
        written(&mut it),
        "OK\r\nkey=a exp=-1 la=1700000000 cas=65536 fetch=no cls=1 size=60 flags=5\n\
         key=b exp=-1 la=1700000000 cas=65536 fetch=no cls=1 size=60 flags=5\nEND\r\n"
    );
    assert_eq!(it.dump(), None);
    receive(&mut it, b"lru_crawler mgdump 1\r\n");
    outcome(&mut it, confirmed());
    list(&mut it, &["a", "b"]);
    assert_eq!(written(&mut it), "OK\r\nmg a\r\nmg b\r\nEN\r\n");
}

#[test]
fn a_server_that_does_not_lead_refuses_a_list_and_what_was_sent_behind_it() {
    let mut it = Session::new(Limits::default());
    receive(&mut it, b"lru_crawler metadump all\r\nget k\r\n");
    outcome(&mut it, Outcome::NotDone(Refusal::NoLeader));
    assert_eq!(it.dump(), None);
    assert_eq!(it.next_run().map(|run| run.epoch), Some(0));
    outcome(&mut it, Outcome::NotDone(Refusal::NoLeader));
    assert_eq!(
        written(&mut it),
        "SERVER_ERROR no leader\r\nSERVER_ERROR no leader\r\n"
    );
}

#[test]
fn what_comes_behind_a_list_waits_for_its_end() {
    let mut it = Session::new(Limits::default());
    let commands = receive(&mut it, b"lru_crawler metadump all\r\nmn\r\nstats\r\n");
    assert_eq!(commands, [Command::Read(Read::Confirm)]);
    outcome(&mut it, confirmed());
    it.begin_dump();
    assert!(it.next_run().is_none() && !it.wants_input());
    assert_eq!(written(&mut it), "OK\r\n");
    assert!(it.next_run().is_none() && !it.is_settled());
    it.end_dump();
    let commands = it.next_run().map(|run| run.commands);
    assert_eq!(commands, Some(vec![Command::Stats(Stats::General)]));
    outcome(&mut it, Outcome::Done(Reply::Stats(Vec::new())));
    assert_eq!(written(&mut it), "END\r\nMN\r\nEND\r\n");
}

#[test]
fn a_list_for_which_something_else_is_owed_is_refused() {
    for (line, refused) in [
        ("metadump all", "metadump"),
        ("metadump 1", "metadump"),
        ("mgdump all", "mgdump"),
    ] {
        let mut it = Session::new(Limits::default());
        let bytes = format!("get k\r\nlru_crawler {line}\r\nmn\r\n");
        assert_eq!(receive(&mut it, bytes.as_bytes()).len(), 1);
        outcome(&mut it, Outcome::Done(Reply::Hits(Vec::new())));
        assert_eq!(
            written(&mut it),
            format!("END\r\nERROR cannot pipeline other commands before {refused}\r\nMN\r\n")
        );
        // What is not read yet is owed as well.
        receive(&mut it, b"mn\r\n");
        assert!(receive(&mut it, b"lru_crawler metadump all\r\n").is_empty());
    }
}

#[test]
fn a_second_list_is_told_that_the_server_is_busy() {
    let mut it = Session::new(Limits::default());
    receive(&mut it, b"lru_crawler metadump all\r\nmn\r\n");
    outcome(&mut it, confirmed());
    it.refuse_dump();
    assert!(it.next_run().is_none());
    assert_eq!(
        written(&mut it),
        "BUSY currently processing crawler request\r\nMN\r\n"
    );
}

#[test]
fn a_client_that_does_not_read_is_given_no_more_than_a_quarter_of_a_mebibyte() {
    let limits = Limits::default();
    let mut it = Session::new(limits);
    receive(&mut it, b"lru_crawler mgdump all\r\n");
    outcome(&mut it, confirmed());
    it.begin_dump();
    let mut items = 0_usize;
    while it.dump().is_some() {
        it.dump_item(&item(&[b'k'; 250]));
        items += 1;
    }
    let ahead = it.output().remaining();
    assert!((256 << 10..(256 << 10) + 300).contains(&ahead), "{ahead}");
    it.written(1000, 0);
    assert_eq!(it.dump(), Some((Dump::Mgdump, 7)));
    it.end_dump();
    let lines = written(&mut it).matches("mg k").count();
    assert!(items - lines <= 4, "{lines} lines are left of {items}");
}

#[test]
fn a_cachedump_may_stand_anywhere_and_has_a_number_of_lines_or_two_mebibytes() {
    let mut it = Session::new(Limits::default());
    let commands = receive(&mut it, b"get k\r\nstats cachedump 1 2\r\nmn\r\n");
    assert_eq!(commands.len(), 2);
    outcome(&mut it, Outcome::Done(Reply::Hits(Vec::new())));
    outcome(&mut it, confirmed());
    let dump = Dump::Cachedump { items_max: 2 };
    assert_eq!(it.dump(), Some((dump, 7)));
    it.begin_dump();
    // What no line can hold takes no place.
    let taken: Vec<bool> = [&b"a"[..], b"b c", b"d", b"e"]
        .iter()
        .map(|key| it.dump_item(&item(key)))
        .collect();
    assert_eq!(taken, [true, true, false, false]);
    it.end_dump();
    assert!(it.next_run().is_none());
    assert_eq!(
        written(&mut it),
        "END\r\nITEM a [3 b; 0 s]\r\nITEM d [3 b; 0 s]\r\nEND\r\nMN\r\n"
    );

    receive(&mut it, b"stats cachedump 1 0\r\n");
    outcome(&mut it, confirmed());
    it.begin_dump();
    let mut bytes = 0;
    while it.dump_item(&item(&[b'k'; 250])) {
        bytes += written(&mut it).len() as u64;
    }
    it.end_dump();
    bytes += written(&mut it).len() as u64;
    assert!((CACHEDUMP_BYTES_MAX..CACHEDUMP_BYTES_MAX + 300).contains(&bytes));
}
