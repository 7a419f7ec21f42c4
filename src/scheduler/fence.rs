//! Whether every former master of a cluster that waits for no acknowledgements is certainly closed.
//!
//! A master that waits for acknowledgements cannot go on once a quorum has promised the next epoch. One that waits
//! for none can, and two masters would serve two histories. So before the next one opens, each that was named
//! since the last confirmed fence must have ended: its executor has reported another server process, or none, or
//! Mesos has said that its task has ended. If nothing is heard of it, its lease must have run out: out of touch with
//! ZooKeeper it goes on only while every voter's executor answers that it still follows, which none does that has
//! promised a later epoch; and without such an answer no longer than its lease.
//!
//! The time is that of this scheduler, from when it saw the last of those promises; a successor begins anew.

use std::time::Duration;

use super::{failover::View, observed::ReportObservation};
use crate::{
    cluster::{
        id::MemberId,
        record::{ClusterRecord, NamedMaster},
    },
    time::Timestamp,
};

/// By how much the clocks of two machines may differ over the length of a lease, and how late a fence may be.
const CLOCK_MARGIN: Duration = Duration::from_secs(2);

/// What is known of the former masters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fence {
    /// All of them are closed.
    Confirmed,
    /// Nothing is known of these yet.
    Awaited {
        /// They, oldest first.
        masters: Vec<NamedMaster>,
        /// When their leases have run out, if a voter has promised.
        until: Option<Timestamp>,
    },
}

/// Looks after the former masters of an election whose winner is known.
pub fn fence(record: &ClusterRecord, view: View<'_>) -> Fence {
    let masters: Vec<NamedMaster> = record
        .named
        .iter()
        .filter(|named| !has_ended(record, named, view))
        .cloned()
        .collect();
    if masters.is_empty() {
        return Fence::Confirmed;
    }
    let promised_at = |member: &MemberId| {
        let task = record.task(*member)?;
        let seen = view.observed.reports.get(&task.task_id)?;
        let promised = seen.gone_since.is_none() && seen.report.promised >= record.epoch;
        promised.then_some(seen.promised_at)
    };
    // Each of them asks a voter that has promised; a member that it does not know as one says nothing to it.
    let each_is_denied = masters.iter().all(|master| {
        let others = master
            .voters
            .iter()
            .filter(|member| **member != master.member);
        others.filter_map(promised_at).next().is_some()
    });
    let last = record.voters.members.keys().filter_map(promised_at).max();
    let timings = view.policy.timings;
    // A proof may be as old as a check when it comes, and the watchdog grants another one before it kills.
    let wait = timings.master_lease + 2 * timings.check_interval + CLOCK_MARGIN;
    let until = last.filter(|_| each_is_denied).map(|last| last.plus(wait));
    match until {
        Some(until) if view.now >= until => Fence::Confirmed,
        until => Fence::Awaited { masters, until },
    }
}

/// Whether the server of a former master is known to have ended, or to be none any more: after a switchover its process goes
/// on, and it has read in this epoch what it holds, which no executor does before it has seen its server closed.
fn has_ended(record: &ClusterRecord, named: &NamedMaster, view: View<'_>) -> bool {
    let runs = record.may_run(&named.task_id);
    let replaced = |seen: &ReportObservation| {
        let held = seen.report.held.as_ref();
        seen.report.process != Some(named.process)
            || held.is_some_and(|held| held.epoch == record.epoch)
    };
    // A task leaves the record when Mesos has said that it ended. What was reported of a process that has ended stays true.
    !runs
        || view
            .observed
            .reports
            .get(&named.task_id)
            .is_some_and(replaced)
}

/// Forgets the former masters that are known to have ended, so that their number stays bounded: a task runs one server.
pub fn forget_ended(next: &mut ClusterRecord, view: View<'_>) {
    let named = std::mem::take(&mut next.named);
    let left = named
        .into_iter()
        .filter(|named| !has_ended(next, named, view));
    let left: Vec<NamedMaster> = left.collect();
    next.named = left;
}
