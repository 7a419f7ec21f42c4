//! What is remembered of failovers, and what a waiting cluster says.

use std::{collections::BTreeSet, time::Duration};

use super::world::{World, name, spec};
use crate::{
    cluster::{
        failover_record::{Cause, FailoverRecord, WonBy},
        gtid::MARKER_DOMAIN,
        id::{Epoch, MemberId},
        voters::Durability,
    },
    scheduler::event::{Event, TaskState},
};

fn last(world: &World) -> &FailoverRecord {
    world.record().failovers.last().unwrap()
}

/// A position with that last transaction and that marker.
fn held(last: u64, marker: u64) -> String {
    format!("0-1-{last},{MARKER_DOMAIN}-1-{marker}")
}

/// Lets the server of a member die and its executor say so.
fn kill(world: &mut World, member: u32) {
    world.instance(member).process = None;
    let task = world.task_of(member);
    world.report(&task);
}

#[test]
fn a_birth_is_no_failover() {
    let world = World::running(3, Durability::Majority);
    assert!(world.record().failovers.is_empty());
}

#[test]
fn a_failover_tells_who_when_and_on_what_evidence() {
    let mut world = World::running(3, Durability::Majority);
    for (member, last) in [(0, 1000), (1, 999), (2, 1000)] {
        world.instance(member).position = held(last, 1);
    }
    let before = world.record().clone();
    let (old, address) = (before.elected().unwrap(), before.task(MemberId(0)).unwrap());
    world.pass(Duration::from_secs(100));
    let decided = world.now();
    kill(&mut world, 0);
    let waiting = last(&world);
    assert_eq!((waiting.epoch, waiting.counted()), (Epoch(2), 0));
    assert_eq!(waiting.winner, None);
    for (seconds, member) in [(1, 1), (2, 2)] {
        world.pass(Duration::from_secs(seconds));
        let task = world.task_of(member);
        world.report(&task);
    }
    let elected = world.now();
    world.pass(Duration::from_secs(3));
    world.converge();
    // The old master's return as a slave is written later, and takes the time of publishing along.
    world.pass(Duration::from_secs(500));
    let process = world.process();
    world.instance(0).process = Some(process);
    world.converge();

    let failover = last(&world);
    assert_eq!((failover.epoch, failover.attempt), (Epoch(2), 1));
    assert_eq!(failover.ending.cause, Cause::ServerEnded);
    assert_eq!(
        failover.ending.sentence,
        "the server of the master, member 0, has ended"
    );
    let master = failover.before.as_ref().unwrap();
    assert_eq!(
        (master.member, &master.task_id, master.data, master.process),
        (MemberId(0), &old.task_id, old.data, old.process)
    );
    let at = format!("{}:{}", address.host, address.port);
    assert_eq!(master.address.as_ref(), Some(&at));
    assert!(failover.before_opened);
    let quorum = failover.quorum;
    assert_eq!((quorum.voters, quorum.k_floor, quorum.needed), (3, 1, 2));
    let winner = failover.winner.as_ref().unwrap();
    assert_eq!(
        (winner.master.member, winner.won_by),
        (MemberId(2), WonBy::HeldMost)
    );
    let accounts: Vec<_> = failover.voters.iter().map(|v| v.held.as_ref()).collect();
    assert_eq!(accounts[0], None);
    assert_eq!(accounts[1].unwrap().received, held(999, 1));
    assert_eq!(
        accounts[2].map(|held| (held.marker, held.unapplied.as_str())),
        Some((Epoch(1), ""))
    );
    assert_eq!(
        failover.voters[0].missing.as_deref(),
        Some("its server does not run")
    );
    let times = failover.times;
    assert_eq!((times.noticed, times.decided), (Some(decided), decided));
    assert_eq!(times.decision_stored, Some(decided));
    assert_eq!(
        failover.voters[1].reported,
        Some(decided.plus(Duration::from_secs(1)))
    );
    assert_eq!(times.elected, Some(elected));
    assert_eq!(times.opened, Some(elected.plus(Duration::from_secs(3))));
    assert_eq!(times.published, times.opened);
    assert_eq!(failover.unpublished_millis(), Some(6_000));
}

