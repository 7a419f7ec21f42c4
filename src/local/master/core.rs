//! What the master knows, and the one door through which everything that happens comes in. Pure.
//!
//! The shell calls a method for each thing that arrives (a call, an agent's message, a lost
//! connection, the tick of the allocator) and then carries out what [`Core::take_out`] gives, in
//! order. Methods live beside their subject: `subscribe.rs`, `offers.rs`, `accept.rs`, `tasks.rs`,
//! `agents.rs`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::local::resources::Resources;
use crate::local::wire::ToAgent;
use crate::mesos::v1::{
    AgentInfo, ExecutorInfo, FrameworkInfo, MasterInfo, TaskInfo, TaskState, TaskStatus,
    framework_info::capability::Type as Capability, scheduler,
};
use crate::time::Timestamp;

use super::maintenance::InverseOffers;
use super::operations::Pending;
use super::registry::Registry;

/// How many removed frameworks are remembered, to refuse them when they come back. Real masters
/// remember 50; a test may tear down many more than that.
const MAX_COMPLETED_FRAMEWORKS: usize = 1000;

/// The master's clocks, already scaled.
#[derive(Debug, Clone)]
pub struct Clocks {
    /// How many times as fast as real time the stand-in's clocks run.
    pub scale: f64,
    /// Between two heartbeats on a scheduler's stream.
    pub heartbeat: Duration,
    /// How long an agent may take to answer a ping.
    pub ping_timeout: Duration,
    /// After how many unanswered pings an agent counts as unreachable.
    pub max_ping_timeouts: u32,
    /// How long agents may take to come back to a restarted master.
    pub agent_reregister_timeout: Duration,
}

impl Clocks {
    /// After how long without a ping an agent knows that its master has given it up, or is gone: the time after which it is
    /// unreachable, which Mesos tells it with its registration too (`MasterSlaveConnection` in `messages.proto`).
    pub fn silence(&self) -> Duration {
        self.ping_timeout.saturating_mul(self.max_ping_timeouts)
    }

    /// A time that somebody else stated, on the master's clock. Nonsense counts as zero.
    pub fn scaled(&self, seconds: f64) -> Duration {
        /// Mesos clamps waits to a year.
        const YEAR_SECONDS: f64 = 365.0 * 86_400.0;
        Duration::try_from_secs_f64(seconds.clamp(0.0, YEAR_SECONDS) / self.scale)
            .unwrap_or_default()
    }
}

/// What the shell has to do. Streams and links are named by ids that the shell gave.
#[derive(Debug, Clone, PartialEq)]
pub enum Out {
    /// Write an event to a scheduler's stream.
    Event {
        /// The stream.
        stream: String,
        /// The event.
        event: Box<scheduler::Event>,
    },
    /// End a scheduler's stream.
    CloseStream(String),
    /// Send a message to an agent.
    Agent {
        /// Its connection.
        link: String,
        /// The message.
        message: Box<ToAgent>,
    },
    /// End an agent's connection.
    CloseLink(String),
    /// Store what a restarted master has to know, before anything that follows.
    Registry(Box<Registry>),
}

/// A scheduler and what it runs.
#[derive(Debug)]
pub(super) struct Framework {
    pub info: FrameworkInfo,
    /// None while no scheduler is connected.
    pub stream: Option<String>,
    /// Since when no scheduler is connected.
    pub disconnected: Option<Timestamp>,
    pub next_heartbeat: Timestamp,
    /// Roles that want no offers.
    pub suppressed: BTreeSet<String>,
    pub filters: Vec<Filter>,
    /// Until their end was acknowledged.
    pub tasks: BTreeMap<String, Task>,
}

/// What a framework does not want to be offered for a while.
#[derive(Debug)]
pub(super) struct Filter {
    pub agent_id: String,
    pub role: String,
    pub resources: Resources,
    pub until: Timestamp,
}

/// A task as the master sees it.
#[derive(Debug)]
pub(super) struct Task {
    pub info: TaskInfo,
    pub resources: Resources,
    /// The newest state that the agent has told, delivered or not.
    pub state: TaskState,
    /// The newest status that was passed on to the scheduler.
    pub status: Option<TaskStatus>,
    /// Since when its agent is unreachable.
    pub unreachable: Option<Timestamp>,
}

/// A machine that runs tasks.
#[derive(Debug)]
pub(super) struct Agent {
    pub info: AgentInfo,
    pub ip: String,
    pub total: Resources,
    /// None while its connection is down.
    pub link: Option<String>,
    /// By framework and executor id.
    pub executors: BTreeMap<(String, String), ExecutorInfo>,
    pub next_ping: Timestamp,
    /// Pings in a row without an answer.
    pub unanswered: u32,
}

/// An offer that was neither used nor declined.
#[derive(Debug)]
pub(super) struct Offered {
    pub framework_id: String,
    pub agent_id: String,
    pub role: String,
    pub resources: Resources,
}

/// The state of the master.
#[derive(Debug)]
pub struct Core {
    pub(super) master: MasterInfo,
    pub(super) clocks: Clocks,
    pub(super) frameworks: BTreeMap<String, Framework>,
    pub(super) completed: VecDeque<String>,
    pub(super) agents: BTreeMap<String, Agent>,
    /// Agents that a former run admitted and that are not back, and until when they may come.
    pub(super) recovered: BTreeMap<String, Timestamp>,
    /// Agents that did not answer, and since when.
    pub(super) unreachable: BTreeMap<String, Timestamp>,
    pub(super) offers: BTreeMap<String, Offered>,
    pub(super) inverse: InverseOffers,
    /// By framework and operation id, until the end was acknowledged.
    pub(super) operations: BTreeMap<(String, String), Pending>,
    /// What is stored; which agents are admitted is added when it is.
    pub(super) registry: Registry,
    pub(super) next_framework: u64,
    pub(super) next_agent: u64,
    pub(super) next_offer: u64,
    pub(super) out: Vec<Out>,
}

