//! The master's shell: its HTTP side, the task that owns the [`Core`], and the streams it writes.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use tokio::sync::{mpsc, oneshot, watch};

use crate::local::files::write_atomically;
use crate::local::http::{self, Encoding, Events, Reply, STREAM_ID};
use crate::local::wire::{REGISTER_PATH, Register, ToAgent, ToMaster};
use crate::mesos::v1::master;
use crate::mesos::v1::scheduler::{Call, call};
use crate::time::Timestamp;

use super::authentication::Credentials;
use super::core::{Core, Out};
use super::leader::Leader;
use super::operator::{self, Answer};
use super::registry::Registry;
use super::validate;

/// How many requests may wait for the core. More wait in their connections.
const MAX_WAITING_INPUTS: usize = 1024;

/// Something for the core.
enum Input {
    Subscribe {
        subscribe: call::Subscribe,
        stream: String,
        events: Events,
        principal: Option<String>,
    },
    Call {
        call: Box<Call>,
        stream: Option<String>,
        principal: Option<String>,
        reply: oneshot::Sender<Reply>,
    },
    StreamClosed(String),
    Register {
        register: Box<Register>,
        link: String,
        events: Events,
    },
    AgentMessage {
        agent_id: String,
        link: String,
        message: ToMaster,
    },
    LinkClosed(String),
    Operator {
        call: Box<master::Call>,
        reply: oneshot::Sender<Answer>,
    },
    State(oneshot::Sender<serde_json::Value>),
}

/// What request handlers share.
#[derive(Clone)]
pub struct Door {
    inputs: mpsc::Sender<Input>,
    credentials: Option<Arc<Credentials>>,
    leader: watch::Receiver<Leader>,
}

/// Starts the task that owns the core; it ends with the door.
pub fn open(
    core: Core,
    allocation_interval: Duration,
    registry: Option<PathBuf>,
    credentials: Option<Credentials>,
    leader: watch::Receiver<Leader>,
) -> Door {
    let (inputs, inbox) = mpsc::channel(MAX_WAITING_INPUTS);
    let shell = Shell {
        core,
        registry,
        streams: HashMap::new(),
        links: HashMap::new(),
    };
    tokio::spawn(shell.run(inbox, allocation_interval));
    Door {
        inputs,
        credentials: credentials.map(Arc::new),
        leader,
    }
}

/// Every request of the master comes here.
pub async fn handle(State(door): State<Door>, request: Request<Body>) -> Response<Body> {
    let path = request.uri().path().trim_end_matches('/').to_owned();
    match path.as_str() {
        "/api/v1/scheduler" | "/master/api/v1/scheduler" => door.scheduler(request).await,
        "/api/v1" | "/master/api/v1" => door.operator(request).await,
        "/health" | "/master/health" => Reply::ok("").response(),
        "/state" | "/master/state" => door.state().await,
        REGISTER_PATH => door.register(request).await.unwrap_or_else(Reply::response),
        path => match path
            .strip_prefix(REGISTER_PATH)
            .and_then(|rest| rest.strip_prefix('/'))
        {
            Some(agent_id) => {
                let agent_id = agent_id.to_owned();
                door.agent_message(agent_id, request)
                    .await
                    .unwrap_or_else(Reply::response)
            }
            None => Reply {
                status: StatusCode::NOT_FOUND,
                text: String::new(),
            }
            .response(),
        },
    }
}

