//! Receiving, applying, following.
//!
//! One rule governs all of it: relay logs that hold unapplied transactions are never thrown away. CHANGE and RESET do that
//! in both flavours, and on MariaDB START SLAVE does it too when both threads are stopped; hence
//! [`Server::follow`] and [`Server::forget_source`] refuse, and MariaDB's applier is started by [`Server::replay`] when the
//! receiver is stopped.

use std::{sync::PoisonError, time::Duration};

use tokio::time::Instant;

use super::{Credentials, Server, Source, Status};
use crate::{
    cluster::{
        control::Address,
        flavour::Flavour,
        gtid::{GtidList, MARKER_DOMAIN, Position},
        id::Epoch,
    },
    mysql::{
        connections::{STATEMENT_TIMEOUT, error_number},
        error::Error,
        relay_log::{Contents, Place, Scanner},
        remote, sql,
    },
};

/// How long one wait for transactions lasts before the applier is looked at: a wait does not end when the applier
/// stops with an error.
const WAIT_SLICE: Duration = Duration::from_millis(500);

/// How long reading one relay log file may take. A file has up to 1 GiB, some ten million events.
const SCAN_TIMEOUT: Duration = Duration::from_secs(300);

/// `ER_ERROR_WHEN_EXECUTING_COMMAND`: how SHOW RELAYLOG EVENTS says that there is no such file, or that it ends
/// within an event.
const ERROR_WHEN_EXECUTING: u16 = 1220;

/// Between two looks at an applier that is ending, which takes milliseconds.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// How long a master may take to say which markers it has. It takes milliseconds.
const MASTER_ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// `ER_NO_SUCH_THREAD`.
const NO_SUCH_THREAD: u16 = 1094;

impl Server {
    /// Stops receiving, and with it acknowledging. The applier goes on.
    pub async fn stop_receiving(&self) -> Result<(), Error> {
        self.connections
            .execute("stop the receiver", self.dialect.stop_receiver)
            .await
    }

    /// Stops receiving and applying, in the middle of a transaction if need be; forgets nothing.
    pub async fn stop_following(&self) -> Result<(), Error> {
        const OPERATION: &str = "stop replication";
        self.stop_receiving().await?;
        if self.dialect.applier_waits_for_the_rest {
            self.kill_applier(OPERATION).await?;
        }
        self.connections
            .execute(OPERATION, self.dialect.stop_both)
            .await
    }

