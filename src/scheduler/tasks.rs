//! What is heard of tasks, and what was asked about them.
//!
//! Mesos tells a task's state in any order and any number of times: updates come again until they are
//! acknowledged, and reconciliation tells what was told before. So each is a fact of its own, and the end of a
//! task is final, whatever arrives late.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    drain,
    event::{TaskState, TaskUpdate},
    maintenance::Need,
    observed::TaskObservation,
    placement::{Launch, Offer},
    retained,
    state::{Cluster, Pending, State},
    unknown::Owner,
};
use crate::{
    cluster::{
        control::Report,
        id::{ClusterName, TaskId},
    },
    time::Timestamp,
};

impl State {
    pub(super) fn task_updated(&mut self, update: TaskUpdate, now: Timestamp) {
        self.mesos.reconciliation.answered(&update.task_id);
        match self.owner(&update.task_id) {
            Owner::Current(name) => self.current_updated(name, update),
            Owner::Former(name) => self.former_updated(name, update),
            Owner::Deleted(incarnation) => self.keeping.task_heard(incarnation, update),
            Owner::Unknown(why) => self.unknown_heard(update, why, now),
        }
    }

    /// A task that was a member's and is not any more. Only as long as it may run there is something to do about it.
    fn former_updated(&mut self, name: ClusterName, update: TaskUpdate) {
        let nobody_knows = matches!(update.state, TaskState::Unknown | TaskState::Lost);
        let awaited = self.clusters.get(&name);
        let awaited = awaited.is_some_and(|cluster| cluster.record.may_run(&update.task_id));
        if awaited {
            // Its end is to be stored: see `membership`.
            self.current_updated(name, update);
        } else if update.state.is_terminal() || nobody_knows {
            if let Some(cluster) = self.clusters.get_mut(&name) {
                cluster.observed.tasks.remove(&update.task_id);
            }
            self.touched.insert(name);
        } else {
            self.current_updated(name, update);
        }
    }

    fn current_updated(&mut self, name: ClusterName, update: TaskUpdate) {
        let Some(cluster) = self.clusters.get_mut(&name) else {
            return;
        };
        // The master that does not know a task may be about to get its launch. Where it is certain that there is none, the launch may have
        // been lost with its offer still open: see `offers_of_past`.
        let is_missed = matches!(update.state, TaskState::Unknown | TaskState::Lost);
        if !is_missed && update.state != TaskState::Gone {
            self.launched.remove(&update.task_id);
        }
        let known = cluster.observed.tasks.get(&update.task_id);
        let is_over = known.is_some_and(|known| known.state.is_terminal());
        let known = cluster.observed.tasks.entry(update.task_id);
        let known = known.or_insert_with(|| TaskObservation::new(update.state));
        known.agent_id = update.agent_id.or(known.agent_id.take());
        // The end of a task is final, whatever arrives late.
        if !is_over {
            known.state = update.state;
            known.message = update.message;
        }
        self.index(&name);
        self.touched.insert(name);
    }

    pub(super) fn reported(&mut self, name: ClusterName, report: Report, now: Timestamp) {
        let Some(cluster) = self.clusters.get_mut(&name) else {
            return;
        };
        // A report of an earlier cluster of the same name says nothing about this one.
        if report.uuid != cluster.record.uuid {
            return;
        }
        cluster.observed.reported(report, now);
        self.index(&name);
        self.touched.insert(name);
    }

    pub(super) fn report_gone(&mut self, name: ClusterName, task_id: &TaskId, now: Timestamp) {
        let Some(cluster) = self.clusters.get_mut(&name) else {
            return;
        };
        if let Some(observation) = cluster.observed.reports.get_mut(task_id) {
            observation.gone_since.get_or_insert(now);
            self.index(&name);
            self.touched.insert(name);
        }
    }

    /// The tasks of all records, those of deleted clusters too, and those that no record explains, with their agents: all that a master is
    /// to be asked for. Asked for all that it knows, it tells neither of those that ended while it was out of touch nor of those whose
    /// agents it does not reach.
    pub(super) fn known_tasks(&self) -> BTreeMap<TaskId, String> {
        let clusters = self.clusters.values();
        let tasks = clusters.flat_map(|cluster| retained::tasks_of(&cluster.record));
        let tasks = tasks.chain(self.keeping.tasks());
        let unknown = self.unknown.all();
        let unknown =
            unknown.filter_map(|task| Some((task.task_id.clone(), task.agent_id.clone()?)));
        tasks.chain(unknown).collect()
    }

    /// Whether any cluster needs this agent.
    pub(super) fn needs_agent(&self, agent_id: &str, now: Timestamp) -> Need {
        let mut unknown = false;
        for cluster in self.clusters.values() {
            // What is being stored may put a member there, or make one there the master.
            if let Some(Pending::Persist { record, .. }) = &cluster.pending {
                let soon = record.members.values().any(|it| it.is_on(agent_id));
                unknown |= cluster.uses_agent(agent_id) || soon;
            } else if drain::needs(&cluster.record, self.view(cluster, now), agent_id).is_some() {
                return Need::Needed;
            }
        }
        match unknown {
            true => Need::Unknown,
            false => Need::Free,
        }
    }

