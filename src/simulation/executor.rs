//! The executor's shell in the simulated world: the real lifecycle, and hands that move the models.

use std::{cell::RefCell, rc::Rc};

use super::{
    history::Kind,
    mysqld::{Deeds, Waiter},
    steps::{RunningStep, place},
    world::{MILLISECOND, Moment, SECOND, World, micros, note},
    zookeeper::Session,
};
use crate::{
    cluster::{
        control::{Address, Report, TaskData},
        id::{DataId, Epoch, MemberId, ProcessId, TaskId},
    },
    executor::{
        action::{Action, TaskUpdate},
        event::Event,
        lifecycle::{State, plan},
    },
};

/// How often planning may follow planning.
const PLANS_IN_A_ROW: usize = 100;

/// How long a canary may take.
const CANARY_DEADLINE: u64 = 60 * SECOND;

/// Who sleeps for so long beyond the time has not heard what arrived meanwhile.
const OVERSLEPT: u64 = 500 * MILLISECOND;

/// How long a statement may take.
pub const STATEMENT_TIMEOUT: u64 = 20 * SECOND;

/// A run of an executor.
#[derive(Debug)]
pub struct Executor {
    pub task: TaskId,
    pub member: MemberId,
    pub host: usize,
    pub port: u16,
    pub state: State,
    pub alive: bool,
    pub paused: bool,
    inbox: Deeds,
    /// The server whose end it is told of.
    pub process: Option<usize>,
    /// The server that a step is starting.
    pub starting: Option<usize>,
    pub step: Option<RunningStep>,
    wake: u64,
    /// When it wakes if nothing happens before.
    wakes_at: Moment,
    /// Where it keeps promise and data.
    pub sandbox: Rc<RefCell<Sandbox>>,
    /// Whether that outlives it.
    is_volume: bool,
    pub session: Session,
    pub report: Option<Rc<Report>>,
    /// Counts looks and canaries, so that only the newest one's deadline counts.
    asked: u64,
}

/// What survives an executor.
#[derive(Debug, Default)]
pub struct Sandbox {
    pub epoch: Epoch,
    pub data: Option<DataId>,
    /// Data directories, as indices.
    pub directories: Vec<usize>,
}

impl World {
    /// A task begins.
    pub fn executor_starts(
        &mut self,
        task: TaskData,
        host: usize,
        sandbox: Rc<RefCell<Sandbox>>,
        is_volume: bool,
    ) -> usize {
        let (epoch, data) = {
            let kept = sandbox.borrow();
            let there = |data: &DataId| {
                let of = |index: &&usize| self.data[**index].id == *data;
                kept.directories
                    .iter()
                    .any(|i| of(&i) && !self.data[*i].gone)
            };
            (kept.epoch, kept.data.filter(there))
        };
        note!(
            self,
            "executor {} of member {} starts on h{host}, promised {epoch}",
            self.executors.len(),
            task.member
        );
        let now = self.timestamp(0);
        let (member, port, task_id) = (task.member, task.port, task.task_id.clone());
        let state = State::new(task, epoch, data, now).under(self.bend.rules());
        self.executors.push(Executor {
            task: task_id,
            member,
            host,
            port,
            state,
            alive: true,
            paused: false,
            inbox: Deeds::default(),
            process: None,
            starting: None,
            step: None,
            wake: 0,
            wakes_at: Moment::MAX,
            sandbox,
            is_volume,
            session: Session::default(),
            report: None,
            asked: 0,
        });
        let executor = self.executors.len() - 1;
        self.relink();
        self.turn(executor);
        executor
    }

    /// It is gone, and its server with it.
    pub fn executor_ends(&mut self, executor: usize) {
        let it = &mut self.executors[executor];
        if !it.alive {
            return;
        }
        it.alive = false;
        it.inbox.0.clear();
        it.step = None;
        for process in [it.process.take(), it.starting.take()]
            .into_iter()
            .flatten()
        {
            self.kill_process(process);
        }
        note!(self, "executor {executor} has ended");
        if !self.executors[executor].is_volume {
            let sandbox = Rc::clone(&self.executors[executor].sandbox);
            for data in &sandbox.borrow().directories {
                let data = &mut self.data[*data];
                data.gone_by_fault |= !data.gone;
                data.gone = true;
            }
        }
        self.relink();
    }

