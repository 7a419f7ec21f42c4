//! ACCEPT: what is asked for with one offer, in its order. The master looks at it, the agent carries it out; a part of it can get
//! lost, and then what comes after it is lost as well.

use std::collections::VecDeque;

use super::{
    MESOS, MILLISECOND, SECOND, World, note,
    offers::Offered,
    slots::{self, Reserved},
    tasks::Task,
};
use crate::{
    cluster::{
        control::{FORMAT, Installer, TaskData},
        record::ClusterRecord,
        slot::{SlotId, SlotOwner},
        timings::Timings,
    },
    scheduler::{
        event::TaskState,
        placement::{Ground, Launch, Offer},
        retained::OperationUpdate,
    },
    simulation::scheduler::cluster_name,
};

/// One operation.
#[derive(Debug)]
pub enum Operation {
    Reserve {
        slot: SlotId,
        reserved: Reserved,
    },
    Create {
        slot: SlotId,
    },
    Launch {
        task: Box<TaskData>,
        slot: Option<SlotId>,
    },
    Destroy {
        slot: SlotId,
    },
    Unreserve {
        slot: SlotId,
        /// Its own id, if its agent is asked for feedback.
        id: Option<String>,
    },
}

impl World {
    /// Launches with one offer, each with what has to be made for it.
    pub fn launch(&mut self, scheduler: usize, launches: Vec<Launch>) {
        let clusters = &self.schedulers[scheduler].state.clusters;
        let record = clusters.get(&cluster_name()).map(|it| &it.record);
        let Some((offer, record)) = launches.first().map(|it| it.offer.id.clone()).zip(record)
        else {
            return;
        };
        let mut operations = Vec::new();
        for launch in launches {
            operations.extend(operations_of(record, launch));
        }
        self.history.cluster = record.uuid;
        self.accept(scheduler, offer, operations);
    }

    /// The end of slots.
    pub fn release_slots(
        &mut self,
        scheduler: usize,
        offer: &Offer,
        slots: impl IntoIterator<Item = (SlotId, bool)>,
    ) {
        let mut operations = Vec::new();
        for (slot, feedback) in slots {
            let id = feedback.then(|| slots::operation_id(&slot, &offer.id));
            let has_volume = offer.slot(&slot).is_some_and(|it| it.volume_mib.is_some());
            if has_volume {
                operations.push(Operation::Destroy { slot: slot.clone() });
            }
            operations.push(Operation::Unreserve { slot, id });
        }
        self.accept(scheduler, offer.id.clone(), operations);
    }

    fn accept(&mut self, scheduler: usize, offer: String, operations: Vec<Operation>) {
        let lost = self.gets_lost(2);
        let delay = self.network();
        self.after(delay, move |world| {
            if lost || !world.gets_to_mesos(scheduler) {
                note!(world, "lost on the way to the master: {operations:?}");
                return;
            }
            let offered = world.mesos.offers.remove(&offer);
            let mut sent = VecDeque::new();
            for operation in operations {
                match world.fault_of(offered.as_ref(), &operation) {
                    Some(fault) => world.refuse(scheduler, operation, fault),
                    None => sent.push_back(operation),
                }
            }
            let Some(Offered { agent, .. }) = offered else {
                return;
            };
            // What is left of the offer.
            world.allocate_soon();
            let registration = world.mesos.agents[agent].registration;
            for operation in &sent {
                if let Operation::Launch { task, slot } = operation {
                    let known = Task::new(agent, registration, slot.clone());
                    world.mesos.tasks.insert(task.task_id.clone(), known);
                }
            }
            let delay = world.chance.between(20 * MILLISECOND, 400 * MILLISECOND);
            world.after(delay, move |world| world.arrive(agent, registration, sent));
        });
    }

