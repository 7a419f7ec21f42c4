//! Members that start empty and get the data of a backup of their own cluster, with the test as their scheduler.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;

use cotton::cluster::backup::{BackupId, BackupOrder, BackupState, BackupStore, RestoreFrom};
use cotton::cluster::control::Report;
use cotton::cluster::donor::FromBackup;
use cotton::cluster::flavour::Flavour;
use cotton::cluster::gtid::Position;
use tempfile::TempDir;

use super::cluster::has;
use super::rebuild::{
    grown, is_elected, only_one_directory, purge_binlogs, start_empty, takes_part_again,
};
use super::world::{Member, World};

/// A store in a folder.
pub fn store(folder: &Path) -> BackupStore {
    BackupStore {
        url: format!("file://{}", folder.display()),
        region: None,
        endpoint: None,
        credentials: None,
        key: None,
        rate_mib: 0,
    }
}

/// A store with a backup in it.
pub struct Stored {
    pub folder: TempDir,
    pub from: RestoreFrom,
    position: Position,
}

/// Has `member` make a backup.
pub async fn back_up(world: &mut World, member: &Member) -> Stored {
    let folder = tempfile::tempdir().unwrap();
    let id: BackupId = "c1/20260201T120000Z".parse().unwrap();
    world.goal.backup = Some(BackupOrder {
        number: 1,
        id: id.clone(),
        store: store(folder.path()),
        member: member.id,
        task_id: member.task_id.clone(),
        follows: None,
    });
    world.write_goal().await;
    let report = world
        .reported(member, "that its backup is over", |r| {
            let state = r.backup.as_ref().map(|backup| &backup.state);
            state.is_some_and(|state| !matches!(state, BackupState::Running { .. }))
        })
        .await;
    world.goal.backup = None;
    let state = report.backup.unwrap().state;
    let BackupState::Done {
        position: Some(position),
        ..
    } = state
    else {
        panic!("{state:?}");
    };
    let server = report.server.unwrap();
    let from = RestoreFrom {
        id,
        store: store(folder.path()),
        flavour: server.flavour,
        version: server.version,
        replay: None,
    };
    Stored {
        folder,
        from,
        position,
    }
}

/// Waits until a member that holds nothing says that a backup will do.
async fn takes_a_backup(world: &World, member: &Member) -> Report {
    world
        .reported(member, "that a backup will do", |r| {
            r.wants_donor.as_ref().is_some_and(|wants| wants.backup)
        })
        .await
}

async fn name_backup(world: &mut World, member: &Member, stored: &Stored) {
    let report = takes_a_backup(world, member).await;
    let backup = FromBackup {
        instead_of: report.data.unwrap(),
        from: stored.from.clone(),
    };
    world.goal.from_backup.insert(member.id, backup);
    world.write_goal().await;
}

/// Waits until a member says that the backup is of no use, and returns why.
async fn says_unfit(world: &World, member: &Member, stored: &Stored) -> Report {
    let is_it = |r: &Report| {
        let wants = r.wants_donor.as_ref();
        wants.is_some_and(|wants| wants.unfit.as_ref() == Some(&stored.from.id))
    };
    world
        .reported(member, "that the backup is of no use", is_it)
        .await
}

/// Goal: a member that has nobody to copy from begins with a backup, gets the rest from the master, votes again, and can be elected; one whose backup is
/// damaged, or lies behind the master's binlogs, says so. Method: no donor is named; rows are written before and after the backup.
async fn a_member_that_starts_empty_takes_a_backup(flavour: Flavour) {
    let (mut world, mut members) = grown(flavour).await;
    let stored = back_up(&mut world, &members[1]).await;
    assert!(!stored.position.is_empty());
    let insert = "INSERT INTO d.t VALUES (2)";
    members[0].execute(insert).await.unwrap();

    start_empty(&world, &mut members, 2, 2).await;
    let empty = takes_a_backup(&world, &members[2]).await;
    name_backup(&mut world, &members[2], &stored).await;
    let ready = world.ready(&members[2]).await;
    assert_ne!(
        ready.data, empty.data,
        "its data directory is one of its own"
    );
    let log = members[2].stderr();
    assert!(log.contains("backup's data taken"), "{log}");
    only_one_directory(&members[2]);
    world.goal.from_backup.clear();
    takes_part_again(&mut world, &members[2]).await;
    has(&members[2], &[1, 2]).await;

    is_elected(&mut world, &members, 3, &[1, 2, 3]).await;

    // The master's binlogs began with the backup; they are cut off behind it.
    purge_binlogs(&[&members[2]]).await;
    start_empty(&world, &mut members, 1, 2).await;
    name_backup(&mut world, &members[1], &stored).await;
    let unfit = says_unfit(&world, &members[1], &stored).await;
    let aside = unfit.set_aside.unwrap();
    assert!(aside.extras.is_empty(), "all of it is in the history");

    let data = stored.folder.path().join(stored.from.id.as_str());
    let data = data.join("data");
    let mut bytes = fs::read(&data).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&data, bytes).unwrap();
    start_empty(&world, &mut members, 0, 2).await;
    name_backup(&mut world, &members[0], &stored).await;
    let unfit = says_unfit(&world, &members[0], &stored).await;
    let problem = unfit.problem.unwrap_or_default();
    assert!(problem.contains("is damaged"), "{problem}");
    only_one_directory(&members[0]);
}

#[tokio::test]
async fn a_mysql_member_that_starts_empty_takes_a_backup() {
    a_member_that_starts_empty_takes_a_backup(Flavour::Mysql).await;
}

#[tokio::test]
async fn a_mariadb_member_that_starts_empty_takes_a_backup() {
    a_member_that_starts_empty_takes_a_backup(Flavour::Mariadb).await;
}
