//! What survives SIGKILL.

use cotton::cluster::{flavour::Flavour, id::Epoch};

use super::*;

both_flavours!(
    acknowledged_transactions_survive_a_restart,
    a_replay_that_was_cut_off_goes_on,
    a_killed_master_starts_closed_and_holds_its_unacknowledged_tail,
    a_master_that_had_no_time_to_forget_its_own_starts_as_any_other,
);

/// Goal: what was acknowledged from the relay log is held and applied after SIGKILL. Method: block the applier, receive, also across
/// a rotation of the master's binlog, kill, start.
async fn acknowledged_transactions_survive_a_restart(flavour: Flavour) {
    let (mysqld, server) = open_master(flavour, 1).await;
    let (mut other, follower) = follower(&mysqld, 2, true).await;
    server.prepare_source(1).await.unwrap();
    server
        .write_marker(CLUSTER, Epoch(1), soon())
        .await
        .unwrap();
    server.write_canary(1, soon()).await.unwrap();
    catch_up(&follower, &server).await;
    let mut lock = other.local().await;
    run(&mut lock, &["LOCK TABLES cotton.canary READ"]).await;
    let mut client = mysqld.local().await;
    server.write_canary(2, soon()).await.unwrap();
    run(
        &mut client,
        &[
            "FLUSH BINARY LOGS",
            "CREATE DATABASE d",
            "CREATE TABLE d.t (i INT PRIMARY KEY)",
        ],
    )
    .await;
    run(
        &mut client,
        &[
            "INSERT INTO d.t VALUES (1), (2)",
            "FLUSH BINARY LOGS",
            "INSERT INTO d.t VALUES (3)",
        ],
    )
    .await;
    server
        .write_marker(CLUSTER, Epoch(2), soon())
        .await
        .unwrap();
    let acknowledged = server.executed().await.unwrap();
    assert!(!follower.executed().await.unwrap().contains(&acknowledged));

    other.kill();
    let follower = other.restart().await;
    let seen = follower.observe().await.unwrap();
    assert!(seen.read_only && !seen.clients_admitted && !seen.acknowledging);
    assert!(
        union(&seen.received, &seen.executed).contains(&acknowledged),
        "{seen:?}"
    );
    assert_eq!(seen.received.highest_marker(CLUSTER), Epoch(2));
    assert_eq!(
        follower.held().await.unwrap(),
        union(&seen.received, &seen.executed)
    );
    assert!(follower.follow(&mysqld.source(), true).await.is_err());

    follower.apply_received(soon()).await.unwrap();
    assert!(follower.executed().await.unwrap().contains(&acknowledged));
    assert_eq!(follower.read_canary().await.unwrap(), Some(2));
    assert_eq!(rows(&mut other.local().await).await, 3);

    // And it goes on as if nothing had been.
    follower.follow(&mysqld.source(), true).await.unwrap();
    server.write_canary(3, soon()).await.unwrap();
    catch_up(&follower, &server).await;
    assert_eq!(follower.read_canary().await.unwrap(), Some(3));
    assert_eq!(follower.held().await.unwrap(), server.held().await.unwrap());
}

/// Goal: a crash while the relay logs are applied after a restart loses and repeats nothing. Method: kill in the middle, twice.
async fn a_replay_that_was_cut_off_goes_on(flavour: Flavour) {
    let (mysqld, server) = open_master(flavour, 1).await;
    let (mut other, follower) = follower(&mysqld, 2, true).await;
    server.prepare_source(1).await.unwrap();
    let mut client = mysqld.local().await;
    run(
        &mut client,
        &["CREATE DATABASE d", "CREATE TABLE d.t (i INT PRIMARY KEY)"],
    )
    .await;
    run(
        &mut client,
        &[
            "CREATE TABLE d.stop0 (i INT PRIMARY KEY)",
            "CREATE TABLE d.stop1 (i INT PRIMARY KEY)",
        ],
    )
    .await;
    catch_up(&follower, &server).await;
    let mut lock = other.local().await;
    run(&mut lock, &["LOCK TABLES d.t READ"]).await;
    for i in 0..20 {
        run(&mut client, &[&format!("INSERT INTO d.t VALUES ({i})")]).await;
        match i {
            5 => run(&mut client, &["INSERT INTO d.stop0 VALUES (1)"]).await,
            12 => run(&mut client, &["INSERT INTO d.stop1 VALUES (1)"]).await,
            _ => (),
        }
    }
    let acknowledged = server.executed().await.unwrap();
    for (lock, applied) in [
        ("LOCK TABLES d.stop0 READ", 6),
        ("LOCK TABLES d.stop1 READ", 13),
    ] {
        other.kill();
        let follower = other.restart().await;
        let mut locked = other.local().await;
        run(&mut locked, &[lock]).await;
        assert!(follower.apply_received(at_once()).await.is_err());
        assert!(follower.held().await.unwrap().contains(&acknowledged));
        // The applier goes on until the lock stops it.
        eventually("all before the lock is applied", PATIENCE, async || {
            (rows(&mut other.local().await).await == applied).then_some(())
        })
        .await;
    }
    other.kill();
    let follower = other.restart().await;
    assert!(follower.held().await.unwrap().contains(&acknowledged));
    follower.apply_received(soon()).await.unwrap();
    assert_eq!(rows(&mut other.local().await).await, 20);
    follower.follow(&mysqld.source(), true).await.unwrap();
    server.write_canary(3, soon()).await.unwrap();
    catch_up(&follower, &server).await;
}

