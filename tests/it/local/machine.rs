//! A master and agents of the stand-in, as processes of their own.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::web::{self, DEADLINE, Events};
use crate::support::{eventually, spawn};

/// One process of the stand-in; killed on drop.
pub struct Process {
    child: Child,
    pub url: String,
}

impl Process {
    /// Starts a hidden command and waits until it listens.
    pub fn start(arguments: &[String], log: &Path) -> Self {
        Self::try_start(arguments, log).unwrap_or_else(|| {
            panic!(
                "{arguments:?}:\n{}",
                std::fs::read_to_string(log).unwrap_or_default()
            )
        })
    }

    fn try_start(arguments: &[String], log: &Path) -> Option<Self> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_cotton"));
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        let mut child = spawn(command).unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        match line.trim().strip_prefix("listening ") {
            Some(url) => Some(Self {
                child,
                url: url.to_owned(),
            }),
            None => {
                child.wait().unwrap();
                None
            }
        }
    }

    pub fn signal(&self, signal: Signal) {
        crate::support::signal(self.child.id() as i32, signal);
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end and waits for that.
    pub fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        self.child.wait().unwrap();
    }

    /// Waits until it ends by itself.
    pub async fn ended(&mut self) {
        let start = std::time::Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < DEADLINE, "{} does not end", self.url);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// What it listens on, `ip:port`.
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            // An agent ends its executors only when it is asked.
            self.signal(Signal::SIGCONT);
            self.signal(Signal::SIGTERM);
            let _ = self.child.wait();
        }
    }
}

/// A master and its agents, in a temporary directory.
pub struct Machine {
    // Dropped in this order: agents take their executors with them.
    pub agents: Vec<Process>,
    pub master: Process,
    pub directory: TempDir,
    master_arguments: Vec<String>,
    agent_arguments: Vec<Vec<String>>,
}

fn owned(arguments: &[&str]) -> Vec<String> {
    arguments
        .iter()
        .map(|argument| (*argument).to_owned())
        .collect()
}

impl Machine {
    /// Starts a master with further arguments, and no agent.
    pub fn start(master: &[&str]) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("cotton-mesos-")
            .tempdir()
            .unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(directory.path(), mode).unwrap();
        let work_dir = directory.path().join("master").display().to_string();
        let mut arguments = owned(&[
            "local-master",
            "--port",
            "0",
            "--hostname",
            "localhost",
            "--work-dir",
            &work_dir,
        ]);
        arguments.extend(owned(master));
        let master = Process::start(&arguments, &directory.path().join("master.log"));
        // The same port again after a restart.
        let port = master.address().rsplit(':').next().unwrap().to_owned();
        arguments[2] = port;
        Self {
            agents: Vec::new(),
            master,
            directory,
            master_arguments: arguments,
            agent_arguments: Vec::new(),
        }
    }

    /// Adds an agent like those of the recordings and waits until the master has it.
    pub async fn add_agent(&mut self, further: &[&str]) -> usize {
        self.start_agent(further);
        let number = self.agents.len();
        self.wait_for_agents(number).await;
        number - 1
    }

    /// The same without waiting.
    pub fn start_agent(&mut self, further: &[&str]) {
        let number = self.agents.len() + 1;
        let (ip, work_dir) = (
            format!("127.0.0.{number}"),
            self.work_dir(number - 1).display().to_string(),
        );
        let attributes = format!("rack:r{number}");
        let mut arguments = owned(&[
            "local-agent",
            "--port",
            "0",
            "--ip",
            &ip,
            "--work-dir",
            &work_dir,
            "--attributes",
            &attributes,
            "--master",
            &self.master.url,
            "--ports",
            "31000-31999",
        ]);
        arguments.extend(owned(further));
        self.agents
            .push(Process::start(&arguments, &self.log(number - 1)));
        self.agent_arguments.push(arguments);
    }

    /// What an agent logs.
    pub fn log(&self, agent: usize) -> PathBuf {
        self.directory
            .path()
            .join(format!("agent-{}.log", agent + 1))
    }

    /// An agent's work directory.
    pub fn work_dir(&self, agent: usize) -> PathBuf {
        self.directory.path().join(format!("agent{}", agent + 1))
    }

    /// Starts an agent again that was killed.
    pub fn restart_agent(&mut self, agent: usize) {
        self.agents[agent] = Process::start(&self.agent_arguments[agent], &self.log(agent));
    }

    /// Starts the master again that was killed.
    pub fn restart_master(&mut self) {
        self.master = Process::start(
            &self.master_arguments,
            &self.directory.path().join("master.log"),
        );
    }

    pub async fn wait_for_agents(&self, count: usize) {
        let url = format!("{}/state", self.master.url);
        eventually("the agents are registered", DEADLINE, || async {
            let state = web::get(&url).await?;
            let active = state["slaves"]
                .as_array()?
                .iter()
                .filter(|agent| agent["active"] == true)
                .count();
            (active >= count).then_some(())
        })
        .await;
    }
}

/// A scheduler that does what a test says.
pub struct Scheduler {
    pub url: String,
    pub framework_id: String,
    pub stream_id: String,
    pub number: usize,
    pub events: Events,
}

