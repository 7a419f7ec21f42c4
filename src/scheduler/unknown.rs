//! Whose task is it: a cluster's current one, one that it had before, or nobody's?
//!
//! A former task is killed. One that *no record explains* is not: the state may be the one that is wrong,
//! as after the loss of ZooKeeper's data or a start with another `--zk-url`, and killing what it does not know would
//! then kill every cluster there is. Such tasks are left running and told of, until an operator has decided.
//!
//! Only a task whose number the record has passed is a former one. A higher number means that the record is older
//! than the task, as after ZooKeeper was restored from a copy: nothing is launched in that cluster then either, or its
//! numbers would pass those of the tasks that run.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{
    event::{TaskState, TaskUpdate},
    state::State,
};
use crate::{
    cluster::{
        id::{ClusterName, MemberId, Runs, TaskId},
        unknown_task::{UnknownList, UnknownTask},
    },
    time::Timestamp,
};

/// How many unknown tasks are listed, and told of one by one; of the others it is told how many they are. An operator who has a
/// thousand to look at has a lost state, not a thousand decisions. All of them are known and left running, and hold up
/// what they have to hold up.
pub const MOST_LISTED: usize = 1000;

/// Whose a task is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// It is the current task of a member of this cluster, or the one that verifies a backup of it.
    Current(ClusterName),
    /// It was such a task of this cluster, and is not any more.
    Former(ClusterName),
    /// It was the task of a member of a cluster of this incarnation, which was deleted and of which its record is kept.
    Deleted(Uuid),
    /// No record explains it, and why not.
    Unknown(Unexplained),
}

/// Why no record explains a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unexplained {
    /// Its id is none that Cotton gives.
    ForeignId,
    /// There is no cluster of its name.
    NoCluster(ClusterName),
    /// There is a record of its cluster, and it cannot be read.
    Unreadable(ClusterName),
    /// It belongs to an earlier cluster, or a later one, of the same name.
    OtherIncarnation(ClusterName),
    /// The record of its cluster knows no such member.
    NoMember(ClusterName, MemberId),
    /// The record of its cluster has not come to a launch of that number yet.
    LaterThanRecord(ClusterName),
}

impl Unexplained {
    /// The same as a sentence.
    fn sentence(&self) -> String {
        match self {
            Self::ForeignId => "its id is none that Cotton gives".to_owned(),
            Self::NoCluster(name) => format!("the state knows no cluster {name}"),
            Self::Unreadable(name) => format!("the record of the cluster {name} cannot be read"),
            Self::OtherIncarnation(name) => {
                format!("it belongs to another cluster that was named {name} as well")
            }
            Self::NoMember(name, member) => format!(
                "the record of the cluster {name} has no member {member}; nothing is launched in that cluster meanwhile"
            ),
            Self::LaterThanRecord(name) => format!(
                "the record of the cluster {name} is older than the task; nothing is launched in that cluster meanwhile"
            ),
        }
    }

    /// The cluster whose record is older than the world.
    fn outdated(&self) -> Option<&ClusterName> {
        match self {
            Self::NoMember(name, _) | Self::LaterThanRecord(name) => Some(name),
            Self::ForeignId
            | Self::NoCluster(_)
            | Self::Unreadable(_)
            | Self::OtherIncarnation(_) => None,
        }
    }
}

/// The tasks that no record explains.
#[derive(Debug, Default)]
pub struct UnknownTasks {
    tasks: BTreeMap<TaskId, (UnknownTask, Unexplained)>,
    untold: Vec<TaskId>,
    /// From how many on it is told of those that are not told of one by one: each time that there are ten times as many.
    more_told_from: usize,
    /// Counts the changes.
    version: u64,
}

impl UnknownTasks {
    /// Takes in what Mesos says of such a task.
    fn heard(&mut self, update: TaskUpdate, why: Unexplained, now: Timestamp) {
        let task_id = update.task_id;
        // What the master does not know either is not there to be decided about.
        let nobody_knows = matches!(update.state, TaskState::Unknown | TaskState::Lost);
        if update.state.is_terminal() || nobody_knows {
            self.version += u64::from(self.tasks.remove(&task_id).is_some());
            return;
        }
        if !self.tasks.contains_key(&task_id) && self.tasks.len() < MOST_LISTED {
            self.untold.push(task_id.clone());
        }
        let since = self
            .tasks
            .get(&task_id)
            .map_or(now, |(known, _)| known.since);
        let task = UnknownTask {
            task_id: task_id.clone(),
            agent_id: update.agent_id,
            state: update.state.mesos_name().to_owned(),
            reason: why.sentence(),
            since,
        };
        let before = self.tasks.insert(task_id, (task.clone(), why));
        self.version += u64::from(before.map(|(before, _)| before).as_ref() != Some(&task));
    }

