//! What the agent has: reservations and volumes, the operations that change them, and draining. Pure.
//!
//! The master has checked an operation against what the agent told it, so it must succeed; if it does
//! not, the two disagree about what there is, and the agent ends, as a real one does, to begin again
//! with its own picture. How an operation with an id ended is stored together with the change itself,
//! and sent until it is acknowledged.
//!
//! A crash between the steps: directories of new volumes are made before the volumes are stored, so
//! that a stored volume always has its directory; directories of destroyed volumes are removed after
//! that is stored, with a note that a restarted agent finds and acts upon.
//!
//! Source: `Slave::applyOperation`, `syncCheckpointedResources` and `drain` in `src/slave/slave.cpp`
//! of Apache Mesos.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::local::reservation::{self, Conversion};
use crate::local::resources::Resources;
use crate::local::wire::{KnownOperation, Proto, ToMaster};
use crate::mesos::v1::offer::Operation;
use crate::mesos::v1::{
    DurationInfo, KillPolicy, OperationState, OperationStatus, Resource, TaskState, TaskStatus,
    Uuid, framework_info::capability::Type as Capability, task_status,
};
use crate::time::Timestamp;

use super::core::{Core, ExecutorKey, Out};

/// What a restarted agent has to know besides its executors.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Checkpoint {
    /// What is reserved, volumes included.
    pub resources: Vec<Proto<Resource>>,
    /// Operations whose end is not acknowledged.
    pub operations: Vec<KnownOperation>,
    /// Destroyed volumes whose directories may still be there.
    pub removing: Vec<Proto<Resource>>,
    /// The agent is being emptied.
    pub drain: Option<Drain>,
}

/// How the agent is being emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// It will not come back.
    pub mark_gone: bool,
}

/// An operation whose end the scheduler has not acknowledged.
#[derive(Debug)]
pub(super) struct Unacknowledged {
    pub known: KnownOperation,
    /// When it is sent again, and the pause after that.
    pub retry: Option<(Timestamp, Duration)>,
}

impl Core {
    /// An agent with reservations and operations of its former run. Its command line says what it
    /// has in all.
    ///
    /// # Errors
    ///
    /// It has less than what was reserved.
    pub fn restore(&mut self, checkpoint: Checkpoint) -> Result<(), String> {
        let kept = Resources::new(checkpoint.resources.iter().map(|Proto(one)| one));
        self.total = reservation::restored(&self.total, &kept)?;
        self.drain = checkpoint.drain;
        let operations = checkpoint.operations.into_iter();
        self.operations = operations
            .map(|known| Unacknowledged { known, retry: None })
            .collect();
        Ok(())
    }

    /// What is to be stored now.
    fn checkpoint(&self, removing: &[Resource]) -> Out {
        let kept = reservation::remembered(&self.total);
        let operations = self.operations.iter();
        Out::Checkpoint(Box::new(Checkpoint {
            resources: kept.list().iter().cloned().map(Proto).collect(),
            operations: operations.map(|one| one.known.clone()).collect(),
            removing: removing.iter().cloned().map(Proto).collect(),
            drain: self.drain,
        }))
    }

    /// Changes what the agent has. `uuid` is a fresh one for the status.
    pub(super) fn apply_operation(
        &mut self,
        framework_id: String,
        operation: &Operation,
        uuid: Vec<u8>,
        now: Timestamp,
    ) {
        let conversions: Vec<_> = reservation::conversions(operation)
            .iter()
            .map(Conversion::unallocated)
            .collect();
        let total = match reservation::apply_all(&conversions, &self.total) {
            Ok(total) => total,
            Err(why) => {
                let kind = operation.r#type().as_str_name();
                let why = format!("{kind} cannot be applied to what the agent has: {why}");
                self.out.push(Out::Abort(why));
                return;
            }
        };
        let (before, after) = (
            reservation::volumes(&self.total),
            reservation::volumes(&total),
        );
        let only_in = |these: &[Resource], those: &[Resource]| {
            let missing = these.iter().filter(|one| !those.contains(one));
            missing.cloned().collect::<Vec<Resource>>()
        };
        let (made, destroyed) = (only_in(&after, &before), only_in(&before, &after));
        self.total = total;
        if let Some(id) = operation.id.clone() {
            let status = OperationStatus {
                operation_id: Some(id),
                state: OperationState::OperationFinished.into(),
                uuid: Some(Uuid { value: uuid }),
                agent_id: self.info.id.clone(),
                ..Default::default()
            };
            let known = KnownOperation {
                framework_id,
                status: Proto(status),
            };
            self.operations.push(Unacknowledged { known, retry: None });
        }
        if !made.is_empty() {
            self.out.push(Out::MakeVolumes(made));
        }
        let stored = self.checkpoint(&destroyed);
        self.out.push(stored);
        if !destroyed.is_empty() {
            self.out.push(Out::RemoveVolumes(destroyed));
            let stored = self.checkpoint(&[]);
            self.out.push(stored);
        }
        self.send_new_operations(now);
    }

    fn send_new_operations(&mut self, now: Timestamp) {
        if !self.connected {
            return;
        }
        let pause = self.clocks.retry_min;
        let mut new = Vec::new();
        for one in &mut self.operations {
            if one.retry.is_none() {
                one.retry = Some((now.plus(pause), pause));
                new.push(one.known.clone());
            }
        }
        for known in new {
            self.tell_operation(known);
        }
    }

