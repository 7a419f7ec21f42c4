//! Whatever breaks, under a load: nothing that was acknowledged is lost, and the cluster goes on.
//!
//! Each agent has a host of its own here, so that hosts can be cut off. A few faults are part of every run;
//! `make soak` takes all of them by chance, for as long as it is told.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cotton::cluster::flavour::Flavour;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use crate::support::database::{run, wait_for_texts};
use crate::support::discovery::Masters;
use crate::support::faults::{Fault, RECOVERY_DEADLINE, Victim, survive};
use crate::support::fleet::Fleet;
use crate::support::load::{self, Load};
use crate::support::system::{Cluster, endpoint, master};

crate::for_both_flavours!(faults_lose_nothing);

/// How many clients write.
const CLIENTS: usize = 4;

/// How long a fault lasts: longer than any timeout that tells that somebody is gone.
const LASTING: Duration = Duration::from_secs(12);

async fn faults_lose_nothing(flavour: Flavour) {
    let trial = Trial::start(flavour).await;
    for fault in [
        Fault::ZooKeeperDown,
        Fault::HostCutOff(Victim::Master),
        Fault::HostMute(Victim::Master),
        Fault::ServerFrozen(Victim::Slave),
        Fault::SlaveCutFromMaster,
    ] {
        trial.survive(fault, LASTING).await;
    }
    trial.end().await;
}

/// `MINUTES` of faults by chance; `SEED` repeats their order.
#[tokio::test]
#[ignore = "as long as one likes; make soak"]
async fn soak() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let minutes = number("MINUTES").unwrap_or(30);
    let seed = number("SEED").unwrap_or_else(rand::random);
    eprintln!("soak of {minutes} minutes, SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for flavour in [Flavour::Mariadb, Flavour::Mysql] {
        soak_flavour(flavour, Duration::from_secs(minutes * 30), &mut random).await;
    }
}

async fn soak_flavour(flavour: Flavour, time: Duration, random: &mut StdRng) {
    /// After so many faults everything is compared.
    const COMPARED_AFTER: usize = 10;
    let trial = Trial::start(flavour).await;
    let start = Instant::now();
    let mut gaps: BTreeMap<Fault, Vec<Duration>> = BTreeMap::new();
    let mut count = 0;
    while start.elapsed() < time {
        let fault = *Fault::ALL.choose(random).unwrap();
        let lasting = Duration::from_millis(random.random_range(100..20_000));
        count += 1;
        eprintln!("{flavour} fault {count}: {fault:?} for {lasting:?}");
        let gap = trial.survive(fault, lasting).await;
        gaps.entry(fault).or_default().push(gap);
        if count % COMPARED_AFTER == 0 {
            trial.compare().await;
        }
    }
    let written = trial.load.count();
    trial.end().await;
    eprintln!("{flavour}: {count} faults, {written} acknowledged writes, none lost");
    for (fault, mut gaps) in gaps {
        gaps.sort();
        let at = |share: usize| gaps[(gaps.len() * share / 100).min(gaps.len() - 1)];
        let (median, p99, worst) = (at(50), at(99), gaps[gaps.len() - 1]);
        let name = format!("{fault:?}");
        eprintln!(
            "  {name:<24} {:>4} times; no write for {median:?} (median), {p99:?} (p99), {worst:?} (worst)",
            gaps.len()
        );
    }
}

/// A cluster of three under a load.
struct Trial {
    fleet: Fleet,
    cluster: Cluster,
    load: Load,
    masters: Masters,
}

impl Trial {
    async fn start(flavour: Flavour) -> Self {
        let fleet = Fleet::start(flavour, 3).await;
        let cluster = fleet.create_running("tried", 3).await;
        let masters = Masters::watch(&cluster.url).await;
        let view = fleet.show("tried").await.unwrap();
        let statements = ["CREATE DATABASE load_db", load::TABLE];
        run(&endpoint(master(&view)), &cluster.account, &statements).await;
        let load = Load::start(&cluster.url, &cluster.account, CLIENTS);
        Self {
            fleet,
            cluster,
            load,
            masters,
        }
    }

    async fn survive(&self, fault: Fault, lasting: Duration) -> Duration {
        survive(&self.fleet, &self.cluster, &self.load, fault, lasting).await
    }

    /// Every member gets all that was acknowledged up to now.
    async fn compare(&self) {
        let acknowledged = self.load.so_far();
        let running = self.fleet.wait_running(&self.cluster, RECOVERY_DEADLINE);
        for member in &running.await.members {
            let (at, account) = (endpoint(member), &self.cluster.account);
            wait_for_texts(&at, account, load::READ, &acknowledged, RECOVERY_DEADLINE).await;
        }
        self.masters.check();
    }

    async fn end(mut self) {
        self.load.stop().await;
        self.compare().await;
        self.fleet.delete_and_wait(&self.cluster).await;
    }
}
