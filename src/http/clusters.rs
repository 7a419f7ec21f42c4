//! Clusters: create, delete, list, show.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, Request, State, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use super::{
    backups,
    errors::ApiError,
    forms::Form,
    patience,
    port::{ApiRequest, SchedulerPort},
};
use crate::cluster::{
    id::ClusterName,
    spec::{ClusterSpec, CreateRequest},
    view::ClusterView,
};

/// The form fields of a creation.
const CREATE_FIELDS: &[&str] = &[
    "cluster_user",
    "num_nodes",
    "size",
    "durability",
    "backup_id",
    "restore_to",
    "backup_schedule",
    "backup_keep",
    "replace_after",
    "my_cnf",
    "package",
    "cluster_password",
];

/// The form fields of a deletion.
const DELETE_FIELDS: &[&str] = &["password"];

/// The answer to a creation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CreateAnswer {
    /// The password of the cluster's user.
    pub cluster_password: String,
    /// Where clients find master and slaves.
    pub cluster_url: String,
}

/// The answer to a deletion.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeleteAnswer {
    /// What is gone once the cluster is.
    pub cluster_url: String,
}

/// The answer to `GET /clusters`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListAnswer<C = ClusterView> {
    /// The clusters, by name.
    pub clusters: Vec<C>,
}

/// `POST /clusters/<name>`
pub(super) async fn create(
    State(port): State<SchedulerPort>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<CreateAnswer>, ApiError> {
    let name = name_in(path)?;
    let mut form = Form::read(request).await?;
    let backup_id = form.take("backup_id");
    let restore_to = form.take("restore_to");
    let request = CreateRequest {
        name,
        cluster_user: form.take("cluster_user"),
        num_nodes: form.take("num_nodes"),
        size: form.take("size"),
        durability: form.take("durability"),
        backup_schedule: form.take("backup_schedule"),
        backup_keep: form.take("backup_keep"),
        replace_after: form.take("replace_after"),
        my_cnf: form.take("my_cnf"),
        package: form.take("package"),
        cluster_password: form.take_secret("cluster_password"),
    };
    let rules = [
        ("backup_schedule", request.backup_schedule.is_some()),
        ("backup_keep", request.backup_keep.is_some()),
    ];
    let mut faults = form.into_faults(CREATE_FIELDS);
    faults.extend(backups::rules_without_store(&port, rules));
    let without_store = backups::without_store(&port, backup_id.as_ref());
    let point = match backups::point(backup_id.as_ref(), restore_to) {
        Ok(point) => point,
        Err(fault) => {
            faults.push(fault);
            None
        }
    };
    let (spec, password) = match ClusterSpec::check(request, &port.rules) {
        Ok(checked) if faults.is_empty() && without_store.is_none() => checked,
        checked => {
            faults.extend(checked.err().unwrap_or_default());
            faults.extend(without_store);
            return Err(ApiError::Invalid(faults));
        }
    };
    let restore = backups::restore(&port, backup_id, point, &spec).await?;
    let created = port
        .ask(|reply| ApiRequest::Create {
            spec,
            password,
            restore,
            reply,
        })
        .await?;
    Ok(Json(CreateAnswer {
        cluster_password: created.cluster_password.expose().to_owned(),
        cluster_url: created.cluster_url,
    }))
}

/// `DELETE /clusters/<name>`
pub(super) async fn delete(
    State(port): State<SchedulerPort>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<DeleteAnswer>, ApiError> {
    let name = known_name(name_in(path)?)?;
    let mut form = Form::read(request).await?;
    let password = form.take_secret("password");
    let faults = form.into_faults(DELETE_FIELDS);
    if !faults.is_empty() {
        return Err(ApiError::Invalid(faults));
    }
    let deleted = port
        .ask(|reply| ApiRequest::Delete {
            name,
            password,
            reply,
        })
        .await?;
    Ok(Json(DeleteAnswer {
        cluster_url: deleted.cluster_url,
    }))
}

/// `GET /clusters`
pub(super) async fn list(State(port): State<SchedulerPort>) -> Result<Response, ApiError> {
    let views = port.clusters()?;
    let clusters = views
        .clusters
        .values()
        .map(Arc::as_ref)
        .collect::<Vec<&ClusterView>>();
    Ok(Json(ListAnswer { clusters }).into_response())
}

/// `GET /clusters/<name>`: at once, or when it differs from what the client knows; see [`patience`].
pub(super) async fn show(
    State(port): State<SchedulerPort>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let name = known_name(name_in(path)?)?;
    let wish = patience::wish(&headers);
    let place = port.patient.try_acquire().ok().filter(|_| !wish.is_zero());
    let wait = place.as_ref().map_or(Duration::ZERO, |_| wish);
    let deadline = Instant::now() + wait;
    let mut views = port.views.clone();
    let mut known: Option<(Arc<ClusterView>, HeaderValue)> = None;
    loop {
        let view = {
            let now = views.borrow_and_update();
            if !now.loaded {
                return Err(ApiError::Starting);
            }
            now.clusters.get(&name).cloned()
        };
        let view = view.ok_or_else(|| ApiError::UnknownCluster(name.to_string()))?;
        let tag = match known {
            // It was another cluster that changed.
            Some((same, tag)) if Arc::ptr_eq(&same, &view) => tag,
            _ => {
                let body = serde_json::to_vec(&*view)
                    .expect("a view is made of texts, numbers and lists, which JSON can hold");
                let tag = patience::tag_of(&body);
                if !patience::knows(&headers, &tag) {
                    return Ok(shown(tag, body));
                }
                tag
            }
        };
        // No change comes any more when the core has ended.
        let changed = timeout_at(deadline, views.changed()).await;
        if !matches!(changed, Ok(Ok(()))) {
            return Ok(unchanged(tag, wait));
        }
        known = Some((view, tag));
    }
}

fn shown(tag: HeaderValue, body: Vec<u8>) -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json), (header::ETAG, tag)], body).into_response()
}

/// There is nothing new, after `wait`.
fn unchanged(tag: HeaderValue, wait: Duration) -> Response {
    let mut answer = (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response();
    if !wait.is_zero() {
        let applied = HeaderValue::try_from(format!("wait={}", wait.as_secs()));
        let headers = answer.headers_mut();
        headers.extend(applied.map(|applied| (patience::PREFERENCE_APPLIED, applied)));
    }
    answer
}

pub(super) fn name_in(path: Result<Path<String>, PathRejection>) -> Result<String, ApiError> {
    path.map(|Path(name)| name)
        .map_err(|error| ApiError::UnknownPath(error.body_text()))
}

/// A name that no cluster can have is that of an unknown cluster.
pub(super) fn known_name(text: String) -> Result<ClusterName, ApiError> {
    text.parse()
        .map_err(|_| ApiError::UnknownCluster(text.chars().take(64).collect()))
}
