//! A real ZooKeeper: one that runs already, or Debian's as a child.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::Instant;

use super::LocalArgs;
use super::ports::Block;
use super::services::{Program, Services};

/// Where Debian's package `zookeeper` puts the server; its manifest names the other jars.
const SERVER_JAR: &str = "/usr/share/java/zookeeper.jar";

/// Writes the server's log to standard error; installed along with it.
const LOG_JAR: &str = "/usr/share/java/slf4j-simple.jar";

/// The server's unit of time in milliseconds; sessions may last 2 to 20 of them unless bounds are
/// given. Small, because on one machine nothing is far away.
const TICK_MILLIS: u32 = 500;

/// Where the servers are and below which node Cotton lives.
pub struct ZooKeeper {
    servers: String,
    path: String,
}

impl ZooKeeper {
    /// For the scheduler.
    pub fn cotton_url(&self) -> String {
        format!("zk://{}{}", self.servers, self.path)
    }

    /// For the masters' group.
    pub fn mesos_url(&self) -> String {
        // Credentials stand before the servers and are Cotton's alone.
        let servers = self.servers.rsplit('@').next().unwrap_or(&self.servers);
        format!("zk://{servers}/mesos")
    }
}

/// Says what is wrong with `--zk-url`, or that none can be started here.
///
/// # Errors
///
/// A sentence for the command line.
pub fn check(given: Option<&str>) -> anyhow::Result<()> {
    match given {
        Some(url) => parse(url).map(|_| ()),
        None if Path::new(SERVER_JAR).exists() => Ok(()),
        None => {
            bail!("{SERVER_JAR} is missing; install Debian's package zookeeper, or give --zk-url")
        }
    }
}

fn parse(url: &str) -> anyhow::Result<ZooKeeper> {
    // Not quoted whole: a URL may hold a password.
    let Some(rest) = url.strip_prefix("zk://") else {
        let shown = url.rsplit('@').next().unwrap_or_default();
        bail!("--zk-url: '{shown}' is not of the form zk://host:port/path");
    };
    let (servers, path) = rest.split_once('/').unwrap_or((rest, "cotton"));
    Ok(ZooKeeper {
        servers: servers.to_owned(),
        path: format!("/{path}"),
    })
}

/// Takes the given one or starts one, and waits until it serves.
///
/// # Errors
///
/// A URL that is none, no ZooKeeper on this machine, or one that does not start.
pub async fn start(
    args: &LocalArgs,
    work_dir: &Path,
    block: &mut Block,
    services: &mut Services,
    deadline: Instant,
) -> anyhow::Result<ZooKeeper> {
    if let Some(url) = &args.zk_url {
        return parse(url);
    }
    let port = block.given_or_free(None, args.ip)?;
    let directory = work_dir.join("zookeeper");
    std::fs::create_dir_all(directory.join("data")).context("make ZooKeeper's directory")?;
    let configuration = directory.join("zoo.cfg");
    std::fs::write(&configuration, settings(&directory, args.ip, port))
        .context("write ZooKeeper's configuration")?;
    tracing::info!(port, "starting ZooKeeper");
    services.start(program(work_dir, &configuration));
    super::wait_for("ZooKeeper", deadline, services, || serves(args.ip, port)).await?;
    Ok(ZooKeeper {
        servers: format!("{}:{port}", args.ip),
        path: "/cotton".to_owned(),
    })
}

fn settings(directory: &Path, ip: Ipv4Addr, port: u16) -> String {
    format!(
        "tickTime={TICK_MILLIS}\nminSessionTimeout=1000\nmaxSessionTimeout=60000\ndataDir={}\nclientPort={port}\n\
         clientPortAddress={ip}\nadmin.enableServer=false\n4lw.commands.whitelist=srvr\nmaxClientCnxns=0\n",
        directory.join("data").display(),
    )
}

fn program(work_dir: &Path, configuration: &Path) -> Program {
    Program::new("zookeeper", Path::new("java"), work_dir)
        .arguments(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
        .arguments(["-cp", &format!("{SERVER_JAR}:{LOG_JAR}")])
        .arguments(["org.apache.zookeeper.server.ZooKeeperServerMain"])
        .arguments([configuration.display().to_string()])
}

/// Asks the server for its mode, which it has once it serves.
async fn serves(ip: Ipv4Addr, port: u16) -> bool {
    const PATIENCE: Duration = Duration::from_millis(500);
    let ask = move || -> std::io::Result<String> {
        let mut stream = TcpStream::connect((ip, port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"srvr")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    let answer = tokio::task::spawn_blocking(ask).await;
    answer.is_ok_and(|answer| answer.is_ok_and(|text| text.contains("Mode:")))
}
