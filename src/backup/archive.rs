//! Archived binlogs: what describes a piece of them, and which pieces lead from a backup to a point in time. Pure.
//!
//! The master of each epoch archives what its binlog holds behind what was archived before it, in *segments*: parts of one binlog file, cut
//! between transactions, never changed once they are complete. All segments of a cluster's incarnation, in the order of their epochs and numbers, are its
//! *archive*.
//!
//! # What of it is the cluster's history
//!
//! A master that is replaced may have archived transactions that its successor never had. So the first segment of an epoch says in `from` up to where
//! that master's own history and the archive before it agree: it is the common part of both, which the lineage of the epochs tells
//! ([`begin`]). **Of the segments of an epoch only those transactions count that are in the `from` of the first segment of every later epoch.** That is right
//! because a master archives only after its epoch's marker was acknowledged: everything before the marker in its binlog is the
//! history for which it was elected, and no later epoch's history lacks it, but by a failover with the loss of data, whose first segment then says so. Everything else that was
//! archived in earlier epochs was acknowledged by nobody. What the last epoch archived counts whole: at its end may be transactions whose clients have not heard of
//! success, as after a crash.
//!
//! A former master that archives on, because it has not heard that it was replaced, changes nothing of that: its segments have the earlier epoch.
//!
//! A segment whose `from` holds more than what was archived before leaves a gap: over that nobody can restore, and a new backup is needed
//! ([`plan()`]).
//!
//! # What of it may go
//!
//! Segments behind which all kept backups begin. They go from the first one on, each before the next, so that whatever ends in between leaves the archive's
//! end as it was ([`is_needed`]).

mod plan;
mod replay;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

pub use self::{
    plan::{Base, NoWay, Plan, Stretch, plan, target},
    replay::{Mismatch, Replay},
};
use super::manifest::{ManifestError, Object};
use crate::{
    cluster::{
        backup::BackupId,
        control::Lineage,
        flavour::Flavour,
        gtid::{self, Position},
        id::{ClusterName, DataId, Epoch},
    },
    time::Timestamp,
};

/// The format number of segments written by this version.
pub const FORMAT: u32 = 1;

/// What describes a segment: a JSON document that is written when its data is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// The cluster.
    pub cluster: ClusterName,
    /// The cluster's incarnation.
    pub uuid: Uuid,
    /// The epoch whose master archived it.
    pub epoch: Epoch,
    /// Counts the segments of the epoch, from 1.
    pub number: u64,
    /// The data directory from whose binlog it is.
    pub data: DataId,
    /// The binlog file.
    pub file: String,
    /// Where in that file it begins and ends.
    pub range: (u64, u64),
    /// The flavour of the server.
    pub flavour: Flavour,
    /// What the archive held before it.
    pub from: Position,
    /// The same with this segment.
    pub to: Position,
    /// How many transactions it has.
    pub transactions: u64,
    /// The earliest and the latest time at which one of them was begun, in seconds since 1970. Times that are ahead of the clock are left
    /// out ([`is_ahead`]).
    pub stamps: (u32, u32),
    /// Everything that the master had logged before this moment is in this segment or before it.
    pub until: Timestamp,
    /// The size of its part of the binlog, in bytes.
    pub data_bytes: u64,
    /// Which key it is encrypted with, if with any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// The file with its data, in the epoch's folder.
    pub object: Object,
    /// When its transactions were found in the binlog: none of them was logged later. What an earlier version has archived does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_at: Option<Timestamp>,
    /// The segments of the epoch before it behind which nothing is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<Chain>,
    /// In the first segment of an epoch: what the winners of the last epochs held, up to this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lineage: Vec<Lineage>,
}

/// Segments of an epoch each of which begins where the one before it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// The number of the first one.
    pub first: u64,
    /// The size of all up to this one, in bytes of binlog.
    pub data_bytes: u64,
}

