//! Whatever breaks, under a load: nothing that was acknowledged is lost, and the cluster goes on.
//!
//! Each agent has a host and a disk of its own here, so that hosts can be cut off and disks be full. A few faults are
//! part of every run; `make soak` takes all of them ([`crate::soak`]).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use cotton::cluster::flavour::Flavour;
use cotton::cluster::service_instance::Endpoint;

use crate::support::database::{Account, run, texts};
use crate::support::discovery::Masters;
use crate::support::eventually;
use crate::support::faults::{Fault, Outcome, RECOVERY_DEADLINE, Victim, survive};
use crate::support::fleet::Fleet;
use crate::support::load::{self, Load};
use crate::support::planned::{Planned, go_through};
use crate::support::system::{Cluster, endpoint, master};

crate::for_both_flavours!(faults_lose_nothing);

/// How many clients write.
const CLIENTS: usize = 4;

/// How long each of them waits after a write: slaves apply one after the other, and a dozen servers share a machine.
const PAUSE: Duration = Duration::from_millis(250);

/// Longer than any timeout that tells that somebody is gone.
const LASTING: Duration = Duration::from_secs(12);

/// Long enough for a hung server and a full disk to be noticed.
const SHORT: Duration = Duration::from_secs(5);

async fn faults_lose_nothing(flavour: Flavour) {
    let trial = Trial::start(flavour).await;
    for (fault, lasting) in [
        (Fault::ZooKeeperDown, LASTING),
        (Fault::HostCutOff(Victim::Master), LASTING),
        (Fault::HostMute(Victim::Master), LASTING),
        (Fault::ServerFrozen(Victim::Slave), SHORT),
        (Fault::DiskFull(Victim::Master), SHORT),
        (Fault::SlaveCutFromMaster, SHORT),
        (Fault::ExecutorKilled(Victim::Slave), SHORT),
    ] {
        trial.survive(fault, lasting).await;
    }
    trial.end().await;
}

/// All of ZooKeeper is down for longer than any patience: no write fails, and nobody changes.
mod a_minute_without_zookeeper {
    use super::*;

    #[tokio::test]
    #[ignore = "longer than make test should take; make soak"]
    async fn mariadb() {
        a_minute(Flavour::Mariadb).await;
    }

    #[tokio::test]
    #[ignore = "longer than make test should take; make soak"]
    async fn mysql() {
        a_minute(Flavour::Mysql).await;
    }

    async fn a_minute(flavour: Flavour) {
        let trial = Trial::start(flavour).await;
        let minute = Duration::from_secs(60);
        trial.survive(Fault::ZooKeeperDown, minute).await;
        trial.end().await;
    }
}

/// A cluster of three under a load.
pub struct Trial {
    fleet: Fleet,
    cluster: Cluster,
    /// The clients.
    pub load: Load,
    masters: Masters,
}

impl Trial {
    /// Starts it on three hosts of its own.
    pub async fn start(flavour: Flavour) -> Self {
        Self::start_on(flavour, 3).await
    }

    /// Starts it on so many hosts of its own.
    pub async fn start_on(flavour: Flavour, hosts: u8) -> Self {
        let fleet = Fleet::with_disks(flavour, hosts).await;
        let cluster = fleet.create_running("tried", 3).await;
        let masters = Masters::watch(&cluster.url).await;
        let view = fleet.show("tried").await.unwrap();
        let statements = ["CREATE DATABASE load_db", load::TABLE];
        run(&endpoint(master(&view)), &cluster.account, &statements).await;
        let load = Load::paced(&cluster.url, &cluster.account, CLIENTS, PAUSE);
        Self {
            fleet,
            cluster,
            load,
            masters,
        }
    }

    /// See [`survive`].
    pub async fn survive(&self, fault: Fault, lasting: Duration) -> Outcome {
        survive(&self.fleet, &self.cluster, &self.load, fault, lasting).await
    }

    /// See [`go_through`].
    pub async fn go_through(&self, planned: Planned, lasting: Duration) -> Outcome {
        go_through(&self.fleet, &self.cluster, &self.load, planned, lasting).await
    }

    /// Every member gets all that was acknowledged up to now, and discovery never had two masters.
    pub async fn compare(&self) {
        let acknowledged = self.load.so_far();
        let running = self.fleet.wait_running(&self.cluster, RECOVERY_DEADLINE);
        for member in &running.await.members {
            let at = endpoint(member);
            let lost = eventually("the table can be read", RECOVERY_DEADLINE, async || {
                lost_at(&at, &self.cluster.account, &acknowledged).await
            });
            let lost = lost.await;
            assert!(
                lost.is_empty(),
                "of {} acknowledged writes member {} lacks {}: {:?}",
                acknowledged.len(),
                member.id,
                lost.len(),
                lost.iter().take(20).collect::<Vec<_>>()
            );
        }
        self.masters.check();
    }

    /// Ends the load, compares, and deletes the cluster.
    pub async fn end(mut self) {
        self.load.stop().await;
        self.compare().await;
        self.fleet.delete_and_wait(&self.cluster).await;
    }
}

/// What a member lacks of `acknowledged`, once what it has does not change any more. `None` when it cannot be read.
async fn lost_at(
    at: &Endpoint,
    account: &Account,
    acknowledged: &BTreeSet<String>,
) -> Option<BTreeSet<String>> {
    const CATCHING_UP: Duration = Duration::from_secs(60);
    let start = Instant::now();
    loop {
        let found = texts(at, account, load::READ).await.ok()?;
        if acknowledged.is_subset(&found) || start.elapsed() > CATCHING_UP {
            return Some(acknowledged.difference(&found).cloned().collect());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
