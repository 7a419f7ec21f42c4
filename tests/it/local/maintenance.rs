//! Goal: machines are announced as going away, emptied and given up as recorded, and where the
//! recording does not reach as Mesos' documentation says.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::executor;
use super::machine::{Machine, Scheduler, task};
use super::recordings::{INTERVAL, sandbox};
use super::replay::Player;
use super::restarts::reserve_as_recorded;
use super::volumes::{compare_events, process};
use super::web::{self, Answer, DEADLINE};
use crate::support::eventually;
use crate::transcript::{self, Entry};

/// Launches the recorded task that the recording of maintenance finds running; gives a player that
/// knows the ids.
async fn with_recorded_task(machine: &Machine) -> (Scheduler, Player) {
    let recording = transcript::one("05-restarts");
    let accept = recording
        .iter()
        .find(|entry| entry.is_call() && entry.body.contains("\"LAUNCH\""))
        .unwrap();
    let subscribe: Value = serde_json::from_str(&recording[0].body).unwrap();
    let framework = subscribe["subscribe"]["framework_info"].clone();
    let scheduler = Scheduler::subscribe_as(&machine.master, framework).await;
    let offers = scheduler.events.next("OFFERS").await;
    let offers = offers["offers"]["offers"].as_array().unwrap();
    assert_eq!(offers.len(), 2);
    let on = |host: &str| offers.iter().find(|one| one["hostname"] == host).unwrap();
    let (kept, used) = (on("127.0.0.1"), on("127.0.0.2"));

    let mut player = Player::of(&machine.master.url, &scheduler.events);
    let bindings = &mut player.bindings;
    bindings.bind("/rec/executor.py", &executor::command_line());
    let mut bind = |recorded: &str, actual: &Value| {
        bindings.bind(recorded, actual.as_str().unwrap());
    };
    let (former, present) = (
        "06fb1fef-2165-4c21-bbb5-b52e18b8f930",
        "a8ab1daf-93e3-4149-a7bc-27d1fa46ba28",
    );
    bind(&format!("{former}-0001"), &json!(scheduler.framework_id));
    bind(&format!("{former}-S1"), &used["agent_id"]["value"]);
    bind(&format!("{former}-O11"), &used["id"]["value"]);
    bind(&format!("{present}-O0"), &kept["id"]["value"]);
    bind(
        "0add58b1-cdc5-4511-bbfa-d072c38e28bf",
        &json!(scheduler.stream_id),
    );
    let call: Value = serde_json::from_str(&player.bindings.apply(&accept.body)).unwrap();
    scheduler.call(call).await;
    scheduler.update("r1", "TASK_STARTING").await;
    scheduler.update("r1", "TASK_RUNNING").await;
    (scheduler, player)
}

#[tokio::test]
async fn maintenance_is_announced_and_an_agent_drained_and_given_up_as_recorded() {
    let mut machine = Machine::start(&INTERVAL);
    machine.add_agent(&["--no-cgroups"]).await;
    machine.add_agent(&["--no-cgroups"]).await;
    reserve_as_recorded(&machine).await;
    let (scheduler, mut player) = with_recorded_task(&machine).await;
    let r1 = sandbox(&machine, 1, "r1");
    let pid = process(&machine, 1, "r1");
    player.play(&transcript::one("07-maintenance")).await;

    // The agent that is gone ends, after its executor.
    machine.agents[1].ended().await;
    assert!(nix::sys::signal::kill(pid, None).is_err());
    let mut told = transcript::one("05-executor");
    let subscribed = |entry: &Entry| entry.head.starts_with("<< event SUBSCRIBED");
    // There the agent had been restarted.
    let again = told.iter().rposition(subscribed).unwrap();
    told.remove(again);
    compare_events(&mut player, &told, &r1).await;

    // It comes back as another one, with what was reserved.
    drop(scheduler);
    machine.restart_agent(1);
    let scheduler = Scheduler::subscribe(&machine.master).await;
    let offer = scheduler.offer("127.0.0.2").await;
    let id = offer["agent_id"]["value"].as_str().unwrap();
    assert!(id.ends_with("-S2"), "{id}");
    let resources = offer["resources"].as_array().unwrap();
    let reserved = resources
        .iter()
        .filter(|one| one.get("reservations").is_some());
    assert_eq!(reserved.count(), 4);
}

