//! Voters that are given up with what only they hold, at an operator's word.

use std::time::Duration;

use super::world::{PASSWORD, World, name, spec};
use crate::{
    cluster::{
        data_loss::{LossOutcome, Prospect},
        failover_record::Cause,
        flavour::Flavour,
        gtid::Position,
        id::{Epoch, MemberId},
        view::ClusterState,
        voters::Durability,
    },
    scheduler::{
        action::{Refusal, Reply},
        event::{Event, TaskState, Wish},
    },
};

const ACCEPT: Wish = Wish::Failover {
    accept_data_loss: true,
};

/// Longer than those who are given up may take to end.
const FENCED: Duration = Duration::from_secs(21);

fn at(text: &str) -> Position {
    Position::parse(Flavour::Mariadb, text).unwrap()
}

/// A position with that last transaction and that marker.
fn held(last: u64, marker: u64) -> String {
    format!("0-1-{last},4412494-1-{marker}")
}

/// Members 0 and 1 are out of sight, which member 0 was only after it had reported for the election that now waits: it held
/// 1000 transactions, of which member 2 has 990. No kill reaches member 1.
fn waiting() -> World {
    let mut world = World::running(3, Durability::Majority);
    world.pass(Duration::from_secs(60));
    for (member, last) in [(0, 1000), (1, 1000), (2, 990)] {
        world.instance(member).position = held(last, 1);
    }
    world.vanish(1);
    world.vanish(2);
    world.instance(0).process = None;
    world.converge();
    let again = world.process();
    world.instance(0).process = Some(again);
    world.converge();
    world.vanish(0);
    world.instance(2).silent = false;
    world.converge();
    let unreachable = world.task_of(1);
    world.unreachable.insert(unreachable);
    assert_eq!(world.state(), ClusterState::Waiting);
    assert!(world.record().elected().is_none());
    world
}

fn outcome(world: &World) -> Option<&LossOutcome> {
    world.record().lossy.as_ref()?.outcome.as_ref()
}

fn accepted(reply: Option<Reply>) -> Option<Prospect> {
    match reply {
        Some(Reply::FailingOver { prospect, .. }) => Some(*prospect),
        None => None,
        other => panic!("{other:?}"),
    }
}

fn refusal(reply: Option<Reply>) -> String {
    match reply {
        Some(Reply::Refused(Refusal::NotPossible(sentence))) => sentence,
        other => panic!("{other:?}"),
    }
}

fn members<'a>(
    given_up: impl IntoIterator<Item = &'a crate::cluster::data_loss::GivenUp>,
) -> Vec<u32> {
    given_up
        .into_iter()
        .map(|given_up| given_up.member.0)
        .collect()
}

/// Goal: the survivor is elected with what it has, whoever could not be fenced and what is known to be lost is told, and the
/// others become members again. Method: the whole story, with the scheduler replaced after the 1st, 2nd, ... stored
/// record. Its successor hears nothing of members 0 and 1: what it tells of them it has from the record.
#[test]
fn the_survivor_is_elected_with_what_it_has_and_the_loss_is_told() {
    for cut in (0..16).map(Some).chain([None]) {
        let mut world = waiting();
        let lost_task = world.task_of(1);
        world.cut_after = cut;
        let asked = world.now();
        let first = accepted(world.ask(Some(PASSWORD), ACCEPT));
        if let Some(prospect) = &first {
            assert_eq!(members(&prospect.given_up), [0, 1]);
            assert_eq!(prospect.in_sight, [MemberId(2)]);
            let known = prospect
                .candidate
                .as_ref()
                .map(|candidate| &candidate.holds);
            assert!(
                known.is_none_or(|known| *known == at(&held(990, 1))),
                "cut {cut:?}"
            );
        }
        world.converge();
        // Whoever had no answer asks again.
        accepted(world.ask(Some(PASSWORD), ACCEPT)).unwrap();
        world.converge();
        assert_eq!(world.record().lossy.as_ref().unwrap().asked_at, asked);
        assert!(outcome(&world).is_none(), "member 1 may still end");
        assert!(world.record().elected().is_none());

        world.pass(FENCED);
        world.converge();
        let told = outcome(&world).unwrap();
        assert_eq!(
            (told.master, told.epoch),
            (MemberId(2), Epoch(2)),
            "cut {cut:?}"
        );
        assert_eq!(told.holds, at(&held(990, 1)));
        let known: Vec<_> = told
            .known_lost
            .iter()
            .map(|l| (&*l.whose, &l.transactions))
            .collect();
        assert_eq!(known, [("member 0", &at("0-1-1000"))], "cut {cut:?}");
        assert_eq!(members(&told.unfenced), [1], "cut {cut:?}");
        assert_eq!(told.unfenced[0].task_id.as_ref(), Some(&lost_task));
        let failover = world.record().failovers.last().unwrap();
        let loss = failover.data_loss.as_ref().unwrap();
        assert_eq!(loss.given_up, [MemberId(0), MemberId(1)]);
        assert_eq!(failover.voters.len(), 3, "the voters as they were");

        // It serves alone; member 0 was launched anew, and is taken in as a new member is.
        assert_eq!(
            world.record().published.master,
            Some(MemberId(2)),
            "cut {cut:?}"
        );
        world.pass(Duration::from_secs(61));
        world.offer();
        world.settle();
        world.converge();
        let voters: Vec<u32> = world.record().voters.members.keys().map(|m| m.0).collect();
        assert_eq!(
            (voters, world.record().voters.k_floor),
            (vec![0, 2], 1),
            "cut {cut:?}"
        );

        // Member 1 comes back with more than there is, which is set aside.
        let returned = world.instances.get_mut(&lost_task).unwrap();
        returned.silent = false;
        returned.quarantined = true;
        world.converge();
        assert_eq!(
            world.record().voters.members.len(),
            2,
            "what it holds does not vote"
        );
        let fresh = world.data();
        let returned = world.instances.get_mut(&lost_task).unwrap();
        (returned.data, returned.quarantined) = (fresh, false);
        returned.position = String::new();
        world.converge();
        let record = world.record();
        assert_eq!(
            (record.voters.members.len(), record.voters.k_floor),
            (3, 1),
            "cut {cut:?}"
        );
        assert_eq!(world.state(), ClusterState::Running);
        assert_eq!(record.epoch, Epoch(2), "cut {cut:?}");
        assert!(world.explanation().standing.failover_offer.is_none());
    }
}

