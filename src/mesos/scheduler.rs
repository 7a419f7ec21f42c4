//! The client of the Mesos v1 scheduler API.
//!
//! find the leading master -> SUBSCRIBE -> read events -> lose the stream -> wait -> find again.
//!
//! One task does that for as long as the process lives, always under the same framework id once
//! there is one. The stream counts as lost when it breaks, when nothing came for two and a half
//! heartbeat intervals, when an event cannot be read, and when ZooKeeper names another leader. Calls
//! go over a second connection ([`SchedulerHandle`]).
//!
//! What cannot get better by trying again ends the task with [`SchedulerEvent::Fatal`]: an ERROR
//! event (the framework was removed, or another scheduler took it over) and a subscription that is
//! refused for what it says or for who says it.
//!
//! Source: the Mesos page "Scheduler HTTP API"; which answers are final is that of the scheduler
//! library in `src/scheduler/scheduler.cpp`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::LOCATION;
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::address::Target;
pub use super::address::{AddressError, MasterAddress, MasterAddresses};
pub use super::authentication::Credential;
use super::caller::Session;
pub use super::caller::{CallError, SchedulerHandle};
use super::connection::{
    Connection, ConnectionError, Deadlines, Endpoint, EventStream, Post, StreamError, chain,
    check_media_type, sentence, status_and_sentence,
};
use super::detect::Detector;
use super::v1;
use super::v1::scheduler::event::Type;
use super::v1::scheduler::{Call, Event, call};
use crate::backoff::Backoff;

/// How many events may wait for the scheduler. When it is full the stream is read no further, and
/// the master keeps what it has to say.
const MAX_WAITING_EVENTS: usize = 1024;

/// How often a redirection is followed before it counts as a failed try. Masters need one hop; a few
/// more are left for a leader that changes meanwhile.
const MAX_REDIRECTS: usize = 5;

/// What a master sends heartbeats after when it does not say (`DEFAULT_HEARTBEAT_INTERVAL`).
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(15);

/// An announced interval beyond this is taken as this: a dead master must be noticed.
const LONGEST_HEARTBEAT: Duration = Duration::from_secs(600);

/// How many heartbeat intervals may pass without any: one may be lost and the next be late.
const SILENT_INTERVALS: f64 = 2.5;

/// A stream that lived for less than this does not make the next waits short again: a master that
/// accepts and drops a subscription at once is not hammered.
const HEALTHY_STREAM: Duration = Duration::from_secs(10);

/// How many different reasons for a lack of subscription are remembered: a few per master.
const MAX_REASONS: usize = 32;

/// What the client needs to know.
#[derive(Debug, Clone)]
pub struct SchedulerConfig {
    /// Where the masters are.
    pub masters: MasterAddresses,
    /// Who subscribes. Its `id` is filled in by the client; its `principal` must be that of the
    /// credential.
    pub framework: v1::FrameworkInfo,
    /// Who the framework is for a master that wants to know.
    pub credential: Option<Credential>,
    /// How long to wait for what.
    pub timeouts: Timeouts,
}

/// How long the client waits for what.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For opening a connection and for answers; the first event of a subscription counts as one.
    pub deadlines: Deadlines,
    /// Between two tries to subscribe.
    pub backoff: Backoff,
}

impl Default for Timeouts {
    /// 5 s to connect, 10 s for an answer, waits from 0.1 s to 5 s: there is one scheduler, so that
    /// no master is overrun by it, and a master that has restarted leads within seconds.
    fn default() -> Self {
        Self {
            deadlines: Deadlines {
                connect: Duration::from_secs(5),
                answer: Duration::from_secs(10),
            },
            backoff: Backoff::try_new(Duration::from_millis(100), Duration::from_secs(5))
                .expect("0 < 100 ms < 5 s"),
        }
    }
}

