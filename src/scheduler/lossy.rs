//! Failover with the loss of data, at an operator's word.
//!
//! A cluster without a quorum waits: some of the voters that are missing may hold acknowledged writes that nobody in sight
//! has. An operator who gives these up says so; nothing here happens by itself. The word is stored as an intention, so
//! that a scheduler that dies in between leaves it to its successor:
//!
//! 1. Mesos is asked to kill the tasks of the missing voters, so that none of them goes on serving a history of its own.
//! 2. When they have ended, or after `FENCE_DEADLINE`, the best of the members in sight is elected, as ever by the
//!    highest marker and then the most. In the same write the outcome is stored: who could not be fenced, and what is
//!    known to be lost.
//! 3. A missing voter that comes back is none any more. What it holds beyond the new history is set aside, and it becomes
//!    a voter again like any new member.
//!
//! The new voters are those in sight that hold *all* that the winner holds. One that holds less must not be among them,
//! or it could be elected next, alone, and lose what the winner still had: that the winner's history is held by
//! `k_floor + 1` of the voters has to be true from the start. It follows, has everything, and then becomes a voter by
//! the safe steps, and `k` follows their number.
//!
//! If the quorum is there before the second step, the intention is dropped and the election is one like any other.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    action::{Action, Look},
    election::{self, Missing, Verdict},
    failover::View,
    health::{self, MasterHealth},
    members,
};
use crate::{
    cluster::{
        control::Report,
        data_loss::{
            Candidate, GivenUp, KnownLoss, LastHeld, LossOutcome, LossyFailover, MORE_MAY_BE_LOST,
            Offer, Prospect,
        },
        gtid::Position,
        id::MemberId,
        record::{ClusterRecord, Elected, Mastership},
        voters::Voters,
    },
    time::Timestamp,
};

/// How long the missing voters' tasks may take to end: a little more than the grace period that Mesos is told for them,
/// [`members::KILL_GRACE_PERIOD`]. An agent that does not answer at all takes for ever.
const FENCE_DEADLINE: Duration = Duration::from_secs(20);

/// Takes an operator's word in, if the cluster cannot go on without it.
///
/// # Errors
/// Why it is not needed or not possible, as a sentence.
pub fn ask(record: &ClusterRecord, view: View<'_>) -> Result<LossyFailover, String> {
    match &record.mastership {
        Mastership::Unborn => {
            return Err(
                "the cluster has not had a master yet, so there is nothing to fail over".to_owned(),
            );
        }
        Mastership::Elected(elected) => cannot_serve(record, elected, view)?,
        Mastership::Electing => no_quorum_to_come(record, view)?,
    }
    let given_up: Vec<GivenUp> = record
        .voters
        .members
        .keys()
        .filter_map(|member| given_up(record, view, *member))
        .collect();
    // The tasks of those given up are killed, and their data with them. That is no price for an election that nobody can win.
    if candidates_to_be(record, &given_up, view).is_empty() {
        return Err(
            "no member is in sight that could become master; bring one of them back first"
                .to_owned(),
        );
    }
    Ok(LossyFailover {
        asked_at: view.now,
        given_up,
        outcome: None,
    })
}

fn cannot_serve(record: &ClusterRecord, elected: &Elected, view: View<'_>) -> Result<(), String> {
    let (policy, member) = (view.policy, elected.member);
    let health = health::master_health(
        record,
        elected,
        view.observed,
        view.listening_since,
        policy.session_timeout,
        view.now,
    );
    match health {
        MasterHealth::Silent { until: None, .. } => Ok(()),
        MasterHealth::Silent { reason, .. } => Err(format!(
            "{reason}, which means nothing yet; wait until the cluster says that it waits for members"
        )),
        MasterHealth::Ended(_) => {
            Err("an election is about to begin; ask again if it waits for members".to_owned())
        }
        MasterHealth::Fine => Err(format!(
            "member {member} is the master and in its place; if its writes wait for acknowledgements that nobody is there to give, change the cluster to durability=async, which loses nothing"
        )),
    }
}

/// Whether the current election waits for voters of which nothing is heard.
fn no_quorum_to_come(record: &ClusterRecord, view: View<'_>) -> Result<(), String> {
    match election::decide(record, view.observed, view.policy, view.now) {
        Verdict::Elected(_) => Err(
            "enough voters have reported for an election that loses nothing; wait for it"
                .to_owned(),
        ),
        Verdict::Waiting { until: Some(_), .. } => {
            Err("the election still waits for reports, and ends by itself; wait for it".to_owned())
        }
        Verdict::Waiting {
            counted,
            quorum,
            missing,
            until: None,
        } => {
            let to_come = missing.iter().filter(|(_, why)| match why {
                Missing::NoServer | Missing::NotRead => true,
                Missing::NoTask | Missing::Silent | Missing::DataLost => false,
            });
            if counted.len() + to_come.count() >= quorum {
                return Err("enough voters are in sight and about to report for an election that loses nothing; wait for it".to_owned());
            }
            Ok(())
        }
    }
}

