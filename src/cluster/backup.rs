//! The words of backups: their ids, where they are stored, and what is stored and told of one that is being made or
//! restored.
//!
//! `docs/design/backup.md` has the layout of a store and the course of a backup.

mod archive;
mod restore;

use std::{fmt, str::FromStr, time::Duration, time::UNIX_EPOCH};

use serde::{Deserialize, Serialize};

pub use self::{
    archive::{ArchiveOrder, ArchiveReport},
    restore::{InvalidRestorePoint, Part, Replay, Restore, RestoreFrom, RestorePoint},
};
use super::{
    donor::{MOST_USABLE, UsableBackup},
    gtid::Position,
    id::{ClusterName, MemberId, TaskId},
    verification::Verifications,
};
use crate::time::Timestamp;

/// How many outcomes a record keeps. They are for people; which backups there are is what the store holds.
pub const MOST_OUTCOMES: usize = 8;

/// The name of a backup: its path below the store's root, such as `orders/20261122T193307Z`.
///
/// 1 to 200 letters, digits and characters of `._:@=+~-`, in segments that are separated by `/`; no segment is empty, `.` or `..`, so
/// that no id leads out of the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupId(String);

/// Why a text is no backup's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not the id of a backup: give the name of a cluster for its newest one, or an id such as orders/20261122T193307Z, which GET /clusters/orders/backups tells"
)]
pub struct InvalidBackupId(String);

impl BackupId {
    /// The longest id, in characters.
    pub const MAX_LENGTH: usize = 200;

    /// The id of a backup of `cluster` that is asked for at this time. A second has one backup at the most.
    pub fn new(cluster: &ClusterName, at: Timestamp) -> Self {
        let time = UNIX_EPOCH + Duration::from_millis(at.as_millis());
        let text = humantime::format_rfc3339_seconds(time).to_string();
        Self(format!("{cluster}/{}", text.replace(['-', ':'], "")))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whose backup it is and when it was asked for, if the id has the form that [`BackupId::new`] gives.
    pub fn asked_at(&self) -> Option<(ClusterName, Timestamp)> {
        let (cluster, time) = self.0.split_once('/')?;
        let cluster: ClusterName = cluster.parse().ok()?;
        let (date, hour) = time.strip_suffix('Z')?.split_once('T')?;
        let part = |text: &str, from: usize, to: usize| text.get(from..to).map(str::to_owned);
        let text = format!(
            "{}-{}-{}T{}:{}:{}Z",
            part(date, 0, 4)?,
            part(date, 4, 6)?,
            part(date, 6, date.len())?,
            part(hour, 0, 2)?,
            part(hour, 2, 4)?,
            part(hour, 4, hour.len())?,
        );
        let time = humantime::parse_rfc3339(&text).ok()?;
        let since = time.duration_since(UNIX_EPOCH).ok()?;
        let at = Timestamp::from_millis(u64::try_from(since.as_millis()).ok()?);
        (Self::new(&cluster, at) == *self).then_some((cluster, at))
    }
}

impl FromStr for BackupId {
    type Err = InvalidBackupId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._:@=+~-".contains(c);
        let is_segment = |part: &str| !matches!(part, "" | "." | "..") && part.chars().all(allowed);
        if text.len() <= Self::MAX_LENGTH && text.split('/').all(is_segment) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidBackupId(
                text.chars().take(Self::MAX_LENGTH).collect(),
            ))
        }
    }
}

impl TryFrom<String> for BackupId {
    type Error = InvalidBackupId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<BackupId> for String {
    fn from(id: BackupId) -> Self {
        id.0
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where backups are stored (`--backup-store`, `--backup-store-args`). Goals and tasks carry it and Mesos and ZooKeeper show it, so
/// what is secret stands in files on the agents that it names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupStore {
    /// `file:///path`, `hdfs://namenode:port/path` or `s3://bucket/prefix`.
    pub url: String,
    /// The region of an S3 bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The URL of an S3 service that is not Amazon's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// A file with the YAML keys `username` and `password`: the access key of S3 and its secret. At this path on the scheduler's machine and on
    /// every agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<String>,
    /// A file of exactly 32 bytes, the key that backups are encrypted with. Likewise on every agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// How fast a backup may read the server's data, in MiB per second; 0 for no limit.
    #[serde(default)]
    pub rate_mib: u32,
}

/// What a member is told of the backup that it is to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupOrder {
    /// Grows with every backup of the cluster's incarnation.
    pub number: u64,
    /// The backup's id.
    pub id: BackupId,
    /// Where it goes.
    pub store: BackupStore,
    /// Who makes it.
    pub member: MemberId,
    /// That member's task. A later task of the same member does not begin it again.
    pub task_id: TaskId,
    /// The last backup that was completed before. A store with nothing in it at all is not the one where that went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<BackupId>,
}

/// What a member says of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupReport {
    /// Which one.
    pub number: u64,
    /// How far it is.
    pub state: BackupState,
}

