//! Backups: who makes one, and what came of it. And when a cluster that was made from a backup stands for itself. Pure.
//!
//! A backup that is asked for is stored, gets a member that makes it, and ends with what that member reports, with its task, or with
//! time. Nothing is begun twice: the order names a task, and a task makes a backup of a number once. A backup whose end was not heard may be
//! complete all the same; which backups there are is what the store holds.

use std::time::Duration;

use super::{
    action::Look,
    failover::View,
    fitness,
    observed::{Observed, Presence},
    verification,
};
use crate::{
    cluster::{
        backup::{
            ArchiveOrder, ArchiveReport, BackupId, BackupSource, BackupState, BackupStore,
            PendingBackup, RestoreFrom,
        },
        control::{MemberState, Report},
        donor::UsableBackup,
        id::MemberId,
        record::ClusterRecord,
        view::BackupView,
    },
    time::Timestamp,
};

/// How long a backup waits for somebody who can make it.
const CHOSEN_WITHIN: Duration = Duration::from_secs(120);

/// For how long a member may be out of sight before the backup that it makes is given up. One that is heard of takes as long as it takes; one
/// whose member cannot reach ZooKeeper goes on meanwhile.
const HEARD_WITHIN: Duration = Duration::from_secs(3 * 3600);

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
    Ok(Course::Store(PendingBackup {
        number: record.backups.number + 1,
        id: next_id(record, now),
        store: store.clone(),
        asked_at: now,
        scheduled: false,
        source: None,
    }))
}

/// An id behind those of all earlier backups: their order says which one is the newest, so it holds where a clock was set back, or
/// this scheduler's is behind that of the one before it.
fn next_id(record: &ClusterRecord, now: Timestamp) -> BackupId {
    let backups = &record.backups;
    let ended = backups.outcomes.iter().map(|outcome| &outcome.id);
    let complete = backups.last_complete.iter().map(|complete| &complete.id);
    let times = ended.chain(complete).filter_map(BackupId::asked_at);
    let last = times.map(|(_, at)| at).max();
    let at = last.map_or(now, |last| now.max(last.plus(Duration::from_secs(1))));
    BackupId::new(record.name(), at)
}

/// Takes a pending backup further.
pub fn advance(next: &mut ClusterRecord, view: View<'_>, look: &mut Look) {
    let opened = next.elected().is_some_and(|elected| elected.opened);
    if let Some(restore) = &mut next.restore {
        restore.done |= opened;
    }
    if opened {
        order_archive(next, view, look);
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
                conclude(next, false, sentence, view, look);
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
        return conclude(next, false, sentence, view, look);
    }
    let report = view.observed.live(next, member);
    let told = report
        .and_then(|report| report.backup.as_ref())
        .filter(|told| told.number == pending.number);
    match told.map(|told| &told.state) {
        Some(BackupState::Done {
            bytes,
            stored_bytes,
            position,
        }) => {
            let sentence = format!(
                "member {member} has stored its data: {bytes} bytes, which take {stored_bytes} in the store"
            );
            let server = report.and_then(|report| report.server.clone());
            if let (Some(server), Some(position)) = (server, position.clone()) {
                let from = RestoreFrom {
                    id: pending.id.clone(),
                    store: pending.store.clone(),
                    flavour: server.flavour,
                    version: server.version,
                    replay: None,
                };
                let usable = UsableBackup { from, position };
                next.backups.note_usable(usable);
            }
            conclude(next, true, sentence, view, look);
        }
        Some(BackupState::Failed { why }) => {
            let sentence = format!("member {member} could not make it: {why}");
            conclude(next, false, sentence, view, look);
        }
        Some(BackupState::Running { .. }) => {}
        None => {
            let silent_since = silent_since(next, &pending, member, view);
            let gives_up = silent_since.plus(HEARD_WITHIN);
            if gives_up <= view.now {
                let sentence =
                    format!("nothing was heard of member {member}, which was to make it");
                conclude(next, false, sentence, view, look);
            } else {
                look.wake_by(gives_up);
            }
        }
    }
}

/// Says where the master archives its binlogs, and notes that something was archived.
///
/// A scheduler that ends before that is stored notes it with the next report. Until it is noted, an executor that begins where nothing is found takes the archive for a
/// new one; the one that has begun it knows better without.
fn order_archive(next: &mut ClusterRecord, view: View<'_>, look: &mut Look) {
    let store = view.policy.archive.as_ref().map(|order| &order.store);
    let wanted = store.map(|store| match &next.archive {
        Some(order) => order.with(store),
        None => ArchiveOrder::new(store.clone()),
    });
    if wanted != next.archive {
        next.archive = wanted;
        look.notes.push(match next.archive {
            Some(_) => "its binlogs are archived".to_owned(),
            None => "its binlogs are not archived any more".to_owned(),
        });
    }
    let begun_in = archived(next, view.observed).and_then(|report| report.begun_in.clone());
    if let Some(order) = &mut next.archive {
        order.begun |= begun_in.is_some_and(|url| url == order.store.url);
    }
}

/// Since when nothing is heard of a backup. While nobody is heard, silence means nothing.
fn silent_since(
    record: &ClusterRecord,
    pending: &PendingBackup,
    member: MemberId,
    view: View<'_>,
) -> Timestamp {
    let listened = view.listening_since.max(pending.asked_at);
    match view.observed.presence(record, member) {
        Presence::Gone(since) => since.max(listened),
        Presence::Live(_) | Presence::Unknown => listened,
    }
}

fn conclude(
    next: &mut ClusterRecord,
    done: bool,
    sentence: String,
    view: View<'_>,
    look: &mut Look,
) {
    look.notes.push(match done {
        true => format!("a backup is complete: {sentence}"),
        false => format!("a backup came to nothing: {sentence}"),
    });
    if let Some(backup) = next.backups.pending.clone().filter(|_| done) {
        verification::note_complete(next, &backup, view.policy, look);
    }
    next.backups.conclude(done, sentence, view.now);
}

/// A slave that follows the master and has caught up, the least behind first; the master if there is none. One that is to leave may go in the middle of it, and may
/// stay for long until another has its place: it comes after the others, and before the master is burdened.
fn choose(record: &ClusterRecord, view: View<'_>) -> Option<BackupSource> {
    let elected = record.elected().filter(|elected| elected.opened)?;
    let is_slave = |(member, report): &(MemberId, &Report)| {
        *member != elected.member
            && fitness::in_place(record, report)
            && fitness::has_caught_up(report, view.policy)
    };
    let slaves = view.observed.all_live(record).filter(is_slave);
    let best = slaves
        .min_by_key(|(member, report)| (record.is_leaving(*member), report.lag_seconds, *member));
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

/// How far the master's binlogs are archived.
pub fn archived<'a>(record: &ClusterRecord, observed: &'a Observed) -> Option<&'a ArchiveReport> {
    record.archive.as_ref()?;
    let elected = record.elected()?;
    observed.live(record, elected.member)?.archive.as_ref()
}

/// Whether there is a complete backup of the cluster, behind which its archived binlogs can be replayed: in the same store, as far as that is known.
pub fn has_one_with(record: &ClusterRecord, archived: &ArchiveReport) -> bool {
    let last = record.backups.last_complete.as_ref();
    let is_elsewhere = match (last.and_then(|last| last.url.as_ref()), &archived.begun_in) {
        (Some(url), Some(begun_in)) => url != begun_in,
        _ => false,
    };
    record.backups.has_one() && !is_elsewhere
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
