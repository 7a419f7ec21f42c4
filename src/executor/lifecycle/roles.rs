//! What the two kinds of members do in an epoch that has a master: the elected one becomes it, the others follow. Pure.

use std::time::Duration;

use super::{
    Plan, Role, State, applier_error, handover, health, lease,
    plan::{extras, lacks_history},
    rebuild,
    terms::terms,
};
use crate::{
    cluster::{
        control::{Goal, MasterGoal},
        gtid::Position,
    },
    executor::action::Step,
    rules::Rule,
    time::Timestamp,
};

/// How long the winner of an election may take to apply what it has received. Then another epoch is
/// tried, in which a member with less left to apply may win.
const MASTER_APPLIES_WITHIN: Duration = Duration::from_secs(60);

/// How long a member that follows may take to apply what it has received before it says so and goes on.
const MEMBER_APPLIES_WITHIN: Duration = Duration::from_secs(600);

/// The elected member becomes master.
pub(super) fn lead(state: &State, goal: &Goal, now: Timestamp, plan: &mut Plan) {
    let epoch = goal.epoch;
    match state.role {
        Role::Held(_) if lacks_history(state) => {
            plan.wait("it does not hold the history that it was elected for");
        }
        Role::Held(_) => {
            let within = MASTER_APPLIES_WITHIN;
            plan.begin(
                state,
                Step::Apply { epoch, within },
                "it is elected and applies what it holds",
            );
        }
        Role::Applied(_) => {
            let step = Step::Prepare {
                epoch,
                terms: terms(state, goal),
            };
            plan.begin(state, step, "it is elected and holds all of the history");
        }
        Role::Prepared(_) if state.rules.holds(Rule::MarkerBeforeOpening) => {
            plan.begin(
                state,
                Step::Mark { epoch },
                "the epoch begins with its marker",
            );
        }
        Role::Prepared(_) | Role::Marked(_) => {
            if let Err(reason) = lease::may_open(state, now) {
                return plan.wait(&reason);
            }
            let open = Step::Open {
                epoch,
                user: goal.user.clone(),
            };
            plan.begin(state, open, "the epoch's marker is acknowledged");
        }
        Role::Master(_) => handover::hand_over(state, goal, now, plan),
        Role::Refused(_) => plan.wait("it could not become master; another epoch is needed"),
        Role::Closed | Role::Spoilt(_) | Role::Following { .. } | Role::Quarantined(_) => {
            plan.wait("it cannot become master from where it is");
        }
    }
}

/// Another member is elected.
pub(super) fn follow(state: &State, goal: &Goal, master: &MasterGoal, plan: &mut Plan) {
    let epoch = goal.epoch;
    match state.role {
        // Before anything more is applied, and before it is pointed at the master.
        Role::Held(_)
            if extras(state).is_some() && state.rules.holds(Rule::ComparedBeforeFollowing) =>
        {
            let halt = Step::Halt {
                epoch,
                refuse_clients: true,
            };
            plan.begin(state, halt, "its data is not part of the cluster's history");
        }
        Role::Held(_) if state.rules.holds(Rule::AppliedBeforeFollowing) => {
            let within = MEMBER_APPLIES_WITHIN;
            plan.begin(
                state,
                Step::Apply { epoch, within },
                "it applies what it holds",
            );
        }
        Role::Held(_) | Role::Applied(_) if is_about_to_vote(state, goal) => {
            plan.wait("its data is about to be stored as that of a voter");
        }
        Role::Held(_) | Role::Applied(_) => {
            let step = Step::Follow {
                epoch,
                host: master.host.clone(),
                port: master.port,
                history: master.history.clone(),
                acknowledge: may_acknowledge(state, goal),
            };
            plan.begin(state, step, "another member is master");
        }
        Role::Following { acknowledge, .. } => {
            keep_following(state, goal, master, acknowledge, plan)
        }
        Role::Quarantined(_) => plan.wait("its data stays until the master accepts writes"),
        Role::Closed
        | Role::Prepared(_)
        | Role::Marked(_)
        | Role::Master(_)
        | Role::Refused(_)
        | Role::Spoilt(_) => plan.wait("it cannot follow from where it is"),
    }
}

fn keep_following(
    state: &State,
    goal: &Goal,
    master: &MasterGoal,
    acknowledge: bool,
    plan: &mut Plan,
) {
    let epoch = goal.epoch;
    if let Some((step, why)) = ends_following(state, goal, master, acknowledge) {
        return plan.begin(state, step, why);
    }
    if !state
        .serving
        .is_some_and(|serving| serving.epoch == epoch && serving.admitted)
    {
        let marker = marker(goal, master);
        return plan.begin(
            state,
            Step::Admit { epoch, marker },
            "it is ready when it has the marker",
        );
    }
    plan.wait("it follows the master");
}

/// What must be done with a member that follows instead of letting it go on, and why. It is looked at while the member waits
/// for the epoch's marker as well, which may never come as things are.
pub(super) fn ends_following(
    state: &State,
    goal: &Goal,
    master: &MasterGoal,
    acknowledge: bool,
) -> Option<(Step, &'static str)> {
    let epoch = goal.epoch;
    if state.look.seen.as_ref().and_then(applier_error).is_some() {
        // A receiver goes on acknowledging what will not be applied.
        let halt = Step::Halt {
            epoch,
            refuse_clients: false,
        };
        return Some((halt, "the applier stopped with an error"));
    }
    let why = if acknowledge && master.opened && health::hears_nothing(state) {
        "nothing is received, and it connects anew"
    } else if health::asked_too_early(state) {
        "the master may have by now what it did not have"
    } else if rebuild::replay_is_refused(state) {
        "the master's binlogs do not go back far enough"
    } else if acknowledge != may_acknowledge(state, goal) {
        "whether it acknowledges is settled when it starts to receive"
    } else {
        return None;
    };
    Some((Step::Hold { epoch }, why))
}

/// Whether the member votes and the scheduler has only to store its data.
///
/// Following before that would receive transactions without acknowledging them, the epoch's marker perhaps, for
/// whose acknowledgement the master waits; and they are not received a second time.
fn is_about_to_vote(state: &State, goal: &Goal) -> bool {
    goal.acknowledgements() > 0 && goal.voters.members.get(&state.task.member) == Some(&None)
}

pub(super) fn may_acknowledge(state: &State, goal: &Goal) -> bool {
    state
        .data_in_use()
        .is_some_and(|data| goal.may_acknowledge(state.task.member, data))
        || goal.acknowledgements() > 0 && !state.rules.holds(Rule::OnlyVotersAcknowledge)
}

fn marker(goal: &Goal, master: &MasterGoal) -> Position {
    let server = master.data.server_id(master.member);
    Position::marker(master.history.flavour(), goal.uuid, goal.epoch, server)
}
