//! Facts that reach the scheduler: from Mesos, the API, the executors and the store.
//!
//! An event says what happened, never what to do about it. They are the only input of
//! [`State::apply`](super::state::State::apply).

use uuid::Uuid;

use super::{maintenance::InverseOffer, placement::Offer, retained::OperationUpdate};
use crate::{
    cluster::{
        backup::{BackupId, BackupStore, BackupsLeft, Restore},
        change::Change,
        control::{Authentication, Report},
        id::{ClusterName, MemberId, TaskId},
        record::ClusterRecord,
        retained::Retained,
        slot::SlotId,
        spec::ClusterSpec,
    },
    secret::Secret,
};

/// Pairs a request of the API with its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestToken(pub u64);

pub use crate::zookeeper::store::Version;

/// A fact.
#[derive(Debug)]
pub enum Event {
    /// Mesos has taken the framework in, for the first time or again.
    Subscribed {
        /// The framework id that Mesos gave or confirmed.
        framework_id: String,
    },
    /// The connection to the Mesos master is gone; it is being made anew.
    MesosLost,
    /// Resources are offered.
    Offers(Vec<Offer>),
    /// Resources are offered of which nothing is for this framework's role; the offers.
    Foreign(Vec<String>),
    /// An offer is withdrawn.
    Rescinded(String),
    /// An agent is wanted back for a while.
    Inverse(InverseOffer),
    /// An inverse offer is withdrawn.
    InverseWithdrawn(String),
    /// A task's state, from its agent or from reconciliation.
    Task(TaskUpdate),
    /// The store holds the framework id now.
    FrameworkStored,
    /// A cluster is asked for.
    Create(Box<CreateRequest>),
    /// A cluster's end is asked for.
    Delete {
        /// Whom to answer.
        token: RequestToken,
        /// The cluster.
        name: ClusterName,
        /// The password given with the request.
        password: Option<Secret>,
    },
    /// Something is asked of a cluster that is there.
    Ask(Box<Ask>),
    /// A deleted cluster is asked for.
    Undelete(Box<UndeleteRequest>),
    /// A slot that no record explains is given up by an operator.
    Reclaim(Reclaim),
    /// A member reports.
    Reported {
        /// The cluster under whose name the report stands.
        cluster: ClusterName,
        /// The report.
        report: Box<Report>,
    },
    /// A member's report is gone: its ZooKeeper session has ended.
    ReportGone {
        /// The cluster.
        cluster: ClusterName,
        /// The task that reported.
        task_id: TaskId,
    },
    /// The connection to ZooKeeper is lost: from now on silence says nothing.
    ControlLost,
    /// The connection to ZooKeeper is there, and every report that stands has been told.
    ControlRestored,
    /// A record is stored.
    Stored {
        /// The cluster.
        cluster: ClusterName,
        /// The version to name in the next write.
        version: Version,
    },
    /// A cluster is removed from the store and from discovery.
    Removed {
        /// The cluster.
        cluster: ClusterName,
        /// The version of what is kept of it, if anything is.
        retained: Option<Version>,
    },
    /// What is kept of a deleted cluster is stored.
    RetainedStored {
        /// The cluster's incarnation.
        incarnation: Uuid,
        /// The version to name in the next write.
        version: Version,
    },
    /// Nothing is kept of a deleted cluster any more.
    RetainedForgotten {
        /// The cluster's incarnation.
        incarnation: Uuid,
    },
    /// What became of an operation on a slot.
    Operation(OperationUpdate),
}

/// A deleted cluster is asked for, while its slots are kept.
#[derive(Debug)]
pub struct UndeleteRequest {
    /// Whom to answer.
    pub token: RequestToken,
    /// The name that it had.
    pub name: ClusterName,
    /// The name that it is to have; the same if nothing is said.
    pub target: Option<ClusterName>,
    /// Which of several of that name; the one that was deleted last if nothing is said.
    pub incarnation: Option<Uuid>,
    /// The password given with the request.
    pub password: Option<Secret>,
}

/// An administrator says that nobody needs a slot that is kept.
#[derive(Debug)]
pub struct Reclaim {
    /// Whom to answer.
    pub token: RequestToken,
    /// The slot.
    pub slot: SlotId,
}

/// Something that its owner asks of a cluster.
#[derive(Debug)]
pub struct Ask {
    /// Whom to answer.
    pub token: RequestToken,
    /// The cluster.
    pub name: ClusterName,
    /// The password given with the request.
    pub password: Option<Secret>,
    /// What is asked for.
    pub wish: Wish,
}

