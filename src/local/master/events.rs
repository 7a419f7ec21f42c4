//! Events for schedulers, each made in one place. Pure.

use crate::mesos::v1::{
    AgentId, ExecutorId, FrameworkId, InverseOffer, MasterInfo, Offer, OfferId, OperationId,
    OperationState, OperationStatus, TaskId, TaskState, TaskStatus, scheduler::Event,
    scheduler::event, task_status,
};
use crate::time::Timestamp;

pub(super) fn subscribed(framework_id: &str, heartbeat_seconds: f64, master: &MasterInfo) -> Event {
    Event {
        r#type: Some(event::Type::Subscribed.into()),
        subscribed: Some(event::Subscribed {
            framework_id: FrameworkId {
                value: framework_id.to_owned(),
            },
            heartbeat_interval_seconds: Some(heartbeat_seconds),
            master_info: Some(master.clone()),
        }),
        ..Default::default()
    }
}

pub(super) fn heartbeat() -> Event {
    Event {
        r#type: Some(event::Type::Heartbeat.into()),
        ..Default::default()
    }
}

pub(super) fn error(message: impl Into<String>) -> Event {
    Event {
        r#type: Some(event::Type::Error.into()),
        error: Some(event::Error {
            message: message.into(),
        }),
        ..Default::default()
    }
}

pub(super) fn offers(offers: Vec<Offer>) -> Event {
    Event {
        r#type: Some(event::Type::Offers.into()),
        offers: Some(event::Offers { offers }),
        ..Default::default()
    }
}

pub(super) fn rescind(offer_id: &str) -> Event {
    Event {
        r#type: Some(event::Type::Rescind.into()),
        rescind: Some(event::Rescind {
            offer_id: OfferId {
                value: offer_id.to_owned(),
            },
        }),
        ..Default::default()
    }
}

pub(super) fn inverse_offers(inverse_offers: Vec<InverseOffer>) -> Event {
    Event {
        r#type: Some(event::Type::InverseOffers.into()),
        inverse_offers: Some(event::InverseOffers { inverse_offers }),
        ..Default::default()
    }
}

pub(super) fn rescind_inverse_offer(offer_id: &str) -> Event {
    Event {
        r#type: Some(event::Type::RescindInverseOffer.into()),
        rescind_inverse_offer: Some(event::RescindInverseOffer {
            inverse_offer_id: OfferId {
                value: offer_id.to_owned(),
            },
        }),
        ..Default::default()
    }
}

pub(super) fn update(status: TaskStatus) -> Event {
    Event {
        r#type: Some(event::Type::Update.into()),
        update: Some(event::Update { status }),
        ..Default::default()
    }
}

pub(super) fn operation(id: OperationId, state: OperationState, message: &str) -> Event {
    let status = OperationStatus {
        operation_id: Some(id),
        state: state.into(),
        message: Some(message.to_owned()),
        ..Default::default()
    };
    operation_status(status)
}

pub(super) fn operation_status(status: OperationStatus) -> Event {
    Event {
        r#type: Some(event::Type::UpdateOperationStatus.into()),
        update_operation_status: Some(event::UpdateOperationStatus { status }),
        ..Default::default()
    }
}

pub(super) fn message(agent_id: &str, executor_id: &str, data: Vec<u8>) -> Event {
    Event {
        r#type: Some(event::Type::Message.into()),
        message: Some(event::Message {
            agent_id: AgentId {
                value: agent_id.to_owned(),
            },
            executor_id: ExecutorId {
                value: executor_id.to_owned(),
            },
            data,
        }),
        ..Default::default()
    }
}

pub(super) fn failure(agent_id: &str, executor: Option<(&str, i32)>) -> Event {
    Event {
        r#type: Some(event::Type::Failure.into()),
        failure: Some(event::Failure {
            agent_id: Some(AgentId {
                value: agent_id.to_owned(),
            }),
            executor_id: executor.map(|(id, _)| ExecutorId {
                value: id.to_owned(),
            }),
            status: executor.map(|(_, status)| status),
        }),
        ..Default::default()
    }
}

/// A status that the master itself gives: without uuid, not to be acknowledged.
pub(super) fn master_status(
    task_id: &str,
    agent_id: Option<&str>,
    state: TaskState,
    reason: task_status::Reason,
    message: impl Into<String>,
    now: Timestamp,
) -> TaskStatus {
    TaskStatus {
        task_id: TaskId {
            value: task_id.to_owned(),
        },
        state: state.into(),
        message: Some(message.into()),
        source: Some(task_status::Source::Master.into()),
        reason: Some(reason.into()),
        agent_id: agent_id.map(|value| AgentId {
            value: value.to_owned(),
        }),
        timestamp: Some(seconds(now)),
        ..Default::default()
    }
}

/// A point in time as statuses carry it.
#[allow(
    clippy::cast_precision_loss,
    reason = "milliseconds since 1970 fit into a double"
)]
pub fn seconds(at: Timestamp) -> f64 {
    at.as_millis() as f64 / 1000.0
}
