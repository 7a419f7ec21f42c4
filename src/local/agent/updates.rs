//! Statuses: one at a time per task, sent again until they are acknowledged. Pure.

use crate::local::wire::{Proto, ToMaster};
use crate::mesos::v1::executor::{Event, event};
use crate::mesos::v1::network_info::IpAddress;
use crate::mesos::v1::{
    AgentId, ContainerId, ContainerStatus, ExecutorId, FrameworkId, FrameworkInfo, NetworkInfo,
    TaskId, TaskInfo, TaskState, TaskStatus, task_status,
};
use crate::time::Timestamp;

use super::core::{Core, Executor, ExecutorKey, Phase, Process, Record, TaskRecord};

impl Core {
    /// A status that the agent itself gives.
    pub(super) fn agent_status(
        &self,
        task_id: &str,
        state: TaskState,
        reason: task_status::Reason,
        message: &str,
        now: Timestamp,
    ) -> TaskStatus {
        TaskStatus {
            task_id: TaskId {
                value: task_id.to_owned(),
            },
            state: state.into(),
            message: Some(message.to_owned()),
            source: Some(task_status::Source::Agent.into()),
            reason: Some(reason.into()),
            timestamp: Some(crate::local::master::events::seconds(now)),
            uuid: Some(status_uuid(task_id, state, now)),
            ..Default::default()
        }
    }

    /// A status of a task, from its executor or the agent: stored, then acknowledged to the
    /// executor, then sent to the master if none is on its way. One that is here already is only
    /// acknowledged.
    pub(super) fn update(&mut self, key: &ExecutorKey, mut status: TaskStatus, now: Timestamp) {
        let agent_id = self.info.id.clone();
        let ip = self.ip.clone();
        let Some(executor) = self.executors.get_mut(key) else {
            return;
        };
        let from_executor = status.source() == task_status::Source::Executor;
        let uuid = status.uuid.clone().unwrap_or_default();
        let task_id = status.task_id.value.clone();
        status.agent_id = agent_id;
        status.executor_id = Some(ExecutorId {
            value: key.1.clone(),
        });
        if from_executor {
            status.container_status = Some(container_status(&executor.record, ip));
        }
        self.explain_by_drain(key, &mut status);
        let Some(executor) = self.executors.get_mut(key) else {
            return;
        };
        let Some(task) = executor.record.tasks.get_mut(&task_id) else {
            // A task that was never launched, or whose end was acknowledged: nobody is waiting.
            return self.acknowledge_to_executor(key, &task_id, uuid);
        };
        let known = !task.received.insert(uuid.clone()) || task.is_over();
        if !known {
            task.latest = Some(Proto(status.clone()));
            task.updates.push_back(Proto(status));
            let over = task.is_over() && executor.phase == Phase::Running;
            self.store(key);
            if over {
                self.mount(key);
            }
        }
        if from_executor {
            self.acknowledge_to_executor(key, &task_id, uuid);
        }
        if !known {
            self.send_first(key, &task_id, now, false);
        }
    }

    fn acknowledge_to_executor(&mut self, key: &ExecutorKey, task_id: &str, uuid: Vec<u8>) {
        let task_id = TaskId {
            value: task_id.to_owned(),
        };
        let event = Event {
            r#type: Some(event::Type::Acknowledged.into()),
            acknowledged: Some(event::Acknowledged { task_id, uuid }),
            ..Default::default()
        };
        self.send(key, event);
    }

    /// A task that no executor has or will have.
    pub(super) fn drop_task(
        &mut self,
        framework_id: &str,
        task: TaskInfo,
        reason: task_status::Reason,
        message: &str,
        now: Timestamp,
    ) {
        let task_id = task.task_id.value.clone();
        let executor_id = task
            .executor
            .as_ref()
            .map(|executor| executor.executor_id.value.clone());
        let key = (
            framework_id.to_owned(),
            executor_id.unwrap_or_else(|| task_id.clone()),
        );
        // Its status needs a place until it is acknowledged: with an executor that has ended.
        let agent_id = self.info.id.clone();
        let executor = self.executors.entry(key.clone()).or_insert_with(|| {
            let framework = FrameworkInfo {
                id: Some(FrameworkId {
                    value: framework_id.to_owned(),
                }),
                ..Default::default()
            };
            let mut info = task.executor.clone().unwrap_or_default();
            info.executor_id = ExecutorId {
                value: key.1.clone(),
            };
            let record = Record {
                framework: Proto(framework),
                executor: Proto(info),
                container_id: String::new(),
                process: None,
                queued: Vec::new(),
                tasks: Default::default(),
            };
            Executor {
                record,
                phase: Phase::Ended,
                stream: None,
                reason: None,
                discard: false,
            }
        });
        let mut info = task;
        info.agent_id = agent_id.unwrap_or_else(|| AgentId {
            value: String::new(),
        });
        executor
            .record
            .tasks
            .entry(task_id.clone())
            .or_insert_with(|| TaskRecord::new(info));
        let status = self.agent_status(&task_id, TaskState::TaskDropped, reason, message, now);
        self.update(&key, status, now);
    }

