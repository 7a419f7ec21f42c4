//! Making a backup of the running server and streaming it into the store.
//!
//! MariaDB: what `mariadb-backup --stream=mbstream` writes goes nowhere but into the store. MySQL: the clone plugin makes a directory
//! (`CLONE LOCAL DATA DIRECTORY`, MySQL manual, "Cloning Data Locally"), which is streamed as a tar archive and removed; it needs as much space as
//! the data has, which is looked for first. The manifest is written when everything else is certain. An executor that ends before leaves
//! data without a manifest, which is no backup, and perhaps the directory, which the next executor removes.

use std::{
    fs, io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::{
    task,
    time::{Instant, sleep_until, timeout},
};
use tracing::info;

use super::{
    donor,
    install::Installed,
    mysqld::{Process, Program},
    steps::{self, Context, StepError},
    tools::{self, ToolError},
};
use crate::{
    backup::{
        manifest::{self, Form, Manifest, Object},
        store::{Pace, Store, StoreError},
        stream::{self, StreamError},
    },
    cluster::{
        backup::{BackupId, BackupOrder},
        flavour::Flavour,
        gtid::{GtidList, Position},
        id::Epoch,
    },
    mysql::{self, Server},
    time::Timestamp,
};

/// How long the tool may take to end when it has brought everything.
const END_DEADLINE: Duration = Duration::from_secs(60);

/// How long a copy on the same disk may stand still.
const STALL: Duration = Duration::from_secs(120);

/// How often it is told how much was read.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// The space that must be left beside a copy, in bytes: the server goes on writing meanwhile.
const SPACE_TO_SPARE: u64 = 256 << 20;

/// How much of the tool's log is looked through for where the copy stands, in bytes. It says so near its end.
const LOG_END: u64 = 64 << 10;

/// A backup was not made.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The store, or the way into it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stream.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// It is not where the last backup went.
    #[error(
        "{url} is empty, though the backup {last} went there, as in a file system that is not mounted; mount it, or make any file there if it was emptied on purpose"
    )]
    Empty {
        /// The store.
        url: String,
        /// The backup.
        last: BackupId,
    },
    /// The server refuses.
    #[error("the server cannot be copied")]
    Server(#[from] mysql::Error),
    /// A tool, or a file.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// An options file cannot be written.
    #[error(transparent)]
    Step(#[from] StepError),
    /// A tool is missing.
    #[error("mariadb-backup is neither beside the server nor on the search path; install it")]
    NoTool,
    /// The administration account has a form that an options file cannot hold.
    #[error("the administration account cannot be written into an options file")]
    Account,
    /// There is no room for MySQL's copy.
    #[error(
        "MySQL makes its copy on the disk of the data first, and that has {available} MiB left of the {needed} that it takes; ask for members with a larger disk"
    )]
    NoSpace {
        /// How much is left, in MiB.
        available: u64,
        /// How much is needed, in MiB.
        needed: u64,
    },
}

/// Is told now and then how much was read, in bytes.
pub type Tell = Box<dyn Fn(u64) -> BoxFuture<'static, ()> + Send + Sync>;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The size of the data, in bytes.
    pub bytes: u64,
    /// What it takes in the store, in bytes.
    pub stored_bytes: u64,
    /// What the data holds at the least.
    pub position: Position,
}

/// What is stored of the server's data.
struct Stored {
    object: Object,
    data_bytes: u64,
    position: Position,
    binlog_state: Option<String>,
    form: Form,
}

/// Makes a backup. `tell` is told now and then how much was read.
///
/// Dropping it ends it; a copy of MySQL's is then removed by the next backup or executor.
///
/// # Errors
/// Why there is no backup.
pub async fn make(
    context: &Context,
    installed: &Installed,
    server: Arc<Server>,
    order: &BackupOrder,
    epoch: Epoch,
    cluster_user: String,
    tell: Tell,
) -> Result<Made, BackupError> {
    let settings = order.store.clone();
    // A file system that hangs must not hang the executor.
    let opened = task::spawn_blocking(move || Store::open(&settings)).await;
    let store = opened.map_err(|panicked| StreamError::Thread(io::Error::other(panicked)))??;
    if let Some(last) = &order.follows
        && store.is_empty().await?
    {
        let (url, last) = (order.store.url.clone(), last.clone());
        return Err(BackupError::Empty { url, last });
    }
    let begun_at = Timestamp::now();
    let begun = Instant::now();
    let stored = match installed.kind.flavour {
        Flavour::Mariadb => mariadb(context, installed, &server, &store, order, tell).await,
        Flavour::Mysql => mysql(context, &server, &store, order, tell).await,
    }?;
    let made = Made {
        bytes: stored.data_bytes,
        stored_bytes: stored.object.bytes,
        position: stored.position.clone(),
    };
    let manifest = Manifest {
        id: order.id.clone(),
        cluster: context.task.cluster.clone(),
        uuid: context.task.uuid,
        epoch,
        member: context.task.member,
        flavour: installed.kind.flavour,
        version: installed.kind.version,
        position: stored.position,
        binlog_state: stored.binlog_state,
        admin_user: context.admin.user.clone(),
        cluster_user,
        begun_at,
        ended_at: Timestamp::now(),
        data_bytes: stored.data_bytes,
        form: stored.form,
        compression: "zstd".to_owned(),
        key_id: store.key().map(|key| key.id()),
        objects: vec![stored.object],
    };
    store.complete(&manifest).await?;
    info!(id = %order.id, ?made, took = ?begun.elapsed(), "backup complete");
    Ok(made)
}

