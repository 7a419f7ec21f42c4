//! Refusals: what a client is told, as `application/problem+json` (RFC 9457).

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use crate::cluster::{id::ClusterName, spec::Fault};

/// Why a request is not carried out. Each text is a sentence that a person can act on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// Parameters are wrong.
    #[error("{}", sentences(.0))]
    Invalid(Vec<Fault>),
    /// The body cannot be read as a form.
    #[error("the form cannot be read: {0}")]
    MalformedForm(String),
    /// A change without a password.
    #[error("the form field password is missing: give the password of the cluster's user")]
    PasswordMissing,
    /// Not the cluster's password.
    #[error("the password is not that of the cluster's user")]
    PasswordWrong,
    /// A slot is to be given up without a password.
    #[error(
        "the form field password is missing: no cluster's owner gives slots up, so give the password of the account of --admin-keypath"
    )]
    AdministratorMissing,
    /// Not the administrator's password.
    #[error("the password is not that of the account of --admin-keypath")]
    AdministratorWrong,
    /// A browser sends it on behalf of another site's page.
    #[error("changes are not accepted from pages of other sites")]
    CrossSite,
    /// No such cluster.
    #[error("there is no cluster {0:?}")]
    UnknownCluster(String),
    /// No such backup.
    #[error(
        "the backup store has no backup {0:?}; GET /clusters/<name>/backups lists those that it has"
    )]
    UnknownBackup(String),
    /// No such deleted cluster.
    #[error(
        "nothing is kept of a deleted cluster {0}: a deleted cluster is kept for the time of --keep-deleted, and only if its members had \
         volumes; GET /slots lists what is kept"
    )]
    NothingKept(ClusterName),
    /// No such slot.
    #[error("nothing is known of a slot {0:?}; GET /slots lists all that were seen")]
    UnknownSlot(String),
    /// No such page.
    #[error(
        "there is nothing at {0}; see GET /clusters, POST /clusters/<name> and DELETE /clusters/<name>"
    )]
    UnknownPath(String),
    /// The path takes other methods.
    #[error("{method} is not possible at {path}")]
    MethodNotAllowed {
        /// What was tried.
        method: String,
        /// Where.
        path: String,
    },
    /// The body did not come in time.
    #[error("the request's body did not arrive within {seconds} s")]
    SlowBody {
        /// How long it was waited for.
        seconds: u64,
    },
    /// The name is taken.
    #[error(
        "there is already a cluster {0} with other settings; choose another name, or delete it first"
    )]
    Exists(ClusterName),
    /// The name was given free, but its last tasks are still there.
    #[error(
        "the cluster {0} is still being deleted; its name is free again as soon as its discovery node is gone"
    )]
    BeingDeleted(ClusterName),
    /// The body is larger than any form needs to be.
    #[error("the request's body is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// Not a form.
    #[error("the body must be multipart/form-data or application/x-www-form-urlencoded, not {0:?}")]
    NotAForm(String),
    /// The stored state was not read yet.
    #[error(
        "the scheduler has not read its state from ZooKeeper yet, so it cannot say anything of clusters; try again"
    )]
    Starting,
    /// No connection to Mesos.
    #[error("the scheduler is not registered with a Mesos master at the moment; try again later")]
    NotRegistered,
    /// Not as things are: a sentence that says why, and what to do.
    #[error("{0}")]
    NotPossible(String),
    /// The backup store does not answer.
    #[error("{0}; nothing was done, try again when the store answers")]
    Store(String),
    /// It may lose data, and the request does not accept that.
    #[error(
        "this failover may lose acknowledged writes, so it has to be asked for in so many words, with accept_data_loss=true ({})",
        .0.join("; ")
    )]
    LossNotAccepted(Vec<String>),
    /// The state cannot be stored.
    #[error("the request could not be stored ({0}), so nothing was done; try again later")]
    NotStored(String),
    /// Too many changes wait.
    #[error(
        "too many requests are waiting for the scheduler, so nothing was done; try again later"
    )]
    Overloaded,
    /// The scheduler is ending, or another one leads.
    #[error("this scheduler is stopping or does not lead at the moment; try again")]
    Stopping,
    /// Another scheduler leads, and is not there.
    #[error(
        "the scheduler that leads, {0}, cannot be reached from here, so nothing was done; another one takes over soon if it is lost, so try again"
    )]
    LeaderUnreached(String),
    /// No answer in time.
    #[error(
        "the scheduler has not answered in time; the request may have been accepted, and it is safe to repeat it"
    )]
    Unanswered,
}

