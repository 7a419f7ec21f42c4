//! Agents: their hosts lose power, the master gives up on them, they come back as they were or under another id, or never.

use std::collections::BTreeMap;

use super::{SECOND, World, note, slots::Reserved};
use crate::{
    cluster::{id::TaskId, slot::SlotId},
    scheduler::event::TaskState,
};

#[derive(Debug)]
pub struct Agent {
    /// Its host runs.
    pub up: bool,
    /// The master has given up on it.
    pub(super) unreachable: bool,
    /// Counts its losses.
    number: u64,
    /// How often it has come back under another id.
    pub(super) registration: u32,
    /// Whether it can say what became of an operation.
    pub(super) gives_feedback: bool,
    /// When it comes back, then under another id.
    pub forgets_its_id: bool,
    /// What is reserved on it.
    pub slots: BTreeMap<SlotId, Reserved>,
    /// When its machine is to go down, if it is.
    pub planned: Option<Planned>,
    /// Its machine is down for maintenance.
    pub(super) machine_down: bool,
}

/// Maintenance of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    pub number: u64,
    pub from: u64,
    pub lasts: u64,
    /// The scheduler has agreed.
    pub agreed: bool,
}

impl Agent {
    pub fn new(gives_feedback: bool) -> Self {
        Self {
            up: true,
            unreachable: false,
            number: 0,
            registration: 0,
            gives_feedback,
            forgets_its_id: false,
            slots: BTreeMap::new(),
            planned: None,
            machine_down: false,
        }
    }

    /// Mesos' id of it.
    pub fn id(&self, number: usize) -> String {
        match self.registration {
            0 => format!("a{number}"),
            again => format!("a{number}.{again}"),
        }
    }
}

