//! The client of the Mesos v1 executor API.
//!
//! SUBSCRIBE -> read events and send updates -> lose the stream -> wait -> SUBSCRIBE with what is
//! unacknowledged.
//!
//! One task does that for as long as the process lives. It does not stop when the agent's recovery
//! timeout has passed: an agent that is away must not take the database down with it. Waits are at
//! most `MESOS_SUBSCRIPTION_BACKOFF_MAX`. Events go over one connection, updates over a second.
//!
//! Source: the Mesos page "Executor HTTP API".

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::authentication::{self, Authorization};
use super::connection::{
    Connection, ConnectionError, Deadlines, EventStream, Post, StreamError, chain,
    check_media_type, sentence, status_and_sentence,
};
pub use super::environment::{EnvironmentError, ExecutorEnvironment};
use super::updates::Unacknowledged;
use super::v1;
use super::v1::executor::event::{self, Type};
use super::v1::executor::{Call, Event, call};
use crate::backoff::Backoff;
use crate::time::Timestamp;

/// How many events may wait for the executor; an agent sends a handful in a task's life.
const MAX_WAITING_EVENTS: usize = 64;

/// The agent is on the same machine: it answers soon or not at all.
const DEADLINES: Deadlines = Deadlines {
    connect: Duration::from_secs(5),
    answer: Duration::from_secs(10),
};

/// The wait before the first new try. An agent that restarts is away for a second or more.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// How long the event stream may be silent: agents send heartbeats to executors every 30 minutes,
/// older ones none at all. The connection does not leave the machine, so that a dead agent is seen
/// by its closing; silence alone never ends a subscription.
const SILENCE: Duration = Duration::from_secs(365 * 24 * 3600);

/// What the agent tells an executor.
#[derive(Debug, Clone, PartialEq)]
pub enum ExecutorEvent {
    /// The agent knows this executor. Comes again after each reconnection.
    Subscribed(Box<event::Subscribed>),
    /// Run a task. Comes once for a task.
    Launch(Box<v1::TaskInfo>),
    /// End a task.
    Kill {
        /// The task.
        task_id: String,
        /// How long it may take, where the kill says so; else the task's own kill policy holds.
        grace_period: Option<Duration>,
    },
    /// The agent has recorded an update.
    Acknowledged {
        /// The task.
        task_id: String,
        /// The update's uuid.
        uuid: Vec<u8>,
    },
    /// Bytes from the scheduler.
    Message(Bytes),
    /// End all tasks, then the process: the agent kills the container after the grace period.
    Shutdown,
    /// The subscription is lost, or could not be had. The client goes on trying.
    Disconnected {
        /// A sentence for the log.
        reason: String,
    },
    /// The agent says that something is wrong.
    Error {
        /// What it says.
        message: String,
    },
}

/// Why a message to the scheduler was not, or perhaps not, sent.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// There is no subscription.
    #[error("the message was not sent: the executor is not subscribed to its agent")]
    NotSubscribed,
    /// The connection failed.
    #[error("send a message to the scheduler by way of the agent")]
    Connection(#[from] ConnectionError),
    /// The agent does not take it.
    #[error("the agent refused a message to the scheduler: {answer}")]
    Refused {
        /// Status and sentence.
        answer: String,
    },
}

/// Tells the agent what happens. Clones speak for the same executor.
#[derive(Clone)]
pub struct ExecutorHandle {
    shared: Arc<Shared>,
}

/// What the handle and the task both know.
struct Shared {
    agent: Agent,
    /// Held for moments only, never across an await.
    unacknowledged: Mutex<Unacknowledged>,
    /// Woken after every change of it.
    changed: watch::Sender<()>,
    subscribed: watch::Sender<bool>,
}

/// Where the agent is, and who speaks to it.
struct Agent {
    environment: ExecutorEnvironment,
    authorization: Option<Authorization>,
}

