//! A scheduler that is replaced by one which has only what was stored.

use std::time::Duration;

use super::world::{PASSWORD, World, spec};
use crate::cluster::{id::MemberId, view::ClusterState, voters::Durability};

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
