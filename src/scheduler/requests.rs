//! Requests of the API: accepted, which means recorded, or refused.

use super::{
    action::{Action, Refusal, Reply},
    event::{Ask, CreateRequest, Reclaim, RequestToken, UndeleteRequest},
    reclaim,
    state::{Cluster, State},
    undelete, wishes,
};
use crate::{
    cluster::{backup::Restore, control::ClusterUser, id::ClusterName, record::ClusterRecord},
    secret::Secret,
    time::Timestamp,
};

/// A request of the API that waits for its decision.
#[derive(Debug)]
pub enum Request {
    /// See [`Event::Create`](super::event::Event::Create).
    Create(Box<CreateRequest>),
    /// See [`Event::Delete`](super::event::Event::Delete).
    Delete {
        /// Whom to answer.
        token: RequestToken,
        /// The cluster.
        name: ClusterName,
        /// The given password.
        password: Option<Secret>,
    },
    /// See [`Event::Ask`](super::event::Event::Ask).
    Ask(Box<Ask>),
    /// See [`Event::Undelete`](super::event::Event::Undelete).
    Undelete(Box<UndeleteRequest>),
    /// See [`Event::Reclaim`](super::event::Event::Reclaim).
    Reclaim(Reclaim),
}

impl Request {
    /// Whom to answer.
    pub fn token(&self) -> RequestToken {
        match self {
            Self::Create(request) => request.token,
            Self::Delete { token, .. } => *token,
            Self::Ask(ask) => ask.token,
            Self::Undelete(undelete) => undelete.token,
            Self::Reclaim(reclaim) => reclaim.token,
        }
    }
}

/// Decides the requests that can be decided now. One whose cluster is being written waits.
pub fn decide(state: &State, now: Timestamp) -> Vec<Action> {
    let mut actions = Vec::new();
    // Of several requests for one name the first is decided now, the others when it is recorded.
    let mut taken: Vec<&ClusterName> = Vec::new();
    // Of those about what is kept of deleted clusters, one at a time.
    let mut keeping_taken = false;
    for request in &state.requests {
        let name = match request {
            Request::Create(create) => Some(&create.spec.name),
            Request::Delete { name, .. } => Some(name),
            Request::Ask(ask) => Some(&ask.name),
            Request::Undelete(undelete) => Some(undelete.target()),
            Request::Reclaim(request) => reclaim::cluster(state, request),
        };
        let about_kept = matches!(request, Request::Undelete(_) | Request::Reclaim(_));
        let busy = name.and_then(|name| state.clusters.get(name));
        let busy = busy.is_some_and(|cluster| cluster.pending.is_some());
        if busy || about_kept && keeping_taken || name.is_some_and(|name| taken.contains(&name)) {
            continue;
        }
        taken.extend(name);
        keeping_taken |= about_kept;
        actions.extend(match request {
            Request::Create(create) => Some(decide_create(state, create, now)),
            Request::Delete {
                token,
                name,
                password,
            } => Some(decide_delete(state, *token, name, password.as_ref())),
            Request::Ask(ask) => Some(wishes::decide(state, ask, now)),
            Request::Undelete(request) => undelete::decide(state, request, now),
            Request::Reclaim(request) => reclaim::decide(state, request, now),
        });
    }
    actions
}

/// The answer that refuses a request.
pub(super) fn refuse(token: RequestToken, refusal: Refusal) -> Action {
    Action::Reply(token, Reply::Refused(refusal))
}

fn decide_create(state: &State, create: &CreateRequest, now: Timestamp) -> Action {
    let name = &create.spec.name;
    if let Some(cluster) = state.clusters.get(name) {
        return answer_existing(cluster, create);
    }
    if state.unusable.contains(name) {
        return refuse(create.token, Refusal::Exists(name.clone()));
    }
    if !state.mesos.connected {
        return refuse(create.token, Refusal::NotRegistered);
    }
    let user = ClusterUser {
        name: create.spec.user.to_string(),
        authentication: create.fresh.authentication.clone(),
    };
    let mut record = ClusterRecord::new(
        create.spec.clone(),
        create.fresh.uuid,
        create.fresh.sealed_password.clone(),
        user,
        now,
    );
    record.restore.clone_from(&create.restore);
    let password = create.fresh.password.clone();
    let reply = Reply::Created {
        name: name.clone(),
        password: password.clone(),
    };
    Action::Persist {
        record: Box::new(record),
        expected: None,
        password: Some(password),
        launches: Vec::new(),
        replies: vec![(create.token, reply)],
    }
}

/// A request that was answered but whose answer got lost is made again: it is the same request if
/// it asks for the same, and then has the same answer.
fn answer_existing(cluster: &Cluster, create: &CreateRequest) -> Action {
    let name = create.spec.name.clone();
    if cluster.record.deleting {
        return refuse(create.token, Refusal::BeingDeleted(name));
    }
    let same_password = create
        .given_password
        .as_ref()
        .is_none_or(|given| *given == cluster.password);
    let asked = |restore: &Option<Restore>| {
        restore.as_ref().map(|restore| {
            let replay = restore.from.replay.as_ref();
            (
                restore.asked.clone(),
                replay.map(|replay| replay.to.clone()),
            )
        })
    };
    let same_backup = asked(&cluster.record.restore) == asked(&create.restore);
    if same_password && same_backup && cluster.record.spec == create.spec {
        let password = cluster.password.clone();
        return Action::Reply(create.token, Reply::Created { name, password });
    }
    refuse(create.token, Refusal::Exists(name))
}

/// The cluster, if the password is that of its user.
pub(super) fn owner<'a>(
    state: &'a State,
    name: &ClusterName,
    password: Option<&Secret>,
) -> Result<&'a Cluster, Refusal> {
    let cluster = state.clusters.get(name);
    let cluster = cluster.ok_or_else(|| Refusal::Unknown(name.clone()))?;
    match password {
        None => Err(Refusal::PasswordMissing),
        Some(given) if *given != cluster.password => Err(Refusal::PasswordWrong),
        Some(_) => Ok(cluster),
    }
}

fn decide_delete(
    state: &State,
    token: RequestToken,
    name: &ClusterName,
    password: Option<&Secret>,
) -> Action {
    let cluster = match owner(state, name, password) {
        Ok(cluster) => cluster,
        Err(refusal) => return refuse(token, refusal),
    };
    let reply = Reply::Deleting { name: name.clone() };
    if cluster.record.deleting {
        return Action::Reply(token, reply);
    }
    if !state.mesos.connected {
        return refuse(token, Refusal::NotRegistered);
    }
    let mut record = cluster.record.clone();
    record.deleting = true;
    record.published = Default::default();
    Action::Persist {
        record: Box::new(record),
        expected: cluster.version,
        password: None,
        launches: Vec::new(),
        replies: vec![(token, reply)],
    }
}