    /// All of them, in the order of their ids.
    pub fn all(&self) -> impl Iterator<Item = &UnknownTask> {
        self.tasks.values().map(|(task, _)| task)
    }

    /// The first of them, and how many more there are.
    pub fn list(&self) -> UnknownList {
        UnknownList {
            tasks: self.all().take(MOST_LISTED).cloned().collect(),
            more: self.tasks.len().saturating_sub(MOST_LISTED),
        }
    }

    /// How many there are that are not listed, whenever it is time to tell of that: when they are the first, and when they are
    /// ten times as many as the last time.
    pub fn take_more(&mut self) -> Option<usize> {
        let more = self.tasks.len().saturating_sub(MOST_LISTED);
        if more == 0 {
            self.more_told_from = 0;
            return None;
        }
        (more >= self.more_told_from).then(|| {
            self.more_told_from = more.saturating_mul(10);
            more
        })
    }

    /// Another number whenever there are others.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Those that were not told of yet. They count as told from here on.
    pub fn take_untold(&mut self) -> Vec<UnknownTask> {
        let untold = std::mem::take(&mut self.untold);
        let task = |task_id: &TaskId| Some(self.tasks.get(task_id)?.0.clone());
        untold.iter().filter_map(task).collect()
    }

    /// A task of this cluster that shows that the record is older than the world, if there is one.
    pub fn outdates(&self, cluster: &ClusterName) -> Option<&UnknownTask> {
        let mut outdating = self
            .tasks
            .values()
            .filter(|(_, why)| why.outdated() == Some(cluster));
        outdating.next().map(|(task, _)| task)
    }
}

impl State {
    /// Whose a task is, by its id alone.
    pub fn owner(&self, task_id: &TaskId) -> Owner {
        let Some(parts) = task_id.parts() else {
            return Owner::Unknown(Unexplained::ForeignId);
        };
        let name = parts.cluster.clone();
        let Some(cluster) = self.clusters.get(&name) else {
            if let Some(incarnation) = self.deleted_owner(&parts) {
                return Owner::Deleted(incarnation);
            }
            return Owner::Unknown(match self.unusable.contains(&name) {
                true => Unexplained::Unreadable(name),
                false => Unexplained::NoCluster(name),
            });
        };
        let record = &cluster.record;
        if record.member_of(task_id).is_some() || record.is_verification(task_id) {
            return Owner::Current(name);
        }
        if !parts.is_of(record.uuid) {
            let deleted = self.deleted_owner(&parts).map(Owner::Deleted);
            return deleted.unwrap_or(Owner::Unknown(Unexplained::OtherIncarnation(name)));
        }
        let id = match parts.runs {
            Runs::Member(id) => id,
            Runs::Verification if parts.launch > record.backups.verification.launches => {
                return Owner::Unknown(Unexplained::LaterThanRecord(name));
            }
            Runs::Verification => return Owner::Former(name),
        };
        match record.members.get(&id) {
            // Numbers are never used twice: a member of that number has left.
            None if id < record.next_member() => Owner::Former(name),
            None => Owner::Unknown(Unexplained::NoMember(name, id)),
            Some(member) if parts.launch > member.launches => {
                Owner::Unknown(Unexplained::LaterThanRecord(name))
            }
            Some(_) => Owner::Former(name),
        }
    }

    pub(super) fn unknown_heard(&mut self, update: TaskUpdate, why: Unexplained, now: Timestamp) {
        let outdated = why.outdated().cloned();
        if let (Unexplained::LaterThanRecord(name), Some(parts)) = (&why, update.task_id.parts())
            && let Some(cluster) = self.clusters.get_mut(name)
        {
            let member = parts.member();
            let member = member.and_then(|id| cluster.record.members.get(&id));
            let slot = member.and_then(|member| member.slot.as_ref());
            let slot = slot.map(|slot| slot.id.clone());
            cluster.observed.outdated.extend(slot);
        }
        self.unknown.heard(update, why, now);
        self.touched.extend(outdated);
    }
}