impl Door {
    /// The scheduler API, in Mesos' order of checks.
    async fn scheduler(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let principal = match self.admit(&parts, "mesos-master-scheduler", "/scheduler") {
            Ok(principal) => principal,
            Err(refusal) => return refusal,
        };
        let call = match read_call(&parts.headers, body, principal.as_deref()).await {
            Ok(call) => call,
            Err(refusal) => return refusal.response(),
        };
        let stream = header(&parts.headers, &STREAM_ID);
        match call.subscribe {
            Some(subscribe) if call.r#type == Some(call::Type::Subscribe.into()) => {
                self.subscribe(&parts.headers, subscribe, stream, principal)
                    .await
            }
            subscribe => {
                let call = Call { subscribe, ..call };
                self.call(call, stream, principal).await.response()
            }
        }
    }

    async fn subscribe(
        &self,
        headers: &HeaderMap,
        subscribe: call::Subscribe,
        stream: Option<String>,
        principal: Option<String>,
    ) -> Response<Body> {
        let encoding = match Encoding::of_answer(headers) {
            Ok(encoding) => encoding,
            Err(refusal) => return refusal.response(),
        };
        if stream.is_some() {
            let text = "Subscribe calls should not include the 'Mesos-Stream-Id' header";
            return Reply::bad_request(text).response();
        }
        let stream = uuid::Uuid::new_v4().to_string();
        let (events, mut response, gone) = http::stream(encoding);
        if let Ok(id) = HeaderValue::from_str(&stream) {
            response.headers_mut().insert(STREAM_ID, id);
        }
        let inputs = self.inputs.clone();
        let closed = Input::StreamClosed(stream.clone());
        if inputs
            .send(Input::Subscribe {
                subscribe,
                stream,
                events,
                principal,
            })
            .await
            .is_err()
        {
            return stopped().response();
        }
        tokio::spawn(async move {
            let _ = gone.await;
            let _ = inputs.send(closed).await;
        });
        response
    }

    async fn call(&self, call: Call, stream: Option<String>, principal: Option<String>) -> Reply {
        let (reply, answer) = oneshot::channel();
        let input = Input::Call {
            call: Box::new(call),
            stream,
            principal,
            reply,
        };
        match self.inputs.send(input).await {
            Ok(()) => answer.await.unwrap_or_else(|_| stopped()),
            Err(_) => stopped(),
        }
    }

    /// What every API call has to pass, in Mesos' order: who asks, whether this master leads, and how.
    #[allow(clippy::result_large_err, reason = "the answer is sent at once")]
    fn admit(
        &self,
        parts: &Parts,
        realm: &str,
        api: &str,
    ) -> Result<Option<String>, Response<Body>> {
        let principal = self.authenticate(&parts.headers, realm)?;
        let leader = self.leader.borrow().clone();
        match leader {
            Leader::Me => {}
            Leader::Other(address) => return Err(redirect(&address, api)),
            Leader::Unknown => {
                let text = "No leader elected".to_owned();
                let status = StatusCode::SERVICE_UNAVAILABLE;
                return Err(Reply { status, text }.response());
            }
        }
        http::only_post(&parts.method)?;
        Ok(principal)
    }

    /// The operator API.
    async fn operator(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        if let Err(refusal) = self.admit(&parts, "mesos-master-readwrite", "") {
            return refusal;
        }
        let read = async {
            let encoding = Encoding::of_body(&parts.headers)?;
            let call: master::Call = encoding.decode(&http::read_body(body).await?)?;
            operator::validate(&call).map_err(|why| {
                Reply::bad_request(format!("Failed to validate master::Call: {why}"))
            })?;
            Ok((Box::new(call), Encoding::of_answer(&parts.headers)?))
        };
        let (call, encoding) = match read.await {
            Ok(read) => read,
            Err(refusal) => return Reply::response(refusal),
        };
        let (reply, answer) = oneshot::channel();
        let sent = self.inputs.send(Input::Operator { call, reply }).await;
        match (sent, answer.await) {
            (Ok(()), Ok(Answer::Reply(reply))) => reply.response(),
            (Ok(()), Ok(Answer::Response(message))) => {
                let mut response = Response::new(Body::from(encoding.encode(&*message)));
                let media_type = HeaderValue::from_static(encoding.media_type());
                response.headers_mut().insert(CONTENT_TYPE, media_type);
                response
            }
            _ => stopped().response(),
        }
    }

    /// Who asks, if that has to be proven.
    #[allow(clippy::result_large_err, reason = "the answer is sent at once")]
    fn authenticate(
        &self,
        headers: &HeaderMap,
        realm: &str,
    ) -> Result<Option<String>, Response<Body>> {
        let Some(credentials) = &self.credentials else {
            return Ok(None);
        };
        let header = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        match header.and_then(|header| credentials.check(header)) {
            Some(principal) => Ok(Some(principal)),
            None => {
                let text = "401 Unauthorized.".to_owned();
                let mut response = Reply {
                    status: StatusCode::UNAUTHORIZED,
                    text,
                }
                .response();
                if let Ok(realm) = HeaderValue::from_str(&format!("Basic realm=\"{realm}\"")) {
                    response.headers_mut().insert(WWW_AUTHENTICATE, realm);
                }
                Err(response)
            }
        }
    }

    async fn register(&self, request: Request<Body>) -> Result<Response<Body>, Reply> {
        if *self.leader.borrow() != Leader::Me {
            let text = "This master does not lead".to_owned();
            return Err(Reply {
                status: StatusCode::SERVICE_UNAVAILABLE,
                text,
            });
        }
        let register = Box::new(from_json(request).await?);
        let link = uuid::Uuid::new_v4().to_string();
        let (events, mut response, gone) = http::stream(Encoding::Json);
        if let Ok(id) = HeaderValue::from_str(&link) {
            response.headers_mut().insert(STREAM_ID, id);
        }
        let inputs = self.inputs.clone();
        let closed = Input::LinkClosed(link.clone());
        inputs
            .send(Input::Register {
                register,
                link,
                events,
            })
            .await
            .map_err(|_| stopped())?;
        tokio::spawn(async move {
            let _ = gone.await;
            let _ = inputs.send(closed).await;
        });
        Ok(response)
    }

    async fn agent_message(
        &self,
        agent_id: String,
        request: Request<Body>,
    ) -> Result<Response<Body>, Reply> {
        let link = header(request.headers(), &STREAM_ID).unwrap_or_default();
        let message = from_json(request).await?;
        let input = Input::AgentMessage {
            agent_id,
            link,
            message,
        };
        self.inputs.send(input).await.map_err(|_| stopped())?;
        Ok(Reply::accepted().response())
    }

    async fn state(&self) -> Response<Body> {
        let (reply, answer) = oneshot::channel();
        let sent = self.inputs.send(Input::State(reply)).await;
        match (sent, answer.await) {
            (Ok(()), Ok(state)) => Reply::ok(state.to_string()).response(),
            _ => stopped().response(),
        }
    }
}

