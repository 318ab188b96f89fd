//! The meta commands through real servers: what each answers, flag by flag, and who is told to bring
//! a value anew.

use quorate_tests::{Plan, Programs, Shared, Text, User};

const PROGRAMS: Programs = Programs::at(env!("CARGO_BIN_EXE_quorate-tests"));

/// Of all tests here, which leave each other's keys alone.
static SHARED: Shared = Shared::new();

const BAD_FORMAT: &str = "CLIENT_ERROR bad command line format\r\n";
const BAD_TOKEN: &str = "CLIENT_ERROR bad token in command line format\r\n";
const INVALID: &str = "CLIENT_ERROR invalid flag\r\n";
const DUPLICATE: &str = "CLIENT_ERROR duplicate flag\r\n";
const INVALID_OR_DUPLICATE: &str = "CLIENT_ERROR invalid or duplicate flag\r\n";
const TOO_LONG: &str = "CLIENT_ERROR opaque token too long\r\n";
const BAD_BASE64: &str = "CLIENT_ERROR error decoding key\r\n";

fn cluster() -> User {
    SHARED.get_or_start(|| Plan::new(PROGRAMS, 3).patient().start())
}

/// The unique of an item that there is.
fn unique_of(text: &mut Text, key: &str) -> u64 {
    text.send(format!("mg {key} c\r\n"));
    let line = text.line();
    let unique = line
        .strip_prefix("HD c")
        .and_then(|unique| unique.parse().ok());
    unique.unwrap_or_else(|| panic!("{key} has {line:?}"))
}

#[test]
fn mg_shows_what_it_is_asked_for_in_that_order() {
    let cluster = cluster();
    let mut text = cluster.connect_to_leader();
    text.exchange_all(&[
        ("mg g\r\n", "EN\r\n"),
        ("mg g v s k O77 t\r\n", "EN kg O77\r\n"),
        ("mg g v q\r\nmn\r\n", "MN\r\n"),
        ("ms g 3 F5\r\nabc\r\n", "HD\r\n"),
        ("mg g\r\n", "HD\r\n"),
        ("mg g v\r\n", "VA 3\r\nabc\r\n"),
        ("mg g v q\r\n", "VA 3\r\nabc\r\n"),
        ("mg g k f s t O1\r\n", "HD kg f5 s3 t-1 O1\r\n"),
        ("mg g t O1 f v k s\r\n", "VA 3 t-1 O1 f5 kg s3\r\nabc\r\n"),
        ("mg g t T0 P1 L2\r\n", "HD t-1\r\n"),
        ("mg g C1 v\r\n", "VA 3\r\nabc\r\n"),
        ("get g\r\n", "VALUE g 5 3\r\nabc\r\nEND\r\n"),
        ("mg g T-1 v\r\n", "VA 3\r\nabc\r\n"),
        ("mg g v\r\n", "EN\r\n"),
    ]);
    text.exchange("ms g 1\r\nx\r\n", "HD\r\n");
    let unique = unique_of(&mut text, "g");
    text.exchange(format!("mg g v C{unique}\r\n"), "HD\r\n");
    text.exchange("mg g c\r\n", format!("HD c{unique}\r\n"));
}

#[test]
fn mg_remembers_whether_an_item_was_asked_for() {
    let cluster = cluster();
    let mut text = cluster.connect_to_leader();
    text.exchange_all(&[
        ("set h 0 0 1\r\na\r\n", "STORED\r\n"),
        ("mg h h\r\n", "HD h0\r\n"),
        ("mg h u h\r\n", "HD h1\r\n"),
        ("set h 0 0 1\r\na\r\n", "STORED\r\n"),
        ("mg h u h\r\n", "HD h0\r\n"),
        ("mg h u h\r\n", "HD h0\r\n"),
        ("get h\r\n", "VALUE h 0 1\r\na\r\nEND\r\n"),
        ("mg h h\r\n", "HD h1\r\n"),
        ("set h 0 0 1\r\na\r\ntouch h 0\r\n", "STORED\r\nTOUCHED\r\n"),
        ("mg h h\r\n", "HD h1\r\n"),
        // Who makes it asks for it.
        ("mg made N0 h\r\n", "HD h0 W\r\n"),
        ("mg made h\r\n", "HD h1 Z\r\n"),
        ("mg unasked N0 u h\r\n", "HD h0 W\r\n"),
        ("mg unasked h\r\n", "HD h0 Z\r\n"),
    ]);
}

