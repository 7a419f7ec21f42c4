//! Whether the server does its work: signs of life, commits, acknowledgements, space. Pure.
//!
//! | what is seen | what it is | what is done |
//! |---|---|---|
//! | nothing comes back at all | hung | SIGKILL after the hang timeout |
//! | commits do not come through, and nobody waits for an acknowledgement | the disk stalls | SIGKILL after the commit timeout, where another voter can take over |
//! | the same, and there is no space | the disk is full | told at once; SIGKILL as above, but only where every acknowledged write is elsewhere too |
//! | commits wait for acknowledgements | they get lost, or nobody gives them | told; voters connect anew by themselves; after three commit timeouts another master is asked for |
//!
//! A master shows that commits come through by a commit of its own, unless clients' commits have shown it since
//! the last look.

use std::time::Duration;

use super::{Process, Role, State, handover, lease, plan::Plan, terms::acknowledgements};
use crate::{
    cluster::{control::Trouble, gtid::Position, id::ProcessId},
    executor::action::{Action, Step},
    mysql::Observation,
    time::Timestamp,
};

/// In how many looks in a row commits must be seen waiting for acknowledgements before that is told. A
/// busy, healthy master is seen with some of them most of the time, each for a millisecond; a report
/// that came and went with them would be written every second.
const WAITING_IS_TOLD_AFTER: u32 = 5;

/// A disk with less space than this is full, in bytes: InnoDB grows a tablespace by up to 4 MiB at once.
const FULL: u64 = 4 << 20;

/// How many commit timeouts commits may wait for acknowledgements before another master is asked for. The
/// voters connect anew after one of them, and that must have had its chance.
const PATIENCE: u32 = 3;

/// How often a server is looked at while its member is not ready yet, or while something hinders it. Nothing announces
/// that an applier has stopped; a voter goes on acknowledging until that is seen.
const LOOK_OFTEN: Duration = Duration::from_millis(200);

/// In how many looks in a row commits must wait for acknowledgements, and none be completed, before one more is
/// committed to release them. These looks are [`LOOK_OFTEN`] apart; a round trip takes milliseconds.
const PROVE_AFTER: u32 = 3;

/// How often that is tried.
const PROVE_EVERY: Duration = Duration::from_secs(5);

/// Signs of life of the running server.
#[derive(Debug, Clone, Default)]
pub(super) struct Health {
    /// A sign of life is asked for.
    asking: bool,
    /// When that was done last.
    asked: Option<Timestamp>,
    /// Since when nothing at all has come back, while something is asked.
    silent_since: Option<Timestamp>,
    /// When the commit of our own that is under way was begun.
    pending: Option<Timestamp>,
    /// When the last one was begun.
    checked: Option<Timestamp>,
    /// When the last one that came through was begun.
    pub(super) proved: Option<Timestamp>,
    /// Since when they fail, and how: the server says that it cannot.
    failing: Option<(Timestamp, String)>,
    /// How many came through since the last look.
    own: u64,
    /// Whether the last look saw that others' commits come through.
    others_commit: bool,
    /// Since when no look has seen commits wait for acknowledgements, if the last one has not.
    unwaited_since: Option<Timestamp>,
    /// When the look was begun that saw last what is known.
    seen: Option<Timestamp>,
    /// When what was received was last seen to grow, or the receiver was started.
    pub(super) received: Option<Timestamp>,
    /// What was not answered before does not count before this.
    counts_from: Option<Timestamp>,
    /// What the server can still write to its disk, in bytes.
    pub(super) space: Option<u64>,
}

// === facts ===

impl Health {
    pub(super) fn forget_process(&mut self) {
        // The disk is the same.
        *self = Self {
            space: self.space,
            ..Self::default()
        };
    }

    pub(super) fn ping(&mut self, now: Timestamp) {
        self.asking = true;
        self.asked = Some(now);
        self.silent_since = self.silent_since.or(Some(now));
    }

    pub(super) fn answered(&mut self, alive: bool, now: Timestamp) {
        self.asking = false;
        if alive {
            self.lives(now);
        }
    }

    /// Something came back. What is still asked is waited for from now on.
    fn lives(&mut self, now: Timestamp) {
        self.silent_since = self.asking.then_some(now);
    }

    pub(super) fn check(&mut self, now: Timestamp) {
        self.pending = Some(now);
        self.checked = Some(now);
    }

