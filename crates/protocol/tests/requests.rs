//! Bytes in, requests out: what every line of memcached's text protocol is read as.

mod text;

use quorate_protocol::Limits;
use text::{requests, show};

const BAD_FORMAT: &str = r#""CLIENT_ERROR bad command line format\r\n""#;
const BAD_DATA_CHUNK: &str = r#""CLIENT_ERROR bad data chunk\r\n""#;
const TOO_LARGE: &str = r#""SERVER_ERROR object too large for cache\r\n""#;
const INVALID_DELTA: &str = r#""CLIENT_ERROR invalid numeric delta argument\r\n""#;
const INVALID_EXPTIME: &str = r#""CLIENT_ERROR invalid exptime argument\r\n""#;
const DELETE_USAGE: &str =
    r#""CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n""#;
const ERROR: &str = r#""ERROR\r\n""#;
const OK: &str = r#""OK\r\n""#;
const NONE: &str = r#""""#;
const INVALID_FLAG: &str = r#""CLIENT_ERROR invalid flag\r\n""#;
const DUPLICATE_FLAG: &str = r#""CLIENT_ERROR duplicate flag\r\n""#;
const INVALID_OR_DUPLICATE: &str = r#""CLIENT_ERROR invalid or duplicate flag\r\n""#;
const BAD_TOKEN: &str = r#""CLIENT_ERROR bad token in command line format\r\n""#;
const BAD_MODE: &str = r#""CLIENT_ERROR invalid mode for ms M token\r\n""#;
const MN: &str = r#""MN\r\n""#;

/// Checks each input's requests. To each a `mn` is appended, which has to be the last request: so
/// what a line leaves behind is looked at too.
fn check(cases: &[(&str, &[&str])]) {
    check_bytes(
        &cases
            .iter()
            .map(|(i, r)| (i.as_bytes(), *r))
            .collect::<Vec<_>>(),
    );
}

fn check_bytes(cases: &[(&[u8], &[&str])]) {
    for (input, expected) in cases {
        let with_end = [input, b"mn\r\n".as_slice()].concat();
        let found = requests(&with_end, Limits::default());
        let found: Vec<String> = found.iter().map(|parsed| show(&parsed.request)).collect();
        let mut expected = expected.to_vec();
        if expected.last() != Some(&"close") {
            expected.push(MN);
        }
        assert_eq!(found, expected, "{}", input.escape_ascii());
    }
}

#[test]
fn lines_are_framed_as_memcached_frames_them() {
    check(&[
        ("get a\n", &["get a"]),
        ("get a\r\n", &["get a"]),
        ("get   a    b  \r\n", &["get a b"]),
        ("get\ta\r\n", &[ERROR]),
        ("get a\tb\r\n", &[r"get a\tb"]),
        (" get a\r\n", &[ERROR]),
        ("   \r\n", &[ERROR]),
        ("GET a\r\n", &[ERROR]),
        ("getx a\r\n", &[ERROR]),
        ("ge a\r\n", &[ERROR]),
        ("\r\n", &[BAD_FORMAT]),
        ("\n", &[BAD_FORMAT]),
        ("foo\r\n", &[ERROR]),
        ("PUT x\r\n", &[ERROR]),
        (
            "get a\r\nget b\r\ndelete c\r\n",
            &["get a", "get b", "delete c"],
        ),
        ("set a 0 0 1\nx\r\n", &["set a flags 0 exptime 0 value x"]),
    ]);
}

#[test]
fn an_http_request_and_quit_close_the_connection() {
    check(&[
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", &["close"]),
        ("POST /a HTTP/1.0\r\n\r\nset a 0 0 1\r\nx\r\n", &["close"]),
        ("HTTP/1.1\r\n", &["close"]),
        ("get a HTTP/1.1\r\n", &["get a HTTP/1.1"]),
        ("GET HTTP/1.1 a\r\n", &[ERROR]),
        ("quit\r\nget a\r\n", &["close"]),
        ("quit now\r\n", &["close"]),
        ("get a\r\nquit\r\nget b\r\n", &["get a", "close"]),
        ("quits\r\n", &[ERROR]),
    ]);
}