/// Starts the client. Cancelling `shutdown` closes its connections; updates that are not yet
/// acknowledged are lost then, so wait for [`ExecutorHandle::acknowledged_all`] before.
#[must_use]
pub fn start(
    environment: ExecutorEnvironment,
    shutdown: CancellationToken,
) -> (ExecutorHandle, mpsc::Receiver<ExecutorEvent>) {
    let (events, receiver) = mpsc::channel(MAX_WAITING_EVENTS);
    let authorization = environment.token.as_ref();
    let authorization = authorization.and_then(authentication::bearer);
    let longest = environment.subscription_backoff_max.max(FIRST_WAIT);
    let backoff = Backoff::try_new(FIRST_WAIT, longest).expect("0 < first wait <= longest");
    let shared = Arc::new(Shared {
        agent: Agent {
            environment,
            authorization,
        },
        unacknowledged: Mutex::default(),
        changed: watch::Sender::new(()),
        subscribed: watch::Sender::new(false),
    });
    let client = Client {
        shared: Arc::clone(&shared),
        events,
        backoff,
        told: None,
    };
    tokio::spawn(shutdown.run_until_cancelled_owned(client.run()));
    (ExecutorHandle { shared }, receiver)
}

impl ExecutorHandle {
    /// Queues an update of a task. It is sent as soon as there is a subscription, again in the
    /// SUBSCRIBE of each later one, and kept until the agent acknowledges it.
    ///
    /// `uuid`, `timestamp`, `source` and `executor_id` are filled in where they are missing.
    pub fn update(&self, mut status: v1::TaskStatus) {
        let id = &self.shared.agent.environment.executor_id;
        status
            .uuid
            .get_or_insert_with(|| uuid::Uuid::new_v4().as_bytes().to_vec());
        status
            .timestamp
            .get_or_insert_with(|| Timestamp::now().as_millis() as f64 / 1000.0);
        status
            .source
            .get_or_insert(v1::task_status::Source::Executor as i32);
        status
            .executor_id
            .get_or_insert_with(|| v1::ExecutorId { value: id.clone() });
        self.shared.unacknowledged().add(status);
        self.shared.changed.send_replace(());
    }

    /// Sends bytes to the scheduler. They may get lost on the way even after success.
    ///
    /// # Errors
    ///
    /// [`MessageError`] when the agent has not taken them.
    pub async fn message(&self, data: Vec<u8>) -> Result<(), MessageError> {
        if !*self.shared.subscribed.borrow() {
            return Err(MessageError::NotSubscribed);
        }
        let agent = &self.shared.agent;
        let mut call = agent.call(call::Type::Message);
        call.message = Some(call::Message { data });
        let mut connection = agent.connect().await?;
        let answer = agent.send(&mut connection, &call).await?;
        answer.map_err(|answer| MessageError::Refused { answer })
    }

    /// Waits until the agent has acknowledged every update; false if it has not by the deadline.
    /// Call it after the last update and before the process ends.
    pub async fn acknowledged_all(&self, deadline: Duration) -> bool {
        let mut changes = self.shared.changed.subscribe();
        let all = changes.wait_for(|()| self.shared.unacknowledged().is_empty());
        matches!(timeout(deadline, all).await, Ok(Ok(_)))
    }
}

impl Shared {
    fn unacknowledged(&self) -> MutexGuard<'_, Unacknowledged> {
        // Its methods leave nothing half done, so that a panic elsewhere does no harm to it.
        self.unacknowledged
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Agent {
    async fn connect(&self) -> Result<Connection, ConnectionError> {
        Connection::open(&self.environment.agent, DEADLINES).await
    }

    fn call(&self, kind: call::Type) -> Call {
        Call {
            executor_id: v1::ExecutorId {
                value: self.environment.executor_id.clone(),
            },
            framework_id: v1::FrameworkId {
                value: self.environment.framework_id.clone(),
            },
            r#type: Some(kind as i32),
            subscribe: None,
            update: None,
            message: None,
        }
    }

    fn post(&self, call: &Call) -> Post<'_> {
        Post {
            path: &self.environment.path,
            body: call.encode_to_vec().into(),
            authorization: self.authorization.as_ref(),
            stream_id: None,
        }
    }

