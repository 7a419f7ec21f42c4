//! Looking through tables: those whose data is elsewhere are left out, and those that nobody here can read are known.

use std::collections::BTreeMap;
use std::path::Path;

use cotton::cluster::flavour::Flavour;

use super::*;

both_flavours!(
    tables_with_data_are_looked_through_and_no_others,
    damage_is_found_and_told,
);

/// Clusters have these off, and what was made otherwise may be in what is restored.
const ANY_ENGINE: &str = "SET SESSION enforce_storage_engine = NULL";

/// Goal: whatever is wrong with the place to which a table refers is no damage. Method: on MariaDB, where a session may have any engine, a
/// `MERGE` table one of whose parts was dropped, one of an engine that refers elsewhere, and one of an engine that the server does not have any more.
/// Debian has the two engines in the package that starts a server as a service; where that is not installed, the tables are left out.
async fn tables_with_data_are_looked_through_and_no_others(flavour: Flavour) {
    let (mysqld, server) = open_master(flavour, 1).await;
    let mut local = mysqld.local().await;
    let statements = [
        "CREATE DATABASE d",
        "CREATE TABLE d.`it's ``odd` (n INT PRIMARY KEY) ENGINE = InnoDB",
        "INSERT INTO d.`it's ``odd` VALUES (1), (2), (3)",
        "CREATE VIEW d.seen AS SELECT n FROM d.`it's ``odd`",
    ];
    run(&mut local, &statements).await;
    if flavour == Flavour::Mariadb {
        let statements = [
            ANY_ENGINE,
            "CREATE TABLE d.part (n INT, KEY (n)) ENGINE = MyISAM",
            "INSERT INTO d.part VALUES (1)",
            "CREATE TABLE d.dropped (n INT, KEY (n)) ENGINE = MyISAM",
            "CREATE TABLE d.merged (n INT, KEY (n)) ENGINE = MERGE UNION = (d.part, d.dropped)",
            "DROP TABLE d.dropped",
        ];
        run(&mut local, &statements).await;
    }
    let other_engines = flavour == Flavour::Mariadb && has_other_engines(&mut local).await;
    if other_engines {
        let statements = [
            "INSTALL SONAME 'ha_sphinx'",
            "CREATE TABLE d.sought (id BIGINT UNSIGNED NOT NULL, weight INT NOT NULL, query VARCHAR(100) NOT NULL, INDEX (query)) \
             ENGINE = SPHINX CONNECTION = 'sphinx://127.0.0.1:1/x'",
            "UNINSTALL SONAME 'ha_sphinx'",
            "INSTALL SONAME 'ha_blackhole'",
            "CREATE TABLE d.foreign_engine (n INT) ENGINE = BLACKHOLE",
            "FLUSH TABLES",
            "UNINSTALL SONAME 'ha_blackhole'",
        ];
        run(&mut local, &statements).await;
    }
    let engines = server.engines().await.unwrap();
    assert!(engines.contains("InnoDB"), "{engines:?}");
    let tables = server.tables().await.unwrap();
    let mut counted = BTreeMap::new();
    let mut unreadable = Vec::new();
    for table in tables {
        let engine = table.engine.clone().unwrap();
        if !engines.contains(&engine) {
            unreadable.push((table.name, engine));
            continue;
        }
        assert_eq!(server.check_table(&table).await.unwrap(), None, "{table:?}");
        if table.database == "d" {
            let rows = server.count_rows(&table).await.unwrap();
            counted.insert(table.name, rows);
        }
    }
    let mut expected = BTreeMap::from([("it's `odd".to_owned(), 3)]);
    if flavour == Flavour::Mariadb {
        expected.insert("part".to_owned(), 1);
    }
    assert_eq!(counted, expected);
    let expected = match other_engines {
        true => vec![("foreign_engine".to_owned(), "BLACKHOLE".to_owned())],
        false => Vec::new(),
    };
    assert_eq!(unreadable, expected);
}

/// Goal: whichever file of a table is damaged, the table is among those that are looked through, and what is wrong is told. Method: files that are overwritten with
/// noise while no table is open: of MyISAM and Aria on MariaDB; on MySQL of CSV, in which it has two tables of its own.
async fn damage_is_found_and_told(flavour: Flavour) {
    let (mysqld, server) = open_master(flavour, 1).await;
    let mut local = mysqld.local().await;
    run(&mut local, &["CREATE DATABASE d"]).await;
    let files = match flavour {
        Flavour::Mariadb => {
            run(&mut local, &[ANY_ENGINE]).await;
            for (table, engine) in [
                ("good", "MyISAM"),
                ("index_of_noise", "MyISAM"),
                ("rows_of_noise", "MyISAM"),
                ("aria", "Aria"),
                ("without_form", "MyISAM"),
            ] {
                let make = format!(
                    "CREATE TABLE d.{table} (n INT PRIMARY KEY, c VARCHAR(20)) ENGINE = {engine}"
                );
                let fill = format!(
                    "INSERT INTO d.{table} SELECT seq, REPEAT('x', seq % 20) FROM d.seq_1_to_5000"
                );
                run(&mut local, &[&make, &fill]).await;
            }
            &[
                "d/index_of_noise.MYI",
                "d/rows_of_noise.MYD",
                "d/aria.MAI",
                "d/without_form.frm",
            ][..]
        }
        Flavour::Mysql => {
            let statements = [
                "CREATE TABLE d.good (n INT PRIMARY KEY)",
                "SET GLOBAL log_output = 'TABLE'",
                "SET GLOBAL general_log = ON",
                "SELECT 1",
                "SET GLOBAL general_log = OFF",
            ];
            run(&mut local, &statements).await;
            &["mysql/general_log.CSV"][..]
        }
    };
    run(&mut local, &["FLUSH TABLES"]).await;
    for file in files {
        let path = mysqld.path("data").join(file);
        let length = std::fs::metadata(&path).unwrap().len();
        std::fs::write(&path, vec![0xa5; length as usize]).unwrap();
    }
    let mut damaged = BTreeMap::new();
    for table in server.tables().await.unwrap() {
        if let Some(says) = server.check_table(&table).await.unwrap() {
            damaged.insert(format!("{}/{}", table.database, table.name), says);
        }
    }
    let names = |file: &&str| file.split_once('.').unwrap().0.to_owned();
    let mut expected: Vec<String> = files.iter().map(names).collect();
    expected.sort();
    assert_eq!(
        Vec::from_iter(damaged.keys().cloned()),
        expected,
        "{damaged:?}"
    );
    assert!(damaged.values().all(|says| !says.is_empty()), "{damaged:?}");
}

async fn has_other_engines(connection: &mut MySqlConnection) -> bool {
    let folder = sqlx::query_scalar::<_, String>("SELECT @@plugin_dir");
    let folder = folder.fetch_one(connection).await.unwrap();
    let is_there = |name: &&str| Path::new(&folder).join(name).exists();
    ["ha_sphinx.so", "ha_blackhole.so"].iter().all(is_there)
}
