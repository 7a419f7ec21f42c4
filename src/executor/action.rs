//! What an executor can ask of the world. Pure.
//!
//! Everything that is asked of the server is a [`Step`]; one at a time, so that a statement of one
//! epoch never meets a statement of another. A step carries the epoch that it serves. Signals, the
//! promise and the report do not wait for steps.

use std::time::Duration;

use crate::cluster::{
    backup::{ArchiveOrder, BackupOrder, RestoreFrom},
    control::{Address, Beyond, ClusterUser, Lineage, Report},
    donor::Donor,
    gtid::Position,
    id::{DataId, Epoch, MemberId, ProcessId},
    voters::Terms,
};

/// Something that the world must do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Store a promise so that it survives a crash. Answered by `Promised` or `PromiseFailed`.
    Promise {
        /// The epoch.
        epoch: Epoch,
        /// The data directory in use.
        data: Option<DataId>,
    },
    /// Begin a step. Answered by `Done`.
    Begin {
        /// Tells this attempt from all others.
        number: u64,
        /// The step.
        step: Step,
    },
    /// Give up the step that is under way; what it waits for does not matter any more.
    Abandon {
        /// Its number.
        number: u64,
    },
    /// Send SIGKILL to the server's process group. Answered by `Exited`.
    Kill {
        /// Which server.
        process: ProcessId,
    },
    /// Send SIGTERM to the server's process group. Answered by `Exited`.
    Terminate {
        /// Which server.
        process: ProcessId,
    },
    /// Look at the server. Answered by `Observed`.
    Observe {
        /// Which server.
        process: ProcessId,
    },
    /// Write a canary and wait until it is acknowledged. Answered by `Canary`.
    WriteCanary {
        /// Which server.
        process: ProcessId,
        /// The number to write.
        number: u64,
        /// Whether the master has opened. Before, the epoch's marker waits.
        opened: bool,
    },
    /// Put terms in force on the running master. Answered by `TermsSet`.
    SetTerms {
        /// Which server.
        process: ProcessId,
        /// The terms.
        terms: Terms,
    },
    /// Commit something whose acknowledgement releases all commits before it. Answered by `Proved`.
    Prove {
        /// Which server.
        process: ProcessId,
    },
    /// Ask the server for a sign of life, and the system for the space on the disk. Answered by `Answered` and
    /// `Space`.
    Ping {
        /// Which server.
        process: ProcessId,
    },
    /// Commit something, to see whether commits come through. Answered by `Checked`.
    Check {
        /// Which server.
        process: ProcessId,
    },
    /// Ask other voters whether they receive from this master. Answered by `VotersAsked`.
    AskVoters {
        /// The server they are asked about.
        process: ProcessId,
        /// Where the voters know it.
        master: Address,
        /// Where they are; `None` for one of which nobody knows.
        voters: Vec<(MemberId, Option<Address>)>,
    },
    /// Start a watchdog that kills the server when it is not fed for so long. Answered by `Guarded`.
    Guard {
        /// Which server.
        process: ProcessId,
        /// How long it does without food.
        patience: Duration,
    },
    /// Feed the watchdog.
    Feed {
        /// Whose.
        process: ProcessId,
    },
    /// Read the canary. Answered by `Canary`.
    ReadCanary {
        /// Which server.
        process: ProcessId,
    },
    /// Export what a data directory that was set aside holds beyond the history. Answered by `Exported`.
    Export {
        /// Which directory.
        data: DataId,
        /// What.
        beyond: Box<Beyond>,
    },
    /// Make a backup. Answered by `Backup`, several times.
    BackUp {
        /// What is to be made.
        order: Box<BackupOrder>,
        /// The epoch in which it is begun.
        epoch: Epoch,
        /// The name of the cluster's user.
        user: String,
    },
    /// Give up a backup that is not wanted any more.
    AbandonBackup {
        /// Its number.
        number: u64,
    },
    /// Archive the binlogs of the open master from now on. Answered by `Archived`, again and again.
    Archive {
        /// Tells this archiving from others.
        number: u64,
        /// Where they go.
        order: Box<ArchiveOrder>,
        /// The epoch whose master this is.
        epoch: Epoch,
        /// Its data directory.
        data: DataId,
        /// What the winners of the last epochs held, with the present one at the end.
        lineage: Vec<Lineage>,
    },
    /// Archive no longer.
    AbandonArchive {
        /// Which one.
        number: u64,
    },
    /// Write the report into ZooKeeper, now or when that can be reached. It replaces earlier ones.
    Report(Box<Report>),
    /// Tell Mesos what has become of the task.
    Update(TaskUpdate),
    /// End the executor, after Mesos has acknowledged the updates or a bounded time.
    Exit,
}

