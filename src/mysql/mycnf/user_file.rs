//! What may not stand in a user's own my.cnf. Pure.

use std::fmt;

use crate::cluster::flavour::Flavour;

/// A line of the user's file that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The line's number, from 1.
    pub line: usize,
    /// The setting as it is written there.
    pub setting: String,
    /// Why it is not allowed.
    pub reason: Reason,
}

/// Why a line is not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The setting decides over durability, replication or access; Cotton sets it.
    Safety,
    /// What another file says cannot be checked.
    Include,
    /// The line stands before the first `[group]`, where the server refuses it.
    NoGroup,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            line,
            setting,
            reason,
        } = self;
        match reason {
            Reason::Safety => write!(
                f,
                "{setting} in line {line} would decide over the safety of the data, which Cotton does; remove it"
            ),
            Reason::Include => write!(
                f,
                "{setting} in line {line} reads another file; put its lines here instead"
            ),
            Reason::NoGroup => write!(
                f,
                "{setting} in line {line} stands before any group; put [mysqld] before it"
            ),
        }
    }
}

/// Settings of both flavours that users may not make, without prefixes such as `skip_`. Those that end in `*` are the beginnings of names.
const SAFETY: &[&str] = &[
    // What is written, and when it is on disk.
    "log_bin",
    "log_bin_index",
    "log_bin_compress*",
    "log_basename",
    "binlog_format",
    "binlog_row_image",
    "binlog_do_db",
    "binlog_ignore_db",
    "binlog_order_commits",
    "binlog_gtid_simple_recovery",
    "binlog_error_action",
    "sync_binlog",
    "sync_relay_log*",
    "sync_master_info",
    "sync_source_info",
    "innodb_flush_log_at_trx_commit",
    "innodb_doublewrite",
    "innodb_force_recovery",
    "innodb_read_only",
    "innodb_flush_method",
    "innodb_fast_shutdown",
    "innodb_alter_copy_bulk",
    "innodb_immediate_scrub_data_uncompressed",
    "flush",
    "tc_heuristic_recover",
    "log_tc",
    "disabled_storage_engines",
    "enforce_storage_engine",
    "default_storage_engine",
    // Where data lies: on the member's volume, all of it.
    "innodb_data_home_dir",
    "innodb_data_file_path",
    "innodb_log_group_home_dir",
    "innodb_undo_directory",
    "innodb_directories",
    "innodb_doublewrite_dir",
    "innodb_redo_log_archive_dirs",
    "aria_log_dir_path",
    // What is kept.
    "binlog_expire_logs_seconds",
    "binlog_expire_logs_auto_purge",
    "expire_logs_days",
    "max_binlog_total_size",
    "binlog_space_limit",
    "slave_connections_needed_for_purge",
    "relay_log*",
    "relay_log_space_limit",
    // Replication.
    "server_id",
    "server_uuid",
    "gtid_*",
    "enforce_gtid_consistency",
    "log_slave_updates",
    "log_replica_updates",
    "slave_start",
    "replica_start",
    "slave_skip_errors",
    "replica_skip_errors",
    "slave_exec_mode",
    "replica_exec_mode",
    "slave_preserve_commit_order",
    "replica_preserve_commit_order",
    "slave_parallel*",
    "replicate_*",
    "rpl_*",
    "init_rpl_role",
    "init_slave",
    "init_replica",
    "master_*",
    "source_*",
    "group_replication*",
    "wsrep*",
    "replicate_same_server_id",
    "read_binlog_speed_limit",
    "slave_run_triggers_for_rbr",
    "sql_slave_skip_counter",
    // Who gets in, and what may be done.
    "read_only",
    "super_read_only",
    "offline_mode",
    "grant_tables",
    "init_file",
    "partial_revokes",
    "persisted_globals_load",
    "mandatory_roles",
    "activate_all_roles_on_login",
    "authentication_policy",
    "secure_file_priv",
    "local_infile",
    "symbolic_links",
    "plugin_load*",
    "early_plugin_load",
    "plugin_dir",
    "name_resolve",
    "admin_address",
    "admin_port",
    "extra_port",
    "extra_max_connections",
    "mysqlx*",
    "proxy_protocol_networks",
    "strict_password_validation",
    "old_mode",
    "safe_user_create",
    "automatic_sp_privileges",
    // How the server is run.
    "user",
    "chroot",
    "bootstrap",
    "initialize*",
    "daemonize",
    "gdb",
    "debug*",
    "core_file",
    "innodb_status_file",
    "basedir",
];

/// Such settings of MariaDB alone.
const SAFETY_MARIADB: &[&str] = &["init_connect"];

