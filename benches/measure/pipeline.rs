//! What an administrator would type to copy a server, to back it up and to restore it, without Cotton.
//!
//! What is written is synced in the end, as Cotton's is before a server starts on it or a store has it.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cotton::cluster::flavour::Flavour;
use tempfile::TempDir;

use crate::bare::Running;
use crate::support::database::execute;

/// The account that MySQL's clone uses, and its password.
const DONOR: (&str, &str) = ("donor", "of-this-bench-alone");

/// Copies from server to server.
pub struct Copies {
    donor: Running,
    /// Who receives, where a server does.
    recipient: Option<Running>,
}

impl Copies {
    /// Copies of this server.
    pub async fn new(donor: Running) -> Self {
        if donor.flavour() == Flavour::Mariadb {
            return Self {
                donor,
                recipient: None,
            };
        }
        let (user, password) = DONOR;
        prepare_clone(&donor).await;
        let mut connection = donor.connect().await;
        for statement in [
            format!("CREATE USER {user} IDENTIFIED BY '{password}'"),
            format!("GRANT BACKUP_ADMIN ON *.* TO {user}"),
        ] {
            execute(&mut connection, &statement).await.unwrap();
        }
        let recipient = donor.another().await;
        prepare_clone(&recipient).await;
        let list = format!(
            "SET GLOBAL clone_valid_donor_list = '127.0.0.1:{}'",
            donor.port()
        );
        execute(&mut recipient.connect().await, &list)
            .await
            .unwrap();
        Self {
            donor,
            recipient: Some(recipient),
        }
    }

    /// What it is made with.
    pub fn name(&self) -> &'static str {
        match self.recipient {
            None => "mariadb-backup | mbstream",
            Some(_) => "CLONE INSTANCE ... DATA DIRECTORY",
        }
    }

    /// How long one copy takes.
    pub async fn measure(&self) -> Duration {
        let Some(recipient) = &self.recipient else {
            return stream_copy(&self.donor);
        };
        let folder = recipient.folder_of_its_own();
        let (user, password) = DONOR;
        let clone = format!(
            "CLONE INSTANCE FROM {user}@'127.0.0.1':{} IDENTIFIED BY '{password}' DATA DIRECTORY = '{}'",
            self.donor.port(),
            folder.path().join("copy").display()
        );
        let mut connection = recipient.connect().await;
        let start = Instant::now();
        execute_slowly(&mut connection, &clone).await;
        start.elapsed()
    }
}

/// Lets a server of MySQL clone and be cloned.
pub async fn prepare_clone(server: &Running) {
    let install = "INSTALL PLUGIN clone SONAME 'mysql_clone.so'";
    execute(&mut server.connect().await, install).await.unwrap();
}

/// Runs a statement that takes as long as it takes.
async fn execute_slowly(connection: &mut sqlx::mysql::MySqlConnection, statement: &str) {
    let statement = sqlx::AssertSqlSafe(statement.to_owned());
    sqlx::raw_sql(statement).execute(connection).await.unwrap();
}

fn stream_copy(server: &Running) -> Duration {
    let folder = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let mut backup = mariadb_backup(server);
    unpack(&mut mbstream(), folder.path(), &mut backup);
    sync(folder.path());
    start.elapsed()
}

/// Makes a compressed file of a server's data.
pub async fn back_up(server: &Running, store: &Path) -> (Duration, PathBuf) {
    let stream = store.join("bare.zst");
    let start = Instant::now();
    match server.flavour() {
        Flavour::Mariadb => compress(&mut mariadb_backup(server), &stream),
        Flavour::Mysql => {
            let copy = server.folder_of_its_own();
            let folder = copy.path().join("copy");
            let clone = format!("CLONE LOCAL DATA DIRECTORY = '{}'", folder.display());
            execute_slowly(&mut server.connect().await, &clone).await;
            let mut tar = Command::new("tar");
            tar.args(["--create", "--directory"]).arg(&folder).arg(".");
            compress(&mut piped(&mut tar), &stream);
            copy.close().unwrap();
        }
    }
    (start.elapsed(), stream)
}

/// Makes files of it that a server could start on.
pub fn restore(flavour: Flavour, stream: &Path) -> Duration {
    let data = world_writable();
    let start = Instant::now();
    let mut decompress = Command::new("zstd");
    decompress.args(["-d", "--quiet", "--stdout"]).arg(stream);
    let mut data_of = match flavour {
        Flavour::Mariadb => mbstream(),
        Flavour::Mysql => {
            let mut tar = Command::new("tar");
            tar.args(["--extract", "--directory"]);
            tar
        }
    };
    unpack(&mut data_of, data.path(), &mut piped(&mut decompress));
    if flavour == Flavour::Mariadb {
        let mut prepare = Command::new("mariadb-backup");
        prepare.args(["--no-defaults", "--prepare"]);
        prepare.arg(format!("--target-dir={}", data.path().display()));
        prepare.stdout(Stdio::null()).stderr(Stdio::null());
        assert!(prepare.status().unwrap().success());
    }
    sync(data.path());
    start.elapsed()
}

fn mariadb_backup(server: &Running) -> Child {
    let mut backup = Command::new("mariadb-backup");
    backup
        .args(["--no-defaults", "--backup", "--stream=mbstream"])
        .arg("--user=root")
        .arg(format!("--socket={}", server.socket().display()))
        .arg(format!("--datadir={}", server.data().display()))
        .stderr(Stdio::null());
    piped(&mut backup)
}

fn mbstream() -> Command {
    let mut command = Command::new("mbstream");
    command.args(["-x", "-C"]);
    command
}

fn piped(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.spawn().unwrap()
}

fn compress(from: &mut Child, to: &Path) {
    let file = File::create(to).unwrap();
    let compressed = Command::new("zstd")
        .args(["-3", "-T1", "--quiet", "--stdout"])
        .stdin(from.stdout.take().unwrap())
        .stdout(file.try_clone().unwrap())
        .status()
        .unwrap();
    assert!(compressed.success() && from.wait().unwrap().success());
    file.sync_all().unwrap();
}

fn unpack(with: &mut Command, into: &Path, from: &mut Child) {
    let extracted = with
        .arg(into)
        .stdin(from.stdout.take().unwrap())
        .status()
        .unwrap();
    assert!(extracted.success() && from.wait().unwrap().success());
}

fn sync(folder: &Path) {
    let synced = Command::new("find")
        .arg(folder)
        .args(["-type", "f", "-exec", "sync", "{}", "+"])
        .status()
        .unwrap();
    assert!(synced.success());
}

/// A folder into which servers and executors may write, which run as other users.
pub fn world_writable() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    folder
}
