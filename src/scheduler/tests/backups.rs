//! Backups that are asked for, and clusters that are made from one.

use std::time::Duration;

use super::world::{PASSWORD, World, name, spec};
use crate::{
    cluster::{
        backup::{
            ArchiveOrder, ArchiveReport, BackupId, BackupOutcome, BackupState, BackupStore,
            BackupsLeft, CompleteBackup, Restore, RestoreFrom,
        },
        backup_rules::BackupKeep,
        change::Change,
        flavour::{Flavour, ServerVersion},
        gtid::Position,
        id::{Epoch, MemberId},
        voters::Durability,
    },
    scheduler::{
        action::{Refusal, Reply},
        backups::{self, Course},
        event::{Event, TaskState, Wish},
        report::view,
        schedule::{BackupPolicy, standing},
    },
    time::Timestamp,
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

pub fn backup() -> Wish {
    let store = Box::new(store());
    Wish::Backup { store }
}

fn last(world: &World) -> Option<BackupOutcome> {
    world.record().backups.outcomes.last().cloned()
}

pub fn ordered(world: &World) -> Option<MemberId> {
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
    let position = Position::parse(Flavour::Mariadb, "0-1-7").unwrap();
    world.instance(member.0).backup = Some(BackupState::Done {
        bytes: 100,
        stored_bytes: 10,
        position: Some(position.clone()),
    });
    world.converge();
    let outcome = last(&world).unwrap();
    assert!(outcome.done && outcome.number == 1, "{}", outcome.sentence);
    let usable = &world.record().backups.usable;
    assert_eq!(
        (&usable[0].from.id, &usable[0].position),
        (&first.id, &position)
    );
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
            replay: None,
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

#[test]
fn binlogs_are_archived_where_the_settings_say_so() {
    let archived = |order: Option<ArchiveOrder>| {
        let mut world = World::new(3);
        world.state.policy.archive = order;
        world.create(spec(3, Durability::Majority));
        world.converge();
        assert!(
            world
                .record()
                .elected()
                .is_some_and(|elected| elected.opened)
        );
        world.record().goal().archive
    };
    let order = Some(ArchiveOrder::new(store()));
    assert_eq!(archived(order.clone()), order);
    assert_eq!(archived(None), None);
}

/// Goal: that an archive was begun is noted once a master has told it of that very store, and forgotten with the store. Method: its report, of this
/// store and of another one; other settings of the store; another store.
#[test]
fn that_an_archive_was_begun_is_noted() {
    let mut world = World::running_on(Flavour::Mariadb, 2, Durability::Async);
    world.converge();
    let order = |store| Some(ArchiveOrder::new(store));
    world.state.policy.archive = order(store());
    world.tell(Event::ControlRestored);
    world.converge();
    let master = world.record().published.master.unwrap().0;
    let tells = |world: &mut World, url: &str| {
        world.instance(master).archived_in = Some(url.to_owned());
        world.tell(Event::ControlRestored);
        world.converge();
        let order = world.record().goal().archive.unwrap();
        (order.store.url, order.begun)
    };
    let here = "file:///backups".to_owned();
    assert_eq!(tells(&mut world, "file:///others"), (here.clone(), false));
    assert_eq!(tells(&mut world, &here), (here.clone(), true));
    let rate_mib = 7;
    world.state.policy.archive = order(BackupStore {
        rate_mib,
        ..store()
    });
    assert_eq!(tells(&mut world, "file:///others"), (here.clone(), true));
    // In this one nobody has said to have archived anything.
    let url = "file:///third".to_owned();
    world.state.policy.archive = order(BackupStore {
        url: url.clone(),
        ..store()
    });
    assert_eq!(tells(&mut world, &here), (url, false));
}

/// Goal: which of two backups is newer is told by their ids, whatever the clocks said. Method: the last one was made by a scheduler whose clock is an hour
/// ahead; and two within a second.
#[test]
fn a_newer_backup_has_a_later_id() {
    let mut world = World::running_on(Flavour::Mariadb, 1, Durability::Async);
    world.converge();
    let now = world.now();
    let ahead = BackupId::new(&name(), now.plus(Duration::from_secs(3600)));
    let complete = CompleteBackup {
        id: ahead.clone(),
        asked_at: now,
        url: None,
    };
    let mut record = world.record().clone();
    record.backups.last_complete = Some(complete);
    let Ok(Course::Store(next)) = backups::ask(&record, &store(), now) else {
        panic!("it is not asked for");
    };
    assert!(next.id > ahead, "{}", next.id);
    record.backups.pending = Some(next.clone());
    record.backups.conclude(false, String::new(), now);
    let Ok(Course::Store(last)) = backups::ask(&record, &store(), now) else {
        panic!("it is not asked for");
    };
    assert!(last.id > next.id, "{} {}", next.id, last.id);
}

/// Goal: a cluster is not said to be recoverable by binlogs in one store behind a backup in another one. Method: its only backup in each.
#[test]
fn a_backup_in_another_store_makes_nothing_recoverable() {
    let world = World::running_on(Flavour::Mariadb, 1, Durability::Async);
    let mut record = world.record().clone();
    let archived = |begun_in: Option<&str>| ArchiveReport {
        until: Some(world.now()),
        problem: None,
        begun_in: begun_in.map(str::to_owned),
    };
    let (here, there) = (Some("file:///backups"), Some("file:///others"));
    assert!(!backups::has_one_with(&record, &archived(here)));
    record.backups.last_complete = Some(CompleteBackup {
        id: BackupId::new(&name(), world.now()),
        asked_at: world.now(),
        url: here.map(str::to_owned),
    });
    assert!(backups::has_one_with(&record, &archived(here)));
    assert!(!backups::has_one_with(&record, &archived(there)));
    // Before anything is archived nothing else is known.
    assert!(backups::has_one_with(&record, &archived(None)));
}

/// Goal: a cluster whose last backup is removed is not said to be recoverable, and one that has another one is. Method: both.
#[test]
fn what_is_left_is_stored_when_a_backup_was_removed() {
    let mut world = World::running_on(Flavour::Mariadb, 1, Durability::Async);
    world.converge();
    let mut made = Vec::new();
    for _ in 0..2 {
        world.ask(Some(PASSWORD), backup());
        world.converge();
        world.instance(0).backup = Some(BackupState::Done {
            bytes: 100,
            stored_bytes: 10,
            position: None,
        });
        world.converge();
        world.instance(0).backup = None;
        world.pass(Duration::from_secs(5));
        made.push(world.record().backups.last_complete.clone().unwrap());
    }
    let remove = |world: &mut World, id: &BackupId, newest| {
        let id = id.clone();
        let as_of = world.now();
        let left = Some(BackupsLeft { newest, as_of });
        let answer = world.ask(Some(PASSWORD), Wish::DeleteBackup { id, left });
        assert_eq!(answer, Some(Reply::MayDeleteBackup));
        world.record().backups.clone()
    };
    // To ask whether it may be removed changes nothing; nor does a listing from before the newest was completed.
    let before = world.record().backups.clone();
    let id = made[1].id.clone();
    world.ask(Some(PASSWORD), Wish::DeleteBackup { id, left: None });
    assert_eq!(world.record().backups, before);
    let left = Some(BackupsLeft {
        newest: None,
        as_of: Timestamp::from_millis(0),
    });
    let id = "orders/20200101T000000Z".parse().unwrap();
    world.ask(Some(PASSWORD), Wish::DeleteBackup { id, left });
    assert_eq!(world.record().backups, before);
    let left = Some(made[0].clone());
    let backups = remove(&mut world, &made[1].id, left.clone());
    assert_eq!((backups.has_one(), &backups.last_complete), (true, &left));
    let backups = remove(&mut world, &made[0].id, None);
    assert_eq!((backups.has_one(), backups.last_complete), (false, None));
}

/// A world with a store and this schedule for all clusters.
pub fn scheduled(nodes: u32, schedule: &str, at_once: usize) -> World {
    let mut world = World::running_on(Flavour::Mariadb, nodes, Durability::Async);
    world.converge();
    world.state.policy.backups = Some(BackupPolicy {
        store: store(),
        schedule: schedule.parse().unwrap(),
        keep: BackupKeep::default(),
        at_once,
        verify: false,
    });
    world.tell(Event::ControlRestored);
    world
}

/// Lets time pass until a backup is ordered, for as long as `most`.
pub fn until_ordered(world: &mut World, most: Duration) -> Option<Duration> {
    let step = Duration::from_secs(60);
    let mut passed = Duration::ZERO;
    while passed < most {
        if ordered(world).is_some() {
            return Some(passed);
        }
        world.pass(step);
        world.converge();
        passed += step;
    }
    ordered(world).map(|_| passed)
}

pub fn finish(world: &mut World, state: BackupState) {
    let member = ordered(world).unwrap();
    world.instance(member.0).backup = Some(state);
    world.converge();
    assert_eq!(ordered(world), None);
    world.instance(member.0).backup = None;
    world.converge();
}

pub const DONE: BackupState = BackupState::Done {
    bytes: 100,
    stored_bytes: 10,
    position: None,
};

#[test]
fn a_schedule_makes_them_at_its_distance_and_shows_when() {
    let mut world = scheduled(2, "every 6h", 10);
    world.converge();
    let six_hours = Duration::from_secs(6 * 3600);
    until_ordered(&mut world, six_hours).unwrap();
    assert!(world.record().backups.pending.as_ref().unwrap().scheduled);
    finish(&mut world, DONE);
    let standing = standing(&world.state.policy, world.record()).unwrap();
    let last = standing.last_complete.unwrap();
    let wait = standing.next_at.unwrap().since(last.asked_at);
    assert!(
        wait <= six_hours && wait + Duration::from_secs(61) > six_hours,
        "{wait:?}"
    );
    assert!(until_ordered(&mut world, six_hours - Duration::from_secs(180)).is_none());
    assert!(until_ordered(&mut world, Duration::from_secs(240)).is_some());
}

/// Goal: what fell due while nothing was decided is made up once, not once for each time.
#[test]
fn what_was_missed_is_made_up_once() {
    let mut world = scheduled(2, "every 1h", 10);
    world.converge();
    world.ask(Some(PASSWORD), Wish::Pause(true));
    world.converge();
    world.pass(Duration::from_secs(10 * 3600));
    world.converge();
    assert_eq!(ordered(&world), None, "a paused cluster begins none");
    world.ask(Some(PASSWORD), Wish::Pause(false));
    assert!(until_ordered(&mut world, Duration::from_secs(120)).is_some());
    finish(&mut world, DONE);
    assert_eq!(ordered(&world), None);
    assert_eq!(world.record().backups.outcomes.len(), 1);
}

#[test]
fn one_that_fails_is_tried_again_and_one_that_finds_no_room_waits() {
    let mut world = scheduled(2, "every 1d", 10);
    world.converge();
    until_ordered(&mut world, Duration::from_secs(86_400)).unwrap();
    let why = "the disk is full".to_owned();
    finish(&mut world, BackupState::Failed { why });
    let again = until_ordered(&mut world, Duration::from_secs(3600)).unwrap();
    assert!(again >= Duration::from_secs(540), "{again:?}");
    assert!(again <= Duration::from_secs(660), "{again:?}");
    finish(&mut world, DONE);
    assert!(until_ordered(&mut world, Duration::from_secs(3600)).is_none());

    let mut world = scheduled(2, "every 1h", 0);
    world.converge();
    assert!(until_ordered(&mut world, Duration::from_secs(2 * 3600)).is_none());
    world.state.policy.backups.as_mut().unwrap().at_once = 1;
    assert!(until_ordered(&mut world, Duration::from_secs(120)).is_some());
}

/// Goal: the cluster's own schedule is the one that counts, from when it was set.
#[test]
fn a_cluster_may_have_a_schedule_of_its_own() {
    let mut world = scheduled(2, "none", 10);
    world.converge();
    assert!(until_ordered(&mut world, Duration::from_secs(7200)).is_none());
    let change = |schedule: &str| {
        Wish::Change(Change {
            backup_schedule: Some(schedule.parse().unwrap()),
            ..Change::default()
        })
    };
    world.ask(Some(PASSWORD), change("every 1h"));
    world.converge();
    assert!(until_ordered(&mut world, Duration::from_secs(3600)).is_some());
    finish(&mut world, DONE);
    world.ask(Some(PASSWORD), change("none"));
    world.converge();
    assert!(until_ordered(&mut world, Duration::from_secs(7200)).is_none());
}

/// Goal: a backup that takes long is not given up because its member is out of sight for a moment.
#[test]
fn a_moment_of_silence_does_not_end_a_long_backup() {
    let mut world = World::running_on(Flavour::Mariadb, 2, Durability::Async);
    world.converge();
    world.ask(Some(PASSWORD), backup());
    world.converge();
    let member = ordered(&world).unwrap().0;
    world.instance(member).backup = Some(BackupState::Running { bytes: 7 });
    world.converge();
    world.pass(Duration::from_secs(30 * 3600));
    world.vanish(member);
    world.pass(Duration::from_secs(60));
    assert!(ordered(&world).is_some(), "{:?}", last(&world));
    world.pass(Duration::from_secs(3 * 3600));
    assert!(last(&world).is_some_and(|outcome| !outcome.done));
}

#[test]
fn one_that_is_being_made_is_not_removed() {
    let mut world = World::running_on(Flavour::Mariadb, 2, Durability::Async);
    world.converge();
    world.ask(Some(PASSWORD), backup());
    let made = world.record().backups.pending.clone().unwrap().id;
    let remove = |id: &BackupId| Wish::DeleteBackup {
        id: id.clone(),
        left: None,
    };
    let refused = world.ask(Some(PASSWORD), remove(&made));
    assert!(matches!(
        refused,
        Some(Reply::Refused(Refusal::NotPossible(_)))
    ));
    let other = "orders/20260201T120000Z".parse().unwrap();
    let allowed = world.ask(Some(PASSWORD), remove(&other));
    assert_eq!(allowed, Some(Reply::MayDeleteBackup));
    let refused = world.ask(None, remove(&other));
    assert_eq!(refused, Some(Reply::Refused(Refusal::PasswordMissing)));
}
