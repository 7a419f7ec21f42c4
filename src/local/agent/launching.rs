//! What the master asks for: tasks, kills, shutdowns, messages. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::local::wire::{KnownExecutor, KnownTask, Proto, Register, ToAgent};
use crate::mesos::v1::executor::{Event, event};
use crate::mesos::v1::{
    AgentId, ExecutorInfo, FrameworkInfo, KillPolicy, TaskId, TaskInfo, TaskState,
    task_status::Reason,
};
use crate::time::Timestamp;

use super::core::{Core, Executor, ExecutorKey, Launch, Out, Phase, Record, TaskRecord};

impl Core {
    /// What the agent says of itself when it (again) finds a master.
    pub fn registration(&self) -> Register {
        let mut frameworks: Vec<Proto<FrameworkInfo>> = Vec::new();
        let mut executors = Vec::new();
        let mut tasks = Vec::new();
        for ((framework_id, _), executor) in self.executors.iter().filter(|(_, one)| !one.discard) {
            let record = &executor.record;
            if !frameworks
                .iter()
                .any(|known| known.0.id == record.framework.0.id)
            {
                frameworks.push(record.framework.clone());
            }
            if executor.phase != Phase::Ended {
                let framework_id = framework_id.clone();
                executors.push(KnownExecutor {
                    framework_id,
                    info: record.executor.clone(),
                });
            }
            for info in &record.queued {
                let (framework_id, info) = (framework_id.clone(), info.clone());
                tasks.push(KnownTask {
                    framework_id,
                    info,
                    latest: None,
                });
            }
            for task in record.tasks.values() {
                let (framework_id, info) = (framework_id.clone(), task.info.clone());
                tasks.push(KnownTask {
                    framework_id,
                    info,
                    latest: task.latest.clone(),
                });
            }
        }
        Register {
            agent: Proto(self.info.clone()),
            ip: self.ip.clone(),
            frameworks,
            executors,
            tasks,
            total: self.total.list().iter().cloned().map(Proto).collect(),
            operations: self
                .operations
                .iter()
                .map(|one| one.known.clone())
                .collect(),
        }
    }

    /// Something from the master. `fresh` is for the case that an id is needed.
    pub fn from_master(&mut self, message: ToAgent, fresh: uuid::Uuid, now: Timestamp) {
        match message {
            ToAgent::Registered {
                agent_id,
                reconcile,
                ..
            } => self.registered(agent_id, reconcile, now),
            // The link answers pings and refusals before anybody else sees them.
            ToAgent::Ping | ToAgent::Refused { .. } => {}
            ToAgent::RunTask { framework, task } => {
                self.run_task(framework.0, task.0, fresh.to_string(), now)
            }
            ToAgent::KillTask {
                framework_id,
                task_id,
                kill_policy,
            } => {
                self.kill_task(
                    &framework_id,
                    &task_id,
                    kill_policy.map(|policy| policy.0),
                    now,
                );
            }
            ToAgent::ShutdownExecutor {
                framework_id,
                executor_id,
            } => {
                self.shut_down(&(framework_id, executor_id), now);
            }
            ToAgent::ShutdownFramework { framework_id } => {
                self.shut_down_framework(&framework_id, now)
            }
            ToAgent::FrameworkSubscribed { framework } => self.framework_subscribed(framework, now),
            ToAgent::Acknowledge {
                framework_id,
                task_id,
                uuid,
            } => {
                let uuid = BASE64.decode(uuid).unwrap_or_default();
                self.acknowledge(&framework_id, &task_id, &uuid, now);
            }
            ToAgent::ApplyOperation {
                framework_id,
                operation: Proto(operation),
            } => {
                let uuid = fresh.as_bytes().to_vec();
                self.apply_operation(framework_id, &operation, uuid, now);
            }
            ToAgent::AcknowledgeOperation {
                framework_id,
                operation_id,
                uuid,
            } => {
                let uuid = BASE64.decode(uuid).unwrap_or_default();
                self.acknowledge_operation(&framework_id, &operation_id, &uuid);
            }
            ToAgent::Drain {
                max_grace_period,
                mark_gone,
            } => self.begin_drain(max_grace_period.map(|Proto(max)| max), mark_gone, now),
            ToAgent::Shutdown { reason } => {
                tracing::info!(%reason, "the master ends this agent");
                self.removed_by_master(now);
            }
            ToAgent::FrameworkMessage {
                framework_id,
                executor_id,
                data,
            } => {
                let data = BASE64.decode(data).unwrap_or_default();
                let event = Event {
                    r#type: Some(event::Type::Message.into()),
                    message: Some(event::Message { data }),
                    ..Default::default()
                };
                self.send(&(framework_id, executor_id), event);
            }
        }
    }

