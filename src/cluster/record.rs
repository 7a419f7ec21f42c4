//! The durable state of one cluster: what a new scheduler needs to carry on where the old one died.
//!
//! One record is one JSON document, written with compare-and-set. Everything that a scheduler tells
//! the world follows from it: [`ClusterRecord::goal`] is what the executors are told,
//! [`ClusterRecord::discovery`] is what clients find. Both are written in the same ZooKeeper
//! transaction as the record, so no crash can come between them.
//!
//! What can be learnt anew is not stored: states of tasks (Mesos reconciles them) and reports.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    backup::{ArchiveOrder, BackupOrder, Backups, Restore},
    configuration::{Configuration, Restart, Rolling},
    control::{self, Address, ClusterUser, Goal, GoalPhase, Lineage, MasterGoal, ServerKind},
    data_loss::{LastHeld, LossyFailover},
    donor::{Chosen, Donor, FromBackup},
    failover_record::FailoverLog,
    flavour::Flavour,
    gtid::Position,
    id::{ClusterName, DataId, Epoch, MemberId, ProcessId, TaskId},
    membership::{Departed, Leaving},
    service_instance::ServiceInstance,
    slot::Slot,
    spec::ClusterSpec,
    switchover::{Handover, Switchover},
    voters::{Durability, Terms, VoterChange, Voters},
};
use crate::time::Timestamp;

/// The format number of records written by this version.
pub const FORMAT: u32 = 1;

/// How many winners' histories are kept on MariaDB. On MySQL the newest is enough.
///
/// What needs them is [`gtid::beyond`](super::gtid::beyond), which compares a member with the cluster's history. On MySQL
/// a GTID names one transaction only, so the newest history says it all. On MariaDB the oldest entry that it may need is
/// that of the first epoch after the highest marker that the member holds. Nothing else reads an old entry: elections compare reports
/// with each other, and what a failover with loss is known to lose is compared with the newest.
///
/// No number bounds how old a marker a member may come back with: its host may have been away for a year. So the bound is one
/// of size, and what it costs falls on such a member: it cannot be compared, which `beyond` takes for divergence of
/// everything that it holds. It is set aside, exported and made anew, never followed on a guess. An entry has some 150 bytes in JSON,
/// so this many have 20 KiB of the megabyte that ZooKeeper takes; and a cluster that fails over without end backs off to one
/// epoch in two minutes, so a member that is away for four hours is compared even then.
pub const MOST_LINEAGE: usize = 128;

