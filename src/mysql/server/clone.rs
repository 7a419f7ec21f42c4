//! Copying a whole server: MySQL's clone plugin (manual: "The Clone Plugin"), and what a copy of a MariaDB server, which
//! `mariadb-backup` makes, has to be told.
//!
//! MySQL's copy is made into a directory of its own (`DATA DIRECTORY`), so that the server that asks for it stays as it
//! is, whatever becomes of the copy. What stands in it is one moment of the donor: InnoDB's tables, the accounts and
//! the executed GTIDs among them, which the new server takes for purged. Its binlog begins empty, and it
//! gives itself a UUID when it starts.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, sleep};

use super::{Server, Source, binlog::BEGIN_BINLOG};
use crate::mysql::{connections::Own, error::Error, sql};

const COPY: &str = "copy a donor's data";

/// How often it is looked whether a copy moves on.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How long the server may take to give up a copy that was killed; it removes what it has written.
const GIVE_UP_WITHIN: Duration = Duration::from_secs(60);

impl Server {
    /// Copies all data of a donor into `target`, which must not exist. It takes as long as it takes, but gives up when
    /// nothing has moved for `stall`. See also [`Server::limit_clone`].
    ///
    /// If the caller gives it up half-way, the server goes on: kill it then.
    ///
    /// # Errors
    /// [`Error::Statement`] with what the server says of itself or of the donor, [`Error::TimedOut`] when nothing moves.
    /// What was written so far is removed by the server.
    pub async fn clone_from(
        &self,
        donor: &Source,
        target: &Path,
        stall: Duration,
    ) -> Result<(), Error> {
        let Source {
            host,
            port,
            user,
            password,
        } = donor;
        let valid = sql::text(&format!("{host}:{port}"));
        let allow = format!("SET GLOBAL clone_valid_donor_list = {valid}");
        self.connections.execute(COPY, allow).await?;
        let mut own = self.connections.own(COPY).await?;
        let id = connection_id(&mut own, COPY).await?;
        // The server keeps the password out of its logs.
        let statement = format!(
            "CLONE INSTANCE FROM {}@{}:{port} IDENTIFIED BY {} DATA DIRECTORY = {} REQUIRE SSL",
            sql::text(user),
            sql::text(host),
            sql::text(password.expose()),
            sql::text(&target.to_string_lossy()),
        );
        let copying = own.execute(statement);
        tokio::pin!(copying);
        tokio::select! {
            copied = &mut copying => return copied,
            () = stalled(target, LOOK_EVERY, stall) => {}
        }
        // This server has no clients whose queries this could hit.
        self.connections
            .execute(COPY, format!("KILL QUERY {id}"))
            .await?;
        let ended = tokio::time::timeout(GIVE_UP_WITHIN, copying).await;
        match ended {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Error::TimedOut {
                operation: "move on with copying a donor's data",
                waited: stall,
            }),
        }
    }

    /// Bounds what a copy of a donor takes over the network, in MiB per second; 0 does not. It holds for one that is being made as well.
    pub async fn limit_clone(&self, rate_mib: u32) -> Result<(), Error> {
        // The server that receives heeds it.
        let limit = format!("SET GLOBAL clone_max_network_bandwidth = {rate_mib}");
        self.connections.execute(COPY, limit).await
    }

    /// How many bytes have come over the network since the server was started: of a server that copies, hardly anything but its donor's data.
    pub async fn received_bytes(&self) -> Result<u64, Error> {
        // The clone plugin's own progress is told by the performance schema alone, which a small server does without.
        let row = self
            .connections
            .row(COPY, "SHOW GLOBAL STATUS LIKE 'Bytes_received'")
            .await?;
        row.number(COPY, "Value")
    }

    /// Copies the server's own data into `target`, which must not exist; its parent must. It gives up when nothing has moved for
    /// `stall`.
    ///
    /// If the caller gives it up half-way, the server goes on to its end.
    ///
    /// # Errors
    /// [`Error::Statement`] with what the server says, [`Error::TimedOut`] when nothing moves. What was written so far is removed by the
    /// server.
    pub async fn clone_local(&self, target: &Path, stall: Duration) -> Result<(), Error> {
        const OPERATION: &str = "copy its own data";
        let mut own = self.connections.own(OPERATION).await?;
        let folder = sql::text(&target.to_string_lossy());
        let copying = own.execute(format!("CLONE LOCAL DATA DIRECTORY = {folder}"));
        tokio::select! {
            copied = copying => copied,
            // With its connection the statement is given up as well.
            () = stalled(target, LOOK_EVERY, stall) => Err(Error::TimedOut {
                operation: "move on with copying its own data",
                waited: stall,
            }),
        }
    }

    /// Where the server's data lies, an absolute path.
    pub async fn data_directory(&self) -> Result<PathBuf, Error> {
        const OPERATION: &str = "ask for the data directory";
        let row = self
            .connections
            .row(OPERATION, "SELECT @@GLOBAL.datadir AS datadir")
            .await?;
        row.text(OPERATION, "datadir").map(PathBuf::from)
    }

    /// MariaDB: how far each server that ever wrote got, in the order in which it stands in the binlog.
    pub async fn binlog_state(&self) -> Result<String, Error> {
        const OPERATION: &str = "read the state of the binlog";
        let row = self
            .connections
            .row(OPERATION, "SELECT @@GLOBAL.gtid_binlog_state AS state")
            .await?;
        row.text(OPERATION, "state").map(str::to_owned)
    }

    /// MariaDB: begins at a position, in a server that starts on a copy for the first time.
    ///
    /// Its binlog begins with the second file, so that nobody takes it for one that goes back to the first transaction.
    ///
    /// # Errors
    /// When a statement fails. The server is of no use then.
    pub async fn begin_at(&self, position: &str, binlog_state: &str) -> Result<(), Error> {
        for statement in [
            format!("SET GLOBAL gtid_binlog_state = {}", sql::text(binlog_state)),
            BEGIN_BINLOG.to_owned(),
            "PURGE BINARY LOGS TO 'binlog.000002'".to_owned(),
            format!("SET GLOBAL gtid_slave_pos = {}", sql::text(position)),
        ] {
            self.connections
                .execute("begin where the copy stands", statement)
                .await?;
        }
        Ok(())
    }

    /// Forgets whom the donor followed, in a server that starts on a copy for the first time: there are no relay
    /// logs of it here, so nothing is lost.
    pub async fn forget_donors_source(&self) -> Result<(), Error> {
        self.connections
            .execute("forget whom the donor followed", self.dialect.forget)
            .await
    }
}

