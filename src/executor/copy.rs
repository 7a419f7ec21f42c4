//! Copying a folder of large files cheaply.
//!
//! A file system that can share blocks between files (Btrfs, XFS) shares them (`FICLONE`,
//! `ioctl_ficlone(2)`). Elsewhere only what was written is copied, within the kernel, and holes stay
//! holes (`SEEK_DATA`, `lseek(2)`; `copy_file_range(2)`).

use std::{
    fs::{self, DirBuilder, DirEntry, File, Metadata, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, symlink},
    },
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use crate::time::Timestamp;

/// How many files are synced at a time. A data directory has hundreds of small ones, and a disk takes the syncs of
/// several threads together: eight take a quarter of the time of one (ext4).
const SYNC_THREADS: usize = 8;

/// How often the kernel is told to write what has come, at the most.
const WRITE_EVERY: Duration = Duration::from_millis(100);

/// Copies everything below `from` into the folder `to`, which is made and must not exist.
///
/// # Errors
/// What the file system says; `to` is then incomplete.
pub fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_folder(&source, &target)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
        } else {
            copy_file(&source, &target)?;
        }
    }
    Ok(())
}

/// Writes `folder` to the disk, and what is below it as far as `wanted` says so by name and metadata. A server may run
/// in it meanwhile: what it removes needs no syncing.
///
/// # Errors
/// What the system says.
pub fn sync_folder(folder: &Path, wanted: &dyn Fn(&str, &Metadata) -> bool) -> io::Result<()> {
    let mut found = Vec::new();
    find_below(folder, wanted, &mut found)?;
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let work = || -> io::Result<()> {
            while let Some(path) = found.get(next.fetch_add(1, Ordering::Relaxed)) {
                unless_removed(File::open(path).and_then(|file| file.sync_all()))?;
            }
            Ok(())
        };
        let threads: Vec<_> = (0..SYNC_THREADS.min(found.len()))
            .map(|_| thread::Builder::new().spawn_scoped(scope, work))
            .collect::<io::Result<_>>()?;
        let mut ended = threads.into_iter().map(|thread| thread.join());
        ended.try_for_each(|result| {
            result.unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
        })
    })?;
    File::open(folder)?.sync_all()
}

/// Has the kernel write what comes into a folder to the disk as it comes, until this is dropped. By itself it collects gigabytes before it
/// begins, and whoever syncs something of his own on the same disk then, such as a server its commits, waits behind all of them.
pub struct EarlyWriting {
    /// Nothing is ever sent: that it is gone ends the thread.
    _stop: mpsc::Sender<()>,
}

impl EarlyWriting {
    /// Begins. Without a thread to do it, the kernel does what it does by itself.
    pub fn begin(folder: &Path) -> Self {
        let (stop, stopped) = mpsc::channel();
        let folder = folder.to_owned();
        let work = move || {
            let (mut since, mut pause) = (SystemTime::UNIX_EPOCH, WRITE_EVERY);
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                let (now, begun) = (Timestamp::now().as_millis(), Instant::now());
                // Syncing tells what cannot be written.
                let _ = begin_to_write(&folder, since);
                // File systems keep times in ticks of up to two seconds, rounded down.
                since = SystemTime::UNIX_EPOCH + Duration::from_millis(now.saturating_sub(2_000));
                // Looking through a hundred thousand files is work.
                pause = WRITE_EVERY.max(begun.elapsed() * 10);
            }
        };
        let _ = thread::Builder::new()
            .name("writing".to_owned())
            .spawn(work);
        Self { _stop: stop }
    }
}

/// Has the kernel begin to write what it holds of the files below a folder that were changed since then (`sync_file_range(2)`).
fn begin_to_write(folder: &Path, since: SystemTime) -> io::Result<()> {
    let mut found = Vec::new();
    let is_changed = |_: &str, metadata: &Metadata| metadata.modified().is_ok_and(|at| at >= since);
    find_below(folder, &is_changed, &mut found)?;
    for path in found {
        let Ok(file) = File::open(path) else { continue };
        // SAFETY: the descriptor is that of an open file; no memory is passed.
        unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
    }
    Ok(())
}

fn find_below(
    folder: &Path,
    wanted: &dyn Fn(&str, &Metadata) -> bool,
    found: &mut Vec<PathBuf>,
) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        unless_removed(find_at(&entry, wanted, found))?;
    }
    Ok(())
}

fn find_at(
    entry: &DirEntry,
    wanted: &dyn Fn(&str, &Metadata) -> bool,
    found: &mut Vec<PathBuf>,
) -> io::Result<()> {
    let metadata = entry.metadata()?;
    if metadata.is_dir() {
        find_below(&entry.path(), wanted, found)?;
    } else if !metadata.is_file() {
        return Ok(());
    }
    if wanted(&entry.file_name().to_string_lossy(), &metadata) {
        found.push(entry.path());
    }
    Ok(())
}

