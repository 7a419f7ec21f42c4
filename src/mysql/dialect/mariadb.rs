//! MariaDB's words (knowledge base: "Replication Commands", "Global Transaction ID", "Semisynchronous Replication").

use uuid::Uuid;

use super::{Columns, Dialect, SemiSync};
use crate::{
    cluster::{
        flavour::Flavour,
        gtid::{MARKER_DOMAIN, Position},
        id::Epoch,
    },
    mysql::{accounts::MARIADB_REFUSES_CLIENTS, server::Source, sql},
};

/// How long a master waits for an acknowledgement, in milliseconds: 136 years. MariaDB takes any 64-bit number and
/// adds it to the clock; much greater ones would overflow there.
const LONGEST_WAIT_MS: u64 = u32::MAX as u64 * 1000;

pub static DIALECT: Dialect = Dialect {
    flavour: Flavour::Mariadb,
    // The binlog names what this server wrote or applied, gtid_slave_pos what it applied; a crash between a
    // DDL statement and its position, or a time as master, makes them differ.
    state: "SELECT @@GLOBAL.read_only AS read_only, @@GLOBAL.init_connect = '' AS clients_admitted, \
            @@GLOBAL.gtid_slave_pos AS executed, @@GLOBAL.gtid_binlog_pos AS logged, @@GLOBAL.server_id AS server_id",
    replication_status: "SHOW SLAVE STATUS",
    columns: Columns {
        host: "Master_Host",
        port: "Master_Port",
        receiver: "Slave_IO_Running",
        applier: "Slave_SQL_Running",
        receiver_error: "Last_IO_Error",
        applier_error: "Last_SQL_Error",
        received: "Gtid_IO_Pos",
    },
    semi_sync: SemiSync {
        waiting_sessions: "Rpl_semi_sync_master_wait_sessions",
        clients: "Rpl_semi_sync_master_clients",
        acknowledging: "Rpl_semi_sync_slave_status",
    },
    stop_receiver: "STOP SLAVE IO_THREAD",
    stop_both: "STOP SLAVE",
    applier_waits_for_the_rest: false,
    start_applier: "START SLAVE SQL_THREAD",
    forget: "RESET SLAVE ALL",
    admit: "SET GLOBAL init_connect = ''",
    refuse: MARIADB_REFUSES_CLIENTS,
    open: &["SET GLOBAL read_only = OFF"],
    close: &["SET GLOBAL read_only = ON"],
    // The administration account has READ_ONLY ADMIN: it writes in any case.
    open_for_administration: "DO 0",
    replication_accounts: "SELECT User AS user, COALESCE(JSON_VALUE(Priv, '$.account_locked') IN ('1', 'true'), 0) \
                           AS locked FROM mysql.global_priv WHERE User LIKE 'cotton\\_replication\\_%'",
    follow,
    prepare_source,
    marker,
    commit_delay: |microseconds| {
        vec![
            ("binlog_commit_wait_usec", microseconds),
            // The number of commits that end the wait; 0: there is none.
            ("binlog_commit_wait_count", 1_000_000),
        ]
    },
    wait: |position, seconds| format!("SELECT MASTER_GTID_WAIT('{position}', {seconds})"),
};

fn follow(source: &Source, acknowledge: bool, position: &Position) -> Vec<String> {
    let Source {
        host,
        port,
        user,
        password,
    } = source;
    let on = if acknowledge { "ON" } else { "OFF" };
    vec![
        // A former master's own transactions stand in its binlog only; replication begins at gtid_slave_pos. Strict mode
        // refuses to begin before a marker that this server wrote itself, which is what a marker without acknowledgement
        // takes (tried).
        "SET GLOBAL gtid_strict_mode = OFF".to_owned(),
        format!("SET GLOBAL gtid_slave_pos = '{position}'"),
        "SET GLOBAL gtid_strict_mode = ON".to_owned(),
        // A stopping receiver asks its master to end the connection, and waits that long for a dead one.
        "SET GLOBAL rpl_semi_sync_slave_kill_conn_timeout = 1".to_owned(),
        // The receiver reads this when it starts and at no other time.
        format!("SET GLOBAL rpl_semi_sync_slave_enabled = {on}"),
        format!(
            "CHANGE MASTER TO MASTER_HOST = {}, MASTER_PORT = {port}, MASTER_USER = {}, MASTER_PASSWORD = {}, \
             MASTER_USE_GTID = slave_pos, MASTER_CONNECT_RETRY = 1, MASTER_HEARTBEAT_PERIOD = {}",
            sql::text(host),
            sql::text(user),
            sql::text(password.expose()),
            super::NETWORK_TIMEOUT_SECONDS / 2,
        ),
        "START SLAVE".to_owned(),
    ]
}

fn prepare_source(k: u32) -> Vec<String> {
    if k == 0 {
        return vec!["SET GLOBAL rpl_semi_sync_master_enabled = OFF".to_owned()];
    }
    vec![
        // All conditions before the switch: the defaults are AFTER_COMMIT and ten seconds.
        format!("SET GLOBAL rpl_semi_sync_master_timeout = {LONGEST_WAIT_MS}"),
        "SET GLOBAL rpl_semi_sync_master_wait_point = AFTER_SYNC".to_owned(),
        "SET GLOBAL rpl_semi_sync_master_wait_no_slave = ON".to_owned(),
        "SET GLOBAL rpl_semi_sync_master_enabled = ON".to_owned(),
    ]
}

/// A row in the markers' own domain, whose sequence number is the epoch. It names the whole GTID for those who follow later.
fn marker(_cluster: Uuid, epoch: Epoch) -> Vec<String> {
    vec![
        // One by one: the number is compared with the session's domain when it is set.
        format!("SET SESSION gtid_domain_id = {MARKER_DOMAIN}"),
        format!("SET SESSION gtid_seq_no = {epoch}"),
        format!("INSERT INTO cotton.marker (epoch, server) VALUES ({epoch}, @@GLOBAL.server_id)"),
    ]
}
