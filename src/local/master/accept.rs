//! ACCEPT: what a scheduler does with its offers. Pure.
//!
//! Operations are taken in order, each against what the ones before it left of the offers. What is
//! wrong is answered per task or operation; what is left goes back and is refused for a while.

use std::collections::BTreeSet;

use crate::local::resources::Resources;
use crate::local::wire::{Proto, ToAgent};
use crate::mesos::v1::offer::{Operation, operation};
use crate::mesos::v1::scheduler::call::Accept;
use crate::mesos::v1::{
    ExecutorInfo, Filters, FrameworkId, OfferId, OperationState, TaskInfo, TaskState,
    executor_info, framework_info::capability::Type as Capability, resource::AllocationInfo,
    task_status::Reason,
};
use crate::time::Timestamp;

use super::core::{Core, Offered, Task};
use super::{checks, events, validate};

/// The offers of an ACCEPT, taken together.
pub(super) struct Pool {
    pub agent_id: String,
    pub role: String,
    /// What the operations so far have left or made.
    pub left: Resources,
    /// The part of the offers that no operation has taken or changed: it is refused for a while.
    pub untouched: Resources,
}

impl Core {
    pub(super) fn accept(&mut self, framework_id: &str, accept: Accept, now: Timestamp) {
        let refuse_seconds = accept.filters.unwrap_or_default().refuse_seconds();
        let checked = self.check_offers(framework_id, &accept.offer_ids);
        let taken: Vec<Offered> = accept
            .offer_ids
            .iter()
            .filter_map(|id| self.offers.remove(&id.value))
            .collect();
        let mut pool = match (checked, taken.first()) {
            (Ok(()), Some(first)) => Pool {
                agent_id: first.agent_id.clone(),
                role: first.role.clone(),
                left: Resources::default(),
                untouched: Resources::default(),
            },
            (Ok(()), None) => {
                return self.drop_operations(
                    framework_id,
                    accept.operations,
                    "No offers specified",
                    now,
                );
            }
            (Err(reason), _) => {
                return self.drop_operations(framework_id, accept.operations, &reason, now);
            }
        };
        for offer in &taken {
            pool.left.add(&offer.resources);
        }
        pool.untouched = pool.left.clone();
        for operation in accept.operations {
            self.operate(framework_id, operation, &mut pool, now);
        }
        let Pool {
            agent_id,
            role,
            untouched,
            ..
        } = pool;
        self.refuse_resources(
            framework_id,
            agent_id,
            role,
            &untouched,
            refuse_seconds,
            now,
        );
    }

