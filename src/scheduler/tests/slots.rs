//! Slots: made with the first launch, found again by the next, kept whatever happens to tasks.

use std::time::Duration;

use super::world::{KEPT_FOR, PASSWORD, World, name, spec};
use crate::{
    cluster::{
        flavour::Flavour,
        id::{Epoch, MemberId},
        record::MemberRecord,
        slot::SlotId,
        view::ClusterState,
        voters::Durability,
    },
    scheduler::{event::TaskState, members::LAUNCH_DEADLINE, slots::SLOT_PATIENCE},
};

fn member(world: &World, id: u32) -> &MemberRecord {
    &world.record().members[&MemberId(id)]
}

/// A cluster of one that was asked for and whose launch was lost with its slot half made.
fn lost_after(reserving_and_making: bool) -> World {
    let mut world = World::with_volumes(1);
    world.lose_after = Some(reserving_and_making);
    world.create(spec(1, Durability::Async));
    world.away.clear();
    world
}

#[test]
fn a_task_is_launched_again_where_its_data_is() {
    let mut world = World::running_on_slots(3, Durability::Majority);
    let before = world.record().clone();
    let old = world.instance(2).data;
    world.end(2, TaskState::Failed);
    let relaunched = world.task_of(2);
    assert_ne!(
        Some(&relaunched),
        before.task(MemberId(2)).map(|it| &it.task_id)
    );
    assert_eq!(world.instance(2).data, old);
    let (was, is) = (&before.members[&MemberId(2)], member(&world, 2));
    assert_eq!(was.slot, is.slot);
    let place = |member: &MemberRecord| {
        let task = member.task.clone().unwrap();
        (task.agent_id, task.host, task.port)
    };
    assert_eq!(place(was), place(is));
    world.converge();
    assert_eq!(world.state(), ClusterState::Running);
    assert_eq!(
        world.record().canary,
        before.canary,
        "its data counts as before"
    );
    assert_eq!(world.record().epoch, before.epoch);
    assert_eq!(world.slots.len(), 3);
}

#[test]
fn a_master_alone_opens_again_on_its_data() {
    let mut world = World::running_on_slots(1, Durability::Async);
    let old = world.instance(0).data;
    world.end(0, TaskState::Killed);
    world.converge();
    assert_eq!(world.state(), ClusterState::Running);
    assert_eq!(world.instance(0).data, old);
    assert_eq!(
        world.record().epoch,
        Epoch(2),
        "a restarted server needs a new epoch"
    );
}

#[test]
fn all_members_at_once_elect_again_with_what_they_have() {
    let mut world = World::running_on_slots(3, Durability::Majority);
    let data: Vec<_> = (0..3).map(|id| world.instance(id).data).collect();
    world.away = (0..3).collect();
    for id in 0..3 {
        world.end(id, TaskState::Failed);
    }
    world.away.clear();
    world.pass(Duration::from_secs(2));
    world.offer();
    world.settle();
    world.converge();
    assert_eq!(world.state(), ClusterState::Running);
    for id in 0..3 {
        assert_eq!(world.instance(id).data, data[id as usize]);
    }
    assert_eq!(world.record().lossy, None);
    assert_eq!(world.record().canary, 0, "nobody has lost anything");
}

#[test]
fn a_member_waits_for_its_agent_until_the_grace_time_has_passed() {
    let mut world = World::running_on_slots(3, Durability::Majority);
    world.state.policy.replace_after = Duration::from_secs(86_400);
    let slot = member(&world, 2).slot.clone();
    let agent: u32 = slot.as_ref().unwrap().agent_id[1..].parse().unwrap();
    world.away.insert(agent);
    world.end(2, TaskState::Gone);
    for _ in 0..100 {
        world.pass(Duration::from_secs(60));
        world.offer();
        world.settle();
    }
    assert_eq!(member(&world, 2).task, None);
    assert_eq!(member(&world, 2).slot, slot);
    world.away.clear();
    world.offer();
    world.settle();
    assert!(member(&world, 2).task.is_some());
}

