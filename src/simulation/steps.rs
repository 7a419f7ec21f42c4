//! What each step of the lifecycle does to the model of the server, statement by statement, as `executor/steps.rs`
//! does to a real one.

use std::rc::Rc;

use super::{
    Shell,
    executor::STATEMENT_TIMEOUT,
    history::Kind,
    mysqld::{Data, Waiter},
    world::{CLIENT, MILLISECOND, Moment, SECOND, World, micros, note},
};
use crate::{
    cluster::{
        control::ServerKind,
        flavour::{Flavour, ServerVersion},
        gtid::Position,
        id::DataId,
    },
    executor::{
        action::{Birth, CopySource, Step},
        event::{Event, Outcome},
    },
};

const ADMIT_DEADLINE: u64 = 600 * SECOND;

/// A step under way.
#[derive(Debug)]
pub struct RunningStep {
    pub number: u64,
    pub step: Step,
    waits: Waits,
    /// What `Open` still has to commit.
    to_commit: Vec<Kind>,
}

#[derive(Debug, Clone)]
enum Waits {
    /// For nothing that [`World::look_at_step`] would see.
    No,
    /// Until all that was received is applied.
    Applied { deadline: Moment },
    /// Until something is executed.
    Executed {
        position: Position,
        deadline: Moment,
    },
}

impl World {
    pub fn begin_step(&mut self, executor: usize, number: u64, step: Step) {
        self.executors[executor].step = Some(RunningStep {
            number,
            step: step.clone(),
            waits: Waits::No,
            to_commit: Vec::new(),
        });
        let host = self.executors[executor].host;
        let stall = self.disk_stalls_until[host].saturating_sub(self.now);
        match step {
            Step::Install => {
                let delay = self.chance.between(5 * MILLISECOND, 100 * MILLISECOND);
                let outcome = Outcome::Installed(server_kind(self.setup.flavour));
                self.after(delay, move |world| {
                    world.step_ends(executor, number, Ok(outcome))
                });
            }
            Step::MakeData { set_aside, .. } => {
                let delay = self.chance.between(20 * MILLISECOND, 500 * MILLISECOND) + stall;
                self.after(delay, move |world| {
                    world.make_data(executor, number, set_aside)
                });
            }
            // No cluster of the simulation is made from a backup.
            Step::Restore => {}
            Step::Start { data, birth } => {
                if let Birth::Copied { instead_of } = birth {
                    self.forget_empty(executor, instead_of);
                }
                let delay = self.chance.between(80 * MILLISECOND, 1500 * MILLISECOND) + stall;
                self.start_server(executor, number, data, delay);
            }
            Step::Hold { .. } => self.hold(executor, number),
            // No cluster of the simulation has backups.
            Step::Copy {
                source: CopySource::Backup(_),
                ..
            } => {}
            Step::Copy {
                source: CopySource::Donor(donor),
                ..
            } => {
                let source = (place(&donor.host), donor.port);
                self.copy(executor, number, source);
            }
            Step::Apply { within, .. } => {
                let deadline = self.now + micros(within);
                self.wait_in_step(executor, number, Waits::Applied { deadline });
            }
            Step::Prepare { terms, .. } => {
                self.statement(executor, number, move |world, process| {
                    if !world.stops_with_all_executed(executor, number, process) {
                        return;
                    }
                    let it = &mut world.processes[process];
                    it.receiver.source = None;
                    it.k = terms.acknowledgements;
                    world.bar(process, terms.barred.clone());
                    world.step_ends(executor, number, Ok(Outcome::Finished));
                })
            }
            Step::Mark { epoch } => self.statement(executor, number, move |world, process| {
                let found = world.processes[process]
                    .executed
                    .highest_marker(world.history.cluster);
                let kind = match found.cmp(&epoch) {
                    std::cmp::Ordering::Less => Kind::Marker(epoch),
                    std::cmp::Ordering::Equal => Kind::Proof,
                    std::cmp::Ordering::Greater => {
                        return world.step_fails(executor, number, "a later marker is there");
                    }
                };
                world.commit(process, kind, Waiter::Step { executor, number });
            }),
            Step::Open { epoch, .. } => self.statement(executor, number, move |world, process| {
                world.processes[process].read_only = false;
                if let Some(step) = &mut world.executors[executor].step
                    && world.processes[process].canary.is_none()
                {
                    step.to_commit = vec![Kind::Canary(0), Kind::User];
                }
                note!(
                    world,
                    "member {} opens in {epoch}",
                    world.executors[executor].member
                );
                world.open_further(executor, number, process);
            }),
            Step::Follow {
                host,
                port,
                acknowledge,
                ..
            } => self.statement(executor, number, move |world, process| {
                world.follow(executor, number, process, &host, port, acknowledge);
            }),
            Step::Approach { target, within, .. } => {
                let deadline = self.now + micros(within);
                self.approach(
                    executor,
                    number,
                    (place(&target.host), target.port),
                    deadline,
                );
            }
            Step::Close {
                target, closed_for, ..
            } => {
                let deadline = self.now + micros(closed_for);
                self.close(
                    executor,
                    number,
                    (place(&target.host), target.port),
                    deadline,
                );
            }
            Step::Reopen { .. } => self.statement(executor, number, move |world, process| {
                world.processes[process].read_only = false;
                world.step_ends(executor, number, Ok(Outcome::Finished));
            }),
            Step::Yield { position, .. } => self.yield_place(executor, number, position),
            Step::Admit { marker, .. } => {
                let deadline = self.now + ADMIT_DEADLINE;
                let position = marker;
                self.wait_in_step(executor, number, Waits::Executed { position, deadline });
            }
            Step::Halt { refuse_clients, .. } => {
                self.statement(executor, number, move |world, process| {
                    world.stop_receiving(process);
                    if refuse_clients {
                        world.processes[process].applier = false;
                        world.processes[process].admitted = false;
                    }
                    world.step_ends(executor, number, Ok(Outcome::Finished));
                });
            }
        }
    }

