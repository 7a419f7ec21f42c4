//! What is told of members that come and go. Nothing is decided by it.

use std::time::Duration;

use super::{
    agents::{Absence, Away, Kind},
    goes_on_without, may_go,
};
use crate::{
    cluster::{id::MemberId, membership::Leaving, record::ClusterRecord, voters::Durability},
    scheduler::{action::Look, failover::View, switchover},
};

/// How long a slot may not be offered before that is told of: one that a task has just left is offered with the next offers of its
/// agent, which with default settings come every second.
const TOLD_AFTER: Duration = Duration::from_secs(30);

/// What the newest look found of members that come and go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outlook {
    /// Whose agents are away.
    pub away: Away,
    /// What is to be told, a sentence each.
    pub told: Vec<String>,
    /// What is planned for the agents of members, and what is done about it, a sentence each.
    pub maintenance: Vec<String>,
    /// Which agents a cluster without a master waits for, as a sentence, if it does.
    pub waits: Option<String>,
}

/// Notes what is to be told.
pub(super) fn look_out(record: &ClusterRecord, view: View<'_>, look: &mut Look) {
    let mut to_be_told = Away::new();
    for (id, absence) in look.membership.away.clone() {
        let at = match absence.kind {
            Kind::NotOffered => absence.since.plus(TOLD_AFTER),
            Kind::Unreachable | Kind::Gone => absence.since,
        };
        if at <= view.now {
            to_be_told.insert(id, absence);
        } else {
            look.wake_by(at);
        }
    }
    look.membership.told = sentences(record, &to_be_told, view);
    look.membership.waits = waits_for_agents(record, &to_be_told);
}

/// What is to be told of members that come and go, a sentence each.
fn sentences(record: &ClusterRecord, away: &Away, view: View<'_>) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    for (id, member) in &record.members {
        if let Some(leaving) = &member.leaving {
            told.push(leaving_sentence(record, view, *id, leaving));
        } else if let Some(absence) = away.get(id) {
            told.push(away_sentence(record, view, *id, absence));
        }
    }
    for (id, left) in &record.departed {
        let Some(slot) = &left.slot else { continue };
        told.push(match left.destroy {
            true => format!(
                "member {id} has left; its slot {} on {} is released when its agent offers it",
                slot.id, slot.host
            ),
            false => format!(
                "member {id} has left; its slot {} on {} is kept until the cluster is deleted or an administrator gives it up (cotton admin slots --reclaim {}), for it may hold writes that no \
                 other member has",
                slot.id, slot.host, slot.id
            ),
        });
    }
    told
}

fn leaving_sentence(
    record: &ClusterRecord,
    view: View<'_>,
    id: MemberId,
    leaving: &Leaving,
) -> String {
    let elected = record.elected().filter(|elected| elected.opened);
    let waits = match (leaving.replacement, elected) {
        (_, None) => "it waits for the cluster to have a master that accepts writes".to_owned(),
        (Some(replacement), _) if !may_go(record, view, id) => match record.task(replacement) {
            None => format!(
                "member {replacement} takes its place, and waits for an offer with enough room"
            ),
            Some(_) => {
                let report = view.observed.live(record, replacement);
                let problem = report.and_then(|report| report.problem.as_deref());
                let problem = problem.map_or_else(String::new, |it| format!(": {it}"));
                format!(
                    "member {replacement} takes its place, and is not ready for it yet{problem}"
                )
            }
        },
        (_, Some(elected)) if elected.member == id => {
            match switchover::ask_to_leave(record, view) {
                Ok(_) => "it is the master and hands over first".to_owned(),
                Err(why) => format!("it is the master and cannot hand over yet: {why}"),
            }
        }
        _ if record.is_voter(id) => "it leaves the voters".to_owned(),
        _ => "its task is ended".to_owned(),
    };
    format!(
        "member {id} is to leave, because {}: {waits}",
        leaving.sentence()
    )
}

fn away_sentence(
    record: &ClusterRecord,
    view: View<'_>,
    id: MemberId,
    absence: &Absence,
) -> String {
    let Absence {
        host, since, due, ..
    } = absence;
    let what = match absence.kind {
        Kind::Gone => format!("its agent on {host} is gone for good"),
        Kind::Unreachable | Kind::NotOffered => {
            format!("its agent on {host} is away since {since}")
        }
    };
    let course = match (goes_on_without(record, view, id), absence.kind) {
        (true, _) => format!("if that lasts until {due}, it is replaced"),
        (false, Kind::Gone) => {
            "Mesos does not let that agent back, and no other member is a master that accepts writes and so has all of the data".to_owned()
        }
        (false, _) => "it is waited for, because no other member is a master that accepts writes and so has all of the data".to_owned(),
    };
    format!("member {id}: {what}; {course}")
}

/// Why a cluster without a master in sight waits for agents, as a sentence; `None`: it does not.
fn waits_for_agents(record: &ClusterRecord, away: &Away) -> Option<String> {
    let voters = record.voters.members.keys();
    let missing: Vec<(&MemberId, &Absence)> =
        voters.filter_map(|id| away.get_key_value(id)).collect();
    let there = record.voters.members.len() - missing.len();
    let needed = match record.rule() {
        Durability::Majority => record.voters.quorum(),
        Durability::Async => 1,
    };
    if missing.is_empty() || there >= needed {
        return None;
    }
    let those: Vec<String> = missing
        .iter()
        .map(|(id, absence)| {
            let since = absence.since;
            format!("member {id} on {} since {since}", absence.host)
        })
        .collect();
    Some(format!(
        "it waits for agents that are away and hold the cluster's data: {}",
        those.join(", ")
    ))
}
