//! Members come, go and are replaced under load: nothing that was acknowledged is lost, and nothing is left of who went.

use std::time::Duration;

use cotton::cluster::flavour::Flavour;
use cotton::cluster::view::{ClusterView, MemberRole, MemberViewState};

use crate::given_up::admin;
use crate::slots::left_on_agents;
use crate::support::database::{run, wait_for_texts};
use crate::support::discovery::Masters;
use crate::support::fleet::Fleet;
use crate::support::load::{self, Load};
use crate::support::system::{Cluster, Options, System, endpoint, master, slaves};
use crate::support::{CREATE_DEADLINE, FAILOVER_DEADLINE, REPLICATION_DEADLINE, eventually};

crate::for_both_flavours!(
    a_cluster_grows_and_shrinks,
    a_slave_and_the_master_are_replaced,
    an_agent_that_is_gone_is_replaced_and_retired,
);

/// How many writes have to be acknowledged between two steps.
pub const SOME_WRITES: usize = 50;

/// How long there may be no write while members come. A write waits for an acknowledgement, or for a change of what it waits for,
/// each well under a second; but two cores start and copy servers meanwhile. One that waits for a member that is not there
/// waits longer by far.
const LONGEST_GAP: Duration = Duration::from_secs(5);

/// How long slots of members that left may take to be gone: their agents' offers come every second, but for what a write waits.
const RELEASED_WITHIN: Duration = Duration::from_secs(90);

/// How long a Mesos master takes to be sure that an agent is gone (75 s), and the shortest grace time.
const NOTICED_WITHIN: Duration = Duration::from_secs(180);

pub fn ids(view: &ClusterView) -> Vec<u32> {
    view.members.iter().map(|member| member.id).collect()
}

pub async fn ask(system: &System, cluster: &Cluster, verb: (&str, &str), field: (&str, &str)) {
    let (method, path) = verb;
    let fields = [("password", cluster.account.password.as_str()), field];
    let path = format!("{}{path}", cluster.name);
    let answer = system.request(method, &path, &fields).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
}

/// Asks `cotton admin` for something that has to do with members, and waits there until it is so. Tells how long there was no write.
async fn command(system: &System, cluster: &Cluster, words: &[&str], load: &Load) -> Duration {
    load.measure_gap();
    let done = admin(system, words, &cluster.account.password).await;
    assert!(done.status.success(), "{done:?}");
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
    eprintln!("{words:?}: no write for {:?}", load.longest_gap());
    load.longest_gap()
}

/// Has so many members. The master stays who it is. Who comes is in nobody's way. When members go, writes may wait for a voter that has
/// come just before, and acknowledges when it has applied what it received.
async fn scale(system: &System, cluster: &Cluster, load: &Load, nodes: u32) -> ClusterView {
    let before = system.show(&cluster.name).await.unwrap();
    let failed = load.failed();
    let number = nodes.to_string();
    let words = ["scale", &cluster.name, &number, "--wait"];
    let gap = command(system, cluster, &words, load).await;
    if nodes > before.num_nodes {
        assert!(gap < LONGEST_GAP, "no write for {gap:?}");
        assert_eq!(load.failed(), failed, "a write was refused");
    }
    let view = system.show(&cluster.name).await.unwrap();
    assert_eq!(view.members.len(), nodes as usize, "{view:?}");
    assert_eq!(view.epoch, before.epoch, "there was an election");
    view
}