    /// Applies everything that was received, and waits for it. Also after a restart.
    ///
    /// If the server or the caller dies in between, the same call on the restarted server goes on.
    ///
    /// An applier that has stopped with an error is started once more: what stopped it, a full disk for instance, may be over.
    ///
    /// # Errors
    /// [`Error::Applier`] when the applier stops with an error, [`Error::NotApplied`] at the deadline.
    pub async fn apply_received(&self, deadline: Instant) -> Result<(), Error> {
        let start = Instant::now();
        let mut started = false;
        loop {
            let Some(status) = self.replication_status().await? else {
                return Ok(());
            };
            let received = self.received(Some(&status)).await?;
            let missing = received.minus(&self.state().await?.visible);
            if missing.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Error::NotApplied {
                    missing,
                    waited: start.elapsed(),
                });
            }
            let applying = status.replication.applying;
            // The error of an applier is shown until it is started again.
            if let Some(message) = &status.replication.applier_error
                && (applying || started)
            {
                let message = message.clone();
                return Err(Error::Applier { message });
            }
            if !applying {
                self.start_applier(&status).await?;
                started = true;
            }
            self.wait_for(&missing, deadline).await?;
        }
    }

    /// Waits until a position is executed.
    ///
    /// # Errors
    /// [`Error::Applier`] when the applier stops with an error, [`Error::NotApplied`] at the deadline.
    pub async fn wait_executed(&self, position: &Position, deadline: Instant) -> Result<(), Error> {
        let start = Instant::now();
        loop {
            let missing = position.minus(&self.state().await?.visible);
            if missing.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Error::NotApplied {
                    missing,
                    waited: start.elapsed(),
                });
            }
            let status = self.replication_status().await?;
            if let Some(message) = status.and_then(|status| status.replication.applier_error) {
                return Err(Error::Applier { message });
            }
            self.wait_for(&missing, deadline).await?;
        }
    }

    /// Follows a master from what is executed on, acknowledging or not.
    ///
    /// The caller has compared what is held with the master's history before. If this is cut off in between, the server follows
    /// nobody or the new master; doing it again completes it.
    ///
    /// # Errors
    /// [`Error::Unapplied`] while anything received is not executed; the receiver is stopped then.
    pub async fn follow(&self, source: &Source, acknowledge: bool) -> Result<(), Error> {
        self.follow_from(source, acknowledge, None).await
    }

    /// The same from another marker on than the last one that is executed (MariaDB): see [`Server::marker_to_begin_at`].
    ///
    /// # Errors
    /// As for [`Server::follow`].
    pub async fn follow_from(
        &self,
        source: &Source,
        acknowledge: bool,
        marker: Option<GtidList>,
    ) -> Result<(), Error> {
        const OPERATION: &str = "follow a master";
        let executed = self.stop_with_all_executed(OPERATION).await?;
        let position = match (executed, marker) {
            (Position::Mariadb(list), Some(marker)) => {
                Position::Mariadb(list.without(MARKER_DOMAIN).union(&marker))
            }
            (executed, _) => executed,
        };
        for statement in (self.dialect.follow)(source, acknowledge, &position) {
            self.forget_files();
            self.connections.execute(OPERATION, statement).await?;
        }
        Ok(())
    }

    /// Which marker this server begins behind when it follows a master, if not behind its own last one. MariaDB only.
    ///
    /// A master sends nothing to a server whose last marker it does not have: one of an epoch whose master died before
    /// anybody acknowledged it. Such a server begins behind the last marker up to its own that the *master* has. Whatever
    /// it has already does not come again, and in its binlog the numbers still grow. It says of itself as before
    /// that it holds its own last marker, which stands in its binlog.
    ///
    /// # Errors
    /// When the master, which is asked, does not answer.
    pub async fn marker_to_begin_at(
        &self,
        master: &Address,
        history: &Position,
        epoch: Epoch,
        credentials: &Credentials,
    ) -> Result<Option<GtidList>, Error> {
        let (Position::Mariadb(held), Position::Mariadb(history)) =
            (self.executed().await?, history)
        else {
            return Ok(None);
        };
        let last = |list: &GtidList| (list.sequence(MARKER_DOMAIN), list.server(MARKER_DOMAIN));
        let own = held.sequence(MARKER_DOMAIN);
        // Without any marker it begins at the first; the epoch's own, and the one before it, the master has.
        if own == 0 || own >= epoch.0 || last(&held) == last(history) {
            return Ok(None);
        }
        let found = remote::marker_up_to(own, master, credentials, MASTER_ANSWERS_WITHIN).await?;
        let marker = |(epoch, server)| GtidList::one(MARKER_DOMAIN, server, epoch);
        Ok(Some(found.map_or_else(GtidList::new, marker)))
    }

    /// Follows nobody any more, and still knows whom it followed: [`Server::forget_source`] can come later.
    ///
    /// All that the relay logs hold is executed then, so they add nothing to what the server holds, and nothing starts
    /// the threads again but [`Server::follow`], which throws the relay logs away.
    ///
    /// # Errors
    /// [`Error::Unapplied`] while anything received is not executed; the receiver is stopped then.
    pub async fn leave_source(&self) -> Result<(), Error> {
        const OPERATION: &str = "leave the former master";
        self.stop_with_all_executed(OPERATION).await.map(|_| ())
    }

    /// Follows nobody any more and forgets whom it followed. It deletes and syncs files, which takes a tenth of a second on a busy disk.
    ///
    /// # Errors
    /// [`Error::Unapplied`] while anything received is not executed; the receiver is stopped then.
    pub async fn forget_source(&self) -> Result<(), Error> {
        const OPERATION: &str = "forget the former master";
        if self.replication_status().await?.is_none() {
            return Ok(());
        }
        self.stop_with_all_executed(OPERATION).await?;
        self.forget_files();
        self.connections
            .execute(OPERATION, self.dialect.forget)
            .await
    }

    /// What was received, whether applied or not.
    pub(super) async fn received(&self, status: Option<&Status>) -> Result<Position, Error> {
        let Some(status) = status else {
            return Ok(Position::empty(self.flavour()));
        };
        let said = match &status.received {
            Position::Mysql(_) => return Ok(status.received.clone()),
            Position::Mariadb(list) => list,
        };
        // Once the receiver runs, MariaDB knows; it starts only after all that the files held was executed.
        if !said.is_empty() || !status.receiver_stopped {
            return Ok(status.received.clone());
        }
        let known = self
            .held_in_files
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let received = match known {
            Some(list) => list,
            None => {
                let received = self.scan(status).await?.received;
                *self
                    .held_in_files
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner) = Some(received.clone());
                received
            }
        };
        Ok(Position::Mariadb(received))
    }

    fn forget_files(&self) {
        *self
            .held_in_files
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Stops both threads if everything received is executed, and returns what that is.
    async fn stop_with_all_executed(&self, operation: &'static str) -> Result<Position, Error> {
        // The receiver first: nothing arrives after the comparison.
        self.stop_receiving().await?;
        let status = self.replication_status().await?;
        let received = self.received(status.as_ref()).await?;
        let executed = self.executed().await?;
        let unapplied = received.minus(&executed);
        if !unapplied.is_empty() {
            return Err(Error::Unapplied {
                operation,
                unapplied,
            });
        }
        self.stop_following().await?;
        Ok(executed)
    }

    /// MySQL: ends the applier even in the middle of a transaction, the rest of which will not come.
    ///
    /// The receiver may have been stopped within a transaction. STOP REPLICA would have the applier wait 60 s for
    /// the rest of it, and a change of master with it (tried); one that is killed rolls back what it has
    /// of it. That transaction was not received, it comes again from the next master. The error that the applier
    /// leaves is gone with its next start. The receiver must have been stopped before.
    async fn kill_applier(&self, operation: &'static str) -> Result<(), Error> {
        let status = self.replication_status().await?;
        if !status.is_some_and(|status| status.replication.applying) {
            return Ok(());
        }
        let threads = self.connections.rows(operation, "SHOW PROCESSLIST").await?;
        let of_replication = threads
            .iter()
            .filter(|row| row.get("User") == Some("system user"));
        let ids = of_replication.filter_map(|row| row.get("Id")?.parse::<u64>().ok());
        // The receiver has ended. The applier's coordinator starts its workers, so it has the lowest number.
        let Some(coordinator) = ids.min() else {
            return Ok(());
        };
        match self
            .connections
            .execute(operation, format!("KILL {coordinator}"))
            .await
        {
            // It has ended by itself in between.
            Err(Error::Statement { source, .. })
                if error_number(&source) == Some(NO_SUCH_THREAD) => {}
            result => result?,
        }
        self.wait_for_end_of_applier().await
    }

    /// STOP REPLICA that comes before the applier has seen that it is killed makes it wait all the same (tried).
    /// Nothing tells when it has ended. One that does not end is left to STOP REPLICA, which has a deadline.
    async fn wait_for_end_of_applier(&self) -> Result<(), Error> {
        let deadline = Instant::now() + STATEMENT_TIMEOUT;
        while Instant::now() < deadline {
            let status = self.replication_status().await?;
            if !status.is_some_and(|status| status.replication.applying) {
                break;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    async fn wait_for(&self, missing: &Position, deadline: Instant) -> Result<(), Error> {
        let slice = WAIT_SLICE.min(deadline.saturating_duration_since(Instant::now()));
        let statement = (self.dialect.wait)(missing, slice.as_secs_f64());
        self.connections
            .execute("wait for transactions", statement)
            .await
    }

    async fn start_applier(&self, status: &Status) -> Result<(), Error> {
        if self.flavour() == Flavour::Mariadb && status.receiver_stopped {
            return self.replay(status).await;
        }
        self.connections
            .execute("start the applier", self.dialect.start_applier)
            .await
    }

    /// MariaDB: applies what the relay log files hold, by file and position, with the receiver stopped.
    ///
    /// The place is found by GTID, not taken from relay-log.info, which lags behind after a crash. A crash in here leaves the
    /// files as they are, and the next call finds the place anew.
    async fn replay(&self, status: &Status) -> Result<(), Error> {
        const OPERATION: &str = "replay the relay logs";
        self.stop_following().await?;
        // A DDL statement may have been committed without its position; a time as master left its
        // own transactions in the binlog only.
        let executed = self.executed().await?;
        let position = format!("SET GLOBAL gtid_slave_pos = '{executed}'");
        self.connections.execute(OPERATION, position).await?;
        let Some(Place { file, position }) = self.scan(status).await?.first_unexecuted else {
            return Ok(());
        };
        let change = format!(
            "CHANGE MASTER TO MASTER_USE_GTID = no, RELAY_LOG_FILE = {}, RELAY_LOG_POS = {position}",
            sql::text(&file)
        );
        self.connections.execute(OPERATION, change).await?;
        self.connections
            .execute(OPERATION, self.dialect.start_applier)
            .await
    }

    /// MariaDB: reads the relay log files from where the applier is.
    async fn scan(&self, status: &Status) -> Result<Contents, Error> {
        let executed = match self.executed().await? {
            Position::Mariadb(list) => list,
            Position::Mysql(_) => GtidList::new(),
        };
        let mut scanner = Scanner::new(executed);
        let mut file = status.relay_log_file.clone();
        let mut from = status.relay_log_position;
        while self.scan_file(&mut scanner, &file, from).await? {
            let Some(next) = next_file(&file) else { break };
            (file, from) = (next, 4);
        }
        Ok(scanner.finish())
    }

    /// Reads one file; says whether there was such a file.
    async fn scan_file(&self, scanner: &mut Scanner, file: &str, from: u64) -> Result<bool, Error> {
        const OPERATION: &str = "read a relay log";
        if file.is_empty() {
            return Ok(false);
        }
        let mut own = self.connections.own(OPERATION).await?;
        let statement = format!("SHOW RELAYLOG EVENTS IN {} FROM {from}", sql::text(file));
        let mut any = false;
        let each = |row: super::Row| {
            any = true;
            let position = row
                .get("Pos")
                .and_then(|text| text.parse().ok())
                .unwrap_or(0);
            let (kind, info) = (
                row.get("Event_type").unwrap_or(""),
                row.get("Info").unwrap_or(""),
            );
            scanner.event(file, position, kind, info);
        };
        match own.stream(statement, SCAN_TIMEOUT, each).await {
            Ok(()) => Ok(true),
            // No such file, if nothing came; else a last event that was half written when the server died: it was
            // never acknowledged, and what came before it counts.
            Err(Error::Statement { source, .. })
                if error_number(&source) == Some(ERROR_WHEN_EXECUTING) =>
            {
                Ok(any)
            }
            Err(error) => Err(error),
        }
    }
}

/// The name of the relay log file after this one: `relay.000003` after `relay.000002`.
fn next_file(file: &str) -> Option<String> {
    let (base, number) = file.rsplit_once('.')?;
    let next = number.parse::<u64>().ok()? + 1;
    Some(format!("{base}.{next:06}"))
}

#[cfg(test)]
mod tests {
    use super::next_file;

    #[test]
    fn relay_log_files_are_counted_with_six_digits_or_more() {
        assert_eq!(next_file("relay.000009").as_deref(), Some("relay.000010"));
        assert_eq!(next_file("a.b.999999").as_deref(), Some("a.b.1000000"));
        assert_eq!(next_file("relay"), None);
    }
}