#[test]
fn keys_are_1_to_250_bytes_without_nul_and_line_ends() {
    let k250 = "k".repeat(250);
    let k251 = "k".repeat(251);
    check(&[
        (&format!("get {k250}\r\n"), &[&format!("get {k250}")]),
        (&format!("get {k251}\r\n"), &[BAD_FORMAT]),
        (&format!("get a {k251} b\r\n"), &[BAD_FORMAT]),
        (&format!("gets {k251}\r\n"), &[BAD_FORMAT]),
        (&format!("gat 1 a {k251}\r\n"), &[BAD_FORMAT]),
        (&format!("touch {k251} 1\r\n"), &[BAD_FORMAT]),
        (&format!("incr {k251} 1\r\n"), &[BAD_FORMAT]),
        (&format!("delete {k251}\r\n"), &[BAD_FORMAT]),
        (&format!("delete {k251} noreply\r\n"), &[NONE]),
        (&format!("set {k251} 0 0 1\r\nx\r\n"), &[BAD_FORMAT]),
        (&format!("set {k251} 0 0 1 noreply\r\nx\r\n"), &[NONE]),
        ("get a\0b\r\n", &[BAD_FORMAT]),
        ("set a\0b 0 0 1\r\nx\r\n", &[BAD_FORMAT]),
        ("get a\rb\r\n", &[BAD_FORMAT]),
        ("get a\r\r\n", &[BAD_FORMAT]),
        ("get \x01\x7f\r\n", &[r"get \x01\x7f"]),
    ]);
    check_bytes(&[
        ("get schlüssel\r\n".as_bytes(), &[r"get schl\xc3\xbcssel"]),
        (b"get \xff\xfe\r\n", &[r"get \xff\xfe"]),
    ]);
}

#[test]
fn storage_commands_take_their_data_block() {
    check(&[
        (
            "set a 5 9 3\r\nabc\r\n",
            &["set a flags 5 exptime 9 value abc"],
        ),
        ("add a 0 0 1\r\nx\r\n", &["add a flags 0 exptime 0 value x"]),
        (
            "replace a 0 0 1\r\nx\r\n",
            &["replace a flags 0 exptime 0 value x"],
        ),
        (
            "append a 0 0 1\r\nx\r\n",
            &["append a flags 0 exptime 0 value x"],
        ),
        (
            "prepend a 0 0 1\r\nx\r\n",
            &["prepend a flags 0 exptime 0 value x"],
        ),
        (
            "cas a 0 0 1 77\r\nx\r\n",
            &["cas(77) a flags 0 exptime 0 value x"],
        ),
        ("set a 0 0 0\r\n\r\n", &["set a flags 0 exptime 0 value "]),
        (
            "set a 0 0 6\r\nx\r\ny\r\n\r\n",
            &[r"set a flags 0 exptime 0 value x\r\ny\r\n"],
        ),
        (
            "set a 0 0 7\r\nget b\r\n\r\n",
            &[r"set a flags 0 exptime 0 value get b\r\n"],
        ),
        (
            "set a 0 0 1 noreply\r\nx\r\n",
            &["set a flags 0 exptime 0 value x silent"],
        ),
        (
            "cas a 0 0 1 7 noreply\r\nx\r\n",
            &["cas(7) a flags 0 exptime 0 value x silent"],
        ),
        (
            "set a 0 0 1 foo\r\nx\r\n",
            &["set a flags 0 exptime 0 value x"],
        ),
        (
            "set a 0 0 1 foo bar\r\nx\r\n",
            &["set a flags 0 exptime 0 value x"],
        ),
        (
            "set a 0 0 1 foo noreply\r\nx\r\n",
            &["set a flags 0 exptime 0 value x silent"],
        ),
        (
            "set  a  0  0  1  \r\nx\r\n",
            &["set a flags 0 exptime 0 value x"],
        ),
    ]);
}

