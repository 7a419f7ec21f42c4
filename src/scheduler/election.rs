//! Who becomes master: counting reports and comparing what they hold.
//!
//! An election is decided by the reports of `q = |V| - k` voters that count. A report counts if it
//! was read after the promise of this epoch, from the data that the voter had when it acknowledged.
//! Voters that are about to report are waited for a moment.
//! The winner holds the highest marker, then the most; among equals the one for whose sake the election is held, if
//! it is one, and then the one with the least left to apply. `durability=async` has no quorum to speak of: its voters are all asked, and the most
//! advanced of those that answer before the election timeout wins.

use std::{cmp::Ordering, time::Duration};

use super::{observed::Observed, state::Policy, switchover};
use crate::{
    cluster::{
        control::{Held, Report},
        gtid::Position,
        id::{DataId, Epoch, MemberId, ProcessId, TaskId},
        record::ClusterRecord,
        voters::Durability,
    },
    rules::{Rule, Rules},
    time::Timestamp,
};

/// How long an election with enough reports waits for those voters that run and have not been read yet, which takes
/// milliseconds. The more are asked, the fewer hold something afterwards that the winner lacks; where half of
/// the voters are enough, the winner may need the acknowledgement of just the one that was not asked.
const READING_PATIENCE: Duration = Duration::from_secs(1);

/// The same where the last master was elected and never opened: then servers that are being started count too. The killed
/// one holds a marker that nobody else has, and nothing can be elected against it where its acknowledgement is needed.
const RESTART_PATIENCE: Duration = Duration::from_secs(10);

/// A voter whose report counts in this epoch.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    /// The member.
    pub member: MemberId,
    /// Its task.
    pub task_id: &'a TaskId,
    /// Its data.
    pub data: DataId,
    /// Its server process.
    pub process: ProcessId,
    /// What it holds.
    pub held: &'a Held,
}

/// What an election has come to.
#[derive(Debug)]
pub enum Verdict<'a> {
    /// This one is the master.
    Elected(Candidate<'a>),
    /// More reports are needed.
    Waiting {
        /// The voters whose reports count already.
        counted: Vec<MemberId>,
        /// How many are needed.
        quorum: usize,
        /// The voters that have not reported so that it counts, each with why.
        missing: Vec<(MemberId, Missing)>,
        /// When fewer will do, if ever.
        until: Option<Timestamp>,
    },
}

/// Why a voter's report does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// It has no task at the moment.
    #[error("it has no task")]
    NoTask,
    /// Its executor does not report.
    #[error("nothing is heard of it")]
    Silent,
    /// There is no server that could be read.
    #[error("its server does not run")]
    NoServer,
    /// It has not read what it holds since it promised the epoch.
    #[error("it has not reported what it holds")]
    NotRead,
    /// The data that it voted with is lost. It will never report in this vote.
    #[error("the data that it voted with is lost")]
    DataLost,
}

/// Decides the election of the record's epoch.
pub fn decide<'a>(
    record: &'a ClusterRecord,
    observed: &'a Observed,
    policy: &Policy,
    now: Timestamp,
) -> Verdict<'a> {
    let mut counted = Vec::new();
    let mut missing = Vec::new();
    for member in record.voters.members.keys() {
        match candidate(record, observed, policy.rules, *member) {
            Ok(candidate) => counted.push(candidate),
            Err(why) => missing.push((*member, why)),
        }
    }
    let quorum = record.voters.quorum();
    let deadline = record.epoch_since.plus(policy.election_timeout);
    let (enough, until) = match record.rule() {
        Durability::Majority => {
            let patience = record.epoch_since.plus(patience_of(record));
            let reads = missing
                .iter()
                .any(|(member, why)| is_waited_for(record, *member, *why));
            let enough = votes(&counted, &missing, policy.rules) >= quorum;
            let in_time = !reads || now >= patience || all_is_in(record, &counted);
            (enough && in_time, enough.then_some(patience))
        }
        Durability::Async => {
            let all_in = missing.iter().all(|(_, why)| *why == Missing::DataLost);
            let enough = all_in || now >= deadline || all_is_in(record, &counted);
            (enough, Some(deadline))
        }
    };
    match counted
        .iter()
        .max_by(|a, b| compare(record, policy.rules, a, b))
    {
        Some(winner) if enough => Verdict::Elected(winner.clone()),
        _ => Verdict::Waiting {
            counted: counted.iter().map(|c| c.member).collect(),
            quorum,
            missing,
            until: until.filter(|at| *at > now),
        },
    }
}

