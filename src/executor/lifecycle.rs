//! The life of one instance, as facts and decisions: no I/O, no clock, no chance.
//!
//! [`State::apply`] folds a fact in and decides nothing. [`plan()`] decides what the world must do next
//! and changes nothing. [`State::begin`] notes that an action was handed over, so that planning again
//! while it is under way yields nothing new.
//!
//! ```text
//! install -> make a data directory -> start, closed -> promise the data -> TASK_RUNNING
//!
//!                       goal of a higher epoch: promise it, then
//!        was master ----------------------------------------> SIGKILL -> start, closed --+
//!        anything else ------------------------------------------------------------------+
//!                                                                                        v
//!                                                          Hold: stop receiving, read what is held
//!                                                                                        |
//!             elected, and it is this very process                  another one is elected
//!                          |                                                 |
//!     Apply -> Prepare -> Mark -> Open -> Master          extras? --yes--> Quarantined -> (opened) new data
//!                                                                 --no---> Apply -> Follow -> Admit -> ready
//! ```
//!
//! What must never be: open for writes without being the elected process of the promised epoch, or
//! before the marker was acknowledged; obeying an epoch below the promise; acting on an epoch or
//! reporting it before the promise is stored; pointing at a master before comparing with its history.

mod plan;
mod report;
#[cfg(test)]
mod stories;

use std::time::Duration;

use super::{
    action::{Action, Step, TaskUpdate},
    event::{Event, Outcome},
};
use crate::{
    cluster::{
        control::{Goal, GoalPhase, Held, MasterGoal, Report, ServerKind, TaskData},
        id::{DataId, Epoch, ProcessId},
    },
    mysql::Observation,
    time::Timestamp,
};

pub use plan::{Plan, plan};

/// The wait before a server that ended by itself is started again, from its second end in a row on; it
/// doubles each time. The first time it is started at once: a master's end is over with the election.
const FIRST_RESTART_DELAY: Duration = Duration::from_secs(1);

/// The longest wait before a server is started again.
const LONGEST_RESTART_DELAY: Duration = Duration::from_secs(30);

/// How often in a row a server may end by itself before the task is given up: after two minutes or so,
/// which another agent, or an operator, can use better.
const ENDS_IN_A_ROW: u32 = 8;

/// A server that ran for so long has not ended "in a row" with the time before. What cannot run at all, for
/// want of memory or for a broken file, ends within seconds of its start.
const STEADY_AFTER: Duration = Duration::from_secs(10);

/// The wait before a step that failed is tried again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The wait before an applier that stopped with an error is tried again. What stops it seldom heals by
/// itself.
const APPLIER_RETRY_DELAY: Duration = Duration::from_secs(30);

/// From TERM to KILL (the original's behaviour), when Mesos grants that much.
const TERMINATION: Duration = Duration::from_secs(10);

/// The server is killed so long before the agent kills the container.
const BEFORE_THE_END: Duration = Duration::from_secs(1);

/// Everything that is known of the instance.
#[derive(Debug, Clone)]
pub struct State {
    task: TaskData,
    server: Option<ServerKind>,
    data: Data,
    promised: Promised,
    process: Process,
    role: Role,
    /// What was read in the last `Hold` of the running process, until it receives again.
    held: Option<Held>,
    /// What a slave offers to readers, from the last epoch that it followed in. It goes on doing so while
    /// a new master is elected.
    serving: Option<Serving>,
    goal: Option<Goal>,
    lane: Option<Lane>,
    next_number: u64,
    /// After a step has failed, none is begun before this, in the epoch in which that was.
    retry: Option<Retry>,
    problem: Option<String>,
    ends: Ends,
    look: Look,
    canary: Canary,
    ending: Option<Ending>,
    reported: Option<Report>,
    told: Told,
}

/// The data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Data {
    /// There is none. One that was given up has still to be moved.
    None { set_aside: Option<DataId> },
    /// A new one, not yet named by the promise, whose server was not yet started successfully.
    New(DataId),
    /// The one in use.
    InUse(DataId),
}

/// What the promise file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Promised {
    epoch: Epoch,
    data: Option<DataId>,
    /// Being written.
    writing: bool,
    /// Not tried again before this, after writing failed.
    retry_at: Option<Timestamp>,
    problem: Option<String>,
}

/// The server process.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Process {
    /// None runs.
    Down {
        /// When it may be started.
        start_at: Timestamp,
    },
    /// It runs and has let the administration account in.
    Up {
        id: ProcessId,
        since: Timestamp,
        /// When it was told to end.
        terminated: Option<Timestamp>,
        /// It was killed; its end is about to arrive.
        killed: bool,
    },
}

