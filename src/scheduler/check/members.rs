//! What must never be asked of members: that one which counts is ended or forgotten, or that a number is used again.

use super::{Rules, Violation};
use crate::{
    cluster::{
        id::{MemberId, TaskId},
        record::ClusterRecord,
    },
    scheduler::state::State,
};

/// The rules that a change of a record breaks.
pub(super) fn broken(before: &ClusterRecord, after: &ClusterRecord) -> Rules {
    vec![
        (
            "a member's number is never used twice",
            uses_a_number_again(before, after),
        ),
        (
            "only a member leaves that was to leave, does not vote and is not the master",
            gone(before, after).any(|member| !may_be_gone(before, after, member)),
        ),
        (
            "what is destroyed stays to be destroyed",
            takes_destruction_back(before, after),
        ),
        ("discovery names members only", names_strangers(after)),
    ]
}

fn uses_a_number_again(before: &ClusterRecord, after: &ClusterRecord) -> bool {
    let mut new = after
        .members
        .keys()
        .filter(|member| !before.members.contains_key(member));
    new.any(|member| *member < before.next_member()) || after.next_member() < before.next_member()
}

fn gone<'a>(
    before: &'a ClusterRecord,
    after: &'a ClusterRecord,
) -> impl Iterator<Item = MemberId> + 'a {
    let members = before.members.keys().copied();
    members.filter(|member| !after.members.contains_key(member))
}

fn may_be_gone(before: &ClusterRecord, after: &ClusterRecord, member: MemberId) -> bool {
    let votes = before.is_voter(member) || after.is_voter(member);
    let leads = |record: &ClusterRecord| record.elected().is_some_and(|it| it.member == member);
    // What it had is accounted for: the slot and the task, if it is not known to have ended.
    let slot = before.members[&member].slot.as_ref();
    let left = after.departed.get(&member).and_then(|it| it.slot.as_ref());
    let accounted = slot.is_none_or(|slot| {
        !slot.used || slot.agent_gone || left.is_some_and(|left| left.id == slot.id)
    });
    // It may be marked and be gone in one step only if there was no master yet.
    let marked = before.is_leaving(member) || before.epoch.0 == 0;
    marked && !votes && !leads(before) && !leads(after) && accounted
}

fn takes_destruction_back(before: &ClusterRecord, after: &ClusterRecord) -> bool {
    before.departed.iter().any(|(member, left)| {
        let now = after.departed.get(member);
        left.destroy && now.is_some_and(|now| now.slot.is_some() && !now.destroy)
    })
}

fn names_strangers(after: &ClusterRecord) -> bool {
    let mut named = after.published.slaves.iter().chain(&after.published.master);
    named.any(|member| !after.members.contains_key(member))
}

/// Whether a task is killed whose member counts: of a living cluster only those of members that are leaving and have
/// left the vote, and those that an operator gives up.
pub(super) fn broken_by_kill(state: &State, task: &TaskId) -> Option<Violation> {
    let mut clusters = state.clusters.values().map(|cluster| &cluster.record);
    let (record, member) = clusters.find_map(|record| Some((record, record.member_of(task)?)))?;
    let given_up = record.lossy.as_ref().is_some_and(|lossy| {
        lossy.is_pending() && lossy.given_up.iter().any(|it| it.member == member)
    });
    let leads = record.elected().is_some_and(|it| it.member == member);
    let out = record.is_leaving(member) && !record.is_voter(member) && !leads;
    let may_be_killed = record.deleting || given_up || out;
    (!may_be_killed).then(|| Violation {
        cluster: record.name().clone(),
        rule: "a member's task is killed only when the member does not count any more",
    })
}
