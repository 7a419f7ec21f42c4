//! What can go wrong with a running server.

use std::{path::PathBuf, time::Duration};

use crate::cluster::{
    flavour::{Flavour, VersionError},
    gtid::{ParseGtidError, Position},
    id::Epoch,
};

/// Why a server did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server refused the administration account; trying again does not help.
    #[error("the server at {socket} refused to let the account {user:?} in; check --admin-keypath")]
    Refused {
        /// The server's socket.
        socket: PathBuf,
        /// The administration account.
        user: String,
        /// What the server said.
        #[source]
        source: sqlx::Error,
    },
    /// No login worked until the deadline.
    #[error("no login at {socket} worked within {waited:?}; the server's error log says why")]
    NotReady {
        /// The server's socket.
        socket: PathBuf,
        /// How long was waited.
        waited: Duration,
        /// What the last attempt ended with.
        #[source]
        source: sqlx::Error,
    },
    /// Another flavour answered than the one that was installed.
    #[error("the server at {socket} is {found}, not {expected}")]
    OtherFlavour {
        /// The server's socket.
        socket: PathBuf,
        /// What was expected.
        expected: Flavour,
        /// What answers.
        found: Flavour,
    },
    /// The server's version cannot be read.
    #[error("read the server's version")]
    Version(#[from] VersionError),
    /// A statement failed.
    #[error("the server failed to {operation}")]
    Statement {
        /// What was attempted, as a verb and its object.
        operation: &'static str,
        /// What the server or the connection said.
        #[source]
        source: sqlx::Error,
    },
    /// A statement did not end in time. The server may still be at it.
    #[error("the server did not {operation} within {waited:?}")]
    TimedOut {
        /// What was attempted, as a verb and its object.
        operation: &'static str,
        /// How long was waited.
        waited: Duration,
    },
    /// The server answered without something that every version answers with.
    #[error("the server's answer to \"{operation}\" has no usable {column}")]
    Answer {
        /// What was attempted, as a verb and its object.
        operation: &'static str,
        /// The column or variable that is missing.
        column: &'static str,
    },
    /// A position cannot be read.
    #[error("read a position from the server")]
    Position(#[from] ParseGtidError),
    /// Something that would throw relay logs away was asked for while they hold unapplied transactions.
    #[error("{operation} would lose transactions that were received but not applied: {unapplied}")]
    Unapplied {
        /// What was asked for.
        operation: &'static str,
        /// What is received and not executed.
        unapplied: Position,
    },
    /// The applier stopped with an error.
    #[error("the applier stopped: {message}")]
    Applier {
        /// The server's own words.
        message: String,
    },
    /// Transactions that were received do not get applied.
    #[error("{missing} was not applied within {waited:?}")]
    NotApplied {
        /// What is missing.
        missing: Position,
        /// How long was waited.
        waited: Duration,
    },
    /// MariaDB's master waits for one acknowledgement, never for more.
    #[error("a MariaDB master can wait for one acknowledgement only, not for {wanted}")]
    TooManyAcknowledgements {
        /// What was asked for.
        wanted: u32,
    },
    /// The server has the marker of a later epoch: whoever wants to write this one was replaced.
    #[error("the marker of epoch {wanted} cannot be written: the server has that of epoch {found}")]
    LaterMarker {
        /// The latest epoch whose marker is there.
        found: Epoch,
        /// The epoch whose marker was to be written.
        wanted: Epoch,
    },
    /// MariaDB has closed its binlog, or has not begun another file of it.
    #[error("the server writes no binlog any more; is its disk full?")]
    NoBinlog,
    /// A server that is to be closed for writes is open.
    #[error("the server is not closed for writes")]
    Writable,
    /// Commits wait on a server that is closed for writes.
    #[error("{sessions} commits wait for acknowledgements")]
    Waiting {
        /// How many.
        sessions: u32,
    },
    /// A server that was closed for writes has executed something else since.
    #[error("the server has executed {found}, and had executed {expected} when it was closed")]
    Moved {
        /// What it had executed.
        expected: Position,
        /// What it has executed.
        found: Position,
    },
    /// Another member has not executed in time what it was waited for.
    #[error("it has not executed {position}")]
    NotThere {
        /// What.
        position: Position,
    },
    /// A barred account's connections did not end.
    #[error("the connections of the barred account {user:?} did not end within {waited:?}")]
    NotBarred {
        /// The account.
        user: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The cluster's user has the name of an account of Cotton's or of the server's own.
    #[error("the user name {user:?} is reserved; choose another for the cluster's user")]
    ReservedUser {
        /// The name.
        user: String,
    },
}
