//! Whether the master is still one.
//!
//! What an executor writes about its own server is believed at once. Silence is not a fact about
//! the server: it counts only after the executor's ZooKeeper session has ended, only while this
//! scheduler was listening long enough itself, and only when enough others are in sight to elect.

use std::{cmp::Ordering, time::Duration};

use super::observed::{Observed, Presence, silence_counts_from};
use crate::{
    cluster::{
        control::{MemberState, Report, Trouble},
        failover_record::{Cause, Ending},
        id::MemberId,
        record::{ClusterRecord, Elected},
        voters::Durability,
    },
    time::Timestamp,
};

/// What is to be thought of the elected master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MasterHealth {
    /// It is in its place.
    Fine,
    /// It is certainly not the master any more; a new epoch is needed.
    Ended(Ending),
    /// It is silent. The next look is due at that time, if time alone can change anything.
    Silent {
        /// What is known, as a sentence.
        reason: String,
        /// When the silence may count.
        until: Option<Timestamp>,
    },
}

/// Judges the elected master.
pub fn master_health(
    record: &ClusterRecord,
    elected: &Elected,
    observed: &Observed,
    listening_since: Timestamp,
    session_timeout: Duration,
    now: Timestamp,
) -> MasterHealth {
    let member = elected.member;
    match record.task(member) {
        Some(task) if task.task_id == elected.task_id => {}
        _ => {
            return MasterHealth::Ended(Ending::new(
                Cause::TaskEnded,
                format!("the task of the master, member {member}, has ended"),
            ));
        }
    }
    let silent_since = match observed.presence(record, member) {
        Presence::Live(report) => {
            return reported_health(record, elected, observed, report);
        }
        Presence::Gone(since) => since,
        Presence::Unknown => listening_since,
    };
    silence(
        record,
        member,
        observed,
        listening_since,
        silent_since,
        session_timeout,
        now,
    )
}

/// What a standing report says of the master.
fn reported_health(
    record: &ClusterRecord,
    elected: &Elected,
    observed: &Observed,
    report: &Report,
) -> MasterHealth {
    let member = elected.member;
    if report.data != Some(elected.data) || report.process != Some(elected.process) {
        return MasterHealth::Ended(Ending::new(
            Cause::ServerEnded,
            format!("the server of the master, member {member}, has ended"),
        ));
    }
    match report.state {
        MemberState::Refused { epoch } if epoch == record.epoch => {
            MasterHealth::Ended(Ending::new(
                Cause::Refused,
                format!(
                    "member {member} could not become master: {}",
                    report.problem.as_deref().unwrap_or("it did not say why")
                ),
            ))
        }
        MemberState::Stopping => MasterHealth::Ended(Ending::new(
            Cause::Stopping,
            format!("the master, member {member}, is stopping"),
        )),
        // It asks for it, and is better than nothing as long as nobody could follow it.
        MemberState::Master { .. }
            if report.trouble == Some(Trouble::Stuck)
                && voters_in_sight(record, observed, member) >= record.voters.quorum() =>
        {
            MasterHealth::Ended(Ending::new(
                Cause::Stuck,
                format!(
                    "the master, member {member}, gets no acknowledgement of other voters, which are in sight"
                ),
            ))
        }
        MemberState::Provisioning
        | MemberState::Closed
        | MemberState::Following { .. }
        | MemberState::Master { .. }
        | MemberState::Refused { .. }
        | MemberState::Quarantined
        | MemberState::Dead => MasterHealth::Fine,
    }
}

/// Whether a voter that nobody could ask during the election holds more than the winner, while the winner waits for
/// acknowledgements: perhaps for just that voter's, which keeps its data aside until the winner has opened. Another
/// election counts it.
pub fn outdone(record: &ClusterRecord, elected: &Elected, observed: &Observed) -> Option<Ending> {
    let holds_more = |report: &Report| {
        let held = report.held.as_ref();
        let held = held.filter(|held| held.epoch == record.epoch);
        held.and_then(|held| held.position.more_complete(&elected.history, record.uuid))
            == Some(Ordering::Greater)
    };
    let (better, _) = observed.all_live(record).find(|(member, report)| {
        report.state == MemberState::Quarantined
            && report
                .data
                .is_some_and(|data| record.voters.counts(*member, data))
            && holds_more(report)
    })?;
    Some(Ending::new(
        Cause::Outdone,
        format!(
            "member {better} has come back with more than member {} was elected for, which has not opened yet",
            elected.member
        ),
    ))
}

/// Whether the silence of the master counts.
fn silence(
    record: &ClusterRecord,
    member: MemberId,
    observed: &Observed,
    listening_since: Timestamp,
    silent_since: Timestamp,
    session_timeout: Duration,
    now: Timestamp,
) -> MasterHealth {
    // One member that falls silent alone has lost its session, which took a session timeout by
    // itself. Several at once are more likely ZooKeeper's doing, and get the time to come back.
    let others_silent = record
        .members
        .keys()
        .any(|m| *m != member && matches!(observed.presence(record, *m), Presence::Gone(_)));
    let alone_counts_from = silence_counts_from(listening_since, session_timeout);
    let counts_from = if others_silent {
        alone_counts_from.max(silence_counts_from(silent_since, session_timeout))
    } else {
        alone_counts_from
    };
    if now < counts_from {
        let reason = format!("nothing is heard of the master, member {member}");
        return MasterHealth::Silent {
            reason,
            until: Some(counts_from),
        };
    }
    let in_sight = voters_in_sight(record, observed, member);
    let needed = match record.rule() {
        Durability::Majority => record.voters.quorum(),
        // Without a quorum to speak of, one that can take over is enough.
        Durability::Async => 1,
    };
    if in_sight >= needed {
        MasterHealth::Ended(Ending::new(
            Cause::SessionLost,
            format!(
                "the master, member {member}, has lost its ZooKeeper session, and {in_sight} of the {needed} voters that an election needs are in sight"
            ),
        ))
    } else {
        MasterHealth::Silent {
            reason: format!(
                "nothing is heard of the master, member {member}, and only {in_sight} of the {needed} voters that an election needs are in sight"
            ),
            until: None,
        }
    }
}

/// How many voters other than `except` are in sight with the data they vote with.
fn voters_in_sight(record: &ClusterRecord, observed: &Observed, except: MemberId) -> usize {
    observed
        .all_live(record)
        .filter(|(member, report)| {
            *member != except
                && report.process.is_some()
                && report.data.is_some_and(|data| {
                    record.voters.members.contains_key(member)
                        && record.voters.counts(*member, data)
                })
        })
        .count()
}
