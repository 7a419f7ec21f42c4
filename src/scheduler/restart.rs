//! A member's task ends and another one takes its place on the same slot: asked for by an operator, or by a change of what its
//! server is to be. Pure.
//!
//! ```text
//! asked for, stored -> not master -> can be done without, stored -> not shown, killed -> its end known -> launched on its slot
//! ```
//!
//! What comes back is the same data, so it votes as before, and nothing is copied. That needs a slot: a member without one is replaced
//! instead. The rest is about writes, which must find enough members to acknowledge them meanwhile:
//!
//! * A slave is restarted while the others can acknowledge without it.
//! * A master hands over first, again and again until that comes about. A single node has nobody to hand over to.
//! * What would make writes wait is done only if it was asked for so (`force`).
//! * Who is on an agent that is to be taken away in the next minutes is not counted on: its agent may have been promised.
//! * Nothing is restarted while the cluster hands over from one master to the next, also with `force`.
//!
//! That the task can be done without is stored (`released`) before it is killed, and seen again before the first kill; if it cannot any
//! more, that is taken back. A scheduler that dies in between leaves a record from which its successor goes on. The end of the task ends
//! the restart, whatever it died of.

use std::time::Duration;

use super::{
    action::{Action, Look},
    drain,
    failover::View,
    fitness, members, rolling,
    switchover::{self, Course},
};
use crate::{
    cluster::{
        configuration::Restart,
        id::MemberId,
        record::{ClusterRecord, Mastership},
        switchover::ANSWERS_WITHIN,
        voters::Durability,
    },
    rules::Rule,
    time::Timestamp,
};

/// How long after a switchover that did not come about the next one is tried, for a master that is to be restarted.
const NEXT_SWITCHOVER: Duration = Duration::from_secs(30);

/// How long a restart that was asked for with `force` waits for the next master: for as long as electing and opening one takes where nothing
/// fails. After that the member may be what it waits for.
const FORCE_WAITS: Duration = Duration::from_secs(30);

/// Marks a member as one that is to be restarted.
///
/// # Errors
/// Why it cannot be, as a sentence.
pub fn ask(
    next: &mut ClusterRecord,
    member: MemberId,
    force: bool,
    view: View<'_>,
) -> Result<(), String> {
    let known = next.members.get(&member);
    let known = known.ok_or_else(|| format!("the cluster has no member {member}"))?;
    if known.leaving.is_some() {
        return Err("it is to leave the cluster".to_owned());
    }
    let Some(task) = &known.task else {
        return Err("it has no task, and gets one when its agent offers room".to_owned());
    };
    if !has_home(next, member) {
        return Err(
            "it has no slot, so its data would go with its task; have it replaced instead"
                .to_owned(),
        );
    }
    let task_id = task.task_id.clone();
    let pending = known.restart.as_ref().filter(|it| it.task_id == task_id);
    if pending.is_some_and(|it| it.force || !force) {
        return Ok(());
    }
    if !force && let Some(why) = hindrance(next, view, member) {
        return Err(format!(
            "{why}; with force it is done all the same, and writes wait until it is back"
        ));
    }
    let restart = match pending {
        Some(pending) => Restart {
            force,
            ..pending.clone()
        },
        None => Restart {
            task_id,
            asked_at: view.now,
            changes: false,
            force,
            released: false,
        },
    };
    if let Some(known) = next.members.get_mut(&member) {
        known.restart = Some(restart);
    }
    Ok(())
}

/// What a restart means for clients, as a sentence.
pub fn note(record: &ClusterRecord, view: View<'_>, member: MemberId) -> String {
    if is_alone(record, member) {
        return format!(
            "member {member} is restarted; the cluster is down meanwhile, for it has no other member"
        );
    }
    match hindrance(record, view, member) {
        Some(why) => {
            format!("member {member} is restarted, and writes may wait until it is back: {why}")
        }
        None if leads(record, member) => {
            format!("member {member} hands over, and is restarted then")
        }
        None => format!("member {member} is restarted"),
    }
}

/// Whether a member's data stays when its task ends: it lies on a slot.
pub fn has_home(record: &ClusterRecord, member: MemberId) -> bool {
    let known = record.members.get(&member);
    known.is_some_and(|known| known.slot.is_some())
}

/// Whether a member is the cluster's only one.
pub fn is_alone(record: &ClusterRecord, member: MemberId) -> bool {
    record.members.keys().all(|other| *other == member)
}

/// Whether a member is the elected master.
pub fn leads(record: &ClusterRecord, member: MemberId) -> bool {
    record.elected().is_some_and(|it| it.member == member)
}