/// What Mesos is told of the task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskUpdate {
    /// It was taken up.
    Starting,
    /// Its server runs.
    Running,
    /// It is being stopped.
    Killing,
    /// It has ended as it was told to.
    Killed,
    /// It cannot go on.
    Failed {
        /// Why, as a sentence.
        problem: String,
    },
}

/// A piece of work on the server or for it.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Find the server's program, or fetch it.
    Install,
    /// Make a new data directory, moving one that is given up out of the way first.
    MakeData {
        /// The directory to move.
        set_aside: Option<DataId>,
        /// What it holds beyond the history, to be exported later, by another executor perhaps.
        beyond: Option<Box<Beyond>>,
    },
    /// Make a new data directory from the backup that the task names.
    Restore,
    /// Start the server closed and log in.
    Start {
        /// On this data directory.
        data: DataId,
        /// Whether this is the directory's first start.
        birth: Birth,
    },
    /// Stop receiving, then read what is held.
    Hold {
        /// For this epoch, which is promised.
        epoch: Epoch,
    },
    /// Copy the cluster's data from a donor or a backup into a new data directory; the server that runs holds nothing. Not
    /// done where replaying the master's binlogs costs less.
    Copy {
        /// In this epoch.
        epoch: Epoch,
        /// Whose data.
        source: CopySource,
        /// The master's host and port, whose binlogs could be replayed.
        master: (String, u16),
        /// Whether it slows down where the master's clients would commit much less.
        gives_way: bool,
    },
    /// Apply all that was received.
    Apply {
        /// For this epoch.
        epoch: Epoch,
        /// How long that may take.
        within: Duration,
    },
    /// Leave the former master and make ready for being one, still closed.
    Prepare {
        /// In this epoch.
        epoch: Epoch,
        /// How many acknowledgements each commit waits for, and who is barred.
        terms: Terms,
    },
    /// Write the epoch's marker and wait until it is acknowledged.
    Mark {
        /// The epoch.
        epoch: Epoch,
    },
    /// Make the cluster's user if there is none yet, and open for clients and for writes.
    Open {
        /// In this epoch, whose marker is acknowledged.
        epoch: Epoch,
        /// The cluster's user.
        user: ClusterUser,
    },
    /// Follow a master, all that was received before being applied.
    Follow {
        /// In this epoch.
        epoch: Epoch,
        /// The master's host.
        host: String,
        /// The master's port.
        port: u16,
        /// All that the master held when it was elected.
        history: Position,
        /// Whether to acknowledge what is received.
        acknowledge: bool,
    },
    /// As master, wait until another member has executed what the server has by now, while clients write on; more slowly, if they write
    /// faster than it applies, until [`Step::Reopen`] or [`Step::Yield`].
    Approach {
        /// In this epoch.
        epoch: Epoch,
        /// Which switchover it is for.
        number: u64,
        /// Where the other member's server listens.
        target: Address,
        /// How long that may take.
        within: Duration,
    },
    /// As master, let nobody write any more, and wait until the other member has executed all that the server has. If that
    /// fails the server may be closed or open.
    Close {
        /// In this epoch.
        epoch: Epoch,
        /// Where the other member's server listens.
        target: Address,
        /// How long all of it may take, and what comes after it, until the master is to open again.
        closed_for: Duration,
    },
    /// As master that was closed, or whose commits are held back, let clients write as before.
    Reopen {
        /// In this epoch.
        epoch: Epoch,
        /// Why, as a part of a sentence about the master.
        why: String,
    },
    /// As the closed master of an earlier epoch, see that the server is closed and holds what it held, and read what is held.
    Yield {
        /// For this epoch, which is promised.
        epoch: Epoch,
        /// What it executed when it was closed. Without it the server is killed.
        position: Option<Position>,
    },
    /// Wait until the epoch's marker is executed here, then let clients in to read.
    Admit {
        /// The epoch.
        epoch: Epoch,
        /// Its marker.
        marker: Position,
    },
    /// Stop receiving and applying.
    Halt {
        /// In this epoch.
        epoch: Epoch,
        /// Whether clients are to be kept out, too.
        refuse_clients: bool,
    },
}

