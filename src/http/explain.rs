//! Why a cluster is as it is, and its last failovers.

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};
use serde::{Deserialize, Serialize};

use super::{clusters, errors::ApiError, port::SchedulerPort};
use crate::{
    cluster::explanation::{Explanation, FailoverView},
    time::Timestamp,
};

/// The answer to `GET /clusters/<name>/explain`. All times are in milliseconds since 1970.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExplainAnswer {
    /// The scheduler's clock, for whoever wants to say how long ago something was.
    pub now: Timestamp,
    /// The explanation.
    #[serde(flatten)]
    pub explanation: Explanation,
}

/// The answer to `GET /clusters/<name>/failovers`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FailoversAnswer {
    /// The last failovers, newest first.
    pub failovers: Vec<FailoverView>,
}

/// `GET /clusters/<name>/explain`
pub(super) async fn explain(
    State(port): State<SchedulerPort>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<ExplainAnswer>, ApiError> {
    Ok(Json(ExplainAnswer {
        now: Timestamp::now(),
        explanation: find(&port, path)?,
    }))
}

/// `GET /clusters/<name>/failovers`
pub(super) async fn failovers(
    State(port): State<SchedulerPort>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<FailoversAnswer>, ApiError> {
    let failovers = find(&port, path)?.failovers;
    Ok(Json(FailoversAnswer { failovers }))
}

fn find(
    port: &SchedulerPort,
    path: Result<Path<String>, PathRejection>,
) -> Result<Explanation, ApiError> {
    let name = clusters::known_name(clusters::name_in(path)?)?;
    let views = port.clusters()?;
    let explanation = views.explanations.get(&name);
    let explanation = explanation.ok_or_else(|| ApiError::UnknownCluster(name.to_string()))?;
    Ok(explanation.as_ref().clone())
}
