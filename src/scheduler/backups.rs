//! Backups: who makes one, and what came of it. And when a cluster that was made from a backup stands for itself. Pure.
//!
//! A backup that is asked for is stored, gets a member that makes it, and ends with what that member reports, with its task, or with
//! time. Nothing is begun twice: the order names a task, and a task makes a backup of a number once. A backup whose end was not heard may be
//! complete all the same; which backups there are is what the store holds.

use std::time::Duration;

use super::{action::Look, failover::View, fitness, observed::Observed};
use crate::{
    cluster::{
        backup::{BackupId, BackupSource, BackupState, BackupStore, PendingBackup},
        control::{MemberState, Report},
        id::MemberId,
        record::ClusterRecord,
        view::BackupView,
    },
    time::Timestamp,
};

/// How long a backup waits for somebody who can make it.
const CHOSEN_WITHIN: Duration = Duration::from_secs(120);

/// When a backup is given up of whose member nothing is heard. One that is heard of takes as long as it takes.
const HEARD_WITHIN: Duration = Duration::from_secs(24 * 3600);

/// What is to be done about a wish.
#[derive(Debug, Clone, PartialEq)]
pub enum Course {
    /// Nothing more: this one is under way.
    Pending(PendingBackup),
    /// Store it.
    Store(PendingBackup),
}

/// Takes a wish in.
///
/// # Errors
/// Why there cannot be a backup now, as a sentence.
pub fn ask(record: &ClusterRecord, store: &BackupStore, now: Timestamp) -> Result<Course, String> {
    if let Some(pending) = &record.backups.pending {
        return Ok(Course::Pending(pending.clone()));
    }
    if record.elected().is_none_or(|elected| !elected.opened) {
        return Err("the cluster has no master that accepts writes at the moment, so that nobody knows which of its members have all data; ask again when it has".to_owned());
    }
    let id = BackupId::new(record.name(), now);
    if record
        .backups
        .outcomes
        .last()
        .is_some_and(|last| last.id == id)
    {
        return Err(
            "the last one was asked for within this second, and has its name; ask again".to_owned(),
        );
    }
    Ok(Course::Store(PendingBackup {
        number: record.backups.number + 1,
        id,
        store: store.clone(),
        asked_at: now,
        source: None,
    }))
}

/// Takes a pending backup further.
pub fn advance(next: &mut ClusterRecord, view: View<'_>, look: &mut Look) {
    let opened = next.elected().is_some_and(|elected| elected.opened);
    if let Some(restore) = &mut next.restore {
        restore.done |= opened;
    }
    let Some(mut pending) = next.backups.pending.clone() else {
        return;
    };
    let Some(source) = pending.source.clone() else {
        let gives_up = pending.asked_at.plus(CHOSEN_WITHIN);
        match choose(next, view) {
            Some(source) => {
                look.notes.push(format!(
                    "member {} makes the backup {}",
                    source.member, pending.id
                ));
                pending.source = Some(source);
                next.backups.pending = Some(pending);
            }
            None if gives_up <= view.now => {
                let sentence = "no member of the current epoch was ready to make it".to_owned();
                conclude(next, false, sentence, view.now, look);
            }
            None => look.wake_by(gives_up),
        }
        return;
    };
    let member = source.member;
    let is_there = next
        .task(member)
        .is_some_and(|task| task.task_id == source.task_id);
    if !is_there {
        let sentence = format!("the task of member {member}, which made it, has ended");
        return conclude(next, false, sentence, view.now, look);
    }
    let report = view.observed.live(next, member);
    let told = report
        .and_then(|report| report.backup.as_ref())
        .filter(|told| told.number == pending.number);
    match told.map(|told| &told.state) {
        Some(BackupState::Done {
            bytes,
            stored_bytes,
        }) => {
            let sentence = format!(
                "member {member} has stored its data: {bytes} bytes, which take {stored_bytes} in the store"
            );
            conclude(next, true, sentence, view.now, look);
        }
        Some(BackupState::Failed { why }) => {
            let sentence = format!("member {member} could not make it: {why}");
            conclude(next, false, sentence, view.now, look);
        }
        Some(BackupState::Running { .. }) => {}
        None => {
            let gives_up = pending.asked_at.plus(HEARD_WITHIN);
            if gives_up <= view.now {
                let sentence =
                    format!("nothing was heard of member {member}, which was to make it");
                conclude(next, false, sentence, view.now, look);
            } else {
                look.wake_by(gives_up);
            }
        }
    }
}

fn conclude(
    next: &mut ClusterRecord,
    done: bool,
    sentence: String,
    now: Timestamp,
    look: &mut Look,
) {
    look.notes.push(match done {
        true => format!("a backup is complete: {sentence}"),
        false => format!("a backup came to nothing: {sentence}"),
    });
    next.backups.conclude(done, sentence, now);
}

/// A slave that follows the master and has caught up, the least behind first; the master if there is none.
fn choose(record: &ClusterRecord, view: View<'_>) -> Option<BackupSource> {
    let elected = record.elected().filter(|elected| elected.opened)?;
    let is_slave = |(member, report): &(MemberId, &Report)| {
        *member != elected.member
            && fitness::in_place(record, report)
            && fitness::has_caught_up(report, view.policy)
    };
    let slaves = view.observed.all_live(record).filter(is_slave);
    let best = slaves.min_by_key(|(member, report)| (report.lag_seconds, *member));
    let writable = MemberState::Master {
        epoch: record.epoch,
        writable: true,
    };
    let master = || {
        let report = view.observed.live(record, elected.member)?;
        (report.state == writable).then_some((elected.member, report))
    };
    let (member, report) = best.or_else(master)?;
    Some(BackupSource {
        member,
        task_id: report.task_id.clone(),
    })
}

/// The backup that is under way, as the API shows it.
pub fn under_way(record: &ClusterRecord, observed: &Observed) -> Option<BackupView> {
    let pending = record.backups.pending.as_ref()?;
    let member = pending.source.as_ref().map(|source| source.member);
    let told = member
        .and_then(|member| observed.live(record, member))
        .and_then(|report| report.backup.as_ref())
        .filter(|told| told.number == pending.number);
    let bytes = match told.map(|told| &told.state) {
        Some(BackupState::Running { bytes } | BackupState::Done { bytes, .. }) => *bytes,
        Some(BackupState::Failed { .. }) | None => 0,
    };
    Some(BackupView {
        number: pending.number,
        id: pending.id.clone(),
        member: member.map(|member| member.0),
        bytes,
    })
}
