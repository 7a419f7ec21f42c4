//! Who makes a backup.

use std::time::Duration;

use super::{
    backups::{backup, ordered},
    rolling::restart,
    world::{PASSWORD, World},
};
use crate::{
    cluster::{flavour::Flavour, id::MemberId, voters::Durability},
    scheduler::action::Reply,
};

/// A cluster whose master is member 0, and whose other members report that they are so many seconds behind.
fn lagging(lags: &[u64]) -> World {
    let nodes = lags.len() as u32 + 1;
    let mut world = World::running_on(Flavour::Mariadb, nodes, Durability::Async);
    world.converge();
    assert_eq!(world.record().published.master, Some(MemberId(0)));
    for (member, seconds) in (1..).zip(lags) {
        world.instance(member).lag_seconds = *seconds;
    }
    world.converge();
    world
}

fn asked(world: &mut World) {
    let reply = world.ask(Some(PASSWORD), backup());
    assert!(matches!(reply, Some(Reply::BackingUp { .. })), "{reply:?}");
}

/// Who makes the backup that is asked for now.
fn made_by(world: &mut World) -> Option<u32> {
    asked(world);
    world.converge();
    ordered(world).map(|member| member.0)
}

/// Goal: the backup lacks as little as can be, and only a slave that has caught up makes it. Method: lags on both sides of the bound, which is a quarter of the 60
/// seconds from which a voter lags.
#[test]
fn the_slave_that_is_least_behind_makes_it() {
    for (lags, maker) in [
        (&[0, 0][..], 1),
        (&[5, 0], 2),
        (&[5, 4, 5], 2),
        (&[15, 16], 1),
        (&[16, 15], 2),
        (&[16, 3600], 0),
        (&[16], 0),
    ] {
        let mut world = lagging(lags);
        assert_eq!(made_by(&mut world), Some(maker), "{lags:?}");
    }
}

#[test]
fn a_slave_that_does_not_receive_or_is_not_heard_is_passed_over() {
    let mut world = lagging(&[0, 7]);
    world.instance(1).broken = true;
    world.converge();
    assert_eq!(made_by(&mut world), Some(2));

    let mut world = lagging(&[0, 7]);
    world.vanish(1);
    assert_eq!(made_by(&mut world), Some(2));

    let mut world = lagging(&[0, 7]);
    world.vanish(1);
    world.instance(2).broken = true;
    world.converge();
    assert_eq!(made_by(&mut world), Some(0));
}

/// Goal: whose task is ended is passed over, for the master too. Method: a restart that is asked for in the moment before.
#[test]
fn one_that_is_restarted_is_passed_over() {
    for (nodes, maker) in [(3, 2), (2, 0)] {
        let mut world = World::alike(Flavour::Mariadb, nodes, nodes, Durability::Majority);
        let reply = world.ask(Some(PASSWORD), restart(1, true));
        assert!(matches!(reply, Some(Reply::Restarting { .. })), "{reply:?}");
        asked(&mut world);
        assert_eq!(ordered(&world), Some(MemberId(maker)), "{nodes} nodes");
    }
}

/// Goal: one that is to leave makes it only where the master would have to. Method: its replacement finds no agent, so that it stays for the time being.
#[test]
fn one_that_is_replaced_comes_after_the_others() {
    for (nodes, maker) in [(3, 2), (2, 1)] {
        let mut world = World::alike(Flavour::Mariadb, nodes, nodes, Durability::Majority);
        let master = world.record().published.master;
        assert_eq!(master, Some(MemberId(0)));
        if nodes > 2 {
            world.instance(2).lag_seconds = 7;
        }
        world.replace(1);
        world.pass(Duration::from_secs(20));
        world.converge();
        assert!(world.record().is_leaving(MemberId(1)));
        assert_eq!(made_by(&mut world), Some(maker), "{nodes} nodes");
    }
}
