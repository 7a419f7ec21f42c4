//! Putting a MySQL or MariaDB server onto the agent, or finding the one that is there.
//!
//! A package is fetched into a file, its checksum is computed while it arrives, and nothing of it is
//! unpacked before that was compared. It is unpacked once per agent where that is possible
//! ([`AgentCache`]). What it holds is not trusted with anything outside of its folder.
//!
//! The flavour and version are what the installed binary says of itself.

pub mod fetch;
mod unpack;

use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{process::Command, task, time};
use tracing::{info, warn};

use super::{
    agent_cache::{AgentCache, CacheError},
    sandbox::Sandbox,
};
use crate::cluster::{
    control::{Installer, ServerKind},
    flavour::{ServerVersion, VersionError},
};

pub use fetch::FetchError;
pub use unpack::UnpackError;

/// How long `--version` may take. It prints and exits; a minute is for a disk that is very busy.
const VERSION_DEADLINE: Duration = Duration::from_secs(60);

/// The names of the server, in a package's `bin` or on the search path. Debian's MariaDB installs
/// both; the one names the other.
const NAMES: [&str; 2] = ["mysqld", "mariadbd"];

/// Where distributions install servers, beside what the search path names: `/usr/sbin` is not on the
/// search path of an ordinary user.
const USUAL_FOLDERS: [&str; 4] = [
    "/usr/sbin",
    "/usr/local/sbin",
    "/usr/libexec",
    "/usr/local/mysql/bin",
];

/// An installed server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// The server's program.
    pub mysqld: PathBuf,
    /// What it says of itself.
    pub kind: ServerKind,
}

/// There is no server to start.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Nothing is installed on the agent.
    #[error(
        "neither mysqld nor mariadbd is on the agent's search path {searched}; install one, or name one or a package with --installer-args"
    )]
    NotFound {
        /// The folders that were searched.
        searched: String,
    },
    /// The package has no server.
    #[error("the package {package} has neither bin/mysqld nor bin/mariadbd")]
    NoServer {
        /// Where the package came from.
        package: String,
    },
    /// The package cannot be had, or is not the one that was asked for.
    #[error("the package {package} cannot be fetched")]
    Fetch {
        /// Where it is.
        package: String,
        /// Why.
        #[source]
        source: FetchError,
    },
    /// The package cannot be unpacked.
    #[error("the package {package} cannot be unpacked")]
    Unpack {
        /// Where it came from.
        package: String,
        /// Why.
        #[source]
        source: UnpackError,
    },
    /// The server cannot be run.
    #[error("{mysqld} --version cannot be run")]
    Run {
        /// The server.
        mysqld: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The server does not say what it is.
    #[error("{mysqld} does not say what it is")]
    Version {
        /// The server.
        mysqld: PathBuf,
        /// What it printed instead.
        #[source]
        source: VersionError,
    },
}

/// Installs the server that `installer` names.
///
/// # Errors
/// When there is none, or it does not run. Trying again helps only against a package that could not be
/// fetched.
pub async fn install(
    installer: &Installer,
    sandbox: &Sandbox,
    cache: Option<&AgentCache>,
) -> Result<Installed, InstallError> {
    let mysqld = match installer {
        Installer::Search => search()?,
        Installer::Installed { mysqld } => PathBuf::from(mysqld),
        Installer::Package { package, sha256 } => {
            let folder = unpacked(package, sha256.as_deref(), sandbox, cache).await?;
            server_in(&folder).ok_or_else(|| InstallError::NoServer {
                package: package.clone(),
            })?
        }
    };
    let kind = version(&mysqld).await?;
    info!(mysqld = %mysqld.display(), flavour = %kind.flavour, version = %kind.version, "server installed");
    Ok(Installed { mysqld, kind })
}