#[test]
fn a_waiting_cluster_offers_it_and_says_what_it_would_come_to() {
    let world = waiting();
    let standing = world.explanation().standing;
    let offer = standing.failover_offer.unwrap();
    assert_eq!(
        offer.command,
        "cotton admin failover orders --accept-data-loss"
    );
    let told = offer.prospect.sentences();
    let expected = [
        "given up: member 0 (nothing is heard of it; last known to hold 0-1-1000,4412494-1-1 in epoch 2), member 1 (nothing is heard of it; it is not known what it held)",
        "master becomes member 2, which holds 0-1-990,4412494-1-1",
        "known to be lost: 0-1-1000 of member 0",
        "more may be lost: what the missing members acknowledged after their last report is not known",
    ];
    assert_eq!(told[..4], expected);
    assert!(told[4].contains(world.task_of(1).as_str()), "{told:?}");
    assert!(told[4].contains("at 127.0.0."), "{told:?}");
}

#[test]
fn it_takes_the_password_and_the_word() {
    let mut world = waiting();
    let before = world.record().clone();
    let reply = world.ask(None, ACCEPT);
    assert_eq!(reply, Some(Reply::Refused(Refusal::PasswordMissing)));
    let reply = world.ask(Some("x"), ACCEPT);
    assert_eq!(reply, Some(Reply::Refused(Refusal::PasswordWrong)));
    let wish = Wish::Failover {
        accept_data_loss: false,
    };
    let Some(Reply::Refused(Refusal::LossNotAccepted(prospect))) = world.ask(Some(PASSWORD), wish)
    else {
        panic!("it was accepted without a word");
    };
    assert_eq!(members(&prospect.given_up), [0, 1]);
    assert_eq!(*world.record(), before);
    assert!(world.killed.is_empty());
}

#[test]
fn it_is_refused_where_nothing_needs_to_be_lost() {
    let mut unborn = World::new(0);
    unborn.create(spec(3, Durability::Majority));
    let told = refusal(unborn.ask(Some(PASSWORD), ACCEPT));
    assert!(told.ends_with("there is nothing to fail over"), "{told}");

    let mut world = World::running(3, Durability::Majority);
    let told = refusal(world.ask(Some(PASSWORD), ACCEPT));
    assert!(
        told.contains("member 0 is the master and in its place"),
        "{told}"
    );

    // Silence that means nothing yet.
    world.pass(Duration::from_secs(60));
    world.vanish(1);
    world.vanish(0);
    let told = refusal(world.ask(Some(PASSWORD), ACCEPT));
    assert!(told.contains("which means nothing yet"), "{told}");

    // Nobody could be elected: those who are missing would be killed for nothing.
    world.vanish(2);
    world.pass(Duration::from_secs(60));
    let told = refusal(world.ask(Some(PASSWORD), ACCEPT));
    assert!(told.contains("no member is in sight"), "{told}");

    // An election whose servers are being started.
    let mut world = World::running(3, Durability::Majority);
    world.instance(0).process = None;
    world.instance(1).process = None;
    world.instance(2).process = None;
    world.converge();
    let told = refusal(world.ask(Some(PASSWORD), ACCEPT));
    assert!(told.contains("about to report"), "{told}");

    let mut deleted = World::running(3, Durability::Majority);
    let task = deleted.task_of(0);
    deleted.unreachable.insert(task);
    deleted.delete(Some(PASSWORD));
    let reply = deleted.ask(Some(PASSWORD), ACCEPT);
    assert_eq!(reply, Some(Reply::Refused(Refusal::BeingDeleted(name()))));
}

