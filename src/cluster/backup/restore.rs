//! The words of a cluster that is made from a backup: which one, and up to where the archived binlogs behind it are replayed.

use std::{fmt, str::FromStr, time::Duration, time::UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{BackupId, BackupStore};
use crate::cluster::{
    flavour::{Flavour, ServerVersion},
    gtid::Position,
    id::Epoch,
};

/// The backup that a cluster was made from, as its record has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restore {
    /// `backup_id` as it was asked for, which may name the newest backup of a cluster.
    pub asked: String,
    /// Which one, and where it is.
    #[serde(flatten)]
    pub from: RestoreFrom,
    /// Whether a master has opened with its data. From then on nobody restores it any more: the members copy from each other.
    #[serde(default)]
    pub done: bool,
}

/// What a task needs to restore a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreFrom {
    /// Its id.
    pub id: BackupId,
    /// Where it is.
    pub store: BackupStore,
    /// The flavour of the server that it was made of.
    pub flavour: Flavour,
    /// The version of that server.
    pub version: ServerVersion,
    /// What is replayed behind it, if a point in time was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
}

/// The archived binlogs that are replayed behind a backup. Which ones was found when the cluster was asked for, so that all members replay the
/// same, whatever is archived meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// Up to where.
    pub to: RestorePoint,
    /// The segments, in their order.
    pub parts: Vec<Part>,
    /// How many bytes of binlog they hold.
    pub data_bytes: u64,
}

/// Segments of one epoch's archive that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The epoch.
    pub epoch: Epoch,
    /// The number of the first one.
    pub first: u64,
    /// The number of the last one.
    pub last: u64,
}

/// Up to where a restored cluster's data goes (`restore_to`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RestorePoint {
    /// All that was archived.
    Latest,
    /// Everything before the first transaction that was begun at this second since 1970 or later.
    Time(u64),
    /// Everything up to these transactions, and they.
    Gtid(String),
}

/// Why a text is no point to restore to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no point to restore to: give a time in UTC such as 2026-11-22T19:33:07Z, a GTID such as 0-1-123 (MariaDB) or 3e11fa47-71ca-11e1-9e33-c80aa9429562:1-23 (MySQL), or latest"
)]
pub struct InvalidRestorePoint(String);

impl RestorePoint {
    /// The longest text of one, in characters.
    pub const MAX_LENGTH: usize = 4096;
}

impl FromStr for RestorePoint {
    type Err = InvalidRestorePoint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let wrong = || InvalidRestorePoint(text.chars().take(100).collect());
        if text.len() > Self::MAX_LENGTH || text.is_empty() {
            return Err(wrong());
        }
        if text == "latest" {
            return Ok(Self::Latest);
        }
        if let Ok(time) = humantime::parse_rfc3339(text) {
            let since = time.duration_since(UNIX_EPOCH).map_err(|_| wrong())?;
            return Ok(Self::Time(since.as_secs()));
        }
        // Which flavour it must be of, the backup tells.
        let is_gtid = [Flavour::Mysql, Flavour::Mariadb]
            .into_iter()
            .any(|flavour| Position::parse(flavour, text).is_ok_and(|found| !found.is_empty()));
        match is_gtid {
            true => Ok(Self::Gtid(text.to_owned())),
            false => Err(wrong()),
        }
    }
}

impl fmt::Display for RestorePoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Time(seconds) => {
                let time = UNIX_EPOCH + Duration::from_secs(*seconds);
                humantime::format_rfc3339_seconds(time).fmt(f)
            }
            Self::Gtid(text) => f.write_str(text),
        }
    }
}

impl RestoreFrom {
    /// Why a server cannot start on the backup's data, as a sentence; `None` if it can.
    pub fn refuses(&self, flavour: Flavour, version: ServerVersion) -> Option<String> {
        if self.flavour != flavour {
            return Some(format!(
                "the backup {} is of {} {}, and the server here is {flavour} {version}: a backup is restored by the same flavour",
                self.id, self.flavour, self.version
            ));
        }
        (version < self.version).then(|| {
            format!(
                "the backup {} is of {flavour} {}, and the server here is {version}: a backup is restored by the same or a later version",
                self.id, self.version
            )
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn a_backup_fits_its_flavour_and_later_versions() {
        let from = RestoreFrom {
            id: "a/b".parse().unwrap(),
            store: BackupStore {
                url: "file:///b".to_owned(),
                region: None,
                endpoint: None,
                credentials: None,
                key: None,
                rate_mib: 0,
            },
            flavour: Flavour::Mariadb,
            version: ServerVersion::new(10, 11, 14),
            replay: None,
        };
        let refuses = |flavour, minor, patch| {
            from.refuses(flavour, ServerVersion::new(10, minor, patch))
                .is_some()
        };
        assert!(!refuses(Flavour::Mariadb, 11, 14) && !refuses(Flavour::Mariadb, 12, 0));
        assert!(refuses(Flavour::Mariadb, 11, 13) && refuses(Flavour::Mysql, 11, 14));
    }
}
