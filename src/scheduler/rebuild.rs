//! Whose data a member gets that holds nothing.
//!
//! A member that starts empty in a cluster with a master says so in its report. It is given a donor: a slave that is
//! ready, which costs the master nothing; without one, the master. One that is to leave is the last choice. The choice stands while it can be used, and
//! a copy that failed asks for the next donor in turn. Nothing is named before the epoch's master has
//! opened: until then nobody replaces any data.

use super::observed::Observed;
use crate::cluster::{
    control::{MemberState, Report},
    donor::Chosen,
    flavour::Flavour,
    id::MemberId,
    record::ClusterRecord,
};

/// Names donors, and forgets those that are not wanted any more.
pub fn advance(next: &mut ClusterRecord, observed: &Observed) {
    let is_over = |member: &MemberId, chosen: &Chosen| match observed.live(next, *member) {
        Some(report) => report.wants_donor.is_none() || report.data != Some(chosen.instead_of),
        // Silence says nothing of a copy, which goes on without ZooKeeper; the end of its task does.
        None => next.task(*member).is_none(),
    };
    let mut donors = next.donors.clone();
    donors.retain(|member, chosen| !is_over(member, chosen));
    if next.elected().is_some_and(|elected| elected.opened) {
        for (member, report) in observed.all_live(next) {
            let known = donors.remove(&member);
            donors.extend(choose(next, observed, member, report, known).map(|c| (member, c)));
        }
    }
    next.donors = donors;
}

fn choose(
    record: &ClusterRecord,
    observed: &Observed,
    member: MemberId,
    report: &Report,
    known: Option<Chosen>,
) -> Option<Chosen> {
    let wants = report.wants_donor?;
    let instead_of = report.data?;
    let candidates = candidates(record, observed, member, report);
    let still_good = known.filter(|known| {
        known.failed == wants.failed && candidates.contains(&(known.member, known.stream_port))
    });
    if still_good.is_some() {
        return still_good;
    }
    let turn = wants.failed as usize % candidates.len().max(1);
    let (donor, stream_port) = *candidates.get(turn)?;
    Some(Chosen {
        instead_of,
        member: donor,
        failed: wants.failed,
        stream_port,
    })
}

/// Who can give its data to `member`, the best first, and at which port its executor does.
fn candidates(
    record: &ClusterRecord,
    observed: &Observed,
    member: MemberId,
    wanting: &Report,
) -> Vec<(MemberId, Option<u16>)> {
    let master = record.elected().map(|elected| elected.member);
    let usable = observed.all_live(record).filter(|(other, report)| {
        // Copied files are read by the same version that has written them.
        *other != member && report.server == wanting.server && has_the_data(record, report)
    });
    let mut usable: Vec<(MemberId, Option<u16>)> = usable
        .map(|(other, report)| (other, report.stream_port))
        .collect();
    // Where MariaDB's tool is missing, the executor hands nothing out. It is named all the same when there is nobody
    // else, so that the member finds out by itself that it has to replay the master's binlogs.
    let is_mariadb = wanting
        .server
        .as_ref()
        .is_some_and(|server| server.flavour == Flavour::Mariadb);
    usable.sort_by_key(|(other, port)| {
        let hands_out_nothing = is_mariadb && port.is_none();
        let leaving = record.is_leaving(*other);
        (hands_out_nothing, leaving, Some(*other) == master, *other)
    });
    usable
}

/// Whether a member has the data of the cluster.
fn has_the_data(record: &ClusterRecord, report: &Report) -> bool {
    match report.state {
        MemberState::Following { epoch, ready } => epoch == record.epoch && ready,
        MemberState::Master { epoch, writable } => epoch == record.epoch && writable,
        MemberState::Provisioning
        | MemberState::Closed
        | MemberState::Refused { .. }
        | MemberState::Quarantined
        | MemberState::Dead
        | MemberState::Stopping => false,
    }
}
