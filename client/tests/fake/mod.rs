//! A server of the text protocol that says what a test tells it to.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate_client::Address;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// How long anything in a test may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What a fake does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Do {
    /// Sends these bytes.
    Say(String),
    /// Sends these bytes and closes the connection.
    SayAndClose(String),
    Close,
    /// Nothing, not even to read on.
    Stall,
}

impl Do {
    pub(crate) fn say(line: &str) -> Do {
        Do::Say(format!("{line}\r\n"))
    }

    pub(crate) fn redirect(to: &Address) -> Do {
        Do::say(&format!("ERR_REDIRECT {} {}", to.host, to.port))
    }
}

/// A listening fake. It goes on until the test's runtime ends.
#[derive(Clone, Debug)]
pub(crate) struct Fake {
    pub(crate) address: Address,
    heard: Arc<Mutex<Vec<String>>>,
    /// How many connections are open, and how many were at most.
    open: Arc<Mutex<(usize, usize)>>,
}

impl Fake {
    /// `answer` is given the number of each request on this server, from 0, and its line.
    pub(crate) async fn start(answer: impl Fn(usize, &str) -> Do + Send + Sync + 'static) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::new("127.0.0.1", listener.local_addr().unwrap().port());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let open = Arc::new(Mutex::new((0, 0)));
        let fake = Fake {
            address,
            heard,
            open,
        };
        let (serving, answer) = (fake.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (serving, answer) = (serving.clone(), Arc::clone(&answer));
                tokio::spawn(async move {
                    serving.count(1);
                    serving.serve(stream, &*answer).await;
                    serving.count(-1);
                });
            }
        });
        fake
    }

    /// One that always says this line.
    pub(crate) async fn saying(line: &'static str) -> Fake {
        Fake::start(move |_, _| Do::say(line)).await
    }

    /// The lines that it was sent, without data blocks.
    pub(crate) fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    /// The most connections that were open at a time.
    pub(crate) fn connections_max(&self) -> usize {
        self.open.lock().unwrap().1
    }

    fn count(&self, change: isize) {
        let (open, most) = &mut *self.open.lock().unwrap();
        *open = open.checked_add_signed(change).unwrap();
        *most = (*open).max(*most);
    }

    async fn serve(&self, stream: TcpStream, answer: &(impl Fn(usize, &str) -> Do + Send + Sync)) {
        let mut stream = BufReader::new(stream);
        loop {
            let mut line = Vec::new();
            if !matches!(stream.read_until(b'\n', &mut line).await, Ok(1..)) {
                return;
            }
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if !skip_block(&mut stream, &line).await {
                return;
            }
            let number = {
                let mut heard = self.heard.lock().unwrap();
                heard.push(line.clone());
                heard.len() - 1
            };
            let (bytes, close) = match answer(number, &line) {
                Do::Say(bytes) => (bytes, false),
                Do::SayAndClose(bytes) => (bytes, true),
                Do::Close => return,
                Do::Stall => std::future::pending().await,
            };
            if stream.write_all(bytes.as_bytes()).await.is_err() || close {
                return;
            }
        }
    }
}

/// Reads the data block of a storage command; whether it came.
async fn skip_block(stream: &mut BufReader<TcpStream>, line: &str) -> bool {
    let words: Vec<&str> = line.split(' ').collect();
    let length: usize = match words[0] {
        "set" | "add" | "replace" | "append" | "prepend" | "cas" => words[4].parse().unwrap(),
        "ms" => words[2].parse().unwrap(),
        _ => return true,
    };
    let mut block = vec![0; length + 2];
    stream.read_exact(&mut block).await.is_ok()
}

/// Answers each HTTP request with this body; its address.
pub(crate) async fn fake_http(body: impl Into<String>) -> Address {
    let body = body.into();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::new("127.0.0.1", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let length = body.len();
            let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
            let _ = stream.write_all(response.as_bytes()).await;
        }
    });
    address
}

/// A port of this machine that nobody listens on.
pub(crate) async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

/// The test's deadline.
pub(crate) async fn in_time<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it takes too long")
}
