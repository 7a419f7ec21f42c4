//! Getting the cluster's data from a donor instead of replaying all of the master's binlogs. Pure.
//!
//! ```text
//! holds nothing, the master has opened --> a donor is named --> Copy --> complete: the empty server is killed
//!                                      \-- none in time                  start on the copy --> promise it --> Hold
//!                                       \--> replay                      failed: the next donor; three times: replay
//! ```
//!
//! A voter that lost its data and that an unopened master may be waiting for is an exception: see [`next`].
//!
//! The member runs on an empty data directory while the copy is made into a new one, so that a copy that is cut off
//! leaves nothing but a directory that nobody uses. The copy is a new data directory like any other: it has an
//! incarnation of its own, which does not vote until the canary has come by, and what it holds is compared
//! with the cluster's history before it follows. A donor that turns out not to be part of the history is thus no
//! danger, only a wasted copy.
//!
//! A member that holds something can come to need a copy too: when its master's binlogs do not go back to what it holds,
//! because they were removed or the master began as a copy itself. The master refuses to send then. All that such a member
//! holds is part of the history, so once the master has opened, its directory is set aside and it begins empty, as any
//! other does that holds nothing.

use std::time::Duration;

use super::{Data, Role, State, plan::extras};
use crate::{
    cluster::{
        control::{Goal, GoalPhase, MasterGoal},
        donor::{Donor, WantsDonor},
        id::{DataId, Epoch},
    },
    executor::action::Step,
    time::Timestamp,
};

/// How long a member waits for a donor to be named before it replays the master's binlogs. It takes a scheduler
/// milliseconds; one that is not there at all must not keep a member from following.
const DONOR_NAMED_WITHIN: Duration = Duration::from_secs(10);

/// How long a member that holds nothing and may not acknowledge waits for a master to open. One that opens does so in
/// milliseconds. One that does not may be waiting for just this member to follow, become a voter and acknowledge: the
/// others are gone.
const MASTER_OPENS_WITHIN: Duration = Duration::from_secs(30);

/// After so many copies that failed one after the other the member replays the master's binlogs.
const COPIES_IN_A_ROW: u32 = 3;

/// The wait before a copy that failed is tried again; it doubles with each one.
const COPY_RETRY_DELAY: Duration = Duration::from_secs(1);

/// What is known of getting the data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rebuild {
    /// Since when the running process is known to hold nothing.
    empty_since: Option<Timestamp>,
    /// How many copies have failed in a row.
    failed: u32,
    /// It was found that the binlogs are to be replayed.
    replay: bool,
    /// The data directory of a copy that is complete.
    copied: Option<DataId>,
    /// The epoch in which the master refused to send what the member lacks.
    refused: Option<Epoch>,
}

/// What a member does that was to follow.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Next<'a> {
    /// Go on: apply and follow.
    Follow,
    /// Stay as it is until a master has opened, or until then.
    AwaitMaster(Option<Timestamp>),
    /// Stay as it is until a donor is named, or until then.
    AwaitDonor(Timestamp),
    /// Copy from this one.
    Copy(&'a Donor),
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
pub(super) fn next<'a>(
    state: &State,
    goal: &'a Goal,
    master: &MasterGoal,
    now: Timestamp,
) -> Next<'a> {
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
    match goal.donors.get(&me) {
        Some(donor) if donor.instead_of == data && donor.member != me => Next::Copy(donor),
        _ => {
            let since = state.rebuild.empty_since.unwrap_or(now);
            let until = since.plus(DONOR_NAMED_WITHIN);
            if now < until {
                Next::AwaitDonor(until)
            } else {
                Next::Follow
            }
        }
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
pub(super) fn wants_donor(state: &State) -> Option<WantsDonor> {
    let goal = state.promised_goal()?;
    let opened = state
        .master_of(goal.epoch)
        .is_some_and(|master| master.opened && master.member != state.task.member);
    (opened && wants_copy(state)).then_some(WantsDonor {
        failed: state.rebuild.failed,
    })
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

    /// What was read shows whether the member holds anything.
    pub(super) fn note_held(&mut self, now: Timestamp) {
        if replay_is_refused(self) {
            self.rebuild.replay = false;
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

    /// A copy is complete.
    pub(super) fn copy_is_complete(&mut self, data: DataId) {
        self.rebuild.copied = Some(data);
    }

    /// Replaying costs less than a copy.
    pub(super) fn replay_is_cheaper(&mut self) {
        self.rebuild.replay = true;
    }

    /// A copy has come to nothing, or its server does not start. Returns how long to wait before the next one.
    pub(super) fn copy_has_failed(&mut self) -> Duration {
        self.rebuild.failed += 1;
        self.rebuild.replay = self.rebuild.failed >= COPIES_IN_A_ROW;
        // The next donor has its own time to be named.
        self.rebuild.empty_since = None;
        COPY_RETRY_DELAY * (1 << self.rebuild.failed.min(4))
    }

    /// The server has ended, by itself or not.
    pub(super) fn server_of_copy_ended(&mut self) {
        self.rebuild.empty_since = None;
        if let (Some(data), Some(instead_of)) = (self.rebuild.copied.take(), self.data_in_use()) {
            self.data = Data::Copied { data, instead_of };
            return;
        }
        let copying = self.lane.as_ref().map(|lane| &lane.step);
        if matches!(copying, Some(Step::Copy { .. })) {
            self.copy_has_failed();
        }
    }

    /// The copy is promised: it is the member's data from here on.
    pub(super) fn copy_is_in_use(&mut self) {
        self.rebuild = Rebuild::default();
    }
}
