//! Copying a donor's data, or that of a backup, into a new data directory, and what its first start does with it.
//!
//! The copy is made under a name that is never used and gets that of its incarnation when it is complete, as every new
//! directory does ([`datadir`]). What an earlier attempt has left is removed first: it is part of a
//! copy, so all of it is elsewhere.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{task, time::Instant};
use tracing::{info, warn};
use uuid::Uuid;

use super::{
    action::CopySource,
    chain,
    datadir::{self, DataDirError, Part},
    event::Outcome,
    install::Installed,
    receive::{self, ReceiveError},
    restore::{self, RestoreError},
    sandbox::Sandbox,
    steps::Context,
    unpromised,
};
use crate::{
    cluster::{
        backup::{BackupId, RestoreFrom},
        donor::Donor,
        flavour::Flavour,
        id::{DataId, MemberId},
    },
    mysql::{self, Server, Source, binlogs},
};

/// Up to this size, in bytes, a master's binlogs are replayed rather than its data copied. That may be three thousand small
/// transactions, each of which is synced alone: a few seconds, which is what a copy and the start of a server on it
/// take at the least, and a minute on a machine that commits fifty in a second.
const CHEAP_REPLAY: u64 = 1 << 20;

/// How long the master may take to say how large its binlogs are.
const ASK_DEADLINE: Duration = Duration::from_secs(10);

/// How long a copy may stand still before it is given up.
const STALL: Duration = Duration::from_secs(120);

