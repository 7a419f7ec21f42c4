//! From one master to the next: the steps of an epoch, each one change of the record.
//!
//! `Unborn -> Elected -> opened`, and whenever the master is gone `-> Electing -> Elected ->
//! opened` in a higher epoch. A scheduler that dies between any two of them leaves a record from
//! which its successor goes on; nothing is remembered elsewhere. Each epoch's choice is one
//! compare-and-set, so two schedulers cannot make two choices.

use std::time::Duration;

use super::{
    election::{self, Verdict},
    explain,
    fence::{self, Fence},
    fitness::{self, Unfit},
    flapping,
    health::{self, MasterHealth},
    lossy,
    maintenance::Maintenance,
    membership,
    observed::Observed,
    state::Policy,
    switchover, transitions,
};
use crate::{
    cluster::{
        control::{MemberState, Report},
        data_loss::LossyFailover,
        failover_record::{Cause, Ending},
        gtid::Position,
        id::MemberId,
        record::{ClusterRecord, Elected, Mastership, NamedMaster},
        voters::Voters,
    },
    rules::Rule,
    time::Timestamp,
};

/// How long an elected member may take to open though a voter has come back that holds more: any other voter's acknowledgement
/// opens it, within a second or so. Each election kills the server of the one before, which then comes back with a
/// marker that nobody else has; to elect at its sight again and again would never end.
const OPENING_PATIENCE: Duration = Duration::from_secs(10);

/// What is awaited in the current epoch, as a sentence, and when time alone changes something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Awaited {
    /// The sentence; empty if nothing is awaited.
    pub reason: String,
    /// When to look again.
    pub until: Option<Timestamp>,
    /// Whether the cluster cannot serve writes until that changes.
    pub blocked: bool,
}

/// Everything that the steps look at.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// What is known of the members.
    pub observed: &'a Observed,
    /// The scheduler's settings.
    pub policy: &'a Policy,
    /// Since when this scheduler hears the executors without a gap.
    pub listening_since: Timestamp,
    /// Since when this scheduler is connected to a Mesos master without a gap; `None` while it is not.
    pub connected_since: Option<Timestamp>,
    /// Which voters were out of their place at the last look, and since when.
    pub unfit: &'a Unfit,
    /// Which members' agents were away at the last look, and since when.
    pub away: &'a membership::Away,
    /// Which agents are to be unavailable.
    pub maintenance: &'a Maintenance,
    /// The time.
    pub now: Timestamp,
}

/// Takes the epoch as far as the observations allow, one phase at the most.
pub fn advance(next: &mut ClusterRecord, view: View<'_>) -> Awaited {
    match next.mastership.clone() {
        Mastership::Unborn => be_born(next, view),
        Mastership::Electing => elect(next, view),
        Mastership::Elected(elected) => watch_master(next, &elected, view),
    }
}

/// The first epoch takes the first instance that is up: no write was acknowledged before it.
fn be_born(next: &mut ClusterRecord, view: View<'_>) -> Awaited {
    let first = view.observed.all_live(next).find_map(|(member, report)| {
        let server = report.server.clone()?;
        let closed = report.state == MemberState::Closed && !next.is_leaving(member);
        let elected = closed
            .then(|| newborn(next, member, report, view.now))
            .flatten()?;
        Some((server, elected))
    });
    let Some((server, elected)) = first else {
        return Awaited {
            reason: "no member is up yet".to_owned(),
            until: None,
            blocked: true,
        };
    };
    next.voters = Voters::at_birth(
        elected.member,
        next.staying(),
        next.spec.durability,
        server.flavour,
    );
    next.server = Some(server);
    begin_term(next, elected, view.now);
    Awaited::default()
}

/// A member that is up as the first master.
fn newborn(
    record: &ClusterRecord,
    member: MemberId,
    report: &Report,
    now: Timestamp,
) -> Option<Elected> {
    let task = record.task(member)?;
    let flavour = report.server.as_ref()?.flavour;
    let history = match &record.restore {
        None => Position::empty(flavour),
        Some(_) => restored(record, report)?,
    };
    Some(Elected {
        member,
        task_id: task.task_id.clone(),
        data: report.data?,
        process: report.process?,
        history,
        opened: false,
        since: now,
    })
}

/// What a member of a cluster that is made from a backup holds, once it has read that. All members restore the same backup, so
/// that they hold the same, and each can acknowledge what the first master writes.
fn restored(record: &ClusterRecord, report: &Report) -> Option<Position> {
    let held = report.held.as_ref()?;
    let is_it = held.epoch == record.epoch && !held.position.is_empty();
    is_it.then(|| held.position.clone())
}

