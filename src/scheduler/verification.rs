//! Verifying backups that the schedule has made: which is next, where, and what came of it. Pure.
//!
//! ```text
//! a scheduled backup is complete -> it waits -> a task restores and checks it -> good, or not; or nobody can tell: again, later
//! ```
//!
//! The task is no member's and stands on no slot. It is in the record from before its launch until its end is known, like those of members; so a
//! successor finds it, and it is never taken for a task that no record explains. Nothing is lost with it: where it is not certain what became of it, it
//! is dropped and the backup is verified again, and should it turn up after all it is a former task, which is killed.

use std::time::Duration;

use super::{
    action::{Action, Look},
    event::TaskState,
    failover::View,
    members::{self, LAUNCH_DEADLINE},
    observed::{Observed, TaskObservation},
    pause,
    placement::{self, Ground, Launch, Placement, SpreadBy, Wish},
    pool::Pool,
    schedule::Room,
    state::{Policy, State},
};
use crate::{
    cluster::{
        backup::PendingBackup,
        id::TaskId,
        record::{ClusterRecord, TaskRecord},
        size::Size,
        verification::{Verdict, VerificationOutcome, VerificationView},
    },
    time::Timestamp,
};

/// How long a verification may take before its task is killed.
const VERIFIED_WITHIN: Duration = Duration::from_secs(24 * 3600);

/// How many tasks may end without a verdict before the backup counts as one that cannot be verified.
const MOST_ATTEMPTS: u32 = 3;

/// The pause after a task that could tell nothing, times how often that was.
const PAUSE: Duration = Duration::from_secs(60);

/// When to look again while as many are verified as may be.
const AGAIN: Duration = Duration::from_secs(30);

/// A backup was completed: whether it is to be verified.
pub fn note_complete(
    next: &mut ClusterRecord,
    backup: &PendingBackup,
    policy: &Policy,
    look: &mut Look,
) {
    if !backup.scheduled || !is_wanted(policy) {
        return;
    }
    let verification = &mut next.backups.verification;
    if let Some(dropped) = verification.add(backup.id.clone(), backup.store.clone()) {
        look.notes.push(format!(
            "the backup {dropped} is not verified any more: too many newer ones wait for that"
        ));
    }
}

fn is_wanted(policy: &Policy) -> bool {
    policy.backups.as_ref().is_some_and(|it| it.verify)
}

/// Forgets what nobody wants to be verified any more. What is under way goes on.
pub fn advance(next: &mut ClusterRecord, view: View<'_>) {
    let verification = &mut next.backups.verification;
    if !is_wanted(view.policy) {
        let under_way = usize::from(verification.task.is_some());
        verification.waiting.truncate(under_way);
    }
}

/// How a task has ended.
enum End {
    /// It has found something.
    Found(Verdict),
    /// It could tell nothing.
    Failed(String),
    /// It was not carried out, or it is not known what became of it.
    Lost(String),
}

/// Takes in the end of the task, if it has ended, and tells what follows.
pub fn take_end(next: &mut ClusterRecord, view: View<'_>) -> Option<String> {
    let task = next.backups.verification.task.clone()?;
    let end = end(&task, view)?;
    let verification = &mut next.backups.verification;
    let Some(backup) = verification.waiting.first_mut() else {
        verification.task = None;
        return None;
    };
    let id = backup.id.clone();
    let (good, seconds, sentence) = match end {
        End::Found(Verdict::Good {
            seconds,
            tables,
            rows,
        }) => {
            let sentence =
                format!("{tables} tables with {rows} rows, restored and checked in {seconds} s");
            (true, Some(seconds), sentence)
        }
        End::Found(Verdict::Bad { seconds, why }) => (false, Some(seconds), why),
        End::Found(Verdict::Gone) => {
            verification.task = None;
            verification.waiting.remove(0);
            return Some(format!(
                "the backup {id} is not verified: it is not in the store any more"
            ));
        }
        End::Failed(why) if backup.attempts + 1 >= MOST_ATTEMPTS => {
            let sentence = format!(
                "it could not be verified in {MOST_ATTEMPTS} attempts, the last time because {why}"
            );
            (false, None, sentence)
        }
        End::Failed(why) => {
            backup.attempts += 1;
            let pause = PAUSE * backup.attempts;
            backup.not_before = Some(view.now.plus(pause));
            let note = format!("verifying the backup {id} is tried again: {why}");
            backup.problem = Some(why);
            verification.task = None;
            return Some(note);
        }
        End::Lost(why) => {
            backup.not_before = Some(view.now.plus(PAUSE));
            let note = format!("verifying the backup {id} is tried again: {why}");
            backup.problem = Some(why);
            verification.task = None;
            return Some(note);
        }
    };
    let note = match good {
        true => format!("the backup {id} is verified: {sentence}"),
        false => format!("verifying the backup {id} has failed: {sentence}"),
    };
    verification.conclude(VerificationOutcome {
        id,
        at: view.now,
        good,
        sentence,
        seconds,
    });
    Some(note)
}

