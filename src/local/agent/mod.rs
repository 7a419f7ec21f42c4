//! `cotton local-agent`: a Mesos agent for one machine, at its executor API.
//!
//! Requests of executors come in at `server.rs`, messages of the master at
//! `master_link.rs`; both go to the task that owns the [`core`], which is pure:
//! it changes its state and says what is to be stored, started, killed and sent. `containers.rs`
//! makes sandboxes and processes, with `fetch.rs`, `cgroup.rs`, `processes.rs` and `volumes.rs`;
//! `store.rs` keeps the records from which a restarted agent knows what it runs and what is reserved.

mod cgroup;
mod containers;
pub mod core;
mod environment;
mod executors;
mod fetch;
mod gc;
mod launching;
mod operations;
pub mod processes;
mod recovery;
mod server;
mod store;
mod updates;
mod volumes;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use crate::mesos::v1::{AgentId, AgentInfo};

use self::cgroup::Cgroups;
use self::core::{Clocks, Core};
use self::server::{Door, Shell, Surroundings};
use self::store::Store;
use super::fault_domain;
use super::master_link::{self, News};
use super::resources::{self, Resources};
use super::signals;

/// What an agent offers.
#[derive(Debug, Clone, Args)]
pub struct Capacity {
    /// Cpus of each agent.
    #[arg(long, default_value_t = 4.0, value_parser = parse_amount)]
    pub cpus: f64,

    /// Memory of each agent in MiB.
    #[arg(long, default_value_t = 4096.0, value_parser = parse_amount)]
    pub mem: f64,

    /// Disk of each agent in MiB.
    #[arg(long, default_value_t = 20_000.0, value_parser = parse_amount)]
    pub disk: f64,

    /// Ports of each agent, for example 31000-31999 or 31000-31099,32000-32099.
    #[arg(long, default_value = "31000-31999")]
    pub ports: String,

    /// Attributes of each agent, for example rack:r1;zone:a.
    #[arg(long, default_value = "")]
    pub attributes: String,

    /// Fault domain of each agent, as region/zone, for example eu/a; the master needs one too then.
    #[arg(long, default_value = "")]
    pub domain: String,
}

/// A Mesos agent that stands in for a real one on one machine.
#[derive(Debug, Clone, Args)]
pub struct AgentArgs {
    /// URLs of the masters, separated by commas, for example http://127.0.0.1:5050.
    #[arg(long, value_delimiter = ',', required = true)]
    pub master: Vec<String>,

    /// Address to listen on and to state.
    #[arg(long, default_value = "127.0.0.1")]
    pub ip: IpAddr,

    /// Port to listen on; 0 takes a free one. A restarted agent needs its former one, which it
    /// takes by itself.
    #[arg(long, default_value_t = 5051)]
    pub port: u16,

    /// Host name to state; the address if not given.
    #[arg(long)]
    pub hostname: Option<String>,

    /// Directory for sandboxes and for what a restarted agent has to know.
    #[arg(long)]
    pub work_dir: PathBuf,

    /// What it offers.
    #[command(flatten)]
    pub capacity: Capacity,

    /// How long an executor may take to subscribe.
    #[arg(long, default_value = "1m", value_parser = humantime::parse_duration)]
    pub executor_registration_timeout: Duration,

    /// How long an executor may take to subscribe again to a restarted agent.
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    pub executor_reregistration_timeout: Duration,

    /// Between SHUTDOWN and SIGKILL for executors that do not state their own.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub executor_shutdown_grace_period: Duration,

    /// How long executors are told to wait for a restarted agent.
    #[arg(long, default_value = "2m", value_parser = humantime::parse_duration)]
    pub recovery_timeout: Duration,

    /// How long sandboxes of ended executors stay; shorter when the disk fills up.
    #[arg(long, default_value = "1w", value_parser = humantime::parse_duration)]
    pub gc_delay: Duration,

    /// Do not enforce memory and cpus even where that is possible.
    #[arg(long)]
    pub no_cgroups: bool,

