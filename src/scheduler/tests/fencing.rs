//! What holds up an election: masters that may still be open, and clusters that fail over again and again.

use std::time::Duration;

use super::world::{World, name};
use crate::{
    cluster::{
        id::{Epoch, MemberId},
        view::ClusterState,
        voters::Durability,
    },
    scheduler::event::{Event, TaskState},
};

/// An `async` cluster of three whose master has fallen silent and is being replaced.
fn silent_master() -> World {
    let mut world = World::running(3, Durability::Async);
    hurry(&mut world);
    world.pass(Duration::from_secs(60));
    world.instance(0).silent = true;
    let task_id = world.task_of(0);
    world.tell(Event::ReportGone {
        cluster: name(),
        task_id,
    });
    world.converge();
    assert_eq!(world.record().epoch, Epoch(2));
    world
}

/// The election waits a second for voters that do not report, so that the lease is what it waits for.
fn hurry(world: &mut World) {
    world.state.policy.election_timeout = Duration::from_secs(1);
}

/// Goal: an `async` cluster has no second master while the first may still be open. Method: one that is only silent.
#[test]
fn an_async_master_that_is_only_silent_is_replaced_when_its_lease_has_run_out() {
    let mut world = silent_master();
    world.pass(Duration::from_secs(1));
    assert!(world.record().elected().is_none());
    let awaited = &world.state.clusters[&name()].awaited;
    assert!(awaited.reason.contains("lease"), "{}", awaited.reason);
    world.pass(Duration::from_millis(8_900));
    assert!(world.record().elected().is_none());
    world.pass(Duration::from_millis(200));
    world.converge();
    assert_eq!(world.record().published.master, Some(MemberId(1)));
    assert_eq!(world.record().named.len(), 1, "the fence is confirmed");
}

#[test]
fn the_lease_begins_anew_with_a_new_scheduler() {
    let mut world = silent_master();
    world.pass(Duration::from_millis(9_900));
    world.replace_scheduler();
    hurry(&mut world);
    world.converge();
    world.pass(Duration::from_millis(9_900));
    assert!(world.record().elected().is_none());
    world.pass(Duration::from_millis(200));
    assert!(world.record().elected().is_some());
}

#[test]
fn mesos_word_that_the_task_has_ended_is_a_fence() {
    let mut world = silent_master();
    let task = world.task_of(0);
    world.instances.remove(&task);
    world.task(&task, TaskState::Failed);
    world.settle();
    world.pass(Duration::from_secs(1));
    world.converge();
    assert_eq!(world.record().published.master, Some(MemberId(1)));
}

/// Goal: no flapping. Method: each master is killed as soon as it is one.
#[test]
fn a_cluster_that_fails_over_again_and_again_waits_longer_and_longer() {
    let mut world = World::running(3, Durability::Majority);
    let kill = |world: &mut World| {
        let master = world.record().published.master.unwrap().0;
        let process = Some(crate::cluster::id::ProcessId(world.id()));
        world.instance(master).process = process;
        world.converge();
    };
    for _ in 0..5 {
        kill(&mut world);
        assert_eq!(world.state(), ClusterState::Running);
    }
    for wait in [5, 10, 20] {
        kill(&mut world);
        assert_eq!(world.state(), ClusterState::Electing);
        let reason = world.state.clusters[&name()].awaited.reason.clone();
        assert!(reason.contains("has failed over"), "{reason}");
        world.pass(Duration::from_secs(wait) - Duration::from_millis(1));
        assert!(world.record().elected().is_none(), "{wait}");
        world.pass(Duration::from_millis(1));
        world.converge();
        assert_eq!(world.state(), ClusterState::Running);
    }
    world.pass(Duration::from_secs(300));
    kill(&mut world);
    assert_eq!(world.state(), ClusterState::Running, "all is forgiven");
}
