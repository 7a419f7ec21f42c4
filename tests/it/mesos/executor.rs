//! The executor's client: subscribing at the agent, updates until they are acknowledged, agents that
//! go away and come back.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use cotton::mesos::executor::{
    ExecutorEnvironment, ExecutorEvent, ExecutorHandle, MessageError, start,
};
use cotton::mesos::v1;
use cotton::mesos::v1::executor::event::{self, Type};
use cotton::mesos::v1::executor::{Call, Event, call};
use http::StatusCode;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::peer::{DEADLINE, Peer, Received, Stream};

/// A client under test, stopped on drop.
pub struct Client {
    handle: ExecutorHandle,
    events: mpsc::Receiver<ExecutorEvent>,
    _stop: DropGuard,
}

impl Client {
    pub fn start(agent: &str) -> Self {
        Self::with(agent, |_| None)
    }

    fn with(agent: &str, other: impl Fn(&str) -> Option<String>) -> Self {
        let environment = ExecutorEnvironment::from_variables(|name| match name {
            "MESOS_AGENT_ENDPOINT" => Some(agent.to_owned()),
            "MESOS_SLAVE_PID" => Some("slave(1)@127.0.0.1:5051".to_owned()),
            "MESOS_FRAMEWORK_ID" => Some("f1".to_owned()),
            "MESOS_EXECUTOR_ID" => Some("e1".to_owned()),
            "MESOS_SANDBOX" => Some("/tmp".to_owned()),
            "MESOS_SUBSCRIPTION_BACKOFF_MAX" => Some("100ms".to_owned()),
            // It goes on for longer than this.
            "MESOS_RECOVERY_TIMEOUT" => Some("1ms".to_owned()),
            name => other(name),
        })
        .unwrap();
        let stop = CancellationToken::new();
        let (handle, events) = start(environment, stop.clone());
        Self {
            handle,
            events,
            _stop: stop.drop_guard(),
        }
    }

    pub async fn event(&mut self) -> ExecutorEvent {
        timeout(DEADLINE, self.events.recv())
            .await
            .expect("an event comes")
            .unwrap()
    }

    async fn subscribed(&mut self) {
        let event = self.event().await;
        assert!(matches!(event, ExecutorEvent::Subscribed(_)), "{event:?}");
    }

    async fn disconnected(&mut self) -> String {
        match self.event().await {
            ExecutorEvent::Disconnected { reason } => reason,
            other => panic!("expected Disconnected, not {other:?}"),
        }
    }
}

fn event_of(kind: Type) -> Event {
    Event {
        r#type: Some(kind as i32),
        ..Event::default()
    }
}

fn launch(task: &str) -> Event {
    let task_id = v1::TaskId { value: task.into() };
    let task = v1::TaskInfo {
        task_id,
        name: task.into(),
        ..Default::default()
    };
    Event {
        launch: Some(event::Launch { task }),
        ..event_of(Type::Launch)
    }
}

fn acknowledged(update: &v1::TaskStatus) -> Event {
    let acknowledged = event::Acknowledged {
        task_id: update.task_id.clone(),
        uuid: update.uuid.clone().unwrap(),
    };
    Event {
        acknowledged: Some(acknowledged),
        ..event_of(Type::Acknowledged)
    }
}

fn status(task: &str, state: v1::TaskState) -> v1::TaskStatus {
    v1::TaskStatus {
        task_id: v1::TaskId { value: task.into() },
        state: state as i32,
        ..Default::default()
    }
}