async fn operate(machine: &Machine, call: &Value) -> Answer {
    web::post(&format!("{}/api/v1", machine.master.url), &[], call).await
}

async fn must(machine: &Machine, call: Value) {
    let answer = operate(machine, &call).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, ""), "{call}");
}

async fn refused(machine: &Machine, call: Value, sentence: &str) {
    let answer = operate(machine, &call).await;
    assert_eq!(
        (answer.status, answer.text.as_str()),
        (400, sentence),
        "{call}"
    );
}

fn schedule(ip: &str) -> Value {
    let window = json!({
        "machine_ids": [{"hostname": ip, "ip": ip}],
        "unavailability": {"start": {"nanoseconds": 1_795_320_396_007_996_160_i64}},
    });
    json!({
        "type": "UPDATE_MAINTENANCE_SCHEDULE",
        "update_maintenance_schedule": {"schedule": {"windows": [window]}},
    })
}

#[tokio::test]
async fn operators_read_the_answers_and_take_a_machine_down_and_up() {
    let mut machine = Machine::start(&[]);
    machine.add_agent(&["--no-cgroups"]).await;
    let scheduler = Scheduler::subscribe(&machine.master).await;
    let offer = scheduler.offer("127.0.0.1").await;
    scheduler.launch(&offer, task("t", &offer, "plain")).await;
    scheduler.update("t", "TASK_STARTING").await;
    scheduler.update("t", "TASK_RUNNING").await;

    let machines = json!([{"hostname": "127.0.0.1", "ip": "127.0.0.1"}]);
    let start = json!({"type": "START_MAINTENANCE", "start_maintenance": {"machines": machines}});
    let stop = json!({"type": "STOP_MAINTENANCE", "stop_maintenance": {"machines": machines}});
    let shown = r#"Machine '{"hostname":"127.0.0.1","ip":"127.0.0.1"}'"#;
    let sentence = format!("{shown} is not part of a maintenance schedule");
    refused(&machine, start.clone(), &sentence).await;
    must(&machine, schedule("127.0.0.1")).await;
    let drain = json!({"type": "DRAIN_AGENT", "drain_agent": {"agent_id": offer["agent_id"]}});
    let id = offer["agent_id"]["value"].as_str().unwrap();
    let sentence =
        format!("Agent {id} is part of a maintenance schedule under Machine 127.0.0.1 (127.0.0.1)");
    refused(&machine, drain, &sentence).await;

    // A refusal keeps inverse offers away for as long as it says.
    let asked = scheduler.events.next("INVERSE_OFFERS").await;
    let inverse = &asked["inverse_offers"]["inverse_offers"][0];
    let decline = json!({
        "inverse_offer_ids": [inverse["id"]], "filters": {"refuse_seconds": 1.0},
    });
    let declined = Instant::now();
    scheduler
        .call(json!({"type": "DECLINE_INVERSE_OFFERS", "decline_inverse_offers": decline}))
        .await;
    let asked = scheduler.events.next("INVERSE_OFFERS").await;
    assert!(declined.elapsed() >= Duration::from_secs(1));
    let status = || async {
        let call = json!({"type": "GET_MAINTENANCE_STATUS"});
        let answer = operate(&machine, &call).await;
        serde_json::from_str::<Value>(&answer.text).unwrap()
    };
    let answered = |status: &Value| {
        let machines = &status["get_maintenance_status"]["status"]["draining_machines"];
        machines[0]["statuses"][0]["status"].clone()
    };
    assert_eq!(answered(&status().await), "DECLINE");
    let inverse = &asked["inverse_offers"]["inverse_offers"][0];
    let accept = json!({"inverse_offer_ids": [inverse["id"]]});
    scheduler
        .call(json!({"type": "ACCEPT_INVERSE_OFFERS", "accept_inverse_offers": accept}))
        .await;
    assert_eq!(answered(&status().await), "ACCEPT");

    // The schedule is stored.
    machine.master.kill();
    machine.restart_master();
    machine.wait_for_agents(1).await;
    let answer = operate(&machine, &json!({"type": "GET_MAINTENANCE_SCHEDULE"})).await;
    let stored: Value = serde_json::from_str(&answer.text).unwrap();
    assert_eq!(
        stored["get_maintenance_schedule"]["schedule"],
        schedule("127.0.0.1")["update_maintenance_schedule"]["schedule"]
    );
    let mut framework = super::machine::framework_info();
    framework["id"] = json!({"value": scheduler.framework_id});
    let scheduler = Scheduler::subscribe_as(&machine.master, framework).await;

    must(&machine, start.clone()).await;
    let status = scheduler.events.next("UPDATE").await["update"]["status"].clone();
    assert_eq!(status["state"], "TASK_LOST");
    assert_eq!(
        status["message"],
        "Agent 127.0.0.1 removed: Operator initiated 'Machine DOWN'"
    );
    assert_eq!(status["reason"], "REASON_AGENT_REMOVED");
    scheduler.events.next("FAILURE").await;
    machine.agents[0].ended().await;
    let sentence = format!("{shown} is not in DRAINING mode and cannot be brought down");
    refused(&machine, start, &sentence).await;
    let mut empty = schedule("127.0.0.1");
    empty["update_maintenance_schedule"]["schedule"] = json!({});
    let sentence = format!("{shown} is deactivated and cannot be removed from the schedule");
    refused(&machine, empty, &sentence).await;

    // Meanwhile its agent may not come back.
    machine.restart_agent(0);
    let log = machine.directory.path().join("agent-1.log");
    eventually("the refusal", DEADLINE, || async {
        let text = std::fs::read_to_string(&log).ok()?;
        text.contains("Machine is `DOWN`").then_some(())
    })
    .await;
    must(&machine, stop).await;
    machine.wait_for_agents(1).await;
    scheduler.offer("127.0.0.1").await;
}