/// The voter as one that is given up, if it is missing: nothing is heard of it, it has no server, or it is in sight without the
/// data that it voted with.
fn given_up(record: &ClusterRecord, view: View<'_>, member: MemberId) -> Option<GivenUp> {
    let held = last_held(record, view, member);
    let data_lost = Missing::DataLost.to_string();
    if let Some(report) = in_sight(record, view, member) {
        let lost = report
            .data
            .is_some_and(|data| !record.voters.counts(member, data));
        // Its task stays: what it runs now is as good as any.
        return lost.then_some(GivenUp {
            member,
            why: data_lost,
            task_id: None,
            address: None,
            held,
        });
    }
    let task = record.task(member);
    let why = match (task, view.observed.live(record, member)) {
        (None, _) => Missing::NoTask,
        (Some(_), None) => Missing::Silent,
        (Some(_), Some(_)) => Missing::NoServer,
    };
    Some(GivenUp {
        member,
        why: why.to_string(),
        task_id: task.map(|task| task.task_id.clone()),
        address: task.map(|task| format!("{}:{}", task.host, task.port)),
        held,
    })
}

fn in_sight<'a>(record: &ClusterRecord, view: View<'a>, member: MemberId) -> Option<&'a Report> {
    let report = view.observed.live(record, member)?;
    report.process.is_some().then_some(report)
}

/// The members that could be elected, now or when they have reported.
fn candidates_to_be(record: &ClusterRecord, given_up: &[GivenUp], view: View<'_>) -> Vec<MemberId> {
    let members = record.members.keys().copied();
    members
        .filter(|member| !is_being_killed(record, given_up, *member))
        .filter(|member| in_sight(record, view, *member).is_some())
        .collect()
}

/// Whether a member is given up together with the task that it still has.
fn is_being_killed(record: &ClusterRecord, given_up: &[GivenUp], member: MemberId) -> bool {
    let mut those = given_up.iter();
    those.any(|given_up| given_up.member == member && !is_fenced(record, given_up))
}

/// What is known of what a voter held: the newest of its last reports and of what is stored, if it was read from the data that
/// it votes with.
fn last_held(record: &ClusterRecord, view: View<'_>, member: MemberId) -> Option<LastHeld> {
    let stored = record.last_held.get(&member).cloned();
    // Its task may have ended since it reported.
    let reports = view.observed.reports.values().map(|seen| &seen.report);
    let reported = reports.filter(|report| report.member == member);
    let reported = reported.filter_map(|report| {
        let (held, data) = (report.held.as_ref()?, report.data?);
        Some(LastHeld {
            epoch: held.epoch,
            data,
            position: held.position.clone(),
        })
    });
    reported
        .chain(stored)
        .filter(|held| record.voters.counts(member, held.data))
        .max_by_key(|held| held.epoch)
}

/// Stores what the voters have reported that they hold, for the day on which one of them is given up. `only_lost`: only of those that
/// have gone out of sight since; the others can still be asked, and an election is not to wait for this.
pub fn note_held(next: &mut ClusterRecord, view: View<'_>, only_lost: bool) {
    let voters: Vec<MemberId> = next.voters.members.keys().copied().collect();
    for member in voters {
        if only_lost && view.observed.live(next, member).is_some() {
            continue;
        }
        if let Some(held) = last_held(next, view, member) {
            next.last_held.insert(member, held);
        }
    }
    let members = &next.members;
    next.last_held
        .retain(|member, _| members.contains_key(member));
}

/// What a failover that was asked for comes to, as things stand.
pub fn prospect(record: &ClusterRecord, asked: &LossyFailover, view: View<'_>) -> Prospect {
    let electing = record.mastership == Mastership::Electing;
    let best = ranked(record, asked, view).into_iter().next();
    let best = best.filter(|_| electing);
    let known_lost = best.as_ref().map_or_else(Vec::new, |best| {
        known_loss(record, asked, &best.held.position, view)
    });
    Prospect {
        given_up: asked.given_up.clone(),
        in_sight: candidates_to_be(record, &asked.given_up, view),
        candidate: best.map(|best| Candidate {
            member: best.member,
            holds: best.held.position.clone(),
        }),
        known_lost,
        unfenced: unfenced(record, asked),
        note: MORE_MAY_BE_LOST.to_owned(),
    }
}

/// The override as it is offered to the operator of a cluster that cannot go on without it.
pub fn offer(record: &ClusterRecord, view: View<'_>) -> Option<Offer> {
    if record.lossy.as_ref().is_some_and(LossyFailover::is_pending) {
        return None;
    }
    let asked = ask(record, view).ok()?;
    Some(Offer {
        command: format!("cotton admin failover {} --accept-data-loss", record.name()),
        prospect: prospect(record, &asked, view),
    })
}

