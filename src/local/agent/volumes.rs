//! Persistent volumes on disk: directories that outlive tasks and agents, and the links by which a
//! sandbox shows them.
//!
//! Source: `getPersistentVolumePath` in `src/slave/paths.cpp` of Apache Mesos, and its isolator
//! `filesystem/posix`: a symbolic link in the sandbox, named by the volume's container path; the
//! volume itself is handed to the sandbox's owner.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::local::reservation;
use crate::local::resources::Resources;
use crate::mesos::v1::Resource;

/// A volume and how a sandbox shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The directory.
    pub volume: PathBuf,
    /// The name in the sandbox.
    pub name: String,
}

fn root(work_dir: &Path) -> PathBuf {
    work_dir.join("volumes").join("roles")
}

/// Where a volume lies; none for what is no volume. Masters have checked role and id: neither is a
/// way out of the directory.
fn path(work_dir: &Path, volume: &Resource) -> Option<PathBuf> {
    let id = reservation::persistence_id(volume)?;
    // A role may have slashes; blanks it cannot have.
    let role = reservation::role(volume)?.replace('/', " ");
    Some(root(work_dir).join(role).join(id))
}

/// Makes the directories of new volumes.
///
/// # Errors
///
/// What the file system says.
pub fn make(work_dir: &Path, volumes: &[Resource]) -> io::Result<()> {
    for volume in volumes {
        if let Some(path) = path(work_dir, volume) {
            fs::create_dir_all(&path)?;
            // What a process in it writes is worth keeping, so its name must be as well.
            for folder in path.ancestors().skip(1).take(4) {
                fs::File::open(folder)?.sync_all()?;
            }
        }
    }
    Ok(())
}

/// Removes destroyed volumes with all that is in them; nothing happens to one that is not there.
///
/// # Errors
///
/// What the file system says.
pub fn remove(work_dir: &Path, volumes: &[Resource]) -> io::Result<()> {
    for volume in volumes {
        if let Some(path) = path(work_dir, volume) {
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
    }
    Ok(())
}

/// What a container with these resources gets to see. Volumes with a path of several parts are left
/// out, as Mesos' isolator does.
pub fn mounts(work_dir: &Path, resources: &Resources) -> Vec<Mount> {
    let mut mounts = Vec::new();
    for one in reservation::volumes(resources) {
        let shown = one.disk.as_ref().and_then(|disk| disk.volume.as_ref());
        let Some((volume, shown)) = path(work_dir, &one).zip(shown) else {
            continue;
        };
        let name = shown.container_path.clone();
        if name.contains('/') {
            tracing::warn!(container_path = %name, "volume not shown: its path has several parts");
            continue;
        }
        mounts.push(Mount { volume, name });
    }
    mounts
}

/// Links volumes into a sandbox, and takes links away whose volumes are not among them any more.
///
/// # Errors
///
/// A volume that is not there, a name that is taken, and what the file system says.
pub fn link(work_dir: &Path, sandbox: &Path, mounts: &[Mount]) -> io::Result<()> {
    let owner = fs::metadata(sandbox)?;
    for entry in fs::read_dir(sandbox)? {
        let path = entry?.path();
        let Ok(target) = fs::read_link(&path) else {
            continue;
        };
        let wanted = mounts.iter().any(|one| sandbox.join(&one.name) == path);
        if target.starts_with(root(work_dir)) && !wanted {
            fs::remove_file(&path)?;
        }
    }
    for Mount { volume, name } in mounts {
        let there = fs::metadata(volume).is_ok_and(|found| found.is_dir());
        if !there {
            let text = format!("the volume {} is not there", volume.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        }
        if owner.uid() != 0 && nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(volume, Some(owner.uid()), Some(owner.gid()))?;
        }
        let link = sandbox.join(name);
        match fs::read_link(&link) {
            Ok(target) if target == *volume => {}
            _ => std::os::unix::fs::symlink(volume, &link)?,
        }
    }
    Ok(())
}
