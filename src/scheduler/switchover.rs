//! A planned change of master: asked for, handed over by the old master, and then an election like any other. Pure.
//!
//! 1. The wish is stored, and with it the goal asks the master to hand over. Nothing else changes.
//! 2. The master closes itself for writes, sees that the target has all that it has, and says so; or it stays, and says why.
//!    It opens again by itself if it hears of no higher epoch in time.
//! 3. On its word the next epoch begins. Everything from here on is the election that it always is, and safe for the same
//!    reasons; only that among equals the target wins, and that a master which is still closed is not killed.
//!
//! A scheduler that dies before the third step leaves a wish, and a master that opens again; its successor goes by the clock and
//! by the master's answer, which stays in its report. One that dies after it leaves an election. What came of the wish is
//! stored last and decides nothing.

use super::{
    drain::{self, HandsOver},
    failover::{self, Awaited, View},
    fitness::{self, acknowledgers},
    restart,
};
use crate::{
    cluster::{
        control::Report,
        data_loss::LossyFailover,
        failover_record::{Cause, Ending},
        id::{Epoch, MemberId, ProcessId},
        record::{ClusterRecord, Elected},
        switchover::{ANSWERS_WITHIN, Answer, AnswerState, Closed, Outcome, Switchover},
    },
    time::Timestamp,
};

/// What is to be done about a wish.
#[derive(Debug, Clone, PartialEq)]
pub enum Course {
    /// Nothing: this member is the master.
    IsMaster(MemberId),
    /// Nothing more: this one is pending and asks for the same.
    Pending(Switchover),
    /// Store it.
    Store(Switchover),
}

/// Takes a wish in, if it can be carried out as things are. `to` is who is to be master; nobody in particular if `None`.
///
/// # Errors
/// Why it cannot be carried out, as a sentence.
pub fn ask(record: &ClusterRecord, to: Option<MemberId>, view: View<'_>) -> Result<Course, String> {
    if let Some(pending) = record.switchover.as_ref().filter(|s| s.is_pending()) {
        return match to {
            Some(to) if to != pending.to => Err(format!(
                "a switchover to member {} is under way; ask again when it is over",
                pending.to
            )),
            _ => Ok(Course::Pending(pending.clone())),
        };
    }
    let elected = record.elected().filter(|elected| elected.opened);
    let Some(elected) = elected else {
        return Err("the cluster has no master that accepts writes at the moment, and gets one by itself if it can; ask again when it has".to_owned());
    };
    if to == Some(elected.member) {
        return Ok(Course::IsMaster(elected.member));
    }
    hindrance(record, elected, view)?;
    let to = match to {
        Some(to) => fit(record, to, view).map(|()| to)?,
        None => best(record, view)?,
    };
    Ok(Course::Store(to_be_stored(record, elected, to, view.now)))
}

/// The switchover of a master that is to leave its cluster, to a voter that is to stay, if it can be carried out as things are.
///
/// # Errors
/// Why it cannot be carried out, as a sentence.
pub fn ask_to_leave(record: &ClusterRecord, view: View<'_>) -> Result<Course, String> {
    if let Some(pending) = record.switchover.as_ref().filter(|s| s.is_pending()) {
        return Ok(Course::Pending(pending.clone()));
    }
    let elected = record.elected().filter(|elected| elected.opened);
    let elected = elected.ok_or_else(|| "there is no master that accepts writes".to_owned())?;
    hindrance(record, elected, view)?;
    let to = best(record, view)?;
    if record.is_leaving(to) {
        return Err("no voter that stays is ready to become master".to_owned());
    }
    Ok(Course::Store(to_be_stored(record, elected, to, view.now)))
}

