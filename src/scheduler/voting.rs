//! Who may acknowledge: members getting into the vote, and back into it after losing their data.
//!
//! Growing the set of those who may acknowledge is stored before the world changes: a member
//! acknowledges only when it finds its own data directory in the voters of a goal, and the goal
//! follows from the record.

use super::observed::Observed;
use crate::{
    cluster::{
        control::{MemberState, Report},
        id::{DataId, MemberId},
        record::{ClusterRecord, Rejoining},
    },
    rules::{Rule, Rules},
};

/// Takes members into the vote as far as that is safe now.
pub fn advance(next: &mut ClusterRecord, observed: &Observed, rules: Rules) {
    if next.elected().is_none() {
        // No change during an election: its quorum is counted by the stored voters.
        return;
    }
    let voters: Vec<(MemberId, Option<DataId>)> = next
        .voters
        .members
        .iter()
        .map(|(member, data)| (*member, *data))
        .collect();
    for (member, known) in voters {
        let Some(report) = observed.live(next, member) else {
            continue;
        };
        let Some(data) = report.data else { continue };
        match known {
            // It has never had any data, so it cannot have lost an acknowledgement.
            None => take_in(next, member, data),
            Some(known) if known == data => {}
            Some(_) if !rules.holds(Rule::RejoinsAfterCanary) => take_in(next, member, data),
            Some(_) => rejoin(next, member, data, report),
        }
    }
}

fn take_in(next: &mut ClusterRecord, member: MemberId, data: DataId) {
    next.voters.members.insert(member, Some(data));
    next.voters.version += 1;
    next.rejoining.remove(&member);
}

/// A voter whose data was lost counts again when it has executed a canary that was begun after the
/// loss was seen: everything that it may ever have acknowledged lies before that canary in the
/// master's history, so it has all of it again.
fn rejoin(next: &mut ClusterRecord, member: MemberId, data: DataId, report: &Report) {
    let follows =
        matches!(report.state, MemberState::Following { epoch, .. } if epoch == next.epoch);
    let opened = next.elected().is_some_and(|elected| elected.opened);
    let asked_for = next
        .rejoining
        .get(&member)
        .filter(|rejoining| rejoining.data == data);
    match asked_for.map(|rejoining| rejoining.canary) {
        Some(canary) if follows && report.canary >= canary => take_in(next, member, data),
        None if follows && opened => {
            next.canary += 1;
            next.rejoining.insert(
                member,
                Rejoining {
                    data,
                    canary: next.canary,
                },
            );
        }
        Some(_) | None => {}
    }
}
