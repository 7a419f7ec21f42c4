//! Following, acknowledging, markers and canaries.

use cotton::cluster::{control::Address, flavour::Flavour, gtid::Position, id::Epoch};
use cotton::mysql::Error;

use super::*;
use crate::support::signal;

both_flavours!(
    a_server_starts_closed_and_empty,
    a_marker_is_written_while_closed_and_waits_for_its_acknowledgement,
    a_follower_receives_and_acknowledges,
    nothing_received_is_thrown_away,
    roles_change_and_both_go_on,
    a_stopped_applier_is_reported,
    a_marker_that_nobody_acknowledged_parts_no_servers,
    a_transaction_that_was_cut_off_holds_nothing_up,
    a_transaction_that_was_cut_off_does_not_hold_up_a_halt,
);

/// Goal: what Cotton relies on at a server's first start. Method: observe a new one.
async fn a_server_starts_closed_and_empty(flavour: Flavour) {
    let mysqld = Mysqld::start(flavour, 1).await;
    let server = mysqld.connect().await;
    assert_eq!(server.version(), mysqld.installed.version);
    let seen = server.observe().await.unwrap();
    let expected = Observation {
        read_only: true,
        clients_admitted: false,
        replication: None,
        received: Position::empty(flavour),
        executed: Position::empty(flavour),
        acknowledging: false,
        waiting_sessions: 0,
        clients: 0,
    };
    assert_eq!(seen, expected, "birth leaves nothing in the binlog");
    assert_eq!(server.read_canary().await.unwrap(), None);
}

/// Goal: I1's first transaction. Method: write it without any follower, see it wait, give it one.
async fn a_marker_is_written_while_closed_and_waits_for_its_acknowledgement(flavour: Flavour) {
    let mysqld = Mysqld::start(flavour, 1).await;
    let server = mysqld.connect().await;
    server.prepare_source(1).await.unwrap();
    let result = server.write_marker(CLUSTER, Epoch(3), at_once()).await;
    assert!(matches!(result, Err(Error::TimedOut { .. })), "{result:?}");
    let seen = wait_for(&server, "a commit waits", |seen| seen.waiting_sessions == 1).await;
    assert!(seen.read_only);

    // A second attempt, while the first still waits.
    let result = server.write_marker(CLUSTER, Epoch(3), at_once()).await;
    assert!(matches!(result, Err(Error::TimedOut { .. })), "{result:?}");

    let (_other, follower) = follower(&mysqld, 2, true).await;
    server
        .write_marker(CLUSTER, Epoch(3), soon())
        .await
        .unwrap();
    assert!(server.observe().await.unwrap().read_only);
    let marker = Position::marker(flavour, CLUSTER, Epoch(3), 1);
    assert!(server.executed().await.unwrap().contains(&marker));
    follower.wait_executed(&marker, soon()).await.unwrap();
    assert_eq!(
        follower.held().await.unwrap().highest_marker(CLUSTER),
        Epoch(3)
    );

    let result = server.write_marker(CLUSTER, Epoch(2), soon()).await;
    assert!(
        matches!(
            result,
            Err(Error::LaterMarker {
                found: Epoch(3),
                wanted: Epoch(2)
            })
        ),
        "{result:?}"
    );
    server
        .write_marker(CLUSTER, Epoch(7), soon())
        .await
        .unwrap();
    assert_eq!(
        server.held().await.unwrap().highest_marker(CLUSTER),
        Epoch(7)
    );
}

