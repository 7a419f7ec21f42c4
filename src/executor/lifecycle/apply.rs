//! Folding facts in: [`State::apply`] and what each fact means for what is known. Pure, and decides nothing.

use std::time::Duration;

use super::{
    Canary, Data, Ending, InForce, Look, Process, Promised, Retry, Role, Serving, State,
    TERMINATION, Why, applier_error,
    handover::{Handing, REOPEN_RETRY},
    held,
    lag::Lag,
    lease::Guard,
};
use crate::{
    cluster::{
        control::{Goal, Held, Trouble},
        gtid::Position,
        id::{DataId, Epoch, ProcessId},
        voters::Terms,
    },
    executor::{
        action::{Birth, CopySource, Step},
        event::{Event, Outcome},
    },
    mysql::Observation,
    rules::Rule,
    time::Timestamp,
};

/// The wait before a server that ended by itself is started again, from its second end in a row on; it
/// doubles each time. The first time it is started at once: a master's end is over with the election.
const FIRST_RESTART_DELAY: Duration = Duration::from_secs(1);

/// The longest wait before a server is started again.
const LONGEST_RESTART_DELAY: Duration = Duration::from_secs(30);

/// How often in a row a server may end by itself before the task is given up: after two minutes or so,
/// which another agent, or an operator, can use better.
pub(super) const ENDS_IN_A_ROW: u32 = 8;

/// A server that ran for so long has not ended "in a row" with the time before. What cannot run at all, for
/// want of memory or for a broken file, ends within seconds of its start.
pub(super) const STEADY_AFTER: Duration = Duration::from_secs(10);

/// The wait before a step that failed is tried again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The wait before an applier that stopped with an error is tried again. What stops it seldom heals by
/// itself.
const APPLIER_RETRY_DELAY: Duration = Duration::from_secs(30);

/// The server is killed so long before the agent kills the container.
const BEFORE_THE_END: Duration = Duration::from_secs(1);

impl State {
    /// Folds a fact in.
    pub fn apply(&mut self, event: Event, now: Timestamp) {
        match event {
            Event::Goal(goal) => self.take_goal(*goal, now),
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
            Event::Tidied { process } => self.tidied |= self.running() == Some(process),
            Event::TermsSet { process, terms } => self.terms_set(process, terms, now),
            Event::Proved { process } => {
                if self.running() == Some(process) {
                    self.look.proving = false;
                }
            }
            Event::Backup { number, state } => self.backup_is(number, state),
            Event::Archived { number, report } => self.archive_is(number, report),
            Event::Exported { data, export } => self.exported(data, export, now),
            Event::HandsOut { port } => self.stream_port = Some(port),
            Event::Contact { in_touch } => self.lease.contact(in_touch, now),
            Event::Answered { process, alive } if self.running() == Some(process) => {
                self.health.answered(alive, now);
            }
            Event::Space { available } => self.health.space = available,
            Event::Checked { process, committed } if self.running() == Some(process) => {
                self.health.checked(committed, now);
            }
            Event::VotersAsked {
                process,
                all_receive,
            } if self.running() == Some(process) => self.lease.answered(all_receive),
            Event::Guarded { process, started } if self.running() == Some(process) => {
                self.lease.guarded(started, now);
            }
            Event::GuardEnded { process } if self.running() == Some(process) => {
                self.lease.guard = Guard::None;
            }
            // Of a server that has ended.
            Event::Answered { .. }
            | Event::Checked { .. }
            | Event::VotersAsked { .. }
            | Event::Guarded { .. }
            | Event::GuardEnded { .. } => {}
            Event::Overslept => self.health.overslept(now),
            Event::Kill { grace, may_hold } => self.told_to_end(grace, may_hold, now),
        }
    }

    /// The task is to end. A second kill can only shorten what the first one granted.
    fn told_to_end(&mut self, grace: Duration, may_hold: bool, now: Timestamp) {
        let granted = grace.saturating_sub(BEFORE_THE_END);
        let first = self.ending.is_none();
        let held = (first && may_hold && held::may_be(self)).then_some(granted / 2);
        let kill_at = now.plus(granted.min(held.unwrap_or_default() + TERMINATION));
        let before = self.ending.take();
        let kill_at = before.as_ref().map_or(kill_at, |e| e.kill_at.min(kill_at));
        let why = before.map_or(Why::Told, |ending| ending.why);
        self.ending = Some(Ending {
            kill_at,
            held_until: held.map(|held| now.plus(held)),
            why,
        });
    }

