//! Reservations and volumes: operations of an ACCEPT that change what an agent has, and what becomes
//! of them. Pure.
//!
//! The master changes its own picture at once and tells the agent, on the same connection as the
//! tasks that follow, so that a task may use what an operation before it has made. The agent stores
//! the change and answers, if the operation has an id; it sends its answer again until the scheduler
//! has acknowledged it. If the connection breaks before the agent heard of an operation, the agent's
//! own picture holds when it is back, and the operation was dropped.
//!
//! Source: `Master::_accept`, `updateOperationStatus` and `reconcileOperations` in
//! `src/master/master.cpp` of Apache Mesos.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::local::reservation::{self, Conversion};
use crate::local::wire::{KnownOperation, Proto, ToAgent};
use crate::mesos::v1::offer::{Operation, operation::Type};
use crate::mesos::v1::resource::AllocationInfo;
use crate::mesos::v1::scheduler::call;
use crate::mesos::v1::{AgentId, OperationState, OperationStatus, Resource};

use super::accept::Pool;
use super::core::Core;
use super::{checks, events};

/// An operation that its framework wants to hear of.
#[derive(Debug)]
pub(super) struct Pending {
    pub agent_id: String,
    /// The newest status; one without uuid says that the agent has not answered.
    pub status: OperationStatus,
}

impl Core {
    /// Carries an operation out, or says why it cannot be.
    pub(super) fn convert(
        &mut self,
        framework_id: &str,
        mut operation: Operation,
        pool: &mut Pool,
    ) {
        let role = pool.role.clone();
        for one in resources_mut(&mut operation) {
            let allocation = || AllocationInfo {
                role: Some(role.clone()),
            };
            one.allocation_info.get_or_insert_with(allocation);
        }
        if let Err(why) = checks::operation_form(&operation) {
            let message = format!("Operation attempted with invalid resources: {why}");
            return self.operation_error(framework_id, &operation, &message);
        }
        match self.check_operation(framework_id, &operation, pool) {
            Ok(conversions) => self.apply(framework_id, operation, &conversions, pool),
            Err(message) => self.operation_error(framework_id, &operation, &message),
        }
    }

    /// An operation without id gets no feedback, from a real master neither.
    pub(super) fn operation_error(&mut self, framework_id: &str, operation: &Operation, why: &str) {
        let kind = operation.r#type().as_str_name();
        tracing::info!(%framework_id, operation = kind, %why, "operation refused");
        if let Some(id) = operation.id.clone() {
            let error = OperationState::OperationError;
            self.send(framework_id, events::operation(id, error, why));
        }
    }

    fn check_operation(
        &self,
        framework_id: &str,
        operation: &Operation,
        pool: &Pool,
    ) -> Result<Vec<Conversion>, String> {
        let agent = self.agents.get(&pool.agent_id);
        let framework = self.frameworks.get(framework_id);
        let (Some(agent), Some(framework)) = (agent, framework) else {
            return Err(format!("Agent {} is not registered", pool.agent_id));
        };
        let shown = || {
            let (ip, port) = (&agent.ip, agent.info.port());
            let hostname = &agent.info.hostname;
            format!("{} at slave(1)@{ip}:{port} ({hostname})", pool.agent_id)
        };
        checks::operation(operation, &framework.info, &framework.roles(), &agent.total)
            .map_err(|why| format!("{why}; on agent {}", shown()))?;
        let conversions = reservation::conversions(operation);
        reservation::apply_all(&conversions, &pool.left)?;
        let plain: Vec<_> = conversions.iter().map(Conversion::unallocated).collect();
        // Whatever was offered is there; nothing else takes it away.
        reservation::apply_all(&plain, &agent.total)?;
        Ok(conversions)
    }

    fn apply(
        &mut self,
        framework_id: &str,
        operation: Operation,
        conversions: &[Conversion],
        pool: &mut Pool,
    ) {
        let Some(agent) = self.agents.get_mut(&pool.agent_id) else {
            return;
        };
        for conversion in conversions {
            // `check_operation` has tried each of these.
            if let Ok(left) = conversion.apply(&pool.left) {
                pool.left = left;
            }
            pool.untouched.subtract(&conversion.consumed);
            if let Ok(total) = conversion.unallocated().apply(&agent.total) {
                agent.total = total;
            }
        }
        if let Some(id) = operation.id.clone() {
            let key = (framework_id.to_owned(), id.value.clone());
            let status = OperationStatus {
                operation_id: Some(id),
                state: OperationState::OperationPending.into(),
                agent_id: Some(AgentId {
                    value: pool.agent_id.clone(),
                }),
                ..Default::default()
            };
            let agent_id = pool.agent_id.clone();
            self.operations.insert(key, Pending { agent_id, status });
        }
        let message = ToAgent::ApplyOperation {
            framework_id: framework_id.to_owned(),
            operation: Proto(operation),
        };
        self.tell(&pool.agent_id, message);
    }

    /// An agent says how an operation ended.
    pub(super) fn operation_update(
        &mut self,
        agent_id: &str,
        framework_id: String,
        status: OperationStatus,
    ) {
        let id = status.operation_id.clone().unwrap_or_default().value;
        let known = Pending {
            agent_id: agent_id.to_owned(),
            status: status.clone(),
        };
        self.operations.insert((framework_id.clone(), id), known);
        self.send(&framework_id, events::operation_status(status));
    }

