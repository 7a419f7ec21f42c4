//! Tasks of deleted clusters whose agents did not answer when the cluster was removed, and are back.
//!
//! What is kept of the cluster says that it was deleted and whose the task was, so it is killed, again and again until it has ended; its
//! slot is offered then. As long as the agent is away nothing can be done, and nothing is stored: whoever is the scheduler when it comes
//! back hears of the task, and asks for it by name besides.

use uuid::Uuid;

use super::Keeping;
use crate::{
    cluster::{
        id::{Runs, TaskId, TaskParts},
        record::ClusterRecord,
    },
    scheduler::{
        action::Action,
        event::{TaskState, TaskUpdate},
        members::KILL_RETRY,
        state::State,
    },
    time::Timestamp,
};

/// A task that runs and is to end, or that has ended.
#[derive(Debug)]
pub(super) struct Lingering {
    incarnation: Uuid,
    agent_id: Option<String>,
    kill_asked: Option<Timestamp>,
    ended: bool,
}

impl State {
    /// The deleted cluster whose task it was, by what is kept of it. While it is being brought back it is no deleted one.
    pub(in crate::scheduler) fn deleted_owner(&self, parts: &TaskParts) -> Option<Uuid> {
        let mut kept = self.keeping.clusters.values();
        let record = kept.find_map(|kept| {
            let record = kept.retained.record.as_deref()?;
            let own = *record.name() == parts.cluster && parts.is_of(record.uuid);
            (own && !kept.comes_back()).then_some(record)
        })?;
        let lives = self.of_incarnation(record.uuid).is_some();
        (!lives && had(record, parts)).then_some(record.uuid)
    }
}

/// Whether a cluster has had this launch.
fn had(record: &ClusterRecord, parts: &TaskParts) -> bool {
    let Runs::Member(id) = parts.runs else {
        return parts.launch <= record.backups.verification.launches;
    };
    match record.members.get(&id) {
        Some(member) => parts.launch <= member.launches,
        None => id < record.next_member(),
    }
}

impl Keeping {
    /// What Mesos says of a task of a deleted cluster.
    pub(in crate::scheduler) fn task_heard(&mut self, incarnation: Uuid, update: TaskUpdate) {
        let missed = matches!(
            update.state,
            TaskState::Unknown | TaskState::Lost | TaskState::Unreachable
        );
        if missed {
            // It is heard of again when its agent is back. An end that was heard of stays one.
            self.lingering
                .retain(|id, it| *id != update.task_id || it.ended);
            return;
        }
        let known = self.lingering.entry(update.task_id);
        let known = known.or_insert(Lingering {
            incarnation,
            agent_id: None,
            kill_asked: None,
            ended: false,
        });
        known.ended |= update.state.is_terminal();
        known.agent_id = update.agent_id.or(known.agent_id.take());
    }

    /// A kill is being asked for; tells whether it is that of a task of a deleted cluster.
    pub(in crate::scheduler) fn kill_asked(&mut self, task_id: &TaskId, now: Timestamp) -> bool {
        let known = self.lingering.get_mut(task_id);
        let known = known.filter(|it| !it.ended);
        known.map(|it| it.kill_asked = Some(now)).is_some()
    }

    /// The tasks of the deleted clusters that may run, with their agents, for a master to be asked for.
    pub(in crate::scheduler) fn tasks(&self) -> impl Iterator<Item = (TaskId, String)> {
        let records = self.clusters.values();
        records
            .filter_map(|kept| kept.retained.record.as_deref())
            .flat_map(tasks_of)
    }

    /// Takes those tasks out of the record of a cluster that comes back that are known to have ended.
    pub(in crate::scheduler) fn end_tasks(&self, record: &mut ClusterRecord) {
        let ended = |task: &TaskId| self.lingering.get(task).is_some_and(|it| it.ended);
        for member in record.members.values_mut() {
            member.task.take_if(|task| ended(&task.task_id));
        }
    }

    /// The kills that are due.
    pub(super) fn kills(&self, now: Timestamp, times: &mut Vec<Timestamp>) -> Vec<Action> {
        let mut kills = Vec::new();
        let own = |it: &&Lingering| {
            let kept = self.clusters.get(&it.incarnation);
            !it.ended && kept.is_some_and(|kept| !kept.comes_back())
        };
        for (task_id, it) in self.lingering.iter().filter(|(_, it)| own(it)) {
            let again = it.kill_asked.map(|at| at.plus(KILL_RETRY));
            if let Some(again) = again.filter(|again| *again > now) {
                times.push(again);
                continue;
            }
            times.push(now.plus(KILL_RETRY));
            kills.push(Action::Kill {
                task_id: task_id.clone(),
                agent_id: it.agent_id.clone(),
            });
        }
        kills
    }

    pub(super) fn forget_lingering(&mut self, incarnation: Uuid) {
        self.lingering.retain(|_, it| it.incarnation != incarnation);
    }
}

/// The tasks of a record that may run, with their agents: those of members, of members that have left, and the one that verifies a backup.
pub(in crate::scheduler) fn tasks_of(
    record: &ClusterRecord,
) -> impl Iterator<Item = (TaskId, String)> + '_ {
    let members = record.members.values();
    let members = members.filter_map(|member| member.task.as_ref());
    let members = members.chain(&record.backups.verification.task);
    let members = members.map(|task| (task.task_id.clone(), task.agent_id.clone()));
    let departed = record.departed.values().filter_map(|left| {
        // Without a slot nothing says where it was; a master that knows of it tells of it unasked.
        let agent_id = left.slot.as_ref()?.agent_id.clone();
        Some((left.task.clone()?, agent_id))
    });
    members.chain(departed)
}
