//! Members whose task is lost: when they are launched again, and when they vote again.

use std::time::Duration;

use super::world::{World, name, spec};
use crate::{
    cluster::{
        id::{Epoch, MemberId},
        view::ClusterState,
        voters::Durability,
    },
    scheduler::{
        event::{Event, TaskState},
        report::view,
    },
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

/// Goal: two voters, one of which lost its data while the server of the other one was restarted: the master needs the
/// acknowledgement of a voter that may not give any before it has a canary. Method: the scheduler is replaced
/// after each of the records that it stores.
#[test]
fn a_voter_that_lost_its_data_votes_again_before_the_master_has_opened() {
    for cut in std::iter::once(None).chain((0..12).map(Some)) {
        let mut world = World::running(2, Durability::Majority);
        world.converge();
        let lost = world.task_of(1);
        let old = world.instance(1).data;
        world.cut_after = cut;
        world.instances.remove(&lost);
        let restarted = world.process();
        world.instance(0).process = Some(restarted);
        world.task(&lost, TaskState::Failed);
        world.settle();
        world.converge();
        let data = world.instance(1).data;
        let record = world.record();
        assert_ne!(data, old);
        assert_eq!(record.voters.members[&MemberId(1)], Some(data), "{cut:?}");
        assert_eq!(record.published.master, Some(MemberId(0)), "{cut:?}");
        assert_eq!(record.epoch, Epoch(2), "{cut:?}: one election and no more");
        assert!(record.canary >= 1, "{cut:?}");
    }
}

/// Goal: an ACCEPT that got lost gives its offer back, which nobody else does. Method: a launch that the master
/// never hears of.
#[test]
fn the_offer_of_a_launch_that_got_lost_is_given_back() {
    let mut world = World::new(1);
    world.lose_launches = true;
    world.create(spec(1, Durability::Async));
    let lost = world.task_of(0);
    let [offer] = &world.lost_offers[..] else {
        panic!("one launch: {:?}", world.lost_offers);
    };
    let offer = offer.clone();
    world.lose_launches = false;
    world.pass(Duration::from_millis(59_900));
    assert!(!world.declined.contains(&offer));
    world.pass(Duration::from_millis(100));
    let given_back = |world: &World| world.declined.iter().filter(|o| **o == offer).count();
    assert_eq!(given_back(&world), 1);
    world.pass(Duration::from_secs(60));
    assert_eq!(given_back(&world), 1, "once");
    world.task(&lost, TaskState::Unknown);
    world.offer();
    world.settle();
    assert_ne!(world.task_of(0), lost);
    // One that was answered was used.
    world.pass(Duration::from_secs(120));
    assert_eq!(world.lost_offers.len(), 1);
}

/// The same where Mesos is certain that there is no such task before anybody has asked for it.
#[test]
fn the_offer_of_a_launch_that_came_to_nothing_is_given_back() {
    let mut world = World::new(1);
    world.lose_launches = true;
    world.create(spec(1, Durability::Async));
    let lost = world.task_of(0);
    let offer = world.lost_offers[0].clone();
    world.update(&lost, TaskState::Gone);
    let given_back = world.declined.iter().filter(|o| **o == offer).count();
    assert_eq!(given_back, 1);
}

#[test]
fn offers_are_asked_for_only_when_that_changes() {
    let mut world = World::running(3, Durability::Majority);
    let before = world.offers_asked_for;
    world.instance(0).process = None;
    world.converge();
    assert_eq!(world.record().epoch, Epoch(2));
    assert_eq!(world.offers_asked_for, before);
    let lost = world.task_of(1);
    world.instances.remove(&lost);
    world.task(&lost, TaskState::Failed);
    world.settle();
    assert_ne!(world.task_of(1), lost);
    assert_eq!(world.offers_asked_for, before + 2, "and not any more");
}

/// Goal: what nobody can use now comes again soon if somebody waits, else late; what is for others comes hardly ever.
#[test]
fn offers_are_given_back_for_as_long_as_they_are_of_no_use() {
    let mut world = World::new(1);
    world.create(spec(3, Durability::Majority));
    world.refused_for.clear();
    world.offer();
    world.settle();
    let waited: Vec<f64> = world.refused_for.values().copied().collect();
    assert_eq!(waited, [1.0], "two members wait for other agents");

    let mut world = World::running(3, Durability::Majority);
    world.refused_for.clear();
    world.offer();
    world.settle();
    let idle: Vec<f64> = world.refused_for.values().copied().collect();
    assert_eq!(idle, [600.0; 3]);

    world.refused_for.clear();
    world.declined.clear();
    let foreign = |ids: &[&str]| Event::Foreign(ids.iter().map(|id| (*id).to_owned()).collect());
    world.tell(foreign(&["theirs", "others"]));
    world.settle();
    assert_eq!(world.declined, ["others", "theirs"], "once");
    assert!(world.refused_for.values().all(|it| *it >= 86_400.0));
    world.state.apply(foreign(&["gone"]), world.now());
    world.tell(Event::Rescinded("gone".to_owned()));
    assert_eq!(world.declined.len(), 2);
}
