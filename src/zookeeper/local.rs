//! `--state-storage=local`: records as files, for a scheduler that always runs on one machine.
//!
//! ```text
//! <directory>/lock               held by the one scheduler that uses the directory
//! <directory>/framework.json
//! <directory>/clusters/<name>.json
//! <directory>/retained/<incarnation>.json
//! ```
//!
//! A file is replaced as a whole: written beside, synced, renamed over the old one, and the
//! directory synced. A crash leaves the old content or the new one, never a mixture; a temporary
//! file that a crash leaves behind is overwritten by the next write. All calls block.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

/// The folder of records.
const CLUSTERS: &str = "clusters";
/// The folder of what is kept of deleted clusters.
const RETAINED: &str = "retained";

/// A directory of files with versions.
#[derive(Debug)]
pub struct LocalFiles {
    directory: PathBuf,
    /// The lock is held as long as this file is open. Its mutex orders the writes.
    lock: Mutex<File>,
}

/// Why a file was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// Another scheduler uses the directory.
    #[error(
        "another scheduler uses {0}: only one may, so end that one first or choose another --work-dir"
    )]
    InUse(PathBuf),
    /// The file is not of the version that was expected.
    #[error("{path} has version {found:?}, not {expected:?}: somebody else has written it")]
    Conflict {
        /// The file.
        path: PathBuf,
        /// The version that it should have had; `None`: it should not have existed.
        expected: Option<i32>,
        /// The version that it has.
        found: Option<i32>,
    },
    /// The content is not what [`LocalFiles::write`] writes.
    #[error("{path} is damaged: {fault}; restore it from a copy, or move it away to give it up")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: String,
    },
    /// The file system refused.
    #[error("could not {operation} {path}")]
    Io {
        /// A verb.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
}

/// A file's content: the document and its version, which counts the writes.
#[derive(Debug, Serialize, Deserialize)]
struct Envelope<T> {
    version: i32,
    document: T,
}

type Result<T> = std::result::Result<T, LocalError>;

impl LocalFiles {
    /// Takes the directory into use, making it where it does not exist.
    pub fn open(directory: &Path) -> Result<Self> {
        for folder in [CLUSTERS, RETAINED] {
            let folder = directory.join(folder);
            let made = DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder);
            made.map_err(|source| failed("make the directory", &folder, source))?;
        }
        let path = directory.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path);
        let lock = lock.map_err(|source| failed("open", &path, source))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                directory: directory.to_owned(),
                lock: Mutex::new(lock),
            }),
            Err(TryLockError::WouldBlock) => Err(LocalError::InUse(directory.to_owned())),
            Err(TryLockError::Error(source)) => Err(failed("lock", &path, source)),
        }
    }

    /// The file of the framework's id.
    pub fn framework(&self) -> PathBuf {
        self.directory.join("framework.json")
    }

    /// The file of a cluster's record.
    pub fn cluster(&self, name: &str) -> PathBuf {
        self.directory.join(CLUSTERS).join(format!("{name}.json"))
    }

    /// The file of what is kept of a deleted cluster.
    pub fn retained(&self, incarnation: &str) -> PathBuf {
        let file = format!("{incarnation}.json");
        self.directory.join(RETAINED).join(file)
    }

    /// The names of the clusters that have a file.
    pub fn cluster_names(&self) -> Result<Vec<String>> {
        self.names(CLUSTERS)
    }

    /// The incarnations of the deleted clusters that have a file.
    pub fn retained_names(&self) -> Result<Vec<String>> {
        self.names(RETAINED)
    }

    fn names(&self, folder: &str) -> Result<Vec<String>> {
        let directory = self.directory.join(folder);
        let list = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(&directory)? {
                let file = entry?.file_name();
                // Temporary files begin with a dot, which no cluster's name does.
                let name = file.to_str().and_then(|file| file.strip_suffix(".json"));
                names.extend(
                    name.filter(|name| !name.starts_with('.'))
                        .map(str::to_owned),
                );
            }
            Ok(names)
        };
        list().map_err(|source| failed("list", &directory, source))
    }

    /// The document in a file and its version, or `None` if there is no file.
    pub fn read(&self, path: &Path) -> Result<Option<(serde_json::Value, i32)>> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed("read", path, source)),
        };
        let damaged = |error: serde_json::Error| LocalError::Damaged {
            path: path.to_owned(),
            fault: error.to_string(),
        };
        let envelope: Envelope<serde_json::Value> =
            serde_json::from_slice(&bytes).map_err(damaged)?;
        Ok(Some((envelope.document, envelope.version)))
    }

    /// Replaces the document if the file has the `expected` version (`None`: does not exist), and
    /// returns the new version. When this returns, the content survives a power loss.
    pub fn write(
        &self,
        path: &Path,
        document: &serde_json::Value,
        expected: Option<i32>,
    ) -> Result<i32> {
        let _guard = self
            .lock
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        self.expect(path, expected)?;
        let version = expected.map_or(0, |version| version + 1);
        let bytes = super::document::json(&Envelope { version, document });
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = path.with_file_name(format!(".{file}.tmp"));
        write_synced(&temporary, &bytes).map_err(|source| failed("write", &temporary, source))?;
        fs::rename(&temporary, path).map_err(|source| failed("replace", path, source))?;
        sync_parent(path)?;
        Ok(version)
    }

    /// Deletes a file of the `expected` version; one that does not exist is fine.
    pub fn remove(&self, path: &Path, expected: i32) -> Result<()> {
        let _guard = self
            .lock
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if self.version(path)?.is_none() {
            return Ok(());
        }
        self.expect(path, Some(expected))?;
        fs::remove_file(path).map_err(|source| failed("delete", path, source))?;
        sync_parent(path)
    }

    fn version(&self, path: &Path) -> Result<Option<i32>> {
        Ok(self.read(path)?.map(|(_, version)| version))
    }

    /// A damaged file is never overwritten: its version cannot be read.
    fn expect(&self, path: &Path, expected: Option<i32>) -> Result<()> {
        let found = self.version(path)?;
        if found == expected {
            return Ok(());
        }
        Err(LocalError::Conflict {
            path: path.to_owned(),
            expected,
            found,
        })
    }
}

