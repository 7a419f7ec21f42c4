//! The server's configuration file. Pure.
//!
//! The user's own file comes first and Cotton's settings after it: of two values the server takes the later one.
//! Settings in the user's file that Cotton could not undo that way, or that say that somebody expects less
//! safety than Cotton gives, are refused by name ([`Refusal`]).
//!
//! A server always starts closed: read-only, without clients, with replication stopped and semi-synchronous replication off
//! in both directions. What it becomes is switched on while it runs. The network is open from the start, for replication
//! alone: clients are kept out by `offline_mode` (MySQL) and by an `init_connect` that fails (MariaDB).

mod memory;
mod user_file;

use std::{fmt::Write, path::PathBuf};

use super::{accounts::MARIADB_INIT_CONNECT, dialect::NETWORK_TIMEOUT_SECONDS};
use crate::cluster::flavour::{Flavour, ServerVersion};

pub use memory::minimum_memory_mib;
pub use user_file::{Reason, Refusal};

/// All that a configuration depends on.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// The installed server's flavour.
    pub flavour: Flavour,
    /// The installed server's version.
    pub version: ServerVersion,
    /// The member's id in replication, at least 1.
    pub server_id: u32,
    /// The TCP port.
    pub port: u16,
    /// The address to listen on, `*` for all.
    pub bind_address: String,
    /// How others reach this host; shown on a master in the list of its replicas.
    pub report_host: String,
    /// The data directory.
    pub data_dir: PathBuf,
    /// The unix socket; at most 107 bytes.
    pub socket: PathBuf,
    /// Where temporary files go. No other server may have it: MariaDB, when it starts, deletes all temporary
    /// tables that it finds there.
    pub tmp_dir: PathBuf,
    /// What mysqld may use, in MiB: the task's memory without the executor's share.
    pub memory_mib: u64,
    /// Whether mysqld is started by root and shall stay root.
    pub as_root: bool,
    /// Whether received transactions are acknowledged before they are on disk: survives crashes, but not a power loss of master and
    /// acknowledger together. For about half the time of a serial insert.
    pub relaxed_durability: bool,
    /// The contents of the user's own file.
    pub user_defaults: Option<String>,
}

/// Why there is no configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MyCnfError {
    /// The user's file has settings that are not allowed.
    #[error("the MySQL defaults file cannot be used: {}", list(.0))]
    Refused(Vec<Refusal>),
    /// The server does not fit.
    #[error("{flavour} needs {needed} MiB of memory at the least, and there are {given} MiB")]
    TooLittleMemory {
        /// The flavour.
        flavour: Flavour,
        /// See [`minimum_memory_mib`].
        needed: u64,
        /// What there is.
        given: u64,
    },
    /// A path or name has a line break in it, or another character that would end a value.
    #[error("the {setting} {value:?} cannot be written into a configuration file")]
    Unwritable {
        /// What it was for.
        setting: &'static str,
        /// What was given.
        value: String,
    },
}

fn list(refusals: &[Refusal]) -> String {
    refusals
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

/// Refuses a user's file as [`render`] would, for when it is given.
///
/// # Errors
/// All refused settings.
pub fn check_user_defaults(flavour: Flavour, text: &str) -> Result<(), MyCnfError> {
    let refusals = user_file::refusals(flavour, text);
    if refusals.is_empty() {
        Ok(())
    } else {
        Err(MyCnfError::Refused(refusals))
    }
}

/// The configuration file.
///
/// # Errors
/// [`MyCnfError`].
pub fn render(settings: &ServerSettings) -> Result<String, MyCnfError> {
    let mut text = String::new();
    if let Some(user_defaults) = &settings.user_defaults {
        check_user_defaults(settings.flavour, user_defaults)?;
        text.push_str("# The user's own settings.\n");
        text.push_str(user_defaults.trim_end());
        text.push_str("\n\n# Cotton's settings; they win.\n");
    }
    text.push_str("[mysqld]\n");
    let mut lines = place(settings)?;
    lines.extend(replication(settings));
    lines.extend(match settings.flavour {
        Flavour::Mysql => mysql(),
        Flavour::Mariadb => mariadb(),
    });
    lines.extend(memory::lines(settings.flavour, settings.memory_mib)?);
    for (name, value) in lines {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name} = {value}");
    }
    Ok(text)
}