#[test]
fn numbers_of_a_storage_line_are_read_as_c_reads_them() {
    check(&[
        (
            "set a 4294967295 0 1\r\nx\r\n",
            &["set a flags 4294967295 exptime 0 value x"],
        ),
        (
            "set a 4294967296 0 1\r\nx\r\n",
            &["set a flags 0 exptime 0 value x"],
        ),
        (
            "set a 4294967301 0 1\r\nx\r\n",
            &["set a flags 5 exptime 0 value x"],
        ),
        (
            "set a +5 +6 +1\r\nx\r\n",
            &["set a flags 5 exptime 6 value x"],
        ),
        (
            "set a -0 -0 -0\r\n\r\n",
            &["set a flags 0 exptime 0 value "],
        ),
        (
            "set a 007 08 01\r\nx\r\n",
            &["set a flags 7 exptime 8 value x"],
        ),
        (
            "set a 0 -1 1\r\nx\r\n",
            &["set a flags 0 exptime -1 value x"],
        ),
        (
            "set a 0 2147483647 1\r\nx\r\n",
            &["set a flags 0 exptime 2147483647 value x"],
        ),
        (
            "set a 0 2147483648 1\r\nx\r\n",
            &["set a flags 0 exptime -2147483648 value x"],
        ),
        (
            "cas a 0 0 1 18446744073709551615\r\nx\r\n",
            &["cas(18446744073709551615) a flags 0 exptime 0 value x"],
        ),
    ]);
}

#[test]
fn a_bad_storage_line_of_readable_length_has_one_answer_and_its_block_is_passed_over() {
    check(&[
        ("set a xx 0 7\r\nquit\r\n!\r\n", &[BAD_FORMAT]),
        ("set a -1 0 1\r\nx\r\n", &[BAD_FORMAT]),
        ("set a 18446744073709551616 0 1\r\nx\r\n", &[BAD_FORMAT]),
        ("set a 0 xx 1\r\nx\r\n", &[BAD_FORMAT]),
        ("set a 0 9223372036854775808 1\r\nx\r\n", &[BAD_FORMAT]),
        ("set a 0 xx 1 noreply\r\nx\r\n", &[NONE]),
        ("cas a 0 0 1 xx\r\nx\r\n", &[BAD_FORMAT]),
        ("cas a 0 0 1 -1\r\nx\r\n", &[BAD_FORMAT]),
        ("cas a 0 0 1 18446744073709551616\r\nx\r\n", &[BAD_FORMAT]),
        ("cas a 0 0 1\r\nx\r\n", &[BAD_FORMAT]),
        ("cas a 0 0 1 noreply\r\nx\r\n", &[NONE]),
    ]);
}

#[test]
fn a_storage_line_without_a_readable_length_has_no_data_block() {
    check(&[
        ("set\r\n", &[BAD_FORMAT]),
        ("set a\r\n", &[BAD_FORMAT]),
        ("set a 0\r\n", &[BAD_FORMAT]),
        ("set a 0 0\r\n", &[BAD_FORMAT]),
        ("set a 0 noreply\r\n", &[NONE]),
        ("cas a 0 0\r\n", &[BAD_FORMAT]),
        ("set a 0 0 -1\r\nx\r\n", &[BAD_FORMAT, ERROR]),
        ("set a 0 0 xx\r\nx\r\n", &[BAD_FORMAT, ERROR]),
        ("set a 0 0 xx noreply\r\nx\r\n", &[NONE, ERROR]),
        ("set a 0 0 2147483646\r\nx\r\n", &[BAD_FORMAT, ERROR]),
        ("set a 0 0 4294967297\r\nx\r\n", &[BAD_FORMAT, ERROR]),
        (
            "set a 0 0 99999999999999999999\r\nx\r\n",
            &[BAD_FORMAT, ERROR],
        ),
    ]);
}

#[test]
fn a_data_block_of_another_length_is_refused_and_what_is_left_of_it_is_a_line() {
    check(&[
        ("set a 0 0 3\r\nabcde\r\n", &[BAD_DATA_CHUNK, BAD_FORMAT]),
        ("set a 0 0 3\r\nabcdef\r\n", &[BAD_DATA_CHUNK, ERROR]),
        ("set a 0 0 3\r\nabcd\r\n", &[BAD_DATA_CHUNK, BAD_FORMAT]),
        ("set a 0 0 3 noreply\r\nabcdef\r\n", &[NONE, ERROR]),
        (
            "set a 0 0 5\r\nabc\r\nversion\r\n",
            &[BAD_DATA_CHUNK, ERROR],
        ),
        ("set a 0 0 1\r\nx\n\n", &[BAD_DATA_CHUNK]),
        ("cas a 0 0 1 7\r\nxx\n\n", &[BAD_DATA_CHUNK, BAD_FORMAT]),
    ]);
}