/// Goal: a slot that was never made is not waited for. Method: a launch never gets to its agent, which comes back under another id
/// after the master has given up on it; then the same where the task was heard of.
#[test]
fn a_launch_that_nobody_has_heard_of_is_given_up_with_its_agent() {
    let mut world = World::with_volumes(2);
    world.lose_launches = true;
    world.create(spec(1, Durability::Majority));
    world.lose_launches = false;
    let (task, lost) = (world.task_of(0), member(&world, 0).slot.clone().unwrap());
    world.update(&task, TaskState::Unreachable);
    world.pass(LAUNCH_DEADLINE - Duration::from_secs(1));
    assert_eq!(world.task_of(0), task, "it may still get there");
    world.pass(Duration::from_secs(2));
    assert_eq!(member(&world, 0).task, None);
    world.pass(SLOT_PATIENCE);
    world.offer();
    world.settle();
    world.converge();
    assert_eq!(world.state(), ClusterState::Running);
    assert_eq!(member(&world, 0).given_up[0].id, lost.id);

    let task = world.task_of(0);
    world.unreachable.insert(task.clone());
    world.update(&task, TaskState::Unreachable);
    world.vanish(0);
    world.pass(Duration::from_secs(86_400));
    world.replace_scheduler();
    world.pass(Duration::from_secs(86_400));
    world.offer();
    world.settle();
    assert_eq!(world.task_of(0), task, "it holds the data");
}

/// Goal: a task of which nothing more will be heard does not keep its member from its data. Method: an agent comes back under
/// another id after the master has given up on it, or has forgotten it.
#[test]
fn an_agent_that_was_registered_anew_is_recognised_by_its_slot() {
    for told in [TaskState::Unreachable, TaskState::Unknown] {
        let mut world = World::running_on_slots(1, Durability::Async);
        let (old, task) = (world.instance(0).data, world.task_of(0));
        let id = member(&world, 0).slot.clone().unwrap().id;
        world.away.insert(0);
        world.vanish(0);
        world.end(0, told);
        world.pass(Duration::from_secs(1000));
        world.offer();
        world.settle();
        assert_eq!(world.task_of(0), task, "its agent may come back as it was");
        assert!(world.state.wants_offers());
        world.slots.get_mut(&id).unwrap().agent = 1;
        world.agents = 2;
        world.offer();
        world.settle();
        world.converge();
        assert_ne!(world.task_of(0), task);
        assert_eq!(world.instance(0).data, old);
        assert_eq!(world.state(), ClusterState::Running);
        assert!(!world.state.wants_offers());
    }
}

/// Goal: a member that serves is left alone, whatever Mesos has forgotten of it. Method: its slot is offered under another agent's
/// id while its executor reports.
#[test]
fn a_member_in_sight_is_not_launched_again() {
    let mut world = World::running_on_slots(1, Durability::Async);
    let task = world.task_of(0);
    let id = member(&world, 0).slot.clone().unwrap().id;
    world.update(&task, TaskState::Unknown);
    assert!(!world.state.wants_offers());
    world.instance(0).slot = None;
    world.slots.get_mut(&id).unwrap().agent = 1;
    world.agents = 2;
    world.pass(Duration::from_secs(1000));
    world.offer();
    world.settle();
    assert_eq!(world.task_of(0), task);
}

#[test]
fn no_volume_is_made_in_place_of_one_that_was_used() {
    let mut world = World::running_on_slots(1, Durability::Async);
    let id = member(&world, 0).slot.clone().unwrap().id;
    world.away.insert(0);
    world.end(0, TaskState::Failed);
    world.away.clear();
    world.slots.get_mut(&id).unwrap().has_volume = false;
    world.pass(Duration::from_secs(600));
    world.offer();
    world.settle();
    assert_eq!(member(&world, 0).task, None);
    assert_eq!(world.slots.len(), 1);
}

#[test]
fn what_a_lost_launch_has_made_is_completed() {
    for volume in [false, true] {
        let mut world = lost_after(volume);
        assert_eq!(member(&world, 0).task, None);
        let slot = member(&world, 0).slot.clone().unwrap();
        assert!(!slot.used);
        world.offer();
        world.settle();
        world.converge();
        assert_eq!(world.state(), ClusterState::Running);
        assert_eq!(member(&world, 0).slot.as_ref().unwrap().id, slot.id);
        assert_eq!(world.slots.len(), 1, "volume: {volume}");
        assert!(world.slots[&slot.id].has_volume);
    }
}

#[test]
fn a_slot_that_never_came_to_be_is_given_up_and_remembered() {
    let mut world = lost_after(false);
    let lost = member(&world, 0).slot.clone().unwrap();
    world.slots.clear();
    world.pass(SLOT_PATIENCE - Duration::from_millis(1));
    world.offer();
    world.settle();
    assert_eq!(member(&world, 0).task, None, "it may still turn up");
    world.pass(Duration::from_millis(1));
    world.offer();
    world.settle();
    world.converge();
    assert_eq!(world.state(), ClusterState::Running);
    assert_ne!(member(&world, 0).slot.as_ref().unwrap().id, lost.id);
    assert_eq!(member(&world, 0).given_up[0].id, lost.id);
}

