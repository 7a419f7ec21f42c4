//! The whole system with each Mesos agent on a host of its own, so that hosts can be cut off.

use std::fs::File;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cotton::cluster::flavour::Flavour;
use cotton::cluster::view::MemberView;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::disks::Disk;
use super::eventually;
use super::hosts::{End, Network};
use super::process::{self, Process};
use super::rest::curl;
use super::system::{Lease, Options, System};
use super::zookeeper::{self, ZooKeeper};

/// How long the agents may take to register.
const REGISTER_DEADLINE: Duration = Duration::from_secs(60);

/// How long an agent may take to end, with all its executors.
const AGENT_ENDS_WITHIN: Duration = Duration::from_secs(30);

/// How much a host's disk has room for, in MiB: some data directories of a member, and its logs of an hour.
const DISK_MIB: u64 = 4096;

/// What the agent of a host offers, beside cpus and disk.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Memory, in MiB.
    pub mem: u32,
    /// As `name:value;name:value`.
    pub attributes: &'static str,
    /// As `region/zone`; of all hosts or of none.
    pub domain: &'static str,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            mem: 12_000,
            attributes: "",
            domain: "",
        }
    }
}

/// ZooKeeper, a Mesos master and the scheduler on the hub, and one agent on each host.
pub struct Fleet {
    system: Lease,
    agents: Mutex<Vec<Child>>,
    zookeeper: Arc<Mutex<ZooKeeper>>,
    rooms: Vec<Room>,
    /// Of each host, if they have disks of their own.
    disks: Vec<Disk>,
    /// The network between them.
    pub network: Network,
}

impl Fleet {
    /// Starts it with this many hosts.
    pub async fn start(flavour: Flavour, hosts: u8) -> Self {
        Self::start_with(flavour, &alike(hosts), false, &[], &[]).await
    }

    /// Starts it with this many hosts, each of which has a small disk of its own.
    pub async fn with_disks(flavour: Flavour, hosts: u8) -> Self {
        Self::start_with(flavour, &alike(hosts), true, &[], &[]).await
    }

    /// Starts it with this many hosts and further settings of the scheduler.
    pub async fn with_scheduler(flavour: Flavour, hosts: u8, settings: &[&str]) -> Self {
        Self::with_rooms(flavour, &alike(hosts), settings).await
    }

    /// Starts it with one host for each of these, and further settings of the scheduler.
    pub async fn with_rooms(flavour: Flavour, rooms: &[Room], settings: &[&str]) -> Self {
        Self::start_with(flavour, rooms, false, &[], settings).await
    }

    /// The same, with a Mesos master whose clocks run five times as fast: it gives an agent up after 15 s.
    pub async fn with_quick_master(flavour: Flavour, hosts: u8, settings: &[&str]) -> Self {
        Self::start_with(
            flavour,
            &alike(hosts),
            false,
            &["--time-scale", "5"],
            settings,
        )
        .await
    }

    async fn start_with(
        flavour: Flavour,
        rooms: &[Room],
        disks: bool,
        of_local: &[&str],
        settings: &[&str],
    ) -> Self {
        let hosts = rooms.len() as u8;
        let network = Network::new(hosts);
        let hub = network.address(End::Hub);
        let zookeeper = ZooKeeper::with_options(zookeeper::Options {
            address: hub,
            ..zookeeper::Options::default()
        });
        let mut options = Options::new(flavour);
        options.agents = 0;
        let of_local = of_local.iter().copied().map(str::to_owned);
        options.arguments.extend(of_local);
        // The master is in the region of the first host.
        let domain = rooms[0].domain.to_owned();
        options.arguments.extend(["--domain".to_owned(), domain]);
        let arguments = [
            "--ip".to_owned(),
            hub.to_string(),
            "--zk-url".to_owned(),
            zookeeper.url("/cotton"),
            // Faults come faster here than any backing off allows.
            "--".to_owned(),
            "--failover-limit".to_owned(),
            "100".to_owned(),
        ];
        options.arguments.extend(arguments);
        let settings = settings.iter().copied().map(str::to_owned);
        options.arguments.extend(settings);
        let mut fleet = Self {
            system: System::with_options(options),
            rooms: rooms.to_vec(),
            disks: Vec::new(),
            agents: Mutex::new(Vec::new()),
            zookeeper: Arc::new(Mutex::new(zookeeper)),
            network,
        };
        for host in 1..=hosts {
            let directory = fleet.agent_directory(host);
            std::fs::create_dir_all(&directory).unwrap();
            if disks {
                let files = fleet.system.run_directory();
                let disk = Disk::mount(&files, host, DISK_MIB, &directory);
                fleet.disks.push(disk);
            }
            let agent = fleet.spawn_agent(host);
            fleet.agents().push(agent);
        }
        fleet.wait_for_agents(usize::from(hosts)).await;
        // On a busy machine it may have lost its first connection to the master by now.
        fleet.system.wait_registered().await;
        fleet
    }

    /// Where the agent of a host keeps everything.
    fn agent_directory(&self, host: u8) -> PathBuf {
        let agents = self.system.run_directory().join("agents");
        agents.join(host.to_string())
    }

