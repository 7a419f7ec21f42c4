//! Members come, go and are replaced under load: nothing that was acknowledged is lost, and nothing is left of who went.

use std::time::Duration;

use cotton::cluster::flavour::Flavour;
use cotton::cluster::view::{ClusterView, MemberView};

use crate::slots::left_on_agents;
use crate::support::database::{run, wait_for_texts};
use crate::support::discovery::Masters;
use crate::support::fleet::Fleet;
use crate::support::load::{self, Load};
use crate::support::process::Process;
use crate::support::system::{Cluster, Options, System, endpoint, master, slaves};
use crate::support::{CREATE_DEADLINE, FAILOVER_DEADLINE, REPLICATION_DEADLINE, eventually};

crate::for_both_flavours!(
    a_cluster_grows_and_shrinks,
    a_slave_and_the_master_are_replaced,
    an_agent_that_is_gone_is_replaced_and_retired,
);

/// How many writes have to be acknowledged between two steps.
const SOME_WRITES: usize = 50;

/// How long slots of members that left may take to be gone: their agents' offers come every second, but for what a write waits.
const RELEASED_WITHIN: Duration = Duration::from_secs(90);

/// How long a Mesos master takes to be sure that an agent is gone (75 s), and the shortest grace time.
const NOTICED_WITHIN: Duration = Duration::from_secs(180);

fn ids(view: &ClusterView) -> Vec<u32> {
    view.members.iter().map(|member| member.id).collect()
}

async fn ask(system: &System, cluster: &Cluster, verb: (&str, &str), field: (&str, &str)) {
    let (method, path) = verb;
    let fields = [("password", cluster.account.password.as_str()), field];
    let path = format!("{}{path}", cluster.name);
    let answer = system.request(method, &path, &fields).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
}

/// Asks for a number of members and waits until they are there, in sight of the load.
async fn scale(system: &System, cluster: &Cluster, load: &Load, nodes: u32) -> ClusterView {
    let number = nodes.to_string();
    load.measure_gap();
    ask(system, cluster, ("PUT", ""), ("num_nodes", &number)).await;
    let view = arrive(system, cluster, nodes).await;
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
    eprintln!(
        "{} has {nodes}: no write for {:?}",
        cluster.name,
        load.longest_gap()
    );
    view
}

/// Waits until the cluster has so many members, none of which is to leave.
async fn arrive(system: &System, cluster: &Cluster, nodes: u32) -> ClusterView {
    let is_so = |view: &ClusterView| {
        view.members.len() == nodes as usize
            && view.state == cotton::cluster::view::ClusterState::Running
            && view.members.iter().all(|member| !member.leaving)
    };
    let what = format!("has {nodes} members in their places");
    system
        .wait_until(cluster, &what, CREATE_DEADLINE, is_so)
        .await
}

async fn loaded(system: &System, cluster: &Cluster) -> Load {
    let view = system.show(&cluster.name).await.unwrap();
    let statements = ["CREATE DATABASE load_db", load::TABLE];
    run(&endpoint(master(&view)), &cluster.account, &statements).await;
    let load = Load::start(&cluster.url, &cluster.account, 2);
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
    load
}

async fn assert_complete(system: &System, cluster: &Cluster, load: &mut Load) {
    let acknowledged = load.stop().await;
    let view = system.show(&cluster.name).await.unwrap();
    for member in &view.members {
        let (at, deadline) = (endpoint(member), REPLICATION_DEADLINE);
        wait_for_texts(&at, &cluster.account, load::READ, &acknowledged, deadline).await;
    }
}

/// Two for each member that there is: what is reserved on its agent, and its volume.
async fn assert_released(system: &System, members: usize) {
    eventually("slots of who left are gone", RELEASED_WITHIN, async || {
        (left_on_agents(system).len() == 2 * members).then_some(())
    })
    .await;
}

