//! The calls of the scheduler API, each made by one function. The client fills the framework's id in.
//!
//! Source: the Mesos page "Scheduler HTTP API", section "Calls".

use std::time::Duration;

use super::v1;
use super::v1::scheduler::{Call, call};

fn call_of(kind: call::Type) -> Call {
    Call {
        r#type: Some(kind as i32),
        ..Call::default()
    }
}

fn filters(refuse: Duration) -> v1::Filters {
    v1::Filters {
        refuse_seconds: Some(refuse.as_secs_f64()),
    }
}

fn offer_ids(offers: impl IntoIterator<Item = impl Into<String>>) -> Vec<v1::OfferId> {
    let id = |value: String| v1::OfferId { value };
    offers.into_iter().map(Into::into).map(id).collect()
}

fn agent_id(value: impl Into<String>) -> v1::AgentId {
    v1::AgentId {
        value: value.into(),
    }
}

fn task_id(value: impl Into<String>) -> v1::TaskId {
    v1::TaskId {
        value: value.into(),
    }
}

/// ACCEPT: use offers, all of one agent, for operations that are carried out in order. What is left
/// over is not offered again for `refuse`.
#[must_use]
pub fn accept(
    offers: impl IntoIterator<Item = impl Into<String>>,
    operations: Vec<v1::offer::Operation>,
    refuse: Duration,
) -> Call {
    Call {
        accept: Some(call::Accept {
            offer_ids: offer_ids(offers),
            operations,
            filters: Some(filters(refuse)),
        }),
        ..call_of(call::Type::Accept)
    }
}

/// The LAUNCH operation for [`accept`].
#[must_use]
pub fn launch(tasks: Vec<v1::TaskInfo>) -> v1::offer::Operation {
    v1::offer::Operation {
        r#type: Some(v1::offer::operation::Type::Launch as i32),
        launch: Some(v1::offer::operation::Launch { task_infos: tasks }),
        ..Default::default()
    }
}

/// DECLINE: give offers back; their resources are not offered again for `refuse`.
#[must_use]
pub fn decline(offers: impl IntoIterator<Item = impl Into<String>>, refuse: Duration) -> Call {
    Call {
        decline: Some(call::Decline {
            offer_ids: offer_ids(offers),
            filters: Some(filters(refuse)),
        }),
        ..call_of(call::Type::Decline)
    }
}

/// KILL: end a task. It may get lost: repeat it until an update says that the task has ended.
/// Without `grace` the task's own kill policy holds.
#[must_use]
pub fn kill(task: impl Into<String>, agent: Option<&str>, grace: Option<Duration>) -> Call {
    let policy = |grace: Duration| v1::KillPolicy {
        grace_period: Some(v1::DurationInfo {
            nanoseconds: i64::try_from(grace.as_nanos()).unwrap_or(i64::MAX),
        }),
    };
    Call {
        kill: Some(call::Kill {
            task_id: task_id(task),
            agent_id: agent.map(agent_id),
            kill_policy: grace.map(policy),
        }),
        ..call_of(call::Type::Kill)
    }
}

/// ACKNOWLEDGE: an update was recorded and need not be sent again. `None` for an update without
/// uuid or agent: those come from the master and must not be acknowledged.
#[must_use]
pub fn acknowledge(status: &v1::TaskStatus) -> Option<Call> {
    let uuid = status.uuid.clone().filter(|uuid| !uuid.is_empty())?;
    let acknowledge = call::Acknowledge {
        agent_id: status.agent_id.clone()?,
        task_id: status.task_id.clone(),
        uuid,
    };
    Some(Call {
        acknowledge: Some(acknowledge),
        ..call_of(call::Type::Acknowledge)
    })
}

/// RECONCILE: ask for the state of tasks, each with its agent where that is known. Without tasks the
/// master tells of all that it knows. After a failover of the master there may be no answer until
/// the agents are back: ask again.
#[must_use]
pub fn reconcile(tasks: impl IntoIterator<Item = (String, Option<String>)>) -> Call {
    let task = |(task, agent): (String, Option<String>)| call::reconcile::Task {
        task_id: task_id(task),
        agent_id: agent.map(agent_id),
    };
    Call {
        reconcile: Some(call::Reconcile {
            tasks: tasks.into_iter().map(task).collect(),
        }),
        ..call_of(call::Type::Reconcile)
    }
}

/// SUPPRESS: no offers until REVIVE, for all roles of the framework.
#[must_use]
pub fn suppress() -> Call {
    Call {
        suppress: Some(call::Suppress::default()),
        ..call_of(call::Type::Suppress)
    }
}

/// REVIVE: take back SUPPRESS and every filter that DECLINE and ACCEPT have set.
#[must_use]
pub fn revive() -> Call {
    Call {
        revive: Some(call::Revive::default()),
        ..call_of(call::Type::Revive)
    }
}

/// SHUTDOWN: end an executor and all its tasks.
#[must_use]
pub fn shutdown(executor: impl Into<String>, agent: impl Into<String>) -> Call {
    let shutdown = call::Shutdown {
        executor_id: v1::ExecutorId {
            value: executor.into(),
        },
        agent_id: agent_id(agent),
    };
    Call {
        shutdown: Some(shutdown),
        ..call_of(call::Type::Shutdown)
    }
}

/// TEARDOWN: end the framework, all its executors and tasks. Its id can never be used again.
#[must_use]
pub fn teardown() -> Call {
    call_of(call::Type::Teardown)
}

/// MESSAGE: bytes for an executor. May get lost.
#[must_use]
pub fn message(executor: impl Into<String>, agent: impl Into<String>, data: Vec<u8>) -> Call {
    let message = call::Message {
        agent_id: agent_id(agent),
        executor_id: v1::ExecutorId {
            value: executor.into(),
        },
        data,
    };
    Call {
        message: Some(message),
        ..call_of(call::Type::Message)
    }
}

/// ACCEPT_INVERSE_OFFERS: the agents may be taken away at the announced time; asked again after `refuse`.
#[must_use]
pub fn accept_inverse(
    offers: impl IntoIterator<Item = impl Into<String>>,
    refuse: Duration,
) -> Call {
    let accept = call::AcceptInverseOffers {
        inverse_offer_ids: offer_ids(offers),
        filters: Some(filters(refuse)),
    };
    Call {
        accept_inverse_offers: Some(accept),
        ..call_of(call::Type::AcceptInverseOffers)
    }
}

/// DECLINE_INVERSE_OFFERS: the agents are still needed; asked again after `refuse`.
#[must_use]
pub fn decline_inverse(
    offers: impl IntoIterator<Item = impl Into<String>>,
    refuse: Duration,
) -> Call {
    let decline = call::DeclineInverseOffers {
        inverse_offer_ids: offer_ids(offers),
        filters: Some(filters(refuse)),
    };
    Call {
        decline_inverse_offers: Some(decline),
        ..call_of(call::Type::DeclineInverseOffers)
    }
}

/// ACKNOWLEDGE_OPERATION_STATUS: `None` for a status without uuid or operation id, which must not be
/// acknowledged.
#[must_use]
pub fn acknowledge_operation(status: &v1::OperationStatus) -> Option<Call> {
    let acknowledge = call::AcknowledgeOperationStatus {
        agent_id: status.agent_id.clone(),
        resource_provider_id: status.resource_provider_id.clone(),
        uuid: status.uuid.as_ref()?.value.clone(),
        operation_id: status.operation_id.clone()?,
    };
    Some(Call {
        acknowledge_operation_status: Some(acknowledge),
        ..call_of(call::Type::AcknowledgeOperationStatus)
    })
}
