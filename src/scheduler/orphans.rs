//! Slots that are reserved under Cotton's labels and that no record, living or kept, explains.
//!
//! They are told of and left alone: the state may be the one that is wrong. One is released only when an operator says so,
//! and that word is stored before anything is destroyed, as what is kept of a deleted cluster without a record
//! ([`Retained::of_orphans`]). From there on it goes as with a deleted cluster, see [`retained`](super::retained).
//!
//! The word is refused as long as a record knows the incarnation that the labels name, or may know it: that of a cluster that lives,
//! what is kept of a deleted one, and whatever is stored and cannot be read.

use super::{
    action::{Action, Refusal, Reply},
    event::Reclaim,
    placement::{Offer, OfferedSlot},
    requests::refuse,
    retained::{Deed, names},
    state::State,
};
use crate::{
    cluster::{
        retained::{Orphaned, Retained},
        size::Size,
        slot::{Slot, SlotId, SlotOwner},
    },
    time::Timestamp,
};

/// A slot that no record explains.
#[derive(Debug, Clone, PartialEq)]
pub struct Orphan {
    /// Whose it is by its labels.
    pub owner: SlotOwner,
    /// Mesos' id of its agent.
    pub agent_id: String,
    /// The agent's host name.
    pub host: String,
    /// What was offered of it, the volume included. Of half a slot it is less than what was once asked for.
    pub size: Size,
    /// Its port, if that was offered.
    pub port: Option<u16>,
    /// Whether it has a volume.
    pub has_volume: bool,
    /// When it was first seen.
    pub since: Timestamp,
    /// Whether it was told of.
    pub told: bool,
}

/// Whether a record, living or kept, explains a slot.
fn is_explained(state: &State, slot: &OfferedSlot) -> bool {
    let owner = &slot.owner;
    let living = state.of_incarnation(owner.incarnation);
    // A record that is being written explains as much as the one that it replaces.
    let living = living.is_some_and(|cluster| names(&cluster.record, &slot.id));
    let kept = state.keeping.clusters.get(&owner.incarnation);
    living
        || kept.is_some_and(|kept| kept.retained.left.contains_key(&slot.id))
        || state.keeping.unusable.contains(&owner.incarnation)
        || state.unusable.contains(&owner.cluster)
}

/// Notes which offered slots no record explains.
pub fn note(state: &mut State, offers: &[Offer], now: Timestamp) {
    for offer in offers {
        for slot in &offer.slots {
            let before = state.keeping.orphans.remove(&slot.id);
            let orphan = (!is_explained(state, slot)).then(|| Orphan {
                owner: slot.owner.clone(),
                agent_id: offer.agent_id.clone(),
                host: offer.host.clone(),
                size: size(slot),
                port: slot.ports.first().map(|(first, _)| *first),
                has_volume: slot.volume_mib.is_some(),
                since: before.as_ref().map_or(now, |before| before.since),
                told: before.as_ref().is_some_and(|before| before.told),
            });
            state.keeping.changes += u64::from(before != orphan);
            let entry = orphan.map(|orphan| (slot.id.clone(), orphan));
            state.keeping.orphans.extend(entry);
        }
    }
}

fn size(slot: &OfferedSlot) -> Size {
    let disk = slot.disk_mib + slot.volume_mib.unwrap_or_default();
    Size::offered(slot.cpus, slot.mem_mib, disk)
}

/// Decides what an operator says about an orphan; `None`: not before a write that is under way is done.
pub fn decide(state: &State, reclaim: &Reclaim, now: Timestamp) -> Option<Action> {
    let Reclaim { token, slot } = reclaim;
    let reply = |owner: &Orphaned| Reply::Reclaiming {
        slot: slot.clone(),
        whose: owner.clone(),
        lost: "no record says what lies on it".to_owned(),
    };
    // The same request again, after an answer that got lost, gets the same answer as long as the slot is there.
    let mut kept = state.keeping.clusters.values();
    let same = kept.find_map(|kept| {
        let whose = kept.retained.orphaned.as_ref()?;
        kept.retained.left.contains_key(slot).then_some(whose)
    });
    if let Some(whose) = same {
        return Some(Action::Reply(*token, reply(whose)));
    }
    let Some(orphan) = state.keeping.orphans.get(slot) else {
        return Some(refuse(*token, Refusal::UnknownSlot(slot.to_string())));
    };
    if state.keeping.is_being_written(orphan.owner.incarnation) {
        return None;
    }
    if let Some(sentence) = hindrance(state, orphan) {
        return Some(refuse(*token, Refusal::NotPossible(sentence)));
    }
    let whose = Orphaned {
        cluster: orphan.owner.cluster.clone(),
        incarnation: orphan.owner.incarnation,
    };
    let kept = state.keeping.clusters.get(&whose.incarnation);
    let mut retained = match kept {
        Some(kept) => kept.retained.clone(),
        None => Retained::of_orphans(whose.clone(), now),
    };
    retained.left.insert(slot.clone(), given_up(slot, orphan));
    Some(Action::Keep(Deed::Store {
        retained: Box::new(retained),
        expected: kept.and_then(|kept| kept.version),
        replies: vec![(*token, reply(&whose))],
    }))
}

/// The slot as it is stored with the intention to destroy it.
fn given_up(id: &SlotId, orphan: &Orphan) -> Slot {
    Slot {
        id: id.clone(),
        agent_id: orphan.agent_id.clone(),
        host: orphan.host.clone(),
        port: orphan.port.unwrap_or_default(),
        size: orphan.size,
        created_at: orphan.since,
        // It was seen, so it is looked for until its agent says that it is gone.
        used: true,
        agent_gone: false,
        launch_lost_at: None,
        unknown: Default::default(),
    }
}

/// Why it cannot be said that nobody explains an orphan.
fn hindrance(state: &State, orphan: &Orphan) -> Option<String> {
    let incarnation = orphan.owner.incarnation;
    if let Some(cluster) = state.of_incarnation(incarnation) {
        return Some(format!(
            "the cluster {} lives and is the incarnation that the slot's labels name, though its record does not name the slot: the record may \
             be older than the slot, so nothing is destroyed",
            cluster.record.name()
        ));
    }
    let kept = state.keeping.clusters.get(&incarnation);
    if kept.is_some_and(|kept| kept.retained.record.is_some()) {
        return Some(format!(
            "the deleted cluster {} is kept and is the incarnation that the slot's labels name, though its record does not name the slot; try \
             again when nothing is kept of it any more",
            orphan.owner.cluster
        ));
    }
    let unread = state.unusable.len() + state.keeping.unusable.len();
    (unread > 0).then(|| {
        format!(
            "{unread} stored records cannot be read (the log names them), and one of them may explain the slot: repair them and restart the \
             scheduler first"
        )
    })
}
