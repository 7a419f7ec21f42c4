//! Tasks: statuses on their way to schedulers, kills, reconciliation. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::local::http::Reply;
use crate::local::wire::{Proto, ToAgent};
use crate::mesos::v1::scheduler::{Call, call, call::Type};
use crate::mesos::v1::{ExecutorId, TaskState, TaskStatus, TimeInfo, task_status::Reason};
use crate::time::Timestamp;

use super::core::{Core, Task, is_terminal};
use super::maintenance::InverseAnswer;
use super::{accept, events};

impl Core {
    /// Does what a valid call of a connected framework asks for.
    pub(super) fn dispatch(&mut self, framework_id: &str, call: Call, now: Timestamp) -> Reply {
        let kind = call.r#type();
        match kind {
            Type::Accept => self.accept(framework_id, call.accept.unwrap_or_default(), now),
            Type::Decline => {
                let decline = call.decline.unwrap_or_default();
                let seconds = accept::refuse_seconds(decline.filters.as_ref());
                self.decline(framework_id, &decline.offer_ids, seconds, now);
            }
            Type::Suppress => self.suppress(framework_id, call.suppress.unwrap_or_default().roles),
            Type::Revive => self.revive(framework_id, &call.revive.unwrap_or_default().roles, now),
            Type::Kill => self.kill(framework_id, call.kill.unwrap_or_default(), now),
            Type::Shutdown => {
                let shutdown = call.shutdown.unwrap_or_default();
                let message = ToAgent::ShutdownExecutor {
                    framework_id: framework_id.to_owned(),
                    executor_id: shutdown.executor_id.value,
                };
                self.tell(&shutdown.agent_id.value, message);
            }
            Type::Acknowledge => {
                self.acknowledge(framework_id, call.acknowledge.unwrap_or_default())
            }
            Type::Reconcile => {
                self.reconcile(framework_id, call.reconcile.unwrap_or_default(), now)
            }
            Type::Message => {
                let message = call.message.unwrap_or_default();
                let passed = ToAgent::FrameworkMessage {
                    framework_id: framework_id.to_owned(),
                    executor_id: message.executor_id.value,
                    data: BASE64.encode(message.data),
                };
                self.tell(&message.agent_id.value, passed);
            }
            Type::Teardown => {
                self.remove_framework(framework_id);
                self.allocate(now);
            }
            Type::UpdateFramework => return self.update_framework(framework_id, call, now),
            Type::ReconcileOperations => {
                let reconcile = call.reconcile_operations.unwrap_or_default();
                self.reconcile_operations(framework_id, reconcile);
            }
            Type::AcknowledgeOperationStatus => {
                let acknowledge = call.acknowledge_operation_status.unwrap_or_default();
                self.acknowledge_operation(framework_id, acknowledge);
            }
            Type::AcceptInverseOffers => {
                let accept = call.accept_inverse_offers.unwrap_or_default();
                let seconds = accept::refuse_seconds(accept.filters.as_ref());
                let answer = InverseAnswer::Accept;
                self.answer_inverse(
                    framework_id,
                    &accept.inverse_offer_ids,
                    answer,
                    seconds,
                    now,
                );
            }
            Type::DeclineInverseOffers => {
                let decline = call.decline_inverse_offers.unwrap_or_default();
                let seconds = accept::refuse_seconds(decline.filters.as_ref());
                let answer = InverseAnswer::Decline;
                self.answer_inverse(
                    framework_id,
                    &decline.inverse_offer_ids,
                    answer,
                    seconds,
                    now,
                );
            }
            Type::Request => {}
            // The door lets neither in.
            Type::Unknown | Type::Subscribe => {
                return Reply::bad_request("Expecting 'type' to be present");
            }
        }
        self.finish_drains(now);
        Reply::accepted()
    }

    fn update_framework(&mut self, framework_id: &str, call: Call, now: Timestamp) -> Reply {
        let update = call.update_framework.unwrap_or_default();
        let info = update.framework_info;
        if let Err(reason) = super::validate::framework(&info, &update.suppressed_roles) {
            return Reply::bad_request(format!(
                "'UpdateFramework.framework_info' is not valid: {reason}"
            ));
        }
        if let Some(framework) = self.frameworks.get_mut(framework_id) {
            framework.info = info;
            framework.suppressed = update.suppressed_roles.into_iter().collect();
        }
        self.allocate(now);
        Reply::ok("")
    }

    /// A status from an agent, with uuid: noted, and passed on if there is a scheduler. If there is
    /// none, the agent sends it again.
    pub(super) fn status_update(&mut self, framework_id: &str, status: TaskStatus, latest: i32) {
        let Some(framework) = self.frameworks.get_mut(framework_id) else {
            return;
        };
        let latest = TaskState::try_from(latest).unwrap_or_else(|_| status.state());
        if let Some(task) = framework.tasks.get_mut(&status.task_id.value) {
            task.state = latest;
            task.unreachable = None;
            if framework.stream.is_some() {
                task.status = Some(status.clone());
            }
        }
        self.send(framework_id, events::update(status));
    }