#[test]
fn a_slot_counts_as_used_before_its_data_does() {
    let mut world = World::with_volumes(1);
    world.create(spec(1, Durability::Async));
    assert!(member(&world, 0).slot.as_ref().unwrap().used);
    assert_eq!(world.record().epoch, Epoch(0), "nobody has reported yet");
}

#[test]
fn a_lost_scheduler_leaves_one_slot_for_each_member() {
    for cut_after in 0..6 {
        let mut world = World::with_volumes(3);
        world.cut_after = Some(cut_after);
        world.create(spec(3, Durability::Majority));
        for _ in 0..10 {
            world.offer();
            world.settle();
            world.pass(Duration::from_secs(10));
        }
        world.converge();
        assert_eq!(
            world.state(),
            ClusterState::Running,
            "cut after {cut_after}"
        );
        assert_eq!(world.slots.len(), 3);
        assert_eq!(world.records[&name()].0.members.len(), 3);
    }
}

fn deleted(nodes: u32) -> World {
    let mut world = World::running_on_slots(nodes, Durability::Majority);
    world.delete(Some(PASSWORD));
    assert!(world.records.is_empty(), "the name is free");
    world
}

#[test]
fn what_a_deleted_cluster_had_is_kept_and_then_destroyed() {
    let mut world = deleted(3);
    assert_eq!(world.kept.len(), 1);
    world.offer();
    world.settle();
    world.pass(KEPT_FOR - Duration::from_millis(1));
    world.offer();
    world.settle();
    assert_eq!((world.slots.len(), world.released.len()), (3, 0));
    world.pass(Duration::from_millis(1));
    assert!(world.slots.is_empty(), "offers are asked for");
    assert!(world.kept.is_empty());
    assert_eq!(world.acknowledged.len(), 3);
    assert!(world.state.keeping.orphans.is_empty());
    assert!(!world.state.keeping.wants_offers(world.now()));
}

#[test]
fn the_name_of_a_kept_cluster_can_be_used_again() {
    let mut world = deleted(3);
    let old: Vec<_> = world.slots.keys().cloned().collect();
    world.create(spec(3, Durability::Majority));
    world.converge();
    assert_eq!(world.state(), ClusterState::Running);
    assert_eq!(world.slots.len(), 6, "the new one has slots of its own");
    world.pass(KEPT_FOR);
    world.offer();
    world.settle();
    assert!(old.iter().all(|slot| !world.slots.contains_key(slot)));
    assert_eq!(world.slots.len(), 3);
    assert_eq!(world.state(), ClusterState::Running);
}

#[test]
fn the_intention_to_destroy_is_stored_and_survives_the_scheduler() {
    for cut_after_kept in [false, true] {
        let mut world = deleted(3);
        world.away = (0..3).collect();
        if cut_after_kept {
            world.replace_scheduler();
        }
        world.pass(KEPT_FOR);
        assert!(world.kept.values().all(|(kept, _)| kept.destroying));
        assert!(world.released.is_empty());
        world.state.policy.keep_deleted = Duration::from_secs(86_400);
        world.replace_scheduler();
        world.away.clear();
        world.offer();
        world.settle();
        assert!(world.slots.is_empty() && world.kept.is_empty());
    }
}

#[test]
fn an_agent_that_is_away_is_looked_for_now_and_then() {
    let mut world = deleted(1);
    world.away.insert(0);
    world.pass(KEPT_FOR);
    assert!(world.state.keeping.wants_offers(world.now()));
    let mut wanted = 0;
    for _ in 0..720 {
        world.pass(Duration::from_secs(5));
        wanted += u32::from(world.state.keeping.wants_offers(world.now()));
    }
    assert!((30..=42).contains(&wanted), "for {wanted} of 720 times 5 s");
    assert_eq!(world.kept.len(), 1);
    world.away.clear();
    world.pass(Duration::from_secs(300));
    assert_eq!(world.kept.len(), 1, "not now");
    world.pass(Duration::from_secs(300));
    assert!(world.slots.is_empty() && world.kept.is_empty());
}

