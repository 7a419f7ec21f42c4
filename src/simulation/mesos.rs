//! The model of Mesos: offers, launches that get lost, updates that come again until they are acknowledged, agents that
//! are lost and return, masters that fail over.

use std::collections::{BTreeMap, VecDeque};

use super::{
    scheduler::cluster_name,
    world::{MESOS, MILLISECOND, SCHEDULER, SECOND, World, note},
};
use crate::{
    cluster::{
        control::{FORMAT, Installer, TaskData},
        id::TaskId,
        timings::Timings,
    },
    executor::event::Event as ExecutorEvent,
    scheduler::{
        event::{Event, TaskState, TaskUpdate},
        members::KILL_GRACE_PERIOD,
        placement::{Launch, Offer},
    },
};

/// How often an agent repeats an update that is not acknowledged.
const UPDATE_RETRY: u64 = 10 * SECOND;

/// After how long the master gives up on an agent that does not answer.
const AGENT_TIMEOUT: u64 = 75 * SECOND;

/// After how long a scheduler notices that nothing comes from the master any more.
const HEARTBEATS_MISSED: u64 = 15 * SECOND;

#[derive(Debug)]
pub struct Mesos {
    pub up: bool,
    subscriber: Option<usize>,
    suppressed: bool,
    offers: BTreeMap<String, usize>,
    next_offer: u64,
    pub tasks: BTreeMap<TaskId, Task>,
    pub agents: Vec<Agent>,
    allocating: bool,
}

#[derive(Debug)]
pub struct Task {
    agent: usize,
    state: TaskState,
    pub executor: Option<usize>,
    unacknowledged: VecDeque<(TaskState, String)>,
    delivering: bool,
}

#[derive(Debug)]
pub struct Agent {
    /// Its host runs.
    pub up: bool,
    /// The master has given up on it.
    unreachable: bool,
    /// Counts its losses.
    number: u64,
}

impl Mesos {
    pub fn new(agents: usize) -> Self {
        let agent = || Agent {
            up: true,
            unreachable: false,
            number: 0,
        };
        Self {
            up: true,
            subscriber: None,
            suppressed: false,
            offers: BTreeMap::new(),
            next_offer: 0,
            tasks: BTreeMap::new(),
            agents: (0..agents).map(|_| agent()).collect(),
            allocating: false,
        }
    }
}

impl World {
    // === the connection ===

    /// A scheduler connects, and tries until that works.
    pub fn subscribe(&mut self, scheduler: usize) {
        let delay = self.chance.between(5 * MILLISECOND, 800 * MILLISECOND);
        self.after(delay, move |world| {
            world.on_scheduler(scheduler, move |world| {
                if !world.mesos.up || !world.both_open(SCHEDULER, MESOS) {
                    return world.after(SECOND, move |world| world.subscribe(scheduler));
                }
                // Whoever was subscribed is told that the framework failed over, and ends.
                let former = world.mesos.subscriber.replace(scheduler);
                if let Some(former) = former.filter(|former| *former != scheduler) {
                    let delay = world.network();
                    world.after(delay, move |world| {
                        world.on_scheduler(former, move |world| {
                            world.scheduler_ends(former, "the framework has failed over");
                        });
                    });
                }
                world.mesos.offers.clear();
                world.mesos.suppressed = false;
                let framework_id = "framework".to_owned();
                world.scheduler_hears(scheduler, Event::Subscribed { framework_id });
                world.allocate_soon();
            });
        });
    }

    fn subscription_ends(&mut self) {
        self.mesos.offers.clear();
        if let Some(scheduler) = self.mesos.subscriber.take() {
            self.scheduler_hears(scheduler, Event::MesosLost);
            self.subscribe(scheduler);
        }
    }

    /// Another master leads after a while.
    pub fn master_fails_over(&mut self, down_for: u64) {
        note!(self, "the Mesos master fails");
        self.mesos.up = false;
        self.subscription_ends();
        self.after(down_for, |world| world.mesos.up = true);
    }

    /// Whether the network between scheduler and Mesos lets nothing through for so long that it is noticed.
    pub fn mesos_network_broke(&mut self) {
        self.after(HEARTBEATS_MISSED, |world| {
            if !world.both_open(SCHEDULER, MESOS) {
                world.subscription_ends();
            }
        });
    }

