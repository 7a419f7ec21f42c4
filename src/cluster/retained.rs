//! What is kept of a deleted cluster: its record, and the slots with its data, until they may be destroyed.

use std::{collections::BTreeMap, time::Duration};

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
        let slots = record
            .members
            .values()
            .flat_map(|member| member.slot.iter().chain(&member.given_up))
            .chain(record.departed.values().filter_map(|it| it.slot.as_ref()));
        let left: BTreeMap<SlotId, Slot> =
            slots.map(|slot| (slot.id.clone(), slot.clone())).collect();
        (!left.is_empty()).then(|| Self {
            format: FORMAT,
            record: Some(Box::new(record.clone())),
            orphaned: None,
            deleted_at: now,
            destroy_at: now.plus(keep_for),
            destroying: false,
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
            left: BTreeMap::new(),
            unknown: serde_json::Map::new(),
        }
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
    /// It is the last record, as that of a cluster all of whose tasks have ended: incarnation, epoch, voters and slots stay, so
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
        record.lossy = record.lossy.filter(|lossy| !lossy.is_pending());
        for member in record.members.values_mut() {
            member.failing = None;
            // Whether a slot that was never used exists is seen by offers that come from now on.
            if let Some(slot) = member.slot.as_mut().filter(|slot| !slot.used) {
                slot.launch_lost_at = Some(now);
            }
        }
        Some(record)
    }
}
