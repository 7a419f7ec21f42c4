//! Old sandboxes are removed after a while, sooner when the disk fills up.
//!
//! Source: `--gc_delay` and `--gc_disk_headroom` on the Mesos page "Agent Options": a sandbox stays
//! for the delay, times what is free of the disk beyond the headroom.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The part of the disk that is to stay free.
const DISK_HEADROOM: f64 = 0.1;

/// How often sandboxes are looked at.
const ROUND: Duration = Duration::from_secs(60);

/// Removes sandboxes of ended executors, for as long as the agent runs. `in_use` names the runs that
/// must stay.
pub async fn collect<F: Future<Output = Option<BTreeSet<String>>>>(
    work_dir: PathBuf,
    delay: Duration,
    in_use: impl Fn() -> F,
) {
    loop {
        tokio::time::sleep(ROUND.min(delay)).await;
        let Some(runs) = in_use().await else { return };
        let work_dir = work_dir.clone();
        let round = tokio::task::spawn_blocking(move || {
            let age = patience(delay, disk_usage(&work_dir));
            for sandbox in sandboxes(&work_dir.join("slaves")) {
                let run = sandbox
                    .file_name()
                    .map(|name| name.to_string_lossy().into_owned());
                if run.is_some_and(|run| !runs.contains(&run)) && is_older(&sandbox, age) {
                    tracing::info!(sandbox = %sandbox.display(), "old sandbox removed");
                    // What is left is found again in the next round.
                    let _ = std::fs::remove_dir_all(&sandbox);
                }
            }
        });
        if round.await.is_err() {
            tracing::error!("a round of removing old sandboxes failed");
        }
    }
}

/// How long a sandbox stays at this usage of the disk, a part of one.
fn patience(delay: Duration, usage: f64) -> Duration {
    delay.mul_f64((1.0 - DISK_HEADROOM - usage).clamp(0.0, 1.0))
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a part of a disk need not be exact"
)]
fn disk_usage(path: &Path) -> f64 {
    match nix::sys::statvfs::statvfs(path) {
        Ok(disk) if disk.blocks() > 0 => {
            1.0 - disk.blocks_available() as f64 / disk.blocks() as f64
        }
        Ok(_) | Err(_) => 0.0,
    }
}

/// `<agent>/frameworks/<framework>/executors/<executor>/runs/<run>` below a directory.
fn sandboxes(slaves: &Path) -> Vec<PathBuf> {
    let mut level = vec![slaves.to_owned()];
    for name in ["*", "frameworks", "*", "executors", "*", "runs", "*"] {
        let mut next = Vec::new();
        for folder in level {
            if name != "*" {
                next.push(folder.join(name));
                continue;
            }
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            next.extend(folders.map(|entry| entry.path()));
        }
        level = next;
    }
    level
}

/// True when nothing was written to the sandbox's output for that long. A directory's own time does
/// not change when files in it do.
#[allow(
    clippy::disallowed_methods,
    reason = "file times are the machine's, not the stand-in's"
)]
fn is_older(sandbox: &Path, age: Duration) -> bool {
    let newest = ["", "stdout", "stderr"]
        .iter()
        .filter_map(|name| std::fs::metadata(sandbox.join(name)).ok()?.modified().ok())
        .max();
    newest.is_some_and(|at| {
        SystemTime::now()
            .duration_since(at)
            .is_ok_and(|passed| passed >= age)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn a_full_disk_has_no_patience() {
        let week = Duration::from_secs(7 * 86_400);
        assert_eq!(patience(week, 0.0), week.mul_f64(0.9));
        assert_eq!(patience(week, 0.95), Duration::ZERO);
    }

    #[tokio::test]
    async fn only_old_runs_go() {
        let folder = tempfile::tempdir().unwrap();
        let runs = folder
            .path()
            .join("slaves/S0/frameworks/F/executors/e/runs");
        for run in ["old", "used"] {
            std::fs::create_dir_all(runs.join(run)).unwrap();
        }
        std::os::unix::fs::symlink(runs.join("used"), runs.join("latest")).unwrap();
        let rounds = std::cell::Cell::new(0);
        let in_use = || {
            rounds.set(rounds.get() + 1);
            std::future::ready((rounds.get() < 3).then(|| BTreeSet::from(["used".to_owned()])))
        };
        collect(folder.path().to_owned(), Duration::from_millis(20), in_use).await;
        assert!(!runs.join("old").exists());
        assert!(runs.join("used").exists() && runs.join("latest").exists());
    }
}
