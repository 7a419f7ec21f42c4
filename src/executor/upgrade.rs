//! Data that a MariaDB server of an earlier series has written.
//!
//! A newer MariaDB server starts on it, and wants its system tables brought up to date by `mariadb-upgrade` (MariaDB manual, "mariadb-upgrade").
//! That is done at the first start of a later series, while the server is closed, on each member by itself: the tool writes nothing into the
//! binlog unless it is told to. Which server was last at home in a data directory is noted in it, when it is made and after each upgrade. A
//! crash in between repeats the upgrade, which does no harm.
//!
//! Data that a later series has written is refused before the server starts: an earlier one would read it wrongly. A server writes from
//! its start on, and the upgrade is complete only later; so that it begins is noted on its own, before the server is started.
//!
//! MySQL does both by itself (MySQL manual, "What the MySQL Upgrade Process Upgrades").

use std::{fs, io, path::Path, time::Duration};

use tokio::time::timeout;
use tracing::{info, warn};

use super::{
    install::Installed,
    mysqld::{Program, SpawnError},
    steps::{self, Context, StepError},
    tools::{self, ToolError},
};
use crate::cluster::flavour::{Flavour, ServerVersion};

/// The file in a data directory that says which server was last at home in it.
const NOTE: &str = "cotton-server-version";

/// The file in a data directory that says which server was last started on it, whether its upgrade was completed or not.
const BEGUN: &str = "cotton-server-begun";

/// How long the tool may take: it looks into every table.
const UPGRADE_DEADLINE: Duration = Duration::from_secs(30 * 60);

