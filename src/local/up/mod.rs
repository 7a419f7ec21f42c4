//! `cotton local`: ZooKeeper, a Mesos master, agents and the scheduler, up and down together.
//!
//! Each part is a process of its own: ZooKeeper is the real one, the master and the agents are this
//! binary's hidden commands, the scheduler is the unchanged one. `services.rs` keeps them running;
//! `keys.rs` makes the files that the scheduler needs; `ports.rs` finds free ports; `cleanup.rs`
//! makes sure that nothing is left.
//!
//! Progress goes to standard error. Standard output gets one line, once everything answers:
//! `ready api=http://... zk=zk://... mesos=http://...`.

mod cleanup;
mod keys;
mod ports;
mod services;
mod zookeeper;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use tokio::time::Instant;

use self::cleanup::WorkDir;
use self::ports::Block;
use self::services::{Program, Services};
use super::agent::{self as local_agent, Capacity};
use super::{client, signals};

/// How long everything together may take to come up. A loaded machine starts a JVM in seconds.
const START_DEADLINE: Duration = Duration::from_secs(120);

/// Between two looks at something that is starting.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The most agents that addresses of 127.0.0.0/24 are given to.
const MAX_AGENTS: u8 = 200;

/// Run the whole system on this machine: ZooKeeper, a stand-in for Mesos, and the scheduler.
#[derive(Debug, Clone, Args)]
pub struct LocalArgs {
    /// How many Mesos agents, at 127.0.0.1, 127.0.0.2 and so on; 0 for none, where agents are started by
    /// other means.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(0..=i64::from(MAX_AGENTS)))]
    pub agents: u8,

    /// Address of everything that is there once: ZooKeeper, the Mesos master and the scheduler.
    #[arg(long, default_value_t = Ipv4Addr::LOCALHOST)]
    pub ip: Ipv4Addr,

    /// Cpus of each agent.
    #[arg(long, default_value_t = 4.0)]
    pub cpus: f64,

    /// Memory of each agent in MiB.
    #[arg(long, default_value_t = 4096.0)]
    pub mem: f64,

    /// Disk of each agent in MiB.
    #[arg(long, default_value_t = 20_000.0)]
    pub disk: f64,

    /// Ports of each agent, for example 31000-31999; a free block of 99 if not given.
    #[arg(long)]
    pub ports: Option<String>,

    /// Attributes of each agent, for example rack:r1;zone:a; %n becomes the agent's number.
    #[arg(long, default_value = "")]
    pub attributes: String,

    /// Fault domain of each agent, as region/zone, for example eu/z%n; %n becomes the agent's number. The master is where the first
    /// agent is.
    #[arg(long, default_value = "")]
    pub domain: String,

    /// Directory for everything; a temporary one, removed at the end, if not given.
    #[arg(long)]
    pub work_dir: Option<PathBuf>,

    /// A ZooKeeper that runs already, for example zk://127.0.0.1:2181/cotton; one is started if not
    /// given.
    #[arg(long)]
    pub zk_url: Option<String>,

    /// Port of the REST API; a free one if not given.
    #[arg(long)]
    pub api_port: Option<u16>,

    /// Port of the Mesos master; a free one if not given.
    #[arg(long)]
    pub mesos_port: Option<u16>,

    /// File of principals and secrets, as the Mesos master takes it; frameworks have to authenticate if it is given
    /// (--framework-authentication-file).
    #[arg(long)]
    pub credentials: Option<PathBuf>,

    /// The database server to run; the machine's own if neither this nor --package is given.
    #[arg(long, conflicts_with = "package")]
    pub mysqld: Option<PathBuf>,

    /// A package with the database server, a tar, tar.gz or tar.zst.
    #[arg(long)]
    pub package: Option<PathBuf>,

    /// System user that the database servers run as.
    #[arg(long)]
    pub framework_user: Option<String>,

    /// Let the scheduler find the master through ZooKeeper instead of by its address.
    #[arg(long)]
    pub detect: bool,

    /// Start everything but the scheduler.
    #[arg(long)]
    pub no_scheduler: bool,

    /// How many schedulers; one of them leads, and another takes over when it is lost.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=9), conflicts_with = "no_scheduler")]
    pub schedulers: u8,

    /// Leave a part that ended as it is, instead of starting it again.
    #[arg(long)]
    pub no_restart: bool,

