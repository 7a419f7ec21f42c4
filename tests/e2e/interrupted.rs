//! Whoever makes a backup or restores one is killed in the middle of it, and the store goes away: an unfinished backup is never taken for
//! one, and what was begun of a restore is begun again. The store is a real S3 server, behind a proxy that makes reading take its time.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cotton::cluster::flavour::Flavour;
use cotton::cluster::view::{ClusterState, ClusterView};
use cotton::http::backups::{About, BackupAnswer, BackupsAnswer};

use crate::support::database::{Account, run, wait_for_texts};
use crate::support::delayed::Delayed;
use crate::support::process::Process;
use crate::support::rest::curl;
use crate::support::shared::s3::{BUCKET, S3};
use crate::support::system::{Cluster, Lease, Options, System, endpoint, master, slaves};
use crate::support::{CREATE_DEADLINE, FAILOVER_DEADLINE, REPLICATION_DEADLINE, eventually};

crate::for_both_flavours!(backups_and_restores_are_interrupted);

/// How long a backup may take with the rate below, or until it is told that it has failed: a cluster is looked for who could make it
/// for two minutes.
const BACKUP_DEADLINE: Duration = Duration::from_secs(240);

/// How long a store that is away may take to be told of: a request is tried again, as is the task.
const TOLD_DEADLINE: Duration = Duration::from_secs(240);

/// How long the proxy holds each 64 KiB that are read at the most, while a restore is to last: more than a minute for the data here.
pub const HELD: Duration = Duration::from_millis(250);

/// How many rows of 1000 random kilobytes the data has: what cannot be compressed, so that most of it is still to be read when the first piece was.
pub const ROUNDS: usize = 20;

/// How fast backups may be read, in MiB/s: about twenty seconds for what an empty server has and the rows above.
fn rate_mib(flavour: Flavour) -> u32 {
    match flavour {
        Flavour::Mariadb => 2,
        Flavour::Mysql => 6,
    }
}

/// A system with its store.
pub struct Story {
    pub system: Lease,
    pub s3: S3,
    pub way: Delayed,
    rate_mib: u32,
}

impl Story {
    pub fn start(flavour: Flavour, settings: &[&str]) -> Self {
        let s3 = S3::start();
        let way = Delayed::start(&[s3.port()]);
        let rate_mib = rate_mib(flavour);
        let store = serde_json::json!({
            "url": format!("s3://{BUCKET}/cotton"),
            "region": "eu-central-1",
            "endpoint": format!("http://{}", way.addresses),
            "credentials": s3.credentials(),
            "rate_mib": rate_mib,
        });
        let store = store.to_string();
        let own = ["--", "--backup-store-args", &store];
        let arguments = own.iter().chain(settings).map(ToString::to_string);
        let system = System::with_options(Options {
            arguments: arguments.collect(),
            ..Options::new(flavour)
        });
        Self {
            system,
            s3,
            way,
            rate_mib,
        }
    }

