//! Making a data directory from a backup, for a cluster that is to begin with it.
//!
//! The directory is made under a name that is never used and gets that of its incarnation when it is complete ([`datadir`]).
//! What the stream holds is not trusted before its size and digest are those of the manifest.
//!
//! The new cluster is another one than that of the backup. Its markers have another UUID on MySQL. On MariaDB they
//! have a domain of their own, and that of the former cluster is left out of the position where the copy begins. What the former cluster wrote is
//! part of the new one's history from its beginning. Its accounts are replaced at the first start ([`restored_sql`]).

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde::{Deserialize, Serialize};
use tokio::{task, time::Instant};
use tracing::info;
use uuid::Uuid;

use super::{
    datadir::{self, DataDirError, Part},
    install::Installed,
    mysqld::Program,
    receive::{self, ReceiveError},
    steps::Context,
    tools::{self, ToolError},
};
#[cfg(doc)]
use crate::mysql::accounts::restored_sql;
use crate::{
    backup::{
        manifest::{Form, Manifest},
        store::{Store, StoreError},
        stream::{self, StreamError},
    },
    cluster::{control::RestoreTask, gtid::MARKER_DOMAIN, id::DataId},
    mysql::accounts::Former,
};

/// Whose accounts are in a restored directory, until its first start has replaced them.
const FORMER_FILE: &str = "cotton-restored.json";

/// A backup was not restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The server here cannot start on it.
    #[error("{0}")]
    Refused(String),
    /// The store, or what is in it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stream.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// Preparing it.
    #[error(transparent)]
    Prepare(#[from] ReceiveError),
    /// A tool, or the file system.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// Syncing.
    #[error(transparent)]
    Sync(#[from] DataDirError),
    /// The manifest names no data.
    #[error("the backup's manifest names no data")]
    Empty,
    /// There is no room.
    #[error(
        "the backup holds {needed} MiB, and the disk has {available} left; create the cluster with a larger disk"
    )]
    NoSpace {
        /// How much is left, in MiB.
        available: u64,
        /// How much is needed, in MiB.
        needed: u64,
    },
    /// What a first start needs to know is not there.
    #[error("the restored data does not say whose accounts it holds")]
    Former(#[source] serde_json::Error),
}

/// Whose accounts the data holds.
#[derive(Debug, Serialize, Deserialize)]
struct FormerNote {
    admin: String,
    user: String,
}

/// Makes a data directory from a backup.
///
/// # Errors
/// When the backup is not there, damaged, or not for this server. What was written is removed now or by the next attempt.
pub async fn make(
    context: &Context,
    installed: &Installed,
    restore: &RestoreTask,
) -> Result<DataId, RestoreError> {
    let begun = Instant::now();
    let from = &restore.from;
    if let Some(why) = from.refuses(installed.kind.flavour, installed.kind.version) {
        return Err(RestoreError::Refused(why));
    }
    let settings = from.store.clone();
    let opened = task::spawn_blocking(move || Store::open(&settings)).await;
    let store = opened.map_err(|panicked| StreamError::Thread(io::Error::other(panicked)))??;
    let manifest = store.manifest(&from.id).await?;
    let sandbox = &context.sandbox;
    remove_unfinished(&sandbox.data_folder())?;
    check_space(&manifest, &sandbox.data_folder())?;
    let data = DataId(Uuid::new_v4());
    let unfinished = sandbox.unfinished_data(data);
    let filled = fill(context, installed, restore, &store, &manifest, &unfinished).await;
    if let Err(error) = filled {
        // The next attempt would do it as well; a disk that is full needs the room now.
        remove_unfinished(&sandbox.data_folder())?;
        return Err(error);
    }
    datadir::sync(unfinished.clone(), Part::All).await?;
    let path = sandbox.data(data);
    fs::rename(&unfinished, &path).map_err(ToolError::files(&path))?;
    info!(%data, backup = %from.id, took = ?begun.elapsed(), "backup restored");
    Ok(data)
}