    pub(super) fn checked(&mut self, committed: Result<(), String>, now: Timestamp) {
        let begun = self.pending.take();
        match committed {
            Ok(()) => {
                self.lives(now);
                self.proved = begun;
                self.failing = None;
                self.own += 1;
            }
            Err(problem) => {
                let since = self.failing.take().map_or(now, |(since, _)| since);
                self.failing = Some((since, problem));
            }
        }
    }

    /// Takes in a look that was begun then, and the one before it.
    pub(super) fn looked(
        &mut self,
        before: Option<&Observation>,
        seen: &Observation,
        begun: Timestamp,
        now: Timestamp,
    ) {
        self.lives(now);
        self.seen = Some(begun);
        let waits = seen.waiting_sessions > 0;
        self.unwaited_since = match self.unwaited_since {
            _ if waits => None,
            known => known.or(Some(begun)),
        };
        let own = std::mem::take(&mut self.own);
        self.others_commit = !waits
            && before.is_some_and(|before| {
                count(&seen.executed).saturating_sub(count(&before.executed)) > own
            });
        let is_new = |before: &Observation| {
            before.received != seen.received || before.executed != seen.executed
        };
        if before.is_none_or(is_new) {
            self.received = Some(now);
        }
    }

    /// Whether a commit of our own is under way.
    pub(super) fn is_committing(&self) -> bool {
        self.pending.is_some()
    }

    /// The server is no master any more, and commits nothing.
    pub(super) fn is_no_master(&mut self) {
        self.pending = None;
        self.failing = None;
    }

    pub(super) fn overslept(&mut self, now: Timestamp) {
        self.counts_from = Some(now);
    }

    /// The time, but not before what was slept through.
    fn counted(&self, since: Timestamp) -> Timestamp {
        self.counts_from.map_or(since, |from| from.max(since))
    }
}

/// How many transactions a position has, or on MariaDB a number that grows with them.
fn count(position: &Position) -> u64 {
    match position {
        Position::Mysql(set) => set.len(),
        Position::Mariadb(list) => list.sum(),
    }
}

// === what follows ===

/// What hinders the server now.
pub(super) fn trouble(state: &State, now: Timestamp) -> Option<Trouble> {
    let Process::Up { killed, .. } = state.process else {
        return state.trouble;
    };
    if killed {
        return state.trouble;
    }
    if hangs_at(state).is_some_and(|at| at <= now) {
        return Some(Trouble::Hung);
    }
    if lease::ends(state).is_some_and(|at| at <= now) {
        return Some(Trouble::Lapsed);
    }
    if state.health.space.is_some_and(|space| space < FULL) {
        return Some(Trouble::Full);
    }
    if stalls_at(state).is_some_and(|at| at <= now) {
        return Some(Trouble::Stalled);
    }
    if is_stuck_at(state).is_some_and(|at| at <= now) {
        return Some(Trouble::Stuck);
    }
    let waits = state.mastership().is_some() && state.look.stuck >= WAITING_IS_TOLD_AFTER;
    waits.then_some(Trouble::Unacknowledged)
}

/// The same, if the server must be killed for it now.
pub(super) fn deadly(state: &State, now: Timestamp) -> Option<Trouble> {
    let others = state.goal.as_ref().is_some_and(|goal| {
        let mut voters = goal.voters.members.keys();
        voters.any(|member| *member != state.task.member)
    });
    trouble(state, now).filter(|trouble| match trouble {
        Trouble::Hung | Trouble::Lapsed => true,
        // A server that is alone is started again on the same disk: that helps nobody.
        Trouble::Stalled => others,
        // With `k = 0` what was acknowledged last may be here only, and a server that starts on a full disk
        // may not start at all, until its task ends and takes the data along. It waits for space instead.
        Trouble::Full => {
            let held_up = stalls_at(state).is_some_and(|at| at <= now);
            held_up && others && acknowledgements(state) > 0
        }
        Trouble::Unacknowledged | Trouble::Stuck => false,
    })
}

/// What hinders the server, as a sentence.
pub(super) fn problem(state: &State, now: Timestamp) -> Option<String> {
    match state.trouble {
        // As it was told when the server was killed.
        Some(_) => state.problem.clone(),
        None => trouble(state, now).map(|trouble| sentence(state, trouble)),
    }
}