/// Returns when nothing has been written below a folder for so long.
async fn stalled(folder: &Path, look_every: Duration, stall: Duration) {
    let mut last = None;
    let mut moved = Instant::now();
    while moved.elapsed() < stall {
        sleep(look_every).await;
        let folder = folder.to_owned();
        let seen = tokio::task::spawn_blocking(move || Written::below(&folder)).await;
        let seen = seen.ok().and_then(Result::ok);
        if seen.is_some() && seen != last {
            last = seen;
            moved = Instant::now();
        }
    }
}

/// What changes of a folder whose files are written, whether they grow or had their full size from the beginning.
#[derive(Debug, Default, PartialEq, Eq)]
struct Written {
    files: u64,
    blocks: u64,
    newest: Option<SystemTime>,
}

impl Written {
    fn below(folder: &Path) -> io::Result<Self> {
        let mut seen = Self::default();
        seen.add(folder)?;
        Ok(seen)
    }

    fn add(&mut self, folder: &Path) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            // The server removes files of its own meanwhile.
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_dir() {
                self.add(&entry.path())?;
            }
            self.files += 1;
            self.blocks += metadata.blocks();
            self.newest = self.newest.max(metadata.modified().ok());
        }
        Ok(())
    }
}

async fn connection_id(own: &mut Own, operation: &'static str) -> Result<u64, Error> {
    let deadline = Instant::now() + crate::mysql::connections::STATEMENT_TIMEOUT;
    let rows = own
        .execute_until(deadline, "SELECT CONNECTION_ID() AS id")
        .await?;
    let row = rows.first().ok_or(Error::Answer {
        operation,
        column: "id",
    })?;
    row.number(operation, "id")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::os::unix::fs::FileExt;

    use tokio::time::timeout;

    use super::*;

    /// Goal: a copy into files that had their full size from the beginning is seen to go on, and to stop.
    #[tokio::test]
    async fn what_is_written_is_no_stall() {
        const LOOK: Duration = Duration::from_millis(20);
        const STALL: Duration = Duration::from_millis(800);
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("d")).unwrap();
        let file = fs::File::create(folder.path().join("d/t.ibd")).unwrap();
        file.write_all_at(&[0; 1 << 16], 0).unwrap();
        let writing = tokio::spawn(async move {
            loop {
                file.write_all_at(b"x", 7).unwrap();
                sleep(LOOK / 4).await;
            }
        });
        let watched = stalled(folder.path(), LOOK, STALL);
        tokio::pin!(watched);
        assert!(
            timeout(STALL * 3, &mut watched).await.is_err(),
            "it is written"
        );
        writing.abort();
        watched.await;
    }
}
