//! A backup is made while clients write, and a cluster is made from it that has what was acknowledged before.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cotton::cluster::flavour::Flavour;
use cotton::cluster::view::{ClusterState, ClusterView};
use cotton::http::backups::{BackupAnswer, BackupsAnswer};
use tempfile::TempDir;

use crate::support::database::{Account, connect, run, texts, wait_for_texts};
use crate::support::load::{self, Load};
use crate::support::rest::{self, Answer};
use crate::support::shared::hdfs::Hdfs;
use crate::support::system::{Cluster, Options, System, endpoint, master, slaves};
use crate::support::{CREATE_DEADLINE, FAILOVER_DEADLINE, REPLICATION_DEADLINE, eventually};

crate::for_both_flavours!(a_cluster_is_made_from_a_backup);

/// How long a backup of a few megabytes may take.
const BACKUP_DEADLINE: Duration = Duration::from_secs(120);

/// How many writes have to be acknowledged between two steps.
const SOME_WRITES: usize = 100;

/// Between two writes of a client.
const PAUSE: Duration = Duration::from_millis(10);

/// A folder with a key's file and an empty store in it, which the executors, that run as another user, may write to.
pub fn store_in_a_folder() -> (TempDir, PathBuf, PathBuf) {
    let around = tempfile::tempdir().unwrap();
    let (key, folder) = (around.path().join("key"), around.path().join("backups"));
    fs::write(&key, [7; 32]).unwrap();
    fs::create_dir(&folder).unwrap();
    for (path, mode) in [(around.path(), 0o755), (&folder, 0o777)] {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    (around, key, folder)
}

/// A system with a store in a folder. The executors write there as the framework's user.
pub fn system(flavour: Flavour, store: &Path, key: &Path) -> Options {
    let args = serde_json::json!({
        "url": format!("file://{}", store.display()),
        "key": key,
    });
    Options {
        arguments: ["--", "--backup-store-args", &args.to_string()]
            .map(str::to_owned)
            .to_vec(),
        ..Options::new(flavour)
    }
}

pub async fn back_up(system: &System, cluster: &Cluster) -> (BackupAnswer, ClusterView) {
    let fields = [("password", cluster.account.password.as_str())];
    let path = format!("{}/backups", cluster.name);
    let answer = system.post(&path, &fields).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
    let asked: BackupAnswer = serde_json::from_value(answer.json()).unwrap();
    let is_over = |view: &ClusterView| {
        let last = view.standing.last_backup.as_ref();
        last.is_some_and(|last| last.number == asked.number)
    };
    let view = system
        .wait_until(cluster, "has ended its backup", BACKUP_DEADLINE, is_over)
        .await;
    (asked, view)
}

async fn create_from(system: &System, name: &str, backup: &str) -> Answer {
    let fields = [
        ("cluster_user", "other"),
        ("num_nodes", "2"),
        ("backup_id", backup),
    ];
    system.post(name, &fields).await.unwrap()
}

async fn a_cluster_is_made_from_a_backup(flavour: Flavour) {
    let (_store, key, folder) = store_in_a_folder();
    let system = System::with_options(system(flavour, &folder, &key));

    let cluster = system.create_running("orders", 2).await;
    let before = system.show("orders").await.unwrap();
    let account = &cluster.account;
    let statements = ["CREATE DATABASE load_db", load::TABLE];
    run(&endpoint(master(&before)), account, &statements).await;
    // A slave that is far behind in applying is passed over, and the master makes the backup.
    let mut load = Load::paced(&cluster.url, account, 4, PAUSE);
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
    let acknowledged = load.so_far();
    // The slave that makes it may not have applied the last of them.
    let slave = endpoint(slaves(&before)[0]);
    wait_for_texts(
        &slave,
        account,
        load::READ,
        &acknowledged,
        REPLICATION_DEADLINE,
    )
    .await;

    let (asked, view) = back_up(&system, &cluster).await;
    let outcome = view.standing.last_backup.clone().unwrap();
    assert!(outcome.done, "{}", outcome.sentence);
    let first = master(&before).id;
    assert!(
        !outcome.sentence.contains(&format!("member {first} ")),
        "{}",
        outcome.sentence
    );
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
    load.stop().await;
    let listed = rest::curl(&[&format!("{}/clusters/orders/backups", system.api)]).await;
    let listed: BackupsAnswer = serde_json::from_value(listed.unwrap().json()).unwrap();
    assert_eq!(listed.backups.len(), 1);
    let about = listed.backups[0].about.as_ref().unwrap();
    assert_eq!((about.flavour, &listed.backups[0].id), (flavour, &asked.id));
    assert!(about.key_id.is_some() && about.stored_bytes < about.data_bytes);
    system.delete_and_wait(&cluster).await;

    // The name of the cluster is that of its newest backup, though the cluster is gone.
    let again = made_from(&system, "again", "orders").await;
    let view = system.wait_running(&again, CREATE_DEADLINE).await;
    assert_eq!(view.standing.restored_from.as_ref(), Some(&asked.id));
    for member in &view.members {
        // A slave learns of the new cluster's user a moment after it is ready.
        wait_for_texts(
            &endpoint(member),
            &again.account,
            load::READ,
            &acknowledged,
            REPLICATION_DEADLINE,
        )
        .await;
        let former = connect(&endpoint(member), account).await;
        assert!(former.is_err(), "the former cluster's user gets in");
    }
    // It lives on as any cluster does.
    let at = endpoint(master(&view));
    run(
        &at,
        &again.account,
        &["INSERT INTO load_db.writes VALUES ('new')"],
    )
    .await;
    let rows = texts(&at, &again.account, load::READ).await.unwrap();
    for member in &view.members {
        wait_for_texts(
            &endpoint(member),
            &again.account,
            load::READ,
            &rows,
            REPLICATION_DEADLINE,
        )
        .await;
    }
    let (second, view) = back_up(&system, &again).await;
    let outcome = view.standing.last_backup.unwrap();
    assert!(outcome.done, "{}", outcome.sentence);
    assert_ne!(second.id, asked.id);
    damaged_backups_are_refused(&system, &folder, asked.id.as_str()).await;
    system.delete_and_wait(&again).await;
}

/// A cluster that is being made from a backup.
async fn made_from(system: &System, name: &str, backup: &str) -> Cluster {
    let answer = create_from(system, name, backup).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    Cluster {
        name: name.to_owned(),
        url: answer.text_of("cluster_url"),
        account: Account {
            user: "other".to_owned(),
            password: answer.text_of("cluster_password"),
        },
    }
}

/// Changes a bit in the middle of a file.
pub fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// How long a backup that is due every minute may take to come, on a loaded machine.
const DUE_DEADLINE: Duration = Duration::from_secs(300);

async fn listed(system: &System, name: &str) -> BackupsAnswer {
    let answer = rest::curl(&[&format!("{}/clusters/{name}/backups", system.api)]).await;
    serde_json::from_value(answer.unwrap().json()).unwrap()
}

/// Waits for a backup that ends after `number`, and tells which.
async fn next_ended(system: &System, cluster: &Cluster, number: u64, done: bool) -> u64 {
    let has_ended = |view: &ClusterView| {
        let last = view.standing.last_backup.as_ref();
        last.is_some_and(|last| last.number > number && last.done == done)
    };
    let what = match done {
        true => "has completed a backup that was due",
        false => "has failed to make a backup that was due",
    };
    let view = system
        .wait_until(cluster, what, DUE_DEADLINE, has_ended)
        .await;
    let last = view.standing.last_backup.unwrap();
    assert!(last.scheduled, "{last:?}");
    if !done {
        let sentence = &last.sentence;
        assert!(sentence.contains("the backup store hdfs://"), "{sentence}");
    }
    last.number
}

/// Makes another cluster of the newest backup of `orders`, and deletes it when its row was seen.
async fn is_made_again_with_what_was_kept(system: &System) {
    let again = made_from(system, "again", "orders").await;
    let view = system.wait_running(&again, CREATE_DEADLINE).await;
    let rows = texts(&endpoint(master(&view)), &again.account, load::READ).await;
    assert_eq!(rows.unwrap(), ["kept".to_owned()].into());
    system.delete_and_wait(&again).await;
}

/// A cluster of one, with the row that is to be kept.
async fn orders(system: &System) -> Cluster {
    let cluster = system.create_running("orders", 1).await;
    let view = system.show("orders").await.unwrap();
    let statements = [
        "CREATE DATABASE load_db",
        load::TABLE,
        "INSERT INTO load_db.writes VALUES ('kept')",
    ];
    run(&endpoint(master(&view)), &cluster.account, &statements).await;
    cluster
}

/// MySQL's backups are another kind of stream than MariaDB's, whose way to HDFS and back the next story goes.
#[tokio::test]
async fn mysql_goes_to_hdfs_and_back() {
    let hdfs = Hdfs::start();
    let settings = ["--", "--backup-store", &hdfs.url("/cotton")];
    let system = System::with_options(Options {
        arguments: settings.map(str::to_owned).to_vec(),
        ..Options::new(Flavour::Mysql)
    });
    let cluster = orders(&system).await;
    let (_, view) = back_up(&system, &cluster).await;
    let outcome = view.standing.last_backup.unwrap();
    assert!(outcome.done, "{}", outcome.sentence);
    is_made_again_with_what_was_kept(&system).await;
    system.delete_and_wait(&cluster).await;
}

/// Goal: a schedule makes backups in HDFS and a rule removes them, an outage of HDFS is told and outlived, and the cluster is made
/// again from what is left. Method: a minute between two backups of which one is kept; the name node is killed, and started again.
#[tokio::test]
async fn a_schedule_and_a_rule_keep_one_backup_in_hdfs() {
    let mut hdfs = Hdfs::start();
    let settings = [
        "--",
        "--backup-store",
        &hdfs.url("/cotton"),
        "--backup-schedule",
        "every 1m",
        "--backup-keep",
        "1",
    ];
    let system = System::with_options(Options {
        arguments: settings.map(str::to_owned).to_vec(),
        ..Options::new(Flavour::Mariadb)
    });
    let cluster = orders(&system).await;
    let account = &cluster.account;

    let first = next_ended(&system, &cluster, 0, true).await;
    let second = next_ended(&system, &cluster, first, true).await;
    eventually("one backup is left", DUE_DEADLINE, async || {
        let left = listed(&system, "orders").await.backups.len();
        (left == 1).then_some(())
    })
    .await;

    hdfs.stop_name_node();
    let failed = next_ended(&system, &cluster, second, false).await;
    hdfs.restart_name_node();
    next_ended(&system, &cluster, failed, true).await;
    let fields = [
        ("password", account.password.as_str()),
        ("backup_schedule", "none"),
    ];
    let stopped = system.request("PATCH", "orders", &fields).await.unwrap();
    assert_eq!(stopped.status, 200, "{}", stopped.text);
    let is_over = |view: &ClusterView| view.standing.backup.is_none();
    system
        .wait_until(&cluster, "makes no backup", DUE_DEADLINE, is_over)
        .await;

    is_made_again_with_what_was_kept(&system).await;
    // What the last one has made superfluous is removed after it was completed.
    let last = eventually("the last backup is left", DUE_DEADLINE, async || {
        let mut left = listed(&system, "orders").await.backups;
        left.pop().filter(|_| left.is_empty())
    });
    let id = last.await.id;
    let path = format!("{}/clusters/{id}", system.api).replace("/orders/", "/orders/backups/");
    let password = format!("password={}", account.password);
    for (given, status) in [("password=wrong", 403), (&password, 200), (&password, 404)] {
        let answer = rest::curl(&["-X", "DELETE", &path, "--form", given])
            .await
            .unwrap();
        assert_eq!(answer.status, status, "{}", answer.text);
    }
    let view = system.show("orders").await.unwrap();
    let told = (
        view.standing.recoverable_until,
        view.standing.archived_until.is_some(),
    );
    assert_eq!(told, (None, true), "nothing is left to begin with");
    system.delete_and_wait(&cluster).await;
}

/// A manifest that is damaged is seen at the door; data that is damaged by the members, and the cluster can be deleted.
async fn damaged_backups_are_refused(system: &System, folder: &Path, id: &str) {
    for unknown in ["nobody", "orders/19700101T000000Z", "../key"] {
        let answer = create_from(system, "lost", unknown).await;
        assert_eq!(answer.status, 400, "{unknown}: {}", answer.text);
    }
    flip(&folder.join(id).join("data"));
    let lost = made_from(system, "lost", id).await;
    let says_so = |view: &ClusterView| {
        view.state == ClusterState::Creating && view.reason.contains("does not open with this key")
    };
    let what = "says that its backup is damaged";
    system
        .wait_until(&lost, what, CREATE_DEADLINE, says_so)
        .await;
    system.delete_and_wait(&lost).await;

    flip(&folder.join(id).join("manifest.json"));
    let answer = create_from(system, "lost", id).await;
    assert_eq!(answer.status, 400, "{}", answer.text);
    assert!(
        answer.text.contains("manifest is damaged"),
        "{}",
        answer.text
    );
}
