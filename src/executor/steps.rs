//! What each step does, in the order in which it must be done.
//!
//! A step is given up by dropping it. What it has asked of the server may then still take effect; the
//! lifecycle gives up only steps for which that does not matter, or kills the server with it.

use std::{
    fs::{self, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::{
        fs::{OpenOptionsExt, PermissionsExt},
        process::ExitStatusExt,
    },
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;
use uuid::Uuid;

use super::{
    action::{Birth, Step},
    agent_cache::AgentCache,
    chain,
    datadir::{self, DataDirError},
    event::Outcome,
    handover::{self, HandoverError},
    install::{self, InstallError, Installed},
    mysqld::{Process, SpawnError, Spawner},
    quarantine,
    rebuild::{self, RebuildError},
    restore::{self, RestoreError},
    sandbox::Sandbox,
    starting,
    upgrade::UpgradeError,
    watchdog::Watchdog,
};
use crate::{
    cluster::{
        control::{Address, Beyond, ClusterUser, TaskData},
        gtid::Position,
        id::{DataId, Epoch, MemberId, ProcessId},
        spec::MAX_NODES,
        voters::Terms,
    },
    mysql::{
        self, Credentials, Server, Source,
        accounts::{replication_account, replication_user},
        authentication::Authentication,
        mycnf::MyCnfError,
    },
};

/// How long the epoch's marker may wait for its acknowledgements in one attempt. It ends sooner when
/// another epoch begins; this bound only keeps a forgotten one from lasting for ever.
const MARKER_DEADLINE: Duration = Duration::from_secs(3600);

/// How long a member waits for the epoch's marker before it says that it still does.
const ADMIT_DEADLINE: Duration = Duration::from_secs(600);

/// What does not change while the task lives.
#[derive(Debug)]
pub struct Context {
    /// The task.
    pub task: TaskData,
    /// Where things lie.
    pub sandbox: Sandbox,
    /// What starts processes.
    pub spawner: Spawner,
    /// What the agent's executors share, where that is possible.
    pub cache: Option<AgentCache>,
    /// The administration account. The passwords of the replication accounts follow from its password.
    pub admin: Credentials,
    /// The address that the server listens on, `*` for all.
    pub bind_address: String,
    /// How others reach this host.
    pub host: String,
    /// The contents of the user's own `my.cnf`.
    pub user_defaults: Option<String>,
}

/// A server that runs.
#[derive(Debug)]
pub struct Running {
    /// Its incarnation.
    pub id: ProcessId,
    /// Its process. Dropping it kills the server.
    pub process: Process,
    /// How it is spoken to.
    pub server: Arc<Server>,
}

/// What a step leaves behind beside its outcome.
#[derive(Debug, Default)]
pub enum Brought {
    /// Nothing.
    #[default]
    Nothing,
    /// The installed server.
    Installed(Installed),
    /// The running server.
    Running(Running),
    /// The watchdog of a server.
    Watchdog(ProcessId, Watchdog),
    /// The server needs no watchdog any more.
    Unguarded,
}

/// A step that has failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// Installing.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// Making a data directory.
    #[error(transparent)]
    MakeData(#[from] DataDirError),
    /// Moving a data directory out of the way.
    #[error("the data directory {path} cannot be set aside")]
    SetAside {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Copying another member's data.
    #[error(transparent)]
    Rebuild(#[from] RebuildError),
    /// Restoring a backup.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// Handing the place of master over.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// Bringing the data to the server's series.
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
    /// Rendering the settings.
    #[error("the server's settings cannot be made")]
    Settings(#[from] MyCnfError),
    /// Writing a file for the server.
    #[error("{path} cannot be written or removed")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Starting the process.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// The server ended instead of letting us in.
    #[error("the server {how} while it was starting; it printed: {printed}")]
    Ended {
        /// How, as part of a sentence.
        how: String,
        /// The end of its log.
        printed: String,
    },
    /// The server did not do what it was asked for.
    #[error(transparent)]
    Server(#[from] mysql::Error),
    /// There is no server that could be asked.
    #[error("the server does not run")]
    NoServer,
    /// The task names no backup.
    #[error("the task names no backup that it could begin with")]
    NoBackup,
}

/// Performs a step.
///
/// # Errors
/// As a sentence for the report.
pub async fn perform(
    step: Step,
    context: Arc<Context>,
    installed: Option<Installed>,
    server: Option<Arc<Server>>,
) -> Result<(Outcome, Brought), String> {
    match step {
        Step::Install | Step::MakeData { .. } | Step::Restore | Step::Start { .. } => {
            raise(step, &context, installed).await
        }
        Step::Copy {
            source,
            master,
            gives_way,
            ..
        } => match (installed, server) {
            (Some(installed), Some(server)) => {
                rebuild::copy(&context, &installed, &server, &source, master, gives_way)
                    .await
                    .map(|outcome| (outcome, Brought::Nothing))
                    .map_err(StepError::from)
            }
            _ => Err(StepError::NoServer),
        },
        Step::Yield { position, .. } => match server {
            Some(server) => handover::yield_place(&server, position)
                .await
                .map(|outcome| (outcome, Brought::Unguarded))
                .map_err(StepError::from),
            None => Err(StepError::NoServer),
        },
        step => match server {
            Some(server) => on_server(step, &context, &server)
                .await
                .map(|o| (o, Brought::Nothing)),
            None => Err(StepError::NoServer),
        },
    }
    .map_err(|error| chain(&error))
}

/// The steps that bring a server up.
async fn raise(
    step: Step,
    context: &Context,
    installed: Option<Installed>,
) -> Result<(Outcome, Brought), StepError> {
    let Context {
        task,
        sandbox,
        spawner,
        cache,
        ..
    } = context;
    let Some(installed) = installed else {
        let installed = install::install(&task.installer, sandbox, cache.as_ref()).await?;
        return Ok((
            Outcome::Installed(installed.kind.clone()),
            Brought::Installed(installed),
        ));
    };
    match step {
        Step::MakeData { set_aside, beyond } => {
            if let Some(data) = set_aside {
                self::set_aside(sandbox, data, beyond.as_deref())?;
            }
            let data = DataId(Uuid::new_v4());
            datadir::make(data, &installed, sandbox, spawner, cache.as_ref()).await?;
            Ok((Outcome::DataMade(data), Brought::Nothing))
        }
        Step::Restore => {
            let wanted = task.restore.as_ref().ok_or(StepError::NoBackup)?;
            let data = restore::make(context, &installed, wanted).await?;
            Ok((Outcome::Restored(data), Brought::Nothing))
        }
        Step::Start { data, birth } => {
            if let Birth::Copied { instead_of } = birth {
                rebuild::remove(sandbox, instead_of).await;
            }
            let running = match starting::start(context, &installed, data, birth).await {
                Err(error) if matches!(birth, Birth::Copied { .. }) => {
                    rebuild::remove(sandbox, data).await;
                    return Err(error);
                }
                started => started?,
            };
            Ok((Outcome::Started(running.id), Brought::Running(running)))
        }
        _ => Ok((Outcome::Installed(installed.kind.clone()), Brought::Nothing)),
    }
}

/// Moves a data directory into the quarantine. After a crash in between it is there already. What is to be exported of it is written
/// down first: whoever finds the directory there finds that too.
fn set_aside(sandbox: &Sandbox, data: DataId, beyond: Option<&Beyond>) -> Result<(), StepError> {
    let path = sandbox.data(data);
    if let Some(beyond) = beyond {
        quarantine::describe(&sandbox.quarantine_folder(), data, beyond).map_err(|source| {
            StepError::SetAside {
                path: path.clone(),
                source,
            }
        })?;
    }
    match fs::rename(&path, sandbox.quarantine(data)) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(StepError::SetAside { path, source })
        }
        _ => Ok(()),
    }
}

/// Writes a file that only the framework's user can read.
pub(super) fn write(path: &Path, text: &str) -> Result<(), StepError> {
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        // A file that was there keeps its permissions otherwise.
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(text.as_bytes())
    };
    write().map_err(|source| StepError::Write {
        path: path.to_owned(),
        source,
    })
}

pub(super) fn option(name: &str, value: &Path) -> std::ffi::OsString {
    let mut option = std::ffi::OsString::from(name);
    option.push(value);
    option
}

/// How a process has ended, as part of a sentence about it.
pub fn how_it_ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "has ended".to_owned(),
    }
}

/// The steps that ask something of the running server.
async fn on_server(step: Step, context: &Context, server: &Server) -> Result<Outcome, StepError> {
    match step {
        Step::Hold { .. } => return hold(server).await,
        Step::Apply { within, .. } => server.apply_received(Instant::now() + within).await?,
        Step::Prepare { terms, .. } => {
            // Forgetting it takes longer, and waits until clients are served.
            server.leave_source().await?;
            // Without anybody who acknowledges nobody has to be sent anything before it opens, and a full disk must not keep it from that.
            if terms.acknowledgements > 0 {
                server.shorten_binlog().await?;
            }
            set_terms(server, context, &terms).await?;
        }
        Step::Mark { epoch } => mark(server, context, epoch).await?,
        Step::Open { user, .. } => open(server, &user).await?,
        Step::Follow {
            epoch,
            host,
            port,
            history,
            acknowledge,
        } => {
            let TaskData { uuid, member, .. } = context.task;
            let master = Address {
                host: host.clone(),
                port,
            };
            let marker = server
                .marker_to_begin_at(&master, &history, epoch, &context.admin)
                .await?;
            let Credentials { user, password } =
                replication_account(&context.admin.password, uuid, member);
            let source = Source {
                host,
                port,
                user,
                password,
            };
            handover::follow_as_replica(server).await?;
            server.follow_from(&source, acknowledge, marker).await?;
        }
        Step::Approach { target, within, .. } => {
            handover::approach(server, &target, &context.admin, within).await?;
        }
        Step::Close {
            target, closed_for, ..
        } => return Ok(handover::close(server, &target, &context.admin, closed_for).await?),
        Step::Reopen { .. } => handover::reopen(server).await?,
        Step::Admit { marker, .. } => admit(server, &marker).await?,
        Step::Halt { refuse_clients, .. } => {
            if refuse_clients {
                server.stop_following().await?;
                server.refuse_clients().await?;
            } else {
                server.stop_receiving().await?;
            }
        }
        // Those are in `perform` and `raise`.
        Step::Install
        | Step::MakeData { .. }
        | Step::Restore
        | Step::Start { .. }
        | Step::Copy { .. }
        | Step::Yield { .. } => {
            return Err(StepError::NoServer);
        }
    }
    Ok(Outcome::Finished)
}

/// Puts terms in force on a master. If it is cut off in between, parts of them are: which of both, the earlier or
/// the new ones, does not matter for what was acknowledged, because elections count with neither before all are.
pub async fn set_terms(
    server: &Server,
    context: &Context,
    terms: &Terms,
) -> Result<(), mysql::Error> {
    // Before anything else: a member that has just come cannot receive without its account.
    if terms.accounts > MAX_NODES {
        let members = (MAX_NODES..terms.accounts).map(MemberId);
        let accounts = members.map(|member| starting::replication_login(context, member));
        server.provide_accounts(accounts.collect()).await?;
    }
    server.prepare_source(terms.acknowledgements).await?;
    let barred = terms.barred.iter().map(|member| replication_user(*member));
    server.bar(&barred.collect()).await
}

/// Nothing may be received, and so acknowledged, after the reading.
async fn hold(server: &Server) -> Result<Outcome, StepError> {
    server.stop_receiving().await?;
    let executed = server.executed().await?;
    let position = server.held().await?;
    Ok(Outcome::Held { position, executed })
}

async fn mark(server: &Server, context: &Context, epoch: Epoch) -> Result<(), StepError> {
    let deadline = Instant::now() + MARKER_DEADLINE;
    Ok(server
        .write_marker(context.task.uuid, epoch, deadline)
        .await?)
}

/// Clients come in last, when everything that they meet is as it must be.
///
/// The cluster's user is made by the first master that gets this far. The first canary, written right
/// after, says so to all later ones: whoever holds that canary holds the user, complete. A crash before
/// it makes the next master make the user again, which changes nothing where it is there.
async fn open(server: &Server, user: &ClusterUser) -> Result<(), StepError> {
    server.open_for_writes().await?;
    if server.read_canary().await?.is_none() {
        let authentication = Authentication {
            mysql: user.authentication.mysql.clone(),
            mariadb: user.authentication.mariadb.clone(),
        };
        server
            .ensure_cluster_user(&user.name, &authentication)
            .await?;
        server
            .write_canary(0, Instant::now() + MARKER_DEADLINE)
            .await?;
    }
    server.admit_clients().await?;
    Ok(())
}

async fn admit(server: &Server, marker: &Position) -> Result<(), StepError> {
    server
        .wait_executed(marker, Instant::now() + ADMIT_DEADLINE)
        .await?;
    server.admit_clients().await?;
    Ok(())
}