    /// Do not enforce memory and cpus even where that is possible.
    #[arg(long)]
    pub no_cgroups: bool,

    /// How many times as fast as real time the clocks of master and agents run, for tests.
    #[arg(long, default_value_t = 1.0, value_parser = crate::local::parse_time_scale)]
    pub time_scale: f64,

    /// Further arguments for the scheduler.
    #[arg(last = true)]
    pub scheduler_arguments: Vec<String>,
}

/// The Mesos role of the scheduler.
const ROLE: &str = "cotton";

/// Where the parts are.
struct Addresses {
    zk_url: String,
    mesos: String,
    mesos_zk: String,
    api: Option<String>,
}

/// Brings everything up, waits for SIGINT or SIGTERM, takes everything down.
///
/// # Errors
///
/// What could not be started, or a part that ended and could not be started again.
pub async fn run(args: LocalArgs) -> anyhow::Result<()> {
    // Before anything starts, all that can be wrong with the arguments is.
    capacity(&args, "", 1).check()?;
    zookeeper::check(args.zk_url.as_deref())?;
    keys::framework_user(args.framework_user.as_deref())?;
    for file in args.mysqld.iter().chain(&args.package) {
        absolute(file)?;
    }
    cleanup::adopt_orphans();
    let work_dir = WorkDir::open(args.work_dir.as_deref())?;
    let mut services = Services::new(!args.no_restart);
    let result = live(&args, work_dir.path(), &mut services).await;
    tracing::info!("taking everything down");
    services.stop_all().await;
    cleanup::end_descendants().await;
    cleanup::remove_cgroups(work_dir.path(), args.agents);
    work_dir.close();
    result
}

async fn live(args: &LocalArgs, work_dir: &Path, services: &mut Services) -> anyhow::Result<()> {
    // Held until the end, so that another `cotton local` takes another block.
    let mut block = Block::take().context("find free ports")?;
    tokio::select! {
        started = start(args, work_dir, &mut block, services) => announce(&started?),
        // Ctrl-C while it is coming up is no failure.
        () = signals::asked_to_stop() => return Ok(()),
    }
    tokio::select! {
        given_up = services.given_up() => bail!(given_up),
        () = signals::asked_to_stop() => Ok(()),
    }
}

fn announce(addresses: &Addresses) {
    let Addresses {
        zk_url, mesos, api, ..
    } = addresses;
    let api = api
        .as_ref()
        .map_or(String::new(), |api| format!("api={api} "));
    signals::announce(&format!("ready {api}zk={zk_url} mesos={mesos}"));
}

async fn start(
    args: &LocalArgs,
    work_dir: &Path,
    block: &mut Block,
    services: &mut Services,
) -> anyhow::Result<Addresses> {
    let deadline = Instant::now() + START_DEADLINE;
    let binary = std::env::current_exe().context("find the running binary")?;
    let logs = work_dir.join("logs");
    std::fs::create_dir_all(&logs).context("make the directory for logs")?;

    let zookeeper = zookeeper::start(args, work_dir, block, services, deadline).await?;
    let mesos_port = block.given_or_free(args.mesos_port, args.ip)?;
    let mut addresses = Addresses {
        zk_url: zookeeper.cotton_url(),
        mesos: format!("http://{}:{mesos_port}", args.ip),
        mesos_zk: zookeeper.mesos_url(),
        api: None,
    };
    tracing::info!(mesos = %addresses.mesos, "starting the Mesos master");
    services.start(master(args, &binary, work_dir, mesos_port, &addresses));
    wait_for("the Mesos master", deadline, services, || {
        healthy(format!("{}/health", addresses.mesos))
    })
    .await?;

    if !args.no_cgroups
        && let Some(why) = local_agent::why_no_limits(&agent_dir(work_dir, 1))
    {
        tracing::warn!(%why, "memory and cpus of containers are not limited");
    }
    tracing::info!(agents = args.agents, "starting the Mesos agents");
    for number in 1..=args.agents {
        services.start(agent(args, &binary, work_dir, number, block, &addresses)?);
    }
    let state = format!("{}/state", addresses.mesos);
    let expected = usize::from(args.agents);
    wait_for("the Mesos agents", deadline, services, || {
        agents_registered(state.clone(), expected)
    })
    .await?;

    if !args.no_scheduler {
        let mut apis = Vec::new();
        for number in 1..=args.schedulers {
            let given = args.api_port.filter(|_| number == 1);
            let port = block.given_or_free(given, args.ip)?;
            let api = format!("http://{}:{port}", args.ip);
            tracing::info!(%api, "starting a scheduler");
            services.start(scheduler(
                args, &binary, work_dir, number, port, &addresses,
            )?);
            apis.push(api);
        }
        wait_for("the scheduler", deadline, services, || {
            one_is_registered(apis.clone())
        })
        .await?;
        addresses.api = apis.into_iter().next();
    }
    Ok(addresses)
}