fn failed(operation: &'static str, path: &Path, source: io::Error) -> LocalError {
    LocalError::Io {
        operation,
        path: path.to_owned(),
        source,
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let sync = File::open(parent).and_then(|directory| directory.sync_all());
    sync.map_err(|source| failed("synchronise", parent, source))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn writes_are_compared_and_set() {
        let directory = tempfile::tempdir().unwrap();
        let files = LocalFiles::open(directory.path()).unwrap();
        let path = files.cluster("a");
        let document = serde_json::json!({"x": 1});
        assert_eq!(files.write(&path, &document, None).unwrap(), 0);
        assert_eq!(files.write(&path, &document, Some(0)).unwrap(), 1);
        for stale in [None, Some(0), Some(2)] {
            assert!(
                matches!(
                    files.write(&path, &document, stale),
                    Err(LocalError::Conflict { .. })
                ),
                "{stale:?}"
            );
        }
        assert_eq!(files.read(&path).unwrap(), Some((document, 1)));
        assert_eq!(files.cluster_names().unwrap(), ["a"]);
        assert!(files.remove(&path, 0).is_err());
        files.remove(&path, 1).unwrap();
        files.remove(&path, 1).unwrap();
        assert_eq!(files.read(&path).unwrap(), None);
    }

    #[test]
    fn a_second_scheduler_is_kept_out() {
        let directory = tempfile::tempdir().unwrap();
        let first = LocalFiles::open(directory.path()).unwrap();
        assert!(matches!(
            LocalFiles::open(directory.path()),
            Err(LocalError::InUse(_))
        ));
        drop(first);
        assert!(LocalFiles::open(directory.path()).is_ok());
    }

    #[test]
    fn a_damaged_file_is_told_and_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let files = LocalFiles::open(directory.path()).unwrap();
        let path = files.cluster("a");
        fs::write(&path, "{").unwrap();
        assert!(matches!(files.read(&path), Err(LocalError::Damaged { .. })));
        for version in [None, Some(0)] {
            let written = files.write(&path, &serde_json::json!({}), version);
            assert!(
                matches!(written, Err(LocalError::Damaged { .. })),
                "{version:?}"
            );
        }
        assert_eq!(fs::read(&path).unwrap(), b"{");
    }
}
