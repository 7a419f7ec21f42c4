//! The members' tasks: seeing their ends, launching them again, killing what is left over.
//!
//! A task is in the record from before its launch until its end is certain, so a scheduler that
//! dies in between finds it: a launch that never happened is reported as unknown, gone or dropped
//! when it is asked for, and one that did happen is simply there.

use std::time::Duration;

use super::{
    action::{Action, Look},
    event::TaskState,
    failover::View,
    observed::{self, Observed, TaskObservation},
    pause,
    placement::{self, Ground, Launch, Neighbour, Offer, Placement, SPREAD_PATIENCE, Wish},
    pool::Pool,
    slots,
    state::Policy,
};
use crate::{
    cluster::{
        id::{MemberId, TaskId},
        record::{ClusterRecord, Failing, TaskRecord},
    },
    time::Timestamp,
};

/// How long after its launch a task that the master does not know may still turn up. Mesos answers
/// a launch within seconds; what it does not know after this long never reached it.
pub const LAUNCH_DEADLINE: Duration = Duration::from_secs(60);

/// How long a kill may take before it is asked for again. It is longer than the grace period of
/// [`KILL_GRACE_PERIOD`], so that a kill that is being carried out is not repeated.
pub const KILL_RETRY: Duration = Duration::from_secs(20);

/// The grace period that Mesos is told for Cotton's tasks: mysqld gets 10 s to end by itself.
pub const KILL_GRACE_PERIOD: Duration = Duration::from_secs(15);

/// The wait before a member is launched again whose last task ended before it served clients. It
/// doubles with each further one: what fails at once, such as a package that cannot be read, must not
/// keep agents busy for nothing.
const FIRST_RELAUNCH_DELAY: Duration = Duration::from_secs(1);

/// The longest such wait: an operator who has mended the cause does not wait for longer.
const LONGEST_RELAUNCH_DELAY: Duration = Duration::from_secs(60);

/// Forgets the tasks that have ended. Returns why, a sentence each.
pub fn forget_ended(next: &mut ClusterRecord, view: View<'_>) -> Vec<String> {
    let (observed, now) = (view.observed, view.now);
    let mut ended = Vec::new();
    for (id, member) in &mut next.members {
        let Some(task) = &member.task else { continue };
        let Some(why) = ending(task, view) else {
            continue;
        };
        ended.push(format!(
            "task {} of member {id} has ended: {why}",
            task.task_id
        ));
        let task_id = task.task_id.clone();
        member.task = None;
        slots::task_ended(member, now);
        let last = observed.tasks.get(&task_id).map(|task| task.state);
        if let Some(slot) = member
            .slot
            .as_mut()
            .filter(|_| last == Some(TaskState::GoneByOperator))
        {
            slot.agent_gone = true;
        }
        let served = next.published.slaves.remove(id) | (next.published.master == Some(*id));
        if next.published.master == Some(*id) {
            next.published.master = None;
        }
        if !served && has_run(&task_id, observed) {
            let times = member
                .failing
                .as_ref()
                .map_or(1, |failing| failing.times + 1);
            let delay = FIRST_RELAUNCH_DELAY * (1 << times.saturating_sub(1).min(16));
            let retry_at = now.plus(delay.min(LONGEST_RELAUNCH_DELAY));
            member.failing = Some(Failing {
                times,
                message: why,
                retry_at,
            });
        }
    }
    ended
}

/// Whether an ended task was carried out at all. A launch that got lost is no failure of the member.
fn has_run(task_id: &TaskId, observed: &Observed) -> bool {
    observed
        .tasks
        .get(task_id)
        .is_some_and(|task| match task.state {
            TaskState::Finished | TaskState::Failed | TaskState::Killed | TaskState::Error => true,
            TaskState::Staging
            | TaskState::Starting
            | TaskState::Running
            | TaskState::Killing
            | TaskState::Dropped
            | TaskState::Gone
            | TaskState::GoneByOperator
            | TaskState::Unreachable
            | TaskState::Unknown
            | TaskState::Lost => false,
        })
}

/// A member that serves clients is no longer failing.
pub fn forgive_serving(next: &mut ClusterRecord) {
    let published = &next.published;
    for (id, member) in &mut next.members {
        if published.slaves.contains(id) || published.master == Some(*id) {
            member.failing = None;
        }
    }
}