impl World {
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
        let it = &mut self.mesos.agents[agent];
        if std::mem::take(&mut it.forgets_its_id) {
            // A cluster is not gone before its tasks are, which only an operator can tell of a host that is lost.
            match self.setup.deleted_at.is_some() && it.slots.is_empty() {
                true => self.operator_marks_gone(agent),
                false => self.agent_forgets_its_id(agent),
            }
        }
        note!(self, "host h{agent} is up again");
        self.mesos.agents[agent].up = true;
        self.agent_returns(agent);
        // What ran there does not run any more.
        for task in self.tasks_of(agent) {
            let (state, message) = match self.mesos.tasks[&task].executor {
                Some(_) => (TaskState::Failed, "its host was started again"),
                None => (TaskState::Dropped, "the agent never got it"),
            };
            self.task_update(&task, state, message.to_owned());
        }
        self.allocate_soon();
    }

    /// The agent of a host that was down has lost its id, as when its configuration was changed: it comes back as another
    /// one, with what is reserved on it.
    fn agent_forgets_its_id(&mut self, agent: usize) {
        let it = &mut self.mesos.agents[agent];
        let former = it.id(agent);
        let given_up_on = std::mem::take(&mut it.unreachable);
        let tasks = self.tasks_of(agent);
        let it = &mut self.mesos.agents[agent];
        it.registration += 1;
        it.number += 1;
        note!(self, "agent {former} comes back under another id");
        // A master that has given up on an agent keeps saying so. Another one is removed when its successor registers
        // under its address, which is told once, and then it is as if it had never been.
        if std::mem::take(&mut self.mesos.agents[agent].machine_down) {
            // Told when it went down.
            self.mesos.removed_agents.insert(former, TaskState::Unknown);
        } else if given_up_on {
            self.mesos
                .removed_agents
                .insert(former, TaskState::Unreachable);
        } else {
            self.tell_tasks(tasks, |_| TaskState::Gone);
        }
        self.rescind(agent);
    }

    /// A machine goes down for maintenance: its agent is removed, and comes back under another id.
    pub fn machine_goes_down(&mut self, agent: usize) {
        let tasks = self.tasks_of(agent);
        self.host_goes_down(agent);
        let it = &mut self.mesos.agents[agent];
        it.forgets_its_id = true;
        it.machine_down = true;
        self.rescind(agent);
        self.tell_tasks(tasks, |_| TaskState::Lost);
    }

    /// A host is lost with all that is on its disk. There will be another one in its place.
    pub fn host_is_lost_for_good(&mut self, agent: usize) {
        self.host_goes_down(agent);
        note!(self, "host h{agent} is lost for good");
        for data in self.data.iter_mut().filter(|data| data.host == agent) {
            data.gone_by_fault |= !data.gone;
            data.gone = true;
        }
        let slots = std::mem::take(&mut self.mesos.agents[agent].slots);
        self.mesos.lost.extend(slots.into_keys());
        self.mesos.agents[agent].forgets_its_id = true;
    }

    /// An operator declares that an agent is gone, in place of which another one comes.
    pub fn operator_marks_gone(&mut self, agent: usize) {
        let it = &mut self.mesos.agents[agent];
        if it.up {
            return;
        }
        let former = it.id(agent);
        let tasks = self.tasks_of(agent);
        let it = &mut self.mesos.agents[agent];
        it.unreachable = false;
        it.forgets_its_id = false;
        it.registration += 1;
        it.number += 1;
        note!(self, "agent {former} is marked as gone");
        let gone = TaskState::GoneByOperator;
        self.mesos.removed_agents.insert(former, gone);
        self.tell_tasks(tasks, |_| gone);
        self.rescind(agent);
    }

    /// The master does not hear an agent any more.
    pub fn agent_is_missed(&mut self, agent: usize) {
        let number = self.mesos.agents[agent].number;
        let missed = move |world: &World| {
            world.mesos.agents[agent].number == number && !world.agent_answers(agent)
        };
        let delay = self.chance.between(0, 5_000_000);
        self.after(delay, move |world| {
            if missed(world) {
                world.rescind(agent);
            }
        });
        self.after(self.setup.agent_timeout, move |world| {
            if missed(world) {
                note!(world, "the master gives up on h{agent}");
                world.mesos.agents[agent].unreachable = true;
                world.rescind(agent);
                let tasks = world.tasks_of(agent);
                world.tell_tasks(tasks, |_| TaskState::Unreachable);
            }
        });
    }

    pub fn agent_returns(&mut self, agent: usize) {
        self.mesos.agents[agent].number += 1;
        if std::mem::take(&mut self.mesos.agents[agent].unreachable) {
            let tasks = self.tasks_of(agent);
            self.tell_tasks(tasks, |state| state);
        }
    }

    /// The tasks of an agent that may run or whose end is not acknowledged, as its newest id knows them.
    fn tasks_of(&self, agent: usize) -> Vec<TaskId> {
        let registration = self.mesos.agents[agent].registration;
        let on_it = self.mesos.tasks.iter().filter(|(_, task)| {
            let here = task.agent == agent && task.registration == registration;
            here && !task.is_over()
        });
        on_it.map(|(task, _)| task.clone()).collect()
    }

    /// The master tells of tasks by itself, once: to whoever is subscribed now, as soon as the connection lets it through.
    fn tell_tasks(&mut self, tasks: Vec<TaskId>, state: impl Fn(TaskState) -> TaskState) {
        let Some(scheduler) = self.mesos.subscriber else {
            return;
        };
        let told = tasks.into_iter().map(|task| {
            let state = state(self.mesos.tasks[&task].state);
            (task, state)
        });
        let told = told.collect();
        self.tell_when_open(scheduler, told);
    }

    fn tell_when_open(&mut self, scheduler: usize, tasks: Vec<(TaskId, TaskState)>) {
        if self.mesos.subscriber != Some(scheduler) {
            return;
        }
        if self.gets_to_scheduler().is_none() {
            return self.after(SECOND, move |world| world.tell_when_open(scheduler, tasks));
        }
        for (task, state) in tasks {
            self.tell_task(scheduler, &task, state, "of its agent".to_owned());
        }
    }
}
