//! Goal: agents die, hang and come back as real ones do, and containers are what they are told to be.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::executor;
use super::machine::{Machine, Scheduler, framework_info, task, task_with_command};
use super::replay::Player;
use super::web::DEADLINE;
use crate::support::{eventually, signal};
use crate::transcript;

/// A machine with one agent and a task that runs on it.
async fn with_running_task(script: &str, agent: &[&str]) -> (Machine, Scheduler, Value) {
    let mut machine = Machine::start(&[]);
    machine.add_agent(agent).await;
    let scheduler = Scheduler::subscribe(&machine.master).await;
    let offer = scheduler.offer("127.0.0.1").await;
    scheduler.launch(&offer, task("t", &offer, script)).await;
    scheduler.update("t", "TASK_STARTING").await;
    let running = scheduler.update("t", "TASK_RUNNING").await;
    // Messages keep their order: when this one is back, the agent has the acknowledgement as well.
    let message =
        json!({"agent_id": running["agent_id"], "executor_id": {"value": "t"}, "data": "cGluZw=="});
    scheduler
        .call(json!({"type": "MESSAGE", "message": message}))
        .await;
    scheduler.events.next("MESSAGE").await;
    (machine, scheduler, running)
}

fn pid(status: &Value) -> Pid {
    Pid::from_raw(
        i32::try_from(status["container_status"]["executor_pid"].as_i64().unwrap()).unwrap(),
    )
}

async fn wait_for_end(pid: Pid) {
    eventually("the executor's end", DEADLINE, || async {
        kill(pid, None).is_err().then_some(())
    })
    .await;
}

async fn reconcile(scheduler: &Scheduler) -> Value {
    scheduler
        .call(json!({"type": "RECONCILE", "reconcile": {"tasks": [{"task_id": {"value": "t"}}]}}))
        .await;
    scheduler
        .events
        .take("answer to a reconciliation", |event| {
            let status = &event["update"]["status"];
            (status["reason"] == "REASON_RECONCILIATION").then(|| status.clone())
        })
        .await
}

#[tokio::test]
async fn executors_outlive_their_agent() {
    let (mut machine, scheduler, running) =
        with_running_task("plain", &["--executor-reregistration-timeout", "30s"]).await;
    machine.agents[0].kill();
    assert!(kill(pid(&running), None).is_ok(), "the executor runs on");
    machine.restart_agent(0);
    machine.wait_for_agents(1).await;
    let status = reconcile(&scheduler).await;
    assert_eq!(status["state"], "TASK_RUNNING");
    assert_eq!(status["container_status"], running["container_status"]);
    scheduler
        .call(json!({"type": "KILL", "kill": {"task_id": {"value": "t"}}}))
        .await;
    scheduler.update("t", "TASK_KILLED").await;
    assert!(
        scheduler
            .events
            .left()
            .iter()
            .all(|event| event["type"] != "FAILURE")
    );
}

#[tokio::test]
async fn an_executor_that_dies_without_its_agent_is_noticed() {
    let (mut machine, scheduler, running) = with_running_task("plain", &[]).await;
    machine.agents[0].kill();
    kill(pid(&running), Signal::SIGKILL).unwrap();
    machine.restart_agent(0);
    let failed = scheduler.update("t", "TASK_FAILED").await;
    assert_eq!(failed["message"], "Executor terminated");
    assert_eq!(failed["source"], "SOURCE_AGENT");
}

