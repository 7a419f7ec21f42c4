//! A Mesos agent as far as one executor sees it: it launches one task, acknowledges every update, and kills
//! when the test says so.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::post};
use bytes::Bytes;
use cotton::mesos::recordio;
use cotton::mesos::v1;
use cotton::mesos::v1::executor::event::{self, Type};
use cotton::mesos::v1::executor::{Call, Event, call};
use futures::stream;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::support::eventually;

/// How long anything may take that a test waits for, on a loaded machine.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// The agent. It is gone when this is dropped.
pub struct Agent {
    pub address: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    task: v1::TaskInfo,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    subscribed_at: Option<Instant>,
    updates: Vec<v1::TaskStatus>,
    stream: Option<mpsc::UnboundedSender<Bytes>>,
}

impl Agent {
    /// Listens, to launch `task` on whoever subscribes.
    pub async fn start(task: v1::TaskInfo) -> Self {
        let shared = Arc::new(Shared {
            task,
            seen: Mutex::default(),
        });
        let routes = Router::new()
            .route("/api/v1/executor", post(answer))
            .with_state(Arc::clone(&shared));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self {
            address,
            shared,
            server,
        }
    }

    /// When the executor subscribed.
    pub fn subscribed_at(&self) -> Option<Instant> {
        self.shared.seen.lock().unwrap().subscribed_at
    }

    /// The states that were told so far, and the last message.
    pub fn states(&self) -> (Vec<v1::TaskState>, Option<String>) {
        let seen = self.shared.seen.lock().unwrap();
        let states = seen
            .updates
            .iter()
            .map(|u| v1::TaskState::try_from(u.state).unwrap());
        (
            states.collect(),
            seen.updates
                .last()
                .and_then(|update| update.message.clone()),
        )
    }

    /// Waits for a state.
    pub async fn told(&self, state: v1::TaskState) {
        let what = format!("{state:?}");
        eventually(&what, DEADLINE, async || {
            self.states().0.contains(&state).then_some(())
        })
        .await;
    }

    /// Kills the task.
    pub fn kill(&self, grace: Duration) {
        let kill = event::Kill {
            task_id: self.shared.task.task_id.clone(),
            kill_policy: Some(v1::KillPolicy {
                grace_period: Some(v1::DurationInfo {
                    nanoseconds: grace.as_nanos() as i64,
                }),
            }),
        };
        self.send(&Event {
            kill: Some(kill),
            ..event_of(Type::Kill)
        });
    }

    fn send(&self, event: &Event) {
        self.shared.send(event);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    fn send(&self, event: &Event) {
        let seen = self.seen.lock().unwrap();
        let bytes = recordio::encode(&event.encode_to_vec());
        if let Some(stream) = &seen.stream {
            // The executor may have gone.
            let _ = stream.send(bytes);
        }
    }
}

fn event_of(kind: Type) -> Event {
    Event {
        r#type: Some(kind as i32),
        ..Event::default()
    }
}

async fn answer(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let call = Call::decode(body).unwrap();
    match call::Type::try_from(call.r#type.unwrap()).unwrap() {
        call::Type::Subscribe => subscribe(&shared),
        call::Type::Update => {
            let status = call.update.unwrap().status;
            let acknowledged = event::Acknowledged {
                task_id: status.task_id.clone(),
                uuid: status.uuid.clone().unwrap(),
            };
            shared.seen.lock().unwrap().updates.push(status);
            shared.send(&Event {
                acknowledged: Some(acknowledged),
                ..event_of(Type::Acknowledged)
            });
            StatusCode::ACCEPTED.into_response()
        }
        _ => StatusCode::ACCEPTED.into_response(),
    }
}

fn subscribe(shared: &Shared) -> Response {
    let (sender, receiver) = mpsc::unbounded_channel::<Bytes>();
    {
        let mut seen = shared.seen.lock().unwrap();
        seen.subscribed_at = Some(Instant::now());
        seen.stream = Some(sender);
    }
    let agent_info = v1::AgentInfo {
        hostname: "127.0.0.1".into(),
        ..Default::default()
    };
    let subscribed = event::Subscribed {
        agent_info,
        ..Default::default()
    };
    shared.send(&Event {
        subscribed: Some(subscribed),
        ..event_of(Type::Subscribed)
    });
    let launch = event::Launch {
        task: shared.task.clone(),
    };
    shared.send(&Event {
        launch: Some(launch),
        ..event_of(Type::Launch)
    });
    let frames = stream::unfold(receiver, async |mut receiver| {
        let bytes = receiver.recv().await?;
        Some((Ok::<_, Infallible>(bytes), receiver))
    });
    let mut response = Response::new(Body::from_stream(frames));
    response
        .headers_mut()
        .insert("Content-Type", "application/x-protobuf".parse().unwrap());
    response
}
