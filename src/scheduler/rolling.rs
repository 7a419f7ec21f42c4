//! A cluster's members get another configuration, one after the other. Pure.
//!
//! What is wanted stands in the cluster's parameters and has a revision; each member has the revision that its tasks are launched with.
//! While they differ, each look takes the next step ([`steps`]), and a step is one of three:
//!
//! * a member that has no task gets the revision, and its next task is launched with it;
//! * a member on a slot is restarted ([`restart`]): slaves first, the least used one before the others, the master last, after it has
//!   handed over;
//! * a member whose resources change, or that has no slot, is replaced: another one with the wanted configuration comes first.
//!
//! The next one's turn comes when everybody else is in its place. If a member does not come back, the change stops there and
//! says so: the others go on as they are. The same request again resumes it; a request for what was before rolls back, which
//! concerns only those that were changed. A request for something else while a change is under way makes that the target.
//!
//! Everything follows from the record. A scheduler that dies after a write leaves it to its successor to take the next one.

mod wanted;

use std::{collections::BTreeSet, time::Duration};

pub use self::wanted::{package, want};
use super::{action::Look, failover::View, fitness, membership, restart};
use crate::{
    cluster::{
        configuration::{Restart, Stopped, Turn},
        control::MemberState,
        id::MemberId,
        record::{ClusterRecord, Mastership},
        view::ChangeView,
        voters::Durability,
    },
    time::Timestamp,
};

/// How long a member may take to be in its place again: its server starts, applies its redo log and what it has missed. One that copies
/// its data takes as long as it takes. Only the time counts in which it could have come back (`could_since`).
pub const COMES_BACK_WITHIN: Duration = Duration::from_secs(600);

/// How many of a member's tasks may end before they serve clients until the change stops there.
const FAILS_AT_MOST: u32 = 2;

/// How a member gets the wanted configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It has no task: its next one is launched with it.
    Launch,
    /// Its task ends and the next one takes its place.
    Restart,
    /// The same after it has handed over.
    HandOver,
    /// The same, and the cluster is down meanwhile, because it has no other member.
    Outage,
    /// Another member takes its place.
    Replace,
}

/// A step of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The member.
    pub member: MemberId,
    /// How.
    pub way: Way,
}

impl Step {
    /// The same as a sentence.
    pub fn sentence(self) -> String {
        let Self { member, way } = self;
        match way {
            Way::Launch => format!("member {member}: its next task has the new configuration"),
            Way::Restart => format!("member {member}: restarted on its slot"),
            Way::HandOver => format!(
                "member {member}: hands over if it is still the master, and is restarted on its slot"
            ),
            Way::Outage => format!(
                "member {member}: restarted on its slot; the cluster is down meanwhile, for it has no other member"
            ),
            Way::Replace => format!("member {member}: another one takes its place"),
        }
    }
}

/// Whether a member's tasks are launched with something else than is wanted.
pub fn differs(record: &ClusterRecord, member: MemberId) -> bool {
    record.configuration_of(member) != record.spec.configuration()
}

/// The steps that are still to be taken, in their order: those first that are not in their places, then by how little is lost with
/// them, the master last.
pub fn steps(record: &ClusterRecord, view: View<'_>) -> Vec<Step> {
    let staying = record.staying().filter(|id| differs(record, *id));
    let mut those: Vec<MemberId> = staying.collect();
    those.sort_by_key(|id| {
        let use_of_it = std::cmp::Reverse(membership::uselessness(record, view, *id));
        let well = is_well(record, view, *id);
        (restart::leads(record, *id), well, use_of_it)
    });
    let step = |member: MemberId| Step {
        member,
        way: way(record, member),
    };
    those.into_iter().map(step).collect()
}

fn way(record: &ClusterRecord, member: MemberId) -> Way {
    let known = record.members.get(&member);
    let task = known.and_then(|it| it.task.as_ref());
    let slot = known.and_then(|it| it.slot.as_ref());
    let resized = record.configuration_of(member).size != record.spec.size;
    match (task, slot) {
        (None, None) => Way::Launch,
        (None, Some(slot)) if !resized || !slot.used => Way::Launch,
        (_, Some(_)) if resized => Way::Replace,
        (_, None) => Way::Replace,
        (_, Some(_)) if restart::is_alone(record, member) => Way::Outage,
        (_, Some(_)) if restart::leads(record, member) => Way::HandOver,
        (_, Some(_)) => Way::Restart,
    }
}

