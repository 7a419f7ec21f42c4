//! The server process: started so that it cannot outlive the executor, watched, stopped, fenced.
//!
//! * **A process group of its own**, so that a fence reaches whatever the server started.
//! * **A parent-death signal** (`PR_SET_PDEATHSIG`, `prctl(2)`): the kernel sends SIGKILL to the
//!   server when the *thread* that started it ends. All servers are therefore started by one thread
//!   that lives as long as the executor ([`Spawner`]). Changing the uid in the server would clear
//!   the signal, so the executor itself runs as the framework's user and the server never gets a
//!   `--user` other than that.
//! * **Its end is noticed at once**: a thread waits for it. The process is reaped only after it was
//!   marked as ended, so that no signal can ever go to a stranger that got its number.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, killpg},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};
use tokio::sync::{oneshot, watch};

/// How long the rest of a process group may take to vanish after SIGKILL. The kernel needs
/// microseconds, unless a process hangs in a disk operation; then waiting for longer would not help.
const GROUP_END: Duration = Duration::from_secs(5);

/// The server's process, or a tool's, cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The log cannot be opened.
    #[error("the log {path} cannot be opened")]
    OpenLog {
        /// The log.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The thread that starts processes cannot be started or has ended.
    #[error("the thread that starts processes does not run")]
    Thread(#[source] io::Error),
    /// The program does not start.
    #[error("{program} cannot be started")]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// A program and what it is started with. The environment of the executor is not handed on: it
/// holds what Mesos gives to the executor alone, a token among it.
#[derive(Debug, Clone)]
pub struct Program {
    /// The file to execute.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<std::ffi::OsString>,
    /// Where it starts.
    pub working_directory: PathBuf,
    /// What it prints is appended here.
    pub log: PathBuf,
}

/// The thread that starts processes. It ends when every clone of this value is gone, and what it
/// started dies with it.
#[derive(Debug, Clone)]
pub struct Spawner {
    requests: mpsc::Sender<Request>,
}

#[derive(Debug)]
struct Request {
    command: Command,
    reply: oneshot::Sender<io::Result<Process>>,
}

/// A process that was started, in a group of its own. Dropping it kills the group.
#[derive(Debug)]
pub struct Process {
    group: Group,
    ended: watch::Receiver<Option<ExitStatus>>,
}

/// The process group of a [`Process`]: what signals are sent to.
#[derive(Debug, Clone)]
pub struct Group {
    /// `None` once the process has ended: its number may belong to a stranger then.
    pid: Arc<Mutex<Option<Pid>>>,
}

// === impl Spawner ===

impl Spawner {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start() -> Result<Self, SpawnError> {
        let (requests, receiver) = mpsc::channel::<Request>();
        thread::Builder::new()
            .name("spawner".to_owned())
            .spawn(move || {
                for Request { command, reply } in receiver {
                    // When nobody waits for the answer any more, the process is dropped, which
                    // kills it.
                    let _ = reply.send(Process::start(command));
                }
            })
            .map_err(SpawnError::Thread)?;
        Ok(Self { requests })
    }

    /// Starts a program in a process group of its own, with nothing on its standard input, output
    /// and errors appended to its log.
    ///
    /// # Errors
    /// When the log cannot be opened or the program cannot be executed.
    pub async fn spawn(&self, program: &Program) -> Result<Process, SpawnError> {
        self.spawn_between(program, Stdio::null(), None).await
    }

    /// The same for a tool that reads a stream or writes one. Without an output, what it prints is appended to its
    /// log with its errors.
    ///
    /// # Errors
    /// As [`Spawner::spawn`].
    pub async fn spawn_between(
        &self,
        program: &Program,
        input: Stdio,
        output: Option<Stdio>,
    ) -> Result<Process, SpawnError> {
        let log = open_log(&program.log).map_err(|source| SpawnError::OpenLog {
            path: program.log.clone(),
            source,
        })?;
        let start = |source| SpawnError::Start {
            program: program.path.clone(),
            source,
        };
        let output = match output {
            Some(output) => output,
            None => log.try_clone().map_err(start)?.into(),
        };
        let mut command = Command::new(&program.path);
        command
            .args(&program.arguments)
            .current_dir(&program.working_directory)
            .env_clear()
            .envs(handed_on())
            .stdin(input)
            .stdout(output)
            .stderr(log);
        self.spawn_command(command).await
    }

    /// Starts a command as it is, in a process group of its own.
    ///
    /// # Errors
    /// When the program cannot be executed.
    pub async fn spawn_command(&self, mut command: Command) -> Result<Process, SpawnError> {
        let program = PathBuf::from(command.get_program());
        command.process_group(0);
        let (reply, answer) = oneshot::channel();
        let ended = |_| SpawnError::Thread(io::ErrorKind::BrokenPipe.into());
        self.requests
            .send(Request { command, reply })
            .map_err(|_| SpawnError::Thread(io::ErrorKind::BrokenPipe.into()))?;
        let start = |source| SpawnError::Start { program, source };
        answer.await.map_err(ended)?.map_err(start)
    }
}

/// What a child needs of the environment: the search path of its scripts, and where and when it is.
fn handed_on() -> impl Iterator<Item = (&'static str, std::ffi::OsString)> {
    ["PATH", "TZ", "LANG", "LC_ALL", "LD_LIBRARY_PATH"]
        .into_iter()
        .filter_map(|name| std::env::var_os(name).map(|value| (name, value)))
}

fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

// === impl Process ===

impl Process {
    /// Called on the spawner's thread only: the death signal is tied to it.
    fn start(mut command: Command) -> io::Result<Self> {
        let parent = std::process::id();
        // SAFETY: between fork and exec only async-signal-safe calls are made (prctl, getppid).
        unsafe {
            command.pre_exec(move || {
                nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
                // The executor may have died before the signal was asked for.
                if nix::unistd::getppid().as_raw() as u32 != parent {
                    return Err(Errno::ESRCH.into());
                }
                Ok(())
            });
        }
        let mut child = command.spawn()?;
        let pid = Pid::from_raw(child.id() as i32);
        let group = Group {
            pid: Arc::new(Mutex::new(Some(pid))),
        };
        let (sender, ended) = watch::channel(None);
        let watched = group.clone();
        let watcher = thread::Builder::new()
            .name("wait".to_owned())
            .spawn(move || {
                // WNOWAIT leaves the process unreaped, so that its number stays taken until nobody can
                // send it a signal any more.
                while let Err(Errno::EINTR) =
                    waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
                {
                }
                end_group(pid);
                *watched.lock() = None;
                // SIGKILL stands for an end of which nothing is known.
                let status = child.wait().unwrap_or(ExitStatus::from_raw(libc::SIGKILL));
                let _ = sender.send(Some(status));
            });
        if let Err(error) = watcher {
            // Without a watcher its end would go unnoticed.
            group.signal(Signal::SIGKILL);
            return Err(error);
        }
        Ok(Self { group, ended })
    }

    /// The group, for those who send signals while somebody else waits for the end.
    pub fn group(&self) -> Group {
        self.group.clone()
    }

    /// Tells of its end as [`Process::ended`] does, to those who do not own the process.
    pub fn watcher(&self) -> watch::Receiver<Option<ExitStatus>> {
        self.ended.clone()
    }

    /// Waits until the process has ended and nothing is left of its group.
    pub async fn ended(&mut self) -> ExitStatus {
        // The sender is gone only after it has sent; see `start`.
        match self.ended.wait_for(Option::is_some).await {
            Ok(status) => status.unwrap_or(ExitStatus::from_raw(libc::SIGKILL)),
            Err(_) => ExitStatus::from_raw(libc::SIGKILL),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.group.signal(Signal::SIGKILL);
    }
}

/// Kills what is left of a group whose leader has ended, and waits until it is gone: an end must
/// not be reported while something of the server still runs, such as a server whose package starts
/// it without `exec`.
fn end_group(leader: Pid) {
    let begun = Instant::now();
    // The leader itself, not reaped yet, does not count as a process that could be killed: Linux
    // accepts the signal for it. What else is in the group is asked of /proc.
    while others_in_group(leader) && begun.elapsed() < GROUP_END {
        let _ = killpg(leader, Signal::SIGKILL);
        thread::sleep(Duration::from_millis(1));
    }
}

/// Whether a process other than its leader is in a group. A process that has ended and waits to be
/// reaped by its parent does not count.
fn others_in_group(leader: Pid) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return false;
    };
    processes.flatten().any(|process| {
        let name = process.file_name();
        let pid = name.to_str().and_then(|name| name.parse::<i32>().ok());
        pid.is_some_and(|pid| pid != leader.as_raw() && is_in_group(pid, leader.as_raw()))
    })
}

/// Whether a process is in a group and has not ended.
pub(super) fn is_in_group(pid: i32, group: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    // `pid (name) state ppid pgrp ...`; the name may hold anything (proc(5)).
    let mut fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    let (state, found) = (fields.next(), fields.nth(1));
    state != Some("Z") && found.and_then(|found| found.parse::<i32>().ok()) == Some(group)
}

// === impl Group ===

impl Group {
    /// Sends a signal to every process of the group; nothing happens when it has ended.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = *self.lock() {
            // The only failure left is that the group is gone, which is what a signal is for.
            let _ = killpg(pid, signal);
        }
    }

    /// The process id of the group's leader, while it has not ended.
    pub fn pid(&self) -> Option<i32> {
        self.lock().map(Pid::as_raw)
    }

    /// Does something with the leader's process id while that cannot become a stranger's; `None` when it has ended.
    pub fn with_pid<T>(&self, work: impl FnOnce(i32) -> T) -> Option<T> {
        let pid = self.lock();
        pid.map(|pid| work(pid.as_raw()))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Pid>> {
        // Nothing panics while it holds the lock.
        self.pid.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn shell(script: &str, folder: &Path) -> Program {
        Program {
            path: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            working_directory: folder.to_owned(),
            log: folder.join("log"),
        }
    }

    /// Waits for a process to print a line, which tells that it has come that far.
    async fn line(log: &Path) -> String {
        let begun = Instant::now();
        loop {
            let text = std::fs::read_to_string(log).unwrap_or_default();
            if text.ends_with('\n') {
                return text.trim().to_owned();
            }
            assert!(
                begun.elapsed() < Duration::from_secs(10),
                "nothing was printed"
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn runs(pid: i32) -> bool {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
            !stat
                .rsplit(')')
                .next()
                .unwrap_or("")
                .trim_start()
                .starts_with('Z')
        })
    }

    #[tokio::test]
    async fn an_end_is_noticed_with_its_status() {
        let temp = tempfile::tempdir().unwrap();
        let spawner = Spawner::start().unwrap();
        let mut process = spawner.spawn(&shell("exit 3", temp.path())).await.unwrap();
        assert_eq!(process.ended().await.code(), Some(3));
        assert_eq!(
            process.group().pid(),
            None,
            "no signal may reach its number any more"
        );
    }

    /// Goal: a fence leaves nothing of the group, even where the leader has a child of its own that
    /// ignores TERM. Method: the child's number is printed; after the end it must not run.
    #[tokio::test]
    async fn a_fence_reaches_the_whole_group() {
        let temp = tempfile::tempdir().unwrap();
        let spawner = Spawner::start().unwrap();
        let script = "(trap '' TERM; exec sleep 60) & echo $!; wait";
        let mut process = spawner.spawn(&shell(script, temp.path())).await.unwrap();
        let child: i32 = line(&temp.path().join("log")).await.parse().unwrap();
        assert!(runs(child));
        process.group().signal(Signal::SIGKILL);
        assert_eq!(process.ended().await.signal(), Some(libc::SIGKILL));
        assert!(!runs(child));
    }

    #[tokio::test]
    async fn a_leader_that_ends_takes_its_group_along() {
        let temp = tempfile::tempdir().unwrap();
        let spawner = Spawner::start().unwrap();
        let script = "sleep 60 & echo $!";
        let mut process = spawner.spawn(&shell(script, temp.path())).await.unwrap();
        let child: i32 = line(&temp.path().join("log")).await.parse().unwrap();
        assert!(process.ended().await.success());
        assert!(!runs(child));
    }

    #[tokio::test]
    async fn what_mesos_tells_the_executor_alone_is_not_handed_on() {
        let temp = tempfile::tempdir().unwrap();
        let spawner = Spawner::start().unwrap();
        let mut process = spawner.spawn(&shell("env", temp.path())).await.unwrap();
        process.ended().await;
        let environment = std::fs::read_to_string(temp.path().join("log")).unwrap();
        for variable in environment.lines() {
            let name = variable.split('=').next().unwrap();
            assert!(
                [
                    "PATH",
                    "TZ",
                    "LANG",
                    "LC_ALL",
                    "LD_LIBRARY_PATH",
                    "PWD",
                    "SHLVL",
                    "_",
                    "OLDPWD"
                ]
                .contains(&name),
                "{variable}"
            );
        }
    }

    #[tokio::test]
    async fn a_program_that_does_not_exist_is_an_error() {
        let temp = tempfile::tempdir().unwrap();
        let spawner = Spawner::start().unwrap();
        let program = Program {
            path: "/does/not/exist".into(),
            ..shell("", temp.path())
        };
        let error = spawner.spawn(&program).await.unwrap_err();
        assert_eq!(error.to_string(), "/does/not/exist cannot be started");
    }
}
