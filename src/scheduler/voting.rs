//! Who may acknowledge: members getting into the vote and out of it, and how many acknowledgements are waited for.
//!
//! Here is decided *what* is to change; [`transitions`] has the steps in which it may. The policy:
//!
//! * A voter whose data was lost counts again after a canary.
//! * `k` follows the durability that is asked for and the number of voters: `majority` is half of them, and never 0.
//! * A voter that is out of its place for [`Policy::voter_patience`](super::state::Policy::voter_patience) leaves, if that
//!   helps: [`fitness`] says when it does.
//! * A voter that is to leave its cluster does so as soon as it may ([`membership::may_go`]).
//! * Every member that follows, is ready and does not lag is a voter, as far as the flavour can make use of it. One that left
//!   comes back like that by itself.

use super::{
    action::Look,
    failover::View,
    fitness::{self, Course, FEWEST_VOTERS, Kind, acknowledgers, fewest_voters},
    membership,
    observed::silence_counts_from,
    transitions,
};
use crate::{
    cluster::{
        control::{MemberState, Report},
        flavour::Flavour,
        id::{DataId, MemberId},
        record::{ClusterRecord, Rejoining},
        voters::{ChangeKind, Durability, Terms},
    },
    rules::{Rule, Rules},
    time::Timestamp,
};

/// Changes the voters as far as that is safe and useful now. `is_elected` tells whether the stored record has a master.
pub fn advance(next: &mut ClusterRecord, view: View<'_>, is_elected: bool, look: &mut Look) {
    look.unfit = fitness::unfit(next, view);
    if !is_elected || next.elected().is_none() {
        // No change during an election: its quorum is counted by the stored voters, and so its outcome is stored first.
        return;
    }
    if next.handover().is_some() {
        // One thing at a time: a master that is closed for writes writes no canary.
        return;
    }
    note_known_voters(next, view);
    take_back(next, view);
    let_in(next, view);
    if next.change.is_some() {
        return pursue(next, view, look);
    }
    if let Some(step) = wanted(next, view, look) {
        look.notes.push(step.to_string());
        step.take(next);
        if !view.policy.rules.holds(Rule::LeaverIsBarred) {
            next.terms.barred.clear();
        }
    }
}

/// What is to change next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Step {
    #[error("k_floor is lowered to {0}")]
    Lower(u32),
    #[error("member {0} becomes a voter")]
    Admit(MemberId, DataId),
    #[error("member {0} is to leave the voters")]
    Remove(MemberId),
    #[error("k_floor is to grow to {0}")]
    Raise(u32),
}

impl Step {
    fn take(self, next: &mut ClusterRecord) {
        match self {
            Self::Lower(k_floor) => transitions::lower(next, k_floor),
            Self::Admit(member, data) => {
                transitions::admit(next, member, data);
                // It acknowledges when it has applied what it received before; see `rest_keeps_up`.
                next.canary += 1;
            }
            Self::Remove(member) => transitions::begin(next, ChangeKind::Remove { member }),
            Self::Raise(k_floor) => transitions::begin(next, ChangeKind::Raise { k_floor }),
        }
    }
}

/// The next change, in the order of importance.
fn wanted(record: &ClusterRecord, view: View<'_>, look: &mut Look) -> Option<Step> {
    let flavour = record.server.as_ref()?.flavour;
    let opened = record.elected().is_some_and(|elected| elected.opened);
    let voters = record.voters.members.len();
    let k = record.voters.k_floor;
    let target = target(record, flavour);
    if k > target {
        return Some(Step::Lower(target));
    }
    // Before the master has opened too: it may be waiting for just this one's acknowledgement.
    if let Some((member, data)) = newcomer(record, view, flavour, look) {
        return Some(Step::Admit(member, data));
    }
    if !opened {
        return None;
    }
    let able = acknowledgers(record, view).count();
    if let Some(step) = leaving(record, view, flavour, look) {
        return Some(step);
    }
    (k < target && able >= target as usize && voters >= FEWEST_VOTERS)
        .then_some(Step::Raise(target))
}

/// The `k` that the cluster is to have with the voters that it has.
fn target(record: &ClusterRecord, flavour: Flavour) -> u32 {
    let durability = record.spec.durability;
    let target = durability.acknowledgements(record.voters.members.len(), flavour);
    match durability {
        // One node was asked for, and the other voter of two is leaving: nobody is to be left who could acknowledge.
        Durability::Majority if alone_soon(record) => 0,
        // It never becomes 0 by itself.
        Durability::Majority => target.max(record.voters.k_floor.min(1)),
        Durability::Async => target,
    }
}

/// Whether the open master is the only voter that is to stay, and one other has still to go.
fn alone_soon(record: &ClusterRecord) -> bool {
    let opened = record.elected().filter(|elected| elected.opened);
    let others = opened.map(|elected| {
        let voters = record.voters.members.keys();
        voters.filter(|voter| **voter != elected.member).copied()
    });
    let stays = opened.is_some_and(|elected| !record.is_leaving(elected.member));
    let mut others = others.into_iter().flatten();
    record.spec.num_nodes == 1
        && stays
        && record.voters.members.len() == FEWEST_VOTERS
        && others.all(|voter| record.is_leaving(voter))
}