/// Everything durable about one cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// See [`FORMAT`].
    pub format: u32,
    /// This incarnation of the name. Markers carry it (on MySQL as the GTID's source id).
    pub uuid: Uuid,
    /// What was asked for.
    pub spec: ClusterSpec,
    /// The cluster user's password, sealed with the scheduler's key.
    pub sealed_password: String,
    /// The user as the servers get to know it.
    pub user: ClusterUser,
    /// When the request was accepted.
    pub created_at: Timestamp,
    /// Whether the cluster is being deleted. A record that is there never takes it back; a cluster that is gone and kept comes back
    /// with a record that does not say so, see [`Retained::undeleted`](super::retained::Retained::undeleted).
    pub deleting: bool,
    /// The flavour and version of the servers, as first reported.
    pub server: Option<ServerKind>,
    /// The current epoch.
    pub epoch: Epoch,
    /// Where the current epoch stands.
    pub mastership: Mastership,
    /// When the current epoch was stored.
    pub epoch_since: Timestamp,
    /// How many masters in a row, the last ones before the current epoch, were elected and never opened.
    #[serde(default)]
    pub unopened: u32,
    /// Who may acknowledge and how many must.
    pub voters: Voters,
    /// What the master is told about acknowledgements.
    #[serde(default)]
    pub terms: Terms,
    /// The change of the voters that is under way, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<VoterChange>,
    /// The highest canary asked for so far. A voter that lost its data counts again when it has
    /// executed a canary that was asked for after the loss was seen.
    pub canary: u64,
    /// The masters that were named since the last time at which all earlier ones were known to have ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub named: Vec<NamedMaster>,
    /// When the last failovers began, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failover_times: Vec<Timestamp>,
    /// The last failover that an operator asked for with the loss of data: pending until it has an outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lossy: Option<LossyFailover>,
    /// Since when nothing is decided for the cluster, because an operator has paused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_since: Option<Timestamp>,
    /// The last switchover that was asked for: pending until it has an outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switchover: Option<Switchover>,
    /// What each voter was last known to hold: needed only to tell what is lost with one that is given up. It is written with
    /// each choice of a master, and when a voter has reported in an election that cannot be decided and goes out of sight.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub last_held: BTreeMap<MemberId, LastHeld>,
    /// The members on their way back into the vote.
    pub rejoining: BTreeMap<MemberId, Rejoining>,
    /// What the winners of the last epochs held, oldest first; bounded by [`MOST_LINEAGE`].
    pub lineage: Vec<Lineage>,
    /// The members.
    pub members: BTreeMap<MemberId, MemberRecord>,
    /// What is left of members that have left.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub departed: BTreeMap<MemberId, Departed>,
    /// The lowest number that no member has ever had, once a member has left or come; see [`ClusterRecord::next_member`].
    #[serde(default, skip_serializing_if = "crate::cluster::is_default")]
    pub members_made: u32,
    /// What discovery shows.
    pub published: Published,
    /// Whose data is copied to members that hold nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub donors: BTreeMap<MemberId, Chosen>,
    /// The backups whose data members get that hold nothing and have no donor.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub from_backup: BTreeMap<MemberId, FromBackup>,
    /// The backup that is being made, and what came of the last ones.
    #[serde(default, skip_serializing_if = "Backups::is_empty")]
    pub backups: Backups,
    /// Where the binlogs are archived, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<ArchiveOrder>,
    /// The backup that the cluster was made from, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<Restore>,
    /// How the last changes of master came about, for people. Nothing is decided by it.
    #[serde(default, skip_serializing_if = "FailoverLog::is_empty")]
    pub failovers: FailoverLog,
    /// The change to the configuration that is wanted, if another one was ever asked for than that of the creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolling: Option<Rolling>,
    /// How the cluster came back, if it was deleted and brought back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undeleted: Option<Undeleted>,
    /// Keys of a later version, kept as they are.
    #[serde(flatten)]
    pub unknown: serde_json::Map<String, serde_json::Value>,
}

/// A cluster was deleted, and brought back while its slots were kept. A repeated request is known by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undeleted {
    /// The name under which it was deleted. Labels of slots that it had then name it, too.
    pub deleted_as: ClusterName,
    /// When it was gone.
    pub deleted_at: Timestamp,
    /// When it was brought back.
    pub at: Timestamp,
}

/// Where the current epoch stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "lowercase")]
pub enum Mastership {
    /// No member has been master yet.
    Unborn,
    /// Reports are awaited.
    Electing,
    /// This one is it.
    Elected(Elected),
}

/// The choice of an epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Elected {
    /// The member.
    pub member: MemberId,
    /// The task that ran it.
    pub task_id: TaskId,
    /// Its data.
    pub data: DataId,
    /// Its server process.
    pub process: ProcessId,
    /// All that it held.
    pub history: Position,
    /// Whether it has reported that it accepts writes.
    pub opened: bool,
    /// When it was elected.
    #[serde(default)]
    pub since: Timestamp,
}

/// A server that was chosen as master.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedMaster {
    /// The member.
    pub member: MemberId,
    /// The task that ran it.
    pub task_id: TaskId,
    /// The server process.
    pub process: ProcessId,
    /// Voters that it certainly knows as such: out of touch with ZooKeeper, and waiting for no acknowledgements, it does not
    /// go on without the word of each of them.
    #[serde(default)]
    pub voters: BTreeSet<MemberId>,
}

/// A voter whose data was lost and that gets all of it again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rejoining {
    /// Its new data.
    pub data: DataId,
    /// The canary that it must have executed.
    pub canary: u64,
}

