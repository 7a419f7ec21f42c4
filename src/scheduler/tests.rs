//! Stories of the core: facts in, actions out, and what the records say in the end.
//!
//! The [`World`] here answers the scheduler's actions as the real one would: it stores, launches,
//! kills, and lets model executors report what the goal makes of them. Every plan passes
//! [`check`](super::check::check). Stories can be cut: after every stored record the scheduler may be
//! thrown away and replaced by one that has only what was stored.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use uuid::Uuid;

use super::{
    action::{Action, Refusal, Reply},
    check::check,
    event::{
        CreateRequest, Event, FreshCluster, RequestToken, StoredCluster, TaskState, TaskUpdate,
        Version,
    },
    placement::Offer,
    plan::plan,
    report::view,
    state::{Policy, State},
};
use crate::{
    cluster::{
        control::{Authentication, GoalPhase, Held, MemberState, Report, ServerKind},
        flavour::Flavour,
        gtid::Position,
        id::{ClusterName, DataId, Epoch, MemberId, ProcessId, TaskId},
        record::ClusterRecord,
        size::Size,
        spec::ClusterSpec,
        view::ClusterState,
        voters::Durability,
    },
    secret::Secret,
    time::Timestamp,
};

const PASSWORD: &str = "w9gMCkecsMh6sWsRdxNTa";

/// An instance as the world has it, whatever the scheduler thinks.
struct Instance {
    member: MemberId,
    data: DataId,
    process: Option<ProcessId>,
    position: String,
    promised: Epoch,
    silent: bool,
}

struct World {
    state: State,
    now: Timestamp,
    records: BTreeMap<ClusterName, (ClusterRecord, Version)>,
    instances: BTreeMap<TaskId, Instance>,
    killed: BTreeSet<TaskId>,
    replies: Vec<Reply>,
    agents: u32,
    offers_made: u32,
    ids: u128,
    /// Replace the scheduler after this many more stored records.
    cut_after: Option<u32>,
    cut: bool,
}

fn policy() -> Policy {
    Policy {
        election_timeout: Duration::from_secs(60),
        session_timeout: Duration::from_secs(10),
        spread_patience: Some(Duration::from_secs(30)),
    }
}

fn name() -> ClusterName {
    "orders".parse().unwrap()
}

fn spec(num_nodes: u32, durability: Durability) -> ClusterSpec {
    ClusterSpec {
        name: name(),
        user: "shop".to_owned().try_into().unwrap(),
        num_nodes,
        size: Size::DEFAULT,
        durability,
    }
}

impl World {
    fn new(agents: u32) -> Self {
        let now = Timestamp::from_millis(1_000_000);
        let mut world = Self {
            state: State::new(policy(), None, Vec::new(), BTreeSet::new()),
            now,
            records: BTreeMap::new(),
            instances: BTreeMap::new(),
            killed: BTreeSet::new(),
            replies: Vec::new(),
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

    fn id(&mut self) -> Uuid {
        self.ids += 1;
        Uuid::from_u128(self.ids)
    }

    fn tell(&mut self, event: Event) {
        self.state.apply(event, self.now);
        self.settle();
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(time);
        self.settle();
    }

    /// Plans and carries out until nothing is left to do.
    fn settle(&mut self) {
        for _ in 0..200 {
            let due = self.state.take_due(self.now);
            let plan = plan(&self.state, &due, self.now);
            assert_eq!(check(&self.state, &plan), Vec::new());
            self.state.begin(&plan, self.now);
            let again = super::plan::plan(&self.state, &[], self.now);
            let writes = |a: &Action| matches!(a, Action::Persist { .. } | Action::Remove { .. });
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
            Action::Remove { cluster, .. } => {
                self.records.remove(&cluster);
                self.state.apply(Event::Removed { cluster }, self.now);
            }
            Action::Launch(launches) => {
                for launch in launches {
                    let record = &self.records[&name()].0;
                    let member = record.member_of(&launch.task.task_id).unwrap();
                    let (data, process) = (DataId(self.id()), ProcessId(self.id()));
                    let instance = Instance {
                        member,
                        data,
                        process: Some(process),
                        position: String::new(),
                        promised: Epoch(0),
                        silent: false,
                    };
                    self.instances.insert(launch.task.task_id.clone(), instance);
                    self.task(&launch.task.task_id, TaskState::Running);
                }
            }
            Action::Kill { task_id, .. } => {
                self.instances.remove(&task_id);
                self.killed.insert(task_id.clone());
                self.task(&task_id, TaskState::Killed);
            }
            Action::Revive => self.offer(),
            Action::Decline { refuse_seconds, .. } => assert!(refuse_seconds >= 1.0),
            Action::Suppress | Action::Reconcile { .. } => {}
            Action::Reply(_, reply) => self.replies.push(reply),
        }
    }

    /// One offer of every agent.
    fn offer(&mut self) {
        let offers = (0..self.agents).map(|agent| {
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
            }
        });
        let offers = offers.collect();
        self.state.apply(Event::Offers(offers), self.now);
    }

    fn task(&mut self, task_id: &TaskId, state: TaskState) {
        let update = TaskUpdate {
            task_id: task_id.clone(),
            agent_id: None,
            state,
            message: "as told".into(),
            uuid: None,
        };
        self.state.apply(Event::Task(update), self.now);
    }

    fn replace_scheduler(&mut self) {
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
            let there = self.instances.contains_key(&task);
            self.task(
                &task,
                if there {
                    TaskState::Running
                } else {
                    TaskState::Gone
                },
            );
        }
    }

