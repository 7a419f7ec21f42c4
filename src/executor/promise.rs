//! What an executor has promised, kept where it survives a crash.
//!
//! Before it acts on an epoch or says anything about it, an executor stores here that it has seen
//! it; afterwards it obeys no lower one. The same file names the data directory in use, because an
//! acknowledgement or a report counts only together with the data that it was given from.
//!
//! A write is complete or it has not happened: the new text goes into a file of its own, is synced,
//! takes the old one's name, and the folder is synced. A crash before the rename leaves the old
//! promise, which is right, for nothing was done for the new one yet.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::cluster::id::{DataId, Epoch};

/// The format number of the file.
const FORMAT: u32 = 1;

/// What was promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    format: u32,
    /// The cluster's incarnation that the promise was given to.
    pub cluster: Uuid,
    /// The highest epoch seen.
    pub epoch: Epoch,
    /// The data directory in use.
    pub data: Option<DataId>,
}

/// The promise cannot be read or stored. Nothing may be done for the epoch then.
#[derive(Debug, thiserror::Error)]
pub enum PromiseError {
    /// Reading failed.
    #[error("the promise in {path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The file holds something else.
    #[error(
        "{path} holds no promise; without knowing which epoch was promised, no goal can be obeyed"
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The file was written by a later version or for another cluster.
    #[error("{path} was written {by}; it is not this task's promise")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// By or for whom.
        by: String,
    },
    /// Writing failed.
    #[error("the promise cannot be stored in {path}")]
    Store {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

impl Promise {
    /// Nothing was promised yet.
    pub fn none(cluster: Uuid) -> Self {
        Self {
            format: FORMAT,
            cluster,
            epoch: Epoch::default(),
            data: None,
        }
    }

    /// The stored promise, or [`Promise::none`] where none was stored yet.
    ///
    /// # Errors
    /// When there is a file that cannot be read or is not a promise to `cluster`: an executor that
    /// does not know what it promised must not start.
    pub fn load(path: &Path, cluster: Uuid) -> Result<Self, PromiseError> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self::none(cluster));
            }
            Err(source) => {
                return Err(PromiseError::Read {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        let promise: Self =
            serde_json::from_slice(&text).map_err(|source| PromiseError::Malformed {
                path: path.to_owned(),
                source,
            })?;
        let foreign = |by: String| PromiseError::Foreign {
            path: path.to_owned(),
            by,
        };
        if promise.format > FORMAT {
            return Err(foreign(format!(
                "in format {}, this version knows {FORMAT}",
                promise.format
            )));
        }
        if promise.cluster != cluster {
            return Err(foreign(format!("for the cluster {}", promise.cluster)));
        }
        Ok(promise)
    }

    /// Stores the promise so that it survives a loss of power. It blocks for as long as the disk
    /// takes.
    ///
    /// # Errors
    /// When the file system refuses. The old promise then still holds, or already the new one.
    pub fn store(&self, path: &Path) -> Result<(), PromiseError> {
        self.try_store(path).map_err(|source| PromiseError::Store {
            path: path.to_owned(),
            source,
        })
    }

    fn try_store(&self, path: &Path) -> io::Result<()> {
        let text = serde_json::to_vec(self)?;
        let new = path.with_extension("new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        sync_folder_of(path)
    }
}

/// Makes the names in the folder of `path` survive a loss of power.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn what_was_stored_is_loaded() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("promise.json");
        let cluster = Uuid::from_u128(1);
        assert_eq!(
            Promise::load(&path, cluster).unwrap(),
            Promise::none(cluster)
        );
        let promise = Promise {
            epoch: Epoch(7),
            data: Some(DataId(Uuid::from_u128(2))),
            ..Promise::none(cluster)
        };
        promise.store(&path).unwrap();
        assert_eq!(Promise::load(&path, cluster).unwrap(), promise);
        let next = Promise {
            epoch: Epoch(8),
            ..promise
        };
        next.store(&path).unwrap();
        assert_eq!(Promise::load(&path, cluster).unwrap(), next);
    }

    /// Goal: fail closed. Method: files that are no promise to this cluster.
    #[test]
    fn an_unknown_promise_is_an_error() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("promise.json");
        let cluster = Uuid::from_u128(1);
        for text in [
            "",
            "{}",
            "not json",
            r#"{"format":1,"cluster":"00000000-0000-0000-0000-000000000009","epoch":3,"data":null}"#,
            r#"{"format":2,"cluster":"00000000-0000-0000-0000-000000000001","epoch":3,"data":null}"#,
        ] {
            fs::write(&path, text).unwrap();
            assert!(Promise::load(&path, cluster).is_err(), "{text}");
        }
    }

    #[test]
    fn a_crash_before_the_rename_leaves_the_old_promise() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("promise.json");
        let promise = Promise {
            epoch: Epoch(3),
            ..Promise::none(Uuid::from_u128(1))
        };
        promise.store(&path).unwrap();
        fs::write(path.with_extension("new"), "{\"form").unwrap();
        assert_eq!(Promise::load(&path, promise.cluster).unwrap(), promise);
        promise.store(&path).unwrap();
    }
}
