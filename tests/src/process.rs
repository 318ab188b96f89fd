//! One child process: its output lines as they come, signals, and its end. No process outlives its
//! `Process`.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::{deadline, wait_until};

/// A running child process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: Arc<Lines>,
    stderr: Arc<Lines>,
}

/// How a process ended, and all that it printed.
#[derive(Clone, Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: Vec<String>,
    pub stderr: Vec<String>,
}

impl Ended {
    /// The exit status, if it was not ended by a signal.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that ended it.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }
}

impl Process {
    /// Starts `command` with nothing on its standard input.
    ///
    /// # Panics
    /// When the operating system refuses.
    #[must_use]
    pub fn start(name: &str, command: Command) -> Process {
        Process::start_with_input(name, command, b"")
    }

    /// Starts `command` with these bytes on its standard input.
    ///
    /// # Panics
    /// When the operating system refuses.
    #[must_use]
    pub fn start_with_input(name: &str, mut command: Command, input: &[u8]) -> Process {
        let stdin = if input.is_empty() {
            Stdio::null()
        } else {
            Stdio::piped()
        };
        command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = spawn(command);
        if let Some(mut stdin) = child.stdin.take() {
            let input = input.to_vec();
            // A program that ends without reading all of it is judged by how it ends.
            thread::spawn(move || drop(stdin.write_all(&input)));
        }
        let stdout = Lines::collect(child.stdout.take().expect("it is piped"));
        let stderr = Lines::collect(child.stderr.take().expect("it is piped"));
        Process {
            name: name.to_owned(),
            child,
            stdout,
            stderr,
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().expect("Linux's ids fit"))
    }

    /// Sends it a signal, if it has not ended yet.
    ///
    /// # Panics
    /// When the operating system refuses.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended_with().is_none() {
            kill(self.pid(), signal).unwrap_or_else(|error| {
                panic!("{}: cannot send {signal}: {error}", self.name);
            });
        }
    }

    /// Sends it SIGSTOP and returns once none of its threads runs any more: the signal reaches
    /// them later than the call that sends it returns.
    ///
    /// # Panics
    /// When it has ended, or goes on.
    pub fn pause(&mut self) {
        self.signal(Signal::SIGSTOP);
        let tasks = format!("/proc/{}/task", self.pid());
        wait_until("all threads to stop", deadline(), || {
            for task in fs::read_dir(&tasks).expect("it runs") {
                let stat = task.expect("it can be read").path().join("stat");
                let stat = fs::read_to_string(stat).map_err(|error| error.to_string())?;
                // `id (name) state …`, where the name may hold anything.
                let state = stat
                    .rsplit(") ")
                    .next()
                    .and_then(|rest| rest.chars().next());
                if state != Some('T') {
                    return Err(stat);
                }
            }
            Ok(())
        });
    }

    /// Ends it with SIGKILL, and returns once it is gone.
    pub fn kill(mut self) -> Ended {
        self.signal(Signal::SIGKILL);
        self.wait(deadline())
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it still runs at `deadline`.
    pub fn wait(mut self, deadline: Instant) -> Ended {
        let what = format!("the end of {}", self.name);
        let status = wait_until(&what, deadline, || {
            self.ended_with().ok_or_else(|| {
                let lines = self.stderr.so_far();
                format!("it runs; last on standard error: {:?}", lines.last())
            })
        });
        Ended {
            status,
            stdout: self.stdout.all(),
            stderr: self.stderr.all(),
        }
    }

    /// How it ended, if it has.
    ///
    /// # Panics
    /// When the operating system does not know it.
    pub fn ended_with(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is our child")
    }

    /// What it has printed on standard output so far, line by line.
    #[must_use]
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.so_far()
    }

    /// What it has printed on standard error so far, line by line.
    #[must_use]
    pub fn stderr(&self) -> Vec<String> {
        self.stderr.so_far()
    }

    /// Waits for a line on standard output for which `wanted` is true.
    ///
    /// # Panics
    /// When none has come by `deadline`, or the process has closed its output without one.
    pub fn wait_for_stdout(
        &self,
        what: &str,
        deadline: Instant,
        wanted: impl Fn(&str) -> bool,
    ) -> String {
        let line = self.stdout.find(deadline, wanted);
        line.unwrap_or_else(|lines| {
            let errors = self.stderr.so_far();
            panic!(
                "{}: no {what} in {lines:#?}; standard error: {errors:#?}",
                self.name
            )
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended, and been waited for, already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Starts a child from a thread that lives as long as this process: a child that dies with its
/// parent (`PR_SET_PDEATHSIG`) dies with the thread that started it, and the threads of tests end
/// early.
fn spawn(command: Command) -> Child {
    type Order = (Command, Sender<std::io::Result<Child>>);
    static ORDERS: LazyLock<Mutex<Sender<Order>>> = LazyLock::new(|| {
        let (orders, received) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, reply) in received {
                // Who asked waits for the reply.
                drop(reply.send(command.spawn()));
            }
        });
        Mutex::new(orders)
    });
    let (reply, child) = mpsc::channel();
    let program = format!("{command:?}");
    ORDERS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, reply))
        .expect("its thread never ends");
    let child = child.recv().expect("each order is answered");
    child.unwrap_or_else(|error| panic!("cannot run {program}: {error}"))
}

/// The lines of one output, collected by a thread of their own.
#[derive(Debug, Default)]
struct Lines {
    collected: Mutex<Collected>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Collected {
    lines: Vec<String>,
    complete: bool,
}

impl Lines {
    fn collect(output: impl Read + Send + 'static) -> Arc<Lines> {
        let lines = Arc::new(Lines::default());
        let collecting = Arc::clone(&lines);
        thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n') {
                let Ok(line) = line else { break };
                let line = String::from_utf8_lossy(&line);
                let line = line.strip_suffix('\r').unwrap_or(&line).to_owned();
                collecting.lock().lines.push(line);
                collecting.changed.notify_all();
            }
            collecting.lock().complete = true;
            collecting.changed.notify_all();
        });
        lines
    }

    fn so_far(&self) -> Vec<String> {
        self.lock().lines.clone()
    }

    /// All of them, once the process has ended. A grandchild may hold the output open, so that its
    /// end is not waited for without limit.
    fn all(&self) -> Vec<String> {
        let deadline = deadline();
        let mut collected = self.lock();
        while !collected.complete {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                break;
            };
            let waited = self.changed.wait_timeout(collected, left);
            collected = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        collected.lines.clone()
    }

    /// The first line for which `wanted` is true, or all lines if none came by `deadline`.
    fn find(
        &self,
        deadline: Instant,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<String, Vec<String>> {
        let mut collected = self.lock();
        loop {
            if let Some(line) = collected.lines.iter().find(|line| wanted(line)) {
                return Ok(line.clone());
            }
            let left = deadline.checked_duration_since(Instant::now());
            let (Some(left), false) = (left, collected.complete) else {
                return Err(collected.lines.clone());
            };
            let waited = self.changed.wait_timeout(collected, left);
            collected = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Collected> {
        self.collected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