/// What happens to the framework.
#[derive(Debug, Clone, PartialEq)]
pub enum SchedulerEvent {
    /// A master has taken the subscription. Until this was stored, nothing must be launched: a
    /// scheduler that dies without knowing its framework id leaves its tasks behind.
    Subscribed {
        /// The framework's id: given by Mesos at first, the same ever after.
        framework_id: String,
        /// `host:port` of the master.
        master: String,
    },
    /// The subscription is lost, or could not be had. The client goes on trying. Offers received
    /// before are no longer valid.
    Disconnected {
        /// A sentence for the operator.
        reason: String,
    },
    /// Resources to use or decline.
    Offers(Vec<v1::Offer>),
    /// An offer is no longer valid; its id.
    Rescind(String),
    /// A task has changed its state; to be acknowledged if it has a uuid.
    Update(v1::TaskStatus),
    /// An agent was removed or an executor has ended.
    Failure {
        /// The agent.
        agent_id: Option<String>,
        /// The executor, if it is about one.
        executor_id: Option<String>,
        /// Its exit status as of wait(2).
        status: Option<i32>,
    },
    /// Bytes from an executor.
    Message {
        /// The agent that it runs on.
        agent_id: String,
        /// The executor.
        executor_id: String,
        /// What it sent.
        data: Vec<u8>,
    },
    /// Agents are asked back, for maintenance.
    InverseOffers(Vec<v1::InverseOffer>),
    /// An inverse offer is no longer valid; its id.
    RescindInverse(String),
    /// What became of an operation that had an id; to be acknowledged if it has a uuid.
    OperationStatus(v1::OperationStatus),
    /// Another scheduler has subscribed as the same framework: this one must not act any more. The last event.
    FailedOver {
        /// A sentence that says what happened and what to do.
        message: String,
    },
    /// The framework cannot go on: the process must end with this sentence and a failure status. The
    /// last event.
    Fatal {
        /// A sentence that says what happened and what to do.
        message: String,
    },
}

/// Starts the client. `framework_id` is that of an earlier subscription, if there was one.
///
/// Cancelling `shutdown` closes both connections; the framework's tasks go on until its failover
/// timeout. The receiver ends after that, after [`SchedulerEvent::FailedOver`] and after
/// [`SchedulerEvent::Fatal`].
#[must_use]
pub fn start(
    config: SchedulerConfig,
    framework_id: Option<String>,
    shutdown: CancellationToken,
) -> (SchedulerHandle, mpsc::Receiver<SchedulerEvent>) {
    let (events, receiver) = mpsc::channel(MAX_WAITING_EVENTS);
    let (session, sessions) = watch::channel(None);
    let handle = SchedulerHandle::start(sessions, config.timeouts.deadlines, shutdown.clone());
    let client = Client {
        framework: config.framework,
        credential: config.credential,
        timeouts: config.timeouts,
        framework_id,
        events,
        session,
        told: HashSet::new(),
    };
    let detector = Detector::start(config.masters, config.timeouts.backoff);
    tokio::spawn(shutdown.run_until_cancelled_owned(client.run(detector)));
    (handle, receiver)
}

struct Client {
    framework: v1::FrameworkInfo,
    credential: Option<Credential>,
    timeouts: Timeouts,
    framework_id: Option<String>,
    events: mpsc::Sender<SchedulerEvent>,
    session: watch::Sender<Option<Arc<Session>>>,
    /// What was told since the last subscription, so that masters that stay away are told of once.
    told: HashSet<String>,
}

/// Why there is no subscription, or no longer.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// Trying again makes no sense. The sentence is for the operator.
    #[error("{0}")]
    Fatal(String),
    /// The subscription belongs to another scheduler now. The sentence is for the operator.
    #[error("{0}")]
    FailedOver(String),
    #[error("subscribe to the Mesos master")]
    Connection(#[from] ConnectionError),
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("the Mesos master {master} does not take the subscription now: {answer}")]
    NotNow {
        master: MasterAddress,
        answer: String,
    },
    #[error("the Mesos master {master} redirects to {location:?}, which is no address of a master")]
    BadRedirect {
        master: MasterAddress,
        location: String,
    },
    #[error("the Mesos masters redirect to each other, last {master}: none leads yet")]
    NoLeader { master: MasterAddress },
    #[error("{master} does not speak the Mesos v1 API: its event stream is {media_type}")]
    MediaType {
        master: MasterAddress,
        media_type: String,
    },
    #[error("the Mesos master {master} gave no stream id")]
    NoStreamId { master: MasterAddress },
    #[error("another Mesos master leads now")]
    Superseded,
    /// Nobody receives the events any more.
    #[error("the scheduler is stopping")]
    Stopped,
}

