//! What the executors of one agent make once and share: unpacked packages and template data
//! directories.
//!
//! ```text
//! $TMPDIR (or /tmp)/cotton-<uid>/<boot id>/     0700, owned by the framework's user
//! ├── <key>.lock         held by whoever makes or checks the entry
//! ├── <key>.unfinished/  being made
//! ├── <key>/             the entry
//! └── <key>.complete     its files with their sizes, written last
//! ```
//!
//! An entry is used only when its list is there and every file has the size in it: a crash while it
//! was made, or a cleaner of temporary files, leaves an entry that is made again. Entries are not
//! synced, so they are kept under the id of the running kernel's boot and vanish after the next one.
//!
//! The cache is a convenience. Where it cannot be used (a container with a `/tmp` of its own, a folder
//! that belongs to somebody else), everything is made in the sandbox.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{task, time};

/// How long to wait for another executor that makes the entry. Unpacking or initialising takes
/// seconds; after this time it is quicker to do it oneself.
const LOCK_DEADLINE: Duration = Duration::from_secs(60);

/// The shared folder of this agent and user.
#[derive(Debug, Clone)]
pub struct AgentCache {
    folder: PathBuf,
}

/// An entry that this process has locked.
#[derive(Debug)]
pub struct Entry {
    folder: PathBuf,
    key: String,
    _lock: File,
}

/// The cache cannot be used; what was wanted of it has to be made in the sandbox.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The folder cannot be made or is not safe to use.
    #[error("the folder {path}, shared by the executors of this agent, cannot be used")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: io::Error,
    },
    /// The lock was not granted.
    #[error("the lock {path} cannot be had")]
    Lock {
        /// The lock.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The finished entry cannot be given its name.
    #[error("the entry {path} cannot be finished")]
    Finish {
        /// The entry.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

impl AgentCache {
    /// The folder for this user under `temporary`, made if need be.
    ///
    /// # Errors
    /// When it cannot be made, or somebody else could write into it.
    pub fn open(temporary: &Path) -> Result<Self, CacheError> {
        let uid = nix::unistd::geteuid().as_raw();
        let parent = temporary.join(format!("cotton-{uid}"));
        private_folder(&parent, uid)?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(|source| {
            CacheError::Folder {
                path: parent.clone(),
                source,
            }
        })?;
        let folder = parent.join(boot.trim());
        private_folder(&folder, uid)?;
        remove_earlier_boots(&parent, &folder);
        Ok(Self { folder })
    }

    /// Locks an entry, waiting while another executor makes it. The key is a file name.
    ///
    /// # Errors
    /// When the lock cannot be had in a minute.
    pub async fn lock(&self, key: &str) -> Result<Entry, CacheError> {
        let path = self.folder.join(format!("{key}.lock"));
        let failed = |source| CacheError::Lock {
            path: path.clone(),
            source,
        };
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        let locked = task::spawn_blocking(move || file.lock().map(|()| file));
        let lock = time::timeout(LOCK_DEADLINE, locked)
            .await
            .map_err(|_| failed(io::ErrorKind::TimedOut.into()))?
            .map_err(|panicked| failed(io::Error::other(panicked)))?
            .map_err(failed)?;
        Ok(Entry {
            folder: self.folder.clone(),
            key: key.to_owned(),
            _lock: lock,
        })
    }
}

impl Entry {
    /// The entry, if it is complete.
    pub fn complete(&self) -> Option<PathBuf> {
        let listed = fs::read_to_string(self.path(".complete")).ok()?;
        let entry = self.path("");
        (list(&entry).ok()? == listed).then_some(entry)
    }

    /// An empty folder to make the entry in.
    ///
    /// # Errors
    /// When what is left of an earlier attempt cannot be removed or the folder cannot be made.
    pub fn begin(&self) -> Result<PathBuf, CacheError> {
        let path = self.path(".unfinished");
        let failed = |source| CacheError::Folder {
            path: path.clone(),
            source,
        };
        remove_file(&self.path(".complete")).map_err(failed)?;
        remove_folder(&self.path("")).map_err(failed)?;
        remove_folder(&path).map_err(failed)?;
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(failed)?;
        Ok(path)
    }

    /// Gives the folder of [`Entry::begin`] its name.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn finish(&self) -> Result<PathBuf, CacheError> {
        let entry = self.path("");
        // The list is written last: a crash before it leaves an entry that is made again.
        let finish = || {
            fs::rename(self.path(".unfinished"), &entry)?;
            fs::write(self.path(".complete"), list(&entry)?)
        };
        finish().map_err(|source| CacheError::Finish {
            path: entry.clone(),
            source,
        })?;
        Ok(entry)
    }

    fn path(&self, suffix: &str) -> PathBuf {
        self.folder.join(format!("{}{suffix}", self.key))
    }
}

/// Makes a folder that only `uid` can write into, or finds it. The name is known to everybody on the
/// agent, so what is there may have been put there by somebody else.
fn private_folder(path: &Path, uid: u32) -> Result<(), CacheError> {
    let failed = |source| CacheError::Folder {
        path: path.to_owned(),
        source,
    };
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
    }
    let found = fs::symlink_metadata(path).map_err(failed)?;
    if found.is_dir() && found.uid() == uid && found.mode() & 0o077 == 0 {
        Ok(())
    } else {
        Err(failed(io::Error::other(
            "it is not a folder that only the framework's user can enter; remove it",
        )))
    }
}

