//! Backups that a schedule makes are restored and looked through by tasks of their own; one that was damaged is found and told.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cotton::cluster::backup::BackupId;
use cotton::cluster::flavour::Flavour;
use cotton::cluster::verification::{VerificationOutcome, VerificationView};
use cotton::cluster::view::ClusterView;
use cotton::http::backups::{BackupsAnswer, StoredBackup};

use crate::backups::{flip, store_in_a_folder, system};
use crate::support::database::run;
use crate::support::eventually;
use crate::support::rest;
use crate::support::system::{Cluster, Options, System, endpoint, master};

crate::for_both_flavours!(scheduled_backups_are_verified_and_damage_is_found);

/// How long a backup that is due every minute may take to come and to be verified, on a loaded machine.
const VERIFIED_DEADLINE: Duration = Duration::from_secs(420);

fn verification(view: &ClusterView) -> Option<&VerificationView> {
    view.standing.backups.as_ref()?.verification.as_ref()
}

fn last(view: &ClusterView) -> Option<&VerificationOutcome> {
    verification(view)?.last.as_ref()
}

/// Waits for what comes of a verification of none of these backups.
async fn next_verified(
    system: &System,
    cluster: &Cluster,
    known: &BTreeSet<BackupId>,
) -> VerificationOutcome {
    let is_new = |view: &ClusterView| last(view).is_some_and(|last| !known.contains(&last.id));
    let what = "has verified a backup";
    let view = system
        .wait_until(cluster, what, VERIFIED_DEADLINE, is_new)
        .await;
    last(&view).unwrap().clone()
}

async fn listed(system: &System) -> Vec<StoredBackup> {
    let answer = rest::curl(&[&format!("{}/clusters/orders/backups", system.api)]).await;
    let answer = answer.unwrap();
    // The names of tables are nobody's business who has no password.
    assert!(!answer.text.contains("`odd"), "{}", answer.text);
    let answer: BackupsAnswer = serde_json::from_value(answer.json()).unwrap();
    answer.backups
}

fn complete_in(folder: &Path) -> BTreeSet<PathBuf> {
    let Ok(entries) = fs::read_dir(folder.join("orders")) else {
        return BTreeSet::new();
    };
    let folders = entries.filter_map(|entry| Some(entry.ok()?.path()));
    folders
        .filter(|path| path.join("manifest.json").is_file())
        .collect()
}

