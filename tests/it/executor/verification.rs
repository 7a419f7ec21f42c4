//! A backup that holds damaged tables, looked through by a task of its own.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};

use cotton::backup::store::Store;
use cotton::backup::verified;
use cotton::cluster::backup::BackupId;
use cotton::cluster::flavour::Flavour;
use cotton::cluster::verification::{Verdict, VerifyTask};
use cotton::mesos::v1::TaskState;

use super::from_backup::{back_up, store};
use super::rebuild::grown;
use super::world::World;

/// What nobody has written into a table.
const NOISE: u8 = 0xa5;

/// What a task says of a backup.
async fn verdict(world: &World, id: &BackupId, folder: &Path) -> Verdict {
    let order = VerifyTask {
        id: id.clone(),
        store: store(folder),
    };
    let task = world.verify(order).await;
    task.agent.told(TaskState::TaskFinished).await;
    let (_, message) = task.agent.states();
    serde_json::from_str(&message.unwrap()).unwrap()
}

/// The tables that the document beside a backup calls damaged, with what the server says.
fn damage(folder: &Path, id: &BackupId) -> Vec<(String, String)> {
    let text = fs::read(folder.join(id.as_str()).join(verified::FILE)).unwrap();
    let document: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let damage = document["damage"].as_array().unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    damage
        .iter()
        .map(|it| {
            let table = format!("{}.{}", text(&it["database"]), text(&it["table"]));
            (table, text(&it["says"]))
        })
        .collect()
}

/// The verdict tells of how many tables there is damage and names none; the document names those, and all others were counted.
async fn is_bad(world: &World, folder: &Path, id: &BackupId, tables: &[&str]) {
    let verdict = verdict(world, id, folder).await;
    let Verdict::Bad { why, .. } = &verdict else {
        panic!("{verdict:?}");
    };
    let begin = format!("CHECK TABLE finds damage in {} of ", tables.len());
    assert!(why.starts_with(&begin), "{why}");
    let found = damage(folder, id);
    let named: Vec<&str> = found.iter().map(|(table, _)| table.as_str()).collect();
    assert_eq!(named, tables, "{found:?}");
    for (table, says) in &found {
        assert!(!says.is_empty() && !why.contains(table), "{found:?}");
    }
    let store = Store::open(&store(folder)).unwrap();
    let manifest = store.manifest(id).await.unwrap();
    let found = store.verified(id, &manifest).await.unwrap().unwrap();
    // `large` of twelve rows, `t` of one, and what is whole beside the damaged ones.
    assert_eq!((found.good, found.tables, found.rows), (false, 3, 5013));
}

/// Goal: damage that a backup has copied is found, and which tables have it is told to whoever may read the store. Method: files of tables that are
/// overwritten with noise beneath the running server.
#[tokio::test]
async fn a_backup_of_damaged_tables_is_bad_on_mariadb() {
    let (mut world, members) = grown(Flavour::Mariadb).await;
    let master = &members[0];
    for table in ["no_index", "no_rows", "whole"] {
        let make = format!(
            "SET SESSION sql_log_bin = 0, enforce_storage_engine = NULL; \
             CREATE TABLE d.{table} (n INT PRIMARY KEY, c VARCHAR(20)) ENGINE = MyISAM; \
             INSERT INTO d.{table} SELECT seq, REPEAT('x', seq % 20) FROM d.seq_1_to_5000; \
             FLUSH TABLES"
        );
        master.administer(&make).await;
    }
    let data = data_of(master.sandbox.path());
    for file in ["no_index.MYI", "no_rows.MYD"] {
        let path = data.join("d").join(file);
        let length = fs::metadata(&path).unwrap().len();
        fs::write(&path, vec![NOISE; length as usize]).unwrap();
    }
    let stored = back_up(&mut world, master).await;
    let tables = ["d.no_index", "d.no_rows"];
    is_bad(&world, stored.folder.path(), &stored.from.id, &tables).await;
}

/// The only data directory in a sandbox.
fn data_of(sandbox: &Path) -> PathBuf {
    let entries = fs::read_dir(sandbox.join("state/data")).unwrap();
    let folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(folders.len(), 1, "{folders:?}");
    folders[0].clone()
}
