//! How long a master goes on that is out of touch with ZooKeeper, where its successor may have been elected. Pure.
//!
//! It goes on as long as it has proof, begun since the touch was lost and not older than the lease, that no
//! other epoch was promised by those without whom nobody can be elected:
//!
//! * alone among the voters: for ever;
//! * `k > 0`: a commit of its own was acknowledged by `k`. A voter that has promised a higher epoch has
//!   stopped receiving before it reports, so there were not enough reports yet;
//! * `k = 0`: *every* other voter says that it still receives from this master, for the same reason. Any one
//!   of them is enough to be elected.
//!
//! Else it is killed. So a read from a replaced master is old by a lease and a check interval at the most, and with
//! `k = 0` a write to it is lost no longer than that. A watchdog process beside the server sees to the same where the
//! executor does not run: it is fed whenever there is new proof.

use std::time::Duration;

use super::{Role, State, health::is_due, plan::Plan, terms::acknowledgements};
use crate::{
    cluster::{
        control::Address,
        id::{MemberId, ProcessId},
    },
    executor::action::Action,
    rules::Rule,
    time::Timestamp,
};

/// The wait before a watchdog that could not be started is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What is known of the touch, and of the proof without it.
#[derive(Debug, Clone, Default)]
pub(super) struct Lease {
    /// Since when the executor is out of touch with ZooKeeper. It begins in touch: a goal was read.
    away_since: Option<Timestamp>,
    /// How many acknowledgements the running server waits for, once it was made ready for being master.
    pub(super) waits_for: Option<u32>,
    /// When the question to the voters that is under way was begun.
    asking: Option<Timestamp>,
    /// When the last one was begun.
    asked: Option<Timestamp>,
    /// When the last one was begun that all answered with yes.
    confirmed: Option<Timestamp>,
    /// Why the last one was not.
    denied: Option<String>,
    pub(super) guard: Guard,
}

/// The watchdog.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Guard {
    /// There is none.
    #[default]
    None,
    /// It is being started.
    Starting,
    /// It runs.
    Fed {
        /// When it was fed last.
        at: Timestamp,
    },
    /// It could not be started.
    Failed {
        /// When that is tried again.
        retry_at: Timestamp,
        /// Why.
        problem: String,
    },
}

// === facts ===

impl Lease {
    pub(super) fn contact(&mut self, in_touch: bool, now: Timestamp) {
        self.away_since = match (in_touch, self.away_since) {
            (true, _) => None,
            (false, known) => known.or(Some(now)),
        };
    }

    pub(super) fn is_in_touch(&self) -> bool {
        self.away_since.is_none()
    }

    pub(super) fn forget_process(&mut self) {
        *self = Self {
            away_since: self.away_since,
            ..Self::default()
        };
    }

    pub(super) fn ask(&mut self, now: Timestamp) {
        self.asking = Some(now);
        self.asked = Some(now);
    }

    pub(super) fn answered(&mut self, all_receive: Result<(), String>) {
        let begun = self.asking.take();
        match all_receive {
            Ok(()) => {
                self.confirmed = begun;
                self.denied = None;
            }
            Err(problem) => self.denied = Some(problem),
        }
    }

    pub(super) fn guarded(&mut self, started: Result<(), String>, now: Timestamp) {
        self.guard = match started {
            Ok(()) => Guard::Fed { at: now },
            Err(problem) => Guard::Failed {
                retry_at: now.plus(RETRY),
                problem,
            },
        };
    }

    pub(super) fn feed(&mut self, now: Timestamp) {
        self.guard = Guard::Fed { at: now };
    }
}

// === what follows ===

/// What proves that a master is not replaced.
#[derive(Debug, PartialEq, Eq)]
enum Proof {
    /// Nobody else could replace it.
    Alone,
    /// Acknowledged commits.
    Acknowledged,
    /// The word of all other voters.
    Answers,
}

fn proof(state: &State) -> Proof {
    // Until it is made ready, it is going to wait for as many as the goal says.
    let waits_for = state.lease.waits_for.unwrap_or(acknowledgements(state));
    if waits_for > 0 {
        Proof::Acknowledged
    } else if others(state).is_empty() {
        Proof::Alone
    } else {
        Proof::Answers
    }
}

/// The other voters, and where they are.
fn others(state: &State) -> Vec<(MemberId, Option<Address>)> {
    let Some(goal) = &state.goal else {
        return Vec::new();
    };
    let voters = goal.voters.members.keys();
    voters
        .filter(|member| **member != state.task.member)
        .map(|member| (*member, goal.addresses.get(member).cloned()))
        .collect()
}