#[tokio::test]
async fn an_executor_that_was_started_but_not_written_down_is_ended() {
    let (mut machine, scheduler, running) = with_running_task("plain", &["--no-cgroups"]).await;
    machine.agents[0].kill();
    // As if the agent had died right after the start.
    let record = super::recordings::find(&machine.work_dir(0).join("meta"), "run.json").unwrap();
    let mut stored: Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    assert_eq!(
        stored["process"]["pid"],
        running["container_status"]["executor_pid"]
    );
    stored["process"] = Value::Null;
    std::fs::write(&record, stored.to_string()).unwrap();
    machine.restart_agent(0);
    scheduler.update("t", "TASK_FAILED").await;
    // Left alone, it would go on looking for an agent for half a minute.
    let end = wait_for_end(pid(&running));
    tokio::time::timeout(Duration::from_secs(15), end)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_executor_that_does_not_come_back_is_ended() {
    let (mut machine, scheduler, running) =
        with_running_task("plain", &["--executor-reregistration-timeout", "1s"]).await;
    machine.agents[0].kill();
    signal(pid(&running).as_raw(), Signal::SIGSTOP);
    machine.restart_agent(0);
    let failed = scheduler.update("t", "TASK_FAILED").await;
    assert_eq!(
        failed["message"],
        "Executor did not reregister within 1secs"
    );
    assert_eq!(failed["reason"], "REASON_EXECUTOR_REREGISTRATION_TIMEOUT");
    wait_for_end(pid(&running)).await;
}

#[tokio::test]
async fn a_silent_agent_is_unreachable_until_it_is_back_as_recorded() {
    let mut machine = Machine::start(&[
        "--agent-ping-timeout",
        "1s",
        "--max-agent-ping-timeouts",
        "3",
    ]);
    machine.add_agent(&[]).await;
    machine.add_agent(&[]).await;
    let scheduler = Scheduler::subscribe(&machine.master).await;
    let offer = scheduler.offer("127.0.0.2").await;
    scheduler.launch(&offer, task("r1", &offer, "plain")).await;
    scheduler.update("r1", "TASK_STARTING").await;
    scheduler.update("r1", "TASK_RUNNING").await;
    // What is left of the agent is offered, and rescinded when the agent is lost.
    scheduler.offer("127.0.0.2").await;

    let mut player = Player::of(&machine.master.url, &scheduler.events);
    let recording = transcript::one("06-agent-lost");
    let call = recording.iter().find(|entry| entry.is_call()).unwrap();
    let recorded: Value = serde_json::from_str(&call.body).unwrap();
    player.bindings.bind(
        recorded["framework_id"]["value"].as_str().unwrap(),
        &scheduler.framework_id,
    );
    let stream = call.head.split('"').nth(3).unwrap();
    player.bindings.bind(stream, &scheduler.stream_id);

    let back = recording
        .iter()
        .position(|entry| entry.head.starts_with("SIGCONT"))
        .unwrap();
    machine.agents[1].signal(Signal::SIGSTOP);
    player.play(&recording[..back]).await;
    machine.agents[1].signal(Signal::SIGCONT);
    player.play(&recording[back..]).await;
}

#[tokio::test]
async fn an_executor_that_never_subscribes_is_ended() {
    let mut machine = Machine::start(&[]);
    machine
        .add_agent(&["--executor-registration-timeout", "500ms"])
        .await;
    let scheduler = Scheduler::subscribe(&machine.master).await;
    let offer = scheduler.offer("127.0.0.1").await;
    scheduler.launch(&offer, task("t", &offer, "silent")).await;
    let failed = scheduler.update("t", "TASK_FAILED").await;
    assert_eq!(failed["message"], "Executor did not register within 500ms");
    assert_eq!(failed["reason"], "REASON_EXECUTOR_REGISTRATION_TIMEOUT");
    assert_eq!(
        scheduler.events.next("FAILURE").await["failure"]["status"],
        9
    );
}

#[tokio::test]
async fn an_executor_that_ignores_shutdown_is_killed_after_the_grace_period() {
    let (_machine, scheduler, running) =
        with_running_task("deaf", &["--executor-shutdown-grace-period", "300ms"]).await;
    let shutdown = json!({"agent_id": running["agent_id"], "executor_id": {"value": "t"}});
    scheduler
        .call(json!({"type": "SHUTDOWN", "shutdown": shutdown}))
        .await;
    assert_eq!(
        scheduler.events.next("FAILURE").await["failure"]["status"],
        9
    );
    scheduler.update("t", "TASK_FAILED").await;
}

#[tokio::test]
async fn an_agent_that_is_asked_to_end_takes_its_executors_along() {
    let (mut machine, _scheduler, running) = with_running_task("plain", &[]).await;
    machine.agents[0].stop();
    assert!(kill(pid(&running), None).is_err(), "the executor is gone");
}

#[tokio::test]
async fn a_task_that_is_killed_before_its_executor_is_there_never_starts() {
    let mut machine = Machine::start(&[]);
    machine
        .add_agent(&["--executor-shutdown-grace-period", "300ms"])
        .await;
    let scheduler = Scheduler::subscribe(&machine.master).await;
    let offer = scheduler.offer("127.0.0.1").await;
    scheduler.launch(&offer, task("t", &offer, "silent")).await;
    scheduler
        .call(json!({"type": "KILL", "kill": {"task_id": {"value": "t"}}}))
        .await;
    let killed = scheduler.update("t", "TASK_KILLED").await;
    assert_eq!(killed["message"], "Killed before delivery to the executor");
    scheduler.events.next("FAILURE").await;
}

#[tokio::test]
async fn memory_beyond_the_limit_ends_the_container() {
    let mut machine = Machine::start(&[]);
    machine.add_agent(&[]).await;
    let log = std::fs::read_to_string(machine.directory.path().join("agent-1.log")).unwrap();
    if log.contains("memory and cpus of containers are not limited") {
        assert!(
            !nix::unistd::geteuid().is_root(),
            "root can limit containers: {log}"
        );
        eprintln!("not tried: limits need root");
        return;
    }
    let scheduler = Scheduler::subscribe(&machine.master).await;
    let offer = scheduler.offer("127.0.0.1").await;
    scheduler.launch(&offer, task("t", &offer, "greedy")).await;
    // It may or may not subscribe before the memory is used up; the executor itself would live on.
    let mut status = json!({});
    while status["state"] != "TASK_FAILED" {
        status = scheduler.events.next("UPDATE").await["update"]["status"].clone();
        scheduler.acknowledge(&status).await;
    }
    assert_eq!(status["reason"], "REASON_CONTAINER_LIMITATION_MEMORY");
}

/// Files for the sandbox: an archive, and a program.
fn make_files(folder: &Path) {
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(
        std::fs::File::create(folder.join("things.tar.gz")).unwrap(),
        flate2::Compression::fast(),
    ));
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o644);
    header.set_cksum();
    archive
        .append_data(&mut header, "inner/file", &b"hello"[..])
        .unwrap();
    archive.into_inner().unwrap().finish().unwrap();
    std::fs::write(folder.join("tool"), "#!/bin/sh\nexit 0\n").unwrap();
}

