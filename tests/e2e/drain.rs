//! Hosts that an operator takes away: masters hand over, members move where they have to, under load, and nothing is lost.

use std::time::{Duration, Instant};

use cotton::cluster::failover_record::Cause;
use cotton::cluster::flavour::Flavour;
use cotton::cluster::view::{ClusterView, MemberRole, MemberView};
use cotton::time::Timestamp;
use serde_json::{Value, json};

use crate::support::database::{connect, execute, run, wait_for_texts};
use crate::support::discovery::Masters;
use crate::support::load::{self, Load};
use crate::support::rest::curl;
use crate::support::system::{Cluster, Options, System, endpoint, master, slaves};
use crate::support::{CREATE_DEADLINE, FAILOVER_DEADLINE, REPLICATION_DEADLINE, eventually};

crate::for_both_flavours!(
    a_masters_host_is_maintained,
    a_single_node_moves_before_its_host_goes,
    a_masters_agent_is_drained,
);

/// How many writes have to be acknowledged between two steps.
const SOME_WRITES: usize = 50;

/// Between two writes of a client.
const PAUSE: Duration = Duration::from_millis(10);

/// How long it may take until an agent is given away: whoever has to move copies the data first, and inverse offers that were
/// declined come again every ten seconds.
const DRAINED_WITHIN: Duration = Duration::from_secs(240);

/// A grace period, nearly half of which is for handing over. Who cannot at all is not waited for any longer in a story.
const SHORT_GRACE: Duration = Duration::from_secs(6);

/// A call to the Mesos master as its operator.
async fn operate(system: &System, call: Value) -> Value {
    let url = format!("{}/api/v1", system.mesos);
    let header = "Content-Type: application/json";
    let accept = "Accept: application/json";
    let body = call.to_string();
    let answer = curl(&["-X", "POST", "-H", header, "-H", accept, "-d", &body, &url]).await;
    let answer = answer.unwrap();
    assert_eq!(answer.status, 200, "{call}: {}", answer.text);
    match answer.text.is_empty() {
        true => Value::Null,
        false => answer.json(),
    }
}

fn machine(host: &str) -> Value {
    json!({"hostname": host, "ip": host})
}

/// Announces that a host is to be away from an hour from now on, for so long.
async fn schedule(system: &System, host: &str, lasts: Duration) {
    let from = Timestamp::now().plus(Duration::from_secs(3600));
    let from = from.as_millis() as i64 * 1_000_000;
    let window = json!({
        "machine_ids": [machine(host)],
        "unavailability": {
            "start": {"nanoseconds": from},
            "duration": {"nanoseconds": lasts.as_nanos() as i64},
        },
    });
    let schedule = json!({"schedule": {"windows": [window]}});
    let call =
        json!({"type": "UPDATE_MAINTENANCE_SCHEDULE", "update_maintenance_schedule": schedule});
    operate(system, call).await;
}

/// What the framework has answered last, if it was asked.
async fn answered(system: &System) -> Option<String> {
    let status = operate(system, json!({"type": "GET_MAINTENANCE_STATUS"})).await;
    let machines = &status["get_maintenance_status"]["status"]["draining_machines"];
    Some(machines[0]["statuses"][0]["status"].as_str()?.to_owned())
}

async fn given_away(system: &System) {
    eventually("the host is given away", DRAINED_WITHIN, async || {
        (answered(system).await? == "ACCEPT").then_some(())
    })
    .await;
}

