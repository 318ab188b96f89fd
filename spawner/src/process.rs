//! One server as a child process: started, waited for, stopped.

use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::SERVER;
use crate::console::Console;
use crate::plan::{Arguments, Followers, Plan};
use crate::relay::relay;

/// How long a server may take to stop before it is killed.
pub(crate) const STOP_TIME_MAX: Duration = Duration::from_secs(5);

/// What is asked of all servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Order {
    Run,
    /// Stop cleanly, within `STOP_TIME_MAX`.
    Stop,
    /// Stop at once.
    Kill,
}

/// How a server ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) id: u64,
    pub(crate) status: io::Result<ExitStatus>,
    /// Whether it had been told to.
    pub(crate) order: Order,
}

/// Starts a server. It ends when this process does, however that is.
///
/// It has a process group of its own: a Ctrl-C in the terminal is meant for the spawner, which
/// tells the servers.
pub(crate) fn start(
    program: &PathBuf,
    plan: &Plan,
    arguments: &Arguments,
    id: u64,
) -> io::Result<Child> {
    let mut command = Command::new(program);
    command
        .arg(SERVER)
        .arg("--id")
        .arg(id.to_string())
        .arg("--config")
        .arg(&plan.config)
        .arg("--data-dir")
        .arg(plan.directory(id))
        .arg(format!("--die-with-parent={}", std::process::id()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    if let Some(followers) = arguments.followers {
        let mode = match followers {
            Followers::Redirect => "redirect",
            Followers::Forward => "forward",
        };
        command.arg("--followers").arg(mode);
    }
    if let Some(backup) = &arguments.restore {
        command.arg("--restore").arg(backup);
    }
    command.spawn()
}

/// Shows what the server says and carries out the orders, until it has ended.
pub(crate) async fn attend(
    id: u64,
    mut child: Child,
    mut orders: watch::Receiver<Order>,
    console: Console,
) -> Ended {
    let output = child.stdout.take().expect("it was started with a pipe");
    let errors = child.stderr.take().expect("it was started with a pipe");
    let output = tokio::spawn(relay(id, output, console.clone()));
    let errors = tokio::spawn(relay(id, errors, console.clone()));
    let ended = tokio::select! {
        status = child.wait() => Some(status),
        () = ordered(&mut orders, Order::Stop) => None,
    };
    let status = match ended {
        Some(status) => status,
        None => stop(id, &mut child, &mut orders, &console).await,
    };
    let order = *orders.borrow();
    for relayed in [output, errors] {
        relayed.await.expect("relaying does not panic");
    }
    Ended { id, status, order }
}

async fn stop(
    id: u64,
    child: &mut Child,
    orders: &mut watch::Receiver<Order>,
    console: &Console,
) -> io::Result<ExitStatus> {
    // Without an id it has ended already.
    if let Some(pid) = child.id() {
        let pid = Pid::from_raw(pid.try_into().expect("Linux has no larger ids"));
        // It is this process's child and not waited for yet, so the id is still its own.
        let _ = kill(pid, Signal::SIGTERM);
    }
    let waiting = async {
        tokio::select! {
            status = child.wait() => Some(status),
            () = ordered(orders, Order::Kill) => None,
        }
    };
    match timeout(STOP_TIME_MAX, waiting).await {
        Ok(Some(status)) => return status,
        Ok(None) => {}
        Err(_) => {
            let seconds = STOP_TIME_MAX.as_secs();
            console.line(&format!(
                "server {id} does not stop within {seconds} s: killed"
            ));
        }
    }
    child.start_kill()?;
    child.wait().await
}

/// Waits until this is the order, or a stricter one; so does the end of those who give orders.
async fn ordered(orders: &mut watch::Receiver<Order>, order: Order) {
    let _ = orders.wait_for(|given| *given >= order).await;
}