    /// Asks for a backup, and waits until some of the data was read and most was not. Tells its number and the member that makes it.
    async fn begin_backup(&self, cluster: &Cluster) -> (u64, u32) {
        let fields = [("password", cluster.account.password.as_str())];
        let path = format!("{}/backups", cluster.name);
        let answer = self.system.post(&path, &fields).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text);
        let asked: BackupAnswer = serde_json::from_value(answer.json()).unwrap();
        let in_the_middle = |view: &ClusterView| {
            let backup = view.standing.backup.as_ref();
            backup.is_some_and(|backup| backup.bytes > 0)
        };
        let what = "is in the middle of a backup";
        let view = self
            .system
            .wait_until(cluster, what, BACKUP_DEADLINE, in_the_middle)
            .await;
        let backup = view.standing.backup.unwrap();
        assert_eq!(backup.number, asked.number);
        (asked.number, backup.member.unwrap())
    }

    /// Waits for the end of a backup. Tells whether it is complete, and the sentence.
    async fn end_of(&self, cluster: &Cluster, number: u64) -> (bool, String) {
        let is_over = |view: &ClusterView| {
            let last = view.standing.last_backup.as_ref();
            last.is_some_and(|last| last.number == number)
        };
        let what = "has ended its backup";
        let view = self
            .system
            .wait_until(cluster, what, BACKUP_DEADLINE, is_over)
            .await;
        let last = view.standing.last_backup.unwrap();
        (last.done, last.sentence)
    }

    /// The backups that the API lists; as many manifests are in the store.
    async fn listed(&self, name: &str) -> BackupsAnswer {
        let url = format!("{}/clusters/{name}/backups", self.system.api);
        let answer = curl(&[&url]).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text);
        let listed: BackupsAnswer = serde_json::from_value(answer.json()).unwrap();
        let folder = self.s3.bucket().join("cotton").join(name);
        let backups = entries(&folder).into_iter();
        let manifests = backups.filter(|backup| backup.join("manifest.json").exists());
        assert_eq!(manifests.count(), listed.backups.len());
        listed
    }

    pub async fn kill_scheduler(&self) {
        let old = self.system.scheduler().await;
        old.kill();
        eventually("the scheduler has ended", FAILOVER_DEADLINE, async || {
            (!old.runs()).then_some(())
        })
        .await;
        self.system.wait_registered().await;
    }

    /// Asks for a cluster of one member from the newest backup of `orders`. From here on reading takes its time.
    async fn begin_restore(&self, name: &str) -> Cluster {
        let fields = [
            ("cluster_user", "other"),
            ("num_nodes", "1"),
            ("backup_id", "orders"),
        ];
        let answer = self.system.post(name, &fields).await.unwrap();
        self.way.hold_answers(HELD);
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

    /// Waits until the member has begun to unpack a backup into another directory than `before`. Tells its executor and the
    /// directory.
    async fn in_the_middle(&self, cluster: &Cluster, before: Option<&Path>) -> (Process, PathBuf) {
        eventually("a backup is being restored", CREATE_DEADLINE, async || {
            let view = self.system.show(&cluster.name).await?;
            let task = view.members.first()?.task_id.clone()?;
            let found = self.restored_by(&task)?;
            (before != Some(&found.1)).then_some(found)
        })
        .await
    }

    /// The executor of a task that has unpacked some of a backup, and where.
    pub fn restored_by(&self, task: &str) -> Option<(Process, PathBuf)> {
        let processes = self.system.process().descendants();
        let executor = processes.into_iter().find(|process| is_of(process, task))?;
        let state = self.system.find_sandbox(task)?.join("state").canonicalize();
        let unfinished = entries(&state.ok()?.join("data"))
            .into_iter()
            .find(|path| path.extension().is_some_and(|it| it == "unfinished"))?;
        (!entries(&unfinished).is_empty()).then_some((executor, unfinished))
    }

    /// Waits until the cluster says that the store does not answer.
    async fn says_that_the_store_is_away(&self, cluster: &Cluster) {
        let says_so = |view: &ClusterView| {
            view.state == ClusterState::Creating && view.reason.contains("the backup store s3://")
        };
        let what = "says that the store does not answer";
        self.system
            .wait_until(cluster, what, TOLD_DEADLINE, says_so)
            .await;
    }
}

/// What is in a folder, if it is there.
pub fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// Whether it is the executor of this task, whose id is that of the task.
fn is_of(process: &Process, task: &str) -> bool {
    let environment = fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
    let wanted = format!("MESOS_EXECUTOR_ID={task}");
    let is_one = process
        .arguments()
        .get(1)
        .is_some_and(|it| it == "executor");
    let mut variables = environment.split(|byte| *byte == 0);
    is_one && variables.any(|variable| variable == wanted.as_bytes())
}

pub const SUM: &str = "SELECT CONCAT(COUNT(*), ' ', SUM(CRC32(noise))) FROM load_db.noise";

/// Fills the cluster, and tells what the sum of it is.
pub async fn fill(cluster: &Cluster, view: &ClusterView) -> BTreeSet<String> {
    let at = endpoint(master(view));
    let table = "CREATE TABLE load_db.noise (id INT AUTO_INCREMENT PRIMARY KEY, noise BLOB)";
    let more = "INSERT INTO load_db.noise (noise) WITH RECURSIVE n AS \
         (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 1000) SELECT RANDOM_BYTES(1024) FROM n";
    run(&at, &cluster.account, &["CREATE DATABASE load_db", table]).await;
    run(&at, &cluster.account, &[more; ROUNDS]).await;
    let sum = crate::support::database::texts(&at, &cluster.account, SUM).await;
    let sum = sum.unwrap();
    for slave in slaves(view) {
        let at = endpoint(slave);
        wait_for_texts(&at, &cluster.account, SUM, &sum, REPLICATION_DEADLINE).await;
    }
    sum
}

