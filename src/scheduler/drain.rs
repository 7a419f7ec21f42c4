//! Agents that are to be taken away: who moves before, who hands over, and when an agent can be given away.
//!
//! ```text
//! master there      ->  switches over to a voter elsewhere
//! too few elsewhere ->  a member there is replaced: another one joins first
//! not back soon     ->  the same
//! then              ->  the inverse offer is accepted; until then it is declined each time that it comes
//! ```
//!
//! Who need not move stays on its slot, goes down with its agent and comes back with it. A member moves
//!
//! * if without it, and without all whose agents are away at the same time, the cluster would fall below its quorum;
//! * if the agent is away for longer than the cluster waits for agents (`--replace-after`), or for good: then it would be
//!   replaced anyway, later and with one copy of the data less meanwhile;
//! * if it has no volume: nothing of it would come back.
//!
//! Only as many move as it takes. What was marked as leaving is stored, and stays so if the plan for the agent is given up after its
//! replacement is in its place; before that it stays after all.
//!
//! Agents that are away one after the other are told apart by their times. A master goes where no maintenance is planned, else to an
//! agent whose turn comes after its own agent's; so it does not go back and forth.
//!
//! A drained agent (`DRAIN_AGENT`) is not announced: its tasks are killed. The executor of a master that is killed without
//! its cluster having asked for that says so in its report and holds the server for a part of the grace period; the master
//! hands over in that time ([`hands_over`]).

use std::{cmp::Reverse, time::Duration};

use super::{
    action::Look,
    failover::View,
    fitness,
    maintenance::{FORGOTTEN_AFTER, Maintenance, Window},
    membership::may_go,
    pause, restart,
    rolling::COMES_BACK_WITHIN,
    state::Policy,
    switchover,
};
use crate::{
    cluster::{
        control::{MemberState, Report},
        id::MemberId,
        membership::{Leaving, Why},
        record::{ClusterRecord, Elected, Mastership},
        voters::Durability,
    },
    rules::Rule,
    time::Timestamp,
};

/// When the agent of a member is to be unavailable, if it is.
fn window(record: &ClusterRecord, maintenance: &Maintenance, id: MemberId) -> Option<Window> {
    maintenance.window(agent(record, id)?)
}

/// Whether the agent of a member is to be unavailable before a member that is restarted now is certainly back. It counts whether that was
/// promised already or is only asked for: the promise may be next.
pub fn is_taken_soon(record: &ClusterRecord, view: View<'_>, id: MemberId) -> bool {
    let back = Window {
        from: view.now,
        ends: Some(view.now.plus(COMES_BACK_WITHIN)),
    };
    let planned = window(record, view.maintenance, id);
    planned.is_some_and(|planned| planned.overlaps(back))
}

/// Where a member runs, or will when its slot is offered again.
fn agent(record: &ClusterRecord, id: MemberId) -> Option<&str> {
    let member = record.members.get(&id)?;
    let task = member.task.as_ref().map(|task| task.agent_id.as_str());
    task.or(member.slot.as_ref().map(|slot| slot.agent_id.as_str()))
}

/// How good the place of a member is for a master; the greatest is the best: where nothing is planned, then where maintenance
/// begins last.
pub fn stays_until(
    record: &ClusterRecord,
    maintenance: &Maintenance,
    id: MemberId,
) -> Reverse<Timestamp> {
    let window = window(record, maintenance, id);
    Reverse(window.map_or(Timestamp::FAR_FUTURE, |window| window.from))
}

/// How many of so many voters, the master among them, it takes to go on writing and to elect.
fn needed(record: &ClusterRecord, view: View<'_>, voters: usize, acknowledgements: u32) -> usize {
    if !view.policy.rules.holds(Rule::QuorumOutlastsMaintenance) {
        return 0;
    }
    let k = acknowledgements as usize;
    match record.rule() {
        Durability::Majority => voters.saturating_sub(k).max(k + 1),
        // Without a quorum to speak of, one that can take over is enough.
        Durability::Async => 1,
    }
}

/// The voters that there will be when those that leave are gone and those that replace them have come.
fn future_voters(record: &ClusterRecord) -> Vec<MemberId> {
    let leaving = record.members.iter();
    let leaving = leaving.filter_map(|(id, member)| Some((id, member.leaving.as_ref()?)));
    let coming = leaving.filter_map(|(id, it)| it.replacement.filter(|_| record.is_voter(*id)));
    let coming: Vec<MemberId> = coming.collect();
    let votes = |id: &MemberId| record.is_voter(*id) || coming.contains(id);
    record.staying().filter(votes).collect()
}