/// How a task has ended, if it is over or counts for nothing any more.
fn end(task: &TaskRecord, view: View<'_>) -> Option<End> {
    let seen = view.observed.tasks.get(&task.task_id)?;
    if seen.state.is_terminal() {
        return Some(verdict(task, seen, view.now));
    }
    // A master that does not know a task may be about to get its launch.
    let overdue = view.now >= task.launched_at.plus(LAUNCH_DEADLINE);
    (seen.is_missed() && overdue)
        .then(|| End::Lost("Mesos does not know what became of its task".to_owned()))
}

fn verdict(task: &TaskRecord, seen: &TaskObservation, now: Timestamp) -> End {
    let message = &seen.message;
    match seen.state {
        TaskState::Finished => match serde_json::from_str(message) {
            Ok(verdict) => End::Found(verdict),
            // Mesos tells the state of a task without its message where it tells it anew. That may happen once; whatever happens always must come to an end.
            Err(_) if message.is_empty() => End::Failed(
                "its task has finished, and Mesos has not told what it has found".to_owned(),
            ),
            Err(error) => End::Failed(format!(
                "its task has finished, and what it says that it has found is not understood ({error})"
            )),
        },
        TaskState::Killed if now >= task.launched_at.plus(VERIFIED_WITHIN) => {
            End::Failed("its task took longer than a day and was killed".to_owned())
        }
        TaskState::Failed | TaskState::Error | TaskState::Unfit => {
            End::Failed(format!("its task has failed: {message}"))
        }
        TaskState::Staging
        | TaskState::Starting
        | TaskState::Running
        | TaskState::Killing
        | TaskState::Killed
        | TaskState::Dropped
        | TaskState::Gone
        | TaskState::GoneByOperator
        | TaskState::Unreachable
        | TaskState::Unknown
        | TaskState::Lost => End::Lost(format!("its task has ended: {message}")),
    }
}

/// Asks for the kill of a task that takes too long, in a paused cluster too: how long it may take was decided with its launch.
pub fn kill_overdue(record: &ClusterRecord, view: View<'_>, look: &mut Look) -> Option<Action> {
    let task = record.backups.verification.task.as_ref()?;
    let ends = task.launched_at.plus(VERIFIED_WITHIN);
    if view.now < ends {
        look.wake_by(ends);
        return None;
    }
    let (id, agent) = (&task.task_id, Some(&task.agent_id));
    members::kill(id, agent, view.observed, view.now, look)
}

/// The task, if the master must be asked about it: nobody has confirmed its launch, or nobody knows what became of it.
pub fn unconfirmed(
    record: &ClusterRecord,
    observed: &Observed,
    now: Timestamp,
    look: &mut Look,
) -> Option<(TaskId, String)> {
    let task = record.backups.verification.task.as_ref()?;
    let seen = observed.tasks.get(&task.task_id);
    let is_confirmed =
        |seen: &&TaskObservation| seen.state != TaskState::Staging && !seen.is_missed();
    if seen.filter(is_confirmed).is_some() {
        return None;
    }
    let asked = seen.and_then(|seen| seen.asked);
    let due = asked.unwrap_or(task.launched_at).plus(LAUNCH_DEADLINE);
    look.wake_by(due.max(now.plus(Duration::from_secs(1))));
    (due <= now).then(|| (task.task_id.clone(), task.agent_id.clone()))
}

