//! A cluster grows while what it takes to grow is killed: the new members come all the same, with everything.

use std::path::PathBuf;
use std::time::Duration;

use cotton::cluster::flavour::Flavour;
use cotton::cluster::view::{ClusterState, ClusterView, MemberView};
use cotton::zookeeper::serverset::Group;

use crate::interrupted::{SUM, entries, fill};
use crate::membership::{SOME_WRITES, ask, assert_complete};
use crate::support::database::{run, wait_for_texts};
use crate::support::discovery::{Masters, follow};
use crate::support::load::{self, Load};
use crate::support::process::Process;
use crate::support::system::{Options, System, endpoint, master};
use crate::support::{CREATE_DEADLINE, FAILOVER_DEADLINE, REPLICATION_DEADLINE, eventually};

crate::for_both_flavours!(a_cluster_that_grows_is_interrupted);

/// Everything may be copied as often as something is killed.
const GROWN_WITHIN: Duration = Duration::from_secs(180);

/// Between two writes of a client.
const PAUSE: Duration = Duration::from_millis(10);

/// How fast members copy, in MiB/s: about ten seconds for what an empty server has and what `fill` writes.
fn rate_mib(flavour: Flavour) -> u32 {
    match flavour {
        Flavour::Mariadb => 4,
        Flavour::Mysql => 12,
    }
}

/// A new member that has received some of the data: its executor, and where it puts it.
type Receiver = (Process, PathBuf);

/// Waits for a member that copies into another directory than `before`.
async fn in_the_middle(system: &System, name: &str, before: Option<&PathBuf>) -> Receiver {
    eventually("a member is being copied to", CREATE_DEADLINE, async || {
        let view = system.show(name).await?;
        let mut found = view.members.iter().filter_map(|it| received(system, it));
        found.find(|(_, unfinished)| Some(unfinished) != before)
    })
    .await
}

fn received(system: &System, member: &MemberView) -> Option<Receiver> {
    let sandbox = system.find_sandbox(member.task_id.as_ref()?)?;
    let data = entries(&sandbox.join("state").canonicalize().ok()?.join("data"));
    let is_unfinished = |path: &PathBuf| path.extension().is_some_and(|it| it == "unfinished");
    let unfinished = data.into_iter().find(is_unfinished)?;
    if entries(&unfinished).is_empty() {
        return None;
    }
    Some((system.find_mysqld(member)?.parent(), unfinished))
}

/// Goal: a cluster of one that is written to has three members in the end, all of them in discovery and with all that was acknowledged, whoever
/// is killed meanwhile. Method: copies are slow; a receiver's executor, the scheduler and the donor's executor are killed
/// with SIGKILL, each in the middle of a copy.
async fn a_cluster_that_grows_is_interrupted(flavour: Flavour) {
    let rate = rate_mib(flavour).to_string();
    let settings = ["--", "--copy-rate", &rate];
    let system = System::with_options(Options {
        arguments: settings.map(str::to_owned).to_vec(),
        ..Options::new(flavour)
    });
    let cluster = system.create_running("growing", 1).await;
    let masters = Masters::watch(&cluster.url).await;
    let view = system.show("growing").await.unwrap();
    let sum = fill(&cluster, &view).await;
    run(&endpoint(master(&view)), &cluster.account, &[load::TABLE]).await;
    let mut load = Load::paced(&cluster.url, &cluster.account, 2, PAUSE);
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
    let failed = load.failed();
    ask(&system, &cluster, ("PUT", ""), ("num_nodes", "3")).await;

    let (executor, first) = in_the_middle(&system, "growing", None).await;
    executor.kill();
    in_the_middle(&system, "growing", Some(&first)).await;
    system.scheduler().await.kill();
    system.wait_registered().await;
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
    assert_eq!(load.failed(), failed, "the master was not touched");

    in_the_middle(&system, "growing", None).await;
    let donor = system.show("growing").await.unwrap();
    system.mysqld(master(&donor)).parent().kill();

    let is_there = |view: &ClusterView| {
        let shown = view.members.iter().filter(|it| it.voter).count();
        view.state == ClusterState::Running && shown == 3
    };
    let view = system
        .wait_until(&cluster, "has grown", GROWN_WITHIN, is_there)
        .await;
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
    let mut discovery = follow(&cluster.url);
    let mut all: Vec<_> = view.members.iter().map(|it| it.port).collect();
    all.sort_unstable();
    let are_shown = async {
        loop {
            let Ok(Group::Present(group)) = discovery.next().await else {
                continue;
            };
            let master = group.master.iter().map(|(_, instance)| instance);
            let shown = master.chain(group.slaves.values());
            let mut ports: Vec<_> = shown.map(|it| Some(it.service_endpoint.port)).collect();
            ports.sort_unstable();
            if ports == all {
                return;
            }
        }
    };
    let are_shown = tokio::time::timeout(FAILOVER_DEADLINE, are_shown).await;
    are_shown.expect("not all are in discovery");
    for member in &view.members {
        let at = endpoint(member);
        wait_for_texts(&at, &cluster.account, SUM, &sum, REPLICATION_DEADLINE).await;
    }
    assert_complete(&system, &cluster, &mut load).await;
    masters.check();
    system.delete_and_wait(&cluster).await;
}
