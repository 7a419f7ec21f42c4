#![allow(clippy::unwrap_used, reason = "a test may panic")]

use super::*;

fn settings(flavour: Flavour, version: ServerVersion) -> ServerSettings {
    ServerSettings {
        flavour,
        version,
        server_id: 3,
        port: 31007,
        bind_address: "10.1.2.3".to_owned(),
        report_host: "db7.example.com".to_owned(),
        data_dir: "/sandbox/data".into(),
        socket: "/sandbox/mysqld.sock".into(),
        tmp_dir: "/sandbox/tmp".into(),
        // The default size without the executor's share.
        memory_mib: 480,
        as_root: false,
        relaxed_durability: false,
        user_defaults: None,
    }
}

#[test]
fn mariadb_with_a_users_own_file() {
    let mut settings = settings(Flavour::Mariadb, ServerVersion::new(10, 11, 19));
    settings.user_defaults = Some("[mysqld]\nmax_connections = 500\n\n".to_owned());
    insta::assert_snapshot!(render(&settings).unwrap(), @r#"
    # The user's own settings.
    [mysqld]
    max_connections = 500

    # Cotton's settings; they win.
    [mysqld]
    server_id = 3
    port = 31007
    bind_address = "10.1.2.3"
    report_host = "db7.example.com"
    report_port = 31007
    datadir = "/sandbox/data"
    socket = "/sandbox/mysqld.sock"
    tmpdir = "/sandbox/tmp"
    pid_file = mysqld.pid
    skip_name_resolve = ON
    local_infile = OFF
    log_bin = binlog
    relay_log = relay
    binlog_row_image = FULL
    sync_binlog = 1
    innodb_flush_log_at_trx_commit = 1
    sync_relay_log = 1
    relay_log_recovery = OFF
    relay_log_purge = ON
    binlog_expire_logs_seconds = 0
    read_only = ON
    log_bin_trust_function_creators = ON
    gtid_strict_mode = ON
    gtid_domain_id = 0
    log_slave_updates = ON
    binlog_format = ROW
    skip_slave_start = ON
    slave_parallel_threads = 0
    slave_net_timeout = 10
    replicate_events_marked_for_skip = REPLICATE
    master_retry_count = 0
    init_connect = "SET @@cotton_admits_no_clients_yet = 1"
    enforce_storage_engine = InnoDB
    rpl_semi_sync_master_enabled = OFF
    rpl_semi_sync_slave_enabled = OFF
    symbolic_links = OFF
    innodb_buffer_pool_size = 336M
    innodb_buffer_pool_chunk_size = 8M
    performance_schema = OFF
    tmp_table_size = 1M
    max_heap_table_size = 1M
    innodb_log_buffer_size = 8M
    table_definition_cache = 400
    table_open_cache = 400
    aria_pagecache_buffer_size = 15M
    key_buffer_size = 1M
    "#);
}

#[test]
fn mysql_with_the_default_size() {
    let settings = settings(Flavour::Mysql, ServerVersion::new(9, 7, 4));
    insta::assert_snapshot!(render(&settings).unwrap(), @r#"
    [mysqld]
    server_id = 3
    port = 31007
    bind_address = "10.1.2.3"
    report_host = "db7.example.com"
    report_port = 31007
    datadir = "/sandbox/data"
    socket = "/sandbox/mysqld.sock"
    tmpdir = "/sandbox/tmp"
    pid_file = mysqld.pid
    skip_name_resolve = ON
    local_infile = OFF
    log_bin = binlog
    relay_log = relay
    binlog_row_image = FULL
    sync_binlog = 1
    innodb_flush_log_at_trx_commit = 1
    sync_relay_log = 1
    relay_log_recovery = OFF
    relay_log_purge = ON
    binlog_expire_logs_seconds = 0
    read_only = ON
    log_bin_trust_function_creators = ON
    gtid_mode = ON
    enforce_gtid_consistency = ON
    log_replica_updates = ON
    loose_binlog_format = ROW
    loose_binlog_expire_logs_auto_purge = OFF
    skip_replica_start = ON
    replica_preserve_commit_order = ON
    replica_net_timeout = 10
    super_read_only = ON
    offline_mode = ON
    persisted_globals_load = OFF
    partial_revokes = ON
    disabled_storage_engines = MyISAM,MEMORY,CSV,ARCHIVE,BLACKHOLE,FEDERATED,MRG_MyISAM,EXAMPLE
    plugin_load_add = semisync_source.so;semisync_replica.so;mysql_clone.so
    rpl_semi_sync_source_enabled = OFF
    rpl_semi_sync_replica_enabled = OFF
    mysqlx = OFF
    secure_file_priv = NULL
    innodb_buffer_pool_size = 200M
    innodb_buffer_pool_chunk_size = 8M
    performance_schema = OFF
    tmp_table_size = 1M
    max_heap_table_size = 1M
    innodb_log_buffer_size = 8M
    table_definition_cache = 400
    table_open_cache = 400
    temptable_max_ram = 15M
    replica_pending_jobs_size_max = 16M
    "#);
}

#[test]
fn the_buffer_pool_never_gets_more_than_its_share_nor_than_is_left() {
    for flavour in [Flavour::Mysql, Flavour::Mariadb] {
        for memory in [
            minimum_memory_mib(flavour),
            480,
            512,
            1024,
            4096,
            65536,
            1 << 20,
        ] {
            let lines = memory::lines(flavour, memory).unwrap();
            let pool: u64 = lines[0].1.trim_end_matches('M').parse().unwrap();
            assert!(pool * 4 <= memory * 3, "{flavour} {memory}: {pool}");
            assert!(
                pool >= 32 && pool + 100 <= memory,
                "{flavour} {memory}: {pool}"
            );
        }
        let too_little = minimum_memory_mib(flavour) - 1;
        assert!(matches!(
            memory::lines(flavour, too_little),
            Err(MyCnfError::TooLittleMemory { .. })
        ));
    }
}

#[test]
fn refused_settings_are_all_named() {
    let mut settings = settings(Flavour::Mysql, ServerVersion::new(9, 7, 4));
    settings.user_defaults = Some("[mysqld]\nsync_binlog=0\nskip-log-bin\n".to_owned());
    let error = render(&settings).unwrap_err().to_string();
    assert!(
        error.contains("sync_binlog in line 2") && error.contains("skip-log-bin in line 3"),
        "{error}"
    );
}

#[test]
fn a_path_cannot_bring_a_setting_with_it() {
    let mut settings = settings(Flavour::Mysql, ServerVersion::new(9, 7, 4));
    settings.data_dir = "/data\nskip-grant-tables".into();
    assert!(matches!(
        render(&settings),
        Err(MyCnfError::Unwritable {
            setting: "data directory",
            ..
        })
    ));
}
