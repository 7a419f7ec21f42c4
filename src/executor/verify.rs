//! A task that verifies a backup: it restores it into its sandbox, starts a server on it that nobody reaches, looks through all tables, and ends with
//! what it has found.
//!
//! It is no member: it has no ZooKeeper session, no promise and no goal, and nobody waits for it. What it has found it writes beside the backup first and
//! says to Mesos then, so that whoever has heard the one finds the other. Killed at any point it leaves nothing but its sandbox, and the scheduler has another task
//! begin anew.
//!
//! Only what certainly is a fault of the backup is called one: its data is not what was stored, or the server finds damage in a table. Everything else,
//! such as a disk that is full or a store that is away, is a failure of the task. A backup that is removed meanwhile is neither: nothing is said of it, whatever was
//! found, and nothing stays of that in the store.
//!
//! The names of tables are the owner's. They are in the document beside the backup, and in no verdict.

use std::{io, path::Path, sync::Arc, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task,
    time::{Instant, timeout},
};
use tracing::{info, warn};

use super::{
    ExecutorError, chain,
    install::{self, InstallError, Installed},
    restore::{self, RestoreError},
    scratch::{Scratch, ScratchError},
    steps::Context,
};
use crate::{
    backup::{
        manifest::Manifest,
        store::{Store, StoreError},
        stream::StreamError,
        verified::{self, Damage, Document, TableRows, Verified},
    },
    cluster::{
        backup::{BackupId, RestoreFrom},
        control::RestoreTask,
        id::DataId,
        verification::{Verdict, VerifyTask},
    },
    mesos::{
        executor::{ExecutorEvent, ExecutorHandle},
        v1::{self, TaskState},
    },
    mysql::{self, Server},
    time::Timestamp,
};

/// How long the agent may take to acknowledge the last word. It may be restarting.
const LAST_WORD_DEADLINE: Duration = Duration::from_secs(600);

/// How long a server may take to end after its connections have.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// How often it is logged how far the tables are looked through.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// A backup could be called neither good nor bad.
#[derive(Debug, thiserror::Error)]
enum VerifyError {
    /// There is no server.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A thread.
    #[error(transparent)]
    Thread(#[from] StreamError),
    /// The backup could not be restored, though its data is what was stored.
    #[error("the backup cannot be restored")]
    Restore(#[from] RestoreError),
    /// No server runs on it.
    #[error("no server runs on what was restored")]
    Scratch(#[from] ScratchError),
    /// The server does not answer.
    #[error("the server on what was restored does not do what it must")]
    Server(#[from] mysql::Error),
    /// The server cannot read some of the tables.
    #[error(
        "the server here has no engine {0}, in which the backup has tables, so that nobody can look through them; install its plugin on all agents"
    )]
    Engine(String),
}

/// What was found.
#[derive(Debug, Default)]
struct Found {
    /// What is wrong with the backup, as a sentence without names of tables.
    problem: Option<String>,
    /// The first tables that are damaged.
    damage: Vec<Damage>,
    row_counts: Vec<TableRows>,
    tables: u64,
    rows: u64,
}

/// How the task ends.
enum End {
    Verdict(Verdict),
    Failed(String),
    Killed,
}

/// Runs the task until it has ended, and tells Mesos.
///
/// # Errors
/// When the process cannot do its work at all.
pub async fn run(
    context: Context,
    order: &VerifyTask,
    mesos: &ExecutorHandle,
    mut events: mpsc::Receiver<ExecutorEvent>,
) -> Result<(), ExecutorError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ExecutorError::Signals)?;
    let task_id = context.task.task_id.to_string();
    let update = |state: TaskState, message: Option<String>| {
        mesos.update(v1::TaskStatus {
            task_id: v1::TaskId {
                value: task_id.clone(),
            },
            state: state as i32,
            message,
            ..Default::default()
        });
    };
    update(TaskState::TaskStarting, None);
    update(
        TaskState::TaskRunning,
        Some(format!("verifies {}", order.id)),
    );
    let end = tokio::select! {
        verdict = verify(&context, order) => match verdict {
            Ok(verdict) => End::Verdict(verdict),
            Err(error) => End::Failed(chain(&error)),
        },
        // What was begun ends by being dropped: servers and tools are killed.
        () = told_to_end(&mut events) => End::Killed,
        Some(()) = terminate.recv() => End::Killed,
    };
    // A sandbox may lie there for days, and this is as large as the cluster.
    let folder = context.sandbox.data_folder();
    let removed = task::spawn_blocking(move || std::fs::remove_dir_all(folder)).await;
    if let Err(error) = removed.unwrap_or_else(|panicked| Err(io::Error::other(panicked))) {
        warn!(%error, "what was restored cannot be removed; it goes with the sandbox");
    }
    match end {
        End::Verdict(verdict) => {
            info!(id = %order.id, ?verdict, "backup looked through");
            // A verdict is texts and numbers, which can be JSON.
            let message = serde_json::to_string(&verdict).unwrap_or_default();
            update(TaskState::TaskFinished, Some(message));
        }
        End::Failed(why) => {
            warn!(id = %order.id, why, "the backup cannot be verified");
            update(TaskState::TaskFailed, Some(why));
        }
        End::Killed => update(TaskState::TaskKilled, None),
    }
    if !mesos.acknowledged_all(LAST_WORD_DEADLINE).await {
        warn!("the agent has not acknowledged the last update");
    }
    Ok(())
}

