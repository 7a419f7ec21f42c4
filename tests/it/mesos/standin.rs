//! Both clients against the stand-in for Mesos, as processes: one task's life through a restart of
//! its agent and of the master.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cotton::mesos::executor::{ExecutorEnvironment, ExecutorEvent};
use cotton::mesos::scheduler::SchedulerEvent;
use cotton::mesos::v1::TaskState;
use cotton::mesos::{calls, executor, v1};
use tokio::io::AsyncReadExt as _;
use tokio_util::sync::CancellationToken;

use super::peer::DEADLINE;
use super::scheduler::Client;
use crate::support::spawn;

/// Set in the environment of the executor that these tests launch, which is this binary again, to an
/// address where the test listens as long as it runs: the executor outlives its agent, but not that.
const EXECUTOR: &str = "COTTON_TEST_EXECUTOR";

/// A master or an agent, killed on drop.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    /// Starts `cotton <arguments>` and waits until it listens.
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cotton"));
        command.args(arguments).stdout(Stdio::piped());
        let mut child = spawn(command).unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening http://");
        let address = address.unwrap_or_else(|| panic!("{arguments:?} says {line:?}"));
        Self {
            address: address.to_owned(),
            child,
        }
    }

    fn master(port: &str, folder: &Path) -> Self {
        let folder = folder.join("master");
        let folder = folder.to_str().unwrap();
        Self::start(&["local-master", "--port", port, "--work-dir", folder])
    }

    fn agent(master: &Self, folder: &Path) -> Self {
        let url = format!("http://{}", master.address);
        let folder = folder.join("agent");
        let folder = folder.to_str().unwrap();
        Self::start(&[
            "local-agent",
            "--master",
            &url,
            "--port",
            "0",
            "--work-dir",
            folder,
            "--no-cgroups",
            "--no-switch-user",
            "--recovery-timeout",
            "1m",
            "--executor-reregistration-timeout",
            "10s",
        ])
    }

    fn port(&self) -> &str {
        self.address.rsplit(':').next().unwrap()
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the launched process does; a test without anything to test where nobody launched it.
#[tokio::test]
async fn the_executor_that_is_launched() {
    let Ok(test) = std::env::var(EXECUTOR) else {
        return;
    };
    let mut test = tokio::net::TcpStream::connect(test).await.unwrap();
    let over = async { test.read(&mut [0]).await };
    tokio::select! {
        () = execute() => {}
        _ = over => {}
    }
}

async fn execute() {
    let environment = ExecutorEnvironment::from_variables(|name| std::env::var(name).ok()).unwrap();
    let (handle, mut events) = executor::start(environment, CancellationToken::new());
    let mut task = String::new();
    let update = |task: &str, state: TaskState| {
        handle.update(v1::TaskStatus {
            task_id: v1::TaskId { value: task.into() },
            state: state as i32,
            ..Default::default()
        });
    };
    while let Some(event) = events.recv().await {
        match event {
            ExecutorEvent::Launch(info) => {
                task = info.task_id.value;
                update(&task, TaskState::TaskStarting);
                update(&task, TaskState::TaskRunning);
            }
            ExecutorEvent::Message(data) => handle.message(data.to_vec()).await.unwrap(),
            ExecutorEvent::Kill { .. } => {
                update(&task, TaskState::TaskKilled);
                assert!(handle.acknowledged_all(DEADLINE).await);
                return;
            }
            ExecutorEvent::Shutdown => return,
            ExecutorEvent::Subscribed(_)
            | ExecutorEvent::Acknowledged { .. }
            | ExecutorEvent::Disconnected { .. }
            | ExecutorEvent::Error { .. } => {}
        }
    }
}

fn scalar(name: &str, value: f64) -> v1::Resource {
    v1::Resource {
        name: name.into(),
        r#type: v1::value::Type::Scalar as i32,
        scalar: Some(v1::value::Scalar { value }),
        ..Default::default()
    }
}

/// A task whose executor is this binary.
fn task(offer: &v1::Offer, framework_id: &str, alive: &TcpListener) -> v1::TaskInfo {
    let program = std::env::current_exe().unwrap().display().to_string();
    let test = "mesos::standin::the_executor_that_is_launched";
    let variable = v1::environment::Variable {
        name: EXECUTOR.into(),
        value: Some(alive.local_addr().unwrap().to_string()),
        ..Default::default()
    };
    let command = v1::CommandInfo {
        shell: Some(false),
        arguments: vec![program.clone(), test.into(), "--exact".into()],
        value: Some(program),
        environment: Some(v1::Environment {
            variables: vec![variable],
        }),
        ..Default::default()
    };
    v1::TaskInfo {
        name: "t1".into(),
        task_id: v1::TaskId { value: "t1".into() },
        agent_id: offer.agent_id.clone(),
        resources: vec![scalar("cpus", 0.5), scalar("mem", 64.0)],
        executor: Some(v1::ExecutorInfo {
            executor_id: v1::ExecutorId { value: "e1".into() },
            framework_id: Some(v1::FrameworkId {
                value: framework_id.into(),
            }),
            r#type: Some(v1::executor_info::Type::Custom as i32),
            resources: vec![scalar("cpus", 0.1), scalar("mem", 32.0)],
            command: Some(command),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The next update that is of `wanted`, acknowledged like all before it.
async fn update(client: &mut Client, wanted: TaskState) -> v1::TaskStatus {
    loop {
        if let SchedulerEvent::Update(status) = client.event().await {
            if let Some(call) = calls::acknowledge(&status) {
                client.handle.call(call).await.unwrap();
            }
            if status.state == wanted as i32 {
                return status;
            }
        }
    }
}

/// Sends messages to the executor until one comes back: they may get lost while agents restart.
async fn converse(client: &mut Client, agent: &str) {
    for number in 0_u32.. {
        let sent = number.to_string().into_bytes();
        let message = calls::message("e1", agent, sent);
        client.handle.call(message).await.unwrap();
        let answer = async {
            loop {
                if let SchedulerEvent::Message { data, .. } = client.event().await {
                    return data;
                }
            }
        };
        match tokio::time::timeout(Duration::from_millis(500), answer).await {
            Ok(_) => return,
            Err(_) => assert!(number < 60, "the executor answers no message"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_lives_through_restarts_of_its_agent_and_of_the_master() {
    let alive = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let master = Server::master("0", folder.path());
    let agent = Server::agent(&master, folder.path());
    let mut client = Client::start(&master.address);
    let (framework_id, _) = client.subscribed().await;
    let offer = loop {
        if let SchedulerEvent::Offers(mut offers) = client.event().await {
            break offers.remove(0);
        }
    };
    let launch = calls::launch(vec![task(&offer, &framework_id, &alive)]);
    let accept = calls::accept([offer.id.value], vec![launch], Duration::from_secs(3600));
    client.handle.call(accept).await.unwrap();
    let agent_id = offer.agent_id.value;
    let starting = update(&mut client, TaskState::TaskStarting).await;
    assert!(starting.uuid.is_some());
    update(&mut client, TaskState::TaskRunning).await;
    converse(&mut client, &agent_id).await;

    // The executor outlives its agent and finds the new one.
    agent.kill();
    let agent = Server::agent(&master, folder.path());
    converse(&mut client, &agent_id).await;

    // The scheduler finds the new master, under its old framework id.
    let port = master.port().to_owned();
    master.kill();
    client.disconnected().await;
    let _master = Server::master(&port, folder.path());
    let under = loop {
        // More than one reason may be told while nobody listens.
        if let SchedulerEvent::Subscribed { framework_id, .. } = client.event().await {
            break framework_id;
        }
    };
    assert_eq!(under, framework_id);
    let known = reconcile(&mut client, &agent_id).await;
    assert_eq!(known.state, TaskState::TaskRunning as i32);
    assert!(
        calls::acknowledge(&known).is_none(),
        "an answer of the master"
    );

    let kill = calls::kill("t1", Some(&agent_id), Some(Duration::from_secs(3)));
    client.handle.call(kill).await.unwrap();
    update(&mut client, TaskState::TaskKilled).await;
    client.handle.call(calls::teardown()).await.unwrap();
    drop(agent);
}

/// Asks until there is an answer: there is none until the agent is back.
async fn reconcile(client: &mut Client, agent_id: &str) -> v1::TaskStatus {
    for _ in 0..60 {
        let task = ("t1".to_owned(), Some(agent_id.to_owned()));
        client.handle.call(calls::reconcile([task])).await.unwrap();
        let answer = async {
            loop {
                if let SchedulerEvent::Update(status) = client.event().await {
                    return status;
                }
            }
        };
        if let Ok(status) = tokio::time::timeout(Duration::from_millis(500), answer).await {
            return status;
        }
    }
    panic!("no answer to reconciliation");
}