#[test]
fn what_sets_a_winner_apart_is_told() {
    for (one, two, rule) in [
        (held(5, 2), held(9, 1), WonBy::HighestMarker),
        (held(9, 1), held(5, 1), WonBy::HeldMost),
        (held(5, 1), held(5, 1), WonBy::LowestNumber),
    ] {
        let mut world = World::running(3, Durability::Majority);
        world.instance(1).position = one;
        world.instance(2).position = two;
        kill(&mut world, 0);
        world.converge();
        let winner = last(&world).winner.as_ref().unwrap();
        assert_eq!((winner.master.member, winner.won_by), (MemberId(1), rule));
    }
    let mut world = World::running(2, Durability::Async);
    kill(&mut world, 0);
    world.converge();
    world.pass(Duration::from_secs(60));
    world.converge();
    let winner = last(&world).winner.as_ref().unwrap();
    assert_eq!(winner.won_by, WonBy::OnlyOne);
}

#[test]
fn an_epoch_that_is_tried_again_says_so() {
    let mut world = World::running(3, Durability::Majority);
    kill(&mut world, 0);
    // Both others report; the winner dies before it has opened.
    for member in [1, 2] {
        let task = world.task_of(member);
        world.report(&task);
    }
    let first = last(&world).winner.as_ref().unwrap().master.member;
    kill(&mut world, first.0);
    let again = last(&world);
    assert_eq!((again.epoch, again.attempt), (Epoch(3), 2));
    assert!(!again.before_opened);
    assert_eq!(again.before.as_ref().unwrap().member, first);
    let epochs: Vec<_> = world.record().failovers.iter().map(|f| f.epoch).collect();
    assert_eq!(epochs, [Epoch(2), Epoch(3)]);
}

#[test]
fn a_task_that_ended_is_told_with_the_address_that_it_had() {
    let mut world = World::running(3, Durability::Majority);
    let task = world.record().task(MemberId(0)).unwrap().clone();
    world.instances.remove(&task.task_id);
    world.task(&task.task_id, TaskState::Failed);
    world.settle();
    let failover = last(&world);
    assert_eq!(failover.ending.cause, Cause::TaskEnded);
    let before = failover.before.as_ref().unwrap();
    assert_eq!(
        before.address.as_deref(),
        Some(&*format!("{}:{}", task.host, task.port))
    );
}

#[test]
fn silence_is_dated_by_the_end_of_the_session() {
    let mut world = World::running(3, Durability::Majority);
    world.pass(Duration::from_secs(60));
    world.instance(0).silent = true;
    let task_id = world.task_of(0);
    let gone = world.now();
    world.tell(Event::ReportGone {
        cluster: name(),
        task_id,
    });
    world.converge();
    let failover = last(&world);
    assert_eq!(failover.ending.cause, Cause::SessionLost);
    assert_eq!(failover.times.noticed, Some(gone));
    assert_eq!(
        failover.voters[0].missing.as_deref(),
        Some("nothing is heard of it")
    );
}

/// Goal: a time that a dead scheduler did not live to note is left out, never invented. Method: the
/// scheduler is replaced after each stored record of a failover.
#[test]
fn a_successor_does_not_date_what_it_did_not_store() {
    let mut seen = BTreeSet::new();
    for cut in 0..12 {
        let mut world = World::running(3, Durability::Majority);
        world.cut_after = Some(cut);
        kill(&mut world, 0);
        world.converge();
        world.pass(Duration::from_secs(1000));
        let late = world.now();
        // Something that is written much later.
        let task = world.task_of(0);
        world.instances.remove(&task);
        world.task(&task, TaskState::Failed);
        world.settle();
        world.converge();
        let failover = last(&world);
        assert_eq!(failover.epoch, Epoch(2), "cut {cut}");
        let times = failover.times;
        for time in [times.decision_stored, times.choice_stored, times.published] {
            assert!(time.is_none_or(|time| time < late), "cut {cut}: {times:?}");
        }
        let noted = [times.decision_stored, times.choice_stored, times.published];
        seen.insert(noted.map(|time| time.is_some()));
    }
    let expected = [
        [false, true, true],
        [true, false, true],
        [true, true, false],
        [true, true, true],
    ];
    assert_eq!(seen, BTreeSet::from(expected));
}