async fn fill(
    context: &Context,
    installed: &Installed,
    restore: &RestoreTask,
    store: &Store,
    manifest: &Manifest,
    target: &Path,
) -> Result<(), RestoreError> {
    let [object] = manifest.objects.as_slice() else {
        return Err(RestoreError::Empty);
    };
    let id = &restore.from.id;
    let seal = store.seal_of(manifest)?;
    DirBuilder::new()
        .mode(0o700)
        .create(target)
        .map_err(ToolError::files(target))?;
    match manifest.form {
        Form::Tar => {
            let folder = target.to_owned();
            let unpacking = stream::unpack(seal, move |from| {
                let mut archive = tar::Archive::new(from);
                archive.set_overwrite(false);
                archive.unpack(&folder)
            })?;
            store.get(id, object, unpacking).await?;
        }
        Form::Mbstream => {
            let log = context.sandbox.copy_log();
            // What an earlier run has printed is of no interest any more.
            let _ = fs::remove_file(&log);
            let tool = tools::find(&installed.mysqld, &["mbstream"]);
            let program = Program {
                path: tool.ok_or(ReceiveError::NoTool("mbstream"))?,
                arguments: vec!["-x".into(), "-C".into(), target.into()],
                working_directory: context.sandbox.tmp(),
                log: log.clone(),
            };
            let (reader, mut input) = io::pipe().map_err(ToolError::files(&log))?;
            let spawned = context
                .spawner
                .spawn_between(&program, Stdio::from(reader), None)
                .await;
            let mut process = spawned.map_err(ToolError::from)?;
            // The pipe is closed when everything was written, so that the tool ends.
            let unpacking =
                stream::unpack(seal, move |from| io::copy(from, &mut input).map(|_| ()))?;
            store.get(id, object, unpacking).await?;
            receive::unpacked(&mut process, &log).await?;
            receive::prepare(context, installed, target, &log).await?;
            let state = manifest.binlog_state.as_deref().unwrap_or_default();
            receive::note_begin(target, state, |position| position.without(MARKER_DOMAIN))?;
        }
    }
    let note = FormerNote {
        admin: manifest.admin_user.clone(),
        user: manifest.cluster_user.clone(),
    };
    let path = target.join(FORMER_FILE);
    let text = serde_json::to_vec(&note).unwrap_or_default();
    fs::write(&path, text).map_err(ToolError::files(&path))?;
    Ok(())
}

/// Whose accounts a restored directory holds.
///
/// # Errors
/// When the note of it cannot be read.
pub fn former(data: &Path, restore: &RestoreTask) -> Result<Former, RestoreError> {
    let path = data.join(FORMER_FILE);
    let text = fs::read(&path).map_err(ToolError::files(&path))?;
    let FormerNote { admin, user } = serde_json::from_slice(&text).map_err(RestoreError::Former)?;
    Ok(Former {
        admin,
        is_same_user: user == restore.user,
        user,
    })
}

/// Removes the note: the accounts are replaced.
///
/// # Errors
/// When the file system refuses.
pub fn forget_former(data: &Path) -> Result<(), RestoreError> {
    let path = data.join(FORMER_FILE);
    fs::remove_file(&path).map_err(ToolError::files(&path))?;
    Ok(())
}

/// Removes what is left of attempts that were not completed.
fn remove_unfinished(folder: &Path) -> Result<(), RestoreError> {
    let remove_all = || {
        for entry in fs::read_dir(folder)? {
            let path: PathBuf = entry?.path();
            if path.extension() == Some(OsStr::new("unfinished")) {
                fs::remove_dir_all(&path)?;
            }
        }
        Ok(())
    };
    remove_all().map_err(|source: io::Error| ToolError::files(folder)(source).into())
}

fn check_space(manifest: &Manifest, folder: &Path) -> Result<(), RestoreError> {
    let found = nix::sys::statvfs::statvfs(folder)
        .map_err(|error| ToolError::files(folder)(error.into()))?;
    let available = found.blocks_available() * found.fragment_size();
    if available < manifest.data_bytes {
        return Err(RestoreError::NoSpace {
            available: available >> 20,
            needed: manifest.data_bytes.div_ceil(1 << 20),
        });
    }
    Ok(())
}
