//! A member's slot: what is reserved for it on an agent, and the persistent volume that holds its data.
//!
//! A slot outlives the tasks that run on it. Everything that must survive a task lies in its volume, which
//! appears in the sandbox as the folder [`CONTAINER_PATH`].

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    id::{ClusterName, MemberId},
    size::Size,
};
use crate::time::Timestamp;

/// Where the volume appears, from the sandbox on.
pub const CONTAINER_PATH: &str = "state";

/// How much of a slot's disk, in MiB, is not its volume: the sandbox with the fetched executor, settings and logs.
pub const SANDBOX_DISK_MIB: u64 = 64;

/// Tells slots apart, for ever: `<uuid of the cluster>.<member>.<launch that made it>`. It is the persistence id of the
/// volume, which is the name of its folder on the agent, and so has no character that a file's name cannot have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SlotId(String);

impl SlotId {
    /// The id of the slot that a member's `launch`-th task is the first to run on.
    pub fn new(cluster: Uuid, member: MemberId, launch: u32) -> Self {
        Self(format!("{cluster}.{member}.{launch}"))
    }

    /// Takes over an id that Mesos named.
    pub fn from_wire(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One member's slot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Slot {
    /// Its id.
    pub id: SlotId,
    /// Mesos' id of the agent. An agent that was removed and comes back has another one, and the same slots.
    pub agent_id: String,
    /// The agent's host name.
    pub host: String,
    /// The port that is reserved, which all tasks on the slot listen on.
    pub port: u16,
    /// All that is reserved but for the port, the volume included.
    pub size: Size,
    /// When its making was stored.
    pub created_at: Timestamp,
    /// Whether a task on it was ever heard of. Such a slot may hold data that counts, and is never given up because of
    /// anything that happens to tasks. It is stored no later than anything that makes the data count.
    pub used: bool,
    /// Whether an operator has told Mesos that its agent is gone for good.
    #[serde(default, skip_serializing_if = "crate::cluster::is_default")]
    pub agent_gone: bool,
    /// Since when it is known that the launch of its only task has come to nothing, so that the slot may not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch_lost_at: Option<Timestamp>,
    /// Keys of a later version, kept as they are.
    #[serde(flatten)]
    pub unknown: serde_json::Map<String, serde_json::Value>,
}

/// Whose slot something is, as the labels of its reservation say.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SlotOwner {
    /// The cluster's name.
    pub cluster: ClusterName,
    /// The incarnation of the name.
    pub incarnation: Uuid,
    /// The member.
    pub member: MemberId,
}

/// The size of the volume in MiB, in a slot of `size`.
pub const fn volume_mib(size: &Size) -> u64 {
    size.disk_mib().saturating_sub(SANDBOX_DISK_MIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slots_id_is_a_name_of_a_folder() {
        let id = SlotId::new(Uuid::from_u128(7), MemberId(2), 11);
        assert_eq!(id.as_str(), "00000000-0000-0000-0000-000000000007.2.11");
    }

    #[test]
    fn the_smallest_volume_holds_a_server() {
        // A fresh data directory with its redo log takes up to 200 MB.
        assert!(volume_mib(&Size::MIN) > 400);
    }
}