    fn acknowledge(&mut self, framework_id: &str, acknowledge: call::Acknowledge) {
        let task_id = acknowledge.task_id.value;
        let agent_id = acknowledge.agent_id.value;
        let connected = self
            .agents
            .get(&agent_id)
            .is_some_and(|agent| agent.link.is_some());
        if !connected {
            // The agent keeps the status and sends it again when it is back.
            return;
        }
        if let Some(framework) = self.frameworks.get_mut(framework_id) {
            let ended = |task: &Task| {
                let status = task.status.as_ref();
                let this = status
                    .is_some_and(|status| status.uuid.as_deref() == Some(&acknowledge.uuid[..]));
                this && status.is_some_and(|status| is_terminal(status.state()))
            };
            if framework.tasks.get(&task_id).is_some_and(ended) {
                framework.tasks.remove(&task_id);
            }
        }
        let uuid = BASE64.encode(acknowledge.uuid);
        let framework_id = framework_id.to_owned();
        self.tell(
            &agent_id,
            ToAgent::Acknowledge {
                framework_id,
                task_id,
                uuid,
            },
        );
    }

    fn kill(&mut self, framework_id: &str, kill: call::Kill, now: Timestamp) {
        let task_id = kill.task_id.value.clone();
        let known = self
            .frameworks
            .get(framework_id)
            .and_then(|framework| framework.tasks.get(&task_id));
        match known.map(|task| task.agent_id().to_owned()) {
            Some(agent_id) => {
                let message = ToAgent::KillTask {
                    framework_id: framework_id.to_owned(),
                    task_id,
                    kill_policy: kill.kill_policy.map(Proto),
                };
                self.tell(&agent_id, message);
            }
            // Whoever kills an unknown task learns what the master knows of it.
            None => {
                let task = call::reconcile::Task {
                    task_id: kill.task_id,
                    agent_id: kill.agent_id,
                };
                self.reconcile(framework_id, call::Reconcile { tasks: vec![task] }, now);
            }
        }
    }

    /// Tells what is known of the named tasks, or, if none is named, of all tasks but those whose agents are not reached: of these a master
    /// tells only by name.
    ///
    /// A task whose agent has not come back to a restarted master gets no answer: it may run.
    fn reconcile(&mut self, framework_id: &str, reconcile: call::Reconcile, now: Timestamp) {
        let mut asked = reconcile.tasks;
        if asked.is_empty() {
            let Some(framework) = self.frameworks.get(framework_id) else {
                return;
            };
            for task in framework
                .tasks
                .values()
                .filter(|it| it.unreachable.is_none())
            {
                asked.push(call::reconcile::Task {
                    task_id: task.info.task_id.clone(),
                    agent_id: Some(task.info.agent_id.clone()),
                });
            }
        }
        for task in asked {
            let agent_id = task.agent_id.as_ref().map(|id| id.value.as_str());
            if let Some(status) = self.latest(framework_id, &task.task_id.value, agent_id, now) {
                self.send(framework_id, events::update(status));
            }
        }
    }

    fn latest(
        &self,
        framework_id: &str,
        task_id: &str,
        agent_id: Option<&str>,
        now: Timestamp,
    ) -> Option<TaskStatus> {
        let answer = |agent_id, state, message: &str| {
            events::master_status(
                task_id,
                agent_id,
                state,
                Reason::Reconciliation,
                message,
                now,
            )
        };
        let known = self
            .frameworks
            .get(framework_id)
            .and_then(|framework| framework.tasks.get(task_id));
        if let Some(task) = known {
            let agent_id = Some(task.agent_id());
            if let Some(since) = task.unreachable {
                let state = self.lost_state(framework_id, TaskState::TaskUnreachable);
                let mut status = answer(agent_id, state, "Reconciliation: Task is unreachable");
                status.unreachable_time = Some(nanoseconds(since));
                return Some(status);
            }
            // What was passed on counts, not what still waits for an acknowledgement.
            let state = task.status.as_ref().map_or(task.state, TaskStatus::state);
            let mut status = answer(agent_id, state, "Reconciliation: Latest task state");
            describe(&mut status, task);
            return Some(status);
        }
        match agent_id {
            Some(id) if self.recovered.contains_key(id) => None,
            None if !self.recovered.is_empty() => None,
            Some(id) if self.registry.gone.contains(id) => {
                let state = self.lost_state(framework_id, TaskState::TaskGoneByOperator);
                Some(answer(agent_id, state, "Reconciliation: Task is gone"))
            }
            Some(id) if self.agents.contains_key(id) => {
                let state = self.lost_state(framework_id, TaskState::TaskGone);
                Some(answer(
                    agent_id,
                    state,
                    "Reconciliation: Task is unknown to the agent",
                ))
            }
            Some(id) if self.unreachable.contains_key(id) => {
                let state = self.lost_state(framework_id, TaskState::TaskUnreachable);
                let mut status = answer(agent_id, state, "Reconciliation: Task is unreachable");
                status.unreachable_time = self.unreachable.get(id).copied().map(nanoseconds);
                Some(status)
            }
            _ => {
                let state = self.lost_state(framework_id, TaskState::TaskUnknown);
                Some(answer(agent_id, state, "Reconciliation: Task is unknown"))
            }
        }
    }
}

/// Adds what a status of the master repeats from the executor's.
pub(super) fn describe(status: &mut TaskStatus, task: &Task) {
    status.executor_id = task.executor_id().map(|value| ExecutorId {
        value: value.to_owned(),
    });
    if let Some(latest) = &task.status {
        status.container_status = latest.container_status.clone();
        status.healthy = latest.healthy;
        status.check_status = latest.check_status;
    }
}

pub(super) fn nanoseconds(at: Timestamp) -> TimeInfo {
    let nanoseconds = at.as_millis().saturating_mul(1_000_000);
    TimeInfo {
        nanoseconds: i64::try_from(nanoseconds).unwrap_or(i64::MAX),
    }
}