/// When it was last certain that this master is not replaced; `None`: it is certain now.
fn proved_at(state: &State) -> Option<Timestamp> {
    let away_since = state.lease.away_since?;
    let proved = match proof(state) {
        Proof::Alone => return None,
        Proof::Acknowledged => state.health.proved,
        Proof::Answers => state.lease.confirmed,
    };
    // The session's client sees after 2/5 of its timeout that a connection is dead.
    let unnoticed = Duration::from_millis(state.task.session_timeout_ms * 2 / 5);
    let touched = away_since.minus(unnoticed);
    Some(
        proved
            .filter(|proved| *proved >= away_since)
            .unwrap_or(touched),
    )
}

/// When the master must be killed, if no further proof comes; `None`: never, as things are.
pub(super) fn ends(state: &State) -> Option<Timestamp> {
    let leads = matches!(state.role, Role::Master(_));
    (leads && state.rules.holds(Rule::LeaseEnds)).then_some(())?;
    Some(proved_at(state)?.plus(state.task.timings.master_lease))
}

/// Whether a master whose marker is acknowledged may open for clients.
pub(super) fn may_open(state: &State, now: Timestamp) -> Result<(), String> {
    let lease = state.task.timings.master_lease;
    if proved_at(state).is_some_and(|at| at.plus(lease) <= now) {
        return Err("it is out of touch with ZooKeeper, and may have been replaced".to_owned());
    }
    match &state.lease.guard {
        _ if proof(state) != Proof::Answers || !state.rules.holds(Rule::WatchdogGuards) => Ok(()),
        Guard::Fed { .. } => Ok(()),
        Guard::None | Guard::Starting => Err("its watchdog is being started".to_owned()),
        Guard::Failed { problem, .. } => Err(format!("its watchdog cannot be started: {problem}")),
    }
}

/// Why the other voters are no proof, as a part of a sentence.
pub(super) fn denial(state: &State) -> String {
    let denied = state.lease.denied.as_ref();
    denied.map_or_else(String::new, |why| format!(" ({why})"))
}

/// What is wrong with the watchdog.
pub(super) fn problem(state: &State) -> Option<String> {
    match &state.lease.guard {
        Guard::Failed { problem, .. } => Some(format!("the watchdog cannot be started: {problem}")),
        Guard::None | Guard::Starting | Guard::Fed { .. } => None,
    }
}

// === what to do ===

/// Gets proof where it is needed, and keeps the watchdog.
pub(super) fn keep(state: &State, process: ProcessId, now: Timestamp, plan: &mut Plan) {
    if state.my_mastership(state.promised.epoch).is_none() {
        return;
    }
    let proof = proof(state);
    let timings = &state.task.timings;
    let leads = matches!(state.role, Role::Marked(_) | Role::Master(_));
    if leads
        && proof == Proof::Answers
        && !state.lease.is_in_touch()
        && state.lease.asking.is_none()
        && is_due(state.lease.asked, timings.check_interval, now, plan)
    {
        ask(state, process, plan);
    }
    if let Some(at) = ends(state).filter(|at| now < *at) {
        plan.wake(at);
    }
    feed(state, process, now, plan);
    let patience = timings.master_lease + timings.check_interval;
    match &state.lease.guard {
        Guard::None if proof == Proof::Answers && state.rules.holds(Rule::WatchdogGuards) => {
            plan.actions.push(Action::Guard { process, patience });
        }
        Guard::Failed { retry_at, .. } if *retry_at <= now => {
            plan.actions.push(Action::Guard { process, patience });
        }
        Guard::Failed { retry_at, .. } => plan.wake(*retry_at),
        Guard::None | Guard::Starting | Guard::Fed { .. } => {}
    }
}

/// Feeds the watchdog if there is new proof since the last time: food stands for proof. Also while the server is
/// stopped, which takes a while.
pub(super) fn feed(state: &State, process: ProcessId, now: Timestamp, plan: &mut Plan) {
    let Guard::Fed { at } = state.lease.guard else {
        return;
    };
    let is_new = proved_at(state).is_none_or(|proved| proved > at);
    if is_new && is_due(Some(at), state.task.timings.check_interval, now, plan) {
        plan.actions.push(Action::Feed { process });
    }
}

fn ask(state: &State, process: ProcessId, plan: &mut Plan) {
    let epoch = state.promised.epoch;
    let Some(master) = state.my_mastership(epoch) else {
        return;
    };
    let master = Address {
        host: master.host.clone(),
        port: master.port,
    };
    plan.actions.push(Action::AskVoters {
        process,
        master,
        voters: others(state),
    });
}
