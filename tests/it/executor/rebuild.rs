//! Members that start empty and copy a donor's data, with the test as their scheduler.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cotton::cluster::control::Report;
use cotton::cluster::donor::Donor;
use cotton::cluster::flavour::Flavour;
use cotton::cluster::gtid::Position;
use nix::sys::signal::Signal;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::agent::DEADLINE;
use super::cluster::{born, born_in, has};
use super::world::{Member, World};
use crate::support::{eventually, signal};

/// Writes on, a row at a time, until it is told to end; says which rows were acknowledged.
struct Load {
    stop: Arc<AtomicBool>,
    writer: JoinHandle<Vec<i64>>,
}

impl Load {
    async fn start(master: &Member, from: i64) -> Self {
        let mut connection = master.connect().await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let writer = tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for n in from.. {
                if told.load(Ordering::Relaxed) {
                    break;
                }
                let statement = sqlx::AssertSqlSafe(format!("INSERT INTO d.t VALUES ({n})"));
                sqlx::raw_sql(statement)
                    .execute(&mut connection)
                    .await
                    .unwrap();
                acknowledged.push(n);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            acknowledged
        });
        Self { stop, writer }
    }

    async fn end(self) -> Vec<i64> {
        self.stop.store(true, Ordering::Relaxed);
        self.writer.await.unwrap()
    }
}

/// A cluster of three with so much in its binlogs that nobody replays them.
pub async fn grown(flavour: Flavour) -> (World, Vec<Member>) {
    let (world, members) = born(flavour).await;
    grow(&members[0]).await;
    (world, members)
}

async fn grow(master: &Member) {
    master
        .execute("CREATE TABLE d.large (n INT PRIMARY KEY, b LONGBLOB)")
        .await
        .unwrap();
    for n in 0..12 {
        let insert = format!("INSERT INTO d.large VALUES ({n}, REPEAT('x', 1000000))");
        master.execute(&insert).await.unwrap();
    }
}

/// The member's task is lost with all of its data, and launched again.
pub async fn start_empty(world: &World, members: &mut [Member], number: u32, launch: u32) {
    let new = world.launch_again(number, launch).await;
    members[number as usize] = new;
}

async fn wants_donor(world: &World, member: &Member, failed: u32) -> Report {
    world
        .reported(member, "that it wants a donor", |r| {
            r.wants_donor
                .as_ref()
                .is_some_and(|wants| wants.failed == failed)
        })
        .await
}

async fn name_donor(world: &mut World, member: &Member, donor: &Member) {
    let report = world.told(member).await;
    let stream_port = world.told(donor).await.stream_port;
    world.goal.donors.insert(
        member.id,
        Donor {
            instead_of: report.data.unwrap(),
            member: donor.id,
            host: "127.0.0.1".into(),
            port: donor.port,
            stream_port,
            busy: false,
        },
    );
    world.write_goal().await;
}

/// The scheduler's part of getting a member back into the vote: the canary, then its data.
pub async fn takes_part_again(world: &mut World, member: &Member) {
    world.goal.canary += 1;
    let canary = world.goal.canary;
    world.write_goal().await;
    let report = world
        .reported(member, "the canary", |r| r.canary == canary)
        .await;
    world.goal.voters.members.insert(member.id, report.data);
    world.write_goal().await;
}

/// The last of three members is elected in the place of the first, commits a row, and the others follow it.
pub async fn is_elected(world: &mut World, members: &[Member], row: i64, rows: &[i64]) {
    let winner = &members[2];
    let others = [&members[1], winner];
    world.kill_followed(&members[0], &others).await;
    world.begin_election().await;
    members[0].go_on();
    for member in members {
        world.held(member).await;
    }
    world.elect(winner).await;
    world.opened(winner).await;
    world.note_opened().await;
    let insert = format!("INSERT INTO d.t VALUES ({row})");
    winner.execute(&insert).await.unwrap();
    for member in &members[..2] {
        world.ready(member).await;
        has(member, rows).await;
    }
}

