//! Containers: a sandbox, its files, a process in a session of its own, and its end.
//!
//! One task per container. It reports what became of it to the agent's core, and when it reports the
//! end, nothing of the container runs any more.

use std::fs;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::unistd::{Gid, Uid, User};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::mesos::v1::CommandInfo;

use super::cgroup::Cgroups;
use super::core::{Launch, Process};
use super::executors::Limitation;
use super::volumes::{self, Mount};
use super::{fetch, processes};

/// How long the kernel may take to end killed processes before the agent says that it cannot.
const KILL_DEADLINE: Duration = Duration::from_secs(60);

/// How long the kernel may take from the event of used up memory to the count of its kill.
const KILL_COUNTED: Duration = Duration::from_millis(20);

/// What became of a container.
#[derive(Debug)]
pub enum Report {
    /// Its process runs.
    Started {
        container_id: String,
        process: Process,
    },
    /// It could not be made.
    Failed {
        container_id: String,
        message: String,
    },
    /// It is gone.
    Ended {
        container_id: String,
        status: i32,
        limitation: Option<Limitation>,
    },
}

/// What a container's task needs.
pub struct Container {
    /// What to start.
    pub launch: Launch,
    /// Where.
    pub sandbox: PathBuf,
    /// The agent's directory, below which volumes lie.
    pub work_dir: PathBuf,
    /// The volumes that it shows.
    pub mounts: Vec<Mount>,
    /// With which environment.
    pub variables: Vec<(String, String)>,
    /// None when limits are not enforced.
    pub cgroups: Option<Cgroups>,
    /// Whether to become the framework's user.
    pub switch_user: bool,
    /// Ends it.
    pub cancel: CancellationToken,
    /// Where to report.
    pub reports: mpsc::Sender<Report>,
}

impl Container {
    /// From the empty sandbox to the end.
    pub async fn run(self) {
        let container_id = self.launch.container_id.clone();
        let report = match self.start().await {
            Ok(Some(child)) => self.watch(child).await,
            // Given up while files were being fetched.
            Ok(None) => Report::Ended {
                container_id: container_id.clone(),
                status: 9,
                limitation: None,
            },
            Err(message) => Report::Failed {
                container_id: container_id.clone(),
                message,
            },
        };
        if let Some(cgroups) = &self.cgroups {
            cgroups.remove(&container_id);
        }
        let _ = self.reports.send(report).await;
    }

    async fn start(&self) -> Result<Option<tokio::process::Child>, String> {
        let user = self.user()?;
        self.make_sandbox(user.as_ref())
            .map_err(|error| format!("Failed to make the sandbox: {error}"))?;
        volumes::link(&self.work_dir, &self.sandbox, &self.mounts)
            .map_err(|error| format!("Failed to link persistent volumes: {error}"))?;
        let command = self.launch.executor.command.clone().unwrap_or_default();
        tokio::select! {
            fetched = self.fetch(&command) => fetched?,
            () = self.cancel.cancelled() => return Ok(None),
        }
        if let Some(user) = &user {
            own(&self.sandbox, user.uid, user.gid)
                .map_err(|error| format!("Failed to hand over the sandbox: {error}"))?;
        }
        let child = self.spawn(&command, user.as_ref())?;
        Ok(Some(child))
    }

    /// The user to become; none when the agent cannot or must not change.
    fn user(&self) -> Result<Option<User>, String> {
        if !self.switch_user {
            return Ok(None);
        }
        let stated = self
            .launch
            .executor
            .command
            .as_ref()
            .and_then(|command| command.user.clone());
        let name = stated.unwrap_or_else(|| self.launch.framework.user.clone());
        match User::from_name(&name) {
            Ok(Some(user)) => Ok(Some(user)),
            Ok(None) => Err(format!(
                "Failed to get user information for '{name}': no such user"
            )),
            Err(error) => Err(format!(
                "Failed to get user information for '{name}': {error}"
            )),
        }
    }

    fn make_sandbox(&self, user: Option<&User>) -> io::Result<()> {
        fs::create_dir_all(&self.sandbox)?;
        for name in ["stdout", "stderr"] {
            fs::File::create(self.sandbox.join(name))?;
        }
        if let (Some(runs), Some(name)) = (self.sandbox.parent(), self.sandbox.file_name()) {
            let latest = runs.join("latest");
            let _ = fs::remove_file(&latest);
            std::os::unix::fs::symlink(runs.join(name), latest)?;
        }
        match user {
            Some(user) => own(&self.sandbox, user.uid, user.gid),
            None => Ok(()),
        }
    }

