//! Agents that register, come back, fall silent and are given up. Pure.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::local::resources::Resources;
use crate::local::wire::{KnownTask, Proto, Register, ToAgent, ToMaster};
use crate::mesos::v1::{
    AgentId, ExecutorId, FrameworkInfo, TaskState, TaskStatus, task_status::Reason,
};
use crate::time::Timestamp;

use super::core::{Agent, Core, Framework, Out, Task, is_terminal};
use super::{events, tasks};

impl Core {
    /// An agent says what it has and runs, on a new connection.
    pub fn register(&mut self, register: Register, link: String, now: Timestamp) {
        let mut info = register.agent.0;
        let agent_id = match &info.id {
            Some(id) => id.value.clone(),
            None => self.new_agent_id(),
        };
        info.id = Some(AgentId {
            value: agent_id.clone(),
        });
        if let Some(refusal) = self.refusal(&agent_id, &info, &register.ip) {
            self.out.push(Out::Agent {
                link: link.clone(),
                message: Box::new(refusal),
            });
            self.out.push(Out::CloseLink(link));
            return;
        }
        if let Some(old) = self
            .agents
            .get_mut(&agent_id)
            .and_then(|agent| agent.link.take())
        {
            self.out.push(Out::CloseLink(old));
            self.rescind_offers(&agent_id);
            self.rescind_inverse_offers(&agent_id);
        }
        let agent = Agent {
            total: Resources::new(register.total.iter().map(|Proto(one)| one)),
            ip: register.ip,
            info,
            link: Some(link),
            executors: Default::default(),
            next_ping: now.plus(self.clocks.ping_timeout),
            unanswered: 0,
        };
        self.agents.insert(agent_id.clone(), agent);
        self.recovered.remove(&agent_id);
        self.unreachable.remove(&agent_id);
        self.store();
        tracing::info!(%agent_id, "agent registered");

        let finished = self.take_frameworks(register.frameworks, now);
        for executor in register.executors {
            if !finished.contains(&executor.framework_id) {
                let key = (
                    executor.framework_id,
                    executor.info.0.executor_id.value.clone(),
                );
                if let Some(agent) = self.agents.get_mut(&agent_id) {
                    agent.executors.insert(key, executor.info.0);
                }
            }
        }
        let mut named = BTreeSet::new();
        for task in register.tasks {
            if !finished.contains(&task.framework_id) {
                named.insert((task.framework_id.clone(), task.info.0.task_id.value.clone()));
                self.take_task(task, now);
            }
        }
        self.take_operations(&agent_id, register.operations, &finished);
        let reconcile = self.not_named(&agent_id, &named);
        self.tell(
            &agent_id,
            ToAgent::Registered {
                agent_id: agent_id.clone(),
                reconcile,
                silence_millis: self.clocks.silence().as_millis() as u64,
            },
        );
        for framework_id in finished {
            self.tell(&agent_id, ToAgent::ShutdownFramework { framework_id });
        }
        self.drain_again(&agent_id);
        self.allocate(now);
    }

    /// Frameworks of which the agent runs something: unknown ones wait for their scheduler as if it
    /// had just left. Gives those that were removed for good.
    fn take_frameworks(
        &mut self,
        frameworks: Vec<Proto<FrameworkInfo>>,
        now: Timestamp,
    ) -> BTreeSet<String> {
        let mut finished = BTreeSet::new();
        for Proto(info) in frameworks {
            let Some(id) = info.id.as_ref().map(|id| id.value.clone()) else {
                continue;
            };
            if self.completed.contains(&id) {
                finished.insert(id);
            } else {
                self.frameworks
                    .entry(id)
                    .or_insert_with(|| Framework::new(info, now));
            }
        }
        finished
    }

    /// A task that an agent brings along.
    fn take_task(&mut self, known: KnownTask, now: Timestamp) {
        let framework_id = known.framework_id;
        let Some(framework) = self.frameworks.get_mut(&framework_id) else {
            return;
        };
        let task_id = known.info.0.task_id.value.clone();
        let task = framework
            .tasks
            .entry(task_id.clone())
            .or_insert_with(|| Task::new(known.info.0));
        let was_unreachable = task.unreachable.take().is_some();
        if let Some(Proto(latest)) = known.latest {
            task.state = latest.state();
            task.status.get_or_insert(latest);
        }
        if was_unreachable && !is_terminal(task.state) {
            let message = "Unreachable agent re-reregistered";
            let agent_id = task.agent_id().to_owned();
            let mut status = events::master_status(
                &task_id,
                Some(&agent_id),
                task.state,
                Reason::AgentReregistered,
                message,
                now,
            );
            tasks::describe(&mut status, task);
            self.send(&framework_id, events::update(status));
        }
    }

    /// Tasks that should be on the agent and that it did not name: it tells what became of them.
    fn not_named(&self, agent_id: &str, named: &BTreeSet<(String, String)>) -> Vec<KnownTask> {
        let mut missing = Vec::new();
        for (framework_id, framework) in &self.frameworks {
            for (task_id, task) in &framework.tasks {
                let key = (framework_id.clone(), task_id.clone());
                if task.agent_id() == agent_id && !named.contains(&key) {
                    missing.push(KnownTask {
                        framework_id: framework_id.clone(),
                        info: Proto(task.info.clone()),
                        latest: None,
                    });
                }
            }
        }
        missing
    }

