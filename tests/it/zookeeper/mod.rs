//! `src/zookeeper/` against a real server, which is killed, restarted and frozen under it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod access;
mod control;
mod leader;
mod server;
mod serverset;
mod session;
mod store;

use std::time::Duration;

use cotton::zookeeper::acl::Acls;
use cotton::zookeeper::session::{Session, SessionConfig};
use zookeeper_client::{Client, CreateMode};

use crate::support::zookeeper::ZooKeeper;

/// Long enough for a loaded machine, and never waited out by a test that passes.
const DEADLINE: Duration = Duration::from_secs(30);

/// The configuration of a session below `/cotton`, without identities.
fn config(server: &ZooKeeper, timeout: Duration) -> SessionConfig {
    SessionConfig {
        url: server.url("/cotton").parse().unwrap(),
        identities: Vec::new(),
        timeout,
        root_acl: Some(Acls::open().root),
    }
}

/// A session below `/cotton` that is connected.
async fn connect(server: &ZooKeeper) -> Session {
    let session = Session::connect(config(server, Duration::from_secs(10)));
    session.connected(DEADLINE).await.unwrap();
    session
}

/// The same, with a session that outlives a restart of the server on a loaded machine, too.
async fn connect_for_long(server: &ZooKeeper) -> Session {
    let session = Session::connect(config(server, Duration::from_secs(60)));
    session.connected(DEADLINE).await.unwrap();
    session
}

/// A timeout that ends soon once the server is away, and not by itself on a loaded machine.
const SHORT: Duration = Duration::from_secs(3);

/// The library's own client, to look at what the code under test has done and to interfere.
async fn onlooker(server: &ZooKeeper) -> Client {
    Client::connect(&server.address()).await.unwrap()
}

/// Creates or replaces a node behind everybody's back.
async fn write(client: &Client, path: &str, data: &[u8]) {
    let options = CreateMode::Persistent.with_acls(zookeeper_client::Acls::anyone_all());
    if client.check_stat(path).await.unwrap().is_some() {
        client.set_data(path, data, None).await.unwrap();
    } else {
        client.create(path, data, &options).await.unwrap();
    }
}