/// Whether a member is in its place, and its vote counts if it votes.
fn is_well(record: &ClusterRecord, view: View<'_>, member: MemberId) -> bool {
    let Some(report) = view.observed.live(record, member) else {
        return false;
    };
    let counts = |data| record.voters.counts(member, data);
    let votes = !record.is_voter(member) || report.data.is_some_and(counts);
    let shown =
        record.published.master == Some(member) || record.published.slaves.contains(&member);
    let writable = MemberState::Master {
        epoch: record.epoch,
        writable: true,
    };
    let follows = fitness::in_place(record, report) && fitness::has_caught_up(report, view.policy);
    votes && shown && (report.state == writable || follows) && !restart::is_going(record, member)
}

/// The revision that a new member gets: what is wanted. But where that is another package, or the change has stopped, what the master
/// has: data is copied between servers of one version, and what has failed once is not tried on others.
pub fn for_newcomer(record: &ClusterRecord) -> u64 {
    let Some(rolling) = &record.rolling else {
        return 0;
    };
    let master = record.elected().map(|elected| elected.member);
    let master = master.filter(|master| record.members.contains_key(master));
    let Some(master) = master else {
        return rolling.revision;
    };
    let other_package = record.configuration_of(master).package != record.spec.package;
    match other_package || rolling.stopped.is_some() {
        true => record.members[&master].revision,
        false => rolling.revision,
    }
}

/// A member's task is about to be ended for the change: the next one is launched with what is wanted.
pub fn released(next: &mut ClusterRecord, member: MemberId, now: Timestamp) {
    let revision = next.revision();
    if let Some(known) = next.members.get_mut(&member) {
        known.revision = revision;
        known.failing = None;
    }
    if let Some(rolling) = &mut next.rolling {
        rolling.turn = Some(Turn {
            member,
            since: now,
            canary: None,
        });
    }
    forget_unused(next);
}

/// Forgets former configurations that no member has.
fn forget_unused(next: &mut ClusterRecord) {
    let used: BTreeSet<u64> = next.members.values().map(|it| it.revision).collect();
    if let Some(rolling) = &mut next.rolling {
        rolling.former.retain(|revision, _| used.contains(revision));
    }
}

/// Takes the change as far as it gets now.
pub fn advance(next: &mut ClusterRecord, view: View<'_>, look: &mut Look) {
    let Some(rolling) = next.rolling.as_ref() else {
        return;
    };
    if rolling.done_at.is_some() || rolling.stopped.is_some() {
        return;
    }
    launch_all(next, view, look);
    match turn(next, view) {
        Standing::Waits(until) => {
            if let Some(until) = until {
                look.wake_by(until);
            }
        }
        Standing::CatchesUp => {
            next.canary += 1;
            let canary = Some(next.canary);
            if let Some(turn) = next.rolling.as_mut().and_then(|it| it.turn.as_mut()) {
                turn.canary = canary;
            }
        }
        Standing::Stops(stopped) => {
            look.notes.push(stopped.sentence.clone());
            if let Some(rolling) = &mut next.rolling {
                rolling.stopped = Some(stopped);
            }
        }
        Standing::Over => {
            if let Some(rolling) = &mut next.rolling {
                rolling.turn = None;
            }
            begin(next, view, look);
        }
    }
}

/// While too few members have a task for there to be a master, whoever has none is launched with what is wanted, all at once: nobody's turn
/// could end, and what members had before may be why they do not come up. Nothing is given up by it. But where what is wanted has
/// failed, they come back as they were.
fn launch_all(next: &mut ClusterRecord, view: View<'_>, look: &mut Look) {
    let unborn = next.mastership == Mastership::Unborn;
    let mut changed = next.members.iter().filter(|(id, _)| !differs(next, **id));
    let failed = changed.any(|(_, member)| member.failing.is_some());
    if !unborn && (failed || has_quorum(next)) {
        return;
    }
    let those = steps(next, view).into_iter();
    let those: Vec<Step> = those.filter(|it| it.way == Way::Launch).collect();
    for step in those {
        look.notes.push(step.sentence());
        launches(next, step.member, view.now);
        if let Some(rolling) = &mut next.rolling {
            rolling.turn = None;
        }
    }
}

/// Whether enough voters have tasks for a master to be elected.
fn has_quorum(record: &ClusterRecord) -> bool {
    let voters = record.voters.members.keys();
    let there = voters.filter(|id| record.task(**id).is_some()).count();
    match record.rule() {
        Durability::Majority => there >= record.voters.quorum(),
        Durability::Async => there > 0,
    }
}