    /// A goal of another incarnation, or below what was promised or read before, is not ours to obey.
    fn take_goal(&mut self, goal: Goal, now: Timestamp) {
        let highest = self
            .goal
            .as_ref()
            .map_or(self.promised.epoch, |known| known.epoch);
        let obeys = goal.epoch >= highest.max(self.promised.epoch)
            || !self.rules.holds(Rule::LowerEpochsAreRefused);
        // Goals are read in their order. Should that ever not be so, earlier voters are not obeyed again: the
        // scheduler counts on that once they were reported as seen.
        let earlier_voters = self
            .goal
            .as_ref()
            .is_some_and(|known| goal.voters.version < known.voters.version);
        if goal.uuid == self.task.uuid && obeys && !earlier_voters {
            self.note_awaited_turn(now);
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
        if let (Data::New(new) | Data::Restored(new) | Data::Copied { data: new, .. }, Some(stored)) =
            (self.data, data)
            && new == stored
        {
            if let Data::Copied { .. } = self.data {
                self.copy_is_in_use();
            }
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
            (Step::Restore, Outcome::Restored(data)) => self.data = Data::Restored(data),
            (Step::Start { .. }, Outcome::Started(id)) => {
                self.process = Process::Up {
                    id,
                    since: now,
                    terminated: None,
                    killed: false,
                };
                self.forget_process();
                self.trouble = None;
            }
            (Step::Hold { epoch }, Outcome::Held { position, executed }) => {
                self.held = Some(Held {
                    epoch,
                    position,
                    executed,
                });
                self.role = Role::Held(epoch);
                self.note_held(now);
                self.acknowledges = false;
            }
            (Step::Yield { epoch, .. }, Outcome::Held { position, executed }) => {
                self.yielded(epoch, position, executed, now);
            }
            (Step::Approach { .. }, _) => self.handing.approached(Ok(()), now),
            (Step::Close { .. }, Outcome::Closed { position, took }) => {
                self.handing.closed(Ok((position, took)));
            }
            (Step::Reopen { .. }, _) => {
                self.handing.reopened();
                // What was seen before is over.
                self.look.seen = None;
            }
            (Step::Copy { source, .. }, Outcome::Copied(data)) => {
                self.copy_is_complete(data, &source);
            }
            (
                Step::Copy {
                    source: CopySource::Backup(from),
                    ..
                },
                Outcome::Unfit { why },
            ) => {
                self.problem = Some(why);
                let delay = self.backup_is_unfit(from.id, now);
                self.retry_after(delay, now);
            }
            (Step::Copy { .. }, Outcome::ReplayIsCheaper) => self.replay_is_cheaper(),
            (Step::Apply { epoch, .. }, _) => self.role = Role::Applied(epoch),
            (Step::Prepare { epoch, terms }, _) => {
                self.role = Role::Prepared(epoch);
                self.lease.waits_for = Some(terms.acknowledgements);
                self.terms.terms = Some(terms);
                // From here on it writes, so what was read is not all that it holds any more.
                self.held = None;
            }
            (Step::Mark { epoch }, _) => self.role = Role::Marked(epoch),
            (Step::Open { epoch, .. }, _) => {
                self.role = Role::Master(epoch);
                self.tidied = false;
            }
            (
                Step::Follow {
                    epoch, acknowledge, ..
                },
                _,
            ) => {
                self.role = Role::Following { epoch, acknowledge };
                self.health.received = Some(now);
                self.acknowledges = acknowledge;
                // It receives again, so what was read is not all that it holds any more, and what was seen is over.
                self.held = None;
                self.look.seen = None;
                self.lag = Lag::default();
                let same_epoch = self.serving.filter(|serving| serving.epoch == epoch);
                let new = Serving {
                    epoch,
                    admitted: false,
                    ready: false,
                };
                self.serving = Some(same_epoch.unwrap_or(new));
            }
            (Step::Admit { epoch, .. }, _) => {
                self.has_caught_up();
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
                self.acknowledges = false;
                if refuse_clients {
                    self.role = Role::Quarantined(epoch);
                    self.note_beyond();
                    self.serving = None;
                } else {
                    self.applier_stopped(epoch, now);
                }
            }
            (
                step @ (Step::Install
                | Step::MakeData { .. }
                | Step::Restore
                | Step::Start { .. }
                | Step::Hold { .. }
                | Step::Yield { .. }
                | Step::Close { .. }
                | Step::Copy { .. }),
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
        match step {
            // It goes on as master, which is no problem; that it does is told as the answer.
            Step::Approach { .. } => return self.handing.approached(Err(problem), now),
            Step::Close { .. } => return self.handing.closed(Err(problem)),
            Step::Reopen { .. } => {
                self.problem = Some(problem);
                return self.retry_after(REOPEN_RETRY, now);
            }
            _ => {}
        }
        self.retry_after(RETRY_DELAY, now);
        self.problem = Some(problem.clone());
        match step {
            // The scheduler has it launched again, perhaps elsewhere; a task that fails says why.
            Step::Install | Step::MakeData { .. } | Step::Restore => self.fail(problem, now),
            // It was removed, and there are others to copy from.
            Step::Start {
                birth: Birth::Copied { .. },
                ..
            } => {
                let delay = self.copy_has_failed(now);
                self.data = Data::None { set_aside: None };
                self.process = Process::Down {
                    start_at: now.plus(delay),
                };
            }
            Step::Start { .. } => self.server_ended_by_itself(&problem, now),
            Step::Copy { .. } => {
                let delay = self.copy_has_failed(now);
                self.retry_after(delay, now);
            }
            // It received while it was being stopped, or was not stopped.
            Step::Hold { .. } | Step::Halt { .. } => {}
            // Those are above.
            Step::Approach { .. } | Step::Close { .. } | Step::Reopen { .. } => {}
            Step::Apply { epoch, .. } => match self.my_mastership(*epoch) {
                Some(_) => self.role = Role::Refused(*epoch),
                None => self.retry_after(APPLIER_RETRY_DELAY, now),
            },
            Step::Prepare { epoch, .. }
            | Step::Mark { epoch }
            | Step::Open { epoch, .. }
            | Step::Yield { epoch, .. } => {
                self.role = Role::Spoilt(*epoch);
            }
            // It may or may not follow: what is held has to be read again before the next try.
            Step::Follow { .. } => self.role = Role::Closed,
            Step::Admit { .. } => {}
        }
    }

    /// The deposed master is closed and has read what it holds: it is a voter like any other, and its process goes on.
    fn yielded(&mut self, epoch: Epoch, position: Position, executed: Position, now: Timestamp) {
        self.held = Some(Held {
            epoch,
            position,
            executed,
        });
        self.role = Role::Held(epoch);
        self.note_held(now);
        self.acknowledges = false;
        self.terms = InForce::default();
        self.look = Look {
            begun: self.look.begun,
            ..Look::default()
        };
        self.health.is_no_master();
        // With this it has no watchdog any more: nothing that it could kill it for may happen.
        self.lease.forget_process();
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
        let set_aside = self
            .goal
            .as_ref()
            .is_some_and(|goal| self.quarantine_is_over(goal) || self.starts_anew(goal));
        if killed && set_aside {
            self.note_left_behind();
            self.note_unfit();
            self.data = Data::None {
                set_aside: self.data_in_use(),
            };
        }
        self.server_of_copy_ended(now);
        self.lane = None;
        self.retry = None;
        self.forget_process();
        let by_itself = match self.trouble {
            // A server that hangs each time it is started must not be started for ever.
            Some(Trouble::Hung | Trouble::Stalled | Trouble::Full) => true,
            _ => terminated.is_none() && !killed,
        };
        if !by_itself {
            self.process = Process::Down { start_at: now };
            return;
        }
        if now.since(since) >= STEADY_AFTER {
            self.ends.in_a_row = 0;
        }
        let problem = match (self.trouble, self.problem.take()) {
            (Some(_), Some(problem)) => problem,
            _ => format!("the server {how}"),
        };
        self.server_ended_by_itself(&problem, now);
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
        self.health.forget_process();
        self.lag = Lag::default();
        self.lease.forget_process();
        self.terms = InForce::default();
        self.handing = Handing::default();
        self.tidied = false;
        self.acknowledges = false;
    }

    fn terms_set(&mut self, process: ProcessId, terms: Result<Terms, String>, now: Timestamp) {
        if self.running() != Some(process) {
            return;
        }
        if let Ok(terms) = &terms {
            self.lease.waits_for = Some(terms.acknowledgements);
        }
        self.terms = match terms {
            Ok(terms) => InForce {
                terms: Some(terms),
                ..InForce::default()
            },
            Err(problem) => InForce {
                retry_at: Some(now.plus(RETRY_DELAY)),
                problem: Some(problem),
                ..InForce::default()
            },
        };
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
        let begun = self.look.begun.take().unwrap_or(now);
        self.look.last = Some(now);
        match seen {
            Ok(seen) => {
                self.health
                    .looked(self.look.seen.as_ref(), &seen, begun, now);
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
                if let Role::Following { .. } = self.role {
                    self.lag.looked(&seen, begun);
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
                held_until: None,
                why: Why::Failed(problem),
            });
        }
    }
}
