//! Handing the place of master over on request, and taking it back. Pure.
//!
//! ```text
//! asked -> Approach (the target gets what we have; clients write on)
//!       -> settle (no commit of our own is begun, and those that are under way end)
//!       -> Close (read-only; the target gets the rest) -> Closed
//!             |                                             |
//!             | either fails        the time is up, or it is not asked for any more
//!             v                                             v
//!          Reopen <----------------------------------------- +---- a higher epoch is promised ----> Yield -> Held
//! ```
//!
//! Whoever is closed opens again by a deadline of its own clock, scheduler or not, unless it has read of a higher epoch.
//! Whoever has promised one never does. Between reading and promising nothing is done.

use std::time::Duration;

use super::{Plan, Role, State};
use crate::{
    cluster::{
        control::Goal,
        gtid::Position,
        id::Epoch,
        switchover::{APPROACHES_WITHIN, Answer, AnswerState, Closed, Handover},
    },
    executor::action::Step,
    rules::Rule,
    time::Timestamp,
};

/// How long commits of our own may take to end before the master is closed. They take milliseconds.
const SETTLES_WITHIN: Duration = Duration::from_secs(1);

/// The wait before opening again is tried again.
pub(super) const REOPEN_RETRY: Duration = Duration::from_millis(100);

/// What this process does about the last switchover that it was asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Handing {
    /// As master of this epoch.
    epoch: Epoch,
    number: u64,
    stage: Stage,
}

/// How far it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Stage {
    /// It was asked for none.
    #[default]
    None,
    /// The target gets what the master has.
    Approaching,
    /// No commit of our own is begun.
    Settling { since: Timestamp },
    /// It is being closed.
    Closing { until: Timestamp },
    /// It is read-only, and the target has all that it has.
    Closed { until: Timestamp, closed: Closed },
    /// It is being opened, or has to be, or its commits may be held back.
    Reopening { why: String },
    /// It is open and stays so.
    Kept { why: String },
}

// === facts ===

impl Handing {
    /// A step was begun.
    pub(super) fn begun(&mut self, step: &Step, now: Timestamp) {
        match step {
            Step::Approach { epoch, number, .. } => {
                (self.epoch, self.number) = (*epoch, *number);
                self.stage = Stage::Approaching;
            }
            Step::Close { closed_for, .. } => {
                let until = now.plus(*closed_for);
                self.stage = Stage::Closing { until };
            }
            Step::Reopen { why, .. } => self.stage = Stage::Reopening { why: why.clone() },
            _ => {}
        }
    }

    pub(super) fn approached(&mut self, result: Result<(), String>, now: Timestamp) {
        self.stage = match result {
            Ok(()) => Stage::Settling { since: now },
            // Its commits may be held back.
            Err(why) => Stage::Reopening { why },
        };
    }

    pub(super) fn closed(&mut self, result: Result<(Position, Duration), String>) {
        self.stage = match (result, &self.stage) {
            (Ok((position, took)), Stage::Closing { until }) => Stage::Closed {
                until: *until,
                closed: Closed {
                    position,
                    millis: took.as_millis() as u64,
                },
            },
            // It may be read-only or not.
            (Ok(_), _) => Stage::Reopening {
                why: "it was closed when it was not to be".to_owned(),
            },
            (Err(why), _) => Stage::Reopening { why },
        };
    }

    pub(super) fn reopened(&mut self) {
        if let Stage::Reopening { why } = &self.stage {
            self.stage = Stage::Kept { why: why.clone() };
        }
    }
}

// === what follows ===

/// How far the running master is.
fn stage(state: &State) -> &Stage {
    const NONE: &Stage = &Stage::None;
    match state.role {
        Role::Master(epoch) if epoch == state.handing.epoch => &state.handing.stage,
        _ => NONE,
    }
}

/// Whether no commit of our own may be begun: it would come after what the target is to have.
pub(super) fn is_quiet(state: &State) -> bool {
    match stage(state) {
        Stage::None | Stage::Approaching | Stage::Kept { .. } => false,
        Stage::Settling { .. }
        | Stage::Closing { .. }
        | Stage::Closed { .. }
        | Stage::Reopening { .. } => true,
    }
}

/// Whether clients can write on a master, as far as a switchover is concerned.
pub(super) fn is_open(state: &State) -> bool {
    !matches!(stage(state), Stage::Closed { .. })
}

/// Whether a deposed master may stay alive: it is read-only under a switchover. Everything else that was master is killed.
pub(super) fn yields(state: &State, goal: &Goal) -> bool {
    let Role::Master(epoch) = state.role else {
        return false;
    };
    let closed = match stage(state) {
        Stage::Closed { .. } => true,
        Stage::None => false,
        _ => !state.rules.holds(Rule::OnlyClosedYields),
    };
    closed && epoch < goal.epoch
}

/// The step by which a deposed master that was not killed becomes a voter like any other.
pub(super) fn yield_step(state: &State, epoch: Epoch) -> Step {
    let position = match &state.handing.stage {
        Stage::Closed { closed, .. } => Some(closed.position.clone()),
        _ => None,
    };
    Step::Yield { epoch, position }
}

