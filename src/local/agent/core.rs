//! What the agent knows, and the one door through which everything that happens comes in. Pure.
//!
//! The shell calls a method for each thing that arrives and then carries out what
//! [`Core::take_out`] gives, in order: records are stored before anything that follows is done, so
//! that an agent that dies at any moment finds in its records whatever the outside has seen. Methods
//! lie by subject: `launching.rs` (tasks and kills from the master), `executors.rs` (the executor
//! API, containers that end), `updates.rs` (statuses until they are acknowledged), `operations.rs`
//! (reservations, volumes, draining), `recovery.rs`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::local::resources::Resources;
use crate::local::wire::{Proto, ToMaster};
use crate::mesos::v1::{
    AgentInfo, ExecutorInfo, FrameworkInfo, Resource, TaskInfo, TaskState, TaskStatus, executor,
    task_status,
};
use crate::time::Timestamp;

use super::operations::{Checkpoint, Drain, Unacknowledged};

/// The agent's clocks, already scaled.
#[derive(Debug, Clone)]
pub struct Clocks {
    /// How long an executor may take to subscribe after it was started.
    pub registration: Duration,
    /// How long an executor may take to subscribe again to a restarted agent.
    pub reregistration: Duration,
    /// Between SHUTDOWN and SIGKILL, unless the executor states its own.
    pub shutdown_grace: Duration,
    /// How long executors are told to wait for a restarted agent.
    pub recovery: Duration,
    /// The longest pause between two attempts to subscribe that executors are told.
    pub subscription_backoff: Duration,
    /// Before a status that is not acknowledged is sent again; doubled each time.
    pub retry_min: Duration,
    /// The longest of these.
    pub retry_max: Duration,
    /// How many times as fast as real time the stand-in's clocks run.
    pub scale: f64,
}

/// Framework id and executor id.
pub type ExecutorKey = (String, String);

/// What the shell has to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Out {
    /// Write an executor's record down, before anything that follows.
    Store(ExecutorKey),
    /// Throw an ended executor's record away.
    Forget {
        /// The executor.
        key: ExecutorKey,
        /// Its run.
        container_id: String,
    },
    /// Write down the id that the master gave.
    StoreId(String),
    /// Forget the id: the next run is another agent.
    ForgetId,
    /// Write down what is reserved, before anything that follows.
    Checkpoint(Box<Checkpoint>),
    /// Make the directories of new volumes.
    MakeVolumes(Vec<Resource>),
    /// Remove the directories of destroyed volumes.
    RemoveVolumes(Vec<Resource>),
    /// Let a sandbox show exactly the volumes among these resources.
    Mount {
        /// The executor.
        key: ExecutorKey,
        /// The container.
        container_id: String,
        /// All that its executor and tasks were given.
        resources: Resources,
    },
    /// End without a word to anybody, for this reason.
    Abort(String),
    /// Make a sandbox, fetch files and start the executor; answered with `container_started` or
    /// `container_failed`.
    Launch(Box<Launch>),
    /// Change what a container may use.
    Limit {
        /// The container.
        container_id: String,
        /// All that its executor and tasks were given.
        resources: Resources,
    },
    /// SIGKILL everything in a container.
    Kill {
        /// The container.
        container_id: String,
    },
    /// Write an event to an executor's stream.
    Event {
        /// The stream.
        stream: String,
        /// The event.
        event: Box<executor::Event>,
    },
    /// End an executor's stream.
    CloseStream(String),
    /// Tell the master, if it is there.
    Master(Box<ToMaster>),
}

/// What is to be started.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    /// Whose it is.
    pub framework: FrameworkInfo,
    /// What it is.
    pub executor: ExecutorInfo,
    /// This run.
    pub container_id: String,
    /// What its executor and first task were given.
    pub resources: Resources,
}

/// Where an executor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Fetching and starting, or started and not yet subscribed; until then.
    Registering(Timestamp),
    /// Subscribed at least once.
    Running,
    /// Asked to end; killed then.
    Terminating(Timestamp),
    /// Killed; its end has not been seen yet.
    Killed,
    /// Ended; kept for statuses that are not acknowledged.
    Ended,
}

/// An executor and its tasks. The stored part is what a restarted agent needs.
#[derive(Debug)]
pub(super) struct Executor {
    pub record: Record,
    pub phase: Phase,
    pub stream: Option<String>,
    /// Why it is being ended, if the tasks' last status is to say so.
    pub reason: Option<(task_status::Reason, String)>,
    /// Its framework was removed: nobody wants to hear of it.
    pub discard: bool,
}

/// What is stored of an executor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Its framework.
    pub framework: Proto<FrameworkInfo>,
    /// The executor.
    pub executor: Proto<ExecutorInfo>,
    /// This run of it.
    pub container_id: String,
    /// Its process, once it is started.
    pub process: Option<Process>,
    /// Tasks that wait for it to subscribe.
    pub queued: Vec<Proto<TaskInfo>>,
    /// Tasks that it was given, until their end is acknowledged.
    pub tasks: BTreeMap<String, TaskRecord>,
}

/// A process, told apart from a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it was started, in the kernel's ticks since boot.
    pub started: u64,
}

