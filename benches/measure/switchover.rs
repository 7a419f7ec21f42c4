//! How long clients cannot write in a planned switchover, under a load of small transactions.

use std::collections::BTreeMap;
use std::time::Duration;

use cotton::cluster::flavour::Flavour;
use cotton::http::changes::SwitchoverAnswer;

use crate::figures::{Figures, line};
use crate::support::FAILOVER_DEADLINE;
use crate::support::database::run;
use crate::support::faults::RECOVERY_DEADLINE;
use crate::support::fleet::Fleet;
use crate::support::load::{self, Load};
use crate::support::system::{endpoint, master};

/// The word that chooses it.
pub const WORD: &str = "switchover";

/// How often.
const TIMES: usize = 20;

/// The clients, and how long each of them waits after a write: together about a thousand writes a second, if the servers
/// take them.
const CLIENTS: usize = 20;
const PAUSE: Duration = Duration::from_millis(17);

/// How many writes come between two switchovers.
const BETWEEN: usize = 1000;

/// Switches over again and again between the members of a cluster of three. What is measured is the longest time between two
/// acknowledgements, of whichever clients. They know discovery and nothing else, and log in anew after an error.
pub async fn measure(flavour: Flavour) {
    let fleet = Fleet::start(flavour, 3).await;
    let cluster = fleet.create_running("switched", 3).await;
    let view = fleet.show("switched").await.unwrap();
    let statements = ["CREATE DATABASE load_db", load::TABLE];
    run(&endpoint(master(&view)), &cluster.account, &statements).await;
    let mut load = Load::paced(&cluster.url, &cluster.account, CLIENTS, PAUSE);
    let mut figures = Vec::new();
    let mut phases: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
    for number in 1..=TIMES {
        fleet.wait_running(&cluster, RECOVERY_DEADLINE).await;
        load.wait_for_more(BETWEEN, RECOVERY_DEADLINE).await;
        load.measure_gap();
        let fields = [("password", cluster.account.password.as_str())];
        let answer = fleet.post("switched/switchover", &fields).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text);
        let answer: SwitchoverAnswer = serde_json::from_value(answer.json()).unwrap();
        let asked = answer.switchover.unwrap().number;
        let over = fleet.wait_until(&cluster, "has switched over", FAILOVER_DEADLINE, |view| {
            let last = view.standing.switchover.as_ref();
            last.is_some_and(|last| last.number == asked && !last.is_pending())
        });
        let over = over.await.standing.switchover.unwrap().outcome.unwrap();
        load.wait_for_more(CLIENTS, FAILOVER_DEADLINE).await;
        let took = load.longest_gap();
        eprintln!(
            "{flavour}, switchover {number} of {TIMES}: {took:?}; {}",
            over.sentence
        );
        // One that does not come about makes nobody wait, and says nothing of one that does.
        if over.done {
            figures.push(took);
            fleet.wait_running(&cluster, RECOVERY_DEADLINE).await;
            let explained = fleet.explain("switched").await.explanation;
            for phase in &explained.failovers[0].phases {
                let all = phases.entry(phase.name.clone()).or_default();
                all.push(Duration::from_millis(phase.millis));
            }
        }
    }
    load.stop().await;
    let done = figures.len();
    let what = format!("planned switchover under load, {done} of {TIMES} came about");
    if done == 0 {
        return line(&what, "-", "");
    }
    let figures: Figures = figures.into_iter().collect();
    line(&what, &figures.percentiles(), "aim: under 200 ms");
    for (phase, took) in phases {
        let took: Figures = took.into_iter().collect();
        line(&format!("of that, {phase}"), &took.percentiles(), "");
    }
}