    async fn fetch(&self, command: &CommandInfo) -> Result<(), String> {
        for uri in &command.uris {
            if let Err(why) = fetch::fetch(uri, &self.sandbox).await {
                self.complain(&why);
                return Err(format!(
                    "Failed to fetch all URIs for container '{}': exited with status 1",
                    self.launch.container_id
                ));
            }
        }
        Ok(())
    }

    /// Writes to the sandbox's `stderr`, where people look.
    fn complain(&self, line: &str) {
        let file = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.sandbox.join("stderr"));
        if let Ok(mut file) = file {
            let _ = writeln!(file, "{line}");
        }
    }

    fn spawn(
        &self,
        command: &CommandInfo,
        user: Option<&User>,
    ) -> Result<tokio::process::Child, String> {
        let mut process = if command.shell() {
            let mut process = std::process::Command::new("/bin/sh");
            process.arg("-c").arg(command.value());
            process
        } else {
            use std::os::unix::process::CommandExt as _;
            let mut process = std::process::Command::new(command.value());
            if let Some((name, arguments)) = command.arguments.split_first() {
                process.arg0(name).args(arguments);
            }
            process
        };
        let output = |name: &str| {
            let file = fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(self.sandbox.join(name));
            file.map(Stdio::from)
                .map_err(|error| format!("Failed to open '{name}': {error}"))
        };
        process
            .env_clear()
            .envs(self.variables.iter().cloned())
            .current_dir(&self.sandbox);
        process
            .stdin(Stdio::null())
            .stdout(output("stdout")?)
            .stderr(output("stderr")?);
        let joins = self.join_files()?;
        become_container(&mut process, joins, user.map(identity).transpose()?);
        let mut process = tokio::process::Command::from(process);
        process.kill_on_drop(false).spawn().map_err(|error| {
            let why = format!("Failed to execute command: {error}");
            self.complain(&why);
            why
        })
    }

    fn join_files(&self) -> Result<Vec<fs::File>, String> {
        let Some(cgroups) = &self.cgroups else {
            return Ok(Vec::new());
        };
        let lists = cgroups
            .create(&self.launch.container_id, &self.launch.resources)
            .map_err(|error| format!("Failed to prepare isolators: {error}"))?;
        let open = |path: PathBuf| fs::OpenOptions::new().write(true).open(path);
        lists
            .into_iter()
            .map(open)
            .collect::<io::Result<_>>()
            .map_err(|error| format!("Failed to isolate: {error}"))
    }

    async fn watch(&self, mut child: tokio::process::Child) -> Report {
        let container_id = self.launch.container_id.clone();
        let leader = child.id().unwrap_or_default();
        if let Some(process) = processes::identify(leader) {
            let started = Report::Started {
                container_id: container_id.clone(),
                process,
            };
            let _ = self.reports.send(started).await;
        }
        let exited = tokio::select! {
            exited = child.wait() => Some(exited),
            () = self.cancel.cancelled() => None,
            () = memory_used_up(&container_id, self.cgroups.as_ref()) => None,
        };
        kill_everything(&container_id, leader, self.cgroups.as_ref()).await;
        let exited = match exited {
            Some(exited) => exited,
            None => child.wait().await,
        };
        let limitation = memory_limitation(&container_id, self.cgroups.as_ref());
        let status = exited.map_or(-1, ExitStatus::into_raw);
        Report::Ended {
            container_id,
            status,
            limitation,
        }
    }
}

/// Watches a container that a former run of the agent started.
pub async fn watch_recovered(
    container_id: String,
    process: Process,
    cgroups: Option<Cgroups>,
    cancel: CancellationToken,
    reports: mpsc::Sender<Report>,
) {
    tokio::select! {
        () = process_ended(process) => {}
        () = cancel.cancelled() => {}
        () = memory_used_up(&container_id, cgroups.as_ref()) => {}
    }
    kill_everything(&container_id, process.pid, cgroups.as_ref()).await;
    let limitation = memory_limitation(&container_id, cgroups.as_ref());
    if let Some(cgroups) = &cgroups {
        cgroups.remove(&container_id);
    }
    // It is no child of this process, so its status is not to be had.
    let _ = reports
        .send(Report::Ended {
            container_id,
            status: -1,
            limitation,
        })
        .await;
}

/// Waits for the end of a process that is no child.
async fn process_ended(process: Process) {
    // SAFETY: pidfd_open takes two integers and gives a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, process.pid, libc::PIDFD_NONBLOCK) };
    let Ok(fd) = i32::try_from(fd) else { return };
    if fd < 0 {
        return;
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // Between its record and now another process may have got the number.
    if processes::is_alive(process) {
        readable(fd).await;
    }
}

/// Waits until a descriptor has something to tell; not at all when it cannot be waited for.
async fn readable(fd: OwnedFd) {
    // SAFETY: the descriptor is owned by the registration and stays open as long as it.
    let registered = unsafe { AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE) };
    if let Ok(fd) = registered {
        let _ = fd.readable().await;
    }
}