/// Whether nobody can hold more than is known: in a switchover, when the target holds all that the old master had when
/// that closed itself, and the old master has said in this epoch that it has no more.
fn all_is_in(record: &ClusterRecord, counted: &[Candidate<'_>]) -> bool {
    let Some(closed) = switchover::handed_over(record) else {
        return false;
    };
    let target = |c: &Candidate<'_>| {
        switchover::is_asked_for(record, c.member) && c.held.position.contains(&closed.position)
    };
    let former = |c: &Candidate<'_>| {
        switchover::is_former(record, c.member, c.process) && c.held.position == closed.position
    };
    counted.iter().any(target) && counted.iter().any(former)
}

/// How long an election with enough reports waits for more.
fn patience_of(record: &ClusterRecord) -> Duration {
    match record.unopened {
        0 => READING_PATIENCE,
        _ => RESTART_PATIENCE,
    }
}

/// Whether a missing report is waited for though there are enough of them. That of a switchover's target is, though nothing is
/// heard of it: a scheduler that has just taken over hears of one after the other.
fn is_waited_for(record: &ClusterRecord, member: MemberId, why: Missing) -> bool {
    match why {
        Missing::NotRead => true,
        Missing::NoServer => record.unopened > 0,
        Missing::Silent => switchover::is_asked_for(record, member),
        Missing::NoTask | Missing::DataLost => false,
    }
}

/// How many votes have come in.
fn votes(counted: &[Candidate<'_>], missing: &[(MemberId, Missing)], rules: Rules) -> usize {
    let unread =
        |(_, why): &&(MemberId, Missing)| matches!(why, Missing::NoServer | Missing::NotRead);
    match rules {
        _ if !rules.holds(Rule::QuorumElects) => usize::MAX,
        _ if !rules.holds(Rule::UnreadDoesNotCount) => {
            counted.len() + missing.iter().filter(unread).count()
        }
        _ => counted.len(),
    }
}

/// All members in sight that have read what they hold in this epoch, whether they are voters or not. Who elects one of
/// them without a quorum accepts that what the others acknowledged is lost.
pub fn in_sight<'a>(record: &'a ClusterRecord, observed: &'a Observed) -> Vec<Candidate<'a>> {
    let members = observed.all_live(record);
    let candidate = |(member, report): (MemberId, &'a Report)| {
        Some(Candidate {
            member,
            task_id: &record.task(member)?.task_id,
            data: report.data?,
            process: report.process?,
            held: held_in(report, record.epoch)?,
        })
    };
    members.filter_map(candidate).collect()
}

/// The voter as a candidate, if its report counts.
pub fn candidate<'a>(
    record: &'a ClusterRecord,
    observed: &'a Observed,
    rules: Rules,
    member: MemberId,
) -> Result<Candidate<'a>, Missing> {
    let task = record.task(member).ok_or(Missing::NoTask)?;
    let report = observed.live(record, member).ok_or(Missing::Silent)?;
    let (Some(data), Some(process)) = (report.data, report.process) else {
        return Err(Missing::NoServer);
    };
    if rules.holds(Rule::LostDataDoesNotVote) && !record.voters.counts(member, data) {
        return Err(Missing::DataLost);
    }
    let held = held_in(report, record.epoch).ok_or(Missing::NotRead)?;
    Ok(Candidate {
        member,
        task_id: &task.task_id,
        data,
        process,
        held,
    })
}

/// What the report says is held, if it was read after the promise of this epoch.
fn held_in(report: &Report, epoch: Epoch) -> Option<&Held> {
    report
        .held
        .as_ref()
        .filter(|held| held.epoch == epoch && report.promised == epoch)
}

/// The greater of two candidates is the better master.
pub fn compare(
    record: &ClusterRecord,
    rules: Rules,
    a: &Candidate<'_>,
    b: &Candidate<'_>,
) -> Ordering {
    let (a_held, b_held) = (&a.held.position, &b.held.position);
    let more_complete = if rules.holds(Rule::HighestMarkerWins) {
        // Histories that cannot be compared hold transactions that no master's epoch explains; they
        // weigh nothing.
        Position::more_complete(a_held, b_held, record.uuid).unwrap_or(Ordering::Equal)
    } else {
        a_held.length().cmp(&b_held.length())
    };
    let asked_for = |c: &Candidate<'_>| switchover::is_asked_for(record, c.member);
    more_complete
        .then_with(|| asked_for(a).cmp(&asked_for(b)))
        // Who is to leave would have to hand over next.
        .then_with(|| {
            record
                .is_leaving(b.member)
                .cmp(&record.is_leaving(a.member))
        })
        .then_with(|| unapplied(b).cmp(&unapplied(a)))
        // The lower number wins, only so that ties are decided the same way every time.
        .then_with(|| b.member.cmp(&a.member))
}

/// Whether the candidate has something left to apply.
pub fn unapplied(candidate: &Candidate<'_>) -> bool {
    !candidate.held.executed.contains(&candidate.held.position)
}