    // === how steps go on and end ===

    pub(super) fn is_under_way(&self, executor: usize, number: u64) -> bool {
        let step = self.executors[executor].step.as_ref();
        step.is_some_and(|step| step.number == number)
    }

    pub(super) fn step_ends(
        &mut self,
        executor: usize,
        number: u64,
        outcome: Result<Outcome, String>,
    ) {
        self.on_executor(executor, move |world| {
            if world.is_under_way(executor, number) {
                world.executors[executor].step = None;
                world.tell(executor, Event::Done { number, outcome });
            }
        });
    }

    pub fn step_fails(&mut self, executor: usize, number: u64, problem: &str) {
        note!(self, "a step of executor {executor} fails: {problem}");
        self.step_ends(executor, number, Err(problem.to_owned()));
    }

    /// One statement of a step.
    pub(super) fn statement(
        &mut self,
        executor: usize,
        number: u64,
        deed: impl FnOnce(&mut Self, usize) + 'static,
    ) {
        let delay = match self.chance.below(30) {
            0 => self.chance.between(5 * MILLISECOND, 200 * MILLISECOND),
            _ => self.chance.between(100, 2 * MILLISECOND),
        };
        self.after(delay, move |world| {
            world.on_executor(executor, move |world| {
                if !world.is_under_way(executor, number) {
                    return;
                }
                let process = world.executors[executor].process;
                let Some(process) = process.filter(|p| world.processes[*p].alive) else {
                    return world.step_fails(executor, number, "the server does not run");
                };
                if world.processes[process].hung {
                    world.after(STATEMENT_TIMEOUT, move |world| {
                        world.step_fails(executor, number, "there is no answer");
                    });
                }
                world.on_process(process, move |world| {
                    if world.is_under_way(executor, number) {
                        deed(world, process);
                    }
                });
            });
        });
    }

    fn wait_in_step(&mut self, executor: usize, number: u64, waits: Waits) {
        self.statement(executor, number, move |world, process| {
            if let Waits::Applied { .. } = waits {
                let it = &mut world.processes[process];
                it.applier = true;
                it.applier_error = None;
            }
            let (Waits::Applied { deadline } | Waits::Executed { deadline, .. }) = waits else {
                return;
            };
            if let Some(step) = &mut world.executors[executor].step {
                step.waits = waits;
            }
            let rest = deadline.saturating_sub(world.now);
            world.after(rest, move |world| world.look_at_step(executor));
            world.apply_next(process);
            world.look_at_step(executor);
        });
    }

