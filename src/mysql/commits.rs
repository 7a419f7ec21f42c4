//! How much a server commits, asked through the network.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{
    connections::{Connections, Own},
    error::Error,
    server::Source,
};

const OPERATION: &str = "count the master's commits";

/// The transactions that went through the binlog's cache: those that wrote something to tables with transactions, and a few that were rolled
/// back (MySQL 9.4 Reference Manual and MariaDB's documentation, "Server Status Variables").
const COUNT: &str = "SHOW GLOBAL STATUS LIKE 'Binlog_cache_use'";

/// How long the server may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// A server that is asked again and again, on one connection.
pub struct Commits {
    own: Own,
}

impl Commits {
    /// Connects.
    ///
    /// # Errors
    /// When the server cannot be reached, or not within a second.
    pub async fn of(source: &Source) -> Result<Self, Error> {
        let connections = Connections::through_network(source);
        let own = timeout(ANSWER_WITHIN, connections.own(OPERATION)).await;
        let own = own.map_err(|_| Error::TimedOut {
            operation: OPERATION,
            waited: ANSWER_WITHIN,
        })??;
        Ok(Self { own })
    }

    /// How many transactions have written something since the server was started, those of others that it applied among them.
    ///
    /// # Errors
    /// When the server does not answer within a second.
    pub async fn count(&mut self) -> Result<u64, Error> {
        let deadline = Instant::now() + ANSWER_WITHIN;
        let rows = self.own.execute_until(deadline, COUNT).await?;
        let row = rows.first().ok_or(Error::Answer {
            operation: OPERATION,
            column: "Value",
        })?;
        row.number(OPERATION, "Value")
    }
}
