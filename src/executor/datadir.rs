//! Making a new data directory.
//!
//! The tools of both flavours take seconds for it, most of them spent on the same system tables every
//! time. So it is made once per agent, as a template ([`AgentCache`]), and copied. A template holds
//! nothing that has to differ between servers: MySQL's `auto.cnf` and its keys are removed and the
//! server makes its own when it starts.
//!
//! A directory is made under a name that is never used, and gets the name of its incarnation when it is
//! complete. It is in use from the moment on at which the promise names it, and not before it was
//! synced; a crash before that leaves a directory that nobody uses.

use std::{
    ffi::OsString,
    fs,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::{Duration, SystemTime},
};

use sha2::{Digest, Sha256};
use tokio::{task, time};
use tracing::{info, warn};

use super::{
    agent_cache::{AgentCache, CacheError},
    chain,
    copy::{copy_folder, sync_folder},
    install::Installed,
    mysqld::{Program, SpawnError, Spawner},
    sandbox::Sandbox,
    unpromised,
};
use crate::{
    cluster::{flavour::Flavour, id::DataId},
    time::Timestamp,
};

/// How long a tool may take. It takes 1 to 5 seconds on an idle machine; more than this means that the
/// disk does not answer.
const TOOL_DEADLINE: Duration = Duration::from_secs(180);

/// Grows when templates are made in another way, so that older ones are not used.
const RECIPE: u32 = 2;

/// How much of a tool's output stands in an error.
const TAIL_BYTES: u64 = 1000;

