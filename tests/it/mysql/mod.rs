//! Real servers of both flavours, administrated as Cotton does it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use cotton::cluster::{flavour::Flavour, gtid::Position};
use cotton::mysql::{Observation, Server};
use sqlx::{AssertSqlSafe, Executor, mysql::MySqlConnection};
use tokio::time::Instant;
use uuid::Uuid;

use crate::support::{eventually, mysqld::Mysqld};

/// Makes one test per flavour of functions that take the flavour.
macro_rules! both_flavours {
    ($($name:ident),* $(,)?) => {
        mod mariadb {
            $(#[tokio::test] async fn $name() { super::$name(cotton::cluster::flavour::Flavour::Mariadb).await })*
        }
        mod mysql {
            $(#[tokio::test] async fn $name() { super::$name(cotton::cluster::flavour::Flavour::Mysql).await })*
        }
    };
}

mod barring;
mod clients;
mod cloning;
mod commits;
mod memory;
mod privileges;
mod replication;
mod restart;
mod tables;
mod writing;

const CLUSTER: Uuid = Uuid::from_u128(0xc077_0000_0000_4000_8000_0000_0000_0001);

/// Long enough for a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// Long enough to be sure that something waits, on a machine that is not loaded too much.
fn at_once() -> Instant {
    Instant::now() + Duration::from_secs(2)
}

/// A master that is open for clients and writing, without waiting for acknowledgements.
async fn open_master(flavour: Flavour, server_id: u32) -> (Mysqld, Server) {
    let mysqld = Mysqld::start(flavour, server_id).await;
    let server = mysqld.connect().await;
    server.open_for_writes().await.unwrap();
    server.admit_clients().await.unwrap();
    (mysqld, server)
}

/// A server that follows and streams.
async fn follower(master: &Mysqld, server_id: u32, acknowledge: bool) -> (Mysqld, Server) {
    follower_as(0, master, server_id, acknowledge).await
}

/// A server that follows and streams with the account of member 0 or 1.
async fn follower_as(
    member: u32,
    master: &Mysqld,
    server_id: u32,
    acknowledge: bool,
) -> (Mysqld, Server) {
    let mysqld = Mysqld::start(master.installed.flavour, server_id).await;
    let server = mysqld.connect().await;
    let source = master.source_for(member);
    server.follow(&source, acknowledge).await.unwrap();
    wait_for(&server, "the replica receives", |seen| {
        seen.replication.as_ref().is_some_and(|r| r.receiving)
    })
    .await;
    (mysqld, server)
}

/// Waits until an observation is as wanted.
async fn wait_for(
    server: &Server,
    what: &str,
    wanted: impl Fn(&Observation) -> bool,
) -> Observation {
    eventually(what, PATIENCE, || async {
        Some(server.observe().await.unwrap()).filter(&wanted)
    })
    .await
}

/// Runs statements that must succeed.
async fn run(connection: &mut MySqlConnection, statements: &[&str]) {
    for statement in statements {
        let result = connection
            .execute(sqlx::raw_sql(AssertSqlSafe(*statement)))
            .await;
        result.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

/// The first column of the first row, as text.
async fn ask(connection: &mut MySqlConnection, query: &str) -> Option<String> {
    use sqlx::Row;
    let row = connection
        .fetch_optional(sqlx::raw_sql(AssertSqlSafe(query)))
        .await
        .unwrap()?;
    let bytes: Option<Vec<u8>> = row.try_get_unchecked(0).unwrap();
    bytes.map(|bytes| String::from_utf8(bytes).unwrap())
}

fn union(a: &Position, b: &Position) -> Position {
    a.union(b).unwrap()
}
