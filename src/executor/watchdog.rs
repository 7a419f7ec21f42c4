//! The watchdog: a process beside the server that kills it when it is not fed.
//!
//! A master with `k = 0` may go on only as long as its executor has proof that it was not replaced. An executor that
//! is stopped, or hangs, cannot see that its proof is too old. The watchdog can: it knows nothing but the server's
//! process group and the time at which it was last fed.
//!
//! * **Food** is a byte on a pipe, written by the executor after each check that was passed. When the pipe is closed
//!   without `STAND_DOWN`, the executor has ended, and the server must.
//! * **It kills nobody else**: it is started with a descriptor of the server's process (`pidfd_open(2)`), made
//!   while the executor had not reaped that; a number may belong to a stranger later, a descriptor never does.
//! * **It leaves nothing behind**: it ends when the server has ended, and with the executor, by a death signal.
//!
//! The pipe is its standard input and the descriptor its standard output, so that it needs no other way to get them.

use std::{
    io::{self, PipeReader, PipeWriter, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::signal::Signal,
};
use tracing::{info, warn};

use super::mysqld::{Group, Process, SpawnError, Spawner};

/// What it is fed with.
const FOOD: u8 = b'f';

/// What tells it to end and to leave the server alone.
const STAND_DOWN: u8 = b'q';

/// A watchdog cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum WatchdogError {
    /// The server has ended.
    #[error("the server has ended")]
    NoServer,
    /// The system refuses what it needs.
    #[error("a pipe to it, or a descriptor of the server's process, cannot be made")]
    Descriptor(#[source] io::Error),
    /// Its process does not start.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}

/// A running watchdog, on the executor's side. Dropping it ends it and leaves the server alone.
#[derive(Debug)]
pub struct Watchdog {
    process: Process,
    food: PipeWriter,
}

impl Watchdog {
    /// Starts one for a server.
    ///
    /// # Errors
    /// When the server has ended, or the system has no process or descriptor left.
    pub async fn start(
        spawner: &Spawner,
        server: &Group,
        patience: Duration,
    ) -> Result<Self, WatchdogError> {
        let opened = server.with_pid(|pid| open(pid).map(|fd| (pid, fd)));
        let (pid, server) = opened
            .ok_or(WatchdogError::NoServer)?
            .map_err(WatchdogError::Descriptor)?;
        let (feeder, food) = feeder().map_err(WatchdogError::Descriptor)?;
        // The file that this process was started from, also when another stands in its place by now.
        let mut command = Command::new("/proc/self/exe");
        command
            .arg("watchdog")
            .arg(pid.to_string())
            .arg(patience.as_millis().to_string())
            .env_clear()
            .stdin(feeder)
            .stdout(Stdio::from(server));
        let process = spawner.spawn_command(command).await?;
        Ok(Self { process, food })
    }

    /// Feeds it. A pipe that is full or closed belongs to a watchdog that does not run: it needs no food, and its
    /// end is told by [`Watchdog::ended`].
    pub fn feed(&self) {
        let _ = (&self.food).write(&[FOOD]);
    }

    /// What waits for its end.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut process = self.process.watcher();
        async move {
            let _ = process.wait_for(Option::is_some).await;
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // Before the pipe is closed, which would mean something else; then the process is killed.
        let _ = (&self.food).write(&[STAND_DOWN]);
    }
}

/// A pipe whose writing end never blocks: the executor must not wait for a watchdog.
fn feeder() -> io::Result<(PipeReader, PipeWriter)> {
    let (reader, writer) = io::pipe()?;
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((reader, writer))
}

fn open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and gives a new descriptor, closed by exec, or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and belongs to nobody else. Descriptors are ints.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

// === the process ===

/// Watches until the server has ended or the watchdog is told to stand down; kills the server when it is not fed for
/// so long. `group` is the number of the server's process, whose descriptor is the standard output.
///
/// # Errors
/// When the descriptors cannot be waited for. The server is killed then.
pub fn run(group: i32, patience: Duration) -> io::Result<()> {
    let (stdin, stdout) = (io::stdin(), io::stdout());
    let ending = watch(stdin.as_fd(), stdout.as_fd(), patience);
    match &ending {
        Ok(Ending::StandDown) => return Ok(()),
        Ok(Ending::Over | Ending::Starved | Ending::Orphaned) | Err(_) => {}
    }
    // First the deed; nobody may read the log.
    kill_group(group, stdout.as_fd());
    match ending? {
        Ending::StandDown | Ending::Over => info!("the server has ended"),
        Ending::Starved => warn!(group, ?patience, "not fed in time: the server was killed"),
        Ending::Orphaned => warn!(group, "the executor has ended: the server was killed"),
    }
    Ok(())
}

/// Why a watch ends.
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    /// It was told to.
    StandDown,
    /// The server has ended.
    Over,
    /// It was not fed in time.
    Starved,
    /// Nobody is left who could feed it.
    Orphaned,
}

fn watch(food: BorrowedFd<'_>, server: BorrowedFd<'_>, patience: Duration) -> io::Result<Ending> {
    let mut fed = Instant::now();
    loop {
        let left = patience.saturating_sub(fed.elapsed());
        if left.is_zero() {
            return Ok(Ending::Starved);
        }
        let [has_food, has_ended] = wait([food, server], left)?;
        if has_ended {
            return Ok(Ending::Over);
        }
        if has_food {
            let mut eaten = [0; 64];
            let n = nix::unistd::read(food, &mut eaten)?;
            match &eaten[..n] {
                [] => return Ok(Ending::Orphaned),
                eaten if eaten.contains(&STAND_DOWN) => return Ok(Ending::StandDown),
                _ => fed = Instant::now(),
            }
        }
    }
}

/// Which of the descriptors have something to tell, after so long at the most.
fn wait(of: [BorrowedFd<'_>; 2], limit: Duration) -> io::Result<[bool; 2]> {
    let mut polled = of.map(|fd| libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    });
    // A millisecond more than the rest, which is cut off: else the last millisecond is spent in a loop.
    let limit = i32::try_from(limit.as_millis()).map_or(i32::MAX, |limit| limit.saturating_add(1));
    // SAFETY: the array has two elements and lives longer than the call.
    let found = unsafe { libc::poll(polled.as_mut_ptr(), 2, limit) };
    if found < 0 {
        let error = io::Error::last_os_error();
        return match error.kind() {
            io::ErrorKind::Interrupted => Ok([false; 2]),
            _ => Err(error),
        };
    }
    Ok(polled.map(|polled| polled.revents != 0))
}

/// Kills every process of a group whose leader has this descriptor.
///
/// The leader first: once it is dead nothing new is acknowledged, if it is the server itself. Then the others, which
/// there are where a package starts its server without `exec`. As long as the leader is not reaped its number is taken, and with it
/// that of the group; whether that was so while they were looked for is asked after it.
fn kill_group(group: i32, leader: BorrowedFd<'_>) {
    let _ = send(leader, Signal::SIGKILL as i32);
    loop {
        let others = others(group);
        if others.is_empty() || send(leader, 0).is_err() {
            return;
        }
        for other in others {
            let _ = send(other.as_fd(), Signal::SIGKILL as i32);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The processes of a group that have not ended, without its leader.
fn others(group: i32) -> Vec<OwnedFd> {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = processes
        .flatten()
        .filter_map(|process| process.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| *pid != group && super::mysqld::is_in_group(*pid, group))
        .filter_map(|pid| open(pid).ok().map(|fd| (pid, fd)))
        // The number may have got to another process before it was opened.
        .filter(|(pid, _)| super::mysqld::is_in_group(*pid, group))
        .map(|(_, fd)| fd)
        .collect()
}

fn send(process: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let info: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: pidfd_send_signal takes a descriptor, a signal, no siginfo and no flags.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            signal,
            info,
            0,
        )
    };
    if sent == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
