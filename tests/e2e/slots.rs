//! Members whose data lies on persistent volumes: whatever ends a task, the next one finds all of it.

use std::fs;
use std::time::Duration;

use cotton::cluster::flavour::Flavour;
use cotton::cluster::view::{ClusterView, MemberRole, MemberView};
use serde_json::Value;

use crate::support::database::{run, wait_for_texts};
use crate::support::discovery::Masters;
use crate::support::load::{self, Load};
use crate::support::system::{Cluster, Lease, Options, System, endpoint, master, slaves};
use crate::support::{CREATE_DEADLINE, FAILOVER_DEADLINE, REPLICATION_DEADLINE};

crate::for_both_flavours!(
    an_executor_is_killed_under_load,
    all_executors_are_killed_at_once,
    a_single_node_comes_back,
);

/// How many writes have to be acknowledged before something is broken, and after.
const SOME_WRITES: usize = 100;

/// A role that can hold reservations.
fn system(flavour: Flavour) -> Lease {
    let mut options = Options::new(flavour);
    let settings = ["--", "--framework-role", "cotton"];
    options.arguments.extend(settings.map(str::to_owned));
    System::with_options(options)
}

/// The data directory in use, by the promise on the volume.
fn data(system: &System, member: &MemberView) -> Value {
    let sandbox = system.sandbox(member.task_id.as_ref().unwrap());
    assert!(sandbox.join("state").is_symlink(), "it has no volume");
    let promise = fs::read_to_string(sandbox.join("state/promise.json")).unwrap();
    let promise: Value = serde_json::from_str(&promise).unwrap();
    assert!(promise["data"].is_string(), "{promise}");
    promise["data"].clone()
}

fn all_data(system: &System, view: &ClusterView) -> Vec<Value> {
    let members = view.members.iter();
    members.map(|member| data(system, member)).collect()
}

/// Agent, host and port of a member.
fn place(member: &MemberView) -> (Option<String>, Option<String>, Option<u16>) {
    let MemberView {
        agent_id,
        host,
        port,
        ..
    } = member.clone();
    (agent_id, host, port)
}

async fn loaded(system: &System, cluster: &Cluster) -> Load {
    let view = system.show(&cluster.name).await.unwrap();
    let statements = ["CREATE DATABASE load_db", load::TABLE];
    run(&endpoint(master(&view)), &cluster.account, &statements).await;
    let load = Load::start(&cluster.url, &cluster.account, 2);
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
    load
}

async fn assert_complete(cluster: &Cluster, view: &ClusterView, load: &mut Load) {
    let acknowledged = load.stop().await;
    for member in &view.members {
        let at = endpoint(member);
        let deadline = REPLICATION_DEADLINE;
        wait_for_texts(&at, &cluster.account, load::READ, &acknowledged, deadline).await;
    }
}

/// A slave's executor, then the master's: each member is launched again where it was, on the data that it had.
async fn an_executor_is_killed_under_load(flavour: Flavour) {
    let system = system(flavour);
    let cluster = system.create_running("kept", 3).await;
    let masters = Masters::watch(&cluster.url).await;
    let mut load = loaded(&system, &cluster).await;
    for of_master in [false, true] {
        let before = system.wait_running(&cluster, FAILOVER_DEADLINE).await;
        let victim = match of_master {
            true => master(&before).clone(),
            false => slaves(&before)[0].clone(),
        };
        let had = all_data(&system, &before);
        system.mysqld(&victim).parent().kill();
        load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
        let after = system
            .wait_until(&cluster, "has its member back", FAILOVER_DEADLINE, |view| {
                let member = view.members.iter().find(|member| member.id == victim.id);
                member.is_some_and(|member| {
                    member.role == MemberRole::Slave
                        && member.voter
                        && member.task_id != victim.task_id
                })
            })
            .await;
        let back = &after.members[victim.id as usize];
        assert_eq!(place(back), place(&victim));
        assert_eq!(back.server_id, victim.server_id);
        let has = all_data(&system, &after);
        assert_eq!(has, had, "the data was made anew");
    }
    let after = system.wait_running(&cluster, FAILOVER_DEADLINE).await;
    assert_complete(&cluster, &after, &mut load).await;
    masters.check();
    system.delete_and_wait(&cluster).await;
}

/// Nobody is left who could give anybody a copy. The members elect again with what each has.
async fn all_executors_are_killed_at_once(flavour: Flavour) {
    let system = system(flavour);
    let cluster = system.create_running("at-once", 3).await;
    let mut load = loaded(&system, &cluster).await;
    let before = system.show(&cluster.name).await.unwrap();
    let had = all_data(&system, &before);
    let executors = before.members.iter().map(|it| system.mysqld(it).parent());
    for executor in executors.collect::<Vec<_>>() {
        executor.kill();
    }
    load.wait_for_more(SOME_WRITES, CREATE_DEADLINE).await;
    let after = system.wait_running(&cluster, FAILOVER_DEADLINE).await;
    assert!(after.epoch > before.epoch);
    assert_eq!(all_data(&system, &after), had);
    assert_complete(&cluster, &after, &mut load).await;
    system.delete_and_wait(&cluster).await;
}

/// Its only member is its own quorum.
async fn a_single_node_comes_back(flavour: Flavour) {
    let system = system(flavour);
    let cluster = system.create_running("alone", 1).await;
    let mut load = loaded(&system, &cluster).await;
    let before = system.show(&cluster.name).await.unwrap();
    let had = all_data(&system, &before);
    system.mysqld(master(&before)).parent().kill();
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE + Duration::from_secs(30))
        .await;
    let after = system.wait_running(&cluster, FAILOVER_DEADLINE).await;
    assert!(
        after.epoch > before.epoch,
        "a restarted master needs an epoch"
    );
    assert_eq!(all_data(&system, &after), had);
    assert_eq!(place(master(&after)), place(master(&before)));
    assert_complete(&cluster, &after, &mut load).await;
    system.delete_and_wait(&cluster).await;
}
