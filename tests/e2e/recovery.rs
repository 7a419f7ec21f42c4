//! Mesos comes and goes under running clusters: agents are killed and restarted, no master runs, masters fail over.
//! Nothing of that is noticed by servers or clients, and MySQL's own failover needs no Mesos.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cotton::cluster::flavour::Flavour;
use cotton::cluster::view::{ClusterView, MemberRole};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::database::{run, texts};
use crate::support::load::{self, Load};
use crate::support::process::{self, Process};
use crate::support::rest::curl;
use crate::support::system::{Lease, Options, System, endpoint, master, tasks};
use crate::support::{CREATE_DEADLINE, FAILOVER_DEADLINE, eventually, free_port};

crate::for_both_flavours!(mesos_comes_and_goes);

/// How long masters, agents and schedulers may take to find each other again: a master's ZooKeeper session of 10 s, and
/// what a loaded machine adds.
const FOUND_AGAIN: Duration = Duration::from_secs(90);

/// For how long a part is away: longer than any session timeout of ZooKeeper.
const AWAY: Duration = Duration::from_secs(10);

const AGENTS: u8 = 3;
const MASTERS: usize = 3;

/// A part that is killed and started again as it was.
struct Part {
    arguments: Vec<String>,
    log: PathBuf,
    process: Process,
    /// Unless somebody else started it.
    child: Option<Child>,
}

impl Part {
    fn start(log: PathBuf, arguments: Vec<String>) -> Self {
        let child = Self::spawn(&log, &arguments);
        Self {
            arguments,
            log,
            process: Process::find(child.id().cast_signed()).unwrap(),
            child: Some(child),
        }
    }

    fn spawn(log: &Path, arguments: &[String]) -> Child {
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_cotton"));
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        process::spawn(command).unwrap()
    }

    async fn kill(&mut self) {
        self.process.kill();
        if let Some(child) = &mut self.child {
            let _ = child.wait();
        }
        let process = self.process;
        eventually("a part has ended", FOUND_AGAIN, async || {
            (!process.runs()).then_some(())
        })
        .await;
    }

    fn restart(&mut self) {
        *self = Self::start(self.log.clone(), self.arguments.clone());
    }

    /// SIGTERM, and waits for the end.
    fn end(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
            let _ = child.wait();
        }
    }
}

/// A system with three Mesos masters, the one that `cotton local` brings among them, and agents of its own.
struct Mesos {
    masters: Vec<(Part, String)>,
    agents: Vec<Part>,
    system: Lease,
}

impl Mesos {
    async fn start(flavour: Flavour) -> Self {
        let system = System::with_options(Options {
            agents: 0,
            arguments: vec!["--detect".to_owned(), "--no-restart".to_owned()],
            ..Options::new(flavour)
        });
        let logs = system.run_directory().join("logs");
        let is_master = |process: &Process| {
            process
                .arguments()
                .get(1)
                .is_some_and(|it| it == "local-master")
        };
        let first = system.process().children().into_iter().find(is_master);
        let process = first.unwrap();
        let arguments: Vec<String> = process.arguments()[1..].to_vec();
        let arguments: Vec<String> = arguments.into_iter().filter(|it| !it.is_empty()).collect();
        let mut masters = Vec::new();
        for number in 1..MASTERS {
            let port = free_port().to_string();
            let mut own = arguments.clone();
            let mut set = |name: &str, value: String| {
                let at = own.iter().position(|it| it == name).unwrap();
                own[at + 1] = value;
            };
            set("--port", port.clone());
            let work_dir = system.run_directory().join(format!("master-{number}"));
            set("--work-dir", work_dir.display().to_string());
            let log = logs.join(format!("master-{number}.log"));
            let url = format!("http://127.0.0.1:{port}");
            masters.push((Part::start(log, own), url));
        }
        let child = None;
        let log = logs.join("master-again.log");
        let first = Part {
            arguments,
            log,
            process,
            child,
        };
        masters.push((first, system.mesos.clone()));
        let mut mesos = Self {
            masters,
            agents: Vec::new(),
            system,
        };
        for number in 1..=AGENTS {
            let agent = mesos.agent(number);
            mesos.agents.push(agent);
        }
        mesos.wait_found().await;
        mesos
    }

    fn agent(&self, number: u8) -> Part {
        let run = self.system.run_directory();
        let work_dir = run.join("agents").join(number.to_string());
        std::fs::create_dir_all(&work_dir).unwrap();
        let masters: Vec<&str> = self.masters.iter().map(|(_, url)| url.as_str()).collect();
        let arguments = [
            "local-agent",
            "--master",
            &masters.join(","),
            "--port",
            "0",
            "--ip",
            &format!("127.0.3.{number}"),
            "--work-dir",
            &work_dir.display().to_string(),
            "--cpus",
            "16",
            "--mem",
            "12000",
            "--disk",
            "100000",
            "--no-cgroups",
        ];
        let arguments = arguments.map(str::to_owned).to_vec();
        Part::start(run.join(format!("logs/agent-{number}.log")), arguments)
    }

