//! What discovery shows: the master once it accepts writes, the slaves that can be read.

use super::{
    failover::View,
    membership,
    observed::{Presence, silence_counts_from},
    restart,
};
use crate::cluster::{
    control::{MemberState, Report},
    id::{DataId, MemberId},
    record::{ClusterRecord, Published},
};

/// Sets what discovery is to show by what is observed.
///
/// A master stays published until the next election begins, which takes it out in the transaction
/// that starts the epoch. Slaves stay while an election lasts: they serve readers. A member of
/// which nothing was heard yet stays as it is, so that a new scheduler changes nothing by coming.
pub fn advance(next: &mut ClusterRecord, view: View<'_>) {
    let master = next
        .elected()
        .filter(|elected| elected.opened)
        .map(|elected| elected.member);
    let slaves = next
        .members
        .keys()
        .copied()
        .filter(|member| Some(*member) != master && shows_as_slave(next, view, *member))
        .collect();
    next.published = Published { master, slaves };
    note_data(next, view);
}

/// Notes the data that published members serve from: their `server_id` in discovery follows from it.
fn note_data(next: &mut ClusterRecord, view: View<'_>) {
    let published = next
        .published
        .slaves
        .iter()
        .copied()
        .chain(next.published.master);
    let reported: Vec<(MemberId, DataId)> = published
        .filter_map(|member| Some((member, view.observed.live(next, member)?.data?)))
        .collect();
    for (member, data) in reported {
        if let Some(known) = next.members.get_mut(&member) {
            known.data = Some(data);
        }
    }
}

fn shows_as_slave(record: &ClusterRecord, view: View<'_>, member: MemberId) -> bool {
    let already = record.published.slaves.contains(&member);
    let goes = !record.is_voter(member) && membership::may_go(record, view, member);
    if record.task(member).is_none() || goes || restart::is_going(record, member) {
        return false;
    }
    match view.observed.presence(record, member) {
        Presence::Live(report) => serves_reads(record, report, already),
        // Its ZooKeeper session has ended; it is shown again when it reports. Right after an outage
        // of ZooKeeper everybody's session has ended, which says nothing about the servers.
        Presence::Gone(_) => {
            let timeout = view.policy.session_timeout;
            already && view.now < silence_counts_from(view.listening_since, timeout)
        }
        Presence::Unknown => already,
    }
}

fn serves_reads(record: &ClusterRecord, report: &Report, already: bool) -> bool {
    let follows = match report.state {
        MemberState::Following { epoch, ready } => {
            (epoch == record.epoch && ready) || (already && epoch <= record.epoch)
        }
        MemberState::Provisioning
        | MemberState::Closed
        | MemberState::Master { .. }
        | MemberState::Refused { .. }
        | MemberState::Quarantined
        | MemberState::Dead
        | MemberState::Stopping => false,
    };
    follows && report.process.is_some()
}
