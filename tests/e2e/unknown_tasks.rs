//! The state is lost while clusters run: everything goes on running, an operator is told, and decides.

use std::time::Duration;

use cotton::cluster::flavour::Flavour;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use zookeeper_client::{Acls, Client, CreateMode};

use crate::support::database::run;
use crate::support::process::Process;
use crate::support::rest::curl;
use crate::support::system::{System, endpoint, master, slaves, tasks};
use crate::support::{CREATE_DEADLINE, FAILOVER_DEADLINE, eventually};

crate::for_both_flavours!(a_lost_state_kills_nothing);

/// For how long nothing must happen: longer than a kill takes, and any patience of an executor.
const NOTHING_HAPPENS: Duration = Duration::from_secs(20);

async fn a_lost_state_kills_nothing(flavour: Flavour) {
    let system = System::start(flavour);
    let framework = system.framework_id().await;
    let cluster = system.create_running("kept", 3).await;
    let view = system.show("kept").await.unwrap();
    let at = endpoint(master(&view));
    let statements = ["CREATE DATABASE kept_db", "CREATE TABLE kept_db.t (a INT)"];
    run(&at, &cluster.account, &statements).await;
    let servers: Vec<Process> = view.members.iter().map(|it| system.mysqld(it)).collect();

    // Everything but the framework id is removed, and a scheduler starts on that.
    let (address, root) = system
        .zk
        .strip_prefix("zk://")
        .unwrap()
        .split_once('/')
        .unwrap();
    let client = Client::connect(address).await.unwrap();
    let record_path = format!("/{root}/state/clusters/kept");
    let (record, _) = client.get_data(&record_path).await.unwrap();
    client.delete(&record_path, None).await.unwrap();
    for group in ["control", "discover"] {
        remove(&client, &format!("/{root}/{group}")).await;
    }
    restart_scheduler(&system).await;
    let told = unknown(&system, 3).await;
    let mut found: Vec<&str> = told
        .iter()
        .map(|it| it["task_id"].as_str().unwrap())
        .collect();
    found.sort_unstable();
    assert_eq!(found, tasks(&view));
    tokio::time::sleep(NOTHING_HAPPENS).await;
    assert!(servers.iter().all(Process::runs), "a server was ended");
    run(&at, &cluster.account, &["INSERT INTO kept_db.t VALUES (1)"]).await;
    assert_eq!(system.framework_id().await, framework);
    let page = curl(&[&system.api]).await.unwrap();
    assert!(page.text.contains("Tasks that no record explains"));
    let listed = tokio::process::Command::new(env!("CARGO_BIN_EXE_cotton"))
        .args(["admin", "list", "--api", &system.api])
        .output()
        .await
        .unwrap();
    let complaint = String::from_utf8_lossy(&listed.stderr).into_owned();
    assert!(
        complaint.contains("3 tasks run that no record explains"),
        "{complaint}"
    );

    // An operator ends one of them on its host: it needs no decision any more.
    let ended = slaves(&view)[0].clone();
    let executor = system.mysqld(&ended).parent();
    kill(Pid::from_raw(executor.pid), Signal::SIGTERM).unwrap();
    unknown(&system, 2).await;

    // And puts the state back: the cluster is there again, and what ran goes on.
    let mode = CreateMode::Persistent.with_acls(Acls::anyone_all());
    client.create(&record_path, &record, &mode).await.unwrap();
    restart_scheduler(&system).await;
    unknown(&system, 0).await;
    let after = system.wait_running(&cluster, CREATE_DEADLINE).await;
    let kept = view.members.iter().filter(|it| it.id != ended.id);
    for member in kept {
        let now = &after.members[member.id as usize];
        assert_eq!(now.task_id, member.task_id);
        assert!(
            servers.contains(&system.mysqld(now)),
            "a server was restarted"
        );
    }
    assert_eq!(after.epoch, view.epoch);
    run(
        &endpoint(master(&after)),
        &cluster.account,
        &["INSERT INTO kept_db.t VALUES (2)"],
    )
    .await;
    system.delete_and_wait(&cluster).await;
}

pub async fn restart_scheduler(system: &System) {
    let old = system.scheduler().await;
    old.kill();
    eventually("the scheduler has ended", FAILOVER_DEADLINE, async || {
        (!old.runs()).then_some(())
    })
    .await;
    system.wait_registered().await;
}

/// Waits until so many tasks are listed as unknown.
async fn unknown(system: &System, expected: usize) -> Vec<serde_json::Value> {
    eventually("unknown tasks are listed", FAILOVER_DEADLINE, async || {
        let vars = curl(&[&format!("{}/vars.json", system.api)]).await?.json();
        let answer = curl(&[&format!("{}/unknown-tasks", system.api)]).await?;
        let listed = answer.json()["unknown_tasks"].as_array()?.clone();
        let agree = vars["scheduler.unknown_tasks"] == listed.len();
        (agree && listed.len() == expected).then_some(listed)
    })
    .await
}

/// Removes a node with everything below it.
async fn remove(client: &Client, path: &str) {
    let mut all = vec![path.to_owned()];
    let mut next = 0;
    while next < all.len() {
        let parent = all[next].clone();
        // One that has gone meanwhile has none.
        let children = client.list_children(&parent).await.unwrap_or_default();
        all.extend(
            children
                .into_iter()
                .map(|child| format!("{parent}/{child}")),
        );
        next += 1;
    }
    for path in all.iter().rev() {
        // A report may be made anew meanwhile.
        let _ = client.delete(path, None).await;
    }
}
