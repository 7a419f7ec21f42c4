//! Where things lie in an executor's sandbox.
//!
//! ```text
//! $MESOS_SANDBOX/
//! ├── mysqld.log              what the server and its tools print
//! ├── my.cnf                  rendered anew at every start of the server
//! ├── copy.cnf               how mariadb-backup logs in, while another member copies this one
//! ├── copy.log               what the tools print that make or receive a copy
//! ├── export.log             what the binlog tool prints
//! ├── replay.cnf, .log, ...  a server that replays archived binlogs, and its tools
//! ├── birth.sql               only while a new data directory is started for the first time
//! ├── run/            0700    mysqld.sock, mysqld.pid
//! ├── package/                the unpacked package, when agents cannot share one
//! └── state/                  what must outlive the server process: the member's volume, if it has one
//!     ├── lock                held by the executor that uses it
//!     ├── run                 a link to run/ of the sandbox that uses it
//!     ├── tmp/        0700    the server's temporary files; emptied at each start of an executor
//!     ├── promise.json        the highest epoch promised, and which data directory is in use
//!     ├── data/<data id>/     0700; the data directory in use
//!     └── quarantine/ 0700        data directories that were set aside
//!         ├── <data id>/          kept until it is exported, and a while longer
//!         ├── <data id>.unpromised  a mark, in `data` as well: it was never promised
//!         └── <data id>.sql.gz    what it holds beyond the cluster's history
//! ```
//!
//! `state` is the place of a persistent volume (see [`crate::cluster::slot`]): then it is a link to a folder of the agent or a
//! mount, and the next task of the member finds all of it again. Without a volume it is a folder, and goes with the
//! sandbox.
//!
//! A data directory's name is its incarnation, so that no crash can leave a directory under the
//! identity of another one: `promise.json` names the one in use, and a name without a directory
//! means that a new one, with a new name, has to be made.
//!
//! The path of a sandbox on a real agent is longer than the 107 bytes that a Unix socket's address
//! can have (`unix(7)`). The server therefore gets the socket's path relative to its data directory,
//! which is its working directory, by way of the link `state/run`, and the executor reaches it through a descriptor of `run/`
//! ([`Sandbox::socket`]).

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{DirBuilderExt, OpenOptionsExt, symlink},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::cluster::id::DataId;

/// The folders of one executor.
#[derive(Debug, Clone)]
pub struct Sandbox {
    root: PathBuf,
    run: Arc<File>,
    /// Locked for as long as any clone of this value lives.
    _lock: Arc<File>,
}

/// The sandbox cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A folder cannot be made or opened.
    #[error("the folder {path} of the sandbox cannot be made or opened")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Another executor uses the volume.
    #[error(
        "another executor holds {path}: two servers must not use one data directory; see which process of this agent has it open"
    )]
    InUse {
        /// The lock's file.
        path: PathBuf,
    },
}

impl Sandbox {
    /// The folder of data directories that were set aside, from the sandbox on.
    pub const QUARANTINE: &str = "state/quarantine";