/// What the running process has been made into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It was started closed, and nothing was done with it yet.
    Closed,
    /// Receiving is stopped, and what it holds was read, in this epoch.
    Held(Epoch),
    /// All that it holds is applied.
    Applied(Epoch),
    /// It is ready for being master.
    Prepared(Epoch),
    /// The epoch's marker is acknowledged.
    Marked(Epoch),
    /// It is the master.
    Master(Epoch),
    /// It was elected and could not apply what it holds. It is closed.
    Refused(Epoch),
    /// It was elected, and a step on the way failed half-way: what that left in the server is not known,
    /// and the process is killed.
    Spoilt(Epoch),
    /// It follows the epoch's master.
    Following { epoch: Epoch, acknowledge: bool },
    /// It holds what is not in the cluster's history; it is closed and follows nobody.
    Quarantined(Epoch),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Serving {
    epoch: Epoch,
    /// Whether it has executed the epoch's marker and lets clients in.
    admitted: bool,
    /// Whether it also receives and applies, as far as was seen.
    ready: bool,
}

/// The step that is under way.
#[derive(Debug, Clone, PartialEq)]
struct Lane {
    number: u64,
    step: Step,
}

/// See [`State::retry`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Retry {
    at: Timestamp,
    epoch: Epoch,
}

/// How often the server has ended by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Ends {
    in_a_row: u32,
}

/// Looking at the server.
#[derive(Debug, Clone, Default)]
struct Look {
    under_way: bool,
    last: Option<Timestamp>,
    seen: Option<Observation>,
    /// In how many looks in a row commits waited while none was completed.
    stuck: u32,
    /// Why nothing was seen the last time.
    problem: Option<String>,
    /// A commit that is to release those is under way.
    proving: bool,
    /// When the last one was begun.
    proved_at: Option<Timestamp>,
}

/// Writing canaries as master, reading them as a member that lost its data.
#[derive(Debug, Clone, Default)]
struct Canary {
    under_way: bool,
    /// The highest number that this process has executed.
    executed: u64,
    last: Option<Timestamp>,
}

/// The end of the task.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ending {
    /// When the server is killed at the latest.
    kill_at: Timestamp,
    why: Why,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Why {
    Told,
    Failed(String),
}

/// What was said once and is not said again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Told {
    starting: bool,
    running: bool,
    killing: bool,
    ended: bool,
    exit: bool,
}

impl State {
    /// A task that was just launched. `epoch` and `data` are what an earlier executor promised in the
    /// same place, if there was one and its data directory is there.
    pub fn new(task: TaskData, epoch: Epoch, data: Option<DataId>, now: Timestamp) -> Self {
        Self {
            task,
            server: None,
            data: data.map_or(Data::None { set_aside: None }, Data::InUse),
            promised: Promised {
                epoch,
                data,
                writing: false,
                retry_at: None,
                problem: None,
            },
            process: Process::Down { start_at: now },
            role: Role::Closed,
            held: None,
            serving: None,
            goal: None,
            lane: None,
            next_number: 0,
            retry: None,
            problem: None,
            ends: Ends::default(),
            look: Look::default(),
            canary: Canary::default(),
            ending: None,
            reported: None,
            told: Told::default(),
        }
    }

    /// The number of the step under way: any other one that still runs was given up.
    pub fn step_under_way(&self) -> Option<u64> {
        self.lane.as_ref().map(|lane| lane.number)
    }

    /// Folds a fact in.
    pub fn apply(&mut self, event: Event, now: Timestamp) {
        match event {
            Event::Goal(goal) => self.take_goal(*goal),
            Event::Promised { epoch, data } => self.promised_stored(epoch, data),
            Event::PromiseFailed { problem } => {
                self.promised.writing = false;
                self.promised.retry_at = Some(now.plus(RETRY_DELAY));
                self.promised.problem = Some(problem);
            }
            Event::Done { number, outcome } => {
                if let Some(lane) = self.lane.take_if(|lane| lane.number == number) {
                    match outcome {
                        Ok(outcome) => self.step_done(lane.step, outcome, now),
                        Err(problem) => self.step_failed(&lane.step, problem, now),
                    }
                }
            }
            Event::Exited { process, how } => self.server_exited(process, &how, now),
            Event::Observed { process, seen } => self.observed(process, seen, now),
            Event::Canary { process, number } => self.canary_seen(process, number, now),
            Event::Proved { process } => {
                if self.running() == Some(process) {
                    self.look.proving = false;
                }
            }
            Event::Kill { grace } => {
                let kill_at = now.plus(grace.saturating_sub(BEFORE_THE_END).min(TERMINATION));
                // A second kill can only shorten what the first one granted.
                let kill_at = self
                    .ending
                    .as_ref()
                    .map_or(kill_at, |e| e.kill_at.min(kill_at));
                let why = self.ending.take().map_or(Why::Told, |ending| ending.why);
                self.ending = Some(Ending { kill_at, why });
            }
        }
    }

