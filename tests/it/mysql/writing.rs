//! What makes a switchover short: commits that are held back for a while, and a binlog in which the new epoch is found at once.

use std::time::{Duration, Instant};

use cotton::cluster::flavour::Flavour;

use super::*;

both_flavours!(
    commits_are_held_back_and_not_for_ever,
    a_long_binlog_is_ended_and_a_short_one_is_not,
);

/// A delay far above any commit on a busy disk would make the test long; so the shortest of several commits is compared.
const DELAY: Duration = Duration::from_millis(200);

/// The shortest of some commits.
async fn commit(local: &mut MySqlConnection) -> Duration {
    let mut shortest = Duration::MAX;
    for _ in 0..5 {
        let begun = Instant::now();
        run(local, &["INSERT INTO d.t (text) VALUES ('x')"]).await;
        shortest = shortest.min(begun.elapsed());
    }
    shortest
}

/// Goal: the delay is felt, a second one replaces the first, what was configured comes back, and what is longer stays. Method: settings that no
/// default is.
async fn commits_are_held_back_and_not_for_ever(flavour: Flavour) {
    let (setting, read) = match flavour {
        Flavour::Mysql => (
            "SET GLOBAL binlog_group_commit_sync_delay = 11",
            "SELECT @@GLOBAL.binlog_group_commit_sync_delay",
        ),
        Flavour::Mariadb => (
            "SET GLOBAL binlog_commit_wait_usec = 11",
            "SELECT CONCAT(@@GLOBAL.binlog_commit_wait_usec, '-', @@GLOBAL.binlog_commit_wait_count)",
        ),
    };
    let (mysqld, server) = open_master(flavour, 1).await;
    let mut local = mysqld.local().await;
    let table = "CREATE TABLE d.t (id INT AUTO_INCREMENT PRIMARY KEY, text LONGTEXT)";
    run(&mut local, &["CREATE DATABASE d", table, setting]).await;
    let before = ask(&mut local, read).await;

    server.delay_commits(DELAY / 10).await.unwrap();
    server.delay_commits(DELAY).await.unwrap();
    assert!(commit(&mut local).await >= DELAY);
    assert_ne!(ask(&mut local, read).await, before);

    for _ in 0..2 {
        server.end_commit_delay().await.unwrap();
        assert_eq!(ask(&mut local, read).await, before);
    }
    let longer = match flavour {
        Flavour::Mysql => "SET GLOBAL binlog_group_commit_sync_delay = 30000",
        Flavour::Mariadb => {
            "SET GLOBAL binlog_commit_wait_usec = 30000, GLOBAL binlog_commit_wait_count = 5"
        }
    };
    run(&mut local, &[longer]).await;
    let configured = ask(&mut local, read).await;
    server.delay_commits(DELAY / 10).await.unwrap();
    assert_eq!(ask(&mut local, read).await, configured);
    server.delay_commits(DELAY).await.unwrap();
    assert_ne!(ask(&mut local, read).await, configured);
    server.end_commit_delay().await.unwrap();
    assert_eq!(ask(&mut local, read).await, configured);

    let local = tokio::sync::Mutex::new(local);
    eventually("commits are not held back", PATIENCE, || async {
        (commit(&mut *local.lock().await).await < DELAY).then_some(())
    })
    .await;
}

async fn a_long_binlog_is_ended_and_a_short_one_is_not(flavour: Flavour) {
    let (mysqld, server) = open_master(flavour, 1).await;
    let mut local = mysqld.local().await;
    let table = "CREATE TABLE d.t (id INT AUTO_INCREMENT PRIMARY KEY, text LONGTEXT)";
    run(&mut local, &["CREATE DATABASE d", table]).await;
    let (first, _) = server.binlog_end().await.unwrap();
    server.shorten_binlog().await.unwrap();
    assert_eq!(server.binlog_end().await.unwrap().0, first);

    let megabyte = "INSERT INTO d.t (text) VALUES (REPEAT('x', 1 << 20))";
    run(&mut local, &[megabyte]).await;
    // As a master is that has not opened.
    server.close_for_writes().await.unwrap();
    let executed = server.executed().await.unwrap();
    server.shorten_binlog().await.unwrap();
    let (second, length) = server.binlog_end().await.unwrap();
    assert_ne!(second, first);
    assert!(length < 1 << 20, "{length}");
    assert_eq!(
        server.executed().await.unwrap(),
        executed,
        "it writes nothing"
    );
}
