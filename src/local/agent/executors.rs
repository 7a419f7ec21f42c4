//! The executor API, and containers that start, fail and end. Pure.

use crate::local::duration;
use crate::local::http::Reply;
use crate::local::wire::{Proto, ToMaster};
use crate::mesos::v1::executor::{Call, Event, call, event};
use crate::mesos::v1::{ContainerId, TaskState, task_status::Reason};
use crate::time::Timestamp;

use super::core::{Core, ExecutorKey, Out, Phase, Process};
use super::launching::launch_event;

/// What a container was ended for, beyond its own doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limitation {
    /// For the tasks' last status.
    pub reason: Reason,
    /// The same in words.
    pub message: String,
}

/// Checks that a call has the parts that its type needs.
///
/// # Errors
///
/// The sentence that Mesos answers with.
pub fn validate(call: &Call) -> Result<(), String> {
    let part = match call.r#type.map(call::Type::try_from) {
        Some(Ok(call::Type::Subscribe)) => ("subscribe", call.subscribe.is_some()),
        Some(Ok(call::Type::Update)) => ("update", call.update.is_some()),
        Some(Ok(call::Type::Message)) => ("message", call.message.is_some()),
        Some(Ok(call::Type::Heartbeat)) => ("", true),
        Some(Ok(call::Type::Unknown) | Err(_)) | None => {
            return Err("Expecting 'type' to be present".to_owned());
        }
    };
    match part {
        (_, true) => {}
        (name, false) => return Err(format!("Expecting '{name}' to be present")),
    }
    if let Some(update) = call
        .update
        .as_ref()
        .filter(|_| call.r#type() == call::Type::Update)
    {
        let status = &update.status;
        if status.uuid.is_none() {
            return Err("Expecting 'uuid' to be present".to_owned());
        }
        if status
            .executor_id
            .as_ref()
            .is_some_and(|id| *id != call.executor_id)
        {
            return Err("ExecutorID in Call does not match ExecutorID in TaskStatus".to_owned());
        }
        if status.state() == TaskState::TaskStaging {
            return Err("TASK_STAGING is not allowed in a status update of an executor".to_owned());
        }
    }
    Ok(())
}

impl Core {
    /// Who a call is from, if the agent has such an executor.
    fn caller(&self, call: &Call) -> Result<ExecutorKey, Reply> {
        let key = (
            call.framework_id.value.clone(),
            call.executor_id.value.clone(),
        );
        if !self
            .executors
            .keys()
            .any(|(framework_id, _)| *framework_id == key.0)
        {
            return Err(Reply::bad_request("Framework cannot be found"));
        }
        match self.executors.get(&key) {
            Some(executor) if executor.phase != Phase::Ended => Ok(key),
            _ => Err(Reply::bad_request("Executor cannot be found")),
        }
    }

    /// An executor subscribes on a stream, for the first time or again.
    ///
    /// # Errors
    ///
    /// The answer that refuses it.
    pub fn subscribe(&mut self, call: Call, stream: String, now: Timestamp) -> Result<(), Reply> {
        let key = self.caller(&call)?;
        let agent_info = self.info.clone();
        let Some(executor) = self.executors.get_mut(&key) else {
            return Err(Reply::bad_request("Executor cannot be found"));
        };
        match executor.phase {
            Phase::Registering(_) | Phase::Running => executor.phase = Phase::Running,
            Phase::Terminating(_) | Phase::Killed | Phase::Ended => {
                // It came while it was being ended: it is told so, at once.
                let event = Event {
                    r#type: Some(event::Type::Shutdown.into()),
                    ..Default::default()
                };
                self.out.push(Out::Event {
                    stream: stream.clone(),
                    event: Box::new(event),
                });
                self.out.push(Out::CloseStream(stream));
                return Ok(());
            }
        }
        if let Some(old) = executor.stream.replace(stream) {
            self.out.push(Out::CloseStream(old));
        }
        let record = &executor.record;
        let subscribed = event::Subscribed {
            executor_info: record.executor.0.clone(),
            framework_info: record.framework.0.clone(),
            agent_info,
            container_id: Some(ContainerId {
                value: record.container_id.clone(),
                parent: None,
            }),
        };
        let welcome = Event {
            r#type: Some(event::Type::Subscribed.into()),
            subscribed: Some(subscribed),
            ..Default::default()
        };
        self.send(&key, welcome);
        self.hear_again(&key, call.subscribe.unwrap_or_default(), now);
        self.deliver_queued(&key);
        self.finish_recovery_if_complete();
        Ok(())
    }