    fn tell_operation(&mut self, known: KnownOperation) {
        let KnownOperation {
            framework_id,
            status,
        } = known;
        self.master(ToMaster::OperationUpdate {
            framework_id,
            status,
        });
    }

    /// Sends everything that is not acknowledged: there is a new master.
    pub(super) fn resend_all_operations(&mut self, now: Timestamp) {
        for one in &mut self.operations {
            one.retry = None;
        }
        self.send_new_operations(now);
    }

    /// Sends again what was not acknowledged in time, each time after twice as long.
    pub(super) fn resend_operations(&mut self, now: Timestamp) {
        if !self.connected {
            return;
        }
        let retry_max = self.clocks.retry_max;
        let mut due = Vec::new();
        for one in &mut self.operations {
            if let Some((_, pause)) = one.retry.filter(|(at, _)| now >= *at) {
                let pause = (pause * 2).min(retry_max);
                one.retry = Some((now.plus(pause), pause));
                due.push(one.known.clone());
            }
        }
        for known in due {
            self.tell_operation(known);
        }
    }

    /// When an operation has to be sent again.
    pub(super) fn next_operation(&self) -> Option<Timestamp> {
        let times = self.operations.iter().filter_map(|one| Some(one.retry?.0));
        times.min().filter(|_| self.connected)
    }

    /// A scheduler knows how an operation ended.
    pub(super) fn acknowledge_operation(
        &mut self,
        framework_id: &str,
        operation_id: &str,
        uuid: &[u8],
    ) {
        let before = self.operations.len();
        self.operations.retain(|one| {
            let status = &one.known.status.0;
            let id = status.operation_id.as_ref().map(|id| id.value.as_str());
            let stated = status.uuid.as_ref().map(|uuid| uuid.value.as_slice());
            let this = id == Some(operation_id) && stated == Some(uuid);
            !(this && one.known.framework_id == framework_id)
        });
        if self.operations.len() < before {
            let stored = self.checkpoint(&[]);
            self.out.push(stored);
            self.finish_drain_if_done();
        }
    }

    /// The framework was removed: nobody waits for its operations.
    pub(super) fn forget_operations_of(&mut self, framework_id: &str) {
        let before = self.operations.len();
        self.operations
            .retain(|one| one.known.framework_id != framework_id);
        if self.operations.len() < before {
            let stored = self.checkpoint(&[]);
            self.out.push(stored);
        }
    }

    /// True when everything reserved that a task or executor shall use is there.
    pub(super) fn has_reserved(&self, list: &[Resource]) -> bool {
        let needed = reservation::remembered(&Resources::new(list).unallocated());
        self.total.contains(&needed)
    }

    // --- Draining ---

    /// Ends all tasks, and takes no new ones before that is done.
    pub(super) fn begin_drain(
        &mut self,
        max_grace_period: Option<DurationInfo>,
        mark_gone: bool,
        now: Timestamp,
    ) {
        if self.executors.is_empty() && self.operations.is_empty() {
            return;
        }
        self.drain = Some(Drain { mark_gone });
        let stored = self.checkpoint(&[]);
        self.out.push(stored);
        let mut kills: Vec<(String, String, Option<KillPolicy>)> = Vec::new();
        for ((framework_id, _), executor) in &self.executors {
            let tasks = executor.record.tasks.values();
            let live = tasks.filter(|task| !task.is_over()).map(|task| &task.info);
            for Proto(task) in live.chain(&executor.record.queued) {
                let stated = task.kill_policy.and_then(|policy| policy.grace_period);
                let shorter = max_grace_period
                    .filter(|max| stated.is_none_or(|stated| max.nanoseconds < stated.nanoseconds));
                let policy = shorter.map(|max| KillPolicy {
                    grace_period: Some(max),
                });
                kills.push((framework_id.clone(), task.task_id.value.clone(), policy));
            }
        }
        for (framework_id, task_id, policy) in kills {
            self.kill_task(&framework_id, &task_id, policy, now);
        }
    }

    /// A task that is killed while the agent is drained is said to be so because of that.
    pub(super) fn explain_by_drain(&self, key: &ExecutorKey, status: &mut TaskStatus) {
        let Some(drain) = self.drain else { return };
        if ![TaskState::TaskKilling, TaskState::TaskKilled].contains(&status.state()) {
            return;
        }
        status.set_reason(task_status::Reason::AgentDraining);
        let framework = self.executors.get(key).map(|one| &one.record.framework.0);
        let aware = framework.is_some_and(|framework| {
            let mut known = framework.capabilities.iter();
            known.any(|one| one.r#type() == Capability::PartitionAware)
        });
        if drain.mark_gone && aware {
            status.set_state(TaskState::TaskGoneByOperator);
        }
    }

    pub(super) fn finish_drain_if_done(&mut self) {
        if self.drain.is_some() && self.executors.is_empty() && self.operations.is_empty() {
            self.drain = None;
            let stored = self.checkpoint(&[]);
            self.out.push(stored);
        }
    }

    /// The master removed the agent: everything it runs ends, and it comes back as a new one, if at
    /// all. Its reservations and volumes stay.
    pub(super) fn removed_by_master(&mut self, now: Timestamp) {
        self.out.push(Out::ForgetId);
        self.shut_down_all(now);
    }
}
