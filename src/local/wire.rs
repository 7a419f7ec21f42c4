//! What the stand-in's master and agents say to each other.
//!
//! Real masters and agents speak libprocess, which nobody outside sees; here it is JSON. An agent
//! posts [`Register`] to [`REGISTER_PATH`] and gets [`ToAgent`] records for as long as the
//! connection lasts; it posts each [`ToMaster`] to `<REGISTER_PATH>/<agent id>` with the link's id.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use prost::Message;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::mesos::v1::offer::Operation;
use crate::mesos::v1::{
    AgentInfo, DurationInfo, ExecutorInfo, FrameworkInfo, KillPolicy, OperationStatus, Resource,
    TaskInfo, TaskStatus,
};

/// Where agents register.
pub const REGISTER_PATH: &str = "/local/agents";

/// A Mesos message inside of JSON: its protobuf form in base64, which keeps every bit.
#[derive(Debug, Clone, PartialEq)]
pub struct Proto<M>(pub M);

impl<M: Message> Serialize for Proto<M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(self.0.encode_to_vec()))
    }
}

impl<'de, M: Message + Default> Deserialize<'de> for Proto<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = BASE64.decode(text).map_err(de::Error::custom)?;
        M::decode(bytes.as_slice())
            .map(Self)
            .map_err(de::Error::custom)
    }
}

/// A task as its agent knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KnownTask {
    /// Its framework.
    pub framework_id: String,
    /// What was launched.
    pub info: Proto<TaskInfo>,
    /// The newest status, acknowledged or not, if there is any.
    pub latest: Option<Proto<TaskStatus>>,
}

/// An executor as its agent knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KnownExecutor {
    /// Its framework.
    pub framework_id: String,
    /// What was launched.
    pub info: Proto<ExecutorInfo>,
}

/// An operation as its agent knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KnownOperation {
    /// Its framework.
    pub framework_id: String,
    /// How it ended, with the operation's id and the uuid that is not acknowledged.
    pub status: Proto<OperationStatus>,
}

/// The first thing an agent says; with everything that it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Register {
    /// What it has; with its id when it had one before.
    pub agent: Proto<AgentInfo>,
    /// Its address.
    pub ip: String,
    /// The frameworks of what it runs.
    pub frameworks: Vec<Proto<FrameworkInfo>>,
    /// Its executors that have not ended.
    pub executors: Vec<KnownExecutor>,
    /// Its tasks whose end was not acknowledged.
    pub tasks: Vec<KnownTask>,
    /// All that it has, reservations and volumes included.
    pub total: Vec<Proto<Resource>>,
    /// Operations whose end was not acknowledged.
    pub operations: Vec<KnownOperation>,
}

/// Agent to master.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[allow(
    clippy::large_enum_variant,
    reason = "messages are few and short-lived, and most are the large ones"
)]
pub enum ToMaster {
    /// The answer to [`ToAgent::Ping`].
    Pong,
    /// A task's status that waits for its acknowledgement.
    StatusUpdate {
        /// The task's framework.
        framework_id: String,
        /// The status, with its uuid.
        status: Proto<TaskStatus>,
        /// The task's newest state, which may be ahead of `status`.
        latest_state: i32,
    },
    /// The end of an operation, which waits for its acknowledgement.
    OperationUpdate {
        /// The operation's framework.
        framework_id: String,
        /// The status, with its uuid.
        status: Proto<OperationStatus>,
    },
    /// An executor ended.
    ExitedExecutor {
        /// Its framework.
        framework_id: String,
        /// The executor.
        executor_id: String,
        /// As wait(2) gives it; -1 when nobody could tell.
        status: i32,
    },
    /// An executor's message for its scheduler.
    ExecutorMessage {
        /// The executor's framework.
        framework_id: String,
        /// The executor.
        executor_id: String,
        /// Whatever the two speak, in base64.
        data: String,
    },
}

/// Master to agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[allow(
    clippy::large_enum_variant,
    reason = "messages are few and short-lived, and most are the large ones"
)]
pub enum ToAgent {
    /// The first record: the agent is taken, with this id.
    Registered {
        /// New, or the one it came with.
        agent_id: String,
        /// Tasks that the master believes on this agent and that the agent did not name.
        reconcile: Vec<KnownTask>,
        /// After how long without a ping the agent is to register anew, in milliseconds: by then the master has given it up.
        silence_millis: u64,
    },
    /// The first and only record: the agent may not come back under its id.
    Refused {
        /// Why.
        reason: String,
    },
    /// To be answered with [`ToMaster::Pong`].
    Ping,
    /// Launch a task, and its executor if that does not run.
    RunTask {
        /// The framework.
        framework: Proto<FrameworkInfo>,
        /// The task, with its executor.
        task: Proto<TaskInfo>,
    },
    /// End a task.
    KillTask {
        /// The task's framework.
        framework_id: String,
        /// The task.
        task_id: String,
        /// Instead of the task's own policy.
        kill_policy: Option<Proto<KillPolicy>>,
    },
    /// End an executor.
    ShutdownExecutor {
        /// Its framework.
        framework_id: String,
        /// The executor.
        executor_id: String,
    },
    /// End all executors of a framework and forget it.
    ShutdownFramework {
        /// The framework.
        framework_id: String,
    },
    /// A framework's scheduler is (again) there: send what it has not acknowledged.
    FrameworkSubscribed {
        /// What the framework says of itself now.
        framework: Proto<FrameworkInfo>,
    },
    /// A status was received.
    Acknowledge {
        /// The task's framework.
        framework_id: String,
        /// The task.
        task_id: String,
        /// Of the status, in base64.
        uuid: String,
    },
    /// Change what the agent has: reserve, create a volume and so on.
    ApplyOperation {
        /// The operation's framework.
        framework_id: String,
        /// The operation, checked against what the agent has.
        operation: Proto<Operation>,
    },
    /// The end of an operation was received.
    AcknowledgeOperation {
        /// The operation's framework.
        framework_id: String,
        /// The operation.
        operation_id: String,
        /// Of the status, in base64.
        uuid: String,
    },
    /// End all tasks, and take no new ones before that is done.
    Drain {
        /// Shortens the grace period of tasks that state a longer one.
        max_grace_period: Option<Proto<DurationInfo>>,
        /// The agent will not come back.
        mark_gone: bool,
    },
    /// End all executors and the agent itself, which comes back as a new one, if at all.
    Shutdown {
        /// Why.
        reason: String,
    },
    /// A scheduler's message for its executor.
    FrameworkMessage {
        /// The framework.
        framework_id: String,
        /// The executor.
        executor_id: String,
        /// Whatever the two speak, in base64.
        data: String,
    },
}