/// What earlier boots left is of no use to anybody; a failure leaves it where it is.
fn remove_earlier_boots(parent: &Path, current: &Path) {
    for folder in fs::read_dir(parent).into_iter().flatten().flatten() {
        if folder.path() != current {
            let _ = fs::remove_dir_all(folder.path());
        }
    }
}

/// The files below a folder with their sizes, one a line, in a fixed order.
fn list(folder: &Path) -> io::Result<String> {
    let mut lines = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                folders.push(entry.path());
            }
            let size = if metadata.is_file() {
                metadata.len()
            } else {
                0
            };
            let path = entry.path();
            let name = path.strip_prefix(folder).unwrap_or(&path);
            lines.push(format!("{size} {name:?}\n"));
        }
    }
    lines.sort_unstable();
    Ok(lines.concat())
}

fn remove_file(path: &Path) -> io::Result<()> {
    absent_is_fine(fs::remove_file(path))
}

fn remove_folder(path: &Path) -> io::Result<()> {
    absent_is_fine(fs::remove_dir_all(path))
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[tokio::test]
    async fn an_entry_is_made_once() {
        let temp = tempfile::tempdir().unwrap();
        let cache = AgentCache::open(temp.path()).unwrap();
        let entry = cache.lock("a").await.unwrap();
        assert_eq!(entry.complete(), None);
        fs::write(entry.begin().unwrap().join("file"), "text").unwrap();
        assert_eq!(entry.complete(), None, "it is not finished");
        let path = entry.finish().unwrap();
        drop(entry);
        let again = AgentCache::open(temp.path())
            .unwrap()
            .lock("a")
            .await
            .unwrap();
        assert_eq!(again.complete(), Some(path.clone()));
        assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "text");
    }

    #[tokio::test]
    async fn an_entry_that_lost_a_file_is_made_again() {
        let temp = tempfile::tempdir().unwrap();
        let cache = AgentCache::open(temp.path()).unwrap();
        let entry = cache.lock("a").await.unwrap();
        fs::write(entry.begin().unwrap().join("file"), "text").unwrap();
        let path = entry.finish().unwrap();
        fs::remove_file(path.join("file")).unwrap();
        assert_eq!(entry.complete(), None);
        fs::write(entry.begin().unwrap().join("file"), "other text").unwrap();
        assert_eq!(entry.finish().unwrap(), path);
        assert!(entry.complete().is_some());
    }

    #[tokio::test]
    async fn the_second_waits_for_the_first() {
        let temp = tempfile::tempdir().unwrap();
        let cache = AgentCache::open(temp.path()).unwrap();
        let first = cache.lock("a").await.unwrap();
        let other = cache.clone();
        let second = tokio::spawn(async move { other.lock("a").await.unwrap().complete() });
        first.begin().unwrap();
        assert!(!second.is_finished());
        let path = first.finish().unwrap();
        drop(first);
        assert_eq!(second.await.unwrap(), Some(path));
    }

    #[test]
    fn a_folder_of_somebody_else_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let name = format!("cotton-{}", nix::unistd::geteuid());
        fs::create_dir(temp.path().join(&name)).unwrap();
        fs::set_permissions(temp.path().join(&name), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(
            AgentCache::open(temp.path()).is_err(),
            "others can write into it"
        );
        let linked = tempfile::tempdir().unwrap();
        symlink(temp.path(), linked.path().join(&name)).unwrap();
        assert!(AgentCache::open(linked.path()).is_err(), "it is a link");
    }
}
