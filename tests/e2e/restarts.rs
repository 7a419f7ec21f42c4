//! The scheduler is killed at any moment: its successor is the same framework, restarts nothing, and
//! carries out what was accepted.

use cotton::cluster::flavour::Flavour;
use cotton::cluster::view::{ClusterView, MemberRole, MemberViewState};

use crate::support::database::run;
use crate::support::process::Process;
use crate::support::system::{Cluster, System, endpoint, master, tasks};
use crate::support::{CREATE_DEADLINE, FAILOVER_DEADLINE, eventually};

crate::for_both_flavours!(the_scheduler_is_killed_at_any_moment);

async fn the_scheduler_is_killed_at_any_moment(flavour: Flavour) {
    // Others could not ask for anything meanwhile.
    let system = System::start(flavour);
    let framework = system.framework_id().await;

    // As soon as the request was accepted.
    let early = system.create("early", 1).await;
    kill_scheduler(&system).await;
    let view = system.wait_running(&early, CREATE_DEADLINE).await;
    assert_writable(&early, &view).await;

    // In the middle of it: the executors have come up, the servers have not. (They come from the
    // scheduler, and an agent that is fetching one from a scheduler that dies has to be given another task.)
    let middle = system.create("middle", 3).await;
    let launched = system
        .wait_until(&middle, "has its executors", CREATE_DEADLINE, |view| {
            let mut states = view.members.iter().map(|member| member.state);
            !view.members.is_empty() && states.all(|state| state != MemberViewState::Launching)
        })
        .await;
    kill_scheduler(&system).await;
    let created = system.wait_running(&middle, CREATE_DEADLINE).await;
    for member in &launched.members {
        if let Some(task) = &member.task_id {
            let now = &created.members[member.id as usize].task_id;
            assert_eq!(now.as_ref(), Some(task), "a task was restarted");
        }
    }
    assert_writable(&middle, &created).await;

    // While nothing happens.
    let servers = servers(&system, &created);
    kill_scheduler(&system).await;
    // What is stored is shown at once, how the members do when they were heard of.
    let what = "looks as it did before the restart";
    let idle = system
        .wait_until(&middle, what, FAILOVER_DEADLINE, |view| *view == created)
        .await;
    for server in servers {
        assert!(server.runs(), "a server was restarted");
    }
    assert_eq!(system.framework_id().await, framework);

    // Together with the master.
    system.mysqld(master(&idle)).kill();
    kill_scheduler(&system).await;
    let after = system
        .wait_until(&middle, "has a new master", FAILOVER_DEADLINE, |view| {
            view.epoch > idle.epoch && view.members.iter().any(|m| m.role == MemberRole::Master)
        })
        .await;
    assert_writable(&middle, &after).await;
    let after = system.wait_running(&middle, FAILOVER_DEADLINE).await;
    assert_eq!(tasks(&after), tasks(&idle), "a task was restarted");

    // As soon as the deletion was accepted.
    assert_eq!(system.delete(&middle).await.unwrap().status, 200);
    kill_scheduler(&system).await;
    system.wait_gone(&middle).await;
    system.delete_and_wait(&early).await;
    assert_eq!(system.framework_id().await, framework);
}

/// Kills it and waits until the next one is registered.
async fn kill_scheduler(system: &System) {
    let old = system.scheduler().await;
    old.kill();
    eventually("the scheduler has ended", FAILOVER_DEADLINE, async || {
        (!old.runs()).then_some(())
    })
    .await;
    system.wait_registered().await;
}

fn servers(system: &System, view: &ClusterView) -> Vec<Process> {
    let servers = view.members.iter().map(|member| system.mysqld(member));
    servers.collect()
}

async fn assert_writable(cluster: &Cluster, view: &ClusterView) {
    let at = endpoint(master(view));
    let statements = [
        "CREATE DATABASE IF NOT EXISTS restart_db",
        "CREATE TABLE IF NOT EXISTS restart_db.t (id INT AUTO_INCREMENT PRIMARY KEY)",
        "INSERT INTO restart_db.t VALUES ()",
    ];
    run(&at, &cluster.account, &statements).await;
}