/// Serves one file over HTTP, as often as it is asked for.
async fn serve(text: &'static str) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let service = axum::Router::new().fallback(move || async move { text });
    tokio::spawn(async move { axum::serve(listener, service).await });
    url
}

#[tokio::test]
async fn files_are_fetched_into_the_sandbox() {
    let mut machine = Machine::start(&[]);
    machine.add_agent(&[]).await;
    let files = machine.directory.path().to_owned();
    make_files(&files);
    let url = serve("from the web").await;
    let mut command = executor::command("plain");
    let check = "test -x tool && test \"$(cat inner/file)\" = hello && test -f things.tar.gz && \
                 test \"$(cat renamed)\" = 'from the web'";
    command["value"] = json!(format!("{check} && {}", executor::command_line()));
    command["uris"] = json!([
        {"value": format!("file://{}/things.tar.gz", files.display())},
        {"value": format!("{}/tool", files.display()), "executable": true},
        {"value": format!("{url}/page"), "output_file": "renamed", "extract": false},
    ]);
    let scheduler = Scheduler::subscribe(&machine.master).await;
    let offer = scheduler.offer("127.0.0.1").await;
    scheduler
        .launch(&offer, task_with_command("t", &offer, command))
        .await;
    scheduler.update("t", "TASK_STARTING").await;
}

#[tokio::test]
async fn nothing_of_a_container_outlives_it() {
    let mut machine = Machine::start(&[]);
    // Without control groups only the session tells what belongs to the container.
    machine.add_agent(&["--no-cgroups"]).await;
    let scheduler = Scheduler::subscribe(&machine.master).await;
    let offer = scheduler.offer("127.0.0.1").await;
    let note = machine.directory.path().join("child");
    std::fs::File::create(&note).unwrap().flush().unwrap();
    // A grandchild in a process group of its own, as a database server is.
    let line = format!(
        "set -m; sleep 1000 & echo $! > {}; {}",
        note.display(),
        executor::command_line()
    );
    let mut command = executor::command("plain");
    command["value"] = json!(line);
    scheduler
        .launch(&offer, task_with_command("t", &offer, command))
        .await;
    scheduler.update("t", "TASK_STARTING").await;
    let running = scheduler.update("t", "TASK_RUNNING").await;
    let child = Pid::from_raw(
        std::fs::read_to_string(&note)
            .unwrap()
            .trim()
            .parse()
            .unwrap(),
    );
    assert!(kill(child, None).is_ok());
    kill(pid(&running), Signal::SIGKILL).unwrap();
    let failure = tokio::time::timeout(Duration::from_secs(30), scheduler.events.next("FAILURE"))
        .await
        .unwrap();
    assert_eq!(failure["failure"]["status"], 9);
    wait_for_end(child).await;
}

#[tokio::test]
async fn a_fault_domain_needs_a_master_with_one() {
    let mut machine = Machine::start(&[]);
    machine.start_agent(&["--domain", "eu/a"]);
    eventually("the agent is refused", DEADLINE, || async {
        let log = std::fs::read_to_string(machine.log(0)).unwrap();
        log.contains("configured with a domain").then_some(())
    })
    .await;
}

#[tokio::test]
async fn agents_of_other_regions_are_offered_to_those_who_know_of_regions() {
    let mut machine = Machine::start(&["--domain", "eu/a"]);
    for (host, domain) in [("far", "us/a"), ("near", "eu/b")] {
        let arguments = ["--hostname", host, "--domain", domain];
        machine.add_agent(&arguments).await;
    }
    let scheduler = Scheduler::subscribe(&machine.master).await;
    let near = scheduler.offer("near").await;
    let zone = &near["domain"]["fault_domain"]["zone"]["name"];
    assert_eq!(zone, "b", "{near}");
    let mut framework = framework_info();
    let capabilities = framework["capabilities"].as_array_mut().unwrap();
    capabilities.push(json!({"type": "REGION_AWARE"}));
    // What the first one wanted it would have got before.
    let aware = Scheduler::subscribe_as(&machine.master, framework).await;
    aware.offer("far").await;
}