/// Goal: a canary tells a live acknowledger from a connected one. Method: stop the follower's process.
async fn a_follower_receives_and_acknowledges(flavour: Flavour) {
    use nix::sys::signal::Signal;
    let (mysqld, server) = open_master(flavour, 1).await;
    let (other, follower) = follower(&mysqld, 2, true).await;
    server.prepare_source(1).await.unwrap();
    server.write_canary(41, soon()).await.unwrap();
    server.write_canary(42, soon()).await.unwrap();
    assert_eq!(server.read_canary().await.unwrap(), Some(42));
    let seen = wait_for(&follower, "the replica acknowledges", |seen| {
        seen.acknowledging
    })
    .await;
    assert!(seen.read_only);
    assert_eq!(server.observe().await.unwrap().clients, 1);
    follower
        .wait_executed(&server.executed().await.unwrap(), soon())
        .await
        .unwrap();
    assert_eq!(follower.read_canary().await.unwrap(), Some(42));

    signal(other.pid().as_raw(), Signal::SIGSTOP);
    let result = server.write_canary(43, at_once()).await;
    assert!(matches!(result, Err(Error::TimedOut { .. })), "{result:?}");
    let seen = wait_for(&server, "a commit waits", |seen| seen.waiting_sessions == 1).await;
    assert_eq!(seen.clients, 1, "it looks connected");
    signal(other.pid().as_raw(), Signal::SIGCONT);
    server.write_canary(44, soon()).await.unwrap();

    // Without semi-sync the same follower acknowledges nothing.
    let written = server.executed().await.unwrap();
    follower.wait_executed(&written, soon()).await.unwrap();
    follower.follow(&mysqld.source(), false).await.unwrap();
    wait_for(&server, "nobody acknowledges", |seen| seen.clients == 0).await;
    let result = server.write_canary(45, at_once()).await;
    assert!(matches!(result, Err(Error::TimedOut { .. })), "{result:?}");
    assert!(!follower.observe().await.unwrap().acknowledging);

    match flavour {
        Flavour::Mariadb => {
            let result = server.prepare_source(2).await;
            assert!(
                matches!(result, Err(Error::TooManyAcknowledgements { wanted: 2 })),
                "{result:?}"
            );
        }
        Flavour::Mysql => server.prepare_source(2).await.unwrap(),
    }
}

/// Goal: neither CHANGE nor RESET meets unapplied transactions. Method: block the applier with a lock, receive, try.
async fn nothing_received_is_thrown_away(flavour: Flavour) {
    let (mysqld, server) = open_master(flavour, 1).await;
    server.write_canary(1, soon()).await.unwrap();
    let (other, follower) = follower(&mysqld, 2, true).await;
    follower
        .wait_executed(&server.executed().await.unwrap(), soon())
        .await
        .unwrap();
    let mut lock = other.local().await;
    run(&mut lock, &["LOCK TABLES cotton.canary READ"]).await;
    server.prepare_source(1).await.unwrap();
    server.write_canary(2, soon()).await.unwrap();
    let written = server.executed().await.unwrap();

    let held = follower.held().await.unwrap();
    assert!(held.contains(&written));
    assert!(!follower.executed().await.unwrap().contains(&written));
    let result = follower.follow(&mysqld.source(), true).await;
    assert!(matches!(result, Err(Error::Unapplied { .. })), "{result:?}");
    let result = follower.forget_source().await;
    assert!(matches!(result, Err(Error::Unapplied { .. })), "{result:?}");
    let result = follower.apply_received(at_once()).await;
    assert!(
        matches!(result, Err(Error::NotApplied { .. })),
        "{result:?}"
    );
    assert!(follower.held().await.unwrap().contains(&written));

    run(&mut lock, &["UNLOCK TABLES"]).await;
    follower.apply_received(soon()).await.unwrap();
    assert!(follower.executed().await.unwrap().contains(&written));
    follower.forget_source().await.unwrap();
    assert_eq!(follower.observe().await.unwrap().replication, None);
    assert!(follower.held().await.unwrap().contains(&written));
}