#[test]
fn an_item_over_the_limit_is_refused_and_its_block_passed_over() {
    let block = |bytes: usize| "x".repeat(bytes);
    let fits = (1 << 20) - 56 - 1;
    let line = |name: &str, bytes: usize| format!("{name} a 0 0 {bytes}\r\n{}\r\n", block(bytes));
    let largest = requests(line("set", fits).as_bytes(), Limits::default());
    assert!(show(&largest[0].request).starts_with("set a"), "fits");
    check(&[
        (&line("set", fits + 1), &[TOO_LARGE]),
        (&line("add", fits + 1), &[TOO_LARGE]),
        (&line("append", fits + 1), &[TOO_LARGE]),
        (&line("set", 3 << 20), &[TOO_LARGE]),
        (
            &format!("cas a 0 0 2000000 1\r\n{}\r\n", block(2_000_000)),
            &[TOO_LARGE],
        ),
        (
            &format!("set a 0 0 2000000 noreply\r\n{}\r\n", block(2_000_000)),
            &[NONE],
        ),
    ]);
}

#[test]
fn retrieval_lines_name_any_number_of_keys() {
    check(&[
        ("get a\r\n", &["get a"]),
        ("get a b a\r\n", &["get a b a"]),
        ("get a noreply\r\n", &["get a noreply"]),
        ("gets a b\r\n", &["get a b with unique"]),
        ("get\r\n", &[BAD_FORMAT]),
        ("gets\r\n", &[BAD_FORMAT]),
        ("get  \r\n", &[BAD_FORMAT]),
        ("gat 100 a b\r\n", &["gat a b exptime 100"]),
        ("gats -1 a\r\n", &["gat a exptime -1 with unique"]),
        ("gat\r\n", &[BAD_FORMAT]),
        ("gat 100\r\n", &[BAD_FORMAT]),
        ("gats 100\r\n", &[BAD_FORMAT]),
        ("gat xx a\r\n", &[INVALID_EXPTIME]),
        ("gats xx a\r\n", &[INVALID_EXPTIME]),
    ]);
}

#[test]
fn a_get_line_may_be_long() {
    let keys: Vec<String> = (0..11_000).map(|n| format!("key{n:05}")).collect();
    let keys = keys.join(" ");
    assert!(keys.len() > 98_000);
    check(&[
        (&format!("get {keys}\r\n"), &[&format!("get {keys}")]),
        (
            &format!("gets {keys}\r\n"),
            &[&format!("get {keys} with unique")],
        ),
    ]);
}

#[test]
fn delete_takes_a_time_of_0_and_noreply_alone() {
    check(&[
        ("delete a\r\n", &["delete a"]),
        ("delete a 0\r\n", &["delete a"]),
        ("delete a noreply\r\n", &["delete a silent"]),
        ("delete a 0 noreply\r\n", &["delete a silent"]),
        ("delete noreply\r\n", &["delete noreply"]),
        ("delete\r\n", &[BAD_FORMAT]),
        ("delete a 1\r\n", &[DELETE_USAGE]),
        ("delete a foo\r\n", &[DELETE_USAGE]),
        ("delete a 0 foo\r\n", &[DELETE_USAGE]),
        ("delete a noreply 0\r\n", &[DELETE_USAGE]),
        ("delete a 0 0\r\n", &[DELETE_USAGE]),
        ("delete a foo noreply\r\n", &[NONE]),
        ("delete a 0 noreply noreply\r\n", &[NONE]),
    ]);
}

#[test]
fn incr_and_decr_take_a_decimal_u64() {
    check(&[
        ("incr a 1\r\n", &["incr a by 1"]),
        (
            "decr a 18446744073709551615\r\n",
            &["decr a by 18446744073709551615"],
        ),
        ("incr a 1 noreply\r\n", &["incr a by 1 silent"]),
        ("incr a 1 2\r\n", &["incr a by 1"]),
        ("incr a +1\r\n", &["incr a by 1"]),
        ("incr a\r\n", &[BAD_FORMAT]),
        ("incr\r\n", &[BAD_FORMAT]),
        ("incr a xx\r\n", &[INVALID_DELTA]),
        ("decr a -1\r\n", &[INVALID_DELTA]),
        ("incr a 18446744073709551616\r\n", &[INVALID_DELTA]),
        ("incr a 1.5\r\n", &[INVALID_DELTA]),
        ("incr a xx noreply\r\n", &[NONE]),
    ]);
}