#[test]
fn ms_stores_on_its_conditions() {
    let cluster = cluster();
    let mut text = cluster.connect_to_leader();
    text.exchange_all(&[
        ("ms s 1 MR k\r\na\r\n", "NS ks\r\n"),
        ("ms s 1 MA\r\na\r\n", "NS\r\n"),
        ("ms s 1 MP q\r\na\r\n", "NS\r\n"),
        ("ms s 2 C5 O9\r\nab\r\n", "NF O9\r\n"),
        ("ms s 2 ME F7\r\nab\r\n", "HD\r\n"),
        ("ms s 2 ME k\r\nab\r\n", "NS ks\r\n"),
        ("ms s 2 MA s\r\ncd\r\n", "HD s4\r\n"),
        ("ms s 1 MP s k\r\n_\r\n", "HD s5 ks\r\n"),
        ("mg s v f\r\n", "VA 5 f7\r\n_abcd\r\n"),
        ("ms s 1 MR q\r\nx\r\nmn\r\n", "MN\r\n"),
        ("ms s 1 C5 k\r\nx\r\n", "EX ks\r\n"),
        ("ms s 1 C5 MA\r\nx\r\n", "EX\r\n"),
        ("ms s 1 T-1\r\nx\r\n", "HD\r\n"),
        ("mg s\r\n", "EN\r\n"),
        ("ms s 2 MA N0 s\r\nnn\r\n", "HD s2\r\n"),
        ("mg s v t\r\n", "VA 2 t-1\r\nnn\r\n"),
    ]);
    let unique = unique_of(&mut text, "s");
    text.send(format!("ms s 1 C{unique} c\r\ny\r\n"));
    let line = text.line();
    let next = unique_of(&mut text, "s");
    assert_eq!(line, format!("HD c{next}"));
    assert!(next > unique, "{next} after {unique}");
}

#[test]
fn md_and_ma_answer_by_the_item_they_find() {
    let cluster = cluster();
    let mut text = cluster.connect_to_leader();
    text.exchange_all(&[
        ("md d k O5\r\n", "NF kd O5\r\n"),
        ("md d q\r\n", "NF\r\n"),
        ("ma d k\r\n", "NF kd\r\n"),
        ("ma d N0\r\n", "HD\r\n"),
        ("ma d v\r\n", "VA 1\r\n1\r\n"),
        ("ma d D10 v t\r\n", "VA 2 t-1\r\n11\r\n"),
        ("ma d MD D5 v\r\n", "VA 1\r\n6\r\n"),
        ("ma d M- D50 v\r\n", "VA 1\r\n0\r\n"),
        (
            "ma d M+ D18446744073709551615 v\r\n",
            "VA 20\r\n18446744073709551615\r\n",
        ),
        ("ma d MI v\r\n", "VA 1\r\n0\r\n"),
        ("ma d q\r\nmn\r\n", "MN\r\n"),
        ("ma d C3 O1\r\n", "EX O1\r\n"),
        ("md d C3 O1\r\n", "EX O1\r\n"),
        ("md d q\r\nmn\r\n", "MN\r\n"),
        ("ma d N0 J40 v\r\n", "VA 2\r\n40\r\n"),
        ("md d\r\n", "HD\r\n"),
        ("set d 0 0 1\r\nx\r\n", "STORED\r\n"),
        (
            "ma d\r\n",
            "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n",
        ),
        ("md d x\r\n", "HD\r\n"),
        ("mg d v f t\r\n", "VA 0 f0 t-1\r\n\r\n"),
    ]);
}