    fn gets_to_mesos(&self, scheduler: usize) -> bool {
        self.mesos.up && self.mesos.subscriber == Some(scheduler) && self.open(SCHEDULER, MESOS)
    }

    fn gets_to_scheduler(&self) -> Option<usize> {
        let open = self.mesos.up && self.open(MESOS, SCHEDULER);
        self.mesos
            .subscriber
            .filter(|s| open && self.schedulers[*s].alive)
    }

    fn agent_answers(&self, agent: usize) -> bool {
        self.mesos.agents[agent].up && self.both_open(agent, MESOS)
    }

    // === offers ===

    pub fn allocate_soon(&mut self) {
        if !std::mem::replace(&mut self.mesos.allocating, true) {
            let delay = self.chance.between(5 * MILLISECOND, SECOND);
            self.after(delay, |world| world.allocate());
        }
    }

    fn allocate(&mut self) {
        self.mesos.allocating = false;
        let Some(scheduler) = self.gets_to_scheduler().filter(|_| !self.mesos.suppressed) else {
            return;
        };
        let mut offers = Vec::new();
        let mut withheld = false;
        for agent in 0..self.mesos.agents.len() {
            let occupied = self
                .mesos
                .tasks
                .values()
                .any(|task| task.agent == agent && !task.state.is_terminal());
            let offered = self.mesos.offers.values().any(|offered| *offered == agent);
            if occupied || offered || !self.agent_answers(agent) {
                continue;
            }
            if !self.may_take_the_next(agent) {
                withheld = true;
                continue;
            }
            self.mesos.next_offer += 1;
            let id = format!("o{}", self.mesos.next_offer);
            self.mesos.offers.insert(id.clone(), agent);
            offers.push(Offer {
                id,
                agent_id: format!("a{agent}"),
                host: format!("h{agent}"),
                role: "cotton".to_owned(),
                cpus: 2.0,
                mem_mib: 1024.0,
                disk_mib: 10_000.0,
                ports: vec![(31_000, 31_999)],
                slots: Vec::new(),
                attributes: BTreeMap::new(),
                unavailable: false,
            });
        }
        if withheld {
            self.after(SECOND, World::allocate_soon);
        }
        if !offers.is_empty() {
            note!(self, "offers of {:?}", self.mesos.offers);
            let delay = self.network();
            self.after(delay, move |world| {
                world.scheduler_hears(scheduler, Event::Offers(offers))
            });
        }
    }

    /// With volumes, the next member to be launched gets the agent that has its volume.
    fn may_take_the_next(&self, agent: usize) -> bool {
        let Some((record, _)) = self
            .zookeeper
            .record
            .as_ref()
            .filter(|_| self.setup.volumes)
        else {
            return true;
        };
        let mut waiting = record
            .members
            .iter()
            .filter(|(_, member)| member.task.is_none());
        let Some((next, _)) = waiting.next() else {
            return true;
        };
        let had = self
            .executors
            .iter()
            .rev()
            .find(|executor| executor.member == *next);
        // Where another member has taken its place, its volume does not help.
        let taken = |host: usize| self.executors.iter().any(|it| it.alive && it.host == host);
        had.is_none_or(|executor| executor.host == agent || taken(executor.host))
    }

    /// A scheduler suppresses offers or revives them.
    pub fn want_offers(&mut self, scheduler: usize, want: bool) {
        if self.gets_to_mesos(scheduler) {
            self.mesos.suppressed = !want;
            self.allocate_soon();
        }
    }

    pub fn decline(&mut self, scheduler: usize, offers: &[String], refuse_seconds: f64) {
        if !self.gets_to_mesos(scheduler) {
            return;
        }
        for offer in offers {
            self.mesos.offers.remove(offer);
        }
        if refuse_seconds < 10.0 {
            self.after((refuse_seconds * SECOND as f64) as u64, |world| {
                world.allocate_soon()
            });
        }
    }

    // === tasks ===

