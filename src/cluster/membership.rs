//! Members that are to leave, and what is left of those that have left.

use serde::{Deserialize, Serialize};

use super::{
    id::{MemberId, TaskId},
    slot::Slot,
};
use crate::time::Timestamp;

/// A member is to leave its cluster. It is stored before anything is done about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// Why.
    pub why: Why,
    /// Since when.
    pub since: Timestamp,
    /// The member that takes its place, which must be in it before this one gives anything up. `None`: nobody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replacement: Option<MemberId>,
    /// Keys of a later version, kept as they are.
    #[serde(flatten)]
    pub unknown: serde_json::Map<String, serde_json::Value>,
}

/// Why a member is to leave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Why {
    /// The cluster is to have fewer members.
    Scaled,
    /// Somebody has asked for another member in its place.
    Replaced,
    /// The cluster's configuration has changed in a way that needs another slot, or it has none to come back to.
    Changed,
    /// Its agent was away for too long, or an operator has told Mesos that it is gone for good.
    AgentGone {
        /// The agent's host name.
        host: String,
        /// Since when it was away, as the scheduler knew it.
        away_since: Timestamp,
    },
    /// Its agent is to be taken away, and the cluster cannot wait until it is back.
    AgentDrained {
        /// The agent's host name.
        host: String,
        /// From when on, as it was planned.
        from: Timestamp,
    },
}

/// What is left of a member that has left, until nothing is: a slot to be released or kept, a task whose end is not known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Departed {
    /// When it left.
    pub since: Timestamp,
    /// Its slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<Slot>,
    /// Whether the slot is to be destroyed. It is stored before that is asked for, and never taken back. A slot is kept if
    /// the data on it is not proven to be elsewhere.
    #[serde(default)]
    pub destroy: bool,
    /// Slots that it had given up before, which may turn up after all: see [`MemberRecord::given_up`](super::record::MemberRecord::given_up).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub given_up: Vec<Slot>,
    /// Its last task, if it is not known to have ended: its agent does not answer. Until that is known, its replication account
    /// stays locked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// Keys of a later version, kept as they are.
    #[serde(flatten)]
    pub unknown: serde_json::Map<String, serde_json::Value>,
}

impl Leaving {
    /// The same as the end of a sentence.
    pub fn sentence(&self) -> String {
        match &self.why {
            Why::Scaled => "the cluster is to have fewer members".to_owned(),
            Why::Replaced => "it was asked for that another one takes its place".to_owned(),
            Why::Changed => "the cluster is to have another configuration".to_owned(),
            Why::AgentGone { host, away_since } => {
                format!("its agent on {host} is away since {away_since}")
            }
            Why::AgentDrained { host, from } => {
                format!("its agent on {host} is to be taken away at {from}")
            }
        }
    }
}

impl Departed {
    /// Whether nothing is left of it.
    pub fn is_over(&self) -> bool {
        self.slot.is_none() && self.task.is_none() && self.given_up.is_empty()
    }
}
