//! The life of single instances: up, open, killed, crashed, ended.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use cotton::cluster::control::{Installer, MemberState};
use cotton::cluster::flavour::Flavour;
use cotton::cluster::voters::Durability;
use cotton::mesos::v1::TaskState;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::world::{World, is_gone, runs};

const GRACE: Duration = Duration::from_secs(15);

/// Goal: one instance from its launch to accepting writes, and to its end.
async fn one_instance_lives_and_ends(flavour: Flavour) {
    let mut world = World::new(flavour).await;
    let mut member = world.launch(0).await;
    member.agent.told(TaskState::TaskRunning).await;
    let report = world
        .reported(&member, "closed", |r| r.state == MemberState::Closed)
        .await;
    assert_eq!(report.server.unwrap().flavour, flavour);
    assert!(
        member.connect().await.is_err(),
        "a closed instance lets no client in"
    );
    assert!(!member.sandbox.path().join("birth.sql").exists());

    world.set_voters(&[&member], Durability::Async).await;
    world.elect(&member).await;
    world.opened(&member).await;
    member.execute("CREATE DATABASE d").await.unwrap();
    member
        .execute("CREATE TABLE d.t (n BIGINT PRIMARY KEY)")
        .await
        .unwrap();
    member.execute("INSERT INTO d.t VALUES (1)").await.unwrap();
    assert_eq!(member.numbers().await.unwrap(), [1]);

    let pid = member.mysqld().unwrap();
    member.agent.kill(GRACE);
    member.agent.told(TaskState::TaskKilled).await;
    assert!(!runs(pid), "the task has ended, so has its server");
    assert!(member.ended().await.success());
    let states = [
        TaskState::TaskStarting,
        TaskState::TaskRunning,
        TaskState::TaskKilling,
        TaskState::TaskKilled,
    ];
    assert_eq!(member.agent.states().0, states);
    assert_eq!(world.report(&member).await, None, "its report went with it");
}

#[tokio::test]
async fn one_mariadb_lives_and_ends() {
    one_instance_lives_and_ends(Flavour::Mariadb).await;
}

#[tokio::test]
async fn one_mysql_from_a_package_lives_and_ends() {
    one_instance_lives_and_ends(Flavour::Mysql).await;
}

/// Goal: a server that ends is reported at once and comes back closed, as another process.
async fn a_crashed_master_comes_back_closed(flavour: Flavour) {
    let mut world = World::new(flavour).await;
    let member = world.launch(0).await;
    world
        .reported(&member, "closed", |r| r.state == MemberState::Closed)
        .await;
    world.set_voters(&[&member], Durability::Async).await;
    world.elect(&member).await;
    let before = world.opened(&member).await;
    member.execute("CREATE DATABASE d").await.unwrap();
    member
        .execute("CREATE TABLE d.t (n BIGINT PRIMARY KEY)")
        .await
        .unwrap();
    member.execute("INSERT INTO d.t VALUES (1)").await.unwrap();
    member.kill_mysqld();
    world
        .reported(&member, "dead", |r| {
            r.process.is_none() && r.state == MemberState::Dead
        })
        .await;
    let after = world
        .reported(&member, "closed", |r| r.state == MemberState::Closed)
        .await;
    assert_eq!(after.data, before.data);
    assert_ne!(after.process, before.process);
    assert!(
        member.connect().await.is_err(),
        "it was elected as another process"
    );

    world.begin_election().await;
    world.held(&member).await;
    world.elect(&member).await;
    world.opened(&member).await;
    member.execute("INSERT INTO d.t VALUES (2)").await.unwrap();
    assert_eq!(member.numbers().await.unwrap(), [1, 2]);
}

#[tokio::test]
async fn a_crashed_mariadb_master_comes_back_closed() {
    a_crashed_master_comes_back_closed(Flavour::Mariadb).await;
}

#[tokio::test]
async fn a_crashed_mysql_master_comes_back_closed() {
    a_crashed_master_comes_back_closed(Flavour::Mysql).await;
}

/// Goal: a server never outlives its executor. Method: SIGKILL for the executor.
#[tokio::test]
async fn the_server_dies_with_its_executor() {
    let world = World::new(Flavour::Mariadb).await;
    let mut member = world.launch(0).await;
    member.agent.told(TaskState::TaskRunning).await;
    let pid = member.mysqld().unwrap();
    kill(Pid::from_raw(member.executor.id() as i32), Signal::SIGKILL).unwrap();
    member.ended().await;
    is_gone(pid).await;
}

/// Goal: a task that cannot run says why. Method: installers that cannot work.
#[tokio::test]
async fn a_task_that_cannot_run_says_why() {
    for (installer, sentence) in [
        (
            Installer::Installed {
                mysqld: "/does/not/exist".into(),
            },
            "/does/not/exist --version cannot be run: No such file or directory",
        ),
        (
            Installer::Package {
                package: "/does/not/exist.tar".into(),
                sha256: None,
            },
            "the package /does/not/exist.tar cannot be unpacked",
        ),
        (
            Installer::Installed {
                mysqld: "/bin/true".into(),
            },
            "/bin/true does not say what it is",
        ),
    ] {
        let world = World::with(Flavour::Mariadb, installer).await;
        let mut member = world.launch(0).await;
        member.agent.told(TaskState::TaskFailed).await;
        let (states, message) = member.agent.states();
        assert_eq!(states, [TaskState::TaskStarting, TaskState::TaskFailed]);
        let message = message.unwrap();
        assert!(message.starts_with(sentence), "{message}");
        assert!(member.ended().await.success());
    }
}

/// Goal: what an agent has many of is small, and is seen by Mesos at once. The bounds are wide, for a debug build on
/// a loaded machine; `make bench` measures.
#[tokio::test]
async fn an_executor_is_small_and_subscribes_at_once() {
    let world = World::new(Flavour::Mariadb).await;
    let member = world.launch(0).await;
    member.agent.told(TaskState::TaskRunning).await;
    world
        .reported(&member, "closed", |r| r.state == MemberState::Closed)
        .await;
    let subscribed = member.agent.subscribed_at().unwrap() - member.begun;
    assert!(
        subscribed < Duration::from_secs(10),
        "subscribed after {subscribed:?}"
    );
    let status = format!("/proc/{}/status", member.executor.id());
    let status = std::fs::read_to_string(status).unwrap();
    // Pages of the binary do not count: those of a debug build are many times as many as of the one that is shipped.
    let own = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .unwrap();
    let own: u64 = own.trim().trim_end_matches(" kB").parse().unwrap();
    eprintln!("subscribed after {subscribed:?}, {own} kB of its own");
    assert!(own < 10_000, "{own} kB are its own");
}
