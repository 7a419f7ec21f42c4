//! Goal: masters are elected, die and come back, and frameworks with them, as recorded.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use cotton::mesos::json as mesos_json;
use cotton::mesos::recordio::{Decoder, encode};
use cotton::mesos::v1::scheduler::{Call, Event, call, event};
use cotton::mesos::v1::{FrameworkInfo, scheduler};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use nix::sys::signal::Signal;
use prost::Message as _;
use serde_json::{Value, json};

use super::machine::{Machine, Scheduler, framework_info, task};
use super::replay::Bindings;
use super::web::{self, DEADLINE};
use crate::support::eventually;
use crate::support::zookeeper::ZooKeeper;
use crate::transcript;

#[tokio::test]
async fn after_a_failover_of_the_master_a_task_has_no_state_until_its_agent_is_back() {
    let mut machine = Machine::start(&[]);
    machine.add_agent(&[]).await;
    let scheduler = Scheduler::subscribe(&machine.master).await;
    let offer = scheduler.offer("127.0.0.1").await;
    scheduler.launch(&offer, task("t", &offer, "plain")).await;
    scheduler.update("t", "TASK_STARTING").await;
    let running = scheduler.update("t", "TASK_RUNNING").await;

    machine.agents[0].signal(Signal::SIGSTOP);
    machine.master.kill();
    machine.restart_master();
    let mut framework = framework_info();
    framework["id"] = json!({"value": scheduler.framework_id});
    let scheduler = Scheduler::subscribe_as(&machine.master, framework).await;
    let ask = json!([{"task_id": {"value": "t"}, "agent_id": running["agent_id"]}, {"task_id": {"value": "t"}}]);
    scheduler
        .call(json!({"type": "RECONCILE", "reconcile": {"tasks": ask}}))
        .await;
    // An unknown agent gets its answer, and that comes after the others would have come.
    let unknown = json!([{"task_id": {"value": "u"}, "agent_id": {"value": "no-such-agent"}}]);
    scheduler
        .call(json!({"type": "RECONCILE", "reconcile": {"tasks": unknown}}))
        .await;
    let first = scheduler.events.next("UPDATE").await;
    assert_eq!(first["update"]["status"]["task_id"]["value"], "u");
    assert_eq!(first["update"]["status"]["state"], "TASK_UNKNOWN");

    machine.agents[0].signal(Signal::SIGCONT);
    machine.wait_for_agents(1).await;
    scheduler
        .call(json!({"type": "RECONCILE", "reconcile": {"tasks": []}}))
        .await;
    let status = scheduler.events.next("UPDATE").await["update"]["status"].clone();
    assert_eq!(status["state"], "TASK_RUNNING");
    assert_eq!(status["container_status"], running["container_status"]);
}

#[tokio::test]
async fn a_framework_that_stays_away_too_long_is_removed() {
    let mut machine = Machine::start(&["--time-scale", "10"]);
    machine.add_agent(&[]).await;
    let mut framework = framework_info();
    framework["failover_timeout"] = json!(5.0);
    let scheduler = Scheduler::subscribe_as(&machine.master, framework.clone()).await;
    let id = scheduler.framework_id.clone();
    // A second one takes its place; then that one's connection ends with its runtime.
    framework["id"] = json!({"value": id});
    let other = {
        let framework = framework.clone();
        let url = machine.master.url.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let call = json!({
                    "type": "SUBSCRIBE", "framework_id": framework["id"],
                    "subscribe": {"framework_info": framework},
                });
                let headers = [("Content-Type".to_owned(), "application/json".to_owned())];
                let url = format!("{url}/api/v1/scheduler");
                web::ask("POST", &url, &headers, &call.to_string())
                    .await
                    .status()
            })
        })
    };
    assert_eq!(
        scheduler.events.next("ERROR").await["error"]["message"],
        "Framework failed over"
    );
    scheduler.events.closed(scheduler.number).await;
    assert_eq!(other.join().unwrap(), 200);

    let state = format!("{}/state", machine.master.url);
    eventually("the framework is removed", DEADLINE, || async {
        let state = web::get(&state).await?;
        let completed = state["completed_frameworks"].as_array()?;
        completed.iter().any(|one| *one == *id).then_some(())
    })
    .await;
}

