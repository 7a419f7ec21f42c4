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

mod members;
mod mesos;
mod requests;

pub const PASSWORD: &str = "w9gMCkecsMh6sWsRdxNTa";

/// A slot as Mesos has it.
#[derive(Clone)]
pub struct PlacedSlot {
    pub agent: u32,
    owner: SlotOwner,
    port: u16,
    size: Size,
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
    /// For how long those are not to be offered again, in seconds.
    pub refused_for: BTreeMap<String, f64>,
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
    /// Executors whose tasks have ended still hold their share, without which their slots are offered.
    pub executors_linger: bool,
    /// No server can run where the next task is launched.
    pub next_is_unfit: bool,
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
            refused_for: BTreeMap::new(),
            offers_asked_for: 0,
            asked_for: Vec::new(),
            asked_for_all: 0,
            inverse_answers: Vec::new(),
            copied: String::new(),
            executors_linger: false,
            next_is_unfit: false,
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
            Action::Decline {
                offers,
                refuse_seconds,
            } => {
                let refused = offers.iter().map(|id| (id.clone(), refuse_seconds));
                self.refused_for.extend(refused);
                self.declined.extend(offers);
            }
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
