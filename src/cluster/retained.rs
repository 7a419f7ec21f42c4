//! What is kept of a deleted cluster: its record, and the slots with its data, until they may be destroyed.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    record::ClusterRecord,
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
    /// The cluster's last record.
    pub record: ClusterRecord,
    /// When the last task had ended and the cluster was removed.
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

impl Retained {
    /// What is to be kept of a cluster that is removed now, or nothing if none of its members has a slot.
    pub fn of(record: &ClusterRecord, now: Timestamp, keep_for: Duration) -> Option<Self> {
        let slots = record
            .members
            .values()
            .flat_map(|member| member.slot.iter().chain(&member.given_up));
        let left: BTreeMap<SlotId, Slot> =
            slots.map(|slot| (slot.id.clone(), slot.clone())).collect();
        (!left.is_empty()).then(|| Self {
            format: FORMAT,
            record: record.clone(),
            deleted_at: now,
            destroy_at: now.plus(keep_for),
            destroying: false,
            left,
            unknown: serde_json::Map::new(),
        })
    }

    /// The incarnation of the cluster.
    pub fn incarnation(&self) -> Uuid {
        self.record.uuid
    }
}