    /// SIGSTOP and SIGCONT.
    pub fn pause_executor(&mut self, executor: usize, paused: bool) {
        let it = &mut self.executors[executor];
        if it.paused == paused || !it.alive {
            return;
        }
        it.paused = paused;
        if !paused {
            let late = self.now.saturating_sub(it.wakes_at) > OVERSLEPT;
            let inbox = std::mem::take(&mut it.inbox.0);
            if late {
                let now = self.timestamp(0);
                self.executors[executor].state.apply(Event::Overslept, now);
            }
            for deed in inbox {
                self.at(self.now, deed);
            }
        }
        note!(
            self,
            "executor {executor} {}",
            if paused { "stands still" } else { "goes on" }
        );
        self.relink();
    }

    /// Does something in an executor: never if it has ended, later if it stands still.
    pub fn on_executor(&mut self, executor: usize, deed: impl FnOnce(&mut Self) + 'static) {
        let it = &mut self.executors[executor];
        if !it.alive {
            return;
        }
        if it.paused {
            it.inbox.0.push(Box::new(move |world: &mut Self| {
                world.on_executor(executor, deed);
            }));
        } else {
            deed(self);
        }
    }

    /// Tells an executor a fact.
    pub fn tell(&mut self, executor: usize, event: Event) {
        self.on_executor(executor, move |world| {
            let now = world.timestamp(0);
            world.executors[executor].state.apply(event, now);
            world.turn(executor);
        });
    }

    /// Plans and performs until nothing is left to do.
    pub fn turn(&mut self, executor: usize) {
        for _ in 0..PLANS_IN_A_ROW {
            let now = self.timestamp(0);
            let plan = plan(&self.executors[executor].state, now);
            if plan.actions.is_empty() {
                if let Some(at) = plan.wake_at {
                    self.wake_executor(executor, at.since(now));
                }
                return;
            }
            for action in plan.actions {
                let it = &mut self.executors[executor];
                it.state.begin(&action, now);
                if action == Action::Exit {
                    self.task_exits(executor);
                    return;
                }
                self.perform(executor, action);
            }
            let it = &mut self.executors[executor];
            let wanted = it.state.step_under_way();
            if it
                .step
                .as_ref()
                .is_some_and(|step| Some(step.number) != wanted)
            {
                it.step = None;
                if let Some(process) = it.starting.take() {
                    self.kill_process(process);
                }
            }
        }
        self.wrong(|| format!("the plan of executor {executor} does not come to rest"));
    }

    fn wake_executor(&mut self, executor: usize, after: std::time::Duration) {
        let it = &mut self.executors[executor];
        it.wake += 1;
        let wake = it.wake;
        it.wakes_at = self.now + micros(after);
        self.after(micros(after), move |world| {
            if world.executors[executor].wake == wake {
                world.on_executor(executor, move |world| world.turn(executor));
            }
        });
    }