/// One member: a place in the cluster that keeps its number when its task is launched again.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct MemberRecord {
    /// How many tasks were launched for it.
    pub launches: u32,
    /// Its task, from before the launch until its end is known.
    pub task: Option<TaskRecord>,
    /// Its slot, if it has one: its tasks run there and nowhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<Slot>,
    /// Slots whose only launch was lost, so that they may not exist. No task on them was ever heard of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub given_up: Vec<Slot>,
    /// Where its last task was launched, as its agent's attributes say: the names that members are spread by, with their values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub places: BTreeMap<String, String>,
    /// The data that it serves clients from, or last did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataId>,
    /// How its last tasks came to nothing, while none has got as far as serving clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<Failing>,
    /// When it was added to a cluster that was there already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joined_at: Option<Timestamp>,
    /// When its last task was found to have ended, while it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// Whether it is to leave, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaving: Option<Leaving>,
    /// The data that may hold acknowledged writes which no other member has: a master was elected without a report of it where that
    /// can lose some. It holds until the member follows with this data; with other data, this lies set aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub may_hold_more: Option<DataId>,
    /// The revision of the configuration that its tasks are launched with; 0 is that of the cluster's creation.
    #[serde(default, skip_serializing_if = "crate::cluster::is_default")]
    pub revision: u64,
    /// That its task is to be ended and launched again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
    /// Keys of a later version, kept as they are.
    #[serde(flatten)]
    pub unknown: serde_json::Map<String, serde_json::Value>,
}

impl MemberRecord {
    /// Whether its task runs on an agent, or without a task its data lies there.
    pub fn is_on(&self, agent_id: &str) -> bool {
        match (&self.task, &self.slot) {
            (Some(task), _) => task.agent_id == agent_id,
            (None, Some(slot)) => slot.used && slot.agent_id == agent_id,
            (None, None) => false,
        }
    }
}

/// Tasks of a member that ended, one after the other, before they served clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failing {
    /// How many in a row.
    pub times: u32,
    /// What Mesos said of the last one.
    pub message: String,
    /// When the next one may be launched.
    pub retry_at: Timestamp,
}

/// A launched task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// Mesos' id of it.
    pub task_id: TaskId,
    /// Mesos' id of the agent.
    pub agent_id: String,
    /// The agent's host name, which is where clients find the member.
    pub host: String,
    /// The port that it was given.
    pub port: u16,
    /// When the launch was stored.
    pub launched_at: Timestamp,
    /// Keys of a later version, kept as they are.
    #[serde(flatten)]
    pub unknown: serde_json::Map<String, serde_json::Value>,
}

/// What discovery shows of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Published {
    /// The master.
    pub master: Option<MemberId>,
    /// The slaves that are ready to serve.
    pub slaves: BTreeSet<MemberId>,
}

/// The discovery nodes of a cluster, by member.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Discovery {
    /// The node under `master`.
    pub master: Option<(MemberId, ServiceInstance)>,
    /// The nodes under `slaves`.
    pub slaves: BTreeMap<MemberId, ServiceInstance>,
}

impl ClusterRecord {
    /// The record of a request that was just accepted.
    pub fn new(
        spec: ClusterSpec,
        uuid: Uuid,
        sealed_password: String,
        user: ClusterUser,
        now: Timestamp,
    ) -> Self {
        let members = (0..spec.num_nodes)
            .map(|n| (MemberId(n), MemberRecord::default()))
            .collect();
        Self {
            format: FORMAT,
            uuid,
            spec,
            sealed_password,
            user,
            created_at: now,
            deleting: false,
            server: None,
            epoch: Epoch(0),
            mastership: Mastership::Unborn,
            epoch_since: now,
            unopened: 0,
            voters: Voters::default(),
            terms: Terms::default(),
            change: None,
            canary: 0,
            named: Vec::new(),
            failover_times: Vec::new(),
            lossy: None,
            paused_since: None,
            switchover: None,
            last_held: BTreeMap::new(),
            rejoining: BTreeMap::new(),
            lineage: Vec::new(),
            members,
            departed: BTreeMap::new(),
            members_made: 0,
            published: Published::default(),
            donors: BTreeMap::new(),
            from_backup: BTreeMap::new(),
            backups: Backups::default(),
            archive: None,
            restore: None,
            failovers: FailoverLog::default(),
            rolling: None,
            undeleted: None,
            unknown: serde_json::Map::new(),
        }
    }