/// Why a task is certainly over, if it is.
fn ending(task: &TaskRecord, view: View<'_>) -> Option<String> {
    let (observed, now) = (view.observed, view.now);
    let mesos = observed.tasks.get(&task.task_id)?;
    if mesos.state.is_terminal() {
        return Some(mesos.message.clone());
    }
    if !mesos.may_run() && is_silent(task, view) {
        return Some("its agent was registered anew, and offers its slot".to_owned());
    }
    // A task that nobody has ever heard of was never launched. Once its executor has reported it
    // exists, and a master that does not know it has merely not heard from its agent yet.
    let never_seen = !observed.reports.contains_key(&task.task_id);
    let unknown = matches!(mesos.state, TaskState::Unknown | TaskState::Lost);
    let overdue = now >= task.launched_at.plus(LAUNCH_DEADLINE);
    (never_seen && is_silent(task, view) && unknown && overdue)
        .then(|| "its launch never reached Mesos".to_owned())
}

/// Whether nothing is heard of the executor of a task.
///
/// That there is no report says something only once every executor had the time to be heard. A scheduler that has
/// just started hears Mesos first, and a master that has lost its registry knows no task at all.
fn is_silent(task: &TaskRecord, view: View<'_>) -> bool {
    let timeout = view.policy.session_timeout;
    let heard = view.now >= observed::silence_counts_from(view.listening_since, timeout);
    let report = view.observed.reports.get(&task.task_id);
    heard && report.is_none_or(|report| report.gone_since.is_some())
}

/// The tasks whose launch nobody has confirmed for so long that the master must be asked, each
/// with its agent. Every [`LAUNCH_DEADLINE`] again, until there is an answer.
pub fn unconfirmed(
    record: &ClusterRecord,
    observed: &Observed,
    now: Timestamp,
    look: &mut Look,
) -> Vec<(TaskId, String)> {
    let mut overdue = Vec::new();
    for task in record
        .members
        .values()
        .filter_map(|member| member.task.as_ref())
    {
        if observed.reports.contains_key(&task.task_id) {
            continue;
        }
        let asked = observed
            .tasks
            .get(&task.task_id)
            .and_then(|task| task.asked);
        let due = asked.unwrap_or(task.launched_at).plus(LAUNCH_DEADLINE);
        if due <= now {
            overdue.push((task.task_id.clone(), task.agent_id.clone()));
        }
        look.wake_by(if due <= now {
            now.plus(LAUNCH_DEADLINE)
        } else {
            due
        });
    }
    overdue
}

/// Whether any member is to be launched.
pub fn wants_offers(record: &ClusterRecord) -> bool {
    let wanted = !record.deleting && !pause::holds(record);
    wanted && record.members.keys().any(|id| is_missing(record, *id))
}

/// Whether a member is to be launched. One that is to leave and does not vote has nothing to come back for.
fn is_missing(record: &ClusterRecord, member: MemberId) -> bool {
    record.task(member).is_none() && (record.is_voter(member) || !record.is_leaving(member))
}

/// Places the members that have no task: on their slots, those without one where there is room. What they take is
/// taken out of the pool.
pub fn place_missing(
    next: &mut ClusterRecord,
    pool: &mut Pool<'_>,
    policy: &Policy,
    now: Timestamp,
    look: &mut Look,
) -> Vec<Launch> {
    let mut launches: Vec<Launch> = Vec::new();
    let missing: Vec<(MemberId, Option<Timestamp>)> = next
        .members
        .iter()
        .filter(|(id, _)| is_missing(next, **id))
        .map(|(id, member)| (*id, member.failing.as_ref().map(|failing| failing.retry_at)))
        .collect();
    for (id, retry_at) in missing {
        if let Some(retry_at) = retry_at.filter(|at| now < *at) {
            look.wake_by(retry_at);
            continue;
        }
        if let Some(launch) = place_one(next, id, pool.offers(), policy, now, look) {
            if let Some(member) = next.members.get_mut(&id) {
                member.launches += 1;
                member.task = Some(launch.task.clone());
                member.places = policy.spread_by.places(&launch.offer);
            }
            pool.take(&launch);
            launches.push(launch);
        }
    }
    launches
}