/// The data cannot be brought to this server.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The data is of a later series.
    #[error(
        "the data was written by MariaDB {written}, and the server here is {here}, of an earlier series, which must not read it; go back to the package that was there before, or replace the member"
    )]
    Older {
        /// Who has written it.
        written: ServerVersion,
        /// The server that is to start.
        here: ServerVersion,
    },
    /// There is no tool for it.
    #[error(
        "the data was written by MariaDB {written}, and mariadb-upgrade, which brings it to {here}, is neither beside the server nor on the search path; use a package that has it"
    )]
    NoTool {
        /// Who has written it.
        written: ServerVersion,
        /// The server that is to start.
        here: ServerVersion,
    },
    /// The administration account cannot be written into an option file.
    #[error("the account of --admin-keypath has a character that an option file cannot hold")]
    Account,
    /// The tool cannot be started.
    #[error("mariadb-upgrade cannot be started")]
    Spawn(#[from] SpawnError),
    /// The tool failed, or the file system did.
    #[error(transparent)]
    Tool(#[from] ToolError),
}

/// Whose data this is, if it says so.
fn noted(data: &Path, file: &str) -> Option<ServerVersion> {
    let text = fs::read_to_string(data.join(file)).ok()?;
    text.trim().parse().ok()
}

/// Refuses data that a later series has written.
///
/// # Errors
/// When it is so.
pub fn refuse_later(data: &Path, installed: &Installed) -> Result<(), UpgradeError> {
    let here = installed.kind.version;
    let begun = noted(data, BEGUN);
    match noted(data, NOTE).max(begun) {
        Some(written)
            if installed.kind.flavour == Flavour::Mariadb && series(here) < series(written) =>
        {
            Err(UpgradeError::Older { written, here })
        }
        _ => Ok(()),
    }
}

/// Notes that the installed server is about to be started on a data directory: from then on no server of an earlier series may be.
///
/// # Errors
/// When the file system refuses. The server must not be started then.
pub fn begin(data: &Path, installed: &Installed) -> Result<(), UpgradeError> {
    write_down(data, BEGUN, installed)
}

/// Notes that the installed server is at home in a data directory.
///
/// # Errors
/// When the file system refuses.
pub fn note(data: &Path, installed: &Installed) -> Result<(), UpgradeError> {
    write_down(data, NOTE, installed)
}

/// Notes which server has written the data in a directory that is new here.
///
/// # Errors
/// When the file system refuses.
pub fn note_written_by(
    data: &Path,
    flavour: Flavour,
    version: ServerVersion,
) -> Result<(), UpgradeError> {
    write_version(data, NOTE, flavour, version)
}

/// Writes the installed server's version into a file of a data directory.
fn write_down(data: &Path, file: &str, installed: &Installed) -> Result<(), UpgradeError> {
    write_version(data, file, installed.kind.flavour, installed.kind.version)
}

/// Writes a version into a file of a data directory. Nothing of it is known before the file is complete.
fn write_version(
    data: &Path,
    file: &str,
    flavour: Flavour,
    here: ServerVersion,
) -> Result<(), UpgradeError> {
    if flavour != Flavour::Mariadb || noted(data, file) == Some(here) {
        return Ok(());
    }
    let write = || -> io::Result<()> {
        let unfinished = data.join(format!("{file}.new"));
        fs::write(&unfinished, format!("{here}\n"))?;
        fs::File::open(&unfinished)?.sync_all()?;
        fs::rename(&unfinished, data.join(file))?;
        fs::File::open(data)?.sync_all()
    };
    Ok(write().map_err(ToolError::files(&data.join(file)))?)
}

/// Brings the data of a server that has just started to that server's series, if an earlier one has written it.
///
/// # Errors
/// When that fails. The server is not to be used then.
pub async fn settle(
    context: &Context,
    installed: &Installed,
    data: &Path,
) -> Result<(), UpgradeError> {
    let here = installed.kind.version;
    if installed.kind.flavour != Flavour::Mariadb {
        return Ok(());
    }
    let written = noted(data, NOTE);
    if written.map(series) == Some(series(here)) {
        return note(data, installed);
    }
    let Some(tool) = tools::find(&installed.mysqld, &["mariadb-upgrade", "mysql_upgrade"]) else {
        return match written {
            Some(written) => Err(UpgradeError::NoTool { written, here }),
            None => {
                // A directory without a note was made before there were any: most likely by this server.
                warn!("mariadb-upgrade is missing, so whether the data needs it is not known");
                Ok(())
            }
        };
    };
    let sandbox = &context.sandbox;
    let login = tools::login("client", &context.admin, &sandbox.socket_for_server());
    let write = |text: &str| {
        steps::write(&sandbox.upgrade_cnf(), text).map_err(|error| match error {
            StepError::Write { source, .. } => ToolError::files(&sandbox.upgrade_cnf())(source),
            other => ToolError::files(&sandbox.upgrade_cnf())(io::Error::other(other)),
        })
    };
    write(&login.ok_or(UpgradeError::Account)?)?;
    let log = sandbox.upgrade_log();
    // What an earlier run has printed is of no interest any more.
    let _ = fs::remove_file(&log);
    let program = Program {
        path: tool,
        arguments: vec![
            steps::option("--defaults-file=", &sandbox.upgrade_cnf()),
            "--skip-write-binlog".into(),
            "--force".into(),
        ],
        // Below which the socket is.
        working_directory: data.to_owned(),
        log: log.clone(),
    };
    let mut process = context.spawner.spawn(&program).await?;
    let how = match timeout(UPGRADE_DEADLINE, process.ended()).await {
        Ok(status) if status.success() => None,
        Ok(status) => Some(steps::how_it_ended(status)),
        Err(_) => {
            process.group().signal(nix::sys::signal::Signal::SIGKILL);
            process.ended().await;
            Some("took too long".to_owned())
        }
    };
    if let Some(how) = how {
        return Err(ToolError::failed("mariadb-upgrade", how, &log).into());
    }
    info!(version = %here, "data brought to the server's series");
    note(data, installed)
}

/// The same for data that a backup was restored to, which may be of an earlier series.
///
/// # Errors
/// See [`settle`].
pub async fn settle_restored(
    context: &Context,
    installed: &Installed,
    data: &Path,
) -> Result<(), UpgradeError> {
    let backed_up = context.task.restore.as_ref().map(|it| it.from.version);
    if backed_up.map(series) == Some(series(installed.kind.version)) {
        return note(data, installed);
    }
    settle(context, installed, data).await
}

/// The same for a copy. That of another member was written by a server of the same version, and says nothing; that of a backup says by which.
///
/// # Errors
/// See [`settle`].
pub async fn settle_copied(
    context: &Context,
    installed: &Installed,
    data: &Path,
) -> Result<(), UpgradeError> {
    match noted(data, NOTE) {
        Some(_) => settle(context, installed, data).await,
        None => note(data, installed),
    }
}

fn series(version: ServerVersion) -> (u16, u16) {
    (version.major, version.minor)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::cluster::control::ServerKind;

    fn installed(flavour: Flavour, version: &str) -> Installed {
        Installed {
            mysqld: "/usr/sbin/mysqld".into(),
            kind: ServerKind {
                flavour,
                version: version.parse().unwrap(),
            },
        }
    }

    #[test]
    fn data_of_a_later_series_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (
            installed(Flavour::Mariadb, "10.11.19"),
            installed(Flavour::Mariadb, "11.8.6"),
        );
        assert!(
            refuse_later(folder.path(), &old).is_ok(),
            "nothing is noted"
        );
        note(folder.path(), &old).unwrap();
        assert!(refuse_later(folder.path(), &new).is_ok());
        note(folder.path(), &new).unwrap();
        let refused = refuse_later(folder.path(), &old).unwrap_err();
        assert!(refused.to_string().contains("earlier series"), "{refused}");
        let patch = installed(Flavour::Mariadb, "11.8.2");
        assert!(refuse_later(folder.path(), &patch).is_ok());
    }

    /// Goal: an upgrade that was interrupted is gone on with, and nothing earlier starts. Method: the later server was about to be
    /// started, and nothing came after it.
    #[test]
    fn data_with_an_interrupted_upgrade_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (
            installed(Flavour::Mariadb, "10.11.19"),
            installed(Flavour::Mariadb, "11.8.6"),
        );
        note(folder.path(), &old).unwrap();
        begin(folder.path(), &new).unwrap();
        let refused = refuse_later(folder.path(), &old).unwrap_err();
        assert!(refused.to_string().contains("11.8.6"), "{refused}");
        assert!(refuse_later(folder.path(), &new).is_ok());
        assert_eq!(
            noted(folder.path(), NOTE),
            Some(old.kind.version),
            "the upgrade is still to be done"
        );
    }

    #[test]
    fn mysql_sees_to_its_data_itself() {
        let folder = tempfile::tempdir().unwrap();
        begin(folder.path(), &installed(Flavour::Mysql, "9.7.4")).unwrap();
        note(folder.path(), &installed(Flavour::Mysql, "9.7.4")).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