    /// The cluster's name.
    pub fn name(&self) -> &ClusterName {
        &self.spec.name
    }

    /// The goal that this record means for the executors.
    pub fn goal(&self) -> Goal {
        let phase = match &self.mastership {
            _ if self.deleting => GoalPhase::Deleting,
            Mastership::Unborn => GoalPhase::Unborn,
            Mastership::Electing => GoalPhase::Electing,
            Mastership::Elected(elected) => match self.task(elected.member) {
                Some(task) if task.task_id == elected.task_id => {
                    GoalPhase::Elected(elected.goal(task))
                }
                // The master's task has ended; the next epoch is on its way.
                _ => GoalPhase::Electing,
            },
        };
        Goal {
            format: control::FORMAT,
            uuid: self.uuid,
            epoch: self.epoch,
            phase,
            voters: self.voters.clone(),
            terms: self.terms.clone(),
            canary: self.canary,
            lineage: self.lineage.clone(),
            user: self.user.clone(),
            addresses: self.addresses(),
            donors: self.donors(),
            from_backup: self.from_backup.clone(),
            handover: self.handover(),
            backup: self.backup_order(),
            archive: self.archive.clone().filter(|_| !self.deleting),
        }
    }

    /// What the opened master of this epoch is told of a pending switchover.
    pub fn handover(&self) -> Option<Handover> {
        let opened = self.elected().is_some_and(|elected| elected.opened);
        let switchover = self.switchover.as_ref().filter(|_| opened)?;
        let asked = switchover.is_pending() && switchover.epoch == self.epoch;
        asked.then(|| switchover.handover())
    }

    /// What the member that makes the pending backup is told. Once its task has ended, or the cluster is being deleted, nobody is.
    fn backup_order(&self) -> Option<BackupOrder> {
        let order = self.backups.pending.as_ref()?.order()?;
        let task = self.task(order.member)?;
        // A store that was never used is empty for another reason than one where nothing is mounted.
        let last = self.backups.last_complete.as_ref();
        let last = last.filter(|last| last.url.as_ref() == Some(&order.store.url));
        let follows = last.map(|last| last.id.clone());
        let order = BackupOrder { follows, ..order };
        (task.task_id == order.task_id && !self.deleting).then_some(order)
    }

    fn addresses(&self) -> BTreeMap<MemberId, Address> {
        let with_task = self.members.iter().filter_map(|(id, member)| {
            let TaskRecord { host, port, .. } = member.task.as_ref()?;
            let (host, port) = (host.clone(), *port);
            Some((*id, Address { host, port }))
        });
        with_task.collect()
    }

    /// Where the chosen donors are found. One whose task has ended is none.
    fn donors(&self) -> BTreeMap<MemberId, Donor> {
        let found = |(member, chosen): (&MemberId, &Chosen)| {
            let task = self.task(chosen.member)?;
            let donor = Donor {
                instead_of: chosen.instead_of,
                member: chosen.member,
                host: task.host.clone(),
                port: task.port,
                stream_port: chosen.stream_port,
                busy: chosen.busy,
            };
            Some((*member, donor))
        };
        self.donors.iter().filter_map(found).collect()
    }

    /// The discovery nodes that this record means. A member without a task is never among them.
    pub fn discovery(&self) -> Discovery {
        let instance = |member: &MemberId| {
            let task = self.task(*member)?;
            let server_id = self.server_id(*member);
            Some((
                *member,
                ServiceInstance::alive(task.host.clone(), task.port, server_id),
            ))
        };
        Discovery {
            master: self.published.master.as_ref().and_then(instance),
            slaves: self.published.slaves.iter().filter_map(instance).collect(),
        }
    }

    /// The `server_id` of a member's MySQL server; before it has served clients, the member's number.
    pub fn server_id(&self, member: MemberId) -> u32 {
        let data = self.members.get(&member).and_then(|known| known.data);
        data.map_or(member.server_id(), |data| data.server_id(member))
    }

