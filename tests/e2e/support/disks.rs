//! Small file systems of their own, each in a file, that can be filled up.
//!
//! A disk that is full is full for everybody who writes there, root too: nothing is reserved. It needs root's
//! rights, loop devices and ext4 (loop(4), mke2fs(8)). What is synced goes no further than this machine's page cache
//! (`nobarrier`, ext4(5)): processes are killed here, the machine is not, and a dozen servers share one real disk.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use tokio::task::JoinHandle;

/// How the files are called that hold them: this, the pid, the host's number.
const PREFIX: &str = "cotton-disk-";

/// What fills it.
const FILLER: &str = "filler";

/// What a server frees by ending is taken again after so long.
const FILL_AGAIN: Duration = Duration::from_millis(100);

/// A mounted file system. It is unmounted when it is dropped; the file stays where it is.
#[derive(Debug)]
pub struct Disk {
    mounted: PathBuf,
}

impl Disk {
    /// Makes one of this many MiB in a file in `files`, and mounts it at `mounted`, an empty folder.
    pub fn mount(files: &Path, number: u8, mib: u64, mounted: &Path) -> Self {
        sweep();
        let image = files.join(format!("{PREFIX}{}-{number}", std::process::id()));
        File::create(&image)
            .and_then(|file| file.set_len(mib << 20))
            .unwrap();
        must(
            Command::new("mkfs.ext4")
                .args(["-q", "-m", "0", "-O", "^has_journal"])
                .arg(&image),
        );
        must(
            Command::new("mount")
                .args(["-o", "loop,noatime,nobarrier"])
                .args([&image, mounted]),
        );
        Self {
            mounted: mounted.to_owned(),
        }
    }

    /// Fills it up, and keeps it full until the task is aborted.
    pub fn fill(&self) -> JoinHandle<()> {
        let mounted = self.mounted.clone();
        fill_up(&mounted);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(FILL_AGAIN).await;
                fill_up(&mounted);
            }
        })
    }

    /// Gives the space back. What fills it has been aborted.
    pub fn free(&self) {
        fs::remove_file(self.mounted.join(FILLER)).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount(&self.mounted);
    }
}

fn fill_up(mounted: &Path) {
    let filler = File::options()
        .append(true)
        .create(true)
        .open(mounted.join(FILLER))
        .unwrap();
    loop {
        let free = statvfs(mounted).unwrap();
        let bytes = free.blocks_available() * free.fragment_size();
        let length = filler.metadata().unwrap().len();
        // What was free may be taken by now, and some of it is for the file's own description.
        let wanted = [bytes, bytes / 2].into_iter().find(|bytes| {
            let (start, count) = (length.cast_signed(), bytes.cast_signed());
            // SAFETY: the descriptor is open, and the call touches no memory of this process.
            *bytes > 0 && unsafe { libc::fallocate(filler.as_raw_fd(), 0, start, count) } == 0
        });
        if wanted.is_none() {
            return;
        }
    }
}

/// Unmounts what a killed test binary has left.
fn sweep() {
    for device in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let backing = fs::read_to_string(device.path().join("loop/backing_file"));
        let Some(pid) = backing.ok().and_then(|file| {
            let (_, ours) = file.rsplit_once(PREFIX)?;
            Some(ours.split_once('-')?.0.to_owned())
        }) else {
            continue;
        };
        let device = Path::new("/dev").join(device.file_name());
        if !Path::new("/proc").join(pid).exists() {
            unmount(&device);
        }
    }
}

/// Even where a process still has a file open; then the kernel does it as soon as it has not.
fn unmount(what: &Path) {
    let _ = Command::new("umount").arg("--lazy").arg(what).output();
}

fn must(command: &mut Command) {
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {told}");
}
