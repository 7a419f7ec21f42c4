//! Getting the cluster's data from a donor or a backup instead of replaying all of the master's binlogs. Pure.
//!
//! ```text
//! holds nothing, the master has opened --> a donor is named --> Copy --> complete: the empty server is killed
//!                                      \-- none in time                  start on the copy --> promise it --> Hold
//!                                       \                                failed: the next donor
//!     three copies have failed ----------> a backup is named --> Copy --> the same
//!                                           \-- none in time             failed three times, or of no use to anybody
//!                                            \--> replay <--------------/
//! ```
//!
//! A voter that lost its data and that an unopened master may be waiting for is an exception: see [`next`].
//!
//! The member runs on an empty data directory while the copy is made into a new one, so that a copy that is cut off
//! leaves nothing but a directory that nobody uses. The copy is a new data directory like any other: it has an
//! incarnation of its own, which does not vote until the canary has come by, and what it holds is compared
//! with the cluster's history before it follows. A donor that turns out not to be part of the history is thus no
//! danger, only a wasted copy. The same is true of a backup of the cluster, which is but an older copy: one that is not part of the history, or to which the
//! master's binlogs do not go back, is set aside as any data is, and the report says that nobody should take it again.
//!
//! A member that holds something can come to need a copy too: when its master's binlogs do not go back to what it holds,
//! because they were removed or the master began as a copy itself. The master refuses to send then. All that such a member
//! holds is part of the history, so once the master has opened, its directory is set aside and it begins empty, as any
//! other does that holds nothing.

use std::time::Duration;

use super::{Data, Role, State, plan::extras};
use crate::{
    cluster::{
        backup::BackupId,
        control::{Goal, GoalPhase, MasterGoal},
        donor::{COPIES_IN_A_ROW, WantsDonor},
        id::{DataId, Epoch},
    },
    executor::action::{CopySource, Step},
    time::Timestamp,
};

/// How long a member waits for a donor to be named before it replays the master's binlogs. It takes a scheduler
/// milliseconds; one that is not there at all must not keep a member from following.
const DONOR_NAMED_WITHIN: Duration = Duration::from_secs(10);

/// How long it waits for a donor before it says that a backup will do as well.
const BACKUP_AFTER: Duration = Duration::from_secs(5);

/// How long a member that holds nothing and may not acknowledge waits for a master to open. One that opens does so in
/// milliseconds. One that does not may be waiting for just this member to follow, become a voter and acknowledge: the
/// others are gone.
const MASTER_OPENS_WITHIN: Duration = Duration::from_secs(30);

/// After so many copies of a backup that failed as well, one after the other, the member replays the master's binlogs.
const BACKUPS_IN_A_ROW: u32 = 3;

/// The wait before a copy that failed is tried again; it doubles with each one.
const COPY_RETRY_DELAY: Duration = Duration::from_secs(1);

/// What is known of getting the data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rebuild {
    /// Since when the running process is known to hold nothing, or may try again.
    empty_since: Option<Timestamp>,
    /// How many copies have failed in a row.
    failed: u32,
    /// It was found that the binlogs are to be replayed.
    replay: bool,
    /// The data directory of a copy that is complete.
    copied: Option<DataId>,
    /// The epoch in which the master refused to send what the member lacks.
    refused: Option<Epoch>,
    /// The data directory that was made of a backup, until it has caught up with the master.
    of_backup: Option<(DataId, BackupId)>,
    /// The last backup that turned out to be of no use to anybody.
    unfit: Option<BackupId>,
}

/// What a member does that was to follow.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Next {
    /// Go on: apply and follow.
    Follow,
    /// Stay as it is until a master has opened, or until then.
    AwaitMaster(Option<Timestamp>),
    /// Stay as it is until a donor or a backup is named, or until then.
    AwaitDonor(Timestamp),
    /// Stay as it is until its donor has given its data to another member.
    AwaitTurn,
    /// Copy from there, for this reason.
    Copy(CopySource, &'static str),
    /// What it holds is no longer of use: it is to be set aside as soon as the master has opened.
    StartAnew,
}

