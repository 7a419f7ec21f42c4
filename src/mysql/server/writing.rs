//! What only a master does: wait for acknowledgements, write markers and canaries, open and close.

use std::{
    sync::{MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use uuid::Uuid;

use super::Server;
use crate::{
    cluster::{flavour::Flavour, gtid::Position, id::Epoch},
    mysql::{
        dialect::{
            READ_CANARY, READ_HIGHEST_CANARY, WRITE_PROOF, write_canary, write_canary_closed,
        },
        error::Error,
    },
};

/// How long the server may take to say whether it is closed. It waits for a second for each of two locks; a statement that it
/// does not answer at all is the hang check's to judge.
const CLOSING_DEADLINE: Duration = Duration::from_secs(5);

const DELAY_COMMITS: &str = "set how long commits wait for others";

impl Server {
    /// Makes commits wait for `k` acknowledgements, for as long as the server can (MySQL: 49.7 days), from the next commit
    /// on; 0: for none. Never to be lowered on a master that may have been replaced: commits that wait would
    /// be acknowledged.
    ///
    /// # Errors
    /// [`Error::TooManyAcknowledgements`] on MariaDB for more than one.
    pub async fn prepare_source(&self, k: u32) -> Result<(), Error> {
        if self.flavour() == Flavour::Mariadb && k > 1 {
            return Err(Error::TooManyAcknowledgements { wanted: k });
        }
        for statement in (self.dialect.prepare_source)(k) {
            self.connections
                .execute("set up semi-synchronous replication", statement)
                .await?;
        }
        Ok(())
    }

    /// Writes the epoch's marker and waits until it is acknowledged. Possible while the server is closed.
    ///
    /// An earlier attempt may have written it without seeing the acknowledgement: then a commit after it, whose
    /// acknowledgement covers everything before it, proves the marker's.
    ///
    /// # Errors
    /// [`Error::LaterMarker`]; [`Error::TimedOut`] at the deadline: the marker may be acknowledged later. Repeat, or give the epoch up.
    pub async fn write_marker(
        &self,
        cluster: Uuid,
        epoch: Epoch,
        deadline: Instant,
    ) -> Result<(), Error> {
        const OPERATION: &str = "write the epoch's marker";
        let found = self.executed().await?.highest_marker(cluster);
        if found > epoch {
            return Err(Error::LaterMarker {
                found,
                wanted: epoch,
            });
        }
        if found == epoch {
            return self.prove(OPERATION, deadline).await;
        }
        let mut own = self.connections.own(OPERATION).await?;
        for statement in (self.dialect.marker)(cluster, epoch) {
            own.execute_until(deadline, statement).await?;
        }
        Ok(())
    }

    /// MySQL: writes the markers of earlier epochs that this server has not. Their masters died before anybody acknowledged
    /// them, and whoever has one has it in its binlog alone: as master it could send nothing any more to those who lack
    /// it, once that binlog was purged. With these everybody has all. To be called when the epoch's own marker is
    /// written, which must be the first of them to reach anybody. Doing it again completes it.
    ///
    /// MariaDB's numbers only grow, and need not be complete.
    ///
    /// # Errors
    /// Failing statements; [`Error::TimedOut`] at the deadline.
    pub async fn fill_markers(
        &self,
        cluster: Uuid,
        epoch: Epoch,
        deadline: Instant,
    ) -> Result<(), Error> {
        const OPERATION: &str = "fill in the markers of earlier epochs";
        let Position::Mysql(executed) = self.executed().await? else {
            return Ok(());
        };
        for hole in executed.holes_of(cluster, epoch.0) {
            let mut own = self.connections.own(OPERATION).await?;
            for statement in (self.dialect.marker)(cluster, Epoch(hole)) {
                own.execute_until(deadline, statement).await?;
            }
        }
        Ok(())
    }

    /// Commits something, the acknowledgement of which releases all commits before it that wait for theirs: one can
    /// get lost with a connection, and then only a later one helps. Possible while the server is closed.
    ///
    /// # Errors
    /// [`Error::TimedOut`] at the deadline: nobody acknowledges.
    pub async fn release_commits(&self, deadline: Instant) -> Result<(), Error> {
        self.prove("release commits that wait", deadline).await
    }

    /// Writes a number through the commit path of all clients, and waits for its acknowledgement.
    ///
    /// # Errors
    /// [`Error::TimedOut`] at the deadline: the server, its disk or its acknowledgers hang.
    pub async fn write_canary(&self, number: u64, deadline: Instant) -> Result<(), Error> {
        self.commit("write a canary", write_canary(number), deadline)
            .await
    }

    /// The same before the server has opened, when the epoch's marker waits for its acknowledgement.
    ///
    /// # Errors
    /// [`Error::TimedOut`] at the deadline: nobody acknowledges.
    pub async fn write_canary_closed(&self, number: u64, deadline: Instant) -> Result<(), Error> {
        const OPERATION: &str = "write a canary before opening";
        self.connections
            .execute(OPERATION, self.dialect.open_for_administration)
            .await?;
        self.commit(OPERATION, write_canary_closed(number), deadline)
            .await
    }

    /// The highest canary that was executed here, whether its master was open or not.
    pub async fn read_highest_canary(&self) -> Result<Option<u64>, Error> {
        const OPERATION: &str = "read the highest canary";
        let rows = self
            .connections
            .rows(OPERATION, READ_HIGHEST_CANARY)
            .await?;
        rows.first()
            .map(|row| row.number(OPERATION, "n"))
            .transpose()
    }

    /// The last canary of an open master that was executed here.
    pub async fn read_canary(&self) -> Result<Option<u64>, Error> {
        const OPERATION: &str = "read the canary";
        let rows = self.connections.rows(OPERATION, READ_CANARY).await?;
        rows.first()
            .map(|row| row.number(OPERATION, "n"))
            .transpose()
    }

    /// Lets clients write, if they are let in.
    pub async fn open_for_writes(&self) -> Result<(), Error> {
        for statement in self.dialect.open {
            self.connections
                .execute("open for writes", *statement)
                .await?;
        }
        Ok(())
    }

    /// Lets clients read only. It waits for commits that wait for acknowledgements, so it is nothing to fence with.
    ///
    /// # Errors
    /// After 15 s of waiting it fails and the server stays open.
    pub async fn close_for_writes(&self) -> Result<(), Error> {
        for statement in self.dialect.close {
            self.connections
                .execute("close for writes", *statement)
                .await?;
        }
        Ok(())
    }

    /// The same for a switchover: it gives up soon, and returns only when the server has said what came of it. When it has
    /// returned well nobody writes any more, and every commit that was under way is acknowledged and visible.
    ///
    /// Both flavours take the global read lock for it, which waits for statements that write and for commits. While it
    /// waits nobody else writes either.
    ///
    /// # Errors
    /// After some seconds at the most, each of two locks being waited for one second. The server is open then, as far as is
    /// known.
    pub async fn close_for_handover(&self) -> Result<(), Error> {
        const OPERATION: &str = "close for a switchover";
        let mut own = self.connections.own(OPERATION).await?;
        let deadline = Instant::now() + CLOSING_DEADLINE;
        own.execute_until(deadline, "SET SESSION lock_wait_timeout = 1")
            .await?;
        for statement in self.dialect.close {
            own.execute_until(deadline, *statement).await?;
        }
        Ok(())
    }

    /// Has each group of commits wait for so long before it is synced, or for longer where that is configured: fewer come, in larger groups,
    /// which replicas apply with less work. No guarantee changes. Up to a second (MySQL 8.4 Reference Manual,
    /// `binlog_group_commit_sync_delay`; MariaDB, `binlog_commit_wait_usec`).
    ///
    /// # Errors
    /// When a statement fails; [`Server::end_commit_delay`] is right in any case.
    pub async fn delay_commits(&self, delay: Duration) -> Result<(), Error> {
        let wanted = (self.dialect.commit_delay)(delay.as_micros() as u64);
        let known = self.commit_delay_before().clone();
        let before = match known {
            Some(before) => before,
            None => self.numbers(&wanted).await?,
        };
        // MariaDB has a delay by default, which is in force only with the other number.
        let is_in_force = before.iter().all(|(_, number)| *number > 0);
        let is_longer = before.first() >= wanted.first();
        if is_in_force && is_longer {
            return Ok(());
        }
        *self.commit_delay_before() = Some(before);
        self.set_numbers(wanted).await
    }

    /// Has commits wait as they did before [`Server::delay_commits`].
    pub async fn end_commit_delay(&self) -> Result<(), Error> {
        let before = self.commit_delay_before().clone();
        // One after the other, the last one first.
        let before = before.unwrap_or_default().into_iter().rev().collect();
        self.set_numbers(before).await?;
        *self.commit_delay_before() = None;
        Ok(())
    }

    fn commit_delay_before(&self) -> MutexGuard<'_, Option<Vec<(&'static str, u64)>>> {
        let before = &self.commit_delay_before;
        before.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What those variables are now.
    async fn numbers(&self, of: &[(&'static str, u64)]) -> Result<Vec<(&'static str, u64)>, Error> {
        let mut numbers = Vec::new();
        for (variable, _) in of {
            let statement = format!("SELECT @@GLOBAL.{variable} AS value");
            let row = self.connections.row(DELAY_COMMITS, statement).await?;
            numbers.push((*variable, row.number(DELAY_COMMITS, "value")?));
        }
        Ok(numbers)
    }

    async fn set_numbers(&self, numbers: Vec<(&'static str, u64)>) -> Result<(), Error> {
        for (variable, number) in numbers {
            let statement = format!("SET GLOBAL {variable} = {number}");
            self.connections.execute(DELAY_COMMITS, statement).await?;
        }
        Ok(())
    }

    /// Whether clients can read only.
    pub async fn is_read_only(&self) -> Result<bool, Error> {
        Ok(self.state().await?.read_only)
    }

    /// Sees that nobody writes, that no commit waits for acknowledgements, and that nothing else is executed than a position.
    ///
    /// # Errors
    /// [`Error::Writable`], [`Error::Waiting`], [`Error::Moved`].
    pub async fn stands_still_at(&self, position: &Position) -> Result<(), Error> {
        let semi_sync = self.semi_sync_status().await?;
        let sessions = semi_sync
            .get(self.dialect.semi_sync.waiting_sessions)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        let state = self.state().await?;
        if !state.read_only {
            return Err(Error::Writable);
        }
        if sessions > 0 {
            return Err(Error::Waiting { sessions });
        }
        if state.executed != *position {
            return Err(Error::Moved {
                expected: position.clone(),
                found: state.executed,
            });
        }
        Ok(())
    }

    async fn prove(&self, operation: &'static str, deadline: Instant) -> Result<(), Error> {
        self.connections
            .execute(operation, self.dialect.open_for_administration)
            .await?;
        self.commit(operation, WRITE_PROOF.to_owned(), deadline)
            .await
    }

    /// One commit on a connection of its own: it may wait for ever.
    async fn commit(
        &self,
        operation: &'static str,
        statement: String,
        deadline: Instant,
    ) -> Result<(), Error> {
        let mut own = self.connections.own(operation).await?;
        own.execute_until(deadline, statement).await?;
        Ok(())
    }
}
