//! A real S3 server for one test: `s3s-fs` (`scripts/s3-server`), which checks signatures and keeps a bucket as a folder.
//!
//! It runs on a free port of 127.0.0.1 with its data in a temporary directory and is killed on drop. It can be stopped, started again
//! with its data, frozen and thawed.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{free_port, in_project, process};

/// How long the server may take to serve on a loaded machine.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// How long to wait between two looks.
const PAUSE: Duration = Duration::from_millis(30);

/// The bucket that is there.
pub const BUCKET: &str = "backups";

const ACCESS_KEY: &str = "AKIACOTTON";
const SECRET_KEY: &str = "of-this-test-alone";

/// An S3 server, which may be stopped.
pub struct S3 {
    directory: TempDir,
    port: u16,
    child: Option<Child>,
}

impl S3 {
    /// Starts it with an empty bucket, and waits until it serves.
    pub fn start() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("cotton-s3-")
            .tempdir()
            .unwrap();
        // Executors, which run as another user, read the credentials.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut s3 = Self {
            directory,
            port: 0,
            child: None,
        };
        fs::create_dir_all(s3.bucket()).unwrap();
        let account = format!("username: {ACCESS_KEY}\npassword: {SECRET_KEY}\n");
        fs::write(s3.credentials(), account).unwrap();
        // Another process may take a free port before the server has it: then another.
        for _ in 0..5 {
            s3.port = free_port();
            if s3.try_start() {
                return s3;
            }
        }
        panic!("the S3 server did not start:\n{}", s3.log());
    }

    /// The port at which it serves.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A file with the access key and its secret, as `--backup-store-args` names one.
    pub fn credentials(&self) -> PathBuf {
        self.directory.path().join("credentials.yml")
    }

    /// The objects of the bucket, as files.
    pub fn bucket(&self) -> PathBuf {
        self.root().join(BUCKET)
    }

    /// What it holds of uploads in parts that were neither completed nor aborted.
    pub fn unfinished_uploads(&self) -> Vec<String> {
        let entries = fs::read_dir(self.root()).unwrap().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        // `.upload-<id>.json` and `.upload_id-<id>.part-<number>`.
        names.filter(|name| name.starts_with(".upload")).collect()
    }

    /// Kills it; its data stays for [`S3::restart`].
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again, and waits until it serves.
    pub fn restart(&mut self) {
        self.stop();
        assert!(self.try_start(), "it is not back:\n{}", self.log());
    }

    /// Stops its threads: connections stay open, nothing is answered.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        super::process::signal(child.id() as i32, signal);
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("buckets")
    }

    fn log(&self) -> String {
        let text = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// True as soon as it serves, false if it ended before.
    fn try_start(&mut self) -> bool {
        let mut child = process::spawn(self.command(), Signal::SIGKILL).expect("it starts");
        let start = Instant::now();
        while !serves(self.port) {
            let has_ended = child.try_wait().unwrap().is_some();
            if has_ended || start.elapsed() > START_DEADLINE {
                let _ = child.kill();
                let _ = child.wait();
                return false;
            }
            std::thread::sleep(PAUSE);
        }
        self.child = Some(child);
        true
    }

    fn command(&self) -> Command {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.directory.path().join("log"))
            .unwrap();
        let mut command = Command::new(program());
        command
            .args(["--host", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY])
            .arg(self.root())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        command
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The server's program, which the project's script builds once.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let script = in_project("scripts/s3-server");
        let output = Command::new(script).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}");
        let stdout = String::from_utf8(output.stdout).unwrap();
        PathBuf::from(stdout.lines().last().unwrap())
    })
}

/// Whether something at the port speaks HTTP.
fn serves(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let Ok(mut connection) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else {
        return false;
    };
    let _ = connection.set_read_timeout(Some(Duration::from_secs(5)));
    let asked = write!(
        connection,
        "GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"
    );
    let mut answer = [0; 5];
    asked.is_ok() && connection.read_exact(&mut answer).is_ok() && &answer == b"HTTP/"
}