/// Stores the choice: the next epoch if this is a birth, else the one that was electing.
fn begin_term(next: &mut ClusterRecord, elected: Elected, now: Timestamp) {
    if next.mastership == Mastership::Unborn {
        next.epoch = next.epoch.next();
        next.epoch_since = now;
    }
    // The master's own data votes from the start: its commits are the first acknowledgement.
    next.voters
        .members
        .insert(elected.member, Some(elected.data));
    next.remember_history(elected.history.clone());
    // A task runs one server: an earlier one of this task has ended.
    next.named.retain(|named| named.task_id != elected.task_id);
    let named = NamedMaster::new(&elected, &next.voters);
    next.named.push(named);
    next.mastership = Mastership::Elected(elected);
    transitions::begin_epoch(next);
}

/// Elects once enough reports count.
fn elect(next: &mut ClusterRecord, view: View<'_>) -> Awaited {
    let elected = match election::decide(next, view.observed, view.policy, view.now) {
        Verdict::Elected(winner) => Elected {
            member: winner.member,
            task_id: winner.task_id.clone(),
            data: winner.data,
            process: winner.process,
            history: winner.held.position.clone(),
            opened: false,
            since: view.now,
        },
        Verdict::Waiting {
            counted,
            quorum,
            missing,
            until,
        } => {
            if let Some(lossy) = next.lossy.clone().filter(LossyFailover::is_pending) {
                return elect_with_loss(next, lossy, view);
            }
            let counted = counted.len();
            let missing: Vec<String> = missing
                .iter()
                .map(|(member, why)| format!("member {member}: {why}"))
                .collect();
            let reason = format!(
                "electing in epoch {}: {counted} of the {quorum} voters that are needed have reported ({})",
                next.epoch,
                missing.join("; "),
            );
            lossy::note_held(next, view, true);
            return Awaited {
                reason,
                until,
                blocked: true,
            };
        }
    };
    if let Some(awaited) = held_up(next, view) {
        return awaited;
    }
    // Nothing needs to be lost after all.
    next.lossy.take_if(|lossy| lossy.is_pending());
    lossy::note_held(next, view, false);
    if next.voters.k_floor == 0 && !votes_alone(next, &elected) {
        note_unasked(next, &elected.history, view);
    }
    begin_term(next, elected, view.now);
    Awaited::default()
}

/// Whether this is the only voter, with the data that it votes with. Nobody else was master since it is: who votes stays while it
/// leads. So all that was acknowledged since lies in this data, which would have another identity if it had lost any of it
/// (binlog and redo log are synced at each commit, whatever the durability), and of what was acknowledged before, earlier elections have
/// noted what they had to.
fn votes_alone(record: &ClusterRecord, elected: &Elected) -> bool {
    let voters = &record.voters.members;
    voters.len() == 1 && voters.get(&elected.member) == Some(&Some(elected.data))
}

/// An operator has given up the voters that are missing.
fn elect_with_loss(next: &mut ClusterRecord, lossy: LossyFailover, view: View<'_>) -> Awaited {
    let epoch = next.epoch;
    match lossy::course(next, &lossy, view) {
        lossy::Course::Fencing { until } => Awaited {
            reason: format!(
                "electing in epoch {epoch} with the loss of data: members that are given up are being killed"
            ),
            until: Some(until),
            blocked: true,
        },
        lossy::Course::Nobody => Awaited {
            reason: format!(
                "electing in epoch {epoch} with the loss of data: no member is in sight that could become master"
            ),
            until: None,
            blocked: true,
        },
        lossy::Course::Elect {
            winner,
            voters,
            outcome,
        } => {
            // With the voters as they were, for those who will ask what was given up.
            explain::note_loss(next, &lossy, &outcome, view);
            lossy::note_held(next, view, false);
            next.last_held
                .retain(|member, _| lossy.given_up.iter().all(|g| g.member != *member));
            next.lossy = Some(LossyFailover {
                outcome: Some(outcome),
                ..lossy
            });
            note_unasked(next, &winner.history, view);
            next.voters = voters;
            next.rejoining.clear();
            begin_term(next, *winner, view.now);
            Awaited::default()
        }
    }
}

/// Notes whose data the election of this epoch does not know.
fn note_unasked(next: &mut ClusterRecord, history: &Position, view: View<'_>) {
    let before = next.clone();
    let asked = election::in_sight(&before, view.observed);
    membership::note_unasked(next, &asked, history);
}

/// What holds up an election whose winner is known.
fn held_up(next: &mut ClusterRecord, view: View<'_>) -> Option<Awaited> {
    if let Some((until, reason)) = flapping::backs_off(next, view.policy, view.now) {
        return Some(Awaited {
            reason,
            until: Some(until),
            blocked: true,
        });
    }
    // A master that waits for acknowledgements gets none any more from those who have just elected; one that does not
    // could go on.
    let cannot_go_on = next.voters.k_floor > 0 || next.voters.members.len() == 1;
    if cannot_go_on || !view.policy.rules.holds(Rule::SuccessorWaitsForLease) {
        fence::forget_ended(next, view);
        return None;
    }
    match fence::fence(next, view) {
        Fence::Confirmed => {
            next.named.clear();
            None
        }
        Fence::Awaited { masters, until } => {
            let names: Vec<String> = masters.iter().map(|m| m.member.to_string()).collect();
            let reason = format!(
                "electing in epoch {}: whether the former master, member {}, is closed is not known yet, so its lease must run out",
                next.epoch,
                names.join(", ")
            );
            Some(Awaited {
                reason,
                until,
                blocked: true,
            })
        }
    }
}

