//! Looking at volumes from outside: data that may count is not made anew, not shared, not destroyed.

use std::{cell::RefCell, rc::Rc};

use super::{
    executor::Sandbox,
    world::{World, note},
};
use crate::cluster::{
    record::{ClusterRecord, MemberRecord},
    slot::SlotId,
};

impl World {
    /// An agent makes a volume.
    pub fn volume_is_made(&mut self, slot: &SlotId) {
        note!(self, "the volume of {slot} is made");
        if self.mesos.used.contains(slot) {
            self.wrong(|| format!("I4: the volume of {slot} is made anew, and the slot was used"));
        }
    }

    /// A task begins on a volume.
    pub fn volume_is_taken(&mut self, volume: &Rc<RefCell<Sandbox>>) {
        let mut executors = self.executors.iter();
        let other = executors.position(|it| it.alive && Rc::ptr_eq(&it.sandbox, volume));
        if let Some(other) = other {
            self.wrong(|| format!("a task begins on a volume that executor {other} has"));
        }
    }

    /// An agent destroys a volume.
    pub fn volume_is_destroyed(&mut self, slot: &SlotId, volume: &Sandbox) {
        note!(self, "the volume of {slot} is destroyed");
        for data in &volume.directories {
            self.data[*data].gone = true;
        }
        match self.zookeeper.record.clone() {
            Some((record, _)) => self.destroyed_in_life(slot, volume, &record),
            None => self.destroyed_after_deletion(slot),
        }
    }

    fn destroyed_in_life(&mut self, slot: &SlotId, volume: &Sandbox, record: &ClusterRecord) {
        let mut members = record.members.values();
        if members.any(|it| it.slot.as_ref().is_some_and(|own| own.id == *slot)) {
            return self
                .wrong(|| format!("I4: the volume of {slot} is destroyed, which is in use"));
        }
        if self.history.deleted {
            return;
        }
        let copies = |id| {
            let mut data = self.data.iter();
            data.any(|data| !data.gone && data.has.contains(id))
        };
        let acknowledged = self.history.acknowledged.iter().copied();
        let mut held = acknowledged.filter(|id| {
            let mut directories = volume.directories.iter();
            directories.any(|data| self.data[*data].has.contains(*id))
        });
        if let Some(id) = held.find(|id| !copies(*id)) {
            self.wrong(|| {
                format!("I4: the volume of {slot} is destroyed, and {id} is nowhere else")
            });
        }
    }

    fn destroyed_after_deletion(&mut self, slot: &SlotId) {
        let Some((kept, _)) = self.zookeeper.retained.clone() else {
            return self.wrong(|| format!("I4: {slot} is destroyed, and nothing is stored of it"));
        };
        if !kept.is_to_go(slot) {
            return self
                .wrong(|| format!("I4: {slot} is destroyed, and the intention is not stored"));
        }
        if kept.reclaimed.contains(slot) {
            return;
        }
        // How long is measured by the scheduler's clock.
        let keeps_until = self.history.removed_at + self.setup.keep_deleted;
        if self.now < keeps_until && !self.clocks_jumped {
            self.wrong(|| format!("I4: {slot} is destroyed, and its cluster was deleted just now"));
        }
    }

    /// Whether something is still kept of a deleted cluster that is not lost with its agent. Where agents give no feedback, a
    /// scheduler that ends in the minute after it has asked for the end of a slot leaves one that is looked for in vain.
    pub fn is_kept(&self) -> bool {
        let kept = self.zookeeper.retained.as_ref();
        kept.is_some_and(|(kept, _)| {
            let mut left = kept.left.keys();
            left.any(|slot| {
                let mut agents = self.mesos.agents.iter();
                let is_there = agents.any(|agent| agent.slots.contains_key(slot));
                is_there || self.setup.feedback && !self.mesos.lost.contains(slot)
            })
        })
    }

    /// Whether a member waits for what will never come back.
    pub fn has_lost_its_slot(&self, member: &MemberRecord) -> bool {
        let slot = member.slot.as_ref();
        slot.is_some_and(|slot| self.mesos.lost.contains(&slot.id))
    }

    /// A slot that no record explains, after all has come to rest.
    pub fn check_explained(&mut self) {
        let record = self.zookeeper.record.as_ref();
        let members = record
            .iter()
            .flat_map(|(record, _)| record.members.values());
        let living = members.flat_map(|member| member.slot.iter().chain(&member.given_up));
        let departed = record
            .iter()
            .flat_map(|(record, _)| record.departed.values());
        let living = living.chain(departed.flat_map(|left| left.slot.iter().chain(&left.given_up)));
        let living: Vec<&SlotId> = living.map(|slot| &slot.id).collect();
        let kept = self.zookeeper.retained.as_ref();
        let is_explained = |slot: &SlotId| {
            living.contains(&slot) || kept.is_some_and(|(kept, _)| kept.left.contains_key(slot))
        };
        let mut reserved = self.mesos.agents.iter().flat_map(|it| it.slots.keys());
        if let Some(orphan) = reserved.find(|slot| !is_explained(slot)).cloned() {
            self.wrong(|| format!("{orphan} is reserved, and no record explains it"));
        }
    }
}
