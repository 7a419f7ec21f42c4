//! Mesos: what it offers, launches and tells.

use super::*;

impl World {
    pub(super) fn launch(&mut self, launch: Launch) {
        let lost_after = self.lose_after.take();
        let cluster = launch.task.task_id.cluster().unwrap();
        let record = &self.records[&cluster].0;
        let uuid = record.uuid;
        if record.is_verification(&launch.task.task_id) {
            assert_eq!(launch.ground, Ground::Sandbox);
            return self.task(&launch.task.task_id, TaskState::Running);
        }
        let member = record.member_of(&launch.task.task_id).unwrap();
        let task = launch.task;
        let placed = |has_volume| PlacedSlot {
            agent: task.agent_id[1..].parse().unwrap(),
            owner: SlotOwner {
                cluster: cluster.clone(),
                incarnation: uuid,
                member,
            },
            port: task.port,
            size: launch.size,
            has_volume,
            contents: None,
        };
        match &launch.ground {
            Ground::Sandbox => {}
            Ground::New(id) => {
                let has_volume = lost_after != Some(false);
                let before = self.slots.insert(id.clone(), placed(has_volume));
                assert!(before.is_none(), "a slot is made once");
            }
            Ground::Reserved(id) => {
                let slot = self.slots.get_mut(id).unwrap();
                assert!(!slot.has_volume, "a volume is made once");
                slot.has_volume = lost_after != Some(false);
            }
            Ground::Volume(id) => assert!(self.slots[id].has_volume),
        }
        if lost_after.is_some() {
            self.away.insert(task.agent_id[1..].parse().unwrap());
            self.task(&task.task_id, TaskState::Dropped);
            return;
        }
        if std::mem::take(&mut self.next_is_unfit) {
            self.task(&task.task_id, TaskState::Unfit);
            return;
        }
        let revision = self.records[&cluster].0.members[&member].revision;
        if self.refuses == Some((member.0, revision)) {
            self.task(&task.task_id, TaskState::Failed);
            return;
        }
        let slot = launch.ground.slot().cloned();
        let kept = slot.as_ref().and_then(|id| self.slots[id].contents.clone());
        let (data, position, promised) =
            kept.unwrap_or_else(|| (DataId(self.id()), self.copied.clone(), Epoch(0)));
        let instance = Instance {
            member,
            slot,
            data,
            process: Some(ProcessId(self.id())),
            position,
            promised,
            silent: false,
            broken: false,
            lag_seconds: 0,
            behind: self.launched_behind,
            quarantined: false,
            unheard_in: None,
            answers: Answers::Closes,
            held_back: false,
            backup: None,
            archived_in: None,
        };
        self.instances.insert(task.task_id.clone(), instance);
        self.task(&task.task_id, TaskState::Running);
    }

    /// A member's task ends. What is on its volume stays.
    pub fn end(&mut self, member: u32, state: TaskState) {
        let task = self.task_of(member);
        self.stop(&task);
        self.task(&task, state);
        self.settle();
    }

    pub(super) fn stop(&mut self, task: &TaskId) {
        if let Some(instance) = self.instances.remove(task)
            && let Some(slot) = instance.slot
        {
            let contents = (instance.data, instance.position, instance.promised);
            self.slots.get_mut(&slot).unwrap().contents = Some(contents);
        }
    }

    /// What an agent offers of slots that nothing runs on.
    fn offered_slots(&self, agent: u32) -> Vec<OfferedSlot> {
        let runs = |id: &SlotId| {
            let mut instances = self.instances.values();
            instances.any(|instance| instance.slot.as_ref() == Some(id))
        };
        let free = self
            .slots
            .iter()
            .filter(|(id, slot)| slot.agent == agent && !runs(id));
        free.map(|(id, slot)| {
            let size = slot.size;
            let held = match self.executors_linger {
                true => Size::EXECUTOR.mem_mib(),
                false => 0,
            };
            let volume = slot.has_volume.then(|| slot::volume_mib(&size) as f64);
            OfferedSlot {
                id: id.clone(),
                owner: slot.owner.clone(),
                cpus: size.cpus(),
                mem_mib: (size.mem_mib() - held) as f64,
                disk_mib: size.disk_mib() as f64 - volume.unwrap_or_default(),
                volume_mib: volume,
                ports: vec![(slot.port, slot.port)],
                resources: Vec::new(),
            }
        })
        .collect()
    }

    /// One offer of every agent.
    pub fn offer(&mut self) {
        let agents: Vec<u32> = (0..self.agents)
            .filter(|agent| !self.away.contains(agent))
            .collect();
        let offers = agents.into_iter().map(|agent| {
            self.offers_made += 1;
            Offer {
                id: format!("o{}", self.offers_made),
                agent_id: format!("a{agent}"),
                host: format!("127.0.0.{}", agent + 1),
                role: "cotton".into(),
                cpus: 4.0,
                mem_mib: 4096.0,
                disk_mib: 20_000.0,
                ports: vec![(31000, 31999)],
                slots: self.offered_slots(agent),
                attributes: BTreeMap::new(),
                unavailable: self.state.maintenance.window(&format!("a{agent}")),
            }
        });
        let offers: Vec<Offer> = offers.collect();
        self.state.apply(Event::Offers(offers), self.now);
    }

    pub fn task(&mut self, task_id: &TaskId, state: TaskState) {
        let update = TaskUpdate {
            task_id: task_id.clone(),
            agent_id: Some("an-agent".into()),
            state,
            message: "as told".into(),
            uuid: None,
        };
        self.state.apply(Event::Task(update), self.now);
    }

    /// Mesos tells of a task, and what follows from it is done.
    pub fn update(&mut self, task_id: &TaskId, state: TaskState) {
        self.task(task_id, state);
        self.settle();
    }
}
