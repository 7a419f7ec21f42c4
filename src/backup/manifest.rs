//! What describes a backup: a JSON document that is written last. Pure.
//!
//! It carries a digest of itself, so that one that was damaged is told from one of a later version, and the digest of the backup's
//! data. Unknown keys are ignored and count in the digest, so that later versions can add some.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{
    cluster::{
        backup::BackupId,
        flavour::{Flavour, ServerVersion},
        gtid::Position,
        id::{ClusterName, Epoch, MemberId},
    },
    time::Timestamp,
};

/// The format number of manifests written by this version.
pub const FORMAT: u32 = 1;

/// What a manifest is called in the folder of its backup.
pub const FILE: &str = "manifest.json";

/// What the data is called.
pub const DATA_FILE: &str = "data";

/// No manifest is longer, in bytes. A MySQL history of thousands of servers has some 100 KiB.
pub const MOST_BYTES: u64 = 4 << 20;

/// What describes a backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The id under which it was made. One that was copied to another place in the store is still opened with this one.
    pub id: BackupId,
    /// The cluster.
    pub cluster: ClusterName,
    /// The cluster's incarnation.
    pub uuid: Uuid,
    /// The epoch in which it was made.
    pub epoch: Epoch,
    /// The member whose data it is.
    pub member: MemberId,
    /// The flavour of the server.
    pub flavour: Flavour,
    /// The version of the server.
    pub version: ServerVersion,
    /// What the data holds at the least. Exactly that on MariaDB; on MySQL what came while the copy was made may be in it too.
    pub position: Position,
    /// MariaDB: the server's `gtid_binlog_state`, read after the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binlog_state: Option<String>,
    /// The administration account's name, whose password the data holds as a hash.
    pub admin_user: String,
    /// The name of the cluster's user, likewise.
    pub cluster_user: String,
    /// When it was begun.
    pub begun_at: Timestamp,
    /// When its data was stored.
    pub ended_at: Timestamp,
    /// The size of the server's data as it was streamed, in bytes.
    pub data_bytes: u64,
    /// In which form the data is.
    pub form: Form,
    /// How it is compressed; `zstd`.
    pub compression: String,
    /// Which key it is encrypted with ([`BackupKey::id`](super::cipher::BackupKey::id)); `None` if with none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// The files with the data, in the backup's folder, in the order in which they are read.
    pub objects: Vec<Object>,
}

/// The form of a backup's data before it was compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// What `mariadb-backup --stream=mbstream` writes.
    Mbstream,
    /// A tar archive of a data directory that MySQL's clone plugin has made.
    Tar,
}

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Its name in the backup's folder.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

/// The document.
#[derive(Serialize, Deserialize)]
struct Document {
    format: u32,
    /// The SHA-256 of `manifest` as JSON with sorted keys and without spaces, in hexadecimal.
    sha256: String,
    manifest: Value,
}

/// A text is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is not such a document.
    #[error("the backup's manifest is damaged: it is not what was written")]
    Malformed(#[source] serde_json::Error),
    /// The digest differs.
    #[error("the backup's manifest is damaged: its checksum differs")]
    Digest,
    /// It is of a later version.
    #[error(
        "the backup's manifest has format {found}, and this version of Cotton knows {FORMAT}; restore it with the version that made it, or a later one"
    )]
    Format {
        /// The format found.
        found: u32,
    },
}

impl Manifest {
    /// The document to store.
    pub fn to_json(&self) -> Vec<u8> {
        // A struct of texts and numbers can be JSON, and so can its value.
        let manifest = serde_json::to_value(self).unwrap_or_default();
        let document = Document {
            format: FORMAT,
            sha256: digest(&manifest),
            manifest,
        };
        serde_json::to_vec_pretty(&document).unwrap_or_default()
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
        if digest(&document.manifest) != document.sha256 {
            return Err(ManifestError::Digest);
        }
        serde_json::from_value(document.manifest).map_err(ManifestError::Malformed)
    }

    /// What all its files take in the store, in bytes.
    pub fn stored_bytes(&self) -> u64 {
        self.objects.iter().map(|object| object.bytes).sum()
    }
}

fn digest(manifest: &Value) -> String {
    let text = serde_json::to_vec(manifest).unwrap_or_default();
    hex::encode(Sha256::digest(text))
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    pub fn manifest() -> Manifest {
        Manifest {
            id: "orders/20260201T120000Z".parse().unwrap(),
            cluster: "orders".parse().unwrap(),
            uuid: Uuid::from_u128(7),
            epoch: Epoch(3),
            member: MemberId(1),
            flavour: Flavour::Mariadb,
            version: ServerVersion::new(10, 11, 14),
            position: Position::empty(Flavour::Mariadb),
            binlog_state: Some("0-1-7".to_owned()),
            admin_user: "admin".to_owned(),
            cluster_user: "app".to_owned(),
            begun_at: Timestamp::from_millis(1),
            ended_at: Timestamp::from_millis(2),
            data_bytes: 1000,
            form: Form::Mbstream,
            compression: "zstd".to_owned(),
            key_id: None,
            objects: vec![Object {
                name: DATA_FILE.to_owned(),
                bytes: 100,
                sha256: "00".to_owned(),
            }],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let text = manifest().to_json();
        assert_eq!(Manifest::from_json(&text).unwrap(), manifest());
        assert_eq!(manifest().stored_bytes(), 100);
    }

    /// Goal: no damage goes unseen. Method: every byte of the document changed in turn, and every length.
    #[test]
    fn damage_is_noticed() {
        let good = manifest().to_json();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            // White space between the parts means nothing.
            if let Ok(read) = Manifest::from_json(&bad) {
                assert!(good[at].is_ascii_whitespace(), "byte {at}");
                assert_eq!(read, manifest());
            }
            assert!(Manifest::from_json(&good[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn keys_of_later_versions_are_ignored_and_their_formats_refused() {
        let mut value: Value = serde_json::from_slice(&manifest().to_json()).unwrap();
        value["manifest"]["verified"] = true.into();
        value["sha256"] = digest(&value["manifest"]).into();
        let text = serde_json::to_vec(&value).unwrap();
        assert_eq!(Manifest::from_json(&text).unwrap(), manifest());
        value["format"] = 2.into();
        let text = serde_json::to_vec(&value).unwrap();
        let error = Manifest::from_json(&text).unwrap_err();
        assert!(matches!(error, ManifestError::Format { found: 2 }));
    }
}