    /// All offers must be the framework's, valid, of one agent and one role.
    fn check_offers(&self, framework_id: &str, ids: &[OfferId]) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        let mut first: Option<&Offered> = None;
        for OfferId { value: id } in ids {
            let mine = self
                .offers
                .get(id)
                .filter(|offer| offer.framework_id == framework_id);
            let Some(offer) = mine else {
                return Err(format!("Offer {id} is no longer valid"));
            };
            if !seen.insert(id) {
                return Err(format!("Duplicate offer {id} in offer list"));
            }
            let first = first.get_or_insert(offer);
            if first.role != offer.role {
                return Err(format!(
                    "Aggregated offers must be allocated to the same role. Offer {id} uses role '{} but \
                     another is using role '{}",
                    offer.role, first.role
                ));
            }
            if first.agent_id != offer.agent_id {
                return Err(format!(
                    "Aggregated offers must belong to one single agent. Offer {id} uses agent {} and agent {}",
                    offer.agent_id, first.agent_id
                ));
            }
        }
        Ok(())
    }

    /// The offers are not valid: nothing of the call happens, and each part of it is answered.
    fn drop_operations(
        &mut self,
        framework_id: &str,
        operations: Vec<Operation>,
        reason: &str,
        now: Timestamp,
    ) {
        for operation in operations {
            if let Some(id) = operation.id.clone() {
                let message = format!("Operation attempted with invalid offers: {reason}");
                self.send(
                    framework_id,
                    events::operation(id, OperationState::OperationDropped, &message),
                );
            }
            let state = self.lost_state(framework_id, TaskState::TaskDropped);
            for task in tasks_of(operation) {
                let message = format!("Task launched with invalid offers: {reason}");
                self.send_status(
                    framework_id,
                    &task,
                    state,
                    Reason::InvalidOffers,
                    message,
                    now,
                );
            }
        }
    }

    /// What a framework that knows nothing of partitions is told instead.
    pub(super) fn lost_state(&self, framework_id: &str, state: TaskState) -> TaskState {
        let aware = |framework: &super::core::Framework| framework.has(Capability::PartitionAware);
        if self.frameworks.get(framework_id).is_some_and(aware) {
            state
        } else {
            TaskState::TaskLost
        }
    }

    fn send_status(
        &mut self,
        framework_id: &str,
        task: &TaskInfo,
        state: TaskState,
        reason: Reason,
        message: String,
        now: Timestamp,
    ) {
        let agent_id = Some(task.agent_id.value.as_str());
        let status =
            events::master_status(&task.task_id.value, agent_id, state, reason, message, now);
        self.send(framework_id, events::update(status));
    }

    fn operate(
        &mut self,
        framework_id: &str,
        operation: Operation,
        pool: &mut Pool,
        now: Timestamp,
    ) {
        match operation.r#type() {
            operation::Type::Launch if operation.id.is_some() => {
                for task in tasks_of(operation) {
                    let message = "The `id` field cannot be set on LAUNCH operations".to_owned();
                    let (state, reason) = (TaskState::TaskError, Reason::TaskInvalid);
                    self.send_status(framework_id, &task, state, reason, message, now);
                }
            }
            operation::Type::Launch => {
                for task in operation
                    .launch
                    .map(|launch| launch.task_infos)
                    .unwrap_or_default()
                {
                    self.launch(framework_id, task, pool, now);
                }
            }
            operation::Type::LaunchGroup => {
                let message = "Task groups are launched by the default executor, which this master's agents do not have";
                for task in tasks_of(operation) {
                    let reason = Reason::TaskGroupInvalid;
                    self.send_status(
                        framework_id,
                        &task,
                        TaskState::TaskError,
                        reason,
                        message.to_owned(),
                        now,
                    );
                }
            }
            operation::Type::Unknown
            | operation::Type::Reserve
            | operation::Type::Unreserve
            | operation::Type::Create
            | operation::Type::Destroy
            | operation::Type::GrowVolume
            | operation::Type::ShrinkVolume
            | operation::Type::CreateDisk
            | operation::Type::DestroyDisk => {
                self.convert(framework_id, operation, pool);
            }
        }
    }

    fn launch(&mut self, framework_id: &str, mut task: TaskInfo, pool: &mut Pool, now: Timestamp) {
        fill_in(&mut task, framework_id, &pool.role);
        match self.check_task(framework_id, &task, pool) {
            Err(message) => {
                self.send_status(
                    framework_id,
                    &task,
                    TaskState::TaskError,
                    Reason::TaskInvalid,
                    message,
                    now,
                );
            }
            Ok(needed) => {
                pool.left.subtract(&needed);
                pool.untouched.subtract(&needed);
                let Some(executor) = task.executor.clone() else {
                    return;
                };
                let Some(framework) = self.frameworks.get_mut(framework_id) else {
                    return;
                };
                let info = framework.info.clone();
                framework
                    .tasks
                    .insert(task.task_id.value.clone(), Task::new(task.clone()));
                if let Some(agent) = self.agents.get_mut(&pool.agent_id) {
                    let key = (framework_id.to_owned(), executor.executor_id.value.clone());
                    agent.executors.entry(key).or_insert(executor);
                }
                let run = ToAgent::RunTask {
                    framework: Proto(info),
                    task: Proto(task),
                };
                self.tell(&pool.agent_id, run);
            }
        }
    }

    /// What the launch takes from the offers, or why it may not happen. In Mesos' order of checks.
    fn check_task(
        &self,
        framework_id: &str,
        task: &TaskInfo,
        pool: &Pool,
    ) -> Result<Resources, String> {
        let task_id = &task.task_id.value;
        validate::id(task_id)?;
        if self
            .frameworks
            .get(framework_id)
            .is_some_and(|one| one.tasks.contains_key(task_id))
        {
            return Err(format!("Task has duplicate ID: {task_id}"));
        }
        if task.agent_id.value != pool.agent_id {
            return Err(format!(
                "Task uses invalid agent {} while agent {} is expected",
                task.agent_id.value, pool.agent_id
            ));
        }
        let grace = task
            .kill_policy
            .as_ref()
            .and_then(|policy| policy.grace_period.as_ref());
        if grace.is_some_and(|grace| grace.nanoseconds < 0) {
            return Err("Task's 'kill_policy.grace_period' must be non-negative".to_owned());
        }
        if task.resources.is_empty() {
            return Err("Task uses no resources".to_owned());
        }
        checks::resources(&task.resources)
            .map_err(|why| format!("Task uses invalid resources: {why}"))?;
        checks::unique_persistence_ids(&task.resources)
            .map_err(|why| format!("Task uses duplicate persistence ID: {why}"))?;
        let mut needed = Resources::new(&task.resources);
        if needed.is_empty() {
            return Err("Task uses no resources".to_owned());
        }
        let executor = match (&task.executor, &task.command) {
            (Some(executor), None) => executor,
            (None, Some(_)) => {
                return Err(
                    "Task uses the command executor, which this master's agents do not have; \
                            give an ExecutorInfo"
                        .to_owned(),
                );
            }
            (None, None) | (Some(_), Some(_)) => {
                return Err(
                    "Task should have at least one (but not both) of CommandInfo or ExecutorInfo \
                            present"
                        .to_owned(),
                );
            }
        };
        let runs = self.check_executor(framework_id, executor, pool)?;
        if !runs {
            let both: Vec<_> = task
                .resources
                .iter()
                .chain(&executor.resources)
                .cloned()
                .collect();
            checks::unique_persistence_ids(&both).map_err(|why| {
                format!("Task and its executor use duplicate persistence ID: {why}")
            })?;
            needed.add(&Resources::new(&executor.resources));
        }
        if !pool.left.contains(&needed) {
            return Err(format!(
                "Total resources {needed} required by task and its executor is more than available {}",
                pool.left
            ));
        }
        Ok(needed)
    }

    /// Whether the executor runs already, or why it cannot be used.
    fn check_executor(
        &self,
        framework_id: &str,
        executor: &ExecutorInfo,
        pool: &Pool,
    ) -> Result<bool, String> {
        let id = &executor.executor_id.value;
        validate::id(id)?;
        let stated = executor.framework_id.as_ref().map(|id| id.value.as_str());
        if stated != Some(framework_id) {
            return Err(format!(
                "ExecutorInfo has an invalid FrameworkID (Actual: {} vs Expected: {framework_id})",
                stated.unwrap_or_default()
            ));
        }
        if executor.r#type() != executor_info::Type::Custom {
            return Err("'ExecutorInfo.type' must be 'CUSTOM'".to_owned());
        }
        if executor.command.is_none() {
            return Err("'ExecutorInfo.command' must be set for 'CUSTOM' executor".to_owned());
        }
        if executor
            .shutdown_grace_period
            .as_ref()
            .is_some_and(|grace| grace.nanoseconds < 0)
        {
            return Err("ExecutorInfo's 'shutdown_grace_period' must be non-negative".to_owned());
        }
        checks::resources(&executor.resources)
            .map_err(|why| format!("Executor uses invalid resources: {why}"))?;
        checks::unique_persistence_ids(&executor.resources)
            .map_err(|why| format!("Executor uses duplicate persistence ID: {why}"))?;
        let key = (framework_id.to_owned(), id.clone());
        let known = self
            .agents
            .get(&pool.agent_id)
            .and_then(|agent| agent.executors.get(&key));
        match known {
            None => Ok(false),
            Some(known) if known == executor => Ok(true),
            Some(_) => Err(
                "ExecutorInfo is not compatible with existing ExecutorInfo with same ExecutorID."
                    .to_owned(),
            ),
        }
    }
}

