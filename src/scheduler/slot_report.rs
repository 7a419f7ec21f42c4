//! What the API shows of slots: of those of living clusters, of what is left of deleted ones, and of orphans.

use std::cmp::Reverse;

use uuid::Uuid;

use super::{
    orphans::Orphan,
    retained::Kept,
    state::{Cluster, State},
};
use crate::cluster::{
    id::{ClusterName, MemberId},
    slot::{Slot, SlotId},
    slot_view::{DeletedCluster, Left, SlotState, SlotView},
};

/// The slots of a living cluster, by member, then those of members that have left.
pub fn of_cluster(cluster: &Cluster) -> Vec<SlotView> {
    let record = &cluster.record;
    let of_member = record.members.iter().flat_map(|(id, member)| {
        let state = match member.task {
            Some(_) => SlotState::InUse,
            None => SlotState::Waiting,
        };
        let own = member.slot.iter().map(move |slot| (*id, slot, state));
        let given_up = member.given_up.iter();
        own.chain(given_up.map(move |slot| (*id, slot, SlotState::GivenUp)))
    });
    let departed = record.departed.iter().filter_map(|(id, left)| {
        let state = match left.destroy {
            true => SlotState::Destroying,
            false => SlotState::Kept,
        };
        Some((*id, left.slot.as_ref()?, state))
    });
    of_member
        .chain(departed)
        .map(|(member, slot, state)| {
            let whose = (record.name(), record.uuid);
            recorded(slot, state, whose, Some(member))
        })
        .collect()
}

/// What is left of deleted clusters, and what no record explains.
pub fn left(state: &State) -> Left {
    // One that has come back is forgotten next.
    let kept = state.keeping.clusters.iter().filter(|(incarnation, _)| {
        let living = state.of_incarnation(**incarnation);
        living.is_none_or(|living| living.version.is_none())
    });
    let kept: Vec<&Kept> = kept.map(|(_, kept)| kept).collect();
    let mut deleted: Vec<DeletedCluster> = kept.iter().filter_map(|kept| deleted(kept)).collect();
    deleted.sort_by_key(|cluster| Reverse((cluster.deleted_at, cluster.incarnation)));
    let of_deleted = kept.iter().flat_map(|kept| slots_of(kept));
    let orphans = state.keeping.orphans.iter();
    let orphans = orphans.map(|(slot, orphan)| orphaned(slot, orphan));
    Left {
        deleted,
        slots: of_deleted.chain(orphans).collect(),
    }
}

fn deleted(kept: &Kept) -> Option<DeletedCluster> {
    let retained = &kept.retained;
    let record = retained.record.as_ref()?;
    Some(DeletedCluster {
        name: record.name().clone(),
        incarnation: record.uuid,
        user: record.user.name.clone(),
        num_nodes: record.spec.num_nodes,
        deleted_at: retained.deleted_at,
        kept_until: retained.destroy_at,
        destroying: retained.destroying,
        slots: retained.left.len(),
    })
}

fn slots_of(kept: &Kept) -> impl Iterator<Item = SlotView> {
    let retained = &kept.retained;
    let state = move |slot: &SlotId| match retained.is_to_go(slot) {
        true => SlotState::Destroying,
        false => SlotState::Kept,
    };
    let record = retained.record.as_deref();
    let owner = move |slot: &SlotId| {
        let mut members = record?.members.iter();
        let owned = members.find(|(_, member)| {
            let mut slots = member.slot.iter().chain(&member.given_up);
            slots.any(|own| own.id == *slot)
        });
        let mut departed = record?.departed.iter();
        let left = departed.find(|(_, left)| left.slot.as_ref().is_some_and(|own| own.id == *slot));
        owned.map(|(id, _)| *id).or(left.map(|(id, _)| *id))
    };
    let name = retained.name();
    retained.left.values().filter_map(move |slot| {
        Some(SlotView {
            kept_until: Some(retained.destroy_at),
            ..recorded(
                slot,
                state(&slot.id),
                (name?, retained.incarnation()),
                owner(&slot.id),
            )
        })
    })
}

fn recorded(
    slot: &Slot,
    state: SlotState,
    (cluster, incarnation): (&ClusterName, Uuid),
    member: Option<MemberId>,
) -> SlotView {
    SlotView {
        slot: slot.id.clone(),
        state,
        cluster: cluster.clone(),
        incarnation,
        member,
        agent_id: slot.agent_id.clone(),
        host: slot.host.clone(),
        port: Some(slot.port).filter(|port| *port != 0),
        size: slot.size,
        since: slot.created_at,
        kept_until: None,
    }
}

fn orphaned(slot: &SlotId, orphan: &Orphan) -> SlotView {
    SlotView {
        slot: slot.clone(),
        state: SlotState::Orphaned,
        cluster: orphan.owner.cluster.clone(),
        incarnation: orphan.owner.incarnation,
        member: Some(orphan.owner.member),
        agent_id: orphan.agent_id.clone(),
        host: orphan.host.clone(),
        port: orphan.port,
        size: orphan.size,
        since: orphan.since,
        kept_until: None,
    }
}