async fn read_call(
    headers: &HeaderMap,
    body: Body,
    principal: Option<&str>,
) -> Result<Call, Reply> {
    let encoding = Encoding::of_body(headers)?;
    let body = http::read_body(body).await?;
    let call: Call = encoding.decode(&body)?;
    validate::call(&call, principal)
        .map_err(|why| Reply::bad_request(format!("Failed to validate scheduler::Call: {why}")))?;
    Ok(call)
}

async fn from_json<T: serde::de::DeserializeOwned>(request: Request<Body>) -> Result<T, Reply> {
    let (parts, body) = request.into_parts();
    if parts.method != Method::POST {
        return Err(Reply {
            status: StatusCode::METHOD_NOT_ALLOWED,
            text: String::new(),
        });
    }
    let body = http::read_body(body).await?;
    serde_json::from_slice(&body).map_err(|error| Reply::bad_request(error.to_string()))
}

fn header(headers: &HeaderMap, name: &axum::http::HeaderName) -> Option<String> {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned)
}

fn stopped() -> Reply {
    Reply {
        status: StatusCode::SERVICE_UNAVAILABLE,
        text: "The master is shutting down".to_owned(),
    }
}

/// Followers send everybody to the leader, without saying by which scheme.
fn redirect(address: &str, api: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    if let Ok(location) = HeaderValue::from_str(&format!("//{address}/master/api/v1{api}")) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// The task that owns the core.
struct Shell {
    core: Core,
    registry: Option<PathBuf>,
    streams: HashMap<String, Events>,
    links: HashMap<String, Events>,
}

impl Shell {
    async fn run(mut self, mut inbox: mpsc::Receiver<Input>, allocation_interval: Duration) {
        let mut tick = tokio::time::interval(allocation_interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                input = inbox.recv() => match input {
                    Some(input) => self.take(input),
                    None => return,
                },
                _ = tick.tick() => self.core.tick(Timestamp::now()),
            }
            self.carry_out();
        }
    }

    fn take(&mut self, input: Input) {
        let now = Timestamp::now();
        match input {
            Input::Subscribe {
                subscribe,
                stream,
                events,
                principal,
            } => {
                self.streams.insert(stream.clone(), events);
                self.core
                    .subscribe(subscribe, stream, principal.as_deref(), now);
            }
            Input::Call {
                call,
                stream,
                principal,
                reply,
            } => {
                let answer = self
                    .core
                    .call(*call, stream.as_deref(), principal.as_deref(), now);
                // Whoever asked may have gone; the call has happened all the same.
                let _ = reply.send(answer);
            }
            Input::StreamClosed(stream) => {
                self.streams.remove(&stream);
                self.core.stream_closed(&stream, now);
            }
            Input::Register {
                register,
                link,
                events,
            } => {
                self.links.insert(link.clone(), events);
                self.core.register(*register, link, now);
            }
            Input::AgentMessage {
                agent_id,
                link,
                message,
            } => {
                self.core.agent_message(&agent_id, &link, message);
            }
            Input::LinkClosed(link) => {
                self.links.remove(&link);
                self.core.link_closed(&link);
            }
            Input::Operator { call, reply } => {
                let answer = self.core.operate_master(*call, now);
                // What is to be stored is stored before the operator believes it.
                self.carry_out();
                let _ = reply.send(answer);
            }
            Input::State(reply) => {
                let _ = reply.send(self.core.state());
            }
        }
    }

    fn carry_out(&mut self) {
        for out in self.core.take_out() {
            match out {
                Out::Event { stream, event } => {
                    let sent = self
                        .streams
                        .get(&stream)
                        .is_some_and(|events| events.send(&*event));
                    if !sent {
                        // Too far behind: its end makes the scheduler subscribe again.
                        self.streams.remove(&stream);
                    }
                }
                Out::CloseStream(stream) => {
                    self.streams.remove(&stream);
                }
                Out::Agent { link, message } => self.tell(&link, &message),
                Out::CloseLink(link) => {
                    self.links.remove(&link);
                }
                Out::Registry(registry) => self.store(&registry),
            }
        }
    }

    fn tell(&mut self, link: &str, message: &ToAgent) {
        let record = match serde_json::to_vec(message) {
            Ok(record) => record,
            Err(error) => {
                return tracing::error!(%error, "a message for an agent cannot be written");
            }
        };
        if !self
            .links
            .get(link)
            .is_some_and(|events| events.send_record(&record))
        {
            self.links.remove(link);
        }
    }

    /// Without its registry a restarted master would call tasks of agents that are still on their
    /// way back unknown; so a failure to write it ends the master, as it does in Mesos.
    fn store(&self, registry: &Registry) {
        let Some(path) = &self.registry else { return };
        let text = serde_json::to_vec(registry).unwrap_or_default();
        if let Err(error) = write_atomically(path, &text) {
            tracing::error!(path = %path.display(), %error, "the registry cannot be written; the master ends");
            std::process::exit(1);
        }
    }
}