/// Whether too few voters would be there when all agents are away that are away at that time.
fn falls_below_quorum(record: &ClusterRecord, view: View<'_>, away: Window) -> bool {
    let Some(server) = &record.server else {
        return true;
    };
    let voters = future_voters(record);
    let k = Durability::Majority.acknowledgements(voters.len(), server.flavour);
    let needed = needed(record, view, voters.len(), k);
    let there = voters.iter().filter(|id| {
        let planned = window(record, view.maintenance, **id);
        planned.is_none_or(|planned| !planned.overlaps(away))
    });
    there.count() < needed
}

/// How long the cluster waits for an agent that is away.
fn patience(record: &ClusterRecord, policy: &Policy) -> Duration {
    let replace_after = record.spec.replace_after;
    replace_after.map_or(policy.replace_after, |it| it.duration())
}

/// For how long the agent to which a member goes may be taken away; `None`: for ever. Where it would have to leave at once it does not go.
///
/// Before a master has opened nobody can leave, and a cluster comes to be wherever there is room.
pub fn bears(record: &ClusterRecord, policy: &Policy, id: MemberId) -> Option<Duration> {
    record.elected().filter(|elected| elected.opened)?;
    let comes_back = policy.volumes && !takes_place_of_drained(record, id);
    Some(match comes_back {
        true => patience(record, policy),
        false => Duration::ZERO,
    })
}

/// Whether a member has to be elsewhere before its agent is away.
fn must_move(record: &ClusterRecord, view: View<'_>, id: MemberId, away: Window) -> bool {
    let member = record.members.get(&id);
    // It may not have been heard of yet: a task that was just launched makes its volume.
    let comes_back = member.is_some_and(|it| it.slot.is_some());
    let too_few = record.is_voter(id) && falls_below_quorum(record, view, away);
    !comes_back || away.lasts_longer_than(patience(record, view.policy)) || too_few
}

