//! The model of ZooKeeper: sessions that expire, nodes that go with them, watches that are told later, and transactions
//! whose answer may get lost.

use std::{collections::BTreeMap, rc::Rc};

use super::{
    setup::SESSION_TIMEOUT,
    world::{MILLISECOND, Moment, SECOND, World, ZOOKEEPER, note},
};
use crate::{
    cluster::{
        control::{Goal, Report},
        id::TaskId,
        record::ClusterRecord,
        retained::Retained,
    },
    executor::event::Event as ExecutorEvent,
    scheduler::event::Event as SchedulerEvent,
};

const TIMEOUT: u64 = SESSION_TIMEOUT.as_micros() as u64;

/// What is stored, and who is connected.
#[derive(Debug)]
pub struct ZooKeeper {
    pub up: bool,
    pub record: Option<(Rc<ClusterRecord>, i32)>,
    /// What is kept of the deleted cluster.
    pub retained: Option<(Rc<Retained>, i32)>,
    /// Moved by each scheduler that takes over.
    pub fence: u64,
    pub framework: bool,
    pub goal: Option<Rc<Goal>>,
    /// What a server that lags behind still has.
    former_goal: Option<Rc<Goal>>,
    /// What the server of a host's executors has, and until when, for sessions that begin there.
    pub lagging: BTreeMap<usize, (Rc<Goal>, Moment)>,
    pub reports: BTreeMap<TaskId, Node>,
    next_session: u64,
    next_change: u64,
}

/// The node of a report.
#[derive(Debug, Clone)]
pub struct Node {
    pub report: Rc<Report>,
    session: u64,
    change: u64,
}

/// One client's session.
#[derive(Debug, Default)]
pub struct Session {
    id: u64,
    /// Whether requests are answered.
    pub connected: bool,
    /// Whether ZooKeeper can be reached at all.
    linked: bool,
    /// Whether ZooKeeper still knows the session.
    alive: bool,
    down_since: Moment,
    /// Counts the times that the link came or went.
    pub number: u64,
    /// When the last message arrives: later ones do not overtake it.
    last_arrival: Moment,
    writing: bool,
    /// The report that is in the session's node.
    written: Option<Rc<Report>>,
    /// Until when its server lags behind.
    lags_until: Moment,
}

/// A client of ZooKeeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    Executor(usize),
    Scheduler(usize),
}

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transacted {
    Stored(i32),
    Deposed,
    Conflict,
    Uncertain,
}

impl Default for ZooKeeper {
    fn default() -> Self {
        Self {
            up: true,
            record: None,
            retained: None,
            fence: 0,
            framework: false,
            goal: None,
            former_goal: None,
            lagging: BTreeMap::new(),
            reports: BTreeMap::new(),
            next_session: 0,
            next_change: 0,
        }
    }
}

impl World {
    pub fn session(&mut self, party: Party) -> &mut Session {
        match party {
            Party::Executor(executor) => &mut self.executors[executor].session,
            Party::Scheduler(scheduler) => &mut self.schedulers[scheduler].session,
        }
    }

    fn reaches_zookeeper(&self, party: Party) -> bool {
        let (runs, place) = match party {
            Party::Executor(executor) => {
                let it = &self.executors[executor];
                (it.alive && !it.paused, it.host)
            }
            Party::Scheduler(scheduler) => {
                let it = &self.schedulers[scheduler];
                (it.alive && !it.paused, super::world::SCHEDULER)
            }
        };
        runs && self.zookeeper.up && self.both_open(place, ZOOKEEPER)
    }

    /// Whether all of ZooKeeper answers.
    pub fn set_zookeeper(&mut self, up: bool) {
        if self.zookeeper.up == up {
            return;
        }
        note!(self, "ZooKeeper is {}", if up { "up" } else { "down" });
        self.zookeeper.up = up;
        self.relink();
        if up {
            // A new leader gives every session its full timeout again.
            for party in self.parties() {
                let session = self.session(party);
                if session.alive && !session.linked {
                    let number = session.number;
                    self.after(TIMEOUT, move |world| world.session_expires(party, number));
                }
            }
        }
    }

    fn parties(&self) -> Vec<Party> {
        let executors = (0..self.executors.len()).map(Party::Executor);
        executors
            .chain((0..self.schedulers.len()).map(Party::Scheduler))
            .collect()
    }

    /// Sees who reaches ZooKeeper now and did not before, and the other way round.
    pub fn relink(&mut self) {
        for party in self.parties() {
            let reaches = self.reaches_zookeeper(party);
            let session = self.session(party);
            if session.linked != reaches {
                session.linked = reaches;
                session.number += 1;
                session.writing = false;
                if reaches {
                    self.link_comes(party);
                } else {
                    self.link_goes(party);
                }
            }
        }
    }

