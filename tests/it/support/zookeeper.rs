//! A real ZooKeeper as a child process, for one test.
//!
//! It runs Debian's `/usr/share/java/zookeeper.jar` on a free port of 127.0.0.1 with its data in a
//! temporary directory, is killed on drop, and can be stopped, started again with its data, frozen
//! and thawed. It listens about half a second after [`ZooKeeper::start`] was called.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{free_port, spawn};

/// How long a server may take to answer its first command. A loaded machine needs seconds.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// What a test may want different.
#[derive(Debug, Clone)]
pub struct Options {
    /// The server's unit of time: it counts session timeouts in ticks.
    pub tick: Duration,
    /// The shortest session timeout that the server grants.
    pub min_session_timeout: Duration,
    /// The longest session timeout that the server grants.
    pub max_session_timeout: Duration,
    /// Where it listens.
    pub address: Ipv4Addr,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tick: Duration::from_millis(200),
            min_session_timeout: Duration::from_millis(400),
            max_session_timeout: Duration::from_secs(60),
            address: Ipv4Addr::LOCALHOST,
        }
    }
}

/// A running (or stopped) ZooKeeper server.
pub struct ZooKeeper {
    directory: TempDir,
    options: Options,
    port: u16,
    child: Option<Child>,
}

impl ZooKeeper {
    /// Starts a server with the default options.
    pub fn start() -> Self {
        Self::with_options(Options::default())
    }

    /// Starts a server.
    pub fn with_options(options: Options) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("cotton-zookeeper-")
            .tempdir()
            .unwrap();
        let mut server = Self {
            directory,
            options,
            port: 0,
            child: None,
        };
        // Another process may take the free port before the server has it: then another one.
        for _ in 0..5 {
            server.port = free_port();
            if server.try_restart() {
                return server;
            }
        }
        panic!(
            "ZooKeeper did not start; its log ends with:\n{}",
            server.log()
        );
    }

    /// `host:port` of the server.
    pub fn address(&self) -> String {
        format!("{}:{}", self.options.address, self.port)
    }

    /// `zk://host:port<path>` of the server; `path` begins with a slash or is empty.
    pub fn url(&self, path: &str) -> String {
        format!("zk://{}{path}", self.address())
    }

    /// Kills the server; its data stays for [`ZooKeeper::restart`].
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts a stopped server again, on the same port with the same data.
    pub fn restart(&mut self) {
        self.stop();
        // An outgoing connection of another test may hold the port for a moment.
        let start = Instant::now();
        while !self.try_restart() {
            assert!(
                start.elapsed() < START_DEADLINE,
                "ZooKeeper is not back:\n{}",
                self.log()
            );
        }
    }

    /// Stops the server's threads: connections stay open, nothing is answered.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// The end of the server's log.
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("the server runs");
        super::shared::process::signal(child.id() as i32, signal);
    }

    /// Starts the process; true as soon as it serves, false if it ended before.
    fn try_restart(&mut self) -> bool {
        let mut child = spawn(self.command()).expect("java starts; is default-jre installed?");
        let start = Instant::now();
        loop {
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            // The answer names the mode once the server serves; a foreign process on the port
            // gives another answer, and then this child ends by itself.
            if four_letter_word(self.options.address, self.port, "srvr")
                .is_some_and(|text| text.contains("Mode:"))
            {
                self.child = Some(child);
                return true;
            }
            if start.elapsed() > START_DEADLINE {
                let _ = child.kill();
                let _ = child.wait();
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn command(&self) -> Command {
        let configuration = self.directory.path().join("zoo.cfg");
        std::fs::write(&configuration, self.configuration()).unwrap();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.directory.path().join("log"))
            .unwrap();
        let mut command = Command::new("java");
        command
            .args([
                "-Xmx128m",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-Xshare:auto",
            ])
            // The page cache survives a killed process; only power loss would need the sync.
            .arg("-Dzookeeper.forceSync=no")
            .args([
                "-cp",
                "/usr/share/java/zookeeper.jar:/usr/share/java/slf4j-simple.jar",
            ])
            .arg("org.apache.zookeeper.server.ZooKeeperServerMain")
            .arg(configuration)
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        command
    }

    fn configuration(&self) -> String {
        format!(
            "tickTime={}\nminSessionTimeout={}\nmaxSessionTimeout={}\ndataDir={}\n\
             clientPort={}\nclientPortAddress={}\nadmin.enableServer=false\n\
             4lw.commands.whitelist=srvr\nmaxClientCnxns=0\n",
            self.options.tick.as_millis(),
            self.options.min_session_timeout.as_millis(),
            self.options.max_session_timeout.as_millis(),
            self.data().display(),
            self.port,
            self.options.address,
        )
    }

    fn data(&self) -> std::path::PathBuf {
        Path::join(self.directory.path(), "data")
    }
}

impl Drop for ZooKeeper {
    fn drop(&mut self) {
        self.stop();
    }
}

fn four_letter_word(address: Ipv4Addr, port: u16, word: &str) -> Option<String> {
    let address = SocketAddr::from((address, port));
    let mut connection = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    connection
        .set_read_timeout(Some(Duration::from_secs(5)))
        .ok()?;
    connection.write_all(word.as_bytes()).ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).ok()?;
    Some(answer)
}
