//! A server in the memory of the default size.

use cotton::cluster::flavour::Flavour;
use futures::future::join_all;

use super::*;
use crate::support::mysqld::ADMIN;

both_flavours!(a_server_full_of_data_stays_within_its_memory);

/// What the default size leaves to mysqld, in MiB.
const DEFAULT_SIZE_MIB: u64 = 480;

/// Goal: the buffer pool's size leaves enough for everything else. Method: write more than the pool holds, read it back on many
/// connections at the same time with sorting and temporary tables, and look at the peak of the resident memory.
async fn a_server_full_of_data_stays_within_its_memory(flavour: Flavour) {
    const CONNECTIONS: usize = 12;
    let mysqld = Mysqld::start_with(flavour, 1, |settings| {
        settings.memory_mib = DEFAULT_SIZE_MIB
    })
    .await;
    let server = mysqld.connect().await;
    server.open_for_writes().await.unwrap();
    let mut admin = mysqld.local().await;
    run(&mut admin, &[
        "CREATE DATABASE d",
        "CREATE TABLE d.t (id INT PRIMARY KEY AUTO_INCREMENT, k INT, pad VARBINARY(3000), KEY (k))",
        "INSERT INTO d.t (k, pad) VALUES (1, REPEAT('x', 3000))",
        // Not replicated: it is about memory, and the disk is shared.
        "SET sql_log_bin = 0",
    ]).await;
    // 2^17 rows of 3000 bytes are 400 MiB.
    for _ in 0..17 {
        run(
            &mut admin,
            &["INSERT INTO d.t (k, pad) SELECT RAND() * 1000000, pad FROM d.t"],
        )
        .await;
    }
    let filled = peak_mib(&mysqld);
    let reads = (0..CONNECTIONS).map(|_| async {
        let mut connection = mysqld.local().await;
        run(
            &mut connection,
            &[
                "SELECT SUM(LENGTH(pad)) FROM d.t WHERE id % 3 = 0",
                "SELECT id FROM d.t ORDER BY k * 7 % 1000 LIMIT 10",
                "SELECT k % 5000 AS g, COUNT(*) FROM d.t GROUP BY g ORDER BY 2 LIMIT 10",
            ],
        )
        .await;
        connection
    });
    let connections = join_all(reads).await;
    let peak = peak_mib(&mysqld);
    eprintln!(
        "{flavour}: {filled} MiB, then {peak} MiB of {DEFAULT_SIZE_MIB} with {} connections of {ADMIN}",
        connections.len()
    );
    assert!(peak < DEFAULT_SIZE_MIB, "{peak} MiB");
}

/// The peak of the resident memory of a server, in MiB.
fn peak_mib(mysqld: &Mysqld) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", mysqld.pid())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        / 1024
}