    /// Sends a call that is not SUBSCRIBE; the inner error is the agent's refusal.
    async fn send(
        &self,
        connection: &mut Connection,
        call: &Call,
    ) -> Result<Result<(), String>, ConnectionError> {
        let response = connection.post(&self.post(call)).await?;
        let status = response.status();
        let sentence = sentence(response, DEADLINES.answer).await;
        Ok(match status {
            StatusCode::ACCEPTED | StatusCode::OK => Ok(()),
            status => Err(status_and_sentence(status, &sentence)),
        })
    }
}

/// Why there is no subscription, or no longer.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("reach the Mesos agent")]
    Connection(#[from] ConnectionError),
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("the Mesos agent refuses the executor's subscription: {0}")]
    Refused(String),
    #[error("the Mesos agent does not speak the v1 API: its event stream is {0}")]
    MediaType(String),
    #[error("the Mesos agent refuses a status update: {0}")]
    UpdateRefused(String),
    /// Nobody receives the events any more.
    #[error("the executor is stopping")]
    Stopped,
}

struct Client {
    shared: Arc<Shared>,
    events: mpsc::Sender<ExecutorEvent>,
    backoff: Backoff,
    /// The reason that was told last, so that an agent that stays away is told of once.
    told: Option<String>,
}

impl Client {
    async fn run(mut self) {
        let mut failures = 0;
        loop {
            let trouble = match self.follow().await {
                Ok(never) => match never {},
                Err(trouble) => trouble,
            };
            if self.shared.subscribed.send_replace(false) {
                failures = 0;
            }
            if matches!(trouble, Trouble::Stopped) || self.tell(&trouble).await.is_err() {
                return;
            }
            tokio::time::sleep(self.backoff.delay(failures, rand::random())).await;
            failures = failures.saturating_add(1);
        }
    }

    /// Tells why there is no subscription, unless that was told already.
    async fn tell(&mut self, trouble: &Trouble) -> Result<(), Trouble> {
        let reason = chain(trouble);
        if self.told.as_ref() == Some(&reason) {
            return Ok(());
        }
        warn!(reason, "not subscribed to the Mesos agent");
        self.told = Some(reason.clone());
        self.emit(ExecutorEvent::Disconnected { reason }).await
    }

    async fn emit(&self, event: ExecutorEvent) -> Result<(), Trouble> {
        self.events.send(event).await.map_err(|_| Trouble::Stopped)
    }

    /// Subscribes, then passes events on and sends updates until either fails.
    async fn follow(&mut self) -> Result<std::convert::Infallible, Trouble> {
        let agent = &self.shared.agent;
        let mut connection = agent.connect().await?;
        let mut call = agent.call(call::Type::Subscribe);
        call.subscribe = Some(self.shared.unacknowledged().subscribe());
        let response = connection.post(&agent.post(&call)).await?;
        let status = response.status();
        if status != StatusCode::OK {
            // Whatever it says, even that it does not know us: the agent may be recovering or be
            // replaced, and the database must not go down for what an agent forgot.
            let sentence = sentence(response, DEADLINES.answer).await;
            return Err(Trouble::Refused(status_and_sentence(status, &sentence)));
        }
        check_media_type(&response).map_err(Trouble::MediaType)?;
        let mut stream: EventStream<Event> = connection.into_stream(response);
        let first = stream.next(DEADLINES.answer).await?;
        self.handle(&stream, first).await?;
        self.told = None;
        self.shared.subscribed.send_replace(true);
        tokio::select! {
            trouble = self.read(stream) => trouble,
            trouble = self.send_updates() => trouble,
        }
    }

    async fn read(
        &self,
        mut stream: EventStream<Event>,
    ) -> Result<std::convert::Infallible, Trouble> {
        loop {
            let event = stream.next(SILENCE).await?;
            self.handle(&stream, event).await?;
        }
    }