async fn loaded(system: &System, cluster: &Cluster) -> Load {
    let view = system.show(&cluster.name).await.unwrap();
    let statements = ["CREATE DATABASE load_db", load::TABLE];
    run(&endpoint(master(&view)), &cluster.account, &statements).await;
    // A slave of a master that waits for nobody has to keep up.
    let load = Load::paced(&cluster.url, &cluster.account, 2, PAUSE);
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

fn host(member: &MemberView) -> &str {
    member.host.as_deref().unwrap()
}

fn ids(view: &ClusterView) -> Vec<u32> {
    view.members.iter().map(|member| member.id).collect()
}

/// Goal: the host of a master goes down for a while without a failover, and its member comes back with it. Method: it is
/// scheduled, given away, taken down and brought up, under load.
async fn a_masters_host_is_maintained(flavour: Flavour) {
    let system = System::start(flavour);
    let cluster = system.create_running("maintained", 3).await;
    let masters = Masters::watch(&cluster.url).await;
    let mut load = loaded(&system, &cluster).await;
    let before = system.show(&cluster.name).await.unwrap();
    let old = master(&before).clone();
    load.measure_gap();
    schedule(&system, host(&old), Duration::from_secs(600)).await;
    given_away(&system).await;
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
    eprintln!("{flavour}: no write for {:?}", load.longest_gap());
    let view = system.wait_running(&cluster, FAILOVER_DEADLINE).await;
    assert_ne!(master(&view).id, old.id);
    assert_eq!(ids(&view), [0, 1, 2], "nobody had to move");
    assert_eq!(view.standing.maintenance.len(), 1, "{:?}", view.standing);
    let explained = system.explain(&cluster.name).await.explanation;
    assert_eq!(
        explained.failovers[0].record.ending.cause,
        Cause::Switchover
    );

    let machines = json!([machine(host(&old))]);
    let start = json!({"type": "START_MAINTENANCE", "start_maintenance": {"machines": machines}});
    operate(&system, start).await;
    system
        .wait_until(&cluster, "misses its member", FAILOVER_DEADLINE, |view| {
            view.members[old.id as usize].role == MemberRole::None
        })
        .await;
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
    let stop = json!({"type": "STOP_MAINTENANCE", "stop_maintenance": {"machines": machines}});
    operate(&system, stop).await;
    let after = system.wait_running(&cluster, CREATE_DEADLINE).await;
    let back = &after.members[old.id as usize];
    assert_eq!(host(back), host(&old));
    assert_eq!(back.server_id, old.server_id, "its data was made anew");
    assert_eq!(after.epoch, view.epoch, "its end is no failover");
    assert_complete(&system, &cluster, &mut load).await;
    masters.check();
    system.delete_and_wait(&cluster).await;
}

/// Goal: a cluster of one is elsewhere before its host goes. Method: its host is scheduled, under load.
async fn a_single_node_moves_before_its_host_goes(flavour: Flavour) {
    let system = System::with_options(Options {
        agents: 2,
        ..Options::new(flavour)
    });
    let cluster = system.create_running("moving", 1).await;
    let masters = Masters::watch(&cluster.url).await;
    let mut load = loaded(&system, &cluster).await;
    let before = system.show(&cluster.name).await.unwrap();
    let old = master(&before).clone();
    schedule(&system, host(&old), Duration::from_secs(600)).await;
    eventually("it is being drained", FAILOVER_DEADLINE, async || {
        (answered(&system).await? == "DECLINE").then_some(())
    })
    .await;
    given_away(&system).await;
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
    let view = system.wait_running(&cluster, FAILOVER_DEADLINE).await;
    assert_eq!(ids(&view), [1]);
    assert_ne!(host(master(&view)), host(&old));
    assert_complete(&system, &cluster, &mut load).await;
    masters.check();
    system.delete_and_wait(&cluster).await;
}

/// Kills everything on a member's agent, which is given so long for it if that is less than it asks for.
async fn drain(system: &System, member: &MemberView, at_most: Option<Duration>) {
    let mut drain = json!({"agent_id": {"value": member.agent_id}});
    if let Some(at_most) = at_most {
        drain["max_grace_period"] = json!({"seconds": at_most.as_secs()});
    }
    operate(system, json!({"type": "DRAIN_AGENT", "drain_agent": drain})).await;
}

/// Waits until the agent of a member is drained, takes it into service again, and waits until the member is back on it.
async fn reactivate(system: &System, cluster: &Cluster, old: &MemberView) {
    system
        .wait_until(cluster, "has ended there", FAILOVER_DEADLINE, |view| {
            view.members[old.id as usize].task_id.is_none()
        })
        .await;
    let agent = json!({"agent_id": {"value": old.agent_id}});
    eventually("the agent is drained", FAILOVER_DEADLINE, async || {
        let url = format!("{}/api/v1", system.mesos);
        let call = json!({"type": "REACTIVATE_AGENT", "reactivate_agent": agent}).to_string();
        let header = "Content-Type: application/json";
        let answer = curl(&["-X", "POST", "-H", header, "-d", &call, &url]).await?;
        (answer.status == 200).then_some(())
    })
    .await;
    let after = system.wait_running(cluster, CREATE_DEADLINE).await;
    assert_eq!(host(&after.members[old.id as usize]), host(old));
}

/// Waits until another member is the master and accepts writes, and tells why the former one is not any more.
async fn succeeded(system: &System, cluster: &Cluster, old: &MemberView, load: &Load) -> Cause {
    let has_another = |view: &ClusterView| {
        let leads = |member: &MemberView| member.role == MemberRole::Master;
        view.members.iter().any(|it| leads(it) && it.id != old.id)
    };
    system
        .wait_until(
            cluster,
            "has another master",
            FAILOVER_DEADLINE,
            has_another,
        )
        .await;
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
    eprintln!("drained: no write for {:?}", load.longest_gap());
    let explained = system.explain(&cluster.name).await.explanation;
    explained.failovers[0].record.ending.cause
}

/// Goal: a master whose agent is drained hands over within the grace period; one that cannot is given up when that is over, and
/// no acknowledged write is lost. Method: DRAIN_AGENT under load, and REACTIVATE_AGENT; the second time the slaves
/// receive and acknowledge, but execute nothing, so that nobody can be handed over to.
async fn a_masters_agent_is_drained(flavour: Flavour) {
    let system = System::start(flavour);
    let cluster = system.create_running("drained", 3).await;
    let masters = Masters::watch(&cluster.url).await;
    let mut load = loaded(&system, &cluster).await;
    let before = system.show(&cluster.name).await.unwrap();
    let old = master(&before).clone();
    load.measure_gap();
    drain(&system, &old, None).await;
    let cause = succeeded(&system, &cluster, &old, &load).await;
    assert_eq!(cause, Cause::Switchover);
    reactivate(&system, &cluster, &old).await;

    let before = system.show(&cluster.name).await.unwrap();
    let old = master(&before).clone();
    let mut locks = Vec::new();
    for slave in slaves(&before) {
        let at = endpoint(slave);
        let mut lock = connect(&at, &cluster.account).await.unwrap();
        let sql = "LOCK TABLES load_db.writes READ";
        execute(&mut lock, sql).await.unwrap();
        locks.push(lock);
    }
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
    let server = system.mysqld(&old);
    let asked = Instant::now();
    load.measure_gap();
    drain(&system, &old, Some(SHORT_GRACE)).await;
    eventually("the master has ended", FAILOVER_DEADLINE, async || {
        (!server.runs()).then_some(())
    })
    .await;
    assert!(asked.elapsed() >= SHORT_GRACE / 3, "it was not held");
    drop(locks);
    let cause = succeeded(&system, &cluster, &old, &load).await;
    assert_ne!(cause, Cause::Switchover);
    reactivate(&system, &cluster, &old).await;
    assert_complete(&system, &cluster, &mut load).await;
    masters.check();
    system.delete_and_wait(&cluster).await;
}
