//! Deleted clusters that come back, and orphans that are given up.

use std::time::Duration;

use super::world::{KEPT_FOR, PASSWORD, World, name, spec};
use crate::{
    cluster::{
        flavour::Flavour, id::MemberId, record::Mastership, slot::SlotId, view::ClusterState,
        voters::Durability,
    },
    scheduler::{
        action::{Refusal, Reply},
        check,
        event::{Event, RequestToken, TaskState, UndeleteRequest},
        plan::plan,
    },
    secret::Secret,
};

fn deleted(nodes: u32) -> World {
    let mut world = World::running_on_slots(nodes, Durability::Majority);
    world.delete(Some(PASSWORD));
    assert!(world.records.is_empty(), "the name is free");
    world
}

fn refused(reply: Option<Reply>) -> Refusal {
    match reply {
        Some(Reply::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

fn runs_again(world: &mut World) {
    world.offer();
    world.settle();
    world.converge();
    assert_eq!(world.state(), ClusterState::Running);
}

#[test]
fn it_comes_back_with_its_data_and_a_new_epoch() {
    let mut world = World::running_on_slots(3, Durability::Majority);
    let before = world.record().clone();
    let data: Vec<_> = (0..3).map(|id| world.instance(id).data).collect();
    world.delete(Some(PASSWORD));
    world.pass(KEPT_FOR - Duration::from_millis(1));
    let reply = world.undelete(Some(PASSWORD), None);
    let expected = Reply::Undeleting {
        name: name(),
        incarnation: before.uuid,
    };
    assert_eq!(reply, Some(expected.clone()));
    assert!(world.kept.is_empty());
    runs_again(&mut world);
    let record = world.record();
    assert!(
        record.epoch > before.epoch,
        "a new server needs a new epoch"
    );
    assert_eq!(record.uuid, before.uuid);
    for id in 0..3 {
        assert_eq!(
            world.instance(id).data,
            data[id as usize],
            "the data of {id}"
        );
    }
    assert_eq!(
        world.record().canary,
        before.canary,
        "nobody has lost anything"
    );
    assert_eq!(world.slots.len(), 3);
    // The answer may have got lost.
    assert_eq!(world.undelete(Some(PASSWORD), None), Some(expected));
    // What is over is not thought of again.
    world.pass(KEPT_FOR);
    world.offer();
    world.settle();
    assert_eq!((world.slots.len(), world.released.len()), (3, 0));
}

#[test]
fn a_name_in_use_needs_another_one() {
    let mut world = deleted(3);
    let slots: Vec<SlotId> = world.slots.keys().cloned().collect();
    world.create(spec(1, Durability::Async));
    let refusal = refused(world.undelete(Some(PASSWORD), None));
    assert!(
        matches!(&refusal, Refusal::NotPossible(why) if why.contains("--as NAME")),
        "{refusal:?}"
    );
    let back = world.undelete(Some(PASSWORD), Some("orders2"));
    assert!(matches!(back, Some(Reply::Undeleting { .. })), "{back:?}");
    runs_again(&mut world);
    // The labels name another cluster of the former name.
    let owned = world.record().members.values().map(|member| &member.slot);
    assert!(owned.flatten().all(|slot| slots.contains(&slot.id)));
    assert!(world.state.keeping.orphans.is_empty());
    assert_eq!(world.state.clusters.len(), 2);
    // It is deleted under its new name, and its slots are kept and destroyed like any others.
    let reply = world.delete(Some(PASSWORD));
    assert!(matches!(reply, Some(Reply::Deleting { .. })), "{reply:?}");
    assert_eq!(world.kept.len(), 1);
    world.pass(KEPT_FOR);
    world.offer();
    world.settle();
    assert!(slots.iter().all(|slot| !world.slots.contains_key(slot)));
    assert_eq!(world.slots.len(), 1, "those of the other cluster stay");
}

#[test]
fn slots_of_a_renamed_cluster_are_known_by_its_incarnation() {
    let mut world = deleted(1);
    world.undelete(Some(PASSWORD), Some("orders2"));
    runs_again(&mut world);
    let slot = world.record().members[&MemberId(0)].slot.clone().unwrap();
    world.end(0, TaskState::Failed);
    world.offer();
    world.settle();
    world.converge();
    assert_eq!(world.state(), ClusterState::Running);
    assert!(world.state.keeping.orphans.is_empty());
    assert!(world.state.keeping.clusters.is_empty(), "it is forgotten");
    let now = world.record().members[&MemberId(0)].slot.clone().unwrap();
    assert_eq!(now.id, slot.id);
    assert_eq!(world.slots.len(), 1);
}

#[test]
fn it_needs_the_password_and_something_that_is_kept() {
    let mut world = deleted(1);
    assert_eq!(
        refused(world.undelete(None, None)),
        Refusal::PasswordMissing
    );
    let wrong = refused(world.undelete(Some("wrong"), None));
    assert_eq!(wrong, Refusal::PasswordWrong);
    let other = world.undelete(Some("wrong"), Some("orders2"));
    assert_eq!(refused(other), Refusal::PasswordWrong);
    world.pass(KEPT_FOR);
    let gone = refused(world.undelete(Some(PASSWORD), None));
    assert_eq!(gone, Refusal::NothingKept(name()));
    let mut ephemeral = World::running(1, Durability::Async);
    ephemeral.delete(Some(PASSWORD));
    let gone = refused(ephemeral.undelete(Some(PASSWORD), None));
    assert_eq!(gone, Refusal::NothingKept(name()));
}

#[test]
fn what_is_being_destroyed_does_not_come_back() {
    let mut world = deleted(3);
    world.away = (0..3).collect();
    world.pass(KEPT_FOR);
    assert!(world.kept.values().all(|(kept, _)| kept.destroying));
    for lost in [false, true] {
        if lost {
            world.replace_scheduler();
        }
        let refusal = refused(world.undelete(Some(PASSWORD), None));
        assert!(
            matches!(&refusal, Refusal::NotPossible(why) if why.contains("never taken back")),
            "{refusal:?}"
        );
    }
    // Nor does it at the very moment at which that may be stored.
    let mut world = deleted(1);
    let at = world.now().plus(KEPT_FOR);
    world.state.apply(ask(None), at);
    let plan = plan(&world.state, &[], at);
    assert_eq!(check::check(&world.state, &plan), []);
    world.state.begin(&plan, at);
    let comes_back = |action: &_| matches!(action, crate::scheduler::action::Action::Undelete(_));
    assert!(!plan.actions.iter().any(comes_back), "{:?}", plan.actions);
}

fn ask(incarnation: Option<uuid::Uuid>) -> Event {
    Event::Undelete(Box::new(UndeleteRequest {
        token: RequestToken(9),
        name: name(),
        target: None,
        incarnation,
        password: Some(Secret::new(PASSWORD)),
    }))
}

#[test]
fn of_several_the_newest_comes_back_unless_one_is_named() {
    let twice_deleted = || {
        let mut world = deleted(1);
        let first = *world.kept.keys().next().unwrap();
        world.pass(Duration::from_secs(60));
        world.create(spec(1, Durability::Async));
        world.converge();
        let second = world.record().uuid;
        world.delete(Some(PASSWORD));
        assert_eq!(world.kept.len(), 2);
        (world, first, second)
    };
    let (mut world, _, second) = twice_deleted();
    world.tell(ask(None));
    assert_eq!(world.record().uuid, second);
    let (mut world, first, _) = twice_deleted();
    world.tell(ask(Some(first)));
    assert_eq!(world.record().uuid, first);
    runs_again(&mut world);
}

/// Whichever write is the last one of a scheduler, the next one finds a cluster or what is kept of it, and never destroys anything.
#[test]
fn a_lost_scheduler_leaves_a_cluster_or_what_is_kept_of_it() {
    for leaves_kept in [false, true] {
        for cut_after in 0..4 {
            let mut world = deleted(3);
            world.leaves_kept = leaves_kept;
            world.cut_after = Some(cut_after);
            world.undelete(Some(PASSWORD), None);
            assert_eq!(world.records.len(), 1);
            world.settle();
            assert!(world.kept.is_empty(), "the record counts");
            runs_again(&mut world);
            world.pass(KEPT_FOR * 2);
            world.offer();
            world.settle();
            assert_eq!((world.slots.len(), world.released.len()), (3, 0));
            // And again, with what is kept of it now.
            world.delete(Some(PASSWORD));
            assert_eq!(world.kept.len(), 1);
            world.undelete(Some(PASSWORD), None);
            runs_again(&mut world);
        }
    }
}

/// A word that data may be lost was about that moment, not about a day later.
#[test]
fn a_pending_loss_of_data_is_not_carried_over() {
    let mut world = deleted(3);
    let incarnation = *world.kept.keys().next().unwrap();
    let (kept, _) = world.kept.get_mut(&incarnation).unwrap();
    let record = kept.record.as_mut().unwrap();
    record.lossy =
        serde_json::from_value(serde_json::json!({"asked_at": 1, "given_up": []})).unwrap();
    assert!(record.lossy.as_ref().unwrap().is_pending());
    assert!(matches!(record.mastership, Mastership::Elected(_)));
    world.replace_scheduler();
    world.settle();
    world.undelete(Some(PASSWORD), None);
    assert_eq!(world.record().lossy, None);
}

fn orphaned() -> (World, SlotId) {
    let mut world = deleted(1);
    world.kept.clear();
    world.replace_scheduler();
    world.offer();
    world.settle();
    let slot = world.slots.keys().next().unwrap().clone();
    assert!(world.state.keeping.orphans.contains_key(&slot));
    (world, slot)
}

#[test]
fn an_orphan_goes_when_an_operator_says_so() {
    for lost in [false, true] {
        let (mut world, slot) = orphaned();
        world.away.insert(0);
        let reply = world.reclaim(&slot);
        assert!(matches!(reply, Some(Reply::Reclaiming { .. })), "{reply:?}");
        assert!(
            world.state.keeping.orphans.is_empty(),
            "it is explained now"
        );
        let stored = world.kept.values().next().unwrap().0.clone();
        assert!(stored.destroying && stored.left.contains_key(&slot) && stored.record.is_none());
        assert_eq!(world.reclaim(&slot), reply, "the answer may have got lost");
        assert_eq!(world.slots.len(), 1, "its agent is away");
        if lost {
            world.replace_scheduler();
            world.settle();
        }
        world.away.clear();
        world.pass(Duration::from_secs(1));
        world.offer();
        world.settle();
        assert_eq!(world.released, [(slot.clone(), true)]);
        assert!(world.slots.is_empty() && world.kept.is_empty());
        assert_eq!(
            refused(world.reclaim(&slot)),
            Refusal::UnknownSlot(slot.to_string())
        );
    }
}

#[test]
fn what_a_record_explains_or_may_explain_is_not_reclaimed() {
    let not_possible = |world: &mut World, slot: &SlotId, why: &str| {
        let refusal = refused(world.reclaim(slot));
        assert!(
            matches!(&refusal, Refusal::NotPossible(told) if told.contains(why)),
            "{refusal:?}"
        );
        assert!(world.released.is_empty());
    };
    let mut world = World::running_on_slots(1, Durability::Async);
    let slot = world.slots.keys().next().unwrap().clone();
    not_possible(&mut world, &slot, "member of the cluster orders");
    let other = SlotId::from_wire("00000000-0000-0000-0000-000000000001.7.1");
    let unknown = Refusal::UnknownSlot(other.to_string());
    assert_eq!(refused(world.reclaim(&other)), unknown);

    let (mut world, slot) = orphaned();
    world.state.unusable.insert("other".parse().unwrap());
    not_possible(&mut world, &slot, "cannot be read");
    world.state.unusable.clear();
    world
        .state
        .keeping
        .unusable
        .insert(uuid::Uuid::from_u128(1));
    not_possible(&mut world, &slot, "cannot be read");

    // A living record of that incarnation that is older than the slot.
    let mut world = World::running_on_slots(1, Durability::Async);
    let (id, placed) = world.slots.iter().next().unwrap();
    let later = SlotId::from_wire(format!("{id}9"));
    let placed = placed.clone();
    world.slots.insert(later.clone(), placed);
    world.offer();
    world.settle();
    assert_eq!(world.state.keeping.orphans.len(), 1);
    not_possible(&mut world, &later, "older than the slot");
}

/// Goal: a slot of a deleted cluster goes before its time when an administrator says so, and no other one with it. Method: the word
/// is stored while its agent is away, with a scheduler that ends then or does not.
#[test]
fn a_slot_of_a_deleted_cluster_is_given_up_before_its_time() {
    for replaced in [false, true] {
        let mut world = deleted(3);
        let slot = world.slots.keys().next().unwrap().clone();
        world.away = (0..3).collect();
        let reply = world.reclaim(&slot);
        let Some(Reply::Reclaiming { lost, .. }) = &reply else {
            panic!("{reply:?}")
        };
        assert!(lost.contains("cannot be brought back any more"), "{lost}");
        let (stored, _) = world.kept.values().next().unwrap();
        assert!(!stored.destroying && stored.reclaimed.contains(&slot));
        assert_eq!(world.reclaim(&slot), reply, "the answer may have got lost");
        if replaced {
            world.replace_scheduler();
            world.settle();
        }
        assert!(world.released.is_empty());
        world.away.clear();
        world.pass(Duration::from_secs(1));
        world.offer();
        world.settle();
        assert_eq!(world.released, [(slot.clone(), true)]);
        assert_eq!(world.slots.len(), 2);
        let refusal = refused(world.undelete(Some(PASSWORD), None));
        let expected = format!("the slot {slot} of member 0");
        assert!(
            matches!(&refusal, Refusal::NotPossible(told) if told.starts_with(&expected)),
            "{refusal:?}"
        );
        // The others, one of which goes by the same word, one by its time.
        let next = world.slots.keys().next().unwrap().clone();
        world.reclaim(&next);
        world.offer();
        world.settle();
        assert_eq!(world.slots.len(), 1);
        world.pass(KEPT_FOR);
        world.offer();
        world.settle();
        assert!(world.slots.is_empty() && world.kept.is_empty());
    }
}

/// Goal: nothing is left of a deleted cluster when all of its slots were given up.
#[test]
fn a_deleted_cluster_is_forgotten_with_its_last_slot() {
    let mut world = deleted(1);
    let slot = world.slots.keys().next().unwrap().clone();
    world.reclaim(&slot);
    world.offer();
    world.settle();
    assert!(world.slots.is_empty() && world.kept.is_empty());
}

/// Goal: a member that had left is no part of what comes back, and giving its slot up hinders nothing. Method: a cluster whose former
/// master left with data that may be nowhere else.
#[test]
fn what_a_member_had_left_behind_may_go_before_its_cluster_comes_back() {
    for offered in [false, true] {
        let mut world = World::spacious(Flavour::Mariadb, 2, 3, Durability::Async);
        let task = world.loses_agent_of(0);
        world.go_on(Duration::from_secs(1100));
        let left = world.record().departed[&MemberId(0)].clone();
        let slot = left.slot.unwrap().id;
        assert!(!left.destroy);
        world.agents_return(&task);
        world.go_on(Duration::from_secs(60));
        world.delete(Some(PASSWORD));
        assert!(world.records.is_empty());
        let reply = world.reclaim(&slot);
        assert!(
            matches!(&reply, Some(Reply::Reclaiming { lost, .. }) if lost.contains("member 0 has left behind")),
            "{reply:?}"
        );
        if offered {
            world.offer();
            world.settle();
            assert_eq!(world.slots.len(), 2);
        }
        world.undelete(Some(PASSWORD), None);
        world.go_on(Duration::from_secs(120));
        assert_eq!(world.state(), ClusterState::Running);
        assert!(world.record().departed.is_empty(), "{}", world.told_of());
        assert_eq!(world.slots.len(), 2);
    }
}

/// Goal: what a member that has left may hold alone goes by an administrator's word while its cluster lives, but not while that is being
/// deleted; an answer that got lost is given again.
#[test]
fn what_a_member_has_left_behind_is_given_up_while_its_cluster_lives() {
    let kept_behind = || {
        let mut world = World::spacious(Flavour::Mariadb, 2, 3, Durability::Async);
        let task = world.loses_agent_of(0);
        world.go_on(Duration::from_secs(1100));
        let left = world.record().departed[&MemberId(0)].clone();
        assert!(!left.destroy);
        (world, task, left.slot.unwrap().id)
    };
    let (mut world, task, slot) = kept_behind();
    let reply = world.reclaim(&slot);
    assert!(
        matches!(&reply, Some(Reply::Reclaiming { lost, .. }) if lost.contains("member 0 has left behind")),
        "{reply:?}"
    );
    assert!(world.record().departed[&MemberId(0)].destroy);
    let epoch = world.record().epoch;
    assert_eq!(world.reclaim(&slot), reply, "the answer may have got lost");
    assert!(world.released.is_empty(), "its agent is away");
    world.agents_return(&task);
    world.go_on(Duration::from_secs(120));
    assert!(
        world.released.contains(&(slot, true)),
        "{:?}",
        world.released
    );
    assert_eq!(world.record().epoch, epoch, "nobody else is touched");

    let (mut world, _, slot) = kept_behind();
    // A task whose end is not known keeps the cluster.
    world.loses_agent_of(1);
    world.delete(Some(PASSWORD));
    assert!(world.record().deleting);
    let refusal = refused(world.reclaim(&slot));
    assert_eq!(refusal, Refusal::BeingDeleted(name()));
}

#[test]
fn two_orphans_of_one_incarnation_are_given_up_one_after_the_other() {
    let (mut world, slot) = orphaned();
    let second = SlotId::from_wire(format!("{slot}9"));
    let placed = world.slots[&slot].clone();
    world.slots.insert(second.clone(), placed);
    world.offer();
    world.settle();
    world.away.insert(0);
    for slot in [&slot, &second] {
        let reply = world.reclaim(slot);
        assert!(matches!(reply, Some(Reply::Reclaiming { .. })), "{reply:?}");
    }
    assert_eq!(world.kept.values().next().unwrap().0.left.len(), 2);
    world.away.clear();
    world.pass(Duration::from_secs(1));
    world.offer();
    world.settle();
    assert!(world.slots.is_empty() && world.kept.is_empty());
}
