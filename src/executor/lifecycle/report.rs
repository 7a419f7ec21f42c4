//! What the executor says of its instance. Pure.

use super::{
    Data, Process, Role, State, applier_error, archive,
    aside::set_aside,
    backup, handover, health, held, lease,
    plan::{extras, lacks_history},
    rebuild::wants_donor,
};
use crate::{
    cluster::{
        control::{self, MemberState, Report},
        id::Epoch,
        voters::Terms,
    },
    time::Timestamp,
};

/// The report that follows from the facts. The promise in it is the stored one.
pub fn report(state: &State, now: Timestamp) -> Report {
    Report {
        format: control::FORMAT,
        uuid: state.task.uuid,
        member: state.task.member,
        task_id: state.task.task_id.clone(),
        server: state.server.clone(),
        data: state.data_in_use(),
        process: state.running(),
        promised: state.promised.epoch,
        state: member_state(state, now),
        held: state.held.clone(),
        canary: state.canary.executed,
        terms: terms(state),
        voters_seen: state.goal.as_ref().map_or(0, |goal| goal.voters.version),
        acknowledges: state.acknowledges,
        problem: problem(state, now),
        trouble: health::trouble(state, now),
        wants_donor: wants_donor(state, now),
        set_aside: set_aside(state),
        stream_port: state.stream_port,
        lag_seconds: state.lag.told(),
        handover: handover::answer(state),
        backup: backup::told(state),
        archive: archive::told(state),
        held_back: held::is_held(state, now),
    }
}

/// The terms in force, as the master of the promised epoch.
fn terms(state: &State) -> Option<Terms> {
    match state.role {
        Role::Prepared(epoch) | Role::Marked(epoch) | Role::Master(epoch)
            if epoch == state.promised.epoch =>
        {
            state.terms.terms.clone()
        }
        _ => None,
    }
}

fn member_state(state: &State, now: Timestamp) -> MemberState {
    if state.ending.is_some() && !held::is_held(state, now) || state.is_deleted() {
        return MemberState::Stopping;
    }
    if matches!(state.process, Process::Down { .. }) || !matches!(state.data, Data::InUse(_)) {
        // Once it ran, its end is news; before, it is being made.
        return if state.told.running {
            MemberState::Dead
        } else {
            MemberState::Provisioning
        };
    }
    if let (Process::Up { killed: true, .. }, Some(_), Some(epoch)) =
        (&state.process, state.trouble, state.mastership())
    {
        // Its end may take a while, on a disk that hangs, and it is not the master to wait for.
        return MemberState::Refused { epoch };
    }
    let becoming = |epoch: Epoch| MemberState::Master {
        epoch,
        writable: false,
    };
    match state.role {
        Role::Held(epoch) if lacks_history(state) => MemberState::Refused { epoch },
        Role::Closed | Role::Held(_) | Role::Applied(_) => match state.serving {
            // A slave goes on serving readers while its next master is found.
            Some(serving) => MemberState::Following {
                epoch: serving.epoch,
                ready: serving.ready,
            },
            None => match state.mastership() {
                Some(epoch) => becoming(epoch),
                None => MemberState::Closed,
            },
        },
        Role::Prepared(epoch) | Role::Marked(epoch) => becoming(epoch),
        Role::Master(epoch) => MemberState::Master {
            epoch,
            writable: handover::is_open(state),
        },
        Role::Refused(epoch) | Role::Spoilt(epoch) => MemberState::Refused { epoch },
        Role::Following { epoch, .. } => MemberState::Following {
            epoch,
            ready: state
                .serving
                .is_some_and(|serving| serving.epoch == epoch && serving.ready),
        },
        Role::Quarantined(_) => MemberState::Quarantined,
    }
}

/// The most important of the problems, as a sentence.
fn problem(state: &State, now: Timestamp) -> Option<String> {
    let promise = state.promised.problem.clone();
    promise
        .or_else(|| history_problem(state))
        .or_else(|| health::problem(state, now))
        .or_else(|| state.problem.clone())
        .or_else(|| state.terms.problem.clone())
        .or_else(|| state.look.problem.clone())
        .or_else(|| seen_problem(state))
        .or_else(|| health::failing(state))
        .or_else(|| lease::problem(state))
}

/// What is wrong with what the member holds.
fn history_problem(state: &State) -> Option<String> {
    if lacks_history(state) {
        return Some("it does not hold the history that it was elected for".to_owned());
    }
    if !matches!(state.role, Role::Quarantined(_)) {
        return None;
    }
    let extras = extras(state)?;
    Some(format!(
        "its data holds transactions that are not in the cluster's history: {extras}; it is set aside and made anew once the master accepts writes"
    ))
}

/// What was seen of the running server and hinders it.
fn seen_problem(state: &State) -> Option<String> {
    let seen = state.look.seen.as_ref()?;
    match state.role {
        Role::Following { .. } => {
            let receiver = seen.replication.as_ref().and_then(|replication| {
                let error = replication
                    .receiver_error
                    .as_ref()
                    .filter(|_| !replication.receiving)?;
                Some(format!("it cannot receive from the master: {error}"))
            });
            applier_error(seen).or(receiver)
        }
        _ => None,
    }
}
