//! The hands of the executor: what an action does to the world.
//!
//! Nothing is decided here. Whatever takes time runs beside the loop and ends in an [`Event`], which comes
//! back through one bounded queue.

use std::{sync::Arc, time::Duration};

use nix::sys::signal::Signal;
use tokio::{
    sync::mpsc,
    task::{self, AbortHandle},
    time::Instant,
};
use tracing::{error, info, warn};

use super::{
    action::{Action, Step, TaskUpdate},
    chain, donor,
    event::Event,
    install::Installed,
    mysqld::Group,
    promise::Promise,
    steps::{self, Brought, Context, Running},
};
use crate::{
    cluster::id::ProcessId,
    mesos::{executor::ExecutorHandle, v1},
    mysql::Server,
    zookeeper::control::ReportWriter,
};

/// How many facts may wait for the loop, which takes each in microseconds. More cannot come at the same
/// time: a step, a look, a canary, a promise and an end.
const QUEUE: usize = 16;

/// How long a canary may take. A member that rejoins waits for it; a master that waits for longer says so by
/// what is observed of it.
const CANARY_DEADLINE: Duration = Duration::from_secs(60);

/// How long Mesos may take to acknowledge the last update before the executor ends all the same.
const LAST_UPDATE_DEADLINE: Duration = Duration::from_secs(5);

/// An event, and what came with it that is no fact but a thing.
#[derive(Debug)]
pub struct Happened {
    /// The fact.
    pub event: Event,
    /// The thing.
    pub brought: Brought,
}

/// Performs actions.
pub struct Hands {
    context: Arc<Context>,
    promise: Promise,
    mesos: ExecutorHandle,
    agent: Option<v1::AgentId>,
    reports: ReportWriter,
    events: mpsc::Sender<Happened>,
    installed: Option<Installed>,
    running: Option<Alive>,
    step: Option<(u64, AbortHandle)>,
}

/// The server as far as the hands need it; its process is with the task that waits for its end.
struct Alive {
    id: ProcessId,
    group: Group,
    server: Arc<Server>,
}

impl Hands {
    /// Hands for a task, and the queue of what comes back.
    pub fn new(
        context: Arc<Context>,
        promise: Promise,
        mesos: ExecutorHandle,
        agent: Option<v1::AgentId>,
        reports: ReportWriter,
    ) -> (Self, mpsc::Receiver<Happened>) {
        let (events, queue) = mpsc::channel(QUEUE);
        let hands = Self {
            context,
            promise,
            mesos,
            agent,
            reports,
            events,
            installed: None,
            running: None,
            step: None,
        };
        (hands, queue)
    }

    /// Takes over what a step has brought, if the step was not given up: else the thing is dropped, and a
    /// server that was started is killed with it.
    pub fn take(&mut self, brought: Brought) {
        match brought {
            Brought::Nothing => {}
            Brought::Installed(installed) => {
                self.hand_out(&installed);
                self.installed = Some(installed);
            }
            Brought::Running(running) => self.watch(running),
        }
    }

    /// Begins to hand the server's data out to other executors.
    fn hand_out(&self, installed: &Installed) {
        match donor::start(&self.context, installed) {
            Ok(Some(port)) => {
                let events = self.events.clone();
                task::spawn(async move { send(&events, Event::HandsOut { port }).await });
            }
            Ok(None) => {}
            Err(error) => {
                warn!(%error, "there is no port at which other members could copy this one");
            }
        }
    }

    /// Tells of the server's end as soon as it comes.
    fn watch(&mut self, running: Running) {
        let Running {
            id,
            mut process,
            server,
        } = running;
        self.running = Some(Alive {
            id,
            group: process.group(),
            server,
        });
        let events = self.events.clone();
        task::spawn(async move {
            let how = steps::how_it_ended(process.ended().await);
            warn!(process = %id, how, "server ended");
            send(&events, Event::Exited { process: id, how }).await;
        });
    }

    /// Stops the step that the state does not know any more.
    pub fn give_up_all_but(&mut self, number: Option<u64>) {
        if let Some((_, abort)) = self.step.take_if(|(own, _)| Some(*own) != number) {
            abort.abort();
        }
    }

