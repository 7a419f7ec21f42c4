//! Members come and go: one mechanism for more members, fewer, another one in the place of one, and agents that are gone.
//!
//! ```text
//! joining:  recorded -> placed -> copies -> follows -> votes -> shown
//! leaving:  recorded -> replaced -> not master -> does not vote -> not shown -> killed, its end known -> left
//!                                                                                slot: released, or kept and said so
//! ```
//!
//! A cluster has as many members that are *not* leaving as were asked for. If there are fewer, one is recorded under a number that
//! nobody had before; if there are more, the least useful ones are recorded as leaving. Everything else follows from the
//! record, step by step: a scheduler that dies in between leaves a record from which its successor goes on.
//!
//! * Who joins is a member like any other: [`members`] places it, [`rebuild`](super::rebuild) names a
//!   donor, [`voting`](super::voting) lets it vote, [`publish`](super::publish) shows it.
//! * Who leaves gives nothing up before its replacement, if it has one, is in its place ([`may_go`]). A master hands over first.
//!   Then it leaves the voters by their own rules; then discovery; then its task is killed.
//! * A member whose agent is away leaves like any other, without its task's end being known. Should the agent come back, the task is
//!   one of nobody's and is killed.
//! * Its slot is destroyed only if what lies on it is proven to be elsewhere. What cannot be proven is kept.

mod agents;
mod telling;

use std::time::Duration;

pub(super) use self::agents::away;
use self::telling::look_out;
pub use self::{
    agents::{Absence, Away, Kind},
    telling::Outlook,
};
use super::{
    action::{Action, Look},
    drain::{self, HandsOver},
    election::Candidate,
    event::TaskState,
    failover::View,
    fitness, members,
    retained::Keeping,
    rolling,
    switchover::{self, Course},
    transitions,
};
use crate::{
    cluster::{
        control::{MemberState, Report},
        gtid::Position,
        id::{DataId, MemberId},
        membership::{Departed, Leaving, Why},
        record::{ClusterRecord, Mastership, MemberRecord},
    },
    rules::Rule,
    time::Timestamp,
};

/// How long after a switchover that did not come about the next one is tried, for a master that is to leave.
const NEXT_SWITCHOVER: Duration = Duration::from_secs(30);

/// The same for one whose task is being killed and that is held for a moment.
const HELD_SWITCHOVER: Duration = Duration::from_secs(1);

/// Whether the cluster goes on without a member, and has all of its data: another one is the master, open and heard of. What was
/// acknowledged is held by it, because it was elected by a quorum and has opened, and by so many voters as are to have it.
fn goes_on_without(record: &ClusterRecord, view: View<'_>, member: MemberId) -> bool {
    let Some(elected) = record.elected().filter(|elected| elected.opened) else {
        return false;
    };
    let leads = |report: &Report| {
        matches!(report.state, MemberState::Master { epoch, .. } if epoch == record.epoch)
            && report.process == Some(elected.process)
    };
    elected.member != member
        && view
            .observed
            .live(record, elected.member)
            .is_some_and(leads)
}

/// Takes the coming and going of members as far as it gets now.
pub fn advance(next: &mut ClusterRecord, view: View<'_>, keeping: &Keeping, look: &mut Look) {
    look.membership.away = away(next, view);
    note_followers(next, view);
    forget_departed(next, view, keeping);
    // First of all, so that nobody leaves before it is stored that it is to.
    depart(next, view, look);
    replace_gone(next, view, look);
    drain::mark(next, view, look);
    dismiss(next, view, look);
    join(next, view, look);
    hand_over(next, view, look);
    look_out(next, view, look);
}

/// A member that follows holds what its master has sent it and nothing else, after it was compared with the history. That says
/// something of the data that it follows with.
fn note_followers(next: &mut ClusterRecord, view: View<'_>) {
    let follows = |id: &MemberId, data: DataId| {
        let report = view.observed.live(next, *id);
        report.is_some_and(|it| fitness::in_place(next, it) && it.data == Some(data))
    };
    let marked = next
        .members
        .iter()
        .filter_map(|(id, it)| Some((*id, it.may_hold_more?)));
    let those: Vec<MemberId> = marked
        .filter(|(id, data)| follows(id, *data))
        .map(|(id, _)| id)
        .collect();
    for id in those {
        if let Some(member) = next.members.get_mut(&id) {
            member.may_hold_more = None;
        }
    }
}

