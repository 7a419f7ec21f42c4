//! The helper itself: a server keeps its data over a restart and is gone after drop.

use std::net::TcpStream;

use zookeeper_client::{Acls, Client, CreateMode};

use crate::support::zookeeper::ZooKeeper;

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_server_has_its_data() {
    let mut server = ZooKeeper::start();
    let client = Client::connect(&server.address()).await.unwrap();
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    client.create("/kept", b"1", &options).await.unwrap();
    server.restart();
    let client = Client::connect(&server.address()).await.unwrap();
    assert_eq!(client.get_data("/kept").await.unwrap().0, b"1");

    let address = server.address();
    drop(server);
    assert!(TcpStream::connect(address).is_err());
}