async fn told_to_end(events: &mut mpsc::Receiver<ExecutorEvent>) {
    while let Some(event) = events.recv().await {
        match event {
            ExecutorEvent::Shutdown | ExecutorEvent::Kill { .. } => return,
            ExecutorEvent::Error { message } => warn!(message, "the agent complains"),
            ExecutorEvent::Launch(_)
            | ExecutorEvent::Message(_)
            | ExecutorEvent::Subscribed(_)
            | ExecutorEvent::Acknowledged { .. }
            | ExecutorEvent::Disconnected { .. } => {}
        }
    }
}

async fn verify(context: &Context, order: &VerifyTask) -> Result<Verdict, VerifyError> {
    let begun = Instant::now();
    let (task, sandbox) = (&context.task, &context.sandbox);
    let settings = order.store.clone();
    // A file system that hangs must not hang the executor.
    let opened = task::spawn_blocking(move || Store::open(&settings)).await;
    let store = opened.map_err(|panicked| StreamError::Thread(io::Error::other(panicked)))??;
    let manifest = match store.manifest(&order.id).await {
        Ok(manifest) => manifest,
        Err(StoreError::Unknown(_)) => return Ok(Verdict::Gone),
        // Nothing can be said beside a manifest that says nothing itself.
        Err(error @ StoreError::Manifest { .. }) => return Ok(bad(begun, chain(&error))),
        Err(error) => return Err(error.into()),
    };
    let installed = install::install(&task.installer, sandbox, context.cache.as_ref()).await?;
    let found = match examine(context, &installed, order, &manifest).await {
        Ok(found) => Ok(found),
        Err(error) => blamed(&store, order, &manifest, error).await,
    };
    // That of a removed backup something is missing is no damage.
    match store.has(&order.id, &manifest).await {
        Ok(true) => {}
        Ok(false) => return Ok(Verdict::Gone),
        Err(error) => return Err(found.err().unwrap_or(error.into())),
    }
    let Found {
        problem,
        damage,
        row_counts,
        tables,
        rows,
    } = found?;
    let seconds = begun.elapsed().as_secs();
    if let Some(sha256) = verified::sha256(&manifest) {
        let found = Verified {
            format: verified::FORMAT,
            id: order.id.clone(),
            sha256: sha256.clone(),
            at: Timestamp::now(),
            good: problem.is_none(),
            problem: problem.clone(),
            seconds,
            tables,
            rows,
        };
        let document = Document {
            found,
            damage,
            row_counts,
        };
        if !store.note_verified(&order.id, &manifest, &document).await? {
            return Ok(Verdict::Gone);
        }
    }
    Ok(match problem {
        None => Verdict::Good {
            seconds,
            tables,
            rows,
        },
        Some(why) => Verdict::Bad { seconds, why },
    })
}

