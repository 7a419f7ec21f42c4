//! What scheduler and executors tell each other: task data, goals and reports.
//!
//! The scheduler writes one [`Goal`] per cluster into ZooKeeper; executors watch it, converge to it
//! and write a [`Report`] each. A message cannot get lost, for there are none: only nodes and
//! watches. [`TaskData`] is what an executor is born with; it travels through Mesos, which shows it
//! to anybody, so nothing in it is secret.
//!
//! All three are JSON with a format number, and unknown keys are ignored, so that a scheduler and
//! an executor of neighbouring versions understand each other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    backup::{ArchiveOrder, ArchiveReport, BackupOrder, BackupReport, RestoreFrom},
    donor::{Donor, FromBackup, WantsDonor},
    flavour::{Flavour, ServerVersion},
    gtid::Position,
    id::{ClusterName, DataId, Epoch, MemberId, ProcessId, TaskId},
    switchover::{Answer, Handover},
    timings::Timings,
    verification::VerifyTask,
    voters::{Terms, Voters},
};
pub use crate::mysql::authentication::Authentication;

/// The format number of goals, reports and task data written by this version.
pub const FORMAT: u32 = 1;

/// The format number of the data of tasks that verify a backup. An executor that does not know it must not run the task as a member's.
pub const VERIFY_FORMAT: u32 = 2;

/// What an executor needs to know before it can read its first goal (`TaskInfo.data`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskData {
    /// See [`FORMAT`].
    pub format: u32,
    /// The cluster's name.
    pub cluster: ClusterName,
    /// The cluster's incarnation.
    pub uuid: Uuid,
    /// Which member the task runs.
    pub member: MemberId,
    /// The task's own id.
    pub task_id: TaskId,
    /// The TCP port of the MySQL server.
    pub port: u16,
    /// The memory of the whole container, in MiB.
    pub memory_mib: u64,
    /// The `zk://` URL of Cotton's root, without credentials.
    pub zookeeper: String,
    /// The file with the executors' ZooKeeper identity on the agent, if there is one.
    pub zookeeper_identity: Option<String>,
    /// The ZooKeeper session timeout to ask for, in milliseconds.
    pub session_timeout_ms: u64,
    /// The file with the MySQL admin account on the agent (`--admin-keypath`).
    pub admin_keypath: String,
    /// How the MySQL server gets onto the agent.
    pub installer: Installer,
    /// How soon faults are noticed.
    #[serde(default)]
    pub timings: Timings,
    /// How fast another member's data may be copied, in MiB per second; 0 for no limit.
    #[serde(default)]
    pub copy_rate_mib: u32,
    /// How many of the commits that a master makes, in percent, may be missing while another member's data is copied; from 1 to 100, which is
    /// for a copy that goes as fast as it can.
    #[serde(default = "copy_cost_percent")]
    pub copy_cost_percent: u8,
    /// What the member begins with in the place of an empty data directory, while the cluster has had no master.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<RestoreTask>,
    /// The owner's settings of the server, in the form of `my.cnf`. Mesos shows them to anybody, like all of this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub my_cnf: Option<String>,
    /// The backup that the task verifies. Then it is no member's, and what concerns members means nothing; see [`VERIFY_FORMAT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<VerifyTask>,
}

/// Earlier schedulers do not say it.
fn copy_cost_percent() -> u8 {
    10
}

/// A backup that a member begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreTask {
    /// Which one, and where it is.
    #[serde(flatten)]
    pub from: RestoreFrom,
    /// The name of the cluster's user. That of the cluster of which the backup was made may have the same.
    pub user: String,
}

/// How the MySQL server gets onto the agent (`--installer-args`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Installer {
    /// A package, fetched and unpacked into the sandbox.
    Package {
        /// Where it is: `http://...`, `file:///...` or an absolute path on the agent.
        package: String,
        /// The package's SHA-256, in hexadecimal. A package that differs is refused.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sha256: Option<String>,
    },
    /// A server that is installed on the agent.
    Installed {
        /// The path of `mysqld` or `mariadbd`.
        mysqld: String,
    },
    /// Whatever `mysqld` or `mariadbd` is found on the agent's search path.
    #[default]
    Search,
}

