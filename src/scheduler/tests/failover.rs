//! Masters that die or fall silent, and who replaces them.

use std::time::Duration;

use super::world::{World, name};
use crate::{
    cluster::{
        id::{Epoch, MemberId},
        view::ClusterState,
        voters::Durability,
    },
    scheduler::event::Event,
};

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

/// Goal: two voters that each hold something that the other lacks are not elected in turn for as long as a third one, whose
/// acknowledgement is needed, does not answer. Method: the old master comes back with more than its successor has.
#[test]
fn an_elected_member_gets_its_time_to_open() {
    let mut world = World::running(3, Durability::Majority);
    world.instance(0).position = "0-1-1001,4412494-1-1".into();
    world.instance(1).position = "0-1-1000,4412494-1-1".into();
    world.instance(2).position = "0-1-1000,4412494-1-1".into();
    world.instance(2).broken = true;
    world.instance(0).process = None;
    world.converge();
    let elected = |world: &World| world.record().elected().map(|elected| elected.member);
    assert_eq!(elected(&world), Some(MemberId(1)));

    let back = world.process();
    world.instance(0).process = Some(back);
    world.instance(0).quarantined = true;
    world.converge();
    world.pass(Duration::from_millis(9_900));
    world.converge();
    assert_eq!(world.record().epoch, Epoch(2), "it may still open");
    // Its marker is in its binlog, and it is killed when the next epoch begins.
    world.instance(1).process = None;
    world.instance(1).position = "0-1-1000,4412494-1-2".into();
    world.pass(Duration::from_millis(200));
    assert_eq!(world.record().epoch, Epoch(3));
    world.converge();
    world.pass(Duration::from_secs(5));
    world.converge();
    assert_eq!(elected(&world), None, "the killed one is being started");
    let back = world.process();
    world.instance(1).process = Some(back);
    world.converge();
    assert_eq!(
        elected(&world),
        Some(MemberId(1)),
        "its marker is the highest"
    );
}

/// Goal: a master that gets no acknowledgement of its marker though everybody follows, because that got lost, gets another
/// epoch for it; and nobody is in a hurry. Method: the marker's acknowledgement never comes in one epoch.
#[test]
fn a_master_that_nobody_can_acknowledge_any_more_is_elected_anew() {
    let mut world = World::running(3, Durability::Majority);
    for member in [0, 1, 2] {
        world.instance(member).unheard_in = Some(Epoch(2));
    }
    world.instance(0).process = None;
    world.converge();
    world.pass(Duration::from_millis(9_900));
    assert_eq!(world.record().epoch, Epoch(2), "it may still open");
    assert_eq!(world.record().published.master, None);
    world.pass(Duration::from_millis(100));
    assert_eq!(world.record().epoch, Epoch(3));
    let back = world.process();
    world.instance(0).process = Some(back);
    world.converge();
    world.pass(Duration::from_secs(20));
    world.converge();
    assert!(world.record().published.master.is_some());
    assert_eq!(world.record().epoch, Epoch(3));
}
