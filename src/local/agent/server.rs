//! The agent's shell: the executor API, the task that owns the [`Core`], and its hands.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response, StatusCode};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::local::http::{self, Encoding, Events, Reply};
use crate::local::master_link::News;
use crate::local::resources::Resources;
use crate::local::wire::{Register, ToAgent, ToMaster};
use crate::mesos::v1::executor::{Call, call};
use crate::time::Timestamp;

use super::cgroup::Cgroups;
use super::containers::{self, Container, Report};
use super::core::{Clocks, Core, ExecutorKey, Launch, Out, Process};
use super::environment::{self, AgentAddress};
use super::executors;
use super::store::Store;
use super::volumes;

/// How many requests may wait for the core. More wait in their connections.
const MAX_WAITING_INPUTS: usize = 1024;

/// Something for the core.
enum Input {
    Subscribe {
        call: Box<Call>,
        stream: String,
        events: Events,
        reply: oneshot::Sender<Result<(), Reply>>,
    },
    Call {
        call: Box<Call>,
        reply: oneshot::Sender<Reply>,
    },
    StreamClosed(String),
    /// What to say to a master, once recovery is over.
    Registration(oneshot::Sender<Register>),
    MasterGone,
    /// Which runs are not over.
    Runs(oneshot::Sender<BTreeSet<String>>),
    ShutDown,
}

/// What request handlers and the master's link share.
#[derive(Clone)]
pub struct Door {
    inputs: mpsc::Sender<Input>,
}

/// What the shell needs besides the core.
pub struct Surroundings {
    /// The agent's directory.
    pub work_dir: PathBuf,
    /// Its port.
    pub port: u16,
    /// The search path of executors.
    pub path: String,
    /// None when limits are not enforced.
    pub cgroups: Option<Cgroups>,
    /// Whether executors run as the framework's user.
    pub switch_user: bool,
}

impl Door {
    /// What to say to a master; waits until recovery is over.
    pub async fn registration(&self) -> Option<Register> {
        let (reply, answer) = oneshot::channel();
        self.inputs.send(Input::Registration(reply)).await.ok()?;
        answer.await.ok()
    }

    /// The connection to the master broke.
    pub async fn master_gone(&self) {
        // With the shell gone there is nobody to tell.
        let _ = self.inputs.send(Input::MasterGone).await;
    }

