//! Finding the leading master in a real ZooKeeper.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use zookeeper_client as zk;

use super::peer::Peer;
use super::scheduler::{Client, take_subscription};
use crate::support::zookeeper::ZooKeeper;

/// Joins the group as a master does: a node with its sequence, and in it where it listens.
async fn join(zookeeper: &zk::Client, master: &Peer) -> String {
    let port = master.address.rsplit(':').next().unwrap();
    let data = format!(
        r#"{{"address":{{"hostname":"localhost","ip":"127.0.0.1","port":{port}}},"hostname":"localhost","id":"x","ip":16777343,"port":{port}}}"#
    );
    let options = zk::CreateMode::EphemeralSequential.with_acls(zk::Acls::anyone_all());
    let (_, sequence) = zookeeper
        .create("/mesos/json.info_", data.as_bytes(), &options)
        .await
        .unwrap();
    format!("/mesos/json.info_{sequence}")
}

async fn create_group(zookeeper: &zk::Client) {
    let options = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
    zookeeper.create("/mesos", b"", &options).await.unwrap();
    zookeeper
        .create("/mesos/log_replicas", b"", &options)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_is_found_when_it_comes_and_followed_when_it_changes() {
    let server = tokio::task::spawn_blocking(ZooKeeper::start).await.unwrap();
    let zookeeper = zk::Client::connect(&server.address()).await.unwrap();
    let (mut one, mut two) = (Peer::start().await, Peer::start().await);

    // Nobody has made the group yet; then it is empty; then two masters join.
    let mut client = Client::start(&server.url("/mesos"));
    create_group(&zookeeper).await;
    let node_of_one = join(&zookeeper, &one).await;
    join(&zookeeper, &two).await;
    let (_, stream) = take_subscription(&mut one).await;
    assert_eq!(client.subscribed().await.1, one.address);

    // A third that joins changes nothing, nor do other nodes.
    let three = Peer::start().await;
    join(&zookeeper, &three).await;
    // The first one's node goes while its stream is still open.
    zookeeper.delete(&node_of_one, None).await.unwrap();
    assert!(
        client
            .disconnected()
            .await
            .contains("another Mesos master leads")
    );
    stream.closed().await;
    let (call, _stream) = take_subscription(&mut two).await;
    assert!(call.framework_id.is_some(), "under the same framework id");
    assert_eq!(client.subscribed().await.1, two.address);
    assert!(one.is_idle(), "the subscription was not asked for twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_outlives_zookeeper_and_its_return() {
    let mut server = tokio::task::spawn_blocking(ZooKeeper::start).await.unwrap();
    // The master's node outlives the restart, however long that takes.
    let zookeeper = zk::Client::connector()
        .with_session_timeout(Duration::from_secs(60))
        .connect(&server.address())
        .await
        .unwrap();
    let mut master = Peer::start().await;
    create_group(&zookeeper).await;
    join(&zookeeper, &master).await;
    let mut client = Client::start(&server.url("/mesos"));
    let (_, stream) = take_subscription(&mut master).await;
    client.subscribed().await;

    let mut server = tokio::task::spawn_blocking(move || {
        server.stop();
        server.restart();
        server
    })
    .await
    .unwrap();
    stream.recorded("event-message-1.bin").await;
    client.event().await;
    assert!(master.is_idle(), "the subscription was kept");

    // With ZooKeeper away the master that was known last is tried again.
    tokio::task::spawn_blocking(move || server.stop())
        .await
        .unwrap();
    drop(stream);
    client.disconnected().await;
    let (_, _stream) = take_subscription(&mut master).await;
    client.subscribed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_group_is_read_with_the_given_credentials() {
    let server = tokio::task::spawn_blocking(ZooKeeper::start).await.unwrap();
    let zookeeper = zk::Client::connector()
        .with_auth("digest", b"mesos:s3cret")
        .connect(&server.address())
        .await
        .unwrap();
    let options = zk::CreateMode::Persistent.with_acls(zk::Acls::creator_all());
    zookeeper.create("/mesos", b"", &options).await.unwrap();
    let mut master = Peer::start().await;
    join(&zookeeper, &master).await;
    let url = format!("zk://mesos:s3cret@{}/mesos", server.address());
    let mut client = Client::start(&url);
    let (_, _stream) = take_subscription(&mut master).await;
    client.subscribed().await;
}
