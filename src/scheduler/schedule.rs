//! Backups that nobody has to ask for: when one is due, and how many are made at a time. Pure.
//!
//! The record has since when a cluster's schedule counts. A backup that becomes due is stored like one that is asked for, and with it
//! that the schedule counts from now: whatever fell due while no scheduler ran, while the cluster was paused or had no master is made up once. One
//! that fails is tried again, after pauses that grow.

use std::{collections::BTreeMap, time::Duration};

use super::{
    action::Look,
    backups::{self, Course},
    state::{Cluster, Pending, Policy},
    verification,
};
use crate::{
    cluster::{
        backup::BackupStore,
        backup_rules::{BackupKeep, BackupSchedule},
        id::ClusterName,
        record::ClusterRecord,
        view::BackupStanding,
    },
    time::Timestamp,
};

/// The pause after the first failure; it doubles with each one that follows.
const FIRST_PAUSE: Duration = Duration::from_secs(600);

/// The longest pause after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 3600);

/// When to look again at a cluster that has no master, or finds no room.
const AGAIN: Duration = Duration::from_secs(30);

/// What holds for the backups of all clusters.
#[derive(Debug, Clone)]
pub struct BackupPolicy {
    /// Where they are stored.
    pub store: BackupStore,
    /// When they are made, where the cluster says nothing else.
    pub schedule: BackupSchedule,
    /// Which are kept, where the cluster says nothing else.
    pub keep: BackupKeep,
    /// How many clusters make one at the same time before those that are due wait; and how many are verified at the same time.
    pub at_once: usize,
    /// Whether those that the schedule has made are verified.
    pub verify: bool,
}

/// How many more may begin.
#[derive(Debug, Default)]
pub struct Room {
    backups: Option<usize>,
    verifications: Option<usize>,
}

impl Room {
    /// Takes a place, if there is one. They are counted when somebody wants one, which is seldom.
    fn take(&mut self, clusters: &BTreeMap<ClusterName, Cluster>, most: usize) -> bool {
        let left = self.backups.get_or_insert_with(|| {
            let taken = clusters.values().filter(|cluster| is_making_one(cluster));
            most.saturating_sub(taken.count())
        });
        take_one(left)
    }

    /// The same for a verification. Those of paused clusters count as well, for their tasks run.
    pub fn take_for_verification(
        &mut self,
        clusters: &BTreeMap<ClusterName, Cluster>,
        most: usize,
    ) -> bool {
        let left = self.verifications.get_or_insert_with(|| {
            let taken = clusters
                .values()
                .filter(|cluster| is_verifying_one(cluster));
            most.saturating_sub(taken.count())
        });
        take_one(left)
    }
}

fn take_one(left: &mut usize) -> bool {
    let is_free = *left > 0;
    *left = left.saturating_sub(1);
    is_free
}

fn is_verifying_one(cluster: &Cluster) -> bool {
    let written = match &cluster.pending {
        Some(Pending::Persist { record, .. }) => verification::is_under_way(record),
        Some(Pending::Remove(_)) | None => false,
    };
    written || verification::is_under_way(&cluster.record)
}

/// One that is paused or being deleted concludes none, and must not keep the place from others.
fn is_making_one(cluster: &Cluster) -> bool {
    if cluster.record.paused_since.is_some() || cluster.record.deleting {
        return false;
    }
    let written = match &cluster.pending {
        Some(Pending::Persist { record, .. }) => record.backups.pending.is_some(),
        Some(Pending::Remove(_)) | None => false,
    };
    written || cluster.record.backups.pending.is_some()
}

/// Stores a backup if one is due.
pub fn begin_due(
    next: &mut ClusterRecord,
    policy: &Policy,
    clusters: &BTreeMap<ClusterName, Cluster>,
    room: &mut Room,
    now: Timestamp,
    look: &mut Look,
) {
    let Some(policy) = &policy.backups else {
        return;
    };
    let schedule = schedule_of(next, policy).clone();
    if schedule == BackupSchedule::None {
        next.backups.due_since = None;
        return;
    }
    // A schedule that begins does not begin with all clusters at once.
    next.backups.due_since.get_or_insert(now);
    let Some(due) = due_at(next, &schedule) else {
        return;
    };
    if due > now {
        return look.wake_by(due);
    }
    match backups::ask(next, &policy.store, now) {
        // What comes of it wakes the cluster.
        Ok(Course::Pending(_)) => {}
        Ok(Course::Store(mut backup)) if room.take(clusters, policy.at_once) => {
            look.notes.push(format!("the backup {} is due", backup.id));
            backup.scheduled = true;
            next.backups.due_since = Some(now);
            next.backups.number = backup.number;
            next.backups.pending = Some(backup);
        }
        Ok(Course::Store(_)) | Err(_) => look.wake_by(now.plus(AGAIN)),
    }
}

fn schedule_of<'a>(record: &'a ClusterRecord, policy: &'a BackupPolicy) -> &'a BackupSchedule {
    let own = record.spec.backup_schedule.as_ref();
    own.unwrap_or(&policy.schedule)
}

/// When the next one is due: by the schedule, or earlier because the last one has failed.
fn due_at(record: &ClusterRecord, schedule: &BackupSchedule) -> Option<Timestamp> {
    let since = record.backups.due_since?;
    let by_schedule = schedule.next_after(record.uuid, since);
    let outcomes = record.backups.outcomes.iter().rev();
    let failed = outcomes.take_while(|outcome| outcome.scheduled && !outcome.done);
    let failures = u32::try_from(failed.count()).unwrap_or(u32::MAX);
    let last = record.backups.outcomes.last().filter(|_| failures > 0);
    let again = last.map(|last| {
        let doubled = FIRST_PAUSE * 2u32.saturating_pow((failures - 1).min(16));
        last.at.plus(doubled.min(LONGEST_PAUSE))
    });
    by_schedule.into_iter().chain(again).min()
}

/// What there is to know of a cluster's backups, if there is a store for them.
pub fn standing(settings: &Policy, record: &ClusterRecord) -> Option<BackupStanding> {
    let policy = settings.backups.as_ref()?;
    let schedule = schedule_of(record, policy);
    let is_due = !record.deleting && record.paused_since.is_none();
    Some(BackupStanding {
        incarnation: record.uuid,
        schedule: schedule.clone(),
        keep: record.spec.backup_keep.unwrap_or(policy.keep),
        next_at: due_at(record, schedule).filter(|_| is_due),
        last_complete: record.backups.last_complete.clone(),
        verification: verification::standing(record, settings),
    })
}
