//! A real HDFS for one test: a name node and a data node, from Hadoop's own jars (`scripts/hadoop`).
//!
//! They run on free ports of 127.0.0.1 with their data in a temporary directory and are killed on drop. The name node can be stopped,
//! started again with its data, frozen and thawed. They serve about eight seconds after [`Hdfs::start`] was called.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{free_port, in_project, process};

/// How long the nodes may take to serve. A loaded machine needs most of a minute.
const START_DEADLINE: Duration = Duration::from_secs(180);

/// How long to wait between two looks.
const PAUSE: Duration = Duration::from_millis(100);

const NAME_NODE: &str = "org.apache.hadoop.hdfs.server.namenode.NameNode";
const DATA_NODE: &str = "org.apache.hadoop.hdfs.server.datanode.DataNode";
const SHELL: &str = "org.apache.hadoop.fs.FsShell";

/// A name node, which may be stopped, and a data node.
pub struct Hdfs {
    directory: TempDir,
    port: u16,
    web_port: u16,
    name_node: Option<Child>,
    data_node: Option<Child>,
    /// Whether it asks whose file is whose.
    has_permissions: bool,
}

impl Hdfs {
    /// Starts both, and waits until they serve.
    pub fn start() -> Self {
        Self::start_with(false)
    }

    /// The same, where users may do only what the permissions of files say.
    pub fn start_with_permissions() -> Self {
        Self::start_with(true)
    }