impl Client {
    async fn run(mut self, mut detector: Detector) {
        let mut failures = 0;
        loop {
            let address = detector.next().await;
            let started = Instant::now();
            let trouble = match self.follow(address, &mut detector).await {
                Ok(never) => match never {},
                Err(trouble) => trouble,
            };
            let was_subscribed = self.session.send_replace(None).is_some();
            match trouble {
                Trouble::Stopped => return,
                Trouble::Fatal(message) => {
                    let _ = self.events.send(SchedulerEvent::Fatal { message }).await;
                    return;
                }
                Trouble::FailedOver(message) => {
                    let event = SchedulerEvent::FailedOver { message };
                    let _ = self.events.send(event).await;
                    return;
                }
                // The new leader is waiting.
                Trouble::Superseded => {
                    self.tell(&trouble).await;
                    continue;
                }
                _ => self.tell(&trouble).await,
            }
            if was_subscribed && started.elapsed() >= HEALTHY_STREAM {
                failures = 0;
            }
            tokio::time::sleep(self.timeouts.backoff.delay(failures, rand::random())).await;
            failures = failures.saturating_add(1);
        }
    }

    /// Tells why there is no subscription, unless that was told already.
    async fn tell(&mut self, trouble: &Trouble) {
        let reason = chain(trouble);
        if self.told.len() >= MAX_REASONS {
            self.told.clear();
        }
        if !self.told.insert(reason.clone()) {
            return;
        }
        warn!(reason, "not subscribed to a Mesos master");
        // Without a receiver the next use of the channel ends the task.
        let _ = self.emit(SchedulerEvent::Disconnected { reason }).await;
    }

    async fn emit(&self, event: SchedulerEvent) -> Result<(), Trouble> {
        self.events.send(event).await.map_err(|_| Trouble::Stopped)
    }

    /// Subscribes at the master, or where it redirects to, and passes its events on until the
    /// stream is lost.
    async fn follow(
        &mut self,
        address: MasterAddress,
        detector: &mut Detector,
    ) -> Result<std::convert::Infallible, Trouble> {
        let (session, mut stream) = self.subscribe(address).await?;
        let master = session.target.address.clone();
        let first = stream.next(self.timeouts.deadlines.answer).await?;
        let silence = self.subscribed(session, &stream, first).await?;
        loop {
            let event = tokio::select! {
                event = stream.next(silence) => event?,
                () = detector.superseded() => return Err(Trouble::Superseded),
            };
            match translate(event) {
                Ok(Some(SchedulerEvent::Fatal { message })) => {
                    return Err(self.explain(&master, &message));
                }
                Ok(Some(event)) => self.emit(event).await?,
                Ok(None) => {}
                Err(what) => return Err(stream.incomplete(what).into()),
            }
        }
    }

    async fn subscribe(
        &self,
        address: MasterAddress,
    ) -> Result<(Session, EventStream<Event>), Trouble> {
        let deadlines = self.timeouts.deadlines;
        let authorization = self.credential.as_ref().map(Credential::authorization);
        let body = self.subscribe_call();
        let mut target = Target::of(address);
        let mut visited = HashSet::new();
        loop {
            // A master that has restarted can redirect to its own former self until ZooKeeper
            // drops the old node: that is a failed try, not a hop.
            if visited.len() >= MAX_REDIRECTS || !visited.insert(target.address.clone()) {
                return Err(Trouble::NoLeader {
                    master: target.address,
                });
            }
            let endpoint = Endpoint::Tcp(target.address.to_string());
            let mut connection = Connection::open(&endpoint, deadlines).await?;
            let post = Post {
                path: &target.path,
                body: body.clone(),
                authorization: authorization.as_ref(),
                stream_id: None,
            };
            let response = connection.post(&post).await?;
            let master = target.address.clone();
            match response.status() {
                StatusCode::OK => {
                    check_media_type(&response).map_err(|media_type| Trouble::MediaType {
                        master: master.clone(),
                        media_type,
                    })?;
                    let stream_id = response.headers().get("mesos-stream-id").cloned();
                    let session = Session {
                        target,
                        stream_id: stream_id.ok_or(Trouble::NoStreamId { master })?,
                        // Known with the first event.
                        framework_id: String::new(),
                        authorization,
                    };
                    return Ok((session, connection.into_stream(response)));
                }
                StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => {
                    let location = response.headers().get(LOCATION);
                    let location = location.map_or_else(String::new, |value| {
                        String::from_utf8_lossy(value.as_bytes()).into_owned()
                    });
                    target = target
                        .redirected(&location)
                        .ok_or(Trouble::BadRedirect { master, location })?;
                }
                status => {
                    let sentence = sentence(response, deadlines.answer).await;
                    return Err(self.refused(master, status, &sentence));
                }
            }
        }
    }

