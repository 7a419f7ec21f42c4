//! What the cluster's user can do, and what it cannot: every statement that would break an invariant is tried as that user, on
//! a master and on a slave, and ordinary work too.

use std::collections::BTreeSet;

use cotton::cluster::flavour::Flavour;
use cotton::mysql::Error;
use cotton::mysql::authentication::{Authentication, SALT_LENGTH};
use cotton::secret::Secret;

use super::*;
use crate::support::mysqld::ADMIN;

both_flavours!(
    nothing_that_would_break_the_invariants,
    everything_ordinary,
    making_the_user_again_takes_away_what_it_must_not_have,
);

const USER: &str = "app";
const PASSWORD: &str = "sesame";

/// Refused in both flavours, on master and slave. `admin` stands for the administration account.
const REFUSED: &[&str] = &[
    // Durability.
    "SET GLOBAL sync_binlog = 0",
    "SET GLOBAL innodb_flush_log_at_trx_commit = 0",
    "SET GLOBAL sync_relay_log = 0",
    "SET GLOBAL read_only = 0",
    "SET GLOBAL read_only = 1",
    "SET SESSION sql_log_bin = 0",
    "SET GLOBAL binlog_format = 'STATEMENT'",
    "SET SESSION binlog_format = 'STATEMENT'",
    "SET GLOBAL init_connect = ''",
    "SET GLOBAL max_connections = 1",
    // Server life, and what holds up every commit.
    "SHUTDOWN",
    "FLUSH TABLES WITH READ LOCK",
    "FLUSH BINARY LOGS",
    "FLUSH PRIVILEGES",
    "SELECT 1 INTO OUTFILE 'x.txt'",
    "LOAD DATA INFILE '/etc/passwd' INTO TABLE d.t",
    // Code of others.
    "INSTALL PLUGIN x SONAME 'x.so'",
    "UNINSTALL PLUGIN rpl_semi_sync_source",
    "CREATE FUNCTION f RETURNS INTEGER SONAME 'x.so'",
    // Cotton's own accounts and tables, and the server's.
    "INSERT INTO cotton.marker (epoch) VALUES (99)",
    "UPDATE cotton.canary SET n = 0",
    "DELETE FROM cotton.canary",
    "SELECT * FROM cotton.canary FOR UPDATE",
    "LOCK TABLES cotton.canary WRITE",
    "DROP TABLE cotton.marker",
    "DROP DATABASE cotton",
    "ALTER TABLE cotton.canary ADD COLUMN x INT",
    "CREATE TABLE cotton.t (i INT)",
    "CREATE TRIGGER cotton.x BEFORE INSERT ON cotton.canary FOR EACH ROW SET NEW.n = 0",
    "DELETE FROM mysql.user",
    "DROP DATABASE mysql",
    "CREATE TABLE mysql.x (i INT)",
    "GRANT ALL ON *.* TO app@'%'",
    "GRANT SUPER ON *.* TO app@'%'",
    "GRANT SHUTDOWN ON *.* TO app@'%'",
    "GRANT REPLICATION SLAVE ON *.* TO app@'%'",
    "GRANT INSERT ON cotton.* TO app@'%'",
    "GRANT INSERT ON mysql.* TO app@'%'",
    "GRANT PROXY ON admin@localhost TO app@'%'",
    "CREATE DEFINER = admin@localhost PROCEDURE d.escalate() SQL SECURITY DEFINER SET GLOBAL sync_binlog = 0",
    "CREATE DEFINER = admin@localhost EVENT d.escalate ON SCHEDULE EVERY 1 SECOND DO SET GLOBAL sync_binlog = 0",
];