    /// Sees whether what a step waits for has come.
    pub fn look_at_step(&mut self, executor: usize) {
        let it = &self.executors[executor];
        let (Some(step), Some(process)) = (&it.step, it.process) else {
            return;
        };
        let number = step.number;
        let server = &self.processes[process];
        let (come, deadline) = match &step.waits {
            Waits::No => return,
            Waits::Applied { deadline } => (self.data[server.data].relay.is_empty(), *deadline),
            Waits::Executed { position, deadline } => {
                (server.executed.contains(position), *deadline)
            }
        };
        let failed = match &server.applier_error {
            Some(_) => Some("the applier has stopped with an error"),
            None if self.now >= deadline => Some("it takes too long"),
            None => None,
        };
        let admits = matches!(step.step, Step::Admit { .. });
        if !come && failed.is_none() {
            return;
        }
        if let Some(step) = &mut self.executors[executor].step {
            step.waits = Waits::No;
        }
        match failed {
            Some(problem) if !come => self.step_fails(executor, number, problem),
            _ if admits => self.statement(executor, number, move |world, process| {
                world.processes[process].admitted = true;
                world.step_ends(executor, number, Ok(Outcome::Finished));
            }),
            _ => self.step_ends(executor, number, Ok(Outcome::Finished)),
        }
    }

    /// A commit that a step has made is acknowledged.
    pub fn step_committed(&mut self, executor: usize, number: u64) {
        if !self.is_under_way(executor, number) {
            return;
        }
        match self.executors[executor].process {
            Some(process) if self.is_opening(executor) => {
                self.open_further(executor, number, process);
            }
            _ => self.step_ends(executor, number, Ok(Outcome::Finished)),
        }
    }

    // === the steps ===

    fn make_data(&mut self, executor: usize, number: u64, set_aside: Option<DataId>) {
        if !self.executors[executor].alive || !self.is_under_way(executor, number) {
            return;
        }
        let sandbox = Rc::clone(&self.executors[executor].sandbox);
        if let Some(id) = set_aside {
            let directories = sandbox.borrow().directories.clone();
            let found = directories
                .into_iter()
                .find(|index| self.data[*index].id == id);
            if let Some(index) = found {
                self.set_aside(index);
            }
        }
        let id = DataId(self.uuid());
        let uuid = self.uuid();
        let (member, host) = (
            self.executors[executor].member,
            self.executors[executor].host,
        );
        self.data
            .push(Data::new(id, member, host, uuid, self.setup.flavour));
        sandbox.borrow_mut().directories.push(self.data.len() - 1);
        self.step_ends(executor, number, Ok(Outcome::DataMade(id)));
    }

    /// Copies a donor's data, or finds that replaying the master's binlogs costs less.
    fn copy(&mut self, executor: usize, number: u64, source: (usize, u16)) {
        let delay = self.chance.between(50 * MILLISECOND, 4 * SECOND);
        if self.chance.percent(40) {
            let cheaper = Ok(Outcome::ReplayIsCheaper);
            return self.after(delay, move |world| {
                world.step_ends(executor, number, cheaper)
            });
        }
        self.after(delay, move |world| {
            if !world.executors[executor].alive || !world.is_under_way(executor, number) {
                return;
            }
            let host = world.executors[executor].host;
            let donor = world.listening.get(&source).copied();
            let donor =
                donor.filter(|p| world.both_open(host, source.0) && !world.processes[*p].hung);
            let Some(donor) = donor else {
                return world.step_fails(executor, number, "the donor cannot be reached");
            };
            let committed = world.processes[donor].committed;
            let log = world.data[world.processes[donor].data].binlog[..committed].to_vec();
            let (id, uuid) = (DataId(world.uuid()), world.uuid());
            let member = world.executors[executor].member;
            let mut data = Data::new(id, member, host, uuid, world.setup.flavour);
            data.fill(log, &world.history.transactions);
            world.data.push(data);
            let sandbox = &world.executors[executor].sandbox;
            sandbox.borrow_mut().directories.push(world.data.len() - 1);
            world.step_ends(executor, number, Ok(Outcome::Copied(id)));
        });
    }

    /// The empty directory that a copy takes the place of is removed.
    fn forget_empty(&mut self, executor: usize, id: DataId) {
        let directories = self.executors[executor]
            .sandbox
            .borrow()
            .directories
            .clone();
        for index in directories {
            if self.data[index].id == id {
                self.set_aside(index);
            }
        }
    }

    fn start_server(&mut self, executor: usize, number: u64, data: DataId, delay: u64) {
        let directories = self.executors[executor]
            .sandbox
            .borrow()
            .directories
            .clone();
        let found = directories
            .into_iter()
            .find(|index| self.data[*index].id == data);
        let Some(index) = found.filter(|index| !self.data[*index].gone) else {
            return self.step_fails(executor, number, "there is no such data directory");
        };
        let process = self.spawn(executor, index);
        note!(
            self,
            "mysqld {process} of member {} starts",
            self.executors[executor].member
        );
        self.executors[executor].starting = Some(process);
        self.after_on_process(delay, process, move |world| {
            world.becomes_ready(process);
            world.on_executor(executor, move |world| {
                if world.is_under_way(executor, number) && world.processes[process].alive {
                    world.executors[executor].starting = None;
                    world.executors[executor].process = Some(process);
                    let id = world.processes[process].id;
                    world.step_ends(executor, number, Ok(Outcome::Started(id)));
                }
            });
        });
    }

