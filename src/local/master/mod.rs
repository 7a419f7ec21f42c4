//! `cotton local-master`: a Mesos master for one machine, at its HTTP API.
//!
//! A request comes in at `server.rs`, which authenticates it and hands it to the task that owns the
//! [`core`]; the core, which is pure, changes its state and says what is to be sent to whom; the
//! task writes that to the streams. The core's methods lie by subject: `subscribe.rs` (schedulers
//! come and go), `offers.rs` (who gets what), `accept.rs` (launches), `operations.rs` (reservations and
//! volumes), `tasks.rs` (statuses, kills, reconciliation), `agents.rs` (agents come and go),
//! `operator.rs` (the operator API) with `maintenance.rs` (schedules, inverse offers) and `draining.rs`
//! (agents that are emptied or given up). `validate.rs`, `checks.rs` and `events.rs` hold the checks
//! and the messages, `registry.rs` what is stored.

mod accept;
mod agents;
mod authentication;
mod checks;
pub mod core;
mod draining;
pub mod events;
mod leader;
mod maintenance;
mod offers;
mod operations;
mod operator;
mod registry;
mod server;
mod state;
mod subscribe;
mod tasks;
mod validate;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use crate::local::{fault_domain, signals};
use crate::mesos::v1::{Address, DomainInfo, MasterInfo, master_info};
use crate::time::Timestamp;
use crate::zookeeper::url::ZkUrl;

use self::authentication::Credentials;
use self::core::{Clocks, Core};
use self::leader::Leader;
use self::registry::Registry;

/// The version whose behaviour was recorded and is imitated.
const MESOS_VERSION: &str = "1.12.0";

/// A Mesos master that stands in for a real one on one machine.
#[derive(Debug, Clone, Args)]
pub struct MasterArgs {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    pub ip: IpAddr,

    /// Port to listen on; 0 takes a free one.
    #[arg(long, default_value_t = 5050)]
    pub port: u16,

    /// Host name to state; the address if not given.
    #[arg(long)]
    pub hostname: Option<String>,

    /// Directory for the registry of agents and maintenance; without it a restarted master knows none.
    #[arg(long)]
    pub work_dir: Option<PathBuf>,

    /// ZooKeeper group to stand for election in, for example zk://127.0.0.1:2181/mesos.
    #[arg(long)]
    pub zk: Option<String>,

    /// File of principals and secrets; frameworks have to authenticate if it is given.
    #[arg(long)]
    pub credentials: Option<PathBuf>,

    /// Fault domain that it is in, as region/zone, for example eu/a. Without one no agent may have one.
    #[arg(long, value_parser = fault_domain::parse)]
    pub domain: Option<DomainInfo>,

    /// How often what is free is offered.
    #[arg(long, default_value = "100ms", value_parser = humantime::parse_duration)]
    pub allocation_interval: Duration,

    /// How long an agent may take to answer a ping.
    #[arg(long, default_value = "15s", value_parser = humantime::parse_duration)]
    pub agent_ping_timeout: Duration,

    /// After how many unanswered pings an agent is unreachable.
    #[arg(long, default_value_t = 5)]
    pub max_agent_ping_timeouts: u32,

    /// How long agents may take to come back to a restarted master.
    #[arg(long, default_value = "10m", value_parser = humantime::parse_duration)]
    pub agent_reregister_timeout: Duration,

    /// How many times as fast as real time its clocks run, for tests.
    #[arg(long, default_value_t = 1.0, value_parser = crate::local::parse_time_scale)]
    pub time_scale: f64,
}

impl MasterArgs {
    fn clocks(&self) -> Clocks {
        /// Mesos' `DEFAULT_HEARTBEAT_INTERVAL`.
        const HEARTBEAT: Duration = Duration::from_secs(15);
        Clocks {
            scale: self.time_scale,
            heartbeat: HEARTBEAT.div_f64(self.time_scale),
            ping_timeout: self.agent_ping_timeout.div_f64(self.time_scale),
            max_ping_timeouts: self.max_agent_ping_timeouts,
            agent_reregister_timeout: self.agent_reregister_timeout.div_f64(self.time_scale),
        }
    }
}

/// Runs a master until SIGTERM or SIGINT. Prints `listening http://...` on standard output once it
/// answers.
///
/// # Errors
///
/// Everything that keeps it from starting.
pub async fn run(args: MasterArgs) -> anyhow::Result<()> {
    let credentials = args
        .credentials
        .as_deref()
        .map(Credentials::read)
        .transpose()?;
    let listener = tokio::net::TcpListener::bind((args.ip, args.port))
        .await
        .with_context(|| format!("listen on {}:{}", args.ip, args.port))?;
    let address = listener
        .local_addr()
        .context("ask for the port that was taken")?;
    let registry = args
        .work_dir
        .as_ref()
        .map(|folder| folder.join("registry.json"));
    let stored = read_registry(registry.as_ref())?;
    let info = MasterInfo {
        domain: args.domain.clone(),
        ..master_info(address, args.hostname.as_deref())
    };
    let stated = info.clone();
    let (leading, leader) = tokio::sync::watch::channel(match args.zk {
        Some(_) => Leader::Unknown,
        None => Leader::Me,
    });
    let group = args
        .zk
        .as_deref()
        .map(str::parse::<ZkUrl>)
        .transpose()
        .context("read --zk")?;
    let election = async move {
        match group {
            Some(url) => leader::contend(url, info, args.time_scale, leading).await,
            None => std::future::pending().await,
        }
    };
    let core = Core::new(stated, args.clocks(), stored, Timestamp::now());
    let door = server::open(
        core,
        args.allocation_interval,
        registry,
        credentials,
        leader,
    );
    let service = axum::Router::new()
        .fallback(server::handle)
        .with_state(door);
    signals::announce(&format!("listening http://{address}"));
    tokio::select! {
        ended = axum::serve(listener, service).into_future() => ended.context("serve HTTP"),
        ended = election => ended.context("lead the Mesos masters"),
        () = signals::asked_to_stop() => Ok(()),
    }
}

fn read_registry(path: Option<&PathBuf>) -> anyhow::Result<Registry> {
    let Some(path) = path else {
        return Ok(Registry::default());
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("make the directory {}", folder.display()))?;
    }
    match std::fs::read(path) {
        Ok(text) => serde_json::from_slice(&text)
            .with_context(|| format!("read the registry {}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Registry::default()),
        Err(error) => Err(error).with_context(|| format!("read the registry {}", path.display())),
    }
}

/// What a master says of itself, to schedulers and in ZooKeeper.
fn master_info(address: SocketAddr, hostname: Option<&str>) -> MasterInfo {
    use master_info::capability::Type;
    let ip = address.ip().to_string();
    let hostname = hostname.unwrap_or(&ip).to_owned();
    let octets = match address.ip() {
        IpAddr::V4(ip) => ip.octets(),
        // The field has no room for more; everybody reads `address` first.
        IpAddr::V6(_) => [0; 4],
    };
    let capability = |kind: Type| master_info::Capability {
        r#type: Some(kind.into()),
    };
    MasterInfo {
        id: uuid::Uuid::new_v4().to_string(),
        ip: u32::from_le_bytes(octets),
        port: address.port().into(),
        pid: Some(format!("master@{address}")),
        hostname: Some(hostname.clone()),
        version: Some(MESOS_VERSION.to_owned()),
        address: Some(Address {
            hostname: Some(hostname),
            ip: Some(ip),
            port: address.port().into(),
        }),
        domain: None,
        capabilities: [Type::AgentUpdate, Type::AgentDraining, Type::QuotaV2]
            .map(capability)
            .into(),
    }
}