    fn registered(&mut self, agent_id: String, reconcile: Vec<KnownTask>, now: Timestamp) {
        if self.id() != agent_id {
            self.info.id = Some(AgentId {
                value: agent_id.clone(),
            });
            self.out.push(Out::StoreId(agent_id));
        }
        self.connected = true;
        self.resend_all(now);
        self.resend_all_operations(now);
        for task in reconcile {
            // Between the agent's list and this one, the task may have arrived or ended.
            let known = self
                .find_task(&task.framework_id, &task.info.0.task_id.value)
                .is_some();
            if !known {
                let message = "Reconciliation: task unknown to the agent";
                self.drop_task(
                    &task.framework_id,
                    task.info.0,
                    Reason::Reconciliation,
                    message,
                    now,
                );
            }
        }
    }

    fn run_task(
        &mut self,
        framework: FrameworkInfo,
        task: TaskInfo,
        container_id: String,
        now: Timestamp,
    ) {
        let Some(executor) = task.executor.clone() else {
            return;
        };
        let framework_id = framework
            .id
            .as_ref()
            .map(|id| id.value.clone())
            .unwrap_or_default();
        let key = (framework_id.clone(), executor.executor_id.value.clone());
        let task_id = task.task_id.value.clone();
        if self.find_task(&framework_id, &task_id).is_some() {
            // The master said it twice.
            return;
        }
        if let Some((reason, message)) = self.why_not(&task, &executor) {
            return self.drop_task(&framework_id, task, reason, message, now);
        }
        match self.executors.get_mut(&key) {
            None => {
                let record = Record {
                    framework: Proto(framework.clone()),
                    executor: Proto(executor.clone()),
                    container_id: container_id.clone(),
                    process: None,
                    queued: vec![Proto(task)],
                    tasks: Default::default(),
                };
                let launch = Launch {
                    framework,
                    executor,
                    container_id,
                    resources: record.resources(),
                };
                let phase = Phase::Registering(now.plus(self.clocks.registration));
                let entry = Executor {
                    record,
                    phase,
                    stream: None,
                    reason: None,
                    discard: false,
                };
                self.executors.insert(key.clone(), entry);
                self.store(&key);
                self.out.push(Out::Launch(Box::new(launch)));
            }
            Some(running) => match running.phase {
                Phase::Registering(_) => {
                    running.record.queued.push(Proto(task));
                    self.limit(&key);
                    self.store(&key);
                }
                Phase::Running => {
                    running
                        .record
                        .tasks
                        .insert(task_id, TaskRecord::new(task.clone()));
                    self.limit(&key);
                    self.mount(&key);
                    self.store(&key);
                    self.send(&key, launch_event(task));
                }
                Phase::Terminating(_) | Phase::Killed | Phase::Ended => {
                    let message = "Executor terminated";
                    self.drop_task(
                        &framework_id,
                        task,
                        Reason::ExecutorTerminated,
                        message,
                        now,
                    );
                }
            },
        }
    }

    /// Why a task cannot be run here, if so.
    fn why_not(&self, task: &TaskInfo, executor: &ExecutorInfo) -> Option<(Reason, &'static str)> {
        if self.drain.is_some() {
            let message = "Task was received while agent was already draining";
            return Some((Reason::AgentDraining, message));
        }
        if !self.has_reserved(&task.resources) {
            let message = "The checkpointed resources being used by the task or task group are unknown to \
                           the agent";
            return Some((Reason::ResourcesUnknown, message));
        }
        if !self.has_reserved(&executor.resources) {
            let message =
                "The checkpointed resources being used by the executor are unknown to the agent";
            return Some((Reason::ResourcesUnknown, message));
        }
        None
    }

    /// Lets the sandbox show what its tasks may use now.
    pub(super) fn mount(&mut self, key: &ExecutorKey) {
        if let Some(executor) = self.executors.get(key) {
            let container_id = executor.record.container_id.clone();
            let resources = executor.record.resources();
            self.out.push(Out::Mount {
                key: key.clone(),
                container_id,
                resources,
            });
        }
    }

    fn limit(&mut self, key: &ExecutorKey) {
        if let Some(executor) = self.executors.get(key) {
            let container_id = executor.record.container_id.clone();
            let resources = executor.record.resources();
            self.out.push(Out::Limit {
                container_id,
                resources,
            });
        }
    }