const REFUSED_MYSQL: &[&str] = &[
    "SET GLOBAL super_read_only = 0",
    "SET GLOBAL super_read_only = 1",
    "SET GLOBAL offline_mode = 1",
    "SET GLOBAL rpl_semi_sync_source_enabled = 0",
    "SET GLOBAL rpl_semi_sync_source_timeout = 1",
    "SET GLOBAL rpl_semi_sync_source_wait_for_replica_count = 1",
    "SET GLOBAL rpl_semi_sync_replica_enabled = 0",
    "SET GLOBAL partial_revokes = 0",
    "SET GLOBAL gtid_mode = OFF_PERMISSIVE",
    "SET GLOBAL gtid_purged = ''",
    "SET SESSION gtid_next = 'c0770000-0000-4000-8000-000000000001:99'",
    "SET GLOBAL offline_mode = 0",
    "SET PERSIST sync_binlog = 0",
    "SET PERSIST_ONLY innodb_doublewrite = OFF",
    "STOP REPLICA",
    "START REPLICA",
    "CHANGE REPLICATION SOURCE TO SOURCE_HOST = 'x'",
    "CHANGE REPLICATION FILTER REPLICATE_IGNORE_DB = (d)",
    "RESET REPLICA ALL",
    "RESET BINARY LOGS AND GTIDS",
    "PURGE BINARY LOGS BEFORE NOW()",
    "START GROUP_REPLICATION",
    "CLONE LOCAL DATA DIRECTORY = '/tmp/cotton-never'",
    "CLONE INSTANCE FROM 'x'@'x':1 IDENTIFIED BY 'x'",
    "LOCK INSTANCE FOR BACKUP",
    "ALTER INSTANCE DISABLE INNODB REDO_LOG",
    "ALTER INSTANCE ROTATE INNODB MASTER KEY",
    "RESTART",
    "INSTALL COMPONENT 'file://component_validate_password'",
    "BINLOG 'x'",
    "SELECT * FROM mysql.slave_master_info",
    "SELECT authentication_string FROM mysql.user",
    "ALTER USER cotton_replication_1@'%' ACCOUNT UNLOCK",
    "ALTER USER admin@localhost ACCOUNT LOCK",
    "SET PASSWORD FOR admin@localhost = 'x'",
    "RENAME USER admin@localhost TO x@localhost",
    "DROP USER cotton_replication_1@'%'",
    "REVOKE ALL PRIVILEGES, GRANT OPTION FROM cotton_replication_1@'%'",
    "GRANT SYSTEM_USER ON *.* TO app@'%'",
    "GRANT SYSTEM_VARIABLES_ADMIN ON *.* TO app@'%'",
    "GRANT CONNECTION_ADMIN ON *.* TO app@'%'",
    "GRANT CLONE_ADMIN ON *.* TO app@'%'",
];

const REFUSED_MARIADB: &[&str] = &[
    "SET GLOBAL rpl_semi_sync_master_enabled = 0",
    "SET GLOBAL rpl_semi_sync_master_timeout = 1",
    "SET GLOBAL rpl_semi_sync_slave_enabled = 0",
    "SET GLOBAL gtid_slave_pos = ''",
    "SET GLOBAL gtid_binlog_state = ''",
    "SET GLOBAL gtid_strict_mode = 0",
    "SET SESSION gtid_domain_id = 4412494",
    "SET SESSION gtid_seq_no = 99",
    "SET SESSION server_id = 99",
    "SET GLOBAL enforce_storage_engine = NULL",
    "SET SESSION enforce_storage_engine = NULL",
    "STOP SLAVE",
    "START SLAVE",
    "CHANGE MASTER TO MASTER_HOST = 'x'",
    "RESET SLAVE ALL",
    "RESET MASTER",
    "PURGE BINARY LOGS BEFORE NOW()",
    "BACKUP STAGE START",
    "BACKUP LOCK cotton.canary",
    "INSTALL SONAME 'x'",
    "BINLOG 'x'",
    "SELECT Priv FROM mysql.global_priv",
    "UPDATE mysql.global_priv SET Priv = '{}'",
    "GRANT READ_ONLY ADMIN ON *.* TO app@'%'",
    "GRANT BINLOG ADMIN ON *.* TO app@'%'",
    "GRANT CONNECTION ADMIN ON *.* TO app@'%'",
    "GRANT REPLICATION SLAVE ADMIN ON *.* TO app@'%'",
    "SET PASSWORD FOR admin@localhost = PASSWORD('x')",
];

