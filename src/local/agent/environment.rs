//! What an executor finds in its environment, and where its sandbox lies. Pure.
//!
//! Source: the recorded environment of an executor of Mesos 1.12 (`01-executor.txt`).

use std::path::{Path, PathBuf};

use crate::local::duration;
use crate::mesos::v1::{CommandInfo, environment::variable};

use super::core::{Clocks, ExecutorKey, Launch};

/// Where Mesos' native library would lie; executors in Java or Python load it.
const NATIVE_LIBRARY: &str = "/usr/lib/libmesos-1.12.0.so";

/// What the agent says of itself to its executors.
#[derive(Debug, Clone)]
pub struct AgentAddress {
    /// The agent's id.
    pub id: String,
    /// Its address.
    pub ip: String,
    /// Its port.
    pub port: u16,
}

/// The sandbox of a run: the path that operators know from Mesos.
pub fn sandbox(
    work_dir: &Path,
    agent_id: &str,
    (framework_id, executor_id): &ExecutorKey,
    run: &str,
) -> PathBuf {
    executor_path(work_dir, agent_id, framework_id, executor_id)
        .join("runs")
        .join(run)
}

/// Where the record of a run lies.
pub fn record(
    work_dir: &Path,
    agent_id: &str,
    (framework_id, executor_id): &ExecutorKey,
    run: &str,
) -> PathBuf {
    let run = if run.is_empty() { "none" } else { run };
    executor_path(&work_dir.join("meta"), agent_id, framework_id, executor_id)
        .join("runs")
        .join(run)
        .join("run.json")
}

fn executor_path(root: &Path, agent_id: &str, framework_id: &str, executor_id: &str) -> PathBuf {
    let framework = root
        .join("slaves")
        .join(agent_id)
        .join("frameworks")
        .join(framework_id);
    framework.join("executors").join(executor_id)
}

/// The whole environment of an executor; nothing else is passed on.
pub fn variables(
    launch: &Launch,
    agent: &AgentAddress,
    clocks: &Clocks,
    sandbox: &Path,
    path: &str,
) -> Vec<(String, String)> {
    let AgentAddress { id, ip, port } = agent;
    let sandbox = sandbox.display().to_string();
    let grace = launch.executor.shutdown_grace_period.as_ref();
    let grace = grace.and_then(|grace| u64::try_from(grace.nanoseconds).ok());
    let grace = grace.map_or(clocks.shutdown_grace, std::time::Duration::from_nanos);
    let framework_id = launch.framework.id.as_ref().map_or("", |id| &id.value);
    let checkpoint = launch.framework.checkpoint();

    let mut variables = vec![
        ("PATH", path.to_owned()),
        ("PWD", sandbox.clone()),
        ("LIBPROCESS_IP", ip.clone()),
        ("LIBPROCESS_PORT", "0".to_owned()),
        ("MESOS_AGENT_ENDPOINT", format!("{ip}:{port}")),
        (
            "MESOS_CHECKPOINT",
            if checkpoint { "1" } else { "0" }.to_owned(),
        ),
        ("MESOS_DIRECTORY", sandbox.clone()),
        (
            "MESOS_EXECUTOR_ID",
            launch.executor.executor_id.value.clone(),
        ),
        (
            "MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD",
            duration::text(grace),
        ),
        ("MESOS_FRAMEWORK_ID", framework_id.to_owned()),
        ("MESOS_HTTP_COMMAND_EXECUTOR", "0".to_owned()),
        ("MESOS_NATIVE_JAVA_LIBRARY", NATIVE_LIBRARY.to_owned()),
        ("MESOS_NATIVE_LIBRARY", NATIVE_LIBRARY.to_owned()),
        ("MESOS_SANDBOX", sandbox),
        ("MESOS_SLAVE_ID", id.clone()),
        ("MESOS_SLAVE_PID", format!("slave(1)@{ip}:{port}")),
    ];
    if checkpoint {
        variables.push(("MESOS_RECOVERY_TIMEOUT", duration::text(clocks.recovery)));
        let backoff = duration::text(clocks.subscription_backoff);
        variables.push(("MESOS_SUBSCRIPTION_BACKOFF_MAX", backoff));
    }
    let mut all: Vec<(String, String)> = Vec::new();
    // The framework's own come first: it cannot replace what the agent states.
    all.extend(stated(launch.executor.command.as_ref()));
    for (name, value) in variables {
        all.retain(|(known, _)| known != name || name == "PATH");
        if !all.iter().any(|(known, _)| known == name) {
            all.push((name.to_owned(), value));
        }
    }
    all
}

fn stated(command: Option<&CommandInfo>) -> Vec<(String, String)> {
    let variables = command.and_then(|command| command.environment.as_ref());
    let plain =
        |one: &&crate::mesos::v1::environment::Variable| one.r#type() == variable::Type::Value;
    let variables = variables.map(|environment| environment.variables.iter().filter(plain));
    variables
        .into_iter()
        .flatten()
        .map(|one| (one.name.clone(), one.value().to_owned()))
        .collect()
}
