//! Three real ZooKeeper servers that elect a leader among themselves.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::delayed::Delayed;
use super::{eventually, free_port, spawn};

/// How long servers may take to elect a leader.
const ELECTED_WITHIN: Duration = Duration::from_secs(60);

const SERVERS: usize = 3;

/// The ensemble. Its servers are killed with it.
pub struct Ensemble {
    directory: TempDir,
    ports: [u16; SERVERS],
    children: [Option<Child>; SERVERS],
    /// The same servers, on ways that can be made slow.
    pub delayed: Delayed,
}

impl Ensemble {
    /// Starts it and waits until it serves.
    pub async fn start() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("cotton-ensemble-")
            .tempdir()
            .unwrap();
        let ports = std::array::from_fn(|_| free_port());
        let mut ensemble = Self {
            ports,
            children: std::array::from_fn(|_| None),
            directory,
            delayed: Delayed::start(&ports),
        };
        ensemble.configure();
        for server in 0..SERVERS {
            ensemble.restart(server);
        }
        ensemble.wait_for(SERVERS).await;
        ensemble
    }

    fn configure(&self) {
        let peers: [(u16, u16); SERVERS] = std::array::from_fn(|_| (free_port(), free_port()));
        for server in 0..SERVERS {
            let folder = self.folder(server);
            fs::create_dir_all(folder.join("data")).unwrap();
            fs::write(folder.join("data/myid"), format!("{}\n", server + 1)).unwrap();
            let mut text = format!(
                "tickTime=200\ninitLimit=50\nsyncLimit=25\nminSessionTimeout=400\nmaxSessionTimeout=60000\n\
                 dataDir={}\nclientPort={}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n\
                 4lw.commands.whitelist=srvr\nmaxClientCnxns=0\n",
                folder.join("data").display(),
                self.ports[server],
            );
            for (number, (quorum, election)) in peers.iter().enumerate() {
                let line = format!("server.{}=127.0.0.1:{quorum}:{election}\n", number + 1);
                text.push_str(&line);
            }
            fs::write(folder.join("zoo.cfg"), text).unwrap();
        }
    }

    fn folder(&self, server: usize) -> PathBuf {
        self.directory.path().join(server.to_string())
    }

    /// `host:port,host:port,host:port`
    pub fn servers(&self) -> String {
        self.ports.map(|port| format!("127.0.0.1:{port}")).join(",")
    }

    /// SIGKILL.
    pub fn kill(&mut self, server: usize) {
        if let Some(mut child) = self.children[server].take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts a server again, with its data.
    pub fn restart(&mut self, server: usize) {
        self.kill(server);
        let folder = self.folder(server);
        let log = File::options()
            .create(true)
            .append(true)
            .open(folder.join("log"))
            .unwrap();
        let mut command = Command::new("java");
        command
            .args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            // The page cache survives a killed process; only power loss would need the sync.
            .arg("-Dzookeeper.forceSync=no")
            .args([
                "-cp",
                "/usr/share/java/zookeeper.jar:/usr/share/java/slf4j-simple.jar",
            ])
            .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
            .arg(folder.join("zoo.cfg"))
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.children[server] = Some(spawn(command).unwrap());
    }

    /// The leading server, and those that follow.
    pub fn roles(&self) -> (Option<usize>, Vec<usize>) {
        let modes: Vec<Option<String>> = self.ports.iter().map(|port| mode(*port)).collect();
        let is = |server: &usize, wanted: &str| modes[*server].as_deref() == Some(wanted);
        let leader = (0..SERVERS).find(|server| is(server, "leader"));
        let followers = (0..SERVERS).filter(|server| is(server, "follower"));
        (leader, followers.collect())
    }

    /// Waits until this many servers serve.
    pub async fn wait_for(&self, wanted: usize) {
        eventually("ZooKeeper serves", ELECTED_WITHIN, async || {
            let (leader, followers) = self.roles();
            (leader.is_some() && followers.len() + 1 >= wanted).then_some(())
        })
        .await;
    }
}

impl Drop for Ensemble {
    fn drop(&mut self) {
        for server in 0..SERVERS {
            self.kill(server);
        }
    }
}

fn mode(port: u16) -> Option<String> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut connection = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    connection
        .set_read_timeout(Some(Duration::from_secs(2)))
        .ok()?;
    connection.write_all(b"srvr").ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).ok()?;
    let line = answer
        .lines()
        .find_map(|line| line.strip_prefix("Mode: "))?;
    Some(line.trim().to_owned())
}