/// What the report says of it. Nothing in it changes from one look to the next, or the report would be written anew
/// each time.
pub(super) fn sentence(state: &State, trouble: Trouble) -> String {
    let timings = &state.task.timings;
    match trouble {
        Trouble::Hung => format!(
            "the server gave no sign of life for {:?} and is killed",
            timings.hang_timeout
        ),
        Trouble::Lapsed => format!(
            "the master was out of touch with ZooKeeper for longer than its lease of {:?}, without proof that it is still the master{}; it is killed",
            timings.master_lease,
            lease::denial(state)
        ),
        Trouble::Full => {
            "the disk of the data directory has no space left; commits wait for it or fail"
                .to_owned()
        }
        Trouble::Stalled => format!(
            "no commit reached the disk for {:?}, though nobody waits for an acknowledgement",
            timings.commit_timeout
        ),
        Trouble::Stuck => format!(
            "no commit got the acknowledgement of other voters for {:?}; another member should be master",
            timings.commit_timeout * PATIENCE
        ),
        Trouble::Unacknowledged => format!(
            "no commit gets the acknowledgement of other voters, of which {} are connected",
            state.look.seen.as_ref().map_or(0, |seen| seen.clients)
        ),
    }
}

/// What commits of our own fail with, if they do so repeatedly: one may fail for a lock that a client holds.
pub(super) fn failing(state: &State) -> Option<String> {
    let (since, problem) = state.health.failing.as_ref()?;
    let lasts = state.health.checked?.since(*since) >= state.task.timings.check_interval;
    lasts.then(|| format!("the master cannot commit: {problem}"))
}

/// When the server counts as hung, if nothing comes back until then.
fn hangs_at(state: &State) -> Option<Timestamp> {
    let since = state.health.silent_since?;
    Some(
        state
            .health
            .counted(since)
            .plus(state.task.timings.hang_timeout),
    )
}

/// Since when a commit is held up.
fn held_up_since(state: &State) -> Option<Timestamp> {
    let lane = state.lane.as_ref();
    let marking = lane
        .filter(|lane| matches!(lane.step, Step::Mark { .. }))
        .map(|lane| lane.since);
    let failing = state.health.failing.as_ref().map(|(since, _)| *since);
    let full = state.health.space.is_some_and(|space| space < FULL);
    [state.health.pending, marking, failing.filter(|_| full)]
        .into_iter()
        .flatten()
        .min()
        .map(|since| state.health.counted(since))
}

/// When the disk counts as stalled, if commits do not come through until then.
fn stalls_at(state: &State) -> Option<Timestamp> {
    let since = held_up_since(state)?;
    let timeout = state.task.timings.commit_timeout;
    if acknowledgements(state) == 0 {
        return Some(since.plus(timeout));
    }
    match state.health.unwaited_since {
        // An acknowledgement may come just before the look: it has its time from then on.
        Some(unwaited) => Some(since.max(state.health.counted(unwaited)).plus(timeout)),
        // Commits wait for acknowledgements, as far as is known.
        None => {
            let known = state.health.seen.map_or(since, |seen| seen.max(since));
            Some(state.health.counted(known).plus(timeout * PATIENCE))
        }
    }
}

/// When another master is asked for, if no acknowledgement comes until then.
fn is_stuck_at(state: &State) -> Option<Timestamp> {
    let waits = state
        .look
        .seen
        .as_ref()
        .is_some_and(|seen| seen.waiting_sessions > 0);
    // While a new master waits for its marker's acknowledgement, the others are on their way to it.
    let since = held_up_since(state).filter(|_| waits && matches!(state.role, Role::Master(_)))?;
    Some(since.plus(state.task.timings.commit_timeout * PATIENCE))
}

/// Whether a voter has received nothing for longer than a master in its place goes without a commit, though it is
/// connected: then its connection, or the acknowledgements on it, are lost without a trace.
pub(super) fn hears_nothing(state: &State) -> bool {
    let receives = state.look.seen.as_ref().is_some_and(|seen| {
        let replication = seen.replication.as_ref();
        replication.is_some_and(|replication| replication.receiving)
    });
    let (Some(received), Some(seen)) = (state.health.received, state.health.seen) else {
        return false;
    };
    let timings = &state.task.timings;
    receives && seen.since(received) >= timings.commit_timeout + timings.check_interval * 2
}

