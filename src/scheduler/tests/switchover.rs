//! Masters that hand over because somebody asks for it.

use std::time::Duration;

use super::world::{Answers, PASSWORD, World};
use crate::{
    cluster::{
        failover_record::{Cause, WonBy},
        flavour::Flavour,
        id::{Epoch, MemberId},
        switchover::Outcome,
        voters::Durability,
    },
    scheduler::{
        action::{Refusal, Reply},
        event::Wish,
    },
};

fn to(member: u32) -> Wish {
    let to = Some(MemberId(member));
    Wish::Switchover { to }
}

fn best() -> Wish {
    Wish::Switchover { to: None }
}

fn outcome(world: &World) -> Option<&Outcome> {
    world.record().switchover.as_ref()?.outcome.as_ref()
}

fn master(world: &World) -> Option<u32> {
    world.record().published.master.map(|master| master.0)
}

fn refusal(reply: Option<Reply>) -> String {
    match reply {
        Some(Reply::Refused(Refusal::NotPossible(sentence))) => sentence,
        other => panic!("{other:?}"),
    }
}

/// A cluster whose members all hold the same.
fn running(flavour: Flavour, nodes: u32, durability: Durability) -> World {
    let mut world = World::running_on(flavour, nodes, durability);
    world.pass(Duration::from_secs(60));
    if flavour == Flavour::Mariadb {
        for member in 0..nodes {
            world.instance(member).position = "0-1-7,4412494-1-1".to_owned();
        }
    }
    world.converge();
    assert_eq!(master(&world), Some(0));
    world
}

#[test]
fn the_target_is_master_and_nobody_was_restarted() {
    for (flavour, durability) in [
        (Flavour::Mariadb, Durability::Majority),
        (Flavour::Mysql, Durability::Majority),
        (Flavour::Mariadb, Durability::Async),
    ] {
        let mut world = running(flavour, 3, durability);
        let former = world.instance(0).process;
        let Some(Reply::SwitchingOver { switchover, .. }) = world.ask(Some(PASSWORD), to(2)) else {
            panic!("it is refused");
        };
        assert_eq!(switchover.unwrap().number, 1);
        world.converge();
        assert_eq!(master(&world), Some(2), "{flavour} {durability}");
        let record = world.record();
        assert_eq!(record.epoch, Epoch(2));
        assert!(record.published.slaves.contains(&MemberId(0)));
        assert!(outcome(&world).unwrap().done);
        assert_eq!(record.goal().handover, None);
        assert!(record.failover_times.is_empty(), "nothing has failed");
        let failover = record.failovers.last().unwrap();
        assert_eq!(failover.ending.cause, Cause::Switchover);
        let winner = failover.winner.as_ref().unwrap();
        assert_eq!(winner.won_by, WonBy::AskedFor);
        assert_eq!(failover.switchover.as_ref().unwrap().number, 1);
        assert_eq!(world.instance(0).process, former);
        // And back, to whoever is best.
        world.ask(Some(PASSWORD), best());
        world.converge();
        assert_eq!(master(&world), Some(0));
        assert_eq!(world.record().switchover.as_ref().unwrap().number, 2);
    }
}

/// Goal: whatever was stored when a scheduler dies, its successor ends the switchover. Method: it is replaced after each
/// record.
#[test]
fn a_successor_goes_on_from_every_record() {
    for cut in 0..8 {
        let mut world = running(Flavour::Mariadb, 3, Durability::Majority);
        world.cut_after = Some(cut);
        world.ask(Some(PASSWORD), to(1));
        world.converge();
        world.pass(Duration::from_secs(30));
        world.converge();
        let told = outcome(&world).unwrap();
        let failovers = &world.record().failovers;
        assert!(told.done, "after {cut}: {told:?} {failovers:?}");
        assert_eq!(master(&world), Some(1), "after {cut}");
        assert_eq!(world.record().epoch, Epoch(2), "after {cut}");
    }
}

#[test]
fn a_master_that_stays_says_why_and_one_that_says_nothing_is_given_up() {
    let mut world = running(Flavour::Mariadb, 3, Durability::Majority);
    world.instance(0).answers = Answers::Keeps;
    world.ask(Some(PASSWORD), to(1));
    world.converge();
    let told = outcome(&world).unwrap().clone();
    assert!(!told.done);
    assert_eq!(
        told.sentence,
        "member 0 is still the master: it was not to be"
    );
    world.instance(0).answers = Answers::Nothing;
    world.ask(Some(PASSWORD), to(1));
    world.converge();
    assert!(world.record().goal().handover.is_some());
    world.pass(Duration::from_secs(12));
    world.converge();
    let told = outcome(&world).unwrap().clone();
    assert!(told.sentence.starts_with("too slow"), "{}", told.sentence);
    assert_eq!((master(&world), world.record().epoch), (Some(0), Epoch(1)));
    assert_eq!(world.record().goal().handover, None);
}

/// Goal: a target that falls silent when the old master is closed leaves the cluster with a master. Method: it says nothing
/// any more once the epoch has begun.
#[test]
fn a_target_that_falls_silent_leaves_the_old_master() {
    let mut world = running(Flavour::Mariadb, 3, Durability::Majority);
    world.ask(Some(PASSWORD), to(2));
    let (old, target) = (world.task_of(0), world.instance(2));
    target.silent = true;
    world.report(&old);
    assert_eq!(world.record().epoch, Epoch(2));
    world.converge();
    world.pass(Duration::from_secs(2));
    world.converge();
    assert_eq!(master(&world), Some(0));
    let told = outcome(&world).unwrap();
    assert!(!told.done && told.sentence.contains("again"), "{told:?}");
}

#[test]
fn what_cannot_be_done_is_refused_with_the_reason() {
    let mut world = running(Flavour::Mariadb, 4, Durability::Majority);
    let none = world.ask(None, to(1));
    assert_eq!(none, Some(Reply::Refused(Refusal::PasswordMissing)));
    for (member, why) in [(7, "no member 7"), (3, "does not vote")] {
        let told = refusal(world.ask(Some(PASSWORD), to(member)));
        assert!(told.contains(why), "{told}");
    }
    world.instance(1).broken = true;
    world.instance(2).lag_seconds = 60;
    world.converge();
    for (wish, why) in [
        (to(1), "does not follow"),
        (to(2), "60 s or more behind"),
        (best(), "nobody to switch over to"),
    ] {
        let told = refusal(world.ask(Some(PASSWORD), wish));
        assert!(told.contains(why), "{told}");
    }
    let Some(Reply::SwitchingOver { switchover, .. }) = world.ask(Some(PASSWORD), to(0)) else {
        panic!("it is the master already");
    };
    assert_eq!(switchover, None);
    world.instance(1).broken = false;
    world.instance(2).lag_seconds = 0;
    world.converge();
    world.ask(Some(PASSWORD), to(2));
    let told = refusal(world.ask(Some(PASSWORD), to(1)));
    assert!(told.contains("to member 2 is under way"), "{told}");
    assert!(matches!(
        world.ask(Some(PASSWORD), best()),
        Some(Reply::SwitchingOver {
            to: MemberId(2),
            ..
        })
    ));
    world.converge();
    world.instance(2).process = None;
    let dead = world.task_of(2);
    world.report(&dead);
    let told = refusal(world.ask(Some(PASSWORD), to(1)));
    assert!(told.contains("no master that accepts writes"), "{told}");
}
