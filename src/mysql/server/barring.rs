//! Keeping members from receiving, and with it from acknowledging.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use super::Server;
use crate::mysql::{
    accounts::replication_sql, authentication::Authentication, connections::error_number,
    error::Error, sql,
};

const OPERATION: &str = "bar replication accounts";

/// How long the connections of a barred account may take to end. A dump thread that is killed ends when it next wakes, which
/// is at once unless it writes to a dead peer.
const BARRING_DEADLINE: Duration = Duration::from_secs(10);

/// Between two looks at connections that are ending. Nothing announces their end.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// `ER_NO_SUCH_THREAD`.
const NO_SUCH_THREAD: u16 = 1094;

/// What the process list calls somebody who has not logged in yet.
const UNAUTHENTICATED: &str = "unauthenticated user";

impl Server {
    /// Locks the replication accounts in `barred` on this server, unlocks all others, and returns when no connection of a
    /// barred one is left: none of what they acknowledge counts from then on. Nothing of it is written to the binlog.
    ///
    /// The connections that are killed are those of replicas, never one that could have a commit under way.
    /// If it is cut off in between, doing it again completes it.
    ///
    /// # Errors
    /// [`Error::NotBarred`] when a connection does not end; failing statements.
    pub async fn bar(&self, barred: &BTreeSet<String>) -> Result<(), Error> {
        let deadline = Instant::now() + BARRING_DEADLINE;
        self.lock_accounts(barred, deadline).await?;
        if barred.is_empty() {
            return Ok(());
        }
        // Who is in the middle of a login may have passed the check of the lock before it was there.
        let mut entering: Option<BTreeSet<u64>> = None;
        loop {
            let threads = self.threads().await?;
            let entering = entering.get_or_insert_with(|| {
                let new = threads.iter().filter(|(_, user)| *user == UNAUTHENTICATED);
                new.map(|(id, _)| *id).collect()
            });
            entering.retain(|id| threads.get(id).is_some_and(|user| user == UNAUTHENTICATED));
            let left: Vec<(u64, &String)> = threads
                .iter()
                .filter(|(_, user)| barred.contains(*user))
                .map(|(id, user)| (*id, user))
                .collect();
            if left.is_empty() && entering.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let user = left
                    .first()
                    .map_or(UNAUTHENTICATED, |(_, user)| user.as_str());
                return Err(Error::NotBarred {
                    user: user.to_owned(),
                    waited: BARRING_DEADLINE,
                });
            }
            for (id, _) in left {
                self.end_connection(id).await?;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Makes those of these replication accounts that this server does not have. Nothing of it is written to the binlog: each server
    /// has its own, and what one member is kept from has no place in the history.
    ///
    /// # Errors
    /// Failing statements. If it is cut off in between, doing it again completes it.
    pub async fn provide_accounts(
        &self,
        accounts: Vec<(String, Authentication)>,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + BARRING_DEADLINE;
        let known = self
            .connections
            .rows(OPERATION, self.dialect.replication_accounts)
            .await?;
        let mut there = BTreeSet::new();
        for row in &known {
            there.insert(row.text(OPERATION, "user")?.to_owned());
        }
        let missing = accounts.iter().filter(|(user, _)| !there.contains(user));
        let statements: Vec<String> = missing
            .flat_map(|(user, login)| replication_sql(self.dialect.flavour, user, login))
            .collect();
        if statements.is_empty() {
            return Ok(());
        }
        let mut own = self.connections.own(OPERATION).await?;
        own.execute_until(deadline, "SET SESSION sql_log_bin = 0")
            .await?;
        for statement in statements {
            own.execute_until(deadline, statement).await?;
        }
        Ok(())
    }

    async fn lock_accounts(
        &self,
        barred: &BTreeSet<String>,
        deadline: Instant,
    ) -> Result<(), Error> {
        let accounts = self
            .connections
            .rows(OPERATION, self.dialect.replication_accounts)
            .await?;
        let mut changes = Vec::new();
        for row in &accounts {
            let user = row.text(OPERATION, "user")?;
            let locked = row.number::<u8>(OPERATION, "locked")? != 0;
            let wanted = barred.contains(user);
            if locked != wanted {
                let account = sql::account(user, "%");
                let state = if wanted { "LOCK" } else { "UNLOCK" };
                changes.push(format!("ALTER USER {account} ACCOUNT {state}"));
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        let mut own = self.connections.own(OPERATION).await?;
        own.execute_until(deadline, "SET SESSION sql_log_bin = 0")
            .await?;
        for statement in changes {
            own.execute_until(deadline, statement).await?;
        }
        Ok(())
    }

    /// The connections by number, with their users.
    async fn threads(&self) -> Result<BTreeMap<u64, String>, Error> {
        let rows = self.connections.rows(OPERATION, "SHOW PROCESSLIST").await?;
        let thread = |row: &super::Row| {
            let id = row.get("Id")?.parse().ok()?;
            Some((id, row.get("User")?.to_owned()))
        };
        Ok(rows.iter().filter_map(thread).collect())
    }

    async fn end_connection(&self, id: u64) -> Result<(), Error> {
        match self
            .connections
            .execute(OPERATION, format!("KILL {id}"))
            .await
        {
            // It has ended by itself in between.
            Err(Error::Statement { source, .. })
                if error_number(&source) == Some(NO_SUCH_THREAD) =>
            {
                Ok(())
            }
            result => result,
        }
    }
}