/// Done on the master.
const ORDINARY: &[&str] = &[
    "CREATE DATABASE shop",
    "CREATE TABLE shop.orders (id INT PRIMARY KEY AUTO_INCREMENT, what VARCHAR(20), KEY (what))",
    "INSERT INTO shop.orders (what) VALUES ('tea'), ('cake')",
    "UPDATE shop.orders SET what = 'coffee' WHERE what = 'tea'",
    "ALTER TABLE shop.orders ADD COLUMN n INT NOT NULL DEFAULT 0",
    "CREATE TABLE shop.log (what VARCHAR(20))",
    "CREATE VIEW shop.latest AS SELECT * FROM shop.orders ORDER BY id DESC LIMIT 1",
    "CREATE TRIGGER shop.t AFTER INSERT ON shop.orders FOR EACH ROW INSERT INTO shop.log VALUES (NEW.what)",
    "CREATE FUNCTION shop.f() RETURNS INT RETURN RAND() * 10",
    "CREATE PROCEDURE shop.p() INSERT INTO shop.orders (what) VALUES (UUID_SHORT())",
    "CALL shop.p()",
    "CREATE EVENT shop.e ON SCHEDULE EVERY 1 DAY DO DELETE FROM shop.log",
    "CREATE TEMPORARY TABLE shop.temp (i INT)",
    "LOCK TABLES shop.orders WRITE",
    "UNLOCK TABLES",
    "XA START 'x'",
    "INSERT INTO shop.log VALUES ('xa')",
    "XA END 'x'",
    "XA PREPARE 'x'",
    "XA COMMIT 'x'",
    "CREATE USER reader@'%' IDENTIFIED BY 'x'",
    "GRANT SELECT, INSERT ON shop.* TO reader@'%'",
    "CREATE ROLE clerks",
    "GRANT SELECT ON shop.orders TO clerks",
    "GRANT clerks TO reader@'%'",
    "REVOKE INSERT ON shop.* FROM reader@'%'",
    "ALTER USER reader@'%' IDENTIFIED BY 'y'",
    "SELECT User, Host FROM mysql.user",
    "SHOW PROCESSLIST",
    "SHOW ENGINE INNODB STATUS",
    "SHOW CREATE TABLE shop.orders",
    "ANALYZE TABLE shop.orders",
    "OPTIMIZE TABLE shop.orders",
    "TRUNCATE TABLE shop.log",
    "DROP USER reader@'%'",
    "DROP DATABASE shop",
];

/// Errors by which a server says that somebody may not do something, or that it is read-only; nothing else counts as a refusal: a
/// statement that is wrong proves nothing.
const NO: &[u16] = &[
    1044, 1045, 1095, 1142, 1143, 1227, 1290, 1370, 1385, 1396, 1410, 1419, 1698, 1836, 3530, 3619,
    3630, 3879,
];

fn statements(flavour: Flavour) -> impl Iterator<Item = String> {
    let more = match flavour {
        Flavour::Mysql => REFUSED_MYSQL,
        Flavour::Mariadb => REFUSED_MARIADB,
    };
    REFUSED
        .iter()
        .chain(more)
        .map(|statement| statement.replace("admin@", &format!("{ADMIN}@")))
}

/// Ok if the statement is refused; else what it did instead.
async fn refusal(connection: &mut MySqlConnection, statement: &str) -> Result<(), String> {
    match connection
        .execute(sqlx::raw_sql(AssertSqlSafe(statement)))
        .await
    {
        Ok(_) => Err(format!("{statement}: done")),
        Err(error) => {
            let number = error
                .as_database_error()
                .and_then(|error| error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>())
                .map(|error| error.number());
            match number {
                Some(number) if NO.contains(&number) => Ok(()),
                _ => Err(format!("{statement}: {error}")),
            }
        }
    }
}

fn hashed() -> Authentication {
    Authentication::of(&Secret::new(PASSWORD), [9; SALT_LENGTH])
}