/// Kills what can be killed of the members that are given up, as long as the intention is pending and somebody is there who
/// can be elected.
pub fn kill_missing(record: &ClusterRecord, view: View<'_>, look: &mut Look) -> Vec<Action> {
    let Some(lossy) = record.lossy.as_ref().filter(|lossy| lossy.is_pending()) else {
        return Vec::new();
    };
    if candidates_to_be(record, &lossy.given_up, view).is_empty() {
        return Vec::new();
    }
    let unfenced = lossy
        .given_up
        .iter()
        .filter(|given_up| !is_fenced(record, given_up));
    let tasks = unfenced.filter_map(|given_up| record.task(given_up.member));
    tasks
        .filter_map(|task| {
            members::kill(
                &task.task_id,
                Some(&task.agent_id),
                view.observed,
                view.now,
                look,
            )
        })
        .collect()
}

/// Whether a member that is given up certainly serves nobody: Mesos has said that its task ended, which took it out of the
/// record.
fn is_fenced(record: &ClusterRecord, given_up: &GivenUp) -> bool {
    let task = record.task(given_up.member).map(|task| &task.task_id);
    given_up.task_id.is_none() || given_up.task_id.as_ref() != task
}

fn unfenced(record: &ClusterRecord, lossy: &LossyFailover) -> Vec<GivenUp> {
    let those = lossy.given_up.iter();
    those
        .filter(|given_up| !is_fenced(record, given_up))
        .cloned()
        .collect()
}

/// What becomes of a pending intention in an election that has not enough reports.
pub enum Course {
    /// The tasks of those that are given up may still end.
    Fencing {
        /// When they are no longer waited for.
        until: Timestamp,
    },
    /// Nobody is in sight that could be elected.
    Nobody,
    /// This one, with these voters.
    Elect {
        /// The winner.
        winner: Box<Elected>,
        /// The voters from now on.
        voters: Voters,
        /// What the operator will want to know.
        outcome: LossOutcome,
    },
}

/// Looks how far a pending intention is.
pub fn course(record: &ClusterRecord, lossy: &LossyFailover, view: View<'_>) -> Course {
    let unfenced = unfenced(record, lossy);
    let until = lossy.asked_at.plus(FENCE_DEADLINE);
    if !unfenced.is_empty() && view.now < until {
        return Course::Fencing { until };
    }
    let ranked = ranked(record, lossy, view);
    let Some(best) = ranked.first() else {
        return Course::Nobody;
    };
    let winner = Elected {
        member: best.member,
        task_id: best.task_id.clone(),
        data: best.data,
        process: best.process,
        history: best.held.position.clone(),
        opened: false,
        since: view.now,
    };
    let outcome = LossOutcome {
        epoch: record.epoch,
        master: best.member,
        holds: winner.history.clone(),
        known_lost: known_loss(record, lossy, &winner.history, view),
        unfenced,
        note: MORE_MAY_BE_LOST.to_owned(),
    };
    Course::Elect {
        voters: new_voters(record, &ranked, &winner.history),
        winner: Box::new(winner),
        outcome,
    }
}

/// The members that have reported in this epoch and are not being killed, the best first.
fn ranked<'a>(
    record: &'a ClusterRecord,
    lossy: &LossyFailover,
    view: View<'a>,
) -> Vec<election::Candidate<'a>> {
    let mut ranked = election::in_sight(record, view.observed);
    ranked.retain(|candidate| !is_being_killed(record, &lossy.given_up, candidate.member));
    ranked.sort_by(|a, b| election::compare(record, view.policy.rules, b, a));
    ranked
}

/// Those that hold all of `history`, the winner first, as many as the flavour can make use of.
fn new_voters(
    record: &ClusterRecord,
    ranked: &[election::Candidate<'_>],
    history: &Position,
) -> Voters {
    let durability = record.spec.durability;
    let flavour = history.flavour();
    let members: BTreeMap<_, _> = ranked
        .iter()
        .filter(|candidate| candidate.held.position.contains(history))
        .take(durability.most_voters(flavour))
        .map(|candidate| (candidate.member, Some(candidate.data)))
        .collect();
    Voters {
        version: record.voters.version + 1,
        k_floor: durability.acknowledgements(members.len(), flavour),
        members,
    }
}

/// What is known to have been held by others, and not by the winner: in their last reports, and in the stored history of
/// the last master.
fn known_loss(
    record: &ClusterRecord,
    lossy: &LossyFailover,
    winner: &Position,
    view: View<'_>,
) -> Vec<KnownLoss> {
    let mut known: Vec<KnownLoss> = Vec::new();
    let mut told: BTreeSet<String> = BTreeSet::new();
    let mut note = |whose: String, held: &Position| {
        let transactions = held.minus(winner);
        if !transactions.is_empty() && told.insert(transactions.to_string()) {
            known.push(KnownLoss {
                whose,
                transactions,
            });
        }
    };
    for given_up in &lossy.given_up {
        // It may have come and gone again since it was given up.
        let newest = last_held(record, view, given_up.member);
        let held = given_up.held.clone().into_iter().chain(newest);
        if let Some(held) = held.max_by_key(|held| held.epoch) {
            note(format!("member {}", given_up.member), &held.position);
        }
    }
    if let Some(last) = record.lineage.last() {
        note(
            format!("the history of epoch {}", last.epoch),
            &last.history,
        );
    }
    known
}
