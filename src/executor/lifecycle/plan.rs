//! What the world must do next. Pure.

use std::time::Duration;

use super::{
    Data, Process, Role, State, TERMINATION, Why, archive, aside, backup, handover, health, held,
    lease,
    rebuild::{self, Next},
    report::report,
    roles::{ends_following, follow, lead},
    terms::{acknowledgements, set_terms, terms},
};
use crate::{
    cluster::{
        control::{Beyond, Goal, GoalPhase},
        gtid::{self, Position},
        id::{Epoch, ProcessId},
    },
    executor::action::{Action, Birth, Step, TaskUpdate},
    rules::Rule,
    time::Timestamp,
};

/// How often a member that lost its data looks for the canary that takes it back into the vote. Until it is found, another
/// failure can stop the cluster; it is one row read by its key.
const READ_CANARY_EVERY: Duration = Duration::from_millis(50);

/// How often any other member that follows looks for it. It tells when a member has received what it had missed, which nothing waits for
/// but a change of the others.
const LOOK_FOR_CANARY_EVERY: Duration = Duration::from_millis(500);

/// What to do, and when to think again though nothing happens.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// What to do now, in this order.
    pub actions: Vec<Action>,
    /// Why no step is begun, or what the one that is begun is for.
    pub reason: String,
    /// When time alone changes something.
    pub wake_at: Option<Timestamp>,
}

/// Decides what the world must do next.
pub fn plan(state: &State, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if state.told.exit {
        "the executor ends".clone_into(&mut plan.reason);
        return plan;
    }
    if !state.told.starting {
        plan.actions.push(Action::Update(TaskUpdate::Starting));
    }
    let held = held::is_held(state, now);
    if held {
        held::hold(state, &mut plan);
    }
    if state.ending.is_some() && !held {
        end(state, now, &mut plan);
    } else {
        keep_promise(state, now, &mut plan);
        live(state, now, &mut plan);
        aside::export(state, now, &mut plan);
        backup::make(state, &mut plan);
        archive::keep(state, &mut plan);
        if !state.told.running && state.running().is_some() && state.data_in_use().is_some() {
            plan.actions.push(Action::Update(TaskUpdate::Running));
        }
    }
    let report = report(state, now);
    if state.reported.as_ref() != Some(&report) {
        plan.actions.push(Action::Report(Box::new(report)));
    }
    plan
}

/// What the member holds beyond the cluster's history, as far as the promised epoch's goal tells.
pub(super) fn extras(state: &State) -> Option<Position> {
    beyond(state).map(|beyond| beyond.extras)
}

/// The same with where the history ends.
pub(super) fn beyond(state: &State) -> Option<Beyond> {
    let held = state.held.as_ref()?;
    let goal = state.promised_goal()?;
    let lineage: Vec<(Epoch, Position)> = goal
        .lineage
        .iter()
        .map(|l| (l.epoch, l.history.clone()))
        .collect();
    let (extras, common) = gtid::beyond(&held.position, &lineage, goal.uuid)?;
    Some(Beyond {
        extras,
        common,
        executed: held.executed.clone(),
    })
}

/// Whether this process was elected for a history that it does not hold.
pub(super) fn lacks_history(state: &State) -> bool {
    let (Role::Held(epoch), Some(held)) = (state.role, &state.held) else {
        return false;
    };
    state
        .my_mastership(epoch)
        .is_some_and(|master| !held.position.contains(&master.history))
}

impl Plan {
    pub(super) fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |known| known.min(at)));
    }

    pub(super) fn wait(&mut self, reason: &str) {
        reason.clone_into(&mut self.reason);
    }

    pub(super) fn begin(&mut self, state: &State, step: Step, reason: &str) {
        self.wait(reason);
        self.actions.push(Action::Begin {
            number: state.next_number,
            step,
        });
    }
}

// === the end ===