fn master(
    args: &LocalArgs,
    binary: &Path,
    work_dir: &Path,
    port: u16,
    addresses: &Addresses,
) -> Program {
    let mut program = Program::new("master", binary, work_dir).arguments(["local-master"]);
    if let Some(credentials) = &args.credentials {
        program = program.option("--credentials", credentials.display());
    }
    if !args.domain.is_empty() {
        program = program.option("--domain", numbered(&args.domain, 1));
    }
    program
        .option("--ip", args.ip)
        .option("--port", port)
        .option("--work-dir", work_dir.join("master").display())
        .option("--zk", &addresses.mesos_zk)
        .option("--time-scale", args.time_scale)
}

fn capacity(args: &LocalArgs, ports: &str, number: u8) -> Capacity {
    Capacity {
        cpus: args.cpus,
        mem: args.mem,
        disk: args.disk,
        ports: args.ports.clone().unwrap_or_else(|| ports.to_owned()),
        attributes: numbered(&args.attributes, number),
        domain: numbered(&args.domain, number),
    }
}

fn numbered(text: &str, number: u8) -> String {
    text.replace("%n", &number.to_string())
}

/// The directory of an agent.
fn agent_dir(work_dir: &Path, number: u8) -> PathBuf {
    work_dir.join("agents").join(number.to_string())
}

fn agent(
    args: &LocalArgs,
    binary: &Path,
    work_dir: &Path,
    number: u8,
    block: &Block,
    addresses: &Addresses,
) -> anyhow::Result<Program> {
    let Capacity {
        cpus,
        mem,
        disk,
        ports,
        attributes,
        domain,
    } = capacity(args, &block.for_agents(), number);
    let directory = agent_dir(work_dir, number);
    std::fs::create_dir_all(&directory).context("make an agent's directory")?;
    let program = Program::new(&format!("agent-{number}"), binary, work_dir);
    let program = program
        .arguments(["local-agent", "--port", "0"])
        .option("--master", &addresses.mesos)
        .option("--ip", format!("127.0.0.{number}"))
        .option("--work-dir", directory.display())
        .option("--cpus", cpus)
        .option("--mem", mem)
        .option("--disk", disk)
        .option("--ports", ports)
        .option("--attributes", attributes)
        .option("--domain", domain)
        .option("--time-scale", args.time_scale)
        // With --volumes=off each task leaves a data directory behind.
        .option("--gc-delay", "30m")
        // Its executors end with it, in order, when this process dies.
        .dies_by(nix::sys::signal::Signal::SIGTERM);
    Ok(if args.no_cgroups {
        program.arguments(["--no-cgroups"])
    } else {
        program
    })
}

