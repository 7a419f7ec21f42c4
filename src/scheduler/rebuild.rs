//! Whose data a member gets that holds nothing.
//!
//! A member that starts empty in a cluster with a master says so in its report. It is given a donor: a slave that is
//! ready, which costs the master nothing; without one, the master. One that is to leave is the last choice. The choice stands while it can be used, and
//! a copy that failed asks for the next donor in turn. One gives its data to one member at a time: others get another
//! donor, or wait for their turn. Nothing is named before the epoch's master has opened: until then nobody replaces any data.
//!
//! When copies have failed several times, or there is nobody to copy from, a backup takes the donor's place, if one is known whose data is a part of the
//! cluster's history. That is asked of the backup as it is of a member's data, and the member asks again when it has that data. Whether the master's
//! binlogs go back to the backup nobody knows who does not ask the master; the member does, by following it. What it finds to be of no use
//! is forgotten, and so not named to anybody again.

use std::collections::{BTreeMap, BTreeSet};

use super::observed::Observed;
use crate::cluster::{
    backup::{BackupId, RestoreFrom},
    control::{MemberState, Report},
    donor::{COPIES_IN_A_ROW, Chosen, FromBackup, UsableBackup, WantsDonor},
    flavour::Flavour,
    gtid::{self, Position},
    id::{DataId, Epoch, MemberId},
    record::ClusterRecord,
};

/// Names donors and backups, and forgets those that are not wanted any more. Tells what was decided about backups, a sentence each.
pub fn advance(next: &mut ClusterRecord, observed: &Observed, notes: &mut Vec<String>) {
    forget_unfit(next, observed, notes);
    let is_over = |member: &MemberId, instead_of| match observed.live(next, *member) {
        Some(report) => report.wants_donor.is_none() || report.data != Some(instead_of),
        // Silence says nothing of a copy, which goes on without ZooKeeper; the end of its task does.
        None => next.task(*member).is_none(),
    };
    let mut donors = next.donors.clone();
    let mut backups = next.from_backup.clone();
    donors.retain(|member, chosen| !is_over(member, chosen.instead_of));
    backups.retain(|member, chosen| !is_over(member, chosen.instead_of));
    if next.elected().is_some_and(|elected| elected.opened) {
        let wanting = observed.all_live(next).filter_map(|(member, report)| {
            let wants = Wants::of(next, observed, member, report)?;
            Some((member, wants))
        });
        let wanting: BTreeMap<MemberId, Wants> = wanting.collect();
        // Who is heard of and holds something by now needs nobody.
        donors.retain(|member, chosen| match wanting.get(member) {
            Some(wants) => wants.keeps(chosen),
            None => observed.live(next, *member).is_none(),
        });
        // Which backup is the one to take is looked for anew.
        backups.retain(|member, _| observed.live(next, *member).is_none());
        for (member, wants) in &wanting {
            if let Some(from) = wants.backup.clone() {
                let named = next.from_backup.get(member);
                if named.is_none_or(|named| named.from.id != from.id) {
                    notes.push(sentence(*member, &from.id, wants.failed));
                }
                let instead_of = wants.instead_of;
                backups.insert(*member, FromBackup { instead_of, from });
            } else if !donors.contains_key(member)
                && let Some(chosen) = wants.choose(&givers(&donors, &wanting))
            {
                donors.insert(*member, chosen);
            }
        }
    }
    next.donors = donors;
    next.from_backup = backups;
}

/// Forgets backups that a member has found to be of no use to anybody.
fn forget_unfit(next: &mut ClusterRecord, observed: &Observed, notes: &mut Vec<String>) {
    let wants = |(member, report): (MemberId, &Report)| {
        let unfit = report.wants_donor.as_ref()?.unfit.clone()?;
        Some((member, unfit))
    };
    let unfit: Vec<(MemberId, BackupId)> = observed.all_live(next).filter_map(wants).collect();
    for (member, id) in unfit {
        let known = next.backups.usable.len();
        next.backups.usable.retain(|usable| usable.from.id != id);
        if next.backups.usable.len() < known {
            notes.push(format!(
                "members do not get the data of the backup {id} any more: member {member} has found that it is damaged or gone, or no part of the history, or that the master's binlogs do not go back to it"
            ));
        }
    }
}

