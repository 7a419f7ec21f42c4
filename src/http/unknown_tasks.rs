//! Tasks that no record explains.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};

use super::{errors::ApiError, port::SchedulerPort};
use crate::cluster::unknown_task::UnknownTask;

/// The answer to `GET /unknown-tasks`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UnknownTasksAnswer {
    /// The tasks, by id.
    pub unknown_tasks: Vec<UnknownTask>,
}

/// `GET /unknown-tasks`
pub(super) async fn list(
    State(port): State<SchedulerPort>,
) -> Result<Json<UnknownTasksAnswer>, ApiError> {
    let unknown_tasks = port.clusters()?.unknown_tasks.to_vec();
    Ok(Json(UnknownTasksAnswer { unknown_tasks }))
}
