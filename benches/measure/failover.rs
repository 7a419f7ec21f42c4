//! SIGKILL of the master's mysqld, to the first write that the new master accepts.

use std::time::{Duration, Instant};

use cotton::cluster::flavour::Flavour;

use crate::figures::{Figures, line};
use crate::support::FAILOVER_DEADLINE;
use crate::support::database::{connect, execute, run};
use crate::support::discovery::follow;
use crate::support::system::{Options, System, endpoint, master};

/// How often the master is killed.
const KILLS: usize = 20;

/// Between two attempts of the client to write.
const PAUSE: Duration = Duration::from_millis(2);

/// Kills again and again; after each all members are waited for.
pub async fn measure(flavour: Flavour) {
    let mut options = Options::new(flavour);
    // The kills follow each other as soon as all members are there: no cluster should take that for granted, but this one.
    options
        .arguments
        .extend(["--", "--failover-limit", "100"].map(str::to_owned));
    let system = System::with_options(options);
    let cluster = system.create_running("measured", 3).await;
    let account = &cluster.account;
    let view = system.show("measured").await.unwrap();
    let table = "CREATE TABLE measured_db.t (id INT AUTO_INCREMENT PRIMARY KEY, kill_number INT)";
    let statements = ["CREATE DATABASE measured_db", table];
    run(&endpoint(master(&view)), account, &statements).await;

    let discovery = follow(&cluster.url);
    let mut figures = Vec::new();
    for number in 0..KILLS {
        let view = system.wait_running(&cluster, FAILOVER_DEADLINE).await;
        let old = master(&view);
        let mysqld = system.mysqld(old);
        let insert = format!("INSERT INTO measured_db.t (kill_number) VALUES ({number})");
        let start = Instant::now();
        mysqld.kill();
        // What discovery shows is all that the client goes by. The old master accepts nothing any more.
        loop {
            assert!(start.elapsed() < FAILOVER_DEADLINE, "no write is accepted");
            let master = discovery.wait_for_master(FAILOVER_DEADLINE).await.unwrap();
            if let Ok(mut connection) = connect(&master.service_endpoint, account).await
                && execute(&mut connection, &insert).await.is_ok()
            {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        figures.push(start.elapsed());
        eprintln!(
            "{flavour} kill {} of {KILLS}: {:?}",
            number + 1,
            start.elapsed()
        );
    }
    let figures: Figures = figures.into_iter().collect();
    line(
        &format!("{KILLS} kills of the master's mysqld"),
        &figures.millis(),
        "aim: median under 250 ms, worst under 1000 ms",
    );
}