    /// A goal of another incarnation, or below what was promised or read before, is not ours to obey.
    fn take_goal(&mut self, goal: Goal) {
        let highest = self
            .goal
            .as_ref()
            .map_or(self.promised.epoch, |known| known.epoch);
        if goal.uuid == self.task.uuid && goal.epoch >= highest.max(self.promised.epoch) {
            self.goal = Some(goal);
        }
    }

    fn promised_stored(&mut self, epoch: Epoch, data: Option<DataId>) {
        self.promised = Promised {
            epoch,
            data,
            writing: false,
            retry_at: None,
            problem: None,
        };
        if let (Data::New(new), Some(stored)) = (self.data, data)
            && new == stored
        {
            self.data = Data::InUse(new);
        }
    }

    // === steps ===

    fn step_done(&mut self, step: Step, outcome: Outcome, now: Timestamp) {
        self.retry = None;
        self.problem = None;
        match (step, outcome) {
            (Step::Install, Outcome::Installed(server)) => self.server = Some(server),
            (Step::MakeData { .. }, Outcome::DataMade(data)) => self.data = Data::New(data),
            (Step::Start { .. }, Outcome::Started(id)) => {
                self.process = Process::Up {
                    id,
                    since: now,
                    terminated: None,
                    killed: false,
                };
                self.forget_process();
            }
            (Step::Hold { epoch }, Outcome::Held { position, executed }) => {
                self.held = Some(Held {
                    epoch,
                    position,
                    executed,
                });
                self.role = Role::Held(epoch);
            }
            (Step::Apply { epoch, .. }, _) => self.role = Role::Applied(epoch),
            (Step::Prepare { epoch, .. }, _) => {
                self.role = Role::Prepared(epoch);
                // From here on it writes, so what was read is not all that it holds any more.
                self.held = None;
            }
            (Step::Mark { epoch }, _) => self.role = Role::Marked(epoch),
            (Step::Open { epoch, .. }, _) => self.role = Role::Master(epoch),
            (
                Step::Follow {
                    epoch, acknowledge, ..
                },
                _,
            ) => {
                self.role = Role::Following { epoch, acknowledge };
                // It receives again, so what was read is not all that it holds any more.
                self.held = None;
                let same_epoch = self.serving.filter(|serving| serving.epoch == epoch);
                let new = Serving {
                    epoch,
                    admitted: false,
                    ready: false,
                };
                self.serving = Some(same_epoch.unwrap_or(new));
            }
            (Step::Admit { epoch, .. }, _) => {
                self.serving = Some(Serving {
                    epoch,
                    admitted: true,
                    ready: true,
                });
            }
            (
                Step::Halt {
                    epoch,
                    refuse_clients,
                },
                _,
            ) => {
                if refuse_clients {
                    self.role = Role::Quarantined(epoch);
                    self.serving = None;
                } else {
                    self.applier_stopped(epoch, now);
                }
            }
            (
                step @ (Step::Install
                | Step::MakeData { .. }
                | Step::Start { .. }
                | Step::Hold { .. }),
                _,
            ) => {
                self.step_failed(
                    &step,
                    "it ended with the outcome of another step".to_owned(),
                    now,
                );
            }
        }
    }

    fn step_failed(&mut self, step: &Step, problem: String, now: Timestamp) {
        self.retry_after(RETRY_DELAY, now);
        self.problem = Some(problem.clone());
        match step {
            Step::Install | Step::MakeData { .. } => self.fail(problem, now),
            Step::Start { .. } => self.server_ended_by_itself(&problem, now),
            // It received while it was being stopped, or was not stopped.
            Step::Hold { .. } | Step::Halt { .. } => {}
            Step::Apply { epoch, .. } => match self.my_mastership(*epoch) {
                Some(_) => self.role = Role::Refused(*epoch),
                None => self.retry_after(APPLIER_RETRY_DELAY, now),
            },
            Step::Prepare { epoch, .. } | Step::Mark { epoch } | Step::Open { epoch, .. } => {
                self.role = Role::Spoilt(*epoch);
            }
            // It may or may not follow: what is held has to be read again before the next try.
            Step::Follow { .. } => self.role = Role::Closed,
            Step::Admit { .. } => {}
        }
    }

