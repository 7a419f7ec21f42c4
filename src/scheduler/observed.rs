//! What is known of a cluster's members at the moment: their tasks and their reports.
//!
//! Nothing here is stored. After a start of the scheduler it is learnt anew, and until it was
//! learnt, silence means nothing: [`Presence::Unknown`] is not [`Presence::Gone`].

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::event::TaskState;
use crate::{
    cluster::{
        control::Report,
        id::{MemberId, TaskId},
        record::{ClusterRecord, MemberRecord},
        slot::SlotId,
    },
    time::Timestamp,
};

/// What is known of one cluster's tasks.
#[derive(Debug, Default)]
pub struct Observed {
    /// What Mesos last said of each task.
    pub tasks: BTreeMap<TaskId, TaskObservation>,
    /// What each executor last reported, and whether the report still stands.
    pub reports: BTreeMap<TaskId, ReportObservation>,
    /// The slots of members of which a later task was heard of than the record knows: the record is older than the world. What it said of
    /// them was true once.
    pub outdated: BTreeSet<SlotId>,
}

/// What Mesos said of a task.
#[derive(Debug, Clone)]
pub struct TaskObservation {
    /// Its state.
    pub state: TaskState,
    /// Mesos' message with it.
    pub message: String,
    /// Its agent, where Mesos has named it.
    pub agent_id: Option<String>,
    /// When a kill was last asked for.
    pub kill_asked: Option<Timestamp>,
    /// When the master was last asked for its state.
    pub asked: Option<Timestamp>,
    /// The agent that has offered its slot, if that is another one than the task's. So its host's agent was registered anew, and
    /// nothing more will be heard of the task: Mesos goes on to call it unreachable, or does not know it any more.
    pub offered_by: Option<String>,
}

impl TaskObservation {
    /// Nothing was heard of it yet, or this for the first time.
    pub fn new(state: TaskState) -> Self {
        Self {
            state,
            message: String::new(),
            agent_id: None,
            kill_asked: None,
            asked: None,
            offered_by: None,
        }
    }

    /// Whether it may run, now or later.
    pub fn may_run(&self) -> bool {
        let forgotten = self.offered_by.is_some() && self.is_missed();
        !forgotten && !self.state.is_terminal()
    }

    /// Whether Mesos does not know what became of it.
    pub fn is_missed(&self) -> bool {
        match self.state {
            TaskState::Unreachable | TaskState::Unknown | TaskState::Lost => true,
            TaskState::Staging
            | TaskState::Starting
            | TaskState::Running
            | TaskState::Killing
            | TaskState::Finished
            | TaskState::Failed
            | TaskState::Killed
            | TaskState::Error
            | TaskState::Unfit
            | TaskState::Dropped
            | TaskState::Gone
            | TaskState::GoneByOperator => false,
        }
    }
}

/// What an executor reported.
#[derive(Debug, Clone)]
pub struct ReportObservation {
    /// The last report.
    pub report: Report,
    /// When it arrived.
    pub arrived: Timestamp,
    /// When the first report with what it says is held in that epoch arrived.
    pub held_arrived: Option<Timestamp>,
    /// When the epoch that it has promised was first seen as promised.
    pub promised_at: Timestamp,
    /// Since when its node is gone, if it is.
    pub gone_since: Option<Timestamp>,
}

/// Whether a member is in sight.
#[derive(Debug)]
pub enum Presence<'a> {
    /// Its report stands.
    Live(&'a Report),
    /// Its report is gone since then.
    Gone(Timestamp),
    /// Nothing was heard of it since this scheduler started to listen.
    Unknown,
}

impl Observed {
    /// Takes a report in.
    pub fn reported(&mut self, report: Report, now: Timestamp) {
        let read_in = |report: &Report| report.held.as_ref().map(|held| held.epoch);
        let earlier = self.reports.get(&report.task_id);
        // The same reading, told again with something else that has changed, is as old as it was.
        let known = earlier.filter(|earlier| read_in(&earlier.report) == read_in(&report));
        let held_arrived = match known {
            Some(known) => known.held_arrived,
            None => report.held.as_ref().map(|_| now),
        };
        let promised_at = earlier
            .filter(|earlier| earlier.report.promised == report.promised)
            .map_or(now, |earlier| earlier.promised_at);
        let observation = ReportObservation {
            arrived: now,
            promised_at,
            held_arrived,
            gone_since: None,
            report,
        };
        let task_id = observation.report.task_id.clone();
        self.reports.insert(task_id, observation);
    }

    /// Whether a member's task runs on an agent, or its data lies there: also if the agent has come back under this id since.
    pub fn is_on(&self, member: &MemberRecord, agent_id: &str) -> bool {
        let task = member.task.as_ref();
        let seen = task.and_then(|task| self.tasks.get(&task.task_id));
        let offered_by = seen.and_then(|seen| seen.offered_by.as_deref());
        member.is_on(agent_id) || offered_by == Some(agent_id)
    }

    /// Whether the member's current task is in sight.
    pub fn presence(&self, record: &ClusterRecord, member: MemberId) -> Presence<'_> {
        match self.observation(record, member) {
            Some(observation) => match observation.gone_since {
                None => Presence::Live(&observation.report),
                Some(since) => Presence::Gone(since),
            },
            None => Presence::Unknown,
        }
    }

    /// The last report of the member's current task and when it came and went.
    pub fn observation(
        &self,
        record: &ClusterRecord,
        member: MemberId,
    ) -> Option<&ReportObservation> {
        self.reports.get(&record.task(member)?.task_id)
    }

    /// The standing report of the member's current task.
    pub fn live(&self, record: &ClusterRecord, member: MemberId) -> Option<&Report> {
        match self.presence(record, member) {
            Presence::Live(report) => Some(report),
            Presence::Gone(_) | Presence::Unknown => None,
        }
    }

    /// The members on slots that Mesos does not know about and whose executors are out of sight. Their slots may be
    /// offered by an agent that was registered anew.
    pub fn missed_with_slot(&self, record: &ClusterRecord) -> bool {
        let mut members = record.members.iter();
        members.any(|(id, member)| {
            let task = member.task.as_ref().filter(|_| member.slot.is_some());
            let known = task.and_then(|task| self.tasks.get(&task.task_id));
            known.is_some_and(TaskObservation::is_missed) && self.live(record, *id).is_none()
        })
    }

    /// The standing reports of all current tasks.
    pub fn all_live<'a>(
        &'a self,
        record: &'a ClusterRecord,
    ) -> impl Iterator<Item = (MemberId, &'a Report)> {
        record
            .members
            .keys()
            .filter_map(|m| self.live(record, *m).map(|r| (*m, r)))
    }
}

/// How long silence must last before it means something, after a moment at which everybody fell
/// silent: one full session timeout.
pub fn silence_counts_from(listening_since: Timestamp, session_timeout: Duration) -> Timestamp {
    // The ZooKeeper client gives a session up after 7/5 of its timeout, so after an outage every
    // executor comes back with a new session, up to that much later.
    listening_since.plus(session_timeout * 7 / 5)
}