#[tokio::test]
async fn agents_are_switched_off_and_on_and_drained_for_good() {
    let mut machine = Machine::start(&[]);
    machine.add_agent(&["--no-cgroups"]).await;
    let scheduler = Scheduler::subscribe(&machine.master).await;
    let offer = scheduler.offer("127.0.0.1").await;
    let agent_id = offer["agent_id"].clone();
    let agent = |kind: &str, part: &str| json!({"type": kind, part: {"agent_id": agent_id}});
    scheduler.launch(&offer, task("t", &offer, "plain")).await;
    scheduler.update("t", "TASK_STARTING").await;
    scheduler.update("t", "TASK_RUNNING").await;
    scheduler.offer("127.0.0.1").await;

    let reactivate = agent("REACTIVATE_AGENT", "reactivate_agent");
    refused(&machine, reactivate.clone(), "Agent is not deactivated").await;
    must(&machine, agent("DEACTIVATE_AGENT", "deactivate_agent")).await;
    scheduler.events.next("RESCIND").await;
    scheduler.call(json!({"type": "REVIVE"})).await;
    // The answer to a later call comes after the offers that a revival makes.
    scheduler
        .call(json!({"type": "RECONCILE", "reconcile": {"tasks": []}}))
        .await;
    scheduler.events.next("UPDATE").await;
    let none = |event: &Value| event["type"] != "OFFERS";
    assert!(scheduler.events.left().iter().all(none));
    must(&machine, reactivate.clone()).await;
    scheduler.offer("127.0.0.1").await;

    let mut drain = agent("DRAIN_AGENT", "drain_agent");
    drain["drain_agent"]["mark_gone"] = json!(true);
    must(&machine, drain).await;
    let sentence = "Agent is still in the DRAINING state";
    refused(&machine, reactivate.clone(), sentence).await;
    // Drained as soon as the scheduler knows that the task ended; then given up.
    let status = scheduler.update("t", "TASK_GONE_BY_OPERATOR").await;
    assert_eq!(status["reason"], "REASON_AGENT_DRAINING");
    scheduler.events.next("FAILURE").await;
    machine.agents[0].ended().await;
    refused(&machine, reactivate, "Agent is not deactivated").await;
    let unknown =
        json!({"type": "MARK_AGENT_GONE", "mark_agent_gone": {"agent_id": {"value": "x"}}});
    let answer = operate(&machine, &unknown).await;
    assert_eq!(
        (answer.status, answer.text.as_str()),
        (404, "Agent 'x' not found")
    );
    let gone = json!([{"task_id": {"value": "t"}, "agent_id": agent_id}]);
    scheduler
        .call(json!({"type": "RECONCILE", "reconcile": {"tasks": gone}}))
        .await;
    let status = scheduler.events.next("UPDATE").await["update"]["status"].clone();
    assert_eq!(status["state"], "TASK_GONE_BY_OPERATOR");
}
