//! What is reserved on agents, and what becomes of operations on it.

use std::{cell::RefCell, rc::Rc};

use super::{UPDATE_RETRY, World, note};
use crate::{
    cluster::{
        size::Size,
        slot::{SlotId, SlotOwner},
    },
    scheduler::{event::Event, retained::OperationUpdate},
    simulation::executor::Sandbox,
};

/// What is reserved for a slot.
#[derive(Debug)]
pub struct Reserved {
    pub owner: SlotOwner,
    pub size: Size,
    pub port: u16,
    /// What lies in the volume, if it was made.
    pub volume: Option<Rc<RefCell<Sandbox>>>,
}

/// What an agent says of an operation.
#[derive(Debug)]
pub struct Feedback {
    agent: usize,
    slot: SlotId,
    done: bool,
}

/// The id of the operation that ends a slot, as `wire.rs` makes it.
pub fn operation_id(slot: &SlotId, offer: &str) -> String {
    format!("{slot}@{offer}")
}

impl World {
    /// Whether a task is on a slot, or what is left of one.
    pub(super) fn is_in_use(&self, agent: usize, slot: &SlotId) -> bool {
        let registration = self.mesos.agents[agent].registration;
        let mut tasks = self.mesos.tasks.values();
        tasks.any(|task| {
            let here = task.agent == agent && task.slot.as_ref() == Some(slot);
            let ends = task.executor.is_some_and(|it| self.executors[it].alive);
            here && (ends || task.registration == registration && !task.state.is_terminal())
        })
    }

    pub(super) fn unreserve(&mut self, agent: usize, slot: SlotId, id: Option<String>) {
        let slots = &mut self.mesos.agents[agent].slots;
        let empty = slots.get(&slot).is_some_and(|it| it.volume.is_none());
        if empty {
            slots.remove(&slot);
            note!(self, "given back on h{agent}: {slot}");
            self.allocate_soon();
        }
        if let Some(id) = id {
            self.give_feedback(agent, slot, id, empty);
        }
    }

    pub(super) fn give_feedback(&mut self, agent: usize, slot: SlotId, id: String, done: bool) {
        let feedback = Feedback { agent, slot, done };
        self.mesos.feedback.insert(id.clone(), feedback);
        self.deliver_feedback(id);
    }

    /// An agent tells what became of an operation, until that is acknowledged.
    fn deliver_feedback(&mut self, id: String) {
        let delay = self.network();
        self.after(delay, move |world| {
            let Some(Feedback { agent, slot, done }) = world.mesos.feedback.get(&id) else {
                return;
            };
            let (agent, done) = (*agent, *done);
            let update = OperationUpdate {
                operation: id.clone(),
                slot: slot.clone(),
                done,
            };
            let answers = world.agent_answers(agent);
            let lost = world.gets_lost(10);
            let scheduler = world.gets_to_scheduler().filter(|_| answers && !lost);
            if let Some(scheduler) = scheduler {
                world.tell_operation(scheduler, update);
                // What was not carried out is acknowledged by whoever hears it.
                if !done && !world.gets_lost(10) {
                    world.mesos.feedback.remove(&id);
                }
            }
            world.after(UPDATE_RETRY, move |world| world.deliver_feedback(id));
        });
    }

    pub(super) fn tell_operation(&mut self, scheduler: usize, update: OperationUpdate) {
        note!(self, "an operation: {update:?}");
        self.scheduler_hears(scheduler, Event::Operation(update));
    }

    /// A scheduler acknowledges what became of an operation.
    pub fn acknowledge_operation(&mut self, scheduler: usize, id: String) {
        let lost = self.gets_lost(10);
        let delay = self.network();
        self.after(delay, move |world| {
            if !lost && world.gets_to_mesos(scheduler) {
                world.mesos.feedback.remove(&id);
            }
        });
    }
}
