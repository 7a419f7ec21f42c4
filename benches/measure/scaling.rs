//! One more member for a cluster that holds data, beside the bare copy; and what clients notice of it.

use std::time::{Duration, Instant};

use cotton::cluster::flavour::Flavour;
use cotton::cluster::view::{ClusterView, MemberRole};

use crate::bare::Server;
use crate::bulk;
use crate::figures::{Figures, line};
use crate::pipeline::Copies;
use crate::support::FAILOVER_DEADLINE;
use crate::support::database::run;
use crate::support::load::{self, Load};
use crate::support::system::{Cluster, System, endpoint, master};

/// The word that asks for it.
pub const WORD: &str = "scale";

/// How often a member is added, without load; and with it.
const ROUNDS: usize = 3;

/// How long adding a member, or removing one, may take.
const DEADLINE: Duration = Duration::from_secs(900);

/// The clients, and how long each of them waits after a write.
const CLIENTS: usize = 8;
const PAUSE: Duration = Duration::from_millis(2);

/// For how long writes are counted before a member is added.
const BEFORE: Duration = Duration::from_secs(20);

/// A cluster of one is scaled to two and back, after a server with the same data was copied by hand.
pub async fn measure(flavour: Flavour) {
    let bare = bare_copies(flavour).await;
    let system = System::start(flavour);
    let cluster = system.create_running("growing", 1).await;
    let view = system.show("growing").await.unwrap();
    let at = endpoint(master(&view));
    bulk::fill(&at, &cluster.account).await;
    let statements = ["CREATE DATABASE load_db", load::TABLE];
    run(&at, &cluster.account, &statements).await;

    let mut quiet = Vec::new();
    for number in 1..=ROUNDS {
        let took = scale(&system, &cluster, 2).await;
        eprintln!("{flavour}, a second member, {number} of {ROUNDS}: {took:?}");
        quiet.push(took);
        scale(&system, &cluster, 1).await;
    }
    let quiet: Figures = quiet.into_iter().collect();
    let ratio = quiet.median().as_secs_f64() / bare.median().as_secs_f64();
    let remark = format!("{ratio:.2} x the bare copy; aim: 1.2");
    line(
        "a second member, from the request",
        &quiet.seconds(),
        &remark,
    );

    let mut load = Load::paced(&cluster.url, &cluster.account, CLIENTS, PAUSE);
    load.wait_for_more(CLIENTS, FAILOVER_DEADLINE).await;
    let (mut before, mut during) = (Vec::new(), Vec::new());
    let (mut gaps_before, mut gaps) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        load.measure_gap();
        let (begun, counted) = (Instant::now(), load.count());
        tokio::time::sleep(BEFORE).await;
        before.push(rate(&load, counted, begun));
        gaps_before.push(load.longest_gap());
        load.measure_gap();
        let (begun, counted) = (Instant::now(), load.count());
        let took = scale(&system, &cluster, 2).await;
        during.push(rate(&load, counted, begun));
        gaps.push(load.longest_gap());
        eprintln!(
            "{flavour}, under load: {took:?}, {before:.0?} then {during:.0?} writes per second"
        );
        scale(&system, &cluster, 1).await;
    }
    load.stop().await;
    let (before, during) = (middle(before), middle(during));
    line("writes per second before", &format!("{before:.0}"), "");
    let remark = format!("{:.2} of those before; aim: 0.9", during / before);
    line("while a member is added", &format!("{during:.0}"), &remark);
    let gaps_before: Figures = gaps_before.into_iter().collect();
    line("no write before for", &gaps_before.percentiles(), "");
    let gaps: Figures = gaps.into_iter().collect();
    line("no write meanwhile for", &gaps.percentiles(), "");
}

fn rate(load: &Load, counted: usize, begun: Instant) -> f64 {
    (load.count() - counted) as f64 / begun.elapsed().as_secs_f64()
}

fn middle(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// From the request until the cluster has so many members, all of them in discovery and none about to leave.
async fn scale(system: &System, cluster: &Cluster, nodes: u32) -> Duration {
    let start = Instant::now();
    let number = nodes.to_string();
    let fields = [
        ("password", cluster.account.password.as_str()),
        ("num_nodes", number.as_str()),
    ];
    let answer = system.request("PUT", &cluster.name, &fields).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
    let there = |view: &ClusterView| {
        let in_place = |role| role == MemberRole::Master || role == MemberRole::Slave;
        view.members.len() == nodes as usize
            && view
                .members
                .iter()
                .all(|it| !it.leaving && in_place(it.role))
    };
    let what = format!("has {nodes} members in their places");
    system.wait_until(cluster, &what, DEADLINE, there).await;
    start.elapsed()
}

/// The same data, copied by the programs alone.
async fn bare_copies(flavour: Flavour) -> Figures {
    let server = Server::new(flavour).start().await;
    bulk::fill_through(&mut server.connect().await).await;
    let copies = Copies::new(server).await;
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        took.push(copies.measure().await);
    }
    let took: Figures = took.into_iter().collect();
    line(copies.name(), &took.seconds(), "");
    took
}
