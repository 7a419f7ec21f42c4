//! A cluster is made as another one was at a transaction and at a time, over a failover: everything up to there is in it, and nothing behind it.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cotton::backup::store::{Pruning, Store};
use cotton::cluster::backup::BackupStore;
use cotton::cluster::flavour::Flavour;
use cotton::cluster::view::{ClusterState, ClusterView, MemberRole};
use cotton::time::Timestamp;
use sqlx::AssertSqlSafe;

use crate::backups::{back_up, flip, store_in_a_folder, system};
use crate::support::database::{Account, connect, execute, run, texts, wait_for_texts};
use crate::support::load::{self, Load};
use crate::support::rest::Answer;
use crate::support::system::{Cluster, System, endpoint, master};
use crate::support::{CREATE_DEADLINE, FAILOVER_DEADLINE, REPLICATION_DEADLINE, eventually};

crate::for_both_flavours!(a_cluster_is_made_as_another_one_was);

/// How soon after a write it is archived at the latest: two looks, a store, and half a minute until it is told.
const ARCHIVE_DEADLINE: Duration = Duration::from_secs(90);

/// How many writes have to be acknowledged between two steps.
const SOME_WRITES: usize = 50;

const STEPS: &str = "SELECT CAST(n AS CHAR) FROM load_db.steps";

/// A row and how far the server was when it was acknowledged.
async fn step(flavour: Flavour, view: &ClusterView, account: &Account, n: usize) -> String {
    let mut connection = connect(&endpoint(master(view)), account).await.unwrap();
    let insert = format!("INSERT INTO load_db.steps VALUES ({n})");
    execute(&mut connection, &insert).await.unwrap();
    let sql = match flavour {
        Flavour::Mariadb => "SELECT @@SESSION.last_gtid",
        Flavour::Mysql => "SELECT @@GLOBAL.gtid_executed",
    };
    let query = sqlx::query_scalar::<_, String>(AssertSqlSafe(sql.to_owned()));
    query.fetch_one(&mut connection).await.unwrap()
}

fn steps(last: usize) -> BTreeSet<String> {
    (1..=last).map(|n| n.to_string()).collect()
}

fn seconds() -> u64 {
    Timestamp::now().as_millis() / 1000
}

async fn wait_for_second(second: u64) {
    eventually("the clock goes on", Duration::from_secs(30), async || {
        (seconds() >= second).then_some(())
    })
    .await;
}

async fn wait_archived(system: &System, cluster: &Cluster) -> ClusterView {
    let now = Timestamp::now();
    let is_archived = |view: &ClusterView| {
        let until = view.standing.archived_until;
        until.is_some_and(|until| until > now)
    };
    system
        .wait_until(
            cluster,
            "has archived its binlogs",
            ARCHIVE_DEADLINE,
            is_archived,
        )
        .await
}

async fn create_to(system: &System, name: &str, nodes: &str, backup: &str, to: &str) -> Answer {
    let fields = [
        ("cluster_user", "other"),
        ("num_nodes", nodes),
        ("backup_id", backup),
        ("restore_to", to),
    ];
    system.post(name, &fields).await.unwrap()
}