/// How far a backup is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum BackupState {
    /// It is being made.
    Running {
        /// How many bytes of the server's data were read so far. It is told every few seconds.
        bytes: u64,
    },
    /// It is complete: its manifest is stored.
    Done {
        /// The size of the server's data in it, in bytes.
        bytes: u64,
        /// What it takes in the store, in bytes.
        stored_bytes: u64,
        /// What the data holds at the least, as its manifest says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        position: Option<Position>,
    },
    /// It came to nothing.
    Failed {
        /// Why, as a sentence.
        why: String,
    },
}

/// The backups of a cluster, as its record has them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Backups {
    /// The number of the last one that was asked for; 0 if there was none.
    pub number: u64,
    /// The one that is asked for and not over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<PendingBackup>,
    /// What came of the last ones, oldest first; at most [`MOST_OUTCOMES`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outcomes: Vec<BackupOutcome>,
    /// Since when the schedule counts: since it was set, or since the last one that it has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_since: Option<Timestamp>,
    /// The last one that was completed. It may have been removed since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_complete: Option<CompleteBackup>,
    /// Complete backups whose data a member could get if no other member can give its own, oldest first; at most [`MOST_USABLE`]. They may have been
    /// removed since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub usable: Vec<UsableBackup>,
    /// Those that are to be verified, and what came of it.
    #[serde(default, skip_serializing_if = "Verifications::is_empty")]
    pub verification: Verifications,
}

/// A backup that was completed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompleteBackup {
    /// Its id.
    pub id: BackupId,
    /// When it was asked for. What was written before is in it.
    pub asked_at: Timestamp,
    /// The store that it is in, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// What the store has of a cluster after one of its backups was removed by request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupsLeft {
    /// The newest complete one, if there is one.
    pub newest: Option<CompleteBackup>,
    /// When the store was asked. Of what was completed since it says nothing.
    pub as_of: Timestamp,
}

/// A backup that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingBackup {
    /// Its number.
    pub number: u64,
    /// Its id.
    pub id: BackupId,
    /// Where it goes.
    pub store: BackupStore,
    /// When it was asked for.
    pub asked_at: Timestamp,
    /// Whether the schedule asks for it.
    #[serde(default, skip_serializing_if = "crate::cluster::is_default")]
    pub scheduled: bool,
    /// Who makes it, once somebody was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<BackupSource>,
}

/// Who makes a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupSource {
    /// The member.
    pub member: MemberId,
    /// Its task.
    pub task_id: TaskId,
}

/// What came of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupOutcome {
    /// Its number.
    pub number: u64,
    /// Its id.
    pub id: BackupId,
    /// Whether it is complete.
    pub done: bool,
    /// When that was heard.
    pub at: Timestamp,
    /// What came of it, as a sentence.
    pub sentence: String,
    /// Whether the schedule has asked for it.
    #[serde(default, skip_serializing_if = "crate::cluster::is_default")]
    pub scheduled: bool,
    /// Whether it was removed since, because that was asked for.
    #[serde(default, skip_serializing_if = "crate::cluster::is_default")]
    pub removed: bool,
}

impl Backups {
    /// Whether none was ever asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Notes that a complete backup could give its data.
    pub fn note_usable(&mut self, backup: UsableBackup) {
        self.usable.push(backup);
        let surplus = self.usable.len().saturating_sub(MOST_USABLE);
        self.usable.drain(..surplus);
    }

