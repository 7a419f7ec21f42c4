//! Memory and cpus of a container, limited by the kernel's control groups, version 1 or 2.
//!
//! Groups lie below `cotton-local-<hash of the work directory>`, so that a restarted agent finds
//! those of its former run and several agents do not meet. Under version 1 that is below the group
//! which the agent itself is in, so that whatever limits the agent limits its containers too.
//!
//! Source: the kernel's "Control Group v2", and "memory" and "sched-bwc" of version 1.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use crate::local::resources::Resources;

/// Where every system mounts the trees.
const TREE: &str = "/sys/fs/cgroup";

/// Over which time cpus are counted, in microseconds: the kernel's own default.
const CPU_PERIOD_MICROS: u64 = 100_000;

/// The least quota that the kernel takes, in microseconds.
const MIN_CPU_QUOTA_MICROS: u64 = 1_000;

/// Shares that one cpu counts for, as in Mesos; used when cpus are contended.
const CPU_SHARES_PER_CPU: f64 = 1024.0;

/// Where groups can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cgroups {
    /// Version 1: one tree per controller.
    V1 {
        /// The agent's groups for memory.
        memory: PathBuf,
        /// The agent's groups for cpus.
        cpu: PathBuf,
    },
    /// Version 2: one tree.
    V2 {
        /// The agent's groups.
        root: PathBuf,
    },
}

impl Cgroups {
    /// Makes the agent's groups.
    ///
    /// # Errors
    ///
    /// Why limits cannot be enforced here.
    pub fn open(work_dir: &Path) -> Result<Self, String> {
        let cgroups = Self::place(work_dir);
        let error = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
        for root in cgroups.roots() {
            fs::create_dir_all(root).map_err(|why| error(root, why))?;
        }
        if let Self::V2 { root } = &cgroups {
            for folder in [Path::new(TREE), root] {
                let control = folder.join("cgroup.subtree_control");
                fs::write(&control, "+memory +cpu").map_err(|why| error(&control, why))?;
            }
        }
        Ok(cgroups)
    }

    /// The groups that an agent with this work directory made, if they are still there.
    pub fn find(work_dir: &Path) -> Option<Self> {
        let cgroups = Self::place(work_dir);
        cgroups
            .roots()
            .iter()
            .any(|root| root.exists())
            .then_some(cgroups)
    }

    fn place(work_dir: &Path) -> Self {
        let name = group_name(work_dir);
        let tree = Path::new(TREE);
        if tree.join("cgroup.controllers").exists() {
            return Self::V2 {
                root: tree.join(name),
            };
        }
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let place = |controller: &str| {
            tree.join(controller)
                .join(own_group(&own, controller))
                .join(&name)
        };
        Self::V1 {
            memory: place("memory"),
            cpu: place("cpu"),
        }
    }

    fn roots(&self) -> Vec<&Path> {
        match self {
            Self::V1 { memory, cpu } => vec![memory, cpu],
            Self::V2 { root } => vec![root],
        }
    }

    fn folders(&self, container_id: &str) -> Vec<PathBuf> {
        match self {
            Self::V1 { memory, cpu } => vec![memory.join(container_id), cpu.join(container_id)],
            Self::V2 { root } => vec![root.join(container_id)],
        }
    }