    /// What `execute.rs` does.
    fn perform(&mut self, executor: usize, action: Action) {
        match action {
            Action::Promise { epoch, data } => self.promise(executor, epoch, data),
            Action::Begin { number, step } => {
                note!(self, "executor {executor} begins {step:?}");
                self.begin_step(executor, number, step);
            }
            // No cluster of the simulation is backed up.
            Action::Abandon { .. }
            | Action::BackUp { .. }
            | Action::AbandonBackup { .. }
            | Action::Archive { .. }
            | Action::AbandonArchive { .. } => {}
            Action::Kill { process } => {
                if let Some(process) = self.process_with(executor, process) {
                    self.kill_process(process);
                }
            }
            Action::Terminate { process } => {
                if let Some(process) = self.process_with(executor, process) {
                    self.terminate_process(process);
                }
            }
            Action::Observe { process } => self.look(executor, process),
            Action::WriteCanary {
                process, number, ..
            } => {
                let Some(index) = self.process_with(executor, process) else {
                    return;
                };
                let waiter = Waiter::Canary { executor, number };
                self.after_on_process(300, index, move |world| {
                    world.commit(index, Kind::Canary(number), waiter);
                });
                self.unless_answered(
                    executor,
                    CANARY_DEADLINE,
                    Event::Canary {
                        process,
                        number: Err("there is no acknowledgement".to_owned()),
                    },
                );
            }
            Action::SetTerms { process, terms } => {
                let Some(index) = self.process_with(executor, process) else {
                    return;
                };
                self.after_on_process(300, index, move |world| {
                    world.processes[index].k = terms.acknowledgements;
                    world.bar(index, terms.barred.clone());
                    let terms = Ok(terms);
                    world.tell(executor, Event::TermsSet { process, terms });
                });
            }
            Action::Prove { process } => {
                let Some(index) = self.process_with(executor, process) else {
                    return;
                };
                self.after_on_process(300, index, move |world| {
                    world.commit(index, Kind::Proof, Waiter::Proof { executor });
                });
                self.after(CANARY_DEADLINE, move |world| {
                    world.tell(executor, Event::Proved { process });
                });
            }
            // What stands in the file is of no interest to a history.
            Action::Export { data, .. } => self.after(300_000, move |world| {
                let export = Ok("exported".to_owned());
                world.tell(executor, Event::Exported { data, export });
            }),
            Action::ReadCanary { process } => {
                let Some(index) = self.process_with(executor, process) else {
                    return;
                };
                self.after_on_process(300, index, move |world| {
                    let number = Ok(world.processes[index].canary.unwrap_or(0));
                    world.executors[executor].asked += 1;
                    world.tell(executor, Event::Canary { process, number });
                });
                self.unless_answered(
                    executor,
                    STATEMENT_TIMEOUT,
                    Event::Canary {
                        process,
                        number: Err("there is no answer".to_owned()),
                    },
                );
            }
            Action::Ping { process } => {
                let Some(index) = self.process_with(executor, process) else {
                    return;
                };
                self.after_on_process(300, index, move |world| {
                    world.tell(
                        executor,
                        Event::Answered {
                            process,
                            alive: true,
                        },
                    );
                });
                if self.processes[index].hung {
                    self.after(STATEMENT_TIMEOUT, move |world| {
                        world.tell(
                            executor,
                            Event::Answered {
                                process,
                                alive: false,
                            },
                        );
                    });
                }
                let host = self.executors[executor].host;
                let full = self.disk_full_until[host] > self.now;
                let available = Some(if full { 1 << 20 } else { 1 << 30 });
                self.tell_soon(executor, Event::Space { available });
            }
            Action::Check { process } => {
                let Some(index) = self.process_with(executor, process) else {
                    return;
                };
                self.after_on_process(300, index, move |world| {
                    world.commit(index, Kind::Proof, Waiter::Check { executor });
                });
            }
            Action::AskVoters {
                process,
                master,
                voters,
            } => {
                let voters = voters.into_iter().map(|(_, address)| address).collect();
                self.ask_voters(executor, process, &master, voters);
            }
            Action::Guard { process, patience } => {
                let Some(index) = self.process_with(executor, process) else {
                    return;
                };
                self.guard(index, micros(patience));
                let started = Ok(());
                self.tell_soon(executor, Event::Guarded { process, started });
            }
            Action::Feed { process } => {
                if let Some(index) = self.process_with(executor, process) {
                    self.processes[index].fed_at = self.now;
                }
            }
            Action::Report(report) => {
                note!(
                    self,
                    "executor {executor} reports {:?} promised {} held {:?} {:?}",
                    report.state,
                    report.promised,
                    report.held.as_ref().map(|held| held.position.to_string()),
                    report.problem
                );
                self.executors[executor].report = Some(Rc::new(*report));
                self.write_report(executor);
            }
            Action::Update(update) => self.update(executor, &update),
            Action::Exit => {}
        }
    }

    /// Tells a fact that does not take long to find out.
    fn tell_soon(&mut self, executor: usize, event: Event) {
        self.after(500, move |world| world.tell(executor, event));
    }

    /// Whether every other voter still receives from a master.
    fn ask_voters(
        &mut self,
        executor: usize,
        process: ProcessId,
        master: &Address,
        voters: Vec<Option<Address>>,
    ) {
        let master = (place(&master.host), master.port);
        let delay = self.network() * 2;
        self.after(delay, move |world| {
            let host = world.executors[executor].host;
            let receives = |address: &Option<Address>| {
                let address = address.as_ref()?;
                let place = place(&address.host);
                let found = world.listening.get(&(place, address.port))?;
                let it = &world.processes[*found];
                let receives =
                    it.receiver.source == Some(master) && it.receiver.connected.is_some();
                (receives && !it.hung && world.both_open(host, place)).then_some(())
            };
            let all_receive = match voters.iter().all(|voter| receives(voter).is_some()) {
                true => Ok(()),
                false => Err("one of them does not receive from it".to_owned()),
            };
            let delay = if all_receive.is_ok() { 500 } else { 2 * SECOND };
            world.after(delay, move |world| {
                let asked = Event::VotersAsked {
                    process,
                    all_receive,
                };
                world.tell(executor, asked);
            });
        });
    }

