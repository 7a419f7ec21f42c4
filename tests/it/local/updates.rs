//! Goal: a status that is not acknowledged is sent again after 10, 20, 40 seconds and holds the next
//! one back, as recorded in `11-unacknowledged-updates.txt`. Method: clocks that are ten times as fast.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Instant;

use serde_json::{Value, json};

use super::machine::{Machine, Scheduler, task};
use super::recordings::{INTERVAL, player};
use crate::transcript;

const SCALE: f64 = 10.0;

async fn next_status(scheduler: &Scheduler) -> Value {
    scheduler.events.next("UPDATE").await["update"]["status"].clone()
}

#[tokio::test]
async fn statuses_come_again_until_they_are_acknowledged() {
    let mut machine = Machine::start(&[]);
    machine.add_agent(&["--time-scale", "10"]).await;
    let scheduler = Scheduler::subscribe(&machine.master).await;
    let offer = scheduler.offer("127.0.0.1").await;
    scheduler.launch(&offer, task("t", &offer, "plain")).await;

    let first = next_status(&scheduler).await;
    assert_eq!(first["state"], "TASK_STARTING");
    let mut last = Instant::now();
    for seconds in [10.0, 20.0, 40.0] {
        let again = next_status(&scheduler).await;
        // The very same, though TASK_RUNNING is there already.
        assert_eq!(again, first);
        let pause = last.elapsed().as_secs_f64() * SCALE;
        assert!(
            pause > seconds * 0.6,
            "again after {pause} seconds instead of {seconds}"
        );
        last = Instant::now();
    }

    // A task that ends frees what it had, though nobody has acknowledged anything.
    scheduler
        .call(json!({"type": "KILL", "kill": {"task_id": {"value": "t"}}}))
        .await;
    let again = next_status(&scheduler).await;
    assert_eq!(again, first);
    scheduler
        .events
        .take("offer of what the task had", |event| {
            let offers = event["offers"]["offers"].as_array()?;
            let cpus = |offer: &Value| {
                let resources = offer["resources"].as_array().unwrap().iter();
                let cpus = resources.filter(|one| one["name"] == "cpus");
                cpus.filter_map(|one| one["scalar"]["value"].as_f64())
                    .sum::<f64>()
            };
            offers
                .iter()
                .any(|offer| cpus(offer) == 0.5 || cpus(offer) == 3.9)
                .then_some(())
        })
        .await;

    // Now one after the other.
    for state in ["TASK_RUNNING", "TASK_KILLED"] {
        let status = if state == "TASK_RUNNING" {
            first.clone()
        } else {
            next_status(&scheduler).await
        };
        scheduler.acknowledge(&status).await;
    }
    let last = next_status(&scheduler).await;
    assert_eq!(last["state"], "TASK_KILLED");
    scheduler.acknowledge(&last).await;
}

#[tokio::test]
async fn a_new_scheduler_hears_what_the_old_one_did_not_acknowledge() {
    let mut machine = Machine::start(&[]);
    machine.add_agent(&[]).await;
    let scheduler = Scheduler::subscribe(&machine.master).await;
    let offer = scheduler.offer("127.0.0.1").await;
    scheduler.launch(&offer, task("t", &offer, "plain")).await;
    let first = next_status(&scheduler).await;

    let mut framework = super::machine::framework_info();
    framework["id"] = json!({"value": scheduler.framework_id});
    let other = Scheduler::subscribe_as(&machine.master, framework).await;
    assert_eq!(next_status(&other).await, first);
    other.acknowledge(&first).await;
    other.update("t", "TASK_RUNNING").await;
}

#[tokio::test]
async fn an_update_that_is_never_acknowledged_holds_everything_back_as_recorded() {
    let mut machine = Machine::start(&[&INTERVAL[..], &["--time-scale", "10"]].concat());
    let scaled = ["--no-cgroups", "--time-scale", "10"];
    machine.add_agent(&scaled).await;
    machine.add_agent(&scaled).await;
    let mut player = player(&machine);
    player.play(&transcript::one("11-unacknowledged")).await;
}