/// What schedulers may leave out and the master fills in.
fn fill_in(task: &mut TaskInfo, framework_id: &str, role: &str) {
    let allocation = || {
        Some(AllocationInfo {
            role: Some(role.to_owned()),
        })
    };
    for resource in &mut task.resources {
        resource.allocation_info = resource.allocation_info.take().or_else(allocation);
    }
    if let Some(executor) = &mut task.executor {
        for resource in &mut executor.resources {
            resource.allocation_info = resource.allocation_info.take().or_else(allocation);
        }
        let id = || FrameworkId {
            value: framework_id.to_owned(),
        };
        executor.framework_id.get_or_insert_with(id);
        if executor.r#type() == executor_info::Type::Unknown {
            executor.set_type(executor_info::Type::Custom);
        }
    }
}

fn tasks_of(operation: Operation) -> Vec<TaskInfo> {
    let mut tasks = operation
        .launch
        .map(|launch| launch.task_infos)
        .unwrap_or_default();
    if let Some(group) = operation.launch_group {
        tasks.extend(group.task_group.tasks);
    }
    tasks
}

/// The wait that a DECLINE states.
pub(super) fn refuse_seconds(filters: Option<&Filters>) -> f64 {
    filters.cloned().unwrap_or_default().refuse_seconds()
}
