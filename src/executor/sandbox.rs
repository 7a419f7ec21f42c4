//! Where things lie in an executor's sandbox.
//!
//! ```text
//! $MESOS_SANDBOX/
//! ├── mysqld.log              what the server and its tools print
//! ├── my.cnf                  rendered anew at every start of the server
//! ├── copy.cnf               how mariadb-backup logs in, while another member copies this one
//! ├── copy.log               what the tools print that make or receive a copy
//! ├── export.log             what the binlog tool prints
//! ├── birth.sql               only while a new data directory is started for the first time
//! ├── run/            0700    mysqld.sock, mysqld.pid
//! ├── tmp/            0700    the server's temporary files
//! ├── package/                the unpacked package, when agents cannot share one
//! └── state/          0700    what must outlive the server process
//!     ├── promise.json        the highest epoch promised, and which data directory is in use
//!     ├── data/<data id>/     the data directory in use
//!     └── quarantine/             data directories that were set aside
//!         ├── <data id>/          kept until it is exported, and a while longer
//!         └── <data id>.sql.gz    what it holds beyond the cluster's history
//! ```
//!
//! A data directory's name is its incarnation, so that no crash can leave a directory under the
//! identity of another one: `promise.json` names the one in use, and a name without a directory
//! means that a new one, with a new name, has to be made.
//!
//! The path of a sandbox on a real agent is longer than the 107 bytes that a Unix socket's address
//! can have (`unix(7)`). The server therefore gets the socket's path relative to its data directory,
//! which is its working directory, and the executor reaches it through a descriptor of `run/`
//! ([`Sandbox::socket`]).

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::{fd::AsRawFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::cluster::id::DataId;

/// The folders of one executor.
#[derive(Debug, Clone)]
pub struct Sandbox {
    root: PathBuf,
    run: Arc<File>,
}

/// A folder of the sandbox cannot be made or opened.
#[derive(Debug, thiserror::Error)]
#[error("the folder {path} of the sandbox cannot be made or opened")]
pub struct SandboxError {
    /// The folder.
    pub path: PathBuf,
    /// What the system says.
    #[source]
    pub source: io::Error,
}

impl Sandbox {
    /// The folder of data directories that were set aside, from the sandbox on.
    pub const QUARANTINE: &str = "state/quarantine";

    /// Makes the folders in `root` that are not there yet.
    ///
    /// # Errors
    /// When one of them cannot be made.
    pub fn open(root: &Path) -> Result<Self, SandboxError> {
        let root = fs::canonicalize(root).map_err(|source| SandboxError {
            path: root.to_owned(),
            source,
        })?;
        for folder in ["run", "tmp", "state", "state/data", "state/quarantine"] {
            let path = root.join(folder);
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(|source| SandboxError { path, source })?;
        }
        let path = root.join("run");
        let run = File::open(&path).map_err(|source| SandboxError { path, source })?;
        Ok(Self {
            root,
            run: Arc::new(run),
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

    /// The server's temporary files.
    pub fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
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
        PathBuf::from("../../../run/mysqld.sock")
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
        Sandbox::open(temp.path()).unwrap();
        assert_eq!(fs::read_to_string(sandbox.promise()).unwrap(), "kept");
    }
}
