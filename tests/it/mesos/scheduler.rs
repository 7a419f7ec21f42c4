//! The scheduler's client: finding the master, subscribing, losing it, calling it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use cotton::backoff::Backoff;
use cotton::mesos::connection::{Deadlines, MAX_EVENT_BYTES};
use cotton::mesos::scheduler::{
    CallError, Credential, MasterAddresses, SchedulerConfig, SchedulerEvent, SchedulerHandle,
    Timeouts, start,
};
use cotton::mesos::v1::scheduler::event::{Subscribed, Type};
use cotton::mesos::v1::scheduler::{Call, Event, call};
use cotton::mesos::{calls, v1};
use cotton::secret::Secret;
use http::StatusCode;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::peer::{DEADLINE, Peer, Received, STREAM_ID, Stream};
use crate::support::free_port;

/// The framework id in the recorded SUBSCRIBED.
pub const FRAMEWORK: &str = "9046b69b-606f-483a-ac2a-e13347df2370-0000";

/// A client under test, stopped on drop.
pub struct Client {
    pub handle: SchedulerHandle,
    pub events: mpsc::Receiver<SchedulerEvent>,
    _stop: DropGuard,
}

impl Client {
    pub fn start(masters: &str) -> Self {
        Self::with(masters, None, None)
    }

    fn with(masters: &str, credential: Option<Credential>, id: Option<&str>) -> Self {
        let config = SchedulerConfig {
            masters: MasterAddresses::parse(masters).unwrap(),
            framework: framework(),
            credential,
            timeouts: Timeouts {
                deadlines: Deadlines {
                    connect: Duration::from_secs(5),
                    answer: Duration::from_secs(2),
                },
                backoff: Backoff::try_new(Duration::from_millis(5), Duration::from_millis(50))
                    .unwrap(),
            },
        };
        let stop = CancellationToken::new();
        let (handle, events) = start(config, id.map(str::to_owned), stop.clone());
        Self {
            handle,
            events,
            _stop: stop.drop_guard(),
        }
    }

    pub async fn event(&mut self) -> SchedulerEvent {
        timeout(DEADLINE, self.events.recv())
            .await
            .expect("an event comes")
            .expect("the client goes on")
    }

    pub async fn subscribed(&mut self) -> (String, String) {
        match self.event().await {
            SchedulerEvent::Subscribed {
                framework_id,
                master,
            } => (framework_id, master),
            other => panic!("expected Subscribed, not {other:?}"),
        }
    }

    pub async fn disconnected(&mut self) -> String {
        match self.event().await {
            SchedulerEvent::Disconnected { reason } => reason,
            other => panic!("expected Disconnected, not {other:?}"),
        }
    }

    async fn fatal(&mut self) -> String {
        match self.last_event().await {
            SchedulerEvent::Fatal { message } => message,
            other => panic!("expected Fatal, not {other:?}"),
        }
    }

    async fn last_event(&mut self) -> SchedulerEvent {
        let last = self.event().await;
        let end = timeout(DEADLINE, self.events.recv()).await.unwrap();
        assert_eq!(end, None, "nothing comes after {last:?}");
        last
    }
}

fn framework() -> v1::FrameworkInfo {
    use v1::framework_info::capability::Type;
    let capability = |kind: Type| v1::framework_info::Capability {
        r#type: Some(kind as i32),
    };
    v1::FrameworkInfo {
        user: "root".into(),
        name: "cotton".into(),
        roles: vec!["cotton".into()],
        checkpoint: Some(true),
        failover_timeout: Some(3600.0),
        capabilities: vec![
            capability(Type::MultiRole),
            capability(Type::PartitionAware),
        ],
        ..Default::default()
    }
}

