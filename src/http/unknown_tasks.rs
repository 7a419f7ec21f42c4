//! Tasks that no record explains.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};

use super::{errors::ApiError, port::SchedulerPort};
use crate::cluster::unknown_task::{UnknownList, UnknownTask};

/// The answer to `GET /unknown-tasks`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UnknownTasksAnswer {
    /// The tasks, by id, a thousand at the most.
    pub unknown_tasks: Vec<UnknownTask>,
    /// How many more there are, if there are.
    #[serde(default, skip_serializing_if = "crate::cluster::is_default")]
    pub more: usize,
}

/// `GET /unknown-tasks`
pub(super) async fn list(
    State(port): State<SchedulerPort>,
) -> Result<Json<UnknownTasksAnswer>, ApiError> {
    let UnknownList { tasks, more } = UnknownList::clone(&port.clusters()?.unknown_tasks);
    let unknown_tasks = tasks;
    Ok(Json(UnknownTasksAnswer {
        unknown_tasks,
        more,
    }))
}
