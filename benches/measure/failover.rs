//! How long a client cannot write when a master fails, for each way in which it fails.

use std::time::{Duration, Instant};

use cotton::cluster::flavour::Flavour;
use cotton::zookeeper::serverset::ServerSet;

use crate::figures::{Figures, line};
use crate::support::FAILOVER_DEADLINE;
use crate::support::database::{Account, connect, execute, run};
use crate::support::discovery::follow;
use crate::support::faults::{Fault, RECOVERY_DEADLINE, Victim};
use crate::support::fleet::Fleet;
use crate::support::system::{endpoint, master};

/// Between two attempts of the client to write.
const PAUSE: Duration = Duration::from_millis(2);

/// A way to fail.
pub struct Class {
    /// The word that chooses it.
    pub word: &'static str,
    /// What happens.
    what: &'static str,
    fault: Fault,
    /// How often.
    times: usize,
    aim: &'static str,
}

/// All of them.
pub const CLASSES: [Class; 4] = [
    Class {
        word: "failover",
        what: "SIGKILL of the master's mysqld",
        fault: Fault::ServerKilled(Victim::Master),
        times: 20,
        aim: "aim: median under 0.25 s, worst under 1 s",
    },
    Class {
        word: "executor-killed",
        what: "SIGKILL of the master's executor",
        fault: Fault::ExecutorKilled(Victim::Master),
        times: 10,
        aim: "",
    },
    Class {
        word: "cut-off",
        what: "the master's host silently cut off",
        fault: Fault::HostCutOff(Victim::Master),
        times: 5,
        aim: "aim: the session timeout of 6 s and 1 s more",
    },
    Class {
        word: "hung",
        what: "SIGSTOP of the master's mysqld",
        fault: Fault::ServerFrozen(Victim::Master),
        times: 5,
        aim: "hang timeout: 3 s",
    },
];

/// Lets a cluster of three fail again and again in each of these ways; after each all members are waited for.
pub async fn measure(flavour: Flavour, classes: &[&Class]) {
    let fleet = Fleet::start(flavour, 3).await;
    let cluster = fleet.create_running("measured", 3).await;
    let view = fleet.show("measured").await.unwrap();
    let table = "CREATE TABLE measured_db.t (id INT AUTO_INCREMENT PRIMARY KEY, number INT)";
    let statements = ["CREATE DATABASE measured_db", table];
    run(&endpoint(master(&view)), &cluster.account, &statements).await;

    let discovery = follow(&cluster.url);
    for class in classes {
        let mut figures = Vec::new();
        for number in 0..class.times {
            let view = fleet.wait_running(&cluster, RECOVERY_DEADLINE).await;
            // A client that is there already has its connection; this one, all but that.
            discovery.wait_for_master(FAILOVER_DEADLINE).await.unwrap();
            let insert = format!("INSERT INTO measured_db.t (number) VALUES ({number})");
            let start = Instant::now();
            let mend = class.fault.inject(&fleet, &view).await;
            write(&discovery, &cluster.account, &insert).await;
            let took = start.elapsed();
            mend.mend().await;
            eprintln!(
                "{flavour}, {}, {} of {}: {took:?}",
                class.what,
                number + 1,
                class.times
            );
            figures.push(took);
        }
        let figures: Figures = figures.into_iter().collect();
        line(
            &format!("{}, {} times", class.what, class.times),
            &figures.percentiles(),
            class.aim,
        );
    }
}

/// What discovery shows is all that the client goes by. It logs in anew at each attempt, and gives an attempt up when
/// discovery names another master, as one at a host that is cut off would be answered by nobody.
async fn write(discovery: &ServerSet, account: &Account, insert: &str) {
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < FAILOVER_DEADLINE, "no write is accepted");
        let master = discovery.wait_for_master(FAILOVER_DEADLINE).await.unwrap();
        let attempt = async {
            let mut connection = connect(&master.service_endpoint, account).await?;
            execute(&mut connection, insert).await
        };
        let written = tokio::select! {
            written = attempt => written.is_ok(),
            _ = discovery.wait_for_other_master(&master, FAILOVER_DEADLINE) => false,
        };
        if written {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}
