//! Goal: reservations and volumes are made, used, kept and given back as recorded. Method: the
//! recording is played, with a look at the volume itself in between.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::machine::Machine;
use super::recordings::{INTERVAL, compare_environment, find, player, read_json, sandbox};
use super::replay::Player;
use crate::support::eventually;
use crate::transcript::{self, Entry};

/// Cuts a recording before the first note that begins like this.
pub fn cut<'a>(entries: &'a [Entry], note: &str) -> (&'a [Entry], &'a [Entry]) {
    let at = entries
        .iter()
        .position(|entry| entry.who == "note" && entry.head.starts_with(note));
    entries.split_at(at.unwrap_or_else(|| panic!("no note {note}")))
}

/// What an executor was told so far is what the recorded one was told.
pub async fn compare_events(player: &mut Player, recording: &[Entry], sandbox: &Path) {
    let count = recording.iter().filter(|entry| entry.is_event()).count();
    // The last ones, acknowledgements among them, may be on their way to it.
    let text = eventually("what was recorded", super::web::DEADLINE, || async {
        let text = std::fs::read_to_string(sandbox.join("events.json")).ok()?;
        (text.matches('\n').count() >= count).then_some(text)
    })
    .await;
    let mut actual = text.lines().map(|line| serde_json::from_str(line).unwrap());
    for entry in recording.iter().filter(|entry| entry.is_event()) {
        let recorded: Value = serde_json::from_str(&entry.body).unwrap();
        let told: Value = actual.next().unwrap();
        let same = player.bindings.same("", &recorded, &told);
        assert!(same, "{recorded:#} instead of {told:#}");
    }
    assert_eq!(actual.next(), None);
}

/// An executor's process, from its agent's records.
pub fn process(machine: &Machine, agent: usize, executor: &str) -> Pid {
    let meta = machine.work_dir(agent).join("meta").join("slaves");
    let record = find(&find(&meta, executor).unwrap(), "run.json").unwrap();
    let stored: Value = read_json(&record);
    Pid::from_raw(i32::try_from(stored["process"]["pid"].as_i64().unwrap()).unwrap())
}

#[tokio::test]
async fn a_volume_outlives_its_tasks_and_is_destroyed_as_recorded() {
    let mut machine = Machine::start(&INTERVAL);
    machine.add_agent(&["--no-cgroups"]).await;
    machine.add_agent(&["--no-cgroups"]).await;
    let mut player = player(&machine);
    let recording = transcript::one("04-volume");
    let volume = machine
        .work_dir(1)
        .canonicalize()
        .unwrap()
        .join("volumes/roles/cotton/demo-1-data");

    let (first, rest) = cut(&recording, "on the agent the volume is");
    player.play(first).await;
    let v1 = sandbox(&machine, 1, "v1");
    assert_eq!(v1.join("data").canonicalize().unwrap(), volume);
    std::fs::write(v1.join("data/written"), "by v1").unwrap();

    let (second, rest) = cut(rest, "killing the executor process itself");
    player.play(second).await;
    compare_environment(&machine, 1, &player, "04-executor-1", &v1);
    let names: Vec<String> = read_json(&v1.join("names.json"));
    assert_eq!(names, ["data", "stderr", "stdout"]);
    compare_events(&mut player, &transcript::one("04-executor-1"), &v1).await;
    let v2 = sandbox(&machine, 1, "v2");
    let read = std::fs::read_to_string(v2.join("data/written")).unwrap();
    assert_eq!(read, "by v1");
    compare_events(&mut player, &transcript::one("04-executor-2"), &v2).await;

    kill(process(&machine, 1, "v2"), Signal::SIGKILL).unwrap();
    let (third, rest) = cut(rest, "DESTROY and UNRESERVE");
    player.play(third).await;
    assert!(volume.join("written").exists());
    let (fourth, rest) = cut(rest, "RESERVE with an operation id");
    player.play(fourth).await;
    eventually("the volume is removed", super::web::DEADLINE, || async {
        (!volume.exists()).then_some(())
    })
    .await;
    player.play(rest).await;
}