    /// Hands an action over to the world. Returns at once.
    pub fn execute(&mut self, action: Action) {
        match action {
            Action::Promise { epoch, data } => {
                self.promise.epoch = epoch;
                self.promise.data = data;
                self.store(self.promise);
            }
            Action::Begin { number, step } => {
                info!(?step, number, "step begun");
                let opens = matches!(step, Step::Open { .. });
                let server = self.running.as_ref().map(|alive| Arc::clone(&alive.server));
                let work = steps::perform(
                    step,
                    Arc::clone(&self.context),
                    self.installed.clone(),
                    server.clone(),
                );
                let events = self.events.clone();
                let task = task::spawn(async move {
                    let (outcome, brought) = match work.await {
                        Ok((outcome, brought)) => (Ok(outcome), brought),
                        Err(problem) => {
                            warn!(number, problem, "step failed");
                            (Err(problem), Brought::Nothing)
                        }
                    };
                    let server = server.filter(|_| opens && outcome.is_ok());
                    let event = Event::Done { number, outcome };
                    // The queue is gone only when the executor ends.
                    let _ = events.send(Happened { event, brought }).await;
                    if let Some(server) = server {
                        task::spawn(forget_source(server));
                    }
                });
                self.step = Some((number, task.abort_handle()));
            }
            // What the state does not know any more is given up after each plan.
            Action::Abandon { number } => info!(number, "step given up"),
            Action::Kill { process } => self.signal(process, Signal::SIGKILL),
            Action::Terminate { process } => self.signal(process, Signal::SIGTERM),
            Action::Observe { process } => self.ask(process, async move |server| {
                let seen = server
                    .observe()
                    .await
                    .map(Box::new)
                    .map_err(|error| chain(&error));
                Event::Observed { process, seen }
            }),
            Action::WriteCanary { process, number } => self.ask(process, async move |server| {
                let written = server
                    .write_canary(number, Instant::now() + CANARY_DEADLINE)
                    .await;
                let number = written.map(|()| number).map_err(|error| chain(&error));
                Event::Canary { process, number }
            }),
            Action::Prove { process } => self.ask(process, async move |server| {
                if let Err(error) = server
                    .release_commits(Instant::now() + CANARY_DEADLINE)
                    .await
                {
                    warn!(error = %chain(&error), "commits still wait for acknowledgements");
                }
                Event::Proved { process }
            }),
            Action::ReadCanary { process } => self.ask(process, async move |server| {
                let number = server.read_canary().await;
                let number = number
                    .map(Option::unwrap_or_default)
                    .map_err(|error| chain(&error));
                Event::Canary { process, number }
            }),
            Action::Report(report) => {
                info!(
                    state = ?report.state,
                    promised = report.promised.0,
                    problem = report.problem,
                    "report"
                );
                if let Err(error) = self.reports.put(&report) {
                    error!(%error, "the report cannot be written");
                }
            }
            Action::Update(update) => self.update(update),
            Action::Exit => {}
        }
    }

    /// Ends what Mesos has to know of the task.
    pub async fn last_update_acknowledged(&self) -> bool {
        self.mesos.acknowledged_all(LAST_UPDATE_DEADLINE).await
    }

    fn store(&self, promise: Promise) {
        let path = self.context.sandbox.promise();
        let events = self.events.clone();
        task::spawn(async move {
            let stored = task::spawn_blocking(move || promise.store(&path)).await;
            let event = match stored {
                Ok(Ok(())) => Event::Promised {
                    epoch: promise.epoch,
                    data: promise.data,
                },
                Ok(Err(error)) => Event::PromiseFailed {
                    problem: chain(&error),
                },
                Err(panicked) => Event::PromiseFailed {
                    problem: panicked.to_string(),
                },
            };
            send(&events, event).await;
        });
    }

    fn signal(&self, process: ProcessId, signal: Signal) {
        if let Some(alive) = self.running.as_ref().filter(|alive| alive.id == process) {
            info!(%process, %signal, "server signalled");
            alive.group.signal(signal);
        }
    }

    /// Asks something of the server beside the steps.
    fn ask<F>(&self, process: ProcessId, question: impl FnOnce(Arc<Server>) -> F)
    where
        F: Future<Output = Event> + Send + 'static,
    {
        if let Some(alive) = self.running.as_ref().filter(|alive| alive.id == process) {
            let answer = question(Arc::clone(&alive.server));
            let events = self.events.clone();
            task::spawn(async move { send(&events, answer.await).await });
        }
    }

    fn update(&self, update: TaskUpdate) {
        let (state, message) = match update {
            TaskUpdate::Starting => (v1::TaskState::TaskStarting, None),
            TaskUpdate::Running => (v1::TaskState::TaskRunning, None),
            TaskUpdate::Killing => (v1::TaskState::TaskKilling, None),
            TaskUpdate::Killed => (v1::TaskState::TaskKilled, None),
            TaskUpdate::Failed { problem } => (v1::TaskState::TaskFailed, Some(problem)),
        };
        info!(state = state.as_str_name(), message, "task update");
        self.mesos.update(v1::TaskStatus {
            task_id: v1::TaskId {
                value: self.context.task.task_id.as_str().to_owned(),
            },
            state: state as i32,
            message,
            agent_id: self.agent.clone(),
            ..Default::default()
        });
    }
}

/// A master forgets whom it followed when it is open already: on a busy disk it takes as long as the rest of the promotion,
/// and only keeps those from wondering who look at its replication status.
///
/// No step meets this: a process that was master is killed before anything else is made of it. A server that ends before it
/// is done starts with its replication stopped and with relay logs of which everything is executed, like any
/// other that followed. What it does next, in a later epoch, is to follow, which throws them away, or to be
/// master again and come here. So it is not tried again either.
async fn forget_source(server: Arc<Server>) {
    if let Err(error) = server.forget_source().await {
        warn!(error = %chain(&error), "the master before is not forgotten");
    }
}

async fn send(events: &mpsc::Sender<Happened>, event: Event) {
    // The queue is gone only when the executor ends.
    let _ = events
        .send(Happened {
            event,
            brought: Brought::Nothing,
        })
        .await;
}
