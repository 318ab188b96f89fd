//! `cluster.toml` as its users write it: what is read, what is refused and in which words.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_cluster::{Cluster, Error, Server, Settings, Source};

fn server(id: u64) -> Server {
    let port = 9000 + 10 * (u16::try_from(id).unwrap_or(1) - 1);
    Server {
        id,
        host: "127.0.0.1".to_owned(),
        client_port: port,
        rpc_port: port + 1,
        http_port: port + 2,
        bind: None,
    }
}

fn refusal(text: &str) -> String {
    let error = Cluster::parse(text).expect_err("this file is refused");
    let line = error.to_string();
    assert!(!line.contains('\n'), "more than one line: {line:?}");
    line
}

const ONE: &str =
    "[[server]]\nid = 1\nhost = \"h\"\nclient_port = 1\nrpc_port = 2\nhttp_port = 3\n";

#[test]
fn what_is_written_is_read_back() {
    let mut servers: Vec<Server> = (1..=5).map(server).collect();
    servers[2].bind = Some("0.0.0.0".to_owned());
    let cluster = Cluster::new(servers).expect("five good servers");
    assert_eq!(Cluster::parse(&cluster.to_toml()), Ok(cluster));

    let text = format!("{ONE}[settings]\nheartbeat_ms = 20\nelection_timeout_ms = \"60..90\"\n");
    let cluster = Cluster::parse(&text).expect("one good server");
    assert_eq!(cluster.settings()["heartbeat_ms"], "20");
    assert_eq!(Cluster::parse(&cluster.to_toml()), Ok(cluster));
}

#[test]
fn servers_are_sorted_and_found_by_id() {
    let cluster = Cluster::new(vec![server(3), server(1)]).expect("two good servers");
    assert_eq!(cluster.servers(), [server(1), server(3)]);
    assert_eq!(cluster.server(3).map(Server::bind), Some("127.0.0.1"));
    assert_eq!(cluster.server(2), None);
}

#[test]
fn what_cannot_work_is_refused_in_one_line() {
    assert_eq!(refusal(""), "there is no [[server]]");
    assert_eq!(
        refusal(&ONE.replace("id = 1", "id = 0")),
        "a server has id 0, ids start at 1"
    );
    assert_eq!(refusal(&ONE.repeat(2)), "two servers have id 1");
    assert_eq!(
        refusal(&ONE.replace("= 3", "= 2")),
        "h:2 is both server 1's and server 1's"
    );
    let same_port = format!("{ONE}{}", ONE.replace("id = 1", "id = 2"));
    assert_eq!(refusal(&same_port), "h:1 is both server 1's and server 2's");
    assert_eq!(
        refusal(&ONE.replace("rpc_port = 2", "rpc_port = 0")),
        "server 1: rpc_port is 0"
    );
    assert_eq!(
        refusal(&ONE.replace("\"h\"", "\"a b\"")),
        "server 1: host \"a b\" is no host name or address"
    );
    assert!(refusal(&ONE.replace("\"h\"", "\"\"")).starts_with("server 1: host"));
    assert!(refusal(&format!("{ONE}bind = \"\"")).starts_with("server 1: bind"));
}

#[test]
fn unknown_names_and_wrong_types_are_refused_with_their_line() {
    assert!(refusal(&format!("{ONE}port = 4\n")).starts_with("line 7: unknown field `port`"));
    assert!(refusal(&format!("{ONE}[cluster]\n")).contains("unknown field `cluster`"));
    assert!(refusal(&ONE.replace("= 2", "= 70000")).starts_with("line 5: "));
    assert!(refusal("[[server]\n").starts_with("line 1: "));
    assert!(refusal("[[server]]\nid = 1\n").contains("missing field"));
    assert_eq!(
        refusal(&format!("{ONE}[settings]\nheartbeat = 3\n")),
        "[settings] heartbeat: there is no such setting"
    );
    assert_eq!(
        refusal(&format!("{ONE}[settings]\nheartbeat_ms = true\n")),
        "[settings] heartbeat_ms: neither a number nor a string"
    );
    assert_eq!(
        refusal(&format!(
            "{ONE}[settings]\nheartbeat_ms = 3\nheartbeat-ms = 4\n"
        )),
        "[settings] heartbeat_ms stands there twice"
    );
}