#[test]
fn agents_without_feedback_are_asked_without_it() {
    let mut world = deleted(1);
    world.no_feedback = true;
    world.pass(KEPT_FOR);
    world.offer();
    world.settle();
    let asked: Vec<bool> = world
        .released
        .iter()
        .map(|(_, feedback)| *feedback)
        .collect();
    assert_eq!(asked, [true, true, false]);
    assert!(world.slots.is_empty());
    assert_eq!(world.kept.len(), 1, "nobody has said so yet");
    world.pass(Duration::from_secs(61));
    world.offer();
    world.settle();
    assert!(world.kept.is_empty());
}

/// Goal: a slot whose agent is merely away is not taken for gone. Method: of two agents without feedback the one with the
/// slot never gets what it is asked for, and is away when the other one is offered.
#[test]
fn an_agent_without_feedback_that_is_away_says_nothing_of_its_slot() {
    let mut world = World::spacious(Flavour::Mysql, 1, 2, Durability::Majority);
    world.delete(Some(PASSWORD));
    world.no_feedback = true;
    let slots = world.slots.clone();
    let (slot, placed) = slots.iter().next().unwrap();
    world.pass(KEPT_FOR);
    world.offer();
    world.settle();
    assert!(world.slots.is_empty());
    world.slots.insert(slot.clone(), placed.clone());
    world.away.insert(placed.agent);
    let left = |world: &World| -> Vec<SlotId> {
        let kept = world.kept.values().next();
        kept.map_or_else(Vec::new, |(kept, _)| kept.left.keys().cloned().collect())
    };
    for _ in 0..30 {
        world.pass(Duration::from_secs(61));
        world.offer();
        world.settle();
    }
    assert_eq!(left(&world), std::slice::from_ref(slot));
    world.away.clear();
    world.offer();
    world.settle();
    assert!(world.slots.is_empty());
    assert_eq!(left(&world), std::slice::from_ref(slot), "not known yet");
    world.pass(Duration::from_secs(61));
    world.offer();
    world.settle();
    assert!(world.kept.is_empty());
}

#[test]
fn what_no_record_explains_is_told_of_and_left_alone() {
    let mut world = deleted(1);
    world.kept.clear();
    world.replace_scheduler();
    world.offer();
    world.settle();
    assert_eq!(world.state.keeping.orphans.len(), 1);
    world.pass(Duration::from_secs(1_000_000));
    world.offer();
    world.settle();
    assert_eq!((world.slots.len(), world.released.len()), (1, 0));
}

#[test]
fn a_slot_that_was_given_up_is_destroyed_when_it_turns_up() {
    let mut world = lost_after(true);
    let lost = member(&world, 0).slot.clone().unwrap();
    let slot = world.slots.remove(&lost.id).unwrap();
    world.pass(SLOT_PATIENCE);
    world.offer();
    world.settle();
    world.converge();
    assert_eq!(member(&world, 0).given_up[0].id, lost.id);
    world.slots.insert(lost.id.clone(), slot);
    world.offer();
    world.settle();
    assert_eq!(world.released, [(lost.id, true)]);
    assert_eq!(member(&world, 0).given_up, []);
    assert_eq!(world.acknowledged.len(), 1);
    assert_eq!(world.slots.len(), 1);
    assert_eq!(world.state(), ClusterState::Running);
}

#[test]
fn a_slot_on_which_no_server_can_run_is_given_up_at_once() {
    let mut world = World::with_volumes(2);
    world.next_is_unfit = true;
    world.executors_linger = true;
    world.create(spec(1, Durability::Async));
    assert_eq!(world.released, [], "a part of it is not offered yet");
    world.executors_linger = false;
    world.pass(Duration::from_secs(2));
    world.offer();
    world.settle();
    world.converge();
    assert_eq!(world.state(), ClusterState::Running);
    world.offer();
    world.settle();
    let slot = member(&world, 0).slot.clone().unwrap();
    let (released, _) = &world.released[0];
    assert_ne!(*released, slot.id);
    assert_eq!(world.slots.keys().collect::<Vec<_>>(), [&slot.id]);
}

/// Of a slot with data the same word is no reason to leave it.
#[test]
fn a_slot_that_was_used_is_kept_if_no_server_can_run_on_it_now() {
    let mut world = World::running_on_slots(3, Durability::Majority);
    let before = member(&world, 2).slot.clone();
    world.end(2, TaskState::Unfit);
    world.pass(Duration::from_secs(2));
    world.offer();
    world.settle();
    assert_eq!(member(&world, 2).slot, before);
}