#[test]
fn touch_takes_a_time() {
    check(&[
        ("touch a 100\r\n", &["touch a exptime 100"]),
        ("touch a -1\r\n", &["touch a exptime -1"]),
        ("touch a 0 noreply\r\n", &["touch a exptime 0 silent"]),
        ("touch a 1 2\r\n", &["touch a exptime 1"]),
        ("touch a\r\n", &[BAD_FORMAT]),
        ("touch\r\n", &[BAD_FORMAT]),
        ("touch a xx\r\n", &[INVALID_EXPTIME]),
        ("touch a xx noreply\r\n", &[NONE]),
    ]);
}

#[test]
fn flush_all_takes_a_delay_or_none() {
    check(&[
        ("flush_all\r\n", &["flush_all delay 0"]),
        ("flush_all 0\r\n", &["flush_all delay 0"]),
        ("flush_all -1\r\n", &["flush_all delay -1"]),
        ("flush_all 10\r\n", &["flush_all delay 10"]),
        ("flush_all noreply\r\n", &["flush_all delay 0 silent"]),
        ("flush_all 10 noreply\r\n", &["flush_all delay 10 silent"]),
        ("flush_all 0 foo\r\n", &["flush_all delay 0"]),
        ("cache_memlimit 64\r\n", &["cache_memlimit 64"]),
        ("cache_memlimit 8 foo\r\n", &["cache_memlimit 8"]),
        (
            "cache_memlimit 4294967295 noreply\r\n",
            &["cache_memlimit 4294967295 silent"],
        ),
        ("flush_all xx\r\n", &[INVALID_EXPTIME]),
        ("flush_all xx noreply\r\n", &[NONE]),
    ]);
}

