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
    archive,
    backup::{self, Made, Tell},
    chain, donor,
    event::Event,
    install::Installed,
    mysqld::Group,
    opened,
    promise::{Promise, PromiseError},
    quarantine,
    steps::{self, Brought, Context, Running},
    unpromised,
    watchdog::Watchdog,
};
use crate::{
    cluster::{
        backup::{BackupOrder, BackupState},
        control::{Address, Beyond},
        flavour::Flavour,
        id::{DataId, Epoch, MemberId, ProcessId},
    },
    mesos::{executor::ExecutorHandle, v1},
    mysql::{Server, remote},
    zookeeper::control::ReportWriter,
};

/// How many facts may wait for the loop, which takes each in microseconds. More cannot come at the same
/// time: a step, a look, a canary, a promise, a backup, the checks and an end.
const QUEUE: usize = 16;

/// How long a canary may take. A member that rejoins waits for it; a master that waits for longer says so by
/// what is observed of it.
const CANARY_DEADLINE: Duration = Duration::from_secs(60);

/// How long a check may wait before it is given up: the lifecycle acts on it long before, and another check would
/// wait as well. It bounds what an executor forgets of it.
const CHECK_DEADLINE: Duration = Duration::from_secs(3600);

/// How long a voter may take to say whom it follows. It takes milliseconds; its answer is good for a lease.
const ASK_DEADLINE: Duration = Duration::from_secs(2);

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
    guard: Option<Guard>,
    backup: Option<(u64, AbortHandle)>,
    archive: Option<(u64, AbortHandle)>,
}

