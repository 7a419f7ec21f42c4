//! Sessions that live through restarts, are made anew after expiry, and tell what is certain.

use std::time::Duration;

use cotton::zookeeper::acl::Acls;
use cotton::zookeeper::operations::{Error, Op, Refusal};
use cotton::zookeeper::session::{Session, SessionState};

use super::{DEADLINE, SHORT, config, connect, connect_for_long, onlooker};
use crate::support::eventually;
use crate::support::zookeeper::ZooKeeper;

fn ephemeral(path: &str) -> Op {
    Op::Create {
        path: path.to_owned(),
        data: Vec::new(),
        acl: Acls::open().report,
        ephemeral: true,
    }
}

async fn wait_for(session: &Session, wanted: SessionState) {
    let mut state = session.state();
    let reached = tokio::time::timeout(DEADLINE, state.wait_for(|state| *state == wanted)).await;
    assert!(reached.is_ok(), "{wanted:?} was not reached");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_restart_keeps_the_session_and_its_nodes() {
    let mut server = ZooKeeper::start();
    let session = connect_for_long(&server).await;
    let connection = session.connection().unwrap();
    connection.transact(&[ephemeral("/mine")]).await.unwrap();

    server.stop();
    wait_for(&session, SessionState::Suspended).await;
    server.restart();
    wait_for(&session, SessionState::Connected(1)).await;
    let stat = connection.stat("/mine").await.unwrap().unwrap();
    assert_eq!(stat.ephemeral_owner, connection.session_id());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_session_is_replaced_and_its_nodes_vanish() {
    let mut server = ZooKeeper::start();
    let session = Session::connect(config(&server, SHORT));
    let old = session.connected(DEADLINE).await.unwrap();
    old.transact(&[ephemeral("/mine")]).await.unwrap();

    server.stop();
    wait_for(&session, SessionState::Lost).await;
    assert!(matches!(
        session.connection(),
        Err(Error::NotConnected { .. })
    ));
    server.restart();
    let new = session.connected(DEADLINE).await.unwrap();
    assert!(new.generation > old.generation);
    assert_ne!(new.session_id(), old.session_id());
    eventually("the old session's node is gone", DEADLINE, || async {
        new.stat("/mine").await.unwrap().is_none().then_some(())
    })
    .await;
    // The old session's handle says so, and does nothing.
    assert!(old.transact(&[ephemeral("/other")]).await.is_err());
    assert!(new.stat("/other").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_server_is_waited_for() {
    let mut server = ZooKeeper::start();
    server.stop();
    let session = Session::connect(config(&server, Duration::from_secs(10)));
    let refused = session.connected(Duration::from_millis(100)).await;
    assert!(
        matches!(refused, Err(Error::NotConnected { .. })),
        "{refused:?}"
    );
    server.restart();
    session.connected(DEADLINE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_takes_ephemeral_nodes_along_at_once() {
    let server = ZooKeeper::start();
    let session = Session::connect(config(&server, Duration::from_secs(60)));
    let connection = session.connected(DEADLINE).await.unwrap();
    connection.transact(&[ephemeral("/mine")]).await.unwrap();
    drop(connection);
    session.close(DEADLINE).await;
    assert!(
        onlooker(&server)
            .await
            .check_stat("/cotton/mine")
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_refused_as_a_whole() {
    let server = ZooKeeper::start();
    let session = connect(&server).await;
    let connection = session.connection().unwrap();
    let acl = Acls::open().state;
    let versions = connection
        .transact(&[
            Op::create("/a", "1", &acl),
            Op::Set {
                path: "/a".to_owned(),
                data: b"2".to_vec(),
                version: Some(0),
            },
        ])
        .await
        .unwrap();
    assert_eq!(versions, [Some(0), Some(1)]);

    let check = |path: &str, version| Op::Check {
        path: path.to_owned(),
        version,
    };
    let table = [
        (check("/a", 7), Refusal::BadVersion),
        (check("/none", 0), Refusal::NoNode),
        (Op::create("/a", "", &acl), Refusal::NodeExists),
        (Op::create("/none/b", "", &acl), Refusal::NoNode),
        (Op::delete("/none"), Refusal::NoNode),
    ];
    for (op, expected) in table {
        let error = connection
            .transact(&[Op::create("/b", "", &acl), op.clone()])
            .await
            .unwrap_err();
        assert_eq!(error.refusal(), Some(&expected), "{op:?}");
        assert_ne!(error.refused_path(), Some("/b"), "{op:?}");
        assert!(connection.stat("/b").await.unwrap().is_none(), "{op:?}");
    }
    let big = Op::create("/b", vec![b'x'; 2_000_000], &acl);
    let error = connection.transact(&[big]).await.unwrap_err();
    assert!(
        matches!(error.refusal(), Some(Refusal::TooLarge(_))),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_without_an_answer_is_uncertain() {
    let mut server = ZooKeeper::start();
    let session = connect(&server).await;
    let connection = session.connection().unwrap();
    server.freeze();
    let op = [Op::create("/a", "", &Acls::open().state)];
    let write = connection.transact(&op);
    let kill = async {
        // The request is on its way as soon as `transact` was polled once.
        tokio::task::yield_now().await;
        server.stop();
    };
    let (result, ()) = tokio::join!(write, kill);
    // Refused it cannot be; done it can be if the request waited for the reconnect.
    assert!(matches!(result, Err(Error::Uncertain { .. })), "{result:?}");
}
