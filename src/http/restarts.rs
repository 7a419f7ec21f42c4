//! A member that is to be restarted.

use axum::{
    Json,
    extract::{Path, Request, State, rejection::PathRejection},
};
use serde::{Deserialize, Serialize};

use super::{
    changes::read_member,
    clusters::{known_name, name_in},
    errors::ApiError,
    forms::Form,
    port::{ApiRequest, SchedulerPort},
};
use crate::cluster::{
    change::read_yes_or_no,
    id::{MemberId, TaskId},
    spec::Fault,
};

/// The form fields of a restart.
const RESTART_FIELDS: &[&str] = &["password", "member", "force"];

/// The answer to a restart.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RestartAnswer {
    /// Where clients find master and slaves.
    pub cluster_url: String,
    /// The member.
    pub member: MemberId,
    /// The task that is to end. The restart is over when the member has another one.
    pub task_id: TaskId,
    /// What it means for clients, as a sentence.
    pub note: String,
}

/// `POST /clusters/<name>/restart`
pub(super) async fn restart(
    State(port): State<SchedulerPort>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<RestartAnswer>, ApiError> {
    let name = known_name(name_in(path)?)?;
    let mut form = Form::read(request).await?;
    let password = form.take_secret("password");
    let member = read_member("member", form.take("member").as_deref());
    let member = member.and_then(|member| {
        let missing = "member is missing: give the number of the member that is to be restarted";
        member.ok_or_else(|| Fault::new("member", missing))
    });
    let force = read_yes_or_no("force", form.take("force"));
    let force = force.map_err(|detail| Fault::new("force", detail));
    let mut faults = form.into_faults(RESTART_FIELDS);
    let (member, force) = match (member, force) {
        (Ok(member), Ok(force)) if faults.is_empty() => (member, force),
        (member, force) => {
            faults.extend(member.err());
            faults.extend(force.err());
            return Err(ApiError::Invalid(faults));
        }
    };
    let restarting = port
        .ask(|reply| ApiRequest::Restart {
            name,
            password,
            member,
            force,
            reply,
        })
        .await?;
    Ok(Json(RestartAnswer {
        cluster_url: restarting.cluster_url,
        member: restarting.member,
        task_id: restarting.task_id,
        note: restarting.note,
    }))
}
