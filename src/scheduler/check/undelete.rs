//! What must never be asked when a deleted cluster comes back: that it comes back as another one, or after its end has begun.

use super::Rules;
use crate::{
    cluster::{record::ClusterRecord, slot::Slot},
    scheduler::{state::State, undelete::Undeletion},
};

/// The rules that bringing a cluster back breaks.
pub(super) fn broken(state: &State, undeletion: &Undeletion) -> Rules {
    let record = &undeletion.record;
    let kept = state.keeping.clusters.get(&record.uuid);
    let was = kept.and_then(|kept| kept.retained.record.as_deref());
    let mut clusters = state.clusters.values();
    let given_up =
        |slot: &Slot| kept.is_some_and(|kept| kept.retained.reclaimed.contains(&slot.id));
    let mut members = record.members.values();
    vec![
        (
            "what comes back is kept, and nothing else is being written about it",
            !kept.is_some_and(|kept| {
                kept.pending.is_none() && kept.version == Some(undeletion.kept)
            }),
        ),
        (
            "what is being destroyed does not come back",
            kept.is_some_and(|kept| kept.retained.destroying),
        ),
        (
            "a cluster lives once, and a name is that of one cluster",
            clusters.any(|it| it.record.uuid == record.uuid)
                || state.clusters.contains_key(record.name())
                || state.unusable.contains(record.name()),
        ),
        (
            "a cluster comes back as it was",
            !was.is_some_and(|was| is_same(was, record)),
        ),
        (
            "a cluster comes back with no tasks but those that it had on its slots, and not in discovery",
            record.published != Default::default()
                || was.is_some_and(|was| has_other_tasks(was, record)),
        ),
        ("a cluster comes back to live", record.deleting),
        (
            "a slot that was given up is nobody's",
            members.any(|member| member.slot.as_ref().is_some_and(given_up)),
        ),
    ]
}

fn has_other_tasks(was: &ClusterRecord, is: &ClusterRecord) -> bool {
    is.members.iter().any(|(id, member)| {
        let before = was.members.get(id).and_then(|before| before.task.as_ref());
        let on_slot = member.slot.as_ref().is_some_and(|slot| slot.used);
        let same = member.task.as_ref() == before && on_slot && was.name() == is.name();
        member.task.is_some() && !same
    })
}

/// Whether elections and slots are those of the cluster that was deleted.
fn is_same(was: &ClusterRecord, is: &ClusterRecord) -> bool {
    let slots = |record: &ClusterRecord| -> Vec<_> {
        let members = record.members.iter();
        members
            .map(|(id, member)| {
                let slot = member
                    .slot
                    .as_ref()
                    .map(|slot| (slot.id.clone(), slot.used));
                (*id, member.launches, slot, member.data)
            })
            .collect()
    };
    was.epoch == is.epoch
        && was.mastership == is.mastership
        && was.voters == is.voters
        && was.terms == is.terms
        && was.change == is.change
        && was.canary == is.canary
        && was.named == is.named
        && was.rejoining == is.rejoining
        && was.lineage == is.lineage
        && was.sealed_password == is.sealed_password
        && slots(was) == slots(is)
}