/// The switchover of a master whose agent is to be taken away, or whose task is being killed, to a voter in a better place, if it can
/// be carried out as things are.
///
/// # Errors
/// Why it cannot be carried out, as a sentence.
pub fn ask_to_hand_over(
    record: &ClusterRecord,
    view: View<'_>,
    why: HandsOver,
) -> Result<Course, String> {
    if let Some(pending) = record.switchover.as_ref().filter(|s| s.is_pending()) {
        return Ok(Course::Pending(pending.clone()));
    }
    let elected = record.elected().filter(|elected| elected.opened);
    let elected = elected.ok_or_else(|| "there is no master that accepts writes".to_owned())?;
    hindrance(record, elected, view)?;
    let to = best(record, view)?;
    if !drain::is_better(record, view, why, to) {
        return Err("no voter on an agent that stays is ready to become master".to_owned());
    }
    Ok(Course::Store(to_be_stored(record, elected, to, view.now)))
}

fn to_be_stored(
    record: &ClusterRecord,
    elected: &Elected,
    to: MemberId,
    asked_at: Timestamp,
) -> Switchover {
    Switchover {
        number: record.switchover.as_ref().map_or(1, |last| last.number + 1),
        epoch: record.epoch,
        from: elected.member,
        process: elected.process,
        to,
        asked_at,
        closed: None,
        outcome: None,
    }
}

/// What hinders any switchover.
fn hindrance(record: &ClusterRecord, elected: &Elected, view: View<'_>) -> Result<(), String> {
    if record.change.is_some() {
        return Err("the voters are being changed, which takes a moment; ask again".to_owned());
    }
    if record.lossy.as_ref().is_some_and(LossyFailover::is_pending) {
        return Err("a failover with the loss of data is under way".to_owned());
    }
    let report = view.observed.live(record, elected.member);
    if report.is_none_or(|report| report.process != Some(elected.process)) {
        return Err(format!(
            "nothing is heard of the master, member {}, so it cannot hand over; if it does not come back it is replaced by itself",
            elected.member
        ));
    }
    Ok(())
}

/// Whether a member can be the target.
fn fit(record: &ClusterRecord, to: MemberId, view: View<'_>) -> Result<(), String> {
    if !record.members.contains_key(&to) {
        return Err(format!("the cluster has no member {to}"));
    }
    if !record.voters.members.contains_key(&to) {
        return Err(format!(
            "member {to} does not vote, and only a voter can become master"
        ));
    }
    if restart::is_going(record, to) {
        return Err(format!(
            "member {to} is being restarted; ask again when it is back"
        ));
    }
    if !acknowledgers(record, view).any(|able| able == to) {
        return Err(format!(
            "member {to} does not follow the master, or is not ready; cotton admin explain {} tells what it waits for",
            record.name()
        ));
    }
    let lag = |report: &Report| report.lag_seconds;
    match view.observed.live(record, to) {
        Some(report) if fitness::has_caught_up(report, view.policy) => Ok(()),
        report => Err(format!(
            "member {to} is {} s or more behind in applying what it receives, for which writes would have to wait",
            report.map_or(0, lag)
        )),
    }
}

/// The fit voter that is the least behind, one that is to leave last of all, and before it one whose agent is; of several the one
/// with the lowest number.
fn best(record: &ClusterRecord, view: View<'_>) -> Result<MemberId, String> {
    let fit = acknowledgers(record, view).filter(|member| fit(record, *member, view).is_ok());
    let lag = |member: &MemberId| {
        let report = view.observed.live(record, *member);
        report.map_or(u64::MAX, |report| report.lag_seconds)
    };
    let stays_until = |member: &MemberId| drain::stays_until(record, view.maintenance, *member);
    fit.min_by_key(|member| {
        (
            record.is_leaving(*member),
            stays_until(member),
            lag(member),
            *member,
        )
    })
        .ok_or_else(|| {
            "no other voter follows the master, is ready and has applied what it receives; there is nobody to switch over to"
                .to_owned()
        })
}

/// Whether a voter is the one for whose sake the election of this epoch is held: among equals it wins.
pub fn is_asked_for(record: &ClusterRecord, member: MemberId) -> bool {
    target(record).is_some_and(|switchover| switchover.to == member)
}