/// A name and its value.
type Line = (&'static str, String);

fn line(name: &'static str, value: impl ToString) -> Line {
    (name, value.to_string())
}

/// Who and where the server is. Destructured, so that no setting is forgotten.
fn place(settings: &ServerSettings) -> Result<Vec<Line>, MyCnfError> {
    let ServerSettings {
        flavour: _,
        version: _,
        server_id,
        port,
        bind_address,
        report_host,
        data_dir,
        socket,
        tmp_dir,
        memory_mib: _,
        as_root,
        relaxed_durability: _,
        user_defaults: _,
    } = settings;
    let mut lines = vec![
        line("server_id", server_id),
        line("port", port),
        line("bind_address", writable("address", bind_address)?),
        line("report_host", writable("host name", report_host)?),
        line("report_port", port),
        line(
            "datadir",
            writable("data directory", &data_dir.to_string_lossy())?,
        ),
        line("socket", writable("socket", &socket.to_string_lossy())?),
        line(
            "tmpdir",
            writable("directory for temporary files", &tmp_dir.to_string_lossy())?,
        ),
        line("pid_file", "mysqld.pid"),
        line("skip_name_resolve", "ON"),
        line("local_infile", "OFF"),
    ];
    if *as_root {
        lines.push(line("user", "root"));
    }
    Ok(lines)
}

/// A value between quotes, in which the server reads backslashes as the start of an escape.
fn writable(setting: &'static str, value: &str) -> Result<String, MyCnfError> {
    if value.is_empty() || value.contains(|c: char| c.is_control() || c == '"' || c == '\\') {
        return Err(MyCnfError::Unwritable {
            setting,
            value: value.to_owned(),
        });
    }
    Ok(format!("\"{value}\""))
}

/// What keeps acknowledged transactions, in both flavours.
fn replication(settings: &ServerSettings) -> Vec<Line> {
    vec![
        line("log_bin", "binlog"),
        line("relay_log", "relay"),
        line("binlog_row_image", "FULL"),
        line("sync_binlog", 1),
        line("innodb_flush_log_at_trx_commit", 1),
        // By default both flavours acknowledge without any fsync.
        line(
            "sync_relay_log",
            if settings.relaxed_durability {
                10_000
            } else {
                1
            },
        ),
        // ON forgets acknowledged transactions in a restart.
        line("relay_log_recovery", "OFF"),
        line("relay_log_purge", "ON"),
        // A member that starts empty replays the binlogs from the first.
        line("binlog_expire_logs_seconds", 0),
        line("read_only", "ON"),
        // Replicated routines and triggers are in row format: there is nothing to trust.
        line("log_bin_trust_function_creators", "ON"),
    ]
}

fn mysql() -> Vec<Line> {
    vec![
        line("gtid_mode", "ON"),
        line("enforce_gtid_consistency", "ON"),
        line("log_replica_updates", "ON"),
        // The only format that later versions have; they warn of the setting.
        line("loose_binlog_format", "ROW"),
        line("loose_binlog_expire_logs_auto_purge", "OFF"),
        line("skip_replica_start", "ON"),
        line("replica_preserve_commit_order", "ON"),
        line("replica_net_timeout", NETWORK_TIMEOUT_SECONDS),
        line("super_read_only", "ON"),
        line("offline_mode", "ON"),
        // SET PERSIST could undo all of this in the next start.
        line("persisted_globals_load", "OFF"),
        // The cluster's user has no rights in the schemas `mysql` and `cotton`.
        line("partial_revokes", "ON"),
        // A table that does not survive a crash loses transactions that count as executed.
        line(
            "disabled_storage_engines",
            "MyISAM,MEMORY,CSV,ARCHIVE,BLACKHOLE,FEDERATED,MRG_MyISAM,EXAMPLE",
        ),
        line(
            "plugin_load_add",
            "semisync_source.so;semisync_replica.so;mysql_clone.so",
        ),
        // A server that starts as either has been seen to truncate its binlog, or to go on as if it were still in office.
        line("rpl_semi_sync_source_enabled", "OFF"),
        line("rpl_semi_sync_replica_enabled", "OFF"),
        line("mysqlx", "OFF"),
        line("secure_file_priv", "NULL"),
    ]
}

fn mariadb() -> Vec<Line> {
    vec![
        line("gtid_strict_mode", "ON"),
        line("gtid_domain_id", 0),
        line("log_slave_updates", "ON"),
        line("binlog_format", "ROW"),
        line("skip_slave_start", "ON"),
        // Transactions of different domains must not overtake each other: a marker says that all before it is there.
        line("slave_parallel_threads", 0),
        line("slave_net_timeout", NETWORK_TIMEOUT_SECONDS),
        // Any session may mark its transactions to be skipped by slaves that heed the mark.
        line("replicate_events_marked_for_skip", "REPLICATE"),
        // Without limit.
        line("master_retry_count", 0),
        line("init_connect", format!("\"{MARIADB_INIT_CONNECT}\"")),
        // A table that does not survive a crash loses transactions that count as executed.
        line("enforce_storage_engine", "InnoDB"),
        // A server that starts as either truncates its binlog at an acknowledged transaction (MDEV-21117).
        line("rpl_semi_sync_master_enabled", "OFF"),
        line("rpl_semi_sync_slave_enabled", "OFF"),
        line("symbolic_links", "OFF"),
    ]
}

#[cfg(test)]
mod tests;