    /// A launch, on its way to the master and from there to the agent.
    pub fn accept(&mut self, scheduler: usize, launch: Launch) {
        let record = self.schedulers[scheduler]
            .state
            .clusters
            .get(&cluster_name());
        let record = record.map(|cluster| &cluster.record);
        let member = record.and_then(|record| record.member_of(&launch.task.task_id));
        let (Some(record), Some(member)) = (record, member) else {
            return;
        };
        let data = TaskData {
            format: FORMAT,
            cluster: cluster_name(),
            uuid: record.uuid,
            member,
            task_id: launch.task.task_id.clone(),
            port: launch.task.port,
            memory_mib: launch.size.mem_mib(),
            zookeeper: String::new(),
            zookeeper_identity: None,
            session_timeout_ms: 6000,
            admin_keypath: String::new(),
            installer: Installer::Search,
            timings: Timings::default(),
            copy_rate_mib: 0,
            restore: None,
        };
        self.history.cluster = record.uuid;
        let lost = self.setup.messages_get_lost && self.chance.percent(2);
        let delay = self.network();
        self.after(delay, move |world| {
            let task = launch.task.task_id.clone();
            if lost || !world.gets_to_mesos(scheduler) {
                // Lost between master and agent, or with a master that fails: the offer is used up all the same.
                world.mesos.offers.remove(&launch.offer.id);
                note!(world, "the launch of {task} is lost");
                return;
            }
            let Some(agent) = world.mesos.offers.remove(&launch.offer.id) else {
                let message = "the offer is not valid any more".to_owned();
                return world.tell_task(scheduler, &task, TaskState::Dropped, message);
            };
            world.mesos.tasks.insert(
                task.clone(),
                Task {
                    agent,
                    state: TaskState::Staging,
                    executor: None,
                    unacknowledged: VecDeque::new(),
                    delivering: false,
                },
            );
            let delay = world.chance.between(20 * MILLISECOND, 400 * MILLISECOND);
            world.after(delay, move |world| {
                if world.mesos.agents[agent].up {
                    let executor = world.executor_starts(data, agent);
                    if let Some(task) = world.mesos.tasks.get_mut(&task) {
                        task.executor = Some(executor);
                    }
                } else {
                    world.task_update(&task, TaskState::Gone, "its agent is gone".to_owned());
                }
            });
        });
    }

    /// A kill, on its way to the executor.
    pub fn kill_task(&mut self, scheduler: usize, task: &TaskId) {
        let lost = self.setup.messages_get_lost && self.chance.percent(10);
        let (delay, task) = (self.network() * 3, task.clone());
        self.after(delay, move |world| {
            let known = world
                .mesos
                .tasks
                .get(&task)
                .map(|task| (task.agent, task.executor));
            if let Some((agent, Some(executor))) = known
                && !lost
                && world.gets_to_mesos(scheduler)
                && world.agent_answers(agent)
            {
                let grace = KILL_GRACE_PERIOD;
                world.tell(executor, ExecutorEvent::Kill { grace });
            }
        });
    }

    /// An agent learns something of a task, and tells it until that is acknowledged.
    pub fn task_update(&mut self, task: &TaskId, state: TaskState, message: String) {
        let Some(known) = self.mesos.tasks.get_mut(task) else {
            return;
        };
        if known.state.is_terminal() {
            return;
        }
        note!(self, "task {task} is {state:?} {message}");
        let Some(known) = self.mesos.tasks.get_mut(task) else {
            return;
        };
        known.state = state;
        known.unacknowledged.push_back((state, message));
        self.deliver_update(task);
        if state.is_terminal() {
            self.allocate_soon();
        }
    }

    fn deliver_update(&mut self, task: &TaskId) {
        let Some(known) = self.mesos.tasks.get_mut(task) else {
            return;
        };
        if known.delivering || known.unacknowledged.is_empty() {
            return;
        }
        known.delivering = true;
        let delay = self.network();
        let task = task.clone();
        self.after(delay, move |world| {
            let Some(known) = world.mesos.tasks.get_mut(&task) else {
                return;
            };
            known.delivering = false;
            let agent = known.agent;
            let Some((state, message)) = known.unacknowledged.front().cloned() else {
                return;
            };
            let scheduler = world
                .gets_to_scheduler()
                .filter(|_| world.agent_answers(agent));
            let lost = world.setup.messages_get_lost && world.chance.percent(10);
            let heard = scheduler.filter(|s| !lost && !world.schedulers[*s].paused);
            let acknowledged =
                heard.is_some() && !(world.setup.messages_get_lost && world.chance.percent(10));
            if let Some(scheduler) = heard {
                world.tell_task(scheduler, &task, state, message);
            }
            if acknowledged {
                if let Some(known) = world.mesos.tasks.get_mut(&task) {
                    known.unacknowledged.pop_front();
                }
                world.deliver_update(&task);
            } else {
                world.after(UPDATE_RETRY, move |world| world.deliver_update(&task));
            }
        });
    }