fn bad(begun: Instant, why: String) -> Verdict {
    Verdict::Bad {
        seconds: begun.elapsed().as_secs(),
        why,
    }
}

/// Whether the backup is to blame for an error: then that is what was found, else the error. What was unpacked wrongly shows in many ways, and a disk that is full in
/// the same ones. So the data is read once more, for its digest alone.
async fn blamed(
    store: &Store,
    order: &VerifyTask,
    manifest: &Manifest,
    error: VerifyError,
) -> Result<Found, VerifyError> {
    warn!(error = %chain(&error), "looking whether the backup's data is what was stored");
    for object in &manifest.objects {
        match store.compare_with(&order.id, object).await {
            Ok(()) => {}
            Err(damaged @ StoreError::Damaged { .. }) => {
                return Ok(Found {
                    problem: Some(chain(&damaged)),
                    ..Found::default()
                });
            }
            // That the store is away says nothing, and is perhaps why.
            Err(_) => return Err(error),
        }
    }
    Err(error)
}

/// Restores the backup and looks through its tables.
async fn examine(
    context: &Context,
    installed: &Installed,
    order: &VerifyTask,
    manifest: &Manifest,
) -> Result<Found, VerifyError> {
    let restore = RestoreTask {
        from: RestoreFrom {
            id: order.id.clone(),
            store: order.store.clone(),
            flavour: manifest.flavour,
            version: manifest.version,
            replay: None,
        },
        // No cluster's user is made.
        user: String::new(),
    };
    let data: DataId = restore::make(context, installed, &restore).await?;
    let folder = context.sandbox.data(data);
    let scratch = Scratch {
        context,
        installed,
        data,
        folder: Path::new(&folder),
    };
    let (mut process, server) = scratch.start().await?;
    let server = Arc::new(server);
    let looked = tokio::select! {
        looked = look_through(&server, &order.id) => looked,
        error = scratch.ended(&mut process) => return Err(error.into()),
    };
    let found = match looked {
        Ok(found) => found,
        // The connections to a server that dies end first.
        Err(error) => {
            let ended = timeout(LAST_WORDS, scratch.ended(&mut process)).await;
            return Err(ended.map_or(error, VerifyError::from));
        }
    };
    drop(server);
    scratch.end(&mut process).await?;
    Ok(found)
}

async fn look_through(server: &Server, id: &BackupId) -> Result<Found, VerifyError> {
    let (tables, engines) = (server.tables().await?, server.engines().await?);
    let (all, mut damaged, mut told) = (tables.len(), 0, Instant::now());
    let mut found = Found::default();
    for (number, table) in tables.into_iter().enumerate() {
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            info!(number, all, "tables looked through");
        }
        if let Some(engine) = table.engine.as_ref().filter(|it| !engines.contains(*it)) {
            return Err(VerifyError::Engine(engine.clone()));
        }
        if let Some(says) = server.check_table(&table).await? {
            damaged += 1;
            if found.damage.len() < verified::MOST_DAMAGE {
                found.damage.push(Damage {
                    database: table.database,
                    table: table.name,
                    says,
                });
            }
            continue;
        }
        if table.is_system() {
            continue;
        }
        let rows = server.count_rows(&table).await?;
        found.tables += 1;
        found.rows += rows;
        if found.row_counts.len() < verified::MOST_TABLES {
            found.row_counts.push(TableRows {
                database: table.database,
                table: table.name,
                rows,
            });
        }
    }
    found.problem = (damaged > 0).then(|| {
        let file = verified::FILE;
        format!(
            "CHECK TABLE finds damage in {damaged} of {all} tables, which {id}/{file} in the backup store names"
        )
    });
    Ok(found)
}
