//! Data to be copied: as much as is asked for, half of it random, so that it can be compressed by half.

use cotton::cluster::service_instance::Endpoint;
use sqlx::mysql::MySqlConnection;

use crate::support::database::{Account, connect, execute};

/// The bytes of one row.
const ROW: u64 = 64 * 1024;

/// The rows of one transaction.
const ROWS: u64 = 128;

/// Megabytes, from `MEGABYTES`, of 1,000,000 bytes each; 2,000 if it is not set.
pub fn megabytes() -> u64 {
    let given = std::env::var("MEGABYTES").ok();
    given.map_or(2_000, |text| text.parse().unwrap())
}

/// Fills a table of a server.
pub async fn fill(at: &Endpoint, account: &Account) {
    fill_through(&mut connect(at, account).await.unwrap()).await;
}

/// Fills a table through a connection.
pub async fn fill_through(connection: &mut MySqlConnection) {
    let random = ["RANDOM_BYTES(1024)"; 32].join(", ");
    let rows = format!(
        "INSERT INTO bulk.filler (content) WITH RECURSIVE numbers (n) AS \
         (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {ROWS}) \
         SELECT CONCAT({random}, REPEAT('a', {})) FROM numbers",
        ROW / 2
    );
    let table = "CREATE TABLE bulk.filler (id BIGINT AUTO_INCREMENT PRIMARY KEY, content LONGBLOB NOT NULL)";
    for statement in ["CREATE DATABASE bulk", table] {
        execute(connection, statement).await.unwrap();
    }
    for _ in 0..(megabytes() * 1_000_000).div_ceil(ROW * ROWS) {
        execute(connection, &rows).await.unwrap();
    }
}

/// Counts the rows of the table, as a text.
pub const COUNT: &str = "SELECT CAST(COUNT(*) AS CHAR) FROM bulk.filler";
