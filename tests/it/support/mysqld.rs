//! Real MariaDB and MySQL servers as child processes, for one test each.
//!
//! A server runs on a free port of 127.0.0.1 and a unix socket, with the configuration that Cotton renders and the accounts that
//! Cotton makes at a data directory's birth. Its data lies in a temporary directory; it is killed on drop, and can be
//! killed and started again with its data.
//!
//! `COTTON_TEST_MARIADBD` names MariaDB's server (else `/usr/sbin/mariadbd`), `COTTON_TEST_MYSQL_PACKAGE` a package of MySQL
//! (else the newest `~/.cache/cotton/mysql-*.tar.zst`). The package and pristine data directories are kept unpacked
//! in cargo's target directory.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use cotton::cluster::flavour::{Flavour, ServerVersion};
use cotton::cluster::id::MemberId;
use cotton::mysql::authentication::{Authentication, SALT_LENGTH};
use cotton::mysql::mycnf::{ServerSettings, render};
use cotton::mysql::{Credentials, Server, Source, accounts};
use cotton::secret::Secret;
use sqlx::ConnectOptions;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use tempfile::TempDir;
use tokio::time::Instant;
use uuid::Uuid;

use super::{free_port, spawn};

/// How long a server may take to start. A loaded machine needs seconds.
const START_DEADLINE: Duration = Duration::from_secs(120);

/// The administration account of all test servers.
pub const ADMIN: &str = "cotton_admin";
const ADMIN_PASSWORD: &str = "it's \\ a \"secret\"";

/// A member's replication account on all test servers.
fn replication_account(member: u32) -> Credentials {
    let admin = Secret::new(ADMIN_PASSWORD);
    accounts::replication_account(&admin, Uuid::nil(), MemberId(member))
}

/// An installed server.
#[derive(Debug, Clone)]
pub struct Installed {
    pub mysqld: PathBuf,
    pub flavour: Flavour,
    pub version: ServerVersion,
}

impl Installed {
    /// The server of a flavour; panics with what to do if there is none.
    pub fn of(flavour: Flavour) -> &'static Self {
        static MARIADB: OnceLock<Installed> = OnceLock::new();
        static MYSQL: OnceLock<Installed> = OnceLock::new();
        match flavour {
            Flavour::Mariadb => MARIADB.get_or_init(|| Self::inspect(mariadbd())),
            Flavour::Mysql => {
                MYSQL.get_or_init(|| Self::inspect(mysql_package().join("bin/mysqld")))
            }
        }
    }

    fn inspect(mysqld: PathBuf) -> Self {
        let output = Command::new(&mysqld).arg("--version").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let (flavour, version) = ServerVersion::from_version_output(&text).unwrap();
        Self {
            mysqld,
            flavour,
            version,
        }
    }
}

fn mariadbd() -> PathBuf {
    let path =
        std::env::var_os("COTTON_TEST_MARIADBD").map_or("/usr/sbin/mariadbd".into(), PathBuf::from);
    assert!(
        path.exists(),
        "there is no MariaDB server at {}; run `apt-get install mariadb-server`, or name one in COTTON_TEST_MARIADBD",
        path.display()
    );
    path
}

/// The package's file, not unpacked.
pub fn mysql_package_file() -> PathBuf {
    if let Some(path) = std::env::var_os("COTTON_TEST_MYSQL_PACKAGE") {
        let path = PathBuf::from(path);
        assert!(
            path.exists(),
            "COTTON_TEST_MYSQL_PACKAGE names {}, which does not exist",
            path.display()
        );
        return path;
    }
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let cache = home.join(".cache/cotton");
    let is_package = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("mysql-") && name.ends_with(".tar.zst")
    };
    let files = fs::read_dir(&cache)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let newest = files
        .filter(is_package)
        .max_by_key(|path| fs::metadata(path).and_then(|data| data.modified()).ok());
    newest.unwrap_or_else(|| {
        panic!(
            "there is no package of MySQL in {}; run `scripts/mysql-package`, or name one in COTTON_TEST_MYSQL_PACKAGE",
            cache.display()
        )
    })
}

/// The unpacked package.
fn mysql_package() -> PathBuf {
    let file = mysql_package_file();
    let data = fs::metadata(&file).unwrap();
    let modified = data
        .modified()
        .unwrap()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    kept(
        &format!("mysql-package-{}-{modified}", data.len()),
        |directory| {
            let reader = zstd::Decoder::new(BufReader::new(File::open(&file).unwrap())).unwrap();
            tar::Archive::new(reader).unpack(directory).unwrap();
        },
    )
}

/// A directory below cargo's target directory, made once. It gets its name when it is complete.
fn kept(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if !place.exists() {
        let new = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        make(new.path());
        // Another test binary may have been faster; its directory is as good.
        let _ = fs::rename(new.path(), &place);
    }
    place
}