/// A member's next task is launched with what is wanted. A slot of another size that was never used is given up: nothing is on it.
fn launches(next: &mut ClusterRecord, member: MemberId, now: Timestamp) {
    released(next, member, now);
    let size = next.configuration_of(member).size;
    if let Some(known) = next.members.get_mut(&member) {
        let unfit = known.slot.take_if(|slot| !slot.used && slot.size != size);
        known.given_up.extend(unfit);
    }
}

/// How it stands with the member whose turn it is.
enum Standing {
    /// It is in its place and has what it had missed, or nobody's turn it is.
    Over,
    /// It is in its place, and a canary is to tell when it has what it had missed.
    CatchesUp,
    /// It is waited for, until then at the most.
    Waits(Option<Timestamp>),
    /// It did not come back.
    Stops(Stopped),
}

fn turn(record: &ClusterRecord, view: View<'_>) -> Standing {
    let turn = record.rolling.as_ref().and_then(|it| it.turn.clone());
    let Some(Turn {
        member,
        since,
        canary,
    }) = turn
    else {
        return Standing::Over;
    };
    let Some(known) = record.members.get(&member) else {
        // It was replaced.
        return Standing::Over;
    };
    // Of a member that is replaced, the other one has to come.
    let replacement = known.leaving.as_ref().map(|leaving| leaving.replacement);
    let awaited = replacement.unwrap_or(Some(member));
    let failing = awaited.and_then(|it| record.members.get(&it)?.failing.as_ref().map(|f| (it, f)));
    let stops = |member: MemberId, error: String| {
        let revision = record.revision();
        Standing::Stops(Stopped {
            member,
            at: view.now,
            sentence: format!(
                "change stopped: member {member} did not come back with revision {revision}: {error}"
            ),
        })
    };
    if let Some((awaited, failing)) = failing.filter(|(_, it)| it.times >= FAILS_AT_MOST) {
        return stops(awaited, failing.message.clone());
    }
    if replacement.is_some() || known.restart.is_some() {
        return Standing::Waits(None);
    }
    if is_well(record, view, member) {
        let leads = record.elected().is_some_and(|it| it.member == member);
        let executed = view.observed.live(record, member).map(|it| it.canary);
        match canary {
            _ if leads => return Standing::Over,
            None => return Standing::CatchesUp,
            Some(canary) if executed >= Some(canary) => return Standing::Over,
            Some(_) => {}
        }
    }
    let Some(could) = could_since(record, view, member) else {
        return Standing::Waits(None);
    };
    let due = since.max(could).plus(COMES_BACK_WITHIN);
    if view.now < due {
        return Standing::Waits(Some(due));
    }
    let problem = view.observed.live(record, member);
    let problem = problem.and_then(|report| report.problem.clone());
    let failed = known.failing.as_ref().map(|it| it.message.clone());
    let error = problem.or(failed).unwrap_or_else(|| {
        format!(
            "it was not in its place after {}",
            humantime::format_duration(COMES_BACK_WITHIN)
        )
    });
    stops(member, error)
}

/// Since when a member could have come to its place: since it has a task, there is a master to follow, and this scheduler hears
/// executors and Mesos, all of it without a gap; `None` while it cannot. What hinders it then says nothing of the configuration.
fn could_since(record: &ClusterRecord, view: View<'_>, member: MemberId) -> Option<Timestamp> {
    let launched = record.task(member)?.launched_at;
    let led = record.mastership == Mastership::Unborn || has_master(record, view);
    let connected = view.connected_since.filter(|_| led)?;
    let since = [connected, view.listening_since, record.epoch_since];
    Some(since.into_iter().fold(launched, Timestamp::max))
}

/// Whether there is a master that accepts writes and is heard of.
fn has_master(record: &ClusterRecord, view: View<'_>) -> bool {
    let elected = record.elected().filter(|elected| elected.opened);
    elected.is_some_and(|elected| {
        let report = view.observed.live(record, elected.member);
        report.is_some_and(|report| report.process == Some(elected.process))
    })
}

