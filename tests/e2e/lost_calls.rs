//! Calls to the Mesos master get lost, or come too late: a launch, a kill, the use of an offer that was withdrawn meanwhile. Each is
//! noticed and made good, and nothing runs twice.

use std::time::{Duration, Instant};

use cotton::cluster::flavour::Flavour;
use cotton::cluster::view::{ClusterState, ClusterView};

use crate::support::calls::{Calls, Kind};
use crate::support::database::run;
use crate::support::process::Process;
use crate::support::rest::curl;
use crate::support::system::{Cluster, Lease, Options, System, endpoint, master, tasks};
use crate::support::{CREATE_DEADLINE, FAILOVER_DEADLINE, eventually, free_port};

/// How long a launch of which nothing is heard is waited for, 60 s, and what a loaded machine adds.
const LAUNCHED_AGAIN: Duration = Duration::from_secs(90);

/// When a kill is asked for again of whose end nothing is heard.
const KILL_RETRY: Duration = Duration::from_secs(20);

/// The same, and what a loaded machine adds.
const KILLED_AGAIN: Duration = Duration::from_secs(60);

/// A system with one agent, whose scheduler's calls can be lost.
fn start() -> (Lease, Calls) {
    let port = free_port();
    let calls = Calls::start(port);
    let mut options = Options::new(Flavour::Mariadb);
    options.agents = 1;
    let arguments = [
        "--mesos-port",
        &port.to_string(),
        "--",
        "--mesos-master",
        &calls.address,
    ];
    options.arguments.extend(arguments.map(str::to_owned));
    (System::with_options(options), calls)
}

/// Waits until so many calls were lost or held, and gives the tasks of the last one.
async fn caught(calls: &Calls, number: usize) -> Vec<String> {
    eventually(
        "a call is caught on its way",
        FAILOVER_DEADLINE,
        async || {
            let all = calls.caught();
            (all.len() == number).then(|| all[number - 1].tasks.clone())
        },
    )
    .await
}

/// All tasks of which the Mesos master knows.
async fn known_tasks(system: &System) -> Vec<String> {
    let state = curl(&[&format!("{}/state", system.mesos)])
        .await
        .unwrap()
        .json();
    let tasks = state["frameworks"][0]["tasks"].as_array().unwrap().iter();
    tasks
        .map(|task| task["id"].as_str().unwrap().to_owned())
        .collect()
}

async fn active_agents(system: &System) -> usize {
    let state = curl(&[&format!("{}/state", system.mesos)])
        .await
        .unwrap()
        .json();
    let agents = state["slaves"].as_array().unwrap().iter();
    agents.filter(|agent| agent["active"] == true).count()
}

/// How often agents have registered at the Mesos master, as its log tells.
fn registrations(system: &System) -> usize {
    let log = std::fs::read_to_string(system.run_directory().join("logs/master.log"));
    log.unwrap().matches("agent registered").count()
}

/// The cluster runs, by another task than that whose launch was caught.
async fn runs_without(system: &System, cluster: &Cluster, lost: &[String]) {
    let launched = |view: &ClusterView| {
        let mut tasks = view.members.iter().filter_map(|it| it.task_id.as_ref());
        tasks.any(|task| !lost.contains(task))
    };
    system
        .wait_until(cluster, "is launched again", LAUNCHED_AGAIN, launched)
        .await;
    let view = system.wait_running(cluster, CREATE_DEADLINE).await;
    assert_ne!(tasks(&view), lost);
    let at = endpoint(master(&view));
    run(&at, &cluster.account, &["CREATE DATABASE is_there"]).await;
    let known = known_tasks(system).await;
    assert!(!known.contains(&lost[0]), "{known:?}");
}

#[tokio::test]
async fn launches_and_kills_that_get_lost_are_made_again() {
    let (system, calls) = start();
    let kept = system.create_running("kept", 1).await;
    let before = system.show("kept").await.unwrap();
    let server = system.mysqld(master(&before));

    // The offer is withdrawn while the launch is on its way: its agent's process has ended.
    calls.hold_next(Kind::Launch);
    let held = system.create("withdrawn", 1).await;
    let tasks_held = caught(&calls, 1).await;
    let is_agent = |process: &Process| {
        process
            .arguments()
            .get(1)
            .is_some_and(|it| it == "local-agent")
    };
    let agent = system
        .process()
        .children()
        .into_iter()
        .find(is_agent)
        .unwrap();
    let registered = registrations(&system);
    agent.kill();
    // It is started again at once, so that it may be back already; its offers are withdrawn all the same.
    eventually(
        "the agent's process has ended",
        FAILOVER_DEADLINE,
        async || (!agent.runs()).then_some(()),
    )
    .await;
    // The master may not have noticed the end yet. It has withdrawn the offers when it registers the agent again.
    eventually("the agent is back", FAILOVER_DEADLINE, async || {
        let again = registrations(&system) > registered;
        (again && active_agents(&system).await == 1).then_some(())
    })
    .await;
    calls.let_go();
    runs_without(&system, &held, &tasks_held).await;
    assert!(server.runs(), "a server ended with its agent's process");

    // A launch and the kill of a restart get lost at the same time: each is made again after its own deadline.
    calls.lose_next(Kind::Launch);
    let launched = Instant::now();
    let lost = system.create("lost", 1).await;
    let tasks_lost = caught(&calls, 2).await;
    calls.lose_next(Kind::Kill);
    let fields = [
        ("password", kept.account.password.as_str()),
        ("member", "0"),
        ("force", "true"),
    ];
    let answer = system.post("kept/restart", &fields).await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(caught(&calls, 3).await, tasks(&before));
    let killed = Instant::now();
    eventually("the kill is made again", KILLED_AGAIN, async || {
        (!server.runs()).then_some(())
    })
    .await;
    let after = killed.elapsed();
    assert!(after > KILL_RETRY / 2, "it was not lost: {after:?}");
    eprintln!("a lost kill was made good after {after:?}");
    let restarted = |view: &ClusterView| {
        view.state == ClusterState::Running && view.members[0].task_id != before.members[0].task_id
    };
    let what = "runs by another task";
    system
        .wait_until(&kept, what, FAILOVER_DEADLINE, restarted)
        .await;
    runs_without(&system, &lost, &tasks_lost).await;
    eprintln!("a lost launch was made good after {:?}", launched.elapsed());
    assert_eq!(
        known_tasks(&system).await.len(),
        3,
        "one task for each cluster"
    );
    for cluster in [kept, held, lost] {
        system.delete_and_wait(&cluster).await;
    }
}