/// The members that get the data of a backup, a sentence each.
pub fn sentences(record: &ClusterRecord, observed: &Observed) -> Vec<String> {
    let named = record.from_backup.iter();
    let told = named.filter_map(|(member, chosen)| {
        let wants = observed.live(record, *member)?.wants_donor.as_ref()?;
        Some(sentence(*member, &chosen.from.id, wants.failed))
    });
    told.collect()
}

/// The backups that are named to members.
pub fn backups_named(record: &ClusterRecord) -> Vec<BackupId> {
    let named = record.from_backup.values();
    named.map(|chosen| chosen.from.id.clone()).collect()
}

fn sentence(member: MemberId, id: &BackupId, failed: u32) -> String {
    let why = match failed {
        COPIES_IN_A_ROW.. => format!("copies failed {COPIES_IN_A_ROW} times"),
        _ => "there is nobody to copy from".to_owned(),
    };
    format!(
        "member {member} gets the data of the backup {id}, and from the master what came later: {why}"
    )
}

/// Who gives its data at the moment. A member that is not heard of may never end its copy, and keeps nobody from another one: if
/// it does copy, the donor refuses the second one.
fn givers(
    donors: &BTreeMap<MemberId, Chosen>,
    wanting: &BTreeMap<MemberId, Wants>,
) -> BTreeSet<MemberId> {
    let giving = donors
        .iter()
        .filter(|(member, chosen)| !chosen.busy && wanting.contains_key(*member));
    giving.map(|(_, chosen)| chosen.member).collect()
}

/// What a member asks for, and who could give it.
struct Wants {
    failed: u32,
    instead_of: DataId,
    candidates: Vec<(MemberId, Option<u16>)>,
    /// The backup that takes the place of all of them.
    backup: Option<RestoreFrom>,
}

impl Wants {
    fn of(
        record: &ClusterRecord,
        observed: &Observed,
        member: MemberId,
        report: &Report,
    ) -> Option<Self> {
        let wants = report.wants_donor.as_ref()?;
        let instead_of = report.data?;
        let mut candidates = candidates(record, observed, member, report);
        let mut from = None;
        if wants.backup && (candidates.is_empty() || wants.failed >= COPIES_IN_A_ROW) {
            // They have had their turns. Without a backup the member replays the binlogs.
            candidates.clear();
            from = backup(record, report, wants).map(|usable| usable.from.clone());
        }
        Some(Self {
            failed: wants.failed,
            instead_of,
            candidates,
            backup: from,
        })
    }

    /// Whether the choice stands. One that was busy is made again.
    fn keeps(&self, chosen: &Chosen) -> bool {
        let usable = self
            .candidates
            .contains(&(chosen.member, chosen.stream_port));
        usable && chosen.failed == self.failed && !chosen.busy
    }

    /// The first who is not giving already, from the one on whose turn it is; if all are, that one, to wait for.
    fn choose(&self, giving: &BTreeSet<MemberId>) -> Option<Chosen> {
        let turn = self.failed as usize % self.candidates.len().max(1);
        let (before, from) = self.candidates.split_at_checked(turn)?;
        let in_turn = || from.iter().chain(before);
        let free = in_turn().find(|(donor, _)| !giving.contains(donor));
        let (member, stream_port) = *free.or(in_turn().next())?;
        Some(Chosen {
            instead_of: self.instead_of,
            member,
            failed: self.failed,
            stream_port,
            busy: free.is_none(),
        })
    }
}

/// The newest backup whose data the member's server can start on and that is a part of the cluster's history, as far as that can be told from its position.
fn backup<'a>(
    record: &'a ClusterRecord,
    wanting: &Report,
    wants: &WantsDonor,
) -> Option<&'a UsableBackup> {
    let server = wanting.server.as_ref()?;
    let lineage = record.lineage.iter();
    let lineage: Vec<(Epoch, Position)> = lineage
        .map(|known| (known.epoch, known.history.clone()))
        .collect();
    let verified = record.backups.verification.last.as_ref();
    let is_good = |usable: &&UsableBackup| {
        let UsableBackup { from, position } = usable;
        let is_bad = verified.is_some_and(|found| found.id == from.id && !found.good);
        let is_unfit = wants.unfit.as_ref() == Some(&from.id);
        !is_bad
            && !is_unfit
            && from.refuses(server.flavour, server.version).is_none()
            && !position.is_empty()
            && gtid::extras(position, &lineage, record.uuid).is_none()
    };
    record.backups.usable.iter().rev().find(is_good)
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
