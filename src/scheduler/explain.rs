//! Why a cluster has the master that it has, and what it waits for.
//!
//! Every change of master leaves a [`FailoverRecord`] in the cluster's record, written by the very
//! transactions that decide: [`begins`] with the one that ends a master's term, [`note`] with those that
//! choose the next one and see it open. The times at which these were stored are known only afterwards and go
//! along with whatever is written next ([`note_stored`]): no write is made for the sake of the explanation.
//! A scheduler that dies before that leaves that one time out, and the phases around it are told as one.

use super::{
    election::{self, Candidate},
    failover::View,
    observed::Observed,
    state::Cluster,
    switchover,
};
use crate::{
    cluster::{
        data_loss::{LossOutcome, LossyFailover},
        failover_record::{
            AcceptedLoss, Cause, Ending, FORMAT, FailoverRecord, HeldAccount, Master, Quorum,
            Stage, SwitchoverAccount, Times, VoterAccount, Winner, WonBy, bounded,
        },
        gtid::Position,
        id::{Epoch, MemberId},
        record::{ClusterRecord, Elected, Mastership},
    },
    rules::Rules,
    time::Timestamp,
};

/// Begins the account of the epoch after `next.epoch`, whose master's term has ended on that evidence.
pub fn begins(next: &mut ClusterRecord, ending: Ending, view: View<'_>) {
    let before = next.elected();
    let opened = before.is_some_and(|elected| elected.opened);
    let before = before.map(|elected| Master::of(elected, next.task(elected.member)));
    let noticed = before
        .as_ref()
        .and_then(|master| noticed(next, view.observed, master));
    // A master that never opened was the fruit of an attempt that failed.
    let tried = next.failovers.last();
    let tried = tried.filter(|failover| failover.epoch == next.epoch && !opened);
    let asked = next.switchover.as_ref();
    let asked = asked.filter(|s| ending.cause == Cause::Switchover && s.is_pending());
    let switchover = asked.map(|s| SwitchoverAccount {
        number: s.number,
        asked_at: s.asked_at,
        to: s.to,
        closed_millis: s.closed.as_ref().map_or(0, |closed| closed.millis),
    });
    let failover = FailoverRecord {
        format: FORMAT,
        epoch: next.epoch.next(),
        attempt: tried.map_or(1, |failover| failover.attempt + 1),
        ending,
        before,
        before_opened: opened,
        quorum: quorum(next),
        voters: Vec::new(),
        winner: None,
        data_loss: None,
        switchover,
        times: Times {
            noticed,
            decided: view.now,
            decision_stored: None,
            elected: None,
            choice_stored: None,
            opened: None,
            published: None,
        },
    };
    next.failovers.push(failover);
}

/// When the evidence arrived: with the last report of the master, or when that was gone. Mesos' words are
/// not dated.
fn noticed(record: &ClusterRecord, observed: &Observed, master: &Master) -> Option<Timestamp> {
    let task = record.task(master.member)?;
    let observation = observed
        .observation(record, master.member)
        .filter(|_| task.task_id == master.task_id)?;
    Some(observation.gone_since.unwrap_or(observation.arrived))
}

/// The arithmetic of an election in which these vote.
pub fn quorum(record: &ClusterRecord) -> Quorum {
    Quorum {
        durability: record.rule(),
        voters: record.voters.members.len(),
        k_floor: record.voters.k_floor,
        needed: record.voters.quorum(),
    }
}

/// Notes in the current epoch's account who was chosen and that it has opened, as soon as the record says so.
pub fn note(next: &mut ClusterRecord, view: View<'_>) {
    let Mastership::Elected(elected) = next.mastership.clone() else {
        return;
    };
    let stage = match stage(next) {
        Some((epoch, stage)) if epoch == next.epoch => stage,
        // A birth, or an epoch that an older version began.
        _ => return,
    };
    if stage == Stage::Decided {
        let voters = accounts(next, view.observed, view.policy.rules);
        let winner = Winner {
            master: Master::of(&elected, next.task(elected.member)),
            won_by: won_by(next, view, &elected),
        };
        if let Some(failover) = next.failovers.of_mut(next.epoch) {
            if failover.data_loss.is_none() {
                failover.voters = voters;
            }
            failover.winner = Some(winner);
            failover.times.elected = Some(view.now);
        }
        next.failovers.shrink();
    }
    if stage != Stage::Opened && elected.opened {
        let report = view.observed.observation(next, elected.member);
        let opened = report.map_or(view.now, |report| report.arrived);
        if let Some(failover) = next.failovers.of_mut(next.epoch) {
            failover.times.opened = Some(opened);
        }
    }
}

