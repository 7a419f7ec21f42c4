//! A master whose task is killed though its cluster has not asked for that. Pure.
//!
//! An agent that is drained (`DRAIN_AGENT`) kills its tasks without a warning. A master goes on for half of the grace period
//! then, says so in its report, and hands over when the scheduler asks for it, as in any
//! [switchover](super::handover). It ends as soon as another member is the open master, at the latest when its time is up; then it is
//! a failure like any other.
//!
//! Who asks for a kill the message does not say. The scheduler itself kills members of deleted clusters, members that have left everything
//! else, tasks of nobody: none of them is the master of the goal with another voter beside it, so none is held up. A master that is
//! restarted by force because nobody can take its place is; that costs half of the grace period.

use super::{Plan, Process, Role, State, Why};
use crate::{
    cluster::control::GoalPhase,
    executor::action::{Action, TaskUpdate},
    time::Timestamp,
};

/// Whether a kill that arrives now leaves time to hand over: this is the open master, another voter could take its place, and
/// the scheduler can be told.
pub(super) fn may_be(state: &State) -> bool {
    let Role::Master(epoch) = state.role else {
        return false;
    };
    let others = state
        .goal
        .as_ref()
        .is_some_and(|goal| goal.epoch == epoch && goal.voters.members.len() > 1);
    others && state.my_mastership(epoch).is_some() && state.lease.is_in_touch()
}

/// Whether it goes on for now. Once this is not so it never is again: the server is being stopped then.
pub(super) fn is_held(state: &State, now: Timestamp) -> bool {
    let Some(ending) = &state.ending else {
        return false;
    };
    let in_time = ending.held_until.is_some_and(|until| now < until);
    let runs = matches!(
        state.process,
        Process::Up {
            terminated: None,
            killed: false,
            ..
        }
    );
    // Until the next master has opened: that may take an acknowledgement of this member.
    let wanted = state.goal.as_ref().is_some_and(|goal| match &goal.phase {
        GoalPhase::Elected(master) => !master.opened || master.member == state.task.member,
        GoalPhase::Electing => true,
        GoalPhase::Unborn | GoalPhase::Deleting => false,
    });
    in_time && runs && wanted && ending.why == Why::Told && state.lease.is_in_touch()
}

/// Says that the task is being killed, and thinks again when its time is up.
pub(super) fn hold(state: &State, plan: &mut Plan) {
    if !state.told.killing {
        plan.actions.push(Action::Update(TaskUpdate::Killing));
    }
    if let Some(until) = state.ending.as_ref().and_then(|it| it.held_until) {
        plan.wake(until);
    }
}
