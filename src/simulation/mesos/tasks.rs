//! Tasks: begun, killed, told of.

use std::collections::VecDeque;

use super::{UPDATE_RETRY, World, note};
use crate::{
    cluster::{control::TaskData, id::TaskId, slot::SlotId},
    executor::event::Event as ExecutorEvent,
    scheduler::{
        event::{Event, TaskState, TaskUpdate},
        members::KILL_GRACE_PERIOD,
    },
};

#[derive(Debug)]
pub struct Task {
    pub agent: usize,
    /// Under which of its ids the agent has it.
    pub registration: u32,
    pub slot: Option<SlotId>,
    pub state: TaskState,
    pub executor: Option<usize>,
    unacknowledged: VecDeque<(TaskState, String)>,
    delivering: bool,
}

impl Task {
    /// Whether it has ended, and that is acknowledged.
    pub fn is_over(&self) -> bool {
        self.state.is_terminal() && self.unacknowledged.is_empty()
    }

    /// A task that the master has sent to its agent.
    pub fn new(agent: usize, registration: u32, slot: Option<SlotId>) -> Self {
        Self {
            agent,
            registration,
            slot,
            state: TaskState::Staging,
            executor: None,
            unacknowledged: VecDeque::new(),
            delivering: false,
        }
    }
}

impl World {
    /// An agent has got a task.
    pub(super) fn task_begins(&mut self, agent: usize, data: TaskData, slot: Option<SlotId>) {
        let task = data.task_id.clone();
        // What arrives after the agent has registered again is of a connection that is over.
        if self.mesos.tasks[&task].state.is_terminal() {
            return;
        }
        let sandbox = match &slot {
            None => Some(Default::default()),
            Some(slot) => {
                let reserved = self.mesos.agents[agent].slots.get(slot);
                reserved.and_then(|it| it.volume.clone())
            }
        };
        let Some(sandbox) = sandbox else {
            let message = "its volume is not there".to_owned();
            return self.task_update(&task, TaskState::Error, message);
        };
        if let Some(slot) = &slot {
            self.volume_is_taken(&sandbox);
            self.mesos.used.insert(slot.clone());
        }
        let executor = self.executor_starts(data, agent, sandbox, slot.is_some());
        if let Some(task) = self.mesos.tasks.get_mut(&task) {
            task.executor = Some(executor);
        }
    }

    /// A kill, on its way to the executor. What the master does not know it says so of, as if it had been asked for the task's state.
    pub fn kill_task(&mut self, scheduler: usize, task: TaskId, agent_id: String) {
        let lost = self.gets_lost(10);
        let delay = self.network() * 3;
        self.after(delay, move |world| {
            if !lost && world.gets_to_mesos(scheduler) && world.state_of(&task).is_none() {
                return world.reconcile(scheduler, Some(vec![(task, agent_id)]));
            }
            let known = world.mesos.tasks.get(&task);
            let known = known.map(|task| (task.agent, task.executor));
            if let Some((agent, Some(executor))) = known
                && !lost
                && world.gets_to_mesos(scheduler)
                && world.agent_answers(agent)
            {
                let grace = KILL_GRACE_PERIOD;
                world.tell(
                    executor,
                    ExecutorEvent::Kill {
                        grace,
                        may_hold: false,
                    },
                );
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
            // Under another id an agent knows nothing of what it had to tell.
            if known.registration != world.mesos.agents[agent].registration {
                return known.unacknowledged.clear();
            }
            let Some((state, message)) = known.unacknowledged.front().cloned() else {
                return;
            };
            let answers = world.agent_answers(agent);
            let scheduler = world.gets_to_scheduler().filter(|_| answers);
            let lost = world.gets_lost(10);
            let heard = scheduler.filter(|s| !lost && !world.schedulers[*s].paused);
            let acknowledged = heard.is_some() && !world.gets_lost(10);
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

    pub(super) fn tell_task(
        &mut self,
        scheduler: usize,
        task: &TaskId,
        state: TaskState,
        message: String,
    ) {
        let update = TaskUpdate {
            task_id: task.clone(),
            agent_id: None,
            state,
            message,
            uuid: None,
        };
        self.scheduler_hears(scheduler, Event::Task(update));
    }

    /// The master is asked for the states of tasks, each with its agent; of all that it knows if none is named.
    pub fn reconcile(&mut self, scheduler: usize, tasks: Option<Vec<(TaskId, String)>>) {
        let delay = self.network() * 2;
        self.after(delay, move |world| {
            if !world.gets_to_mesos(scheduler) {
                return;
            }
            let answers: Vec<(TaskId, TaskState)> = match tasks {
                Some(tasks) => tasks
                    .into_iter()
                    .map(|(task, agent)| {
                        let state = world.state_of(&task);
                        let state = state.unwrap_or_else(|| world.state_at(&agent));
                        (task, state)
                    })
                    .collect(),
                None => {
                    let known = world.mesos.tasks.keys();
                    let known =
                        known.filter_map(|task| Some((task.clone(), world.state_of(task)?)));
                    known.collect()
                }
            };
            for (task, state) in answers {
                world.tell_task(scheduler, &task, state, "reconciliation".to_owned());
            }
        });
    }

    /// What the master says of a task that it knows.
    fn state_of(&self, task: &TaskId) -> Option<TaskState> {
        let known = self.mesos.tasks.get(task)?;
        let agent = &self.mesos.agents[known.agent];
        if known.registration != agent.registration || agent.machine_down {
            return None;
        }
        Some(match agent.unreachable && !known.state.is_terminal() {
            true => TaskState::Unreachable,
            false => known.state,
        })
    }

    /// What the master says of a task that it does not know, of an agent that it may know (Mesos page "Reconciliation").
    fn state_at(&self, agent_id: &str) -> TaskState {
        let mut agents = self.mesos.agents.iter().enumerate();
        match agents.find(|(number, agent)| agent.id(*number) == agent_id) {
            // Its removal is in the registry.
            Some((_, agent)) if agent.machine_down => TaskState::Unknown,
            Some((_, agent)) if agent.unreachable => TaskState::Unreachable,
            Some(_) => TaskState::Gone,
            None => {
                let removed = self.mesos.removed_agents.get(agent_id);
                removed.copied().unwrap_or(TaskState::Unknown)
            }
        }
    }

    /// The executor of a task has ended without a word.
    pub fn container_ends(&mut self, executor: usize, message: &str) {
        let task = self.executors[executor].task.clone();
        self.executor_ends(executor);
        self.task_update(&task, TaskState::Failed, message.to_owned());
    }
}