#[test]
fn of_all_who_meet_a_stale_item_one_wins() {
    let cluster = cluster();
    let mut text = cluster.connect_to_leader();
    let mut other = cluster.connect_to_leader();
    text.exchange_all(&[
        ("ms w 2\r\nab\r\n", "HD\r\n"),
        ("md w I\r\n", "HD\r\n"),
        ("get w\r\n", "VALUE w 0 2\r\nab\r\nEND\r\n"),
        ("mg w v\r\n", "VA 2 X W\r\nab\r\n"),
        ("mg w v\r\n", "VA 2 Z X\r\nab\r\n"),
    ]);
    other.exchange("mg w v\r\n", "VA 2 Z X\r\nab\r\n");
    text.exchange("ms w 1 C1 I\r\nc\r\n", "HD\r\n");
    text.exchange("mg w v\r\n", "VA 1 Z X\r\nc\r\n");
    text.exchange_all(&[
        ("ms w 1\r\nd\r\n", "HD\r\n"),
        ("mg w v\r\n", "VA 1\r\nd\r\n"),
        ("mg v N0 v\r\n", "VA 0 W\r\n\r\n"),
        ("mg v N0 v\r\n", "VA 0 Z\r\n\r\n"),
        ("mg v v\r\n", "VA 0 Z\r\n\r\n"),
        ("get v\r\n", "VALUE v 0 0\r\n\r\nEND\r\n"),
        ("ms v 1\r\nz\r\n", "HD\r\n"),
        ("mg v v\r\n", "VA 1\r\nz\r\n"),
        ("ms r 1 T1000000\r\na\r\n", "HD\r\n"),
        ("mg r R100\r\n", "HD\r\n"),
        ("mg r R1500000\r\n", "HD W\r\n"),
        ("mg r R1500000\r\n", "HD Z\r\n"),
        ("mg r\r\n", "HD Z\r\n"),
    ]);
}

#[test]
fn a_pipeline_meets_what_its_own_commands_have_made_stale() {
    let cluster = cluster();
    let mut text = cluster.connect_to_leader();
    text.exchange(
        "ms p 1\r\na\r\nmd p I\r\nmg p v\r\nmg p v\r\nms p 1\r\nb\r\nmg p v\r\n",
        "HD\r\nHD\r\nVA 1 X W\r\na\r\nVA 1 Z X\r\na\r\nHD\r\nVA 1\r\nb\r\n",
    );
}

#[test]
fn a_unique_may_only_be_raised() {
    let cluster = cluster();
    let mut text = cluster.connect_to_leader();
    text.exchange("ms e 1\r\na\r\n", "HD\r\n");
    let raised = unique_of(&mut text, "e") + (1 << 40);
    text.exchange(
        format!("ms e 1 E{raised} c\r\nb\r\n"),
        format!("HD c{raised}\r\n"),
    );
    text.exchange(format!("ms e 1 E{} c\r\nb\r\n", raised - 1), BAD_TOKEN);
    text.exchange("mg e v\r\n", "VA 1\r\nb\r\n");
    text.exchange(format!("md e I E{raised}\r\n"), BAD_TOKEN);
    text.exchange("ms e 1 c\r\nc\r\n", format!("HD c{}\r\n", raised + 1));
    text.exchange(format!("cas e 0 0 1 {}\r\nd\r\n", raised + 1), "STORED\r\n");
    assert_eq!(unique_of(&mut text, "e"), raised + 2);
}