    /// Makes a container's groups; gives the files into which a process writes itself to join.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn create(&self, container_id: &str, resources: &Resources) -> io::Result<Vec<PathBuf>> {
        let folders = self.folders(container_id);
        for folder in &folders {
            fs::create_dir_all(folder)?;
        }
        self.limit(container_id, resources)?;
        Ok(folders
            .into_iter()
            .map(|folder| folder.join("cgroup.procs"))
            .collect())
    }

    /// Sets what a container may use.
    ///
    /// # Errors
    ///
    /// What the file system says.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "sizes of machines fit, and are not negative"
    )]
    pub fn limit(&self, container_id: &str, resources: &Resources) -> io::Result<()> {
        let memory_bytes = (resources.total("mem") * 1024.0 * 1024.0) as u64;
        let cpus = resources.total("cpus");
        let quota = ((cpus * CPU_PERIOD_MICROS as f64) as u64).max(MIN_CPU_QUOTA_MICROS);
        match self {
            Self::V1 { memory, cpu } => {
                let memory = memory.join(container_id);
                fs::write(
                    memory.join("memory.limit_in_bytes"),
                    memory_bytes.to_string(),
                )?;
                let cpu = cpu.join(container_id);
                let shares = ((cpus * CPU_SHARES_PER_CPU) as u64).max(2);
                fs::write(cpu.join("cpu.shares"), shares.to_string())?;
                fs::write(cpu.join("cpu.cfs_period_us"), CPU_PERIOD_MICROS.to_string())?;
                fs::write(cpu.join("cpu.cfs_quota_us"), quota.to_string())
            }
            Self::V2 { root } => {
                let group = root.join(container_id);
                fs::write(group.join("memory.max"), memory_bytes.to_string())?;
                fs::write(
                    group.join("cpu.max"),
                    format!("{quota} {CPU_PERIOD_MICROS}"),
                )
            }
        }
    }

    /// The processes of a container.
    pub fn processes(&self, container_id: &str) -> BTreeSet<u32> {
        let lists = self
            .folders(container_id)
            .into_iter()
            .map(|folder| folder.join("cgroup.procs"));
        let texts: Vec<String> = lists
            .filter_map(|list| fs::read_to_string(list).ok())
            .collect();
        texts
            .iter()
            .flat_map(|text| text.lines())
            .filter_map(|line| line.trim().parse().ok())
            .collect()
    }

    /// Something that becomes readable when a container's memory is used up.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn watch_memory(&self, container_id: &str) -> io::Result<OwnedFd> {
        match self {
            Self::V1 { memory, .. } => {
                let group = memory.join(container_id);
                let control = fs::File::open(group.join("memory.oom_control"))?;
                // SAFETY: eventfd takes two integers and gives a new descriptor or -1.
                let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
                let event = own(event)?;
                let order = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
                fs::write(group.join("cgroup.event_control"), order)?;
                Ok(event)
            }
            Self::V2 { root } => {
                let path = root.join(container_id).join("memory.events");
                let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
                // SAFETY: inotify_init1 takes an integer and gives a new descriptor or -1.
                let watch =
                    own(unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) })?;
                // SAFETY: the descriptor is open and the path is a string with its end.
                let added = unsafe {
                    libc::inotify_add_watch(watch.as_raw_fd(), path.as_ptr(), libc::IN_MODIFY)
                };
                if added < 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(watch)
            }
        }
    }

    /// How often the kernel killed something in a container because its memory was used up.
    pub fn memory_kills(&self, container_id: &str) -> u64 {
        let file = match self {
            Self::V1 { memory, .. } => memory.join(container_id).join("memory.oom_control"),
            Self::V2 { root } => root.join(container_id).join("memory.events"),
        };
        let text = fs::read_to_string(file).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count
            .and_then(|count| count.trim().parse().ok())
            .unwrap_or(0)
    }

    /// Takes a container's groups away once nothing is in them.
    pub fn remove(&self, container_id: &str) {
        for folder in self.folders(container_id) {
            // One that is not empty is still there for the next attempt.
            let _ = fs::remove_dir(folder);
        }
    }

    /// Takes the agent's groups away, with whatever empty ones are left in them.
    pub fn close(&self) {
        for root in self.roots() {
            for entry in fs::read_dir(root).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(entry.path());
            }
            let _ = fs::remove_dir(root);
        }
    }
}

/// Takes a descriptor that a system call gave.
fn own(fd: libc::c_int) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was just made and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The agent's own group in a tree of version 1, from `/proc/self/cgroup`: `4:memory:/a/b`.
fn own_group(text: &str, controller: &str) -> String {
    let own = text.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers
            .split(',')
            .any(|one| one == controller)
            .then(|| path.trim_matches('/').to_owned())
    });
    own.unwrap_or_default()
}

fn group_name(work_dir: &Path) -> String {
    use sha1::Digest as _;
    let path = work_dir
        .canonicalize()
        .unwrap_or_else(|_| work_dir.to_owned());
    let hash = sha1::Sha1::digest(path.as_os_str().as_encoded_bytes());
    format!("cotton-local-{}", &hex::encode(hash)[..12])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_group_is_found() {
        let text = "4:memory:/a/b\n1:cpu,cpuacct:/\n0::/\n";
        assert_eq!(own_group(text, "memory"), "a/b");
        assert_eq!(own_group(text, "cpu"), "");
        assert_eq!(own_group(text, "pids"), "");
    }
}
