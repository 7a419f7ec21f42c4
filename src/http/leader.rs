//! Passing requests on to the scheduler that leads.
//!
//! A scheduler that follows knows nothing of the clusters. Whatever is asked of it about them goes to the leader as it
//! is, and the answer comes back as it is, so that clients may ask any of the schedulers.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, Uri, header, uri},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::{sync::watch, time::timeout};
use tracing::debug;

use super::{errors::ApiError, patience::LONGEST_WAIT, port::SchedulerPort};

/// How long a connection to the leader may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// How long the leader's answer may take: the longest wait for a change that a client may ask for, and then what a
/// change itself may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(LONGEST_WAIT.as_secs() + 35);

/// Marks what was passed on, by whom. Leaders change; without it two schedulers that each hold the other one for the
/// leader would pass a request to and fro.
const PASSED_ON_BY: HeaderName = HeaderName::from_static("cotton-passed-on-by");

/// What every scheduler answers itself: about its own process, and the binary that it serves to agents.
const OWN_PATHS: [&str; 3] = ["/health", "/metrics", "/vars.json"];
const OWN_BINARY: &str = "/executor/";

/// What belongs to one connection and not to the request (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The way to the leader. Clones share it.
#[derive(Clone)]
pub struct ToLeader {
    own: HeaderValue,
    address: Arc<watch::Sender<Option<String>>>,
    client: Client<HttpConnector, Body>,
}

impl ToLeader {
    /// Of the scheduler at `own` (`host:port`), which follows nobody yet.
    pub fn new(own: String) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_DEADLINE));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(20))
            .build(connector);
        Self {
            // An address that is no header value marks what is passed on all the same.
            own: HeaderValue::try_from(own).unwrap_or(HeaderValue::from_static("a follower")),
            address: Arc::new(watch::Sender::new(None)),
            client,
        }
    }

    /// From now on the scheduler at this address leads; `None`: there is no other one to ask.
    pub fn follow(&self, leader: Option<String>) {
        self.address.send_replace(leader);
    }

    async fn pass_on(&self, leader: &str, mut request: Request) -> Result<Response, ApiError> {
        let path = request.uri().path_and_query().cloned();
        let uri = Uri::builder()
            .scheme(uri::Scheme::HTTP)
            .authority(leader)
            .path_and_query(path.unwrap_or(uri::PathAndQuery::from_static("/")))
            .build();
        let unreached = || ApiError::LeaderUnreached(leader.to_owned());
        *request.uri_mut() = uri.map_err(|_| unreached())?;
        let headers = request.headers_mut();
        for name in HOP_BY_HOP {
            headers.remove(name);
        }
        headers.insert(PASSED_ON_BY, self.own.clone());
        let answer = match timeout(ANSWER_DEADLINE, self.client.request(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) if error.is_connect() => {
                debug!(leader, %error, "pass a request on to the leader");
                return Err(unreached());
            }
            Ok(Err(error)) => {
                debug!(leader, %error, "pass a request on to the leader");
                return Err(ApiError::Unanswered);
            }
            Err(_) => return Err(ApiError::Unanswered),
        };
        let mut answer = answer.map(Body::new);
        for name in HOP_BY_HOP {
            answer.headers_mut().remove(name);
        }
        Ok(answer)
    }
}

/// Passes a request on if another scheduler leads; a layer of the router.
pub(super) async fn pass_on(
    State(port): State<SchedulerPort>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    if OWN_PATHS.contains(&path) || path.starts_with(OWN_BINARY) {
        return next.run(request).await;
    }
    let leader = port.leader.address.borrow().clone();
    match leader {
        None => next.run(request).await,
        // Whoever passed it on takes this one for the leader, which it is not (any more).
        Some(_) if request.headers().contains_key(PASSED_ON_BY) => {
            ApiError::Stopping.into_response()
        }
        Some(leader) => {
            let answer = port.leader.pass_on(&leader, request).await;
            answer.unwrap_or_else(ApiError::into_response)
        }
    }
}
