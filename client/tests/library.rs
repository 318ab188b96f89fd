//! The library against servers that redirect, refuse, break off and fall silent.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake;

use std::time::Duration;

use command::{Command, Exptime, Read, Stats, Store, StoreMode, Write};
use fake::{Do, Fake, PATIENCE, free_port, in_time};
use quorate_client::status::{self, RESPONSE_BYTES_MAX, StatusError};
use quorate_client::{
    Address, CONNECTIONS_MAX, Client, Doubt, ItemOptions, NotDone, Outcome, Stored, Swapped, key,
};

const SHORT: Duration = Duration::from_millis(300);

fn client(servers: &[&Fake]) -> Client {
    let servers = servers.iter().map(|fake| fake.address.clone()).collect();
    Client::new(servers).with_timeout(PATIENCE)
}

async fn set(client: &Client) -> Outcome<()> {
    in_time(client.set("k", "value", ItemOptions::default())).await
}

fn set_of(name: &str) -> Command {
    Command::Write(Write::Store(Store {
        mode: StoreMode::Set,
        key: key(name).unwrap(),
        flags: 0,
        exptime: Exptime(0),
        value: "v".into(),
    }))
}

#[tokio::test]
async fn a_redirect_is_followed_and_remembered() {
    let leader = Fake::saying("STORED").await;
    let to = leader.address.clone();
    let follower = Fake::start(move |_, _| Do::redirect(&to)).await;
    let client = client(&[&follower]);
    for _ in 0..3 {
        assert!(matches!(set(&client).await, Outcome::Done(())));
    }
    assert_eq!(client.leader(), Some(leader.address.clone()));
    assert_eq!(follower.heard().len(), 1);
    assert_eq!(leader.heard(), vec!["set k 0 0 5"; 3]);
}

#[tokio::test]
async fn connecting_finds_the_leader() {
    let leader = Fake::saying("END").await;
    let to = leader.address.clone();
    let follower = Fake::start(move |_, _| Do::redirect(&to)).await;
    let servers = vec![follower.address.clone()];
    let client = in_time(Client::connect(servers, PATIENCE)).await.unwrap();
    assert_eq!(client.leader(), Some(leader.address.clone()));
}

#[tokio::test]
async fn a_command_is_sent_again_until_a_server_leads() {
    let server = Fake::start(|number, _| match number {
        0..4 => Do::say("SERVER_ERROR no leader"),
        _ => Do::say("STORED"),
    })
    .await;
    assert!(matches!(set(&client(&[&server])).await, Outcome::Done(())));
    assert_eq!(server.heard().len(), 5);
}

#[tokio::test]
async fn a_command_that_no_server_took_until_the_deadline_is_not_done() {
    let server = Fake::saying("SERVER_ERROR no leader").await;
    let hasty = client(&[&server]).with_timeout(SHORT);
    let outcome = set(&hasty).await;
    assert!(
        matches!(outcome, Outcome::NotDone(NotDone::NoLeader)),
        "{outcome:?}"
    );

    let nobody = Address::new("127.0.0.1", free_port().await);
    let hasty = Client::new(vec![nobody.clone()]).with_timeout(SHORT);
    let outcome = set(&hasty).await;
    let unreachable = |outcome| match outcome {
        Outcome::NotDone(NotDone::Unreachable { address, .. }) => address == nobody,
        _ => false,
    };
    assert!(unreachable(outcome));
}

#[tokio::test]
async fn two_servers_that_redirect_to_each_other_do_not_keep_a_client_forever() {
    let port = free_port().await;
    let to = Address::new("127.0.0.1", port);
    let one = Fake::start(move |_, _| Do::redirect(&to)).await;
    let hasty = client(&[&one]).with_timeout(SHORT);
    assert!(matches!(set(&hasty).await, Outcome::NotDone(_)));
    // Each further redirect came after a pause.
    assert!(one.heard().len() < 50, "{} redirects", one.heard().len());
}

#[tokio::test]
async fn a_dead_server_is_passed_over() {
    let server = Fake::saying("STORED").await;
    let dead = Address::new("127.0.0.1", free_port().await);
    for servers in [
        vec![dead.clone(), server.address.clone()],
        vec![server.address.clone(), dead.clone()],
    ] {
        let client = Client::new(servers).with_timeout(PATIENCE);
        assert!(matches!(set(&client).await, Outcome::Done(())));
    }
}