/// The pending switchover that the election of this epoch is for.
fn target(record: &ClusterRecord) -> Option<&Switchover> {
    let pending = record.switchover.as_ref().filter(|s| s.is_pending())?;
    (pending.epoch.next() == record.epoch).then_some(pending)
}

/// Whether this is the server that has handed over for the election of this epoch.
pub fn is_former(record: &ClusterRecord, member: MemberId, process: ProcessId) -> bool {
    target(record).is_some_and(|s| s.from == member && s.process == process)
}

/// All that the old master had when it closed itself for the election of this epoch.
pub fn handed_over(record: &ClusterRecord) -> Option<&Closed> {
    target(record)?.closed.as_ref()
}

/// Sees how far the master has come with a pending switchover, and begins the election on its word.
pub fn advance(next: &mut ClusterRecord, view: View<'_>) -> Awaited {
    let pending = next
        .switchover
        .clone()
        .filter(|switchover| switchover.is_pending() && switchover.epoch == next.epoch);
    let Some(mut switchover) = pending else {
        return Awaited::default();
    };
    let gives_up = switchover.asked_at.plus(ANSWERS_WITHIN);
    let too_slow = format!(
        "too slow: member {} has not handed over in time",
        switchover.from
    );
    match answer(next, &switchover, view).map(|answer| answer.state.clone()) {
        Some(AnswerState::Closed(closed)) if view.now < gives_up => {
            let sentence = format!(
                "a switchover was asked for: member {} is closed for writes, and member {} has all that it has",
                switchover.from, switchover.to
            );
            switchover.closed = Some(closed);
            next.switchover = Some(switchover);
            failover::begin_election(next, Ending::new(Cause::Switchover, sentence), view);
            Awaited::default()
        }
        Some(AnswerState::Kept { why }) => {
            let sentence = format!("member {} is still the master: {why}", switchover.from);
            conclude_with(next, switchover, false, sentence, view.now);
            Awaited::default()
        }
        Some(AnswerState::Closed(_)) | None if gives_up <= view.now => {
            conclude_with(next, switchover, false, too_slow, view.now);
            Awaited::default()
        }
        Some(AnswerState::Closed(_)) | None => Awaited {
            reason: format!(
                "member {} hands over to member {}",
                switchover.from, switchover.to
            ),
            until: Some(gives_up),
            blocked: false,
        },
    }
}

/// What the master has said about a switchover.
fn answer<'a>(
    record: &ClusterRecord,
    switchover: &Switchover,
    view: View<'a>,
) -> Option<&'a Answer> {
    let report = view.observed.live(record, switchover.from)?;
    let answer = report.handover.as_ref()?;
    let is_its = report.process == Some(switchover.process) && answer.number == switchover.number;
    is_its.then_some(answer)
}

/// Stores what came of a pending switchover when the cluster has a master in a later epoch, whoever it is and however it came
/// to that.
pub fn conclude(next: &mut ClusterRecord, now: Timestamp) {
    let pending = next
        .switchover
        .clone()
        .filter(|switchover| switchover.is_pending() && switchover.epoch < next.epoch);
    let elected = next.elected().filter(|elected| elected.opened).cloned();
    let (Some(switchover), Some(elected)) = (pending, elected) else {
        return;
    };
    let done = elected.member == switchover.to;
    let (to, master) = (switchover.to, elected.member);
    let sentence = match done {
        true => format!("member {to} is the master"),
        false if master == switchover.from => {
            format!("member {master} is the master again: member {to} could not be elected")
        }
        false => format!("member {master} is the master: member {to} could not be elected"),
    };
    conclude_with(next, switchover, done, sentence, now);
}

fn conclude_with(
    next: &mut ClusterRecord,
    mut switchover: Switchover,
    done: bool,
    sentence: String,
    at: Timestamp,
) {
    let epoch: Epoch = next.epoch;
    switchover.outcome = Some(Outcome {
        done,
        epoch,
        at,
        sentence,
    });
    next.switchover = Some(switchover);
}
