//! Failover with the loss of data, at an operator's word.
//!
//! A cluster without a quorum waits: some of the voters that are missing may hold acknowledged writes that nobody in sight
//! has. An operator who gives these up says so; nothing here happens by itself. The word is stored as an intention, so
//! that a scheduler that dies in between leaves it to its successor:
//!
//! 1. Mesos is asked to kill the tasks of the missing voters, so that none of them goes on serving a history of its own.
//! 2. When they have ended, or after `FENCE_DEADLINE`, the best of the members in sight is elected, as ever by the
//!    highest marker and then the most; those in sight are the new voters. In the same write the outcome is stored: who
//!    could not be fenced, and what is known to be lost.
//! 3. A missing voter that comes back is none any more. What it holds beyond the new history is set aside, and it becomes
//!    a voter again like any new member.
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
        gtid::Position,
        id::MemberId,
        record::{
            ClusterRecord, Elected, GivenUp, KnownLoss, LossOutcome, LossyFailover, Mastership,
        },
        voters::Voters,
    },
    time::Timestamp,
};

/// How long the missing voters' tasks may take to end. Mesos takes a grace period of 15 s at the longest; an agent that
/// does not answer at all takes for ever.
const FENCE_DEADLINE: Duration = Duration::from_secs(30);

/// What is said of every loss: nobody in sight knows what the missing ones acknowledged last.
pub const MORE_MAY_BE_LOST: &str =
    "more may be lost: what the missing members acknowledged after their last report is not known";

/// Takes an operator's word in, if the cluster cannot go on without it.
///
/// # Errors
/// Why it is not needed or not possible, as a sentence.
pub fn ask(record: &ClusterRecord, view: View<'_>) -> Result<LossyFailover, String> {
    if record.lossy.as_ref().is_some_and(LossyFailover::is_pending) {
        return Err("a failover with the loss of data is under way already".to_owned());
    }
    match &record.mastership {
        Mastership::Unborn => {
            return Err(
                "the cluster has not had a master yet, so there is nothing to fail over".to_owned(),
            );
        }
        Mastership::Elected(elected) => cannot_serve(record, elected, view)?,
        Mastership::Electing => no_quorum_to_come(record, view)?,
    }
    let voters = record.voters.members.keys();
    let given_up = voters
        .filter(|member| !is_in_sight(record, view, **member))
        .map(|member| {
            let task = record.task(*member);
            GivenUp {
                member: *member,
                task_id: task.map(|task| task.task_id.clone()),
                address: task.map(|task| format!("{}:{}", task.host, task.port)),
            }
        });
    Ok(LossyFailover {
        asked_at: view.now,
        given_up: given_up.collect(),
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

fn is_in_sight(record: &ClusterRecord, view: View<'_>, member: MemberId) -> bool {
    view.observed
        .live(record, member)
        .is_some_and(|report| report.process.is_some())
}

/// What is to be said in answer to an operator: whom it gives up, and what is known to be lost as things stand.
pub fn announcement(record: &ClusterRecord, asked: &LossyFailover, view: View<'_>) -> String {
    let names: Vec<String> = asked
        .given_up
        .iter()
        .map(|g| g.member.to_string())
        .collect();
    let best = election::in_sight(record, view.observed)
        .into_iter()
        .max_by(|a, b| election::compare(record, view.policy.rules, a, b));
    let known = best.map_or_else(Vec::new, |best| {
        known_loss(record, asked, &best.held.position, view)
    });
    let known = known
        .iter()
        .map(|loss| format!("{} of {}", loss.transactions, loss.whose));
    let known: Vec<String> = known.collect();
    let lost = if known.is_empty() {
        "nothing is known to be lost".to_owned()
    } else {
        format!("known to be lost: {}", known.join("; "))
    };
    format!(
        "members {} are given up; {lost}; {MORE_MAY_BE_LOST}",
        if names.is_empty() {
            "with lost data".to_owned()
        } else {
            names.join(", ")
        }
    )
}

/// Kills what can be killed of the members that are given up, as long as the intention is pending.
pub fn kill_missing(record: &ClusterRecord, view: View<'_>, look: &mut Look) -> Vec<Action> {
    let Some(lossy) = record.lossy.as_ref().filter(|lossy| lossy.is_pending()) else {
        return Vec::new();
    };
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
    let unfenced: Vec<GivenUp> = lossy
        .given_up
        .iter()
        .filter(|given_up| !is_fenced(record, given_up))
        .cloned()
        .collect();
    let until = lossy.asked_at.plus(FENCE_DEADLINE);
    if !unfenced.is_empty() && view.now < until {
        return Course::Fencing { until };
    }
    let mut in_sight = election::in_sight(record, view.observed);
    in_sight.sort_by(|a, b| election::compare(record, view.policy.rules, b, a));
    let Some(best) = in_sight.first() else {
        return Course::Nobody;
    };
    let most = record.server.as_ref().map_or(usize::MAX, |server| {
        record.spec.durability.most_voters(server.flavour)
    });
    let members: BTreeMap<_, _> = in_sight
        .iter()
        .take(most)
        .map(|candidate| (candidate.member, Some(candidate.data)))
        .collect();
    let flavour = best.held.position.flavour();
    let voters = Voters {
        version: record.voters.version + 1,
        k_floor: record
            .spec
            .durability
            .acknowledgements(members.len(), flavour),
        members,
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
        known_lost: known_loss(record, lossy, &winner.history, view),
        unfenced,
        note: MORE_MAY_BE_LOST.to_owned(),
    };
    Course::Elect {
        winner: Box::new(winner),
        voters,
        outcome,
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
    let reported = |given_up: &GivenUp| -> Option<&Report> {
        let task_id = given_up.task_id.as_ref()?;
        Some(&view.observed.reports.get(task_id)?.report)
    };
    for given_up in &lossy.given_up {
        if let Some(held) = reported(given_up).and_then(|report| report.held.as_ref()) {
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