fn created(name: &str, answer: &Answer) -> Cluster {
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

/// All members hold just these steps, and these of the load. Returns what else they hold of the load.
async fn holds(
    system: &System,
    cluster: &Cluster,
    expected: &BTreeSet<String>,
    load: &BTreeSet<String>,
) -> BTreeSet<String> {
    let view = system.wait_running(cluster, CREATE_DEADLINE).await;
    let account = &cluster.account;
    // The master was opened with all of it; a slave may still be applying what follows the last step.
    let at = endpoint(master(&view));
    wait_for_texts(&at, account, STEPS, expected, REPLICATION_DEADLINE).await;
    let whole = texts(&at, account, load::READ).await.unwrap();
    assert!(load.is_subset(&whole), "{} at {at:?}", cluster.name);
    let beyond: BTreeSet<String> = whole.difference(load).cloned().collect();
    for member in &view.members {
        let at = endpoint(member);
        wait_for_texts(&at, account, STEPS, expected, REPLICATION_DEADLINE).await;
        let found = texts(&at, account, STEPS).await.unwrap();
        assert_eq!(found, *expected, "{} at {at:?}", cluster.name);
        wait_for_texts(&at, account, load::READ, &whole, REPLICATION_DEADLINE).await;
        let found = texts(&at, account, load::READ).await.unwrap();
        assert!(found == whole, "the members differ");
    }
    // It lives on as any cluster does.
    let at = endpoint(master(&view));
    run(&at, account, &["INSERT INTO load_db.steps VALUES (1000)"]).await;
    let with: BTreeSet<String> = expected
        .iter()
        .cloned()
        .chain(["1000".to_owned()])
        .collect();
    for member in &view.members {
        wait_for_texts(
            &endpoint(member),
            account,
            STEPS,
            &with,
            REPLICATION_DEADLINE,
        )
        .await;
    }
    beyond
}

async fn a_cluster_is_made_as_another_one_was(flavour: Flavour) {
    let (_store, key, folder) = store_in_a_folder();
    let system = System::with_options(system(flavour, &folder, &key));
    let cluster = system.create_running("orders", 3).await;
    let account = &cluster.account;
    let before = system.show("orders").await.unwrap();
    let create = "CREATE TABLE load_db.steps (n INT PRIMARY KEY)";
    let statements = ["CREATE DATABASE load_db", load::TABLE, create];
    run(&endpoint(master(&before)), account, &statements).await;
    step(flavour, &before, account, 1).await;
    two_segments_are_archived(&cluster, &before, &folder).await;
    let (backup, view) = back_up(&system, &cluster).await;
    let outcome = view.standing.last_backup.clone().unwrap();
    assert!(outcome.done, "{}", outcome.sentence);
    what_is_before_the_backup_is_removed(&folder, &key).await;

    let mut load = Load::start(&cluster.url, account, 4);
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
    step(flavour, &before, account, 2).await;
    wait_archived(&system, &cluster).await;
    system.mysqld(master(&before)).kill();
    let has_new_master = |view: &ClusterView| {
        let mut members = view.members.iter();
        view.epoch > before.epoch && members.any(|member| member.role == MemberRole::Master)
    };
    system
        .wait_until(
            &cluster,
            "has a new master",
            FAILOVER_DEADLINE,
            has_new_master,
        )
        .await;
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
    let after = system.wait_running(&cluster, FAILOVER_DEADLINE).await;
    step(flavour, &after, account, 3).await;
    let up_to_gtid = load.so_far();
    let gtid = step(flavour, &after, account, 4).await;
    let by_then = load.so_far();
    step(flavour, &after, account, 5).await;
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
    let all = load.stop().await;

    a_store_that_is_away_is_told_of(&system, &cluster, &folder).await;
    // A time between two pauses.
    let time = seconds() + 2;
    wait_for_second(time + 1).await;
    step(flavour, &after, account, 6).await;
    let shown = wait_archived(&system, &cluster).await;
    assert!(shown.standing.recoverable_until.is_some());
    assert_eq!(shown.standing.archive_problem, None);
    refused(&system, backup.id.as_str()).await;
    system.delete_and_wait(&cluster).await;

    let answer = create_to(&system, "at-gtid", "2", "orders", &gtid).await;
    let at_gtid = created("at-gtid", &answer);
    let beyond = holds(&system, &at_gtid, &steps(4), &up_to_gtid).await;
    // Each client may have been in the middle of a write at the step, and at the failover.
    let later: Vec<_> = beyond.difference(&by_then).collect();
    assert!(later.len() <= 8, "{later:?}");
    assert!(all.len() > by_then.len() + 8);
    system.delete_and_wait(&at_gtid).await;

    let time = Timestamp::from_millis(time * 1000).to_string();
    let time = time.replace(' ', "T").replace("TUTC", "Z");
    let answer = create_to(&system, "at-time", "1", backup.id.as_str(), &time).await;
    let at_time = created("at-time", &answer);
    let beyond = holds(&system, &at_time, &steps(5), &all).await;
    // Whoever was in the middle of a write at the failover has not heard of it.
    assert!(beyond.len() <= 8, "{beyond:?}");
    system.delete_and_wait(&at_time).await;
    damage_is_refused(&system, &folder).await;
}

/// The documents of all segments.
fn segments(folder: &Path) -> BTreeSet<String> {
    let inner = |folder: PathBuf| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let incarnations = inner(folder.join("_binlogs/orders"));
    let epochs = incarnations.into_iter().flat_map(inner);
    epochs
        .flat_map(inner)
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect()
}

/// Writes are archived twice, so that a backup leaves something that nobody needs.
async fn two_segments_are_archived(cluster: &Cluster, view: &ClusterView, folder: &Path) {
    for number in 1..=2 {
        eventually("a segment is archived", ARCHIVE_DEADLINE, async || {
            (segments(folder).len() >= number).then_some(())
        })
        .await;
        let create = format!("CREATE TABLE load_db.early_{number} (n INT PRIMARY KEY)");
        run(&endpoint(master(view)), &cluster.account, &[&create]).await;
    }
}

/// Removes what no backup needs, as a turn of the scheduler does a day later.
async fn what_is_before_the_backup_is_removed(folder: &Path, key: &Path) {
    let store = Store::open(&BackupStore {
        url: format!("file://{}", folder.display()),
        region: None,
        endpoint: None,
        credentials: None,
        key: Some(key.display().to_string()),
        rate_mib: 0,
    });
    let (store, cluster) = (store.unwrap(), "orders".parse().unwrap());
    let listed = store.list(&cluster).await.unwrap();
    let manifest = listed.into_iter().next().unwrap().manifest.unwrap();
    let pruning = Pruning {
        bases: std::slice::from_ref(&manifest.position),
        before: Timestamp::now(),
        keeps_last: true,
        most: 100,
    };
    let pruned = store.prune(&cluster, manifest.uuid, &pruning, || true);
    pruned.await.unwrap();
    let left = segments(folder);
    assert!(!left.contains("0000000001.json"), "{left:?}");
    assert!(!left.is_empty());
}

/// While the store is not there, what is mounted in its place is not taken for it. What was written meanwhile is archived later.
async fn a_store_that_is_away_is_told_of(system: &System, cluster: &Cluster, folder: &Path) {
    let away = folder.with_extension("away");
    fs::rename(folder, &away).unwrap();
    fs::create_dir(folder).unwrap();
    fs::set_permissions(folder, Permissions::from_mode(0o777)).unwrap();
    let view = system.show(&cluster.name).await.unwrap();
    let statements = ["CREATE TABLE load_db.meanwhile (n INT PRIMARY KEY)"];
    run(&endpoint(master(&view)), &cluster.account, &statements).await;
    let says_so = |view: &ClusterView| {
        let problem = view.standing.archive_problem.as_ref();
        problem.is_some_and(|problem| problem.contains("is not where it was"))
    };
    system
        .wait_until(
            cluster,
            "says that the store is away",
            ARCHIVE_DEADLINE,
            says_so,
        )
        .await;
    // Nobody writes into it but by mistake.
    fs::remove_dir(folder).unwrap();
    fs::rename(&away, folder).unwrap();
    let is_over = |view: &ClusterView| view.standing.archive_problem.is_none();
    system
        .wait_until(cluster, "archives again", ARCHIVE_DEADLINE, is_over)
        .await;
}

/// Points to which nothing leads are refused with a sentence.
async fn refused(system: &System, backup: &str) {
    let cases = [
        ("2100-01-01T00:00:00Z", "end at"),
        ("2020-01-01T00:00:00Z", "later than the point"),
        ("yesterday", "is no point to restore to"),
    ];
    for (to, sentence) in cases {
        let answer = create_to(system, "lost", "1", backup, to).await;
        assert_eq!(answer.status, 400, "{to}: {}", answer.text);
        assert!(answer.text.contains(sentence), "{to}: {}", answer.text);
    }
    let fields = [("cluster_user", "other"), ("restore_to", "latest")];
    let answer = system.post("lost", &fields).await.unwrap();
    assert_eq!(answer.status, 400, "{}", answer.text);
}

/// A segment that is damaged is noticed by the members, and the cluster can be deleted.
async fn damage_is_refused(system: &System, folder: &Path) {
    let data = newest_data(&folder.join("_binlogs/orders"));
    flip(&data);
    let answer = create_to(system, "lost", "1", "orders", "latest").await;
    let lost = created("lost", &answer);
    let says_so = |view: &ClusterView| {
        view.state == ClusterState::Creating && view.reason.contains("archived binlogs")
            || view.reason.contains("damaged")
    };
    system
        .wait_until(&lost, "says what is damaged", CREATE_DEADLINE, says_so)
        .await;
    system.delete_and_wait(&lost).await;
}

/// The data of the last segment of the last epoch.
fn newest_data(folder: &Path) -> PathBuf {
    let mut last = folder.to_owned();
    while last.is_dir() {
        let mut entries: Vec<PathBuf> = fs::read_dir(&last)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_none_or(|ending| ending == "data"))
            .collect();
        entries.sort();
        last = entries.pop().unwrap();
    }
    last
}