    /// What a reconnecting executor is not sure that the agent has heard.
    fn hear_again(&mut self, key: &ExecutorKey, subscribe: call::Subscribe, now: Timestamp) {
        for update in subscribe.unacknowledged_updates {
            self.update(key, update.status, now);
        }
        let held: Vec<String> = subscribe
            .unacknowledged_tasks
            .into_iter()
            .map(|task| task.task_id.value)
            .collect();
        let Some(executor) = self.executors.get(key) else {
            return;
        };
        // Launched, but it neither has it nor ever said a word of it: it never arrived.
        let tasks = executor.record.tasks.iter();
        let lost: Vec<String> = tasks
            .filter(|(id, task)| task.latest.is_none() && !held.contains(id))
            .map(|(id, _)| id.clone())
            .collect();
        for task_id in lost {
            let reason = Reason::AgentRestarted;
            let message = "Task launched during agent restart";
            let status = self.agent_status(&task_id, TaskState::TaskDropped, reason, message, now);
            self.update(key, status, now);
        }
    }

    /// Stored as delivered before they are sent: a crash between the two makes `hear_again` find
    /// that the executor does not have them, instead of delivering them twice.
    fn deliver_queued(&mut self, key: &ExecutorKey) {
        let Some(executor) = self.executors.get_mut(key) else {
            return;
        };
        let queued = std::mem::take(&mut executor.record.queued);
        for Proto(task) in &queued {
            let task_id = task.task_id.value.clone();
            executor
                .record
                .tasks
                .insert(task_id, super::core::TaskRecord::new(task.clone()));
        }
        let events: Vec<Event> = queued
            .into_iter()
            .map(|task| launch_event(task.0))
            .collect();
        self.mount(key);
        self.store(key);
        for event in events {
            self.send(key, event);
        }
    }

    /// A call of a subscribed executor.
    pub fn call(&mut self, call: Call, now: Timestamp) -> Reply {
        let key = match self.caller(&call) {
            Ok(key) => key,
            Err(refusal) => return refusal,
        };
        if self
            .executors
            .get(&key)
            .is_none_or(|executor| executor.stream.is_none())
        {
            return Reply::forbidden("Executor is not subscribed");
        }
        if let Some(update) = call.update {
            self.update(&key, update.status, now);
        } else if let Some(message) = call.message {
            use base64::Engine as _;
            let data = base64::engine::general_purpose::STANDARD.encode(message.data);
            let (framework_id, executor_id) = key;
            self.master(ToMaster::ExecutorMessage {
                framework_id,
                executor_id,
                data,
            });
        }
        Reply::accepted()
    }

    /// An executor's stream is gone. The executor itself may live and come back.
    pub fn stream_closed(&mut self, stream: &str) {
        for executor in self.executors.values_mut() {
            if executor.stream.as_deref() == Some(stream) {
                executor.stream = None;
            }
        }
    }

    /// A container's process runs.
    pub fn container_started(&mut self, container_id: &str, process: Process) {
        let Some(key) = self.by_container(container_id) else {
            return;
        };
        if let Some(executor) = self.executors.get_mut(&key) {
            executor.record.process = Some(process);
            if matches!(executor.phase, Phase::Killed) {
                // It was given up while it was being made.
                self.out.push(Out::Kill {
                    container_id: container_id.to_owned(),
                });
            }
        }
        self.store(&key);
    }

