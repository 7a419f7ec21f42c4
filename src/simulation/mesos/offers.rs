//! Offers: what is free on an agent, and what is reserved there and not in use.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{MILLISECOND, SECOND, World, agents::Agent, note, slots::Reserved};
use crate::{
    cluster::{
        size::Size,
        slot::{SANDBOX_DISK_MIB, Slot, SlotId, volume_mib},
    },
    scheduler::{
        event::Event,
        maintenance::Window,
        placement::{Offer, OfferedSlot},
    },
};

/// The ports of each agent.
const PORTS: (u16, u16) = (31_000, 31_999);

/// What is in an offer that nobody has answered.
#[derive(Debug)]
pub struct Offered {
    pub agent: usize,
    /// What is not reserved.
    pub free: bool,
    pub slots: BTreeSet<SlotId>,
}

impl World {
    pub fn allocate_soon(&mut self) {
        if !std::mem::replace(&mut self.mesos.allocating, true) {
            let delay = self.chance.between(5 * MILLISECOND, SECOND);
            self.after(delay, |world| world.allocate());
        }
    }

    pub(super) fn allocate(&mut self) {
        self.mesos.allocating = false;
        let Some(scheduler) = self.gets_to_scheduler().filter(|_| !self.mesos.suppressed) else {
            return;
        };
        let offers: Vec<Offer> = (0..self.mesos.agents.len())
            .filter_map(|agent| self.offer_of(agent))
            .collect();
        if offers.is_empty() {
            return;
        }
        note!(self, "offers of {:?}", self.mesos.offers);
        if self.gets_lost(3) {
            let delay = self.chance.between(MILLISECOND, 300 * MILLISECOND);
            let agent = self.mesos.offers[&offers[0].id].agent;
            self.after(delay, move |world| world.rescind(agent));
        }
        let delay = self.network();
        self.after(delay, move |world| {
            world.scheduler_hears(scheduler, Event::Offers(offers))
        });
    }

    /// What an agent has to offer, if anything. It is held for the framework from now on.
    fn offer_of(&mut self, agent: usize) -> Option<Offer> {
        if !self.agent_answers(agent) || self.mesos.agents[agent].unreachable {
            return None;
        }
        let outstanding = self.mesos.offers.values();
        let outstanding: Vec<&Offered> = outstanding.filter(|it| it.agent == agent).collect();
        let reserved = &self.mesos.agents[agent].slots;
        let unused = reserved.keys().filter(|id| {
            !self.is_in_use(agent, id) && !outstanding.iter().any(|it| it.slots.contains(*id))
        });
        let slots: BTreeSet<SlotId> = unused.cloned().collect();
        let free = !outstanding.iter().any(|it| it.free) && self.has_room(agent);
        if slots.is_empty() && !free {
            return None;
        }
        self.mesos.next_offer += 1;
        let id = format!("o{}", self.mesos.next_offer);
        let size = Size::DEFAULT;
        let (cpus, mem_mib, disk_mib) = match free {
            // What one member takes.
            true => (size.cpus(), size.mem_mib() as f64, size.disk_mib() as f64),
            false => (0.0, 0.0, 0.0),
        };
        let offer = Offer {
            id: id.clone(),
            agent_id: self.mesos.agents[agent].id(agent),
            host: format!("h{agent}"),
            role: "cotton".to_owned(),
            cpus,
            mem_mib,
            disk_mib,
            ports: if free {
                self.free_ports(agent)
            } else {
                Vec::new()
            },
            slots: slots
                .iter()
                .map(|id| self.offered_slot(agent, id))
                .collect(),
            attributes: BTreeMap::new(),
            unavailable: self.window_of(agent),
        };
        self.mesos.offers.insert(id, Offered { agent, free, slots });
        Some(offer)
    }

    /// When an agent is to be down, if it is.
    fn window_of(&self, agent: usize) -> Option<Window> {
        let planned = self.mesos.agents[agent].planned?;
        let from = self.timestamp(planned.from as i64 - self.now as i64);
        Some(Window {
            from,
            ends: Some(from.plus(Duration::from_micros(planned.lasts))),
        })
    }