/// Why writes would wait while a member is restarted, a master after it has handed over; `None`: they need not, or there is nobody else
/// and the cluster is down meanwhile in any case.
pub fn hindrance(record: &ClusterRecord, view: View<'_>, member: MemberId) -> Option<String> {
    if is_alone(record, member) || record.mastership == Mastership::Unborn {
        return None;
    }
    let Some(elected) = record.elected().filter(|elected| elected.opened) else {
        return Some("the cluster has no master that accepts writes at the moment".to_owned());
    };
    let stays = |it: &MemberId| {
        let gone = is_going(record, *it) || drain::is_taken_soon(record, view, *it);
        *it != member && (!gone || !view.policy.rules.holds(Rule::QuorumOutlastsRestart))
    };
    let others = fitness::acknowledgers(record, view).filter(stays).count();
    // Who takes over from it does not acknowledge any more.
    let spare = if elected.member == member {
        let Some(spare) = others.checked_sub(1) else {
            return Some(format!(
                "no other voter is ready to take over from the master, member {member}"
            ));
        };
        spare
    } else {
        others
    };
    (spare < needed(record, view)).then(|| {
        let taken = fitness::acknowledgers(record, view);
        let taken = taken.filter(|it| *it != member && drain::is_taken_soon(record, view, *it));
        let taken = taken.map(|it| format!(", and the agent of member {it} is to be taken away"));
        format!(
            "without member {member} there are too few members to acknowledge writes{}",
            taken.collect::<String>()
        )
    })
}

/// How many voters it takes beside the master, to acknowledge writes and to elect the next one.
fn needed(record: &ClusterRecord, view: View<'_>) -> usize {
    if !view.policy.rules.holds(Rule::QuorumOutlastsRestart) {
        return 0;
    }
    let acknowledge = record.terms.acknowledgements.max(record.voters.k_floor) as usize;
    match record.rule() {
        Durability::Majority => acknowledge.max(record.voters.quorum().saturating_sub(1)),
        // It may elect without all of them after a while.
        Durability::Async => acknowledge,
    }
}

/// Takes restarts as far as they get now.
pub fn advance(next: &mut ClusterRecord, view: View<'_>, look: &mut Look) {
    let ids: Vec<MemberId> = next.members.keys().copied().collect();
    for id in ids {
        let Some(restart) = next.members.get(&id).and_then(|it| it.restart.clone()) else {
            continue;
        };
        let its_task = next
            .task(id)
            .is_some_and(|it| it.task_id == restart.task_id);
        let outdated = restart.changes && !restart.released && !rolling::differs(next, id);
        if !its_task || next.is_leaving(id) || outdated {
            set(next, id, None);
            continue;
        }
        if restart.released {
            // It was elected since, and is to hand over first; or it is needed by now. What it was restarted for, its next task is launched
            // with already. Should a kill be on its way from a former scheduler, the task ends, and the restart is over.
            let master = leads(next, id) && hands_over_first(next, view, id, &restart);
            if master || !is_killed(view, &restart) && !may_go(next, view, id, &restart) {
                let taken_back = Restart {
                    released: false,
                    changes: false,
                    ..restart
                };
                set(next, id, Some(taken_back));
            }
            continue;
        }
        if let Some(at) = hands_over_until(next, view, &restart) {
            look.wake_by(at);
        }
        if leads(next, id) && hands_over_first(next, view, id, &restart) {
            if in_turn(next, id) {
                hand_over(next, view, id, look);
            }
        } else if may_go(next, view, id, &restart) {
            release(next, view, id, restart, look);
        }
    }
}

/// Whether a master has to hand over before it is restarted: there is another member, and not an operator's word that
/// it goes without a successor in sight.
fn hands_over_first(
    record: &ClusterRecord,
    view: View<'_>,
    member: MemberId,
    restart: &Restart,
) -> bool {
    if !view.policy.rules.holds(Rule::MasterHandsOverFirst) {
        return false;
    }
    let nobody = fitness::acknowledgers(record, view).next().is_none();
    !(is_alone(record, member) || restart.force && nobody)
}

fn hand_over(next: &mut ClusterRecord, view: View<'_>, master: MemberId, look: &mut Look) {
    let last = next.switchover.as_ref().filter(|last| last.from == master);
    let failed_at = last.and_then(|last| Some(last.outcome.as_ref()?.at));
    let again_at = failed_at.map(|at| at.plus(NEXT_SWITCHOVER));
    if let Some(at) = again_at.filter(|at| view.now < *at) {
        return look.wake_by(at);
    }
    // What hinders it is told with the cluster; what changes that is a report or a write.
    if let Ok(Course::Store(switchover)) = switchover::ask_to_leave(next, view) {
        look.notes.push(format!(
            "member {master} is to be restarted and hands over to member {}",
            switchover.to
        ));
        next.switchover = Some(switchover);
    }
}

