//! Members whose task is lost: when they are launched again, and when they vote again.

use std::time::Duration;

use super::world::{World, name, spec};
use crate::{
    cluster::{id::MemberId, view::ClusterState, voters::Durability},
    scheduler::{event::TaskState, report::view},
};

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