    /// Whether one more member fits on an agent.
    fn has_room(&self, agent: usize) -> bool {
        let Agent {
            registration,
            slots,
            ..
        } = &self.mesos.agents[agent];
        let unreserved = self.mesos.tasks.values().filter(|task| {
            let here = task.agent == agent && task.registration == *registration;
            here && task.slot.is_none() && !task.state.is_terminal()
        });
        let reserved = slots.keys().filter(|slot| !self.has_room_made_for(slot));
        let reserved = reserved.count();
        unreserved.count() + reserved < self.setup.room
    }

    /// In the end operators have made room beside the slots that are kept of members that have left, and beside those of members that wait
    /// for others to take their places: they are told of them.
    fn has_room_made_for(&self, slot: &SlotId) -> bool {
        let Some((record, _)) = self
            .zookeeper
            .record
            .as_ref()
            .filter(|_| !self.faults_go_on)
        else {
            return false;
        };
        let is_it = |own: &Option<Slot>| own.as_ref().is_some_and(|own| own.id == *slot);
        let mut departed = record.departed.values();
        let mut leaving = record.members.values().filter(|it| it.leaving.is_some());
        departed.any(|left| is_it(&left.slot) && !left.destroy) || leaving.any(|it| is_it(&it.slot))
    }

    fn free_ports(&self, agent: usize) -> Vec<(u16, u16)> {
        let reserved = self.mesos.agents[agent].slots.values().map(|it| it.port);
        let listening = self
            .executors
            .iter()
            .filter(|it| it.alive && it.host == agent);
        let taken: BTreeSet<u16> = reserved.chain(listening.map(|it| it.port)).collect();
        let mut ranges = Vec::new();
        let mut from = PORTS.0;
        for port in taken {
            if port > from {
                ranges.push((from, port - 1));
            }
            from = port + 1;
        }
        if from <= PORTS.1 {
            ranges.push((from, PORTS.1));
        }
        ranges
    }

    /// A slot as it is offered. Now and then only a part of it is free already.
    fn offered_slot(&mut self, agent: usize, id: &SlotId) -> OfferedSlot {
        let part = self.gets_lost(10);
        let Reserved {
            owner,
            size,
            port,
            volume,
        } = &self.mesos.agents[agent].slots[id];
        let volume_mib = volume.as_ref().map(|_| volume_mib(size) as f64);
        OfferedSlot {
            id: id.clone(),
            owner: owner.clone(),
            cpus: size.cpus(),
            mem_mib: size.mem_mib() as f64 / if part { 2.0 } else { 1.0 },
            disk_mib: match volume {
                Some(_) => SANDBOX_DISK_MIB as f64,
                None => size.disk_mib() as f64,
            },
            volume_mib,
            ports: vec![(*port, *port)],
            resources: Vec::new(),
        }
    }

    /// The master takes back what it has offered of an agent.
    pub fn rescind(&mut self, agent: usize) {
        let of = self.mesos.offers.iter();
        let of = of.filter(|(_, offered)| offered.agent == agent);
        let ids: Vec<String> = of.map(|(id, _)| id.clone()).collect();
        for id in ids {
            note!(self, "offer {id} is rescinded");
            self.mesos.offers.remove(&id);
            if let Some(scheduler) = self.gets_to_scheduler() {
                let delay = self.network();
                self.after(delay, move |world| {
                    world.scheduler_hears(scheduler, Event::Rescinded(id));
                });
            }
        }
        self.after(SECOND, World::allocate_soon);
    }

    /// A scheduler suppresses offers or revives them.
    pub fn want_offers(&mut self, scheduler: usize, want: bool) {
        // As long for each of them: they do not overtake each other.
        self.after(MILLISECOND, move |world| {
            if world.gets_to_mesos(scheduler) {
                world.mesos.suppressed = !want;
                world.allocate_soon();
            } else if want && world.mesos.subscriber == Some(scheduler) {
                world.after(SECOND, move |world| {
                    world.on_scheduler(scheduler, move |world| {
                        world.want_offers(scheduler, true);
                    });
                });
            }
        });
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
}