/// Stops the server, then says how the task has ended, then ends the executor.
fn end(state: &State, now: Timestamp, plan: &mut Plan) {
    let Some(ending) = &state.ending else { return };
    if ending.why == Why::Told && !state.told.killing {
        plan.actions.push(Action::Update(TaskUpdate::Killing));
    }
    if let Some(lane) = &state.lane {
        // Giving up a start kills what was started.
        plan.actions.push(Action::Abandon {
            number: lane.number,
        });
    }
    if state.running().is_some() {
        return stop(state, Some(ending.kill_at), now, plan);
    }
    if !state.told.ended {
        plan.actions.push(Action::Update(match &ending.why {
            Why::Told => TaskUpdate::Killed,
            Why::Failed(problem) => TaskUpdate::Failed {
                problem: problem.clone(),
            },
        }));
    }
    plan.actions.push(Action::Exit);
    plan.wait("the server has ended, and so does the task");
}

/// Stops the server: TERM, then KILL, by `latest` if that is sooner.
///
/// A master whose commits wait for acknowledgements is killed at once: a graceful end would release the
/// commits that wait just then, as if they were acknowledged, and there is no moment at which it is certain
/// that none waits.
fn stop(state: &State, latest: Option<Timestamp>, now: Timestamp, plan: &mut Plan) {
    let Process::Up {
        id,
        terminated,
        killed,
        ..
    } = state.process
    else {
        return;
    };
    plan.wait("the server is being stopped");
    lease::feed(state, id, now, plan);
    let kill_at = terminated.unwrap_or(now).plus(TERMINATION);
    let kill_at = latest.map_or(kill_at, |latest| latest.min(kill_at));
    if killed {
        return;
    }
    let may_release = state.mastership().is_some() && acknowledgements(state) > 0;
    if now >= kill_at || may_release && state.rules.holds(Rule::MasterIsNotTerminated) {
        plan.actions.push(Action::Kill { process: id });
        return;
    }
    if terminated.is_none() {
        plan.actions.push(Action::Terminate { process: id });
    }
    plan.wake(kill_at);
}

// === the promise ===

/// Stores what was not stored yet: a higher epoch, a new data directory that works.
fn keep_promise(state: &State, now: Timestamp, plan: &mut Plan) {
    if state.promised.writing {
        return;
    }
    let seen = state
        .goal
        .as_ref()
        .map_or(state.promised.epoch, |goal| goal.epoch);
    let epoch = seen.max(state.promised.epoch);
    let data = match state.data {
        Data::New(data) | Data::Restored(data) | Data::Copied { data, .. }
            if state.running().is_some() =>
        {
            Some(data)
        }
        Data::New(_)
        | Data::Restored(_)
        | Data::Copied { .. }
        | Data::None { .. }
        | Data::InUse(_) => state.promised.data,
    };
    if (epoch, data) == (state.promised.epoch, state.promised.data) {
        return;
    }
    match state.promised.retry_at {
        Some(at) if now < at => plan.wake(at),
        _ => plan.actions.push(Action::Promise { epoch, data }),
    }
}

// === life ===

/// Makes the server what the promised goal wants it to be.
fn live(state: &State, now: Timestamp, plan: &mut Plan) {
    let Process::Up { id, killed, .. } = state.process else {
        return raise(state, now, plan);
    };
    if killed {
        return plan.wait("the server was killed; its end is awaited");
    }
    if let Some(reason) = fence(state) {
        plan.wait(reason);
        plan.actions.push(Action::Kill { process: id });
        return;
    }
    if let Some(trouble) = health::deadly(state, now) {
        plan.reason = health::sentence(state, trouble);
        plan.actions.push(Action::Kill { process: id });
        return;
    }
    if state.is_deleted() {
        return stop(state, None, now, plan);
    }
    health::watch(state, id, now, plan);
    lease::keep(state, id, now, plan);
    health::look(state, id, now, plan);
    health::release(state, id, now, plan);
    set_terms(state, id, now, plan);
    canary(state, id, now, plan);
    step(state, now, plan);
}