/// A task and its statuses.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskRecord {
    /// What was launched.
    pub info: Proto<TaskInfo>,
    /// The newest status.
    pub latest: Option<Proto<TaskStatus>>,
    /// Statuses that are not acknowledged, oldest first; only the first is on its way.
    pub updates: VecDeque<Proto<TaskStatus>>,
    /// The uuids of all statuses so far: an executor may send one again.
    pub received: BTreeSet<Vec<u8>>,
    /// When the first one is sent again, and the pause after that.
    #[serde(skip)]
    pub retry: Option<(Timestamp, Duration)>,
}

/// The state of the agent.
#[derive(Debug)]
pub struct Core {
    pub(super) info: AgentInfo,
    pub(super) ip: String,
    pub(super) clocks: Clocks,
    pub(super) executors: BTreeMap<ExecutorKey, Executor>,
    pub(super) connected: bool,
    /// All that it has, reservations and volumes included.
    pub(super) total: Resources,
    /// Operations whose end is not acknowledged, oldest first.
    pub(super) operations: Vec<Unacknowledged>,
    pub(super) drain: Option<Drain>,
    /// Until when executors of the former run may subscribe again, before the master is told.
    pub(super) recovering: Option<Timestamp>,
    pub(super) out: Vec<Out>,
}

impl Core {
    /// An agent that starts; `info.id` is there when it ran before.
    pub fn new(info: AgentInfo, ip: String, clocks: Clocks) -> Self {
        Self {
            total: Resources::new(&info.resources),
            info,
            ip,
            clocks,
            executors: BTreeMap::new(),
            connected: false,
            operations: Vec::new(),
            drain: None,
            recovering: None,
            out: Vec::new(),
        }
    }

    /// What is to be done since the last time, in order.
    pub fn take_out(&mut self) -> Vec<Out> {
        std::mem::take(&mut self.out)
    }

    /// What is to be stored of an executor.
    pub fn record(&self, key: &ExecutorKey) -> Option<&Record> {
        self.executors.get(key).map(|executor| &executor.record)
    }

    /// True while executors of a former run may still come back.
    pub fn is_recovering(&self) -> bool {
        self.recovering.is_some()
    }

    /// The runs of executors that are not forgotten.
    pub fn runs(&self) -> BTreeSet<String> {
        let executors = self.executors.values();
        executors
            .map(|executor| executor.record.container_id.clone())
            .collect()
    }

    /// Its address.
    pub fn ip(&self) -> &str {
        &self.ip
    }

    /// The id that the master gave; empty before that.
    pub fn id(&self) -> &str {
        self.info.id.as_ref().map_or("", |id| id.value.as_str())
    }

    /// Does everything that is due.
    pub fn tick(&mut self, now: Timestamp) {
        self.finish_recovery_if_due(now);
        self.end_late_executors(now);
        self.resend_updates(now);
        self.resend_operations(now);
    }

    /// When [`tick`](Self::tick) has something to do next.
    pub fn wake_at(&self) -> Option<Timestamp> {
        let mut due: Vec<Timestamp> = self.recovering.into_iter().collect();
        due.extend(self.next_operation());
        for executor in self.executors.values() {
            match executor.phase {
                Phase::Registering(at) | Phase::Terminating(at) => due.push(at),
                Phase::Running | Phase::Killed | Phase::Ended => {}
            }
            if self.connected {
                due.extend(
                    executor
                        .record
                        .tasks
                        .values()
                        .filter_map(|task| Some(task.retry?.0)),
                );
            }
        }
        due.into_iter().min()
    }

    /// The master took the agent, or is gone.
    pub fn set_connected(&mut self, connected: bool) {
        self.connected = connected;
    }

    pub(super) fn master(&mut self, message: ToMaster) {
        self.out.push(Out::Master(Box::new(message)));
    }

    pub(super) fn store(&mut self, key: &ExecutorKey) {
        self.out.push(Out::Store(key.clone()));
    }
}

impl Record {
    /// Whose it is.
    pub fn key(&self) -> ExecutorKey {
        let framework_id = self.framework.0.id.as_ref().map(|id| id.value.clone());
        let executor_id = self.executor.0.executor_id.value.clone();
        (framework_id.unwrap_or_default(), executor_id)
    }

    /// All that executor and tasks were given.
    pub fn resources(&self) -> Resources {
        let mut sum = Resources::new(&self.executor.0.resources);
        for Proto(task) in &self.queued {
            sum.add(&Resources::new(&task.resources));
        }
        for task in self.tasks.values().filter(|task| !task.is_over()) {
            sum.add(&Resources::new(&task.info.0.resources));
        }
        sum
    }
}

impl TaskRecord {
    pub(super) fn new(info: TaskInfo) -> Self {
        Self {
            info: Proto(info),
            latest: None,
            updates: VecDeque::new(),
            received: BTreeSet::new(),
            retry: None,
        }
    }

    pub(super) fn state(&self) -> TaskState {
        self.latest
            .as_ref()
            .map_or(TaskState::TaskStaging, |latest| latest.0.state())
    }

    pub(super) fn is_over(&self) -> bool {
        crate::local::master::core::is_terminal(self.state())
    }
}