    /// The scheduler has heard how an operation ended: everybody may forget it.
    pub(super) fn acknowledge_operation(
        &mut self,
        framework_id: &str,
        acknowledge: call::AcknowledgeOperationStatus,
    ) {
        let operation_id = acknowledge.operation_id.value;
        let key = (framework_id.to_owned(), operation_id.clone());
        let Some(known) = self.operations.get(&key) else {
            return;
        };
        let agent_id = known.agent_id.clone();
        let connected = self
            .agents
            .get(&agent_id)
            .is_some_and(|agent| agent.link.is_some());
        let stated = acknowledge.agent_id.map(|id| id.value);
        let uuid = known.status.uuid.as_ref().map(|uuid| uuid.value.as_slice());
        // An agent that is away keeps its answer and sends it again when it is back.
        if !connected || stated != Some(agent_id.clone()) || uuid != Some(&acknowledge.uuid[..]) {
            return;
        }
        self.operations.remove(&key);
        let message = ToAgent::AcknowledgeOperation {
            framework_id: framework_id.to_owned(),
            operation_id,
            uuid: BASE64.encode(acknowledge.uuid),
        };
        self.tell(&agent_id, message);
    }

    /// Tells what is known of the named operations, or of all if none is named.
    pub(super) fn reconcile_operations(
        &mut self,
        framework_id: &str,
        reconcile: call::ReconcileOperations,
    ) {
        let mut statuses = Vec::new();
        if reconcile.operations.is_empty() {
            let all = self.operations.iter();
            let mine = all.filter(|((owner, _), _)| owner == framework_id);
            statuses.extend(mine.map(|(_, known)| known.status.clone()));
        }
        for asked in reconcile.operations {
            let key = (framework_id.to_owned(), asked.operation_id.value.clone());
            match self.operations.get(&key) {
                Some(known) => statuses.push(known.status.clone()),
                None => {
                    let agent_id = asked.agent_id.as_ref().map(|id| id.value.as_str());
                    let (state, message) = self.unknown_operation(agent_id);
                    statuses.push(OperationStatus {
                        operation_id: Some(asked.operation_id),
                        state: state.into(),
                        message: Some(format!("Reconciliation: {message}")),
                        agent_id: asked.agent_id,
                        resource_provider_id: asked.resource_provider_id,
                        ..Default::default()
                    });
                }
            }
        }
        for mut status in statuses {
            // Not to be acknowledged.
            status.uuid = None;
            self.send(framework_id, events::operation_status(status));
        }
    }

    fn unknown_operation(&self, agent_id: Option<&str>) -> (OperationState, &'static str) {
        use OperationState::{
            OperationGoneByOperator, OperationRecovering, OperationUnknown, OperationUnreachable,
        };
        match agent_id {
            Some(id) if self.recovered.contains_key(id) => (
                OperationRecovering,
                "Agent is recovered but has not re-registered",
            ),
            Some(id) if self.agents.contains_key(id) => (OperationUnknown, "Operation is unknown"),
            Some(id) if self.unreachable.contains_key(id) => {
                (OperationUnreachable, "Agent is unreachable")
            }
            Some(id) if self.registry.gone.contains(id) => {
                (OperationGoneByOperator, "Agent marked gone by operator")
            }
            Some(_) => (OperationUnknown, "Both operation and agent are unknown"),
            None => (
                OperationUnknown,
                "Operation is unknown and no 'agent_id' was provided",
            ),
        }
    }

    /// An agent that registers names the operations that it knows; the others never reached it.
    pub(super) fn take_operations(
        &mut self,
        agent_id: &str,
        operations: Vec<KnownOperation>,
        finished: &BTreeSet<String>,
    ) {
        let mut named = BTreeSet::new();
        for KnownOperation {
            framework_id,
            status: Proto(status),
        } in operations
        {
            if finished.contains(&framework_id) {
                continue;
            }
            let id = status.operation_id.clone().unwrap_or_default().value;
            let key = (framework_id, id);
            named.insert(key.clone());
            let agent_id = agent_id.to_owned();
            self.operations.insert(key, Pending { agent_id, status });
        }
        let lost: Vec<(String, String)> = self
            .operations
            .iter()
            .filter(|(key, known)| known.agent_id == agent_id && !named.contains(*key))
            .map(|(key, _)| key.clone())
            .collect();
        for key in lost {
            let Some(known) = self.operations.remove(&key) else {
                continue;
            };
            let status = OperationStatus {
                state: OperationState::OperationDropped.into(),
                uuid: None,
                ..known.status
            };
            self.send(&key.0, events::operation_status(status));
        }
    }

    /// Forgets the operations on an agent that is lost; who wants to know has to ask.
    pub(super) fn forget_operations_on(&mut self, agent_id: &str) {
        self.operations
            .retain(|_, known| known.agent_id != agent_id);
    }
}

/// The resources that an operation names.
fn resources_mut(operation: &mut Operation) -> Vec<&mut Resource> {
    let mut all = Vec::new();
    match operation.r#type() {
        Type::Reserve => {
            if let Some(reserve) = &mut operation.reserve {
                all.extend(reserve.resources.iter_mut());
            }
        }
        Type::Unreserve => {
            if let Some(unreserve) = &mut operation.unreserve {
                all.extend(unreserve.resources.iter_mut());
            }
        }
        Type::Create => {
            if let Some(create) = &mut operation.create {
                all.extend(create.volumes.iter_mut());
            }
        }
        Type::Destroy => {
            if let Some(destroy) = &mut operation.destroy {
                all.extend(destroy.volumes.iter_mut());
            }
        }
        Type::Unknown
        | Type::Launch
        | Type::LaunchGroup
        | Type::GrowVolume
        | Type::ShrinkVolume
        | Type::CreateDisk
        | Type::DestroyDisk => {}
    }
    all
}
