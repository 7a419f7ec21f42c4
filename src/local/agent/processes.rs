//! Processes by number: whether one is still the same, and how to end all of a session.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::core::Process;

/// What `/proc/<pid>/stat` says; see proc_pid_stat(5).
struct Stat {
    parent: u32,
    session: u32,
    started: u64,
    zombie: bool,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, so fields are counted from behind it.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Stat {
        zombie: matches!(*fields.first()?, "Z" | "X"),
        parent: fields.get(1)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

/// The process that has this number now.
pub fn identify(pid: u32) -> Option<Process> {
    stat(pid).map(|stat| Process {
        pid,
        started: stat.started,
    })
}

/// True while it runs; a later process with its number does not count.
pub fn is_alive(process: Process) -> bool {
    stat(process.pid).is_some_and(|stat| stat.started == process.started && !stat.zombie)
}

fn all() -> Vec<(u32, Stat)> {
    let Ok(folder) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = folder
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, stat(pid)?)))
        .filter(|(_, stat)| !stat.zombie)
        .collect()
}

/// The processes of a session, those that its leader's children put into sessions of their own
/// included as long as their parents live.
pub fn session(leader: u32) -> BTreeSet<u32> {
    let all = all();
    let mut found: BTreeSet<u32> = all
        .iter()
        .filter(|(_, stat)| stat.session == leader)
        .map(|(pid, _)| *pid)
        .collect();
    descend(&all, &mut found);
    found
}

/// The processes that have this entry in their environment, as far as it may be read.
pub fn with_environment(entry: &str) -> BTreeSet<u32> {
    let has = |pid: u32| {
        let text = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        text.split(|byte| *byte == 0)
            .any(|one| one == entry.as_bytes())
    };
    let pids = all().into_iter().map(|(pid, _)| pid);
    pids.filter(|pid| has(*pid)).collect()
}

/// All processes below one.
pub fn descendants(root: u32) -> BTreeSet<u32> {
    let mut found = BTreeSet::from([root]);
    descend(&all(), &mut found);
    found.remove(&root);
    found
}

fn descend(all: &[(u32, Stat)], found: &mut BTreeSet<u32>) {
    loop {
        let children = all
            .iter()
            .filter(|(pid, stat)| found.contains(&stat.parent) && !found.contains(pid));
        let children: Vec<u32> = children.map(|(pid, _)| *pid).collect();
        if children.is_empty() {
            return;
        }
        found.extend(children);
    }
}

/// Sends SIGKILL to all that `find` gives until it gives none; false when some are left after
/// `deadline`.
pub async fn kill_all(mut find: impl FnMut() -> BTreeSet<u32>, deadline: Duration) -> bool {
    /// The kernel needs a moment to take a killed process apart; nothing tells when.
    const PAUSE: Duration = Duration::from_millis(5);
    let start = Instant::now();
    loop {
        let found = find();
        if found.is_empty() {
            return true;
        }
        for pid in found {
            // It may have ended by itself since.
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
        if start.elapsed() > deadline {
            return false;
        }
        tokio::time::sleep(PAUSE).await;
    }
}
