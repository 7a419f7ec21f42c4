//! Agents that are away: since when, as far as this scheduler has seen it, and what says so.

use std::collections::BTreeMap;

use crate::{
    cluster::{
        id::MemberId,
        record::{ClusterRecord, MemberRecord},
    },
    scheduler::{event::TaskState, failover::View, observed::Presence},
    time::Timestamp,
};

/// The members whose agents are away, as far as this scheduler has seen it.
pub type Away = BTreeMap<MemberId, Absence>;

/// Why and since when a member's agent counts as away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absence {
    /// What says so.
    pub kind: Kind,
    /// The agent's host name.
    pub host: String,
    /// Since when, while this scheduler was connected to a Mesos master without a gap.
    pub since: Timestamp,
    /// When the member is replaced for it, if it can be.
    pub due: Timestamp,
}

/// What says that an agent is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The master says that it does not answer, and nothing is heard of the member either.
    Unreachable,
    /// The member has no task, and its slot is not offered.
    NotOffered,
    /// An operator has told Mesos that it is gone for good.
    Gone,
}

/// Which members' agents are away. Only while a Mesos master tells of its agents: an outage of Mesos says nothing of them,
/// and time begins anew after it.
pub(in crate::scheduler) fn away(record: &ClusterRecord, view: View<'_>) -> Away {
    if view.connected_since.is_none() {
        return Away::new();
    }
    let replace_after = record.spec.replace_after;
    let replace_after = replace_after.map_or(view.policy.replace_after, |it| it.duration());
    let members = record.members.iter();
    members
        .filter_map(|(id, member)| {
            let (kind, host) = kind(record, view, *id, member)?;
            let known = view.away.get(id).filter(|known| known.kind == kind);
            let since = known.map_or(view.now, |known| known.since);
            let due = match kind {
                Kind::Gone => since,
                Kind::Unreachable | Kind::NotOffered => since.plus(replace_after),
            };
            Some((
                *id,
                Absence {
                    kind,
                    host,
                    since,
                    due,
                },
            ))
        })
        .collect()
}

fn kind(
    record: &ClusterRecord,
    view: View<'_>,
    id: MemberId,
    member: &MemberRecord,
) -> Option<(Kind, String)> {
    if let Some(task) = &member.task {
        // Whoever reports is there, whatever the master sees of its agent.
        let heard = matches!(view.observed.presence(record, id), Presence::Live(_));
        let seen = view.observed.tasks.get(&task.task_id)?;
        let was_there = member.slot.as_ref().is_some_and(|slot| slot.used);
        // Lost or unknown is what a master says of the tasks of a machine that an operator takes down, and also of a launch that
        // never arrived.
        let missed = seen.is_missed() && (seen.state == TaskState::Unreachable || was_there);
        return (missed && !heard).then(|| (Kind::Unreachable, task.host.clone()));
    }
    let slot = member.slot.as_ref().filter(|slot| slot.used)?;
    // One that is not launched for a while because its tasks failed has its slot at hand.
    let failing = member.failing.as_ref();
    if slot.agent_gone {
        Some((Kind::Gone, slot.host.clone()))
    } else if failing.is_some_and(|failing| view.now < failing.retry_at) {
        None
    } else {
        Some((Kind::NotOffered, slot.host.clone()))
    }
}
