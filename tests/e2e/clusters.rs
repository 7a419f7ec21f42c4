//! From a request to a cluster that is used, to its end.

use std::time::Duration;

use cotton::cluster::flavour::Flavour;
use cotton::cluster::view::{ClusterState, MemberRole};
use sqlx::Connection as _;

use crate::support::database::{connect, run, wait_for_texts};
use crate::support::discovery::follow;
use crate::support::rest::curl;
use crate::support::system::{System, endpoint, master, slaves};
use crate::support::{CREATE_DEADLINE, DELETE_DEADLINE, REPLICATION_DEADLINE};

crate::for_both_flavours!(one_node, three_nodes, several_at_once);

/// POST, discovery, a login as the cluster's user, DELETE, gone from discovery.
async fn one_node(flavour: Flavour) {
    let system = System::shared(flavour);
    let cluster = system.create("one", 1).await;
    let discovery = follow(&cluster.url);
    let published = discovery.wait_for_master(CREATE_DEADLINE).await.unwrap();

    // A master that is published accepts writes: no second attempt is made here.
    let mut connection = connect(&published.service_endpoint, &cluster.account)
        .await
        .unwrap();
    let one: i32 = sqlx::query_scalar("SELECT 1")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(one, 1);
    for sql in [
        "CREATE DATABASE one_db",
        "CREATE TABLE one_db.t (id INT PRIMARY KEY)",
        "INSERT INTO one_db.t VALUES (1)",
    ] {
        sqlx::query(sql).execute(&mut connection).await.unwrap();
    }
    connection.close().await.unwrap();

    let view = system.wait_running(&cluster, CREATE_DEADLINE).await;
    assert_eq!(view.flavour, Some(flavour));
    let member = master(&view);
    assert_eq!(endpoint(member), published.service_endpoint);
    assert_eq!(published.shard, Some(member.server_id));
    let page = curl(&[&format!("{}/", system.api)]).await.unwrap();
    assert!(page.text.contains("one"), "{}", page.text);

    let mysqld = system.mysqld(member);
    system.delete_and_wait(&cluster).await;
    discovery.wait_gone(DELETE_DEADLINE).await.unwrap();
    assert!(!mysqld.runs(), "the server runs on");
    // Who was too late with the same request learns that the cluster is gone.
    let again = system.delete(&cluster).await.unwrap();
    assert_eq!(again.status, 404, "{again:?}");
}

/// Members on different machines; what the master acknowledges is on the slaves, which cannot be
/// written to.
async fn three_nodes(flavour: Flavour) {
    let system = System::shared(flavour);
    let cluster = system.create_running("three", 3).await;
    let view = system.show("three").await.unwrap();
    let hosts: std::collections::BTreeSet<_> = view.members.iter().map(|m| &m.host).collect();
    assert_eq!(hosts.len(), 3, "members share a machine: {view:?}");
    assert_eq!(slaves(&view).len(), 2);

    let account = &cluster.account;
    let statements = [
        "CREATE DATABASE three_db",
        "CREATE TABLE three_db.t (value VARCHAR(20) PRIMARY KEY)",
        "INSERT INTO three_db.t VALUES ('a'), ('b')",
    ];
    run(&endpoint(master(&view)), account, &statements).await;
    let expected = ["a", "b"].map(str::to_owned).into();
    for slave in slaves(&view) {
        let at = endpoint(slave);
        let sql = "SELECT value FROM three_db.t";
        wait_for_texts(&at, account, sql, &expected, REPLICATION_DEADLINE).await;
        let mut connection = connect(&at, account).await.unwrap();
        let insert = sqlx::query("INSERT INTO three_db.t VALUES ('c')");
        let refused = insert.execute(&mut connection).await;
        assert!(refused.is_err(), "a slave was written to");
    }

    // Discovery shows the same as the API.
    let mut discovery = follow(&cluster.url);
    let group = tokio::time::timeout(Duration::from_secs(20), discovery.next()).await;
    let shown = format!("{:?}", group.unwrap().unwrap());
    for member in &view.members {
        assert!(shown.contains(&format!("port: {}", member.port.unwrap())));
        assert_ne!(member.role, MemberRole::None);
    }
    system.delete_and_wait(&cluster).await;
}

/// Requests that come together are all served.
async fn several_at_once(flavour: Flavour) {
    let system = System::shared(flavour);
    let wanted = [("many-1", 1), ("many-2", 1), ("many-3", 2), ("many-4", 3)];
    let requests = wanted.map(|(name, nodes)| system.create(name, nodes));
    let clusters = futures::future::join_all(requests).await;
    for cluster in &clusters {
        let view = system.wait_running(cluster, CREATE_DEADLINE).await;
        assert_eq!(view.state, ClusterState::Running);
        let at = endpoint(master(&view));
        let statement = "CREATE DATABASE many_db";
        run(&at, &cluster.account, &[statement]).await;
    }
    let listed = curl(&[&format!("{}/clusters", system.api)]).await.unwrap();
    for (name, _) in wanted {
        assert!(
            listed.text.contains(&format!("{name:?}")),
            "{}",
            listed.text
        );
    }
    for cluster in &clusters {
        assert_eq!(system.delete(cluster).await.unwrap().status, 200);
    }
    for cluster in &clusters {
        system.wait_gone(cluster).await;
    }
}
