//! The members' tasks: seeing their ends, launching them again, killing what is left over.
//!
//! A task is in the record from before its launch until its end is certain, so a scheduler that
//! dies in between finds it: a launch that never happened is reported as unknown, gone or dropped
//! when it is asked for, and one that did happen is simply there.

use std::{collections::BTreeMap, time::Duration};

use super::{
    action::{Action, Look},
    drain,
    event::TaskState,
    failover::View,
    membership::Away,
    observed::{self, Observed, TaskObservation},
    pause,
    placement::{self, Ground, Launch, Neighbour, Offer, Placement, SPREAD_PATIENCE, Wish},
    pool::Pool,
    slots,
    state::Policy,
    verification,
};
use crate::{
    cluster::{
        id::{MemberId, Runs, TaskId},
        record::{ClusterRecord, Failing, TaskRecord},
        size::Size,
        slot::Slot,
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

/// No place at all.
static NOWHERE: BTreeMap<String, String> = BTreeMap::new();

/// Forgets the tasks that have ended. Returns why, a sentence each.
pub fn forget_ended(next: &mut ClusterRecord, view: View<'_>) -> Vec<String> {
    let (observed, now) = (view.observed, view.now);
    let mut ended = Vec::new();
    for (id, member) in &mut next.members {
        let Some(task) = &member.task else { continue };
        let Some(why) = ending(task, member.slot.as_ref(), view) else {
            continue;
        };
        ended.push(format!(
            "task {} of member {id} has ended: {why}",
            task.task_id
        ));
        let task_id = task.task_id.clone();
        member.task = None;
        member.ended_at = Some(now);
        let last = observed.tasks.get(&task_id).map(|task| task.state);
        slots::task_ended(member, last, now);
        // Also of one that was released by then and is not any more: it was shown before.
        let restart = member.restart.take_if(|it| it.task_id == task_id);
        let restarted = restart.is_some();
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
        if !served && !restarted && has_run(&task_id, observed) {
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
            TaskState::Finished
            | TaskState::Failed
            | TaskState::Killed
            | TaskState::Error
            | TaskState::Unfit => true,
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

/// Why a task is certainly over, if it is, or counts for nothing: one of a slot that nobody has ever heard of.
fn ending(task: &TaskRecord, slot: Option<&Slot>, view: View<'_>) -> Option<String> {
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
    if !(never_seen && is_silent(task, view) && overdue) {
        return None;
    }
    if unknown {
        return Some("its launch never reached Mesos".to_owned());
    }
    // The master says so of an agent that comes back under another id for as long as it remembers the former one, and a slot that was
    // never made is never offered. Whatever counts was stored together with `used`. Should the task run after all, it is
    // a former one and is killed, and its slot is one that was given up.
    let unused = slot.is_some_and(|slot| !slot.used);
    (unused && mesos.state == TaskState::Unreachable)
        .then(|| "its agent is away, and nothing was ever heard of the task".to_owned())
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

/// Since when the cluster's missing members are asked for, which is where it stands in the queue for offers: its creation, or when the
/// first of them joined, if none is missing that was there from the beginning. So a cluster that grows comes after those that were waiting
/// by then, and a member that a cluster has lost before all that came later.
pub fn asked_for_at(record: &ClusterRecord) -> Timestamp {
    let missing = record.members.iter();
    let missing = missing.filter(|(id, _)| is_missing(record, **id));
    let joined = missing.map(|(_, member)| member.joined_at.unwrap_or_default());
    record.created_at.max(joined.min().unwrap_or_default())
}

/// The sizes of the members that are to be launched wherever there is room: they have no slot that they come back to.
pub fn sizes_wanted(record: &ClusterRecord) -> impl Iterator<Item = Size> {
    let wanted = wants_offers(record);
    let members = record.members.iter();
    let missing = members
        .filter(move |(id, member)| wanted && member.slot.is_none() && is_missing(record, **id));
    missing.map(|(id, _)| record.configuration_of(*id).size)
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
                member.ended_at = None;
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
    let member = next.members.get(&id)?;
    let own = member.joined_at.max(member.ended_at).unwrap_or_default();
    let since = next.created_at.max(next.epoch_since).max(own);
    let size = next.configuration_of(id).size;
    let wish = Wish {
        size: &size,
        others: others(next, Some(id)),
        spread_by: &policy.spread_by,
        task_id: &task_id,
        content_at: since.plus(SPREAD_PATIENCE),
        shares_agent_at: policy.spread_patience.map(|patience| since.plus(patience)),
        bears: drain::bears(next, policy, id),
    };
    match placement::place(offers, &wish, now) {
        Placement::Use { offer, port } => {
            let task = TaskRecord {
                task_id,
                agent_id: offer.agent_id.clone(),
                host: offer.host.clone(),
                port,
                launched_at: now,
                unknown: Default::default(),
            };
            let slot = policy
                .volumes
                .then(|| slots::new_slot(next, id, number, size, &task));
            let ground = match &slot {
                Some(slot) => Ground::New(slot.id.clone()),
                None => Ground::Sandbox,
            };
            next.members.get_mut(&id)?.slot = slot;
            Some(Launch {
                offer: offer.clone(),
                task,
                size,
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

/// Where other members run, or will when their slots are offered again. One that is to leave holds no place: who comes for it may
/// have that. Its agent it does hold, as both run there for a while.
pub(super) fn others(record: &ClusterRecord, except: Option<MemberId>) -> Vec<Neighbour<'_>> {
    let others = record.members.iter();
    let others = others.filter(|(id, _)| Some(**id) != except);
    others
        .filter_map(|(id, member)| {
            let task = member.task.as_ref().map(|task| task.agent_id.as_str());
            let agent_id = task.or(member.slot.as_ref().map(|slot| slot.agent_id.as_str()))?;
            let places = match record.is_leaving(*id) {
                true => &NOWHERE,
                false => &member.places,
            };
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
        .chain(&record.backups.verification.task)
        .filter_map(|task| kill(&task.task_id, Some(&task.agent_id), observed, now, look))
        .collect()
}

/// Whether a task of a cluster that is being deleted may run, and its end is to be waited for. It is not where nobody can tell it to end
/// because its agent is away for as long as a living cluster waits for one: such a task is on a slot that is kept, and is killed when its
/// agent is back.
pub fn may_still_run(record: &ClusterRecord, view: View<'_>, away: &Away) -> bool {
    let is_kept = |slot: Option<&Slot>| slot.is_some_and(|slot| slot.used);
    let current = record.members.iter().any(|(id, member)| {
        let absence = away.get(id).filter(|absence| absence.due <= view.now);
        let out_of_reach = absence.is_some() && is_kept(member.slot.as_ref());
        member.task.is_some() && !out_of_reach
    });
    let mut former = former(record, view.observed);
    current
        || verification::is_under_way(record)
        || former.any(|(task_id, seen)| {
            let parts = task_id.parts();
            let verified = parts
                .as_ref()
                .is_some_and(|it| it.runs == Runs::Verification);
            let left = parts.and_then(|parts| parts.member());
            let left = left.and_then(|member| record.departed.get(&member));
            let slot = left.and_then(|left| left.slot.as_ref());
            // Nothing is lost with a task that has verified a backup.
            !(seen.is_missed() && (verified || is_kept(slot)))
        })
}

/// The tasks that the cluster had before and that may still run.
pub fn former<'a>(
    record: &'a ClusterRecord,
    observed: &'a Observed,
) -> impl Iterator<Item = (&'a TaskId, &'a TaskObservation)> {
    let tasks = observed.tasks.iter();
    tasks.filter(|(id, task)| {
        record.member_of(id).is_none() && !record.is_verification(id) && task.may_run()
    })
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