    /// The configuration that a member's tasks are launched with.
    pub fn configuration_of(&self, member: MemberId) -> Configuration {
        let revision = self.members.get(&member).map_or(0, |known| known.revision);
        let former = self
            .rolling
            .as_ref()
            .and_then(|it| it.former.get(&revision));
        former.cloned().unwrap_or_else(|| self.spec.configuration())
    }

    /// The revision of the configuration that is wanted.
    pub fn revision(&self) -> u64 {
        self.rolling.as_ref().map_or(0, |rolling| rolling.revision)
    }

    /// The current task of a member.
    pub fn task(&self, member: MemberId) -> Option<&TaskRecord> {
        self.members.get(&member)?.task.as_ref()
    }

    /// The number of the next member. A number is never used twice: reports, accounts and slots go by it.
    pub fn next_member(&self) -> MemberId {
        let known = self.members.keys().chain(self.departed.keys());
        let beyond = known.max().map_or(0, |highest| highest.0 + 1);
        MemberId(beyond.max(self.members_made))
    }

    /// The members that are not to leave.
    pub fn staying(&self) -> impl Iterator<Item = MemberId> {
        let members = self.members.iter();
        members
            .filter(|(_, member)| member.leaving.is_none())
            .map(|(id, _)| *id)
    }

    /// Whether a member is to leave.
    pub fn is_leaving(&self, member: MemberId) -> bool {
        let known = self.members.get(&member);
        known.is_some_and(|known| known.leaving.is_some())
    }

    /// Whether a member is a voter.
    pub fn is_voter(&self, member: MemberId) -> bool {
        self.voters.members.contains_key(&member)
    }

    /// Whether a task may still run, as far as the record knows: a member's current one, one of a member that has left
    /// whose end is not known, or the one that verifies a backup.
    pub fn may_run(&self, task_id: &TaskId) -> bool {
        let mut departed = self.departed.values();
        self.member_of(task_id).is_some()
            || departed.any(|it| it.task.as_ref() == Some(task_id))
            || self.is_verification(task_id)
    }

    /// The member that a task runs, if the task is its current one.
    pub fn member_of(&self, task_id: &TaskId) -> Option<MemberId> {
        self.members
            .iter()
            .find(|(_, member)| member.task.as_ref().is_some_and(|t| t.task_id == *task_id))
            .map(|(id, _)| *id)
    }

    /// The durability by which elections go. It differs from the one that is asked for while that is being changed:
    /// what was written under `majority` is elected for by its rule, until `k_floor` is lowered under a master; and
    /// whoever asks for `majority` loses nothing from then on, though until `k_floor` is raised that takes all voters.
    pub fn rule(&self) -> Durability {
        match (self.spec.durability, self.voters.k_floor) {
            (Durability::Async, 0) => Durability::Async,
            _ => Durability::Majority,
        }
    }

    /// Adds what the winner of the current epoch holds to the lineage, and forgets what is beyond [`MOST_LINEAGE`].
    pub fn remember_history(&mut self, history: Position) {
        let most = match history.flavour() {
            Flavour::Mysql => 1,
            Flavour::Mariadb => MOST_LINEAGE,
        };
        let epoch = self.epoch;
        self.lineage.push(Lineage { epoch, history });
        self.lineage
            .drain(..self.lineage.len().saturating_sub(most));
    }

    /// The master of the current epoch, if it was chosen.
    pub fn elected(&self) -> Option<&Elected> {
        match &self.mastership {
            Mastership::Elected(elected) => Some(elected),
            Mastership::Unborn | Mastership::Electing => None,
        }
    }
}

impl NamedMaster {
    /// The master that was just chosen, under the voters that its goal names.
    pub fn new(elected: &Elected, voters: &Voters) -> Self {
        Self {
            member: elected.member,
            task_id: elected.task_id.clone(),
            process: elected.process,
            voters: voters.members.keys().copied().collect(),
        }
    }
}

impl Elected {
    fn goal(&self, task: &TaskRecord) -> MasterGoal {
        MasterGoal {
            member: self.member,
            data: self.data,
            process: self.process,
            host: task.host.clone(),
            port: task.port,
            history: self.history.clone(),
            opened: self.opened,
        }
    }
}
