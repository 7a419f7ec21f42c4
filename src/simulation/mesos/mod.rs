//! The model of Mesos: offers with what is reserved on their agents, requests of which every part can get lost, updates that
//! come again until they are acknowledged, agents that are lost and return, masters that fail over.
//!
//! ```text
//! offers --ACCEPT--> accept (the master looks at it) --> slots, tasks (the agent carries it out, one after the other)
//! ```
//!
//! What is reserved is kept on the agents, and survives whatever becomes of the master and of the agent's id.

mod accept;
mod agents;
mod offers;
mod slots;
mod tasks;

use std::collections::BTreeMap;

pub use self::agents::Planned;
use self::{agents::Agent, offers::Offered, slots::Feedback, tasks::Task};
use super::{
    setup::Setup,
    world::{MESOS, MILLISECOND, SCHEDULER, SECOND, World, note},
};
use crate::{
    cluster::{id::TaskId, slot::SlotId},
    scheduler::event::{Event, TaskState},
};

/// How often an agent repeats what is not acknowledged.
const UPDATE_RETRY: u64 = 10 * SECOND;

/// After how long a scheduler notices that nothing comes from the master any more.
const HEARTBEATS_MISSED: u64 = 15 * SECOND;

#[derive(Debug)]
pub struct Mesos {
    pub up: bool,
    subscriber: Option<usize>,
    suppressed: bool,
    offers: BTreeMap<String, Offered>,
    next_offer: u64,
    pub tasks: BTreeMap<TaskId, Task>,
    pub agents: Vec<Agent>,
    /// What the master says of tasks of agents that are not registered any more, by their ids.
    removed_agents: BTreeMap<String, TaskState>,
    /// What became of operations with an id, until it is acknowledged.
    feedback: BTreeMap<String, Feedback>,
    allocating: bool,
    /// The agents that inverse offers without an answer are about, by their ids.
    pub inverse: BTreeMap<String, usize>,
    /// Slots that a task has begun on.
    pub used: std::collections::BTreeSet<SlotId>,
    /// Slots that were lost with their agents' disks.
    pub lost: std::collections::BTreeSet<SlotId>,
}

impl Mesos {
    pub fn new(setup: &Setup) -> Self {
        Self {
            up: true,
            subscriber: None,
            suppressed: false,
            offers: BTreeMap::new(),
            next_offer: 0,
            tasks: BTreeMap::new(),
            agents: (0..setup.agents)
                .map(|_| Agent::new(setup.feedback))
                .collect(),
            removed_agents: BTreeMap::new(),
            feedback: BTreeMap::new(),
            allocating: false,
            inverse: BTreeMap::new(),
            used: Default::default(),
            lost: Default::default(),
        }
    }
}

impl World {
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
                match world.chance.percent(50) {
                    true => world.after(MILLISECOND / 2, |world| world.allocate()),
                    false => world.allocate_soon(),
                }
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

    pub fn gets_to_mesos(&self, scheduler: usize) -> bool {
        self.mesos.up && self.mesos.subscriber == Some(scheduler) && self.open(SCHEDULER, MESOS)
    }

    pub fn gets_to_scheduler(&self) -> Option<usize> {
        let open = self.mesos.up && self.open(MESOS, SCHEDULER);
        self.mesos
            .subscriber
            .filter(|s| open && self.schedulers[*s].alive)
    }

    pub fn agent_answers(&self, agent: usize) -> bool {
        self.mesos.agents[agent].up && self.both_open(agent, MESOS)
    }

    /// Whether something gets lost that is seldom lost: so many times in a hundred, in histories in which messages do.
    fn gets_lost(&mut self, percent: u64) -> bool {
        self.setup.messages_get_lost && self.chance.percent(percent)
    }
}
