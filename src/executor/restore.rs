//! Making a data directory from a backup: for a cluster that is to begin with it, or for a member of the very cluster that has made it ([`take`]).
//!
//! The directory is made under a name that is never used and gets that of its incarnation when it is complete ([`datadir`]).
//! What the stream holds is not trusted before its size and digest are those of the manifest.
//!
//! The new cluster is another one than that of the backup. Its markers have another UUID on MySQL. On MariaDB they
//! have a domain of their own, and that of the former cluster is left out of the position where the copy begins. What the former cluster wrote is
//! part of the new one's history from its beginning. Its accounts are replaced at the first start ([`restored_sql`]).
//!
//! To a member of the same cluster a backup is what a copy of another member is, only older: nothing is replaced in it, and replication brings the
//! rest.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::Path,
    process::Stdio,
};

use serde::{Deserialize, Serialize};
use tokio::{task, time::Instant};
use tracing::info;
use uuid::Uuid;

use super::{
    copy::EarlyWriting,
    datadir::{self, DataDirError, Part},
    install::Installed,
    mysqld::Program,
    receive::{self, ReceiveError},
    replay::{self, ReplayError},
    scratch::Scratch,
    steps::Context,
    tools::{self, ToolError},
    unpromised,
    upgrade::{self, UpgradeError},
};
#[cfg(doc)]
use crate::mysql::accounts::restored_sql;
use crate::{
    backup::{
        manifest::{Form, Manifest},
        store::{Store, StoreError},
        stream::{self, StreamError},
    },
    cluster::{
        backup::{BackupId, RestoreFrom},
        control::RestoreTask,
        gtid::{GtidList, MARKER_DOMAIN},
        id::DataId,
    },
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
    /// Replaying what was archived behind it.
    #[error("the archived binlogs cannot be replayed")]
    Replay(#[from] ReplayError),
    /// Syncing.
    #[error(transparent)]
    Sync(#[from] DataDirError),
    /// The manifest names no data.
    #[error("the backup's manifest names no data")]
    Empty,
    /// It is of another cluster, and was to be taken for one of this.
    #[error("its manifest says that it is of another cluster, or of a former one of this name")]
    NotOurs,
    /// It was verified, and found bad.
    #[error("it was verified, and is not good: {0}")]
    Bad(String),
    /// Its accounts are others than this server is administered with.
    #[error("it was made when the administration account was called {0}, and here it is another")]
    OtherAccount(String),
    /// Which server has written it cannot be noted.
    #[error(transparent)]
    Note(#[from] UpgradeError),
    /// There is no room.
    #[error(
        "the backup holds {needed} MiB, and the disk has {available} left; give the cluster's members a larger disk"
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

impl RestoreError {
    /// Whether the backup is of no use to any member of the cluster, now and later.
    pub fn is_for_good(&self) -> bool {
        match self {
            Self::Store(error) => matches!(
                error,
                StoreError::Unknown(_) | StoreError::Manifest { .. } | StoreError::Damaged { .. }
            ),
            Self::Empty | Self::NotOurs | Self::Bad(_) => true,
            Self::Refused(_)
            | Self::Stream(_)
            | Self::Prepare(_)
            | Self::Tool(_)
            | Self::Replay(_)
            | Self::Sync(_)
            | Self::OtherAccount(_)
            | Self::Note(_)
            | Self::NoSpace { .. }
            | Self::Former(_) => false,
        }
    }
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
    let (store, manifest) = open(from).await?;
    let sandbox = &context.sandbox;
    let folder = sandbox.data_folder();
    unpromised::remove_unfinished(&folder).map_err(ToolError::files(&folder))?;
    let replayed = from.replay.as_ref().map_or(0, |replay| replay.data_bytes);
    check_space(manifest.data_bytes + replayed, &folder)?;
    let data = DataId(Uuid::new_v4());
    let unfinished = sandbox.unfinished_data(data);
    let scratch = Scratch {
        context,
        installed,
        data,
        folder: &unfinished,
    };
    let filled = fill(&scratch, restore, &store, &manifest).await;
    if let Err(error) = filled {
        // The next attempt would do it as well; a disk that is full needs the room now.
        unpromised::remove_unfinished(&folder).map_err(ToolError::files(&folder))?;
        return Err(error);
    }
    datadir::sync(unfinished.clone(), Part::All).await?;
    let path = sandbox.data(data);
    unpromised::mark(sandbox, data)
        .and_then(|()| fs::rename(&unfinished, &path))
        .map_err(ToolError::files(&path))?;
    info!(%data, backup = %from.id, took = ?begun.elapsed(), "backup restored");
    Ok(data)
}

async fn open(from: &RestoreFrom) -> Result<(Store, Manifest), RestoreError> {
    let settings = from.store.clone();
    let opened = task::spawn_blocking(move || Store::open(&settings)).await;
    let store = opened.map_err(|panicked| StreamError::Thread(io::Error::other(panicked)))??;
    let manifest = store.manifest(&from.id).await?;
    Ok((store, manifest))
}

/// Fills `target`, which must not exist, with the data of a backup of this very cluster, and prepares it for its first start as a copy.
///
/// # Errors
/// When the backup is not there, damaged, known to be bad, of another cluster, or not for this server. What is in `target` then is of no use.
pub async fn take(
    context: &Context,
    installed: &Installed,
    from: &RestoreFrom,
    target: &Path,
) -> Result<(), RestoreError> {
    let (store, manifest) = open(from).await?;
    if manifest.uuid != context.task.uuid {
        return Err(RestoreError::NotOurs);
    }
    let is_of = RestoreFrom {
        flavour: manifest.flavour,
        version: manifest.version,
        ..from.clone()
    };
    if let Some(why) = is_of.refuses(installed.kind.flavour, installed.kind.version) {
        return Err(RestoreError::Refused(why));
    }
    if manifest.admin_user != context.admin.user {
        return Err(RestoreError::OtherAccount(manifest.admin_user));
    }
    let verified = store.verified(&from.id, &manifest).await?;
    if let Some(bad) = verified.filter(|found| !found.good) {
        return Err(RestoreError::Bad(bad.problem.unwrap_or_default()));
    }
    check_space(manifest.data_bytes, &context.sandbox.data_folder())?;
    let unpacked = unpack(
        context,
        installed,
        &from.id,
        &store,
        &manifest,
        target,
        |p| p,
    )
    .await;
    if let Err(error) = unpacked {
        // What was unpacked wrongly shows in many ways, and a disk that is full in the same ones.
        for object in &manifest.objects {
            if let Err(damaged @ StoreError::Damaged { .. }) =
                store.compare_with(&from.id, object).await
            {
                return Err(damaged.into());
            }
        }
        return Err(error);
    }
    Ok(upgrade::note_written_by(
        target,
        manifest.flavour,
        manifest.version,
    )?)
}

async fn fill(
    scratch: &Scratch<'_>,
    restore: &RestoreTask,
    store: &Store,
    manifest: &Manifest,
) -> Result<(), RestoreError> {
    let Scratch {
        context,
        installed,
        folder: target,
        ..
    } = *scratch;
    let mut held = None;
    let id = &restore.from.id;
    unpack(
        context,
        installed,
        id,
        store,
        manifest,
        target,
        |position| {
            held = Some(position.clone());
            position.without(MARKER_DOMAIN)
        },
    )
    .await?;
    if let Some(replay) = &restore.from.replay {
        replay::run(scratch, store, manifest, replay, held).await?;
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

/// Unpacks a backup into `target`, and makes it one that a server can start on. `begin` makes the position at which a server of MariaDB begins of the one that
/// the backup has.
async fn unpack(
    context: &Context,
    installed: &Installed,
    id: &BackupId,
    store: &Store,
    manifest: &Manifest,
    target: &Path,
    begin: impl FnOnce(GtidList) -> GtidList,
) -> Result<(), RestoreError> {
    let [object] = manifest.objects.as_slice() else {
        return Err(RestoreError::Empty);
    };
    let seal = store.seal_of(manifest)?;
    DirBuilder::new()
        .mode(0o700)
        .create(target)
        .map_err(ToolError::files(target))?;
    let writing = EarlyWriting::begin(target);
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
            let (reader, mut input) = tools::pipe().map_err(ToolError::files(&log))?;
            let spawned = context
                .spawner
                .spawn_between(&program, Stdio::from(reader), None)
                .await;
            let mut process = spawned.map_err(ToolError::from)?;
            // The pipe is closed when everything was written, so that the tool ends.
            let unpacking =
                stream::unpack(seal, move |from| stream::copy(from, &mut input).map(|_| ()))?;
            store.get(id, object, unpacking).await?;
            receive::unpacked(&mut process, &log).await?;
            drop(writing);
            receive::prepare(context, installed, target, &log).await?;
            let state = manifest.binlog_state.as_deref().unwrap_or_default();
            receive::note_begin(target, state, begin)?;
        }
    }
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

/// What is replayed takes about as much as its binlogs.
fn check_space(needed: u64, folder: &Path) -> Result<(), RestoreError> {
    let found = nix::sys::statvfs::statvfs(folder)
        .map_err(|error| ToolError::files(folder)(error.into()))?;
    let available = found.blocks_available() * found.fragment_size();
    if available < needed {
        return Err(RestoreError::NoSpace {
            available: available >> 20,
            needed: needed.div_ceil(1 << 20),
        });
    }
    Ok(())
}