/// A data directory cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// MariaDB's tool is missing.
    #[error(
        "mariadb-install-db, which makes MariaDB's data directories, is neither beside {mysqld} nor on the search path; install the package that has it"
    )]
    NoTool {
        /// The server.
        mysqld: PathBuf,
    },
    /// The tool does not start.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// The tool failed.
    #[error("{tool} ended with {status} while it made a data directory; it printed: {printed}")]
    Tool {
        /// The tool.
        tool: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it printed.
        printed: String,
    },
    /// The tool takes too long.
    #[error("{tool} did not make a data directory in {TOOL_DEADLINE:?}")]
    Slow {
        /// The tool.
        tool: PathBuf,
    },
    /// The file system refuses.
    #[error("the data directory {path} cannot be made")]
    Files {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// Makes an empty data directory under the name of `data`. It still has to be synced ([`sync`]).
///
/// # Errors
/// When the tool or the file system refuses.
pub async fn make(
    data: DataId,
    installed: &Installed,
    sandbox: &Sandbox,
    spawner: &Spawner,
    cache: Option<&AgentCache>,
) -> Result<(), DataDirError> {
    let (unfinished, path) = (sandbox.unfinished_data(data), sandbox.data(data));
    let copied = match cache {
        Some(cache) => copy_template(cache, &unfinished, installed, sandbox, spawner).await,
        None => Ok(false),
    };
    let copied = copied.unwrap_or_else(|error| {
        warn!(error = %chain(&error), "no template of a data directory; making one from scratch");
        false
    });
    if !copied {
        let failed = |source| DataDirError::Files {
            path: unfinished.clone(),
            source,
        };
        // What a template that could not be copied has left.
        match fs::remove_dir_all(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        initialise(&unfinished, installed, sandbox, spawner).await?;
    }
    unpromised::mark(sandbox, data)
        .and_then(|()| fs::rename(&unfinished, &path))
        .map_err(|source| DataDirError::Files { path, source })?;
    info!(%data, from_template = copied, "data directory made");
    Ok(())
}

/// What of a data directory is to be synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    All,
    /// What was written since then, but for the files of InnoDB, which syncs by itself what it writes. MariaDB's
    /// accounts are in Aria tables, which are not synced for up to half a minute (`aria_checkpoint_interval`).
    WrittenSince(Timestamp),
}

/// Syncs a data directory, which a server may be using already. What was copied, and what a tool without syncing has
/// written, does not survive a loss of power before.
///
/// # Errors
/// When the file system refuses.
pub async fn sync(path: PathBuf, part: Part) -> Result<(), DataDirError> {
    let synced = path.clone();
    task::spawn_blocking(move || {
        sync_folder(&synced, &|name, metadata| match part {
            Part::All => true,
            Part::WrittenSince(begun) => {
                // File systems keep times in ticks of up to two seconds, rounded down.
                let written = metadata.modified().map(|at| at + Duration::from_secs(2));
                let begun = SystemTime::UNIX_EPOCH + Duration::from_millis(begun.as_millis());
                !is_innodbs(name) && written.is_ok_and(|at| at >= begun)
            }
        })?;
        super::promise::sync_folder_of(&synced)
    })
    .await
    .unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
    .map_err(|source| DataDirError::Files { path, source })
}

/// Whether a file is one that InnoDB keeps (MySQL manual, "InnoDB On-Disk Structures").
fn is_innodbs(name: &str) -> bool {
    let begins = ["ibdata", "ib_logfile", "ibtmp", "undo", "#ib_"];
    name.ends_with(".ibd") || begins.iter().any(|begin| name.starts_with(begin))
}

/// Moves every data directory except the one in use out of the way. What is there was made but never
/// used, unless the promise was lost; so nothing is deleted here. See [`unpromised`].
///
/// # Errors
/// When the file system refuses.
pub fn set_aside_unused(sandbox: &Sandbox, used: Option<DataId>) -> Result<(), DataDirError> {
    let folder = sandbox.data_folder();
    let move_all = || {
        for entry in fs::read_dir(&folder)? {
            let name = entry?.file_name();
            if used.is_none_or(|used| name != *used.to_string()) {
                fs::rename(folder.join(&name), sandbox.quarantine_folder().join(&name))?;
            }
        }
        Ok(())
    };
    move_all().map_err(|source| DataDirError::Files {
        path: folder.clone(),
        source,
    })
}

/// Copies the agent's template into `target`, making it first if there is none. `false`: the cache
/// cannot be used.
async fn copy_template(
    cache: &AgentCache,
    target: &Path,
    installed: &Installed,
    sandbox: &Sandbox,
    spawner: &Spawner,
) -> Result<bool, DataDirError> {
    let unusable = |error: CacheError| {
        warn!(error = %chain(&error), "templates of data directories are not shared on this agent");
        Ok(false)
    };
    let entry = match cache.lock(&key(installed)).await {
        Ok(entry) => entry,
        Err(error) => return unusable(error),
    };
    let template = match entry.complete() {
        Some(template) => template,
        None => {
            let unfinished = match entry.begin() {
                Ok(unfinished) => unfinished,
                Err(error) => return unusable(error),
            };
            initialise(&unfinished.join("data"), installed, sandbox, spawner).await?;
            match entry.finish() {
                Ok(template) => template,
                Err(error) => return unusable(error),
            }
        }
    };
    // Only incomplete entries are ever changed, so copying needs no lock.
    drop(entry);
    let (from, to) = (template.join("data"), target.to_owned());
    task::spawn_blocking(move || copy_folder(&from, &to))
        .await
        .unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
        .map_err(|source| DataDirError::Files {
            path: target.to_owned(),
            source,
        })?;
    Ok(true)
}

/// The name of the template: another binary has another one.
fn key(installed: &Installed) -> String {
    let metadata = fs::metadata(&installed.mysqld);
    let modified = metadata.as_ref().ok().and_then(|m| m.modified().ok());
    let age = modified.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    let size = metadata.map(|m| m.size()).unwrap_or_default();
    let identity = format!(
        "{RECIPE} {} {} {:?} {age:?} {size}",
        installed.kind.flavour, installed.kind.version, installed.mysqld
    );
    format!("template-{}", hex::encode(Sha256::digest(identity)))
}

/// Runs the flavour's tool. Nothing is synced while it runs: a directory that is not complete is not
/// used, and one that is gets synced as a whole.
async fn initialise(
    target: &Path,
    installed: &Installed,
    sandbox: &Sandbox,
    spawner: &Spawner,
) -> Result<(), DataDirError> {
    let option = |name: &str, value: &Path| {
        let mut option = OsString::from(name);
        option.push(value);
        option
    };
    // A server that starts removes the temporary tables that it finds, those of another one as well.
    let temporary = option("--tmpdir=", &sandbox.tmp());
    let (tool, mut arguments): (PathBuf, Vec<OsString>) = match installed.kind.flavour {
        Flavour::Mysql => (
            installed.mysqld.clone(),
            vec![
                "--no-defaults".into(),
                "--initialize-insecure".into(),
                option("--datadir=", target),
                temporary,
                "--secure-file-priv=NULL".into(),
                "--innodb-flush-method=nosync".into(),
                "--innodb-redo-log-capacity=32M".into(),
            ],
        ),
        Flavour::Mariadb => {
            let (tool, basedir) = mariadb_install_db(&installed.mysqld)?;
            (
                tool,
                vec![
                    "--no-defaults".into(),
                    option("--basedir=", &basedir),
                    option("--datadir=", target),
                    temporary,
                    "--auth-root-authentication-method=normal".into(),
                    "--skip-test-db".into(),
                    "--skip-name-resolve".into(),
                    "--debug-no-sync".into(),
                ],
            )
        }
    };
    if nix::unistd::geteuid().is_root() {
        // Both refuse to run as root unless told so.
        arguments.push("--user=root".into());
    }
    run(
        Program {
            path: tool,
            arguments,
            working_directory: sandbox.tmp(),
            log: sandbox.log(),
        },
        spawner,
    )
    .await?;
    if installed.kind.flavour == Flavour::Mysql {
        remove_identity(target).map_err(|source| DataDirError::Files {
            path: target.to_owned(),
            source,
        })?;
    }
    Ok(())
}

/// Removes what must differ between MySQL servers: the server's UUID and its keys (MySQL manual,
/// "Automatic SSL and RSA File Generation": made at startup when missing).
fn remove_identity(data: &Path) -> io::Result<()> {
    for entry in fs::read_dir(data)? {
        let path = entry?.path();
        let is_key = path.extension().is_some_and(|extension| extension == "pem");
        if is_key || path.file_name().is_some_and(|name| name == "auto.cnf") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// MariaDB's tool for a server, and the server's base directory: Debian has them in `/usr/bin` and
/// `/usr/sbin`, MariaDB's own tarballs in `scripts` and `bin`.
fn mariadb_install_db(mysqld: &Path) -> Result<(PathBuf, PathBuf), DataDirError> {
    let real = fs::canonicalize(mysqld).unwrap_or_else(|_| mysqld.to_owned());
    let base = real
        .parent()
        .and_then(Path::parent)
        .unwrap_or(Path::new("/usr"))
        .to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    ["scripts", "bin"]
        .into_iter()
        .map(|folder| base.join(folder))
        .chain(std::env::split_paths(&path))
        .flat_map(|folder| ["mariadb-install-db", "mysql_install_db"].map(|name| folder.join(name)))
        .find(|tool| tool.is_file())
        .map(|tool| (tool, base))
        .ok_or_else(|| DataDirError::NoTool {
            mysqld: mysqld.to_owned(),
        })
}

async fn run(program: Program, spawner: &Spawner) -> Result<(), DataDirError> {
    let printed_before = fs::metadata(&program.log).map_or(0, |metadata| metadata.len());
    let mut process = spawner.spawn(&program).await?;
    let tool = program.path.clone();
    // Dropping the process at the deadline kills it.
    let status = time::timeout(TOOL_DEADLINE, process.ended())
        .await
        .map_err(|_| DataDirError::Slow { tool: tool.clone() })?;
    if status.success() {
        return Ok(());
    }
    let printed = tail(&program.log, printed_before).unwrap_or_default();
    Err(DataDirError::Tool {
        tool,
        status,
        printed,
    })
}

/// The end of what was appended to a log, on one line.
pub(super) fn tail(log: &Path, from: u64) -> io::Result<String> {
    let mut file = fs::File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(from.max(length.saturating_sub(TAIL_BYTES))))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.split_whitespace().collect::<Vec<_>>().join(" "))
}
