//! Copying a whole server: MySQL's clone plugin (manual: "The Clone Plugin"), and what a copy of a MariaDB server, which
//! `mariadb-backup` makes, has to be told.
//!
//! MySQL's copy is made into a directory of its own (`DATA DIRECTORY`), so that the server that asks for it stays as it
//! is, whatever becomes of the copy. What stands in it is one moment of the donor: InnoDB's tables, the accounts and
//! the executed GTIDs among them, which the new server takes for purged. Its binlog begins empty, and it
//! gives itself a UUID when it starts.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{Server, Source, binlog::BEGIN_BINLOG};
use crate::mysql::{
    connections::{Connections, Own},
    error::Error,
    sql,
};

/// How often it is looked whether a copy moves on.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How long the server may take to give up a copy that was killed; it removes what it has written.
const GIVE_UP_WITHIN: Duration = Duration::from_secs(60);

/// A sum of everything that grows while a copy is made, whatever its stage. The redo of a busy donor makes
/// the last stages move as well.
const PROGRESS: &str = "SELECT COALESCE(SUM(DATA + NETWORK), 0) + COUNT(END_TIME) AS done \
                        FROM performance_schema.clone_progress";

impl Server {
    /// Copies all data of a donor into `target`, which must not exist. It takes as long as it takes, but gives up when
    /// nothing has moved for `stall`. `rate_mib` bounds what comes over the network, in MiB per second; 0 does not.
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
        rate_mib: u32,
        stall: Duration,
    ) -> Result<(), Error> {
        const OPERATION: &str = "copy a donor's data";
        let Source {
            host,
            port,
            user,
            password,
        } = donor;
        let valid = sql::text(&format!("{host}:{port}"));
        let allow = format!("SET GLOBAL clone_valid_donor_list = {valid}");
        self.connections.execute(OPERATION, allow).await?;
        // In MiB per second, 0 for no limit; the server that receives heeds it.
        let limit = format!("SET GLOBAL clone_max_network_bandwidth = {rate_mib}");
        self.connections.execute(OPERATION, limit).await?;
        let mut own = self.connections.own(OPERATION).await?;
        let id = connection_id(&mut own, OPERATION).await?;
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
            () = stalled(&self.connections, stall) => {}
        }
        // This server has no clients whose queries this could hit.
        self.connections
            .execute(OPERATION, format!("KILL QUERY {id}"))
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
            () = stalled(&self.connections, stall) => Err(Error::TimedOut {
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

/// Returns when nothing has moved for so long.
async fn stalled(connections: &Connections, stall: Duration) {
    let mut last = None;
    let mut moved = Instant::now();
    while moved.elapsed() < stall {
        sleep(LOOK_EVERY).await;
        // A server that does not answer is no sign of progress.
        let row = connections.row("see how a copy goes on", PROGRESS).await;
        let done = row.ok().and_then(|row| row.get("done").map(str::to_owned));
        if done.is_some() && done != last {
            last = done;
            moved = Instant::now();
        }
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
