//! What people ask for: a cluster is created, and deleted.

use std::collections::BTreeSet;

use super::world::{PASSWORD, World, name, spec};
use crate::{
    cluster::{
        id::{Epoch, MemberId},
        view::ClusterState,
        voters::Durability,
    },
    scheduler::{
        action::{Refusal, Reply},
        event::Event,
    },
    secret::Secret,
};

#[test]
fn a_cluster_is_born_and_published() {
    let world = World::running(3, Durability::Majority);
    let record = world.record();
    assert_eq!(record.epoch, Epoch(1));
    assert_eq!(record.published.master, Some(MemberId(0)));
    assert_eq!(record.published.slaves.len(), 2);
    assert_eq!((record.voters.k_floor, record.voters.quorum()), (1, 2));
    let agents: BTreeSet<_> = record
        .members
        .values()
        .map(|m| m.task.as_ref().unwrap().agent_id.clone())
        .collect();
    assert_eq!(agents.len(), 3, "members are on different agents");
}

#[test]
fn nothing_is_accepted_before_registration() {
    let mut world = World::new(1);
    world.tell(Event::MesosLost);
    let refused = Some(Reply::Refused(Refusal::NotRegistered));
    assert_eq!(world.create(spec(1, Durability::Async)), refused);
    assert!(world.records.is_empty());
}

#[test]
fn a_repeated_request_gets_the_same_answer_and_another_one_a_refusal() {
    let mut world = World::running(1, Durability::Async);
    let first = Reply::Created {
        name: name(),
        password: Secret::new(PASSWORD),
    };
    assert_eq!(world.create(spec(1, Durability::Async)), Some(first));
    let refused = Some(Reply::Refused(Refusal::Exists(name())));
    assert_eq!(world.create(spec(2, Durability::Async)), refused);
}

#[test]
fn deletion_needs_the_password_and_ends_with_the_last_task() {
    let mut world = World::running(3, Durability::Majority);
    assert_eq!(
        world.delete(None),
        Some(Reply::Refused(Refusal::PasswordMissing))
    );
    assert_eq!(
        world.delete(Some("x")),
        Some(Reply::Refused(Refusal::PasswordWrong))
    );
    assert_eq!(world.state(), ClusterState::Running);
    assert_eq!(
        world.delete(Some(PASSWORD)),
        Some(Reply::Deleting { name: name() })
    );
    assert_eq!(world.killed.len(), 3);
    assert!(world.records.is_empty());
    assert_eq!(
        world.delete(Some(PASSWORD)),
        Some(Reply::Refused(Refusal::Unknown(name())))
    );
}