impl Core {
    /// A master that starts, with what its former run had stored.
    pub fn new(master: MasterInfo, clocks: Clocks, registry: Registry, now: Timestamp) -> Self {
        let deadline = now.plus(clocks.agent_reregister_timeout);
        let admitted = registry.admitted.iter();
        Self {
            recovered: admitted.map(|id| (id.clone(), deadline)).collect(),
            master,
            clocks,
            frameworks: BTreeMap::new(),
            completed: VecDeque::new(),
            agents: BTreeMap::new(),
            unreachable: BTreeMap::new(),
            offers: BTreeMap::new(),
            inverse: InverseOffers::default(),
            operations: BTreeMap::new(),
            registry,
            next_framework: 0,
            next_agent: 0,
            next_offer: 0,
            out: Vec::new(),
        }
    }

    /// What is to be done since the last time, in order.
    pub fn take_out(&mut self) -> Vec<Out> {
        std::mem::take(&mut self.out)
    }

    /// A round of the clock: heartbeats, pings, timeouts, then offers.
    pub fn tick(&mut self, now: Timestamp) {
        self.send_heartbeats(now);
        self.remove_abandoned_frameworks(now);
        self.ping_agents(now);
        self.forget_recovered_agents(now);
        self.finish_drains(now);
        self.allocate(now);
    }

    /// Stores the registry as it is now.
    pub(super) fn store(&mut self) {
        let known = self.agents.keys().chain(self.recovered.keys());
        let kept = known.filter(|id| !self.registry.gone.contains(*id));
        self.registry.admitted = kept.cloned().collect();
        let registry = Box::new(self.registry.clone());
        self.out.push(Out::Registry(registry));
    }

    /// How many agents are connected.
    pub fn connected_agents(&self) -> usize {
        self.agents
            .values()
            .filter(|agent| agent.link.is_some())
            .count()
    }

    /// Writes an event to a framework if its scheduler is there.
    pub(super) fn send(&mut self, framework_id: &str, event: scheduler::Event) {
        let framework = self.frameworks.get(framework_id);
        if let Some(stream) = framework.and_then(|framework| framework.stream.clone()) {
            self.out.push(Out::Event {
                stream,
                event: Box::new(event),
            });
        }
    }

    /// Sends a message to an agent if it is connected.
    pub(super) fn tell(&mut self, agent_id: &str, message: ToAgent) {
        if let Some(link) = self
            .agents
            .get(agent_id)
            .and_then(|agent| agent.link.clone())
        {
            self.out.push(Out::Agent {
                link,
                message: Box::new(message),
            });
        }
    }

    /// Remembers a framework as removed for good.
    pub(super) fn complete(&mut self, framework_id: &str) {
        if self.completed.len() >= MAX_COMPLETED_FRAMEWORKS {
            self.completed.pop_front();
        }
        self.completed.push_back(framework_id.to_owned());
    }
}

impl Framework {
    pub fn new(info: FrameworkInfo, now: Timestamp) -> Self {
        Self {
            info,
            stream: None,
            disconnected: Some(now),
            next_heartbeat: now,
            suppressed: BTreeSet::new(),
            filters: Vec::new(),
            tasks: BTreeMap::new(),
        }
    }

    pub fn has(&self, capability: Capability) -> bool {
        self.info
            .capabilities
            .iter()
            .any(|one| one.r#type() == capability)
    }

    /// The roles that it takes offers for.
    pub fn roles(&self) -> Vec<String> {
        if self.has(Capability::MultiRole) {
            return self.info.roles.clone();
        }
        #[allow(
            deprecated,
            reason = "frameworks without MULTI_ROLE state their role here"
        )]
        let role = self.info.role().to_owned();
        vec![role]
    }
}

impl Task {
    pub fn new(info: TaskInfo) -> Self {
        Self {
            resources: Resources::new(&info.resources),
            info,
            state: TaskState::TaskStaging,
            status: None,
            unreachable: None,
        }
    }

    pub fn agent_id(&self) -> &str {
        &self.info.agent_id.value
    }

    pub fn executor_id(&self) -> Option<&str> {
        self.info
            .executor
            .as_ref()
            .map(|executor| executor.executor_id.value.as_str())
    }

    /// Whether it still takes resources.
    pub fn is_live(&self) -> bool {
        !is_terminal(self.state) && self.unreachable.is_none()
    }
}

/// True for the states after which a task never runs again.
pub fn is_terminal(state: TaskState) -> bool {
    match state {
        TaskState::TaskFinished
        | TaskState::TaskFailed
        | TaskState::TaskKilled
        | TaskState::TaskError
        | TaskState::TaskLost
        | TaskState::TaskDropped
        | TaskState::TaskGone
        | TaskState::TaskGoneByOperator => true,
        TaskState::TaskStaging
        | TaskState::TaskStarting
        | TaskState::TaskRunning
        | TaskState::TaskKilling
        | TaskState::TaskUnreachable
        | TaskState::TaskUnknown => false,
    }
}