/// Asks for three members instead of one, and for two while none of the newcomers has its data: two it is. No write is refused.
async fn think_again(system: &System, cluster: &Cluster, load: &Load) -> ClusterView {
    load.measure_gap();
    let failed = load.failed();
    ask(system, cluster, ("PUT", ""), ("num_nodes", "3")).await;
    let copy = |view: &ClusterView| {
        let newcomers = &view.members[1..];
        let are_new = newcomers.iter().all(|it| it.role == MemberRole::None);
        let mut states = newcomers.iter().map(|it| it.state);
        newcomers.len() == 2 && are_new && states.any(|it| it == MemberViewState::Provisioning)
    };
    system
        .wait_until(cluster, "has newcomers", CREATE_DEADLINE, copy)
        .await;
    ask(system, cluster, ("PUT", ""), ("num_nodes", "2")).await;
    let view = arrive(system, cluster, 2).await;
    assert_eq!(view.num_nodes, 2);
    // The slot of the newcomer that has gone goes with the next offer of its agent.
    let is_over = |view: &ClusterView| view.standing.membership.is_empty();
    let what = "has nobody who comes or goes";
    let view = system
        .wait_until(cluster, what, RELEASED_WITHIN, is_over)
        .await;
    assert_eq!(view.members.len(), 2, "{view:?}");
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
    let gap = load.longest_gap();
    assert!(gap < LONGEST_GAP, "no write for {gap:?}");
    assert_eq!(load.failed(), failed, "a write was refused");
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

pub async fn loaded(system: &System, cluster: &Cluster) -> Load {
    let view = system.show(&cluster.name).await.unwrap();
    let statements = ["CREATE DATABASE load_db", load::TABLE];
    run(&endpoint(master(&view)), &cluster.account, &statements).await;
    let load = Load::start(&cluster.url, &cluster.account, 2);
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
    load
}

pub async fn assert_complete(system: &System, cluster: &Cluster, load: &mut Load) {
    let acknowledged = load.stop().await;
    let view = system.show(&cluster.name).await.unwrap();
    for member in &view.members {
        let (at, deadline) = (endpoint(member), REPLICATION_DEADLINE);
        wait_for_texts(&at, &cluster.account, load::READ, &acknowledged, deadline).await;
    }
}

/// Two for each member that there is: what is reserved on its agent, and its volume.
pub async fn assert_released(system: &System, members: usize) {
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
    let kept = ids(&think_again(&system, &cluster, &load).await);
    let view = scale(&system, &cluster, &load, 3).await;
    assert_eq!(ids(&view), [kept[0], kept[1], 3], "no number comes twice");
    ask(&system, &cluster, ("PATCH", ""), ("durability", "majority")).await;
    system
        .wait_until(&cluster, "is majority", FAILOVER_DEADLINE, |view| {
            view.standing.changing.is_none() && view.members.iter().all(|it| it.voter)
        })
        .await;
    if flavour == Flavour::Mysql {
        let view = scale(&system, &cluster, &load, 5).await;
        assert_eq!(ids(&view), [kept[0], kept[1], 3, 4, 5]);
        scale(&system, &cluster, &load, 2).await;
    }
    // Another one is the master when all but one have to go; it stays.
    let view = system.show(&cluster.name).await.unwrap();
    let heir = slaves(&view)[0].id;
    let number = heir.to_string();
    let words = ["switchover", &cluster.name, "--to", &number, "--wait"];
    // It is refused as long as the heir is behind or the voters are being changed.
    eventually("a switchover is accepted", FAILOVER_DEADLINE, async || {
        let asked = admin(&system, &words, &cluster.account.password).await;
        asked.status.success().then_some(())
    })
    .await;
    let view = system.show(&cluster.name).await.unwrap();
    assert_eq!(master(&view).id, heir);
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
    let view = scale(&system, &cluster, &load, 1).await;
    assert_eq!(ids(&view), [heir]);
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
        let words = ["replace", &cluster.name, "--member", &number, "--wait"];
        command(&system, &cluster, &words, &load).await;
        let view = system.show(&cluster.name).await.unwrap();
        assert!(!ids(&view).contains(&old), "{view:?}");
        assert_eq!(ids(&view).last(), Some(&newcomer));
    }
    assert_complete(&system, &cluster, &mut load).await;
    assert_released(&system, 3).await;
    masters.check();
    system.delete_and_wait(&cluster).await;
}

async fn an_agent_that_is_gone_is_replaced_and_retired(flavour: Flavour) {
    let fleet = Fleet::with_scheduler(flavour, 4, &["--replace-after", "10s"]).await;
    let cluster = fleet.create_running("moved", 3).await;
    let masters = Masters::watch(&cluster.url).await;
    let mut load = loaded(&fleet, &cluster).await;
    let before = fleet.show("moved").await.unwrap();
    let gone = master(&before).clone();
    let host = fleet.host(&gone);
    fleet.kill_host(host);
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
    // The scheduler knows it from the next offer.
    let is_over = |view: &ClusterView| view.standing.membership.is_empty();
    let view = fleet.wait_until(
        &cluster,
        "has nobody who leaves",
        FAILOVER_DEADLINE,
        is_over,
    );
    assert_eq!(ids(&view.await).len(), 3);
    fleet.wait_running(&cluster, FAILOVER_DEADLINE).await;
    assert_complete(&fleet, &cluster, &mut load).await;
    masters.check();
    fleet.delete_and_wait(&cluster).await;
}
