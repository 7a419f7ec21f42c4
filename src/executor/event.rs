//! What an executor gets to know. Pure.

use std::time::Duration;

use crate::{
    cluster::{
        control::{Goal, ServerKind},
        gtid::Position,
        id::{DataId, Epoch, ProcessId},
    },
    mysql::Observation,
};

/// A fact that arrived.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The goal of the cluster, as it stands in ZooKeeper.
    Goal(Box<Goal>),
    /// A promise is stored and survives a crash.
    Promised {
        /// The epoch.
        epoch: Epoch,
        /// The data directory in use.
        data: Option<DataId>,
    },
    /// A promise could not be stored; it may or may not be there.
    PromiseFailed {
        /// Why, as a sentence.
        problem: String,
    },
    /// A step has ended. One that was abandoned may still say so; its number tells.
    Done {
        /// The number that the step was begun with.
        number: u64,
        /// What came of it; or why nothing did, as a sentence.
        outcome: Result<Outcome, String>,
    },
    /// The server process has ended, and nothing of it is left.
    Exited {
        /// Which one.
        process: ProcessId,
        /// How, as part of a sentence.
        how: String,
    },
    /// The server was looked at.
    Observed {
        /// Which one.
        process: ProcessId,
        /// What was seen; or why nothing was, as a sentence.
        seen: Result<Box<Observation>, String>,
    },
    /// A canary was executed here.
    Canary {
        /// Which server.
        process: ProcessId,
        /// Its number; or why it could not be written or read, as a sentence.
        number: Result<u64, String>,
    },
    /// A commit that was to release others is acknowledged, or was given up.
    Proved {
        /// Which server.
        process: ProcessId,
    },
    /// This member's data is handed out to other executors.
    HandsOut {
        /// At this port.
        port: u16,
    },
    /// The task is to end.
    Kill {
        /// How long that may take before the agent ends the container.
        grace: Duration,
    },
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The server is installed.
    Installed(ServerKind),
    /// A new data directory is there.
    DataMade(DataId),
    /// The server runs, closed, and has let the administration account in.
    Started(ProcessId),
    /// Receiving is stopped, and this is what the server holds.
    Held {
        /// Received or executed.
        position: Position,
        /// Executed.
        executed: Position,
    },
    /// A copy of the cluster's data is complete, in this new data directory.
    Copied(DataId),
    /// Nothing was copied: the master's binlogs go back to the first transaction, and there is little in them.
    ReplayIsCheaper,
    /// The step has done what it is for.
    Finished,
}