/// Whether a task can be done without now.
fn may_go(record: &ClusterRecord, view: View<'_>, member: MemberId, restart: &Restart) -> bool {
    let settled = hands_over_until(record, view, restart).is_none();
    let hindered = || !restart.force && hindrance(record, view, member).is_some();
    in_turn(record, member) && settled && !hindered()
}

/// Whether nobody else was released: one at a time, who was comes back first.
fn in_turn(record: &ClusterRecord, member: MemberId) -> bool {
    let mut others = record.members.keys().filter(|id| **id != member);
    !others.any(|id| is_going(record, *id))
}

/// Until when a restart waits because the cluster is on its way from one master to the next; `None`: it is not, or has been for so long
/// that a restart which was asked for with `force` goes on.
fn hands_over_until(
    record: &ClusterRecord,
    view: View<'_>,
    restart: &Restart,
) -> Option<Timestamp> {
    let pending = record.switchover.as_ref().filter(|it| it.is_pending());
    let opened = record.elected().is_some_and(|elected| elected.opened);
    let until = match pending {
        Some(asked) if asked.epoch == record.epoch => {
            return Some(asked.asked_at.plus(ANSWERS_WITHIN));
        }
        Some(asked) => asked.asked_at.plus(FORCE_WAITS),
        None if opened || record.mastership == Mastership::Unborn => return None,
        None => restart.asked_at.plus(FORCE_WAITS),
    };
    (view.now < until).then_some(until)
}

/// Whether this scheduler has asked for the kill of the task.
fn is_killed(view: View<'_>, restart: &Restart) -> bool {
    let seen = view.observed.tasks.get(&restart.task_id);
    seen.is_some_and(|seen| seen.kill_asked.is_some())
}

fn release(
    next: &mut ClusterRecord,
    view: View<'_>,
    member: MemberId,
    restart: Restart,
    look: &mut Look,
) {
    let changes = restart.changes;
    look.notes.push(match changes {
        true => format!("member {member} is restarted for another configuration"),
        false => format!("member {member} is restarted"),
    });
    let released = Restart {
        released: true,
        ..restart
    };
    set(next, member, Some(released));
    next.published.slaves.remove(&member);
    if changes {
        rolling::released(next, member, view.now);
    }
}

fn set(next: &mut ClusterRecord, member: MemberId, restart: Option<Restart>) {
    if let Some(known) = next.members.get_mut(&member) {
        known.restart = restart;
    }
}

/// Whether a member's task is being ended so that the next one takes its place: it is not shown any more.
pub fn is_going(record: &ClusterRecord, member: MemberId) -> bool {
    let known = record.members.get(&member);
    let restart = known.and_then(|known| known.restart.as_ref());
    restart.is_some_and(|restart| restart.released)
}

/// Kills the tasks that were released, by what is stored.
pub fn kill_released(record: &ClusterRecord, view: View<'_>, look: &mut Look) -> Vec<Action> {
    let members = record.members.iter();
    let released = members.filter_map(|(id, member)| {
        let restart = member.restart.as_ref().filter(|it| it.released)?;
        let task = member.task.as_ref()?;
        (task.task_id == restart.task_id).then_some((*id, task, restart))
    });
    released
        .filter_map(|(id, task, restart)| {
            // Since it was stored another one may have failed, or it may have become the master.
            let master = leads(record, id) && hands_over_first(record, view, id, restart);
            if master || !is_killed(view, restart) && !may_go(record, view, id, restart) {
                return None;
            }
            let agent = Some(&task.agent_id);
            members::kill(&task.task_id, agent, view.observed, view.now, look)
        })
        .collect()
}

/// What is to be told of restarts, a sentence each.
pub fn sentences(record: &ClusterRecord, view: View<'_>) -> Vec<String> {
    let members = record.members.iter();
    let asked = members.filter_map(|(id, it)| Some((*id, it.restart.as_ref()?)));
    asked
        .map(|(id, restart)| {
            let course = if restart.released {
                "its task is ended".to_owned()
            } else if leads(record, id) && hands_over_first(record, view, id, restart) {
                match switchover::ask_to_leave(record, view) {
                    Ok(_) => "it is the master and hands over first".to_owned(),
                    Err(why) => format!("it is the master and cannot hand over yet: {why}"),
                }
            } else {
                match hindrance(record, view, id).filter(|_| !restart.force) {
                    _ if hands_over_until(record, view, restart).is_some() => {
                        "it waits until the next master accepts writes".to_owned()
                    }
                    Some(why) => format!("it waits: {why}"),
                    None => "it waits for another member to be back".to_owned(),
                }
            };
            format!("member {id} is to be restarted: {course}")
        })
        .collect()
}
