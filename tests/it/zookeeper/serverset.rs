//! A client finds the master, follows it through a failover and a restart of ZooKeeper, and learns
//! that the cluster is terminated.

use std::time::Duration;

use cotton::cluster::service_instance::ServiceInstance;
use cotton::zookeeper::acl::Acls;
use cotton::zookeeper::serverset::{Group, ServerSet, WaitError};
use cotton::zookeeper::store::{StateStorage, Store};

use super::store::{name, record, running};
use super::{DEADLINE, connect};
use crate::support::zookeeper::ZooKeeper;

fn follow(server: &ZooKeeper) -> ServerSet {
    let url = server.url("/cotton/discover/a").parse().unwrap();
    ServerSet::follow(url, Duration::from_secs(10))
}

#[tokio::test(flavor = "multi_thread")]
async fn from_creation_to_termination() {
    let mut server = ZooKeeper::start();
    let session = connect(&server).await;
    let store = Store::open(session, Acls::open(), StateStorage::Zk)
        .await
        .unwrap();
    let set = follow(&server);
    set.wait_gone(DEADLINE).await.unwrap();

    let v0 = store.commit(&record("a"), None).await.unwrap();
    let published = async {
        let v1 = store
            .commit(&running("a", None, &[0, 1]), Some(v0))
            .await
            .unwrap();
        store
            .commit(&running("a", Some(0), &[1]), Some(v1))
            .await
            .unwrap()
    };
    let (master, v2) = tokio::join!(set.wait_for_master(DEADLINE), published);
    assert_eq!(master.unwrap(), ServiceInstance::alive("host0", 31000, 1));

    server.restart();
    let late = follow(&server);
    assert_eq!(late.wait_for_master(DEADLINE).await.unwrap().shard, Some(1));
    store
        .commit(&running("a", Some(1), &[0]), Some(v2))
        .await
        .unwrap();
    let mut moved = follow(&server);
    loop {
        let group = tokio::time::timeout(DEADLINE, moved.next())
            .await
            .unwrap()
            .unwrap();
        if matches!(&group, Group::Present(all) if all.master.is_some() && all.slaves.len() == 1) {
            break;
        }
    }
    crate::support::eventually("the old follower sees the new master", DEADLINE, || async {
        let master = set.wait_for_master(DEADLINE).await.unwrap();
        (master.shard == Some(2)).then_some(())
    })
    .await;

    let loaded = store.load(&name("a")).await.unwrap().unwrap().unwrap();
    let cluster = name("a");
    let (gone, removed) = tokio::join!(
        set.wait_gone(DEADLINE),
        store.remove(&cluster, loaded.version, None)
    );
    gone.unwrap();
    removed.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_says_what_it_saw() {
    let mut server = ZooKeeper::start();
    let short = Duration::from_millis(300);
    let set = follow(&server);
    set.wait_gone(DEADLINE).await.unwrap();
    let absent = set.wait_for_master(short).await.unwrap_err().to_string();
    assert!(
        absent.contains("not in discovery") && absent.contains("/cotton/discover/a"),
        "{absent}"
    );

    let session = connect(&server).await;
    let store = Store::open(session, Acls::open(), StateStorage::Zk)
        .await
        .unwrap();
    store.commit(&running("a", None, &[0]), None).await.unwrap();
    let error = follow(&server)
        .wait_for_master(Duration::from_secs(5))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("no master and 1 slaves"), "{error}");

    server.stop();
    let error = follow(&server)
        .wait_gone(short)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("could not be reached"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_group_is_told_at_once() {
    let server = ZooKeeper::start();
    let session = connect(&server).await;
    let connection = session.connection().unwrap();
    let identity = "zk://u:p@h"
        .parse::<cotton::zookeeper::url::ZkUrl>()
        .unwrap();
    let identity = identity.credentials().unwrap();
    let acls = Acls::closed(identity, identity, Some(identity));
    connection
        .ensure_path("/discover/a", &Acls::open().discovery)
        .await
        .unwrap();
    connection
        .ensure_path("/discover/a/master", &acls.discovery)
        .await
        .unwrap();
    let refused = follow(&server).wait_for_master(DEADLINE).await;
    assert!(matches!(refused, Err(WaitError::Refused(_))), "{refused:?}");
}