    fn subscribe_call(&self) -> Bytes {
        let id = self.framework_id.clone();
        let id = id.map(|value| v1::FrameworkId { value });
        let framework_info = v1::FrameworkInfo {
            id: id.clone(),
            ..self.framework.clone()
        };
        let call = Call {
            framework_id: id,
            r#type: Some(call::Type::Subscribe as i32),
            subscribe: Some(call::Subscribe {
                framework_info,
                suppressed_roles: Vec::new(),
            }),
            ..Call::default()
        };
        call.encode_to_vec().into()
    }

    /// Takes the first event of a stream, which says who we are, opens the way for calls and
    /// returns how long the stream may be silent.
    async fn subscribed(
        &mut self,
        mut session: Session,
        stream: &EventStream<Event>,
        first: Event,
    ) -> Result<Duration, Trouble> {
        let master = session.target.address.clone();
        if let Some(error) = first.error {
            return Err(self.explain(&master, &error.message));
        }
        let subscribed = first
            .subscribed
            .filter(|subscribed| !subscribed.framework_id.value.is_empty())
            .ok_or_else(|| stream.incomplete("SUBSCRIBED with a framework id is expected first"))?;
        let framework_id = subscribed.framework_id.value;
        info!(%master, framework_id, "subscribed to the leading Mesos master");
        self.framework_id = Some(framework_id.clone());
        self.told.clear();
        session.framework_id.clone_from(&framework_id);
        self.session.send_replace(Some(Arc::new(session)));
        self.emit(SchedulerEvent::Subscribed {
            framework_id,
            master: master.to_string(),
        })
        .await?;
        Ok(silence(subscribed.heartbeat_interval_seconds))
    }

    /// What a status other than 200 means for a subscription.
    fn refused(&self, master: MasterAddress, status: StatusCode, sentence: &str) -> Trouble {
        let answer = status_and_sentence(status, sentence);
        match status {
            StatusCode::UNAUTHORIZED if self.credential.is_none() => Trouble::Fatal(format!(
                "the Mesos master {master} wants frameworks to authenticate ({answer}): give \
                 --framework-authentication-file with a principal and its secret"
            )),
            StatusCode::UNAUTHORIZED => Trouble::Fatal(format!(
                "the Mesos master {master} does not accept the framework's credentials \
                 ({answer}): check principal and secret in --framework-authentication-file"
            )),
            StatusCode::FORBIDDEN => Trouble::Fatal(format!(
                "the Mesos master {master} does not allow the framework to subscribe ({answer}): \
                 its principal is not authorized for the role and user that it asks for"
            )),
            // Not yet set up, overloaded, or not recovered: Mesos' own library tries again too.
            StatusCode::NOT_FOUND | StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                Trouble::NotNow { master, answer }
            }
            status if status.is_client_error() => Trouble::Fatal(format!(
                "the Mesos master {master} refuses the framework's subscription: {answer}"
            )),
            _ => Trouble::NotNow { master, answer },
        }
    }

    /// What an ERROR event means. Mesos sends sentences only; the recorded ones are in
    /// `03-failures.txt` among the test fixtures.
    fn explain(&self, master: &MasterAddress, message: &str) -> Trouble {
        let id = self.framework_id.as_deref().unwrap_or("(new)");
        if message.contains("has been removed") {
            Trouble::Fatal(format!(
                "the Mesos master {master} has removed the framework {id} ({message}): it was torn \
                 down, or no scheduler was there for longer than --framework-failover-timeout. Its \
                 tasks are gone and its id cannot be used again; take the framework id out of the \
                 stored state to register as a new framework"
            ))
        } else if message.contains("failed over") {
            Trouble::FailedOver(format!(
                "another scheduler has subscribed at the Mesos master {master} as the framework \
                 {id} ({message}): this one leads no longer. If that is not intended, look for a \
                 second process with the same stored state"
            ))
        } else {
            Trouble::Fatal(format!(
                "the Mesos master {master} ended the framework {id} with an error: {message}"
            ))
        }
    }
}

