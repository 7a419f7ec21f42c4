//! Deletion while agents are away, and slots that were never made.

use std::time::Duration;

use super::{
    membership::{GRACE, STEP, set},
    world::{KEPT_FOR, PASSWORD, World, name, spec},
};
use crate::{
    cluster::{
        flavour::Flavour,
        id::{MemberId, TaskId},
        voters::Durability,
    },
    scheduler::{
        action::{Refusal, Reply},
        event::TaskState,
        slots::SLOT_PATIENCE,
    },
};

/// A cluster of three that is being deleted, one of whose agents is away, with the task there.
fn deleted_while_away() -> (World, TaskId) {
    let mut world = World::spacious(Flavour::Mariadb, 3, 4, Durability::Majority);
    let task = world.loses_agent_of(2);
    world.delete(Some(PASSWORD));
    (world, task)
}

/// Goal: a deletion waits for an agent as long as a living cluster does, and then the name is free; what ran there is killed when the agent
/// is back, whoever is the scheduler then, and its slot goes like the others. Method: before and after the removal the scheduler is replaced.
#[test]
fn a_deletion_does_not_wait_for_ever_for_an_agent_that_is_away() {
    for replaced in [false, true] {
        let (mut world, task) = deleted_while_away();
        world.go_on(GRACE - STEP);
        assert!(world.records.contains_key(&name()), "it may come back");
        if replaced {
            world.replace_scheduler();
        }
        world.go_on(GRACE + STEP * 6);
        assert!(world.records.is_empty());
        assert_eq!(world.kept.len(), 1);
        assert!(world.instances.contains_key(&task));
        if replaced {
            world.replace_scheduler();
        }
        world.killed.clear();
        world.go_on(Duration::from_secs(120));
        assert!(world.killed.is_empty(), "nobody can carry it out");

        world.agents_return(&task);
        assert!(world.killed.contains(&task));
        assert!(!world.instances.contains_key(&task));
        assert_eq!(world.state.unknown.all().count(), 0);
        world.killed.clear();
        world.go_on(Duration::from_secs(120));
        assert!(world.killed.is_empty(), "it has ended");
        assert_eq!(world.slots.len(), 3, "kept until their time");
        world.go_on(KEPT_FOR);
        assert!(world.slots.is_empty() && world.kept.is_empty());
    }
}

/// Goal: nothing of a cluster that has taken the name is touched by that.
#[test]
fn what_is_left_of_a_deleted_cluster_concerns_no_other_of_its_name() {
    let (mut world, task) = deleted_while_away();
    world.go_on(GRACE * 2);
    world.create(spec(1, Durability::Async));
    world.converge();
    world.killed.clear();
    world.agents_return(&task);
    world.go_on(Duration::from_secs(60));
    assert_eq!(world.killed, [task].into());
    assert!(world.state.clusters[&name()].observed.tasks.len() <= 1);
    assert_eq!(world.shown().0, Some(0));
}

/// Goal: a cluster that comes back before its agent does takes the task there for its own again.
#[test]
fn a_cluster_that_comes_back_before_its_agent_keeps_the_task() {
    let (mut world, task) = deleted_while_away();
    world.go_on(GRACE * 2);
    assert!(world.records.is_empty());
    world.undelete(Some(PASSWORD), None);
    world.converge();
    assert_eq!(world.members(), set([0, 1, 2]));
    world.killed.clear();
    world.agents_return(&task);
    world.instance(2).silent = false;
    world.converge();
    assert!(world.killed.is_empty());
    assert_eq!(world.task_of(2), task);
    assert_eq!(world.shown().1.len(), 2, "{}", world.told_of());
}

/// Goal: the ids of tasks have the name of their cluster, so one that may run holds up another name, and one that has ended does not.
#[test]
fn a_task_that_may_run_holds_up_another_name() {
    let (mut world, task) = deleted_while_away();
    world.go_on(GRACE * 2);
    let refused = world.undelete(Some(PASSWORD), Some("invoices"));
    let Some(Reply::Refused(Refusal::NotPossible(why))) = refused else {
        panic!("{refused:?}");
    };
    assert!(why.contains("may still run on 127.0.0.3"), "{why}");
    world.agents_return(&task);
    let reply = world.undelete(Some(PASSWORD), Some("invoices"));
    assert!(matches!(reply, Some(Reply::Undeleting { .. })), "{reply:?}");
}

/// Goal: a record does not grow with launches that a master refuses. Method: each launch of a member comes to nothing and leaves nothing,
/// for hours.
#[test]
fn slots_that_were_never_made_are_forgotten() {
    let mut world = World::with_volumes(1);
    world.refuse_launches = true;
    world.create(spec(1, Durability::Async));
    let mut most = 0;
    for _ in 0..600 {
        world.pass(SLOT_PATIENCE);
        world.offer();
        world.settle();
        most = most.max(world.record().members[&MemberId(0)].given_up.len());
    }
    assert!(world.record().members[&MemberId(0)].launches > 60);
    assert!((1..70).contains(&most), "{most}");
    world.refuse_launches = false;
    for _ in 0..70 {
        world.pass(SLOT_PATIENCE);
        world.offer();
        world.settle();
    }
    world.converge();
    assert_eq!(world.record().members[&MemberId(0)].given_up, []);
    assert_eq!(world.slots.len(), 1);
}

/// Goal: a slot that a member had given up is known when the member has left, and destroyed if it turns up.
#[test]
fn what_a_member_had_given_up_is_known_after_it_has_left() {
    let mut world = World::spacious(Flavour::Mariadb, 2, 3, Durability::Majority);
    world.lose_after = Some(true);
    world.scale(3);
    world.away.clear();
    let lost = world.record().members[&MemberId(2)].slot.clone().unwrap();
    let slot = world.slots.remove(&lost.id).unwrap();
    world.go_on(SLOT_PATIENCE + STEP);
    assert_eq!(world.shown().1, set([1, 2]), "{}", world.told_of());
    assert_eq!(world.record().members[&MemberId(2)].given_up[0].id, lost.id);
    world.scale(2);
    world.go_on(Duration::from_secs(60));
    assert_eq!(world.members(), set([0, 1]));
    world.slots.insert(lost.id.clone(), slot);
    world.offer();
    world.settle();
    assert!(!world.slots.contains_key(&lost.id));
    assert!(world.state.keeping.orphans.is_empty());
    assert!(world.record().departed.is_empty());
}

/// Goal: a record that was put back from an old copy does not give up a slot on which a later task has written. Method: the copy is from before
/// anybody had heard of the slot's first task.
#[test]
fn a_slot_that_a_later_task_has_used_is_not_given_up() {
    let mut world = World::with_volumes(1);
    world.lose_launches = true;
    world.create(spec(1, Durability::Async));
    let copy = world.records[&name()].clone();
    let slot = copy.0.members[&MemberId(0)].slot.clone().unwrap();
    assert!(!slot.used);
    let first = world.task_of(0);
    world.lose_state();
    world.records.insert(name(), copy);
    world.replace_scheduler();
    let parts = first.parts().unwrap();
    let text = first.as_str();
    let later = text.strip_suffix(&parts.launch.to_string()).unwrap();
    let later = TaskId::from_wire(format!("{later}{}", parts.launch + 1));
    world.update(&later, TaskState::Running);
    assert!(
        world.record().members[&MemberId(0)]
            .slot
            .as_ref()
            .unwrap()
            .used
    );
}