fn unless_removed(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let source = File::open(from)?;
    let metadata = source.metadata()?;
    let target = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(metadata.mode() & 0o777)
        .open(to)?;
    // SAFETY: both are descriptors of open files, and the call keeps neither.
    let cloned = unsafe { libc::ioctl(target.as_raw_fd(), libc::FICLONE, source.as_raw_fd()) } == 0;
    if !cloned {
        copy_data(&source, &target, metadata.len())?;
    }
    // The copy is as old as what was copied, so that what is written to it later can be told.
    target.set_modified(metadata.modified()?)
}

fn copy_data(source: &File, target: &File, length: u64) -> io::Result<()> {
    target.set_len(length)?;
    let end = length as i64;
    if source.metadata()?.blocks() * 512 >= length {
        reserve(target, end)?;
    }
    let mut position = 0;
    while position < end {
        let Some(start) = seek(source, position, libc::SEEK_DATA)? else {
            break;
        };
        let stop = seek(source, start, libc::SEEK_HOLE)?.unwrap_or(end);
        copy_range(source, target, start, stop)?;
        position = stop;
    }
    Ok(())
}

/// Gives a file its space on the disk, where the file system can: one that has all of its own, like a redo log, is
/// meant to be written without running out of it.
fn reserve(file: &File, length: i64) -> io::Result<()> {
    // SAFETY: the descriptor is that of an open file; no memory is passed.
    if length == 0 || unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, length) } == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        error if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => Ok(()),
        error => Err(error),
    }
}

/// The next data or hole from `position` on; `None` where there is no more data.
fn seek(file: &File, position: i64, what: libc::c_int) -> io::Result<Option<i64>> {
    // SAFETY: the descriptor is that of an open file; no memory is passed.
    let found = unsafe { libc::lseek(file.as_raw_fd(), position, what) };
    if found >= 0 {
        return Ok(Some(found));
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        error => Err(error),
    }
}

fn copy_range(source: &File, target: &File, start: i64, stop: i64) -> io::Result<()> {
    let (mut read, mut write) = (start, start);
    while read < stop {
        let length = (stop - read) as usize;
        // SAFETY: the descriptors are those of open files, and the offsets outlive the call.
        let copied = unsafe {
            libc::copy_file_range(
                source.as_raw_fd(),
                &mut read,
                target.as_raw_fd(),
                &mut write,
                length,
                0,
            )
        };
        match copied {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n if n < 0 => match io::Error::last_os_error() {
                // The two lie on file systems of different kinds, or the kernel cannot do it.
                error
                    if matches!(
                        error.raw_os_error(),
                        Some(libc::EXDEV | libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP)
                    ) =>
                {
                    return copy_through_memory(source, target, read as u64, stop as u64);
                }
                error => return Err(error),
            },
            _ => {}
        }
    }
    Ok(())
}

fn copy_through_memory(source: &File, target: &File, start: u64, stop: u64) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    let mut position = start;
    while position < stop {
        let length = buffer.len().min((stop - position) as usize);
        source.read_exact_at(&mut buffer[..length], position)?;
        target.write_all_at(&buffer[..length], position)?;
        position += length as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::io::{Seek, SeekFrom, Write};

    use super::*;

    #[test]
    fn a_copy_has_the_same_files_and_holes() {
        let temp = tempfile::tempdir().unwrap();
        let from = temp.path().join("from");
        fs::create_dir_all(from.join("folder")).unwrap();
        fs::write(from.join("folder/small"), "text").unwrap();
        fs::write(from.join("empty"), "").unwrap();
        symlink("folder/small", from.join("link")).unwrap();
        let mut sparse = File::create(from.join("sparse")).unwrap();
        sparse.seek(SeekFrom::Start(8 << 20)).unwrap();
        sparse.write_all(b"middle").unwrap();
        sparse.set_len(32 << 20).unwrap();

        let to = temp.path().join("to");
        copy_folder(&from, &to).unwrap();
        sync_folder(&to, &|name, _| name != "sparse").unwrap();
        for name in ["folder/small", "empty", "link", "sparse"] {
            assert_eq!(
                fs::read(from.join(name)).unwrap(),
                fs::read(to.join(name)).unwrap()
            );
        }
        assert_eq!(
            fs::read_link(to.join("link")).unwrap(),
            Path::new("folder/small")
        );
        assert!(fs::metadata(to.join("sparse")).unwrap().blocks() * 512 < 1 << 20);
        assert!(
            copy_folder(&from, &to).is_err(),
            "an existing folder is not written into"
        );
        let (source, slow) = (
            File::open(from.join("sparse")).unwrap(),
            File::create(temp.path().join("slow")).unwrap(),
        );
        copy_through_memory(&source, &slow, 0, 32 << 20).unwrap();
        assert_eq!(
            fs::read(from.join("sparse")).unwrap(),
            fs::read(temp.path().join("slow")).unwrap()
        );
    }
}