    /// The applier has stopped with an error: the receiver was stopped, and after a while all of it is
    /// tried again.
    fn applier_stopped(&mut self, epoch: Epoch, now: Timestamp) {
        self.role = Role::Closed;
        if let Some(serving) = self
            .serving
            .as_mut()
            .filter(|serving| serving.epoch == epoch)
        {
            serving.ready = false;
        }
        self.problem = self.look.seen.as_ref().and_then(applier_error);
        self.retry_after(APPLIER_RETRY_DELAY, now);
    }

    fn retry_after(&mut self, delay: Duration, now: Timestamp) {
        self.retry = Some(Retry {
            at: now.plus(delay),
            epoch: self.promised.epoch,
        });
    }

    // === the process ===

    fn server_exited(&mut self, process: ProcessId, how: &str, now: Timestamp) {
        let Process::Up {
            id,
            since,
            terminated,
            killed,
        } = self.process
        else {
            return;
        };
        if id != process {
            return;
        }
        // It was killed for its data directory, and meanwhile no other epoch has begun.
        if killed
            && self
                .goal
                .as_ref()
                .is_some_and(|goal| self.quarantine_is_over(goal))
        {
            self.data = Data::None {
                set_aside: self.data_in_use(),
            };
        }
        self.lane = None;
        self.retry = None;
        self.forget_process();
        if terminated.is_some() || killed {
            self.process = Process::Down { start_at: now };
            return;
        }
        if now.since(since) >= STEADY_AFTER {
            self.ends.in_a_row = 0;
        }
        self.server_ended_by_itself(&format!("the server {how}"), now);
    }

    fn server_ended_by_itself(&mut self, problem: &str, now: Timestamp) {
        self.ends.in_a_row += 1;
        let ends = self.ends.in_a_row;
        if !self.told.running || ends >= ENDS_IN_A_ROW {
            self.fail(problem.to_owned(), now);
        }
        let doublings = ends.saturating_sub(2).min(16);
        let delay = match ends {
            0 | 1 => Duration::ZERO,
            _ => LONGEST_RESTART_DELAY.min(FIRST_RESTART_DELAY * (1 << doublings)),
        };
        self.problem = Some(problem.to_owned());
        self.process = Process::Down {
            start_at: now.plus(delay),
        };
    }

    /// Everything that was known of the process that ended, or that has just begun.
    fn forget_process(&mut self) {
        self.role = Role::Closed;
        self.held = None;
        self.serving = None;
        self.look = Look::default();
        self.canary = Canary::default();
    }

    fn observed(
        &mut self,
        process: ProcessId,
        seen: Result<Box<Observation>, String>,
        now: Timestamp,
    ) {
        if self.running() != Some(process) {
            return;
        }
        self.look.under_way = false;
        self.look.last = Some(now);
        match seen {
            Ok(seen) => {
                if let (Role::Following { epoch, .. }, Some(serving)) =
                    (self.role, &mut self.serving)
                    && serving.epoch == epoch
                {
                    let works = seen
                        .replication
                        .as_ref()
                        .is_some_and(|r| r.receiving && r.applying);
                    serving.ready = serving.admitted && works;
                }
                let idle = self
                    .look
                    .seen
                    .as_ref()
                    .is_some_and(|last| last.executed == seen.executed);
                let stuck = seen.waiting_sessions > 0 && idle;
                self.look.stuck = if stuck { self.look.stuck + 1 } else { 0 };
                self.look.seen = Some(*seen);
                self.look.problem = None;
            }
            Err(problem) => self.look.problem = Some(problem),
        }
    }

    fn canary_seen(&mut self, process: ProcessId, number: Result<u64, String>, now: Timestamp) {
        if self.running() != Some(process) {
            return;
        }
        self.canary.under_way = false;
        self.canary.last = Some(now);
        // A canary that could not be written is told by what is observed: commits that wait.
        if let Ok(number) = number {
            self.canary.executed = self.canary.executed.max(number);
        }
    }

    // === the end ===

    fn fail(&mut self, problem: String, now: Timestamp) {
        if self.ending.is_none() {
            self.ending = Some(Ending {
                kill_at: now,
                why: Why::Failed(problem),
            });
        }
    }

    // === what was handed over ===