impl Chain {
    /// The chain with one more segment; a new one behind a gap.
    pub fn and(before: Option<Self>, number: u64, data_bytes: u64) -> Self {
        match before {
            Some(before) => Self {
                first: before.first,
                data_bytes: before.data_bytes + data_bytes,
            },
            None => Self {
                first: number,
                data_bytes,
            },
        }
    }
}

/// By how much a transaction's time may be later than the moment at which it was found in the binlog, in seconds: so much a clock may have been
/// put back in between.
const CLOCK_MARGIN: u64 = 5;

/// Whether the time of a transaction is ahead of the clock by which it was found in the binlog: its session has said so
/// (`SET timestamp`), and nothing is told by it.
pub fn is_ahead(stamp: u32, read_at: Timestamp) -> bool {
    u64::from(stamp) > read_at.as_millis() / 1000 + CLOCK_MARGIN
}

/// The document.
#[derive(Serialize, Deserialize)]
struct Document {
    format: u32,
    /// The SHA-256 of `segment` as JSON with sorted keys and without spaces, in hexadecimal.
    sha256: String,
    segment: serde_json::Value,
}

impl Segment {
    /// When its transactions were found in the binlog, or not before.
    pub fn read_at(&self) -> Timestamp {
        self.read_at.unwrap_or(self.until)
    }

    /// The latest time at which one of its transactions was begun, in seconds since 1970; `None` if all that is known is ahead of the clock.
    pub fn latest(&self) -> Option<u64> {
        let latest = self.stamps.1;
        (!is_ahead(latest, self.read_at())).then_some(u64::from(latest))
    }

    /// The document to store.
    pub fn to_json(&self) -> Vec<u8> {
        // A struct of texts and numbers can be JSON, and so can its value.
        let segment = serde_json::to_value(self).unwrap_or_default();
        let document = Document {
            format: FORMAT,
            sha256: digest(&segment),
            segment,
        };
        serde_json::to_vec(&document).unwrap_or_default()
    }

    /// Reads a document.
    ///
    /// # Errors
    /// When it is damaged or of a later format.
    pub fn from_json(text: &[u8]) -> Result<Self, ManifestError> {
        let document: Document = serde_json::from_slice(text).map_err(ManifestError::Malformed)?;
        if document.format != FORMAT {
            return Err(ManifestError::Format {
                found: document.format,
            });
        }
        if digest(&document.segment) != document.sha256 {
            return Err(ManifestError::Digest);
        }
        serde_json::from_value(document.segment).map_err(ManifestError::Malformed)
    }
}

fn digest(segment: &serde_json::Value) -> String {
    let text = serde_json::to_vec(segment).unwrap_or_default();
    hex::encode(Sha256::digest(text))
}

// === names ===

/// The folder of all archives. No cluster is called so, as names begin with a letter or digit.
pub const ROOT: &str = "_binlogs";

/// The folder of the archives of all clusters that had a name.
pub fn folders(cluster: &ClusterName) -> String {
    format!("{ROOT}/{cluster}")
}

/// The folder of a cluster's archive.
pub fn folder(cluster: &ClusterName, uuid: Uuid) -> String {
    format!("{}/{uuid}", folders(cluster))
}

/// The name of an epoch's folder, whose order as a text is that of the epochs.
pub fn epoch_name(epoch: Epoch) -> String {
    format!("{:010}", epoch.0)
}

/// The epoch of a folder's name.
pub fn epoch_of(name: &str) -> Option<Epoch> {
    let number = name.trim_end_matches('/').parse().ok()?;
    (epoch_name(Epoch(number)) == name.trim_end_matches('/')).then_some(Epoch(number))
}

/// The name of the document of a segment, in its epoch's folder.
pub fn document_name(number: u64) -> String {
    format!("{number:010}.json")
}

/// The number of the segment whose document has this name.
pub fn number_of(name: &str) -> Option<u64> {
    let number = name.strip_suffix(".json")?.parse().ok()?;
    (document_name(number) == name).then_some(number)
}