/// Notes in the current epoch's account what an operator has accepted the loss of, and the voters as they were.
pub fn note_loss(
    next: &mut ClusterRecord,
    lossy: &LossyFailover,
    outcome: &LossOutcome,
    view: View<'_>,
) {
    let voters = accounts(next, view.observed, view.policy.rules);
    if let Some(failover) = next.failovers.of_mut(next.epoch) {
        failover.voters = voters;
        failover.data_loss = Some(AcceptedLoss::new(lossy, outcome));
    }
}

/// Takes along what the record did not know of itself when it was stored: when that was. Also completes the
/// address of a master whose task's end was noticed in the same look.
pub fn note_stored(cluster: &Cluster, next: &mut ClusterRecord) {
    if let (Some((epoch, stage)), Some(at)) = (stage(&cluster.record), cluster.stage_stored)
        && let Some(failover) = next.failovers.of_mut(epoch)
    {
        failover.stored(stage, at);
    }
    if next.epoch != cluster.record.epoch
        && let Some(elected) = cluster.record.elected()
        && let Some(failover) = next.failovers.of_mut(next.epoch)
    {
        let task = cluster.record.task(elected.member);
        failover.before = Some(Master::of(elected, task));
    }
}

/// How far the newest failover has come, and in which epoch.
pub fn stage(record: &ClusterRecord) -> Option<(Epoch, Stage)> {
    let newest = record.failovers.last()?;
    Some((newest.epoch, newest.stage()))
}

/// The beginning of an epoch as a sentence for the log.
pub fn beginning(record: &ClusterRecord) -> String {
    let newest = record.failovers.last();
    match newest.filter(|failover| failover.epoch == record.epoch) {
        Some(failover) => format!(
            "epoch {} begins: {}",
            record.epoch, failover.ending.sentence
        ),
        None => format!("epoch {} begins", record.epoch),
    }
}

/// The voters as the election of the current epoch sees them.
pub fn accounts(record: &ClusterRecord, observed: &Observed, rules: Rules) -> Vec<VoterAccount> {
    let account = |member: MemberId| {
        let observation = observed.observation(record, member);
        let reported = observation.and_then(|observation| observation.held_arrived);
        let (held, missing) = match election::candidate(record, observed, rules, member) {
            Ok(candidate) => (Some(held(record, &candidate)), None),
            Err(why) => (None, Some(why.to_string())),
        };
        VoterAccount {
            member,
            reported: reported.filter(|_| held.is_some()),
            held,
            missing,
        }
    };
    record.voters.members.keys().copied().map(account).collect()
}

fn held(record: &ClusterRecord, candidate: &Candidate<'_>) -> HeldAccount {
    let held = candidate.held;
    HeldAccount {
        marker: held.position.highest_marker(record.uuid),
        received: bounded(&held.position),
        unapplied: bounded(&held.position.minus(&held.executed)),
    }
}

/// What set the winner apart from the one that came nearest to it.
fn won_by(record: &ClusterRecord, view: View<'_>, elected: &Elected) -> WonBy {
    let candidates = record.voters.members.keys();
    let candidates: Vec<Candidate<'_>> = candidates
        .filter_map(|member| {
            election::candidate(record, view.observed, view.policy.rules, *member).ok()
        })
        .collect();
    let Some(winner) = candidates.iter().find(|c| c.member == elected.member) else {
        return WonBy::Other;
    };
    let others = candidates.iter().filter(|c| c.member != elected.member);
    others
        .map(|other| advantage(record, winner, other))
        .max()
        .unwrap_or(WonBy::OnlyOne)
}

/// The first question in which the two differ.
fn advantage(record: &ClusterRecord, winner: &Candidate<'_>, other: &Candidate<'_>) -> WonBy {
    let (ours, theirs) = (&winner.held.position, &other.held.position);
    if ours.highest_marker(record.uuid) != theirs.highest_marker(record.uuid) {
        return WonBy::HighestMarker;
    }
    let order = Position::more_complete(ours, theirs, record.uuid);
    if order.is_some_and(|order| order.is_ne()) {
        return WonBy::HeldMost;
    }
    if switchover::is_asked_for(record, winner.member) {
        return WonBy::AskedFor;
    }
    if election::unapplied(winner) != election::unapplied(other) {
        return WonBy::LeastToApply;
    }
    WonBy::LowestNumber
}