#[tokio::test]
async fn a_write_that_was_sent_before_the_connection_broke_is_unknown_and_not_sent_again() {
    let server = Fake::start(|_, _| Do::Close).await;
    let outcome = set(&client(&[&server])).await;
    assert!(
        matches!(outcome, Outcome::Unknown(Doubt::Broken { .. })),
        "{outcome:?}"
    );
    assert_eq!(server.heard().len(), 1);
}

#[tokio::test]
async fn a_read_is_sent_again_when_the_connection_broke() {
    let server = Fake::start(|number, _| match number {
        0 => Do::Close,
        _ => Do::say("VALUE k 7 1 42\r\nv\r\nEND"),
    })
    .await;
    let hit = in_time(client(&[&server]).get("k")).await.done();
    let hit = hit.unwrap().unwrap();
    assert_eq!((hit.value(), hit.flags, hit.unique), (&b"v"[..], 7, 42));
    assert_eq!(server.heard(), ["gets k", "gets k"]);
}

#[tokio::test]
async fn a_write_whose_outcome_the_server_does_not_know_is_not_sent_again() {
    let server = Fake::saying("SERVER_ERROR outcome unknown").await;
    let outcome = set(&client(&[&server])).await;
    assert!(
        matches!(outcome, Outcome::Unknown(Doubt::Server)),
        "{outcome:?}"
    );
    assert_eq!(server.heard().len(), 1);
}