/// How long a stream may be silent that announces a heartbeat interval in seconds.
fn silence(interval: Option<f64>) -> Duration {
    let interval = interval
        .filter(|seconds| *seconds > 0.0)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .unwrap_or(DEFAULT_HEARTBEAT);
    interval.min(LONGEST_HEARTBEAT).mul_f64(SILENT_INTERVALS)
}

/// What an event of the stream means for the scheduler; `None` for a heartbeat and for types that a
/// later Mesos may add. The error says what is missing.
fn translate(event: Event) -> Result<Option<SchedulerEvent>, String> {
    let kind = Type::try_from(event.r#type.unwrap_or_default()).unwrap_or(Type::Unknown);
    let missing = || format!("it has the type {} and no body of it", kind.as_str_name());
    let told = match kind {
        Type::Offers => event.offers.map(|it| SchedulerEvent::Offers(it.offers)),
        Type::Rescind => event
            .rescind
            .map(|it| SchedulerEvent::Rescind(it.offer_id.value)),
        Type::Update => event.update.map(|it| SchedulerEvent::Update(it.status)),
        Type::Failure => event.failure.map(|it| SchedulerEvent::Failure {
            agent_id: it.agent_id.map(|id| id.value),
            executor_id: it.executor_id.map(|id| id.value),
            status: it.status,
        }),
        Type::Message => event.message.map(|it| SchedulerEvent::Message {
            agent_id: it.agent_id.value,
            executor_id: it.executor_id.value,
            data: it.data,
        }),
        Type::InverseOffers => event
            .inverse_offers
            .map(|it| SchedulerEvent::InverseOffers(it.inverse_offers)),
        Type::RescindInverseOffer => event
            .rescind_inverse_offer
            .map(|it| SchedulerEvent::RescindInverse(it.inverse_offer_id.value)),
        Type::UpdateOperationStatus => event
            .update_operation_status
            .map(|it| SchedulerEvent::OperationStatus(it.status)),
        Type::Error => event.error.map(|it| SchedulerEvent::Fatal {
            message: it.message,
        }),
        Type::Subscribed => return Err("a second SUBSCRIBED on one stream".to_owned()),
        Type::Heartbeat | Type::Unknown => return Ok(None),
    };
    told.map(Some).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_two_and_a_half_intervals_whatever_is_announced() {
        assert_eq!(silence(Some(2.0)), Duration::from_secs(5));
        let default = Duration::from_millis(37_500);
        for odd in [
            None,
            Some(0.0),
            Some(-1.0),
            Some(f64::NAN),
            Some(f64::INFINITY),
        ] {
            assert_eq!(silence(odd), default, "{odd:?}");
        }
        assert_eq!(silence(Some(1e9)), Duration::from_secs(1500));
    }

    #[test]
    fn an_event_without_its_body_is_named_and_an_unknown_one_ignored() {
        let of = |kind: i32| Event {
            r#type: Some(kind),
            ..Event::default()
        };
        assert!(translate(of(Type::Update as i32)).is_err_and(|what| what.contains("UPDATE")));
        assert_eq!(translate(of(Type::Heartbeat as i32)), Ok(None));
        assert_eq!(translate(of(999)), Ok(None));
        assert_eq!(translate(Event::default()), Ok(None));
    }
}
