//! The durability of a cluster is changed while clients write.

use std::time::Duration;

use cotton::cluster::flavour::Flavour;
use cotton::cluster::view::MemberRole;
use cotton::cluster::voters::Durability;

use crate::given_up::admin;
use crate::support::database::{Account, run, wait_for_texts};
use crate::support::load::{self, Load};
use crate::support::rest::curl;
use crate::support::system::{Cluster, System, USER, endpoint, master};
use crate::support::{CREATE_DEADLINE, FAILOVER_DEADLINE, REPLICATION_DEADLINE};

crate::for_both_flavours!(a_master_is_killed_after_async_became_majority);

/// How many writes have to be acknowledged between two steps.
const SOME_WRITES: usize = 100;

/// How long each client waits after a write: nothing holds the clients of an async cluster up, and who is to acknowledge has to catch up with them.
const PAUSE: Duration = Duration::from_millis(50);

/// Goal: no acknowledged write is lost, neither while the durability changes nor when the master is killed after it has
/// become majority; and no master is replaced for it.
async fn a_master_is_killed_after_async_became_majority(flavour: Flavour) {
    let system = System::shared(flavour);
    let fields = [
        ("cluster_user", USER),
        ("num_nodes", "3"),
        ("durability", "async"),
    ];
    let answer = system.post("changed", &fields).await.unwrap();
    let cluster = Cluster {
        name: "changed".to_owned(),
        url: answer.text_of("cluster_url"),
        account: Account {
            user: USER.to_owned(),
            password: answer.text_of("cluster_password"),
        },
    };
    let before = system.wait_running(&cluster, CREATE_DEADLINE).await;
    assert_eq!(before.durability, Durability::Async);
    let account = &cluster.account;
    let statements = ["CREATE DATABASE load_db", load::TABLE];
    run(&endpoint(master(&before)), account, &statements).await;
    let mut load = Load::paced(&cluster.url, account, 3, PAUSE);
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;

    let url = format!("{}/clusters/changed", system.api);
    let patch = async |fields: &[&str]| {
        let mut words = vec!["-X", "PATCH", &url];
        fields
            .iter()
            .for_each(|field| words.extend(["--form", *field]));
        curl(&words).await.unwrap()
    };
    let password = format!("password={}", account.password);
    assert_eq!(patch(&["durability=majority"]).await.status, 401);
    assert_eq!(
        patch(&["durability=majority", "password=x"]).await.status,
        403
    );
    assert_eq!(patch(&["durability=most", &password]).await.status, 400);
    assert_eq!(patch(&["durabilty=majority", &password]).await.status, 400);
    change(
        &system,
        &cluster,
        "majority",
        "durability: from async to majority\n",
    )
    .await;
    change(
        &system,
        &cluster,
        "majority",
        "nothing to change: it is so already\n",
    )
    .await;
    let view = system.show("changed").await.unwrap();
    assert_eq!(
        (view.durability, view.epoch),
        (Durability::Majority, before.epoch)
    );
    let quorum = system.explain("changed").await.explanation.quorum;
    assert_eq!((quorum.k_floor, quorum.needed), (1, 2));
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;

    system.mysqld(master(&view)).kill();
    system
        .wait_until(&cluster, "has a new master", FAILOVER_DEADLINE, |view| {
            view.epoch > before.epoch
                && view
                    .members
                    .iter()
                    .any(|member| member.role == MemberRole::Master)
        })
        .await;
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
    let settled = system.wait_running(&cluster, CREATE_DEADLINE).await;

    change(
        &system,
        &cluster,
        "async",
        "durability: from majority to async\n",
    )
    .await;
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
    let acknowledged = load.stop().await;
    let after = system.wait_running(&cluster, FAILOVER_DEADLINE).await;
    assert_eq!(
        (after.durability, after.epoch),
        (Durability::Async, settled.epoch)
    );
    for member in &after.members {
        let (at, deadline) = (endpoint(member), REPLICATION_DEADLINE);
        wait_for_texts(&at, account, load::READ, &acknowledged, deadline).await;
    }
    system.delete_and_wait(&cluster).await;
}

async fn change(system: &System, cluster: &Cluster, durability: &str, expected: &str) {
    let words = [
        "change",
        &cluster.name,
        "--durability",
        durability,
        "--wait",
    ];
    let done = admin(system, &words, &cluster.account.password).await;
    assert!(done.status.success(), "{done:?}");
    assert_eq!(String::from_utf8(done.stdout).unwrap(), expected);
}
