//! The second connection to the master: calls go over it one after the other, in the order in which
//! they were made, under the identity of the subscription that is open just then.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use prost::Message as _;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::address::Target;
use super::authentication::Authorization;
use super::connection::{Connection, ConnectionError, Deadlines, Endpoint, Post, sentence};
use super::v1;
use super::v1::scheduler::{Call, call};

/// How many calls may wait. A scheduler that has more under way than this waits itself.
const MAX_WAITING_CALLS: usize = 256;

/// How long an answer may still come when the subscription has ended. A master ends it before it
/// answers TEARDOWN; a master that is gone does not answer at all.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// Why a call was not, or perhaps not, accepted by the master.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no subscription, so that no master would take the call.
    #[error("the Mesos call {call} was not sent: the scheduler is not subscribed to a master")]
    NotSubscribed {
        /// The call's type.
        call: &'static str,
    },
    /// The master was not reached; it has not acted on the call.
    #[error("the Mesos call {call} was not sent")]
    NotSent {
        /// The call's type.
        call: &'static str,
        /// What went wrong.
        #[source]
        source: ConnectionError,
    },
    /// The master has the call and does not act on it.
    #[error("the Mesos master {master} refused the call {call} with {status}: {sentence}")]
    Refused {
        /// The call's type.
        call: &'static str,
        /// `host:port` of the master.
        master: String,
        /// The HTTP status.
        status: StatusCode,
        /// What the master says, as recorded in `02-bad-calls.txt` among the test fixtures.
        sentence: String,
    },
    /// The master may have received the call and acted on it, or not.
    #[error("it is not known whether the Mesos master {master} has received the call {call}")]
    Uncertain {
        /// The call's type.
        call: &'static str,
        /// `host:port` of the master.
        master: String,
        /// What went wrong; `None` when the subscription ended meanwhile.
        #[source]
        source: Option<ConnectionError>,
    },
    /// The client was stopped.
    #[error("the Mesos call {call} was not sent: the scheduler is stopping")]
    Stopped {
        /// The call's type.
        call: &'static str,
    },
}

impl CallError {
    /// Whether the master may have acted on the call all the same.
    #[must_use]
    pub fn is_uncertain(&self) -> bool {
        matches!(self, Self::Uncertain { .. })
    }
}

/// The subscription under which calls are made.
pub(super) struct Session {
    pub target: Target,
    pub stream_id: HeaderValue,
    pub framework_id: String,
    pub authorization: Option<Authorization>,
}

/// The open subscription, or `None` between two.
pub(super) type SessionWatch = watch::Receiver<Option<Arc<Session>>>;

struct Job {
    call: Call,
    reply: oneshot::Sender<Result<(), CallError>>,
}

/// Makes calls. Clones share one queue.
#[derive(Clone)]
pub struct SchedulerHandle {
    jobs: mpsc::Sender<Job>,
}

impl SchedulerHandle {
    pub(super) fn start(
        session: SessionWatch,
        deadlines: Deadlines,
        shutdown: CancellationToken,
    ) -> Self {
        let (jobs, inbox) = mpsc::channel(MAX_WAITING_CALLS);
        let caller = Caller {
            session,
            deadlines,
            open: None,
        };
        tokio::spawn(shutdown.run_until_cancelled_owned(caller.run(inbox)));
        Self { jobs }
    }

    /// Sends a call to the leading master under the framework's id, which need not be filled in.
    ///
    /// Success means that the master has taken the call (202), not that it has done it.
    ///
    /// # Errors
    ///
    /// [`CallError`]; only [`CallError::Uncertain`] leaves open whether the master acts on it.
    pub async fn call(&self, call: Call) -> Result<(), CallError> {
        let name = name_of(&call);
        let stopped = || CallError::Stopped { call: name };
        let (reply, answer) = oneshot::channel();
        let job = Job { call, reply };
        self.jobs.send(job).await.map_err(|_| stopped())?;
        // A caller that is stopped while the call is under way drops the reply. What became of the
        // call is then unknown; but the process that asked is ending as well.
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }
}