    /// A container could not be made; nothing of it is left.
    pub fn container_failed(&mut self, container_id: &str, message: String, now: Timestamp) {
        let limitation = Limitation {
            reason: Reason::ContainerLaunchFailed,
            message: format!("Failed to launch container: {message}"),
        };
        // What wait(2) says of a process that exited with 1, as Mesos reports it.
        self.container_ended(container_id, 1 << 8, Some(limitation), now);
    }

    /// A container's first process ended and everything else in it was killed.
    pub fn container_ended(
        &mut self,
        container_id: &str,
        status: i32,
        limitation: Option<Limitation>,
        now: Timestamp,
    ) {
        let Some(key) = self.by_container(container_id) else {
            return;
        };
        let Some(executor) = self.executors.get_mut(&key) else {
            return;
        };
        executor.phase = Phase::Ended;
        if let Some(stream) = executor.stream.take() {
            self.out.push(Out::CloseStream(stream));
        }
        if let Some(Limitation { reason, message }) = limitation {
            executor.reason = Some((reason, message));
        }
        let queued = std::mem::take(&mut executor.record.queued);
        for Proto(task) in queued {
            let task_id = task.task_id.value.clone();
            executor
                .record
                .tasks
                .insert(task_id, super::core::TaskRecord::new(task));
        }
        let open: Vec<String> = executor
            .record
            .tasks
            .iter()
            .filter(|(_, task)| !task.is_over())
            .map(|(id, _)| id.clone())
            .collect();
        let (reason, message) = executor
            .reason
            .clone()
            .unwrap_or((Reason::ExecutorTerminated, "Executor terminated".to_owned()));
        self.store(&key);
        if !self
            .executors
            .get(&key)
            .is_some_and(|executor| executor.discard)
        {
            let (framework_id, executor_id) = key.clone();
            self.master(ToMaster::ExitedExecutor {
                framework_id,
                executor_id,
                status,
            });
            for task_id in open {
                let status =
                    self.agent_status(&task_id, TaskState::TaskFailed, reason, &message, now);
                self.update(&key, status, now);
            }
        }
        self.forget_if_done(&key);
    }

    /// Executors that did not subscribe, or did not end, in time.
    pub(super) fn end_late_executors(&mut self, now: Timestamp) {
        let registration = self.clocks.registration;
        let mut late = Vec::new();
        for executor in self.executors.values_mut() {
            let due = match executor.phase {
                Phase::Registering(at) | Phase::Terminating(at) => now >= at,
                Phase::Running | Phase::Killed | Phase::Ended => false,
            };
            if !due {
                continue;
            }
            if matches!(executor.phase, Phase::Registering(_)) {
                let message = format!(
                    "Executor did not register within {}",
                    duration::text(registration)
                );
                executor.reason = Some((Reason::ExecutorRegistrationTimeout, message));
            }
            executor.phase = Phase::Killed;
            late.push(executor.record.container_id.clone());
        }
        for container_id in late {
            self.out.push(Out::Kill { container_id });
        }
    }

    /// An ended executor is forgotten when nothing of it waits for an acknowledgement.
    pub(super) fn forget_if_done(&mut self, key: &ExecutorKey) {
        let Some(executor) = self.executors.get(key) else {
            return;
        };
        let open = !executor.discard && !executor.record.tasks.is_empty();
        if executor.phase == Phase::Ended && !open {
            let container_id = executor.record.container_id.clone();
            self.executors.remove(key);
            self.out.push(Out::Forget {
                key: key.clone(),
                container_id,
            });
            self.finish_drain_if_done();
        }
    }

    pub(super) fn by_container(&self, container_id: &str) -> Option<ExecutorKey> {
        let mut all = self.executors.iter();
        all.find(|(_, one)| one.record.container_id == container_id)
            .map(|(key, _)| key.clone())
    }
}