// === MariaDB ===

async fn mariadb(
    context: &Context,
    installed: &Installed,
    server: &Server,
    store: &Store,
    order: &BackupOrder,
    tell: Tell,
) -> Result<Stored, BackupError> {
    let tool = tools::find(&installed.mysqld, &["mariadb-backup", "mariabackup"]);
    let tool = tool.ok_or(BackupError::NoTool)?;
    let seal = store.begin(&order.id).await?;
    let at_the_least = server.executed().await?;
    let data = server.data_directory().await?;
    let expected = task::spawn_blocking(move || size_of(&data)).await;
    let expected = expected
        .unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
        .map_err(ToolError::files(&context.sandbox.data_folder()))?;
    let log = context.sandbox.backup_log();
    let (mut process, output) = start_tool(context, tool, server, &log).await?;
    let packing =
        stream::pack(seal, move |to| stream::copy(output, to).map(|_| ()))?.expecting(expected);
    let mut pace = Steady::new(order.store.rate_mib, tell);
    let name = manifest::DATA_FILE;
    let (object, data_bytes) = store.put(&order.id, name, packing, &mut pace).await?;
    let status = match timeout(END_DEADLINE, process.ended()).await {
        Ok(status) if status.success() => None,
        Ok(status) => Some(steps::how_it_ended(status)),
        Err(_) => {
            donor::end(&mut process).await;
            Some("did not end".to_owned())
        }
    };
    if let Some(how) = status {
        // What is in the store has no manifest, so it is no backup.
        return Err(ToolError::failed("mariadb-backup", how, &log).into());
    }
    let found = position_in(&log).map(Position::Mariadb);
    let position = found.filter(|found| found.contains(&at_the_least));
    Ok(Stored {
        object,
        data_bytes,
        position: position.unwrap_or(at_the_least),
        binlog_state: Some(server.binlog_state().await?),
        form: Form::Mbstream,
    })
}

/// Dropping the process kills the tool.
async fn start_tool(
    context: &Context,
    tool: PathBuf,
    server: &Server,
    log: &Path,
) -> Result<(Process, io::PipeReader), BackupError> {
    let sandbox = &context.sandbox;
    let socket = sandbox.socket_for_server();
    let login = tools::login("mariadb-backup", &context.admin, &socket);
    let cnf = sandbox.backup_cnf();
    steps::write(&cnf, &login.ok_or(BackupError::Account)?)?;
    // What an earlier run has printed is of no interest any more.
    let _ = fs::remove_file(log);
    let data = server.data_directory().await?;
    let (reader, writer) = tools::pipe().map_err(ToolError::files(log))?;
    let program = Program {
        path: tool,
        arguments: tools::backup_arguments(&cnf, &data, &sandbox.tmp()),
        working_directory: data,
        log: log.to_owned(),
    };
    let process = context
        .spawner
        .spawn_between(&program, Stdio::null(), Some(writer.into()))
        .await
        .map_err(ToolError::from)?;
    Ok((process, reader))
}

/// Where the copy stands, as the tool found out under its lock: `... GTID of the last change '0-1-5'`.
fn position_in(log: &Path) -> Option<GtidList> {
    let file = fs::File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    let begin = length.saturating_sub(LOG_END);
    let mut end = vec![0; (length - begin) as usize];
    file.read_exact_at(&mut end, begin).ok()?;
    let text = String::from_utf8_lossy(&end);
    let (_, rest) = text.rsplit_once("GTID of the last change '")?;
    rest.split_once('\'')?.0.parse().ok()
}

// === MySQL ===