/// Lines of the user's file that are not allowed, all of them.
pub fn refusals(flavour: Flavour, text: &str) -> Vec<Refusal> {
    let mut in_group = false;
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        let refuse = |setting: &str, reason| Refusal {
            line: index + 1,
            setting: shortened(setting),
            reason,
        };
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with('[') {
            in_group = true;
        } else if line.starts_with('!') {
            let directive = line.split_whitespace().next().unwrap_or(line);
            found.push(refuse(directive, Reason::Include));
        } else {
            let name = line.split(['=', '#']).next().unwrap_or(line).trim();
            if !in_group {
                found.push(refuse(name, Reason::NoGroup));
            } else if decides_over_safety(flavour, name) {
                found.push(refuse(name, Reason::Safety));
            }
        }
    }
    found
}

fn shortened(setting: &str) -> String {
    setting.chars().take(80).collect()
}

/// Whether a name, in any of the spellings that the server takes, is that of a setting in the lists. The server also takes the
/// beginning of a name if only one name begins so.
fn decides_over_safety(flavour: Flavour, written: &str) -> bool {
    const PREFIXES: [&str; 6] = [
        "loose_", "skip_", "disable_", "enable_", "maximum_", "autoset_",
    ];
    let name = written
        .trim_start_matches('-')
        .replace('-', "_")
        .to_ascii_lowercase();
    let mut bare = name.as_str();
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| bare.strip_prefix(prefix)) {
        bare = rest;
    }
    let of_flavour = if flavour == Flavour::Mariadb {
        SAFETY_MARIADB
    } else {
        &[]
    };
    let is = |listed: &&str| match listed.strip_suffix('*') {
        Some(beginning) => bare.starts_with(beginning) || beginning.starts_with(bare),
        None => listed.starts_with(bare),
    };
    SAFETY.iter().chain(of_flavour).any(is)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(flavour: Flavour, line: &str) -> bool {
        !refusals(flavour, &format!("[mysqld]\n{line}\n")).is_empty()
    }

    #[test]
    fn every_spelling_of_a_safety_setting_is_refused() {
        let lines = [
            "sync_binlog=0",
            "sync-binlog = 0",
            "SYNC_BINLOG=0",
            "  sync_binlog",
            "sync_bin=0",
            "loose-sync-binlog=0",
            "loose_skip_log_bin",
            "skip-log-bin",
            "disable-log-bin",
            "skip_grant_tables",
            "skip-grant",
            "--skip-grant-tables",
            "rpl_semi_sync_slave_enabled=1",
            "rpl-semi-sync-source-timeout=1",
            "replicate-ignore-db=x",
            "maximum-sync-binlog=0",
            "relay-log-recovery=1",
            "gtid_mode=OFF",
            "super-read-only=0",
            "sync_binlog#comment",
            "init_rpl_role=SLAVE",
            "user=mysql",
        ];
        for flavour in [Flavour::Mysql, Flavour::Mariadb] {
            for line in lines {
                assert!(refused(flavour, line), "{line}");
            }
        }
    }

    #[test]
    fn ordinary_settings_are_left_alone() {
        let lines = [
            "max_connections=500",
            "sql_mode=TRADITIONAL",
            "innodb_flush_log_at_timeout=2",
            "long_query_time = 1",
            "skip-external-locking",
            "character-set-server=utf8mb4",
            "# sync_binlog=0",
            "; sync_binlog=0",
            "log_bin_trust_function_creators=0",
            "event_scheduler=ON",
            "slow_query_log",
            "init_connect_not=1",
        ];
        for line in lines {
            assert!(!refused(Flavour::Mysql, line), "{line}");
        }
        assert!(refused(Flavour::Mariadb, "init_connect='SELECT 1'"));
        assert!(!refused(Flavour::Mysql, "init_connect='SELECT 1'"));
    }

    #[test]
    fn other_files_and_lines_without_a_group_are_refused() {
        let found = refusals(
            Flavour::Mysql,
            "a=1\n[mysqld]\n!includedir /etc/mysql/conf.d\n",
        );
        let reasons: Vec<_> = found
            .iter()
            .map(|refusal| (refusal.line, refusal.reason))
            .collect();
        assert_eq!(reasons, [(1, Reason::NoGroup), (3, Reason::Include)]);
        assert_eq!(
            refusals(Flavour::Mysql, "[mysqld]\nsync-binlog = 0")[0].to_string(),
            "sync-binlog in line 2 would decide over the safety of the data, which Cotton does; remove it"
        );
    }
}