/// Goal: a member that lost everything copies a slave's data under load, votes again, and can be elected later;
/// nothing acknowledged is missing anywhere.
async fn a_member_that_starts_empty_copies_a_slave(flavour: Flavour) {
    let (mut world, mut members) = grown(flavour).await;
    let load = Load::start(&members[0], 100).await;
    start_empty(&world, &mut members, 2, 2).await;
    let empty = wants_donor(&world, &members[2], 0).await;
    assert!(empty.held.unwrap().position.is_empty());
    name_donor(&mut world, &members[2], &members[1]).await;
    let ready = world.ready(&members[2]).await;
    assert_ne!(ready.data, empty.data, "a copy is another data directory");
    assert_eq!(ready.wants_donor, None);
    assert!(
        members[2].stderr().contains("donor's data copied"),
        "{}",
        members[2].log()
    );
    only_one_directory(&members[2]);
    world.goal.donors.clear();
    takes_part_again(&mut world, &members[2]).await;
    let mut rows = vec![1];
    rows.extend(load.end().await);
    has(&members[2], &rows).await;

    // Those that were ahead of its first binlog follow it.
    rows.insert(1, 7);
    is_elected(&mut world, &members, 7, &rows).await;

    // One that starts empty again finds no complete binlogs at this master, and copies from it.
    start_empty(&world, &mut members, 1, 2).await;
    wants_donor(&world, &members[1], 0).await;
    name_donor(&mut world, &members[1], &members[2]).await;
    world.ready(&members[1]).await;
    has(&members[1], &rows).await;
    let held = |report: &Report| report.held.clone().unwrap().position;
    // A master commits by itself, also between the moments at which the others stop receiving and it ends.
    let others = [&members[0], &members[1]];
    world.kill_followed(&members[2], &others).await;
    world.begin_election().await;
    members[2].go_on();
    let positions: Vec<Position> = {
        let mut positions = Vec::new();
        for member in &members {
            positions.push(held(&world.held(member).await));
        }
        positions
    };
    assert_eq!(positions[0], positions[2]);
    assert_eq!(positions[1], positions[2]);
}

#[tokio::test]
async fn a_mysql_member_that_starts_empty_copies_a_slave() {
    a_member_that_starts_empty_copies_a_slave(Flavour::Mysql).await;
}

/// Goal: what is small is replayed.
async fn a_small_history_is_replayed(flavour: Flavour) {
    let (mut world, mut members) = born(flavour).await;
    start_empty(&world, &mut members, 2, 2).await;
    let empty = wants_donor(&world, &members[2], 0).await;
    name_donor(&mut world, &members[2], &members[1]).await;
    let ready = world.ready(&members[2]).await;
    assert_eq!(ready.data, empty.data);
    has(&members[2], &[1]).await;
}

#[tokio::test]
async fn a_small_history_of_mysql_is_replayed() {
    a_small_history_is_replayed(Flavour::Mysql).await;
}

#[tokio::test]
async fn a_small_history_of_mariadb_is_replayed() {
    a_small_history_is_replayed(Flavour::Mariadb).await;
}

/// Goal: a donor that dies half-way, and a receiver that does, cost a copy and nothing else. Method: the copy's rate makes
/// it last for seconds, in which they are killed.
async fn a_copy_that_is_cut_off_is_made_anew(flavour: Flavour) {
    let mut world = World::new(flavour).await;
    world.copy_rate_mib = 4;
    let (mut world, mut members) = born_in(world).await;
    grow(&members[0]).await;
    start_empty(&world, &mut members, 2, 2).await;
    let first = wants_donor(&world, &members[2], 0).await;
    name_donor(&mut world, &members[2], &members[1]).await;
    being_copied(&members[2]).await;
    members[1].kill_mysqld();
    let again = wants_donor(&world, &members[2], 1).await;
    assert_eq!(again.data, first.data, "the empty directory is still there");
    name_donor(&mut world, &members[2], &members[0]).await;
    being_copied(&members[2]).await;
    // Now the receiver's own server. It may have been started again before the test looks.
    members[2].kill_mysqld();
    world
        .reported(&members[2], "its server's end", |r| {
            r.process != again.process
        })
        .await;
    world.ready(&members[2]).await;
    has(&members[2], &[1]).await;
    only_one_directory(&members[2]);
    world.ready(&members[1]).await;
}