/// Takes the next SUBSCRIBE and answers it with SUBSCRIBED.
async fn take_subscription(agent: &mut Peer) -> (call::Subscribe, Stream) {
    let request = agent.request().await;
    let call = request.call::<Call>();
    assert_eq!(call.r#type, Some(call::Type::Subscribe as i32));
    assert_eq!(
        (
            call.executor_id.value.as_str(),
            call.framework_id.value.as_str()
        ),
        ("e1", "f1")
    );
    let stream = request.stream();
    let subscribed = Event {
        subscribed: Some(event::Subscribed::default()),
        ..event_of(Type::Subscribed)
    };
    stream.event(&subscribed).await;
    (call.subscribe.unwrap(), stream)
}

async fn take_update(agent: &mut Peer) -> v1::TaskStatus {
    let request = agent.request().await;
    let update = update_in(&request);
    request.accept();
    update
}

fn update_in(request: &Received) -> v1::TaskStatus {
    let call = request.call::<Call>();
    assert_eq!(call.r#type, Some(call::Type::Update as i32));
    call.update.unwrap().status
}

async fn subscribed() -> (Peer, Stream, Client) {
    let mut agent = Peer::start().await;
    let mut client = Client::start(&agent.address);
    let (_, stream) = take_subscription(&mut agent).await;
    client.subscribed().await;
    (agent, stream, client)
}

#[tokio::test]
async fn a_task_is_launched_told_of_and_killed() {
    let (mut agent, stream, mut client) = subscribed().await;
    stream.event(&launch("t1")).await;
    let ExecutorEvent::Launch(task) = client.event().await else {
        panic!("a launch");
    };
    assert_eq!(task.task_id.value, "t1");
    client
        .handle
        .update(status("t1", v1::TaskState::TaskStarting));
    client
        .handle
        .update(status("t1", v1::TaskState::TaskRunning));
    let starting = take_update(&mut agent).await;
    assert_eq!(starting.state, v1::TaskState::TaskStarting as i32);
    assert_eq!(starting.uuid.as_ref().unwrap().len(), 16);
    assert_eq!(
        starting.source,
        Some(v1::task_status::Source::Executor as i32)
    );
    assert_eq!(starting.executor_id.as_ref().unwrap().value, "e1");
    assert!(starting.timestamp.unwrap() > 1.7e9);
    let running = take_update(&mut agent).await;
    assert_eq!(running.state, v1::TaskState::TaskRunning as i32);
    assert_ne!(starting.uuid, running.uuid);

    assert!(
        !client
            .handle
            .acknowledged_all(Duration::from_millis(20))
            .await
    );
    for update in [&starting, &running] {
        stream.event(&acknowledged(update)).await;
        let event = client.event().await;
        assert!(
            matches!(event, ExecutorEvent::Acknowledged { .. }),
            "{event:?}"
        );
    }
    assert!(client.handle.acknowledged_all(DEADLINE).await);

    let kill = event::Kill {
        task_id: v1::TaskId { value: "t1".into() },
        kill_policy: Some(v1::KillPolicy {
            grace_period: Some(v1::DurationInfo {
                nanoseconds: 1_500_000_000,
            }),
        }),
    };
    let kill = Event {
        kill: Some(kill),
        ..event_of(Type::Kill)
    };
    stream.event(&kill).await;
    let expected = ExecutorEvent::Kill {
        task_id: "t1".into(),
        grace_period: Some(Duration::from_millis(1500)),
    };
    assert_eq!(client.event().await, expected);
    stream.event(&event_of(Type::Shutdown)).await;
    assert_eq!(client.event().await, ExecutorEvent::Shutdown);
}

#[tokio::test]
async fn an_agent_that_comes_back_learns_what_it_has_not_acknowledged() {
    let (mut agent, stream, mut client) = subscribed().await;
    stream.event(&launch("t1")).await;
    client.event().await;
    client
        .handle
        .update(status("t1", v1::TaskState::TaskStarting));
    let starting = take_update(&mut agent).await;

    // The agent is killed; the task gets on meanwhile, and the executor does not give up.
    let address = agent.address.clone();
    agent.stop().await;
    drop(stream);
    client.disconnected().await;
    client
        .handle
        .update(status("t1", v1::TaskState::TaskRunning));
    let reason = client.disconnected().await;
    assert!(
        reason.contains("reach the Mesos agent: connect to"),
        "{reason}"
    );

    let mut agent = Peer::start_at(&address).await;
    let (subscribe, stream) = take_subscription(&mut agent).await;
    client.subscribed().await;
    assert_eq!(subscribe.unacknowledged_tasks[0].task_id.value, "t1");
    let updates = subscribe.unacknowledged_updates;
    assert_eq!(updates.len(), 2);
    assert_eq!(
        updates[0].status, starting,
        "the same update, with its uuid"
    );
    assert_eq!(updates[1].status.state, v1::TaskState::TaskRunning as i32);

    // What was in SUBSCRIBE is not sent again as an UPDATE; what comes now is.
    stream.event(&acknowledged(&updates[0].status)).await;
    client
        .handle
        .update(status("t1", v1::TaskState::TaskFinished));
    let finished = take_update(&mut agent).await;
    assert_eq!(finished.state, v1::TaskState::TaskFinished as i32);
    drop(stream);

    let (subscribe, _stream) = take_subscription(&mut agent).await;
    assert_eq!(
        subscribe.unacknowledged_tasks.len(),
        0,
        "one of its updates was acknowledged"
    );
    assert_eq!(subscribe.unacknowledged_updates.len(), 2);
}

#[tokio::test]
async fn an_update_that_the_agent_did_not_take_goes_with_the_next_subscription() {
    let (mut agent, stream, mut client) = subscribed().await;
    client
        .handle
        .update(status("t1", v1::TaskState::TaskRunning));
    let request = agent.request().await;
    let update = update_in(&request);
    request.answer(StatusCode::FORBIDDEN, "Executor is not subscribed");
    let reason = client.disconnected().await;
    assert!(
        reason.contains("403 Forbidden: Executor is not subscribed"),
        "{reason}"
    );
    stream.closed().await;
    let (subscribe, _stream) = take_subscription(&mut agent).await;
    assert_eq!(subscribe.unacknowledged_updates[0].status, update);
}

#[tokio::test]
async fn a_refused_subscription_is_asked_for_again_for_ever() {
    let mut agent = Peer::start().await;
    let mut client = Client::start(&agent.address);
    for _ in 0..5 {
        let request = agent.request().await;
        request.answer(StatusCode::BAD_REQUEST, "Executor cannot be found");
    }
    let reason = client.disconnected().await;
    assert!(
        reason.contains("400 Bad Request: Executor cannot be found"),
        "{reason}"
    );
    let (_, _stream) = take_subscription(&mut agent).await;
    client.subscribed().await;
}

#[tokio::test]
async fn a_launch_that_comes_twice_is_passed_on_once() {
    let (_agent, stream, mut client) = subscribed().await;
    stream.event(&launch("t1")).await;
    stream.event(&launch("t1")).await;
    stream.event(&launch("t2")).await;
    for expected in ["t1", "t2"] {
        let ExecutorEvent::Launch(task) = client.event().await else {
            panic!("a launch");
        };
        assert_eq!(task.task_id.value, expected);
    }
}

#[tokio::test]
async fn messages_go_both_ways_while_subscribed() {
    let mut agent = Peer::start().await;
    let mut client = Client::start(&agent.address);
    let error = client.handle.message(b"early".to_vec()).await.unwrap_err();
    assert!(matches!(error, MessageError::NotSubscribed));
    let (_, stream) = take_subscription(&mut agent).await;
    client.subscribed().await;
    let message = event::Message {
        data: b"ping".to_vec(),
    };
    let message = Event {
        message: Some(message),
        ..event_of(Type::Message)
    };
    stream.event(&message).await;
    assert_eq!(client.event().await, ExecutorEvent::Message("ping".into()));
    // `subscribed` is told before the first event that follows it.
    let handle = client.handle.clone();
    let sending = tokio::spawn(async move { handle.message(b"pong".to_vec()).await });
    let request = agent.request().await;
    assert_eq!(request.call::<Call>().message.unwrap().data, b"pong");
    request.accept();
    sending.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_token_and_the_domain_socket_of_a_deep_sandbox_are_used() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("a".repeat(100));
    std::fs::create_dir(&deep).unwrap();
    // A server binds by a short path; the client is given the long one.
    let short = folder.path().join("s");
    let mut agent = Peer::start_unix(&short);
    let socket = deep.join("agent.sock");
    std::fs::hard_link(&short, &socket).unwrap();
    assert!(socket.as_os_str().len() > 107);

    let mut client = Client::with("127.0.0.1:1", |name| match name {
        "MESOS_DOMAIN_SOCKET" => Some(socket.display().to_string()),
        "MESOS_EXECUTOR_AUTHENTICATION_TOKEN" => Some("header.payload.mark".to_owned()),
        _ => None,
    });
    let request = agent.request().await;
    assert_eq!(request.path, "/slave(1)/api/v1/executor");
    let token = Some("Bearer header.payload.mark");
    assert_eq!(request.header("authorization"), token);
    let stream = request.stream();
    let subscribed = Event {
        subscribed: Some(event::Subscribed::default()),
        ..event_of(Type::Subscribed)
    };
    stream.event(&subscribed).await;
    client.subscribed().await;
    client
        .handle
        .update(status("t1", v1::TaskState::TaskRunning));
    let request = agent.request().await;
    assert_eq!(request.path, "/slave(1)/api/v1/executor");
    assert_eq!(request.header("authorization"), token);
    request.accept();
}

#[tokio::test]
async fn a_frame_that_is_no_event_is_named_and_subscribed_past() {
    let (mut agent, stream, mut client) = subscribed().await;
    stream.bytes(&b"2\n\xff\xff"[..]).await;
    let reason = client.disconnected().await;
    assert!(reason.contains("refuse event 2 from 127.0.0.1"), "{reason}");
    let (_, _stream) = take_subscription(&mut agent).await;
    client.subscribed().await;
}

/// Guards the assumption of the tests above: prost takes an absent required message for an empty one.
#[test]
fn an_empty_subscribed_survives_the_wire() {
    let bytes = event::Subscribed::default().encode_to_vec();
    assert_eq!(
        event::Subscribed::decode(bytes.as_slice()).unwrap(),
        event::Subscribed::default()
    );
}