/// A master that nothing is heard of, without a quorum that could replace it.
#[test]
fn a_silent_master_is_given_up_too() {
    let mut world = World::running(3, Durability::Majority);
    world.pass(Duration::from_secs(60));
    world.vanish(1);
    world.vanish(0);
    world.pass(Duration::from_secs(60));
    let offer = world.explanation().standing.failover_offer.unwrap();
    assert_eq!(
        offer.prospect.candidate, None,
        "member 2 has not read what it holds"
    );
    let epoch = world.record().epoch;
    accepted(world.ask(Some(PASSWORD), ACCEPT)).unwrap();
    world.converge();
    // Both were killed, and Mesos has said so: nothing is waited for.
    let told = outcome(&world).unwrap();
    assert_eq!((told.master, told.epoch), (MemberId(2), epoch.next()));
    assert_eq!(told.unfenced, []);
    let ending = &world.record().failovers.last().unwrap().ending;
    // Which of the two was seen first does not matter: the word of the operator, or that the task has ended.
    assert!(
        [Cause::LossAccepted, Cause::TaskEnded].contains(&ending.cause),
        "{ending:?}"
    );
    assert_eq!(world.record().published.master, Some(MemberId(2)));
}

#[test]
fn nothing_is_given_up_if_the_quorum_comes_back_in_time() {
    let mut world = waiting();
    let task = world.task_of(0);
    world.unreachable.insert(task);
    accepted(world.ask(Some(PASSWORD), ACCEPT)).unwrap();
    world.instance(0).silent = false;
    world.converge();
    assert_eq!(world.record().lossy, None);
    assert_eq!(
        world.record().published.master,
        Some(MemberId(0)),
        "it holds the most"
    );
    assert_eq!(world.record().voters.members.len(), 3);
}

/// Goal: what the winner holds cannot be lost by the next election. Method: of three members in sight one holds as much as
/// the winner and one holds less; the latter is no voter before it has all.
#[test]
fn who_holds_less_than_the_winner_is_no_voter_at_first() {
    let mut world = World::running(5, Durability::Majority);
    world.pass(Duration::from_secs(60));
    for (member, last) in [(0, 1000), (1, 1000), (2, 990), (3, 990), (4, 950)] {
        world.instance(member).position = held(last, 1);
    }
    let voters: Vec<u32> = world.record().voters.members.keys().map(|m| m.0).collect();
    assert_eq!(voters, [0, 1, 2], "MariaDB");
    world.instance(4).broken = true;
    for gone in [0, 1] {
        let task = world.task_of(gone);
        world.unreachable.insert(task);
        world.vanish(gone);
    }
    world.pass(Duration::from_secs(60));
    accepted(world.ask(Some(PASSWORD), ACCEPT)).unwrap();
    world.converge();
    world.pass(FENCED);
    world.converge();
    let record = world.record();
    let voters: Vec<u32> = record.voters.members.keys().map(|m| m.0).collect();
    assert_eq!((voters, record.voters.k_floor), (vec![2, 3], 1));
    assert_eq!(record.published.master, Some(MemberId(2)));
    world.instance(4).broken = false;
    world.converge();
    assert_eq!(world.record().voters.members.len(), 3);
}

/// A voter whose task is lost with its data is given up with what it was last known to hold.
#[test]
fn lost_data_is_told_though_its_member_is_back() {
    let mut world = waiting();
    let task = world.task_of(0);
    world.instances.remove(&task);
    world.task(&task, TaskState::Failed);
    world.settle();
    world.pass(Duration::from_secs(61));
    world.offer();
    world.settle();
    world.converge();
    assert!(
        world.instances.contains_key(&world.task_of(0)),
        "it is launched anew"
    );
    let offer = world.explanation().standing.failover_offer.unwrap();
    let lost = &offer.prospect.given_up[0];
    assert_eq!(
        (lost.member, &*lost.why),
        (MemberId(0), "the data that it voted with is lost")
    );
    assert_eq!(lost.task_id, None, "what runs there now is not killed");
    assert_eq!(offer.prospect.known_lost[0].transactions, at("0-1-1000"));
    assert_eq!(offer.prospect.candidate.unwrap().member, MemberId(2));
    assert_eq!(offer.prospect.in_sight, [MemberId(0), MemberId(2)]);
}

/// The control connection is lost and restored: nobody is heard, and nothing is offered on that ground.
#[test]
fn silence_that_is_the_schedulers_own_offers_nothing() {
    let mut world = World::running(3, Durability::Majority);
    world.pass(Duration::from_secs(60));
    world.tell(Event::ControlLost);
    world.vanish(0);
    world.vanish(1);
    world.pass(Duration::from_secs(60));
    assert_eq!(world.explanation().standing.failover_offer, None);
}
