//! What a master that is killed has to know when it is back. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::local::wire::Proto;
use crate::mesos::v1::{DurationInfo, MachineId, Unavailability, master::Schedule};

/// The stored part of a master's state. Mesos calls it the same, and keeps it in a replicated log.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Registry {
    /// Agents that may come back under their id.
    pub admitted: BTreeSet<String>,
    /// Agents that an operator gave up for good.
    pub gone: BTreeSet<String>,
    /// Agents that are to get no tasks.
    pub deactivated: BTreeSet<String>,
    /// Agents that are to be, or were, emptied.
    pub draining: BTreeMap<String, Drain>,
    /// Machines that are scheduled for maintenance or are down for it.
    pub machines: Vec<Machine>,
    /// What the operator said last.
    pub schedule: Option<Proto<Schedule>>,
}

/// How an agent is being emptied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drain {
    /// Shortens the grace period of tasks that state a longer one.
    pub max_grace_period: Option<Proto<DurationInfo>>,
    /// Whether to give the agent up when it is empty.
    pub mark_gone: bool,
    /// Nothing runs on it any more.
    pub drained: bool,
}

/// A machine and its maintenance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// By host name and address.
    pub id: Proto<MachineId>,
    /// From when, and for how long.
    pub unavailability: Proto<Unavailability>,
    /// The operator has begun.
    pub down: bool,
}

impl Registry {
    /// What is known of a machine's maintenance.
    pub fn machine(&self, id: &MachineId) -> Option<&Machine> {
        self.machines.iter().find(|machine| machine.id.0 == *id)
    }
}

/// The same machine, written as two people may write it.
pub fn normalized(mut id: MachineId) -> MachineId {
    id.hostname = id.hostname.map(|name| name.to_lowercase());
    id
}