/// Goal: a switch of master there and back, whether a master had the time to forget whom it followed or not. Method:
/// promote the follower, point the old master at it, promote that again.
async fn roles_change_and_both_go_on(flavour: Flavour) {
    let (mysqld_a, a) = open_master(flavour, 1).await;
    let (mysqld_b, b) = follower(&mysqld_a, 2, true).await;
    a.prepare_source(1).await.unwrap();
    a.write_marker(CLUSTER, Epoch(1), soon()).await.unwrap();
    a.write_canary(1, soon()).await.unwrap();

    for (epoch, new, mysqld_new, old) in [
        (2, &b, &mysqld_b, &a),
        (3, &a, &mysqld_a, &b),
        (4, &b, &mysqld_b, &a),
    ] {
        old.close_for_writes().await.unwrap();
        new.wait_executed(&old.executed().await.unwrap(), soon())
            .await
            .unwrap();
        new.stop_receiving().await.unwrap();
        new.apply_received(soon()).await.unwrap();
        new.leave_source().await.unwrap();
        new.prepare_source(1).await.unwrap();
        old.prepare_source(0).await.unwrap();
        old.follow(&mysqld_new.source(), true).await.unwrap();
        new.write_marker(CLUSTER, Epoch(epoch), soon())
            .await
            .unwrap();
        new.open_for_writes().await.unwrap();
        new.write_canary(epoch * 10, soon()).await.unwrap();
        old.wait_executed(&new.executed().await.unwrap(), soon())
            .await
            .unwrap();
        assert_eq!(old.read_canary().await.unwrap(), Some(epoch * 10));
        assert!(!new.observe().await.unwrap().read_only && old.observe().await.unwrap().read_only);
        if epoch == 3 {
            new.forget_source().await.unwrap();
            assert_eq!(new.observe().await.unwrap().replication, None);
            new.write_canary(epoch + 1, soon()).await.unwrap();
            let executed = new.executed().await.unwrap();
            old.wait_executed(&executed, soon()).await.unwrap();
        }
    }
    assert_eq!(a.held().await.unwrap(), b.held().await.unwrap());
}

/// As the executor follows a master that was elected for `history`.
async fn follow_elected(server: &Server, master: &Mysqld, history: &Position, epoch: u64) {
    let address = Address {
        host: "127.0.0.1".to_owned(),
        port: master.port,
    };
    let marker = server
        .marker_to_begin_at(&address, history, Epoch(epoch), &master.admin())
        .await
        .unwrap();
    let source = master.source();
    server.follow_from(&source, false, marker).await.unwrap();
}

/// Goal: who has a marker that nobody acknowledged follows a master without it, and leads those who lack it, also when
/// its binlog from then is purged. Method: the markers of two epochs stay with their masters at first.
async fn a_marker_that_nobody_acknowledged_parts_no_servers(flavour: Flavour) {
    let (mysqld_a, a) = open_master(flavour, 1).await;
    let (mysqld_b, b) = follower(&mysqld_a, 2, false).await;
    let (mysqld_c, c) = follower(&mysqld_a, 3, false).await;
    a.write_marker(CLUSTER, Epoch(1), soon()).await.unwrap();
    a.write_canary(1, soon()).await.unwrap();
    let written = a.executed().await.unwrap();
    for server in [&b, &c] {
        server.wait_executed(&written, soon()).await.unwrap();
        server.leave_source().await.unwrap();
    }
    b.write_marker(CLUSTER, Epoch(2), soon()).await.unwrap();
    let history = c.held().await.unwrap();
    c.write_marker(CLUSTER, Epoch(3), soon()).await.unwrap();
    c.open_for_writes().await.unwrap();
    c.write_canary(2, soon()).await.unwrap();
    for server in [&a, &b] {
        follow_elected(server, &mysqld_c, &history, 3).await;
    }
    c.fill_markers(CLUSTER, Epoch(3), soon()).await.unwrap();
    c.fill_markers(CLUSTER, Epoch(3), soon()).await.unwrap();
    let written = c.executed().await.unwrap();
    for server in [&a, &b] {
        server.wait_executed(&written, soon()).await.unwrap();
        assert_eq!(server.read_canary().await.unwrap(), Some(2));
        let held = server.held().await.unwrap();
        assert_eq!(held.highest_marker(CLUSTER), Epoch(3));
        if let Position::Mysql(held) = held {
            assert_eq!(held.holes_of(CLUSTER, 3), Vec::<u64>::new());
        }
    }

    b.leave_source().await.unwrap();
    let status = match flavour {
        Flavour::Mysql => "SHOW BINARY LOG STATUS",
        Flavour::Mariadb => "SHOW MASTER STATUS",
    };
    let mut connection = mysqld_b.local().await;
    run(&mut connection, &["FLUSH BINARY LOGS"]).await;
    let newest = ask(&mut connection, status).await.unwrap();
    let purge = format!("PURGE BINARY LOGS TO '{newest}'");
    run(&mut connection, &[&purge]).await;
    let history = b.held().await.unwrap();
    b.write_marker(CLUSTER, Epoch(4), soon()).await.unwrap();
    b.open_for_writes().await.unwrap();
    b.write_canary(3, soon()).await.unwrap();
    let written = b.executed().await.unwrap();
    for server in [&a, &c] {
        follow_elected(server, &mysqld_b, &history, 4).await;
        server.wait_executed(&written, soon()).await.unwrap();
        assert_eq!(server.read_canary().await.unwrap(), Some(3));
    }
}