/// Whether a task is to be launched.
pub fn wants_offers(record: &ClusterRecord) -> bool {
    let wanted = !record.deleting && !pause::holds(record);
    wanted && record.backups.verification.next().is_some()
}

/// Whether a task runs, or is about to.
pub fn is_under_way(record: &ClusterRecord) -> bool {
    record.backups.verification.task.is_some()
}

/// Launches the task of the backup whose turn it is, with an offer into which no missing member of any cluster fits.
pub fn place(
    state: &State,
    next: &mut ClusterRecord,
    (pool, room): (&mut Pool<'_>, &mut Room),
    now: Timestamp,
    look: &mut Look,
) -> Option<Launch> {
    let backup = next.backups.verification.next()?;
    if let Some(at) = backup.not_before.filter(|at| now < *at) {
        look.wake_by(at);
        return None;
    }
    let most = state.policy.backups.as_ref()?.at_once;
    let number = next.backups.verification.launches + 1;
    let task_id = TaskId::of_verification(next.name(), next.uuid, number);
    let size = next.spec.configuration().size;
    let wanted: Vec<Size> = state.sizes_wanted();
    let free = pool.offers().filter(|offer| {
        let mut wanted = wanted.iter();
        !wanted.any(|size| offer.has_room_for(size))
    });
    let at_once = Timestamp::from_millis(0);
    let wish = Wish {
        size: &size,
        // Beside a member it would compete for the disk.
        others: members::others(next, None),
        spread_by: &SpreadBy::default(),
        task_id: &task_id,
        content_at: at_once,
        shares_agent_at: Some(at_once),
        bears: Some(Duration::ZERO),
    };
    let Placement::Use { offer, port } = placement::place(free, &wish, now) else {
        return None;
    };
    if !room.take_for_verification(&state.clusters, most) {
        look.wake_by(now.plus(AGAIN));
        return None;
    }
    let launch = Launch {
        task: TaskRecord {
            task_id,
            agent_id: offer.agent_id.clone(),
            host: offer.host.clone(),
            // Nothing listens there. A task without a port would be the only one that is asked for otherwise than a member.
            port,
            launched_at: now,
            unknown: Default::default(),
        },
        offer: offer.clone(),
        size,
        ground: Ground::Sandbox,
    };
    pool.take(&launch);
    let verification = &mut next.backups.verification;
    verification.launches = number;
    verification.task = Some(launch.task.clone());
    Some(launch)
}

impl State {
    /// Whether any cluster has a backup to verify.
    pub fn wants_to_verify(&self) -> bool {
        !self.unverified.is_empty()
    }

    /// The sizes of all members that are to be launched wherever there is room.
    pub fn sizes_wanted(&self) -> Vec<Size> {
        let clusters = self.unplaced.names();
        let clusters = clusters.filter_map(|name| self.clusters.get(name));
        clusters
            .flat_map(|cluster| members::sizes_wanted(&cluster.record))
            .collect()
    }
}

/// How it stands with it, where it is wanted or was tried.
pub fn standing(record: &ClusterRecord, policy: &Policy) -> Option<VerificationView> {
    let verification = &record.backups.verification;
    if !is_wanted(policy) && verification.is_empty() {
        return None;
    }
    let first = verification.waiting.first();
    let last_good = verification.last_good.clone();
    Some(VerificationView {
        under_way: verification.under_way().map(|backup| backup.id.clone()),
        waiting: (verification.waiting.len())
            .saturating_sub(usize::from(verification.task.is_some())),
        unverified: (verification.waiting.iter())
            .map(|backup| backup.id.clone())
            .collect(),
        problem: first.and_then(|backup| backup.problem.clone()),
        last: verification.last.clone(),
        last_good: last_good.filter(|good| verification.last.as_ref() != Some(good)),
    })
}
