//! A deleted cluster is brought back while its slots are kept.
//!
//! Its record is stored again, with goal and discovery as at a creation, in the transaction that removes what is kept of it. Slots are
//! known by incarnation, member and id, and promises by the incarnation, so the name may be another one. Members are launched on their
//! slots and elect with what they have, as after the loss of all tasks at once. A task that may run, because its agent was away when the
//! cluster was removed and still is, is its member's again.
//!
//! What is being destroyed does not come back: the intention is stored and never taken back.

use uuid::Uuid;

use super::{
    action::{Action, Refusal, Reply},
    event::{RequestToken, UndeleteRequest, Version},
    reclaim,
    requests::refuse,
    retained::Kept,
    state::{Cluster, State},
};
use crate::{
    cluster::{id::ClusterName, record::ClusterRecord},
    secret::Secret,
    time::Timestamp,
};

/// A cluster that is brought back.
#[derive(Debug, Clone, PartialEq)]
pub struct Undeletion {
    /// Its record, as it comes back.
    pub record: ClusterRecord,
    /// The version of what is kept of it.
    pub kept: Version,
    /// The password of its user, for the state's own copy.
    pub password: Secret,
    /// Requests to answer once it is stored.
    pub replies: Vec<(RequestToken, Reply)>,
}

/// Decides the request; `None`: not before a write that is under way is done.
pub fn decide(state: &State, request: &UndeleteRequest, now: Timestamp) -> Option<Action> {
    let token = request.token;
    let Some((incarnation, kept)) = find(state, request) else {
        return Some(match already_done(state, request) {
            Some(reply) => Action::Reply(token, reply),
            None => refuse(token, nothing_kept(state, request)),
        });
    };
    let refused = match &request.password {
        None => Some(Refusal::PasswordMissing),
        Some(given) => kept
            .password
            .as_ref()
            .filter(|password| *password != given)
            .map(|_| Refusal::PasswordWrong),
    };
    if let Some(refusal) = refused {
        return Some(refuse(token, refusal));
    }
    let version = kept.version.filter(|_| kept.pending.is_none())?;
    if let Some(sentence) = hindrance(state, request, kept, now) {
        return Some(refuse(token, Refusal::NotPossible(sentence)));
    }
    let target = request.target();
    // Both are there: without them it was refused.
    let mut record = kept.retained.undeleted(target, now)?;
    state.keeping.end_tasks(&mut record);
    if let Some(sentence) = names_former_tasks(&request.name, &record) {
        return Some(refuse(token, Refusal::NotPossible(sentence)));
    }
    let reply = Reply::Undeleting {
        name: target.clone(),
        incarnation,
    };
    let undeletion = Undeletion {
        record,
        password: kept.password.clone()?,
        kept: version,
        replies: vec![(token, reply)],
    };
    Some(Action::Undelete(Box::new(undeletion)))
}

/// The deleted cluster that is meant: the one that was deleted last, or the named one.
fn find<'a>(state: &'a State, request: &UndeleteRequest) -> Option<(Uuid, &'a Kept)> {
    let kept = state.keeping.clusters.iter().filter(|(incarnation, kept)| {
        let record = kept.retained.record.as_ref();
        record.is_some_and(|record| *record.name() == request.name)
            && request.incarnation.is_none_or(|it| it == **incarnation)
            // One that has come back is forgotten next.
            && state.of_incarnation(**incarnation).is_none_or(|it| it.version.is_none())
    });
    let newest = kept.max_by_key(|(incarnation, kept)| (kept.retained.deleted_at, **incarnation));
    newest.map(|(incarnation, kept)| (*incarnation, kept))
}

/// The answer to a request that was carried out, and whose answer may have got lost.
fn already_done(state: &State, request: &UndeleteRequest) -> Option<Reply> {
    let Cluster {
        record,
        version,
        password,
        ..
    } = state.clusters.get(request.target())?;
    let came_back = record.undeleted.as_ref()?.deleted_as == request.name;
    let same = came_back
        && version.is_some()
        && !record.deleting
        && request.password.as_ref() == Some(password)
        && request.incarnation.is_none_or(|it| it == record.uuid);
    same.then(|| Reply::Undeleting {
        name: record.name().clone(),
        incarnation: record.uuid,
    })
}

fn nothing_kept(state: &State, request: &UndeleteRequest) -> Refusal {
    let living = state.clusters.get(&request.name);
    match living.is_some_and(|cluster| cluster.record.deleting) {
        true => Refusal::BeingDeleted(request.name.clone()),
        false => Refusal::NothingKept(request.name.clone()),
    }
}

/// Why the cluster cannot come back, as a sentence.
fn hindrance(
    state: &State,
    request: &UndeleteRequest,
    kept: &Kept,
    now: Timestamp,
) -> Option<String> {
    let (name, target) = (&request.name, request.target());
    // From then on the intention to destroy may be stored at any moment.
    if kept.retained.destroying || now >= kept.retained.destroy_at {
        return Some(format!(
            "the deleted cluster {name} was kept until {} and is being destroyed, which is never taken back",
            kept.retained.destroy_at
        ));
    }
    if let Some(sentence) = reclaim::hinders_return(kept) {
        return Some(sentence);
    }
    if kept.password.is_none() {
        return Some(format!(
            "the password of the deleted cluster {name} cannot be opened with the key of --scheduler-keypath: start the scheduler with the key \
             that it was sealed with, before {}",
            kept.retained.destroy_at
        ));
    }
    let in_use = state.clusters.contains_key(target) || state.unusable.contains(target);
    in_use.then(|| {
        format!(
            "the name {target} is in use, so the deleted cluster {name} cannot come back under it: bring it back under another name, with as=NAME \
             (cotton admin undelete {name} --as NAME)"
        )
    })
}

/// Why a cluster cannot come back under another name: the ids of its tasks have the former one, and one of them may run.
fn names_former_tasks(name: &ClusterName, record: &ClusterRecord) -> Option<String> {
    if record.name() == name {
        return None;
    }
    let mut members = record.members.iter();
    let (id, task) = members.find_map(|(id, member)| Some((id, member.task.as_ref()?)))?;
    Some(format!(
        "a task of member {id} of the deleted cluster {name} may still run on {}, which Mesos does not reach: bring the cluster back under its own \
         name, or under another one when that host is back",
        task.host
    ))
}

impl UndeleteRequest {
    /// The name under which the cluster is to come back.
    pub fn target(&self) -> &ClusterName {
        self.target.as_ref().unwrap_or(&self.name)
    }
}
