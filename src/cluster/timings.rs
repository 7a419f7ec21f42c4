//! How soon an executor notices that something is wrong, and how long it waits before it acts.
//!
//! They are settings of the scheduler and travel in the task's data, so that a task keeps those that it
//! was launched with.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The times of detection and fencing. In JSON they are milliseconds; one that is missing has its default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timings {
    /// Between two checks of a server: a sign of life, and as master a commit where none was seen.
    /// Shorter notices sooner and costs an idle master more binlog: some 300 bytes for each check.
    #[serde(rename = "check_interval_ms", with = "millis")]
    pub check_interval: Duration,
    /// How long a server may give no sign of life before it is killed. A server under load answers in
    /// milliseconds; one whose host swaps may need seconds.
    #[serde(rename = "hang_timeout_ms", with = "millis")]
    pub hang_timeout: Duration,
    /// How long a master's commit may take. One that does not reach the disk for so long ends the server;
    /// one that is not acknowledged for so long has the voters connect anew, and for three times as long
    /// has the master replaced. A single big transaction holds up all others while it is written to the
    /// binlog, at the speed of the disk.
    #[serde(rename = "commit_timeout_ms", with = "millis")]
    pub commit_timeout: Duration,
    /// How long a master that is out of touch with ZooKeeper goes on without proof that it was not replaced.
    #[serde(rename = "master_lease_ms", with = "millis")]
    pub master_lease: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            check_interval: Duration::from_secs(1),
            hang_timeout: Duration::from_secs(3),
            commit_timeout: Duration::from_secs(10),
            // The executors' ZooKeeper session lasts as long.
            master_lease: Duration::from_secs(6),
        }
    }
}

mod millis {
    use super::{Deserialize, Duration};

    pub fn serialize<S: serde::Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(time.as_millis() as u64)
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn they_are_milliseconds_and_what_is_missing_has_its_default() {
        let timings: Timings = serde_json::from_str(r#"{"hang_timeout_ms": 1500}"#).unwrap();
        let hang_timeout = Duration::from_millis(1500);
        assert_eq!(
            timings,
            Timings {
                hang_timeout,
                ..Timings::default()
            }
        );
        let text = serde_json::to_string(&timings).unwrap();
        assert_eq!(serde_json::from_str::<Timings>(&text).unwrap(), timings);
    }
}
