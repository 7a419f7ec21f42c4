//! Who may do what: Cotton, an executor, a reader and a stranger at the same nodes.

use cotton::secret::Secret;
use cotton::zookeeper::acl::Acls;
use cotton::zookeeper::operations::{Connection, Op, Refusal};
use cotton::zookeeper::session::{Session, SessionConfig};
use cotton::zookeeper::url::Credentials;
use std::time::Duration;

use super::DEADLINE;
use crate::support::zookeeper::ZooKeeper;

fn identity(user: &str) -> Credentials {
    Credentials {
        user: user.to_owned(),
        password: Secret::new("secret"),
    }
}

async fn session_of(server: &ZooKeeper, identities: &[&str], root_acl: Option<&Acls>) -> Session {
    let session = Session::connect(SessionConfig {
        url: server.url("/cotton").parse().unwrap(),
        identities: identities.iter().map(|user| identity(user)).collect(),
        timeout: Duration::from_secs(10),
        root_acl: root_acl.map(|acls| acls.root.clone()),
    });
    session.connected(DEADLINE).await.unwrap();
    session
}

async fn may_write(connection: &Connection, path: &str) -> bool {
    let op = Op::Set {
        path: path.to_owned(),
        data: Vec::new(),
        version: None,
    };
    allowed(connection.transact(&[op]).await)
}

async fn may_create(connection: &Connection, path: &str, acl: &Acls) -> bool {
    allowed(
        connection
            .transact(&[Op::create(path, "", &acl.report)])
            .await,
    )
}

async fn may_read(connection: &Connection, path: &str) -> bool {
    allowed(connection.get(path).await)
}

fn allowed<T: std::fmt::Debug>(result: Result<T, cotton::zookeeper::operations::Error>) -> bool {
    match result {
        Ok(_) => true,
        Err(error) if error.refusal() == Some(&Refusal::NoAuth) => false,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_identity_has_exactly_its_rights() {
    let server = ZooKeeper::start();
    let acls = Acls::closed(&identity("cotton"), &identity("executor"), None);
    let session = session_of(&server, &["cotton", "executor"], Some(&acls)).await;
    let cotton = session.connection().unwrap();
    cotton
        .transact(&[
            Op::create("/state", "", &acls.state),
            Op::create("/control", "", &acls.control),
            Op::create("/control/goal", "", &acls.control),
            Op::create("/control/members", "", &acls.members),
            Op::create("/discover", "", &acls.discovery),
        ])
        .await
        .unwrap();

    let session = session_of(&server, &["executor"], None).await;
    let executor = session.connection().unwrap();
    assert!(may_create(&executor, "/control/members/t", &acls).await);
    assert!(may_write(&executor, "/control/members/t").await);
    assert!(may_read(&executor, "/control/goal").await);
    assert!(may_read(&executor, "/discover").await);
    assert!(!may_read(&executor, "/state").await);
    for path in [
        "/state",
        "/control",
        "/control/goal",
        "/control/members",
        "/discover",
    ] {
        assert!(!may_write(&executor, path).await, "{path}");
    }
    assert!(!may_create(&executor, "/control/x", &acls).await);
    assert!(!may_create(&executor, "/discover/x", &acls).await);

    let session = session_of(&server, &[], None).await;
    let stranger = session.connection().unwrap();
    assert!(may_read(&stranger, "/discover").await);
    for path in [
        "/state",
        "/control",
        "/control/goal",
        "/control/members",
        "/control/members/t",
    ] {
        assert!(!may_read(&stranger, path).await, "{path}");
        assert!(!may_write(&stranger, path).await, "{path}");
    }
    assert!(!may_write(&stranger, "/discover").await);
    assert!(!may_create(&stranger, "/discover/x", &acls).await);
    assert!(!may_create(&stranger, "/x", &acls).await);

    assert!(may_read(&cotton, "/control/members/t").await);
    assert!(allowed(
        cotton.transact(&[Op::delete("/control/members/t")]).await
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_reader_discovery_is_closed_to_strangers() {
    let server = ZooKeeper::start();
    let acls = Acls::closed(
        &identity("cotton"),
        &identity("executor"),
        Some(&identity("reader")),
    );
    let session = session_of(&server, &["cotton"], Some(&acls)).await;
    let created = [Op::create("/discover", "", &acls.discovery)];
    session
        .connection()
        .unwrap()
        .transact(&created)
        .await
        .unwrap();
    for (identities, expected) in [(vec!["reader"], true), (vec![], false)] {
        let session = session_of(&server, &identities, None).await;
        let connection = session.connection().unwrap();
        assert_eq!(
            may_read(&connection, "/discover").await,
            expected,
            "{identities:?}"
        );
        assert!(!may_write(&connection, "/discover").await, "{identities:?}");
    }
}