#[test]
fn a_waiting_election_says_what_would_end_it() {
    let mut world = World::running(3, Durability::Majority);
    assert_eq!(world.explanation().waiting, None);
    world.instance(1).silent = true;
    let task_id = world.task_of(1);
    world.tell(Event::ReportGone {
        cluster: name(),
        task_id,
    });
    kill(&mut world, 0);
    world.converge();
    let explanation = world.explanation();
    let waiting = explanation.waiting.unwrap();
    assert!(waiting.blocked);
    assert_eq!(
        waiting.ends_when,
        [
            "1 more report counts, of these:",
            "member 0: its server does not run: it must start",
            "member 1: nothing is heard of it: its executor must reach ZooKeeper again",
        ]
    );
    let counted = waiting.voters.iter().filter(|voter| voter.held.is_some());
    let counted: Vec<MemberId> = counted.map(|voter| voter.member).collect();
    assert_eq!(counted, [MemberId(2)]);
    // The failover that is not over yet shows the same.
    let newest = &explanation.failovers[0];
    assert_eq!((newest.counted, newest.unpublished_millis), (1, None));
    assert_eq!(newest.record.voters, waiting.voters);

    // With their data lost as well, no wait helps.
    for member in [0, 1] {
        let (data, process) = (world.data(), world.process());
        let instance = world.instance(member);
        (instance.data, instance.process, instance.silent) = (data, Some(process), false);
    }
    world.converge();
    let waiting = world.explanation().waiting.unwrap();
    assert_eq!(
        waiting.ends_when,
        [
            "never by itself: 1 of 2 needed reports count, and of the 2 other voters 2 have lost the data that they voted with",
            "member 0: the data that it voted with is lost, so it cannot help",
            "member 1: the data that it voted with is lost, so it cannot help",
        ]
    );
}

#[test]
fn a_master_that_waits_for_acknowledgements_names_the_voters_that_do_not_follow() {
    let mut world = World::running(3, Durability::Majority);
    kill(&mut world, 0);
    for member in [1, 2] {
        let task = world.task_of(member);
        world.report(&task);
    }
    let explanation = world.explanation();
    let master = explanation.master.unwrap();
    let waiting = explanation.waiting.unwrap();
    assert!(waiting.blocked);
    assert_eq!(
        waiting.ends_when[0],
        format!(
            "member {master} has applied all that it held, has written the marker of epoch 2, and 1 other voters have acknowledged it"
        )
    );
    assert_eq!(waiting.ends_when.len(), 3);
}

#[test]
fn a_member_without_a_task_waits_for_an_offer() {
    let mut world = World::new(0);
    world.create(spec(3, Durability::Majority));
    let waiting = world.explanation().waiting.unwrap();
    assert_eq!(waiting.ends_when.len(), 3);
    assert_eq!(
        waiting.ends_when[0],
        "member 0: an offer of Mesos has enough room for it"
    );
}

#[test]
fn many_failovers_are_forgotten_one_by_one() {
    let mut world = World::running(3, Durability::Majority);
    for _ in 0..40 {
        // As many in a short while would be held up.
        world.pass(Duration::from_secs(300));
        let master = world.record().published.master.unwrap();
        kill(&mut world, master.0);
        world.converge();
        let process = world.process();
        world.instance(master.0).process = Some(process);
        world.converge();
    }
    let failovers = &world.record().failovers;
    let epochs: Vec<u64> = failovers.iter().map(|failover| failover.epoch.0).collect();
    assert_eq!(epochs, (26..=41).collect::<Vec<_>>());
}