    /// Makes the folders in `root` that are not there yet, and takes what outlives the sandbox into use.
    ///
    /// # Errors
    /// When a folder cannot be made, or when another executor uses the same volume.
    pub fn open(root: &Path) -> Result<Self, SandboxError> {
        let root = fs::canonicalize(root).map_err(failed(root))?;
        for folder in ["run", "state"] {
            make_folder(&root.join(folder))?;
        }
        // Nothing in the volume is touched before it is certain that nobody else uses it.
        let lock = lock(root.join("state/lock"))?;
        // What the server of an earlier task has left there is of no use to anybody.
        for folder in ["state/tmp", "state/backup"] {
            let folder = root.join(folder);
            match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed(&folder)(error));
                }
                _ => {}
            }
        }
        for folder in ["state/tmp", "state/data", "state/quarantine"] {
            make_folder(&root.join(folder))?;
        }
        let path = root.join("run");
        link(&path, &root.join("state/run"))?;
        let run = File::open(&path).map_err(failed(&path))?;
        Ok(Self {
            root,
            run: Arc::new(run),
            _lock: Arc::new(lock),
        })
    }

    /// What the server and its tools print.
    pub fn log(&self) -> PathBuf {
        self.root.join("mysqld.log")
    }

    /// The server's settings.
    pub fn my_cnf(&self) -> PathBuf {
        self.root.join("my.cnf")
    }

    /// The statements of a data directory's first start.
    pub fn birth_sql(&self) -> PathBuf {
        self.root.join("birth.sql")
    }

    /// How mariadb-backup logs in.
    pub fn copy_cnf(&self) -> PathBuf {
        self.root.join("copy.cnf")
    }

    /// What the binlog tool prints.
    pub fn export_log(&self) -> PathBuf {
        self.root.join("export.log")
    }

    /// What the tools print that make or receive a copy.
    pub fn copy_log(&self) -> PathBuf {
        self.root.join("copy.log")
    }

    /// How mariadb-backup logs in for a backup.
    pub fn backup_cnf(&self) -> PathBuf {
        self.root.join("backup.cnf")
    }

    /// What the tool prints that makes a backup.
    pub fn backup_log(&self) -> PathBuf {
        self.root.join("backup.log")
    }

    /// How mariadb-upgrade logs in.
    pub fn upgrade_cnf(&self) -> PathBuf {
        self.root.join("upgrade.cnf")
    }

    /// What mariadb-upgrade prints.
    pub fn upgrade_log(&self) -> PathBuf {
        self.root.join("upgrade.log")
    }

    /// Where MySQL makes its copy for a backup, on the disk of the data.
    pub fn backup_folder(&self) -> PathBuf {
        self.root.join("state/backup")
    }

    /// The settings of a server that replays archived binlogs.
    pub fn replay_cnf(&self) -> PathBuf {
        self.root.join("replay.cnf")
    }

    /// How the client logs in that hands archived binlogs to it.
    pub fn replay_client_cnf(&self) -> PathBuf {
        self.root.join("replay-client.cnf")
    }

    /// What that server prints.
    pub fn replay_log(&self) -> PathBuf {
        self.root.join("replay.log")
    }

    /// What the binlog tool and the client print.
    pub fn replay_tool_log(&self) -> PathBuf {
        self.root.join("replay-tool.log")
    }

    /// The server's temporary files.
    pub fn tmp(&self) -> PathBuf {
        self.root.join("state/tmp")
    }

    /// Where a package is unpacked when agents cannot share one.
    pub fn package(&self) -> PathBuf {
        self.root.join("package")
    }

    /// Where a package that was not checked yet is kept.
    pub fn download(&self) -> PathBuf {
        self.root.join("package.download")
    }

    /// The highest epoch promised and the data directory in use.
    pub fn promise(&self) -> PathBuf {
        self.root.join("state/promise.json")
    }

    /// The folder of data directories.
    pub fn data_folder(&self) -> PathBuf {
        self.root.join("state/data")
    }

    /// The folder of data directories that were set aside.
    pub fn quarantine_folder(&self) -> PathBuf {
        self.root.join(Self::QUARANTINE)
    }

    /// The data directory of an incarnation.
    pub fn data(&self, data: DataId) -> PathBuf {
        self.data_folder().join(data.to_string())
    }

    /// Where the data directory of an incarnation is made. It is not used before it is complete and
    /// has got its own name.
    pub fn unfinished_data(&self, data: DataId) -> PathBuf {
        self.data_folder().join(format!("{data}.unfinished"))
    }

    /// Where a data directory is set aside.
    pub fn quarantine(&self, data: DataId) -> PathBuf {
        self.quarantine_folder().join(data.to_string())
    }

    /// The socket's path for the server's settings, relative to any [`Sandbox::data`] directory.
    pub fn socket_for_server(&self) -> PathBuf {
        PathBuf::from("../../run/mysqld.sock")
    }

    /// The socket's path for this process, short enough for a socket's address. It is good as long
    /// as any clone of this value lives.
    pub fn socket(&self) -> PathBuf {
        PathBuf::from(format!(
            "/proc/self/fd/{}/mysqld.sock",
            self.run.as_raw_fd()
        ))
    }

    /// The file with the server's process id.
    pub fn pid_file(&self) -> PathBuf {
        self.root.join("run/mysqld.pid")
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> SandboxError {
    let path = path.to_owned();
    move |source| SandboxError::Folder { path, source }
}

fn make_folder(path: &Path) -> Result<(), SandboxError> {
    let mut builder = DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(path);
    made.map_err(failed(path))
}

/// The lock goes with the process that holds it, however that ends.
fn lock(path: PathBuf) -> Result<File, SandboxError> {
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).mode(0o600);
    let file = file.open(&path).map_err(failed(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SandboxError::InUse { path }),
        Err(TryLockError::Error(source)) => Err(SandboxError::Folder { path, source }),
    }
}