#[test]
fn keys_in_base64_are_the_keys_that_they_stand_for() {
    let cluster = cluster();
    let mut text = cluster.connect_to_leader();
    text.exchange_all(&[
        ("ms Zm9v 2 b k O1\r\nab\r\n", "HD kZm9v b O1\r\n"),
        ("mg foo v k\r\n", "VA 2 kfoo\r\nab\r\n"),
        ("mg Zm9v b k v\r\n", "VA 2 kZm9v b\r\nab\r\n"),
        ("mg YSBi b k\r\n", "EN kYSBi b\r\n"),
        ("ms YSBi 1 b\r\nx\r\n", "HD\r\n"),
        ("mg YSBi b v\r\n", "VA 1\r\nx\r\n"),
        ("md YSBi b\r\n", "HD\r\n"),
        ("mg fo!o b\r\n", BAD_BASE64),
        (
            "ms fo 2 b\r\nab\r\nmn\r\n",
            "CLIENT_ERROR error decoding key\r\nMN\r\n",
        ),
        ("md fo b\r\n", INVALID_OR_DUPLICATE),
    ]);
}

#[test]
fn what_is_wrong_with_a_line_is_said_and_its_data_is_passed_over() {
    let cluster = cluster();
    let mut text = cluster.connect_to_leader();
    let long = "x".repeat(31);
    let key = "k".repeat(251);
    text.exchange_all(&[
        ("mg\r\n", BAD_FORMAT),
        ("mg a\0 v\r\n", BAD_FORMAT),
        ("mg a S1\r\n", INVALID),
        ("mg a v v\r\n", DUPLICATE),
        ("mg a Tx\r\n", BAD_TOKEN),
        ("mg a N\r\n", BAD_TOKEN),
        ("md a z\r\n", INVALID_OR_DUPLICATE),
        ("ma a Nx\r\n", INVALID_OR_DUPLICATE),
        (
            "ma a Mx\r\n",
            "CLIENT_ERROR invalid mode for ma M token\r\n",
        ),
        (
            "ms a 2 Me\r\nab\r\n",
            "CLIENT_ERROR invalid mode for ms M token\r\n",
        ),
        ("ms a 2 z q\r\nab\r\n", INVALID),
        ("ms a 2 Fx\r\nab\r\n", BAD_FORMAT),
        ("ms a 2 F4294967296\r\nab\r\n", BAD_FORMAT),
        ("ms a -1\r\n", BAD_FORMAT),
        ("ms a\r\n", BAD_FORMAT),
        (
            "ms a 2\r\nabc\r\nmn\r\n",
            "CLIENT_ERROR bad data chunk\r\nCLIENT_ERROR bad command line format\r\nMN\r\n",
        ),
        ("me\r\n", BAD_FORMAT),
        ("me nobody\r\n", "EN\r\n"),
        (
            "mg a b c s t f h l u v k O1 q P1 L1 T30 N30 R30 C1 E1\r\n",
            "CLIENT_ERROR options flags are too long\r\n",
        ),
    ]);
    text.exchange(format!("mg a O{long}\r\n"), format!("EN O{long}\r\n"));
    text.exchange(format!("mg a O{long}x\r\n"), TOO_LONG);
    text.exchange(
        format!("ms a 1 O{long}x\r\nx\r\nmn\r\n"),
        format!("{TOO_LONG}MN\r\n"),
    );
    text.exchange(format!("mg {key}\r\n"), BAD_FORMAT);
    text.exchange(
        format!("ms {key} 4\r\nquit\r\nmn\r\n"),
        format!("{BAD_FORMAT}MN\r\n"),
    );
}

#[test]
fn me_tells_what_the_server_knows_of_an_item() {
    let cluster = cluster();
    let mut text = cluster.connect_to_leader();
    text.exchange("set i 0 0 3\r\nabc\r\n", "STORED\r\n");
    let unique = unique_of(&mut text, "i");
    text.send("me i\r\n");
    let line = text.line();
    let expected = format!("cas={unique} fetch=yes cls=1 size=97");
    assert!(
        line.starts_with("ME i exp=-1 la=") && line.ends_with(&expected),
        "{line:?}"
    );
}