/// The type of a call as Mesos writes it.
fn name_of(call: &Call) -> &'static str {
    call::Type::try_from(call.r#type.unwrap_or_default())
        .unwrap_or(call::Type::Unknown)
        .as_str_name()
}

struct Caller {
    session: SessionWatch,
    deadlines: Deadlines,
    /// The connection, and the session that it was opened for.
    open: Option<(Arc<Session>, Connection)>,
}

impl Caller {
    async fn run(mut self, mut inbox: mpsc::Receiver<Job>) {
        while let Some(Job { call, reply }) = inbox.recv().await {
            let answer = self.perform(call).await;
            if answer.is_err() {
                self.open = None;
            }
            // Whoever asked may have given up waiting.
            let _ = reply.send(answer);
        }
    }

    async fn perform(&mut self, call: Call) -> Result<(), CallError> {
        let name = name_of(&call);
        let session = self.session.borrow_and_update().clone();
        let Some(session) = session else {
            return Err(CallError::NotSubscribed { call: name });
        };
        let body = encode(call, &session);
        let mut sessions = self.session.clone();
        let ended = async {
            let _ = sessions.changed().await;
            tokio::time::sleep(LAST_ANSWERS).await;
        };
        tokio::select! {
            answer = self.send(name, body, &session) => answer,
            // Waiting longer for a master that was given up would hold up all later calls.
            () = ended => Err(CallError::Uncertain {
                call: name,
                master: session.target.address.to_string(),
                source: None,
            }),
        }
    }

    /// Sends on the open connection, and once more on a new one if the master had closed that
    /// before anything of the call was written.
    async fn send(
        &mut self,
        call: &'static str,
        body: Bytes,
        session: &Arc<Session>,
    ) -> Result<(), CallError> {
        let reused = matches!(&self.open, Some((owner, _)) if Arc::ptr_eq(owner, session));
        match self.send_once(call, body.clone(), session).await {
            Err(CallError::NotSent { .. }) if reused => {
                self.open = None;
                self.send_once(call, body, session).await
            }
            answer => answer,
        }
    }

    async fn send_once(
        &mut self,
        call: &'static str,
        body: Bytes,
        session: &Arc<Session>,
    ) -> Result<(), CallError> {
        let master = session.target.address.to_string();
        let failed = |source: ConnectionError| {
            if source.may_have_acted() {
                CallError::Uncertain {
                    call,
                    master: master.clone(),
                    source: Some(source),
                }
            } else {
                CallError::NotSent { call, source }
            }
        };
        let connection = self.connection(session).await.map_err(failed)?;
        let post = Post {
            path: &session.target.path,
            body,
            authorization: session.authorization.as_ref(),
            stream_id: Some(&session.stream_id),
        };
        let response = connection.post(&post).await.map_err(failed)?;
        let status = response.status();
        if status == StatusCode::ACCEPTED || status == StatusCode::OK {
            // Nothing is in it, but it must be read for the connection to take the next call.
            sentence(response, self.deadlines.answer).await;
            return Ok(());
        }
        let sentence = match response.headers().get(http::header::LOCATION) {
            Some(location) if status.is_redirection() => {
                let location = String::from_utf8_lossy(location.as_bytes()).into_owned();
                format!("it does not lead, {location} does")
            }
            _ => sentence(response, self.deadlines.answer).await,
        };
        Err(CallError::Refused {
            call,
            master,
            status,
            sentence,
        })
    }

    /// The connection of this session, opened if there is none.
    async fn connection(
        &mut self,
        session: &Arc<Session>,
    ) -> Result<&mut Connection, ConnectionError> {
        let usable = self
            .open
            .take()
            .filter(|(owner, _)| Arc::ptr_eq(owner, session));
        let open = match usable {
            Some(open) => open,
            None => {
                let endpoint = Endpoint::Tcp(session.target.address.to_string());
                let connection = Connection::open(&endpoint, self.deadlines).await?;
                (Arc::clone(session), connection)
            }
        };
        Ok(&mut self.open.insert(open).1)
    }
}

fn encode(mut call: Call, session: &Session) -> Bytes {
    call.framework_id = Some(v1::FrameworkId {
        value: session.framework_id.clone(),
    });
    call.encode_to_vec().into()
}
