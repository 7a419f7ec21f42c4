//! The table of routes, and what holds for all of them.

use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, Method, header},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};

use super::{
    backups, changes, clusters, errors::ApiError, executor_binary, explain, leader, metrics, page,
    port::SchedulerPort, restarts, slots, unknown_tasks,
};

/// All that the scheduler serves.
pub fn router(port: SchedulerPort) -> Router {
    Router::new()
        .route("/", get(page::index))
        .route("/clusters", get(clusters::list))
        .route(
            "/clusters/{name}",
            get(clusters::show)
                .post(clusters::create)
                .put(changes::scale)
                .patch(changes::change)
                .delete(clusters::delete),
        )
        .route("/clusters/{name}/switchover", post(changes::switchover))
        .route("/clusters/{name}/undelete", post(changes::undelete))
        .route("/clusters/{name}/pause", post(changes::pause))
        .route("/clusters/{name}/resume", post(changes::resume))
        .route(
            "/clusters/{name}/backups",
            get(backups::list).post(backups::make),
        )
        .route("/clusters/{name}/backups/{time}", delete(backups::remove))
        .route("/clusters/{name}/restart", post(restarts::restart))
        .route("/clusters/{name}/replace", post(changes::replace))
        .route("/clusters/{name}/failover", post(changes::failover))
        .route("/clusters/{name}/explain", get(explain::explain))
        .route("/clusters/{name}/failovers", get(explain::failovers))
        .route("/slots", get(slots::list))
        .route("/slots/reclaim", post(slots::reclaim))
        .route("/unknown-tasks", get(unknown_tasks::list))
        .route("/executor/{name}", get(executor_binary::serve))
        .route("/vars.json", get(metrics::vars))
        .route("/metrics", get(metrics::prometheus))
        .route("/health", get(async || "OK\n"))
        .fallback(unknown_path)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(port.clone(), leader::pass_on))
        .layer(from_fn(refuse_cross_site))
        .layer(from_fn(add_headers))
        .with_state(port)
}

async fn unknown_path(request: Request) -> ApiError {
    ApiError::UnknownPath(shortened(request.uri().path()))
}

async fn method_not_allowed(request: Request) -> ApiError {
    ApiError::MethodNotAllowed {
        method: request.method().to_string(),
        path: shortened(request.uri().path()),
    }
}

/// A page of another site can make a visitor's browser post a form here, from inside the network that this
/// server trusts. Browsers say so in `Sec-Fetch-Site` (Fetch Metadata); scripts do not send it.
async fn refuse_cross_site(request: Request, next: Next) -> Response {
    let reads = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS
    );
    let site = request
        .headers()
        .get("sec-fetch-site")
        .map(HeaderValue::as_bytes);
    match site {
        Some(b"cross-site" | b"same-site") if !reads => ApiError::CrossSite.into_response(),
        _ => next.run(request).await,
    }
}

async fn add_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

fn shortened(path: &str) -> String {
    path.chars().take(200).collect()
}