/// Where a member that holds nothing gets the cluster's data.
#[derive(Debug, Clone, PartialEq)]
pub enum CopySource {
    /// From another member.
    Donor(Donor),
    /// From a backup of the cluster.
    Backup(Box<RestoreFrom>),
}

/// What a data directory is to the server that starts in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Birth {
    /// A server ran in it before.
    Past,
    /// It is new and empty: its accounts are made, and it is synced.
    Empty,
    /// It is new and was restored from the backup that the task names: accounts are replaced, what belongs to the former cluster
    /// alone is forgotten, and it is synced.
    Restored,
    /// It is new and a copy of a donor's, or of a backup of the same cluster: what belongs to the donor alone is forgotten, and it is synced.
    Copied {
        /// The directory whose place it takes, which holds nothing and is removed.
        instead_of: DataId,
    },
}

impl Step {
    /// The epoch that the step serves, if it serves one.
    pub fn epoch(&self) -> Option<Epoch> {
        match self {
            Self::Install | Self::MakeData { .. } | Self::Restore | Self::Start { .. } => None,
            Self::Hold { epoch }
            | Self::Copy { epoch, .. }
            | Self::Apply { epoch, .. }
            | Self::Prepare { epoch, .. }
            | Self::Mark { epoch }
            | Self::Open { epoch, .. }
            | Self::Follow { epoch, .. }
            | Self::Admit { epoch, .. }
            | Self::Approach { epoch, .. }
            | Self::Close { epoch, .. }
            | Self::Reopen { epoch, .. }
            | Self::Yield { epoch, .. }
            | Self::Halt { epoch, .. } => Some(*epoch),
        }
    }

    /// Whether the server may be a master, or become one, while the step is under way. Such a step is
    /// never waited for when its epoch is over: the server is killed.
    pub fn is_masters(&self) -> bool {
        match self {
            Self::Prepare { .. }
            | Self::Mark { .. }
            | Self::Open { .. }
            | Self::Approach { .. }
            | Self::Close { .. }
            | Self::Reopen { .. } => true,
            Self::Install
            | Self::MakeData { .. }
            | Self::Restore
            | Self::Start { .. }
            | Self::Hold { .. }
            | Self::Copy { .. }
            | Self::Apply { .. }
            | Self::Follow { .. }
            | Self::Admit { .. }
            | Self::Yield { .. }
            | Self::Halt { .. } => false,
        }
    }

    /// Whether the step does little but wait, so that it can be given up at any moment without leaving
    /// a statement behind that still changes something: what `Admit` changes, who may read, is right
    /// in the next epoch too, and what `Approach` changes ends with the server, as it is given up only in another epoch,
    /// in which a master that is not closed is killed.
    pub fn is_a_wait(&self) -> bool {
        matches!(
            self,
            Self::Apply { .. } | Self::Admit { .. } | Self::Approach { .. }
        )
    }
}
