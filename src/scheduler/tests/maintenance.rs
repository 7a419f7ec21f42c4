//! Offers that are withdrawn, and agents that are wanted back.

use std::time::Duration;

use super::world::{World, name, spec};
use crate::{
    cluster::{record::ClusterRecord, voters::Durability},
    scheduler::{
        event::{Event, TaskState},
        maintenance::InverseOffer,
    },
    time::Timestamp,
};

fn agent_of(record: &ClusterRecord, member: u32) -> String {
    let task = record.task(crate::cluster::id::MemberId(member)).unwrap();
    task.agent_id.clone()
}

/// Goal: an offer that was withdrawn while it was being used costs no more than another launch. Method: as Mesos
/// does it, RESCIND after the launch was stored, and TASK_DROPPED as the answer to the ACCEPT.
#[test]
fn a_launch_on_an_offer_that_was_withdrawn_is_made_again() {
    let mut world = World::new(1);
    world.lose_launches = true;
    world.create(spec(1, Durability::Async));
    let dropped = world.task_of(0);
    let offer = world.lost_offers[0].clone();
    world.tell(Event::Rescinded(offer));
    world.lose_launches = false;
    world.update(&dropped, TaskState::Dropped);
    let again = world.task_of(0);
    assert_ne!(again, dropped);
    assert!(world.instances.contains_key(&again));
    assert_eq!(
        world.record().members.values().next().unwrap().failing,
        None
    );
    // Told again, it changes nothing.
    world.update(&dropped, TaskState::Dropped);
    assert_eq!(world.task_of(0), again);
    world.converge();
}

#[test]
fn an_offer_that_was_withdrawn_before_is_not_used() {
    let mut world = World::new(0);
    world.create(spec(1, Durability::Async));
    assert!(world.instances.is_empty());
    let ids: Vec<String> = world.state.offers.keys().cloned().collect();
    for id in ids {
        world.tell(Event::Rescinded(id));
    }
    assert!(world.state.offers.is_empty());
}

fn inverse(id: &str, agent: &str, from: Timestamp) -> Event {
    Event::Inverse(InverseOffer {
        id: id.to_owned(),
        agent_id: agent.to_owned(),
        from,
        lasts: Some(Duration::from_secs(3600)),
    })
}

/// Goal: an agent is given away only when no member runs there, and people are told. Method: inverse offers for the
/// agent of a member and for another one, answered, repeated, withdrawn and not repeated any more.
#[test]
fn agents_are_given_away_when_no_member_is_there() {
    let mut world = World::running(1, Durability::Async);
    let agent = agent_of(world.record(), 0);
    let from = world.now().plus(Duration::from_secs(600));
    world.tell(inverse("i1", &agent, from));
    world.tell(inverse("i2", "idle", from));
    let answers = |world: &mut World| std::mem::take(&mut world.inverse_answers);
    assert_eq!(
        answers(&mut world),
        [("i1".to_owned(), false), ("i2".to_owned(), true)]
    );
    let told = world.explanation().standing.maintenance;
    let expected = format!(
        "agent {agent} is to be unavailable from {from} for 1h; member 0 runs there; draining: member 0 is to be replaced first"
    );
    assert_eq!(told, [expected]);
    assert_eq!(world.state.clusters[&name()].record, *world.record());

    // Asked again after a minute, it is answered again; each once.
    world.pass(Duration::from_secs(60));
    world.tell(inverse("i3", &agent, from));
    world.pass(Duration::from_secs(1));
    assert_eq!(answers(&mut world), [("i3".to_owned(), false)]);

    // Withdrawn, or not repeated for long: the plan was given up.
    world.tell(Event::InverseWithdrawn("i3".to_owned()));
    assert!(world.explanation().standing.maintenance.is_empty());
    world.tell(inverse("i4", &agent, from));
    assert_eq!(world.explanation().standing.maintenance.len(), 1);
    world.pass(Duration::from_secs(179));
    assert_eq!(world.explanation().standing.maintenance.len(), 1);
    world.pass(Duration::from_secs(1));
    assert!(world.explanation().standing.maintenance.is_empty());

    // What a lost master has asked needs no answer.
    answers(&mut world);
    world.state.apply(inverse("i5", &agent, from), world.now());
    world.tell(Event::MesosLost);
    world.tell(Event::Subscribed {
        framework_id: "f".into(),
    });
    assert!(world.inverse_answers.is_empty());
}