    /// Sends the oldest status of a task that is not acknowledged; `again` even if it is on its way.
    fn send_first(&mut self, key: &ExecutorKey, task_id: &str, now: Timestamp, again: bool) {
        let retry_min = self.clocks.retry_min;
        let connected = self.connected;
        let Some(executor) = self.executors.get_mut(key) else {
            return;
        };
        let Some(task) = executor.record.tasks.get_mut(task_id) else {
            return;
        };
        let Some(first) = task.updates.front().cloned() else {
            return;
        };
        if !connected || (task.retry.is_some() && !again) {
            return;
        }
        task.retry = Some((now.plus(retry_min), retry_min));
        let latest_state = task.state().into();
        self.master(ToMaster::StatusUpdate {
            framework_id: key.0.clone(),
            status: first,
            latest_state,
        });
    }

    /// A scheduler has a status: the next one may go.
    pub(super) fn acknowledge(
        &mut self,
        framework_id: &str,
        task_id: &str,
        uuid: &[u8],
        now: Timestamp,
    ) {
        let Some(key) = self.find_task(framework_id, task_id) else {
            return;
        };
        let Some(executor) = self.executors.get_mut(&key) else {
            return;
        };
        let Some(task) = executor.record.tasks.get_mut(task_id) else {
            return;
        };
        let first = task
            .updates
            .front()
            .and_then(|first| first.0.uuid.as_deref());
        if first != Some(uuid) {
            // Of a status that was sent twice and acknowledged twice.
            return;
        }
        task.updates.pop_front();
        task.retry = None;
        if task.is_over() && task.updates.is_empty() {
            executor.record.tasks.remove(task_id);
        }
        self.store(&key);
        self.send_first(&key, task_id, now, false);
        self.forget_if_done(&key);
    }

    /// Sends again what was not acknowledged in time, each time after twice as long.
    pub(super) fn resend_updates(&mut self, now: Timestamp) {
        if !self.connected {
            return;
        }
        let retry_max = self.clocks.retry_max;
        let mut due = Vec::new();
        for (key, executor) in &mut self.executors {
            for task in executor.record.tasks.values_mut() {
                let Some((at, pause)) = task.retry.filter(|(at, _)| now >= *at) else {
                    continue;
                };
                let Some(first) = task.updates.front().cloned() else {
                    continue;
                };
                let pause = (pause * 2).min(retry_max);
                task.retry = Some((at.max(now).plus(pause), pause));
                let latest_state = task.state().into();
                let framework_id = key.0.clone();
                due.push(ToMaster::StatusUpdate {
                    framework_id,
                    status: first,
                    latest_state,
                });
            }
        }
        for message in due {
            self.master(message);
        }
    }

    /// Sends everything that is not acknowledged: there is a new master.
    pub(super) fn resend_all(&mut self, now: Timestamp) {
        let keys: Vec<_> = self.executors.keys().cloned().collect();
        for key in keys {
            self.resend(&key, now);
        }
    }

    /// Sends everything of an executor that is not acknowledged: there is a new scheduler.
    pub(super) fn resend(&mut self, key: &ExecutorKey, now: Timestamp) {
        let Some(executor) = self.executors.get(key) else {
            return;
        };
        let tasks: Vec<String> = executor.record.tasks.keys().cloned().collect();
        for task_id in tasks {
            self.send_first(key, &task_id, now, true);
        }
    }
}

fn container_status(record: &Record, ip: String) -> ContainerStatus {
    let address = IpAddress {
        protocol: None,
        ip_address: Some(ip),
    };
    ContainerStatus {
        container_id: Some(ContainerId {
            value: record.container_id.clone(),
            parent: None,
        }),
        executor_pid: record.process.map(|Process { pid, .. }| pid),
        network_infos: vec![NetworkInfo {
            ip_addresses: vec![address],
            ..Default::default()
        }],
    }
}

/// The agent gives a task at most one status of a state at a time, so its uuid may follow from these;
/// chance would make this file impure.
fn status_uuid(task_id: &str, state: TaskState, now: Timestamp) -> Vec<u8> {
    use sha1::Digest as _;
    let mut hash = sha1::Sha1::new();
    hash.update(task_id.as_bytes());
    hash.update(state.as_str_name().as_bytes());
    hash.update(now.as_millis().to_be_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize()[..16]);
    uuid::Builder::from_sha1_bytes(bytes)
        .into_uuid()
        .as_bytes()
        .to_vec()
}
