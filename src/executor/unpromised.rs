//! Data directories that were made and never promised: each birth that was cut off leaves one.
//!
//! Nothing in them counts: what a member reports, votes or acknowledges with is named by its promise before. But a directory
//! that the promise does not name may also be one whose promise was *lost*, and such a one is never removed. So a directory has a
//! mark beside it from before it gets its name until the moment before its promise is stored. What has its mark was never
//! promised; what has none may have been, and stays. Directories of earlier versions have none.
//!
//! Of those that were never promised the newest is kept, for whoever looks into why births fail.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use tracing::info;

use super::{promise::sync_folder_of, sandbox::Sandbox};
use crate::cluster::id::DataId;

/// What ends the name of a mark.
const MARK: &str = "unpromised";

/// What ends the name of a directory that is not complete, and so was never used.
const UNFINISHED: &str = "unfinished";

/// A directory is about to get its name.
///
/// # Errors
/// When the file system refuses.
pub fn mark(sandbox: &Sandbox, data: DataId) -> io::Result<()> {
    // A power loss that takes the mark and leaves the directory makes one that is kept for ever, which is safe.
    File::create(path_of_mark(sandbox, data)).map(drop)
}

/// A directory is about to be promised. A crash before that is stored leaves one that is kept, though it counts for nothing.
///
/// # Errors
/// When the file system refuses; then it must not be promised.
pub fn unmark(sandbox: &Sandbox, data: DataId) -> io::Result<()> {
    let path = path_of_mark(sandbox, data);
    match fs::remove_file(&path) {
        // The mark must not come back after the promise.
        Ok(()) => sync_folder_of(&path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes directories that are not complete, from a copy or a restoration that was cut off.
///
/// # Errors
/// When the file system refuses.
pub fn remove_unfinished(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension() == Some(OsStr::new(UNFINISHED)) {
            fs::remove_dir_all(&path)?;
        }
    }
    Ok(())
}

fn path_of_mark(sandbox: &Sandbox, data: DataId) -> PathBuf {
    sandbox.data(data).with_extension(MARK)
}

/// Removes all directories in the quarantine that were never promised, but for the newest one.
///
/// # Errors
/// When the file system refuses.
pub fn retire(quarantine: &Path) -> io::Result<()> {
    let mut never_promised: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(quarantine)? {
        let entry = entry?;
        let path = entry.path();
        let ends_with = |ending: &str| path.extension() == Some(OsStr::new(ending));
        let directory = match () {
            () if ends_with(MARK) => path.with_extension(""),
            () if ends_with(UNFINISHED) => path.clone(),
            () => continue,
        };
        if directory.is_dir() {
            never_promised.push((entry.metadata()?.modified()?, directory));
        } else if ends_with(MARK) {
            // Its directory was removed.
            fs::remove_file(&path)?;
        }
    }
    never_promised.sort();
    never_promised.pop();
    for (_, directory) in never_promised {
        info!(directory = %directory.display(), "a data directory that was made and never used is removed");
        // The mark goes last: without it the rest of a directory whose removal was cut off would stay for ever.
        fs::remove_dir_all(&directory)?;
        if directory.extension().is_none() {
            fs::remove_file(directory.with_extension(MARK))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;
    use crate::{executor::datadir::set_aside_unused, time::Timestamp};

    fn id(n: u128) -> DataId {
        DataId(Uuid::from_u128(n))
    }

    fn ago(seconds: u64) -> SystemTime {
        let at = Timestamp::now().minus(Duration::from_secs(seconds));
        SystemTime::UNIX_EPOCH + Duration::from_millis(at.as_millis())
    }

    /// A directory as a birth makes it, `age` seconds ago.
    fn born(sandbox: &Sandbox, n: u128, age: u64) {
        mark(sandbox, id(n)).unwrap();
        fs::create_dir(sandbox.data(id(n))).unwrap();
        let made = ago(age);
        let mark = File::open(path_of_mark(sandbox, id(n))).unwrap();
        mark.set_modified(made).unwrap();
    }

    /// Goal: what was never promised is bounded, what may have been promised is never removed. Method: births that were cut
    /// off before and after the mark was taken away, one of an earlier version, copies that were not completed.
    #[test]
    fn only_what_was_never_promised_goes() {
        let temp = tempfile::tempdir().unwrap();
        let sandbox = Sandbox::open(temp.path()).unwrap();
        for n in 1..=4 {
            born(&sandbox, n, 100 - n as u64);
        }
        born(&sandbox, 5, 500);
        unmark(&sandbox, id(5)).unwrap();
        unmark(&sandbox, id(5)).unwrap();
        fs::create_dir(sandbox.data(id(6))).unwrap();
        born(&sandbox, 7, 600);
        unmark(&sandbox, id(7)).unwrap();
        mark(&sandbox, id(8)).unwrap();
        fs::create_dir(sandbox.unfinished_data(id(9))).unwrap();
        let unfinished = File::open(sandbox.unfinished_data(id(9))).unwrap();
        unfinished.set_modified(ago(700)).unwrap();
        for _ in 0..2 {
            set_aside_unused(&sandbox, Some(id(7))).unwrap();
            retire(&sandbox.quarantine_folder()).unwrap();
        }
        let mut kept: Vec<String> = fs::read_dir(sandbox.quarantine_folder())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        kept.sort();
        let newest = id(4).to_string();
        let expected = [
            newest.clone(),
            format!("{newest}.{MARK}"),
            id(5).to_string(),
            id(6).to_string(),
        ];
        assert_eq!(kept, expected);
        assert!(sandbox.data(id(7)).is_dir(), "it is in use");
    }
}