/// Places one member, and gives it a slot if it is to have one.
fn place_one<'a>(
    next: &mut ClusterRecord,
    id: MemberId,
    offers: impl Iterator<Item = &'a Offer> + Clone,
    policy: &Policy,
    now: Timestamp,
    look: &mut Look,
) -> Option<Launch> {
    let number = next.members.get(&id)?.launches + 1;
    let task_id = TaskId::new(next.name(), next.uuid, id, number);
    let member = next.members.get_mut(&id)?;
    if let Some(slot) = &mut member.slot
        && let Some(launch) = slots::relaunch(slot, task_id.clone(), offers.clone(), now)
    {
        return Some(launch);
    }
    if slots::awaits_slot(member, now, look) {
        return None;
    }
    let joined_at = next.members.get(&id)?.joined_at.unwrap_or_default();
    let since = next.created_at.max(next.epoch_since).max(joined_at);
    let wish = Wish {
        size: &next.spec.size,
        others: others(next, id),
        spread_by: &policy.spread_by,
        task_id: &task_id,
        content_at: since.plus(SPREAD_PATIENCE),
        shares_agent_at: policy.spread_patience.map(|patience| since.plus(patience)),
    };
    match placement::place(offers, &wish, now) {
        Placement::Use { offer, port } => {
            let task = TaskRecord {
                task_id,
                agent_id: offer.agent_id.clone(),
                host: offer.host.clone(),
                port,
                launched_at: now,
            };
            let slot = policy
                .volumes
                .then(|| slots::new_slot(next, id, number, &task));
            let ground = match &slot {
                Some(slot) => Ground::New(slot.id.clone()),
                None => Ground::Sandbox,
            };
            next.members.get_mut(&id)?.slot = slot;
            Some(Launch {
                offer: offer.clone(),
                task,
                size: next.spec.size,
                ground,
            })
        }
        Placement::WaitForSpread { until } => {
            if let Some(until) = until {
                look.wake_by(until);
            }
            None
        }
        Placement::NoRoom => None,
    }
}

/// Where other members run, or will when their slots are offered again.
fn others(record: &ClusterRecord, except: MemberId) -> Vec<Neighbour<'_>> {
    let others = record.members.iter().filter(|(id, _)| **id != except);
    others
        .filter_map(|(_, member)| {
            let task = member.task.as_ref().map(|task| task.agent_id.as_str());
            let agent_id = task.or(member.slot.as_ref().map(|slot| slot.agent_id.as_str()))?;
            let places = &member.places;
            Some(Neighbour { agent_id, places })
        })
        .collect()
}

/// Asks for the kill of every task of a cluster that is being deleted, again and again until each
/// has ended.
pub fn kill_all(
    record: &ClusterRecord,
    observed: &Observed,
    now: Timestamp,
    look: &mut Look,
) -> Vec<Action> {
    let tasks = record.members.values().filter_map(|m| m.task.as_ref());
    tasks
        .filter_map(|task| kill(&task.task_id, Some(&task.agent_id), observed, now, look))
        .collect()
}

/// The tasks that members had before and that may still run.
pub fn former<'a>(
    record: &'a ClusterRecord,
    observed: &'a Observed,
) -> impl Iterator<Item = (&'a TaskId, &'a TaskObservation)> {
    let tasks = observed.tasks.iter();
    tasks.filter(|(id, task)| record.member_of(id).is_none() && task.may_run())
}

/// Asks for the kill of the tasks that members had before, again and again until each has ended: such as one whose
/// launch was given up and arrived after all. Two servers of one member must not run for long.
pub fn kill_former(
    record: &ClusterRecord,
    observed: &Observed,
    now: Timestamp,
    look: &mut Look,
) -> Vec<Action> {
    former(record, observed)
        .filter_map(|(id, task)| kill(id, task.agent_id.as_ref(), observed, now, look))
        .collect()
}

/// Asks for the kill of one task, unless that was done a moment ago.
pub fn kill(
    task_id: &TaskId,
    agent_id: Option<&String>,
    observed: &Observed,
    now: Timestamp,
    look: &mut Look,
) -> Option<Action> {
    let asked = observed.tasks.get(task_id).and_then(|task| task.kill_asked);
    let again = asked
        .map(|at| at.plus(KILL_RETRY))
        .filter(|again| *again > now);
    look.wake_by(again.unwrap_or(now.plus(KILL_RETRY)));
    let kill = Action::Kill {
        task_id: task_id.clone(),
        agent_id: agent_id.cloned(),
    };
    again.is_none().then_some(kill)
}
