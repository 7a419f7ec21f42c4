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
//!        was master, and is closed for a switchover (`handover`) ---> Yield --> held
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

mod apply;
mod archive;
mod aside;
mod backup;
mod handover;
mod health;
mod held;
mod lag;
mod lease;
mod plan;
mod rebuild;
mod report;
mod roles;
#[cfg(test)]
mod stories;
mod terms;

use std::time::Duration;

use self::{handover::Handing, health::Health, lag::Lag, lease::Lease};
use super::action::{Action, Step, TaskUpdate};
use crate::{
    cluster::{
        control::{Goal, GoalPhase, Held, MasterGoal, Report, ServerKind, TaskData, Trouble},
        id::{DataId, Epoch, ProcessId},
        voters::Terms,
    },
    mysql::Observation,
    rules::{Rule, Rules},
    time::Timestamp,
};

pub use plan::{Plan, plan};

/// From TERM to KILL (the original's behaviour), when Mesos grants that much.
const TERMINATION: Duration = Duration::from_secs(10);

/// Everything that is known of the instance.
#[derive(Debug, Clone)]
pub struct State {
    task: TaskData,
    rules: Rules,
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
    rebuild: rebuild::Rebuild,
    backup: backup::Backup,
    archive: archive::Archive,
    /// The data directory that was set aside last, or is about to be.
    aside: Option<aside::Aside>,
    export_problem: Option<String>,
    /// Where the executor hands out its server's data.
    stream_port: Option<u16>,
    health: Health,
    lag: Lag,
    lease: Lease,
    /// What the server was killed for, until it has been started again.
    trouble: Option<Trouble>,
    terms: InForce,
    /// What is done about a switchover.
    handing: Handing,
    /// Whether what the server has left to do of its opening is done.
    tidied: bool,
    /// Whether the running server may be acknowledging what it receives.
    acknowledges: bool,
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
    /// The same, restored from a backup.
    Restored(DataId),
    /// The same, copied from a donor. It takes the place of one that holds nothing.
    Copied { data: DataId, instead_of: DataId },
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
    since: Timestamp,
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
    /// When the one that is under way was begun.
    begun: Option<Timestamp>,
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

/// The terms of the running master.
#[derive(Debug, Clone, Default)]
struct InForce {
    /// `None` while they are not known, or only parts of them are in force.
    terms: Option<Terms>,
    under_way: bool,
    /// Not tried again before this, after it failed.
    retry_at: Option<Timestamp>,
    /// Why it failed.
    problem: Option<String>,
}

/// The end of the task.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ending {
    /// When the server is killed at the latest.
    kill_at: Timestamp,
    /// Until when a master goes on all the same: see [`held`].
    held_until: Option<Timestamp>,
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
            rules: Rules::LAW,
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
            rebuild: rebuild::Rebuild::default(),
            backup: backup::Backup::default(),
            archive: archive::Archive::default(),
            aside: None,
            export_problem: None,
            stream_port: None,
            health: Health::default(),
            lag: Lag::default(),
            lease: Lease::default(),
            trouble: None,
            terms: InForce::default(),
            handing: Handing::default(),
            tidied: false,
            acknowledges: false,
            ending: None,
            reported: None,
            told: Told::default(),
        }
    }

    /// The same life under other rules.
    #[cfg(test)]
    pub(crate) fn under(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    /// The number of the step under way: any other one that still runs was given up.
    pub fn step_under_way(&self) -> Option<u64> {
        self.lane.as_ref().map(|lane| lane.number)
    }

    // === what was handed over ===

    /// Notes that an action was handed over to be performed.
    pub fn begin(&mut self, action: &Action, now: Timestamp) {
        match action {
            Action::Promise { epoch, .. } => {
                self.promised.writing = true;
                if !self.rules.holds(Rule::PromiseComesFirst) {
                    self.promised.epoch = *epoch;
                }
            }
            Action::Begin { number, step } => {
                self.next_number = number + 1;
                if let Step::Follow {
                    acknowledge: true, ..
                } = step
                {
                    self.acknowledges = true;
                }
                self.handing.begun(step, now);
                self.lane = Some(Lane {
                    number: *number,
                    step: step.clone(),
                    since: now,
                });
            }
            Action::Abandon { .. } => self.lane = None,
            Action::Kill { .. } => {
                if let Some(trouble) = health::deadly(self, now) {
                    self.trouble = Some(trouble);
                    self.problem = Some(health::sentence(self, trouble));
                }
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
            Action::Observe { .. } => self.look.begun = Some(now),
            Action::Ping { .. } => self.health.ping(now),
            Action::Check { .. } => self.health.check(now),
            Action::AskVoters { .. } => self.lease.ask(now),
            Action::Guard { .. } => self.lease.guard = lease::Guard::Starting,
            Action::Feed { .. } => self.lease.feed(now),
            Action::Prove { .. } => {
                self.look.proving = true;
                self.look.proved_at = Some(now);
            }
            Action::SetTerms { terms, .. } => {
                // The weaker proof does not count any more, the stronger not yet.
                let waits_for = self.lease.waits_for.unwrap_or(0);
                self.lease.waits_for = Some(waits_for.min(terms.acknowledgements));
                // What is in force from here on is not known until it is done.
                self.terms.terms = None;
                self.terms.under_way = true;
            }
            Action::WriteCanary { .. } | Action::ReadCanary { .. } => {
                self.canary.under_way = true;
                self.canary.last = Some(now);
            }
            Action::Export { .. } => self.export_begun(),
            Action::BackUp { order, .. } => self.backup_begun(order.number),
            Action::AbandonBackup { number } => self.backup_given_up(*number),
            Action::Archive { number, .. } => self.archive_begun(*number),
            Action::AbandonArchive { .. } => self.archive_given_up(),
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
            Data::None { .. } | Data::New(_) | Data::Restored(_) | Data::Copied { .. } => None,
        }
    }

    /// The goal that may be acted on: its epoch is promised.
    fn promised_goal(&self) -> Option<&Goal> {
        let obeys_any = !self.rules.holds(Rule::LowerEpochsAreRefused);
        self.goal
            .as_ref()
            .filter(|goal| goal.epoch == self.promised.epoch || obeys_any)
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
            GoalPhase::Elected(master) => {
                let opened = master.opened || !self.rules.holds(Rule::KeptUntilOpened);
                opened && master.member != self.task.member
            }
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
