//! What Mesos tells of tasks, in any order and any number: whose they are, and what follows.

use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;
use uuid::Uuid;

use super::world::{World, name, spec};
use crate::{
    cluster::{
        id::{MemberId, TaskId},
        view::ClusterState,
        voters::Durability,
    },
    scheduler::{
        event::{Event, TaskState},
        unknown::MOST_LISTED,
    },
};

fn subscribe(world: &mut World) {
    world.tell(Event::MesosLost);
    world.asked_for.clear();
    world.asked_for_all = 0;
    world.tell(Event::Subscribed {
        framework_id: "f".into(),
    });
}

/// Goal: a master that says nothing of a task yet is asked until it does. Method: a master that has just failed over,
/// whose agents come back one after the other.
#[test]
fn a_master_is_asked_until_it_has_answered_for_every_task() {
    let mut world = World::running(3, Durability::Majority);
    let tasks = [0, 1, 2].map(|member| world.task_of(member));
    subscribe(&mut world);
    assert_eq!(world.asked_for, tasks);
    assert_eq!(world.asked_for_all, 1);
    world.update(&tasks[0], TaskState::Running);
    world.update(&tasks[2], TaskState::Running);
    world.asked_for.clear();
    for _ in 0..300 {
        world.pass(Duration::from_secs(1));
    }
    assert!(world.asked_for.len() >= 7, "{:?}", world.asked_for);
    assert!(world.asked_for.iter().all(|task| *task == tasks[1]));
    world.update(&tasks[1], TaskState::Running);
    world.asked_for.clear();
    for _ in 0..3000 {
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(world.asked_for, []);
    assert_eq!(world.asked_for_all, 6, "every ten minutes");
    assert_eq!(world.state(), ClusterState::Running);
    assert!(world.killed.is_empty());
}

/// A task that its member had before: its launch was given up, and it turned up after all.
#[test]
fn a_former_task_is_killed_until_it_has_ended() {
    let mut world = World::new(1);
    world.lose_launches = true;
    world.create(spec(1, Durability::Async));
    let late = world.task_of(0);
    world.lose_launches = false;
    world.pass(Duration::from_secs(61));
    world.update(&late, TaskState::Unknown);
    world.offer();
    world.settle();
    let current = world.task_of(0);
    assert_ne!(current, late);
    world.killed.clear();

    world.unreachable.insert(late.clone());
    world.update(&late, TaskState::Running);
    assert!(world.killed.is_empty());
    world.update(&late, TaskState::Unreachable);
    world.pass(Duration::from_secs(120));
    world.unreachable.clear();
    world.pass(Duration::from_secs(20));
    assert_eq!(world.killed, BTreeSet::from([late.clone()]));
    world.killed.clear();
    world.pass(Duration::from_secs(120));
    assert!(world.killed.is_empty(), "it has ended");
    assert_eq!(world.task_of(0), current);

    // A cluster that is deleted is gone only when its former tasks are as well.
    world.unreachable.insert(late.clone());
    world.update(&late, TaskState::Running);
    world.delete(Some(super::world::PASSWORD));
    assert!(world.killed.contains(&current));
    assert!(world.records.contains_key(&name()));
    world.update(&late, TaskState::Failed);
    assert!(!world.records.contains_key(&name()));
}

/// Goal: a state that was lost kills nothing. Method: a scheduler that finds nothing stored, under the same
/// framework id, hears of every task that runs.
#[test]
fn a_scheduler_that_has_lost_its_state_leaves_everything_running() {
    let mut world = World::running(3, Durability::Majority);
    let tasks: Vec<TaskId> = (0..3).map(|member| world.task_of(member)).collect();
    world.lose_state();
    for round in 0..3 {
        for task in &tasks {
            world.update(task, TaskState::Running);
        }
        let untold = world.state.unknown.take_untold().len();
        assert_eq!(untold, if round == 0 { 3 } else { 0 }, "told once");
        world.pass(Duration::from_secs(700));
    }
    assert!(world.killed.is_empty() && world.records.is_empty());
    let listed: Vec<&TaskId> = world.state.unknown.all().map(|t| &t.task_id).collect();
    assert_eq!(listed, tasks.iter().collect::<Vec<_>>());
    let why = &world.state.unknown.all().next().unwrap().reason;
    assert_eq!(why, "the state knows no cluster orders");

    // A new cluster of the same name is another one.
    world.create(spec(3, Durability::Majority));
    world.converge();
    for task in &tasks {
        world.update(task, TaskState::Running);
    }
    assert!(world.killed.is_empty());
    assert_eq!(world.state(), ClusterState::Running);
    let why = &world.state.unknown.all().next().unwrap().reason;
    assert!(
        why.contains("another cluster that was named orders"),
        "{why}"
    );

    // What has ended, or what the master does not know either, needs no decision.
    world.update(&tasks[0], TaskState::Killed);
    world.update(&tasks[1], TaskState::Unknown);
    subscribe(&mut world);
    assert_eq!(world.state.unknown.all().count(), 1);
    assert!(world.asked_for.contains(&tasks[2]), "what became of it");
    assert!(!world.asked_for.contains(&tasks[0]));
}

/// Goal: of many unknown tasks none is passed over, and that not all are listed is told. Method: more tasks of a lost state than a list
/// has, of which the last one shows that a record is older than the world.
#[test]
fn tasks_beyond_the_list_are_counted_and_hold_up_what_they_must() {
    let mut world = World::running(1, Durability::Async);
    let uuid = world.record().uuid;
    let later = TaskId::new(&name(), uuid, MemberId(0), 9);
    let foreign = |number: usize| TaskId::from_wire(format!("a-task.{number}"));
    for number in 0..MOST_LISTED {
        world.update(&foreign(number), TaskState::Running);
    }
    assert_eq!(world.state.unknown.take_untold().len(), MOST_LISTED);
    assert_eq!(world.state.unknown.take_more(), None);
    world.update(&later, TaskState::Running);
    assert!(world.state.unknown.take_untold().is_empty());
    assert_eq!(world.state.unknown.take_more(), Some(1));
    let list = world.state.unknown.list();
    assert_eq!((list.tasks.len(), list.more), (MOST_LISTED, 1));
    assert!(world.state.unknown.outdates(&name()).is_some());
    subscribe(&mut world);
    assert!(world.asked_for.contains(&later));
    for number in 0..9 {
        assert_eq!(world.state.unknown.take_more(), None, "told already");
        world.update(&foreign(MOST_LISTED + number), TaskState::Running);
    }
    assert_eq!(world.state.unknown.take_more(), Some(10));
    for number in 0..10 {
        world.update(&foreign(number), TaskState::Killed);
    }
    assert_eq!(world.state.unknown.list().more, 0);
    assert_eq!(world.state.unknown.take_more(), None);
}

/// Goal: a state that was put back from an old copy kills nothing, and does not catch up with what runs. Method: the
/// record of an earlier launch, and the task of a later one.
#[test]
fn a_record_that_is_older_than_its_tasks_launches_nothing() {
    let mut world = World::running(1, Durability::Async);
    let copy = world.records.clone();
    let first = world.task_of(0);
    world.instances.remove(&first);
    world.update(&first, TaskState::Failed);
    let second = world.task_of(0);
    world.records = copy;
    world.replace_scheduler();
    world.update(&second, TaskState::Running);
    world.offer();
    world.settle();
    world.pass(Duration::from_secs(700));
    world.offer();
    world.settle();
    assert!(world.killed.is_empty());
    assert_eq!(world.record().members[&MemberId(0)].launches, 1);
    assert!(world.instances.contains_key(&second));
    let why = &world.state.unknown.all().next().unwrap().reason;
    assert!(why.contains("older than the task"), "{why}");
    // Decided: it was ended.
    world.update(&second, TaskState::Killed);
    world.offer();
    world.settle();
    assert_eq!(world.record().members[&MemberId(0)].launches, 2);
}

/// Goal: a scheduler that has just started takes no silence for an end. Method: a master that has lost its registry
/// knows no task, and says so before the executors' reports were read.
#[test]
fn what_the_master_does_not_know_may_run_as_long_as_reports_were_not_heard() {
    let mut world = World::running(3, Durability::Majority);
    let tasks = [0, 1, 2].map(|member| world.task_of(member));
    world.pass(Duration::from_secs(3600));
    world.replace_scheduler();
    for task in &tasks {
        world.update(task, TaskState::Unknown);
    }
    world.pass(Duration::from_secs(13));
    for task in &tasks {
        assert!(world.instances.contains_key(task));
        world.report(task);
    }
    world.pass(Duration::from_secs(3600));
    assert_eq!([0, 1, 2].map(|member| world.task_of(member)), tasks);
    assert!(world.killed.is_empty());
}

/// Whom an update is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum About {
    /// The task that the member had when the story began.
    Member(u32),
    /// The one before that.
    Former(u32),
    NoCluster,
    OtherIncarnation,
    Foreign,
}