/// The recorded node of a master's group.
fn recorded_node(text: &str) -> Value {
    let start = text.find("b'{").unwrap() + 2;
    let end = start + text[start..].find('\'').unwrap();
    serde_json::from_str(&text[start..end]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn masters_stand_for_election_in_zookeeper_as_recorded() {
    let zookeeper = ZooKeeper::start();
    let group = format!("zk://{}/mesos", zookeeper.address());
    // Sessions of 5 s end soon enough for the test, and not by themselves on a loaded machine.
    let arguments = ["--zk", group.as_str(), "--time-scale", "2"];
    let mut first = Machine::start(&arguments);
    first.add_agent(&[]).await;
    let second = Machine::start(&arguments);

    let client = zookeeper_client::Client::connect(&zookeeper.address())
        .await
        .unwrap();
    let mut nodes = eventually("both nodes", DEADLINE, || async {
        let nodes = client.list_children("/mesos").await.ok()?;
        (nodes.len() == 2).then_some(nodes)
    })
    .await;
    nodes.sort();
    assert_eq!(nodes, ["json.info_0000000000", "json.info_0000000001"]);
    let (data, _) = client
        .get_data("/mesos/json.info_0000000000")
        .await
        .unwrap();
    let fixture =
        crate::support::in_project("tests/fixtures/mesos/08-zookeeper-master-detection.txt");
    let recorded = recorded_node(&std::fs::read_to_string(fixture).unwrap());
    let actual: Value = serde_json::from_slice(&data).unwrap();
    assert!(
        Bindings::default().same("", &recorded, &actual),
        "{actual:#}"
    );

    // The follower sends schedulers to the leader.
    let recording = transcript::one("10-three-masters");
    let call = recording.iter().find(|entry| entry.is_call()).unwrap();
    let ask = || web::post_text(&second.master.url, "/api/v1/scheduler", &call.body);
    let answer = ask().await;
    assert_eq!((answer.status, answer.text.as_str()), (307, ""));
    let leader = first.master.address().replace("127.0.0.1", "localhost");
    let location = answer.headers["location"].to_str().unwrap();
    assert_eq!(location, format!("//{leader}/master/api/v1/scheduler"));

    // The leader dies; the other one leads when the session is over.
    first.master.kill();
    let url = format!("{}/api/v1/scheduler", second.master.url);
    let headers = [("Content-Type".to_owned(), "application/json".to_owned())];
    eventually("the other master leads", DEADLINE, || async {
        let status = web::ask("POST", &url, &headers, &call.body).await.status();
        (status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn schedulers_may_speak_protobuf() {
    let mut machine = Machine::start(&[]);
    machine.add_agent(&[]).await;
    let framework: FrameworkInfo = mesos_json::from_value(&framework_info()).unwrap();
    let subscribe = Call {
        r#type: Some(call::Type::Subscribe.into()),
        subscribe: Some(scheduler::call::Subscribe {
            framework_info: framework,
            suppressed_roles: Vec::new(),
        }),
        ..Default::default()
    };
    let request = hyper::Request::post(format!("{}/api/v1/scheduler", machine.master.url))
        .header("content-type", "application/x-protobuf")
        .header("accept", "application/x-protobuf")
        .body(Full::new(Bytes::from(subscribe.encode_to_vec())))
        .unwrap();
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let response = client.request(request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/x-protobuf");
    let mut body = response.into_body();
    let mut decoder = Decoder::new(1 << 20);
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let frame = tokio::time::timeout(Duration::from_secs(30), body.frame())
            .await
            .unwrap();
        decoder.feed(&frame.unwrap().unwrap().into_data().unwrap());
        while let Some(record) = decoder.next().unwrap() {
            let event: Event = mesos_json::from_protobuf(&record).unwrap();
            assert_eq!(encode(&event.encode_to_vec()), encode(&record));
            seen.push(event.r#type());
        }
    }
    assert_eq!(
        seen,
        [
            event::Type::Subscribed,
            event::Type::Heartbeat,
            event::Type::Offers
        ]
    );
}
