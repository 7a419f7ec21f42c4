//! What was found when a backup was restored and checked: a JSON document beside it. Pure.
//!
//! It is a file of its own, not a part of the manifest. What a manifest says makes a backup of its data, so it is written once and never again: neither a
//! folder nor HDFS replaces a file atomically, and a manifest that was cut off while it was written anew would take a good backup away. A document of this kind that was cut off
//! says nothing, and the backup counts as one that was not verified. It names the data by its digest, so that it says nothing of other data either.

use serde::{Deserialize, Serialize};

use super::manifest::Manifest;
use crate::{cluster::backup::BackupId, time::Timestamp};

/// The format number of documents written by this version.
pub const FORMAT: u32 = 1;

/// What a document is called in the folder of its backup.
pub const FILE: &str = "verified.json";

/// How many tables are named with their rows. All are counted.
pub const MOST_TABLES: usize = 5000;

/// How many damaged tables are named. All are counted.
pub const MOST_DAMAGE: usize = 100;

/// What was found, without what names any table: this is told to whoever lists backups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// See [`FORMAT`].
    pub format: u32,
    /// The backup.
    pub id: BackupId,
    /// The SHA-256 of its data, as its manifest has it.
    pub sha256: String,
    /// When that was found.
    pub at: Timestamp,
    /// Whether it is good: it was restored, a server has started on it, and no table is damaged.
    pub good: bool,
    /// What is wrong with it, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// How long it took to restore and to check it, in seconds.
    pub seconds: u64,
    /// How many tables its users have in it: all but those of the server itself and of Cotton, which are checked too and not counted.
    pub tables: u64,
    /// How many rows those have.
    pub rows: u64,
}

/// The whole document. What names the tables is the owner's, and is written for those who may read the store; Cotton tells it to nobody.
#[derive(Debug, Clone, Serialize)]
pub struct Document {
    /// What is told.
    #[serde(flatten)]
    pub found: Verified,
    /// The first [`MOST_DAMAGE`] tables that are damaged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub damage: Vec<Damage>,
    /// The rows of each table that counts, in the order of the names; of the first [`MOST_TABLES`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub row_counts: Vec<TableRows>,
}

/// A table that is damaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// Its database.
    pub database: String,
    /// Its name.
    pub table: String,
    /// What the server says of it.
    pub says: String,
}

/// The rows of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableRows {
    /// Its database.
    pub database: String,
    /// Its name.
    pub table: String,
    /// How many rows it has.
    pub rows: u64,
}

impl Document {
    /// What to store.
    pub fn to_json(&self) -> Vec<u8> {
        // A struct of texts and numbers can be JSON.
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }
}

impl Verified {
    /// Reads a document; `None` if it is none, is of a later format, or is about other data than the manifest's.
    pub fn of(manifest: &Manifest, text: &[u8]) -> Option<Self> {
        let found: Self = serde_json::from_slice(text).ok()?;
        let is_of = found.format == FORMAT && sha256(manifest) == Some(&found.sha256);
        is_of.then_some(found)
    }
}

/// The digest by which a document names a backup's data.
pub fn sha256(manifest: &Manifest) -> Option<&String> {
    Some(&manifest.objects.first()?.sha256)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::backup::manifest::{self, Object};

    fn manifest(sha256: &str) -> Manifest {
        let object = Object {
            name: manifest::DATA_FILE.to_owned(),
            bytes: 1,
            sha256: sha256.to_owned(),
        };
        Manifest {
            objects: vec![object],
            ..manifest::tests::manifest()
        }
    }

    #[test]
    fn a_document_says_nothing_of_other_data_and_nothing_when_it_is_cut_off() {
        let found = Verified {
            format: FORMAT,
            id: "orders/20260201T120000Z".parse().unwrap(),
            sha256: "ab".to_owned(),
            at: Timestamp::from_millis(1),
            good: true,
            problem: None,
            seconds: 7,
            tables: 1,
            rows: 3,
        };
        let of = |found: &Verified| Document {
            found: found.clone(),
            damage: vec![Damage {
                database: "shop".to_owned(),
                table: "items".to_owned(),
                says: "Corrupt".to_owned(),
            }],
            row_counts: vec![TableRows {
                database: "shop".to_owned(),
                table: "orders".to_owned(),
                rows: 3,
            }],
        };
        let text = of(&found).to_json();
        assert_eq!(Verified::of(&manifest("ab"), &text), Some(found.clone()));
        assert_eq!(Verified::of(&manifest("cd"), &text), None);
        for at in 0..text.len() {
            assert_eq!(Verified::of(&manifest("ab"), &text[..at]), None, "{at}");
        }
        let later = Verified { format: 2, ..found };
        assert_eq!(Verified::of(&manifest("ab"), &of(&later).to_json()), None);
    }
}