#[tokio::test]
async fn a_write_that_is_not_answered_is_unknown_at_the_deadline() {
    let server = Fake::start(|_, _| Do::Stall).await;
    let outcome = set(&client(&[&server]).with_timeout(SHORT)).await;
    assert!(
        matches!(outcome, Outcome::Unknown(Doubt::Unanswered { .. })),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_read_that_is_not_answered_is_not_done_at_the_deadline() {
    let server = Fake::start(|_, _| Do::Stall).await;
    let outcome = in_time(client(&[&server]).with_timeout(SHORT).get("k")).await;
    assert!(
        matches!(outcome, Outcome::NotDone(NotDone::Unanswered { .. })),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn what_is_no_reply_leaves_the_outcome_unknown() {
    for nonsense in ["HELLO", "NOT_STORED", "VALUE k 0 1\r\nv\r\nEND"] {
        let server = Fake::start(move |_, _| Do::say(nonsense)).await;
        let outcome = set(&client(&[&server])).await;
        let malformed = matches!(outcome, Outcome::Unknown(Doubt::Malformed { .. }));
        assert!(malformed, "{nonsense:?}: {outcome:?}");
    }
}

#[tokio::test]
async fn an_error_line_is_a_refusal_for_good() {
    let server = Fake::saying("SERVER_ERROR object too large for cache").await;
    let outcome = set(&client(&[&server])).await;
    let Outcome::NotDone(NotDone::Refused { line }) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(line, "SERVER_ERROR object too large for cache");
    assert_eq!(server.heard().len(), 1);
}

#[tokio::test]
async fn a_pipeline_goes_on_at_the_leader_where_it_was_redirected() {
    let leader = Fake::saying("STORED").await;
    let to = leader.address.clone();
    let deposed = Fake::start(move |number, _| match number {
        0 | 1 => Do::say("STORED"),
        _ => Do::redirect(&to),
    })
    .await;
    let commands: Vec<Command> = ["a", "b", "c", "d"].map(set_of).into();
    let outcomes = in_time(client(&[&deposed]).pipeline(&commands)).await;
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(outcome, Outcome::Done(_)))
    );
    assert_eq!(deposed.heard().len(), 4);
    assert_eq!(leader.heard(), ["set c 0 0 1", "set d 0 0 1"]);
}

#[tokio::test]
async fn what_follows_an_unknown_outcome_is_not_sent_again() {
    let server = Fake::start(|number, _| match number {
        0 => Do::say("STORED"),
        1 => Do::say("SERVER_ERROR outcome unknown"),
        _ => Do::say("SERVER_ERROR no leader"),
    })
    .await;
    let commands: Vec<Command> = ["a", "b", "c"].map(set_of).into();
    let outcomes = in_time(client(&[&server]).pipeline(&commands)).await;
    assert!(matches!(outcomes[0], Outcome::Done(_)));
    assert!(matches!(outcomes[1], Outcome::Unknown(Doubt::Server)));
    assert!(matches!(
        outcomes[2],
        Outcome::NotDone(NotDone::AfterUnknown)
    ));
    assert_eq!(server.heard().len(), 3);
}

#[tokio::test]
async fn only_what_was_sent_and_not_answered_is_unknown_when_a_pipeline_breaks() {
    let server = Fake::start(|number, _| match number {
        0 => Do::say("STORED"),
        1 => Do::SayAndClose("STORED\r\n".to_owned()),
        number => panic!("request {number}"),
    })
    .await;
    let get = Command::Read(Read::Get {
        keys: [key("k").unwrap()].into_iter().collect(),
    });
    let commands = [set_of("a"), set_of("b"), get.clone(), set_of("c"), get];
    let outcomes = in_time(client(&[&server]).pipeline(&commands)).await;
    assert!(matches!(outcomes[0], Outcome::Done(_)));
    assert!(matches!(outcomes[1], Outcome::Done(_)));
    // A read could be sent again, but it must not see the write behind it, and the other one must.
    let unanswered = &outcomes[2];
    assert!(matches!(
        unanswered,
        Outcome::NotDone(NotDone::Unanswered { .. })
    ));
    assert!(matches!(
        outcomes[3],
        Outcome::Unknown(Doubt::Broken { .. })
    ));
    assert!(matches!(
        outcomes[4],
        Outcome::NotDone(NotDone::AfterUnknown)
    ));
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_not_used() {
    let server = Fake::start(|_, _| Do::SayAndClose("STORED\r\n".to_owned())).await;
    let client = client(&[&server]);
    for _ in 0..20 {
        let outcome = set(&client).await;
        assert!(matches!(outcome, Outcome::Done(())), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_pipeline_larger_than_all_buffers_does_not_stall() {
    let value = "v".repeat(64 << 10);
    let reply = format!("VALUE k 0 {} 1\r\n{value}\r\nEND\r\n", value.len());
    let server = Fake::start(move |_, line| match line.starts_with("set") {
        true => Do::say("STORED"),
        false => Do::Say(reply.clone()),
    })
    .await;
    let get = Command::Read(Read::Get {
        keys: [key("k").unwrap()].into_iter().collect(),
    });
    let Command::Write(Write::Store(mut store)) = set_of("k") else {
        unreachable!("it is a set");
    };
    store.value = value.into();
    let pair = [Command::Write(Write::Store(store)), get];
    let commands: Vec<Command> = pair.iter().cycle().take(400).cloned().collect();
    let outcomes = in_time(client(&[&server]).pipeline(&commands)).await;
    assert_eq!(outcomes.len(), 400);
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(outcome, Outcome::Done(_)))
    );
}

#[tokio::test]
async fn a_key_that_can_not_be_sent_is_not_done_and_harms_no_other() {
    let server = Fake::saying("STORED").await;
    let client = client(&[&server]);
    let outcome = in_time(client.set("a b", "v", ItemOptions::default())).await;
    assert!(matches!(outcome, Outcome::NotDone(NotDone::Key(_))));
    let spaced = command::Key::new("c\r\nflush_all".into()).unwrap();
    let delete = Command::Write(Write::Delete { key: spaced });
    let outcomes = in_time(client.pipeline(&[set_of("a"), delete, set_of("b")])).await;
    assert!(matches!(outcomes[1], Outcome::NotDone(NotDone::Key(_))));
    assert!(matches!(outcomes[2], Outcome::Done(_)));
    assert_eq!(server.heard(), ["set a 0 0 1", "set b 0 0 1"]);
}

#[tokio::test]
async fn many_callers_share_a_client_and_its_connections() {
    let server = Fake::saying("STORED").await;
    let client = client(&[&server]);
    let tasks: Vec<_> = (0..200)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.set("k", "v", ItemOptions::default()).await })
        })
        .collect();
    for task in tasks {
        assert!(matches!(in_time(task).await.unwrap(), Outcome::Done(())));
    }
    assert_eq!(server.heard().len(), 200);
    let connections = server.connections_max();
    assert!(
        (2..=CONNECTIONS_MAX).contains(&connections),
        "{connections}"
    );
}