    /// Run executors as the agent's own user.
    #[arg(long)]
    pub no_switch_user: bool,

    /// How many times as fast as real time its clocks run, for tests.
    #[arg(long, default_value_t = 1.0, value_parser = crate::local::parse_time_scale)]
    pub time_scale: f64,
}

fn parse_amount(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(amount) if amount.is_finite() && amount > 0.0 => Ok(amount),
        _ => Err("a number above 0 is needed".to_owned()),
    }
}

impl Capacity {
    /// Whether ports, attributes and fault domain can be read.
    ///
    /// # Errors
    ///
    /// Ports, attributes or a fault domain that cannot be read.
    pub fn check(&self) -> anyhow::Result<()> {
        self.agent_info("", 0).map(|_| ())
    }

    fn agent_info(&self, hostname: &str, port: u16) -> anyhow::Result<AgentInfo> {
        let mut has = Resources::scalar("cpus", self.cpus);
        has.add(&Resources::scalar("mem", self.mem));
        has.add(&Resources::scalar("disk", self.disk));
        has.add(&resources::parse_ports(&self.ports).context("read --ports")?);
        let domain = match self.domain.as_str() {
            "" => None,
            text => Some(fault_domain::parse(text).context("read --domain")?),
        };
        Ok(AgentInfo {
            hostname: hostname.to_owned(),
            port: Some(port.into()),
            resources: has.list().to_vec(),
            attributes: resources::parse_attributes(&self.attributes)
                .context("read --attributes")?,
            domain,
            ..Default::default()
        })
    }
}

impl AgentArgs {
    fn clocks(&self) -> Clocks {
        /// Mesos' `STATUS_UPDATE_RETRY_INTERVAL_MIN` and `_MAX`.
        const RETRY_MIN: Duration = Duration::from_secs(10);
        const RETRY_MAX: Duration = Duration::from_secs(600);
        /// Mesos' `DEFAULT_EXECUTOR_REREGISTRATION_TIMEOUT`'s companion, told to executors.
        const SUBSCRIPTION_BACKOFF: Duration = Duration::from_secs(2);
        let scaled = |duration: Duration| duration.div_f64(self.time_scale);
        Clocks {
            registration: scaled(self.executor_registration_timeout),
            reregistration: scaled(self.executor_reregistration_timeout),
            shutdown_grace: scaled(self.executor_shutdown_grace_period),
            recovery: scaled(self.recovery_timeout),
            subscription_backoff: scaled(SUBSCRIPTION_BACKOFF),
            retry_min: scaled(RETRY_MIN),
            retry_max: scaled(RETRY_MAX),
            scale: self.time_scale,
        }
    }

    fn cgroups(&self) -> Option<Cgroups> {
        if self.no_cgroups {
            return None;
        }
        match Cgroups::open(&self.work_dir) {
            Ok(cgroups) => Some(cgroups),
            Err(why) => {
                tracing::warn!(%why, "memory and cpus of containers are not limited");
                None
            }
        }
    }
}