/// Brings a server up.
fn raise(state: &State, now: Timestamp, plan: &mut Plan) {
    if state.lane.is_some() {
        return plan.wait("the server is being made ready");
    }
    if state.is_deleted() {
        return plan.wait("the cluster is being deleted");
    }
    if state.server.is_none() {
        return plan.begin(state, Step::Install, "the server is installed first");
    }
    match state.data {
        // One that was set aside held something that the cluster has without it.
        Data::None { set_aside: None } if state.task.restore.is_some() => {
            plan.begin(state, Step::Restore, "the cluster is made from a backup");
        }
        Data::None { set_aside } => {
            plan.begin(
                state,
                Step::MakeData {
                    set_aside,
                    beyond: state.beyond_of(set_aside),
                },
                "there is no data directory",
            );
        }
        Data::New(data) | Data::Restored(data) | Data::Copied { data, .. } | Data::InUse(data) => {
            let Process::Down { start_at } = state.process else {
                return;
            };
            if now < start_at {
                plan.wait("the server ended by itself several times; it is started again later");
                return plan.wake(start_at);
            }
            let birth = match state.data {
                Data::New(_) => Birth::Empty,
                Data::Restored(_) => Birth::Restored,
                Data::Copied { instead_of, .. } => Birth::Copied { instead_of },
                Data::InUse(_) | Data::None { .. } => Birth::Past,
            };
            plan.begin(
                state,
                Step::Start { data, birth },
                "the server does not run",
            );
        }
    }
}

/// Why the server must be killed now, if it must.
fn fence(state: &State) -> Option<&'static str> {
    let goal = state.goal.as_ref()?;
    if let Some(epoch) = state.mastership()
        && state.rules.holds(Rule::DeposedIsKilled)
    {
        // The promise comes first; but a master is deposed whether its disk takes a promise or not.
        let yields = goal.epoch == state.promised.epoch && handover::yields(state, goal);
        let may_act = goal.epoch == state.promised.epoch || state.promised.problem.is_some();
        if epoch < goal.epoch && may_act && !yields {
            return Some("another epoch has begun, and this process was master in an earlier one");
        }
    }
    if matches!(state.role, Role::Spoilt(_)) {
        return Some("a step of a master failed, and what it has left is not known");
    }
    if state.is_copied() {
        return Some("its data directory is empty, and a copy of the cluster's data is complete");
    }
    if state.starts_anew(goal) {
        return Some(
            "the master's binlogs do not go back to what it holds, all of which is in the history: it gets a copy",
        );
    }
    if state.quarantine_is_over(goal) {
        return Some("its data is not part of the history, and the cluster has a master");
    }
    None
}

/// Writes the canary that the goal asks for, as master; reads it, as a member that follows: whoever has executed it has received all
/// that came before it. One that has to get all of its data again may vote only then.
///
/// A master whose marker waits for the acknowledgement of just such a member writes it before it opens. It comes after the
/// marker all the same, and after everything that was ever acknowledged; nothing is acknowledged in its epoch yet.
fn canary(state: &State, process: ProcessId, now: Timestamp, plan: &mut Plan) {
    let Some(goal) = state.promised_goal() else {
        return;
    };
    let may_commit = !state.canary.under_way && !handover::is_quiet(state);
    if !may_commit || goal.canary <= state.canary.executed {
        return;
    }
    let again_at = state.canary.last.map(|last| last.plus(READ_CANARY_EVERY));
    let due = again_at.is_none_or(|at| at <= now);
    match state.role {
        Role::Prepared(_) if !health::marker_waits(state) => {}
        Role::Master(epoch) | Role::Prepared(epoch) if epoch == goal.epoch => {
            if state.terms.terms.as_ref() != Some(&terms(state, goal)) {
                // It proves something about the terms that the goal names with it.
            } else if due {
                plan.actions.push(Action::WriteCanary {
                    process,
                    number: goal.canary,
                    opened: matches!(state.role, Role::Master(_)),
                });
            } else if let Some(at) = again_at {
                plan.wake(at);
            }
        }
        Role::Following { .. } => {
            let every = match lost_its_data(state, goal) {
                true => READ_CANARY_EVERY,
                false => LOOK_FOR_CANARY_EVERY,
            };
            match state.canary.last.map(|last| last.plus(every)) {
                Some(at) if at > now => plan.wake(at),
                _ => plan.actions.push(Action::ReadCanary { process }),
            }
        }
        _ => {}
    }
}

fn lost_its_data(state: &State, goal: &Goal) -> bool {
    state
        .data_in_use()
        .is_some_and(|data| !goal.voters.counts(state.task.member, data))
}