#[tokio::test]
async fn every_method_sends_its_command_and_understands_its_replies() {
    let server = Fake::start(|_, line| {
        Do::say(match line {
            "add k 1 2 1" | "replace k 0 0 1" | "prepend k 0 0 1" => "NOT_STORED",
            "append k 0 0 1" => "STORED",
            "cas k 0 0 1 9" => "EXISTS",
            "cas k 0 0 1 8" => "NOT_FOUND",
            "delete k" => "DELETED",
            "incr k 5" => "12",
            "incr text 5" => "CLIENT_ERROR cannot increment or decrement non-numeric value",
            "decr k 5" => "NOT_FOUND",
            "touch k -1" => "TOUCHED",
            "gats 10 a b" => "VALUE b 0 2 3\r\n\r\n\r\nEND",
            "flush_all 3" => "OK",
            "version" => "VERSION 1.6.45-quorate",
            "stats" => "STAT pid 1\r\nSTAT two words\r\nEND",
            "stats reset" => "RESET",
            other => panic!("{other:?}"),
        })
    })
    .await;
    let client = client(&[&server]);
    let plain = ItemOptions::default();
    let options = ItemOptions {
        flags: 1,
        exptime: Exptime(2),
    };
    in_time(async {
        assert_eq!(
            client.add("k", "v", options).await.done(),
            Some(Stored::NotStored)
        );
        assert_eq!(
            client.replace("k", "v", plain).await.done(),
            Some(Stored::NotStored)
        );
        assert_eq!(client.append("k", "v").await.done(), Some(Stored::Stored));
        assert_eq!(
            client.prepend("k", "v").await.done(),
            Some(Stored::NotStored)
        );
        assert_eq!(
            client.cas("k", "v", plain, 9).await.done(),
            Some(Swapped::Exists)
        );
        assert_eq!(
            client.cas("k", "v", plain, 8).await.done(),
            Some(Swapped::NotFound)
        );
        assert_eq!(client.delete("k").await.done(), Some(true));
        assert_eq!(client.incr("k", 5).await.done(), Some(Some(12)));
        let refused = client.incr("text", 5).await;
        assert!(matches!(refused, Outcome::NotDone(NotDone::Refused { .. })));
        assert_eq!(client.decr("k", 5).await.done(), Some(None));
        assert_eq!(client.touch("k", Exptime(-1)).await.done(), Some(true));
        let keys = vec![key("a").unwrap(), key("b").unwrap()];
        let hits = client
            .get_and_touch(Exptime(10), keys)
            .await
            .done()
            .unwrap();
        assert_eq!(
            (hits.len(), hits[0].value(), hits[0].unique),
            (1, &b"\r\n"[..], 3)
        );
        assert!(client.flush_all(Exptime(3)).await.done().is_some());
        assert_eq!(client.version().await.done().unwrap(), "1.6.45-quorate");
        let stats = client.stats(Stats::General).await.done().unwrap();
        assert_eq!(stats[1], ("two".to_owned(), "words".to_owned()));
        assert_eq!(client.stats(Stats::Reset).await.done().unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn a_status_is_read_from_the_http_port() {
    let http = fake::fake_http(concat!(
        r#"{"role":"Leader","term":3,"id":2,"leader":2,"quorum":true,"commit_index":9,"#,
        r#""last_applied":8,"last_log_index":10,"more":[1]}"#,
    ))
    .await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let status = in_time(status::fetch(&http, deadline)).await.unwrap();
    assert!(status.leads());
    assert_eq!((status.id, status.term, status.leader), (2, 3, Some(2)));
    let other = fake::fake_http("[]").await;
    let error = in_time(status::fetch(&other, deadline)).await.unwrap_err();
    assert!(matches!(error, StatusError::Body(_)), "{error}");
    let long = fake::fake_http(" ".repeat(RESPONSE_BYTES_MAX)).await;
    let error = in_time(status::fetch(&long, deadline)).await.unwrap_err();
    assert!(matches!(error, StatusError::TooLong), "{error}");
}
