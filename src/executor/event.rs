//! What an executor gets to know. Pure.

use std::time::Duration;

use crate::{
    cluster::{
        backup::{ArchiveReport, BackupState},
        control::{Goal, ServerKind},
        gtid::Position,
        id::{DataId, Epoch, ProcessId},
        voters::Terms,
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
    /// What a new master does when it is open already is done, or was given up: nothing of it meets a later step.
    Tidied {
        /// Which server.
        process: ProcessId,
    },
    /// Terms are in force.
    TermsSet {
        /// Which server.
        process: ProcessId,
        /// They; or why they are not, as a sentence. Then parts of them may be.
        terms: Result<Terms, String>,
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
    /// The executor got into touch with ZooKeeper, or out of it. Out of touch is noticed by the session's client
    /// after 2/5 of the session timeout at the latest.
    Contact {
        /// Whether it is in touch now, in the same session or in a new one.
        in_touch: bool,
    },
    /// A sign of life was asked for.
    Answered {
        /// Which server.
        process: ProcessId,
        /// Whether the server answered, be it with a refusal.
        alive: bool,
    },
    /// The space on the disk of the data directory was looked at.
    Space {
        /// What the server can still write, in bytes; `None` if the system does not say.
        available: Option<u64>,
    },
    /// A commit that shows whether commits come through has ended.
    Checked {
        /// Which server.
        process: ProcessId,
        /// It is acknowledged; or why it could not be made, as a sentence.
        committed: Result<(), String>,
    },
    /// The other voters were asked whether they still receive from this master.
    VotersAsked {
        /// Which server they were asked about.
        process: ProcessId,
        /// All of them do; or why that is not so, as a sentence.
        all_receive: Result<(), String>,
    },
    /// The watchdog of a server was started.
    Guarded {
        /// Which server.
        process: ProcessId,
        /// Or why not, as a sentence.
        started: Result<(), String>,
    },
    /// The watchdog of a server has ended, though the server has not.
    GuardEnded {
        /// Which server.
        process: ProcessId,
    },
    /// The executor itself did not run for a while: it was stopped, or got no processor. What was not answered
    /// in that time was perhaps answered and not heard.
    Overslept,
    /// What a data directory that was set aside holds beyond the history was exported.
    Exported {
        /// Which directory.
        data: DataId,
        /// The export's path in the sandbox; or why there is none, as a sentence.
        export: Result<String, String>,
    },
    /// How far a backup is.
    Backup {
        /// Which one.
        number: u64,
        /// How far it is.
        state: BackupState,
    },
    /// How far the master's binlogs are archived.
    Archived {
        /// Which archiving.
        number: u64,
        /// How far it is.
        report: ArchiveReport,
    },
    /// The task is to end.
    Kill {
        /// How long that may take before the agent ends the container.
        grace: Duration,
        /// Whether a master may go on for a part of that time, so that another member takes over.
        may_hold: bool,
    },
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The server is installed.
    Installed(ServerKind),
    /// A new data directory is there.
    DataMade(DataId),
    /// A new data directory is there, with the data of a backup.
    Restored(DataId),
    /// The server runs, closed, and has let the administration account in.
    Started(ProcessId),
    /// Receiving is stopped, and this is what the server holds.
    Held {
        /// Received or executed.
        position: Position,
        /// Executed.
        executed: Position,
    },
    /// Nobody writes on the server any more, and the other member has all that it has.
    Closed {
        /// All that it has executed.
        position: Position,
        /// How long it has been closed.
        took: Duration,
    },
    /// A copy of the cluster's data is complete, in this new data directory.
    Copied(DataId),
    /// Nothing was copied: the backup that was named is of no use to anybody.
    Unfit {
        /// Why, as a sentence.
        why: String,
    },
    /// Nothing was copied: the master's binlogs go back to the first transaction, and there is little in them.
    ReplayIsCheaper,
    /// The step has done what it is for.
    Finished,
}