    fn start_with(has_permissions: bool) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("cotton-hdfs-")
            .tempdir()
            .unwrap();
        let mut hdfs = Self {
            directory,
            port: 0,
            web_port: 0,
            name_node: None,
            data_node: None,
            has_permissions,
        };
        // Another process may take a free port before the name node has it: then others.
        for _ in 0..5 {
            (hdfs.port, hdfs.web_port) = (free_port(), free_port());
            hdfs.configure();
            if !hdfs.path("name/current").exists() {
                hdfs.format();
            }
            if hdfs.try_start() {
                return hdfs;
            }
        }
        panic!("HDFS did not start:\n{}", hdfs.log());
    }

    /// `host:port` of the name node.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `hdfs://host:port<path>`; `path` begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("hdfs://{}{path}", self.address())
    }

    /// Kills the name node; its data stays for [`Hdfs::restart_name_node`].
    pub fn stop_name_node(&mut self) {
        end(&mut self.name_node);
    }

    /// Starts the name node again, and waits until HDFS serves.
    pub fn restart_name_node(&mut self) {
        self.stop_name_node();
        assert!(self.try_start(), "HDFS is not back:\n{}", self.log());
    }

    /// Kills the data node; its data stays for [`Hdfs::restart_data_node`].
    pub fn stop_data_node(&mut self) {
        end(&mut self.data_node);
    }

    /// Starts the data node again. The name node knows where it is a moment later.
    pub fn restart_data_node(&mut self) {
        self.stop_data_node();
        assert!(self.try_start(), "HDFS is not back:\n{}", self.log());
    }

    /// Runs a command of Hadoop's own shell, as the user whom the nodes run as.
    pub fn shell(&self, words: &[&str]) {
        let mut command = self.command(SHELL, "shell.log");
        command.args(words);
        let mut child = process::spawn(command, Signal::SIGKILL).expect("java starts");
        let status = child.wait().unwrap();
        let log = fs::read_to_string(self.path("shell.log")).unwrap_or_default();
        assert!(status.success(), "{words:?}:\n{log}");
    }

    /// Stops the name node's threads: connections stay open, nothing is answered.
    pub fn freeze_name_node(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets a frozen name node go on.
    pub fn thaw_name_node(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.name_node.as_ref().expect("the name node runs");
        super::process::signal(child.id() as i32, signal);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The end of both logs.
    fn log(&self) -> String {
        let end = |name| {
            let text = fs::read_to_string(self.path(name)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(15)..].join("\n")
        };
        format!("{}\n{}", end("name.log"), end("data.log"))
    }

    /// Hadoop's settings: `core-default.xml` and `hdfs-default.xml` of its documentation say what each is for.
    fn configure(&self) {
        let folder = |name| format!("file://{}", self.path(name).display());
        let core = [
            ("fs.defaultFS", self.url("")),
            (
                "hadoop.tmp.dir",
                self.path("tmp").to_string_lossy().into_owned(),
            ),
        ];
        let any_port = "127.0.0.1:0".to_owned();
        let hdfs = [
            ("dfs.replication", "1".to_owned()),
            (
                "dfs.namenode.http-address",
                format!("127.0.0.1:{}", self.web_port),
            ),
            ("dfs.namenode.name.dir", folder("name")),
            ("dfs.namenode.safemode.extension", "0".to_owned()),
            (
                "dfs.namenode.datanode.registration.ip-hostname-check",
                "false".to_owned(),
            ),
            // Executors and the test are different users here; whose file is whose is Hadoop's affair.
            ("dfs.permissions.enabled", self.has_permissions.to_string()),
            ("dfs.datanode.data.dir", folder("data")),
            ("dfs.datanode.address", any_port.clone()),
            ("dfs.datanode.ipc.address", any_port.clone()),
            ("dfs.datanode.http.address", any_port),
            ("dfs.heartbeat.interval", "1".to_owned()),
        ];
        write_settings(&self.path("core-site.xml"), &core);
        write_settings(&self.path("hdfs-site.xml"), &hdfs);
    }

    fn format(&self) {
        let mut command = self.command(NAME_NODE, "name.log");
        command.args(["-format", "-nonInteractive"]);
        let mut child = process::spawn(command, Signal::SIGKILL).expect("java starts");
        let status = child.wait().unwrap();
        assert!(
            status.success(),
            "HDFS cannot be formatted:\n{}",
            self.log()
        );
    }

    /// Starts what does not run; true as soon as HDFS serves, false if a node ended before.
    fn try_start(&mut self) -> bool {
        let spawn = |command| process::spawn(command, Signal::SIGKILL).expect("java starts");
        if self.name_node.is_none() {
            self.name_node = Some(spawn(self.command(NAME_NODE, "name.log")));
        }
        if self.data_node.is_none() {
            self.data_node = Some(spawn(self.command(DATA_NODE, "data.log")));
        }
        let start = Instant::now();
        while !self.serves() {
            let nodes = [&mut self.name_node, &mut self.data_node];
            let has_ended = nodes
                .into_iter()
                .flatten()
                .any(|child| child.try_wait().unwrap().is_some());
            if has_ended || start.elapsed() > START_DEADLINE {
                end(&mut self.name_node);
                end(&mut self.data_node);
                return false;
            }
            std::thread::sleep(PAUSE);
        }
        true
    }

    /// Whether the name node is out of safe mode and has a data node with room for data, as its web server says. A data node counts as
    /// soon as it is registered, and can be given blocks only after its first heartbeat, which tells of its room.
    fn serves(&self) -> bool {
        let query = "/jmx?qry=Hadoop:service=NameNode,name=FSNamesystemState";
        let Some(text) = get(self.web_port, query) else {
            return false;
        };
        text.contains("\"FSState\" : \"Operational\"")
            && text.contains("\"NumLiveDataNodes\" : 1,")
            && text.contains("\"CapacityRemaining\" : ")
            && !text.contains("\"CapacityRemaining\" : 0,")
    }

    fn command(&self, class: &str, log: &str) -> Command {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path(log))
            .unwrap();
        let path = format!("{}:{}/*", self.directory.path().display(), jars().display());
        let scratch = self.path("tmp");
        fs::create_dir_all(&scratch).unwrap();
        let mut command = Command::new("java");
        command
            .arg(format!("-Djava.io.tmpdir={}", scratch.display()))
            .args(["-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .args(["-cp", &path, class])
            .env_remove("HADOOP_CONF_DIR")
            .env_remove("HADOOP_USER_NAME")
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        command
    }
}

impl Drop for Hdfs {
    fn drop(&mut self) {
        end(&mut self.name_node);
        end(&mut self.data_node);
    }
}

fn end(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Hadoop's jars, which the project's script fetches once.
fn jars() -> &'static Path {
    static JARS: OnceLock<PathBuf> = OnceLock::new();
    JARS.get_or_init(|| {
        let output = Command::new(in_project("scripts/hadoop")).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}");
        let stdout = String::from_utf8(output.stdout).unwrap();
        PathBuf::from(stdout.lines().last().unwrap())
    })
}

/// Writes a file of Hadoop's settings.
pub fn write_settings(path: &Path, settings: &[(&str, String)]) {
    let properties: String = settings
        .iter()
        .map(|(name, value)| {
            format!("<property><name>{name}</name><value>{value}</value></property>\n")
        })
        .collect();
    let text = format!("<configuration>\n{properties}</configuration>\n");
    fs::write(path, text).unwrap();
}

/// What a web server here answers; `None` if nothing.
fn get(port: u16, path: &str) -> Option<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut connection = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    connection
        .set_read_timeout(Some(Duration::from_secs(5)))
        .ok()?;
    write!(
        connection,
        "GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).ok()?;
    Some(answer)
}