    pub fn checked(&mut self, executor: usize, process: usize) {
        let process = self.processes[process].id;
        let committed = Ok(());
        self.tell(executor, Event::Checked { process, committed });
    }

    fn promise(&mut self, executor: usize, epoch: Epoch, data: Option<DataId>) {
        let host = self.executors[executor].host;
        let full = self.disk_full_until[host] > self.now;
        let delay = match full {
            true => MILLISECOND,
            false => self.disk(host) * 2,
        };
        let refuses = self.setup.disks_fail && self.faults_go_on && self.chance.percent(2);
        let fails = full || refuses;
        let stored = !fails || !full && self.chance.percent(50);
        self.after(delay, move |world| {
            world.on_executor(executor, move |world| {
                if stored {
                    let sandbox = &world.executors[executor].sandbox;
                    let mut kept = sandbox.borrow_mut();
                    kept.epoch = epoch;
                    kept.data = data;
                }
                let event = if fails {
                    let problem = "the disk does not take it".to_owned();
                    Event::PromiseFailed { problem }
                } else {
                    note!(world, "executor {executor} has promised {epoch}");
                    Event::Promised { epoch, data }
                };
                world.tell(executor, event);
            });
        });
    }

    fn look(&mut self, executor: usize, process: ProcessId) {
        let Some(index) = self.process_with(executor, process) else {
            return;
        };
        let delay = self.chance.between(200, 2000);
        self.after_on_process(delay, index, move |world| {
            let seen = Ok(Box::new(world.observe(index)));
            world.tell(executor, Event::Observed { process, seen });
        });
        if self.processes[index].hung {
            self.after(STATEMENT_TIMEOUT, move |world| {
                let seen = Err("there is no answer".to_owned());
                world.tell(executor, Event::Observed { process, seen });
            });
        }
    }

    /// Says so when nothing was answered in time.
    fn unless_answered(&mut self, executor: usize, deadline: u64, event: Event) {
        self.executors[executor].asked += 1;
        let asked = self.executors[executor].asked;
        self.after(deadline, move |world| {
            if world.executors[executor].asked == asked {
                world.tell(executor, event);
            }
        });
    }

    pub fn canary_written(&mut self, executor: usize, process: usize, number: u64) {
        let process = self.processes[process].id;
        self.executors[executor].asked += 1;
        self.tell(
            executor,
            Event::Canary {
                process,
                number: Ok(number),
            },
        );
    }

    pub fn proved(&mut self, executor: usize, process: usize) {
        let process = self.processes[process].id;
        self.tell(executor, Event::Proved { process });
    }

    /// The running server, if it is this one.
    pub fn process_with(&self, executor: usize, id: ProcessId) -> Option<usize> {
        let process = self.executors[executor].process;
        process.filter(|process| self.processes[*process].id == id)
    }

    /// A server has ended, and nothing of it is left.
    pub fn process_ended(&mut self, executor: usize, process: usize) {
        let it = &mut self.executors[executor];
        if it.starting == Some(process) {
            it.starting = None;
            if let Some(number) = it.step.as_ref().map(|step| step.number) {
                self.step_fails(executor, number, "the server ended while it was starting");
            }
        } else if it.process == Some(process) {
            self.on_executor(executor, move |world| {
                world.executors[executor].process = None;
                let process = world.processes[process].id;
                let how = "was ended".to_owned();
                world.tell(executor, Event::Exited { process, how });
            });
        }
    }

    fn update(&mut self, executor: usize, update: &TaskUpdate) {
        use crate::scheduler::event::TaskState;
        let (state, message) = match update {
            TaskUpdate::Starting => (TaskState::Starting, ""),
            TaskUpdate::Running => (TaskState::Running, ""),
            TaskUpdate::Killing => (TaskState::Killing, ""),
            TaskUpdate::Killed => (TaskState::Killed, ""),
            TaskUpdate::Failed { problem } => (TaskState::Failed, problem.as_str()),
        };
        let task = self.executors[executor].task.clone();
        self.task_update(&task, state, message.to_owned());
    }

    /// The executor ends by itself: its session is closed, and its report goes with that.
    fn task_exits(&mut self, executor: usize) {
        self.close_session(executor);
        self.executor_ends(executor);
    }
}