/// A copy has come to nothing.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The server cannot copy.
    #[error("the data of member {donor} at {host}:{port} cannot be copied")]
    Copy {
        /// Whose data.
        donor: MemberId,
        /// The donor's host.
        host: String,
        /// The port of its server.
        port: u16,
        /// What the server says.
        #[source]
        source: Box<mysql::Error>,
    },
    /// The donor's executor does not hand it out, or it cannot be received.
    #[error("the data of member {donor} cannot be copied")]
    Receive {
        /// Whose data.
        donor: MemberId,
        /// Why.
        #[source]
        source: ReceiveError,
    },
    /// The backup is not to be had, or not for this member.
    #[error("the data of the backup {id} cannot be taken")]
    Restore {
        /// Which one.
        id: BackupId,
        /// Why.
        #[source]
        source: Box<RestoreError>,
    },
    /// Where the copy stands is not known.
    #[error("the copy cannot be taken into use")]
    Begin(#[source] ReceiveError),
    /// The file system refuses.
    #[error("the copy {path} cannot be stored")]
    Files {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Syncing failed.
    #[error(transparent)]
    Sync(#[from] DataDirError),
}

/// Copies the data of a donor or of a backup, unless replaying the master's binlogs costs less.
///
/// # Errors
/// When the donor, the server or the file system refuses, or when nothing moves for two minutes. What was written is removed
/// now or by the next attempt.
pub async fn copy(
    context: &Context,
    installed: &Installed,
    server: &Server,
    source: &CopySource,
    master: (String, u16),
) -> Result<Outcome, RebuildError> {
    if replay_is_cheap(context, server.flavour(), master).await {
        return Ok(Outcome::ReplayIsCheaper);
    }
    let sandbox = &context.sandbox;
    remove_unfinished(sandbox)?;
    let data = DataId(Uuid::new_v4());
    let unfinished = sandbox.unfinished_data(data);
    let begun = Instant::now();
    let copied = match source {
        CopySource::Donor(donor) => {
            from_donor(context, installed, server, donor, &unfinished).await
        }
        CopySource::Backup(from) => from_backup(context, installed, from, &unfinished).await,
    };
    if let Err(error) = copied {
        // The next attempt would do it as well; a disk that is full needs the room now.
        remove_unfinished(sandbox)?;
        return match &error {
            RebuildError::Restore { source, .. } if source.is_for_good() => {
                warn!(error = %chain(&error), "the backup is of no use");
                let why = chain(&error);
                Ok(Outcome::Unfit { why })
            }
            _ => Err(error),
        };
    }
    datadir::sync(unfinished.clone(), Part::All).await?;
    let path = sandbox.data(data);
    unpromised::mark(sandbox, data)
        .and_then(|()| fs::rename(&unfinished, &path))
        .map_err(|source| RebuildError::Files { path, source })?;
    let took = begun.elapsed();
    match source {
        CopySource::Donor(donor) => {
            info!(%data, donor = %donor.member, ?took, "donor's data copied");
        }
        CopySource::Backup(from) => info!(%data, backup = %from.id, ?took, "backup's data taken"),
    }
    Ok(Outcome::Copied(data))
}

async fn from_donor(
    context: &Context,
    installed: &Installed,
    server: &Server,
    donor: &Donor,
    target: &Path,
) -> Result<(), RebuildError> {
    match server.flavour() {
        Flavour::Mysql => {
            let source = account_at(context, donor.host.clone(), donor.port);
            let copied = server
                .clone_from(&source, target, context.task.copy_rate_mib, STALL)
                .await;
            copied.map_err(|source| RebuildError::Copy {
                donor: donor.member,
                host: donor.host.clone(),
                port: donor.port,
                source: Box::new(source),
            })
        }
        Flavour::Mariadb => receive::receive(context, installed, donor, target)
            .await
            .map_err(|source| RebuildError::Receive {
                donor: donor.member,
                source,
            }),
    }
}

async fn from_backup(
    context: &Context,
    installed: &Installed,
    from: &RestoreFrom,
    target: &Path,
) -> Result<(), RebuildError> {
    let taken = restore::take(context, installed, from, target).await;
    taken.map_err(|source| RebuildError::Restore {
        id: from.id.clone(),
        source: Box::new(source),
    })
}

/// The administration account at another member.
fn account_at(context: &Context, host: String, port: u16) -> Source {
    let mysql::Credentials { user, password } = context.admin.clone();
    Source {
        host,
        port,
        user,
        password,
    }
}

async fn replay_is_cheap(context: &Context, flavour: Flavour, master: (String, u16)) -> bool {
    let master = account_at(context, master.0, master.1);
    match binlogs::size_of_all(flavour, &master, Instant::now() + ASK_DEADLINE).await {
        Ok(size) => size.is_some_and(|size| size <= CHEAP_REPLAY),
        Err(error) => {
            // A copy is right in any case.
            warn!(error = %chain(&error), "how much there is to replay is not known");
            false
        }
    }
}

/// Removes what is left of copies that were not completed.
fn remove_unfinished(sandbox: &Sandbox) -> Result<(), RebuildError> {
    let path = sandbox.data_folder();
    unpromised::remove_unfinished(&path).map_err(|source| RebuildError::Files { path, source })
}

/// Removes a data directory that holds nothing, or a copy that no server starts on. A crash in between leaves a directory
/// that nobody uses.
pub async fn remove(sandbox: &Sandbox, data: DataId) {
    let path = sandbox.data(data);
    let removed = task::spawn_blocking(move || fs::remove_dir_all(path)).await;
    match removed {
        Ok(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
            warn!(%data, %error, "a data directory that is not needed any more cannot be removed");
        }
        Ok(_) => {}
        Err(panicked) => warn!(%data, error = %panicked, "removing a data directory failed"),
    }
}

/// After the first start on a copy: what belonged to the donor alone is forgotten, and all of the copy is on the disk,
/// before anything is promised or acknowledged from it.
///
/// # Errors
/// When the server or the file system refuses.
pub async fn settle(
    sandbox: &Sandbox,
    server: &Server,
    data: DataId,
) -> Result<(), super::steps::StepError> {
    server.forget_donors_source().await?;
    let path = sandbox.data(data);
    if let Some(begin) = receive::begin_of(&path).map_err(RebuildError::Begin)? {
        server
            .begin_at(&begin.position, &begin.binlog_state)
            .await?;
        // A server that ends before this is never started on this directory again: it is not promised yet.
        receive::forget_begin(&path).map_err(RebuildError::Begin)?;
    }
    datadir::sync(sandbox.data(data), Part::All).await?;
    Ok(())
}
