//! `cotton executor`: one MySQL or MariaDB instance, started by a Mesos agent.
//!
//! ```text
//! agent --LAUNCH--> sandbox, keys, ZooKeeper session --> driver: receive -> apply -> plan -> execute
//! ```
//!
//! It subscribes to its agent before anything else, so that Mesos sees it in milliseconds; everything that
//! it needs is made when the task arrives.
//!
//! * Pure: [`event`] (what arrives), [`action`] (what can be asked), [`lifecycle`] (what follows from what), [`tempo`] (how
//!   fast a copy goes beside clients).
//! * The shell: [`driver`] (the only loop), [`execute`] (what an action does), [`steps`] (what a step does),
//!   [`install`], [`datadir`], [`scratch`], [`quarantine`], [`unpromised`], [`rebuild`], [`receive`], [`donor`], [`stream`], [`pace`], [`tools`],
//!   [`mysqld`], [`mod@watchdog`], [`promise`], [`sandbox`], [`mod@agent_cache`], [`copy`].
//!
//! A task that verifies a backup is no member and has nothing of this but a few steps: [`verify`].
//!
//! The server dies with the executor (a death signal), the executor does not die with its agent, and losing
//! ZooKeeper changes nothing by itself.

pub mod action;
pub mod agent_cache;
pub mod archive;
pub mod backup;
pub mod copy;
pub mod datadir;
pub mod donor;
pub mod driver;
pub mod event;
pub mod execute;
pub mod handover;
pub mod install;
pub mod lifecycle;
pub mod mysqld;
pub mod opened;
pub mod pace;
mod port;
pub mod promise;
pub mod quarantine;
pub mod rebuild;
pub mod receive;
pub mod replay;
pub mod restore;
pub mod sandbox;
pub mod scratch;
pub mod starting;
pub mod steps;
pub mod stream;
pub mod tempo;
pub mod tools;
pub mod unpromised;
pub mod upgrade;
pub mod verify;
pub mod watchdog;

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::{
    agent_cache::AgentCache,
    datadir::DataDirError,
    driver::{Clock, Driver, Grace},
    execute::Hands,
    lifecycle::State,
    mysqld::{SpawnError, Spawner},
    port::PortTaken,
    promise::{Promise, PromiseError},
    sandbox::{Sandbox, SandboxError},
    steps::Context,
};
use crate::{
    cluster::{
        control::{self, TaskData},
        id::TaskId,
    },
    keyfile::{Account, KeyFileError},
    mesos::{
        executor::{self, ExecutorEnvironment, ExecutorEvent, ExecutorHandle},
        v1::{self, executor::event::Subscribed},
    },
    mysql::Credentials,
    zookeeper::{
        acl::Acls,
        control::{GoalWatch, ReportWriter},
        session::{Session, SessionConfig},
        url::{self, InvalidZkUrl, ZkUrl},
    },
};

/// How long the last words to Mesos and ZooKeeper may take.
const GOODBYE: Duration = Duration::from_secs(5);

/// The files of a user's own `my.cnf` settings, the original's name last.
const DEFAULTS_FILE_VARIABLES: [&str; 2] = ["COTTON_DEFAULTS_FILE", "MYSOS_DEFAULTS_FILE"];