/// Runs an agent until SIGTERM or SIGINT, which also end all its executors; SIGKILL leaves them
/// running for the next agent with the same work directory. Prints `listening http://...` on
/// standard output once it answers.
///
/// # Errors
///
/// Everything that keeps it from starting.
pub async fn run(args: AgentArgs) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.work_dir)
        .with_context(|| format!("make the directory {}", args.work_dir.display()))?;
    let work_dir = args
        .work_dir
        .canonicalize()
        .context("find the work directory")?;
    let store = Store::new(&work_dir);
    let store_dir = work_dir.clone();
    let former = store
        .read_id()
        .context("read the agent's id of its former run")?;
    // Executors of the former run come back to the port that they were told.
    let port = match args.port {
        0 => store
            .read_port()
            .context("read the port of the former run")?
            .unwrap_or(0),
        given => given,
    };
    let listener = tokio::net::TcpListener::bind((args.ip, port))
        .await
        .with_context(|| format!("listen on {}:{port}", args.ip))?;
    let address = listener
        .local_addr()
        .context("ask for the port that was taken")?;
    store
        .write_port(address.port())
        .context("keep the port for the next run")?;
    let ip = args.ip.to_string();
    let hostname = args.hostname.clone().unwrap_or_else(|| ip.clone());
    let mut info = args.capacity.agent_info(&hostname, address.port())?;
    info.id = former.map(|value| AgentId { value });

    let clocks = args.clocks();
    let cgroups = args.cgroups();
    let collected = work_dir.clone();
    let surroundings = Surroundings {
        work_dir,
        port: address.port(),
        path: std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned()),
        cgroups: cgroups.clone(),
        switch_user: !args.no_switch_user && nix::unistd::geteuid().is_root(),
    };
    let (news, inbox) = tokio::sync::mpsc::channel(master_link::MAX_WAITING);
    let mut core = Core::new(info, ip, clocks.clone());
    let checkpoint = store
        .read_checkpoint()
        .context("read what the former run had reserved")?;
    // What a former run had destroyed, should it have died before it removed the directories. It
    // stays noted until the next change; to remove what is not there does nothing.
    let destroyed: Vec<_> = checkpoint
        .removing
        .iter()
        .map(|one| one.0.clone())
        .collect();
    volumes::remove(&store_dir, &destroyed).context("remove destroyed volumes")?;
    core.restore(checkpoint)
        .map_err(anyhow::Error::msg)
        .context(
            "the agent has less than what is reserved on it; start it with as much as before",
        )?;
    let (mut shell, door) = Shell::new(core, clocks, surroundings, inbox);
    shell
        .recover()
        .await
        .context("read the records of the former run")?;

    let service = axum::Router::new()
        .fallback(server::handle)
        .with_state(door.clone());
    let served = tokio::spawn(axum::serve(listener, service).into_future());
    let linked = tokio::spawn(stay_linked(args.master.clone(), door.clone(), news));
    let gc = {
        let door = door.clone();
        let in_use = move || {
            let door = door.clone();
            async move { door.runs().await }
        };
        let delay = args.gc_delay.div_f64(args.time_scale);
        tokio::spawn(gc::collect(collected, delay, in_use))
    };
    let mut shell = tokio::spawn(shell.run());
    signals::announce(&format!("listening http://{address}"));
    tokio::select! {
        () = signals::asked_to_stop() => {
            door.shut_down().await;
            shell.await.context("shut the agent down")?;
        }
        // The shell only ends by itself when the master removed the agent, or when it broke.
        ended = &mut shell => ended.context("run the agent")?,
    }
    linked.abort();
    gc.abort();
    served.abort();
    if let Some(cgroups) = cgroups {
        cgroups.close();
    }
    Ok(())
}

/// Why the containers of an agent with this work directory cannot be limited, if they cannot.
pub fn why_no_limits(work_dir: &std::path::Path) -> Option<String> {
    match Cgroups::open(work_dir) {
        Ok(cgroups) => {
            cgroups.close();
            None
        }
        Err(why) => Some(why),
    }
}

/// Takes away the control groups of an agent that was killed; nothing runs in them any more.
pub fn remove_cgroups(work_dir: &std::path::Path) {
    if let Some(cgroups) = Cgroups::find(work_dir) {
        cgroups.close();
    }
}

/// Keeps the agent connected to whichever master takes it.
async fn stay_linked(masters: Vec<String>, door: Door, news: tokio::sync::mpsc::Sender<News>) {
    let mut last = String::new();
    for master in masters.iter().cycle() {
        let Some(register) = door.registration().await else {
            return;
        };
        let master = master.trim_end_matches('/');
        if let Err(error) = master_link::stay_connected(master, &register, &news).await {
            door.master_gone().await;
            // A master that is away is told of once, not five times a second.
            let text = error.to_string();
            if text != last {
                tracing::info!(%master, %error, "no connection to the master");
                last = text;
            }
        }
        tokio::time::sleep(master_link::RECONNECT_PAUSE).await;
    }
}
