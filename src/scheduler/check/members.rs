//! What must never be asked of members: that one which counts is ended or forgotten, or that a number is used again.

use super::{Rules, Violation};
use crate::{
    cluster::{
        configuration::Restart,
        id::{MemberId, TaskId},
        record::ClusterRecord,
    },
    scheduler::state::{Cluster, State},
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
        (
            "members are restarted one at a time, on slots",
            restarts_too_much(before, after),
        ),
        (
            "nobody is restarted while the master hands over",
            restarts_meanwhile(before, after),
        ),
        (
            "what members' tasks are launched with is in the record",
            lacks_a_configuration(after),
        ),
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

/// Whether the record releases the task of a member without a slot, or without an operator's word that of a second one or of a
/// master that is not alone.
fn restarts_too_much(before: &ClusterRecord, after: &ClusterRecord) -> bool {
    released_now(before, after).any(|(id, restart)| {
        let mut others = after.members.keys().filter(|other| **other != id);
        let alone = others.clone().next().is_none();
        let second = others.any(|other| released(after, *other).is_some());
        let leads = after.elected().is_some_and(|it| it.member == id);
        let homeless = after.members[&id].slot.is_none();
        homeless || second || leads && !alone && !restart.force
    })
}

fn restarts_meanwhile(before: &ClusterRecord, after: &ClusterRecord) -> bool {
    let switchover = after.switchover.as_ref();
    let hands_over = switchover.is_some_and(|it| it.is_pending() && it.epoch == after.epoch);
    hands_over && released_now(before, after).next().is_some()
}

/// The restart of a member that was released.
fn released(record: &ClusterRecord, member: MemberId) -> Option<&Restart> {
    let restart = record.members.get(&member)?.restart.as_ref();
    restart.filter(|it| it.released)
}

/// The members that a change of the record releases.
fn released_now<'a>(
    before: &'a ClusterRecord,
    after: &'a ClusterRecord,
) -> impl Iterator<Item = (MemberId, &'a Restart)> {
    let members = after.members.keys().copied();
    let now = members.filter_map(|id| Some((id, released(after, id)?)));
    now.filter(|(id, _)| released(before, *id).is_none())
}

fn lacks_a_configuration(after: &ClusterRecord) -> bool {
    let wanted = after.revision();
    let former = |revision: u64| {
        let rolling = after.rolling.as_ref();
        rolling.is_some_and(|it| it.former.contains_key(&revision))
    };
    let mut revisions = after.members.values().map(|member| member.revision);
    revisions.any(|revision| revision != wanted && !former(revision))
}

/// Whether no task of a cluster runs but on slots of agents that do not answer.
pub(super) fn have_ended(cluster: &Cluster) -> bool {
    let verifies = cluster.record.backups.verification.task.is_some();
    !verifies
        && cluster.record.members.values().all(|member| {
            let Some(task) = &member.task else {
                return true;
            };
            let seen = cluster.observed.tasks.get(&task.task_id);
            seen.is_some_and(|seen| seen.is_missed())
                && member.slot.as_ref().is_some_and(|it| it.used)
        })
}

/// Whether a task is killed whose member counts: of a living cluster only those of members that are leaving and have
/// left the vote, those that an operator gives up, and those that are restarted on their slots.
pub(super) fn broken_by_kill(state: &State, task: &TaskId) -> Option<Violation> {
    let record = &state.clusters.get(&task.cluster()?)?.record;
    let member = record.member_of(task)?;
    let given_up = record.lossy.as_ref().is_some_and(|lossy| {
        lossy.is_pending() && lossy.given_up.iter().any(|it| it.member == member)
    });
    let leads = record.elected().is_some_and(|it| it.member == member);
    let out = record.is_leaving(member) && !record.is_voter(member) && !leads;
    // It comes back with what it has.
    let alone = record.members.len() == 1;
    let restart = record.members.get(&member)?.restart.as_ref();
    let restarted = restart
        .filter(|it| it.released && it.task_id == *task)
        .is_some_and(|it| !leads || alone || it.force);
    let may_be_killed = record.deleting || given_up || out || restarted;
    (!may_be_killed).then(|| Violation {
        cluster: record.name().clone(),
        rule: "a member's task is killed only when the member does not count any more",
    })
}