/// The task cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// Signals cannot be received.
    #[error("the executor cannot receive signals")]
    Signals(#[source] io::Error),
    /// The task's data is not what this version understands.
    #[error(
        "the task's data is not that of a Cotton task of format {}",
        control::FORMAT
    )]
    TaskData(#[source] serde_json::Error),
    /// The task's data is of a later version.
    #[error("the task's data has format {found}, and this executor knows {known}; use an executor of the scheduler's version", known = control::VERIFY_FORMAT)]
    TaskFormat {
        /// The format found.
        found: u32,
    },
    /// A key file cannot be used.
    #[error("a key file of the agent cannot be used")]
    KeyFile(#[from] KeyFileError),
    /// The ZooKeeper URL in the task's data is not one.
    #[error("the ZooKeeper URL in the task's data cannot be used")]
    ZooKeeperUrl(#[from] InvalidZkUrl),
    /// The user's own settings cannot be read.
    #[error("the file {path} with MySQL settings, named by {variable}, cannot be read")]
    Defaults {
        /// The variable.
        variable: &'static str,
        /// The file.
        path: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The sandbox cannot be used.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The promise cannot be read.
    #[error(transparent)]
    Promise(#[from] PromiseError),
    /// Data directories cannot be looked at.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// Those that were set aside cannot be looked at.
    #[error("the data directories that were set aside in {path} cannot be looked through")]
    Quarantine {
        /// Where they lie.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The server could not listen, and nothing of the member is there yet.
    #[error(transparent)]
    Unfit(PortTaken),
    /// The server could not listen where its data is.
    #[error(transparent)]
    Port(PortTaken),
    /// Processes cannot be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}

/// Runs the executor until its task has ended.
///
/// # Errors
/// When the process cannot do its work at all; what concerns the task is told to Mesos.
pub async fn run(environment: ExecutorEnvironment) -> Result<(), ExecutorError> {
    let goodbye = CancellationToken::new();
    let _say_goodbye = goodbye.clone().drop_guard();
    let (mesos, mut events) = executor::start(environment.clone(), goodbye);
    let Some((task, agent)) = launched(&mut events).await else {
        info!("the executor ends without a task");
        return Ok(());
    };
    let prepared = match read_task_data(&task) {
        Ok(data) => match data.verify.clone() {
            Some(order) => match context(&environment, data, agent) {
                Ok(context) => return verify::run(context, &order, &mesos, events).await,
                Err(error) => Err(error),
            },
            None => prepare(&environment, data, &task, agent, mesos.clone(), events).await,
        },
        Err(error) => Err(error),
    };
    match prepared {
        Ok(mut prepared) => {
            prepared.driver.run().await?;
            // The report goes with the session, so that nobody has to wait for that to expire.
            drop(prepared.driver);
            prepared.session.close(GOODBYE).await;
        }
        Err(error) => {
            let problem = chain(&error);
            warn!(problem, "the task cannot be run");
            let state = match error {
                // With this word nothing was begun here: the scheduler looks for another place.
                ExecutorError::Unfit(_) => v1::TaskState::TaskError,
                _ => v1::TaskState::TaskFailed,
            };
            mesos.update(v1::TaskStatus {
                task_id: task.task_id,
                state: state as i32,
                message: Some(problem),
                ..Default::default()
            });
            mesos.acknowledged_all(GOODBYE).await;
        }
    }
    Ok(())
}

/// Waits for the task; `None` if the agent wants none to be run.
async fn launched(
    events: &mut mpsc::Receiver<ExecutorEvent>,
) -> Option<(v1::TaskInfo, Option<v1::AgentInfo>)> {
    let mut agent = None;
    while let Some(event) = events.recv().await {
        match event {
            ExecutorEvent::Subscribed(subscribed) => {
                let Subscribed { agent_info, .. } = *subscribed;
                agent = Some(agent_info);
            }
            ExecutorEvent::Launch(task) => return Some((*task, agent)),
            ExecutorEvent::Shutdown | ExecutorEvent::Kill { .. } => return None,
            ExecutorEvent::Message(_)
            | ExecutorEvent::Acknowledged { .. }
            | ExecutorEvent::Disconnected { .. }
            | ExecutorEvent::Error { .. } => {}
        }
    }
    None
}

struct Prepared {
    driver: Driver,
    session: Session,
}

/// What does not change while the task lives.
fn context(
    environment: &ExecutorEnvironment,
    task: TaskData,
    agent: Option<v1::AgentInfo>,
) -> Result<Context, ExecutorError> {
    let sandbox = Sandbox::open(&environment.sandbox)?;
    let admin = Account::read(Path::new(&task.admin_keypath))?;
    Ok(Context {
        sandbox,
        spawner: Spawner::start()?,
        cache: agent_cache(),
        admin: Credentials {
            user: admin.username,
            password: admin.password,
        },
        bind_address: bind_address(),
        host: agent.map_or_else(|| "localhost".to_owned(), |agent| agent.hostname),
        user_defaults: user_defaults()?,
        task,
    })
}

/// Makes everything that a member's task needs.
async fn prepare(
    environment: &ExecutorEnvironment,
    data: TaskData,
    task: &v1::TaskInfo,
    agent: Option<v1::AgentInfo>,
    mesos: ExecutorHandle,
    events: mpsc::Receiver<ExecutorEvent>,
) -> Result<Prepared, ExecutorError> {
    let agent_id = agent.as_ref().and_then(|agent| agent.id.clone());
    let context = Arc::new(context(environment, data.clone(), agent)?);
    let sandbox = &context.sandbox;
    let promise = Promise::load(&sandbox.promise(), data.uuid)?;
    let is_new = promise == Promise::none(data.uuid);
    let free = port::free(&context.bind_address, data.port, !is_new).await;
    free.map_err(|taken| match is_new {
        true => ExecutorError::Unfit(taken),
        false => ExecutorError::Port(taken),
    })?;
    // A name without a directory, or a directory without its name, is nobody's.
    let in_use = promise.data.filter(|data| sandbox.data(*data).is_dir());
    datadir::set_aside_unused(sandbox, in_use)?;
    let folder = sandbox.quarantine_folder();
    if let Err(error) = unpromised::retire(&folder) {
        warn!(%error, "data directories that were never used cannot be removed");
    }
    let unexported =
        quarantine::unexported(&folder).map_err(|source| ExecutorError::Quarantine {
            path: folder,
            source,
        })?;
    let (session, reports, goals) = connect(&data)?;
    let clock = Clock::start();
    let state = State::new(data, promise.epoch, in_use, clock.now()).with_unexported(unexported);
    let (hands, happened) = Hands::new(context, promise, mesos, agent_id, reports);
    let grace = Grace {
        kill: kill_policy(task).unwrap_or(environment.shutdown_grace_period),
        shutdown: environment.shutdown_grace_period,
    };
    let driver = Driver {
        state,
        hands,
        happened,
        mesos: events,
        goals,
        contact: session.state(),
        clock,
        grace,
    };
    Ok(Prepared { driver, session })
}

fn read_task_data(task: &v1::TaskInfo) -> Result<TaskData, ExecutorError> {
    let bytes = task.data.as_deref().unwrap_or_default();
    let mut data: TaskData = serde_json::from_slice(bytes).map_err(ExecutorError::TaskData)?;
    if data.format > control::VERIFY_FORMAT {
        return Err(ExecutorError::TaskFormat { found: data.format });
    }
    // Mesos' word for it is the one that updates must carry.
    data.task_id = TaskId::from_wire(task.task_id.value.clone());
    Ok(data)
}

/// Begins a ZooKeeper session with the executors' identity.
fn connect(task: &TaskData) -> Result<(Session, ReportWriter, GoalWatch), ExecutorError> {
    let identity = match &task.zookeeper_identity {
        Some(path) => {
            let Account { username, password } = Account::read(Path::new(path))?;
            Some(url::Credentials {
                user: username,
                password,
            })
        }
        None => None,
    };
    let url: ZkUrl = task.zookeeper.parse()?;
    let session = Session::connect(SessionConfig {
        url: url.with_credentials(identity.clone()),
        identities: Vec::new(),
        timeout: Duration::from_millis(task.session_timeout_ms),
        root_acl: None,
    });
    let acl = Acls::of_reports(identity.as_ref());
    let reports = ReportWriter::start(session.clone(), &task.cluster, &task.task_id, acl);
    let goals = GoalWatch::start(session.clone(), &task.cluster);
    Ok((session, reports, goals))
}

fn agent_cache() -> Option<AgentCache> {
    AgentCache::open(&std::env::temp_dir())
        .inspect_err(|error| {
            warn!(error = %chain(error), "nothing is shared with other executors of this agent");
        })
        .ok()
}

/// All addresses; but an agent on a loopback address shares the machine, and its port numbers, with other
/// agents, each of which has an address of its own.
fn bind_address() -> String {
    std::env::var("LIBPROCESS_IP")
        .ok()
        .filter(|ip| ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()))
        .unwrap_or_else(|| "*".to_owned())
}

fn user_defaults() -> Result<Option<String>, ExecutorError> {
    let named = DEFAULTS_FILE_VARIABLES
        .into_iter()
        .find_map(|variable| std::env::var(variable).ok().map(|path| (variable, path)));
    let Some((variable, path)) = named else {
        return Ok(None);
    };
    std::fs::read_to_string(&path)
        .map(Some)
        .map_err(|source| ExecutorError::Defaults {
            variable,
            path,
            source,
        })
}

fn kill_policy(task: &v1::TaskInfo) -> Option<Duration> {
    let nanoseconds = task
        .kill_policy
        .as_ref()?
        .grace_period
        .as_ref()?
        .nanoseconds;
    Some(Duration::from_nanos(nanoseconds.try_into().ok()?))
}

/// An error with all its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Some errors repeat their cause in their own text.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text.replace('\n', " ")
}
