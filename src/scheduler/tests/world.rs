//! The world that the stories happen in.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use uuid::Uuid;

use crate::{
    cluster::{
        backup::{ArchiveReport, BackupReport, BackupState, Restore},
        control::{Authentication, GoalPhase, Held, MemberState, Report, ServerKind},
        explanation::Explanation,
        flavour::Flavour,
        gtid::Position,
        id::{ClusterName, DataId, Epoch, MemberId, ProcessId, TaskId},
        record::ClusterRecord,
        retained::Retained,
        size::Size,
        slot::{self, SlotId, SlotOwner},
        spec::ClusterSpec,
        switchover::{Answer, AnswerState, Closed},
        timings::Timings,
        view::ClusterState,
        voters::Durability,
    },
    rules::Rules,
    scheduler::{
        action::{Action, Reply},
        awaiting,
        check::check,
        event::{
            Ask, CreateRequest, Event, FreshCluster, Reclaim, RequestToken, StoredCluster,
            StoredRetained, TaskState, TaskUpdate, UndeleteRequest, Version, Wish,
        },
        placement::{Ground, Launch, Offer, OfferedSlot, SpreadBy},
        plan,
        report::view,
        retained::{Deed, Keeping, OperationUpdate},
        state::{Policy, State},
    },
    secret::Secret,
    time::Timestamp,
};

pub const PASSWORD: &str = "w9gMCkecsMh6sWsRdxNTa";

/// A slot as Mesos has it.
#[derive(Clone)]
pub struct PlacedSlot {
    pub agent: u32,
    owner: SlotOwner,
    port: u16,
    /// Whether its volume is there.
    pub has_volume: bool,
    /// What is on the volume: the data directory, what it holds and what was promised.
    contents: Option<(DataId, String, Epoch)>,
}

/// An instance as the world has it, whatever the scheduler thinks.
pub struct Instance {
    member: MemberId,
    pub slot: Option<SlotId>,
    pub data: DataId,
    pub process: Option<ProcessId>,
    pub position: String,
    promised: Epoch,
    pub silent: bool,
    /// It follows and does not receive.
    pub broken: bool,
    /// How far it is behind in applying, as it reports it.
    pub lag_seconds: u64,
    /// It receives, and has not come to the newest canary yet.
    pub behind: bool,
    /// What it holds is not in the history of who is elected.
    pub quarantined: bool,
    /// As master it gets no acknowledgement in this epoch, whoever follows.
    pub unheard_in: Option<Epoch>,
    /// As master, what it does when it is to hand over.
    pub answers: Answers,
    /// Its task is being killed, and it goes on for a moment.
    pub held_back: bool,
    /// What it says of the backup that it is to make.
    pub backup: Option<BackupState>,
    /// As master, the URL of the store where it has archived something, as it says.
    pub archived_in: Option<String>,
}

/// What a master does when it is to hand over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    Closes,
    Keeps,
    Nothing,
}

