//! Clusters of three, with the test as their scheduler: birth, failover, crashes, quarantine, lost sessions.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use cotton::cluster::control::{MemberState, Report};
use cotton::cluster::flavour::Flavour;
use cotton::cluster::gtid::Position;
use cotton::cluster::id::DataId;
use cotton::cluster::voters::Durability;
use cotton::mesos::v1::TaskState;
use nix::sys::signal::Signal;
use tokio::time::Instant;
use uuid::Uuid;

use super::agent::DEADLINE;
use super::world::{Member, World};
use crate::support::signal;

/// A cluster of three whose first member is master, with one row.
pub async fn born(flavour: Flavour) -> (World, Vec<Member>) {
    born_in(World::new(flavour).await).await
}

/// The same, in a world that was made ready for it.
pub async fn born_in(mut world: World) -> (World, Vec<Member>) {
    let members = world.members(3).await;
    born_of(&mut world, &members).await;
    (world, members)
}

/// The same, of members that run, closed.
pub async fn born_of(world: &mut World, members: &[Member]) {
    world
        .set_voters(&members.iter().collect::<Vec<_>>(), Durability::Majority)
        .await;
    world.elect(&members[0]).await;
    world.opened(&members[0]).await;
    world.note_opened().await;
    members[0].execute("CREATE DATABASE d").await.unwrap();
    members[0]
        .execute("CREATE TABLE d.t (n BIGINT PRIMARY KEY)")
        .await
        .unwrap();
    members[0]
        .execute("INSERT INTO d.t VALUES (1)")
        .await
        .unwrap();
    for member in &members[1..] {
        world.ready(member).await;
        has(member, &[1]).await;
    }
}

/// Waits until clients see these rows at a member.
pub async fn has(member: &Member, numbers: &[i64]) {
    let what = format!("member {} has {numbers:?}", member.id);
    let mut last = None;
    let begun = Instant::now();
    while last.as_deref() != Some(numbers) {
        assert!(
            begun.elapsed() < DEADLINE,
            "{what}, not {last:?}:\n{}",
            member.log()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
        last = member.numbers().await.ok();
    }
}

/// The text of an export, which only the framework's user can read.
fn exported(path: &Path) -> String {
    let mode = std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut text = String::new();
    let file = std::fs::File::open(path).unwrap();
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut text)
        .unwrap();
    text
}

/// The more complete of two members that have told what they hold, and the other one. A master commits every second by
/// itself, so either may have received more of it.
pub async fn more_complete<'a>(
    world: &World,
    a: &'a Member,
    b: &'a Member,
) -> (&'a Member, &'a Member) {
    let (first, second) = (world.held(a).await, world.held(b).await);
    if is_greater(&first, &second, world) {
        (a, b)
    } else {
        (b, a)
    }
}

fn is_greater(a: &Report, b: &Report, world: &World) -> bool {
    let position = |report: &Report| report.held.clone().unwrap().position;
    Position::more_complete(&position(a), &position(b), world.uuid)
        .unwrap()
        .is_ge()
}

/// Goal: three members are born, lose their master's server, elect another in the next epoch, and the old one
/// follows with its data; nothing acknowledged is lost.
async fn a_failover(flavour: Flavour) {
    let (mut world, members) = born(flavour).await;
    let before = world.told(&members[0]).await.process;
    let killed = Instant::now();
    members[0].kill_mysqld();
    // It may have been started again before the test looks.
    world
        .reported(&members[0], "its server's end", |r| r.process != before)
        .await;
    world.begin_election().await;
    let (first, second) = (world.held(&members[1]).await, world.held(&members[2]).await);
    assert!(
        matches!(first.state, MemberState::Following { .. }),
        "slaves go on serving readers: {first:?}"
    );
    members[1].numbers().await.unwrap();
    let (winner, loser) = if is_greater(&first, &second, &world) {
        (1, 2)
    } else {
        (2, 1)
    };
    world.elect(&members[winner]).await;
    world.opened(&members[winner]).await;
    eprintln!("{flavour}: writable again after {:?}", killed.elapsed());
    world.note_opened().await;
    members[winner]
        .execute("INSERT INTO d.t VALUES (2)")
        .await
        .unwrap();
    for member in [&members[loser], &members[0]] {
        world.ready(member).await;
        has(member, &[1, 2]).await;
        assert!(
            member.execute("INSERT INTO d.t VALUES (9)").await.is_err(),
            "a slave is read-only"
        );
    }
}

#[tokio::test]
async fn a_failover_of_mariadb() {
    a_failover(Flavour::Mariadb).await;
}

