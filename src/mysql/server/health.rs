//! Whether the server lives, and whether commits come through.

use std::sync::PoisonError;

use tokio::time::Instant;

use super::Server;
use crate::mysql::{dialect::WRITE_CHECK, error::Error};

/// A check must not be held up by a lock that a client holds, which says nothing about the server: it fails
/// after a second then, which is the least that both flavours take.
const WAIT_FOR_NO_LOCK: &str = "SET SESSION lock_wait_timeout = 1, innodb_lock_wait_timeout = 1";

impl Server {
    /// Whether the server answered, be it with a refusal. It has until its statement's time is up; whoever
    /// needs to know sooner looks at the clock.
    pub async fn gives_a_sign_of_life(&self) -> bool {
        let answer = self
            .connections
            .execute("give a sign of life", "DO 0")
            .await;
        match answer {
            Ok(()) => true,
            // The server's own word, such as that it has no connection left, is one.
            Err(Error::Statement { source, .. }) => source.as_database_error().is_some(),
            Err(_) => false,
        }
    }

    /// Commits a row that is overwritten each time, through the commit path of all clients, and waits for its
    /// acknowledgement.
    ///
    /// The connection is kept for the next check, so that clients who have taken all connections do not hinder it.
    ///
    /// # Errors
    /// [`Error::Statement`] when the server says that it cannot; [`Error::TimedOut`] at the deadline.
    pub async fn check_commit(&self, deadline: Instant) -> Result<(), Error> {
        const OPERATION: &str = "commit a check";
        let kept = self
            .checks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let mut own = match kept {
            Some(own) => own,
            None => {
                let mut own = self.connections.own(OPERATION).await?;
                own.execute_until(deadline, WAIT_FOR_NO_LOCK).await?;
                own
            }
        };
        // One that was given up half-way, or failed, is closed: it is not put back.
        own.execute_until(deadline, WRITE_CHECK).await?;
        *self.checks.lock().unwrap_or_else(PoisonError::into_inner) = Some(own);
        Ok(())
    }
}