/// What can be asked of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// A master elected without the voters that are missing.
    Failover {
        /// Whether it is accepted that acknowledged writes may be lost by it. Without that nothing is done.
        accept_data_loss: bool,
    },
    /// Another master, while there is one.
    Switchover {
        /// Who is to be it; the best voter if nobody is named.
        to: Option<MemberId>,
    },
    /// Other settings.
    Change(Change),
    /// To decide nothing from now on (`true`), or to go on.
    Pause(bool),
    /// A backup.
    Backup {
        /// Where it goes.
        store: Box<BackupStore>,
    },
    /// A backup removed from the store.
    DeleteBackup {
        /// Which one.
        id: BackupId,
        /// What is left after it was removed; `None` asks whether it may be.
        left: Option<BackupsLeft>,
    },
    /// More members or fewer.
    Scale {
        /// How many.
        num_nodes: u32,
    },
    /// A member's task ended, and another one launched on its slot.
    Restart {
        /// The member.
        member: MemberId,
        /// Whether writes may wait until it is back.
        force: bool,
    },
    /// Another member in the place of one.
    Replace {
        /// The one.
        member: MemberId,
    },
}

/// A cluster as the store had it when the scheduler started.
#[derive(Debug)]
pub struct StoredCluster {
    /// Its record.
    pub record: ClusterRecord,
    /// The record's version.
    pub version: Version,
    /// The cluster user's password, opened with the scheduler's key.
    pub password: Secret,
}

/// What was kept of a deleted cluster when the scheduler started.
#[derive(Debug, Clone)]
pub struct StoredRetained {
    /// It.
    pub retained: Retained,
    /// Its version.
    pub version: Version,
    /// The password of the cluster's user, if there is one that can be opened with the scheduler's key.
    pub password: Option<Secret>,
}

/// A cluster is asked for. Everything random in it was drawn at the door.
#[derive(Debug)]
pub struct CreateRequest {
    /// Whom to answer.
    pub token: RequestToken,
    /// What is wanted.
    pub spec: ClusterSpec,
    /// The password, if the request gave one.
    pub given_password: Option<Secret>,
    /// The backup that it is made from.
    pub restore: Option<Restore>,
    /// What a new cluster gets.
    pub fresh: FreshCluster,
}

/// What a new cluster gets that no earlier one had.
#[derive(Debug, Clone)]
pub struct FreshCluster {
    /// Its incarnation.
    pub uuid: Uuid,
    /// The cluster user's password: the given one or a new one.
    pub password: Secret,
    /// The same, sealed with the scheduler's key.
    pub sealed_password: String,
    /// The same as servers store it.
    pub authentication: Authentication,
}

/// A task's state as Mesos tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskUpdate {
    /// The task.
    pub task_id: TaskId,
    /// The agent, where Mesos names it.
    pub agent_id: Option<String>,
    /// The state.
    pub state: TaskState,
    /// Mesos' reason and message, for people.
    pub message: String,
    /// The update's `uuid`. Updates with one come from the agent again and again until they are
    /// acknowledged; updates without one must not be acknowledged.
    pub uuid: Option<Vec<u8>>,
}

/// The states of a Mesos task (Mesos documentation, "Task State Reasons" and `TaskState`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskState {
    /// The master or the agent is launching it.
    Staging,
    /// The executor has it.
    Starting,
    /// It runs.
    Running,
    /// It is being killed.
    Killing,
    /// It ended well.
    Finished,
    /// It ended badly.
    Failed,
    /// It was killed.
    Killed,
    /// Its launch was wrong.
    Error,
    /// Its executor has found that no server can run there, and has made nothing.
    Unfit,
    /// Its launch never reached the agent.
    Dropped,
    /// The agent has ended it, or knows nothing of it.
    Gone,
    /// An operator has declared its agent gone for good.
    GoneByOperator,
    /// The agent does not answer the master. The task may well run.
    Unreachable,
    /// The master knows nothing of it, which after a master's restart means nothing.
    Unknown,
    /// It is lost, in the words of masters that do not know `PARTITION_AWARE`.
    Lost,
}

impl TaskState {
    /// The name that Mesos has for it.
    pub const fn mesos_name(self) -> &'static str {
        match self {
            Self::Staging => "TASK_STAGING",
            Self::Starting => "TASK_STARTING",
            Self::Running => "TASK_RUNNING",
            Self::Killing => "TASK_KILLING",
            Self::Finished => "TASK_FINISHED",
            Self::Failed => "TASK_FAILED",
            Self::Killed => "TASK_KILLED",
            Self::Error | Self::Unfit => "TASK_ERROR",
            Self::Dropped => "TASK_DROPPED",
            Self::Gone => "TASK_GONE",
            Self::GoneByOperator => "TASK_GONE_BY_OPERATOR",
            Self::Unreachable => "TASK_UNREACHABLE",
            Self::Unknown => "TASK_UNKNOWN",
            Self::Lost => "TASK_LOST",
        }
    }

    /// Whether the task certainly does not run and never will.
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Finished
            | Self::Failed
            | Self::Killed
            | Self::Error
            | Self::Unfit
            | Self::Dropped
            | Self::Gone
            | Self::GoneByOperator => true,
            Self::Staging
            | Self::Starting
            | Self::Running
            | Self::Killing
            | Self::Unreachable
            | Self::Unknown
            | Self::Lost => false,
        }
    }
}