    fn hold(&mut self, executor: usize, number: u64) {
        let stops_first = !self.bend.breaks(Shell::ReceiverStopsBeforeReading);
        self.statement(executor, number, move |world, process| {
            if stops_first {
                world.stop_receiving(process);
            }
            world.statement(executor, number, move |world, process| {
                let executed = world.processes[process].executed.clone();
                world.statement(executor, number, move |world, process| {
                    let received = world.unapplied(process);
                    let now_executed = &world.processes[process].executed;
                    let Ok(position) = now_executed.union(&received) else {
                        return;
                    };
                    if !stops_first {
                        // It goes on receiving for a moment.
                        let delay = world.chance.between(0, 300 * MILLISECOND);
                        world.after_on_process(delay, process, move |world| {
                            if world.is_holding(process) {
                                world.stop_receiving(process);
                            }
                        });
                    }
                    let outcome = Outcome::Held { position, executed };
                    world.step_ends(executor, number, Ok(outcome));
                });
            });
        });
    }

    /// Whether nothing has made the server receive anew since.
    fn is_holding(&self, process: usize) -> bool {
        self.processes[process].receiver.wanted
    }

    fn is_opening(&self, executor: usize) -> bool {
        let step = self.executors[executor].step.as_ref();
        step.is_some_and(|step| matches!(step.step, Step::Open { .. }))
    }

    /// Makes the cluster's user if need be, then lets clients in.
    fn open_further(&mut self, executor: usize, number: u64, process: usize) {
        let step = self.executors[executor].step.as_mut();
        match step.and_then(|step| step.to_commit.pop()) {
            Some(kind) => {
                self.commit(process, kind, Waiter::Step { executor, number });
            }
            None => self.statement(executor, number, move |world, process| {
                world.processes[process].admitted = true;
                world.master_has_opened(executor, process);
                let step = world.executors[executor].step.as_ref();
                if let Some(epoch) = step.and_then(|step| step.step.epoch()) {
                    world.fill_markers(process, epoch);
                }
                world.step_ends(executor, number, Ok(Outcome::Finished));
                let process = world.processes[process].id;
                world.after(MILLISECOND, move |world| {
                    world.tell(executor, Event::Tidied { process });
                });
            }),
        }
    }

    fn stop_receiving(&mut self, process: usize) {
        self.processes[process].receiver.wanted = false;
        self.disconnect(process);
    }

    /// Stops both threads if all that was received is executed.
    fn stops_with_all_executed(&mut self, executor: usize, number: u64, process: usize) -> bool {
        self.stop_receiving(process);
        let data = self.processes[process].data;
        if !self.data[data].relay.is_empty() {
            if !self
                .bend
                .breaks_rule(crate::rules::Rule::AppliedBeforeFollowing)
            {
                self.step_fails(executor, number, "something received is not applied");
                return false;
            }
            // CHANGE REPLICATION SOURCE throws the relay logs away.
            let data = &mut self.data[data];
            data.relay.clear();
            data.has = data.binlog.iter().copied().collect();
        }
        self.processes[process].applier = false;
        true
    }

    fn follow(
        &mut self,
        executor: usize,
        number: u64,
        process: usize,
        host: &str,
        port: u16,
        acknowledge: bool,
    ) {
        if !self.stops_with_all_executed(executor, number, process) {
            return;
        }
        let host = place(host);
        let it = &mut self.processes[process];
        it.receiver.source = Some((host, port));
        it.receiver.acknowledges = acknowledge;
        it.receiver.wanted = true;
        it.applier = true;
        it.applier_error = None;
        self.try_to_connect(process);
        self.step_ends(executor, number, Ok(Outcome::Finished));
    }
}

/// The place of a host's name.
pub fn place(host: &str) -> usize {
    host.trim_start_matches('h').parse().unwrap_or(CLIENT)
}

pub fn server_kind(flavour: Flavour) -> ServerKind {
    let version = match flavour {
        Flavour::Mysql => ServerVersion::new(9, 7, 4),
        Flavour::Mariadb => ServerVersion::new(10, 11, 19),
    };
    ServerKind { flavour, version }
}