/// Goal: MariaDB's numbers only grow, whichever markers a server has. Method: a server whose marker lies between two that
/// its master has and it lacks.
#[tokio::test]
async fn a_marker_between_others_parts_no_servers() {
    let flavour = Flavour::Mariadb;
    let (mysqld_a, a) = open_master(flavour, 1).await;
    let (_mysqld_b, b) = follower(&mysqld_a, 2, false).await;
    a.write_marker(CLUSTER, Epoch(1), soon()).await.unwrap();
    b.wait_executed(&a.executed().await.unwrap(), soon())
        .await
        .unwrap();
    b.leave_source().await.unwrap();
    a.write_marker(CLUSTER, Epoch(2), soon()).await.unwrap();
    b.write_marker(CLUSTER, Epoch(3), soon()).await.unwrap();
    a.write_marker(CLUSTER, Epoch(4), soon()).await.unwrap();
    let history = a.held().await.unwrap();
    a.write_marker(CLUSTER, Epoch(5), soon()).await.unwrap();
    follow_elected(&b, &mysqld_a, &history, 5).await;
    b.wait_executed(&a.executed().await.unwrap(), soon())
        .await
        .unwrap();
    // Again, as after a restart: it has the epoch's marker.
    follow_elected(&b, &mysqld_a, &history, 5).await;
    a.write_canary(1, soon()).await.unwrap();
    b.wait_executed(&a.executed().await.unwrap(), soon())
        .await
        .unwrap();
}

/// Goal: an applier that stops is seen, waiting for it ends, and it can go on when the cause is gone. Method: make a row
/// differ, and take it away.
async fn a_stopped_applier_is_reported(flavour: Flavour) {
    let (mysqld, server) = open_master(flavour, 1).await;
    let (other, follower) = follower(&mysqld, 2, false).await;
    let no_binlog = "SET sql_log_bin = 0";
    let free = match flavour {
        Flavour::Mysql => "SET GLOBAL super_read_only = 0",
        Flavour::Mariadb => "DO 0",
    };
    run(
        &mut other.local().await,
        &[
            free,
            no_binlog,
            "INSERT INTO cotton.marker (epoch) VALUES (5)",
        ],
    )
    .await;
    run(
        &mut mysqld.local().await,
        &["INSERT INTO cotton.marker (epoch) VALUES (5)"],
    )
    .await;
    let written = server.executed().await.unwrap();
    let result = follower.wait_executed(&written, soon()).await;
    assert!(matches!(result, Err(Error::Applier { .. })), "{result:?}");
    follower.stop_receiving().await.unwrap();
    let result = follower.apply_received(soon()).await;
    assert!(matches!(result, Err(Error::Applier { .. })), "{result:?}");
    let replication = follower.observe().await.unwrap().replication.unwrap();
    assert!(!replication.applying && !replication.receiving && replication.applier_error.is_some());
    assert!(follower.held().await.unwrap().contains(&written));

    // What was in the way is gone, as when a full disk has space again.
    let delete = "DELETE FROM cotton.marker WHERE epoch = 5";
    run(&mut other.local().await, &[free, no_binlog, delete]).await;
    follower.apply_received(soon()).await.unwrap();
    assert!(follower.executed().await.unwrap().contains(&written));
}

/// Goal: a change of master does not wait for the rest of a transaction that will not come. Method: stop the
/// master while a large one is on its way, and point the replica anew.
async fn a_transaction_that_was_cut_off_holds_nothing_up(flavour: Flavour) {
    let (master, follower, cut) = cut_off(flavour).await;
    follower
        .server
        .follow(&master.mysqld.source(), true)
        .await
        .unwrap();
    cut.comes_again(&master, &follower).await;
}

