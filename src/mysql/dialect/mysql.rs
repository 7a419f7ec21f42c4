//! MySQL's words (manual: "SQL Statements for Controlling Replica Servers", "Semisynchronous Replication").

use uuid::Uuid;

use super::{Columns, Dialect, NETWORK_TIMEOUT_SECONDS, SemiSync};
use crate::{
    cluster::{flavour::Flavour, gtid::Position, id::Epoch},
    mysql::{server::Source, sql},
};

/// The longest time that a MySQL master waits for an acknowledgement, in milliseconds: 49.7 days.
const LONGEST_WAIT_MS: u32 = u32::MAX;

/// The greatest number of attempts to reach a master. The default of 8.4 and later is ten, then it gives up.
const RETRY_COUNT: u32 = u32::MAX;

pub static DIALECT: Dialect = Dialect {
    flavour: Flavour::Mysql,
    state: "SELECT @@GLOBAL.read_only AS read_only, @@GLOBAL.offline_mode = 0 AS clients_admitted, \
            @@GLOBAL.gtid_executed AS executed, '' AS logged, @@GLOBAL.server_id AS server_id",
    replication_status: "SHOW REPLICA STATUS",
    columns: Columns {
        host: "Source_Host",
        port: "Source_Port",
        receiver: "Replica_IO_Running",
        applier: "Replica_SQL_Running",
        receiver_error: "Last_IO_Error",
        applier_error: "Last_SQL_Error",
        received: "Retrieved_Gtid_Set",
    },
    semi_sync: SemiSync {
        waiting_sessions: "Rpl_semi_sync_source_wait_sessions",
        clients: "Rpl_semi_sync_source_clients",
        acknowledging: "Rpl_semi_sync_replica_status",
    },
    stop_receiver: "STOP REPLICA IO_THREAD",
    stop_both: "STOP REPLICA",
    applier_waits_for_the_rest: true,
    start_applier: "START REPLICA SQL_THREAD",
    forget: "RESET REPLICA ALL",
    admit: "SET GLOBAL offline_mode = OFF",
    refuse: "SET GLOBAL offline_mode = ON",
    // Switching read_only off switches super_read_only off, and super_read_only on switches read_only on.
    open: &["SET GLOBAL read_only = OFF"],
    close: &["SET GLOBAL super_read_only = ON"],
    open_for_administration: "SET GLOBAL super_read_only = OFF",
    replication_accounts: "SELECT User AS user, account_locked = 'Y' AS locked FROM mysql.user \
                           WHERE User LIKE 'cotton\\_replication\\_%'",
    follow,
    prepare_source,
    marker,
    commit_delay: |microseconds| vec![("binlog_group_commit_sync_delay", microseconds)],
    wait: |position, seconds| format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{position}', {seconds})"),
};

fn follow(source: &Source, acknowledge: bool, _position: &Position) -> Vec<String> {
    let Source {
        host,
        port,
        user,
        password,
    } = source;
    let on = if acknowledge { "ON" } else { "OFF" };
    vec![
        // The receiver reads this when it starts and at no other time.
        format!("SET GLOBAL rpl_semi_sync_replica_enabled = {on}"),
        // TLS, without which caching_sha2_password would send nothing; certificates are the server's own, unverified.
        format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST = {}, SOURCE_PORT = {port}, SOURCE_USER = {}, \
             SOURCE_PASSWORD = {}, SOURCE_AUTO_POSITION = 1, SOURCE_SSL = 1, SOURCE_CONNECT_RETRY = 1, \
             SOURCE_RETRY_COUNT = {RETRY_COUNT}, SOURCE_HEARTBEAT_PERIOD = {}",
            sql::text(host),
            sql::text(user),
            sql::text(password.expose()),
            NETWORK_TIMEOUT_SECONDS / 2,
        ),
        "START REPLICA".to_owned(),
    ]
}

fn prepare_source(k: u32) -> Vec<String> {
    if k == 0 {
        return vec!["SET GLOBAL rpl_semi_sync_source_enabled = OFF".to_owned()];
    }
    vec![
        // All conditions before the switch: no commit may wait under the defaults.
        format!("SET GLOBAL rpl_semi_sync_source_timeout = {LONGEST_WAIT_MS}"),
        "SET GLOBAL rpl_semi_sync_source_wait_point = AFTER_SYNC".to_owned(),
        "SET GLOBAL rpl_semi_sync_source_wait_no_replica = ON".to_owned(),
        format!("SET GLOBAL rpl_semi_sync_source_wait_for_replica_count = {k}"),
        "SET GLOBAL rpl_semi_sync_source_enabled = ON".to_owned(),
    ]
}

/// An empty transaction under the marker's name. It is binlogged, waits for acknowledgements, is replicated, and
/// is possible while the server is `super_read_only`. If another session is at the same marker, the first statement waits for that.
fn marker(cluster: Uuid, epoch: Epoch) -> Vec<String> {
    vec![
        format!("SET SESSION gtid_next = '{cluster}:{epoch}'"),
        "BEGIN".to_owned(),
        "COMMIT".to_owned(),
    ]
}
