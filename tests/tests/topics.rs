//! Topics, by text and by REST, on real servers that are killed, stopped and cut off meanwhile.

use std::thread;
use std::time::{Duration, Instant};

use quorate_tests::{
    Cluster, Plan, Programs, Response, Text, assert_took_less, deadline, wait_until,
};

const PROGRAMS: Programs = Programs::at(env!("CARGO_BIN_EXE_quorate-tests"));

const SUCCESS: &str = r#"{"success":true}"#;
const FAILURE: &str = r#"{"success":false}"#;

/// What is promised is a second; the rest is for a machine with two cores and five servers.
const ANSWER_TIME_MAX: Duration = Duration::from_millis(1_500);

/// Status and body.
fn http(cluster: &Cluster, id: u64, method: &str, path: &str, body: &str) -> (u16, String) {
    let started = Instant::now();
    let response = Response::send(cluster.http_address(id), method, path, body);
    let response = response.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
    assert_took_less(started, ANSWER_TIME_MAX);
    (response.status, response.body)
}

fn answer(status: u16, body: &str) -> (u16, String) {
    (status, body.to_owned())
}

fn create(cluster: &Cluster, id: u64, topic: &str) -> (u16, String) {
    let body = serde_json::json!({ "topic": topic }).to_string();
    http(cluster, id, "PUT", "/topic", &body)
}

fn push(cluster: &Cluster, id: u64, topic: &str, message: &str) -> (u16, String) {
    let body = serde_json::json!({ "topic": topic, "message": message }).to_string();
    http(cluster, id, "PUT", "/message", &body)
}

fn pop(cluster: &Cluster, id: u64, topic: &str) -> (u16, String) {
    http(cluster, id, "GET", &format!("/message/{topic}"), "")
}