#[test]
fn stats_are_the_evaluators_as_far_as_there_are_any() {
    check(&[
        ("stats\r\n", &["stats General"]),
        ("stats settings\r\n", &["stats Settings"]),
        ("stats items\r\n", &["stats Items"]),
        ("stats slabs\r\n", &["stats Slabs"]),
        ("stats reset\r\n", &["stats Reset"]),
        ("stats reset foo\r\n", &["stats Reset"]),
        (
            "stats sizes\r\n",
            &[r#""STAT sizes_status disabled\r\nEND\r\n""#],
        ),
        ("stats foo\r\n", &[ERROR]),
        ("stats noreply\r\n", &[ERROR]),
        ("stats detail on\r\n", &[OK]),
        ("stats detail off\r\n", &[OK]),
        ("stats detail dump\r\n", &[r#""END\r\n""#]),
        (
            "stats detail\r\n",
            &[r#""CLIENT_ERROR usage: stats detail on|off|dump\r\n""#],
        ),
        (
            "stats detail foo\r\n",
            &[r#""CLIENT_ERROR usage: stats detail on|off|dump\r\n""#],
        ),
        (
            "stats cachedump\r\n",
            &[r#""CLIENT_ERROR bad command line\r\n""#],
        ),
        (
            "stats cachedump 1 0\r\n",
            &["confirm Cachedump { items_max: 0 }"],
        ),
        (
            "stats cachedump 1 100 foo\r\n",
            &["confirm Cachedump { items_max: 100 }"],
        ),
        ("stats cachedump 0 100\r\n", &[r#""END\r\n""#]),
        ("stats cachedump 63 100\r\n", &[r#""END\r\n""#]),
        (
            "stats cachedump 64 100\r\n",
            &[r#""CLIENT_ERROR Illegal slab id\r\n""#],
        ),
        ("stats cachedump 1 -1\r\n", &[BAD_FORMAT]),
        ("stats cachedump x y\r\n", &[BAD_FORMAT]),
        ("stats cachedump 1 4294967296\r\n", &[BAD_FORMAT]),
        ("stats conns\r\n", &["stats Conns"]),
    ]);
}

#[test]
fn commands_about_the_server_are_answered_without_the_evaluator() {
    let version = format!(r#""VERSION {}\r\n""#, quorate_protocol::VERSION);
    assert!(
        version.starts_with(r#""VERSION 1.6.45-quorate-"#),
        "{version}"
    );
    let small = r#""MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m\r\n""#;
    let class = r#""BADCLASS invalid class id\r\n""#;
    let shutdown = r#""SERVER_ERROR: shutdown not enabled\r\n""#;
    check(&[
        ("version\r\n", &[&version]),
        ("version\n", &[&version]),
        ("version foo\r\n", &[&version]),
        ("mn\r\n", &[MN]),
        ("mn foo\r\n", &[MN]),
        ("verbosity 1\r\n", &[OK]),
        ("verbosity 1 2 3\r\n", &[OK]),
        ("verbosity 1 noreply\r\n", &[NONE]),
        ("verbosity\r\n", &[BAD_FORMAT]),
        ("verbosity foo\r\n", &[BAD_FORMAT]),
        ("verbosity -1\r\n", &[BAD_FORMAT]),
        ("verbosity foo noreply\r\n", &[NONE]),
        ("shutdown\r\n", &[shutdown]),
        ("shutdown graceful\r\n", &[shutdown]),
        ("cache_memlimit 7\r\n", &[small]),
        ("cache_memlimit 7 noreply\r\n", &[NONE]),
        ("cache_memlimit 4294967296\r\n", &[ERROR]),
        ("cache_memlimit noreply\r\n", &[NONE]),
        ("cache_memlimit\r\n", &[ERROR]),
        ("cache_memlimit xx\r\n", &[ERROR]),
        ("slabs automove 0\r\n", &[OK]),
        ("slabs automove 0 noreply\r\n", &[NONE]),
        ("slabs automove xx\r\n", &[BAD_FORMAT]),
        ("slabs automove\r\n", &[ERROR]),
        (
            "slabs reassign 1 2\r\n",
            &[r#""CLIENT_ERROR slab reassignment disabled\r\n""#],
        ),
        ("slabs\r\n", &[ERROR]),
        ("lru mode flat\r\n", &[OK]),
        ("lru mode foo\r\n", &[ERROR]),
        ("lru tune 10 25 0.1 2.0\r\n", &[OK]),
        ("lru tune 1\r\n", &[ERROR]),
        ("lru temp_ttl 5\r\n", &[OK]),
        ("lru\r\n", &[ERROR]),
        ("lru_crawler crawl all\r\n", &[OK]),
        ("lru_crawler sleep 5\r\n", &[OK]),
        ("lru_crawler metadump all\r\n", &["confirm Metadump"]),
        ("lru_crawler metadump hash\r\n", &["confirm Metadump"]),
        ("lru_crawler metadump 3,1\r\n", &["confirm Metadump"]),
        ("lru_crawler mgdump all\r\n", &["confirm Mgdump"]),
        ("lru_crawler mgdump 1\r\n", &["confirm Mgdump"]),
        ("lru_crawler metadump 2,62\r\n", &[r#""OK\r\nEND\r\n""#]),
        ("lru_crawler mgdump 2\r\n", &[r#""OK\r\nEN\r\n""#]),
        ("lru_crawler metadump 0\r\n", &[class]),
        ("lru_crawler metadump 1,63\r\n", &[class]),
        ("lru_crawler mgdump foo\r\n", &[class]),
        ("lru_crawler metadump\r\n", &[ERROR]),
        ("lru_crawler metadump all noreply\r\n", &[ERROR]),
        ("lru_crawler\r\n", &[ERROR]),
        (
            "watch\r\n",
            &[r#""CLIENT_ERROR watch commands not allowed\r\n""#],
        ),
        ("misbehave\r\n", &[ERROR]),
        ("debugtime p\r\n", &[ERROR]),
        ("refresh_certs\r\n", &[ERROR]),
        ("extstore free_memchunks 1 1\r\n", &[ERROR]),
    ]);
}

#[test]
fn meta_commands_are_read_flag_by_flag() {
    check(&[
        ("mg a\r\n", &["mg a"]),
        ("mg a v c u O1 P2 L3\r\n", &["mg a"]),
        (
            "mg a T30 R60\r\n",
            &["mg a exptime 30 recache 60 after touch logged"],
        ),
        (
            "mg a R60 T30 N5 E9\r\n",
            &["mg a exptime 30 vivify 5 recache 60 unique 9 logged"],
        ),
        ("mg Zm9v b\r\n", &["mg foo"]),
        ("me a\r\n", &["me a"]),
        ("me Zm9v b\r\n", &["me foo"]),
        ("ms a 1\r\nx\r\n", &["ms set a flags 0 exptime 0 value x"]),
        (
            "ms a 1 F7 T9 MA q\r\nx\r\n",
            &["ms append a flags 7 exptime 9 value x"],
        ),
        (
            "ms a 1 C5 I E6 N7 MP\r\nx\r\n",
            &["ms prepend a flags 0 exptime 0 value x compare 5 vivify 7 unique 6 invalidate"],
        ),
        ("md a\r\n", &["md a"]),
        (
            "md a C1 I T2 E3 x\r\n",
            &["md a compare 1 exptime 2 unique 3 invalidate clear"],
        ),
        ("ma a\r\n", &["ma incr a by 1 from 0"]),
        (
            "ma a MD D5 J6 N7 T8 C9 E10\r\n",
            &["ma decr a by 5 from 6 compare 9 vivify 7 exptime 8 unique 10"],
        ),
    ]);
}

#[test]
fn a_bad_meta_line_says_what_is_wrong_and_its_data_block_is_passed_over() {
    check(&[
        ("mg a z\r\n", &[INVALID_FLAG]),
        ("mg a v v\r\n", &[DUPLICATE_FLAG]),
        ("md a z\r\n", &[INVALID_OR_DUPLICATE]),
        ("md a v v\r\n", &[INVALID_OR_DUPLICATE]),
        ("ms a 6 z\r\nquit\r\n\r\n", &[INVALID_FLAG]),
        ("ms a 2 q T\r\nab\r\n", &[BAD_TOKEN]),
        ("ms a 2 Mx\r\nab\r\n", &[BAD_MODE]),
        ("ma k C0\r\n", &["ma incr k by 1 from 0"]),
        ("ma k C7\r\n", &["ma incr k by 1 from 0 compare 7"]),
        ("mg k \x7f\r\n", &[DUPLICATE_FLAG]),
        ("mg k é\r\n", &[DUPLICATE_FLAG]),
        ("ms a\r\n", &[BAD_FORMAT]),
        ("ms a xx\r\nx\r\n", &[BAD_FORMAT, ERROR]),
        ("ms a 2 q\r\nabc\r\n", &[BAD_DATA_CHUNK, BAD_FORMAT]),
        ("mg\r\n", &[BAD_FORMAT]),
        ("me\r\n", &[BAD_FORMAT]),
    ]);
}

/// Every operand of every command is replaced by every kind of rubbish: the client gets at most one
/// line for it, and what it sends next is read as what it is.
#[test]
fn no_rubbish_in_a_line_puts_the_connection_out_of_step() {
    let k251 = "k".repeat(251);
    let rubbish = [
        "",
        "xx",
        "-1",
        "-0",
        "1.5",
        "\t",
        "\0",
        "noreply",
        "18446744073709551616",
        "2147483646",
        "99999999999999999999999999",
        "%s",
        "\u{fc}",
        "\r",
        "0x10",
        &k251,
    ];
    let lines = [
        "get a",
        "gets a b",
        "gat 0 a",
        "gats 0 a",
        "delete a",
        "delete a 0",
        "incr a 1",
        "decr a 1",
        "touch a 0",
        "flush_all 0",
        "verbosity 1",
        "cache_memlimit 64",
        "stats reset",
    ];
    let blocks = [
        "set a 0 0 3",
        "add a 0 0 3",
        "replace a 0 0 3",
        "append a 0 0 3",
        "prepend a 0 0 3",
        "cas a 0 0 3 1",
    ];
    let mut cases = 0;
    for line in lines.iter().chain(&blocks) {
        let words: Vec<&str> = line.split(' ').collect();
        for place in 1..=words.len() {
            for bad in rubbish {
                let has_block = blocks.contains(line);
                if has_block && place == 4 {
                    continue; // What is no length has no block.
                }
                let mut words = words.clone();
                match words.get_mut(place) {
                    Some(word) => *word = bad,
                    None => words.push(bad),
                }
                if has_block && bad.is_empty() && place < 4 {
                    continue; // An operand too few: the length stands elsewhere.
                }
                let block = if has_block { "abc\r\n" } else { "" };
                let input = format!("{}\r\n{block}mn\r\n", words.join(" "));
                let found = requests(input.as_bytes(), Limits::default());
                assert_eq!(found.len(), 2, "{input:?}: {found:?}");
                assert_eq!(show(&found[1].request), MN, "{input:?}");
                cases += 1;
            }
        }
    }
    assert!(cases > 800, "{cases} cases");
}