pub struct World {
    pub state: State,
    /// The name of the cluster that is played.
    pub called: ClusterName,
    now: Timestamp,
    pub records: BTreeMap<ClusterName, (ClusterRecord, Version)>,
    pub instances: BTreeMap<TaskId, Instance>,
    pub killed: BTreeSet<TaskId>,
    pub replies: Vec<Reply>,
    /// What its servers are.
    pub flavour: Flavour,
    /// How many voters there were in each record that was stored, and how many acknowledgements elections counted with.
    pub voters_stored: Vec<(usize, u32)>,
    /// Whether members get slots.
    pub volumes: bool,
    /// The slots on the agents.
    pub slots: BTreeMap<SlotId, PlacedSlot>,
    /// What is kept of deleted clusters.
    pub kept: BTreeMap<Uuid, (Retained, Version)>,
    /// The state is in files, and the scheduler is lost between the record that comes back and what was kept of it.
    pub leaves_kept: bool,
    /// The slots that were to be released, and whether feedback was asked for.
    pub released: Vec<(SlotId, bool)>,
    /// Agents refuse what asks for feedback.
    pub no_feedback: bool,
    /// The operations that were acknowledged.
    pub acknowledged: Vec<String>,
    /// Agents that make no offers.
    pub away: BTreeSet<u32>,
    /// Once, Mesos carries out what stands before a launch, reserves only (`false`) or makes the volume too, and loses the
    /// rest. Its agent makes no offers after that.
    pub lose_after: Option<bool>,
    /// Members that are launched have much to receive.
    pub launched_behind: bool,
    /// The master refuses whatever a launch asks for.
    pub refuse_launches: bool,
    /// Mesos never hears of launches.
    pub lose_launches: bool,
    /// The offers of those.
    pub lost_offers: Vec<String>,
    /// The offers that were given back.
    pub declined: Vec<String>,
    /// How often offers were asked for, or not to come any more.
    pub offers_asked_for: u32,
    /// The tasks that the master was asked for by name, each time that it was.
    pub asked_for: Vec<TaskId>,
    /// How often it was asked for all.
    pub asked_for_all: u32,
    /// The answers to inverse offers, and whether each was accepted.
    pub inverse_answers: Vec<(String, bool)>,
    /// What members hold that begin with an empty slot: a copy.
    pub copied: String,
    /// The tasks of this member with this revision of the configuration end as soon as they are launched.
    pub refuses: Option<(u32, u64)>,
    /// Tasks whose agents do not answer: a kill does not reach them.
    pub unreachable: BTreeSet<TaskId>,
    pub agents: u32,
    offers_made: u32,
    ids: u128,
    /// Replace the scheduler after this many more stored records.
    pub cut_after: Option<u32>,
    cut: bool,
}

/// How long the slots of a deleted cluster are kept.
pub const KEPT_FOR: Duration = Duration::from_secs(3600);

pub fn policy() -> Policy {
    Policy {
        election_timeout: Duration::from_secs(60),
        session_timeout: Duration::from_secs(10),
        spread_patience: Some(Duration::from_secs(30)),
        spread_by: SpreadBy::default(),
        volumes: false,
        keep_deleted: KEPT_FOR,
        voter_patience: Duration::from_secs(600),
        replace_after: Duration::from_secs(900),
        voter_lag: Duration::from_secs(60),
        packages: Vec::new(),
        timings: Timings::default(),
        failover_limit: 5,
        failover_window: Duration::from_secs(300),
        archive: None,
        rules: Rules::LAW,
        backups: None,
        chance: 0.5,
    }
}

pub fn name() -> ClusterName {
    "orders".parse().unwrap()
}

pub fn spec(num_nodes: u32, durability: Durability) -> ClusterSpec {
    ClusterSpec {
        name: name(),
        user: "shop".to_owned().try_into().unwrap(),
        num_nodes,
        size: Size::DEFAULT,
        durability,
        replace_after: None,
        backup_schedule: None,
        backup_keep: None,
        my_cnf: None,
        package: None,
    }
}

impl World {
    pub fn new(agents: u32) -> Self {
        let now = Timestamp::from_millis(1_000_000);
        let mut world = Self {
            state: State::new(policy(), None, Vec::new(), BTreeSet::new()),
            called: name(),
            now,
            records: BTreeMap::new(),
            instances: BTreeMap::new(),
            killed: BTreeSet::new(),
            replies: Vec::new(),
            flavour: Flavour::Mariadb,
            voters_stored: Vec::new(),
            volumes: false,
            slots: BTreeMap::new(),
            kept: BTreeMap::new(),
            leaves_kept: false,
            released: Vec::new(),
            no_feedback: false,
            acknowledged: Vec::new(),
            away: BTreeSet::new(),
            lose_after: None,
            launched_behind: false,
            refuse_launches: false,
            lose_launches: false,
            lost_offers: Vec::new(),
            declined: Vec::new(),
            offers_asked_for: 0,
            asked_for: Vec::new(),
            asked_for_all: 0,
            inverse_answers: Vec::new(),
            copied: String::new(),
            refuses: None,
            unreachable: BTreeSet::new(),
            agents,
            offers_made: 0,
            ids: 0,
            cut_after: None,
            cut: false,
        };
        world.tell(Event::ControlRestored);
        world.tell(Event::Subscribed {
            framework_id: "f".into(),
        });
        world
    }

    pub fn id(&mut self) -> Uuid {
        self.ids += 1;
        // The first digits tell incarnations of one name apart.
        Uuid::from_u128(self.ids << 96 | self.ids)
    }

    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The identity of a server that is started now.
    pub fn process(&mut self) -> ProcessId {
        ProcessId(self.id())
    }

