//! Goal: agents and masters that are killed come back, schedulers go and return, and reservations are
//! still there, as recorded. Method: the recording is played, and what its notes tell is done to
//! the stand-in.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use serde_json::{Value, json};

use super::machine::{Machine, Scheduler};
use super::recordings::{INTERVAL, player, sandbox};
use super::volumes::{compare_events, cut};
use crate::support::zookeeper::ZooKeeper;
use crate::transcript::{self, Entry};

/// Reserves on the second agent what the recordings find reserved there.
pub async fn reserve_as_recorded(machine: &Machine) {
    let recording = transcript::one("04-volume");
    let call = recording
        .iter()
        .find(|entry| entry.is_call() && entry.body.contains("op-reserve-2"))
        .unwrap();
    let mut call: Value = serde_json::from_str(&call.body).unwrap();
    let scheduler = Scheduler::subscribe(&machine.master).await;
    let offer = scheduler.offer("127.0.0.2").await;
    call["accept"]["offer_ids"] = json!([offer["id"]]);
    scheduler.call(call).await;
    let event = scheduler.events.next("UPDATE_OPERATION_STATUS").await;
    let status = &event["update_operation_status"]["status"];
    assert_eq!(status["state"], "OPERATION_FINISHED");
    scheduler.call(json!({"type": "TEARDOWN"})).await;
    scheduler.events.closed(scheduler.number).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agent_scheduler_and_master_come_back_as_recorded() {
    let zookeeper = ZooKeeper::start();
    let group = format!("zk://{}/mesos", zookeeper.address());
    // So that a session lasts for 5 s: the master has to be back before its former one is over.
    let zk = ["--zk", group.as_str(), "--time-scale", "2"];
    let mut machine = Machine::start(&[&INTERVAL[..], &zk[..]].concat());
    let patient = ["--no-cgroups", "--executor-reregistration-timeout", "30s"];
    machine.add_agent(&patient).await;
    machine.add_agent(&patient).await;
    reserve_as_recorded(&machine).await;
    let mut player = player(&machine);
    let port = machine.master.address().rsplit(':').next().unwrap();
    let redirected = format!("//localhost:{port}/");
    player.bindings.bind("//localhost:5050/", &redirected);
    let recording = transcript::one("05-restarts");

    let (first, rest) = cut(&recording, "SIGKILL of the agent process");
    player.play(first).await;
    machine.agents[1].kill();
    machine.restart_agent(1);
    machine.wait_for_agents(2).await;

    let (second, rest) = cut(rest, "the scheduler goes away");
    player.play(second).await;
    player.events.hang_up();

    let (third, rest) = cut(rest, "SIGKILL of the master");
    player.play(third).await;
    // The executor subscribed twice, and was launched one task.
    let r1 = sandbox(&machine, 1, "r1");
    let executor = transcript::one("05-executor");
    let killed = |entry: &Entry| entry.head.starts_with("<< event KILL");
    let until = executor.iter().position(killed).unwrap();
    compare_events(&mut player, &executor[..until], &r1).await;

    machine.master.kill();
    machine.restart_master();
    // Its last line is the end of the stream.
    let calls = rest.iter().position(|entry| entry.is_call()).unwrap();
    player.play(&rest[..calls]).await;
    let led = |entry: &Entry| entry.head.starts_with("<< 200");
    let led = rest.iter().position(led).unwrap();
    player.play_redirects(&rest[calls..=led]).await;
    let rest = &rest[led + 1..];
    let (subscribed, rest) = cut(rest, "reconciliation right after master failover");
    player.play(subscribed).await;
    machine.wait_for_agents(2).await;
    player.play(rest).await;
}
