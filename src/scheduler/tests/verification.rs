//! Backups that a schedule has made are verified, one at a time, wherever nobody else wants the room.

use std::time::Duration;

use super::{
    backups::{DONE, finish, scheduled, until_ordered},
    world::{PASSWORD, World, name},
};
use crate::{
    cluster::{
        id::TaskId,
        record::TaskRecord,
        verification::{Verdict, Verifications},
    },
    scheduler::{
        event::{Event, TaskState, TaskUpdate, Wish},
        schedule::standing,
    },
};

const MINUTE: Duration = Duration::from_secs(60);

/// A world in which a scheduled backup was just completed.
fn completed() -> World {
    let mut world = scheduled(2, "every 6h", 10);
    world.state.policy.backups.as_mut().unwrap().verify = true;
    world.converge();
    until_ordered(&mut world, MINUTE * 360).unwrap();
    finish(&mut world, DONE);
    world
}

fn verification(world: &World) -> &Verifications {
    &world.record().backups.verification
}

fn task(world: &World) -> Option<TaskRecord> {
    verification(world).task.clone()
}

/// The task ends, as Mesos tells it.
fn end(world: &mut World, task_id: &TaskId, state: TaskState, message: &str) {
    world.tell(Event::Task(TaskUpdate {
        task_id: task_id.clone(),
        agent_id: None,
        state,
        message: message.to_owned(),
        uuid: None,
    }));
    world.converge();
}

/// Time passes, and agents with room make offers again.
fn pass(world: &mut World, time: Duration) {
    world.pass(time);
    world.offer();
    world.settle();
    world.converge();
}

fn says(verdict: &Verdict) -> String {
    serde_json::to_string(verdict).unwrap()
}

fn good() -> String {
    says(&Verdict::Good {
        seconds: 12,
        tables: 3,
        rows: 700,
    })
}

#[test]
fn what_was_found_is_kept_and_told() {
    let mut world = completed();
    let launched = task(&world).unwrap();
    assert_eq!(launched.task_id.as_str().split('.').nth(2), Some("verify"));
    let id = verification(&world).under_way().unwrap().id.clone();
    end(&mut world, &launched.task_id, TaskState::Finished, &good());
    let found = verification(&world);
    assert!(found.task.is_none() && found.waiting.is_empty());
    let last = found.last.clone().unwrap();
    assert_eq!((last.good, &last.id, last.seconds), (true, &id, Some(12)));
    let shown = standing(&world.state.policy, world.record()).unwrap();
    let sentence = shown.verification.unwrap().sentence().unwrap();
    let expected = "3 tables with 700 rows, restored and checked in 12 s";
    assert!(sentence.contains(expected), "{sentence}");

    // A later one that is damaged is told, and the good one is not forgotten.
    until_ordered(&mut world, MINUTE * 361).unwrap();
    finish(&mut world, DONE);
    let why = "the table shop.orders is damaged: Corrupt".to_owned();
    let bad = says(&Verdict::Bad { seconds: 5, why });
    let launched = task(&world).unwrap();
    end(&mut world, &launched.task_id, TaskState::Finished, &bad);
    let shown = standing(&world.state.policy, world.record()).unwrap();
    let shown = shown.verification.unwrap();
    assert_eq!(shown.last_good.as_ref().unwrap().id, id);
    let sentence = shown.sentence().unwrap();
    assert!(
        sentence.contains("HAS FAILED: the table shop.orders"),
        "{sentence}"
    );
}

/// Goal: a task that could tell nothing is followed by others, and not for ever; one that was lost is no attempt.
#[test]
fn what_could_not_be_told_is_tried_again_three_times() {
    let mut world = completed();
    let lost = task(&world).unwrap().task_id;
    end(&mut world, &lost, TaskState::Gone, "the agent is gone");
    assert_eq!(task(&world), None);
    for attempt in 1..=3u32 {
        pass(&mut world, MINUTE * attempt + Duration::from_secs(1));
        let launched = task(&world).expect("it is tried again").task_id;
        end(&mut world, &launched, TaskState::Failed, "no space left");
    }
    let last = verification(&world).last.clone().unwrap();
    assert!(
        !last.good && last.sentence.contains("no space left"),
        "{}",
        last.sentence
    );
    assert_eq!(verification(&world).launches, 4);
    pass(&mut world, MINUTE * 10);
    assert_eq!(task(&world), None);
}

/// Goal: a scheduler that takes over knows the task, and a task that was given up is killed when it turns up.
#[test]
fn a_successor_finds_the_task_and_a_former_one_is_killed() {
    let mut world = completed();
    let policy = world.state.policy.clone();
    let launched = task(&world).unwrap().task_id;
    world.replace_scheduler();
    world.state.policy = policy;
    world.update(&launched, TaskState::Running);
    world.converge();
    assert!(world.state.unknown.all().next().is_none());
    assert!(world.killed.is_empty());
    world.update(&launched, TaskState::Unreachable);
    pass(&mut world, MINUTE * 3);
    pass(&mut world, MINUTE * 3);
    let second = task(&world).unwrap().task_id;
    assert_ne!(second, launched);
    world.update(&launched, TaskState::Running);
    world.converge();
    assert!(world.killed.contains(&launched) && !world.killed.contains(&second));
    end(&mut world, &second, TaskState::Finished, &good());
    assert!(verification(&world).last.as_ref().unwrap().good);
}