/// Waits until the kernel had to kill something in a container for want of memory. Mesos then ends
/// the whole container, whatever it was that was killed.
async fn memory_used_up(container_id: &str, cgroups: Option<&Cgroups>) {
    let Some(cgroups) = cgroups else {
        return std::future::pending().await;
    };
    while cgroups.memory_kills(container_id) == 0 {
        match cgroups.watch_memory(container_id) {
            Ok(fd) => readable(fd).await,
            Err(error) => {
                tracing::warn!(%container_id, %error, "the container's memory cannot be watched");
                return std::future::pending().await;
            }
        }
        // The event comes before the kill is counted.
        tokio::time::sleep(KILL_COUNTED).await;
    }
}

/// Ends what is left of a container whose first process is gone, or was never written down because
/// the agent died right after it had started it.
pub async fn kill_leftovers(
    container_id: &str,
    process: Option<Process>,
    sandbox: &Path,
    cgroups: Option<&Cgroups>,
) {
    let entry = format!("MESOS_SANDBOX={}", sandbox.display());
    let find = || {
        let mut found = processes::with_environment(&entry);
        found.extend(
            process
                .map(|process| processes::session(process.pid))
                .unwrap_or_default(),
        );
        found.extend(
            cgroups
                .map(|cgroups| cgroups.processes(container_id))
                .unwrap_or_default(),
        );
        found
    };
    if !processes::kill_all(find, KILL_DEADLINE).await {
        tracing::error!(%container_id, "processes of the container do not end on SIGKILL");
    }
    if let Some(cgroups) = cgroups {
        cgroups.remove(container_id);
    }
}

/// Ends all that is left of a container.
pub async fn kill_everything(container_id: &str, leader: u32, cgroups: Option<&Cgroups>) {
    let find = || {
        let mut found = processes::session(leader);
        if let Some(cgroups) = cgroups {
            found.extend(cgroups.processes(container_id));
        }
        found
    };
    if !processes::kill_all(find, KILL_DEADLINE).await {
        tracing::error!(%container_id, "processes of the container do not end on SIGKILL");
    }
}

/// When the kernel killed something for memory, Mesos ends the container and says so.
fn memory_limitation(container_id: &str, cgroups: Option<&Cgroups>) -> Option<Limitation> {
    let kills = cgroups.map_or(0, |cgroups| cgroups.memory_kills(container_id));
    (kills > 0).then(|| Limitation {
        reason: crate::mesos::v1::task_status::Reason::ContainerLimitationMemory,
        message: "Memory limit exceeded".to_owned(),
    })
}

/// A user's ids, as the kernel takes them.
struct Identity {
    uid: Uid,
    gid: Gid,
    groups: Vec<libc::gid_t>,
}

fn identity(user: &User) -> Result<Identity, String> {
    let name = std::ffi::CString::new(user.name.clone()).map_err(|error| error.to_string())?;
    let groups = nix::unistd::getgrouplist(&name, user.gid)
        .map_err(|error| format!("Failed to get the groups of '{}': {error}", user.name))?;
    Ok(Identity {
        uid: user.uid,
        gid: user.gid,
        groups: groups.into_iter().map(Gid::as_raw).collect(),
    })
}

/// Between fork and exec: a session of its own, the control groups, then the user.
fn become_container(
    process: &mut std::process::Command,
    joins: Vec<fs::File>,
    user: Option<Identity>,
) {
    use std::os::unix::process::CommandExt as _;
    let enter = move || {
        let check = |result: libc::c_int| match result {
            0.. => Ok(()),
            _ => Err(io::Error::last_os_error()),
        };
        // SAFETY: all of these are async-signal-safe and work on memory made before the fork.
        unsafe {
            check(libc::setsid())?;
            for join in &joins {
                if libc::write(join.as_raw_fd(), b"0".as_ptr().cast(), 1) < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            if let Some(user) = &user {
                check(libc::setgroups(user.groups.len(), user.groups.as_ptr()))?;
                check(libc::setgid(user.gid.as_raw()))?;
                check(libc::setuid(user.uid.as_raw()))?;
            }
        }
        Ok(())
    };
    // SAFETY: the closure keeps to what is allowed between fork and exec, see above.
    unsafe { process.pre_exec(enter) };
}

/// Gives a directory and all in it to a user.
fn own(path: &Path, uid: Uid, gid: Gid) -> io::Result<()> {
    std::os::unix::fs::lchown(path, Some(uid.as_raw()), Some(gid.as_raw()))?;
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path)? {
            own(&entry?.path(), uid, gid)?;
        }
    }
    Ok(())
}