/// An initialised data directory that no server has run in.
fn pristine(installed: &Installed) -> PathBuf {
    kept(
        &format!("data-{}-{}", installed.flavour, installed.version),
        |directory| {
            let data = directory.join("data");
            let mut command = match installed.flavour {
                Flavour::Mariadb => {
                    let mut command = Command::new("mariadb-install-db");
                    command.args([
                        "--no-defaults",
                        "--auth-root-authentication-method=normal",
                        "--skip-test-db",
                    ]);
                    command.arg("--innodb-log-file-size=8M");
                    command
                }
                Flavour::Mysql => {
                    let mut command = Command::new(&installed.mysqld);
                    command.args([
                        "--no-defaults",
                        "--initialize-insecure",
                        "--innodb-redo-log-capacity=8M",
                    ]);
                    command.args(["--mysqlx=OFF", "--secure-file-priv=NULL"]);
                    command
                }
            };
            command
                .arg(format!("--datadir={}", data.display()))
                // One that starts removes the temporary tables of others in the same place.
                .arg(format!("--tmpdir={}", directory.display()))
                .arg("--user=root");
            let output = command.output().unwrap();
            assert!(
                output.status.success(),
                "{command:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            // It names the server, and no two may have the same name.
            let _ = fs::remove_file(data.join("auto.cnf"));
        },
    )
    .join("data")
}

/// A running (or killed) server.
pub struct Mysqld {
    directory: TempDir,
    pub installed: &'static Installed,
    pub port: u16,
    child: Option<Child>,
}

impl Mysqld {
    /// Starts a server with an empty history, closed as Cotton starts it.
    pub async fn start(flavour: Flavour, server_id: u32) -> Self {
        Self::start_with(flavour, server_id, |_| ()).await
    }

    /// The same, with other settings.
    pub async fn start_with(
        flavour: Flavour,
        server_id: u32,
        change: impl FnOnce(&mut ServerSettings),
    ) -> Self {
        let installed = Installed::of(flavour);
        let directory = tempfile::Builder::new()
            .prefix("cotton-mysqld-")
            .tempdir()
            .unwrap();
        let mut copy = Command::new("cp");
        copy.args(["-a", "--reflink=auto"])
            .arg(pristine(installed))
            .arg(directory.path());
        assert!(copy.status().unwrap().success());
        let mut server = Self {
            directory,
            installed,
            port: free_port(),
            child: None,
        };
        fs::create_dir(server.path("tmp")).unwrap();
        let mut settings = server.settings(server_id);
        change(&mut settings);
        // Small files start faster; they are nothing that Cotton decides about.
        let small = match flavour {
            Flavour::Mariadb => "innodb_log_file_size = 8M\n",
            Flavour::Mysql => "innodb_redo_log_capacity = 8M\n",
        };
        fs::write(server.path("my.cnf"), render(&settings).unwrap() + small).unwrap();
        let admin = Authentication::of(&Secret::new(ADMIN_PASSWORD), [42; SALT_LENGTH]);
        let replication = [0, 1].map(|member| {
            let account = replication_account(member);
            let hashed = Authentication::of(&account.password, [42; SALT_LENGTH]);
            (account.user, hashed)
        });
        fs::write(
            server.path("birth.sql"),
            accounts::birth_sql(flavour, ADMIN, &admin, &replication),
        )
        .unwrap();
        server.spawn(&[format!(
            "--init-file={}",
            server.path("birth.sql").display()
        )]);
        server.connect().await;
        server
    }

    /// A path beside the data directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Logs in as Cotton does.
    pub async fn connect(&self) -> Server {
        let deadline = Instant::now() + START_DEADLINE;
        let server = Server::connect(
            &self.path("s"),
            &self.admin(),
            self.installed.flavour,
            deadline,
        )
        .await;
        server.unwrap_or_else(|error| panic!("{error}: {error:?}\n{}", self.log()))
    }

    /// The administration account.
    pub fn admin(&self) -> Credentials {
        Credentials {
            user: ADMIN.to_owned(),
            password: Secret::new(ADMIN_PASSWORD),
        }
    }

    /// This server as a master for member 0.
    pub fn source(&self) -> Source {
        self.source_for(0)
    }

    /// This server as a master for member 0 or 1.
    pub fn source_for(&self, member: u32) -> Source {
        let Credentials { user, password } = replication_account(member);
        Source {
            host: "127.0.0.1".to_owned(),
            port: self.port,
            user,
            password,
        }
    }

    /// A client's connection through the network.
    pub async fn client(&self, user: &str, password: &str) -> Result<MySqlConnection, sqlx::Error> {
        let options = MySqlConnectOptions::new().host("127.0.0.1").port(self.port);
        options.username(user).password(password).connect().await
    }

    /// A connection of the administration account through the socket, for what tests look at.
    pub async fn local(&self) -> MySqlConnection {
        let options = MySqlConnectOptions::new()
            .socket(self.path("s"))
            .username(ADMIN);
        options.password(ADMIN_PASSWORD).connect().await.unwrap()
    }

    /// Kills the server with SIGKILL and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts a killed server with its data.
    pub async fn restart(&mut self) -> Server {
        assert!(self.child.is_none(), "kill it first");
        self.spawn(&[]);
        self.connect().await
    }

    /// The process id.
    pub fn pid(&self) -> nix::unistd::Pid {
        let id = self.child.as_ref().unwrap().id();
        nix::unistd::Pid::from_raw(i32::try_from(id).unwrap())
    }

    /// The end of what the server wrote.
    pub fn log(&self) -> String {
        let text = fs::read_to_string(self.path("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(6)..].join("\n")
    }

    fn settings(&self, server_id: u32) -> ServerSettings {
        ServerSettings {
            flavour: self.installed.flavour,
            version: self.installed.version,
            server_id,
            port: self.port,
            bind_address: "127.0.0.1".to_owned(),
            report_host: "127.0.0.1".to_owned(),
            data_dir: self.path("data"),
            socket: self.path("s"),
            tmp_dir: self.path("tmp"),
            memory_mib: 300,
            as_root: nix::unistd::geteuid().is_root(),
            relaxed_durability: false,
            user_defaults: None,
        }
    }

    fn spawn(&mut self, arguments: &[String]) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .unwrap();
        let mut command = Command::new(&self.installed.mysqld);
        command
            .arg(format!("--defaults-file={}", self.path("my.cnf").display()))
            .args(arguments);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.child = Some(spawn(command).unwrap());
    }
}

impl Drop for Mysqld {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the server's log ends with:\n{}", self.log());
        }
        self.kill();
    }
}