/// Marks the members that have to be elsewhere before their agents are away.
pub fn mark(next: &mut ClusterRecord, view: View<'_>, look: &mut Look) {
    take_back(next, view, look);
    let Some(elected) = next.elected().filter(|elected| elected.opened) else {
        return;
    };
    let master = elected.member;
    let mut there: Vec<(MemberId, Window)> = next
        .staying()
        .filter_map(|id| Some((id, window(next, view.maintenance, id)?)))
        .filter(|(id, _)| next.task(*id).is_some())
        .collect();
    // Another one is spared if possible: the master would have to hand over twice.
    there.sort_by_key(|(id, _)| (*id == master, *id));
    for (id, away) in there {
        if !must_move(next, view, id, away) {
            continue;
        }
        let host = next.task(id).map(|task| task.host.clone());
        let Some(member) = next.members.get_mut(&id) else {
            continue;
        };
        let leaving = Leaving {
            why: Why::AgentDrained {
                host: host.unwrap_or_default(),
                from: away.from,
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
        // One after the other: who comes in its place counts for the next.
        super::membership::join(next, view, look);
    }
}

/// Members whose agents stay after all stay as well, if they have given nothing up yet. That an agent stays is known only when
/// Mesos had the time to repeat what is planned.
fn take_back(next: &mut ClusterRecord, view: View<'_>, look: &mut Look) {
    let Some(connected) = view.connected_since else {
        return;
    };
    let drained = |record: &ClusterRecord, id: MemberId| {
        let leaving = record.members.get(&id).and_then(|it| it.leaving.as_ref());
        leaving.is_some_and(|it| matches!(it.why, Why::AgentDrained { .. }))
    };
    let those: Vec<MemberId> = next.members.keys().copied().collect();
    for id in those {
        let stays = drained(next, id)
            && window(next, view.maintenance, id).is_none()
            && next.task(id).is_some()
            && !may_go(next, view, id);
        if !stays {
            continue;
        }
        let known_at = connected.plus(FORGOTTEN_AFTER);
        if view.now < known_at {
            look.wake_by(known_at);
            continue;
        }
        if let Some(member) = next.members.get_mut(&id) {
            member.leaving = None;
            look.notes
                .push(format!("member {id} stays after all: so does its agent"));
        }
    }
}

/// Whether a member takes the place of one whose agent is to be taken away: it must not go to such an agent itself.
fn takes_place_of_drained(record: &ClusterRecord, id: MemberId) -> bool {
    let leaving = record.members.values().filter_map(|it| it.leaving.as_ref());
    let mut drained = leaving.filter(|it| matches!(it.why, Why::AgentDrained { .. }));
    drained.any(|it| it.replacement == Some(id))
}

/// Why a master is to hand over though it need not leave the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandsOver {
    /// Its task is being killed, and it is held for a moment.
    Held,
    /// Its agent is to be unavailable.
    Drained(Window),
}

/// Whether a master is to hand over because of its agent.
pub fn hands_over(record: &ClusterRecord, view: View<'_>, master: MemberId) -> Option<HandsOver> {
    let report = view.observed.live(record, master);
    if report.is_some_and(|report| report.held_back) {
        return Some(HandsOver::Held);
    }
    window(record, view.maintenance, master).map(HandsOver::Drained)
}

/// Whether a member is a better place for the master than one that hands over for that reason.
pub fn is_better(record: &ClusterRecord, view: View<'_>, why: HandsOver, to: MemberId) -> bool {
    let planned = window(record, view.maintenance, to);
    match (why, planned) {
        (HandsOver::Held, _) | (HandsOver::Drained(_), None) => true,
        // Its turn comes when the other agent is back.
        (HandsOver::Drained(own), Some(other)) => own.ends.is_some_and(|ends| ends <= other.from),
    }
}

/// Why the cluster cannot do without an agent yet, as the end of a sentence; `None`: it can.
pub fn needs(record: &ClusterRecord, view: View<'_>, agent_id: &str) -> Option<String> {
    // Its data lies there also while it has no task, as between two of them.
    let members = record.members.iter();
    let mut there = members.filter(|(_, member)| view.observed.is_on(member, agent_id));
    let first = *there.next()?.0;
    if record.deleting {
        return Some(format!("member {first} has not ended yet"));
    }
    if pause::holds(record) {
        return Some("the cluster is paused, so nothing is done about it".to_owned());
    }
    let Some(away) = view.maintenance.window(agent_id) else {
        return Some("nothing is known of it any more".to_owned());
    };
    let Some(elected) = led(record, view) else {
        return Some("the cluster has no master that accepts writes and is heard of".to_owned());
    };
    let there = std::iter::once(first).chain(there.map(|(id, _)| *id));
    there
        .into_iter()
        .find_map(|id| needs_member(record, view, elected, id, away))
        .or_else(|| lacks_voters(record, view, away))
}

/// The master, if it has opened and is heard of.
fn led<'a>(record: &'a ClusterRecord, view: View<'_>) -> Option<&'a Elected> {
    let Mastership::Elected(elected) = &record.mastership else {
        return None;
    };
    let report = view.observed.live(record, elected.member)?;
    (elected.opened && leads(record, elected, report)).then_some(elected)
}

fn leads(record: &ClusterRecord, elected: &Elected, report: &Report) -> bool {
    matches!(report.state, MemberState::Master { epoch, .. } if epoch == record.epoch)
        && report.process == Some(elected.process)
}

fn needs_member(
    record: &ClusterRecord,
    view: View<'_>,
    elected: &Elected,
    id: MemberId,
    away: Window,
) -> Option<String> {
    if record.is_leaving(id) {
        return Some(format!("member {id} is to be replaced first"));
    }
    if elected.member == id && view.policy.rules.holds(Rule::MasterLeavesAgentFirst) {
        let why = HandsOver::Drained(away);
        return Some(match switchover::ask_to_hand_over(record, view, why) {
            Ok(_) => format!("member {id} is the master and hands over first"),
            Err(hindrance) => {
                format!("member {id} is the master and cannot hand over yet: {hindrance}")
            }
        });
    }
    must_move(record, view, id, away).then(|| format!("member {id} is to be replaced first"))
}

/// Whether too few voters are in their places elsewhere, now or soon.
fn lacks_voters(record: &ClusterRecord, view: View<'_>, away: Window) -> Option<String> {
    if record.change.is_some() {
        return Some("the voters are being changed".to_owned());
    }
    if record.switchover.as_ref().is_some_and(|it| it.is_pending()) {
        return Some("a switchover is under way".to_owned());
    }
    let elected = record.elected()?;
    let voters = record.voters.members.keys().filter(|id| {
        let there = window(record, view.maintenance, **id);
        let report = view.observed.live(record, **id);
        let well = report.is_some_and(|report| match **id == elected.member {
            true => leads(record, elected, report),
            false => {
                fitness::in_place(record, report)
                    && report
                        .data
                        .is_some_and(|data| record.voters.counts(**id, data))
            }
        });
        // Who is restarted is not there, though its task may not have ended yet.
        well && !restart::is_going(record, **id) && there.is_none_or(|there| !there.overlaps(away))
    });
    let voters = voters.count();
    let k = record.terms.acknowledgements.max(record.voters.k_floor);
    let needed = needed(record, view, record.voters.members.len(), k);
    (voters < needed).then(|| {
        format!(
            "without it only {voters} of the {needed} voters that are needed would be in their places"
        )
    })
}

/// What is planned for the agents of members, and what is done about it, a sentence each.
pub fn told(record: &ClusterRecord, view: View<'_>) -> Vec<String> {
    let tasks = record.members.iter();
    let tasks = tasks.filter_map(|(id, member)| Some((id, member.task.as_ref()?)));
    tasks
        .filter_map(|(id, task)| {
            let agent = &task.agent_id;
            let planned = view.maintenance.of(agent)?;
            let course = match needs(record, view, agent) {
                Some(why) => format!("draining: {why}"),
                None => "it stays, and comes back with its agent".to_owned(),
            };
            Some(format!("{planned}; member {id} runs there; {course}"))
        })
        .collect()
}