/// The framework of the recordings.
pub fn framework_info() -> Value {
    json!({
        "user": nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name,
        "name": "test", "roles": ["cotton"], "checkpoint": true, "failover_timeout": 3600.0,
        "principal": "cotton", "hostname": "localhost",
        "capabilities": [
            {"type": "MULTI_ROLE"}, {"type": "RESERVATION_REFINEMENT"},
            {"type": "PARTITION_AWARE"}, {"type": "TASK_KILLING_STATE"},
        ],
    })
}

impl Scheduler {
    pub async fn subscribe(master: &Process) -> Self {
        Self::subscribe_as(master, framework_info()).await
    }

    /// Subscribes with this description; with an id in it, again.
    pub async fn subscribe_as(master: &Process, framework: Value) -> Self {
        Self::subscribe_at(&master.url, framework).await
    }

    /// Subscribes at a master that somebody else started.
    pub async fn subscribe_at(master_url: &str, framework: Value) -> Self {
        let url = format!("{master_url}/api/v1/scheduler");
        let mut call = json!({"type": "SUBSCRIBE", "subscribe": {"framework_info": framework}});
        if let Some(id) = framework.get("id") {
            call["framework_id"] = id.clone();
        }
        let headers = [
            ("Content-Type", "application/json"),
            ("Accept", "application/json"),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let response = web::ask("POST", &url, &headers, &call.to_string()).await;
        assert_eq!(response.status(), 200);
        let stream_id = response.headers()["mesos-stream-id"]
            .to_str()
            .unwrap()
            .to_owned();
        let events = Events::default();
        let number = events.read(response.into_body());
        let subscribed = events.next("SUBSCRIBED").await;
        let framework_id = subscribed["subscribed"]["framework_id"]["value"]
            .as_str()
            .unwrap()
            .to_owned();
        Self {
            url,
            framework_id,
            stream_id,
            number,
            events,
        }
    }

    /// Makes a call that must be accepted.
    pub async fn call(&self, mut call: Value) {
        call["framework_id"] = json!({"value": self.framework_id});
        let answer = web::post(&self.url, &[("Mesos-Stream-Id", &self.stream_id)], &call).await;
        assert_eq!(answer.status, 202, "{call}: {}", answer.text);
    }

    /// The next offer of an agent with this host name.
    pub async fn offer(&self, hostname: &str) -> Value {
        self.events
            .take(&format!("offer of {hostname}"), |event| {
                let offers = event["offers"]["offers"].as_array()?;
                offers
                    .iter()
                    .find(|offer| offer["hostname"] == hostname)
                    .cloned()
            })
            .await
    }

    /// Launches a task with an executor of its own on an offer.
    pub async fn launch(&self, offer: &Value, task: Value) {
        self.accept(
            offer,
            json!([{"type": "LAUNCH", "launch": {"task_infos": [task]}}]),
        )
        .await;
    }

    /// Accepts an offer with these operations.
    pub async fn accept(&self, offer: &Value, operations: Value) {
        let accept = json!({
            "offer_ids": [offer["id"]], "operations": operations, "filters": {"refuse_seconds": 0.5},
        });
        self.call(json!({"type": "ACCEPT", "accept": accept})).await;
    }

    /// The next status of an operation.
    pub async fn operation(&self) -> Value {
        let event = self.events.next("UPDATE_OPERATION_STATUS").await;
        event["update_operation_status"]["status"].clone()
    }

    /// Tells that an operation's status was received.
    pub async fn acknowledge_operation(&self, status: &Value) {
        let acknowledge = json!({
            "agent_id": status["agent_id"], "operation_id": status["operation_id"],
            "uuid": status["uuid"]["value"],
        });
        self.call(json!({
            "type": "ACKNOWLEDGE_OPERATION_STATUS", "acknowledge_operation_status": acknowledge,
        }))
        .await;
    }

    pub async fn acknowledge(&self, status: &Value) {
        let acknowledge = json!({
            "agent_id": status["agent_id"], "task_id": status["task_id"], "uuid": status["uuid"],
        });
        self.call(json!({"type": "ACKNOWLEDGE", "acknowledge": acknowledge}))
            .await;
    }

    /// Waits for a task's next status, which must be this one, and acknowledges it.
    pub async fn update(&self, task: &str, state: &str) -> Value {
        let status = self
            .events
            .take(&format!("{state} of {task}"), |event| {
                let status = &event["update"]["status"];
                (status["task_id"]["value"] == task).then(|| status.clone())
            })
            .await;
        assert_eq!(status["state"], state, "{status}");
        if status.get("uuid").is_some() {
            self.acknowledge(&status).await;
        }
        status
    }
}

/// A task whose executor is the scripted one of `executor.rs`.
pub fn task(id: &str, offer: &Value, script: &str) -> Value {
    task_with_command(id, offer, super::executor::command(script))
}

/// A task with an executor of this command.
pub fn task_with_command(id: &str, offer: &Value, command: Value) -> Value {
    let scalar = |name: &str, value: f64| json!({"name": name, "type": "SCALAR", "scalar": {"value": value}});
    json!({
        "name": id, "task_id": {"value": id}, "agent_id": offer["agent_id"], "data": "aGk=",
        "resources": [scalar("cpus", 0.5), scalar("mem", 128.0), scalar("disk", 64.0)],
        "executor": {
            "type": "CUSTOM", "executor_id": {"value": id}, "name": "test", "source": format!("test.{id}"),
            "resources": [scalar("cpus", 0.1), scalar("mem", 32.0)], "command": command,
        },
    })
}