/// Chooses the next step.
fn step(state: &State, now: Timestamp, plan: &mut Plan) {
    let Some(goal) = state.promised_goal() else {
        return plan.wait("no goal of the promised epoch is known yet");
    };
    if state.data_in_use().is_none() {
        return plan.wait("the data directory is being promised");
    }
    if let Some(lane) = &state.lane {
        // The server goes on copying unless it is killed; it holds nothing.
        if let (Step::Copy { epoch, .. }, Some(process)) = (&lane.step, state.running())
            && rebuild::is_in_the_way(state, goal, *epoch)
        {
            plan.actions.push(Action::Kill { process });
            return plan.wait("an election may need what it holds, which is nothing");
        }
        // What else is under way ends soon by itself, and only then is it certain what it has done.
        if lane.step.is_a_wait() && is_pointless(state, &lane.step, goal) {
            plan.actions.push(Action::Abandon {
                number: lane.number,
            });
        }
        return plan.wait("a step is under way");
    }
    // What failed waits; a new epoch does not.
    if let Some(retry) = state
        .retry
        .filter(|retry| now < retry.at && retry.epoch == goal.epoch)
    {
        plan.wake(retry.at);
        return plan.wait("a step has failed and is tried again later");
    }
    if handover::yields(state, goal) {
        let step = handover::yield_step(state, goal.epoch);
        return plan.begin(state, step, "it was closed for a switchover, and stays so");
    }
    if let Some(step) = handover::breaks_its_word(state, goal, now) {
        return plan.begin(state, step, "it breaks its word");
    }
    if role_epoch(state) != Some(goal.epoch) {
        let hold = Step::Hold { epoch: goal.epoch };
        return plan.begin(state, hold, "what is held must be read anew in each epoch");
    }
    match &goal.phase {
        GoalPhase::Unborn => plan.wait("the cluster has no master yet"),
        GoalPhase::Electing => plan.wait("a master is being elected"),
        GoalPhase::Deleting => plan.wait("the cluster is being deleted"),
        GoalPhase::Elected(_) if state.my_mastership(goal.epoch).is_some() => {
            lead(state, goal, now, plan)
        }
        GoalPhase::Elected(master) if master.member == state.task.member => {
            plan.wait("the server was started again since it was elected; another epoch is needed");
        }
        GoalPhase::Elected(master) => match rebuild::next(state, goal, master, now) {
            Next::Follow => follow(state, goal, master, plan),
            Next::StartAnew => plan.wait(
                "the master's binlogs do not go back to what it holds, and the master has not opened",
            ),
            Next::AwaitMaster(until) => {
                plan.wait("it holds nothing, and waits for a master to open");
                if let Some(until) = until {
                    plan.wake(until);
                }
            }
            Next::AwaitDonor(until) => {
                plan.wait("it holds nothing, and waits for a donor to be named");
                plan.wake(until);
            }
            Next::AwaitTurn => {
                plan.wait("it holds nothing, and its donor gives its data to another member first");
            }
            Next::Copy(source, reason) => {
                let copy = Step::Copy {
                    epoch: goal.epoch,
                    source,
                    master: (master.host.clone(), master.port),
                    gives_way: state.copies_give_way(),
                };
                plan.begin(state, copy, reason);
            }
        },
    }
}

/// Whether what a step waits for does not matter any more.
fn is_pointless(state: &State, step: &Step, goal: &Goal) -> bool {
    let is_over = step.epoch().is_some_and(|epoch| epoch < goal.epoch);
    // The master may be waiting for just this member's acknowledgements.
    let follows_anew = match (state.role, &goal.phase) {
        (Role::Following { acknowledge, .. }, GoalPhase::Elected(master)) => {
            ends_following(state, goal, master, acknowledge).is_some()
        }
        _ => false,
    };
    is_over || follows_anew
}

/// The epoch in which the running process was given its role; `None` if nothing was done with it yet.
fn role_epoch(state: &State) -> Option<Epoch> {
    match state.role {
        Role::Closed => None,
        Role::Held(epoch)
        | Role::Applied(epoch)
        | Role::Prepared(epoch)
        | Role::Marked(epoch)
        | Role::Master(epoch)
        | Role::Refused(epoch)
        | Role::Spoilt(epoch)
        | Role::Following { epoch, .. }
        | Role::Quarantined(epoch) => Some(epoch),
    }
}