#[tokio::test]
async fn a_failover_of_mysql() {
    a_failover(Flavour::Mysql).await;
}

/// Goal: a master that is deposed while it lives is killed, and never acknowledges what its successor lacks.
/// Method: its voters are frozen, it takes a write that nobody else gets, another one is elected; the write was
/// not acknowledged, and the data that holds it is set aside once the new master has opened.
async fn a_deposed_master_with_a_tail_is_quarantined(flavour: Flavour) {
    let (mut world, members) = born(flavour).await;
    let old = world.told(&members[0]).await;
    for member in &members[1..] {
        signal(member.mysqld().unwrap(), Signal::SIGSTOP);
    }
    let mut connection = members[0].connect().await.unwrap();
    let write = tokio::spawn(async move {
        sqlx::raw_sql("INSERT INTO d.t VALUES (7)")
            .execute(&mut connection)
            .await
            .map(|_| ())
    });
    world
        .reported(&members[0], "commits that wait", |r| {
            r.problem
                .as_ref()
                .is_some_and(|problem| problem.contains("no commit gets"))
        })
        .await;
    assert!(!write.is_finished(), "nobody has acknowledged it");
    // The replicas' ends of the connections are cut, and their executors start them again only when the next
    // epoch has begun: the tail never reaches them.
    for member in &members[1..] {
        signal(member.executor.id() as i32, Signal::SIGSTOP);
        signal(member.mysqld().unwrap(), Signal::SIGKILL);
    }
    world.begin_election().await;
    for member in &members[1..] {
        signal(member.executor.id() as i32, Signal::SIGCONT);
    }
    assert!(write.await.unwrap().is_err(), "killed, not demoted");
    // They were frozen one after the other, while the master committed by itself.
    let (new_master, other) = more_complete(&world, &members[1], &members[2]).await;
    world.elect(new_master).await;
    world.opened(new_master).await;
    let quarantined = world
        .reported(&members[0], "quarantined", |r| {
            r.state == MemberState::Quarantined
        })
        .await;
    assert_eq!(
        quarantined.data, old.data,
        "its data stays until the marker is acknowledged"
    );
    assert!(
        quarantined
            .problem
            .unwrap()
            .contains("not in the cluster's history")
    );
    world.note_opened().await;
    let new = world.ready(&members[0]).await;
    assert_ne!(new.data, old.data);
    has(&members[0], &[1]).await;
    let aside = members[0]
        .sandbox
        .path()
        .join("state/quarantine")
        .join(old.data.unwrap().to_string());
    assert!(aside.is_dir(), "nothing is deleted");
    let told = world
        .reported(&members[0], "an export", |r| {
            r.set_aside
                .as_ref()
                .is_some_and(|aside| aside.export.is_some())
        })
        .await
        .set_aside
        .unwrap();
    assert_eq!(Some(told.data), old.data);
    let export = members[0].sandbox.path().join(told.export.unwrap());
    let sql = exported(&export);
    assert!(sql.contains("### INSERT INTO `d`.`t`"), "{sql}");
    assert!(sql.contains("###   @1=7"), "{sql}");
    assert!(
        !sql.contains("###   @1=1\n"),
        "row 1 is in the history: {sql}"
    );

    // Its new data does not vote; the canary takes it back.
    world.goal.canary = 1;
    world.write_goal().await;
    world
        .reported(new_master, "the canary", |r| r.canary == 1)
        .await;
    world
        .reported(&members[0], "the canary", |r| r.canary == 1)
        .await;
    world.goal.voters.members.insert(members[0].id, new.data);
    world.write_goal().await;
    // Alone with the master it must acknowledge now.
    signal(other.mysqld().unwrap(), Signal::SIGSTOP);
    new_master
        .execute("INSERT INTO d.t VALUES (2)")
        .await
        .unwrap();
    has(&members[0], &[1, 2]).await;
}

#[tokio::test]
async fn a_deposed_mariadb_master_with_a_tail_is_quarantined() {
    a_deposed_master_with_a_tail_is_quarantined(Flavour::Mariadb).await;
}

#[tokio::test]
async fn a_deposed_mysql_master_with_a_tail_is_quarantined() {
    a_deposed_master_with_a_tail_is_quarantined(Flavour::Mysql).await;
}