/// Damages the next backup that is completed, before anybody reads it again.
async fn damage_next(folder: &Path) {
    let before = complete_in(folder);
    let new = loop {
        let now = complete_in(folder);
        if let Some(new) = now.difference(&before).next() {
            break new.clone();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    flip(&new.join("data"));
}

async fn scheduled_backups_are_verified_and_damage_is_found(flavour: Flavour) {
    let (_store, key, folder) = store_in_a_folder();
    let mut options: Options = system(flavour, &folder, &key);
    let settings = [
        "--backup-schedule",
        "every 1m",
        "--backup-keep",
        "1",
        "--verify-backups",
    ];
    options.arguments.extend(settings.map(str::to_owned));
    let system = System::with_options(options);
    let cluster = system.create_running("orders", 1).await;
    let view = system.show("orders").await.unwrap();
    let statements = [
        "CREATE DATABASE shop",
        "CREATE TABLE shop.orders (n INT PRIMARY KEY)",
        "INSERT INTO shop.orders VALUES (1), (2), (3)",
        "CREATE TABLE shop.`it's ``odd` (n INT)",
    ];
    run(&endpoint(master(&view)), &cluster.account, &statements).await;

    // The first one may have been made before the tables were.
    let first = next_verified(&system, &cluster, &BTreeSet::new()).await;
    assert!(first.good, "{}", first.sentence);
    let mut known = BTreeSet::from([first.id.clone()]);
    // The scheduler is lost while a backup is being verified.
    let is_under_way =
        |view: &ClusterView| verification(view).is_some_and(|it| it.under_way.is_some());
    let what = "verifies a backup";
    let view = system
        .wait_until(&cluster, what, VERIFIED_DEADLINE, is_under_way)
        .await;
    let under_way = verification(&view).unwrap().under_way.clone().unwrap();
    known.insert(under_way.clone());
    system.scheduler().await.kill();
    let is_over = |view: &ClusterView| last(view).is_some_and(|last| last.id >= under_way);
    let what = "goes on after the loss of its scheduler";
    let view = system
        .wait_until(&cluster, what, VERIFIED_DEADLINE, is_over)
        .await;
    let good = last(&view).unwrap().clone();
    assert!(good.good, "{}", good.sentence);
    assert!(
        good.sentence.starts_with("2 tables with 3 rows"),
        "{}",
        good.sentence
    );
    let unknown = rest::curl(&[&format!("{}/unknown-tasks", system.api)]).await;
    let unknown = unknown.unwrap().json();
    assert_eq!(unknown["unknown_tasks"], serde_json::json!([]), "{unknown}");
    let described = listed(&system).await;
    let described = described.iter().find(|backup| backup.id == good.id);
    if let Some(found) = described.and_then(|backup| backup.verified.as_ref()) {
        assert_eq!((found.tables, found.rows), (2, 3));
        let path = folder.join(good.id.as_str()).join("verified.json");
        // A newer one that is good may have taken its place in the meantime.
        if let Ok(text) = fs::read(path) {
            let document: serde_json::Value = serde_json::from_slice(&text).unwrap();
            let rows = |table| serde_json::json!({"database": "shop", "table": table, "rows": if table == "orders" { 3 } else { 0 }});
            let expected = serde_json::json!([rows("it's `odd"), rows("orders")]);
            assert_eq!(document["row_counts"], expected);
        }
    }

    known.extend(listed(&system).await.into_iter().map(|backup| backup.id));
    tokio::time::timeout(VERIFIED_DEADLINE, damage_next(&folder))
        .await
        .expect("a backup is completed");
    let failed = |view: &ClusterView| last(view).is_some_and(|last| !last.good);
    let what = "has found the damage";
    let view = system
        .wait_until(&cluster, what, VERIFIED_DEADLINE, failed)
        .await;
    let (bad, shown) = (last(&view).unwrap(), verification(&view).unwrap());
    assert!(bad.sentence.contains("is damaged"), "{}", bad.sentence);
    let kept = shown.last_good.clone().unwrap().id;
    let left = listed(&system).await;
    let of = |id: &BackupId| left.iter().find(|backup| backup.id == *id);
    assert!(
        of(&kept).is_some_and(|it| it.verified.as_ref().is_some_and(|it| it.good)),
        "the last good one has gone: {left:?}"
    );
    let told = of(&bad.id).and_then(|it| it.verified.as_ref());
    assert!(told.is_some_and(|it| !it.good), "{left:?}");
    let page = rest::curl(&[&format!("{}/", system.api)]).await;
    let page = page.unwrap().text;
    assert!(page.contains("HAS FAILED"), "{page}");
    let metrics = rest::curl(&[&format!("{}/metrics", system.api)]).await;
    let metrics = metrics.unwrap().text;
    let counted = "cotton_scheduler_backup_verifications_failed_total 1";
    assert!(metrics.contains(counted), "{metrics}");

    let fields = [
        ("password", cluster.account.password.as_str()),
        ("backup_schedule", "none"),
    ];
    let stopped = system.request("PATCH", "orders", &fields).await.unwrap();
    assert_eq!(stopped.status, 200, "{}", stopped.text);
    nothing_is_left(&system).await;
    system.delete_and_wait(&cluster).await;
}

/// What was restored goes with the end of its task.
async fn nothing_is_left(system: &System) {
    let what = "no task has left what it has restored";
    // One more may have been under way.
    eventually(what, VERIFIED_DEADLINE, async || {
        let mut left = Vec::new();
        for number in 1..=20 {
            let view = system.show("orders").await?;
            let incarnation = view.standing.backups?.incarnation.simple().to_string();
            let task = format!("orders.{}.verify.{number}", &incarnation[..8]);
            let sandbox = system.find_sandbox(&task);
            left.extend(sandbox.filter(|path| path.join("state/data").exists()));
        }
        left.is_empty().then_some(())
    })
    .await;
}
