//! Members whose data lies on persistent volumes: whatever ends a task, the next one finds all of it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use cotton::cluster::flavour::Flavour;
use cotton::cluster::view::{ClusterView, MemberRole, MemberView};
use serde_json::Value;

use crate::support::database::{run, wait_for_texts};
use crate::support::discovery::Masters;
use crate::support::load::{self, Load};
use crate::support::rest::curl;
use crate::support::system::{Cluster, Options, System, endpoint, master, slaves};
use crate::support::{CREATE_DEADLINE, FAILOVER_DEADLINE, REPLICATION_DEADLINE, eventually};

crate::for_both_flavours!(
    an_executor_is_killed_under_load,
    all_executors_are_killed_at_once,
    a_single_node_comes_back,
);

/// How many writes have to be acknowledged before something is broken, and after.
const SOME_WRITES: usize = 100;

/// The data directory in use, by the promise on the volume.
fn data(system: &System, member: &MemberView) -> Value {
    let sandbox = system.sandbox(member.task_id.as_ref().unwrap());
    assert!(sandbox.join("state").is_symlink(), "it has no volume");
    let promise = fs::read_to_string(sandbox.join("state/promise.json")).unwrap();
    let promise: Value = serde_json::from_str(&promise).unwrap();
    assert!(promise["data"].is_string(), "{promise}");
    promise["data"].clone()
}