/// Begins the next member's turn, or ends the change.
fn begin(next: &mut ClusterRecord, view: View<'_>, look: &mut Look) {
    let Some(step) = steps(next, view).first().copied() else {
        let leaving = next.members.values().any(|it| it.leaving.is_some());
        let everybody = next.staying().all(|id| is_well(next, view, id));
        if everybody && !leaving {
            look.notes
                .push(format!("every member has revision {}", next.revision()));
            if let Some(rolling) = &mut next.rolling {
                rolling.done_at = Some(view.now);
            }
            forget_unused(next);
        }
        return;
    };
    if step.way != Way::Launch && waits_for(next, view, step).is_some() {
        return;
    }
    look.notes.push(format!(
        "revision {} is wanted; {}",
        next.revision(),
        step.sentence()
    ));
    let member = step.member;
    match step.way {
        Way::Launch => launches(next, member, view.now),
        Way::Replace => membership::replace_changed(next, member, view),
        Way::Restart | Way::HandOver | Way::Outage => {
            let force = next.rolling.as_ref().is_some_and(|it| it.force);
            let task = next.task(member).map(|task| task.task_id.clone());
            if let (Some(task_id), Some(known)) = (task, next.members.get_mut(&member)) {
                known.restart = Some(Restart {
                    task_id,
                    asked_at: view.now,
                    changes: true,
                    force,
                    released: false,
                });
            }
        }
    }
    if let Some(rolling) = &mut next.rolling {
        let since = view.now;
        rolling.turn = Some(Turn {
            member,
            since,
            canary: None,
        });
    }
}

/// What the next step waits for, as a sentence; `None`: it can be taken.
fn waits_for(record: &ClusterRecord, view: View<'_>, step: Step) -> Option<String> {
    let member = step.member;
    if let Some((id, _)) = record.members.iter().find(|(_, it)| it.leaving.is_some()) {
        return Some(format!("it waits for member {id} to leave"));
    }
    if let Some((id, _)) = record.members.iter().find(|(_, it)| it.restart.is_some()) {
        return Some(format!("it waits for the restart of member {id}"));
    }
    if record.elected().is_none_or(|elected| !elected.opened) {
        return Some("it waits for a master that accepts writes".to_owned());
    }
    let switches = record.switchover.as_ref().is_some_and(|it| it.is_pending());
    if switches || record.change.is_some() {
        return Some("it waits for the end of a switchover or of a change of voters".to_owned());
    }
    let unwell = record
        .members
        .keys()
        .find(|id| **id != member && !is_well(record, view, **id));
    if let Some(id) = unwell {
        return Some(format!("it waits for member {id} to be in its place"));
    }
    if step.way == Way::Replace || record.rolling.as_ref().is_some_and(|it| it.force) {
        return None;
    }
    restart::hindrance(record, view, member).map(|why| format!("it waits: {why}"))
}

/// What the API shows of a change that is not over.
pub fn show(record: &ClusterRecord) -> Option<ChangeView> {
    let rolling = record.rolling.as_ref()?;
    if rolling.done_at.is_some() || record.deleting {
        return None;
    }
    let numbers = |lacks: bool| {
        let ids = record
            .staying()
            .filter(move |id| differs(record, *id) == lacks);
        ids.map(|id| id.0).collect()
    };
    Some(ChangeView {
        revision: rolling.revision,
        asked_at: rolling.asked_at,
        members_with_it: numbers(false),
        members_without_it: numbers(true),
        stopped: rolling.stopped.as_ref().map(|it| it.sentence.clone()),
    })
}

/// What is to be told of a change that is not over.
pub fn sentence(record: &ClusterRecord, view: View<'_>) -> Option<String> {
    let shown = show(record)?;
    let (with, all) = (
        shown.members_with_it.len(),
        shown.members_with_it.len() + shown.members_without_it.len(),
    );
    let revision = shown.revision;
    let told = format!("revision {revision} of the configuration: {with} of {all} members have it");
    if let Some(stopped) = shown.stopped {
        return Some(format!("{told}; {stopped}"));
    }
    let turn = record.rolling.as_ref().and_then(|it| it.turn.as_ref());
    let turn = turn.filter(|turn| record.members.contains_key(&turn.member));
    Some(match (turn, steps(record, view).first()) {
        (Some(turn), _) => format!("{told}; member {} is being changed", turn.member),
        (None, Some(step)) => match waits_for(record, view, *step) {
            Some(why) => format!("{told}; member {} is next, and {why}", step.member),
            None => format!("{told}; member {} is next", step.member),
        },
        (None, None) => format!("{told}; the last one is waited for"),
    })
}

/// What an elected master says that it is: after a change of package another version.
pub fn note_version(next: &mut ClusterRecord, view: View<'_>) {
    let Some(elected) = next.elected().filter(|elected| elected.opened) else {
        return;
    };
    let reported = view.observed.live(next, elected.member);
    let reported = reported.and_then(|report| report.server.clone());
    if let Some(reported) = reported.filter(|it| {
        let known = next.server.as_ref();
        known.is_some_and(|known| known.flavour == it.flavour && known.version != it.version)
    }) {
        next.server = Some(reported);
    }
}