    fn create(&mut self, spec: ClusterSpec) -> Option<Reply> {
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
            token,
            spec,
            given_password: None,
            fresh,
        };
        self.tell(Event::Create(Box::new(create)));
        self.replies.pop()
    }

    fn delete(&mut self, password: Option<&str>) -> Option<Reply> {
        let password = password.map(Secret::new);
        self.tell(Event::Delete {
            token: RequestToken(2),
            name: name(),
            password,
        });
        self.replies.pop()
    }

    fn record(&self) -> &ClusterRecord {
        &self.records[&name()].0
    }

    fn task_of(&self, member: u32) -> TaskId {
        self.record()
            .task(MemberId(member))
            .unwrap()
            .task_id
            .clone()
    }

    fn instance(&mut self, member: u32) -> &mut Instance {
        let task = self.task_of(member);
        self.instances.get_mut(&task).unwrap()
    }

    /// Every instance does what the goal says, and reports, until nothing changes any more.
    fn converge(&mut self) {
        for _ in 0..20 {
            let before = self.records.clone();
            let tasks: Vec<TaskId> = self.instances.keys().cloned().collect();
            for task in tasks {
                self.report(&task);
            }
            if self.records == before {
                return;
            }
        }
        panic!("the cluster does not converge");
    }

    /// What an executor does and reports under the stored goal.
    fn report(&mut self, task: &TaskId) {
        let Some((record, _)) = self.records.get(&name()) else {
            return;
        };
        let goal = record.goal();
        let live = self
            .instances
            .values()
            .filter(|i| i.process.is_some() && !i.silent)
            .count();
        let Some(instance) = self.instances.get_mut(task) else {
            return;
        };
        if instance.silent || record.task(instance.member).map(|t| &t.task_id) != Some(task) {
            return;
        }
        instance.promised = instance.promised.max(goal.epoch);
        let mut held = None;
        let mut canary = 0;
        let position = |text: &str| Position::parse(Flavour::Mariadb, text).unwrap();
        let state = match (&goal.phase, instance.process) {
            (_, None) => MemberState::Dead,
            (GoalPhase::Elected(master), Some(process)) if master.member == instance.member => {
                if master.process == process && master.data == instance.data {
                    let acknowledged = live as u32 > goal.voters.k_floor;
                    MemberState::Master {
                        epoch: goal.epoch,
                        writable: acknowledged,
                    }
                } else {
                    MemberState::Closed
                }
            }
            (GoalPhase::Elected(_), Some(_)) => {
                canary = goal.canary;
                MemberState::Following {
                    epoch: goal.epoch,
                    ready: true,
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
            (GoalPhase::Unborn | GoalPhase::Deleting, Some(_)) => MemberState::Closed,
        };
        let report = Report {
            format: 1,
            uuid: record.uuid,
            member: instance.member,
            task_id: task.clone(),
            server: Some(ServerKind {
                flavour: Flavour::Mariadb,
                version: "10.11.19".parse().unwrap(),
            }),
            data: Some(instance.data),
            process: instance.process,
            promised: instance.promised,
            state,
            held,
            canary,
            problem: None,
        };
        self.tell(Event::Reported {
            cluster: name(),
            report: Box::new(report),
        });
    }

    fn state(&self) -> ClusterState {
        view(&self.state.clusters[&name()], "zk://h/discover").state
    }

    fn running(num_nodes: u32, durability: Durability) -> Self {
        let mut world = Self::new(num_nodes);
        assert!(matches!(
            world.create(spec(num_nodes, durability)),
            Some(Reply::Created { .. })
        ));
        world.converge();
        assert_eq!(world.state(), ClusterState::Running);
        world
    }
}

#[test]
fn a_cluster_is_born_and_published() {
    let world = World::running(3, Durability::Majority);
    let record = world.record();
    assert_eq!(record.epoch, Epoch(1));
    assert_eq!(record.published.master, Some(MemberId(0)));
    assert_eq!(record.published.slaves.len(), 2);
    assert_eq!((record.voters.k_floor, record.voters.quorum()), (1, 2));
    let agents: BTreeSet<_> = record
        .members
        .values()
        .map(|m| m.task.as_ref().unwrap().agent_id.clone())
        .collect();
    assert_eq!(agents.len(), 3, "members are on different agents");
}

#[test]
fn nothing_is_accepted_before_registration() {
    let mut world = World::new(1);
    world.tell(Event::MesosLost);
    let refused = Some(Reply::Refused(Refusal::NotRegistered));
    assert_eq!(world.create(spec(1, Durability::Async)), refused);
    assert!(world.records.is_empty());
}

#[test]
fn a_repeated_request_gets_the_same_answer_and_another_one_a_refusal() {
    let mut world = World::running(1, Durability::Async);
    let first = Reply::Created {
        name: name(),
        password: Secret::new(PASSWORD),
    };
    assert_eq!(world.create(spec(1, Durability::Async)), Some(first));
    let refused = Some(Reply::Refused(Refusal::Exists(name())));
    assert_eq!(world.create(spec(2, Durability::Async)), refused);
}

#[test]
fn deletion_needs_the_password_and_ends_with_the_last_task() {
    let mut world = World::running(3, Durability::Majority);
    assert_eq!(
        world.delete(None),
        Some(Reply::Refused(Refusal::PasswordMissing))
    );
    assert_eq!(
        world.delete(Some("x")),
        Some(Reply::Refused(Refusal::PasswordWrong))
    );
    assert_eq!(world.state(), ClusterState::Running);
    assert_eq!(
        world.delete(Some(PASSWORD)),
        Some(Reply::Deleting { name: name() })
    );
    assert_eq!(world.killed.len(), 3);
    assert!(world.records.is_empty());
    assert_eq!(
        world.delete(Some(PASSWORD)),
        Some(Reply::Refused(Refusal::Unknown(name())))
    );
}

#[test]
fn the_most_advanced_voter_replaces_a_dead_master() {
    let mut world = World::running(3, Durability::Majority);
    world.instance(0).position = "0-1-1000,50-1-1".into();
    world.instance(1).position = "0-1-999,50-1-1".into();
    world.instance(2).position = "0-1-1000,50-1-1".into();
    world.instance(0).process = None;
    let old = world.task_of(0);
    world.report(&old);
    assert_eq!(
        world.record().published.master,
        None,
        "the old master leaves discovery at once"
    );
    world.converge();
    let record = world.record();
    assert_eq!(record.epoch, Epoch(2));
    assert_eq!(
        record.published.master,
        Some(MemberId(2)),
        "1000 is more than 999"
    );
}

#[test]
fn one_report_of_three_voters_elects_nobody() {
    let mut world = World::running(3, Durability::Majority);
    world.instance(0).process = None;
    world.instance(1).silent = true;
    world.converge();
    assert_eq!(world.record().published.master, None);
    assert!(world.record().elected().is_none());
    assert_eq!(world.state(), ClusterState::Waiting);
    world.instance(1).silent = false;
    world.converge();
    assert!(world.record().published.master.is_some());
}

#[test]
fn a_silent_master_is_replaced_only_when_silence_counts_and_a_quorum_is_in_sight() {
    let mut world = World::running(3, Durability::Majority);
    world.pass(Duration::from_secs(60));
    world.instance(0).silent = true;
    let master = world.task_of(0);
    world.instance(1).silent = true;
    let other = world.task_of(1);
    world.tell(Event::ReportGone {
        cluster: name(),
        task_id: other,
    });
    world.tell(Event::ReportGone {
        cluster: name(),
        task_id: master,
    });
    world.converge();
    assert_eq!(
        world.record().epoch,
        Epoch(1),
        "two at once may be an outage of ZooKeeper"
    );
    world.pass(Duration::from_secs(30));
    assert_eq!(
        world.record().epoch,
        Epoch(1),
        "one voter in sight is no quorum"
    );
    world.instance(1).silent = false;
    world.converge();
    world.pass(Duration::from_secs(30));
    world.converge();
    assert_eq!(world.record().epoch, Epoch(2));
    assert!(
        world
            .record()
            .published
            .master
            .is_some_and(|master| master != MemberId(0))
    );
}

#[test]
fn a_new_scheduler_changes_nothing_by_coming() {
    let mut world = World::running(3, Durability::Majority);
    let before = world.record().clone();
    world.pass(Duration::from_secs(3600));
    world.replace_scheduler();
    world.settle();
    world.pass(Duration::from_secs(5));
    world.converge();
    assert_eq!(*world.record(), before);
}

#[test]
fn a_relaunched_member_votes_again_only_after_a_canary() {
    let mut world = World::running(3, Durability::Majority);
    let lost = world.task_of(2);
    let old = world.instance(2).data;
    world.instances.remove(&lost);
    world.task(&lost, TaskState::Failed);
    world.settle();
    let relaunched = world.task_of(2);
    assert_ne!(relaunched, lost);
    let new = world.instances[&relaunched].data;
    assert_eq!(world.record().voters.members[&MemberId(2)], Some(old));
    world.report(&relaunched);
    let record = world.record();
    assert_eq!(record.canary, 1, "a canary is asked for");
    assert_eq!(
        record.voters.members[&MemberId(2)],
        Some(old),
        "and until then it does not count"
    );
    assert_eq!(
        world.state(),
        ClusterState::Degraded,
        "one more fault could not be borne"
    );
    world.converge();
    assert_eq!(world.record().voters.members[&MemberId(2)], Some(new));
}

#[test]
fn a_member_that_fails_again_and_again_is_launched_more_and_more_seldom() {
    let mut world = World::new(1);
    world.create(spec(1, Durability::Async));
    for times in 1..=8u32 {
        let task = world.task_of(0);
        world.instances.remove(&task);
        world.task(&task, TaskState::Failed);
        world.settle();
        assert!(
            world.record().task(MemberId(0)).is_none(),
            "not launched again at once"
        );
        let view = view(&world.state.clusters[&name()], "zk://h/discover");
        assert!(view.reason.contains("as told"), "{}", view.reason);
        let delay = Duration::from_secs(1 << (times - 1)).min(Duration::from_secs(60));
        world.pass(delay - Duration::from_millis(1));
        world.offer();
        world.settle();
        assert!(world.record().task(MemberId(0)).is_none());
        world.pass(Duration::from_millis(1));
        world.offer();
        world.settle();
    }
    world.converge();
    assert_eq!(world.record().members[&MemberId(0)].failing, None);
}

#[test]
fn a_lost_single_node_is_not_replaced_by_an_empty_one() {
    let mut world = World::running(1, Durability::Async);
    let lost = world.task_of(0);
    world.instances.remove(&lost);
    world.task(&lost, TaskState::Failed);
    world.settle();
    world.converge();
    world.pass(Duration::from_secs(600));
    assert_eq!(world.record().published.master, None);
}

/// Goal: whenever the scheduler dies, its successor carries on. Method: the same story, with the
/// scheduler replaced after the 1st, 2nd, ... stored record, always ends the same way.
#[test]
fn the_story_survives_a_new_scheduler_after_every_write() {
    for cut in 0..14 {
        let mut world = World::new(3);
        world.cut_after = Some(cut);
        world.create(spec(3, Durability::Majority));
        world.converge();
        assert_eq!(world.state(), ClusterState::Running, "cut after {cut}");
        world.instance(0).process = None;
        world.converge();
        assert!(
            world
                .record()
                .published
                .master
                .is_some_and(|m| m != MemberId(0)),
            "cut {cut}"
        );
        world.delete(Some(PASSWORD));
        assert!(world.records.is_empty(), "cut after {cut}");
    }
}
