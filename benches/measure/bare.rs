//! The server without Cotton: initialise a data directory, start, log in.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cotton::cluster::flavour::Flavour;
use nix::unistd::User;
use sqlx::ConnectOptions as _;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use tempfile::TempDir;

use crate::support::system::mysql_package;
use crate::support::{free_port, process};

/// Where the server's programs are.
#[derive(Clone)]
pub struct Server {
    flavour: Flavour,
    package: Option<Arc<TempDir>>,
}

impl Server {
    /// MariaDB is the system's; MySQL is unpacked, which does not count.
    pub fn new(flavour: Flavour) -> Self {
        let package = (flavour == Flavour::Mysql).then(|| {
            let folder = world_readable();
            let mut tar = Command::new("tar");
            tar.arg("--extract").arg("--file").arg(mysql_package());
            tar.arg("--directory").arg(folder.path());
            assert!(tar.status().unwrap().success());
            Arc::new(folder)
        });
        Self { flavour, package }
    }

    fn mysqld(&self) -> PathBuf {
        match &self.package {
            Some(package) => package.path().join("bin/mysqld"),
            None => PathBuf::from("/usr/sbin/mariadbd"),
        }
    }

    /// How long it takes until the first `SELECT 1`.
    pub async fn measure(&self) -> Duration {
        let start = Instant::now();
        let running = self.start().await;
        let took = start.elapsed();
        drop(running);
        took
    }

    /// Initialises and starts one, with the settings that Cotton makes as far as they cost time: commits are synced,
    /// and there is a binary log.
    pub async fn start(&self) -> Running {
        let folder = world_readable();
        let data = folder.path().join("data");
        // As root the servers want another user named.
        let is_root = nix::unistd::geteuid().is_root();
        let named = |name| User::from_name(name).unwrap();
        let user = is_root.then(|| named("mysql").or_else(|| named("nobody")).unwrap());
        if let Some(user) = &user {
            nix::unistd::chown(folder.path(), Some(user.uid), Some(user.gid)).unwrap();
        }
        let mut initialise = self.initialise(&data);
        let mut serve = Command::new(self.mysqld());
        serve.arg("--no-defaults");
        for command in [&mut initialise, &mut serve] {
            command.arg(format!("--datadir={}", data.display()));
            if let Some(user) = &user {
                command.arg(format!("--user={}", user.name));
            }
            command.stdin(Stdio::null()).stdout(Stdio::null());
            command.stderr(Stdio::null());
        }
        assert!(initialise.status().unwrap().success());
        serve
            .arg(format!("--socket={}", folder.path().join("sock").display()))
            .args(["--server-id=1", "--log-bin=binlog"])
            .args(["--sync-binlog=1", "--innodb-flush-log-at-trx-commit=1"])
            .args(["--innodb-buffer-pool-size=200M", "--performance-schema=OFF"]);
        let port = free_port();
        match self.flavour {
            // Its clone goes over the network.
            Flavour::Mysql => serve
                .args(["--mysqlx=OFF", "--secure-file-priv=NULL"])
                .args(["--bind-address=127.0.0.1", &format!("--port={port}")]),
            Flavour::Mariadb => serve.arg("--skip-networking"),
        };
        let running = Running {
            child: process::spawn(serve).unwrap(),
            server: self.clone(),
            port,
            folder,
        };
        drop(running.connect().await);
        running
    }

    fn initialise(&self, data: &Path) -> Command {
        match self.flavour {
            Flavour::Mysql => {
                let mut command = Command::new(self.mysqld());
                command.args(["--no-defaults", "--initialize-insecure"]);
                command.args(["--mysqlx=OFF", "--secure-file-priv=NULL"]);
                command
            }
            Flavour::Mariadb => {
                std::fs::create_dir(data).unwrap();
                let mut command = Command::new("mariadb-install-db");
                command.args(["--no-defaults", "--skip-test-db", "--skip-name-resolve"]);
                command.arg("--auth-root-authentication-method=normal");
                command
            }
        }
    }
}

/// A server that runs. It is killed when dropped.
pub struct Running {
    child: Child,
    server: Server,
    port: u16,
    folder: TempDir,
}

impl Running {
    /// What it is.
    pub fn flavour(&self) -> Flavour {
        self.server.flavour
    }

    /// Another one of the same programs, which is empty.
    pub async fn another(&self) -> Self {
        self.server.start().await
    }

    /// Where one of MySQL listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A folder into which it may write, on its disk.
    pub fn folder_of_its_own(&self) -> TempDir {
        let folder = TempDir::new_in(self.folder.path()).unwrap();
        let mode = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(folder.path(), mode).unwrap();
        folder
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("sock")
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Logs in as root, as soon as it is possible.
    pub async fn connect(&self) -> MySqlConnection {
        let socket = self.socket();
        let options = MySqlConnectOptions::new().socket(socket).username("root");
        let start = Instant::now();
        loop {
            if let Ok(mut connection) = options.connect().await {
                let one: i32 = sqlx::query_scalar("SELECT 1")
                    .fetch_one(&mut connection)
                    .await
                    .unwrap();
                assert_eq!(one, 1);
                return connection;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "no login");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn world_readable() -> TempDir {
    let folder = tempfile::Builder::new()
        .prefix("cotton-bench-")
        .tempdir()
        .unwrap();
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), mode).unwrap();
    folder
}
