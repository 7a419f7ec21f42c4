//! What is kept of a deleted cluster: its record, and the slots with its data, until they may be destroyed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    id::ClusterName,
    record::{ClusterRecord, Published, Undeleted},
    slot::{Slot, SlotId},
};
use crate::time::Timestamp;

/// The format number of what this version writes.
pub const FORMAT: u32 = 1;

/// A deleted cluster whose slots are not all gone yet. It is known by its incarnation: the name may belong to another one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Retained {
    /// See [`FORMAT`].
    pub format: u32,
    /// The cluster's last record. Slots that no record explained, and that an operator has given up, have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Box<ClusterRecord>>,
    /// Whose slots they were by their labels, where there is no record that says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orphaned: Option<Orphaned>,
    /// When the last task had ended and the cluster was removed, or when an operator has given the slots up.
    pub deleted_at: Timestamp,
    /// From when on its slots may be destroyed.
    pub destroy_at: Timestamp,
    /// Whether they are being destroyed. It is stored before the first is, and never taken back.
    pub destroying: bool,
    /// Slots that are being destroyed before that: those that an administrator has given up, and those of members that had left before the
    /// cluster was deleted. It is stored before they are, and never taken back.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub reclaimed: BTreeSet<SlotId>,
    /// The slots that are not known to be gone.
    pub left: BTreeMap<SlotId, Slot>,
    /// Keys of a later version, kept as they are.
    #[serde(flatten)]
    pub unknown: serde_json::Map<String, serde_json::Value>,
}

/// Whose slots were, by the labels of their reservations, that no record explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orphaned {
    /// The cluster's name.
    pub cluster: ClusterName,
    /// Its incarnation.
    pub incarnation: Uuid,
}

impl Retained {
    /// What is to be kept of a cluster that is removed now, or nothing if it has no slot.
    pub fn of(record: &ClusterRecord, now: Timestamp, keep_for: Duration) -> Option<Self> {
        let members = record.members.values();
        let members = members.flat_map(|member| member.slot.iter().chain(&member.given_up));
        let departed = record.departed.values();
        let departed = departed.flat_map(|left| left.slot.iter().chain(&left.given_up));
        // An agent that an operator has told Mesos to be gone is never let in again.
        let slots = members.chain(departed).filter(|slot| !slot.agent_gone);
        let left: BTreeMap<SlotId, Slot> =
            slots.map(|slot| (slot.id.clone(), slot.clone())).collect();
        let departed = record.departed.values();
        let given_up = departed.flat_map(|left| {
            let own = left.slot.iter().filter(|_| left.destroy);
            own.chain(&left.given_up).map(|slot| slot.id.clone())
        });
        (!left.is_empty()).then(|| Self {
            format: FORMAT,
            record: Some(Box::new(record.clone())),
            orphaned: None,
            deleted_at: now,
            destroy_at: now.plus(keep_for),
            destroying: false,
            reclaimed: given_up.collect(),
            left,
            unknown: serde_json::Map::new(),
        })
    }

    /// The intention to destroy slots that no record explains: none yet.
    pub fn of_orphans(whose: Orphaned, now: Timestamp) -> Self {
        Self {
            format: FORMAT,
            record: None,
            orphaned: Some(whose),
            deleted_at: now,
            destroy_at: now,
            destroying: true,
            reclaimed: BTreeSet::new(),
            left: BTreeMap::new(),
            unknown: serde_json::Map::new(),
        }
    }

    /// Whether a slot is to be destroyed now.
    pub fn is_to_go(&self, slot: &SlotId) -> bool {
        self.left.contains_key(slot) && (self.destroying || self.reclaimed.contains(slot))
    }

    /// The incarnation of the cluster. What says of none has the nil one, which no cluster has.
    pub fn incarnation(&self) -> Uuid {
        let orphaned = self.orphaned.as_ref().map(|whose| whose.incarnation);
        let recorded = self.record.as_ref().map(|record| record.uuid);
        recorded.or(orphaned).unwrap_or_default()
    }

    /// The name that the cluster had.
    pub fn name(&self) -> Option<&ClusterName> {
        let orphaned = self.orphaned.as_ref().map(|whose| &whose.cluster);
        let recorded = self.record.as_ref().map(|record| record.name());
        recorded.or(orphaned)
    }

