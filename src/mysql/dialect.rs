//! The words in which each flavour is told the same things. Pure: statements and names, no I/O.
//!
//! The statements are those of MySQL 8.0.23 and later, and of MariaDB 10.5.2 and later. MySQL 8.0 has the semi-sync
//! variables under their new names only when the plugins `semisync_source.so` and `semisync_replica.so` (8.0.26)
//! are loaded, as [`super::mycnf`] does. Tried: MySQL 9.7, MariaDB 10.11. Others are as their manuals say, untried.

mod mariadb;
mod mysql;

use uuid::Uuid;

use crate::cluster::{flavour::Flavour, gtid::Position, id::Epoch};

use super::server::Source;

/// How long a replica tries to reach a silent master before it tries anew, in seconds. It also bounds how long it
/// takes to stop a receiver. Without traffic the master sends a heartbeat every half of it.
pub const NETWORK_TIMEOUT_SECONDS: u32 = 10;

/// One flavour's statements and names.
pub struct Dialect {
    /// Whose words these are.
    pub flavour: Flavour,
    /// Reads one row: `read_only`, `clients_admitted` (0 or 1), `executed` and `logged` (positions; what is in the binlog only counts
    /// too) and `server_id`.
    pub state: &'static str,
    /// Reads one row if the server follows somebody.
    pub replication_status: &'static str,
    /// The columns of that row.
    pub columns: Columns,
    /// The semi-sync status variables.
    pub semi_sync: SemiSync,
    /// Stops the receiver and leaves the applier alone.
    pub stop_receiver: &'static str,
    /// Stops receiver and applier.
    pub stop_both: &'static str,
    /// Whether an applier that is to stop within a transaction waits for the rest of it.
    pub applier_waits_for_the_rest: bool,
    /// Starts the applier alone.
    pub start_applier: &'static str,
    /// Forgets whom the server followed, with the relay logs. Both threads are stopped.
    pub forget: &'static str,
    /// Lets clients in.
    pub admit: &'static str,
    /// Keeps new clients out.
    pub refuse: &'static str,
    /// Lets those write who are in.
    pub open: &'static [&'static str],
    /// Lets nobody write but the administration account.
    pub close: &'static [&'static str],
    /// Makes the server writable for the administration account, and for nobody else.
    pub open_for_administration: &'static str,
    /// Reads one row for each replication account: `user`, and `locked` (0 or 1).
    pub replication_accounts: &'static str,
    /// Points at a master and starts. The position is where that begins, where the server does not know it by itself.
    pub follow: fn(&Source, acknowledge: bool, position: &Position) -> Vec<String>,
    /// Makes commits wait for so many acknowledgements; 0: for none.
    pub prepare_source: fn(k: u32) -> Vec<String>,
    /// Writes an epoch's marker. All of it is run on one connection.
    pub marker: fn(cluster: Uuid, epoch: Epoch) -> Vec<String>,
    /// What holds commits back: variables with numbers, all of which must be above 0; first the time, and in the order in which they are set.
    pub commit_delay: fn(microseconds: u64) -> Vec<(&'static str, u64)>,
    /// Waits until a position is executed, for so many seconds at most.
    pub wait: fn(&Position, seconds: f64) -> String,
}

/// Columns of the replication status.
pub struct Columns {
    pub host: &'static str,
    pub port: &'static str,
    pub receiver: &'static str,
    pub applier: &'static str,
    pub receiver_error: &'static str,
    pub applier_error: &'static str,
    pub received: &'static str,
}

/// Status variables of semi-synchronous replication.
pub struct SemiSync {
    pub waiting_sessions: &'static str,
    pub clients: &'static str,
    pub acknowledging: &'static str,
}

/// Reads all of those.
pub const SEMI_SYNC_STATUS: &str = "SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync%'";

/// The canary is one row, updated: it goes through the same commit as a client's write.
pub fn write_canary(number: u64) -> String {
    format!(
        "INSERT INTO cotton.canary (id, n) VALUES (1, {number}) ON DUPLICATE KEY UPDATE n = {number}"
    )
}

/// The canary of a master that has not opened yet. It has a row of its own, because the other one says that the cluster's
/// user is there.
pub fn write_canary_closed(number: u64) -> String {
    format!(
        "INSERT INTO cotton.canary (id, n) VALUES (4, {number}) ON DUPLICATE KEY UPDATE n = {number}"
    )
}

/// Reads the canary of masters that were open, if there ever was one.
pub const READ_CANARY: &str = "SELECT n FROM cotton.canary WHERE id = 1";

/// Reads the highest canary, if there ever was one.
pub const READ_HIGHEST_CANARY: &str =
    "SELECT n FROM cotton.canary WHERE id IN (1, 4) ORDER BY n DESC LIMIT 1";

/// A commit whose acknowledgement proves that of all before it. It changes its row each time: an update that
/// changes nothing would not be a transaction.
pub const WRITE_PROOF: &str =
    "INSERT INTO cotton.canary (id, n) VALUES (2, 1) ON DUPLICATE KEY UPDATE n = n + 1";

/// A commit that shows that commits come through.
pub const WRITE_CHECK: &str =
    "INSERT INTO cotton.canary (id, n) VALUES (3, 1) ON DUPLICATE KEY UPDATE n = n + 1";

impl Dialect {
    /// The words of a flavour.
    pub fn of(flavour: Flavour) -> &'static Dialect {
        match flavour {
            Flavour::Mysql => &mysql::DIALECT,
            Flavour::Mariadb => &mariadb::DIALECT,
        }
    }
}