/// Goal: a deposed master says honestly what it holds. Method: let a commit wait, kill, start.
async fn a_killed_master_starts_closed_and_holds_its_unacknowledged_tail(flavour: Flavour) {
    let (mut mysqld, server) = open_master(flavour, 1).await;
    server.write_canary(1, soon()).await.unwrap();
    let acknowledged = server.executed().await.unwrap();
    server.prepare_source(1).await.unwrap();
    assert!(server.write_canary(2, at_once()).await.is_err());
    wait_for(&server, "the commit waits", |seen| {
        seen.waiting_sessions == 1
    })
    .await;
    mysqld.kill();
    let server = mysqld.restart().await;
    let seen = server.observe().await.unwrap();
    assert!(seen.read_only && !seen.clients_admitted && seen.replication.is_none());
    let held = server.held().await.unwrap();
    assert!(
        held.contains(&acknowledged) && held != acknowledged,
        "{held} after {acknowledged}"
    );
}

/// Waits until `follower` has applied all that `server` has.
async fn catch_up(follower: &Server, server: &Server) {
    let executed = server.executed().await.unwrap();
    follower.wait_executed(&executed, soon()).await.unwrap();
}

/// How many rows the table of the tests has.
async fn rows(connection: &mut MySqlConnection) -> u32 {
    let count = ask(connection, "SELECT COUNT(*) FROM d.t").await;
    count.unwrap().parse().unwrap()
}

/// Goal: a master that dies before it has forgotten whom it followed holds what it held, and can be master or follow
/// again. Method: promote a follower without forgetting, kill it, start it, both ways.
async fn a_master_that_had_no_time_to_forget_its_own_starts_as_any_other(flavour: Flavour) {
    let (mut mysqld_a, a) = open_master(flavour, 1).await;
    let (mut mysqld_b, b) = follower(&mysqld_a, 2, true).await;
    a.prepare_source(1).await.unwrap();
    a.write_canary(1, soon()).await.unwrap();
    let from_a = a.executed().await.unwrap();
    b.wait_executed(&from_a, soon()).await.unwrap();
    mysqld_a.kill();
    b.leave_source().await.unwrap();
    b.write_marker(CLUSTER, Epoch(2), soon()).await.unwrap();
    b.open_for_writes().await.unwrap();
    b.write_canary(2, soon()).await.unwrap();
    let written = b.executed().await.unwrap();
    assert!(written.contains(&from_a));
    assert_eq!(b.held().await.unwrap(), written);

    mysqld_b.kill();
    let b = mysqld_b.restart().await;
    b.stop_receiving().await.unwrap();
    assert_eq!(b.held().await.unwrap(), written);
    b.apply_received(soon()).await.unwrap();
    assert_eq!(b.executed().await.unwrap(), written, "something came again");
    let seen = b.observe().await.unwrap();
    assert!(seen.replication.is_none_or(|r| !r.applying && !r.receiving));

    b.leave_source().await.unwrap();
    b.write_marker(CLUSTER, Epoch(3), soon()).await.unwrap();
    b.open_for_writes().await.unwrap();
    let a = mysqld_a.restart().await;
    a.follow(&mysqld_b.source(), true).await.unwrap();
    let written = b.executed().await.unwrap();
    a.wait_executed(&written, soon()).await.unwrap();
    assert_eq!(a.held().await.unwrap(), written);

    mysqld_b.kill();
    a.leave_source().await.unwrap();
    a.write_marker(CLUSTER, Epoch(4), soon()).await.unwrap();
    a.open_for_writes().await.unwrap();
    a.write_canary(4, soon()).await.unwrap();
    let b = mysqld_b.restart().await;
    b.follow(&mysqld_a.source(), true).await.unwrap();
    let written = a.executed().await.unwrap();
    b.wait_executed(&written, soon()).await.unwrap();
    assert_eq!(b.read_canary().await.unwrap(), Some(4));
    assert_eq!(b.held().await.unwrap(), a.held().await.unwrap());
}