    /// The place of the master that leads, where `agents` are registered.
    async fn leader(&self, agents: usize) -> usize {
        eventually("a Mesos master leads all agents", FOUND_AGAIN, async || {
            for (place, (_, url)) in self.masters.iter().enumerate() {
                let Some(answer) = curl(&["--max-time", "2", &format!("{url}/state")]).await else {
                    continue;
                };
                // One that does not lead knows none.
                let state = answer.json();
                let known = state["slaves"].as_array()?;
                let active = known.iter().filter(|agent| agent["active"] == true);
                if active.count() == agents {
                    return Some(place);
                }
            }
            None
        })
        .await
    }

    /// Master, agents and scheduler know each other.
    async fn wait_found(&self) -> usize {
        let leader = self.leader(usize::from(AGENTS)).await;
        self.system.wait_registered().await;
        leader
    }
}

impl Drop for Mesos {
    fn drop(&mut self) {
        for agent in &mut self.agents {
            agent.end();
        }
        for (master, _) in &mut self.masters {
            master.end();
        }
    }
}

/// What must stay as it is.
#[derive(Debug, PartialEq, Eq)]
struct Standing {
    epoch: u64,
    tasks: Vec<String>,
    servers: Vec<Process>,
}

fn standing(system: &System, view: &ClusterView) -> Standing {
    Standing {
        epoch: view.epoch,
        tasks: tasks(view),
        servers: view.members.iter().map(|it| system.mysqld(it)).collect(),
    }
}

async fn goes_on(load: &Load) {
    let before = load.count();
    eventually("writes go on", FAILOVER_DEADLINE, async || {
        (load.count() > before + 20).then_some(())
    })
    .await;
}

async fn mesos_comes_and_goes(flavour: Flavour) {
    let mut mesos = Mesos::start(flavour).await;
    let cluster = mesos.system.create_running("kept", 3).await;
    let view = mesos.system.show("kept").await.unwrap();
    let statements = ["CREATE DATABASE load_db", load::TABLE];
    run(&endpoint(master(&view)), &cluster.account, &statements).await;
    let mut load = Load::paced(&cluster.url, &cluster.account, 2, Duration::from_millis(50));
    goes_on(&load).await;
    let before = standing(&mesos.system, &view);

    // The agent of the MySQL master is killed, and started again.
    let host = master(&view).host.clone().unwrap();
    let place: usize = host.rsplit('.').next().unwrap().parse().unwrap();
    mesos.agents[place - 1].kill().await;
    tokio::time::sleep(AWAY).await;
    mesos.agents[place - 1].restart();
    mesos.wait_found().await;
    goes_on(&load).await;
    let view = mesos.system.wait_running(&cluster, FAILOVER_DEADLINE).await;
    assert_eq!(standing(&mesos.system, &view), before);
    assert_eq!(load.failed(), 0, "a write failed without an agent");

    // No Mesos master runs: the MySQL master is replaced all the same.
    for (master, _) in &mut mesos.masters {
        master.kill().await;
    }
    goes_on(&load).await;
    assert_eq!(load.failed(), 0, "a write failed without a Mesos master");
    mesos.system.mysqld(master(&view)).kill();
    let after = mesos
        .system
        .wait_until(&cluster, "has a new master", FAILOVER_DEADLINE, |it| {
            it.epoch > view.epoch && it.members.iter().any(|m| m.role == MemberRole::Master)
        })
        .await;
    assert_eq!(tasks(&after), before.tasks);
    goes_on(&load).await;
    let after = mesos.system.wait_running(&cluster, FAILOVER_DEADLINE).await;
    let before = standing(&mesos.system, &after);
    for (master, _) in &mut mesos.masters {
        master.restart();
    }
    let leader = mesos.wait_found().await;
    let view = mesos.system.wait_running(&cluster, FAILOVER_DEADLINE).await;
    assert_eq!(standing(&mesos.system, &view), before);

    // The leading Mesos master is killed, another one leads, which knows no task before the agents are back.
    let failed = load.failed();
    mesos.masters[leader].0.kill().await;
    let next = mesos.wait_found().await;
    assert_ne!(next, leader);
    goes_on(&load).await;
    let view = mesos.system.wait_running(&cluster, FAILOVER_DEADLINE).await;
    assert_eq!(standing(&mesos.system, &view), before);
    assert_eq!(load.failed(), failed, "a write failed as masters changed");

    // Nothing was lost, and all of it can still be reached: launches, kills and their acknowledgements.
    load.stop().await;
    let acknowledged = load.so_far();
    let found = texts(&endpoint(master(&view)), &cluster.account, load::READ).await;
    assert!(acknowledged.is_subset(&found.unwrap()));
    let fresh = mesos.system.create("fresh", 1).await;
    mesos.system.wait_running(&fresh, CREATE_DEADLINE).await;
    mesos.system.delete_and_wait(&fresh).await;
    mesos.system.delete_and_wait(&cluster).await;
    for server in before.servers {
        assert!(!server.runs(), "a server of a deleted cluster runs on");
    }
}