    /// The record with which the cluster comes back under `name`, or nothing if there is none to come back with.
    ///
    /// It is the last record, as that of a cluster all of whose tasks have ended, but for those on agents that were away: incarnation, epoch, voters and slots stay, so
    /// the members elect again with what they have, by the rules of any election. That it was being deleted is the one thing that is
    /// taken back. Neither an operator's word that data may be lost nor a pause is
    /// carried over: whoever brings a cluster back wants its data, and wants it to run.
    pub fn undeleted(&self, name: &ClusterName, now: Timestamp) -> Option<ClusterRecord> {
        let mut record = ClusterRecord::clone(self.record.as_ref()?);
        record.undeleted = Some(Undeleted {
            deleted_as: record.spec.name.clone(),
            deleted_at: self.deleted_at,
            at: now,
        });
        record.spec.name = name.clone();
        record.deleting = false;
        record.paused_since = None;
        record.published = Published::default();
        // Its archive may have been removed with its backups, and under another name it begins anew.
        record.archive = None;
        record.lossy = record.lossy.filter(|lossy| !lossy.is_pending());
        for member in record.members.values_mut() {
            member.failing = None;
            // Whether a slot that was never used exists is seen by offers that come from now on.
            if let Some(slot) = member.slot.as_mut().filter(|slot| !slot.used) {
                slot.launch_lost_at = Some(now);
            }
        }
        // What was given up meanwhile of members that have left goes on to be destroyed, or is gone.
        for left in record.departed.values_mut() {
            left.given_up
                .retain(|slot| self.left.contains_key(&slot.id));
            let Some(slot) = left.slot.take_if(|slot| self.reclaimed.contains(&slot.id)) else {
                continue;
            };
            if self.left.contains_key(&slot.id) {
                left.destroy = true;
                left.slot = Some(slot);
            }
        }
        record.departed.retain(|_, left| !left.is_over());
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use crate::cluster::{id::MemberId, membership::Departed};

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    /// A deleted cluster whose member 2 has a slot that was never used.
    fn sample() -> Retained {
        let text = include_str!("../../tests/fixtures/formats/retained-3.json");
        serde_json::from_str(text).unwrap()
    }

    /// The record of a cluster from which a member with a slot has left.
    fn with_departed(destroy: bool) -> (ClusterRecord, SlotId) {
        let mut record = *sample().record.unwrap();
        let slot = record.members[&MemberId(2)].slot.clone().unwrap();
        let slot = Slot {
            id: SlotId::from_wire("00000001-0000-0000-0000-000000000001.7.1"),
            ..slot
        };
        let id = slot.id.clone();
        let departed = Departed {
            since: NOW,
            slot: Some(slot),
            destroy,
            given_up: Vec::new(),
            task: None,
            unknown: Default::default(),
        };
        record.departed.insert(MemberId(7), departed);
        (record, id)
    }

    fn back(retained: &Retained) -> ClusterRecord {
        let name = retained.name().unwrap().clone();
        retained.undeleted(&name, NOW).unwrap()
    }

    /// Goal: the word to destroy what a member left behind outlives its cluster; without the word it is kept like the rest.
    #[test]
    fn what_was_being_destroyed_goes_on_to_be() {
        for destroy in [false, true] {
            let (record, slot) = with_departed(destroy);
            let retained = Retained::of(&record, NOW, Duration::from_secs(60)).unwrap();
            assert_eq!(retained.is_to_go(&slot), destroy);
            assert!(!retained.destroying && retained.left.contains_key(&slot));
        }
    }

    /// Goal: what was given up while the cluster was deleted is still to be destroyed when it comes back, unless it is gone.
    #[test]
    fn what_was_given_up_meanwhile_is_not_taken_back() {
        let (record, slot) = with_departed(false);
        let mut retained = Retained::of(&record, NOW, Duration::from_secs(60)).unwrap();
        assert!(!back(&retained).departed[&MemberId(7)].destroy);
        retained.reclaimed.insert(slot.clone());
        let left = back(&retained).departed[&MemberId(7)].clone();
        assert!(left.destroy && left.slot.is_some());
        retained.left.remove(&slot);
        assert!(back(&retained).departed.is_empty());
    }

    /// Goal: whether a slot exists that was never used is asked anew, as offers of that time tell.
    #[test]
    fn slots_that_were_never_used_are_looked_for_again() {
        let (record, _) = with_departed(false);
        let retained = Retained::of(&record, NOW, Duration::from_secs(60)).unwrap();
        let slot = back(&retained).members[&MemberId(2)].slot.clone().unwrap();
        assert!(!slot.used);
        assert_eq!(slot.launch_lost_at, Some(NOW));
    }
}