/// Goal: the user can switch no safety off. Method: try it all, collect what was not refused.
async fn nothing_that_would_break_the_invariants(flavour: Flavour) {
    let (master, server) = open_master(flavour, 1).await;
    let result = server.ensure_cluster_user(ADMIN, &hashed()).await;
    assert!(
        matches!(result, Err(Error::ReservedUser { .. })),
        "{result:?}"
    );
    server.ensure_cluster_user(USER, &hashed()).await.unwrap();
    run(
        &mut master.local().await,
        &["CREATE DATABASE d", "CREATE TABLE d.t (i INT PRIMARY KEY)"],
    )
    .await;
    server.write_canary(1, soon()).await.unwrap();
    let (slave, follower) = follower(&master, 2, true).await;
    follower
        .wait_executed(&server.executed().await.unwrap(), soon())
        .await
        .unwrap();
    follower.admit_clients().await.unwrap();

    let stop = match flavour {
        Flavour::Mysql => "STOP REPLICA SQL_THREAD",
        // Where there is none to stop it does nothing, for anybody.
        Flavour::Mariadb => "STOP ALL SLAVES",
    };
    let mut wrong = BTreeSet::new();
    for (name, mysqld) in [("master", &master), ("slave", &slave)] {
        let mut admin = mysqld.local().await;
        let id = ask(&mut admin, "SELECT CONNECTION_ID()").await.unwrap();
        let kill = [format!("KILL {id}"), format!("KILL QUERY {id}")];
        let writes = [
            "INSERT INTO d.t VALUES (1)",
            "CREATE DATABASE x",
            "DROP TABLE d.t",
            "CREATE USER x@x",
            stop,
        ];
        let writes = writes
            .map(str::to_owned)
            .into_iter()
            .filter(|_| name == "slave");
        for statement in statements(flavour).chain(kill).chain(writes) {
            // A statement that ends the session must not spoil the next one.
            let mut client = mysqld.client(USER, PASSWORD).await.unwrap();
            if let Err(what) = refusal(&mut client, &statement).await {
                wrong.insert(format!("{name}: {what}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let mut client = master.client(USER, PASSWORD).await.unwrap();
    assert_eq!(
        ask(&mut client, "SELECT LOAD_FILE('/etc/hostname')").await,
        None
    );
    let seen = follower.observe().await.unwrap();
    assert!(seen.read_only && seen.acknowledging);
    assert_eq!(
        server.held().await.unwrap(),
        follower.held().await.unwrap(),
        "the slave is as it was"
    );
}

/// Goal: an ordinary user's work is not in the way of all that. Method: do it, and see it arrive at a slave.
async fn everything_ordinary(flavour: Flavour) {
    let (master, server) = open_master(flavour, 1).await;
    server.ensure_cluster_user(USER, &hashed()).await.unwrap();
    let (slave, follower) = follower(&master, 2, true).await;
    server.prepare_source(1).await.unwrap();
    let mut client = master.client(USER, PASSWORD).await.unwrap();
    run(&mut client, ORDINARY).await;
    follower
        .wait_executed(&server.executed().await.unwrap(), soon())
        .await
        .unwrap();
    if flavour == Flavour::Mariadb {
        // Anybody may do this. It has no effect on a slave that replicates everything.
        run(
            &mut client,
            &["SET SESSION skip_replication = 1", "CREATE DATABASE hidden"],
        )
        .await;
        follower
            .wait_executed(&server.executed().await.unwrap(), soon())
            .await
            .unwrap();
        let found = ask(&mut slave.local().await, "SHOW DATABASES LIKE 'hidden'").await;
        assert_eq!(found.as_deref(), Some("hidden"));
    }
    // Tables that do not survive a crash are not made.
    run(&mut client, &["CREATE DATABASE shop"]).await;
    for engine in ["MyISAM", "MEMORY"] {
        let statement = format!("CREATE TABLE shop.x (i INT) ENGINE = {engine}");
        let made = client
            .execute(sqlx::raw_sql(AssertSqlSafe(statement)))
            .await;
        assert!(made.is_err(), "{engine}");
    }
}

/// Goal: whatever was granted by hand is taken away again. Method: grant all, make the user again, try a few.
async fn making_the_user_again_takes_away_what_it_must_not_have(flavour: Flavour) {
    let (master, server) = open_master(flavour, 1).await;
    server.ensure_cluster_user(USER, &hashed()).await.unwrap();
    run(&mut master.local().await, &["GRANT ALL ON *.* TO app@'%'"]).await;
    server.ensure_cluster_user(USER, &hashed()).await.unwrap();
    let mut client = master.client(USER, PASSWORD).await.unwrap();
    for statement in [
        "SET GLOBAL sync_binlog = 0",
        "SHUTDOWN",
        "INSERT INTO cotton.marker (epoch) VALUES (1)",
        "FLUSH PRIVILEGES",
    ] {
        assert_eq!(refusal(&mut client, statement).await, Ok(()));
    }
    run(
        &mut client,
        &[
            "CREATE DATABASE shop",
            "CREATE TABLE shop.t (i INT)",
            "INSERT INTO shop.t VALUES (1)",
        ],
    )
    .await;
}