fn scheduler(
    args: &LocalArgs,
    binary: &Path,
    work_dir: &Path,
    number: u8,
    port: u16,
    addresses: &Addresses,
) -> anyhow::Result<Program> {
    let name = match number {
        1 => "scheduler".to_owned(),
        number => format!("scheduler-{number}"),
    };
    let user = keys::framework_user(args.framework_user.as_deref())?;
    let keys = keys::make(work_dir, &user)?;
    let mesos = addresses.mesos.trim_start_matches("http://");
    let mesos = if args.detect {
        &addresses.mesos_zk
    } else {
        mesos
    };
    let mut program = Program::new(&name, binary, work_dir)
        .arguments(["scheduler"])
        .option("--port", port)
        .option("--framework-user", &user)
        .option("--zk-url", &addresses.zk_url)
        .option("--admin-keypath", keys.admin.display())
        .option("--scheduler-keypath", keys.scheduler.display())
        .option("--work-dir", work_dir.join(&name).display())
        .option("--advertise", format!("{}:{port}", args.ip));
    let is_given = |flags: &[&str]| {
        let mut given = args.scheduler_arguments.iter();
        given.any(|argument| flags.contains(&argument.split('=').next().unwrap_or_default()))
    };
    // Another way to the master may be given, on which calls get lost.
    if !is_given(&["--mesos-master", "--mesos_master"]) {
        program = program.option("--mesos-master", mesos);
    }
    // A role that can hold reservations, so that data lies on volumes; unless another one is given.
    if !is_given(&["--framework-role", "--framework_role", "--config"]) {
        program = program.option("--framework-role", ROLE);
    }
    let installer = match is_given(&["--installer-args", "--installer_args"]) {
        true => None,
        false => installer(args, work_dir)?,
    };
    if let Some(installer) = installer {
        program = program.option("--installer-args", installer);
    }
    let is_environment =
        |argument: &String| argument.replace('_', "-").starts_with("--executor-environ");
    if !args.scheduler_arguments.iter().any(is_environment) {
        program = program.option("--executor-environ", environment(work_dir)?);
    }
    Ok(program.arguments(&args.scheduler_arguments))
}

/// What `--executor-environ` is to say: a folder for what executors make once and share (unpacked packages,
/// templates of data directories), so that it goes with everything else at the end.
fn environment(work_dir: &Path) -> anyhow::Result<String> {
    use std::os::unix::fs::PermissionsExt as _;
    let shared = work_dir.join("tmp");
    std::fs::create_dir_all(&shared).context("make the folder for temporary files")?;
    // As /tmp: all users make files there and remove only their own.
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o1777))
        .context("set the mode of the folder for temporary files")?;
    Ok(serde_json::json!([{ "name": "TMPDIR", "value": shared }]).to_string())
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    path.canonicalize()
        .with_context(|| format!("find {}", path.display()))
}

/// What `--installer-args` is to say.
fn installer(args: &LocalArgs, work_dir: &Path) -> anyhow::Result<Option<String>> {
    if let Some(mysqld) = &args.mysqld {
        let path = absolute(mysqld)?;
        return Ok(Some(serde_json::json!({ "mysqld": path }).to_string()));
    }
    let Some(package) = &args.package else {
        return Ok(None);
    };
    let path = keys::readable_by_all(&absolute(package)?, &work_dir.join("packages"))?;
    let sha256 =
        keys::sha256(&path).with_context(|| format!("read the package {}", path.display()))?;
    let url = format!("file://{}", path.display());
    Ok(Some(
        serde_json::json!({ "package": url, "sha256": sha256 }).to_string(),
    ))
}

/// Looks until it is there; the end of a part that cannot be started, or the deadline, ends it.
async fn wait_for<F: Future<Output = bool>>(
    what: &str,
    deadline: Instant,
    services: &mut Services,
    mut look: impl FnMut() -> F,
) -> anyhow::Result<()> {
    let looking = async {
        while !look().await {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::select! {
        () = looking => Ok(()),
        given_up = services.given_up() => bail!(given_up),
        () = tokio::time::sleep_until(deadline) => bail!(
            "{what} did not come up within {}s; logs are in {}",
            START_DEADLINE.as_secs(),
            services.logs(),
        ),
    }
}

async fn healthy(url: String) -> bool {
    client::get(&url).await.is_ok()
}

async fn read_json(url: &str) -> Option<serde_json::Value> {
    let mut answer = client::get(url).await.ok()?;
    let mut text = Vec::new();
    while let Some(piece) = answer.next().await.ok()? {
        text.extend_from_slice(&piece);
    }
    serde_json::from_slice(&text).ok()
}

async fn agents_registered(url: String, expected: usize) -> bool {
    let state = read_json(&url).await.unwrap_or_default();
    let agents = state["slaves"].as_array().map_or(&[][..], Vec::as_slice);
    agents
        .iter()
        .filter(|agent| agent["active"] == true)
        .count()
        >= expected
}

/// Whether one of the schedulers is registered with the Mesos master; only the one that leads is.
async fn one_is_registered(apis: Vec<String>) -> bool {
    for api in apis {
        let variables = read_json(&format!("{api}/vars.json"))
            .await
            .unwrap_or_default();
        if variables["scheduler.framework_registered"] == 1 {
            return true;
        }
    }
    false
}
