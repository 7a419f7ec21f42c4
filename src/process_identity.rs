//! Which process somebody is, and whether it is certain that it has ended.
//!
//! A process id alone is given to others in time. With the boot of the machine, the namespace in which the id counts
//! and the moment of its start it names one process for ever (proc(5), pid_namespaces(7)).

use std::{fs, io};

use serde::{Deserialize, Serialize};

/// Names one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// `/proc/sys/kernel/random/boot_id` of its machine.
    pub boot_id: String,
    /// The namespace in which [`Self::pid`] counts, as the link `/proc/self/ns/pid` shows it.
    pub pid_namespace: String,
    /// Its process id.
    pub pid: u32,
    /// When it was started, in clock ticks since the boot.
    pub start_time: u64,
}

impl ProcessIdentity {
    /// This process.
    ///
    /// # Errors
    /// When `/proc` is not there or not readable.
    pub fn own() -> io::Result<Self> {
        let pid = std::process::id();
        let stat = fs::read_to_string("/proc/self/stat")?;
        let (_, start_time) = state_and_start(&stat)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/self/stat"))?;
        Ok(Self {
            boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id")?
                .trim()
                .to_owned(),
            pid_namespace: fs::read_link("/proc/self/ns/pid")?.display().to_string(),
            pid,
            start_time,
        })
    }

    /// Whether this process has certainly ended, as `observer` can tell: only on the same machine and in the same
    /// namespace. False means nothing.
    pub fn has_ended(&self, observer: &Self) -> bool {
        let can_see =
            self.boot_id == observer.boot_id && self.pid_namespace == observer.pid_namespace;
        if !can_see {
            return false;
        }
        match fs::read_to_string(format!("/proc/{}/stat", self.pid)) {
            Ok(stat) => state_and_start(&stat).is_some_and(|(state, start_time)| {
                // A zombie waits for its parent only; it has no connection any more.
                start_time != self.start_time || matches!(state, 'Z' | 'X')
            }),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }
}

/// Fields 3 and 22 of a line of `/proc/<pid>/stat`; the name before them may hold anything (proc(5)).
fn state_and_start(stat: &str) -> Option<(char, u64)> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let start_time = fields.nth(18)?.parse().ok()?;
    Some((state, start_time))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_runs_has_not_ended() {
        let own = ProcessIdentity::own().unwrap();
        assert!(!own.has_ended(&own));
    }

    #[test]
    fn one_with_the_same_number_that_was_started_at_another_time_has() {
        let own = ProcessIdentity::own().unwrap();
        let former = ProcessIdentity {
            start_time: own.start_time - 1,
            ..own.clone()
        };
        assert!(former.has_ended(&own));
    }

    #[test]
    fn one_that_is_gone_has_ended() {
        let own = ProcessIdentity::own().unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        let gone = ProcessIdentity {
            pid,
            start_time: u64::MAX,
            ..own.clone()
        };
        assert!(gone.has_ended(&own));
    }

    #[test]
    fn nothing_is_said_of_other_machines_and_namespaces() {
        let own = ProcessIdentity::own().unwrap();
        let gone = ProcessIdentity {
            start_time: own.start_time - 1,
            ..own.clone()
        };
        let elsewhere = ProcessIdentity {
            boot_id: "another".to_owned(),
            ..gone.clone()
        };
        let contained = ProcessIdentity {
            pid_namespace: "pid:[1]".to_owned(),
            ..gone
        };
        assert!(!elsewhere.has_ended(&own));
        assert!(!contained.has_ended(&own));
    }
}