    fn link_goes(&mut self, party: Party) {
        let now = self.now;
        let session = self.session(party);
        let was_connected = std::mem::take(&mut session.connected);
        session.down_since = now;
        let number = session.number;
        // The last heartbeat was a third of the timeout ago at the most.
        let left = self.chance.between(TIMEOUT * 2 / 3, TIMEOUT);
        self.after(left, move |world| world.session_expires(party, number));
        match party {
            Party::Scheduler(scheduler) if was_connected => {
                self.scheduler_hears(scheduler, SchedulerEvent::ControlLost);
            }
            Party::Executor(executor) if was_connected => {
                // A client that hears nothing for 2/5 of the timeout knows.
                let delay = self.chance.between(0, TIMEOUT * 2 / 5);
                self.after(delay, move |world| {
                    if world.executors[executor].session.number == number {
                        let in_touch = false;
                        world.tell(executor, ExecutorEvent::Contact { in_touch });
                    }
                });
            }
            Party::Scheduler(_) | Party::Executor(_) => {}
        }
    }

    fn session_expires(&mut self, party: Party, number: u64) {
        let up = self.zookeeper.up;
        let session = self.session(party);
        if session.number == number && !session.linked && session.alive && up {
            session.alive = false;
            let id = session.id;
            note!(self, "the session of {party:?} expires");
            self.remove_nodes_of(id);
        }
    }

    fn remove_nodes_of(&mut self, session: u64) {
        let nodes = &self.zookeeper.reports;
        let of = nodes.iter().filter(|(_, node)| node.session == session);
        let tasks: Vec<TaskId> = of.map(|(task, _)| task.clone()).collect();
        for task in tasks {
            self.zookeeper.reports.remove(&task);
            self.report_changed(&task);
        }
    }

    /// The task has ended in good order: its report goes at once.
    pub fn close_session(&mut self, executor: usize) {
        let session = &mut self.executors[executor].session;
        if session.connected {
            session.alive = false;
            let id = session.id;
            self.remove_nodes_of(id);
        }
    }

    fn link_comes(&mut self, party: Party) {
        let delay = self.chance.between(MILLISECOND, SECOND);
        let number = self.session(party).number;
        self.after(delay, move |world| {
            if world.session(party).number == number {
                world.connects(party);
            }
        });
    }

    fn connects(&mut self, party: Party) {
        let now = self.now;
        let session = self.session(party);
        // The client library gives a session up after 7/5 of its timeout.
        let given_up = now > session.down_since + TIMEOUT * 7 / 5;
        let is_new = !session.alive || given_up || session.id == 0;
        let former = session.alive.then_some(session.id);
        session.connected = true;
        if is_new {
            session.alive = true;
            session.written = None;
            self.zookeeper.next_session += 1;
            let id = self.zookeeper.next_session;
            self.session(party).id = id;
            if let Some(former) = former {
                self.after(TIMEOUT, move |world| world.remove_nodes_of(former));
            }
        }
        match party {
            Party::Executor(executor) => {
                self.tell(executor, ExecutorEvent::Contact { in_touch: true });
                self.write_report(executor);
                // `sync` is no quorum operation: a lagging server may still answer with what was before.
                let host = self.executors[executor].host;
                if let Some((goal, until)) = self.zookeeper.lagging.get(&host).cloned()
                    && is_new
                    && self.now < until
                {
                    self.executors[executor].session.lags_until = until;
                    self.deliver_goal(executor, goal);
                    return self.after(until - now, move |world| world.read_goal(executor));
                }
                let stale = is_new && self.chance.percent(3);
                if let (true, Some(former)) = (stale, self.zookeeper.former_goal.clone()) {
                    self.deliver_goal(executor, former);
                    let delay = self.chance.between(50 * MILLISECOND, 2 * SECOND);
                    self.after(delay, move |world| world.read_goal(executor));
                } else {
                    self.read_goal(executor);
                }
            }
            Party::Scheduler(scheduler) => self.list_reports(scheduler),
        }
    }

    // === goals ===

    fn read_goal(&mut self, executor: usize) {
        let number = self.executors[executor].session.number;
        let delay = self.network();
        self.after(delay, move |world| {
            let session = &world.executors[executor].session;
            if session.connected
                && session.number == number
                && session.lags_until <= world.now
                && let Some(goal) = world.zookeeper.goal.clone()
            {
                world.deliver_goal(executor, goal);
            }
        });
    }

    fn deliver_goal(&mut self, executor: usize, goal: Rc<Goal>) {
        let at = self.arrival(Party::Executor(executor));
        self.at(
            at,
            Box::new(move |world| {
                world.tell(executor, ExecutorEvent::Goal(Box::new((*goal).clone())));
            }),
        );
    }