const STATES: [TaskState; 14] = [
    TaskState::Staging,
    TaskState::Starting,
    TaskState::Running,
    TaskState::Killing,
    TaskState::Finished,
    TaskState::Failed,
    TaskState::Killed,
    TaskState::Error,
    TaskState::Dropped,
    TaskState::Gone,
    TaskState::GoneByOperator,
    TaskState::Unreachable,
    TaskState::Unknown,
    TaskState::Lost,
];

fn about() -> impl Strategy<Value = About> {
    prop_oneof![
        4 => (0..3_u32).prop_map(About::Member),
        4 => (0..3_u32).prop_map(About::Former),
        1 => Just(About::NoCluster),
        1 => Just(About::OtherIncarnation),
        1 => Just(About::Foreign),
    ]
}

fn updates() -> impl Strategy<Value = Vec<(About, TaskState)>> {
    let update = (about(), proptest::sample::select(&STATES[..]));
    proptest::collection::vec(update, 1..40)
}

/// A cluster of three each of whose members has had a task before.
fn with_former_tasks() -> (World, [TaskId; 3], [TaskId; 3]) {
    let mut world = World::new(3);
    world.create(spec(3, Durability::Majority));
    let former = [0, 1, 2].map(|member| world.task_of(member));
    for task in &former {
        world.instances.remove(task);
        world.update(task, TaskState::Dropped);
    }
    world.offer();
    world.settle();
    world.converge();
    let current = [0, 1, 2].map(|member| world.task_of(member));
    assert_eq!(world.state(), ClusterState::Running);
    (world, former, current)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Goal: an update means the same however late it comes and however often. Method: any sequence of updates of
    /// current, former and unknown tasks: a member is launched again exactly when its current task has ended for the first
    /// time, only former tasks are killed, and what is unknown is left alone.
    #[test]
    fn updates_come_in_any_order_and_any_number(updates in updates(), repeat in 1..3_usize) {
        let (mut world, former, current) = with_former_tasks();
        let mut ended = BTreeSet::new();
        for (about, state) in updates {
            let task = match about {
                About::Member(member) => current[member as usize].clone(),
                About::Former(member) => former[member as usize].clone(),
                About::NoCluster => TaskId::new(&"other".parse().unwrap(), Uuid::nil(), MemberId(0), 1),
                About::OtherIncarnation => TaskId::new(&name(), Uuid::max(), MemberId(0), 1),
                About::Foreign => TaskId::from_wire("never-existed"),
            };
            if let (About::Member(member), true) = (about, state.is_terminal()) {
                world.instances.remove(&task);
                ended.insert(member);
            }
            for _ in 0..repeat {
                world.update(&task, state);
            }
            world.offer();
            world.settle();
        }
        world.pass(Duration::from_secs(30));
        world.offer();
        world.settle();
        for member in 0..3 {
            let launches = 2 + u32::from(ended.contains(&member));
            prop_assert_eq!(world.record().members[&MemberId(member)].launches, launches);
            prop_assert!(world.instances.contains_key(&world.task_of(member)));
        }
        let past: BTreeSet<TaskId> = former
            .into_iter()
            .chain(ended.iter().map(|member| current[*member as usize].clone()))
            .collect();
        prop_assert!(world.killed.is_subset(&past), "{:?}", world.killed);
    }
}