/// What a member does that was to follow.
///
/// A member that holds nothing has nothing to lose, so that it may change its data directory at any time; but until
/// the master has opened, its acknowledgement may be what the master waits for, if it votes.
///
/// If it votes with other data than this, it may not acknowledge, and a master that has nobody else cannot open, so
/// that nobody is named to copy from. So after a while it follows all the same, without acknowledging: what it receives
/// takes it back into the vote. It gives nothing up for that, and the copy that it did not get was only to be faster.
pub(super) fn next(state: &State, goal: &Goal, master: &MasterGoal, now: Timestamp) -> Next {
    if is_left_behind(state) {
        return Next::StartAnew;
    }
    let Some(data) = state.data_in_use().filter(|_| wants_copy(state)) else {
        return Next::Follow;
    };
    let me = state.task.member;
    if !master.opened {
        return match await_master(state, goal, now) {
            _ if goal.voters.counts(me, data) => Next::Follow,
            Some(until) if until <= now => Next::Follow,
            until => Next::AwaitMaster(until),
        };
    }
    let donor = goal.donors.get(&me);
    if let Some(donor) = donor.filter(|it| it.instead_of == data && it.member != me) {
        if donor.busy {
            return Next::AwaitTurn;
        }
        let source = CopySource::Donor(donor.clone());
        return Next::Copy(source, "it holds nothing, and a donor is named");
    }
    let backup = goal.from_backup.get(&me);
    // A goal that was written before the scheduler heard of it may still name one that is of no use.
    let is_unfit = |id: &BackupId| state.rebuild.unfit.as_ref() == Some(id);
    if let Some(backup) = backup.filter(|it| it.instead_of == data && !is_unfit(&it.from.id)) {
        let source = CopySource::Backup(Box::new(backup.from.clone()));
        let reason = "it holds nothing, no member can give its data, and a backup is named";
        return Next::Copy(source, reason);
    }
    let since = state.rebuild.empty_since.unwrap_or(now);
    let says_more = Some(since.plus(BACKUP_AFTER)).filter(|at| now < *at);
    let until = since.plus(DONOR_NAMED_WITHIN);
    if now < until {
        Next::AwaitDonor(says_more.unwrap_or(until))
    } else {
        Next::Follow
    }
}

/// Until when a member waits for the master to open; `None`: for as long as it takes. One to which the master does not send
/// its first binlogs cannot help.
fn await_master(state: &State, goal: &Goal, now: Timestamp) -> Option<Timestamp> {
    let helps = state.rebuild.refused != Some(goal.epoch);
    let since = state.rebuild.empty_since.unwrap_or(now);
    helps.then(|| since.plus(MASTER_OPENS_WITHIN))
}

fn wants_copy(state: &State) -> bool {
    holds_nothing(state) && !state.rebuild.replay
}

fn holds_nothing(state: &State) -> bool {
    let empty = |held: &crate::cluster::control::Held| held.position.is_empty();
    matches!(state.role, Role::Held(_)) && state.held.as_ref().is_some_and(empty)
}

/// Whether the master refuses to send what the member lacks, because it does not have those binlogs any more. Then only
/// a copy helps.
///
/// The error is `ER_MASTER_FATAL_ERROR_READING_BINLOG`, which stands for other things as well, a binlog that cannot be
/// read among them. A member that holds nothing copies in any case. For one that holds something the servers' own words
/// must say that the binlogs were purged: MySQL "the source purged required binary logs", MariaDB "required binlog files have
/// been purged".
pub(super) fn replay_is_refused(state: &State) -> bool {
    const READING_BINLOG: &str = "1236";
    const PURGED: &str = "purged";
    let Some(seen) = state.look.seen.as_ref() else {
        return false;
    };
    let Some(replication) = seen.replication.as_ref().filter(|r| !r.receiving) else {
        return false;
    };
    let error = replication.receiver_error.as_deref().unwrap_or_default();
    let empty = seen.executed.is_empty() && seen.received.is_empty();
    error.contains(READING_BINLOG) && (empty || error.contains(PURGED))
}

