//! Whoever verifies a backup is killed in the middle of it, then the scheduler, and at last the backup is removed: it is verified again, and told what was found;
//! and of one that is gone nothing is said, and nothing of it comes back.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use cotton::cluster::backup::BackupId;
use cotton::cluster::flavour::Flavour;
use cotton::cluster::verification::VerificationView;
use cotton::cluster::view::ClusterView;

use crate::interrupted::{HELD, ROUNDS, Story, entries, fill};
use crate::support::eventually;
use crate::support::process::Process;
use crate::support::rest::curl;
use crate::support::system::Cluster;

/// How long it may take until a backup that is due every minute is begun and made, or until one is being verified or is verified, on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(420);

fn verification(view: &ClusterView) -> Option<&VerificationView> {
    view.standing.backups.as_ref()?.verification.as_ref()
}

impl Story {
    async fn schedule(&self, cluster: &Cluster, schedule: &str) {
        let fields = [
            ("password", cluster.account.password.as_str()),
            ("backup_schedule", schedule),
        ];
        let answer = self.system.request("PATCH", &cluster.name, &fields).await;
        let answer = answer.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text);
    }

    /// Has one backup made by schedule, and tells its id. From here on reading it takes its time.
    async fn back_up_once(&self, cluster: &Cluster) -> BackupId {
        self.schedule(cluster, "every 1m").await;
        let is_begun = |view: &ClusterView| view.standing.backup.is_some();
        let what = "makes a backup by schedule";
        let view = self
            .system
            .wait_until(cluster, what, DEADLINE, is_begun)
            .await;
        self.way.hold_answers(HELD);
        self.schedule(cluster, "none").await;
        view.standing.backup.unwrap().id
    }

    /// Waits until the task of this number has unpacked some of the backup.
    async fn verifies(&self, cluster: &Cluster, id: &BackupId, number: u32) -> Process {
        let what = "a backup is restored to be verified";
        eventually(what, DEADLINE, async || {
            let view = self.system.show(&cluster.name).await?;
            let incarnation = view.standing.backups.as_ref()?.incarnation;
            let incarnation = incarnation.simple().to_string();
            let task = format!("{}.{}.verify.{number}", cluster.name, &incarnation[..8]);
            let found = self.restored_by(&task);
            let (executor, _) = found?;
            (verification(&view)?.under_way.as_ref() == Some(id)).then_some(executor)
        })
        .await
    }

    /// Waits until nothing is being verified or to be verified.
    async fn is_through(&self, cluster: &Cluster) -> VerificationView {
        let is_through = |view: &ClusterView| {
            verification(view).is_some_and(|it| it.under_way.is_none() && it.waiting == 0)
        };
        let what = "has nothing to verify any more";
        let view = self
            .system
            .wait_until(cluster, what, DEADLINE, is_through)
            .await;
        verification(&view).unwrap().clone()
    }
}

#[tokio::test]
async fn a_verification_is_interrupted() {
    let story = Story::start(Flavour::Mariadb, &["--verify-backups"]);
    let cluster = story.system.create_running("orders", 1).await;
    let view = story.system.show("orders").await.unwrap();
    fill(&cluster, &view).await;
    let folder = story.s3.bucket().join("cotton");

    let first = story.back_up_once(&cluster).await;
    let executor = story.verifies(&cluster, &first, 1).await;
    executor.kill();
    let executor = story.verifies(&cluster, &first, 2).await;
    story.kill_scheduler().await;
    assert!(executor.runs(), "it has ended with the scheduler");
    story.way.hold_answers(Duration::ZERO);
    let found = story.is_through(&cluster).await;
    let last = found.last.unwrap();
    assert!(last.good && last.id == first, "{last:?}");
    let rows = format!("1 tables with {} rows", ROUNDS * 1000);
    assert!(last.sentence.starts_with(&rows), "{}", last.sentence);
    assert!(folder.join(first.as_str()).join("verified.json").exists());
    let unknown = curl(&[&format!("{}/unknown-tasks", story.system.api)]).await;
    let unknown = unknown.unwrap().json();
    assert_eq!(unknown["unknown_tasks"], serde_json::json!([]), "{unknown}");

    let second = story.back_up_once(&cluster).await;
    story.verifies(&cluster, &second, 3).await;
    fs::remove_dir_all(folder.join(second.as_str())).unwrap();
    story.way.hold_answers(Duration::ZERO);
    let found = story.is_through(&cluster).await;
    assert_eq!((found.last.as_ref(), found.problem), (Some(&last), None));
    let left = entries(&folder.join("orders")).into_iter();
    let left: BTreeSet<_> = left.filter(|path| path.is_dir()).collect();
    assert_eq!(left, BTreeSet::from([folder.join(first.as_str())]));
    story.system.delete_and_wait(&cluster).await;
}