    pub(super) fn kill_task(
        &mut self,
        framework_id: &str,
        task_id: &str,
        policy: Option<KillPolicy>,
        now: Timestamp,
    ) {
        let Some(key) = self.find_task(framework_id, task_id) else {
            let info = TaskInfo {
                name: task_id.to_owned(),
                task_id: TaskId {
                    value: task_id.to_owned(),
                },
                ..Default::default()
            };
            return self.drop_task(
                framework_id,
                info,
                Reason::ExecutorTerminated,
                "Cannot find executor",
                now,
            );
        };
        let Some(executor) = self.executors.get_mut(&key) else {
            return;
        };
        let queue = &mut executor.record.queued;
        if let Some(index) = queue
            .iter()
            .position(|task| task.0.task_id.value == task_id)
        {
            let Proto(task) = queue.remove(index);
            executor
                .record
                .tasks
                .insert(task_id.to_owned(), TaskRecord::new(task));
            let idle =
                executor.record.queued.is_empty() && executor.record.tasks.values().len() == 1;
            let reason = Reason::TaskKilledDuringLaunch;
            let message = "Killed before delivery to the executor";
            let status = self.agent_status(task_id, TaskState::TaskKilled, reason, message, now);
            self.update(&key, status, now);
            if idle {
                // Nothing is left for it to do, and it has not even subscribed.
                self.shut_down(&key, now);
            }
            return;
        }
        let event = Event {
            r#type: Some(event::Type::Kill.into()),
            kill: Some(event::Kill {
                task_id: TaskId {
                    value: task_id.to_owned(),
                },
                kill_policy: policy,
            }),
            ..Default::default()
        };
        self.send(&key, event);
    }

    /// Asks an executor to end, and sees to it.
    pub(super) fn shut_down(&mut self, key: &ExecutorKey, now: Timestamp) {
        let default = self.clocks.shutdown_grace;
        let scale = self.clocks.scale;
        let Some(executor) = self.executors.get_mut(key) else {
            return;
        };
        match executor.phase {
            Phase::Registering(_) | Phase::Running => {}
            Phase::Terminating(_) | Phase::Killed | Phase::Ended => return,
        }
        let stated = executor.record.executor.0.shutdown_grace_period.as_ref();
        let nanos = stated.and_then(|grace| u64::try_from(grace.nanoseconds).ok());
        let grace = nanos.map_or(default, |nanos| {
            std::time::Duration::from_nanos(nanos).div_f64(scale)
        });
        executor.phase = Phase::Terminating(now.plus(grace));
        let event = Event {
            r#type: Some(event::Type::Shutdown.into()),
            ..Default::default()
        };
        self.send(key, event);
    }

    fn shut_down_framework(&mut self, framework_id: &str, now: Timestamp) {
        let keys: Vec<_> = self
            .executors
            .keys()
            .filter(|(owner, _)| owner == framework_id)
            .cloned()
            .collect();
        for key in keys {
            self.shut_down(&key, now);
            if let Some(executor) = self.executors.get_mut(&key) {
                executor.discard = true;
            }
            self.forget_if_done(&key);
        }
        self.forget_operations_of(framework_id);
        self.finish_drain_if_done();
    }

    /// The agent itself is going: everything it runs ends.
    pub fn shut_down_all(&mut self, now: Timestamp) {
        let keys: Vec<_> = self.executors.keys().cloned().collect();
        for key in keys {
            self.shut_down(&key, now);
        }
    }

    /// True when no executor runs any more.
    pub fn is_idle(&self) -> bool {
        self.executors
            .values()
            .all(|executor| executor.phase == Phase::Ended)
    }

    fn framework_subscribed(&mut self, framework: Proto<FrameworkInfo>, now: Timestamp) {
        let id = framework
            .0
            .id
            .as_ref()
            .map(|id| id.value.clone())
            .unwrap_or_default();
        let keys: Vec<_> = self
            .executors
            .keys()
            .filter(|(owner, _)| *owner == id)
            .cloned()
            .collect();
        for key in keys {
            if let Some(executor) = self.executors.get_mut(&key) {
                executor.record.framework = framework.clone();
            }
            self.store(&key);
            self.resend(&key, now);
        }
    }

    /// The executor that has, had or will have a task.
    pub(super) fn find_task(&self, framework_id: &str, task_id: &str) -> Option<ExecutorKey> {
        let has = |executor: &Executor| {
            let queued = executor
                .record
                .queued
                .iter()
                .any(|task| task.0.task_id.value == task_id);
            queued || executor.record.tasks.contains_key(task_id)
        };
        let mut mine = self
            .executors
            .iter()
            .filter(|((owner, _), _)| owner == framework_id);
        mine.find(|(_, executor)| has(executor))
            .map(|(key, _)| key.clone())
    }

    /// Writes an event to an executor that is subscribed.
    pub(super) fn send(&mut self, key: &ExecutorKey, event: Event) {
        let stream = self
            .executors
            .get(key)
            .and_then(|executor| executor.stream.clone());
        if let Some(stream) = stream {
            self.out.push(Out::Event {
                stream,
                event: Box::new(event),
            });
        }
    }
}

pub(super) fn launch_event(task: TaskInfo) -> Event {
    Event {
        r#type: Some(event::Type::Launch.into()),
        launch: Some(event::Launch { task }),
        ..Default::default()
    }
}
