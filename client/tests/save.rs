//! Where `quorate-client snapshot save` puts a backup, and what it leaves alone.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

/// A whole snapshot, as a leader gives it out.
const SNAPSHOT: &[u8] = include_bytes!(
    "../../crates/wal/tests/fixtures/snapshot-v1/snap-000000000000000c-0000000000000002.snap"
);

/// An empty folder of a test's own.
fn folder(name: &str) -> PathBuf {
    let name = format!("save-{name}-{}", std::process::id());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Gives so many callers the snapshot; the port that they are to call.
fn leader(calls: usize) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for _ in 0..calls {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n").unwrap();
            stream.write_all(SNAPSHOT).unwrap();
        }
    });
    port
}

fn save(http_port: u16, file: impl AsRef<OsStr>) -> Output {
    let server = format!("127.0.0.1:{}", http_port - 2);
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate-client"));
    command.args(["--timeout", "20s", "--servers", &server]);
    command.args(["snapshot", "save"]).arg(file.as_ref());
    command.output().unwrap()
}

fn names(folder: &Path) -> Vec<OsString> {
    let files = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
    names.sort();
    names
}

#[test]
fn what_is_no_regular_file_stays_what_it_is_and_nobody_is_asked_for_a_snapshot() {
    let folder = folder("refused");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let socket = folder.join("socket");
    let _bound = UnixListener::bind(&socket).unwrap();
    symlink(&socket, folder.join("link to a socket")).unwrap();
    symlink("nowhere", folder.join("link to nothing")).unwrap();
    fs::create_dir(folder.join("folder")).unwrap();
    let before = names(&folder);
    let regular = "is no regular file";
    for (name, reason) in [
        ("socket", regular),
        ("link to a socket", regular),
        ("link to nothing", "No such file"),
        ("folder", regular),
    ] {
        let output = save(port, folder.join(name));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(name) && said.contains(reason), "{said}");
        assert_eq!(names(&folder), before);
    }
    assert!(
        fs::symlink_metadata(&socket)
            .unwrap()
            .file_type()
            .is_socket()
    );
    let odd = folder.join(OsString::from_vec(b"back\xffup".to_vec()));
    let output = save(port, &odd);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(names(&folder), before);
    assert!(listener.accept().is_err(), "somebody was called");
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_file_is_replaced_where_it_is_and_keeps_its_mode() {
    let folder = folder("replaced");
    let port = leader(3);
    let (file, link) = (folder.join("backup"), folder.join("link"));
    assert_eq!(save(port, &file).status.code(), Some(0));
    let mode = || fs::metadata(&file).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(), 0o600, "nobody else reads a new one");
    fs::write(&file, b"an older one").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(save(port, &file).status.code(), Some(0));
    assert_eq!(mode(), 0o640);
    assert!(fs::read(&file).unwrap() == SNAPSHOT);
    fs::write(&file, b"an older one").unwrap();
    symlink("backup", &link).unwrap();
    assert_eq!(save(port, &link).status.code(), Some(0));
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("backup"));
    assert!(fs::read(&file).unwrap() == SNAPSHOT);
    assert_eq!(mode(), 0o640);
    assert_eq!(names(&folder), ["backup", "link"]);
    fs::remove_dir_all(folder).unwrap();
}
