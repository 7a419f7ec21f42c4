//! Voters that leave by themselves and come back: dead ones, and those that lag.
//!
//! Each story is told with the scheduler replaced after each stored record in turn. A successor knows nothing of how long
//! a voter has been out of its place, so that it may take longer, and nothing else may be different.

use std::{collections::BTreeSet, time::Duration};

use super::world::{World, name};
use crate::{
    cluster::{flavour::Flavour, id::MemberId, voters::Durability},
    scheduler::event::Event,
};

/// More than the patience with a voter.
const LONG: Duration = Duration::from_secs(620);

/// Tells a story that stores up to so many records once for each place where it can be cut off.
fn at_every_cut(records: u32, start: impl Fn() -> World, story: impl Fn(&mut World)) {
    for cut in std::iter::once(None).chain((0..records).map(Some)) {
        let mut world = start();
        world.cut_after = cut;
        world.voters_stored.clear();
        story(&mut world);
        let stored = world.voters_stored.len() as u32;
        assert!(stored <= records, "{stored} records: cut it at all of them");
    }
}

impl World {
    fn voters(&self) -> BTreeSet<u32> {
        self.record().voters.members.keys().map(|m| m.0).collect()
    }

    fn k(&self) -> u32 {
        self.record().voters.k_floor
    }

    /// The member's executor is gone; its task is not known to have ended.
    fn dies(&mut self, member: u32) {
        self.instance(member).silent = true;
        let task_id = self.task_of(member);
        self.tell(Event::ReportGone {
            cluster: name(),
            task_id,
        });
    }

    /// Time passes, and everybody reports all the while.
    fn live_on(&mut self, time: Duration) {
        let step = Duration::from_secs(20);
        for _ in 0..time.as_secs() / step.as_secs() {
            self.pass(step);
            self.converge();
        }
    }

    fn lags(&mut self, member: u32, seconds: u64) {
        self.instance(member).lag_seconds = seconds;
        self.converge();
    }

    fn told(&self) -> String {
        self.explanation().voters.join("\n")
    }
}

fn set<const N: usize>(members: [u32; N]) -> BTreeSet<u32> {
    members.into()
}

#[test]
fn a_dead_voter_leaves_and_votes_again_when_it_is_back() {
    let start = || World::running(3, Durability::Majority);
    at_every_cut(20, start, |world| {
        world.live_on(Duration::from_secs(60));
        world.dies(2);
        world.live_on(Duration::from_secs(300));
        assert_eq!(world.voters(), set([0, 1, 2]), "it has its time");
        assert!(world.told().contains("voter 2 is dead"), "{}", world.told());
        world.live_on(LONG);
        assert_eq!((world.voters(), world.k()), (set([0, 1]), 1));
        assert!(
            world.told().contains("member 2 does not vote"),
            "{}",
            world.told()
        );
        assert!(
            world.record().terms.barred.contains(&MemberId(2)),
            "it does not know yet"
        );
        world.instance(2).silent = false;
        world.live_on(Duration::from_secs(60));
        assert_eq!((world.voters(), world.k()), (set([0, 1, 2]), 1));
        assert!(world.record().terms.barred.is_empty());
        assert_eq!(world.told(), "");
        assert_eq!(world.record().epoch.0, 1, "nothing of it is a failover");
    });
}

/// Goal: a voter that lost its data while it was none counts at once when it is back with other data: it gives no report
/// that an election had counted with.
#[test]
fn one_that_left_may_come_back_with_other_data() {
    let start = || World::running(3, Durability::Majority);
    at_every_cut(20, start, |world| {
        world.dies(2);
        world.live_on(LONG + LONG);
        assert_eq!(world.voters(), set([0, 1]));
        let data = world.data();
        world.instance(2).data = data;
        world.instance(2).silent = false;
        world.live_on(Duration::from_secs(60));
        let stored = world.record().voters.members.get(&MemberId(2));
        assert_eq!(stored, Some(&Some(data)));
    });
}

#[test]
fn voters_that_are_needed_stay() {
    // The last two.
    let mut world = World::running(2, Durability::Majority);
    world.dies(1);
    world.live_on(LONG + LONG);
    assert_eq!((world.voters(), world.k()), (set([0, 1]), 1));
    assert!(world.told().contains("two voters stay in any case"));

    // Nobody would be left to acknowledge, and `k` never becomes 0 by itself.
    let mut world = World::running(3, Durability::Majority);
    world.dies(1);
    world.dies(2);
    world.live_on(LONG + LONG);
    assert_eq!((world.voters(), world.k()), (set([0, 1, 2]), 1));
    assert!(world.told().contains("too few to acknowledge without it"));
}

