//! Child processes that cannot outlive the test binary, and what `/proc` tells of others.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Spawns `command` in a process group of its own. It gets SIGTERM when the test binary ends, however
/// that ends.
pub fn spawn(mut command: Command) -> io::Result<Child> {
    command.process_group(0);
    super::shared::process::spawn(command, Signal::SIGTERM)
}

/// A process that was found in `/proc`. Its start time tells it from a later one with the same pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// The pid.
    pub pid: i32,
    /// When it was started, in clock ticks since the machine was.
    pub started: u64,
}

impl Process {
    /// The running process with this pid. One whose first thread has ended runs as long as it has others:
    /// until the last of them is gone, what it listens on is taken.
    pub fn find(pid: i32) -> Option<Self> {
        let stat = Stat::read(pid)?;
        (stat.state != "Z" || stat.threads > 1).then_some(Self {
            pid,
            started: stat.started,
        })
    }

    /// Whether it still runs.
    pub fn runs(&self) -> bool {
        Self::find(self.pid) == Some(*self)
    }

    /// SIGKILL.
    pub fn kill(&self) {
        assert!(self.runs(), "{self:?} has ended already");
        kill(Pid::from_raw(self.pid), Signal::SIGKILL).unwrap();
    }

    /// Any signal; after SIGSTOP it stands still.
    pub fn signal(&self, signal: Signal) {
        super::shared::process::signal(self.pid, signal);
    }

    /// SIGKILL, unless it ends by itself at this moment.
    pub fn kill_if_it_runs(&self) {
        if self.runs() {
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
    }

    /// Its parent.
    pub fn parent(&self) -> Self {
        Self::find(Stat::read(self.pid).unwrap().parent).unwrap()
    }

    /// Its children.
    pub fn children(&self) -> Vec<Self> {
        let mut children = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
                continue;
            };
            if Stat::read(pid).is_some_and(|stat| stat.parent == self.pid) {
                children.extend(Self::find(pid));
            }
        }
        children
    }

    /// Everything below it.
    pub fn descendants(&self) -> Vec<Self> {
        let mut all = self.children();
        let mut next = 0;
        while next < all.len() {
            let more = all[next].children();
            all.extend(more);
            next += 1;
        }
        all
    }

    /// Its arguments.
    pub fn arguments(&self) -> Vec<String> {
        let bytes = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        text.split('\0').map(str::to_owned).collect()
    }

    /// Its resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        self.memory_kib("VmRSS:")
    }

    /// What of its resident memory no file holds, in KiB. Pages of files, of which a debug binary has many, the kernel takes
    /// back when there is need.
    pub fn anonymous_kib(&self) -> u64 {
        self.memory_kib("RssAnon:")
    }

    /// The same of one that may end in this moment.
    pub fn anonymous_kib_if_it_runs(&self) -> Option<u64> {
        self.memory_of("RssAnon:")
    }

    fn memory_kib(&self, what: &str) -> u64 {
        self.memory_of(what).unwrap()
    }

    /// `None` if it has ended.
    fn memory_of(&self, what: &str) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(what))?;
        let number = line.trim().trim_end_matches("kB").trim();
        Some(number.parse().unwrap())
    }
}

/// What `/proc/<pid>/stat` says: proc(5).
struct Stat {
    state: String,
    parent: i32,
    threads: u64,
    started: u64,
}

impl Stat {
    fn read(pid: i32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name stands in parentheses and may hold anything.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        Some(Self {
            state: (*fields.first()?).to_owned(),
            parent: fields.get(1)?.parse().ok()?,
            threads: fields.get(17)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}