    /// Stores what came of the pending one.
    pub fn conclude(&mut self, done: bool, sentence: String, at: Timestamp) {
        let Some(pending) = self.pending.take() else {
            return;
        };
        let PendingBackup {
            number,
            id,
            store,
            asked_at,
            scheduled,
            source: _,
        } = pending;
        if done {
            self.last_complete = Some(CompleteBackup {
                id: id.clone(),
                asked_at,
                url: Some(store.url),
            });
        }
        self.outcomes.push(BackupOutcome {
            number,
            id,
            done,
            at,
            sentence,
            scheduled,
            removed: false,
        });
        let surplus = self.outcomes.len().saturating_sub(MOST_OUTCOMES);
        self.outcomes.drain(..surplus);
    }

    /// Whether one is complete, and not known to be removed.
    pub fn has_one(&self) -> bool {
        let mut outcomes = self.outcomes.iter();
        self.last_complete.is_some() || outcomes.any(|outcome| outcome.done && !outcome.removed)
    }

    /// One was removed by request.
    pub fn removed(&mut self, id: &BackupId, left: BackupsLeft) {
        let BackupsLeft { newest, as_of } = left;
        for outcome in &mut self.outcomes {
            // Without another one none of the earlier ones is there any more.
            let is_gone = newest.is_none() && outcome.at < as_of;
            outcome.removed |= outcome.done && (outcome.id == *id || is_gone);
        }
        let is_there = self.last_complete.as_ref().is_some_and(|last| {
            let mut outcomes = self.outcomes.iter().filter(|it| it.id == last.id);
            let newer = outcomes.any(|outcome| outcome.at >= as_of);
            last.id != *id && (newest.is_some() || newer)
        });
        if !is_there {
            self.last_complete = newest;
        }
    }
}

impl PendingBackup {
    /// What the member that was chosen is told.
    pub fn order(&self) -> Option<BackupOrder> {
        let BackupSource { member, task_id } = self.source.clone()?;
        Some(BackupOrder {
            number: self.number,
            id: self.id.clone(),
            store: self.store.clone(),
            member,
            task_id,
            follows: None,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn an_id_stays_below_the_stores_root() {
        for good in [
            "orders",
            "orders/20261122T193307Z",
            "foo/bar:201503122000",
            "a/b/c.d",
            &"x".repeat(200),
        ] {
            assert_eq!(good.parse::<BackupId>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "/",
            "/etc",
            "a/",
            "a//b",
            "..",
            "a/../b",
            "./a",
            "a b",
            "a\\b",
            "a%2f",
            "a?b",
            "\u{e4}",
            &"x".repeat(201),
        ] {
            let error = bad.parse::<BackupId>().unwrap_err().to_string();
            assert!(error.contains("is not the id of a backup"), "{bad:?}");
        }
    }

    #[test]
    fn ids_are_in_the_order_of_their_times() {
        let cluster: ClusterName = "orders".parse().unwrap();
        let id = |millis| BackupId::new(&cluster, Timestamp::from_millis(millis));
        assert_eq!(id(1_769_947_200_123).as_str(), "orders/20260201T120000Z");
        assert!(id(1_769_947_201_000) > id(1_769_947_200_999));
        assert!(id(1_769_947_200_123).as_str().parse::<BackupId>().is_ok());
        let whole_second = Timestamp::from_millis(1_769_947_200_000);
        let found = id(1_769_947_200_123).asked_at();
        assert_eq!(found, Some((cluster, whole_second)));
        for other in [
            "orders",
            "orders/x",
            "foo/bar:201503122000",
            "a/20260201T120000Z/b",
            "a/20260201T1200Z",
        ] {
            assert_eq!(
                other.parse::<BackupId>().unwrap().asked_at(),
                None,
                "{other}"
            );
        }
    }

    #[test]
    fn only_the_last_outcomes_are_kept() {
        let mut backups = Backups::default();
        assert!(backups.is_empty());
        for number in 1..=20 {
            backups.number = number;
            backups.pending = Some(PendingBackup {
                number,
                id: "a/b".parse().unwrap(),
                store: store(),
                asked_at: Timestamp::from_millis(0),
                scheduled: false,
                source: None,
            });
            backups.conclude(true, "well".to_owned(), Timestamp::from_millis(1));
        }
        let kept: Vec<u64> = backups.outcomes.iter().map(|o| o.number).collect();
        assert_eq!(kept, (13..=20).collect::<Vec<_>>());
        assert_eq!(backups.pending, None);
    }

    fn store() -> BackupStore {
        BackupStore {
            url: "file:///b".to_owned(),
            region: None,
            endpoint: None,
            credentials: None,
            key: None,
            rate_mib: 0,
        }
    }
}