/// Whether the master did not have what this member has when it was asked to send what comes after that, a while ago.
///
/// One that was just elected has what it had received in its relay log, and this member may be done sooner with
/// applying the same. A MariaDB master looks for the place in its binlog; without it the connection ends with
/// `ER_MASTER_FATAL_ERROR_READING_BINLOG`, and the slave does not ask again by itself. Nothing was received meanwhile.
pub(super) fn asked_too_early(state: &State) -> bool {
    const NOT_THERE: &str = "not in the master's binlog";
    let refused = state.look.seen.as_ref().is_some_and(|seen| {
        let stopped = seen.replication.as_ref().filter(|it| !it.receiving);
        let error = stopped.and_then(|it| it.receiver_error.as_ref());
        error.is_some_and(|error| error.contains(NOT_THERE))
    });
    let (Some(asked), Some(seen)) = (state.health.received, state.health.seen) else {
        return false;
    };
    refused && seen.since(asked) >= state.task.timings.check_interval
}

// === what to do ===

/// Asks for a sign of life, commits, and looks again when something will be certain.
pub(super) fn watch(state: &State, process: ProcessId, now: Timestamp, plan: &mut Plan) {
    let every = state.task.timings.check_interval;
    if !state.health.asking && is_due(state.health.asked, every, now, plan) {
        plan.actions.push(Action::Ping { process });
    }
    if commits_itself(state) && is_due(state.health.checked, every, now, plan) {
        plan.actions.push(Action::Check { process });
    }
    for at in [hangs_at(state), stalls_at(state), is_stuck_at(state)] {
        if let Some(at) = at.filter(|at| now < *at) {
            plan.wake(at);
        }
    }
}

/// Whether it takes a commit of our own to see that commits come through.
fn commits_itself(state: &State) -> bool {
    let is_master = matches!(state.role, Role::Master(_));
    // What clients commit may have been begun before the touch was lost.
    let proves = state.health.others_commit && state.lease.is_in_touch();
    is_master && state.health.pending.is_none() && !proves && !handover::is_quiet(state)
}

/// Looks at the server from time to time.
pub(super) fn look(state: &State, process: ProcessId, now: Timestamp, plan: &mut Plan) {
    let in_its_place = match state.role {
        Role::Master(_) => state.look.stuck == 0,
        Role::Following { .. } => state.serving.is_some_and(|serving| serving.ready),
        Role::Prepared(_) | Role::Marked(_) => false,
        // Nothing is expected of it.
        Role::Closed
        | Role::Held(_)
        | Role::Applied(_)
        | Role::Refused(_)
        | Role::Spoilt(_)
        | Role::Quarantined(_) => return,
    };
    if state.look.begun.is_some() {
        return;
    }
    let every = if in_its_place {
        state.task.timings.check_interval
    } else {
        LOOK_OFTEN
    };
    match state.look.last.map(|last| last.plus(every)) {
        Some(due) if now < due => plan.wake(due),
        _ => plan.actions.push(Action::Observe { process }),
    }
}

/// Releases commits that wait though enough replicas are there to acknowledge them.
///
/// An acknowledgement can get lost with a connection: the replica has the transaction, asks for the next one when
/// it is back, and has no reason to acknowledge anything (MySQL bugs 104015 and 101056). The acknowledgement of a
/// later commit counts for all before it; where there is no other client, that commit has to come from here.
pub(super) fn release(state: &State, process: ProcessId, now: Timestamp, plan: &mut Plan) {
    let Some(seen) = &state.look.seen else { return };
    let could_go_on = seen.clients >= acknowledgements(state) && state.mastership().is_some();
    let may_commit = !state.look.proving && !handover::is_quiet(state);
    if state.look.stuck < PROVE_AFTER || !may_commit || !could_go_on {
        return;
    }
    match state.look.proved_at.map(|last| last.plus(PROVE_EVERY)) {
        Some(due) if now < due => plan.wake(due),
        _ => plan.actions.push(Action::Prove { process }),
    }
}

/// Whether the epoch's marker is in the binlog and is not acknowledged.
pub(super) fn marker_waits(state: &State) -> bool {
    let lane = state.lane.as_ref();
    lane.is_some_and(|lane| matches!(lane.step, Step::Mark { .. }))
        && state.look.stuck >= PROVE_AFTER
}

/// Whether something that is done every so often is due; else the plan is made again when it is.
pub(super) fn is_due(
    last: Option<Timestamp>,
    every: Duration,
    now: Timestamp,
    plan: &mut Plan,
) -> bool {
    let Some(due) = last.map(|last| last.plus(every)).filter(|due| now < *due) else {
        return true;
    };
    plan.wake(due);
    false
}
