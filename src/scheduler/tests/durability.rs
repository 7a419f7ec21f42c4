//! The durability of a cluster that runs is changed.

use std::time::Duration;

use super::world::{PASSWORD, World, name};
use crate::{
    cluster::{
        change::{Change, Changed, Course},
        id::MemberId,
        view::ClusterState,
        voters::Durability,
    },
    scheduler::{
        action::{Refusal, Reply},
        event::Wish,
    },
};

fn to(durability: Durability) -> Wish {
    Wish::Change(Change {
        durability: Some(durability),
        ..Change::default()
    })
}

fn changed(from: &str, to: &str) -> Reply {
    let field = "durability".to_owned();
    let (from, to) = (from.to_owned(), to.to_owned());
    Reply::Changed {
        name: name(),
        changed: vec![Changed { field, from, to }],
        course: Course::default(),
    }
}

fn unchanged() -> Reply {
    Reply::Changed {
        name: name(),
        changed: Vec::new(),
        course: Course::default(),
    }
}

/// Goal: whatever dies, the voters and `k` become what is asked for, and then a failover goes by it. Method: the story for
/// each number of members, cut after the 1st, 2nd, ... stored record.
fn change(nodes: u32, from: Durability, wanted: Durability, voters: usize, k: u32) {
    for cut in (0..16).map(Some).chain([None]) {
        let mut world = World::running(nodes, from);
        let epoch = world.record().epoch;
        world.cut_after = cut;
        let told = world.ask(Some(PASSWORD), to(wanted));
        let expected = changed(from.as_str(), wanted.as_str());
        assert!(told.is_none_or(|told| told == expected), "cut {cut:?}");
        world.converge();
        world.converge();
        let record = world.record();
        assert_eq!(record.spec.durability, wanted, "cut {cut:?}");
        let voting = (record.voters.members.len(), record.voters.k_floor);
        assert_eq!(voting, (voters, k), "cut {cut:?}");
        assert_eq!((record.terms.acknowledgements, &record.change), (k, &None));
        assert_eq!(record.epoch, epoch, "no master is elected for it");
        assert_eq!(world.explanation().standing.changing, None, "cut {cut:?}");
        assert_eq!(world.explanation().quorum.durability, wanted);
        assert_eq!(world.state(), ClusterState::Running);
        // Asked again, after an answer that got lost.
        assert_eq!(world.ask(Some(PASSWORD), to(wanted)), Some(unchanged()));

        world.instance(0).process = None;
        world.converge();
        world.pass(Duration::from_secs(60));
        world.converge();
        let master = world.record().published.master;
        assert!(
            master.is_some_and(|master| master != MemberId(0)),
            "cut {cut:?}"
        );
    }
}

#[test]
fn async_becomes_majority() {
    change(3, Durability::Async, Durability::Majority, 3, 1);
    // MariaDB: the voters that are too many leave first.
    change(5, Durability::Async, Durability::Majority, 3, 1);
}

#[test]
fn majority_becomes_async() {
    change(3, Durability::Majority, Durability::Async, 3, 0);
    change(5, Durability::Majority, Durability::Async, 5, 0);
}

/// Goal: an election goes by the voters under which it began, and these change when its outcome is stored. Method: the master
/// ends in the moment in which the request is stored, so that the election comes first.
#[test]
fn a_master_that_ends_with_the_request_has_a_successor_by_the_former_rule() {
    let mut world = World::running(3, Durability::Majority);
    world.vanish(1);
    world.instance(0).process = None;
    world.converge();
    assert!(world.record().elected().is_none(), "one of two is there");
    let (record, _) = world.records.get_mut(&name()).unwrap();
    record.spec.durability = Durability::Async;
    world.replace_scheduler();
    world.settle();
    world.instance(1).silent = false;
    world.converge();
    world.pass(Duration::from_secs(60));
    world.converge();
    let record = world.record();
    let master = record.published.master;
    assert!(master.is_some_and(|master| master != MemberId(0)));
    assert_eq!(record.voters.k_floor, 0);
    assert_eq!(world.explanation().standing.changing, None);
}

/// From when majority is asked for no election loses a write, and until it is in force everybody is told.
#[test]
fn majority_that_is_not_in_force_yet_says_so_and_elects_with_all_voters() {
    let mut world = World::running(3, Durability::Async);
    world.instance(1).broken = true;
    world.instance(2).broken = true;
    world.converge();
    world.ask(Some(PASSWORD), to(Durability::Majority));
    world.converge();
    let changing = world.explanation().standing.changing.unwrap();
    assert!(
        changing.starts_with("changing from async to majority: "),
        "{changing}"
    );
    assert!(
        changing.contains("acknowledged by the master alone"),
        "{changing}"
    );

    world.vanish(2);
    world.instance(0).process = None;
    world.converge();
    world.pass(Duration::from_secs(600));
    world.converge();
    assert!(
        world.record().elected().is_none(),
        "member 2 may hold a write"
    );
    let told = world.ask(Some(PASSWORD), to(Durability::Async));
    let Some(Reply::Refused(Refusal::NotPossible(sentence))) = told else {
        panic!("{told:?}");
    };
    assert!(
        sentence.contains("while a master is being elected"),
        "{sentence}"
    );
    world.instance(2).silent = false;
    let again = world.process();
    world.instance(0).process = Some(again);
    world.converge();
    assert!(world.record().elected().is_some());
}

#[test]
fn one_node_may_be_majority_which_makes_no_difference() {
    let mut world = World::running(1, Durability::Async);
    let told = world.ask(Some(PASSWORD), to(Durability::Majority));
    assert_eq!(told, Some(changed("async", "majority")));
    world.converge();
    let record = world.record();
    assert_eq!((record.voters.k_floor, record.voters.quorum()), (0, 1));
    assert_eq!(world.explanation().standing.changing, None);
    assert_eq!(world.state(), ClusterState::Running);
}

/// Two voters of which one is gone: writes wait, until nobody asks for them to be acknowledged any more.
#[test]
fn async_gets_writes_back_from_a_master_that_waits_for_acknowledgements() {
    let mut world = World::running(2, Durability::Majority);
    world.pass(Duration::from_secs(60));
    world.vanish(0);
    world.pass(Duration::from_secs(60));
    world.converge();
    let chosen = world.record().elected().unwrap();
    assert_eq!((chosen.member, chosen.opened), (MemberId(1), false));
    world.ask(Some(PASSWORD), to(Durability::Async));
    world.converge();
    assert_eq!(world.record().published.master, Some(MemberId(1)));
    assert_eq!(world.record().lossy, None);
}

#[test]
fn it_takes_the_password() {
    let mut world = World::running(3, Durability::Majority);
    let before = world.record().clone();
    let reply = world.ask(None, to(Durability::Async));
    assert_eq!(reply, Some(Reply::Refused(Refusal::PasswordMissing)));
    let reply = world.ask(Some("x"), to(Durability::Async));
    assert_eq!(reply, Some(Reply::Refused(Refusal::PasswordWrong)));
    world.converge();
    assert_eq!(*world.record(), before);
    let same = world.ask(Some(PASSWORD), to(Durability::Majority));
    assert_eq!(same, Some(unchanged()));
}