    fn spawn_agent(&self, host: u8) -> Child {
        let run = self.system.run_directory();
        let log = File::options()
            .create(true)
            .append(true)
            .open(run.join(format!("logs/agent-{host}.log")))
            .unwrap();
        let room = self.rooms[usize::from(host) - 1];
        let mut namespace = std::ffi::OsString::from("--net=");
        namespace.push(self.network.namespace_path(host));
        let mut command = Command::new("nsenter");
        command
            .arg(namespace)
            .arg(env!("CARGO_BIN_EXE_cotton"))
            .args(["local-agent", "--master", &self.system.mesos])
            .args(["--ip", &self.network.address(End::Host(host)).to_string()])
            .args(["--cpus", "16", "--mem", &room.mem.to_string()])
            .args(["--disk", "100000", "--attributes", room.attributes])
            .args(["--domain", room.domain])
            .args(["--ports", "31000-31099", "--gc-delay", "1m"])
            .arg("--work-dir")
            .arg(self.agent_directory(host))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        process::spawn(command).unwrap()
    }

    pub async fn wait_for_agents(&self, wanted: usize) {
        eventually("the agents are registered", REGISTER_DEADLINE, async || {
            (self.registered_agents().await? >= wanted).then_some(())
        })
        .await;
    }

    /// How many agents the Mesos master has and reaches. One that it has given up is none of them.
    pub async fn registered_agents(&self) -> Option<usize> {
        let state = curl(&[&format!("{}/state", self.system.mesos)])
            .await?
            .json();
        let agents = state["slaves"].as_array()?;
        let active = agents.iter().filter(|agent| agent["active"] == true);
        Some(active.count())
    }

    /// The host that a member runs on.
    pub fn host(&self, member: &MemberView) -> u8 {
        let address = member.host.as_ref().unwrap();
        let last = address.rsplit('.').next().unwrap();
        last.parse().unwrap()
    }

    /// The agent's process on a host.
    pub fn agent(&self, host: u8) -> Process {
        let pid = self.agents()[usize::from(host) - 1].id().cast_signed();
        Process::find(pid).unwrap()
    }

    /// Kills the agent of a host with everything that runs under it.
    pub fn kill_host(&self, host: u8) {
        let agent = self.agent(host);
        let all: Vec<Process> = agent.descendants();
        agent.kill();
        // A server ends with its executor, so some may have ended by themselves in between.
        for process in all {
            process.kill_if_it_runs();
        }
    }

    /// Starts the agent of a host again, which has ended.
    pub fn restart_agent(&self, host: u8) {
        let mut agents = self.agents();
        let agent = &mut agents[usize::from(host) - 1];
        let _ = agent.kill();
        let _ = agent.wait();
        *agent = self.spawn_agent(host);
    }

    /// Starts the agent of a host again if it has ended by itself, as a service manager does. An agent that cannot store what it
    /// must, on a full disk, ends; so does Mesos'.
    pub fn look_after_agent(&self, host: u8) {
        let mut agents = self.agents();
        let agent = &mut agents[usize::from(host) - 1];
        if agent.try_wait().unwrap().is_some() {
            *agent = self.spawn_agent(host);
        }
    }

    /// The disk of a host.
    pub fn disk(&self, host: u8) -> &Disk {
        let disk = self.disks.get(usize::from(host) - 1);
        disk.expect("the fleet was started with disks")
    }

    /// ZooKeeper, to be stopped and started.
    pub fn zookeeper(&self) -> MutexGuard<'_, ZooKeeper> {
        self.zookeeper
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts ZooKeeper again, which takes seconds; the clients of this process go on meanwhile.
    pub async fn restart_zookeeper(&self) {
        let zookeeper = Arc::clone(&self.zookeeper);
        let restart = move || {
            let mut zookeeper = zookeeper.lock().unwrap_or_else(PoisonError::into_inner);
            zookeeper.restart();
        };
        tokio::task::spawn_blocking(restart).await.unwrap();
    }

    fn agents(&self) -> MutexGuard<'_, Vec<Child>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// So many hosts with the same room.
fn alike(hosts: u8) -> Vec<Room> {
    vec![Room::default(); usize::from(hosts)]
}

impl Deref for Fleet {
    type Target = System;

    fn deref(&self) -> &System {
        &self.system
    }
}

/// Agents end their executors, and those their servers, while everything else is still there.
impl Drop for Fleet {
    fn drop(&mut self) {
        self.network.heal();
        let mut agents = std::mem::take(&mut *self.agents());
        for agent in &agents {
            let pid = Pid::from_raw(agent.id().cast_signed());
            // One that was stopped has to go on to see it.
            let _ = kill(pid, Signal::SIGTERM);
            let _ = kill(pid, Signal::SIGCONT);
        }
        let start = Instant::now();
        for agent in &mut agents {
            while agent.try_wait().is_ok_and(|status| status.is_none()) {
                if start.elapsed() > AGENT_ENDS_WITHIN {
                    let _ = agent.kill();
                    let _ = agent.wait();
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        // What lies there cannot be shown later.
        if !self.disks.is_empty() && std::thread::panicking() {
            self.system.show_logs();
        }
        self.disks.clear();
    }
}