/// Makes a link that an earlier sandbox may have left behind for itself.
fn link(target: &Path, link: &Path) -> Result<(), SandboxError> {
    match fs::remove_file(link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(link)(error)),
        _ => {}
    }
    symlink(target, link).map_err(failed(link))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    /// Goal: a server in a sandbox with a very long path can be reached. Method: a listener bound
    /// through the descriptor, as a server with that working directory would, and a connection.
    #[test]
    fn the_socket_can_be_reached_whatever_the_length_of_the_path() {
        let temp = tempfile::tempdir().unwrap();
        let long = temp.path().join("x".repeat(200));
        fs::create_dir(&long).unwrap();
        let sandbox = Sandbox::open(&long).unwrap();
        assert!(sandbox.socket().as_os_str().len() < 107);
        let _listener = UnixListener::bind(sandbox.socket()).unwrap();
        assert!(long.join("run/mysqld.sock").exists());
        UnixStream::connect(sandbox.socket()).unwrap();
    }

    #[test]
    fn opening_again_keeps_what_is_there() {
        let temp = tempfile::tempdir().unwrap();
        let sandbox = Sandbox::open(temp.path()).unwrap();
        fs::write(sandbox.promise(), "kept").unwrap();
        drop(sandbox);
        let sandbox = Sandbox::open(temp.path()).unwrap();
        assert_eq!(fs::read_to_string(sandbox.promise()).unwrap(), "kept");
    }

    /// Goal: the next task finds what the last one has left on its volume, and a server on it is reached. Method: two
    /// sandboxes one after the other with one volume, as Mesos links it.
    #[test]
    fn a_volume_goes_from_one_sandbox_to_the_next() {
        let temp = tempfile::tempdir().unwrap();
        let volume = temp.path().join("volume");
        fs::create_dir(&volume).unwrap();
        for number in 0..2 {
            let root = temp.path().join(number.to_string());
            fs::create_dir(&root).unwrap();
            symlink(&volume, root.join("state")).unwrap();
            let sandbox = Sandbox::open(&root).unwrap();
            assert_eq!(sandbox.promise().exists(), number == 1);
            assert!(!sandbox.tmp().join("left").exists());
            fs::write(sandbox.promise(), "kept").unwrap();
            fs::write(sandbox.tmp().join("left"), "").unwrap();
            let data = sandbox.data(DataId(uuid::Uuid::from_u128(1)));
            fs::create_dir_all(&data).unwrap();
            let _listener = UnixListener::bind(data.join(sandbox.socket_for_server())).unwrap();
            UnixStream::connect(sandbox.socket()).unwrap();
            let second = Sandbox::open(&root);
            assert!(matches!(second, Err(SandboxError::InUse { .. })));
        }
    }
}