/// Whether the member holds something, all of it part of the history, and the master of this epoch has refused to send
/// what comes after it.
fn is_left_behind(state: &State) -> bool {
    let refused = match state.role {
        Role::Held(epoch) => state.rebuild.refused == Some(epoch),
        _ => false,
    };
    refused && !holds_nothing(state) && extras(state).is_none()
}

/// What the report says of it: nothing before the master has opened, and nothing to a master.
pub(super) fn wants_donor(state: &State, now: Timestamp) -> Option<WantsDonor> {
    let goal = state.promised_goal()?;
    let opened = state
        .master_of(goal.epoch)
        .is_some_and(|master| master.opened && master.member != state.task.member);
    (opened && wants_copy(state)).then(|| WantsDonor {
        failed: state.rebuild.failed,
        backup: takes_backup(state, now),
        unfit: state.rebuild.unfit.clone(),
    })
}

/// Whether a backup will do as well.
fn takes_backup(state: &State, now: Timestamp) -> bool {
    let copying = match state.lane.as_ref().map(|lane| &lane.step) {
        Some(Step::Copy { source, .. }) => matches!(source, CopySource::Donor(_)),
        _ => false,
    };
    let since = state.rebuild.empty_since;
    let has_waited = since.is_some_and(|since| now >= since.plus(BACKUP_AFTER));
    // One that is busy is worth waiting for.
    let is_named = state.promised_goal().is_some_and(|goal| {
        let donor = goal.donors.get(&state.task.member);
        donor.is_some_and(|donor| Some(donor.instead_of) == state.data_in_use())
    });
    state.rebuild.failed >= COPIES_IN_A_ROW || has_waited && !copying && !is_named
}

/// Whether a copy that is under way must be given up: an election may need the report of this member's empty data.
/// Else the copy goes on in the next epoch, where it is as good as in this one.
pub(super) fn is_in_the_way(state: &State, goal: &Goal, copied_in: Epoch) -> bool {
    copied_in < goal.epoch
        && state
            .data_in_use()
            .is_some_and(|data| goal.voters.counts(state.task.member, data))
}

impl State {
    /// The copy that is to be used instead of the data directory in use, which is empty.
    pub(super) fn is_copied(&self) -> bool {
        self.rebuild.copied.is_some()
    }

    /// Whether a copy may take its time. One that has failed was perhaps too slow for its donor's redo log, which goes round.
    pub(super) fn copies_give_way(&self) -> bool {
        self.rebuild.failed == 0
    }

    /// What was read shows whether the member holds anything.
    pub(super) fn note_held(&mut self, now: Timestamp) {
        if replay_is_refused(self) {
            self.rebuild.replay = false;
            // All begins anew, with donors.
            self.rebuild.failed = 0;
            // The look was one at a follower of the epoch that has just been read in.
            self.rebuild.refused = match self.role {
                Role::Held(epoch) if self.serving.is_some_and(|s| s.epoch == epoch) => Some(epoch),
                _ => None,
            };
        }
        if self
            .held
            .as_ref()
            .is_some_and(|held| !held.position.is_empty())
        {
            // The data is there. If it has to be set aside one day, that is another matter.
            self.rebuild.replay = false;
            self.rebuild.failed = 0;
        }
        self.rebuild.empty_since = holds_nothing(self).then(|| {
            let known = self.rebuild.empty_since;
            known.unwrap_or(now)
        });
    }