/// Takes the next SUBSCRIBE and answers it with a stream that begins as recorded.
pub async fn take_subscription(master: &mut Peer) -> (Call, Stream) {
    let request = master.request().await;
    let call = request.call::<Call>();
    assert_eq!(call.r#type, Some(call::Type::Subscribe as i32));
    let stream = request.stream();
    stream.recorded("event-subscribed-1.bin").await;
    (call, stream)
}

/// A master to which a client is subscribed.
async fn subscribed() -> (Peer, Stream, Client) {
    let mut master = Peer::start().await;
    let mut client = Client::start(&master.address);
    let (_, stream) = take_subscription(&mut master).await;
    client.subscribed().await;
    (master, stream, client)
}

fn id_of(call: &Call) -> Option<&str> {
    call.framework_id.as_ref().map(|id| id.value.as_str())
}

fn subscribed_every(seconds: f64) -> Event {
    Event {
        r#type: Some(Type::Subscribed as i32),
        subscribed: Some(Subscribed {
            framework_id: v1::FrameworkId {
                value: FRAMEWORK.into(),
            },
            heartbeat_interval_seconds: Some(seconds),
            master_info: None,
        }),
        ..Event::default()
    }
}

#[tokio::test]
async fn recorded_events_arrive_as_they_were_sent() {
    let mut master = Peer::start().await;
    let mut client = Client::start(&master.address);
    let request = master.request().await;
    assert_eq!(request.path, "/api/v1/scheduler");
    for name in ["content-type", "accept"] {
        assert_eq!(request.header(name), Some("application/x-protobuf"));
    }
    assert_eq!(request.header("host"), Some(master.address.as_str()));
    assert_eq!(request.header("mesos-stream-id"), None);
    let call = request.call::<Call>();
    assert_eq!(id_of(&call), None, "Mesos gives a new framework its id");
    assert_eq!(call.subscribe.unwrap().framework_info.name, "cotton");

    let stream = request.stream();
    stream.recorded("event-subscribed-1.bin").await;
    let (framework_id, address) = client.subscribed().await;
    assert_eq!(
        (framework_id.as_str(), &address),
        (FRAMEWORK, &master.address)
    );

    for name in ["heartbeat-1", "offers-1", "update-1", "message-1"] {
        stream.recorded(&format!("event-{name}.bin")).await;
    }
    let SchedulerEvent::Offers(offers) = client.event().await else {
        panic!("heartbeats are not passed on, offers are");
    };
    assert!(!offers.is_empty() && offers.iter().all(|offer| !offer.resources.is_empty()));
    let SchedulerEvent::Update(status) = client.event().await else {
        panic!("an update");
    };
    assert_eq!(status.task_id.value, "pb1");
    assert_eq!(status.state, v1::TaskState::TaskStarting as i32);
    let SchedulerEvent::Message { data, .. } = client.event().await else {
        panic!("a message");
    };
    assert_eq!(data, b"ping");
}

#[tokio::test]
async fn calls_carry_the_stream_and_the_framework_and_keep_their_order() {
    let (mut master, _stream, client) = subscribed().await;
    let handle = client.handle.clone();
    let calling = tokio::spawn(async move {
        let kill = calls::kill("t1", Some("a1"), Some(Duration::from_secs(3)));
        let (one, two) = tokio::join!(
            handle.call(calls::decline(["o1", "o2"], Duration::from_secs(5))),
            handle.call(kill)
        );
        one.and(two)
    });
    let request = master.request().await;
    assert_eq!(request.header("mesos-stream-id"), Some(STREAM_ID));
    let call = request.call::<Call>();
    assert_eq!(id_of(&call), Some(FRAMEWORK));
    let decline = call.decline.unwrap();
    assert_eq!(decline.offer_ids.len(), 2);
    assert_eq!(decline.filters.unwrap().refuse_seconds, Some(5.0));
    assert!(master.is_idle(), "the second call waits for the first");
    request.accept();
    let request = master.request().await;
    let kill = request.call::<Call>().kill.unwrap();
    let grace = kill.kill_policy.unwrap().grace_period.unwrap();
    assert_eq!(grace.nanoseconds, 3_000_000_000);
    request.accept();
    calling.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_redirection_without_scheme_is_followed_for_the_stream_and_for_calls() {
    let (mut follower, mut leader) = (Peer::start().await, Peer::start().await);
    let mut client = Client::start(&follower.address);
    let location = format!("//{}/master/api/v1/scheduler", leader.address);
    follower.request().await.redirect(&location);
    let (_, _stream) = take_subscription(&mut leader).await;
    assert_eq!(client.subscribed().await.1, leader.address);
    let handle = client.handle.clone();
    let calling = tokio::spawn(async move { handle.call(calls::revive()).await });
    let request = leader.request().await;
    assert_eq!(request.path, "/master/api/v1/scheduler");
    request.accept();
    calling.await.unwrap().unwrap();
    assert!(follower.is_idle());
}

#[tokio::test]
async fn masters_that_redirect_to_themselves_or_in_a_circle_are_tried_until_one_leads() {
    let (mut one, mut two) = (Peer::start().await, Peer::start().await);
    let mut client = Client::start(&one.address);
    let to = |peer: &Peer| format!("//{}/master/api/v1/scheduler", peer.address);
    one.request().await.redirect(&to(&one));
    assert!(client.disconnected().await.contains("none leads yet"));
    one.request().await.redirect(&to(&two));
    two.request().await.redirect(&to(&one));
    let (_, _stream) = take_subscription(&mut one).await;
    client.subscribed().await;
}

#[tokio::test]
async fn a_list_is_tried_in_turn() {
    let mut master = Peer::start().await;
    let dead = free_port();
    let mut client = Client::start(&format!("127.0.0.1:{dead},{}", master.address));
    let (_, _stream) = take_subscription(&mut master).await;
    let reason = client.disconnected().await;
    assert!(
        reason.contains(&format!("connect to 127.0.0.1:{dead}")),
        "{reason}"
    );
    client.subscribed().await;
}

#[tokio::test]
async fn credentials_are_sent_as_recorded_and_their_refusal_is_final() {
    let mut master = Peer::start().await;
    let refused = |client: Client, request: Received| async move {
        request.answer(StatusCode::UNAUTHORIZED, "401 Unauthorized.");
        let mut client = client;
        client.fatal().await
    };
    let client = Client::start(&master.address);
    let message = refused(client, master.request().await).await;
    assert!(
        message.contains("give --framework-authentication-file"),
        "{message}"
    );

    let credential = Credential {
        principal: "cotton".into(),
        secret: Secret::new("s3cret"),
    };
    let client = Client::with(&master.address, Some(credential.clone()), None);
    let request = master.request().await;
    let recorded = "Basic Y290dG9uOnMzY3JldA==";
    assert_eq!(request.header("authorization"), Some(recorded));
    let message = refused(client, request).await;
    assert!(message.contains("check principal and secret"), "{message}");
    assert!(!message.contains("s3cret"));

    let mut client = Client::with(&master.address, Some(credential), None);
    let (_, _stream) = take_subscription(&mut master).await;
    client.subscribed().await;
    let handle = client.handle.clone();
    let calling = tokio::spawn(async move { handle.call(calls::suppress()).await });
    let request = master.request().await;
    assert_eq!(request.header("authorization"), Some(recorded));
    request.accept();
    calling.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_subscription_refused_for_what_it_says_is_final() {
    const MISMATCH: &str = "Failed to validate scheduler::Call: Authenticated principal 'cotton' \
                            does not match principal 'other' set in `FrameworkInfo`";
    for (status, text, sentence) in [
        (StatusCode::BAD_REQUEST, MISMATCH, "'other' set in"),
        (StatusCode::FORBIDDEN, "", "is not authorized"),
        (StatusCode::NOT_ACCEPTABLE, "", "406 Not Acceptable"),
    ] {
        let mut master = Peer::start().await;
        let mut client = Client::start(&master.address);
        master.request().await.answer(status, text);
        let message = client.fatal().await;
        assert!(message.contains(sentence), "{message}");
    }
}

#[tokio::test]
async fn a_master_that_is_not_ready_is_tried_again_and_told_of_once() {
    let mut master = Peer::start().await;
    let mut client = Client::start(&master.address);
    for _ in 0..3 {
        let request = master.request().await;
        request.answer(
            StatusCode::SERVICE_UNAVAILABLE,
            "Master has not finished recovery",
        );
    }
    master.request().await.answer(StatusCode::NOT_FOUND, "");
    let reason = client.disconnected().await;
    assert!(reason.contains("503 Service Unavailable: Master has not finished recovery"));
    assert!(client.disconnected().await.contains("404"));
    let (_, _stream) = take_subscription(&mut master).await;
    client.subscribed().await;
}

#[tokio::test]
async fn the_framework_id_survives_reconnections_and_restarts() {
    let (mut master, stream, mut client) = subscribed().await;
    drop(stream);
    assert!(
        client
            .disconnected()
            .await
            .contains("closed the event stream")
    );
    let (call, _stream) = take_subscription(&mut master).await;
    assert_eq!(id_of(&call), Some(FRAMEWORK));
    let info = call.subscribe.unwrap().framework_info;
    assert_eq!(info.id.unwrap().value, FRAMEWORK);
    client.subscribed().await;

    // The master is killed; another one comes up in its place.
    let address = master.address.clone();
    master.stop().await;
    client.disconnected().await;
    let mut master = Peer::start_at(&address).await;
    let (call, _stream) = take_subscription(&mut master).await;
    assert_eq!(id_of(&call), Some(FRAMEWORK));

    // A new scheduler that knows the id from its store.
    let mut client = Client::with(&address, None, Some(FRAMEWORK));
    // The first client may be waiting for its next try meanwhile: it has a stream and does not ask.
    let (call, _stream) = take_subscription(&mut master).await;
    assert_eq!(id_of(&call), Some(FRAMEWORK));
    client.subscribed().await;
}

#[tokio::test]
async fn missed_heartbeats_end_the_subscription_and_heartbeats_keep_it() {
    let mut master = Peer::start().await;
    let mut client = Client::start(&master.address);
    let stream = master.request().await.stream();
    stream.event(&subscribed_every(0.8)).await;
    client.subscribed().await;
    let start = tokio::time::Instant::now();
    let heartbeat = Event {
        r#type: Some(Type::Heartbeat as i32),
        ..Event::default()
    };
    // Longer than the client would bear in silence.
    while start.elapsed() < Duration::from_secs(3) {
        stream.event(&heartbeat).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(client.events.is_empty(), "heartbeats keep the subscription");
    let reason = client.disconnected().await;
    assert!(reason.contains("for 2s, not even a heartbeat"), "{reason}");
    stream.closed().await;
    let (call, _stream) = take_subscription(&mut master).await;
    assert_eq!(id_of(&call), Some(FRAMEWORK));
}

#[tokio::test]
async fn what_cannot_be_read_is_named_and_subscribed_past() {
    let too_long = format!("{}\n", MAX_EVENT_BYTES + 1);
    let no_body: &[u8] = b"2\n\x08\x02";
    for (bytes, expected) in [
        (&b"{\"type\"}"[..], "refuse event 2 from 127.0.0.1"),
        (b"3\n\xff\xff\xff", "its 3 bytes are not a Mesos v1 event"),
        (too_long.as_bytes(), "more than the limit of 67108864 bytes"),
        (no_body, "it has the type OFFERS and no body of it"),
        (b"10\nabc", "ended within a record, 7 bytes before its end"),
    ] {
        let (mut master, stream, mut client) = subscribed().await;
        stream.bytes(bytes.to_vec()).await;
        drop(stream);
        let reason = client.disconnected().await;
        assert!(reason.contains(expected), "{reason}");
        let (call, _stream) = take_subscription(&mut master).await;
        assert_eq!(id_of(&call), Some(FRAMEWORK));
        client.subscribed().await;
    }
}

#[tokio::test]
async fn a_peer_that_is_no_master_is_named() {
    let mut master = Peer::start().await;
    let mut client = Client::start(&master.address);
    let _stream = master.request().await.stream_of("text/html");
    let reason = client.disconnected().await;
    assert!(reason.contains("its event stream is text/html"), "{reason}");
    let stream = master.request().await.stream();
    stream.recorded("event-heartbeat-1.bin").await;
    let reason = client.disconnected().await;
    assert!(
        reason.contains("SUBSCRIBED with a framework id is expected first"),
        "{reason}"
    );
}

#[tokio::test]
async fn an_error_event_ends_the_client_with_what_to_do() {
    for (text, expected, is_fatal) in [
        ("Framework has been removed", "cannot be used again", true),
        ("Framework failed over", "look for a second process", false),
        (
            "'FrameworkInfo.roles' must not be set",
            "must not be set",
            true,
        ),
    ] {
        let sentence = |event: SchedulerEvent| match event {
            SchedulerEvent::Fatal { message } if is_fatal => message,
            SchedulerEvent::FailedOver { message } if !is_fatal => message,
            other => panic!("{text}: {other:?}"),
        };
        let error = Event {
            r#type: Some(Type::Error as i32),
            error: Some(cotton::mesos::v1::scheduler::event::Error {
                message: text.into(),
            }),
            ..Event::default()
        };
        // As the first event of a stream, then as a later one.
        let mut master = Peer::start().await;
        let mut client = Client::with(&master.address, None, Some(FRAMEWORK));
        let stream = master.request().await.stream();
        stream.event(&error).await;
        let message = sentence(client.last_event().await);
        assert!(
            message.contains(expected) && message.contains(text),
            "{message}"
        );

        let (_master, stream, mut client) = subscribed().await;
        stream.event(&error).await;
        let message = sentence(client.last_event().await);
        assert!(message.contains(expected), "{message}");
        let error = client.handle.call(calls::revive()).await.unwrap_err();
        assert!(!error.is_uncertain());
    }
}

#[tokio::test]
async fn a_call_without_subscription_is_not_sent() {
    let mut master = Peer::start().await;
    let client = Client::start(&master.address);
    let error = client.handle.call(calls::revive()).await.unwrap_err();
    assert!(matches!(error, CallError::NotSubscribed { call: "REVIVE" }));
    // The request that is there is the subscription.
    let (_, _stream) = take_subscription(&mut master).await;
}

#[tokio::test]
async fn a_refused_call_is_told_with_the_masters_sentence() {
    let (mut master, _stream, client) = subscribed().await;
    for (status, text) in [
        (StatusCode::BAD_REQUEST, "Framework cannot be found"),
        (StatusCode::SERVICE_UNAVAILABLE, "No leader elected"),
    ] {
        let handle = client.handle.clone();
        let calling = tokio::spawn(async move { handle.call(calls::teardown()).await });
        master.request().await.answer(status, text);
        let error = calling.await.unwrap().unwrap_err();
        assert!(!error.is_uncertain());
        let sentence = error.to_string();
        assert!(
            sentence.contains(text) && sentence.contains("TEARDOWN"),
            "{sentence}"
        );
    }
    let handle = client.handle.clone();
    let calling = tokio::spawn(async move { handle.call(calls::revive()).await });
    master
        .request()
        .await
        .redirect("//b:5050/master/api/v1/scheduler");
    let error = calling.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("it does not lead, //b:5050"), "{error}");
}

#[tokio::test]
async fn a_call_whose_answer_is_lost_is_uncertain_and_the_next_one_works() {
    let (mut master, stream, mut client) = subscribed().await;
    let handle = client.handle.clone();
    let call = |kind: fn() -> Call| {
        let handle = handle.clone();
        tokio::spawn(async move { handle.call(kind()).await })
    };
    let calling = call(calls::suppress);
    master.request().await.accept();
    calling.await.unwrap().unwrap();
    // The connection is open now. A call whose answer is lost there must not be made twice.
    let calling = call(calls::revive);
    master.request().await.hang_up();
    let error = timeout(DEADLINE, calling)
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert!(error.is_uncertain(), "{error}");
    assert!(master.is_idle());

    // No answer at all.
    let calling = call(calls::revive);
    let held = master.request().await;
    let error = calling.await.unwrap().unwrap_err();
    assert!(error.is_uncertain(), "{error}");
    drop(held);

    let calling = call(calls::suppress);
    master.request().await.accept();
    calling.await.unwrap().unwrap();

    // The subscription ends while a call is under way, and the answer comes after that.
    let calling = call(calls::teardown);
    let held = master.request().await;
    drop(stream);
    let (_, stream) = take_subscription(&mut master).await;
    held.accept();
    calling.await.unwrap().unwrap();
    client.disconnected().await;
    client.subscribed().await;

    // The same without an answer.
    let calling = call(calls::revive);
    let held = master.request().await;
    drop(stream);
    let error = calling.await.unwrap().unwrap_err();
    // It is not the deadline that ended the waiting.
    assert!(
        matches!(error, CallError::Uncertain { source: None, .. }),
        "{error}"
    );
    drop(held);
}

#[tokio::test]
async fn cancelling_closes_the_stream() {
    let (_master, stream, client) = subscribed().await;
    drop(client);
    stream.closed().await;
}
