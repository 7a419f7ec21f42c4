//! An administrator gives up a slot that is kept: of a member that has left, of a deleted cluster before its time, or one that no record
//! explains.
//!
//! Whatever it is, the word is stored where the slot is recorded before anything is destroyed, and is never taken back; the
//! slot goes when its agent offers it, see [`retained`](super::retained). The answer says what is lost.
//!
//! | slot | where the word is stored |
//! |---|---|
//! | of a member that has left a cluster that lives | the cluster's record: [`Departed::destroy`](crate::cluster::membership::Departed) |
//! | of a deleted cluster | what is kept of it: [`Retained::reclaimed`](crate::cluster::retained::Retained) |
//! | of nobody | a node of its own: [`orphans`] |
//!
//! The slot of a member is not given up: the member has to leave first.

use super::{
    action::{Action, Refusal, Reply},
    event::{Reclaim, RequestToken},
    orphans,
    requests::refuse,
    retained::{Deed, Kept, names},
    state::{Cluster, State},
};
use crate::cluster::{
    id::{ClusterName, MemberId},
    record::ClusterRecord,
    retained::Orphaned,
    slot::SlotId,
};
use crate::time::Timestamp;

/// What may be lost with the slot of a member that has left, as the end of a sentence.
const MAY_BE_ALONE: &str =
    "writes that were acknowledged and that no other member has may lie on it, and are lost then";

/// The living cluster whose record the request is about, if it is about one.
pub fn cluster<'a>(state: &'a State, reclaim: &Reclaim) -> Option<&'a ClusterName> {
    living(state, &reclaim.slot).map(|cluster| cluster.record.name())
}

fn living<'a>(state: &'a State, slot: &SlotId) -> Option<&'a Cluster> {
    let mut clusters = state.clusters.values();
    clusters.find(|cluster| names(&cluster.record, slot))
}

/// Decides the request; `None`: not before a write that is under way is done.
pub fn decide(state: &State, reclaim: &Reclaim, now: Timestamp) -> Option<Action> {
    let Reclaim { token, slot } = reclaim;
    if let Some(cluster) = living(state, slot) {
        return Some(of_living(cluster, *token, slot));
    }
    let mut kept = state.keeping.clusters.values();
    let recorded =
        kept.find(|kept| kept.retained.record.is_some() && kept.retained.left.contains_key(slot));
    match recorded.and_then(|kept| Some((kept, kept.retained.record.as_deref()?))) {
        Some((kept, record)) => of_deleted(kept, record, *token, slot),
        None => orphans::decide(state, reclaim, now),
    }
}

fn whose(record: &ClusterRecord) -> Orphaned {
    Orphaned {
        cluster: record.name().clone(),
        incarnation: record.uuid,
    }
}

/// The member that has left, whose slot this is.
fn departed(record: &ClusterRecord, slot: &SlotId) -> Option<MemberId> {
    let mut departed = record.departed.iter();
    let found = departed.find(|(_, left)| left.slot.as_ref().is_some_and(|own| own.id == *slot));
    found.map(|(id, _)| *id)
}

/// The member whose tasks run on the slot.
fn owner(record: &ClusterRecord, slot: &SlotId) -> Option<MemberId> {
    let mut members = record.members.iter();
    let found = members.find(|(_, it)| it.slot.as_ref().is_some_and(|own| own.id == *slot));
    found.map(|(id, _)| *id)
}

/// A slot that a record of a cluster that lives names. A repeated request, after an answer that got lost, has the same answer.
fn of_living(cluster: &Cluster, token: RequestToken, slot: &SlotId) -> Action {
    let record = &cluster.record;
    let name = record.name();
    let refused = |sentence: String| refuse(token, Refusal::NotPossible(sentence));
    let Some(member) = departed(record, slot) else {
        return refused(match owner(record, slot) {
            Some(member) => format!(
                "the slot {slot} is that of a member of the cluster {name}, member {member}: only slots that nobody uses any more can be given up"
            ),
            None => format!(
                "the slot {slot} of the cluster {name} was never used: it goes by itself if it turns up"
            ),
        });
    };
    let reply = Reply::Reclaiming {
        slot: slot.clone(),
        whose: whose(record),
        lost: format!("it is what member {member} has left behind: {MAY_BE_ALONE}"),
    };
    let is_given_up = record
        .departed
        .get(&member)
        .is_some_and(|left| left.destroy);
    if is_given_up {
        return Action::Reply(token, reply);
    }
    if record.deleting {
        return refuse(token, Refusal::BeingDeleted(name.clone()));
    }
    let mut next = record.clone();
    if let Some(left) = next.departed.get_mut(&member) {
        left.destroy = true;
    }
    Action::Persist {
        record: Box::new(next),
        expected: cluster.version,
        password: None,
        launches: Vec::new(),
        replies: vec![(token, reply)],
    }
}

/// A slot of a deleted cluster. The others stay until their time.
fn of_deleted(
    kept: &Kept,
    record: &ClusterRecord,
    token: RequestToken,
    slot: &SlotId,
) -> Option<Action> {
    let lost = match (owner(record, slot), departed(record, slot)) {
        (Some(member), _) => format!(
            "it is all that member {member} of the deleted cluster {} had, and the cluster cannot be brought back any more",
            record.name()
        ),
        (None, Some(member)) => {
            format!("it is what member {member} has left behind: {MAY_BE_ALONE}")
        }
        (None, None) => "it was never used, so nothing is lost".to_owned(),
    };
    let reply = Reply::Reclaiming {
        slot: slot.clone(),
        whose: whose(record),
        lost,
    };
    let retained = &kept.retained;
    if retained.is_to_go(slot) {
        return Some(Action::Reply(token, reply));
    }
    let expected = kept.version.filter(|_| kept.pending.is_none())?;
    let mut next = retained.clone();
    next.reclaimed.insert(slot.clone());
    Some(Action::Keep(Deed::Store {
        retained: Box::new(next),
        expected: Some(expected),
        replies: vec![(token, reply)],
    }))
}

/// Why a deleted cluster cannot come back although its slots are kept: one of a member was given up.
pub fn hinders_return(kept: &Kept) -> Option<String> {
    let record = kept.retained.record.as_deref()?;
    let mut reclaimed = kept.retained.reclaimed.iter();
    let (slot, member) = reclaimed.find_map(|slot| Some((slot, owner(record, slot)?)))?;
    Some(format!(
        "the slot {slot} of member {member} of the deleted cluster {} was given up by an administrator, which is never taken back",
        record.name()
    ))
}