fn search() -> Result<PathBuf, InstallError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path)
        .chain(USUAL_FOLDERS.map(PathBuf::from))
        .collect();
    folders
        .iter()
        .flat_map(|folder| NAMES.map(|name| folder.join(name)))
        .find(|file| is_program(file))
        .ok_or_else(|| InstallError::NotFound {
            searched: folders
                .iter()
                .map(|folder| folder.display().to_string())
                .collect::<Vec<_>>()
                .join(":"),
        })
}

fn server_in(package: &Path) -> Option<PathBuf> {
    NAMES
        .map(|name| package.join("bin").join(name))
        .into_iter()
        .find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok() && file.is_file()
}

/// The folder with the unpacked package.
async fn unpacked(
    package: &str,
    sha256: Option<&str>,
    sandbox: &Sandbox,
    cache: Option<&AgentCache>,
) -> Result<PathBuf, InstallError> {
    // Without a checksum nothing tells whether an earlier package of that name was the same one.
    if let (Some(cache), Some(sha256)) = (cache, sha256) {
        match shared(cache, package, sha256, sandbox).await {
            Ok(folder) => return Ok(folder),
            Err(SharedError::Install(error)) => return Err(error),
            Err(SharedError::Cache(error)) => {
                warn!(error = %crate::executor::chain(&error), "the package is not shared with other executors of this agent");
            }
        }
    }
    let folder = sandbox.package();
    fetch_and_unpack(package, sha256, &sandbox.download(), &folder).await?;
    Ok(folder)
}

enum SharedError {
    Cache(CacheError),
    Install(InstallError),
}

impl From<CacheError> for SharedError {
    fn from(error: CacheError) -> Self {
        Self::Cache(error)
    }
}

async fn shared(
    cache: &AgentCache,
    package: &str,
    sha256: &str,
    sandbox: &Sandbox,
) -> Result<PathBuf, SharedError> {
    let entry = cache
        .lock(&format!("package-{}", sha256.to_ascii_lowercase()))
        .await?;
    if let Some(folder) = entry.complete() {
        return Ok(folder);
    }
    let folder = entry.begin()?;
    fetch_and_unpack(package, Some(sha256), &sandbox.download(), &folder)
        .await
        .map_err(SharedError::Install)?;
    Ok(entry.finish()?)
}

/// Fetches a package, checks it, and unpacks it into `folder`.
async fn fetch_and_unpack(
    package: &str,
    sha256: Option<&str>,
    download: &Path,
    folder: &Path,
) -> Result<(), InstallError> {
    let local = fetch::fetch(package, sha256, download)
        .await
        .map_err(|source| InstallError::Fetch {
            package: package.to_owned(),
            source,
        })?;
    let (file, target) = (local.path().to_owned(), folder.to_owned());
    let unpacked = task::spawn_blocking(move || unpack::unpack(&file, &target))
        .await
        .unwrap_or_else(|panicked| Err(UnpackError::Read(io::Error::other(panicked))));
    // A downloaded package has done its work, whether it could be unpacked or not.
    drop(local);
    unpacked.map_err(|source| InstallError::Unpack {
        package: package.to_owned(),
        source,
    })
}

/// Asks a server for its flavour and version.
///
/// # Errors
/// When it does not run or prints something else.
pub async fn version(mysqld: &Path) -> Result<ServerKind, InstallError> {
    let run = |source| InstallError::Run {
        mysqld: mysqld.to_owned(),
        source,
    };
    let output = Command::new(mysqld)
        .args(["--no-defaults", "--version"])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = time::timeout(VERSION_DEADLINE, output)
        .await
        .map_err(|_| run(io::ErrorKind::TimedOut.into()))?
        .map_err(run)?;
    let mut printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if printed.trim().is_empty() {
        // Then it says on standard error why it does not run.
        printed = String::from_utf8_lossy(&output.stderr).into_owned();
    }
    let (flavour, version) =
        ServerVersion::from_version_output(&printed).map_err(|source| InstallError::Version {
            mysqld: mysqld.to_owned(),
            source,
        })?;
    Ok(ServerKind { flavour, version })
}