/// Notes which members may hold acknowledged writes that the master just chosen lacks, where an election can lose some: those
/// whose data no report was of, or a report of more than the master holds. It is stored with the choice.
pub fn note_unasked(next: &mut ClusterRecord, asked: &[Candidate<'_>], history: &Position) {
    let accounted = |id: MemberId, data: DataId| {
        let mut asked = asked.iter();
        asked.any(|it| it.member == id && it.data == data && history.contains(&it.held.position))
    };
    let votes_with = next.voters.members.clone();
    for (id, member) in &mut next.members {
        let data = votes_with.get(id).copied().flatten().or(member.data);
        let unknown = data.filter(|data| !accounted(*id, *data));
        member.may_hold_more = member.may_hold_more.or(unknown);
    }
}

/// Marks members whose agents are away for too long. What they have is elsewhere; without that they are waited for.
fn replace_gone(next: &mut ClusterRecord, view: View<'_>, look: &mut Look) {
    for (id, absence) in look.membership.away.clone() {
        if view.now < absence.due {
            look.wake_by(absence.due);
            continue;
        }
        if !goes_on_without(next, view, id) {
            continue;
        }
        let member = next.members.get_mut(&id);
        let Some(member) = member.filter(|member| member.leaving.is_none()) else {
            continue;
        };
        let leaving = Leaving {
            why: Why::AgentGone {
                host: absence.host,
                away_since: absence.since,
            },
            since: view.now,
            replacement: None,
            unknown: Default::default(),
        };
        look.notes.push(format!(
            "member {id} is to be replaced: {}",
            leaving.sentence()
        ));
        member.leaving = Some(leaving);
    }
}

/// Marks a member that somebody wants to have replaced, and records the one that takes its place. Gives that one; `None` if
/// fewer members are wanted by now.
///
/// # Errors
/// Why it cannot be done, as a sentence.
pub fn replace(
    next: &mut ClusterRecord,
    member: MemberId,
    view: View<'_>,
) -> Result<Option<MemberId>, String> {
    let known = next.members.get_mut(&member);
    let known = known.ok_or_else(|| format!("the cluster has no member {member}"))?;
    if known.leaving.is_none() {
        known.leaving = Some(Leaving {
            why: Why::Replaced,
            since: view.now,
            replacement: None,
            unknown: Default::default(),
        });
        // In the same write: a member that is to be replaced gives nothing up before somebody has its place.
        let mut look = Look::at(next.name().clone());
        join(next, view, &mut look);
    }
    let leaving = next.members.get(&member).and_then(|it| it.leaving.as_ref());
    Ok(leaving.and_then(|leaving| leaving.replacement))
}

/// Marks a member in whose place one with the wanted configuration is to come, and records that one.
pub fn replace_changed(next: &mut ClusterRecord, member: MemberId, view: View<'_>) {
    if let Some(known) = next.members.get_mut(&member) {
        known.leaving = Some(Leaving {
            why: Why::Changed,
            since: view.now,
            replacement: None,
            unknown: Default::default(),
        });
        let mut look = Look::at(next.name().clone());
        join(next, view, &mut look);
    }
}

/// Members that were to leave for another configuration than theirs stay, if theirs is wanted again and they have given nothing
/// up yet. Those that have come for them are then too many.
pub fn keep_unchanged(next: &mut ClusterRecord, view: View<'_>) {
    let those: Vec<MemberId> = next
        .members
        .iter()
        .filter(|(id, member)| {
            let leaving = member.leaving.as_ref();
            let changed = leaving.is_some_and(|it| it.why == Why::Changed);
            changed
                && !rolling::differs(next, **id)
                && !is_out(next, **id)
                && view.observed.live(next, **id).is_some()
        })
        .map(|(id, _)| *id)
        .collect();
    for id in those {
        if let Some(member) = next.members.get_mut(&id) {
            member.leaving = None;
        }
    }
}

/// Marks the least useful members, if there are more than asked for.
fn dismiss(next: &mut ClusterRecord, view: View<'_>, look: &mut Look) {
    let wanted = next.spec.num_nodes as usize;
    while next.staying().count() > wanted {
        let master = next.elected().map(|elected| elected.member);
        let candidates = next.staying().filter(|id| Some(*id) != master);
        let Some(id) = candidates.max_by_key(|id| uselessness(next, view, *id)) else {
            return;
        };
        let why = Why::Scaled;
        let leaving = Leaving {
            why,
            since: view.now,
            replacement: None,
            unknown: Default::default(),
        };
        look.notes
            .push(format!("member {id} is to leave: {}", leaving.sentence()));
        if let Some(member) = next.members.get_mut(&id) {
            member.leaving = Some(leaving);
        }
    }
}

/// How little is lost with a member; who has the greatest goes first. The order of the parts is the policy: who does not run
/// goes before who does, then who does not vote, then who is farthest behind, then who shares its agent with another member, then who
/// shares its places with the most others, then the highest number.
pub fn uselessness(
    record: &ClusterRecord,
    view: View<'_>,
    id: MemberId,
) -> (bool, bool, u64, bool, usize, MemberId) {
    let report = view.observed.live(record, id);
    let runs = report.is_some_and(|report| report.process.is_some());
    let lag = report.map_or(0, |report| match fitness::in_place(record, report) {
        true => report.lag_seconds,
        false => u64::MAX,
    });
    let agent = |id: MemberId| record.task(id).map(|task| task.agent_id.as_str());
    let others = || record.staying().filter(|other| *other != id);
    let shares_agent = agent(id).is_some() && others().any(|other| agent(other) == agent(id));
    let places = |id: MemberId| record.members.get(&id).map(|member| &member.places);
    let shared_places = |other: MemberId| {
        let theirs = places(other)?;
        let shared = places(id)?
            .iter()
            .filter(|(name, place)| theirs.get(*name) == Some(*place));
        Some(shared.count())
    };
    let shared_places = others().filter_map(shared_places).sum();
    let votes = record.is_voter(id);
    (!runs, !votes, lag, shares_agent, shared_places, id)
}

/// Records members until there are as many as asked for. One that was only to leave because there were too many stays,
/// if nothing was given up yet.
pub(super) fn join(next: &mut ClusterRecord, view: View<'_>, look: &mut Look) {
    let wanted = next.spec.num_nodes as usize;
    while next.staying().count() < wanted {
        // Only who was not asked to end yet, by any scheduler: that follows from the stored record alone.
        let back = next.members.iter().find(|(id, member)| {
            let leaving = member.leaving.as_ref();
            let scaled = leaving.is_some_and(|it| it.why == Why::Scaled);
            scaled && !is_out(next, **id) && view.observed.live(next, **id).is_some()
        });
        if let Some(id) = back.map(|(id, _)| *id) {
            if let Some(member) = next.members.get_mut(&id) {
                member.leaving = None;
            }
            look.notes.push(format!("member {id} stays after all"));
            continue;
        }
        let id = next.next_member();
        next.members_made = id.0 + 1;
        let member = MemberRecord {
            joined_at: Some(view.now),
            revision: rolling::for_newcomer(next),
            ..MemberRecord::default()
        };
        next.members.insert(id, member);
        transitions::provide_accounts(next);
        look.notes.push(format!("member {id} joins"));
    }
    name_replacements(next);
}

/// Pairs those that leave with those that have come for it.
fn name_replacements(next: &mut ClusterRecord) {
    let takes_place = |it: &MemberRecord| it.leaving.as_ref()?.replacement;
    let taken: Vec<MemberId> = next.members.values().filter_map(takes_place).collect();
    let newcomers = next.members.iter().filter(|(id, member)| {
        member.joined_at.is_some() && member.leaving.is_none() && !taken.contains(id)
    });
    let mut newcomers: Vec<(MemberId, Option<Timestamp>)> =
        newcomers.map(|(id, it)| (*id, it.joined_at)).collect();
    let stays = |id: MemberId| {
        let known = next.members.get(&id);
        known.is_some_and(|known| known.leaving.is_none())
    };
    let lacking: Vec<(MemberId, Timestamp)> = next
        .members
        .iter()
        .filter_map(|(id, member)| {
            let leaving = member.leaving.as_ref()?;
            let lacks = leaving.why != Why::Scaled && !leaving.replacement.is_some_and(stays);
            lacks.then_some((*id, leaving.since))
        })
        .collect();
    for (id, since) in lacking {
        // Who was there before is a member of its own right.
        let found = newcomers.iter().position(|(_, at)| *at >= Some(since));
        let replacement = found.map(|index| newcomers.remove(index).0);
        if let Some(leaving) = next.members.get_mut(&id).and_then(|it| it.leaving.as_mut()) {
            leaving.replacement = replacement;
        }
    }
}

/// Whether a member that is to leave has nothing left to wait for but its own steps: its replacement follows and is ready, and
/// votes if it did; if the flavour has no use for another voter, enough others vote.
pub fn may_go(record: &ClusterRecord, view: View<'_>, member: MemberId) -> bool {
    let leaving = record
        .members
        .get(&member)
        .and_then(|it| it.leaving.as_ref());
    let Some(leaving) = leaving else { return false };
    let comes_first = view.policy.rules.holds(Rule::ReplacementComesFirst);
    let Some(replacement) = leaving.replacement.filter(|_| comes_first) else {
        // Fewer members are wanted by now, or this is what it leaves for.
        return true;
    };
    let is_master = record
        .elected()
        .is_some_and(|it| it.opened && it.member == replacement);
    let report = view.observed.live(record, replacement);
    if !is_master && !report.is_some_and(|report| fitness::in_place(record, report)) {
        return false;
    }
    let Some(server) = record.server.as_ref() else {
        return false;
    };
    let limit = record.spec.durability.most_voters(server.flavour);
    let voters = record.voters.members.keys();
    let stay = voters.filter(|voter| !record.is_leaving(**voter)).count();
    !record.is_voter(member) || record.is_voter(replacement) || stay >= limit
}

/// Whether a member has left everything but its task: the stored record says that it does not vote and is not shown, and it is not the
/// master.
fn is_out(record: &ClusterRecord, member: MemberId) -> bool {
    let published = &record.published;
    let named = published.master == Some(member) || published.slaves.contains(&member);
    let elected = record.elected().is_some_and(|it| it.member == member);
    record.is_leaving(member) && !record.is_voter(member) && !named && !elected
}

/// A master that is to leave, or whose agent is, hands over to one that stays, again and again until it comes about.
fn hand_over(next: &mut ClusterRecord, view: View<'_>, look: &mut Look) {
    let Some(elected) = next.elected().filter(|elected| elected.opened) else {
        return;
    };
    let master = elected.member;
    let leaves = next.is_leaving(master) && may_go(next, view, master);
    let drained = drain::hands_over(next, view, master);
    if !leaves && drained.is_none() {
        return;
    }
    // One that is killed has seconds left.
    let pause = match drained {
        Some(HandsOver::Held) => HELD_SWITCHOVER,
        Some(HandsOver::Drained(_)) | None => NEXT_SWITCHOVER,
    };
    let last = next.switchover.as_ref().filter(|last| last.from == master);
    let failed_at = last.and_then(|last| Some(last.outcome.as_ref()?.at));
    let again_at = failed_at.map(|at| at.plus(pause));
    if let Some(at) = again_at.filter(|at| view.now < *at) {
        return look.wake_by(at);
    }
    let course = match drained {
        Some(why) if !leaves => switchover::ask_to_hand_over(next, view, why),
        _ => switchover::ask_to_leave(next, view),
    };
    match course {
        Ok(Course::Store(switchover)) => {
            let why = match drained {
                Some(HandsOver::Held) => "is being killed",
                Some(HandsOver::Drained(_)) if !leaves => "is on an agent that is to be taken away",
                _ => "is to leave",
            };
            look.notes.push(format!(
                "member {master} {why} and hands over to member {}",
                switchover.to
            ));
            next.switchover = Some(switchover);
        }
        // What hinders it is told with the cluster; what changes that is a report or a write.
        Ok(Course::Pending(_) | Course::IsMaster(_)) | Err(_) => {}
    }
}

/// Kills the tasks of members that have left everything else, by what is stored.
pub fn kill_leaving(record: &ClusterRecord, view: View<'_>, look: &mut Look) -> Vec<Action> {
    if record.deleting {
        return Vec::new();
    }
    let members = record.members.iter();
    let those = members.filter(|(id, _)| is_out(record, **id) && may_go(record, view, **id));
    let tasks = those.filter_map(|(_, member)| member.task.as_ref());
    tasks
        .filter_map(|task| {
            let agent = Some(&task.agent_id);
            members::kill(&task.task_id, agent, view.observed, view.now, look)
        })
        .collect()
}

/// Takes members out of the record that have left: their tasks have ended, or their agents are away.
fn depart(next: &mut ClusterRecord, view: View<'_>, look: &mut Look) {
    let born = next.mastership != Mastership::Unborn;
    let ids: Vec<MemberId> = next.members.keys().copied().collect();
    for id in ids {
        let Some(member) = next.members.get(&id).filter(|_| is_out(next, id)) else {
            continue;
        };
        let away = look.membership.away.contains_key(&id);
        let ended = member.task.is_none();
        // Without a task, and without a vote for which it would be launched again, it is of no use to anybody that waits.
        let may_go = ended || away && may_go(next, view, id);
        if !may_go || born && !goes_on_without(next, view, id) {
            continue;
        }
        next.members_made = next.next_member().0;
        let destroy = is_elsewhere(next, view, id);
        let Some(member) = next.members.remove(&id) else {
            continue;
        };
        look.notes.push(told(id, &member, destroy));
        let slot = member.slot.filter(|slot| !slot.agent_gone);
        let left = Departed {
            since: view.now,
            destroy: destroy && slot.is_some(),
            slot,
            given_up: member.given_up,
            task: member.task.map(|task| task.task_id),
            unknown: Default::default(),
        };
        next.donors.remove(&id);
        next.from_backup.remove(&id);
        next.rejoining.remove(&id);
        next.last_held.remove(&id);
        // A server that may still run must not be heard by any master: its account stays locked.
        if left.task.is_none() {
            transitions::forget(next, id);
        }
        if !left.is_over() {
            next.departed.insert(id, left);
        }
    }
}

fn told(id: MemberId, member: &MemberRecord, destroy: bool) -> String {
    let slot = match (&member.slot, destroy) {
        (None, _) => String::new(),
        (Some(slot), true) => format!("; its slot on {} is released", slot.host),
        (Some(slot), false) => format!("; its slot on {} is kept", slot.host),
    };
    format!("member {id} has left{slot}")
}

/// Whether everything of worth on a member's slot is proven to be elsewhere. The master is open and not this member.
///
/// With `k > 0` every acknowledged write is then with the master and `k` others of those that vote, and this one does not: it left
/// after a canary that they acknowledged. Two kinds of data are not covered by that: what was acknowledged while the master
/// waited for nobody, and what was given up when an operator accepted a loss. Both can be on a member only that no election has asked
/// since, which is noted ([`note_unasked`]) and holds until it follows, and so has nothing that its master has not.
fn is_elsewhere(record: &ClusterRecord, view: View<'_>, id: MemberId) -> bool {
    let Some(member) = record.members.get(&id) else {
        return false;
    };
    // Before the first master has opened there is nothing to be lost.
    record.mastership == Mastership::Unborn
        || goes_on_without(record, view, id) && member.may_hold_more.is_none()
}

/// Forgets what is gone of members that have left.
fn forget_departed(next: &mut ClusterRecord, view: View<'_>, keeping: &Keeping) {
    let ids: Vec<MemberId> = next.departed.keys().copied().collect();
    for id in ids {
        let Some(left) = next.departed.get_mut(&id) else {
            continue;
        };
        // A slot can be destroyed when it was offered, and is offered as a whole when no task is on it.
        if left.slot.as_ref().is_some_and(|it| keeping.is_gone(&it.id)) {
            left.slot = None;
            left.task = None;
        }
        left.given_up.retain(|slot| !keeping.is_gone(&slot.id));
        let task = left.task.as_ref();
        let seen = task.and_then(|task| view.observed.tasks.get(task));
        let state = seen.map(|seen| seen.state);
        if state.is_some_and(TaskState::is_terminal) {
            left.task = None;
        }
        // Such an agent is never let in again.
        if state == Some(TaskState::GoneByOperator) {
            left.slot = None;
        }
        let (over, unlocked) = (left.is_over(), left.task.is_none());
        if over {
            next.departed.remove(&id);
        }
        if unlocked {
            transitions::forget(next, id);
        }
    }
}
