//! Clusters that an operator has paused: nothing is decided for them, everything is seen, and they go on where they were.

use std::time::Duration;

use super::world::{PASSWORD, World};
use crate::{
    cluster::{
        id::{Epoch, MemberId},
        voters::Durability,
    },
    scheduler::{
        action::{Refusal, Reply},
        event::{TaskState, Wish},
    },
};

fn changes(reply: Option<Reply>) -> usize {
    match reply {
        Some(Reply::Changed { changed, .. }) => changed.len(),
        other => panic!("not the answer to a pause: {other:?}"),
    }
}

#[test]
fn nobody_is_elected_or_launched_before_the_cluster_is_resumed() {
    let mut world = World::running(3, Durability::Majority);
    assert_eq!(changes(world.ask(Some(PASSWORD), Wish::Pause(true))), 1);
    assert_eq!(changes(world.ask(Some(PASSWORD), Wish::Pause(true))), 0);
    world.end(0, TaskState::Failed);
    world.replace_scheduler();
    world.pass(Duration::from_secs(600));
    world.converge();
    let record = world.record();
    assert_eq!(record.epoch, Epoch(1), "no election");
    let member = &record.members[&MemberId(0)];
    assert_eq!(member.launches, 1, "no launch");
    assert_eq!(member.task, None, "its end is noted");
    assert_eq!(record.published.master, None, "no dead master is shown");
    assert!(world.state.mesos.suppressed, "no offer is wanted");

    assert_eq!(changes(world.ask(Some(PASSWORD), Wish::Pause(false))), 1);
    assert_eq!(changes(world.ask(Some(PASSWORD), Wish::Pause(false))), 0);
    world.converge();
    let record = world.record();
    assert_eq!(record.epoch, Epoch(2));
    assert!(record.published.master.is_some());
    assert_eq!(record.members[&MemberId(0)].launches, 2);
}

#[test]
fn nothing_else_can_be_asked_of_a_paused_cluster_but_its_deletion() {
    let mut world = World::running(3, Durability::Majority);
    assert_eq!(
        world.ask(None, Wish::Pause(true)),
        Some(Reply::Refused(Refusal::PasswordMissing))
    );
    world.ask(Some(PASSWORD), Wish::Pause(true));
    let to = Some(MemberId(1));
    let reply = world.ask(Some(PASSWORD), Wish::Switchover { to });
    let Some(Reply::Refused(Refusal::NotPossible(sentence))) = reply else {
        panic!("not refused: {reply:?}");
    };
    assert!(sentence.contains("resume it first"), "{sentence}");
    assert_eq!(world.record().switchover, None);
    world.delete(Some(PASSWORD));
    world.converge();
    assert!(world.records.is_empty(), "it is deleted all the same");
}
