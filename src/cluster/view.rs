//! What the API shows of a cluster.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    backup::{BackupId, BackupOutcome, CompleteBackup},
    backup_rules::{BackupKeep, BackupSchedule},
    data_loss::{LossyFailover, Offer},
    flavour::Flavour,
    id::ClusterName,
    size::Size,
    spec::ReplaceAfter,
    switchover::Switchover,
    verification::VerificationView,
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
    /// The members' agents that are to be taken away, and what is done about it, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub maintenance: Vec<String>,
    /// How far a change of size, settings or package is that is not over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<ChangeView>,
    /// The backup that is being made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupView>,
    /// What came of the last backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_backup: Option<BackupOutcome>,
    /// Everything that was committed before this moment is archived, as far as the master has told. It tells every half a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived_until: Option<Timestamp>,
    /// The same, if a backup was completed from which that can be restored: what can be lost with the whole cluster was committed later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recoverable_until: Option<Timestamp>,
    /// Why binlogs are not archived at the moment, or what is missing in the archive, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive_problem: Option<String>,
    /// The package with the server, where another one than the default was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// The owner's settings for the servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub my_cnf: Option<String>,
    /// How long an agent may be away before its member is replaced, where the cluster has a time of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace_after: Option<ReplaceAfter>,
    /// When backups are made and kept, where there is a store for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backups: Option<BackupStanding>,
    /// The backup that the cluster was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_from: Option<BackupId>,
    /// The same, as long as members are still made from it: until a master has opened it must stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restoring: Option<BackupId>,
    /// The backups whose data members get because no other member can give its own; they must stay meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members_from: Vec<BackupId>,
}

/// When a cluster's backups are made, and which are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackupStanding {
    /// The cluster's incarnation: backups of a former cluster of its name are not its own.
    pub incarnation: Uuid,
    /// When they are made without being asked for.
    pub schedule: BackupSchedule,
    /// Which are kept.
    pub keep: BackupKeep,
    /// When the next one is due by the schedule, or to be tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Timestamp>,
    /// The last one that was completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_complete: Option<CompleteBackup>,
    /// Whether they are good, where they are verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<VerificationView>,
}

impl BackupStanding {
    /// The same for people, with what is under way and what failed.
    pub fn sentence(&self, standing: &Standing) -> String {
        let mut parts = vec![match &self.last_complete {
            Some(last) => format!("last {} of {}", last.id, last.asked_at),
            None => "none yet".to_owned(),
        }];
        if let Some(failed) = standing.last_backup.as_ref().filter(|last| !last.done) {
            parts.push(format!(
                "{} came to nothing: {}",
                failed.id, failed.sentence
            ));
        }
        match (&standing.backup, self.next_at) {
            (Some(backup), _) => parts.push(format!("{} is being made", backup.id)),
            (None, Some(next)) => parts.push(format!("next due {next} ({})", self.schedule)),
            (None, None) => parts.push("no schedule".to_owned()),
        }
        let verification = self.verification.as_ref();
        parts.extend(verification.and_then(VerificationView::sentence));
        parts.join("; ")
    }
}

/// How far a change of the members' configuration is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeView {
    /// The revision of the configuration that is wanted.
    pub revision: u64,
    /// When it was asked for.
    pub asked_at: Timestamp,
    /// The members whose tasks are launched with it.
    pub members_with_it: Vec<u32>,
    /// The members that still have another one.
    pub members_without_it: Vec<u32>,
    /// Why no further member is changed, as a sentence, if the change has stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
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
    #[serde(default, skip_serializing_if = "crate::cluster::is_default")]
    pub leaving: bool,
    /// The revision of the configuration that its tasks are launched with; 0 is that of the cluster's creation.
    #[serde(default, skip_serializing_if = "crate::cluster::is_default")]
    pub revision: u64,
    /// Mesos' id of the agent.
    pub agent_id: Option<String>,
    /// Mesos' id of the task.
    pub task_id: Option<String>,
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
