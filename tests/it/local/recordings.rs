//! Goal: the stand-in behaves as the Mesos that was recorded. Method: the recorded calls are sent to
//! it, and every answer and event must be the recorded one.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::executor;
use super::machine::Machine;
use super::replay::Player;
use super::volumes::compare_events;
use crate::transcript;

/// The recorded allocation interval.
pub const INTERVAL: [&str; 2] = ["--allocation-interval", "500ms"];

pub fn player(machine: &Machine) -> Player {
    let mut player = Player::new(&machine.master.url);
    player
        .bindings
        .bind("/rec/executor.py", &executor::command_line());
    player
}

#[tokio::test]
async fn a_task_is_launched_killed_and_reconciled_as_recorded() {
    let mut machine = Machine::start(&INTERVAL);
    machine.add_agent(&["--no-cgroups"]).await;
    machine.add_agent(&["--no-cgroups"]).await;
    let mut player = player(&machine);
    player.play(&transcript::one("01-subscribe")).await;
    let sandbox = sandbox(&machine, 0, "t1");
    compare_environment(&machine, 0, &player, "01-executor", &sandbox);
    compare_events(&mut player, &transcript::one("01-executor"), &sandbox).await;
    // The recordings go on with the same framework and agents.
    player.play(&transcript::one("02-bad-calls")).await;
    player.play(&transcript::one("03-failures")).await;
    let crashed = self::sandbox(&machine, 1, "crash1");
    compare_events(&mut player, &transcript::one("03-executor"), &crashed).await;
}

/// The sandbox of an executor's only run.
pub fn sandbox(machine: &Machine, agent: usize, executor: &str) -> PathBuf {
    let folder = find(&machine.work_dir(agent).join("slaves"), executor).unwrap();
    let latest = folder.join("runs").join("latest");
    latest.canonicalize().unwrap()
}

/// The executor's environment has the recorded names, and values of the recorded form.
pub fn compare_environment(
    machine: &Machine,
    agent: usize,
    player: &Player,
    recording: &str,
    sandbox: &Path,
) {
    let recording = transcript::one(recording);
    let entry = recording
        .iter()
        .find(|entry| entry.head == "environment")
        .unwrap();
    let recorded: BTreeMap<String, String> = serde_json::from_str(&entry.body).unwrap();
    let actual: BTreeMap<String, String> = read_json(&sandbox.join("environment.json"));
    let work_dir = machine.work_dir(agent).canonicalize().unwrap();
    let endpoint = machine.agents[agent].address();
    let number = agent + 1;
    for (name, value) in &recorded {
        let expected = match name.as_str() {
            "PATH" => std::env::var("PATH").unwrap(),
            _ => player
                .bindings
                .apply(value)
                .replace(
                    &format!("/var/lib/mesos/agent{number}"),
                    &work_dir.display().to_string(),
                )
                .replace(&format!("127.0.0.{number}:505{number}"), endpoint),
        };
        assert_eq!(actual.get(name), Some(&expected), "{name}");
    }
    // Besides these there is only what the framework asked for.
    let more: Vec<_> = actual
        .keys()
        .filter(|name| !recorded.contains_key(*name))
        .collect();
    assert_eq!(more, ["HELLO", "REC_LOG"]);
}

pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A file somewhere below a folder.
pub fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    for entry in std::fs::read_dir(folder).ok()?.flatten() {
        let path = entry.path();
        if path.file_name().is_some_and(|found| found == name) {
            return Some(path);
        }
        if path.is_dir()
            && !path.is_symlink()
            && let Some(found) = find(&path, name)
        {
            return Some(found);
        }
    }
    None
}

#[tokio::test]
async fn frameworks_authenticate_as_recorded() {
    let directory = tempfile::tempdir().unwrap();
    let credentials = directory.path().join("credentials");
    std::fs::write(&credentials, "cotton s3cret\n").unwrap();
    let machine = Machine::start(&["--credentials", &credentials.display().to_string()]);
    let recording = transcript::one("09-authentication");
    // The recording ends when its client does.
    let until = recording
        .iter()
        .position(|entry| entry.head.starts_with("<< stream closed"))
        .unwrap();
    player(&machine).play(&recording[..until]).await;
}