#[test]
fn a_member_goes_before_and_a_paused_cluster_launches_nothing() {
    let mut world = scheduled(2, "every 6h", 10);
    world.state.policy.backups.as_mut().unwrap().verify = true;
    world.converge();
    until_ordered(&mut world, MINUTE * 360).unwrap();
    world.away.extend(0..20);
    let maker = world.record().goal().backup.unwrap().member.0;
    let other = 1 - maker;
    world.end(other, TaskState::Failed);
    finish(&mut world, DONE);
    assert_eq!(verification(&world).waiting.len(), 1);
    assert_eq!(task(&world), None, "there is no room");
    world.ask(Some(PASSWORD), Wish::Pause(true));
    world.away.clear();
    world.offer();
    world.converge();
    assert_eq!(task(&world), None, "it is paused");
    world.ask(Some(PASSWORD), Wish::Pause(false));
    world.pass(MINUTE * 2);
    world.offer();
    world.converge();
    world.offer();
    world.converge();
    assert!(world.record().members.values().all(|it| it.task.is_some()));
    assert!(task(&world).is_some());
}

#[test]
fn it_ends_with_its_cluster_and_with_the_setting() {
    let mut world = completed();
    let launched = task(&world).unwrap().task_id;
    world.delete(Some(PASSWORD));
    world.converge();
    assert!(world.killed.contains(&launched));
    assert!(!world.records.contains_key(&name()));

    let mut world = completed();
    let launched = task(&world).unwrap().task_id;
    world.state.policy.backups.as_mut().unwrap().verify = false;
    end(&mut world, &launched, TaskState::Failed, "no space left");
    pass(&mut world, MINUTE * 5);
    let found = verification(&world);
    assert!(found.waiting.is_empty() && found.task.is_none());
}

/// Goal: words that nobody understands are no reason to begin anew for ever.
#[test]
fn a_task_that_finishes_without_a_verdict_has_tried() {
    for message in ["", "{}"] {
        let mut world = completed();
        for attempt in 1..=3u32 {
            let launched = task(&world).expect("it is tried").task_id;
            end(&mut world, &launched, TaskState::Finished, message);
            pass(&mut world, MINUTE * attempt + Duration::from_secs(1));
        }
        let found = verification(&world);
        assert_eq!((found.launches, found.waiting.len()), (3, 0));
        let last = found.last.clone().unwrap();
        assert!(!last.good);
        let expected =
            "could not be verified in 3 attempts, the last time because its task has finished, and";
        assert!(last.sentence.contains(expected), "{}", last.sentence);
    }
}

#[test]
fn a_backup_that_was_removed_meanwhile_is_neither_good_nor_bad() {
    let mut world = completed();
    let launched = task(&world).unwrap().task_id;
    let gone = says(&Verdict::Gone);
    end(&mut world, &launched, TaskState::Finished, &gone);
    let found = verification(&world);
    assert!(found.task.is_none() && found.waiting.is_empty() && found.last.is_none());
}

/// Goal: a pause does not let a task run for ever. It decides nothing either: what comes of that waits.
#[test]
fn one_that_takes_longer_than_a_day_is_killed_in_a_paused_cluster_too() {
    let mut world = completed();
    let launched = task(&world).unwrap().task_id;
    world.ask(Some(PASSWORD), Wish::Pause(true));
    world.pass(Duration::from_secs(86_400) - MINUTE * 2);
    world.converge();
    assert!(world.killed.is_empty());
    world.pass(MINUTE * 3);
    world.converge();
    assert!(world.killed.contains(&launched));
    assert_eq!(task(&world), None);
    pass(&mut world, MINUTE * 5);
    assert_eq!(task(&world), None, "it is paused");
    world.ask(Some(PASSWORD), Wish::Pause(false));
    pass(&mut world, MINUTE * 5);
    let again = task(&world).expect("it is tried again").task_id;
    assert_ne!(again, launched);
}

#[test]
fn one_that_takes_longer_than_a_day_is_killed() {
    let mut world = completed();
    let launched = task(&world).unwrap().task_id;
    world.state.policy.backups.as_mut().unwrap().schedule = "none".parse().unwrap();
    world.pass(Duration::from_secs(86_400) - MINUTE * 2);
    world.converge();
    assert!(world.killed.is_empty());
    world.pass(MINUTE * 3);
    world.converge();
    assert!(world.killed.contains(&launched));
    let waiting = &verification(&world).waiting;
    assert_eq!((waiting.len(), waiting[0].attempts), (1, 1));
}
