//! The operator API, as far as maintenance and the life of agents and frameworks go. Pure.
//!
//! Source: the page "Operator HTTP API" of the Mesos documentation, `src/master/http.cpp`, and
//! `validation::master::call` for the sentences.

use axum::http::StatusCode;

use crate::local::http::Reply;
use crate::mesos::v1::DurationInfo;
use crate::mesos::v1::master::response::{
    self, GetHealth, GetMaintenanceSchedule, GetMaintenanceStatus,
};
use crate::mesos::v1::master::{Call, Duration, Response, call::Type};
use crate::time::Timestamp;

use super::core::Core;

/// What an operator gets.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// A status, and a sentence if it refuses.
    Reply(Reply),
    /// What was asked for.
    Response(Box<Response>),
}

/// Checks that a call has the parts that its type needs.
///
/// # Errors
///
/// The sentence that Mesos answers with.
pub fn validate(call: &Call) -> Result<(), String> {
    let (part, present) = match call.r#type.map(Type::try_from) {
        Some(Ok(Type::UpdateMaintenanceSchedule)) => (
            "update_maintenance_schedule",
            call.update_maintenance_schedule.is_some(),
        ),
        Some(Ok(Type::StartMaintenance)) => ("start_maintenance", call.start_maintenance.is_some()),
        Some(Ok(Type::StopMaintenance)) => ("stop_maintenance", call.stop_maintenance.is_some()),
        Some(Ok(Type::Teardown)) => ("teardown", call.teardown.is_some()),
        Some(Ok(Type::MarkAgentGone)) => ("mark_agent_gone", call.mark_agent_gone.is_some()),
        Some(Ok(Type::DrainAgent)) => ("drain_agent", call.drain_agent.is_some()),
        Some(Ok(Type::DeactivateAgent)) => ("deactivate_agent", call.deactivate_agent.is_some()),
        Some(Ok(Type::ReactivateAgent)) => ("reactivate_agent", call.reactivate_agent.is_some()),
        Some(Ok(_)) => return Ok(()),
        Some(Err(_)) | None => return Err("Expecting 'type' to be present".to_owned()),
    };
    match present {
        true => Ok(()),
        false => Err(format!("Expecting '{part}' to be present")),
    }
}

impl Core {
    /// Does what a valid call of an operator asks for.
    pub fn operate_master(&mut self, call: Call, now: Timestamp) -> Answer {
        let kind = call.r#type();
        tracing::info!(call = kind.as_str_name(), "operator call");
        let done = match kind {
            Type::GetHealth => {
                return answer(Response {
                    r#type: Some(response::Type::GetHealth.into()),
                    get_health: Some(GetHealth { healthy: true }),
                    ..Default::default()
                });
            }
            Type::GetMaintenanceStatus => {
                let status = self.maintenance_status();
                return answer(Response {
                    r#type: Some(response::Type::GetMaintenanceStatus.into()),
                    get_maintenance_status: Some(GetMaintenanceStatus { status }),
                    ..Default::default()
                });
            }
            Type::GetMaintenanceSchedule => {
                let schedule = self.schedule();
                return answer(Response {
                    r#type: Some(response::Type::GetMaintenanceSchedule.into()),
                    get_maintenance_schedule: Some(GetMaintenanceSchedule { schedule }),
                    ..Default::default()
                });
            }
            Type::UpdateMaintenanceSchedule => {
                let part = call.update_maintenance_schedule.unwrap_or_default();
                self.update_schedule(part.schedule, now)
            }
            Type::StartMaintenance => {
                let part = call.start_maintenance.unwrap_or_default();
                self.start_maintenance(part.machines, now)
            }
            Type::StopMaintenance => {
                let part = call.stop_maintenance.unwrap_or_default();
                self.stop_maintenance(part.machines)
            }
            Type::DrainAgent => {
                let part = call.drain_agent.unwrap_or_default();
                let (grace, gone) = (part.max_grace_period.map(info), part.mark_gone());
                self.drain(&part.agent_id.value, grace, gone, now)
            }
            Type::DeactivateAgent => {
                let part = call.deactivate_agent.unwrap_or_default();
                self.deactivate(&part.agent_id.value)
            }
            Type::ReactivateAgent => {
                let part = call.reactivate_agent.unwrap_or_default();
                self.reactivate(&part.agent_id.value)
            }
            Type::MarkAgentGone => {
                let part = call.mark_agent_gone.unwrap_or_default();
                if let Err(text) = self.mark_gone(&part.agent_id.value, now) {
                    let status = StatusCode::NOT_FOUND;
                    return Answer::Reply(Reply { status, text });
                }
                Ok(())
            }
            Type::Teardown => {
                let framework_id = call.teardown.unwrap_or_default().framework_id.value;
                if self.frameworks.contains_key(&framework_id) {
                    self.remove_framework(&framework_id);
                    self.finish_drains(now);
                    self.allocate(now);
                    Ok(())
                } else {
                    Err("No framework found with specified ID".to_owned())
                }
            }
            Type::Unknown
            | Type::GetVersion
            | Type::GetState
            | Type::GetAgents
            | Type::GetFrameworks
            | Type::GetTasks
            | Type::GetMaster
            | Type::ReserveResources
            | Type::UnreserveResources
            | Type::CreateVolumes
            | Type::DestroyVolumes => {
                return Answer::Reply(Reply {
                    status: StatusCode::NOT_IMPLEMENTED,
                    text: format!("This master does not know {}", kind.as_str_name()),
                });
            }
        };
        Answer::Reply(match done {
            Ok(()) => Reply::ok(""),
            Err(why) => Reply::bad_request(why),
        })
    }
}

fn answer(response: Response) -> Answer {
    Answer::Response(Box::new(response))
}

fn info(duration: Duration) -> DurationInfo {
    let nanoseconds = duration
        .seconds()
        .saturating_mul(1_000_000_000)
        .saturating_add(duration.nanos().into());
    DurationInfo { nanoseconds }
}
