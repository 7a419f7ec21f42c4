//! Child processes that are kept running, and that end with this one, however it ends.

use std::collections::VecDeque;
use std::fmt::Display;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc as blocking;
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};
use tokio::process::Child;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Before a part that ended is started again, so that one which cannot live does not take all cpus.
const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// A part that ended this often within [`GIVE_UP_WITHIN`] is not started again.
const MAX_RESTARTS: usize = 10;
const GIVE_UP_WITHIN: Duration = Duration::from_secs(30);

/// Between SIGTERM and SIGKILL. Agents need it for the grace period of their executors.
const STOP_GRACE: Duration = Duration::from_secs(20);

/// How much of a log is shown when a part cannot be kept running.
const SHOWN_LINES: usize = 15;

/// What is to be kept running.
#[derive(Debug, Clone)]
pub struct Program {
    name: String,
    binary: PathBuf,
    arguments: Vec<String>,
    directory: PathBuf,
    log: PathBuf,
    death_signal: Signal,
}

impl Program {
    /// A program whose log goes to `<work dir>/logs/<name>.log`.
    pub fn new(name: &str, binary: &Path, work_dir: &Path) -> Self {
        Self {
            name: name.to_owned(),
            binary: binary.to_owned(),
            arguments: Vec::new(),
            directory: work_dir.to_owned(),
            log: work_dir.join("logs").join(format!("{name}.log")),
            death_signal: Signal::SIGKILL,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn arguments<S: AsRef<str>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(
            arguments
                .into_iter()
                .map(|argument| argument.as_ref().to_owned()),
        );
        self
    }

    /// Adds an option and its value.
    #[must_use]
    pub fn option(self, name: &str, value: impl Display) -> Self {
        let value = value.to_string();
        self.arguments([name, value.as_str()])
    }

    /// What the kernel sends it when this process is gone.
    #[must_use]
    pub fn dies_by(mut self, signal: Signal) -> Self {
        self.death_signal = signal;
        self
    }

    fn command(&self) -> io::Result<Command> {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)?;
        let mut command = Command::new(&self.binary);
        command.args(&self.arguments).current_dir(&self.directory);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        // In a group of its own: Ctrl-C reaches this process only, which then ends them in order.
        command.process_group(0);
        let signal = self.death_signal;
        let parent = Pid::this();
        let tie = move || {
            prctl::set_pdeathsig(signal)?;
            // If this process died before that, nothing would come any more.
            if getppid() == parent {
                Ok(())
            } else {
                Err(io::Error::other("the parent is gone"))
            }
        };
        // SAFETY: only prctl and getppid are called between fork and exec.
        unsafe { command.pre_exec(tie) };
        Ok(command)
    }

    /// The last lines of its log.
    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
    }
}

type Order = (
    Command,
    blocking::Sender<io::Result<Child>>,
    tokio::runtime::Handle,
);

/// The kernel's death signal fires when the *thread* that made the child ends; so all children are
/// made by one thread that lives as long as the process.
fn spawner() -> blocking::Sender<Order> {
    let (orders, inbox) = blocking::channel::<Order>();
    std::thread::spawn(move || {
        for (command, reply, runtime) in inbox {
            let _entered = runtime.enter();
            let mut command = tokio::process::Command::from(command);
            let _ = reply.send(command.kill_on_drop(true).spawn());
        }
        // Children outlive the last order.
        loop {
            std::thread::park();
        }
    });
    orders
}

/// All parts, in the order in which they were started.
pub struct Services {
    running: Vec<(CancellationToken, JoinHandle<()>)>,
    spawner: blocking::Sender<Order>,
    restart: bool,
    failures: mpsc::Sender<String>,
    failed: mpsc::Receiver<String>,
    logs: PathBuf,
}

impl Services {
    /// Nothing yet. With `restart`, a part that ends is started again.
    pub fn new(restart: bool) -> Self {
        let (failures, failed) = mpsc::channel(16);
        let logs = PathBuf::new();
        Self {
            running: Vec::new(),
            spawner: spawner(),
            restart,
            failures,
            failed,
            logs,
        }
    }

