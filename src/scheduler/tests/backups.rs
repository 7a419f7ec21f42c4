//! Backups that are asked for, and clusters that are made from one.

use std::time::Duration;

use super::world::{PASSWORD, World, name, spec};
use crate::{
    cluster::{
        backup::{BackupOutcome, BackupState, BackupStore, Restore, RestoreFrom},
        flavour::{Flavour, ServerVersion},
        id::{Epoch, MemberId},
        voters::Durability,
    },
    scheduler::{
        action::{Refusal, Reply},
        event::{TaskState, Wish},
        report::view,
    },
};

fn store() -> BackupStore {
    BackupStore {
        url: "file:///backups".to_owned(),
        region: None,
        endpoint: None,
        credentials: None,
        key: None,
        rate_mib: 0,
    }
}

fn backup() -> Wish {
    let store = Box::new(store());
    Wish::Backup { store }
}

fn last(world: &World) -> Option<BackupOutcome> {
    world.record().backups.outcomes.last().cloned()
}

fn ordered(world: &World) -> Option<MemberId> {
    world.record().goal().backup.map(|order| order.member)
}

#[test]
fn a_slave_makes_it_and_what_came_of_it_is_kept() {
    let mut world = World::running_on(Flavour::Mariadb, 3, Durability::Majority);
    world.converge();
    let master = world.record().published.master.unwrap();
    let Some(Reply::BackingUp { backup: first, .. }) = world.ask(Some(PASSWORD), backup()) else {
        panic!("it is refused");
    };
    assert!(first.id.as_str().starts_with("orders/1970"));
    // The same request meanwhile has the same answer.
    let again = world.ask(Some(PASSWORD), backup());
    assert!(
        matches!(again, Some(Reply::BackingUp { backup, .. }) if backup.number == first.number)
    );
    world.converge();
    let member = ordered(&world).unwrap();
    assert_ne!(member, master);
    world.instance(member.0).backup = Some(BackupState::Running { bytes: 7 });
    world.converge();
    let shown = view(&world.state.clusters[&name()], "zk://h/discover")
        .standing
        .backup;
    assert_eq!(shown.unwrap().bytes, 7);
    world.instance(member.0).backup = Some(BackupState::Done {
        bytes: 100,
        stored_bytes: 10,
    });
    world.converge();
    let outcome = last(&world).unwrap();
    assert!(outcome.done && outcome.number == 1, "{}", outcome.sentence);
    assert_eq!(
        (ordered(&world), &world.record().backups.pending),
        (None, &None)
    );
    assert_eq!(world.record().epoch, Epoch(1), "it changes nothing else");
}

/// Goal: whoever makes it, it ends. Method: its server fails, its task ends, nobody can make it.
#[test]
fn one_that_comes_to_nothing_says_why() {
    let asked = || {
        let mut world = World::running_on(Flavour::Mariadb, 2, Durability::Async);
        world.converge();
        world.ask(Some(PASSWORD), backup());
        world.converge();
        world
    };
    let mut world = asked();
    let member = ordered(&world).unwrap().0;
    let why = "the disk is full".to_owned();
    world.instance(member).backup = Some(BackupState::Failed { why });
    world.converge();
    let outcome = last(&world).unwrap();
    assert!(!outcome.done && outcome.sentence.contains("the disk is full"));

    let mut world = asked();
    let member = ordered(&world).unwrap().0;
    world.end(member, TaskState::Failed);
    world.settle();
    let outcome = last(&world).unwrap();
    assert!(
        !outcome.done && outcome.sentence.contains("has ended"),
        "{}",
        outcome.sentence
    );
}

#[test]
fn the_master_makes_it_where_there_is_nobody_else() {
    let mut world = World::running_on(Flavour::Mariadb, 1, Durability::Async);
    world.converge();
    world.ask(Some(PASSWORD), backup());
    world.converge();
    assert_eq!(ordered(&world), Some(MemberId(0)));
}

#[test]
fn it_is_refused_without_a_master_or_a_password() {
    let mut world = World::new(3);
    world.create(spec(3, Durability::Majority));
    let refused = world.ask(Some(PASSWORD), backup());
    assert!(matches!(
        refused,
        Some(Reply::Refused(Refusal::NotPossible(_)))
    ));
    let refused = world.ask(None, backup());
    assert_eq!(refused, Some(Reply::Refused(Refusal::PasswordMissing)));
}

fn restore() -> Restore {
    Restore {
        asked: "others".to_owned(),
        from: RestoreFrom {
            id: "others/20260201T120000Z".parse().unwrap(),
            store: store(),
            flavour: Flavour::Mariadb,
            version: ServerVersion::new(10, 11, 19),
        },
        done: false,
    }
}

/// Goal: only restored data begins the cluster, its history begins with what the backup holds, and after that nobody restores it.
#[test]
fn a_cluster_begins_with_what_was_restored() {
    let mut world = World::new(3);
    world.create_from(spec(3, Durability::Majority), Some(restore()));
    let shown = view(&world.state.clusters[&name()], "zk://h/discover");
    assert!(
        shown.reason.contains("others/20260201T120000Z"),
        "{}",
        shown.reason
    );
    // Empty data does not count.
    world.converge();
    assert_eq!(world.record().epoch, Epoch(0));
    for member in 0..3 {
        world.instance(member).position = "0-9-50".to_owned();
    }
    world.converge();
    let record = world.record();
    assert_eq!(record.epoch, Epoch(1));
    assert_eq!(record.lineage[0].history.to_string(), "0-9-50");
    assert!(record.restore.as_ref().unwrap().done);
    assert!(record.published.master.is_some());
}

#[test]
fn asking_again_for_another_backup_is_another_request() {
    let mut world = World::new(3);
    let spec = || spec(3, Durability::Majority);
    world.create_from(spec(), Some(restore()));
    let same = world.create_from(spec(), Some(restore()));
    assert!(matches!(same, Some(Reply::Created { .. })));
    let other = world.create(spec());
    assert_eq!(other, Some(Reply::Refused(Refusal::Exists(name()))));
    world.pass(Duration::from_secs(1));
}