    pub fn tell(&mut self, event: Event) {
        self.state.apply(event, self.now);
        self.settle();
    }

    pub fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(time);
        self.settle();
    }

    /// Plans and carries out until nothing is left to do.
    pub fn settle(&mut self) {
        for _ in 0..200 {
            let due = self.state.take_due(self.now);
            let plan = plan::plan(&self.state, &due, self.now);
            assert_eq!(check(&self.state, &plan), Vec::new());
            self.state.begin(&plan, self.now);
            let again = plan::plan(&self.state, &[], self.now);
            let writes = |a: &Action| {
                matches!(
                    a,
                    Action::Persist { .. } | Action::Remove { .. } | Action::Undelete(_)
                )
            };
            assert!(
                !again.actions.iter().any(writes),
                "planned again while in flight"
            );
            if plan.actions.is_empty() && due.is_empty() {
                return;
            }
            for action in plan.actions {
                self.perform(action);
                if std::mem::take(&mut self.cut) {
                    self.replace_scheduler();
                    break;
                }
            }
        }
        panic!("the scheduler does not settle");
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::StoreFramework { .. } => self.state.apply(Event::FrameworkStored, self.now),
            Action::Persist { record, .. } => {
                let name = record.name().clone();
                let version = self
                    .records
                    .get(&name)
                    .map_or(Version(0), |(_, version)| Version(version.0 + 1));
                let voters = &record.voters;
                self.voters_stored
                    .push((voters.members.len(), voters.k_floor));
                self.records.insert(name.clone(), (*record, version));
                self.cut = self.cut_after == Some(0);
                self.cut_after = self.cut_after.and_then(|n| n.checked_sub(1));
                self.state.apply(
                    Event::Stored {
                        cluster: name,
                        version,
                    },
                    self.now,
                );
            }
            Action::Remove {
                cluster, retained, ..
            } => {
                self.records.remove(&cluster);
                let version = retained.as_ref().map(|_| Version(0));
                if let Some(retained) = retained {
                    self.kept
                        .insert(retained.incarnation(), (*retained, Version(0)));
                }
                let retained = version;
                self.state
                    .apply(Event::Removed { cluster, retained }, self.now);
            }
            Action::Undelete(undeletion) => {
                let (record, version) = (undeletion.record, Version(0));
                let cluster = record.name().clone();
                if !self.leaves_kept {
                    let kept = self.kept.remove(&record.uuid).unwrap();
                    assert_eq!(kept.1, undeletion.kept);
                }
                let before = self.records.insert(cluster.clone(), (record, version));
                assert!(before.is_none(), "the name is in use");
                self.called.clone_from(&cluster);
                self.cut = self.cut_after == Some(0);
                self.cut_after = self.cut_after.and_then(|n| n.checked_sub(1));
                self.state
                    .apply(Event::Stored { cluster, version }, self.now);
            }
            Action::Keep(deed) => self.keep(deed),
            Action::Launch(launches) if self.lose_launches => {
                let offers = launches.into_iter().map(|launch| launch.offer.id);
                self.lost_offers.extend(offers);
            }
            Action::Launch(launches) if self.refuse_launches => {
                for launch in launches {
                    self.task(&launch.task.task_id, TaskState::Error);
                }
            }
            Action::Launch(launches) => {
                for launch in launches {
                    self.launch(launch);
                }
            }
            Action::Kill { task_id, .. } if self.unreachable.contains(&task_id) => {}
            Action::Kill { task_id, .. } => {
                self.stop(&task_id);
                self.killed.insert(task_id.clone());
                self.task(&task_id, TaskState::Killed);
            }
            Action::Revive => {
                self.offers_asked_for += 1;
                self.offer();
            }
            Action::Decline { offers, .. } => self.declined.extend(offers),
            Action::Suppress => self.offers_asked_for += 1,
            Action::Reconcile { tasks } => {
                self.asked_for
                    .extend(tasks.into_iter().map(|(task, _)| task));
            }
            Action::ReconcileAll => self.asked_for_all += 1,
            Action::AcceptInverse { offers } => {
                self.inverse_answers
                    .extend(offers.into_iter().map(|offer| (offer, true)));
            }
            Action::DeclineInverse { offers } => {
                self.inverse_answers
                    .extend(offers.into_iter().map(|offer| (offer, false)));
            }
            Action::Reply(_, reply) => self.replies.push(reply),
        }
    }

    fn keep(&mut self, deed: Deed) {
        match deed {
            Deed::Store {
                retained, expected, ..
            } => {
                let next = expected.map_or(0, |Version(version)| version + 1);
                let (incarnation, version) = (retained.incarnation(), Version(next));
                let before = self.kept.insert(incarnation, (*retained, version));
                assert_eq!(before.map(|(_, version)| version), expected);
                let event = Event::RetainedStored {
                    incarnation,
                    version,
                };
                self.state.apply(event, self.now);
            }
            Deed::Forget { incarnation, .. } => {
                self.kept.remove(&incarnation);
                let event = Event::RetainedForgotten { incarnation };
                self.state.apply(event, self.now);
            }
            Deed::Release { slots, offer } => {
                for (slot, feedback) in slots {
                    self.released.push((slot.clone(), feedback));
                    let refused = feedback && self.no_feedback;
                    if !refused {
                        self.slots.remove(&slot).unwrap();
                    }
                    if feedback {
                        let update = OperationUpdate {
                            operation: format!("{slot}@{}", offer.id),
                            slot,
                            done: !refused,
                        };
                        self.state.apply(Event::Operation(update), self.now);
                    }
                }
                if self.no_feedback {
                    self.offer();
                }
            }
            Deed::Acknowledge { operation } => self.acknowledged.push(operation),
        }
    }

    fn launch(&mut self, launch: Launch) {
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

    fn stop(&mut self, task: &TaskId) {
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
            let size = Size::DEFAULT;
            let volume = slot.has_volume.then(|| slot::volume_mib(&size) as f64);
            OfferedSlot {
                id: id.clone(),
                owner: slot.owner.clone(),
                cpus: size.cpus(),
                mem_mib: size.mem_mib() as f64,
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
                unavailable: self
                    .state
                    .maintenance
                    .window(&format!("a{agent}"))
                    .is_some(),
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

    /// A scheduler that has found nothing stored takes over.
    pub fn lose_state(&mut self) {
        self.records.clear();
        self.replace_scheduler();
        self.settle();
    }

    pub fn replace_scheduler(&mut self) {
        let stored = self
            .records
            .values()
            .map(|(record, version)| StoredCluster {
                record: record.clone(),
                version: *version,
                password: Secret::new(PASSWORD),
            });
        self.state = State::new(
            policy(),
            Some("f".into()),
            stored.collect(),
            BTreeSet::new(),
        );
        self.state.policy.volumes = self.volumes;
        let kept = self.kept.values().cloned();
        let kept = kept.map(|(retained, version)| StoredRetained {
            password: retained.record.as_ref().map(|_| Secret::new(PASSWORD)),
            retained,
            version,
        });
        self.state.keeping = Keeping::new(kept.collect(), BTreeSet::new());
        self.state.apply(Event::ControlRestored, self.now);
        self.state.apply(
            Event::Subscribed {
                framework_id: "f".into(),
            },
            self.now,
        );
        self.offer();
        // Reconciliation: tasks that run are known, launches that were never sent are not.
        let tasks: Vec<TaskId> = self
            .records
            .values()
            .flat_map(|(record, _)| record.members.values().filter_map(|m| m.task.as_ref()))
            .map(|task| task.task_id.clone())
            .collect();
        for task in tasks {
            let state = match self.instances.contains_key(&task) {
                true if self.unreachable.contains(&task) => TaskState::Unreachable,
                true => TaskState::Running,
                false => TaskState::Gone,
            };
            self.task(&task, state);
        }
    }

    pub fn create(&mut self, spec: ClusterSpec) -> Option<Reply> {
        self.create_from(spec, None)
    }

    pub fn create_from(&mut self, spec: ClusterSpec, restore: Option<Restore>) -> Option<Reply> {
        let fresh = FreshCluster {
            uuid: self.id(),
            password: Secret::new(PASSWORD),
            sealed_password: "sealed".into(),
            authentication: Authentication {
                mysql: "m".into(),
                mariadb: "*".into(),
            },
        };
        let token = RequestToken(1);
        let create = CreateRequest {
            restore,
            token,
            spec,
            given_password: None,
            fresh,
        };
        self.tell(Event::Create(Box::new(create)));
        self.replies.pop()
    }

    pub fn delete(&mut self, password: Option<&str>) -> Option<Reply> {
        let password = password.map(Secret::new);
        self.tell(Event::Delete {
            token: RequestToken(2),
            name: self.called.clone(),
            password,
        });
        self.replies.pop()
    }

    /// The deleted cluster is asked for, under another name if one is given.
    pub fn undelete(&mut self, password: Option<&str>, target: Option<&str>) -> Option<Reply> {
        self.tell(Event::Undelete(Box::new(UndeleteRequest {
            token: RequestToken(4),
            name: name(),
            target: target.map(|target| target.parse().unwrap()),
            incarnation: None,
            password: password.map(Secret::new),
        })));
        self.replies.pop()
    }

    /// An operator gives a slot up.
    pub fn reclaim(&mut self, slot: &SlotId) -> Option<Reply> {
        let slot = slot.clone();
        let token = RequestToken(5);
        self.tell(Event::Reclaim(Reclaim { token, slot }));
        self.replies.pop()
    }

    pub fn ask(&mut self, password: Option<&str>, wish: Wish) -> Option<Reply> {
        let password = password.map(Secret::new);
        self.tell(Event::Ask(Box::new(Ask {
            token: RequestToken(3),
            name: self.called.clone(),
            password,
            wish,
        })));
        self.replies.pop()
    }

    /// Nothing is heard of a member any more, whose instance lives on.
    pub fn vanish(&mut self, member: u32) {
        self.instance(member).silent = true;
        let task_id = self.task_of(member);
        self.tell(Event::ReportGone {
            cluster: self.called.clone(),
            task_id,
        });
    }

    pub fn record(&self) -> &ClusterRecord {
        &self.records[&self.called].0
    }

    pub fn task_of(&self, member: u32) -> TaskId {
        self.record()
            .task(MemberId(member))
            .unwrap()
            .task_id
            .clone()
    }

    pub fn instance(&mut self, member: u32) -> &mut Instance {
        let task = self.task_of(member);
        self.instances.get_mut(&task).unwrap()
    }

    /// Every instance does what the goal says, and reports, until nothing changes any more.
    pub fn converge(&mut self) {
        for _ in 0..100 {
            let before = self.records.clone();
            let tasks: Vec<TaskId> = self.instances.keys().cloned().collect();
            for task in tasks {
                self.report(&task);
            }
            if self.records == before {
                return;
            }
        }
        panic!(
            "the cluster does not converge: {}",
            self.explanation().standing.membership.join("; ")
        );
    }

    /// What an executor does and reports under the stored goal.
    pub fn report(&mut self, task: &TaskId) {
        let Some((record, _)) = self.records.get(&self.called) else {
            return;
        };
        let goal = record.goal();
        let flavour = self.flavour;
        let able = self.instances.values().filter(|other| {
            let there =
                other.process.is_some() && !other.silent && !other.broken && !other.quarantined;
            there
                && goal.may_acknowledge(other.member, other.data)
                && !goal.terms.barred.contains(&other.member)
        });
        let able: BTreeSet<MemberId> = able.map(|other| other.member).collect();
        let Some(instance) = self.instances.get_mut(task) else {
            return;
        };
        if instance.silent || record.task(instance.member).map(|t| &t.task_id) != Some(task) {
            return;
        }
        instance.promised = instance.promised.max(goal.epoch);
        let mut held = None;
        let mut canary = 0;
        let mut terms = None;
        let position = |text: &str| Position::parse(flavour, text).unwrap();
        let state = match (&goal.phase, instance.process) {
            (_, None) => MemberState::Dead,
            (GoalPhase::Elected(master), Some(process)) if master.member == instance.member => {
                if master.process == process && master.data == instance.data {
                    let others = able.iter().filter(|other| **other != master.member);
                    let acknowledged = others.count() as u32 >= goal.acknowledgements()
                        && instance.unheard_in != Some(goal.epoch);
                    terms = Some(goal.terms.clone());
                    canary = if acknowledged { goal.canary } else { 0 };
                    MemberState::Master {
                        epoch: goal.epoch,
                        writable: acknowledged,
                    }
                } else {
                    MemberState::Closed
                }
            }
            (GoalPhase::Elected(_), Some(_)) if instance.quarantined => {
                held = Some(Held {
                    epoch: goal.epoch,
                    position: position(&instance.position),
                    executed: position(&instance.position),
                });
                MemberState::Quarantined
            }
            (GoalPhase::Elected(_), Some(_)) => {
                canary = if instance.behind { 0 } else { goal.canary };
                let barred = goal.terms.barred.contains(&instance.member);
                MemberState::Following {
                    epoch: goal.epoch,
                    ready: !barred && !instance.broken,
                }
            }
            (GoalPhase::Electing, Some(_)) => {
                held = Some(Held {
                    epoch: goal.epoch,
                    position: position(&instance.position),
                    executed: position(&instance.position),
                });
                MemberState::Closed
            }
            (GoalPhase::Unborn | GoalPhase::Deleting, Some(_)) => {
                held = Some(Held {
                    epoch: goal.epoch,
                    position: position(&instance.position),
                    executed: position(&instance.position),
                });
                MemberState::Closed
            }
        };
        let report = Report {
            backup: goal.backup.as_ref().and_then(|order| {
                let is_its = order.task_id == *task;
                let state = instance.backup.clone().filter(|_| is_its)?;
                let number = order.number;
                Some(BackupReport { number, state })
            }),
            archive: instance.archived_in.clone().map(|url| ArchiveReport {
                begun_in: Some(url),
                ..ArchiveReport::default()
            }),
            format: 1,
            uuid: record.uuid,
            member: instance.member,
            task_id: task.clone(),
            server: Some(ServerKind {
                flavour,
                version: "10.11.19".parse().unwrap(),
            }),
            data: Some(instance.data),
            process: instance.process,
            promised: instance.promised,
            state,
            held,
            canary,
            terms,
            voters_seen: goal.voters.version,
            acknowledges: goal.may_acknowledge(instance.member, instance.data),
            problem: None,
            trouble: None,
            wants_donor: None,
            set_aside: None,
            stream_port: None,
            lag_seconds: instance.lag_seconds,
            held_back: instance.held_back,
            handover: goal
                .handover
                .filter(|_| matches!(state, MemberState::Master { .. }))
                .and_then(|handover| {
                    let state = match instance.answers {
                        Answers::Closes => AnswerState::Closed(Closed {
                            position: position(&instance.position),
                            millis: 7,
                        }),
                        Answers::Keeps => AnswerState::Kept {
                            why: "it was not to be".to_owned(),
                        },
                        Answers::Nothing => return None,
                    };
                    let number = handover.number;
                    Some(Answer { number, state })
                }),
        };
        self.tell(Event::Reported {
            cluster: self.called.clone(),
            report: Box::new(report),
        });
    }

    /// What the API says why.
    pub fn explanation(&self) -> Explanation {
        let cluster = &self.state.clusters[&self.called];
        let view = view(cluster, "zk://h/discover");
        awaiting::explanation(&self.state, cluster, &view)
    }

    /// The identity of a data directory that is made now.
    pub fn data(&mut self) -> DataId {
        DataId(self.id())
    }

    pub fn state(&self) -> ClusterState {
        view(&self.state.clusters[&self.called], "zk://h/discover").state
    }

    /// A world in which members get slots.
    pub fn with_volumes(agents: u32) -> Self {
        let mut world = Self::new(agents);
        world.volumes = true;
        world.state.policy.volumes = true;
        world
    }

    /// A cluster that runs, on slots.
    pub fn running_on_slots(num_nodes: u32, durability: Durability) -> Self {
        let mut world = Self::with_volumes(num_nodes);
        world.create(spec(num_nodes, durability));
        world.converge();
        assert_eq!(world.state(), ClusterState::Running);
        world
    }

    pub fn running(num_nodes: u32, durability: Durability) -> Self {
        Self::running_on(Flavour::Mariadb, num_nodes, durability)
    }

    pub fn running_on(flavour: Flavour, num_nodes: u32, durability: Durability) -> Self {
        let mut world = Self::new(num_nodes);
        world.flavour = flavour;
        assert!(matches!(
            world.create(spec(num_nodes, durability)),
            Some(Reply::Created { .. })
        ));
        world.converge();
        assert_eq!(world.state(), ClusterState::Running);
        world
    }
}
