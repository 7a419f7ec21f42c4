//! What the running master does about acknowledgements. Pure.

use super::{Plan, Role, State, handover};
use crate::{
    cluster::{control::Goal, id::ProcessId, voters::Terms},
    executor::action::Action,
    rules::Rule,
    time::Timestamp,
};

/// How many acknowledgements commits wait for, or may still wait for.
pub(super) fn acknowledgements(state: &State) -> u32 {
    let wanted = state.goal.as_ref().map_or(0, Goal::acknowledgements);
    let in_force = state.terms.terms.as_ref();
    wanted.max(in_force.map_or(0, |terms| terms.acknowledgements))
}

/// The terms that the goal means.
pub(super) fn terms(state: &State, goal: &Goal) -> Terms {
    let acknowledgements = if state.rules.holds(Rule::MasterWaitsForVoters) {
        goal.acknowledgements()
    } else {
        0
    };
    Terms {
        acknowledgements,
        ..goal.terms.clone()
    }
}

/// Puts the goal's terms in force on a running master. That does not wait for steps: the marker's acknowledgement may
/// be waiting for just this.
pub(super) fn set_terms(state: &State, process: ProcessId, now: Timestamp, plan: &mut Plan) {
    let Some(goal) = state.promised_goal() else {
        return;
    };
    let leads = match state.role {
        Role::Prepared(epoch) | Role::Marked(epoch) | Role::Master(epoch) => {
            state.my_mastership(epoch).is_some()
        }
        Role::Closed
        | Role::Held(_)
        | Role::Applied(_)
        | Role::Refused(_)
        | Role::Spoilt(_)
        | Role::Following { .. }
        | Role::Quarantined(_) => false,
    };
    let wanted = terms(state, goal);
    if !leads
        || state.terms.under_way
        || handover::is_quiet(state)
        || state.terms.terms.as_ref() == Some(&wanted)
    {
        return;
    }
    match state.terms.retry_at {
        Some(at) if now < at => plan.wake(at),
        _ => plan.actions.push(Action::SetTerms {
            process,
            terms: wanted,
        }),
    }
}
