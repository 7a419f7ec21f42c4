//! Copying a donor's data, or that of a backup, into a new data directory, and what its first start does with it.
//!
//! The copy is made under a name that is never used and gets that of its incarnation when it is complete, as every new
//! directory does ([`datadir`]). What an earlier attempt has left is removed first: it is part of a
//! copy, so all of it is elsewhere.

use std::{
    convert::Infallible,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    task,
    time::{Instant, timeout},
};
use tracing::{info, warn};
use uuid::Uuid;

use super::{
    action::CopySource,
    chain,
    datadir::{self, DataDirError, Part},
    event::Outcome,
    install::Installed,
    pace::{Clients, Gate},
    receive::{self, ReceiveError},
    restore::{self, RestoreError},
    sandbox::Sandbox,
    steps::Context,
    tempo::{Manner, Speed},
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

/// How often a server that copies says how far it is.
const TELL_EVERY: Duration = Duration::from_millis(250);

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
    gives_way: bool,
) -> Result<Outcome, RebuildError> {
    let master = account_at(context, master.0, master.1);
    if replay_is_cheap(server.flavour(), &master).await {
        return Ok(Outcome::ReplayIsCheaper);
    }
    let sandbox = &context.sandbox;
    remove_unfinished(sandbox)?;
    let data = DataId(Uuid::new_v4());
    let unfinished = sandbox.unfinished_data(data);
    let begun = Instant::now();
    let copied = match source {
        CopySource::Donor(donor) => {
            let of_master = (&donor.host, donor.port) == (&master.host, master.port);
            let manner = manner(context, server.flavour(), of_master);
            let clients = Clients {
                master: &master,
                manner,
            };
            let copy = Copy {
                context,
                installed,
                server,
                donor,
                clients: Some(clients).filter(|_| gives_way && manner.cost_percent < 100),
            };
            copy.make(&unfinished).await
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

/// A copy of a donor's data that is being made.
struct Copy<'a> {
    context: &'a Context,
    installed: &'a Installed,
    /// The member's own, which holds nothing.
    server: &'a Server,
    donor: &'a Donor,
    /// Whom it gives way to.
    clients: Option<Clients<'a>>,
}

impl Copy<'_> {
    async fn make(&self, target: &Path) -> Result<(), RebuildError> {
        let donor = self.donor;
        match self.server.flavour() {
            Flavour::Mysql => self.clone_donor(target).await.map_err(|source| {
                let (host, port) = (donor.host.clone(), donor.port);
                RebuildError::Copy {
                    donor: donor.member,
                    host,
                    port,
                    source: Box::new(source),
                }
            }),
            Flavour::Mariadb => {
                self.receive(target)
                    .await
                    .map_err(|source| RebuildError::Receive {
                        donor: donor.member,
                        source,
                    })
            }
        }
    }

    /// MariaDB: what the donor's executor sends is taken as fast as clients bear it.
    async fn receive(&self, target: &Path) -> Result<(), ReceiveError> {
        let gate = self.gate();
        let receiving = async {
            gate.opens().await;
            receive::receive(self.context, self.installed, self.donor, target, &gate).await
        };
        match &self.clients {
            Some(clients) => tokio::select! {
                received = receiving => received,
                never = gate.mind(clients) => match never {},
            },
            None => receiving.await,
        }
    }

    /// MySQL: its own server is told how fast to go on.
    async fn clone_donor(&self, target: &Path) -> Result<(), mysql::Error> {
        let (server, limit) = (self.server, self.context.task.copy_rate_mib);
        let donor = account_at(self.context, self.donor.host.clone(), self.donor.port);
        server.limit_clone(limit).await?;
        let gate = self.gate();
        let cloning = async {
            gate.opens().await;
            server.clone_from(&donor, target, STALL).await
        };
        let Some(clients) = &self.clients else {
            return cloning.await;
        };
        tokio::select! {
            cloned = cloning => cloned,
            never = gate.mind(clients) => match never {},
            never = pass_on(&gate, server, limit) => match never {},
        }
    }

    /// Nothing comes before it is known how much the master's clients commit.
    fn gate(&self) -> Gate {
        Gate::new(match self.clients {
            Some(_) => Speed::Paused,
            None => Speed::Unhindered,
        })
    }
}

/// MySQL's server looks at its limit once a second, and sleeps for up to another one; what is in pipes and connections of
/// MariaDB's is soon gone, but its tool keeps a master that it copies from committing for as long as something is.
fn manner(context: &Context, flavour: Flavour, of_master: bool) -> Manner {
    let (lag, count_for) = match flavour {
        Flavour::Mysql => (Duration::from_millis(1_500), Duration::from_millis(1_500)),
        Flavour::Mariadb => (Duration::from_millis(300), Duration::from_millis(500)),
    };
    Manner {
        cost_percent: context.task.copy_cost_percent,
        lag,
        count_for,
        holds_up: of_master && flavour == Flavour::Mariadb,
    }
}

/// Tells a server that copies how fast it may, and the gate how far it is.
async fn pass_on(gate: &Gate, server: &Server, limit: u32) -> Infallible {
    let mut speeds = gate.speeds();
    loop {
        let speed = *speeds.borrow_and_update();
        // A server that does not answer goes on at the speed that it has, and is told again.
        let _ = server.limit_clone(mib_per_second(speed, limit)).await;
        let _ = timeout(TELL_EVERY, speeds.changed()).await;
        if let Ok(bytes) = server.received_bytes().await {
            gate.has_copied(bytes);
        }
    }
}

/// What MySQL is told: 0 is no limit, and there is none below 1.
fn mib_per_second(speed: Speed, limit: u32) -> u32 {
    let rate = match speed {
        Speed::Unhindered => return limit,
        Speed::Paused => 1,
        Speed::AtMost(rate) => u32::try_from(rate >> 20).unwrap_or(u32::MAX).max(1),
    };
    if limit == 0 { rate } else { rate.min(limit) }
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

async fn replay_is_cheap(flavour: Flavour, master: &Source) -> bool {
    match binlogs::size_of_all(flavour, master, Instant::now() + ASK_DEADLINE).await {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mysql_is_told_whole_mebibytes_and_never_more_than_the_operator_allows() {
        const MIB: u64 = 1 << 20;
        for (speed, limit, told) in [
            (Speed::Unhindered, 0, 0),
            (Speed::Unhindered, 40, 40),
            (Speed::AtMost(16 * MIB + 5), 0, 16),
            (Speed::AtMost(16 * MIB), 4, 4),
            (Speed::AtMost(5), 0, 1),
            (Speed::AtMost(u64::MAX), 0, u32::MAX),
            (Speed::Paused, 0, 1),
        ] {
            assert_eq!(mib_per_second(speed, limit), told, "{speed:?} {limit}");
        }
    }
}
