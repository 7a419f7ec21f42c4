//! Clusters whose automation an operator has paused: nothing is decided for them until they are resumed.

use std::time::Duration;

use cotton::cluster::flavour::Flavour;
use cotton::cluster::view::{ClusterView, MemberRole};

use crate::given_up::admin;
use crate::membership::{SOME_WRITES, assert_complete, loaded};
use crate::support::FAILOVER_DEADLINE;
use crate::support::discovery::Masters;
use crate::support::rest::curl;
use crate::support::system::{Cluster, System, master};

crate::for_both_flavours!(a_paused_cluster_fails_over_when_it_is_resumed);

async fn ask(system: &System, cluster: &Cluster, verb: &str) {
    let done = admin(system, &[verb, &cluster.name], &cluster.account.password).await;
    assert!(done.status.success(), "{done:?}");
}

/// Several times as long as a failover takes.
const LONG_ENOUGH: Duration = Duration::from_secs(8);

/// Goal: a paused cluster whose master ends gets no other one, accepts no write and says so, and gets one when it is resumed,
/// with all that was acknowledged; paused again, it can be deleted. Method: the master's server is killed, under load.
async fn a_paused_cluster_fails_over_when_it_is_resumed(flavour: Flavour) {
    let system = System::shared(flavour);
    let cluster = system.create_running("halted", 3).await;
    let masters = Masters::watch(&cluster.url).await;
    let mut load = loaded(&system, &cluster).await;
    let before = system.show(&cluster.name).await.unwrap();
    ask(&system, &cluster, "pause").await;
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
    system.mysqld(master(&before)).kill();
    let stopped = |view: &ClusterView| view.reason.contains("paused by an operator");
    system
        .wait_until(
            &cluster,
            "says that it is paused",
            FAILOVER_DEADLINE,
            stopped,
        )
        .await;
    let written = load.count();
    // There is nothing to wait for: nothing is to happen.
    tokio::time::sleep(LONG_ENOUGH).await;
    let paused = system.show(&cluster.name).await.unwrap();
    assert_eq!(paused.epoch, before.epoch, "{}", paused.reason);
    assert!(paused.standing.paused_since.is_some());
    assert_eq!(load.count(), written, "somebody accepts writes");
    let page = curl(&[&system.api]).await.unwrap();
    assert!(page.text.contains("paused by an operator"), "{}", page.text);
    let fields = [("password", cluster.account.password.as_str())];
    let refused = system.post("halted/switchover", &fields).await.unwrap();
    assert_eq!(refused.status, 409, "{}", refused.text);

    ask(&system, &cluster, "resume").await;
    system
        .wait_until(&cluster, "has failed over", FAILOVER_DEADLINE, |view| {
            let leads = view.members.iter().any(|it| it.role == MemberRole::Master);
            view.epoch > before.epoch && leads
        })
        .await;
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
    system.wait_running(&cluster, FAILOVER_DEADLINE).await;
    assert_complete(&system, &cluster, &mut load).await;
    masters.check();
    ask(&system, &cluster, "pause").await;
    system.delete_and_wait(&cluster).await;
}