    /// Something is to be told of the clusters with a member on this agent.
    pub(super) fn touch_agent(&mut self, agent_id: &str) {
        let on_it = self
            .clusters
            .iter()
            .filter(|(_, cluster)| cluster.uses_agent(agent_id));
        self.touched.extend(on_it.map(|(name, _)| name.clone()));
    }

    /// Offers are used from the moment in which the records of the launches are being stored.
    pub(super) fn launches_begun(&mut self, launches: &[Launch]) {
        for offer in offers_of(launches) {
            self.offers.remove(offer);
            self.accepting.entry(offer.to_owned()).or_default().unstored += 1;
        }
    }

    /// The record of a cluster is stored, with these launches.
    pub(super) fn launches_stored(&mut self, launches: Vec<Launch>) {
        for offer in offers_of(&launches) {
            if let Some(accepting) = self.accepting.get_mut(offer) {
                accepting.unstored = accepting.unstored.saturating_sub(1);
            }
        }
        for launch in launches {
            let accepting = self.accepting.entry(launch.offer.id.clone());
            accepting.or_default().launches.push(launch);
        }
    }

    /// Notes which members' slots are offered by another agent than their tasks were launched on.
    pub(super) fn note_replaced_agents(&mut self, offers: &[Offer]) {
        for offer in offers {
            for slot in offer.slots.iter().filter(|slot| slot.volume_mib.is_some()) {
                let Some(cluster) = self.of_incarnation(slot.owner.incarnation) else {
                    continue;
                };
                let own = cluster.record.members.get(&slot.owner.member);
                let own = own.filter(|it| it.slot.as_ref().is_some_and(|own| own.id == slot.id));
                let task = own.and_then(|member| member.task.as_ref());
                let Some(task) = task.filter(|task| task.agent_id != offer.agent_id) else {
                    continue;
                };
                let (name, task_id) = (cluster.record.name().clone(), task.task_id.clone());
                let agent = offer.agent_id.clone();
                self.note_task(&task_id, |task| task.offered_by = Some(agent));
                self.touched.insert(name);
            }
        }
    }

    /// The offers of launches that were lost and are given up: Mesos takes them for open, and does not offer the same again.
    pub(super) fn offers_of_past(&self) -> Vec<String> {
        let is_past = |task: &TaskId| {
            let name = task.cluster();
            let cluster = name.and_then(|name| self.clusters.get(&name));
            cluster.is_none_or(|cluster| {
                let record = &cluster.record;
                record.member_of(task).is_none() && !record.is_verification(task)
            })
        };
        let past = self.launched.iter().filter(|(task, _)| is_past(task));
        past.map(|(_, offer)| offer.clone()).collect()
    }

    /// Mesos is being told of launches.
    pub(super) fn begin_launch(&mut self, launches: &[Launch]) {
        for launch in launches {
            let offer = &launch.offer.id;
            self.accepting.remove(offer);
            let task_id = &launch.task.task_id;
            let name = task_id.cluster();
            if name.is_some_and(|name| self.clusters.contains_key(&name)) {
                self.launched.insert(task_id.clone(), offer.clone());
            }
        }
    }

    /// Notes something about a task, whether Mesos has told of it yet or not.
    pub(super) fn note_task(&mut self, task_id: &TaskId, note: impl FnOnce(&mut TaskObservation)) {
        let cluster = task_id
            .cluster()
            .and_then(|name| self.clusters.get_mut(&name));
        let Some(cluster) = cluster else { return };
        note(
            cluster
                .observed
                .tasks
                .entry(task_id.clone())
                .or_insert_with(|| TaskObservation::new(TaskState::Staging)),
        );
    }

    /// The offers that these tasks were launched with, where nothing was heard of the launch. The master may never have
    /// got it; then it takes the offer as one that is still being thought about, for ever if it has no timeout for that.
    /// Giving an offer back that was used changes nothing.
    pub fn unanswered(&self, tasks: &[(TaskId, String)]) -> Vec<String> {
        let offers = tasks.iter().filter_map(|(task, _)| self.launched.get(task));
        offers.cloned().collect()
    }
}

impl Cluster {
    fn uses_agent(&self, agent_id: &str) -> bool {
        let mut members = self.record.members.values();
        members.any(|member| self.observed.is_on(member, agent_id))
    }

    /// Drops what was observed of tasks that are no longer in the record and have ended.
    pub(super) fn forget_past_tasks(&mut self) {
        let record = &self.record;
        let past = |task_id: &TaskId| !record.may_run(task_id);
        self.observed
            .tasks
            .retain(|id, task| !past(id) || task.may_run());
        self.observed
            .reports
            .retain(|id, r| !past(id) || r.gone_since.is_none());
    }
}

/// The offers that launches use, each once.
fn offers_of(launches: &[Launch]) -> BTreeSet<&str> {
    launches.iter().map(|it| it.offer.id.as_str()).collect()
}