/// A refusal as it is sent (RFC 9457, section 3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Names the kind of problem for programs.
    #[serde(rename = "type")]
    pub kind: String,
    /// Names the kind of problem for people.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong and what to do.
    pub detail: String,
    /// Each fault, where parameters are wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Fault>,
}

impl ApiError {
    /// The HTTP status, and the name of the problem.
    fn kind(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid-parameters"),
            Self::MalformedForm(_) => (StatusCode::BAD_REQUEST, "malformed-form"),
            Self::AdministratorMissing => (StatusCode::UNAUTHORIZED, "password-missing"),
            Self::AdministratorWrong => (StatusCode::FORBIDDEN, "password-wrong"),
            Self::PasswordMissing => (StatusCode::UNAUTHORIZED, "password-missing"),
            Self::PasswordWrong => (StatusCode::FORBIDDEN, "password-wrong"),
            Self::CrossSite => (StatusCode::FORBIDDEN, "cross-site"),
            Self::UnknownCluster(_) => (StatusCode::NOT_FOUND, "unknown-cluster"),
            Self::UnknownBackup(_) => (StatusCode::NOT_FOUND, "unknown-backup"),
            Self::NothingKept(_) => (StatusCode::NOT_FOUND, "nothing-kept"),
            Self::UnknownSlot(_) => (StatusCode::NOT_FOUND, "unknown-slot"),
            Self::UnknownPath(_) => (StatusCode::NOT_FOUND, "unknown-path"),
            Self::MethodNotAllowed { .. } => (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed"),
            Self::SlowBody { .. } => (StatusCode::REQUEST_TIMEOUT, "slow-body"),
            Self::Exists(_) => (StatusCode::CONFLICT, "cluster-exists"),
            Self::BeingDeleted(_) => (StatusCode::CONFLICT, "cluster-being-deleted"),
            Self::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large"),
            Self::NotAForm(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-a-form"),
            Self::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
            Self::NotRegistered => (StatusCode::SERVICE_UNAVAILABLE, "not-registered"),
            Self::NotPossible(_) => (StatusCode::CONFLICT, "not-possible"),
            Self::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "backup-store"),
            Self::LossNotAccepted(_) => (StatusCode::CONFLICT, "data-loss-not-accepted"),
            Self::NotStored(_) => (StatusCode::SERVICE_UNAVAILABLE, "not-stored"),
            Self::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
            Self::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
            Self::LeaderUnreached(_) => (StatusCode::SERVICE_UNAVAILABLE, "leader-unreached"),
            Self::Unanswered => (StatusCode::SERVICE_UNAVAILABLE, "unanswered"),
        }
    }

    /// The refusal as it is sent.
    pub fn problem(&self) -> Problem {
        let (status, kind) = self.kind();
        Problem {
            kind: format!("urn:cotton:problem:{kind}"),
            title: kind.replace('-', " "),
            status: status.as_u16(),
            detail: self.to_string(),
            errors: match self {
                Self::Invalid(faults) => faults.clone(),
                _ => Vec::new(),
            },
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, _) = self.kind();
        let mut response = (status, Json(self.problem())).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

fn sentences(faults: &[Fault]) -> String {
    let sentences: Vec<_> = faults.iter().map(|fault| fault.detail.as_str()).collect();
    sentences.join("; ")
}