    /// What the master has against an operation.
    fn fault_of(&self, offered: Option<&Offered>, operation: &Operation) -> Option<&'static str> {
        let Some(offered) = offered else {
            return Some("the offer is not valid any more");
        };
        let agent = &self.mesos.agents[offered.agent];
        let held = |slot: &SlotId| {
            offered.slots.contains(slot) || offered.free && !agent.slots.contains_key(slot)
        };
        match operation {
            Operation::Reserve { .. } => (!offered.free).then_some("nothing is free"),
            Operation::Launch { slot: None, .. } => (!offered.free).then_some("nothing is free"),
            Operation::Unreserve { id: Some(_), .. } if !agent.gives_feedback => {
                Some("the agent gives no feedback")
            }
            Operation::Create { slot }
            | Operation::Launch {
                slot: Some(slot), ..
            }
            | Operation::Destroy { slot }
            | Operation::Unreserve { slot, .. } => {
                (!held(slot)).then_some("the offer does not hold it")
            }
        }
    }

    /// The master does not pass an operation on.
    fn refuse(&mut self, scheduler: usize, operation: Operation, fault: &str) {
        note!(self, "refused: {operation:?}: {fault}");
        match operation {
            Operation::Launch { task, .. } => {
                let state = match fault.contains("valid") {
                    true => TaskState::Dropped,
                    false => TaskState::Error,
                };
                self.tell_task(scheduler, &task.task_id, state, fault.to_owned());
            }
            Operation::Unreserve {
                slot,
                id: Some(operation),
            } => {
                let done = false;
                let update = OperationUpdate {
                    operation,
                    slot,
                    done,
                };
                self.tell_operation(scheduler, update);
            }
            Operation::Reserve { .. }
            | Operation::Create { .. }
            | Operation::Destroy { .. }
            | Operation::Unreserve { .. } => {}
        }
    }

    /// The agent gets what it is asked for, one after the other.
    fn arrive(&mut self, agent: usize, registration: u32, mut operations: VecDeque<Operation>) {
        let it = &self.mesos.agents[agent];
        let connected = it.up && it.registration == registration;
        if connected && !self.open(MESOS, agent) && self.chance.percent(70) {
            // The connection holds, and it is sent again until it gets through.
            return self.after(SECOND, move |world| {
                world.arrive(agent, registration, operations);
            });
        }
        let gets_through = connected && self.open(MESOS, agent);
        while let Some(operation) = operations.pop_front() {
            if !gets_through || self.gets_lost(2) {
                operations.push_front(operation);
                break;
            }
            self.carry_out_operation(agent, operation);
        }
        for operation in operations {
            note!(self, "lost on the way to the agent: {operation:?}");
            // The master and the agent find that out when the agent registers again.
            let delay = self.chance.between(SECOND, 20 * SECOND);
            self.after(delay, move |world| world.is_dropped(agent, operation));
        }
    }

    /// An operation that the agent has never got.
    fn is_dropped(&mut self, agent: usize, operation: Operation) {
        match operation {
            Operation::Launch { task, .. } => {
                let message = "the agent never got it".to_owned();
                self.task_update(&task.task_id, TaskState::Dropped, message);
            }
            Operation::Unreserve { slot, id: Some(id) } => {
                self.give_feedback(agent, slot, id, false)
            }
            Operation::Reserve { .. }
            | Operation::Create { .. }
            | Operation::Destroy { .. }
            | Operation::Unreserve { .. } => {}
        }
    }

    fn carry_out_operation(&mut self, agent: usize, operation: Operation) {
        match operation {
            Operation::Reserve { slot, reserved } => {
                note!(self, "reserved on h{agent}: {slot}");
                self.mesos.agents[agent].slots.insert(slot, reserved);
            }
            Operation::Create { slot } => {
                self.volume_is_made(&slot);
                if let Some(reserved) = self.mesos.agents[agent].slots.get_mut(&slot) {
                    reserved.volume = Some(Default::default());
                }
            }
            Operation::Launch { task, slot } => self.task_begins(agent, *task, slot),
            Operation::Destroy { slot } => {
                let reserved = self.mesos.agents[agent].slots.get_mut(&slot);
                if let Some(volume) = reserved.and_then(|it| it.volume.take()) {
                    self.volume_is_destroyed(&slot, &volume.borrow());
                }
            }
            Operation::Unreserve { slot, id } => self.unreserve(agent, slot, id),
        }
    }
}

fn operations_of(record: &ClusterRecord, launch: Launch) -> Vec<Operation> {
    let Some(task) = task_data(record, &launch) else {
        return Vec::new();
    };
    let reserved = Reserved {
        owner: SlotOwner {
            cluster: cluster_name(),
            incarnation: task.uuid,
            member: task.member,
        },
        size: launch.size,
        port: launch.task.port,
        volume: None,
    };
    let slot = launch.ground.slot().cloned();
    let mut operations = Vec::new();
    match launch.ground {
        Ground::Sandbox | Ground::Volume(_) => {}
        Ground::Reserved(slot) => operations.push(Operation::Create { slot }),
        Ground::New(slot) => {
            let made = slot.clone();
            operations.push(Operation::Reserve { slot, reserved });
            operations.push(Operation::Create { slot: made });
        }
    }
    let task = Box::new(task);
    operations.push(Operation::Launch { task, slot });
    operations
}

fn task_data(record: &ClusterRecord, launch: &Launch) -> Option<TaskData> {
    Some(TaskData {
        format: FORMAT,
        cluster: cluster_name(),
        uuid: record.uuid,
        member: record.member_of(&launch.task.task_id)?,
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
        copy_cost_percent: 10,
        restore: None,
        my_cnf: None,
        verify: None,
    })
}