    /// Whether the data directory is to be set aside now though nothing in it is extra: the master has opened, so all that it
    /// holds is acknowledged elsewhere.
    ///
    /// A crash before it is moved leaves the member with it, to be refused again.
    pub(super) fn starts_anew(&self, goal: &Goal) -> bool {
        let opened = match &goal.phase {
            GoalPhase::Elected(master) => master.opened && master.member != self.task.member,
            GoalPhase::Unborn | GoalPhase::Electing | GoalPhase::Deleting => false,
        };
        opened
            && self.role == Role::Held(goal.epoch)
            && goal.epoch == self.promised.epoch
            && self.lane.is_none()
            && is_left_behind(self)
    }

    /// Another goal comes. A member that was waiting for its turn until now, however long, gives whoever is named next as much time as any.
    pub(super) fn note_awaited_turn(&mut self, now: Timestamp) {
        let donors = self.goal.as_ref().map(|goal| &goal.donors);
        let donor = donors.and_then(|donors| donors.get(&self.task.member));
        if donor.is_some_and(|donor| donor.busy) && self.rebuild.empty_since.is_some() {
            self.rebuild.empty_since = Some(now);
        }
    }

    /// A copy is complete.
    pub(super) fn copy_is_complete(&mut self, data: DataId, source: &CopySource) {
        self.rebuild.copied = Some(data);
        self.rebuild.of_backup = match source {
            CopySource::Donor(_) => None,
            CopySource::Backup(from) => Some((data, from.id.clone())),
        };
    }

    /// The backup that was named is of no use to anybody. Returns how long to wait before the next copy.
    pub(super) fn backup_is_unfit(&mut self, id: BackupId, now: Timestamp) -> Duration {
        self.rebuild.unfit = Some(id);
        self.copy_has_failed(now)
    }

    /// The data directory in use is about to be set aside. If it was made of a backup and has never caught up with the master, then the next one made of
    /// that would have the same fate.
    pub(super) fn note_unfit(&mut self) {
        if let Some((data, id)) = self.rebuild.of_backup.take()
            && self.data_in_use() == Some(data)
        {
            self.rebuild.unfit = Some(id);
        }
    }

    /// The member has all that the master had when this began. What becomes of its data now is no fault of what it was made of.
    pub(super) fn has_caught_up(&mut self) {
        self.rebuild.of_backup = None;
    }

    /// Replaying costs less than a copy.
    pub(super) fn replay_is_cheaper(&mut self) {
        self.rebuild.replay = true;
    }

    /// A copy has come to nothing, or its server does not start. Returns how long to wait before the next one.
    pub(super) fn copy_has_failed(&mut self, now: Timestamp) -> Duration {
        self.rebuild.failed += 1;
        self.rebuild.replay = self.rebuild.failed >= COPIES_IN_A_ROW + BACKUPS_IN_A_ROW;
        let delay = COPY_RETRY_DELAY * (1 << self.rebuild.failed.min(4));
        // The next donor has its own time to be named.
        self.rebuild.empty_since = Some(now.plus(delay));
        delay
    }

    /// The server has ended, by itself or not.
    pub(super) fn server_of_copy_ended(&mut self, now: Timestamp) {
        self.rebuild.empty_since = None;
        if let (Some(data), Some(instead_of)) = (self.rebuild.copied.take(), self.data_in_use()) {
            self.data = Data::Copied { data, instead_of };
            return;
        }
        let copying = self.lane.as_ref().map(|lane| &lane.step);
        if matches!(copying, Some(Step::Copy { .. })) {
            self.copy_has_failed(now);
            // Its server starts again first.
            self.rebuild.empty_since = None;
        }
    }

    /// The copy is promised: it is the member's data from here on.
    pub(super) fn copy_is_in_use(&mut self) {
        self.rebuild = Rebuild {
            of_backup: self.rebuild.of_backup.take(),
            unfit: self.rebuild.unfit.take(),
            ..Rebuild::default()
        };
    }
}