async fn mysql(
    context: &Context,
    server: &Server,
    store: &Store,
    order: &BackupOrder,
    tell: Tell,
) -> Result<Stored, BackupError> {
    let seal = store.begin(&order.id).await?;
    let copy = context.sandbox.backup_folder();
    remove(&copy).await?;
    let data = server.data_directory().await?;
    let parent = context.sandbox.data_folder();
    let space = task::spawn_blocking(move || space_for(&data, &parent)).await;
    let (needed, available) = space
        .unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
        .map_err(ToolError::files(&copy))?;
    check_space(available, needed)?;
    let position = server.executed().await?;
    let streamed = async {
        server.clone_local(&copy, STALL).await?;
        let from = copy.clone();
        let packing = stream::pack(seal, move |to| {
            let mut archive = tar::Builder::new(to);
            archive.append_dir_all(".", &from)?;
            archive.finish()
        })?
        .expecting(needed);
        let mut pace = Steady::new(order.store.rate_mib, tell);
        let name = manifest::DATA_FILE;
        let put = store.put(&order.id, name, packing, &mut pace).await;
        put.map_err(BackupError::from)
    };
    let streamed = streamed.await;
    remove(&copy).await?;
    let (object, data_bytes) = streamed?;
    Ok(Stored {
        object,
        data_bytes,
        position,
        binlog_state: None,
        form: Form::Tar,
    })
}

/// Whether so many bytes suffice for a copy of data of that size.
fn check_space(available: u64, data: u64) -> Result<(), BackupError> {
    let needed = data + SPACE_TO_SPARE;
    if available < needed {
        return Err(BackupError::NoSpace {
            available: available >> 20,
            needed: needed.div_ceil(1 << 20),
        });
    }
    Ok(())
}

async fn remove(folder: &Path) -> Result<(), BackupError> {
    let path = folder.to_owned();
    let removed = task::spawn_blocking(move || fs::remove_dir_all(path)).await;
    match removed.unwrap_or_else(|panicked| Err(io::Error::other(panicked))) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(ToolError::files(folder)(error).into())
        }
        _ => Ok(()),
    }
}

/// What a copy takes at the most, and what the disk has left, in bytes. Binlogs and relay logs are not copied.
fn space_for(data: &Path, parent: &Path) -> io::Result<(u64, u64)> {
    let found = nix::sys::statvfs::statvfs(parent)?;
    let available = found.blocks_available() * found.fragment_size();
    Ok((size_of(data)?, available))
}

fn size_of(folder: &Path) -> io::Result<u64> {
    let mut size = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // What the server removes meanwhile takes no space.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if metadata.is_dir() {
            size += size_of(&entry.path())?;
        } else if !name.starts_with("binlog.") && !name.starts_with("relay") {
            size += metadata.blocks() * 512;
        }
    }
    Ok(size)
}

// === pace ===

/// Keeps the rate, and tells how much was read.
struct Steady {
    /// Bytes per second; 0 for no limit.
    rate: u64,
    begun: Instant,
    told: Option<Instant>,
    tell: Tell,
}

impl Steady {
    fn new(rate_mib: u32, tell: Tell) -> Self {
        Self {
            rate: u64::from(rate_mib) << 20,
            begun: Instant::now(),
            told: None,
            tell,
        }
    }
}

impl Pace for Steady {
    async fn keep(&mut self, read: u64) {
        let now = Instant::now();
        if self.told.is_none_or(|told| now - told >= TELL_EVERY) {
            self.told = Some(now);
            (self.tell)(read).await;
        }
        if self.rate > 0 {
            sleep_until(due(self.begun, self.rate, read)).await;
        }
    }
}

/// When so much may have been read.
fn due(begun: Instant, rate: u64, read: u64) -> Instant {
    begun + Duration::from_secs_f64(read as f64 / rate as f64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn the_tool_says_where_the_copy_stands() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let text = "[00] 2026-02-01 12:00:00 MySQL binlog position: filename 'binlog.000002', position '1', GTID of the last change '0-7-12,4412494-7-3'\n[00] completed OK!\n";
        fs::write(&log, format!("{}{text}", "x\n".repeat(100_000))).unwrap();
        assert_eq!(
            position_in(&log).unwrap(),
            "0-7-12,4412494-7-3".parse().unwrap()
        );
        fs::write(&log, "nothing").unwrap();
        assert_eq!(position_in(&log), None);
    }

    /// Goal: a copy is begun only where it fits and leaves what the server writes meanwhile its 256 MiB. Method: both sides of the bound.
    #[test]
    fn a_copy_takes_its_size_and_leaves_some_space() {
        let data = 3 << 30;
        let enough = data + (256 << 20);
        assert!(check_space(enough, data).is_ok());
        assert!(check_space(u64::MAX, data).is_ok());
        for (available, shown) in [(enough - 1, 3327), (data, 3072), (0, 0)] {
            let refused = check_space(available, data).unwrap_err();
            let sentence = format!(
                "MySQL makes its copy on the disk of the data first, and that has {shown} MiB left of the 3328 that it takes; ask for members with a larger disk"
            );
            assert_eq!(refused.to_string(), sentence);
        }
    }

    #[test]
    fn the_rate_is_kept() {
        let begun = Instant::now();
        let takes = due(begun, 2 << 20, 5 << 20) - begun;
        assert_eq!(takes, Duration::from_millis(2500));
    }
}