    /// When a message that is sent now arrives: not before those that were sent earlier.
    fn arrival(&mut self, party: Party) -> Moment {
        let at = self.now + self.network();
        let session = self.session(party);
        session.last_arrival = session.last_arrival.max(at);
        session.last_arrival
    }

    // === reports ===

    /// Writes the newest report, unless that is done or under way.
    pub fn write_report(&mut self, executor: usize) {
        let it = &mut self.executors[executor];
        let Some(report) = it.report.clone().filter(|_| it.session.connected) else {
            return;
        };
        let written = it.session.written.as_ref();
        if it.session.writing || written.is_some_and(|written| Rc::ptr_eq(written, &report)) {
            return;
        }
        it.session.writing = true;
        let number = it.session.number;
        let delay = self.network();
        self.after(delay, move |world| {
            let session = &mut world.executors[executor].session;
            if session.number != number {
                return;
            }
            session.writing = false;
            session.written = Some(Rc::clone(&report));
            let (session, task) = (session.id, report.task_id.clone());
            world.zookeeper.next_change += 1;
            let change = world.zookeeper.next_change;
            let node = Node {
                report,
                session,
                change,
            };
            world.zookeeper.reports.insert(task.clone(), node);
            world.report_changed(&task);
            world.write_report(executor);
        });
    }

    /// Tells the schedulers that watch.
    fn report_changed(&mut self, task: &TaskId) {
        for scheduler in 0..self.schedulers.len() {
            if self.schedulers[scheduler].session.connected {
                let number = self.schedulers[scheduler].session.number;
                let (delay, task) = (self.network(), task.clone());
                self.after(delay, move |world| {
                    if world.schedulers[scheduler].session.number == number {
                        world.tell_report(scheduler, task);
                    }
                });
            }
        }
    }

    /// Tells what is in a report's node now.
    fn tell_report(&mut self, scheduler: usize, task: TaskId) {
        let node = self.zookeeper.reports.get(&task).cloned();
        let known = &mut self.schedulers[scheduler].known;
        let cluster = super::scheduler::cluster_name();
        let event = match node {
            Some(node) => {
                if known.insert(task, node.change) == Some(node.change) {
                    return;
                }
                let report = Box::new((*node.report).clone());
                SchedulerEvent::Reported { cluster, report }
            }
            None if known.remove(&task).is_some() => SchedulerEvent::ReportGone {
                cluster,
                task_id: task,
            },
            None => return,
        };
        let at = self.arrival(Party::Scheduler(scheduler));
        self.at(
            at,
            Box::new(move |world| world.scheduler_hears(scheduler, event)),
        );
    }

    /// After a connection has begun: all that is there, what is not there any more, and then that this was all.
    fn list_reports(&mut self, scheduler: usize) {
        let number = self.schedulers[scheduler].session.number;
        let delay = self.network() * 2;
        self.after(delay, move |world| {
            if world.schedulers[scheduler].session.number != number {
                return;
            }
            let there = world.zookeeper.reports.keys().cloned();
            let known = world.schedulers[scheduler].known.keys().cloned();
            let mut tasks: Vec<TaskId> = there.chain(known).collect();
            tasks.sort();
            tasks.dedup();
            for task in tasks {
                world.tell_report(scheduler, task);
            }
            let at = world.arrival(Party::Scheduler(scheduler));
            world.at(
                at,
                Box::new(move |world| {
                    if world.schedulers[scheduler].session.number == number {
                        world.scheduler_hears(scheduler, SchedulerEvent::ControlRestored);
                    }
                }),
            );
        });
    }

    // === records ===

    /// Replaces the record, and the goal with it, if fence and version are right.
    pub fn transact(
        &mut self,
        scheduler: usize,
        record: &Rc<ClusterRecord>,
        expected: Option<i32>,
    ) -> Transacted {
        if self.schedulers[scheduler].fence != self.zookeeper.fence {
            return Transacted::Deposed;
        }
        let version = self.zookeeper.record.as_ref().map(|(_, version)| *version);
        if version != expected {
            return Transacted::Conflict;
        }
        let next = version.map_or(0, |version| version + 1);
        self.record_changes(record);
        self.zookeeper.record = Some((Rc::clone(record), next));
        let goal = Rc::new(record.goal());
        if self.zookeeper.goal.as_ref() != Some(&goal) {
            self.zookeeper.former_goal = self.zookeeper.goal.replace(goal);
            for executor in 0..self.executors.len() {
                if self.executors[executor].session.connected {
                    let delay = self.network();
                    self.after(delay, move |world| {
                        if world.executors[executor].session.connected {
                            world.read_goal(executor);
                        }
                    });
                }
            }
        }
        Transacted::Stored(next)
    }
}