/// Goal: a member that was away while its master's binlogs were purged sets its data aside, copies, and follows. Method: its
/// server is killed and its executor stopped for as long as that takes.
async fn a_member_behind_the_oldest_binlog_copies(flavour: Flavour) {
    let (mut world, members) = grown(flavour).await;
    let old = world.ready(&members[2]).await;
    let executor = members[2].executor.id() as i32;
    signal(executor, Signal::SIGSTOP);
    members[2].kill_mysqld();
    members[0]
        .execute("INSERT INTO d.t VALUES (2)")
        .await
        .unwrap();
    has(&members[1], &[1, 2]).await;
    purge_binlogs(&[&members[0], &members[1]]).await;
    members[0]
        .execute("INSERT INTO d.t VALUES (3)")
        .await
        .unwrap();
    signal(executor, Signal::SIGCONT);

    let empty = wants_donor(&world, &members[2], 0).await;
    assert_ne!(empty.data, old.data);
    let aside = empty.set_aside.unwrap();
    assert_eq!(Some(aside.data), old.data);
    assert!(aside.extras.is_empty(), "all of it is in the history");
    name_donor(&mut world, &members[2], &members[1]).await;
    world.ready(&members[2]).await;
    has(&members[2], &[1, 2, 3]).await;
    takes_part_again(&mut world, &members[2]).await;
}

/// Leaves each member the binlog alone that it has just begun.
pub async fn purge_binlogs(members: &[&Member]) {
    for member in members {
        member.administer("FLUSH BINARY LOGS").await;
        // A file stays for as long as a dump thread reads it or recovery may need it.
        eventually("one binlog is left", DEADLINE, async || {
            let logs = member.administer("SHOW BINARY LOGS").await;
            let purge = format!("PURGE BINARY LOGS TO '{}'", logs.last().unwrap());
            member.administer(&purge).await;
            (logs.len() == 1).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_mysql_member_behind_the_oldest_binlog_copies() {
    a_member_behind_the_oldest_binlog_copies(Flavour::Mysql).await;
}

#[tokio::test]
async fn a_mariadb_member_behind_the_oldest_binlog_copies() {
    a_member_behind_the_oldest_binlog_copies(Flavour::Mariadb).await;
}

/// Goal: a copy takes the time that its rate asks for. Method: there are 12 MB of rows alone, and as much again beside them.
async fn a_copy_keeps_to_its_rate(flavour: Flavour) {
    let mut world = World::new(flavour).await;
    world.copy_rate_mib = 4;
    let (mut world, mut members) = born_in(world).await;
    grow(&members[0]).await;
    start_empty(&world, &mut members, 2, 2).await;
    wants_donor(&world, &members[2], 0).await;
    name_donor(&mut world, &members[2], &members[1]).await;
    being_copied(&members[2]).await;
    let begun = Instant::now();
    world.ready(&members[2]).await;
    let took = begun.elapsed();
    eprintln!("{flavour}: a copy at 4 MiB per second took {took:?}");
    assert!(took > Duration::from_secs(3), "{took:?}");
    has(&members[2], &[1]).await;
}

#[tokio::test]
async fn a_copy_of_mysql_keeps_to_its_rate() {
    a_copy_keeps_to_its_rate(Flavour::Mysql).await;
}

#[tokio::test]
async fn a_copy_of_mariadb_keeps_to_its_rate() {
    a_copy_keeps_to_its_rate(Flavour::Mariadb).await;
}

pub fn only_one_directory(member: &Member) {
    let folder = std::fs::read_dir(member.sandbox.path().join("state/data"));
    let left: Vec<_> = folder.unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "nothing is left of other copies: {left:?}");
}

/// Waits until a copy is being made, and the donor's server is read from: until something has come of it, its executor waits for one that is killed, and copies the
/// next one.
async fn being_copied(member: &Member) {
    let folder = member.sandbox.path().join("state/data");
    eventually("a copy is being made", DEADLINE, async || {
        let mut entries = std::fs::read_dir(&folder).ok()?.flatten();
        let copy =
            entries.find(|entry| entry.path().extension().is_some_and(|e| e == "unfinished"))?;
        std::fs::read_dir(copy.path()).ok()?.next().map(drop)
    })
    .await;
}

#[tokio::test]
async fn a_copy_of_mysql_that_is_cut_off_is_made_anew() {
    a_copy_that_is_cut_off_is_made_anew(Flavour::Mysql).await;
}

#[tokio::test]
async fn a_mariadb_member_that_starts_empty_copies_a_slave() {
    a_member_that_starts_empty_copies_a_slave(Flavour::Mariadb).await;
}

#[tokio::test]
async fn a_copy_of_mariadb_that_is_cut_off_is_made_anew() {
    a_copy_that_is_cut_off_is_made_anew(Flavour::Mariadb).await;
}