    /// Starts a part and keeps it running.
    pub fn start(&mut self, program: Program) {
        self.logs = program.log.parent().unwrap_or(Path::new("")).to_owned();
        let cancel = CancellationToken::new();
        let keeper = Keeper {
            program,
            spawner: self.spawner.clone(),
            restart: self.restart,
            failures: self.failures.clone(),
            cancel: cancel.clone(),
        };
        self.running.push((cancel, tokio::spawn(keeper.run())));
    }

    /// Waits until a part cannot be kept running, and says which and why.
    pub async fn given_up(&mut self) -> String {
        match self.failed.recv().await {
            Some(failure) => failure,
            // This object holds a sender itself.
            None => std::future::pending().await,
        }
    }

    /// Where the logs are.
    pub fn logs(&self) -> String {
        self.logs.display().to_string()
    }

    /// Ends all parts, the last one first, each with time to end in order. The agents end together,
    /// as each may wait for its executors.
    pub async fn stop_all(&mut self) {
        let mut parts: VecDeque<_> = self.running.drain(..).rev().collect();
        // The scheduler, if any, goes before what it uses; the rest is asked at once.
        if let Some((cancel, ended)) = parts.pop_front() {
            cancel.cancel();
            let _ = ended.await;
        }
        // ZooKeeper and the master were started first and go last.
        let last = parts.split_off(parts.len().saturating_sub(2));
        for group in [parts, last] {
            for (cancel, _) in &group {
                cancel.cancel();
            }
            for (_, ended) in group {
                let _ = ended.await;
            }
        }
    }
}

/// Keeps one part running.
struct Keeper {
    program: Program,
    spawner: blocking::Sender<Order>,
    restart: bool,
    failures: mpsc::Sender<String>,
    cancel: CancellationToken,
}

impl Keeper {
    async fn run(self) {
        let name = &self.program.name;
        let mut ends: VecDeque<Instant> = VecDeque::new();
        loop {
            let mut child = match self.spawn() {
                Ok(child) => child,
                Err(error) => {
                    let binary = self.program.binary.display();
                    return self
                        .give_up(format!("start {name} ({binary}): {error}"))
                        .await;
                }
            };
            let ended = tokio::select! {
                ended = child.wait() => ended,
                () = self.cancel.cancelled() => return stop(&mut child).await,
            };
            let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
            ends.push_back(Instant::now());
            ends.retain(|at| at.elapsed() < GIVE_UP_WITHIN);
            if ends.len() >= MAX_RESTARTS {
                let words = self.program.last_words();
                let log = self.program.log.display();
                return self
                    .give_up(format!(
                        "{name} ended {MAX_RESTARTS} times ({how}); {log} ends with:\n{words}"
                    ))
                    .await;
            }
            if !self.restart {
                tracing::warn!(part = %name, %how, "a part ended");
                return self.cancel.cancelled().await;
            }
            tracing::warn!(part = %name, %how, "a part ended and is started again");
            tokio::select! {
                () = tokio::time::sleep(RESTART_PAUSE) => {}
                () = self.cancel.cancelled() => return,
            }
        }
    }

    fn spawn(&self) -> io::Result<Child> {
        let (reply, answer) = blocking::channel();
        let order = (
            self.program.command()?,
            reply,
            tokio::runtime::Handle::current(),
        );
        self.spawner
            .send(order)
            .map_err(|_| io::Error::other("the spawning thread is gone"))?;
        answer
            .recv()
            .map_err(|_| io::Error::other("the spawning thread is gone"))?
    }

    async fn give_up(&self, why: String) {
        // The first failure ends everything; later ones need not be told.
        let _ = self.failures.try_send(why);
        self.cancel.cancelled().await;
    }
}

/// SIGTERM, then SIGKILL.
async fn stop(child: &mut Child) {
    if let Some(pid) = child.id() {
        let pid = Pid::from_raw(pid.cast_signed());
        // It may be stopped, and would then not see the other one.
        let _ = kill(pid, Signal::SIGTERM);
        let _ = kill(pid, Signal::SIGCONT);
    }
    if tokio::time::timeout(STOP_GRACE, child.wait())
        .await
        .is_err()
    {
        let _ = child.kill().await;
    }
}
