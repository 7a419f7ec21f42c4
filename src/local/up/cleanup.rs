//! Nothing is left: no process, no control group, no temporary file.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::local::agent::{self, processes};

/// How long killed processes may take to be gone.
const KILL_DEADLINE: Duration = Duration::from_secs(30);

/// Makes this process the parent of every process below it whose own parent dies, so that it finds
/// them all at the end, whatever they did to their groups and sessions.
pub fn adopt_orphans() {
    if let Err(error) = nix::sys::prctl::set_child_subreaper(true) {
        tracing::warn!(%error, "orphaned processes cannot be adopted; some may be left at the end");
    }
}

/// Kills everything below this process.
pub async fn end_descendants() {
    let own = std::process::id();
    let find = || {
        // What has ended is taken off the kernel's list here, since it was adopted.
        while let Ok(status) = waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            if status.pid().is_none() {
                break;
            }
        }
        processes::descendants(own)
    };
    if !processes::kill_all(find, KILL_DEADLINE).await {
        tracing::error!("some processes do not end on SIGKILL");
    }
}

/// Takes away what agents that were killed left of their control groups.
pub fn remove_cgroups(work_dir: &Path, agents: u8) {
    for number in 1..=agents {
        agent::remove_cgroups(&super::agent_dir(work_dir, number));
    }
}

/// The directory of a run.
pub struct WorkDir {
    path: PathBuf,
    temporary: bool,
}

impl WorkDir {
    /// The given directory, or a temporary one.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn open(given: Option<&Path>) -> anyhow::Result<Self> {
        let (path, temporary) = match given {
            Some(path) => (path.to_owned(), false),
            None => {
                let name = format!(
                    "cotton-local-{}",
                    &uuid::Uuid::new_v4().simple().to_string()[..8]
                );
                (std::env::temp_dir().join(name), true)
            }
        };
        fs::create_dir_all(&path)
            .with_context(|| format!("make the directory {}", path.display()))?;
        if temporary {
            // The database servers run as another user and pass through; secrets in it have modes of
            // their own.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
                .with_context(|| format!("set the mode of {}", path.display()))?;
        }
        let path = path
            .canonicalize()
            .with_context(|| format!("find {}", path.display()))?;
        Ok(Self { path, temporary })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it if it is a temporary one.
    pub fn close(self) {
        if self.temporary
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the temporary directory is left");
        }
    }
}