    /// A message of an agent; one from a connection that is not its present one is passed over.
    pub fn agent_message(&mut self, agent_id: &str, link: &str, message: ToMaster) {
        let Some(agent) = self.agents.get_mut(agent_id) else {
            return;
        };
        if agent.link.as_deref() != Some(link) {
            return;
        }
        match message {
            ToMaster::Pong => agent.unanswered = 0,
            ToMaster::OperationUpdate {
                framework_id,
                status: Proto(status),
            } => self.operation_update(agent_id, framework_id, status),
            ToMaster::StatusUpdate {
                framework_id,
                status: Proto(status),
                latest_state,
            } => {
                self.status_update(&framework_id, status, latest_state);
            }
            ToMaster::ExitedExecutor {
                framework_id,
                executor_id,
                status,
            } => {
                let key = (framework_id, executor_id);
                let known = agent.executors.remove(&key).is_some();
                if known {
                    let (framework_id, executor_id) = key;
                    self.send(
                        &framework_id,
                        events::failure(agent_id, Some((&executor_id, status))),
                    );
                }
            }
            ToMaster::ExecutorMessage {
                framework_id,
                executor_id,
                data,
            } => {
                let data = BASE64.decode(data).unwrap_or_default();
                self.send(&framework_id, events::message(agent_id, &executor_id, data));
            }
        }
    }

    /// An agent's connection is down: it gets no offers until it is back. Its tasks run on.
    pub fn link_closed(&mut self, link: &str) {
        let owner = self
            .agents
            .iter_mut()
            .find(|(_, agent)| agent.link.as_deref() == Some(link));
        let Some((agent_id, agent)) = owner else {
            return;
        };
        let agent_id = agent_id.clone();
        agent.link = None;
        tracing::info!(%agent_id, "agent disconnected");
        self.rescind_offers(&agent_id);
        self.rescind_inverse_offers(&agent_id);
    }

    /// Pings agents and gives up those that have not answered for too long.
    pub(super) fn ping_agents(&mut self, now: Timestamp) {
        let mut pinged = Vec::new();
        let mut silent = Vec::new();
        for (id, agent) in &mut self.agents {
            if now < agent.next_ping {
                continue;
            }
            agent.next_ping = now.plus(self.clocks.ping_timeout);
            if agent.unanswered >= self.clocks.max_ping_timeouts {
                silent.push(id.clone());
            } else {
                agent.unanswered += 1;
                pinged.push(id.clone());
            }
        }
        for id in pinged {
            self.tell(&id, ToAgent::Ping);
        }
        for id in silent {
            self.mark_unreachable(&id, now);
        }
    }

    fn mark_unreachable(&mut self, agent_id: &str, now: Timestamp) {
        tracing::info!(%agent_id, "agent unreachable: health check timed out");
        let mut statuses = Vec::new();
        for (framework_id, framework) in &mut self.frameworks {
            for (task_id, task) in &mut framework.tasks {
                if task.agent_id() == agent_id && task.is_live() {
                    task.unreachable = Some(now);
                    let executor = task.executor_id().map(str::to_owned);
                    statuses.push((framework_id.clone(), task_id.clone(), executor));
                }
            }
        }
        for (framework_id, task_id, executor_id) in statuses {
            let state = self.lost_state(&framework_id, TaskState::TaskUnreachable);
            let status = TaskStatus {
                executor_id: executor_id.map(|value| ExecutorId { value }),
                unreachable_time: Some(tasks::nanoseconds(now)),
                ..events::master_status(
                    &task_id,
                    Some(agent_id),
                    state,
                    Reason::AgentRemoved,
                    "health check timed out",
                    now,
                )
            };
            self.send(&framework_id, events::update(status));
        }
        self.rescind_offers(agent_id);
        self.rescind_inverse_offers(agent_id);
        self.forget_operations_on(agent_id);
        if let Some(link) = self.agents.remove(agent_id).and_then(|agent| agent.link) {
            self.out.push(Out::CloseLink(link));
        }
        self.unreachable.insert(agent_id.to_owned(), now);
        self.store();
        let ids: Vec<String> = self.frameworks.keys().cloned().collect();
        for framework_id in ids {
            self.send(&framework_id, events::failure(agent_id, None));
        }
    }

    /// Agents that did not come back to a restarted master in time count as unreachable.
    pub(super) fn forget_recovered_agents(&mut self, now: Timestamp) {
        let late: Vec<String> = self
            .recovered
            .iter()
            .filter(|(_, deadline)| now >= **deadline)
            .map(|(id, _)| id.clone())
            .collect();
        for agent_id in late {
            self.recovered.remove(&agent_id);
            self.unreachable.insert(agent_id, now);
        }
    }

    fn new_agent_id(&mut self) -> String {
        let id = format!("{}-S{}", self.master.id, self.next_agent);
        self.next_agent += 1;
        id
    }
}