/// Sees whether the master has opened, and whether it is still there.
fn watch_master(next: &mut ClusterRecord, elected: &Elected, view: View<'_>) -> Awaited {
    let health = health::master_health(
        next,
        elected,
        view.observed,
        view.listening_since,
        view.policy.session_timeout,
        view.now,
    );
    match health {
        MasterHealth::Ended(ending) => {
            begin_election(next, ending, view);
            Awaited::default()
        }
        MasterHealth::Silent { reason, .. }
            if next.lossy.as_ref().is_some_and(LossyFailover::is_pending) =>
        {
            let sentence = format!("an operator gives up the voters that are missing: {reason}");
            begin_election(next, Ending::new(Cause::LossAccepted, sentence), view);
            Awaited::default()
        }
        MasterHealth::Silent { reason, until } => Awaited {
            reason,
            until,
            blocked: false,
        },
        MasterHealth::Fine => {
            // It is back: nothing needs to be lost.
            next.lossy.take_if(|lossy| lossy.is_pending());
            let writable = MemberState::Master {
                epoch: next.epoch,
                writable: true,
            };
            let reported = view
                .observed
                .live(next, elected.member)
                .map(|report| report.state);
            if let Mastership::Elected(chosen) = &mut next.mastership
                && reported == Some(writable)
            {
                chosen.opened = true;
            }
            match next.elected() {
                Some(chosen) if !chosen.opened => {
                    let chosen = chosen.clone();
                    watch_opening(next, &chosen, view)
                }
                _ => switchover::advance(next, view),
            }
        }
    }
}

/// Since when so many voters follow the elected member and are ready that their acknowledgements would open it. They have
/// its marker then; one that got it without acknowledging it, or whose acknowledgement was lost, gives none later.
fn could_open_since(record: &ClusterRecord, view: View<'_>) -> Option<Timestamp> {
    let mut since: Vec<Timestamp> = fitness::acknowledgers(record, view)
        .filter_map(|member| view.observed.observation(record, member))
        .map(|observation| observation.arrived)
        .collect();
    since.sort_unstable();
    let last = (record.voters.k_floor as usize).checked_sub(1)?;
    since.get(last).copied()
}

/// Waits for the elected member to open; not for ever, if a voter turns out to be a better master, or if those that were to
/// acknowledge its marker are all there and it does not open all the same. A commit after the marker usually mends that
/// (`Action::Prove`); MariaDB takes only one while the marker waits, and that may be lost like the marker's acknowledgement,
/// or be the canary that has brought a voter back. In another epoch they acknowledge another marker.
fn watch_opening(next: &mut ClusterRecord, chosen: &Elected, view: View<'_>) -> Awaited {
    let stuck_at = could_open_since(next, view).map(|since| since.plus(OPENING_PATIENCE));
    if stuck_at.is_some_and(|at| at <= view.now) {
        let sentence = format!(
            "member {} does not open, though the voters that are to acknowledge its first transaction follow it",
            chosen.member
        );
        begin_election(next, Ending::new(Cause::Stuck, sentence), view);
        return Awaited::default();
    }
    let better = health::outdone(next, chosen, view.observed);
    let patience = chosen.since.plus(OPENING_PATIENCE);
    match better {
        Some(ending) if patience <= view.now => {
            begin_election(next, ending, view);
            Awaited::default()
        }
        better => Awaited {
            reason: format!(
                "member {} becomes master in epoch {}: {} other voters must acknowledge its first transaction",
                chosen.member, next.epoch, next.voters.k_floor
            ),
            until: better.map(|_| patience).into_iter().chain(stuck_at).min(),
            blocked: true,
        },
    }
}

/// Starts the next epoch on that evidence: the old master leaves discovery in the same transaction.
pub fn begin_election(next: &mut ClusterRecord, ending: Ending, view: View<'_>) {
    let cause = ending.cause;
    explain::begins(next, ending, view);
    let opened = next.elected().is_none_or(|elected| elected.opened);
    next.unopened = if opened {
        0
    } else {
        next.unopened.saturating_add(1)
    };
    next.epoch = next.epoch.next();
    next.epoch_since = view.now;
    // Nothing has failed in a switchover.
    if cause != Cause::Switchover {
        flapping::note(next, view.now);
    }
    next.mastership = Mastership::Electing;
    transitions::begin_epoch(next);
    next.published.master = None;
}
