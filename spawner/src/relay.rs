//! Carries a server's output to the console, line by line. A line that is too long comes in
//! pieces.

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::console::Console;

/// The longest line that is shown in one piece, in bytes.
const LINE_BYTES_MAX: usize = 8 << 10;

/// Shows all that can be read, until its end.
pub(crate) async fn relay(id: u64, mut from: impl AsyncRead + Unpin, console: Console) {
    let mut rest = Vec::with_capacity(LINE_BYTES_MAX);
    loop {
        let room = LINE_BYTES_MAX - rest.len();
        let read = (&mut from).take(room as u64).read_buf(&mut rest).await;
        let is_over = !matches!(read, Ok(bytes) if bytes > 0);
        for line in take_lines(&mut rest, is_over) {
            console.server_line(id, &line);
        }
        if is_over {
            return;
        }
    }
}

/// The whole lines at the front, without their ends; or all there is, when nothing more will fit
/// or come.
fn take_lines(rest: &mut Vec<u8>, is_over: bool) -> Vec<String> {
    let whole = match rest.iter().rposition(|&byte| byte == b'\n') {
        Some(last) if !is_over => last + 1,
        None if !is_over && rest.len() < LINE_BYTES_MAX => return Vec::new(),
        _ => rest.len(),
    };
    let bytes: Vec<u8> = rest.drain(..whole).collect();
    let text = String::from_utf8_lossy(&bytes);
    text.lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_shown_when_its_end_is_there() {
        let mut rest = b"one\ntwo\r\nthr".to_vec();
        assert_eq!(take_lines(&mut rest, false), ["one", "two"]);
        assert_eq!(rest, b"thr");
        assert_eq!(take_lines(&mut rest, false), [""; 0]);
        assert_eq!(take_lines(&mut rest, true), ["thr"]);
        assert_eq!(take_lines(&mut rest, true), [""; 0]);
    }

    #[test]
    fn a_line_without_end_is_shown_in_pieces() {
        let mut rest = vec![b'x'; LINE_BYTES_MAX];
        let lines = take_lines(&mut rest, false);
        assert_eq!(lines, ["x".repeat(LINE_BYTES_MAX)]);
        assert!(rest.is_empty());
    }
}