    async fn handle(&self, stream: &EventStream<Event>, event: Event) -> Result<(), Trouble> {
        let event = match translate(event).map_err(|what| stream.incomplete(what))? {
            Some(event) => event,
            None => return Ok(()),
        };
        match &event {
            ExecutorEvent::Subscribed(subscribed) => {
                let agent = subscribed.agent_info.id.as_ref().map(|id| &id.value);
                info!(?agent, "subscribed to the Mesos agent");
            }
            ExecutorEvent::Launch(task) => {
                if !self.shared.unacknowledged().launched(task) {
                    warn!(task = task.task_id.value, "task launched again, ignored");
                    return Ok(());
                }
            }
            ExecutorEvent::Acknowledged { task_id, uuid } => {
                self.shared.unacknowledged().acknowledge(task_id, uuid);
                self.shared.changed.send_replace(());
            }
            ExecutorEvent::Kill { .. }
            | ExecutorEvent::Message(_)
            | ExecutorEvent::Shutdown
            | ExecutorEvent::Disconnected { .. }
            | ExecutorEvent::Error { .. } => {}
        }
        self.emit(event).await
    }

    /// Sends what is queued, in order, whenever something is queued.
    async fn send_updates(&self) -> Result<std::convert::Infallible, Trouble> {
        let agent = &self.shared.agent;
        let mut changes = self.shared.changed.subscribe();
        let mut connection: Option<Connection> = None;
        loop {
            let unsent = self.shared.unacknowledged().take_unsent();
            let Some(status) = unsent else {
                // The sender is in `shared`, which this task holds.
                let _ = changes.changed().await;
                continue;
            };
            let mut call = agent.call(call::Type::Update);
            call.update = Some(call::Update { status });
            let mut open = match connection.take() {
                Some(open) if open.is_open() => open,
                _ => agent.connect().await?,
            };
            // If this fails the subscription ends, and the next one carries the update.
            let answer = agent.send(&mut open, &call).await?;
            answer.map_err(Trouble::UpdateRefused)?;
            connection = Some(open);
        }
    }
}

/// What an event of the stream means for the executor; `None` for a heartbeat and for types that a
/// later Mesos may add. The error says what is missing.
fn translate(event: Event) -> Result<Option<ExecutorEvent>, String> {
    let kind = Type::try_from(event.r#type.unwrap_or_default()).unwrap_or(Type::Unknown);
    let missing = || format!("it has the type {} and no body of it", kind.as_str_name());
    let told = match kind {
        Type::Subscribed => event
            .subscribed
            .map(|it| ExecutorEvent::Subscribed(Box::new(it))),
        Type::Launch => event
            .launch
            .map(|it| ExecutorEvent::Launch(Box::new(it.task))),
        Type::Kill => event.kill.map(|it| ExecutorEvent::Kill {
            task_id: it.task_id.value,
            grace_period: it.kill_policy.and_then(|it| it.grace_period).map(duration),
        }),
        Type::Acknowledged => event.acknowledged.map(|it| ExecutorEvent::Acknowledged {
            task_id: it.task_id.value,
            uuid: it.uuid,
        }),
        Type::Message => event
            .message
            .map(|it| ExecutorEvent::Message(it.data.into())),
        Type::Shutdown => Some(ExecutorEvent::Shutdown),
        Type::Error => event.error.map(|it| ExecutorEvent::Error {
            message: it.message,
        }),
        Type::LaunchGroup => Some(ExecutorEvent::Error {
            message: "a task group was launched; this executor runs single tasks".to_owned(),
        }),
        Type::Heartbeat | Type::Unknown => return Ok(None),
    };
    told.map(Some).ok_or_else(missing)
}

/// A negative duration is taken as none.
fn duration(info: v1::DurationInfo) -> Duration {
    Duration::from_nanos(u64::try_from(info.nanoseconds).unwrap_or_default())
}