/// What the members of a cluster are to be: written by the leading scheduler alone, always together
/// with the record that explains it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Goal {
    /// See [`FORMAT`].
    pub format: u32,
    /// The cluster's incarnation; an executor of another one does not obey.
    pub uuid: Uuid,
    /// The epoch of this goal. An executor never obeys one below what it has promised.
    pub epoch: Epoch,
    /// What is to be done in this epoch.
    pub phase: GoalPhase,
    /// Who may acknowledge.
    pub voters: Voters,
    /// What the master does about acknowledgements. Not to be obeyed below
    /// [`Voters::k_floor`]: see [`Goal::acknowledgements`].
    #[serde(default)]
    pub terms: Terms,
    /// The number that the master is to write as a canary; 0 for none. See
    /// [`ClusterRecord::canary`](super::record::ClusterRecord::canary).
    pub canary: u64,
    /// What the winner of each epoch held when it was elected, oldest first.
    pub lineage: Vec<Lineage>,
    /// The cluster's user.
    pub user: ClusterUser,
    /// Where the servers of the members listen, of all that have a task. A master that is out of touch with
    /// ZooKeeper asks the other voters there whether they still follow it.
    #[serde(default)]
    pub addresses: BTreeMap<MemberId, Address>,
    /// Where members that hold nothing copy the cluster's data from.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub donors: BTreeMap<MemberId, Donor>,
    /// The backups of the cluster whose data members get that hold nothing and have no donor.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub from_backup: BTreeMap<MemberId, FromBackup>,
    /// What the master is to do about a switchover, while one is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handover: Option<Handover>,
    /// The backup that one of the members is to make.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupOrder>,
    /// That the master is to archive its binlogs, and where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<ArchiveOrder>,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The host, as its agent is called.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl Goal {
    /// How many acknowledgements the master waits for. A goal of an earlier version has no terms; then it is
    /// what elections count with.
    pub fn acknowledgements(&self) -> u32 {
        self.terms.acknowledgements.max(self.voters.k_floor)
    }

    /// Whether `member` acknowledges what it receives on `data`: if the master waits for acknowledgements, and the
    /// member is a voter with that data.
    pub fn may_acknowledge(&self, member: MemberId, data: DataId) -> bool {
        self.acknowledgements() > 0 && self.voters.may_acknowledge(member, data)
    }
}

/// The account that a cluster's owner logs in with. The executor never gets the password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterUser {
    /// The account's name.
    pub name: String,
    /// The authentication strings for `CREATE USER`.
    pub authentication: Authentication,
}

/// What an epoch asks of the members.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "lowercase")]
pub enum GoalPhase {
    /// There was no master yet: stay closed and report.
    Unborn,
    /// A master is being elected: promise the epoch, stop receiving, read and report what is held.
    Electing,
    /// This member is the master; everybody else follows it.
    Elected(MasterGoal),
    /// The cluster is going away: stop serving. Mesos kills the tasks.
    Deleting,
}

/// The master of an epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MasterGoal {
    /// The member.
    pub member: MemberId,
    /// The incarnation of its data. A member with other data is not the master.
    pub data: DataId,
    /// The incarnation of its server. A server that was started again is not the master.
    pub process: ProcessId,
    /// Where the other members reach it.
    pub host: String,
    /// Where the other members reach it.
    pub port: u16,
    /// All that it held when it was elected.
    pub history: Position,
    /// Whether it has reported that it accepts writes, which it does only once its marker was
    /// acknowledged. Nothing may be set aside or wiped before that.
    pub opened: bool,
}

/// What the winner of an epoch held.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lineage {
    /// The epoch that it won.
    pub epoch: Epoch,
    /// All that it held, received and executed.
    pub history: Position,
}