/// The data directories in use, by member.
pub fn all_data(system: &System, view: &ClusterView) -> Vec<Value> {
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

/// Another load in the place of one that has ended. A server that is killed while it commits may hold a transaction that nobody else
/// has; then its data is made anew, rightly. Who wants to see it kept ends the load before the kill.
fn go_on(cluster: &Cluster) -> Load {
    Load::start(&cluster.url, &cluster.account, 2)
}

/// Every member has all that was acknowledged, to this load and before it.
async fn assert_complete(
    cluster: &Cluster,
    view: &ClusterView,
    load: &mut Load,
    mut acknowledged: BTreeSet<String>,
) {
    acknowledged.extend(load.stop().await);
    for member in &view.members {
        let at = endpoint(member);
        let deadline = REPLICATION_DEADLINE;
        wait_for_texts(&at, &cluster.account, load::READ, &acknowledged, deadline).await;
    }
}

/// A slave's executor, then the master's: each member is launched again where it was, on the data that it had.
async fn an_executor_is_killed_under_load(flavour: Flavour) {
    let system = System::start(flavour);
    let cluster = system.create_running("kept", 3).await;
    let masters = Masters::watch(&cluster.url).await;
    let mut load = loaded(&system, &cluster).await;
    let mut acknowledged = BTreeSet::new();
    for of_master in [false, true] {
        if of_master {
            acknowledged = load.stop().await;
        }
        let before = system.wait_running(&cluster, FAILOVER_DEADLINE).await;
        let victim = match of_master {
            true => master(&before).clone(),
            false => slaves(&before)[0].clone(),
        };
        let had = all_data(&system, &before);
        system.mysqld(&victim).parent().kill();
        if of_master {
            load = go_on(&cluster);
        }
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
    assert_complete(&cluster, &after, &mut load, acknowledged).await;
    masters.check();
    system.delete_and_wait(&cluster).await;
}

/// Nobody is left who could give anybody a copy. The members elect again with what each has.
async fn all_executors_are_killed_at_once(flavour: Flavour) {
    let system = System::start(flavour);
    let cluster = system.create_running("at-once", 3).await;
    let mut load = loaded(&system, &cluster).await;
    let before = system.show(&cluster.name).await.unwrap();
    let had = all_data(&system, &before);
    let executors = before.members.iter().map(|it| system.mysqld(it).parent());
    let acknowledged = load.stop().await;
    for executor in executors.collect::<Vec<_>>() {
        executor.kill();
    }
    load = go_on(&cluster);
    load.wait_for_more(SOME_WRITES, CREATE_DEADLINE).await;
    let after = system.wait_running(&cluster, FAILOVER_DEADLINE).await;
    assert!(after.epoch > before.epoch);
    assert_eq!(all_data(&system, &after), had);
    assert_complete(&cluster, &after, &mut load, acknowledged).await;
    system.delete_and_wait(&cluster).await;
}

/// Its only member is its own quorum.
async fn a_single_node_comes_back(flavour: Flavour) {
    let system = System::start(flavour);
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
    assert_complete(&cluster, &after, &mut load, BTreeSet::new()).await;
    system.delete_and_wait(&cluster).await;
}

/// What is reserved and the volumes on all agents.
pub fn left_on_agents(system: &System) -> Vec<String> {
    let mut left = Vec::new();
    for agent in fs::read_dir(system.run_directory().join("agents")).unwrap() {
        let agent = agent.unwrap().path();
        let volumes = fs::read_dir(agent.join("volumes/roles/cotton"));
        let volumes = volumes.into_iter().flatten().flatten();
        left.extend(volumes.map(|volume| volume.path().display().to_string()));
        // It is not there before anything is reserved.
        let Ok(resources) = fs::read_to_string(agent.join("meta/resources.json")) else {
            continue;
        };
        let resources: Value = serde_json::from_str(&resources).unwrap();
        // Each is a protobuf message; the labels of a reservation stand in it as they are.
        let messages = resources["resources"].as_array().unwrap().iter();
        let mut messages = messages.map(|it| BASE64.decode(it.as_str().unwrap()).unwrap());
        let of_a_slot = |message: Vec<u8>| message.windows(11).any(|part| part == b"cotton.slot");
        if messages.any(of_a_slot) {
            left.push(format!("what is reserved on {}", agent.display()));
        }
    }
    left
}

/// The name is free at once. What was reserved and the volumes go when their time has come, and nothing of it before.
#[tokio::test]
async fn what_a_deleted_cluster_had_reserved_goes_in_time() {
    let mut options = Options::new(Flavour::Mariadb);
    let settings = ["--", "--keep-deleted", "15s"];
    options.arguments.extend(settings.map(str::to_owned));
    let system = System::with_options(options);
    let cluster = system.create_running("brief", 3).await;
    let reserved = left_on_agents(&system);
    assert_eq!(
        reserved.len(),
        6,
        "three volumes on three agents: {reserved:?}"
    );
    system.delete_and_wait(&cluster).await;
    assert_eq!(left_on_agents(&system), reserved, "it is kept for a while");
    // The next one of this name has nothing to do with it.
    let next = system.create_running("brief", 1).await;
    eventually("what was reserved is gone", FAILOVER_DEADLINE, async || {
        (left_on_agents(&system).len() == 2).then_some(())
    })
    .await;
    let view = system.wait_running(&next, FAILOVER_DEADLINE).await;
    run(
        &endpoint(master(&view)),
        &next.account,
        &["CREATE DATABASE kept_db"],
    )
    .await;
    system.delete_and_wait(&next).await;
    eventually("nothing is reserved", FAILOVER_DEADLINE, async || {
        left_on_agents(&system).is_empty().then_some(())
    })
    .await;
}

/// As the original did: data goes with the task, and comes from the others.
#[tokio::test]
async fn without_volumes_data_lies_in_sandboxes() {
    let mut options = Options::new(Flavour::Mariadb);
    options
        .arguments
        .extend(["--", "--volumes=off"].map(str::to_owned));
    let system = System::with_options(options);
    let cluster = system.create_running("ephemeral", 3).await;
    let mut load = loaded(&system, &cluster).await;
    let before = system.show(&cluster.name).await.unwrap();
    let victim = slaves(&before)[0].clone();
    let sandbox = system.sandbox(victim.task_id.as_ref().unwrap());
    assert!(!sandbox.join("state").is_symlink());
    assert!(left_on_agents(&system).is_empty());
    system.mysqld(&victim).parent().kill();
    // A new data directory has another one, and votes when it has caught up.
    let server_id = |view: &ClusterView| view.members[victim.id as usize].server_id;
    system
        .wait_until(&cluster, "has its data anew", CREATE_DEADLINE, |view| {
            server_id(view) != server_id(&before) && view.members[victim.id as usize].voter
        })
        .await;
    let after = system.wait_running(&cluster, FAILOVER_DEADLINE).await;
    assert_complete(&cluster, &after, &mut load, BTreeSet::new()).await;
    system.delete_and_wait(&cluster).await;
}

/// Reservations and volumes are made in the name of the principal that the master knows the scheduler by, and go in it.
#[tokio::test]
async fn what_is_reserved_carries_the_principal() {
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = files.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let known = r#"{"credentials": [{"principal": "databases", "secret": "of the master"}]}"#;
    let own = "principal: databases\nsecret: of the master\n";
    let mut options = Options::new(Flavour::Mariadb);
    let arguments = [
        "--credentials".to_owned(),
        file("known", known),
        "--".to_owned(),
        "--framework-authentication-file".to_owned(),
        file("own", own),
    ];
    options.arguments.extend(arguments);
    let system = System::with_options(options);
    let cluster = system.create_running("owned", 1).await;

    let state = curl(&[&format!("{}/state", system.mesos)]).await.unwrap();
    let state = state.json();
    let agents = state["slaves"].as_array().unwrap().iter();
    let reserved = agents.filter_map(|agent| agent["reserved_resources_full"]["cotton"].as_array());
    let reserved: Vec<&Value> = reserved.flatten().collect();
    assert!(!reserved.is_empty(), "{state}");
    for resource in &reserved {
        let reservations = resource["reservations"].as_array().unwrap();
        let newest = reservations.last().unwrap();
        assert_eq!(newest["principal"], "databases", "{resource}");
    }
    let volumes = reserved.iter().map(|it| &it["disk"]["persistence"]);
    let volumes: Vec<&Value> = volumes.filter(|it| !it.is_null()).collect();
    assert_eq!(volumes.len(), 1, "{reserved:?}");
    assert_eq!(volumes[0]["principal"], "databases");

    system.delete_and_wait(&cluster).await;
    eventually("nothing is reserved", FAILOVER_DEADLINE, async || {
        left_on_agents(&system).is_empty().then_some(())
    })
    .await;
}