/// The name of the data of a segment. Each attempt has its own, so that a document never tells of other data than it was written for.
pub fn data_name(number: u64, attempt: u32) -> String {
    format!("{number:010}-{attempt:08x}.data")
}

/// The number of the segment that a document or data of that name belongs to, and whether it is the data.
pub fn file_of(name: &str) -> Option<(u64, bool)> {
    if let Some(number) = number_of(name) {
        return Some((number, false));
    }
    let (number, attempt) = name.strip_suffix(".data")?.split_once('-')?;
    let (number, attempt) = (number.parse().ok()?, u32::from_str_radix(attempt, 16).ok()?);
    (data_name(number, attempt) == name).then_some((number, true))
}

/// What the data of a segment is encrypted for: its own place, so that none can be put in the place of another.
///
/// # Errors
/// Never for names that are made here.
pub fn seal_id(
    folder: &str,
    epoch: Epoch,
    number: u64,
) -> Result<BackupId, crate::cluster::backup::InvalidBackupId> {
    format!("{folder}/{}/{number:010}", epoch_name(epoch)).parse()
}

// === where a master begins ===

/// Where the master of a new epoch begins to archive: the common part of what was archived and of its own history. `lineage` is the
/// goal's, with the present epoch's history at its end.
pub fn begin(archived: &Position, lineage: &[(Epoch, Position)], cluster: Uuid) -> Position {
    match gtid::beyond(archived, lineage, cluster) {
        None => archived.clone(),
        // On MariaDB the history is the one where both pasts meet, so numbers can be compared.
        Some((_, common)) => archived.intersection(&common),
    }
}

/// How a master goes on behind the last segment of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumption {
    /// What of its history is archived; `None` where an archive begins.
    pub archived: Option<Position>,
    /// The number of its next segment.
    pub number: u64,
    /// The segments of its epoch before that one.
    pub chain: Option<Chain>,
    /// Everything that it had logged before this moment is archived.
    pub until: Timestamp,
}

/// How the master of an epoch goes on. `last` is of this epoch or an earlier one; `lineage` is that of [`begin`].
pub fn resume(
    last: Option<&Segment>,
    epoch: Epoch,
    lineage: &[(Epoch, Position)],
    cluster: Uuid,
) -> Resumption {
    match last {
        Some(last) if last.epoch == epoch => Resumption {
            archived: Some(last.to.clone()),
            number: last.number + 1,
            chain: last.chain,
            until: last.until,
        },
        // Up to when a former master has archived says nothing of what this one has logged: it has another clock, and may have archived on
        // while this one was open already.
        earlier => Resumption {
            archived: earlier.map(|last| begin(&last.to, lineage, cluster)),
            number: 1,
            chain: None,
            until: Timestamp::from_millis(0),
        },
    }
}

// === what counts, and what is needed ===

/// What the first segment of each epoch says of everything archived before it.
pub fn limits(firsts: &[Segment]) -> Vec<(Epoch, Position)> {
    let limits = firsts.iter().map(|first| (first.epoch, first.from.clone()));
    limits.collect()
}

/// What of an epoch's archive up to `to` is the cluster's history.
pub fn counted(epoch: Epoch, to: &Position, limits: &[(Epoch, Position)]) -> Position {
    let later = limits.iter().filter(|(other, _)| *other > epoch);
    later.fold(to.clone(), |to, (_, from)| to.intersection(from))
}

/// Whether a segment must stay as long as these backups are kept: something behind one of them is in it. All that
/// follow it are needed too.
pub fn is_needed(segment: &Segment, bases: &[Position], limits: &[(Epoch, Position)]) -> bool {
    // What was cut off is nobody's history, and nobody needs it.
    let counts = counted(segment.epoch, &segment.to, limits);
    bases.iter().any(|base| !base.contains(&counts))
}

#[cfg(test)]
mod tests;