/// The watchdog of a server. Dropping it ends it.
struct Guard {
    process: ProcessId,
    watchdog: Watchdog,
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
            guard: None,
            backup: None,
            archive: None,
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
            Brought::Watchdog(process, watchdog) => self.keep_watchdog(process, watchdog),
            Brought::Unguarded => self.guard = None,
        }
    }

    /// Exports what a data directory that was set aside holds beyond the history.
    fn export(&self, data: DataId, beyond: Beyond) {
        let context = Arc::clone(&self.context);
        let (installed, events) = (self.installed.clone(), self.events.clone());
        task::spawn(async move {
            let export = match installed {
                Some(installed) => quarantine::export(&context, &installed, data, &beyond)
                    .await
                    .map_err(|error| chain(&error)),
                None => Err("no server is installed yet".to_owned()),
            };
            if let Err(problem) = &export {
                warn!(%data, problem, "what is not in the cluster's history was not exported; its data directory is kept");
            }
            send(&events, Event::Exported { data, export }).await;
        });
    }

    /// Makes a backup beside everything else.
    fn back_up(&mut self, order: BackupOrder, epoch: Epoch, user: String) {
        let context = Arc::clone(&self.context);
        let (installed, events) = (self.installed.clone(), self.events.clone());
        let server = self.running.as_ref();
        let server = server.map(|alive| Arc::clone(&alive.server));
        let number = order.number;
        info!(number, id = %order.id, "backup begun");
        let task = task::spawn(async move {
            let told = events.clone();
            let tell: Tell = Box::new(move |bytes| {
                let events = told.clone();
                Box::pin(async move {
                    let state = BackupState::Running { bytes };
                    send(&events, Event::Backup { number, state }).await;
                })
            });
            let made = match (installed, server) {
                (Some(installed), Some(server)) => {
                    backup::make(&context, &installed, server, &order, epoch, user, tell)
                        .await
                        .map_err(|error| chain(&error))
                }
                _ => Err("the server does not run".to_owned()),
            };
            let state = match made {
                Ok(Made {
                    bytes,
                    stored_bytes,
                    position,
                }) => BackupState::Done {
                    bytes,
                    stored_bytes,
                    position: Some(position),
                },
                Err(why) => {
                    warn!(number, why, "backup failed");
                    BackupState::Failed { why }
                }
            };
            send(&events, Event::Backup { number, state }).await;
        });
        self.backup = Some((number, task.abort_handle()));
    }

    /// Archives binlogs beside everything else.
    fn archive(&mut self, number: u64, archiving: archive::Task) {
        let server = self.running.as_ref();
        let Some(server) = server.map(|alive| Arc::clone(&alive.server)) else {
            // Its end is about to arrive, and with it what gives this up.
            return;
        };
        let events = self.events.clone();
        let tell: archive::Tell = Box::new(move |report| {
            let events = events.clone();
            Box::pin(async move { send(&events, Event::Archived { number, report }).await })
        });
        let context = Arc::clone(&self.context);
        let task = task::spawn(archive::run(context, server, archiving, tell));
        self.archive = Some((number, task.abort_handle()));
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
                let opens = match step {
                    Step::Open { epoch, .. } => Some(epoch),
                    _ => None,
                };
                let cluster = self.context.task.uuid;
                let server = self.running.as_ref();
                let server = server.map(|alive| (alive.id, Arc::clone(&alive.server)));
                let work = steps::perform(
                    step,
                    Arc::clone(&self.context),
                    self.installed.clone(),
                    server.as_ref().map(|(_, server)| Arc::clone(server)),
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
                    let opened = opens.filter(|_| outcome.is_ok());
                    let event = Event::Done { number, outcome };
                    // The queue is gone only when the executor ends.
                    let _ = events.send(Happened { event, brought }).await;
                    if let (Some((process, server)), Some(epoch)) = (server, opened) {
                        task::spawn(async move {
                            opened::tidy_up(server, cluster, epoch).await;
                            send(&events, Event::Tidied { process }).await;
                        });
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
            Action::WriteCanary {
                process,
                number,
                opened,
            } => self.ask(process, async move |server| {
                let deadline = Instant::now() + CANARY_DEADLINE;
                let written = match opened {
                    true => server.write_canary(number, deadline).await,
                    false => server.write_canary_closed(number, deadline).await,
                };
                let number = written.map(|()| number).map_err(|error| chain(&error));
                Event::Canary { process, number }
            }),
            Action::SetTerms { process, terms } => {
                let context = self.context.clone();
                self.ask(process, async move |server| {
                    let set = steps::set_terms(&server, &context, &terms).await;
                    let terms = set.map(|()| terms).map_err(|error| chain(&error));
                    Event::TermsSet { process, terms }
                })
            }
            Action::Prove { process } => self.ask(process, async move |server| {
                if let Err(error) = server
                    .release_commits(Instant::now() + CANARY_DEADLINE)
                    .await
                {
                    warn!(error = %chain(&error), "commits still wait for acknowledgements");
                }
                Event::Proved { process }
            }),
            Action::Ping { process } => {
                self.look_at_the_disk();
                self.ask(process, async move |server| {
                    let alive = server.gives_a_sign_of_life().await;
                    Event::Answered { process, alive }
                });
            }
            Action::Check { process } => self.ask(process, async move |server| {
                let committed = server.check_commit(Instant::now() + CHECK_DEADLINE).await;
                let committed = committed.map_err(|error| chain(&error));
                Event::Checked { process, committed }
            }),
            Action::AskVoters {
                process,
                master,
                voters,
            } => {
                let context = Arc::clone(&self.context);
                self.ask(process, async move |server| {
                    let flavour = server.flavour();
                    let all_receive = ask_voters(&context, flavour, &master, &voters).await;
                    Event::VotersAsked {
                        process,
                        all_receive,
                    }
                });
            }
            Action::Guard { process, patience } => self.guard(process, patience),
            Action::Feed { process } => {
                if let Some(guard) = self.guard.as_ref().filter(|guard| guard.process == process) {
                    guard.watchdog.feed();
                }
            }
            Action::ReadCanary { process } => self.ask(process, async move |server| {
                let number = server.read_highest_canary().await;
                let number = number
                    .map(Option::unwrap_or_default)
                    .map_err(|error| chain(&error));
                Event::Canary { process, number }
            }),
            Action::Export { data, beyond } => self.export(data, *beyond),
            Action::BackUp { order, epoch, user } => self.back_up(*order, epoch, user),
            Action::AbandonBackup { number } => {
                info!(number, "backup given up");
                if let Some((_, abort)) = self.backup.take_if(|(own, _)| *own == number) {
                    abort.abort();
                }
            }
            Action::Archive {
                number,
                order,
                epoch,
                data,
                lineage,
            } => self.archive(
                number,
                archive::Task {
                    order: *order,
                    epoch,
                    data,
                    lineage,
                },
            ),
            Action::AbandonArchive { number } => {
                info!(number, "archiving given up");
                if let Some((_, abort)) = self.archive.take_if(|(own, _)| *own == number) {
                    abort.abort();
                }
            }
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
        let sandbox = self.context.sandbox.clone();
        let events = self.events.clone();
        task::spawn(async move {
            let stored = task::spawn_blocking(move || {
                let path = sandbox.promise();
                if let Some(data) = promise.data {
                    unpromised::unmark(&sandbox, data).map_err(|source| PromiseError::Store {
                        path: path.clone(),
                        source,
                    })?;
                }
                promise.store(&path)
            })
            .await;
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

    /// A file system that hangs must not hang the executor.
    fn look_at_the_disk(&self) {
        let folder = self.context.sandbox.data_folder();
        let events = self.events.clone();
        task::spawn(async move {
            let found = task::spawn_blocking(move || nix::sys::statvfs::statvfs(&folder)).await;
            let available = found
                .ok()
                .and_then(Result::ok)
                .map(|found| found.blocks_available() * found.fragment_size());
            send(&events, Event::Space { available }).await;
        });
    }

    /// Starts a watchdog for a server.
    fn guard(&self, process: ProcessId, patience: Duration) {
        let alive = self.running.as_ref().filter(|alive| alive.id == process);
        let Some(group) = alive.map(|alive| alive.group.clone()) else {
            return;
        };
        let (context, events) = (Arc::clone(&self.context), self.events.clone());
        task::spawn(async move {
            let started = Watchdog::start(&context.spawner, &group, patience).await;
            let (started, brought) = match started {
                Ok(watchdog) => (Ok(()), Brought::Watchdog(process, watchdog)),
                Err(error) => (Err(chain(&error)), Brought::Nothing),
            };
            let event = Event::Guarded { process, started };
            // The queue is gone only when the executor ends.
            let _ = events.send(Happened { event, brought }).await;
        });
    }

    /// Tells of a watchdog's end.
    fn keep_watchdog(&mut self, process: ProcessId, watchdog: Watchdog) {
        let (ended, events) = (watchdog.ended(), self.events.clone());
        task::spawn(async move {
            ended.await;
            send(&events, Event::GuardEnded { process }).await;
        });
        self.guard = Some(Guard { process, watchdog });
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

/// Asks all voters at once.
async fn ask_voters(
    context: &Context,
    flavour: Flavour,
    master: &Address,
    voters: &[(MemberId, Option<Address>)],
) -> Result<(), String> {
    let answers = voters.iter().map(async |(member, address)| {
        let Some(address) = address else {
            return Err(format!("nobody knows where member {member} is"));
        };
        match remote::receives_from(address, master, flavour, &context.admin, ASK_DEADLINE).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("member {member} does not follow it any more")),
            Err(error) => Err(format!("member {member}: {}", chain(&error))),
        }
    });
    futures::future::join_all(answers)
        .await
        .into_iter()
        .collect()
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