    fn tell_task(&mut self, scheduler: usize, task: &TaskId, state: TaskState, message: String) {
        let update = TaskUpdate {
            task_id: task.clone(),
            agent_id: None,
            state,
            message,
            uuid: None,
        };
        self.scheduler_hears(scheduler, Event::Task(update));
    }

    /// The master is asked for the states of tasks; of all that it knows if none is named.
    /// Tells of these tasks, or of all that the master knows.
    pub fn reconcile(&mut self, scheduler: usize, tasks: Option<Vec<(TaskId, String)>>) {
        let delay = self.network() * 2;
        self.after(delay, move |world| {
            if !world.gets_to_mesos(scheduler) {
                return;
            }
            let tasks: Vec<TaskId> = match tasks {
                Some(tasks) => tasks.into_iter().map(|(task, _)| task).collect(),
                None => world.mesos.tasks.keys().cloned().collect(),
            };
            for task in tasks {
                let state = match world.mesos.tasks.get(&task) {
                    Some(known) if known.state.is_terminal() => known.state,
                    Some(known) if world.mesos.agents[known.agent].unreachable => {
                        TaskState::Unreachable
                    }
                    Some(known) => known.state,
                    // The master does not know the task, and knows its agent.
                    None => TaskState::Gone,
                };
                world.tell_task(scheduler, &task, state, "reconciliation".to_owned());
            }
        });
    }

    /// The executor of a task has ended without a word.
    pub fn container_ends(&mut self, executor: usize, message: &str) {
        let task = self.executors[executor].task.clone();
        self.executor_ends(executor);
        self.task_update(&task, TaskState::Failed, message.to_owned());
    }

    // === agents ===

    /// A host loses power.
    pub fn host_goes_down(&mut self, agent: usize) {
        if !self.mesos.agents[agent].up {
            return;
        }
        note!(self, "host h{agent} goes down");
        self.mesos.agents[agent].up = false;
        for executor in 0..self.executors.len() {
            let it = &self.executors[executor];
            if it.alive && it.host == agent {
                let directories = it.sandbox.borrow().directories.clone();
                self.executor_ends(executor);
                for data in directories {
                    self.lose_unsynced(data);
                }
            }
        }
        self.agent_is_missed(agent);
    }

    pub fn host_comes_up(&mut self, agent: usize) {
        if self.mesos.agents[agent].up {
            return;
        }
        note!(self, "host h{agent} is up again");
        self.mesos.agents[agent].up = true;
        self.agent_returns(agent);
        // What ran there does not run any more.
        let on_it = self
            .mesos
            .tasks
            .iter()
            .filter(|(_, task)| task.agent == agent);
        let tasks: Vec<TaskId> = on_it.map(|(task, _)| task.clone()).collect();
        for task in tasks {
            self.task_update(
                &task,
                TaskState::Failed,
                "its host was started again".to_owned(),
            );
        }
        self.allocate_soon();
    }

    /// The master does not hear an agent any more.
    pub fn agent_is_missed(&mut self, agent: usize) {
        let number = self.mesos.agents[agent].number;
        self.after(AGENT_TIMEOUT, move |world| {
            if world.mesos.agents[agent].number == number && !world.agent_answers(agent) {
                world.mesos.agents[agent].unreachable = true;
                world.tell_tasks_of(agent, Some(TaskState::Unreachable));
            }
        });
    }

    pub fn agent_returns(&mut self, agent: usize) {
        self.mesos.agents[agent].number += 1;
        if std::mem::take(&mut self.mesos.agents[agent].unreachable) {
            self.tell_tasks_of(agent, None);
        }
    }

    fn tell_tasks_of(&mut self, agent: usize, state: Option<TaskState>) {
        let on_it = self.mesos.tasks.iter();
        let on_it = on_it.filter(|(_, task)| task.agent == agent && !task.state.is_terminal());
        let tasks: Vec<(TaskId, TaskState)> = on_it
            .map(|(id, task)| (id.clone(), state.unwrap_or(task.state)))
            .collect();
        if let Some(scheduler) = self.gets_to_scheduler() {
            for (task, state) in tasks {
                self.tell_task(scheduler, &task, state, "of its agent".to_owned());
            }
        }
    }
}