/// Goal: of five, two that are dead for long leave, and three die for the others to wait for fewer. Each write goes on being on
/// a majority of those that vote.
#[test]
fn dead_voters_of_five_leave_one_after_the_other() {
    let start = || World::running_on(Flavour::Mysql, 5, Durability::Majority);
    at_every_cut(30, start, |world| {
        assert_eq!(world.k(), 2);
        world.dies(4);
        world.live_on(LONG + LONG);
        assert_eq!((world.voters(), world.k()), (set([0, 1, 2, 3]), 2));
        world.dies(3);
        world.live_on(LONG + LONG);
        assert_eq!((world.voters(), world.k()), (set([0, 1, 2]), 1));
        world.instance(3).silent = false;
        world.instance(4).silent = false;
        world.live_on(LONG);
        assert_eq!((world.voters(), world.k()), (set([0, 1, 2, 3, 4]), 2));
    });
}

#[test]
fn a_lagging_voter_of_three_stays_and_that_is_told() {
    let mut world = World::running(3, Durability::Majority);
    world.live_on(Duration::from_secs(60));
    world.lags(2, 120);
    world.live_on(LONG + LONG);
    assert_eq!((world.voters(), world.k()), (set([0, 1, 2]), 1));
    let told = world.told();
    assert!(
        told.contains("voter 2 is 120 s or more behind") && told.contains("acknowledgements count"),
        "{told}"
    );
    world.lags(2, 0);
    assert_eq!(world.told(), "");
}

/// Goal: of five, one that lags leaves, for as many servers have each write without it; a second one does not.
#[test]
fn one_lagging_voter_of_five_leaves() {
    let start = || World::running_on(Flavour::Mysql, 5, Durability::Majority);
    at_every_cut(20, start, |world| {
        world.live_on(Duration::from_secs(60));
        world.lags(3, 60);
        world.lags(4, 3600);
        world.live_on(LONG + LONG);
        assert_eq!(world.voters().len(), 4, "{:?}", world.voters());
        assert_eq!(world.k(), 2);
        assert!(world.voters_stored.iter().all(|(_, k)| *k == 2));
        world.lags(3, 0);
        world.lags(4, 0);
        world.live_on(Duration::from_secs(60));
        assert_eq!((world.voters(), world.k()), (set([0, 1, 2, 3, 4]), 2));
    });
}

/// Goal: where the flavour has no use for all members as voters, one that lags is replaced by one that does not, and
/// meanwhile there are never fewer voters than before.
#[test]
fn a_lagging_voter_is_replaced_by_a_spare_member() {
    let start = || World::running(4, Durability::Majority);
    at_every_cut(20, start, |world| {
        world.live_on(Duration::from_secs(60));
        assert_eq!(world.voters(), set([0, 1, 2]));
        world.lags(1, 300);
        world.live_on(LONG + LONG);
        assert_eq!((world.voters(), world.k()), (set([0, 2, 3]), 1));
        assert!(world.voters_stored.iter().all(|stored| *stored >= (3, 1)));
        // It is well again, and nobody has to make room for it.
        world.lags(1, 0);
        world.live_on(LONG + LONG);
        assert_eq!(world.voters(), set([0, 2, 3]));
    });
}

/// Goal: a lag that comes and goes changes nothing, and one that leaves is back only when it is well. Method: a lag
/// around the bound of 60 s.
#[test]
fn a_lag_around_the_bound_does_not_flap() {
    let mut world = World::running_on(Flavour::Mysql, 5, Durability::Majority);
    world.live_on(Duration::from_secs(60));
    for _ in 0..5 {
        world.lags(4, 60);
        world.live_on(Duration::from_secs(400));
        world.lags(4, 10);
        world.live_on(Duration::from_secs(60));
    }
    assert_eq!(world.voters().len(), 5, "it was well in between");
    world.voters_stored.clear();
    for _ in 0..20 {
        world.lags(4, 60);
        world.live_on(Duration::from_secs(100));
        world.lags(4, 30);
        world.live_on(Duration::from_secs(100));
    }
    assert_eq!(
        world.voters(),
        set([0, 1, 2, 3]),
        "half the bound is not well"
    );
    let left = world.voters_stored.iter().filter(|(n, _)| *n == 4).count();
    assert_eq!(
        left,
        world.voters_stored.len()
            - world
                .voters_stored
                .iter()
                .take_while(|(n, _)| *n == 5)
                .count()
    );
    world.lags(4, 10);
    assert_eq!(world.voters().len(), 5);
}

/// Goal: a change that was under way ends with its epoch, and is begun anew in the next. Method: the master dies while the
/// canary of the change is awaited.
#[test]
fn a_change_that_an_election_cuts_off_is_made_in_the_next_epoch() {
    let mut world = World::running(4, Durability::Majority);
    world.live_on(Duration::from_secs(60));
    world.dies(2);
    world.pass(LONG);
    assert!(world.record().change.is_some(), "nobody has confirmed it");
    world.instance(0).process = None;
    world.converge();
    assert_eq!(world.record().epoch.0, 2);
    assert!(world.record().change.is_none());
    assert_eq!(world.voters(), set([0, 1, 2]));
    let back = world.process();
    world.instance(0).process = Some(back);
    world.live_on(LONG + LONG);
    assert_eq!(
        world.voters(),
        set([0, 1, 3]),
        "the spare one is a voter now"
    );
}