#[test]
fn nineteen_servers_are_possible_and_twenty_are_not() {
    assert!(Cluster::new((1..=19).map(server).collect()).is_ok());
    assert_eq!(
        Cluster::new((1..=20).map(server).collect()),
        Err(Error::TooManyServers { found: 20 })
    );
}

#[test]
fn the_hash_tells_members_apart_and_nothing_else() {
    let hash = |servers: Vec<Server>| Cluster::new(servers).expect("good").members_hash();
    let three = hash(vec![server(1), server(2), server(3)]);
    assert_eq!(three, hash(vec![server(3), server(1), server(2)]));
    assert_ne!(three, hash(vec![server(1), server(2)]));

    let mut moved = server(1);
    moved.http_port += 5;
    assert_ne!(hash(vec![server(1)]), hash(vec![moved]));
    let mut bound = server(1);
    bound.bind = Some("0.0.0.0".to_owned());
    assert_eq!(hash(vec![server(1)]), hash(vec![bound]));

    // Servers of different releases compare it, so it may not change.
    assert_eq!(hash(vec![server(1)]), 0xe0e7_de7d_0a5a_5ac4);
}

#[test]
fn a_flag_outranks_the_environment_which_outranks_the_file() {
    let file = BTreeMap::from([
        ("heartbeat_ms".to_owned(), "10".to_owned()),
        ("threads".to_owned(), "3".to_owned()),
        ("connections_max".to_owned(), "4".to_owned()),
    ]);
    let flags = |name: &str| (name == "heartbeat-ms").then(|| "30".to_owned());
    let environment = |name: &str| match name {
        "QUORATE_HEARTBEAT_MS" => Some("20".to_owned()),
        "QUORATE_THREADS" => Some("5".to_owned()),
        _ => None,
    };
    let (settings, sources) =
        Settings::resolve(flags, environment, &file).expect("all of them are possible");
    assert_eq!(settings.heartbeat, Duration::from_millis(30));
    assert_eq!(settings.threads, 5);
    assert_eq!(settings.connections_max, 4);
    assert_eq!(settings.value_bytes_max, 1 << 20);

    let text = settings.to_toml(&sources);
    assert!(text.contains("heartbeat_ms = 30 # flag\n"), "{text}");
    assert!(text.contains("threads = 5 # environment\n"), "{text}");
    assert!(text.contains("connections_max = 4 # file\n"), "{text}");
    assert!(
        text.contains("election_timeout_ms = \"150..300\" # default\n"),
        "{text}"
    );
    let again = Cluster::parse(&format!("{ONE}{text}")).expect("what is shown can be read");
    let (again, _) = Settings::resolve(|_| None, |_| None, again.settings()).expect("possible");
    assert_eq!(again, settings);
    assert_eq!(
        sources
            .iter()
            .filter(|source| **source == Source::Flag)
            .count(),
        1
    );
}

#[test]
fn an_impossible_value_is_refused_with_the_name_its_source_gives_it() {
    let none = BTreeMap::new();
    let flag = |value: &'static str| {
        let flags = move |name: &str| (name == "election-timeout-ms").then(|| value.to_owned());
        Settings::resolve(flags, |_| None, &BTreeMap::new())
    };
    for value in [
        "150",
        "300..150",
        "150..150",
        "a..b",
        "..",
        "-1..5",
        "+150..300",
        "0..9",
    ] {
        assert_eq!(
            flag(value).expect_err("refused").to_string(),
            format!("--election-timeout-ms: {value:?} is not one of MIN..MAX")
        );
    }
    assert_eq!(
        flag("149..300").expect_err("refused").to_string(),
        "heartbeat_ms: 50 is more than a third of the election timeout, 149 ms"
    );
    let environment = |name: &str| (name == "QUORATE_FOLLOWERS").then(|| "proxy".to_owned());
    assert_eq!(
        Settings::resolve(|_| None, environment, &none)
            .expect_err("refused")
            .to_string(),
        "QUORATE_FOLLOWERS: \"proxy\" is not one of redirect|forward"
    );
    let file = BTreeMap::from([("threads".to_owned(), "65".to_owned())]);
    assert_eq!(
        Settings::resolve(|_| None, |_| None, &file)
            .expect_err("refused")
            .to_string(),
        "[settings] threads: \"65\" is not one of 1..64"
    );
}