fn taken(message: &str) -> (u16, String) {
    let message = serde_json::json!(message);
    answer(200, &format!(r#"{{"success":true,"message":{message}}}"#))
}

fn listed(topics: &[&str]) -> (u16, String) {
    let topics = serde_json::json!(topics);
    answer(200, &format!(r#"{{"success":true,"topics":{topics}}}"#))
}

#[test]
fn every_topic_command_answers_as_promised() {
    let cluster = Plan::new(PROGRAMS, 3).start();
    let leader = cluster.agreed_leader();
    let mut text = cluster.connect(leader);
    text.exchange_all(&[
        ("topics\r\n", "END\r\n"),
        ("pop jobs\r\n", "NOT_FOUND\r\n"),
        ("push jobs 4\r\nquit\r\n", "NOT_FOUND\r\n"),
        (
            "topic jobs max_deliveries=2 max_length=4\r\n",
            "CREATED\r\n",
        ),
        ("topic jobs\r\n", "EXISTS\r\n"),
        ("topic my%20jobs\r\n", "CREATED\r\n"),
        ("push jobs 3\r\none\r\n", "PUSHED 1\r\n"),
        ("push jobs 3 priority=5\r\ntwo\r\n", "PUSHED 2\r\n"),
        ("push jobs 5 delay=600\r\nthree\r\n", "PUSHED 3\r\n"),
        ("push jobs 4\r\n\r\n\r\n\r\n", "PUSHED 4\r\n"),
        ("push jobs 3\r\nmn\r\r\n", "SERVER_ERROR topic full\r\n"),
        (
            "topics\r\n",
            "TOPIC jobs 3 0 1 0\r\nTOPIC my%20jobs 0 0 0 0\r\nEND\r\n",
        ),
        ("peek jobs\r\n", "MESSAGE jobs 1 3\r\none\r\n"),
        ("reserve jobs 60\r\n", "MESSAGE jobs 1 3 1\r\none\r\n"),
        ("pop jobs\r\n", "MESSAGE jobs 4 4\r\n\r\n\r\n\r\n"),
        ("extend jobs 1 60\r\n", "EXTENDED\r\n"),
        ("nack jobs 1\r\n", "RELEASED\r\n"),
        ("nack jobs 1\r\n", "NOT_FOUND\r\n"),
        (
            "reserve jobs 60 wait=5\r\n",
            "MESSAGE jobs 1 3 2\r\none\r\n",
        ),
        ("nack jobs 1 delay=5\r\n", "BURIED\r\n"),
        ("kick jobs 10\r\n", "KICKED 1\r\n"),
        ("reserve jobs 60\r\n", "MESSAGE jobs 1 3 1\r\none\r\n"),
        ("ack jobs 1\r\n", "ACKED\r\n"),
        ("ack jobs 1\r\n", "NOT_FOUND\r\n"),
        ("pop jobs\r\n", "MESSAGE jobs 2 3\r\ntwo\r\n"),
        ("pop jobs\r\n", "EMPTY\r\n"),
        ("purge jobs\r\n", "PURGED 1\r\n"),
        ("flush_all\r\n", "OK\r\n"),
        ("push my%20jobs 1\r\nx\r\n", "PUSHED 1\r\n"),
        ("pop my%20jobs\r\n", "MESSAGE my%20jobs 1 1\r\nx\r\n"),
        ("drop jobs\r\n", "DROPPED\r\n"),
        ("drop jobs\r\n", "NOT_FOUND\r\n"),
        ("topics\r\n", "TOPIC my%20jobs 0 0 0 0\r\nEND\r\n"),
        (
            "pop jobs wait=x\r\n",
            "CLIENT_ERROR invalid numeric argument\r\n",
        ),
    ]);
    let redirect = cluster.redirect_to(leader);
    let mut text = cluster.connect(cluster.others(leader)[0]);
    for line in [
        "topics",
        "topic t",
        "push t 4\r\nquit",
        "pop t wait=60",
        "peek t",
    ] {
        assert_eq!(
            text.ask(format!("{line}\r\n")),
            redirect.trim_end(),
            "{line}"
        );
    }
}

#[test]
fn a_consumer_waits_for_its_message_and_one_that_is_gone_takes_none() {
    let cluster = Plan::new(PROGRAMS, 3)
        .setting("followers", "forward")
        .start();
    let leader = cluster.agreed_leader();
    connect(&cluster, leader).exchange("topic t\r\n", "CREATED\r\n");
    for id in cluster.ids() {
        let mut text = connect(&cluster, id);
        let mut gone = connect(&cluster, id);
        gone.send("pop t wait=60\r\npop t wait=60\r\n");
        let mut half_gone = connect(&cluster, id);
        half_gone.send("pop t wait=60\r\npop t wait=60\r\n");
        let mut stays = connect(&cluster, id);
        stays.send("reserve t 60 wait=60\r\n");
        drop(gone);
        half_gone.finish();
        half_gone.expect("EMPTY\r\nEMPTY\r\n");
        half_gone.expect_closed();
        wait_until("the server to notice", deadline(), || {
            match &cluster.status(id)?["client_connections"] {
                connections if *connections == 2 => Ok(()),
                connections => Err(format!("{connections} connections")),
            }
        });
        let pushed = text.ask("push t 1\r\nx\r\n");
        let message = pushed.strip_prefix("PUSHED ").expect("it is taken");
        stays.expect(format!("MESSAGE t {message} 1 1\r\nx\r\n"));
        stays.exchange(format!("ack t {message}\r\n"), "ACKED\r\n");
    }
}

fn connect(cluster: &Cluster, id: u64) -> Text {
    wait_until("a leader", deadline(), || {
        let mut text =
            Text::try_connect(cluster.client_address(id)).map_err(|it| it.to_string())?;
        match text.try_ask("get none\r\n") {
            Ok(line) if line == "END" => Ok(text),
            Ok(line) => Err(line),
            Err(error) => Err(error.to_string()),
        }
    })
}

#[test]
fn rest_answers_to_the_letter_on_leader_and_follower() {
    let cluster = Plan::new(PROGRAMS, 3).start();
    let leader = cluster.agreed_leader();
    let follower = cluster.others(leader)[0];
    let put = |path: &str, body: &str| http(&cluster, leader, "PUT", path, body);

    assert_eq!(http(&cluster, leader, "GET", "/topic", ""), listed(&[]));
    for topic in ["jobs", "my jobs", "größe/100 %", "jobs?"] {
        assert_eq!(create(&cluster, leader, topic), answer(200, SUCCESS));
        assert_eq!(create(&cluster, leader, topic), answer(400, FAILURE));
    }
    let bad = [
        "",
        "{",
        "[]",
        "7",
        r#""jobs""#,
        "{}",
        r#"{"topic":null}"#,
        r#"{"topic":7}"#,
        r#"{"topic":""}"#,
        r#"{"topic":["a"]}"#,
        r#"{"name":"a"}"#,
        "{\"topic\":\"\\ud800\"}",
    ];
    for body in bad {
        assert_eq!(put("/topic", body), answer(400, FAILURE), "{body}");
        assert_eq!(put("/message", body), answer(400, FAILURE), "{body}");
    }
    let long = "a".repeat(251);
    assert_eq!(create(&cluster, leader, &long), answer(400, FAILURE));
    for body in [r#"{"topic":"jobs"}"#, r#"{"topic":"jobs","message":7}"#] {
        assert_eq!(put("/message", body), answer(400, FAILURE), "{body}");
    }

    for (topic, path) in [
        ("jobs", "jobs"),
        ("my jobs", "my%20jobs"),
        ("größe/100 %", "gr%C3%B6%C3%9Fe%2F100%20%25"),
        ("jobs?", "jobs%3F"),
    ] {
        for message in ["one", "", "zwei\r\n\u{0}\u{1f980}"] {
            assert_eq!(push(&cluster, leader, topic, message), answer(200, SUCCESS));
        }
        assert_eq!(pop(&cluster, leader, path), taken("one"));
        assert_eq!(pop(&cluster, leader, path), taken(""));
        let posted = http(
            &cluster,
            leader,
            "POST",
            &format!("/message/{path}/pop"),
            "",
        );
        assert_eq!(posted, taken("zwei\r\n\u{0}\u{1f980}"));
        assert_eq!(pop(&cluster, leader, path), answer(200, FAILURE));
    }
    assert_eq!(push(&cluster, leader, "none", "x"), answer(404, FAILURE));
    assert_eq!(push(&cluster, leader, &long, "x"), answer(404, FAILURE));
    assert_eq!(pop(&cluster, leader, "none"), answer(200, FAILURE));
    assert_eq!(pop(&cluster, leader, &long), answer(200, FAILURE));
    assert_eq!(pop(&cluster, leader, "%FF"), answer(200, FAILURE));
    assert_eq!(pop(&cluster, leader, "%zz"), answer(200, FAILURE));
    // Names of any bytes can be made by text.
    let mut text = cluster.connect(leader);
    text.exchange(
        "topic %FF/\r\npush %FF/ 1\r\nx\r\n",
        "CREATED\r\nPUSHED 1\r\n",
    );
    assert_eq!(pop(&cluster, leader, "%FF%2F"), taken("x"));
    text.exchange("drop %FF/\r\n", "DROPPED\r\n");
    let largest = "x".repeat((1 << 20) - 300);
    assert_eq!(
        push(&cluster, leader, "jobs", &largest),
        answer(200, SUCCESS)
    );
    assert_eq!(pop(&cluster, leader, "jobs"), taken(&largest));
    let too_large = "x".repeat(1 << 20);
    assert_eq!(
        push(&cluster, leader, "jobs", &too_large),
        answer(413, FAILURE)
    );

    // A HEAD, or another method, takes nothing.
    push(&cluster, leader, "jobs", "stays");
    assert_eq!(http(&cluster, leader, "HEAD", "/message/jobs", "").0, 405);
    assert_eq!(http(&cluster, leader, "DELETE", "/message/jobs", "").0, 405);
    assert_eq!(http(&cluster, leader, "GET", "/message/", "").0, 404);
    let response = Response::get(cluster.http_address(leader), "/message/jobs").expect("it is up");
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert_eq!((response.status, response.body), taken("stays"));

    cluster.wait_until_applied();
    for id in cluster.ids() {
        let topics = listed(&["jobs", "my jobs", "größe/100 %", "jobs?"]);
        assert_eq!(http(&cluster, id, "GET", "/topic", ""), topics);
    }
    assert_eq!(create(&cluster, follower, "other"), answer(400, FAILURE));
    assert_eq!(push(&cluster, follower, "jobs", "x"), answer(400, FAILURE));
    assert_eq!(push(&cluster, follower, &long, "x"), answer(400, FAILURE));
    assert_eq!(pop(&cluster, follower, &long), answer(400, FAILURE));
    assert_eq!(pop(&cluster, follower, "jobs"), answer(400, FAILURE));
    let posted = http(&cluster, follower, "POST", "/message/jobs/pop", "");
    assert_eq!(posted, answer(400, FAILURE));
}

#[test]
fn a_full_topic_is_a_bad_request() {
    let cluster = Plan::new(PROGRAMS, 1).start();
    let leader = cluster.agreed_leader();
    let mut text = cluster.connect(leader);
    text.exchange("topic t max_length=1\r\n", "CREATED\r\n");
    assert_eq!(push(&cluster, leader, "t", "a"), answer(200, SUCCESS));
    assert_eq!(push(&cluster, leader, "t", "b"), answer(400, FAILURE));
    assert_eq!(pop(&cluster, leader, "t"), taken("a"));
}

#[test]
fn in_forward_mode_rest_works_at_every_server() {
    let cluster = Plan::new(PROGRAMS, 3)
        .setting("followers", "forward")
        .start();
    let leader = cluster.agreed_leader();
    let mut topics = Vec::new();
    for id in cluster.ids() {
        connect(&cluster, id);
        let topic = format!("topic {id}");
        assert_eq!(create(&cluster, id, &topic), answer(200, SUCCESS));
        assert_eq!(push(&cluster, id, &topic, "x"), answer(200, SUCCESS));
        topics.push(topic);
    }
    for id in cluster.others(leader) {
        let path = format!("topic%20{id}");
        assert_eq!(pop(&cluster, leader, &path), taken("x"));
        assert_eq!(pop(&cluster, id, &path), answer(200, FAILURE));
    }
}

#[test]
fn without_a_majority_nothing_is_promised_and_with_it_everything_goes_on() {
    let mut cluster = Plan::new(PROGRAMS, 5).start();
    let leader = cluster.agreed_leader();
    create(&cluster, leader, "t");
    assert_eq!(push(&cluster, leader, "t", "before"), answer(200, SUCCESS));
    cluster.wait_until_applied();
    let others = cluster.others(leader);
    cluster.kill_together(&others[..3]);
    let left = others[3];
    for _ in 0..3 {
        assert_eq!(create(&cluster, leader, "u"), answer(408, FAILURE));
        assert_eq!(push(&cluster, leader, "t", "lost"), answer(408, FAILURE));
        assert_eq!(create(&cluster, left, "u"), answer(400, FAILURE));
        for id in [leader, left] {
            assert_eq!(http(&cluster, id, "GET", "/topic", ""), listed(&["t"]));
            assert_eq!(http(&cluster, id, "GET", "/status", "").0, 200);
        }
    }
    cluster.start_all();
    let leader = cluster.agreed_leader();
    assert_eq!(push(&cluster, leader, "t", "after"), answer(200, SUCCESS));
    assert_eq!(pop(&cluster, leader, "t"), taken("before"));
    // What was of unknown outcome may be there.
    let (_, mut next) = pop(&cluster, leader, "t");
    while next.contains("lost") {
        (_, next) = pop(&cluster, leader, "t");
    }
    assert!(next.contains("after"), "{next}");
}

#[test]
fn of_those_that_create_a_topic_at_the_same_time_one_succeeds() {
    let cluster = Plan::new(PROGRAMS, 5)
        .setting("followers", "forward")
        .start();
    for id in cluster.ids() {
        connect(&cluster, id);
    }
    for round in 0..10 {
        let topic = format!("topic {round}");
        let results: Vec<(u16, String)> = thread::scope(|scope| {
            let ids = cluster.ids().into_iter().cycle().take(10);
            let (cluster, topic) = (&cluster, &topic);
            let creators: Vec<_> = ids
                .map(|id| scope.spawn(move || create(cluster, id, topic)))
                .collect();
            let results = creators.into_iter().map(thread::ScopedJoinHandle::join);
            results.map(|result| result.expect("it answers")).collect()
        });
        let created = results.iter().filter(|it| **it == answer(200, SUCCESS));
        let exists = results.iter().filter(|it| **it == answer(400, FAILURE));
        assert_eq!((created.count(), exists.count()), (1, 9), "{results:?}");
    }
}

#[test]
fn messages_are_taken_under_other_leaders_than_they_were_pushed_under() {
    let mut cluster = Plan::new(PROGRAMS, 5).start();
    let mut leader = cluster.agreed_leader();
    create(&cluster, leader, "t");
    let mut down = Vec::new();
    for round in 0..3 {
        for number in 0..3 {
            let message = format!("{round}.{number}");
            assert_eq!(push(&cluster, leader, "t", &message), answer(200, SUCCESS));
        }
        cluster.kill(leader);
        let old = leader;
        leader = cluster.agreed_leader();
        // Two of what is there, so that one more is left each time.
        for taken_before in 0..2 {
            let expected = round * 2 + taken_before;
            let message = format!("{}.{}", expected / 3, expected % 3);
            assert_eq!(pop(&cluster, leader, "t"), taken(&message));
        }
        cluster.start(old);
        down.push(old);
        cluster.agreed_leader();
    }
    cluster.wait_until_applied();
    let leader = cluster.agreed_leader();
    for message in ["2.0", "2.1", "2.2"] {
        assert_eq!(pop(&cluster, leader, "t"), taken(message));
    }
    assert_eq!(pop(&cluster, leader, "t"), answer(200, FAILURE));
}

#[test]
fn a_follower_that_was_down_catches_up_with_the_topics() {
    let mut cluster = Plan::new(PROGRAMS, 3).start();
    let leader = cluster.agreed_leader();
    let follower = cluster.others(leader)[0];
    create(&cluster, leader, "before");
    cluster.kill(follower);
    create(&cluster, leader, "meanwhile");
    push(&cluster, leader, "meanwhile", "kept");
    cluster.start(follower);
    wait_until("the topics", deadline(), || {
        let response = Response::get(cluster.http_address(follower), "/topic");
        let response = response.map_err(|error| error.to_string())?;
        match response.body == listed(&["before", "meanwhile"]).1 {
            true => Ok(()),
            false => Err(response.body),
        }
    });
}

#[test]
fn messages_of_consumers_that_die_come_back() {
    let mut cluster = Plan::new(PROGRAMS, 3).start();
    let leader = cluster.agreed_leader();
    let mut text = cluster.connect(leader);
    text.exchange("topic t\r\n", "CREATED\r\n");
    for number in 1..=10 {
        text.exchange("push t 1\r\nx\r\n", format!("PUSHED {number}\r\n"));
        let mut consumer = cluster.connect(leader);
        consumer.exchange(
            "reserve t 1\r\n",
            format!("MESSAGE t {number} 1 1\r\nx\r\n"),
        );
    }
    cluster.kill(leader);
    let leader = cluster.agreed_leader();
    let mut text = cluster.connect(leader);
    for number in 1..=10 {
        let line = text.ask("reserve t 60 wait=20\r\n");
        assert_eq!(line, format!("MESSAGE t {number} 1 2"));
        text.expect("x\r\n");
        text.exchange(format!("ack t {number}\r\n"), "ACKED\r\n");
    }
    text.exchange("reserve t 1\r\n", "EMPTY\r\n");
}