/// What the report says.
pub(super) fn answer(state: &State) -> Option<Answer> {
    let told = match stage(state) {
        Stage::Closed { closed, .. } => AnswerState::Closed(closed.clone()),
        Stage::Kept { why } => AnswerState::Kept { why: why.clone() },
        Stage::None
        | Stage::Approaching
        | Stage::Settling { .. }
        | Stage::Closing { .. }
        | Stage::Reopening { .. } => return None,
    };
    Some(Answer {
        number: state.handing.number,
        state: told,
    })
}

/// Whether a commit of our own is under way, or something else that a read-only server would not do.
fn is_busy(state: &State) -> bool {
    state.health.is_committing()
        || state.canary.under_way
        || state.look.proving
        || state.terms.under_way
}

// === what to do ===

/// What the master does about a switchover. The epoch of `goal` is promised, and it is the master of it; of a higher one
/// nothing was read.
pub(super) fn hand_over(state: &State, goal: &Goal, now: Timestamp, plan: &mut Plan) {
    let asked = goal
        .handover
        .filter(|handover| handover.to != state.task.member);
    let wanted = asked.is_some_and(|handover| handover.number == state.handing.number);
    let reopen = |why: &str| Step::Reopen {
        epoch: goal.epoch,
        why: why.to_owned(),
    };
    match stage(state) {
        Stage::Settling { .. } | Stage::Closed { .. } if !wanted => {
            plan.begin(
                state,
                reopen(WITHDRAWN),
                "no switchover is asked for any more",
            );
        }
        Stage::Settling { since } => settle(state, goal, asked, *since, now, plan),
        Stage::Closed { until, .. } if *until <= now => {
            plan.begin(state, reopen(TOO_SLOW), "the switchover takes too long");
        }
        Stage::Closed { until, .. } => {
            plan.wake(*until);
            plan.wait("it is closed for writes and waits for the next epoch");
        }
        Stage::Reopening { why } => {
            plan.begin(
                state,
                reopen(why),
                "it may be closed for writes, or its commits be held back",
            );
        }
        Stage::None | Stage::Approaching | Stage::Closing { .. } | Stage::Kept { .. } => {
            stay(state, goal, asked, plan);
        }
    }
}

/// Why a master opens again.
const WITHDRAWN: &str = "the switchover was given up by the scheduler";
const TOO_SLOW: &str = "no other member was elected in the time for which a master may be closed";

fn stay(state: &State, goal: &Goal, asked: Option<Handover>, plan: &mut Plan) {
    let known = match stage(state) {
        Stage::None => 0,
        _ => state.handing.number,
    };
    // What is left of opening would meet the steps of a slave, should it become one.
    let target = asked.filter(|handover| handover.number > known && state.tidied);
    let target = target.and_then(|h| Some((h.number, goal.addresses.get(&h.to)?.clone())));
    if let Some((number, target)) = target {
        let approach = Step::Approach {
            epoch: goal.epoch,
            number,
            target,
            within: APPROACHES_WITHIN,
        };
        return plan.begin(state, approach, "a switchover is asked for");
    }
    let seen = state.look.seen.as_ref();
    if let (Stage::Kept { why }, true) = (stage(state), seen.is_some_and(|seen| seen.read_only)) {
        // A statement that was given up has closed it after all.
        let (epoch, why) = (goal.epoch, why.clone());
        let reopen = Step::Reopen { epoch, why };
        return plan.begin(state, reopen, "it is closed for writes and must not be");
    }
    plan.wait("it is the master");
}

fn settle(
    state: &State,
    goal: &Goal,
    asked: Option<Handover>,
    since: Timestamp,
    now: Timestamp,
    plan: &mut Plan,
) {
    let target = asked.and_then(|h| Some((h, goal.addresses.get(&h.to)?.clone())));
    let Some((handover, target)) = target else {
        return;
    };
    let until = since.plus(SETTLES_WITHIN);
    if !is_busy(state) {
        let close = Step::Close {
            epoch: goal.epoch,
            target,
            closed_for: Duration::from_millis(handover.closed_for_ms),
        };
        return plan.begin(state, close, "the target has what the master has");
    }
    if until <= now {
        let reopen = Step::Reopen {
            epoch: goal.epoch,
            why: "commits of its own did not come through".to_owned(),
        };
        return plan.begin(state, reopen, "commits of its own do not end");
    }
    plan.wake(until);
    plan.wait("commits of its own are about to end");
}

/// What a master that has yielded would do if it kept to its own deadline nonetheless: tests break the rule, and see.
pub(super) fn breaks_its_word(state: &State, goal: &Goal, now: Timestamp) -> Option<Step> {
    let Stage::Closed { until, .. } = &state.handing.stage else {
        return None;
    };
    let broken = !state.rules.holds(Rule::ClosedStaysClosed) && *until <= now;
    let yielded = !matches!(state.role, Role::Master(_)) && state.handing.epoch < goal.epoch;
    (broken && yielded).then(|| Step::Reopen {
        epoch: goal.epoch,
        why: TOO_SLOW.to_owned(),
    })
}