/// Goal: a member whose data is not part of the history stops at once, too; or its step would last longer than a
/// statement may take, and fail. Method: the same, but the replica is only stopped.
async fn a_transaction_that_was_cut_off_does_not_hold_up_a_halt(flavour: Flavour) {
    let (master, follower, cut) = cut_off(flavour).await;
    let before = follower.server.held().await.unwrap();
    follower.server.stop_following().await.unwrap();
    assert_eq!(follower.server.held().await.unwrap(), before);
    follower.server.stop_following().await.unwrap();
    let seen = follower.server.observe().await.unwrap();
    assert!(
        seen.replication
            .is_some_and(|r| !r.applying && !r.receiving)
    );

    let source = master.mysqld.source();
    follower.server.follow(&source, true).await.unwrap();
    cut.comes_again(&master, &follower).await;
}

/// A server, and the process that it is.
struct Node {
    mysqld: Mysqld,
    server: Server,
}

/// A transaction that a master is about to send the rest of, when it goes on.
struct CutOff {
    master: nix::unistd::Pid,
    writer: tokio::task::JoinHandle<MySqlConnection>,
}

/// A master that stands still, and a replica whose receiver was stopped in the middle of a transaction.
async fn cut_off(flavour: Flavour) -> (Node, Node, CutOff) {
    use nix::sys::signal::Signal;
    let (mysqld, server) = open_master(flavour, 1).await;
    let (other, follower) = follower(&mysqld, 2, true).await;
    let mut local = mysqld.local().await;
    let table = "CREATE TABLE large.t (id INT AUTO_INCREMENT PRIMARY KEY, data LONGBLOB)";
    run(&mut local, &["CREATE DATABASE large", table]).await;
    let master = mysqld.pid();
    let insert = "INSERT INTO large.t (data) VALUES (REPEAT('x', 4000000))";
    for _ in 0..5 {
        let before = server.executed().await.unwrap();
        follower.wait_executed(&before, soon()).await.unwrap();
        let received = relay_log_bytes(&other.path("data"));
        let folder = other.path("data");
        let freeze = tokio::task::spawn_blocking(move || {
            let deadline = std::time::Instant::now() + PATIENCE;
            // Nothing tells that bytes have arrived but the files.
            while relay_log_bytes(&folder) < received + 1024 * 1024 {
                assert!(std::time::Instant::now() < deadline, "nothing is received");
                std::thread::sleep(Duration::from_micros(200));
            }
            signal(master.as_raw(), Signal::SIGSTOP);
        });
        let writer = tokio::spawn(async move {
            run(&mut local, &["BEGIN"]).await;
            run(&mut local, &[insert; 12]).await;
            run(&mut local, &["COMMIT"]).await;
            local
        });
        freeze.await.unwrap();
        follower.stop_receiving().await.unwrap();
        if follower.held().await.unwrap() == before {
            let node = |mysqld, server| Node { mysqld, server };
            let cut = CutOff { master, writer };
            return (node(mysqld, server), node(other, follower), cut);
        }
        // On a loaded machine all of it may have arrived before the master stood still: once more.
        signal(master.as_raw(), Signal::SIGCONT);
        local = writer.await.unwrap();
        run(&mut local, &["TRUNCATE TABLE large.t"]).await;
        follower.apply_received(soon()).await.unwrap();
        follower.follow(&mysqld.source(), true).await.unwrap();
    }
    panic!("each time all of it has arrived already");
}

impl CutOff {
    /// The master goes on, and the replica gets all of it.
    async fn comes_again(self, master: &Node, follower: &Node) {
        signal(self.master.as_raw(), nix::sys::signal::Signal::SIGCONT);
        self.writer.await.unwrap();
        let written = master.server.executed().await.unwrap();
        let replica = &follower.server;
        replica.wait_executed(&written, soon()).await.unwrap();
        let count = "SELECT COUNT(*) FROM large.t";
        let mut local = follower.mysqld.local().await;
        assert_eq!(ask(&mut local, count).await.as_deref(), Some("12"));
    }
}

fn relay_log_bytes(folder: &std::path::Path) -> u64 {
    let files = std::fs::read_dir(folder).unwrap().flatten();
    let logs = files.filter(|file| file.file_name().to_string_lossy().starts_with("relay."));
    logs.map(|file| file.metadata().map_or(0, |metadata| metadata.len()))
        .sum()
}
