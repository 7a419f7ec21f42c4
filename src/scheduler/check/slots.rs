//! What must never be asked of slots: that data which may count is left, made anew, or given to somebody else.

use std::collections::BTreeSet;

use super::{Rules, Violation};
use crate::{
    cluster::{
        record::ClusterRecord,
        retained::Retained,
        slot::{Slot, SlotId},
    },
    scheduler::{
        placement::{Ground, Launch, OfferedSlot},
        retained::Deed,
        state::State,
    },
};

/// The rules that a change of a record, with the launches that follow it, breaks.
pub(super) fn broken(
    before: Option<&ClusterRecord>,
    after: &ClusterRecord,
    launches: &[Launch],
) -> Rules {
    vec![
        (
            "a slot that was used stays its member's",
            before.is_some_and(|before| leaves_used_slot(before, after)),
        ),
        ("two members have two slots", shares_slot(after)),
        (
            "a member is launched on its own slot alone",
            !launches.iter().all(|launch| is_members_own(after, launch)),
        ),
        (
            "no volume is made in place of one that was used",
            launches
                .iter()
                .any(|launch| makes_used_volume(before, launch)),
        ),
    ]
}

fn slots(record: &ClusterRecord) -> impl Iterator<Item = &Slot> {
    record.members.values().filter_map(|it| it.slot.as_ref())
}

fn leaves_used_slot(before: &ClusterRecord, after: &ClusterRecord) -> bool {
    let mut members = before.members.iter();
    members.any(|(id, member)| {
        let Some(slot) = member.slot.as_ref().filter(|slot| slot.used) else {
            return false;
        };
        if slot.agent_gone && !after.members.contains_key(id) {
            return false;
        }
        let left = after.departed.get(id).and_then(|it| it.slot.as_ref());
        let kept = after.members.get(id).map_or(left, |it| it.slot.as_ref());
        !kept.is_some_and(|kept| kept.id == slot.id && kept.used && kept.size == slot.size)
    })
}

fn shares_slot(after: &ClusterRecord) -> bool {
    let mut seen = BTreeSet::new();
    !slots(after).all(|slot| seen.insert(&slot.id))
}

/// Whether a launch stands on the slot that the record has for its member, and the offer names that member for it; or on none, if it is no member's.
pub(super) fn is_members_own(record: &ClusterRecord, launch: &Launch) -> bool {
    let Some(id) = record.member_of(&launch.task.task_id) else {
        // What verifies a backup has nothing to do with any member's slot.
        let verifies = record.is_verification(&launch.task.task_id);
        return verifies && launch.ground == Ground::Sandbox;
    };
    let own = record.members[&id].slot.as_ref().map(|slot| &slot.id);
    let labelled = |slot: &SlotId| {
        launch.offer.slot(slot).is_some_and(|offered| {
            offered.owner.incarnation == record.uuid && offered.owner.member == id
        })
    };
    match &launch.ground {
        Ground::Sandbox => own.is_none(),
        Ground::New(slot) => own == Some(slot),
        Ground::Reserved(slot) | Ground::Volume(slot) => own == Some(slot) && labelled(slot),
    }
}

fn makes_used_volume(before: Option<&ClusterRecord>, launch: &Launch) -> bool {
    let (Ground::New(made) | Ground::Reserved(made)) = &launch.ground else {
        return false;
    };
    before.is_some_and(|before| slots(before).any(|slot| slot.id == *made && slot.used))
}

/// Whether a cluster is removed without all of its slots being kept.
pub(super) fn leaves(record: &ClusterRecord, retained: Option<&Retained>) -> bool {
    let is_kept = |slot: &Slot| {
        slot.agent_gone
            || retained
                .is_some_and(|it| it.incarnation() == record.uuid && it.left.contains_key(&slot.id))
    };
    !slots(record).all(is_kept)
}

/// The rules that are broken by what is done with slots that nobody is to use.
pub(super) fn broken_by(state: &State, deed: &Deed) -> Vec<Violation> {
    match deed {
        Deed::Release { offer, slots } => offer
            .slots
            .iter()
            .filter(|slot| slots.contains_key(&slot.id) && !may_be_destroyed(state, slot))
            .map(|slot| Violation {
                cluster: slot.owner.cluster.clone(),
                rule: "a volume is destroyed only when its cluster was deleted or its member has left and that is stored, or when it was never used",
            })
            .collect(),
        Deed::Store { retained, .. } => broken_by_keeping(state, retained).into_iter().collect(),
        Deed::Forget { .. } | Deed::Acknowledge { .. } => Vec::new(),
    }
}

fn may_be_destroyed(state: &State, slot: &OfferedSlot) -> bool {
    let incarnation = slot.owner.incarnation;
    // The labels may name another cluster than the record: one that was brought back under a new name.
    let mut living = state.clusters.values().map(|cluster| &cluster.record);
    let Some(record) = living.find(|record| record.uuid == incarnation) else {
        let kept = state.keeping.clusters.get(&incarnation);
        return kept.is_some_and(|kept| kept.retained.is_to_go(&slot.id));
    };
    let in_use = slots(record).any(|own| own.id == slot.id);
    // Of a cluster that lives, only what its stored record says is to be destroyed, or was never used.
    let left = record.departed.get(&slot.owner.member);
    let left = left
        .is_some_and(|left| left.destroy && left.slot.as_ref().is_some_and(|it| it.id == slot.id));
    let members = record.members.values().flat_map(|member| &member.given_up);
    let departed = record.departed.values().flat_map(|left| &left.given_up);
    let mut given_up = members.chain(departed);
    !in_use && (left || given_up.any(|it| it.id == slot.id && !it.used))
}

/// What is stored about a deleted cluster takes back no intention, and begins none while the cluster lives or about slots that a record
/// explains.
fn broken_by_keeping(state: &State, next: &Retained) -> Option<Violation> {
    let kept = state.keeping.clusters.get(&next.incarnation());
    let before = kept.map(|kept| &kept.retained);
    let mut living = state.clusters.values();
    let lives = living.any(|cluster| cluster.record.uuid == next.incarnation());
    let known = |slot: &SlotId| before.is_some_and(|before| before.reclaimed.contains(slot));
    let begins = next.destroying && !before.is_some_and(|before| before.destroying)
        || !next.reclaimed.iter().all(known);
    let takes_back = |before: &Retained| {
        before.destroying && !next.destroying || !before.reclaimed.is_subset(&next.reclaimed)
    };
    let rule = if before.is_some_and(takes_back) {
        "the intention to destroy is never taken back"
    } else if begins && lives {
        "nothing of a living cluster is to be destroyed"
    } else if before.is_some_and(|before| before.record != next.record) {
        "what is kept of a deleted cluster stays its last record"
    } else {
        return None;
    };
    let cluster = next.name()?.clone();
    Some(Violation { cluster, rule })
}
