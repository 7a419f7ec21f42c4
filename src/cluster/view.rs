//! What the API shows of a cluster.

use serde::{Deserialize, Serialize};

use super::{
    backup::{BackupId, BackupOutcome},
    data_loss::{LossyFailover, Offer},
    flavour::Flavour,
    id::ClusterName,
    size::Size,
    switchover::Switchover,
    voters::Durability,
};
use crate::time::Timestamp;

/// A cluster as `GET /clusters/<name>` answers it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterView {
    /// The name.
    pub name: ClusterName,
    /// The cluster's user.
    pub user: String,
    /// How many members were asked for.
    pub num_nodes: u32,
    /// The resources of each member, the executor's share included.
    pub size: Size,
    /// MySQL or MariaDB, once known.
    pub flavour: Option<Flavour>,
    /// The server's version, once known.
    pub version: Option<String>,
    /// What an acknowledged write is worth.
    pub durability: Durability,
    /// How the cluster does.
    pub state: ClusterState,
    /// The same as a sentence: why, and what is awaited.
    pub reason: String,
    /// Where clients find master and slaves.
    pub cluster_url: String,
    /// The number of the current master's term.
    pub epoch: u64,
    /// What is being changed, and what an operator can do or has done about a quorum that is missing.
    #[serde(flatten)]
    pub standing: Standing,
    /// The members.
    pub members: Vec<MemberView>,
}

/// What there is to know of a cluster beside its state, where there is anything.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// What its writes still lack to be worth what `durability` says, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changing: Option<String>,
    /// Since when nothing is decided, because an operator has paused the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_since: Option<Timestamp>,
    /// The way out that an operator has while the cluster cannot go on by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover_offer: Option<Offer>,
    /// The last failover with the loss of data: under way as long as it has no outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lossy_failover: Option<LossyFailover>,
    /// The last switchover: under way as long as it has no outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switchover: Option<Switchover>,
    /// The members that come and go, and agents that are away, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub membership: Vec<String>,
    /// The backup that is being made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupView>,
    /// What came of the last backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_backup: Option<BackupOutcome>,
    /// The backup that the cluster was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_from: Option<BackupId>,
}

/// A backup that is being made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupView {
    /// Counts the cluster's backups.
    pub number: u64,
    /// Its id.
    pub id: BackupId,
    /// The member that makes it, once one was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<u32>,
    /// How many bytes of the server's data were read so far.
    pub bytes: u64,
}

/// How a cluster does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClusterState {
    /// It has not had a master that accepts writes yet.
    Creating,
    /// It has a master, and every member is ready.
    Running,
    /// It has a master, but not every member is ready.
    Degraded,
    /// A new master is being found.
    Electing,
    /// It has no master and waits for members or for an operator.
    Waiting,
    /// It is being deleted.
    Deleting,
    /// It cannot go on by itself.
    Failed,
}

impl ClusterState {
    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Running => "running",
            Self::Degraded => "degraded",
            Self::Electing => "electing",
            Self::Waiting => "waiting",
            Self::Deleting => "deleting",
            Self::Failed => "failed",
        }
    }
}

/// One member in a [`ClusterView`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    /// Its number.
    pub id: u32,
    /// Its MySQL `server_id`.
    pub server_id: u32,
    /// The host it runs on, once it was placed.
    pub host: Option<String>,
    /// The port of its MySQL server, once it was placed.
    pub port: Option<u16>,
    /// What it is in replication.
    pub role: MemberRole,
    /// How it does.
    pub state: MemberViewState,
    /// Whether the master may count its acknowledgement.
    pub voter: bool,
    /// Whether it is to leave the cluster.
    #[serde(default, skip_serializing_if = "is_false")]
    pub leaving: bool,
    /// Mesos' id of the agent.
    pub agent_id: Option<String>,
    /// Mesos' id of the task.
    pub task_id: Option<String>,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes what it serialises by reference"
)]
fn is_false(value: &bool) -> bool {
    !*value
}

/// What a member is in replication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberRole {
    /// It accepts writes.
    Master,
    /// It follows the master and is ready to be read.
    Slave,
    /// Neither.
    None,
}

/// How a member does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberViewState {
    /// Its task is waiting for an offer or was just launched.
    Launching,
    /// Its server is being made ready.
    Provisioning,
    /// Its server runs.
    Running,
    /// Nothing is heard of it.
    Lost,
    /// It holds transactions that are not in the cluster's history.
    Quarantined,
}

impl MemberViewState {
    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Launching => "launching",
            Self::Provisioning => "provisioning",
            Self::Running => "running",
            Self::Lost => "lost",
            Self::Quarantined => "quarantined",
        }
    }
}

impl MemberRole {
    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Slave => "slave",
            Self::None => "none",
        }
    }
}