/// Goal: nobody opens before its marker is acknowledged. Method: a master whose only other voters have no
/// stored data and so may not acknowledge; then one of them may.
#[tokio::test]
async fn a_master_waits_for_the_acknowledgement_of_its_marker() {
    let mut world = World::new(Flavour::Mariadb).await;
    let members = world.members(3).await;
    world
        .set_voters(&members.iter().collect::<Vec<_>>(), Durability::Majority)
        .await;
    let stored = world.goal.voters.members.clone();
    for member in &members[1..] {
        world
            .goal
            .voters
            .members
            .insert(member.id, Some(DataId(Uuid::new_v4())));
    }
    world.elect(&members[0]).await;
    let waiting = world
        .reported(&members[0], "commits that wait", |r| {
            r.problem
                .as_ref()
                .is_some_and(|problem| problem.contains("no commit gets"))
        })
        .await;
    let epoch = world.goal.epoch;
    assert_eq!(
        waiting.state,
        MemberState::Master {
            epoch,
            writable: false
        }
    );
    assert!(members[0].connect().await.is_err());
    world.goal.voters.members = stored;
    world.write_goal().await;
    world.opened(&members[0]).await;
}

/// Goal: an outage of ZooKeeper changes nothing by itself (I5). Method: it is killed for longer than the session
/// timeout; every executor returns with a new session and the same server.
#[tokio::test]
async fn an_outage_of_zookeeper_changes_nothing() {
    let (mut world, members) = born(Flavour::Mariadb).await;
    let pids: Vec<_> = members
        .iter()
        .map(|member| member.mysqld().unwrap())
        .collect();
    world.zookeeper.stop();
    let outage = Instant::now();
    let mut n = 1;
    while outage.elapsed() < Duration::from_secs(7) {
        n += 1;
        members[0]
            .execute(&format!("INSERT INTO d.t VALUES ({n})"))
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    world.zookeeper.restart();
    let epoch = world.goal.epoch;
    for (member, pid) in members.iter().zip(pids) {
        let report = world
            .reported(member, "its state", |r| r.promised == epoch)
            .await;
        assert_eq!(member.mysqld(), Some(pid), "{report:?}");
    }
    members[0]
        .execute("INSERT INTO d.t VALUES (1000)")
        .await
        .unwrap();
    // And goals are heard again.
    world.begin_election().await;
    for member in &members {
        world.held(member).await;
    }
}

/// Goal: a member whose server ends while it follows comes back, applies what it holds and follows.
async fn a_follower_that_crashes_follows_again(flavour: Flavour) {
    let (world, members) = born(flavour).await;
    for n in 2..20 {
        members[0]
            .execute(&format!("INSERT INTO d.t VALUES ({n})"))
            .await
            .unwrap();
        if n == 10 {
            members[1].kill_mysqld();
        }
    }
    world.ready(&members[1]).await;
    has(&members[1], &(1..20).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn a_mariadb_follower_that_crashes_follows_again() {
    a_follower_that_crashes_follows_again(Flavour::Mariadb).await;
}

#[tokio::test]
async fn a_mysql_follower_that_crashes_follows_again() {
    a_follower_that_crashes_follows_again(Flavour::Mysql).await;
}

/// Goal: a master that Mesos kills is killed at once where commits may wait for acknowledgements.
#[tokio::test]
async fn a_master_of_a_majority_is_killed_without_a_graceful_end() {
    let (world, mut members) = born(Flavour::Mariadb).await;
    members[0].agent.kill(Duration::from_secs(15));
    members[0].agent.told(TaskState::TaskKilled).await;
    assert!(members[0].ended().await.success());
    let log = std::fs::read_to_string(members[0].sandbox.path().join("mysqld.log")).unwrap();
    assert!(!log.contains("Normal shutdown"), "{log}");
    drop(world);
}

/// Goal: a member that was elected and died before anybody acknowledged its marker follows the next master with the data
/// that it has, and can be master itself. Method: it is alone while it is elected, and is not asked in the next election.
async fn a_marker_that_nobody_acknowledged_costs_no_data(flavour: Flavour) {
    let (mut world, members) = born(flavour).await;
    let data = world.told(&members[1]).await.data;
    // The two others have the same of what the master commits by itself: either can be elected.
    let others = [&members[1], &members[2]];
    world.kill_followed(&members[0], &others).await;
    signal(members[2].executor.id() as i32, Signal::SIGSTOP);
    members[2].kill_mysqld();
    let epoch = world.begin_election().await;
    world.held(&members[1]).await;
    world.elect(&members[1]).await;
    let waiting = world
        .reported(&members[1], "a marker that waits", |r| {
            let problem = r.problem.as_ref();
            problem.is_some_and(|problem| problem.contains("no commit gets"))
        })
        .await;
    members[1].kill_mysqld();
    world
        .reported(&members[1], "another server", |r| {
            r.process.is_some() && r.process != waiting.process
        })
        .await;
    for member in [&members[0], &members[2]] {
        member.go_on();
    }

    world.begin_election().await;
    for member in &members {
        world.held(member).await;
    }
    let held = world.held(&members[1]).await.held.unwrap();
    assert_eq!(held.position.highest_marker(world.uuid), epoch);
    world.elect(&members[2]).await;
    world.opened(&members[2]).await;
    world.note_opened().await;
    members[2]
        .execute("INSERT INTO d.t VALUES (2)")
        .await
        .unwrap();
    let follows = world.ready(&members[1]).await;
    assert_eq!(follows.data, data, "nothing was set aside");
    for member in [&members[0], &members[1]] {
        world.ready(member).await;
        has(member, &[1, 2]).await;
    }

    let others = [&members[0], &members[1]];
    world.kill_followed(&members[2], &others).await;
    world.begin_election().await;
    members[2].go_on();
    for member in &members {
        world.held(member).await;
    }
    world.elect(&members[1]).await;
    world.opened(&members[1]).await;
    world.note_opened().await;
    members[1]
        .execute("INSERT INTO d.t VALUES (3)")
        .await
        .unwrap();
    for member in [&members[0], &members[2]] {
        world.ready(member).await;
        has(member, &[1, 2, 3]).await;
    }
}

#[tokio::test]
async fn a_mariadb_marker_that_nobody_acknowledged_costs_no_data() {
    a_marker_that_nobody_acknowledged_costs_no_data(Flavour::Mariadb).await;
}

#[tokio::test]
async fn a_mysql_marker_that_nobody_acknowledged_costs_no_data() {
    a_marker_that_nobody_acknowledged_costs_no_data(Flavour::Mysql).await;
}

/// Goal: a voter that lost its data takes part before the master has opened, which waits for just this voter. Method: two
/// voters, of which one begins anew while the other one's server is restarted and elected.
async fn a_voter_without_its_data_lets_a_restarted_master_open(flavour: Flavour) {
    let mut world = World::new(flavour).await;
    let mut members = world.members(2).await;
    world
        .set_voters(&members.iter().collect::<Vec<_>>(), Durability::Majority)
        .await;
    world.elect(&members[0]).await;
    world.opened(&members[0]).await;
    world.note_opened().await;
    for statement in [
        "CREATE DATABASE d",
        "CREATE TABLE d.t (n BIGINT PRIMARY KEY)",
        "INSERT INTO d.t VALUES (1)",
    ] {
        members[0].execute(statement).await.unwrap();
    }
    let running = world.told(&members[0]).await.process;
    drop(members.remove(1));
    let again = world.launch_again(1, 2).await;
    members[0].kill_mysqld();
    world
        .reported(&members[0], "another server", |r| {
            r.process.is_some() && r.process != running
        })
        .await;
    world.begin_election().await;
    world.held(&members[0]).await;
    world.held(&again).await;
    world.goal.canary = 1;
    world.elect(&members[0]).await;
    let follows = world
        .reported(&again, "the canary", |r| r.canary == 1)
        .await;
    assert!(!follows.acknowledges, "its data is not stored yet");
    let epoch = world.goal.epoch;
    let waits = MemberState::Master {
        epoch,
        writable: false,
    };
    // There is nobody else to acknowledge. The other's report may have come before its own.
    world
        .reported(&members[0], "that it waits", |r| r.state == waits)
        .await;
    world.goal.voters.members.insert(again.id, follows.data);
    world.goal.voters.version += 1;
    world.write_goal().await;
    if flavour == Flavour::Mariadb {
        // It writes nothing more into its binlog while the marker and the canary wait.
        world.ready(&again).await;
        world.begin_election().await;
        world.held(&members[0]).await;
        world.held(&again).await;
        world.elect(&members[0]).await;
    }
    world.opened(&members[0]).await;
    world.note_opened().await;
    members[0]
        .execute("INSERT INTO d.t VALUES (2)")
        .await
        .unwrap();
    world.ready(&again).await;
    has(&again, &[1, 2]).await;
}

#[tokio::test]
async fn a_mariadb_voter_without_its_data_lets_a_restarted_master_open() {
    a_voter_without_its_data_lets_a_restarted_master_open(Flavour::Mariadb).await;
}

#[tokio::test]
async fn a_mysql_voter_without_its_data_lets_a_restarted_master_open() {
    a_voter_without_its_data_lets_a_restarted_master_open(Flavour::Mysql).await;
}