    /// Notes that an action was handed over to be performed.
    pub fn begin(&mut self, action: &Action, now: Timestamp) {
        match action {
            Action::Promise { .. } => self.promised.writing = true,
            Action::Begin { number, step } => {
                self.next_number = number + 1;
                self.lane = Some(Lane {
                    number: *number,
                    step: step.clone(),
                });
            }
            Action::Abandon { .. } => self.lane = None,
            Action::Kill { .. } => {
                if let Process::Up { killed, .. } = &mut self.process {
                    *killed = true;
                }
                self.lane = None;
            }
            Action::Terminate { .. } => {
                if let Process::Up { terminated, .. } = &mut self.process {
                    *terminated = Some(now);
                }
            }
            Action::Observe { .. } => self.look.under_way = true,
            Action::Prove { .. } => {
                self.look.proving = true;
                self.look.proved_at = Some(now);
            }
            Action::WriteCanary { .. } | Action::ReadCanary { .. } => {
                self.canary.under_way = true;
                self.canary.last = Some(now);
            }
            Action::Report(report) => self.reported = Some((**report).clone()),
            Action::Update(update) => match update {
                TaskUpdate::Starting => self.told.starting = true,
                TaskUpdate::Running => self.told.running = true,
                TaskUpdate::Killing => self.told.killing = true,
                TaskUpdate::Killed | TaskUpdate::Failed { .. } => self.told.ended = true,
            },
            Action::Exit => self.told.exit = true,
        }
    }

    // === what follows from the facts ===

    fn running(&self) -> Option<ProcessId> {
        match self.process {
            Process::Up { id, .. } => Some(id),
            Process::Down { .. } => None,
        }
    }

    fn data_in_use(&self) -> Option<DataId> {
        match self.data {
            Data::InUse(data) => Some(data),
            Data::None { .. } | Data::New(_) => None,
        }
    }

    /// The goal that may be acted on: its epoch is promised.
    fn promised_goal(&self) -> Option<&Goal> {
        self.goal
            .as_ref()
            .filter(|goal| goal.epoch == self.promised.epoch)
    }

    /// The master of the promised epoch, if that is `epoch` and one is elected.
    fn master_of(&self, epoch: Epoch) -> Option<&MasterGoal> {
        let goal = self.promised_goal().filter(|goal| goal.epoch == epoch)?;
        match &goal.phase {
            GoalPhase::Elected(master) => Some(master),
            GoalPhase::Unborn | GoalPhase::Electing | GoalPhase::Deleting => None,
        }
    }

    /// The same, if it is this very process with this very data.
    fn my_mastership(&self, epoch: Epoch) -> Option<&MasterGoal> {
        self.master_of(epoch).filter(|master| {
            master.member == self.task.member
                && Some(master.data) == self.data_in_use()
                && Some(master.process) == self.running()
        })
    }

    /// The epoch in which this process is master, or may be.
    fn mastership(&self) -> Option<Epoch> {
        let step = self
            .lane
            .as_ref()
            .map(|lane| &lane.step)
            .filter(|step| step.is_masters());
        match self.role {
            Role::Prepared(epoch)
            | Role::Marked(epoch)
            | Role::Master(epoch)
            | Role::Spoilt(epoch) => Some(epoch),
            Role::Closed
            | Role::Held(_)
            | Role::Applied(_)
            | Role::Refused(_)
            | Role::Following { .. }
            | Role::Quarantined(_) => step.and_then(Step::epoch),
        }
    }

    /// Whether the data directory that is not part of the history may be set aside now: another master has
    /// opened, so the epoch's marker is acknowledged.
    fn quarantine_is_over(&self, goal: &Goal) -> bool {
        let opened = match &goal.phase {
            GoalPhase::Elected(master) => master.opened && master.member != self.task.member,
            GoalPhase::Unborn | GoalPhase::Electing | GoalPhase::Deleting => false,
        };
        opened && self.role == Role::Quarantined(goal.epoch) && goal.epoch == self.promised.epoch
    }

    /// Whether the goal says that the cluster is going away.
    fn is_deleted(&self) -> bool {
        self.promised_goal()
            .is_some_and(|goal| goal.phase == GoalPhase::Deleting)
    }
}

/// Why the applier does not run, if that is what was seen.
fn applier_error(seen: &Observation) -> Option<String> {
    let replication = seen.replication.as_ref()?;
    let error = replication
        .applier_error
        .as_ref()
        .filter(|_| !replication.applying)?;
    Some(format!("the applier stopped with an error: {error}"))
}