async fn backups_and_restores_are_interrupted(flavour: Flavour) {
    let mut story = Story::start(flavour, &[]);
    let cluster = story.system.create_running("orders", 2).await;
    let view = story.system.show("orders").await.unwrap();
    let sum = fill(&cluster, &view).await;
    the_executor_is_killed_in_a_backup(&story, &cluster).await;
    the_store_goes_away_in_a_backup(&mut story, &cluster).await;
    the_scheduler_is_killed_in_a_backup(&story, &cluster).await;
    restores_are_interrupted(&mut story, &sum).await;
    story.system.delete_and_wait(&cluster).await;
}

async fn the_executor_is_killed_in_a_backup(story: &Story, cluster: &Cluster) {
    let (number, member) = story.begin_backup(cluster).await;
    let view = story.system.show("orders").await.unwrap();
    let maker = view.members.iter().find(|other| other.id == member);
    story.system.mysqld(maker.unwrap()).parent().kill();
    let (done, sentence) = story.end_of(cluster, number).await;
    assert!(!done && sentence.contains("ended"), "{sentence}");
    assert!(story.listed("orders").await.backups.is_empty());
    story.system.wait_running(cluster, CREATE_DEADLINE).await;
}

async fn the_store_goes_away_in_a_backup(story: &mut Story, cluster: &Cluster) {
    let (number, _) = story.begin_backup(cluster).await;
    story.s3.stop();
    let (done, sentence) = story.end_of(cluster, number).await;
    let says_so = sentence.contains("the backup store s3://");
    assert!(!done && says_so, "{sentence}");
    story.s3.restart();
    assert!(story.listed("orders").await.backups.is_empty());
}

/// The backup goes on, its end is heard by the next scheduler, and it took as long as the rate asks for.
async fn the_scheduler_is_killed_in_a_backup(story: &Story, cluster: &Cluster) {
    let (number, _) = story.begin_backup(cluster).await;
    story.kill_scheduler().await;
    let (done, sentence) = story.end_of(cluster, number).await;
    assert!(done, "{sentence}");
    let listed = story.listed("orders").await.backups;
    assert_eq!(listed.len(), 1);
    let About {
        begun_at,
        ended_at,
        data_bytes,
        ..
    } = listed[0].about.as_ref().unwrap();
    let took = ended_at.as_millis() - begun_at.as_millis();
    let at_the_least = data_bytes * 1000 / (u64::from(story.rate_mib) << 20);
    assert!(took >= at_the_least, "{took} ms, not {at_the_least}");
}

/// One member restores; its executor, then the scheduler, then the store are killed while it does. A second cluster is deleted while the
/// store is away.
async fn restores_are_interrupted(story: &mut Story, sum: &BTreeSet<String>) {
    let again = story.begin_restore("again").await;
    let (executor, first) = story.in_the_middle(&again, None).await;
    executor.kill();
    let (executor, second) = story.in_the_middle(&again, Some(&first)).await;
    story.kill_scheduler().await;
    let (the_same, still) = story.in_the_middle(&again, None).await;
    assert_eq!((the_same, still), (executor, second.clone()));
    // Not before: its restore could be complete by now.
    let lost = story.begin_restore("lost").await;
    story.s3.stop();
    story.says_that_the_store_is_away(&again).await;
    story.says_that_the_store_is_away(&lost).await;
    assert!(!second.exists(), "what was unpacked by halves was left");
    story.system.delete_and_wait(&lost).await;

    story.s3.restart();
    story.way.hold_answers(Duration::ZERO);
    let view = story.system.wait_running(&again, CREATE_DEADLINE).await;
    let at = endpoint(master(&view));
    wait_for_texts(&at, &again.account, SUM, sum, REPLICATION_DEADLINE).await;
    story.system.delete_and_wait(&again).await;
}