/// What an executor says of its instance: the data of an ephemeral node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// See [`FORMAT`].
    pub format: u32,
    /// The cluster's incarnation.
    pub uuid: Uuid,
    /// The member.
    pub member: MemberId,
    /// The task.
    pub task_id: TaskId,
    /// What the server is, once it is installed.
    pub server: Option<ServerKind>,
    /// The incarnation of the data directory, once there is one.
    pub data: Option<DataId>,
    /// The running server; `None` while it does not run.
    pub process: Option<ProcessId>,
    /// The highest epoch that the executor has seen and stored.
    pub promised: Epoch,
    /// What the member is doing.
    pub state: MemberState,
    /// What it holds, read after the promise of `held.epoch` and with receiving stopped.
    pub held: Option<Held>,
    /// The highest canary number that it has executed.
    pub canary: u64,
    /// As master: the terms that are in force on its server. The canaries that it writes are begun under the terms of
    /// the goal that asked for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<Terms>,
    /// The version of the newest voters that it has read. It will never act on earlier ones again.
    #[serde(default)]
    pub voters_seen: u64,
    /// Whether its server may be acknowledging what it receives.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub acknowledges: bool,
    /// A sentence for a person, when something hinders it.
    pub problem: Option<String>,
    /// Which fault of the server that is, where faults are told apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Trouble>,
    /// Whether it holds nothing and waits for a donor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wants_donor: Option<WantsDonor>,
    /// The data directory that this task has set aside last, because it holds what is not in the cluster's history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_aside: Option<SetAside>,
    /// The port at which the executor hands out a stream of its server's data to other executors of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_port: Option<u16>,
    /// By how many seconds at the least it is behind in applying what it receives; 0 for less than five. It is told in
    /// steps.
    #[serde(default, skip_serializing_if = "crate::cluster::is_default")]
    pub lag_seconds: u64,
    /// As master: what has become of the last switchover that it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handover: Option<Answer>,
    /// How far the backup is that it was told to make.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupReport>,
    /// As master: how far its binlogs are archived, if they are to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<ArchiveReport>,
    /// As master: its task is to end, though the cluster has not asked for that, and it goes on for a moment so that
    /// another member can take over.
    #[serde(default, skip_serializing_if = "crate::cluster::is_default")]
    pub held_back: bool,
}

/// The faults of a server that an executor tells apart, each of which has a remedy of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trouble {
    /// The server gives no sign of life. It is killed and started again, closed.
    Hung,
    /// The server answers, but commits do not reach the disk. It is killed where another voter can take over.
    Stalled,
    /// The disk of the data directory has no space left. The server is killed where every acknowledged write
    /// is elsewhere too; else it waits for space.
    Full,
    /// Commits wait for acknowledgements that do not come. Voters connect anew by themselves.
    Unacknowledged,
    /// The same for so long that another member should be master, if enough others are in sight to elect one.
    Stuck,
    /// The master was out of touch with ZooKeeper without proof that it was not replaced. It is killed.
    Lapsed,
}

/// A data directory that was set aside, in the words of a report. Paths begin at the task's sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    /// Which one.
    pub data: DataId,
    /// The transactions in it that are not in the cluster's history.
    pub extras: Position,
    /// The file with these transactions as SQL (gzip), once they are exported.
    pub export: Option<String>,
    /// Why they are not, in the last attempt.
    pub problem: Option<String>,
}

/// What a member holds beyond the cluster's history, and where that ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beyond {
    /// The transactions that are not in the history.
    pub extras: Position,
    /// The history that the member's own has in common with the cluster's, or contains.
    pub common: Position,
    /// What the member has executed of all that it holds.
    pub executed: Position,
}

/// A report of an earlier version does not say whether the server acknowledges: it may.
fn yes() -> bool {
    true
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes what it serialises by reference"
)]
fn is_true(value: &bool) -> bool {
    *value
}

/// The kind of a server, read from its binary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerKind {
    /// MySQL or MariaDB.
    pub flavour: Flavour,
    /// The version.
    pub version: ServerVersion,
}

/// What a member is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum MemberState {
    /// It installs the server, makes a data directory or starts the server.
    Provisioning,
    /// The server runs, closed to clients, and waits for a goal that gives it a role.
    Closed,
    /// It follows the master of the epoch.
    Following {
        /// The epoch.
        epoch: Epoch,
        /// Whether it receives, applies, and has executed the epoch's marker: it is ready to serve.
        ready: bool,
    },
    /// It is the master of the epoch.
    Master {
        /// The epoch.
        epoch: Epoch,
        /// Whether clients can write. That takes the acknowledged marker.
        writable: bool,
    },
    /// It could not become the master of this epoch; a new election is needed.
    Refused {
        /// The epoch.
        epoch: Epoch,
    },
    /// It holds transactions that are not in the cluster's history.
    Quarantined,
    /// The server has ended and is going to be started again.
    Dead,
    /// It is stopping for good.
    Stopping,
}

/// What a member holds, for the comparison in an election.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// The epoch whose promise preceded the reading.
    pub epoch: Epoch,
    /// Received and executed transactions, counting what relay log files hold.
    pub position: Position,
    /// The executed part of it.
    pub executed: Position,
}

/// The reports of a cluster's members by task.
pub type Reports = BTreeMap<TaskId, Report>;