async fn a_cluster_grows_and_shrinks(flavour: Flavour) {
    let system = System::with_options(Options {
        agents: 5,
        ..Options::new(flavour)
    });
    let cluster = system.create_running("elastic", 1).await;
    let masters = Masters::watch(&cluster.url).await;
    let mut load = loaded(&system, &cluster).await;
    scale(&system, &cluster, &load, 3).await;
    ask(&system, &cluster, ("PATCH", ""), ("durability", "majority")).await;
    let view = system
        .wait_until(&cluster, "is majority", FAILOVER_DEADLINE, |view| {
            view.standing.changing.is_none() && view.members.iter().all(|it| it.voter)
        })
        .await;
    assert_eq!(ids(&view), [0, 1, 2]);
    if flavour == Flavour::Mysql {
        let view = scale(&system, &cluster, &load, 5).await;
        assert_eq!(ids(&view), [0, 1, 2, 3, 4]);
        scale(&system, &cluster, &load, 2).await;
    }
    // Another one is the master when all but one have to go; it stays.
    ask(&system, &cluster, ("POST", "/switchover"), ("to", "1")).await;
    system
        .wait_until(&cluster, "has another master", FAILOVER_DEADLINE, |view| {
            view.members
                .iter()
                .any(|it| it.id == 1 && it.role.as_str() == "master")
        })
        .await;
    let view = scale(&system, &cluster, &load, 1).await;
    assert_eq!(ids(&view), [1]);
    assert_complete(&system, &cluster, &mut load).await;
    assert_released(&system, 1).await;
    masters.check();
    system.delete_and_wait(&cluster).await;
}

async fn a_slave_and_the_master_are_replaced(flavour: Flavour) {
    let system = System::with_options(Options {
        agents: 4,
        ..Options::new(flavour)
    });
    let cluster = system.create_running("renewed", 3).await;
    let masters = Masters::watch(&cluster.url).await;
    let mut load = loaded(&system, &cluster).await;
    for newcomer in [3, 4] {
        let before = system.wait_running(&cluster, FAILOVER_DEADLINE).await;
        let old = match newcomer {
            3 => slaves(&before)[0].id,
            _ => master(&before).id,
        };
        let number = old.to_string();
        load.measure_gap();
        ask(&system, &cluster, ("POST", "/replace"), ("member", &number)).await;
        let left = |view: &ClusterView| !ids(view).contains(&old);
        system
            .wait_until(&cluster, "has replaced it", CREATE_DEADLINE, left)
            .await;
        let view = system.wait_running(&cluster, FAILOVER_DEADLINE).await;
        assert_eq!(ids(&view).last(), Some(&newcomer));
        load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
        eprintln!(
            "{flavour}: {old} replaced, no write for {:?}",
            load.longest_gap()
        );
    }
    assert_complete(&system, &cluster, &mut load).await;
    assert_released(&system, 3).await;
    masters.check();
    system.delete_and_wait(&cluster).await;
}

/// The agent with everything that runs under it.
fn kill_host(fleet: &Fleet, member: &MemberView) -> u8 {
    let host = fleet.host(member);
    let agent = fleet.agent(host);
    let all: Vec<Process> = agent.descendants();
    agent.kill();
    // A server ends with its executor, so some may have ended by themselves in between.
    for process in all {
        process.kill_if_it_runs();
    }
    host
}

async fn an_agent_that_is_gone_is_replaced_and_retired(flavour: Flavour) {
    let fleet = Fleet::with_scheduler(flavour, 4, &["--replace-after", "10s"]).await;
    let cluster = fleet.create_running("moved", 3).await;
    let masters = Masters::watch(&cluster.url).await;
    let mut load = loaded(&fleet, &cluster).await;
    let before = fleet.show("moved").await.unwrap();
    let gone = master(&before).clone();
    let host = kill_host(&fleet, &gone);
    let left = |view: &ClusterView| !ids(view).contains(&gone.id);
    fleet
        .wait_until(
            &cluster,
            "has replaced it",
            NOTICED_WITHIN + CREATE_DEADLINE,
            left,
        )
        .await;
    let view = fleet.wait_running(&cluster, FAILOVER_DEADLINE).await;
    assert_eq!(ids(&view).last(), Some(&3));
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
    assert_eq!(
        left_on_agents(&fleet).len(),
        8,
        "its volume is out of reach"
    );
    fleet.restart_agent(host);
    assert_released(&fleet, 3).await;
    let view = fleet.wait_running(&cluster, FAILOVER_DEADLINE).await;
    assert_eq!(ids(&view).len(), 3);
    assert!(view.standing.membership.is_empty(), "{:?}", view.standing);
    assert_complete(&fleet, &cluster, &mut load).await;
    masters.check();
    fleet.delete_and_wait(&cluster).await;
}