/// A member that follows and is ready, and could vote. One voter too many is taken for a while, if it is to replace
/// one that lags: the members that may acknowledge are never fewer for it.
fn newcomer(
    record: &ClusterRecord,
    view: View<'_>,
    flavour: Flavour,
    look: &Look,
) -> Option<(MemberId, DataId)> {
    let limit = record.spec.durability.most_voters(flavour);
    let voters = record.voters.members.len();
    let replaced = record.voters.members.keys().any(|voter| {
        let leaving = record.members.get(voter).and_then(|it| it.leaving.as_ref());
        leaving.is_some_and(|leaving| leaving.replacement.is_some())
    });
    let lags = lagging_for_too_long(view, look).next().is_some();
    let replaces = voters == limit && (lags || replaced);
    if voters >= limit && !replaces {
        return None;
    }
    let mut members = record.members.keys();
    members.find_map(|member| {
        let data = fitness::could_vote(record, view, *member)?.data?;
        Some((*member, data))
    })
}

fn lagging_for_too_long<'a>(view: View<'a>, look: &'a Look) -> impl Iterator<Item = MemberId> + 'a {
    let lagging = look.unfit.iter().filter(move |(_, ailment)| {
        matches!(ailment.kind, Kind::Lags(_)) && ailment.due <= view.now
    });
    lagging.map(|(member, _)| *member)
}

/// What is to be done for voters that are out of their place for too long, or too many for the flavour. One that is absent
/// goes before one that lags.
fn leaving(
    record: &ClusterRecord,
    view: View<'_>,
    flavour: Flavour,
    look: &mut Look,
) -> Option<Step> {
    let master = record.elected()?.member;
    let waits: Vec<Timestamp> = look.unfit.values().map(|ailment| ailment.due).collect();
    for due in waits.into_iter().filter(|due| view.now < *due) {
        look.wake_by(due);
    }
    let overdue = || look.unfit.iter().filter(|(_, a)| a.due <= view.now);
    let absent = overdue().filter(|(_, a)| a.kind == Kind::Absent);
    let lagging = overdue().filter(|(_, a)| a.kind != Kind::Absent);
    let voters = record.voters.members.keys();
    let mut waits_for_rest = false;
    for member in voters.filter(|voter| **voter != master) {
        if !membership::may_go(record, view, *member) {
            continue;
        }
        match fitness::course(record, view, flavour, *member, Kind::Absent) {
            Course::Leave if !rest_keeps_up(record, view, *member) => waits_for_rest = true,
            Course::Leave => return Some(Step::Remove(*member)),
            Course::Lower(k_floor) => return Some(Step::Lower(k_floor)),
            Course::Stay(_) => {}
        }
    }
    for (member, ailment) in absent.chain(lagging) {
        match fitness::course(record, view, flavour, *member, ailment.kind) {
            Course::Leave => return Some(Step::Remove(*member)),
            Course::Lower(k_floor) => return Some(Step::Lower(k_floor)),
            Course::Stay(_) => {}
        }
    }
    let voters = &record.voters.members;
    let limit = record.spec.durability.most_voters(flavour);
    // A master that is to leave makes room when it has handed over, and may have to try that more than once.
    let makes_room = usize::from(record.is_leaving(master));
    if waits_for_rest || voters.len() <= limit.saturating_add(makes_room) {
        return None;
    }
    let last = voters.keys().rev().find(|member| **member != master)?;
    match fitness::course(record, view, flavour, *last, Kind::Absent) {
        Course::Leave => Some(Step::Remove(*last)),
        Course::Lower(k_floor) => Some(Step::Lower(k_floor)),
        Course::Stay(_) => None,
    }
}

/// Whether enough of the other voters acknowledge at once when a member is barred that is to leave the cluster. One that has just become a voter, or has
/// connected anew, acknowledges nothing before it has applied what it received, and writes would wait for that. Each new voter makes
/// the master write a canary, and who has executed the last one has done so.
fn rest_keeps_up(record: &ClusterRecord, view: View<'_>, leaving: MemberId) -> bool {
    let others = acknowledgers(record, view).filter(|member| *member != leaving);
    let keeps_up = |member: &MemberId| {
        let report = view.observed.live(record, *member);
        report.is_some_and(|report| report.canary >= record.canary)
    };
    others.filter(keeps_up).count() >= record.terms.acknowledgements as usize
}