    /// The runs that are not over; none when the agent ends.
    pub async fn runs(&self) -> Option<BTreeSet<String>> {
        let (reply, answer) = oneshot::channel();
        self.inputs.send(Input::Runs(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Asks all executors to end.
    pub async fn shut_down(&self) {
        let _ = self.inputs.send(Input::ShutDown).await;
    }
}

/// Every request of the agent comes here.
pub async fn handle(State(door): State<Door>, request: Request<Body>) -> Response<Body> {
    match request.uri().path().trim_end_matches('/') {
        "/api/v1/executor" | "/slave(1)/api/v1/executor" => door.executor(request).await,
        "/health" | "/slave(1)/health" => Reply::ok("").response(),
        _ => Reply {
            status: StatusCode::NOT_FOUND,
            text: String::new(),
        }
        .response(),
    }
}

impl Door {
    async fn executor(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        if let Err(refusal) = http::only_post(&parts.method) {
            return refusal;
        }
        let read = async {
            let encoding = Encoding::of_body(&parts.headers)?;
            let call: Call = encoding.decode(&http::read_body(body).await?)?;
            executors::validate(&call).map_err(|why| {
                Reply::bad_request(format!("Failed to validate Executor::Call: {why}"))
            })?;
            Ok::<_, Reply>(call)
        };
        let call = match read.await {
            Ok(call) => call,
            Err(refusal) => return refusal.response(),
        };
        match call.r#type() {
            call::Type::Subscribe => match Encoding::of_answer(&parts.headers) {
                Ok(encoding) => self.subscribe(call, encoding).await,
                Err(refusal) => refusal.response(),
            },
            call::Type::Heartbeat => Reply::accepted().response(),
            call::Type::Update | call::Type::Message | call::Type::Unknown => {
                self.call(call).await.response()
            }
        }
    }

    async fn subscribe(&self, call: Call, encoding: Encoding) -> Response<Body> {
        let stream = uuid::Uuid::new_v4().to_string();
        let (events, response, gone) = http::stream(encoding);
        let (reply, answer) = oneshot::channel();
        let input = Input::Subscribe {
            call: Box::new(call),
            stream: stream.clone(),
            events,
            reply,
        };
        if self.inputs.send(input).await.is_err() {
            return stopped().response();
        }
        match answer.await.unwrap_or_else(|_| Err(stopped())) {
            Err(refusal) => refusal.response(),
            Ok(()) => {
                let inputs = self.inputs.clone();
                tokio::spawn(async move {
                    let _ = gone.await;
                    let _ = inputs.send(Input::StreamClosed(stream)).await;
                });
                response
            }
        }
    }

    async fn call(&self, call: Call) -> Reply {
        let (reply, answer) = oneshot::channel();
        match self
            .inputs
            .send(Input::Call {
                call: Box::new(call),
                reply,
            })
            .await
        {
            Ok(()) => answer.await.unwrap_or_else(|_| stopped()),
            Err(_) => stopped(),
        }
    }
}

fn stopped() -> Reply {
    Reply {
        status: StatusCode::SERVICE_UNAVAILABLE,
        text: "The agent is shutting down".to_owned(),
    }
}

/// The task that owns the core.
pub struct Shell {
    core: Core,
    clocks: Clocks,
    store: Store,
    surroundings: Surroundings,
    streams: HashMap<String, Events>,
    containers: HashMap<String, CancellationToken>,
    reports: mpsc::Sender<Report>,
    reported: mpsc::Receiver<Report>,
    inputs: mpsc::Receiver<Input>,
    news: mpsc::Receiver<News>,
    outbox: Option<mpsc::Sender<ToMaster>>,
    waiting: Vec<oneshot::Sender<Register>>,
    ending: bool,
}

impl Shell {
    /// A shell around a core, and the door to it.
    pub fn new(
        core: Core,
        clocks: Clocks,
        surroundings: Surroundings,
        news: mpsc::Receiver<News>,
    ) -> (Self, Door) {
        let (inputs, inbox) = mpsc::channel(MAX_WAITING_INPUTS);
        let (reports, reported) = mpsc::channel(MAX_WAITING_INPUTS);
        let shell = Self {
            core,
            clocks,
            store: Store::new(&surroundings.work_dir),
            surroundings,
            streams: HashMap::new(),
            containers: HashMap::new(),
            reports,
            reported,
            inputs: inbox,
            news,
            outbox: None,
            waiting: Vec::new(),
            ending: false,
        };
        (shell, Door { inputs })
    }

    /// Takes up the containers of a former run.
    ///
    /// # Errors
    ///
    /// A record that cannot be read.
    pub async fn recover(&mut self) -> std::io::Result<()> {
        let agent_id = self.core.id().to_owned();
        let mut found = Vec::new();
        for record in self.store.read_all(&agent_id)? {
            let process = record.process;
            let alive = process.filter(|process| super::processes::is_alive(*process));
            if let Some(process) = alive {
                self.watch_recovered(record.container_id.clone(), process);
            } else if !record.container_id.is_empty() {
                let Surroundings {
                    work_dir, cgroups, ..
                } = &self.surroundings;
                let run = &record.container_id;
                let sandbox = environment::sandbox(work_dir, &agent_id, &record.key(), run);
                containers::kill_leftovers(run, process, &sandbox, cgroups.as_ref()).await;
            }
            found.push((record, alive.is_some()));
        }
        self.core.recover(found, Timestamp::now());
        Ok(())
    }

    fn watch_recovered(&mut self, container_id: String, process: Process) {
        let cancel = CancellationToken::new();
        self.containers.insert(container_id.clone(), cancel.clone());
        let cgroups = self.surroundings.cgroups.clone();
        let reports = self.reports.clone();
        tokio::spawn(containers::watch_recovered(
            container_id,
            process,
            cgroups,
            cancel,
            reports,
        ));
    }

    /// Runs until it was asked to shut down and nothing runs any more.
    pub async fn run(mut self) {
        loop {
            self.carry_out();
            // Like Mesos', an agent that is ending does not register any more: what it still runs would be that of the new one.
            if !self.core.is_recovering() && !self.ending {
                for reply in std::mem::take(&mut self.waiting) {
                    let _ = reply.send(self.core.registration());
                }
            }
            if self.ending && self.core.is_idle() {
                return;
            }
            tokio::select! {
                Some(input) = self.inputs.recv() => self.take(input),
                Some(report) = self.reported.recv() => self.take_report(report),
                Some(news) = self.news.recv() => self.take_news(news),
                () = sleep_until(self.core.wake_at()) => self.core.tick(Timestamp::now()),
            }
        }
    }

    fn take(&mut self, input: Input) {
        let now = Timestamp::now();
        match input {
            Input::Subscribe {
                call,
                stream,
                events,
                reply,
            } => {
                self.streams.insert(stream.clone(), events);
                let answer = self.core.subscribe(*call, stream.clone(), now);
                if answer.is_err() {
                    self.streams.remove(&stream);
                }
                let _ = reply.send(answer);
            }
            Input::Call { call, reply } => {
                let answer = self.core.call(*call, now);
                // What the call changed is stored before it is answered.
                self.carry_out();
                let _ = reply.send(answer);
            }
            Input::StreamClosed(stream) => {
                self.streams.remove(&stream);
                self.core.stream_closed(&stream);
            }
            Input::Registration(reply) => {
                // What the last connection still brought belongs to what is told to the next master:
                // an operation that is done after that would be unknown there.
                while let Ok(news) = self.news.try_recv() {
                    self.take_news(news);
                }
                self.outbox = None;
                self.core.set_connected(false);
                self.waiting.push(reply);
            }
            Input::MasterGone => {
                self.outbox = None;
                self.core.set_connected(false);
            }
            Input::Runs(reply) => {
                let _ = reply.send(self.core.runs());
            }
            Input::ShutDown => {
                self.ending = true;
                self.core.shut_down_all(now);
            }
        }
    }

    fn take_report(&mut self, report: Report) {
        let now = Timestamp::now();
        match report {
            Report::Started {
                container_id,
                process,
            } => self.core.container_started(&container_id, process),
            Report::Failed {
                container_id,
                message,
            } => {
                self.containers.remove(&container_id);
                self.core.container_failed(&container_id, message, now);
            }
            Report::Ended {
                container_id,
                status,
                limitation,
            } => {
                self.containers.remove(&container_id);
                self.core
                    .container_ended(&container_id, status, limitation, now);
            }
        }
    }

    fn take_news(&mut self, news: News) {
        match news {
            News::Connected { outbox } => self.outbox = Some(outbox),
            News::Message(message) => {
                if self.ending && matches!(message, ToAgent::RunTask { .. }) {
                    return;
                }
                self.ending |= matches!(message, ToAgent::Shutdown { .. });
                self.core
                    .from_master(message, uuid::Uuid::new_v4(), Timestamp::now());
            }
        }
    }

    fn carry_out(&mut self) {
        for out in self.core.take_out() {
            match out {
                Out::Store(key) => self.write(&key),
                Out::Forget { key, container_id } => {
                    self.store.remove(self.core.id(), &key, &container_id)
                }
                Out::StoreId(id) => {
                    if let Err(error) = self.store.write_id(&id) {
                        fail("keep the agent's id", &error);
                    }
                }
                Out::ForgetId => {
                    if let Err(error) = self.store.remove_id() {
                        fail("forget its id", &error);
                    }
                }
                Out::Checkpoint(checkpoint) => {
                    if let Err(error) = self.store.write_checkpoint(&checkpoint) {
                        fail("keep what is reserved", &error);
                    }
                }
                Out::MakeVolumes(made) => {
                    if let Err(error) = volumes::make(&self.surroundings.work_dir, &made) {
                        fail("make the directories of volumes", &error);
                    }
                }
                Out::RemoveVolumes(destroyed) => {
                    if let Err(error) = volumes::remove(&self.surroundings.work_dir, &destroyed) {
                        fail("remove the directories of volumes", &error);
                    }
                }
                Out::Mount {
                    key,
                    container_id,
                    resources,
                } => self.mount(&key, &container_id, &resources),
                Out::Abort(why) => fail("go on", &std::io::Error::other(why)),
                Out::Launch(launch) => self.launch(*launch),
                Out::Limit {
                    container_id,
                    resources,
                } => {
                    if let Some(cgroups) = &self.surroundings.cgroups
                        && let Err(error) = cgroups.limit(&container_id, &resources)
                    {
                        tracing::warn!(%container_id, %error, "the container's limits cannot be changed");
                    }
                }
                Out::Kill { container_id } => {
                    if let Some(cancel) = self.containers.get(&container_id) {
                        cancel.cancel();
                    }
                }
                Out::Event { stream, event } => {
                    if !self
                        .streams
                        .get(&stream)
                        .is_some_and(|events| events.send(&*event))
                    {
                        self.streams.remove(&stream);
                    }
                }
                Out::CloseStream(stream) => {
                    self.streams.remove(&stream);
                }
                Out::Master(message) => {
                    if let Some(outbox) = &self.outbox {
                        // With a full outbox the master is in trouble; statuses are sent again.
                        let _ = outbox.try_send(*message);
                    }
                }
            }
        }
    }

    fn write(&self, key: &ExecutorKey) {
        let Some(record) = self.core.record(key) else {
            return;
        };
        if let Err(error) = self.store.write(self.core.id(), key, record) {
            fail("keep an executor's record", &error);
        }
    }

    /// A container that cannot have its volumes is ended; its tasks then fail.
    fn mount(&self, key: &ExecutorKey, container_id: &str, resources: &Resources) {
        let work_dir = &self.surroundings.work_dir;
        let sandbox = environment::sandbox(work_dir, self.core.id(), key, container_id);
        let mounts = volumes::mounts(work_dir, resources);
        if let Err(error) = volumes::link(work_dir, &sandbox, &mounts) {
            tracing::error!(%container_id, %error, "the container cannot have its volumes and is ended");
            if let Some(cancel) = self.containers.get(container_id) {
                cancel.cancel();
            }
        }
    }

    fn launch(&mut self, launch: Launch) {
        let agent_id = self.core.id().to_owned();
        let framework_id = launch
            .framework
            .id
            .as_ref()
            .map(|id| id.value.clone())
            .unwrap_or_default();
        let key = (framework_id, launch.executor.executor_id.value.clone());
        let Surroundings {
            work_dir,
            port,
            path,
            cgroups,
            switch_user,
        } = &self.surroundings;
        let sandbox = environment::sandbox(work_dir, &agent_id, &key, &launch.container_id);
        let address = AgentAddress {
            id: agent_id,
            ip: self.core.ip().to_owned(),
            port: *port,
        };
        let cancel = CancellationToken::new();
        self.containers
            .insert(launch.container_id.clone(), cancel.clone());
        let container = Container {
            variables: environment::variables(&launch, &address, &self.clocks, &sandbox, path),
            mounts: volumes::mounts(work_dir, &launch.resources),
            work_dir: work_dir.clone(),
            launch,
            sandbox,
            cgroups: cgroups.clone(),
            switch_user: *switch_user,
            cancel,
            reports: self.reports.clone(),
        };
        tokio::spawn(container.run());
    }
}

/// An agent that cannot keep its records must not go on: after a restart it would not know what it
/// runs. Mesos' agents abort as well.
fn fail(what: &str, error: &std::io::Error) -> ! {
    tracing::error!(%error, "the agent cannot {what} and ends");
    std::process::exit(1);
}

async fn sleep_until(at: Option<Timestamp>) {
    match at {
        Some(at) => tokio::time::sleep(at.since(Timestamp::now())).await,
        None => std::future::pending().await,
    }
}
