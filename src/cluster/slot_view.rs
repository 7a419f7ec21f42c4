//! What the API shows of slots, and of deleted clusters while theirs are kept.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    id::{ClusterName, MemberId},
    size::Size,
    slot::SlotId,
};
use crate::time::Timestamp;

/// A slot as `GET /slots` answers it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SlotView {
    /// Its id.
    pub slot: SlotId,
    /// What becomes of it.
    pub state: SlotState,
    /// The name of the cluster that it belongs to. Where there is no record, the labels of the reservation say so.
    pub cluster: ClusterName,
    /// The incarnation of the cluster.
    pub incarnation: Uuid,
    /// The member that it belongs to. It is missing where nothing is known of the member any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<MemberId>,
    /// Mesos' id of its agent, as last seen.
    pub agent_id: String,
    /// The agent's host name.
    pub host: String,
    /// Its port, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// All that is reserved but for the port, the volume included; of an orphan, what was offered of it last.
    pub size: Size,
    /// When its making was stored; when it was first seen, if it is an orphan.
    pub since: Timestamp,
    /// Until when it is kept although its cluster was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_until: Option<Timestamp>,
}

/// What becomes of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SlotState {
    /// The member's task runs on it.
    InUse,
    /// The member is to be launched on it.
    Waiting,
    /// It was never used, and may not exist. If it turns up it is destroyed.
    GivenUp,
    /// Its cluster was deleted, and can be brought back; or its member has left a cluster that lives, and what lies on it is not
    /// proven to be elsewhere.
    Kept,
    /// It is destroyed as soon as its agent offers it.
    Destroying,
    /// No record explains it. It is left alone until an operator decides.
    Orphaned,
}

impl SlotState {
    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InUse => "in-use",
            Self::Waiting => "waiting",
            Self::GivenUp => "given-up",
            Self::Kept => "kept",
            Self::Destroying => "destroying",
            Self::Orphaned => "orphaned",
        }
    }
}

/// A deleted cluster whose slots are not all gone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeletedCluster {
    /// The name that it had.
    pub name: ClusterName,
    /// Its incarnation, which tells it apart from others of that name.
    pub incarnation: Uuid,
    /// Its user, whose password brings it back.
    pub user: String,
    /// How many members it had.
    pub num_nodes: u32,
    /// When it was gone.
    pub deleted_at: Timestamp,
    /// Until when it can be brought back.
    pub kept_until: Timestamp,
    /// Whether its slots are being destroyed, so that it cannot come back any more.
    pub destroying: bool,
    /// How many slots are left of it.
    pub slots: usize,
}

/// What is left of deleted clusters, and what no record explains.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Left {
    /// The deleted clusters, the one that was deleted last first.
    pub deleted: Vec<DeletedCluster>,
    /// Their slots, and the orphans.
    pub slots: Vec<SlotView>,
}

impl Left {
    /// The slots that wait for an operator.
    pub fn orphans(&self) -> impl Iterator<Item = &SlotView> {
        let slots = self.slots.iter();
        slots.filter(|slot| slot.state == SlotState::Orphaned)
    }
}

/// What to do about orphans, as a sentence.
pub const WHAT_TO_DO: &str = "they are left alone: bring the state back that knows them and restart the scheduler, or, if nobody needs the \
     data, give each up with cotton admin slots --reclaim SLOT";