/// Takes the change that is under way further.
fn pursue(next: &mut ClusterRecord, view: View<'_>, look: &mut Look) {
    let Some(change) = next.change.clone() else {
        return;
    };
    let able = acknowledgers(next, view);
    let (possible, wanted) = match change.kind {
        ChangeKind::Remove { member } => {
            let left = able.filter(|able| *able != member).count();
            let voters = next.voters.members.len();
            (
                left >= next.terms.acknowledgements as usize,
                voters > fewest_voters(next),
            )
        }
        ChangeKind::Raise { k_floor } => {
            let flavour = next.server.as_ref().map(|server| server.flavour);
            let target = flavour.map_or(0, |flavour| target(next, flavour));
            (able.count() >= k_floor as usize, target >= k_floor)
        }
    };
    // A scheduler that has just begun to listen has not heard of everybody who is there.
    let hears_all =
        view.now >= silence_counts_from(view.listening_since, view.policy.session_timeout);
    if !possible && hears_all || !wanted {
        look.notes
            .push("a change of the voters is given up: too few of the others are there".to_owned());
        return transitions::give_up(next);
    }
    let rules = view.policy.rules;
    let word = if rules.holds(Rule::MasterConfirmsTerms) {
        masters_word(next, view)
    } else {
        Some((next.terms.clone(), u64::MAX))
    };
    let Some((terms, canary)) = word else {
        return;
    };
    transitions::complete(next, &terms, canary);
    transitions::confirm(next, &terms);
    if !rules.holds(Rule::CanaryUnderTerms) {
        transitions::complete(next, &terms, u64::MAX);
    }
    if next.change.is_none() {
        look.notes.push(format!(
            "there are {} voters now, and k_floor is {}",
            next.voters.members.len(),
            next.voters.k_floor
        ));
    }
}

/// The terms that are in force on the elected master, and the last canary that was acknowledged there.
fn masters_word(record: &ClusterRecord, view: View<'_>) -> Option<(Terms, u64)> {
    let elected = record.elected()?;
    let report = view.observed.live(record, elected.member)?;
    let leads = MemberState::Master {
        epoch: record.epoch,
        writable: true,
    };
    let itself = report.data == Some(elected.data) && report.process == Some(elected.process);
    (itself && report.state == leads).then_some((report.terms.clone()?, report.canary))
}

/// Notes which voters the master knows: a new one only when it has read of it, one that left at once.
fn note_known_voters(next: &mut ClusterRecord, view: View<'_>) {
    let Some(elected) = next.elected().cloned() else {
        return;
    };
    let report = view.observed.live(next, elected.member);
    let knows_all = report.is_some_and(|report| {
        report.process == Some(elected.process) && report.voters_seen == next.voters.version
    });
    let members = &next.voters.members;
    let named = next.named.iter_mut();
    for named in named.filter(|named| named.process == elected.process) {
        if knows_all {
            named.voters = members.keys().copied().collect();
        } else {
            named.voters.retain(|member| members.contains_key(member));
        }
    }
}

/// Lets those receive again that have left the voters and know it.
fn let_in(next: &mut ClusterRecord, view: View<'_>) {
    for member in next.terms.barred.clone() {
        if next.is_leaving(member) {
            continue;
        }
        if let Some(report) = view.observed.live(next, member) {
            transitions::let_in(next, member, report.acknowledges, report.voters_seen);
        }
    }
}

/// Stores the data of voters that have got their first, and takes those back that lost theirs.
fn take_back(next: &mut ClusterRecord, view: View<'_>) {
    let rules = view.policy.rules;
    let voters: Vec<(MemberId, Option<DataId>)> = next
        .voters
        .members
        .iter()
        .map(|(member, data)| (*member, *data))
        .collect();
    for (member, known) in voters {
        let Some(report) = view.observed.live(next, member) else {
            continue;
        };
        let Some(data) = report.data else { continue };
        match known {
            // It has never had any data, so it cannot have lost an acknowledgement.
            None => transitions::admit(next, member, data),
            Some(known) if known == data => {}
            Some(_) if leaves(next, member) => {}
            Some(_) => rejoin(next, member, data, report, rules),
        }
    }
}

fn leaves(record: &ClusterRecord, leaving: MemberId) -> bool {
    match record.change.as_ref().map(|change| change.kind) {
        Some(ChangeKind::Remove { member }) => member == leaving,
        Some(ChangeKind::Raise { .. }) | None => false,
    }
}

/// A voter whose data was lost counts again when it has executed a canary that was begun after the
/// loss was seen: everything that it may ever have acknowledged lies before that canary in the
/// master's history, so it has all of it again.
///
/// Whether the master has opened does not matter. Before, nothing is acknowledged in its epoch, its marker and so the
/// canary lie behind all that was acknowledged in earlier ones, and it may be waiting for just this voter.
fn rejoin(next: &mut ClusterRecord, member: MemberId, data: DataId, report: &Report, rules: Rules) {
    if !rules.holds(Rule::RejoinsAfterCanary) {
        return transitions::admit(next, member, data);
    }
    let follows =
        matches!(report.state, MemberState::Following { epoch, .. } if epoch == next.epoch);
    let asked_for = next
        .rejoining
        .get(&member)
        .filter(|rejoining| rejoining.data == data);
    match asked_for.map(|rejoining| rejoining.canary) {
        Some(canary) if follows && report.canary >= canary => {
            transitions::admit(next, member, data);
        }
        None if follows => {
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
