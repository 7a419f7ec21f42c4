//! Backups: asked for, listed, removed; and what is told of a cluster's.

use std::{fs, path::Path, time::Duration};

use cotton::{
    backup::{
        manifest::{self, Object},
        store::Store,
        verified::{self, Document, Verified},
    },
    cluster::{
        backup::BackupOutcome,
        view::{BackupView, ClusterView},
    },
    http::backups::BackupsAnswer,
    time::Timestamp,
};

use super::{admin, texts};
use crate::{
    backup::{manifest_of, settings},
    http::{double::Server, from_backup::DATA_BYTES, pages},
    support::eventually,
};

/// What the double of the scheduler answers to the first request for a backup of `a`.
const ID: &str = "a/20260201T120000Z";

const ASK: [&str; 4] = ["backup", "a", "--password-file", "-"];

/// A server with a cluster `a` and a store in a folder.
async fn server_with(folder: &Path) -> Server {
    let server = Server::with_backups(folder).await;
    let create = ["create", "a", "--user", "app", "--password-file", "-"];
    let made = texts(&admin(&server, &create, "right").await);
    assert_eq!(made.0, Some(0), "{}", made.2);
    server
}

/// What is shown of the cluster when the backup of this number has ended.
fn ended(number: u64, done: bool) -> ClusterView {
    let mut view = pages::view("a");
    view.standing.last_backup = Some(BackupOutcome {
        number,
        id: ID.parse().unwrap(),
        done,
        at: Timestamp::from_millis(2000),
        sentence: "this is how it is".to_owned(),
        scheduled: false,
        removed: false,
    });
    view
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let server = server_with(folder.path()).await;
    let output = texts(&admin(&server, &ASK, "right").await);
    assert_eq!(output, (Some(0), format!("{ID}\n"), String::new()));
    let (status, json, _) =
        texts(&admin(&server, &[&ASK[..], &["--json"]].concat(), "right").await);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let expected = serde_json::json!({
        "cluster_url": "zk://z:2181/cotton/discover/a", "id": ID, "number": 1,
    });
    assert_eq!((status, json), (Some(0), expected));
    let wrong = texts(&admin(&server, &ASK, "wrong").await);
    let sentence = "cotton: the password is not that of the cluster's user (403 Forbidden)\n";
    assert_eq!(wrong, (Some(1), String::new(), sentence.to_owned()));

    let without = Server::start().await;
    let create = ["create", "a", "--user", "app", "--password-file", "-"];
    admin(&without, &create, "right").await;
    let refused = texts(&admin(&without, &ASK, "right").await);
    let sentence = "cotton: no backup store is configured, so there are no backups; see --backup-store of cotton scheduler (409 Conflict)\n";
    assert_eq!(refused, (Some(1), String::new(), sentence.to_owned()));
}

/// Goal: who waits hears how far the backup is and what came of it, and an error where there is none. Method: the view shows it under way, and then each end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_backup_hears_what_came_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let server = server_with(folder.path()).await;
    let wait = [&ASK[..], &["--wait"]].concat();
    let failed = format!("cotton: there is no backup {ID}: this is how it is\n");
    let other = format!(
        "cotton: another backup has been made since; cotton admin backups a tells whether {ID} is complete\n"
    );
    for (view, status, told) in [
        (ended(1, true), 0, "this is how it is\n"),
        (ended(1, false), 1, &failed),
        (ended(2, true), 1, &other),
        (pages::view("a"), 1, &other),
    ] {
        server.show(true, vec![view]);
        let output = texts(&admin(&server, &wait, "right").await);
        assert_eq!(output, (Some(status), format!("{ID}\n"), told.to_owned()));
    }

    let mut view = pages::view("a");
    view.standing.backup = Some(BackupView {
        number: 1,
        id: ID.parse().unwrap(),
        member: Some(1),
        bytes: 5 << 20,
    });
    server.show(true, vec![view.clone()]);
    let late = [&wait[..], &["--timeout", "10ms"]].concat();
    let (status, _, told) = texts(&admin(&server, &late, "right").await);
    let sentence = "cotton: not over after 10ms; cotton admin explain a tells what it waits for\n";
    assert_eq!(status, Some(1));
    assert!(told.ends_with(sentence), "{told}");
    let idle = server.views.receiver_count();
    let waits = admin(&server, &wait, "right");
    let goes_on = async {
        // A look that waits for a change is one more who watches.
        eventually("it looks", Duration::from_secs(60), async || {
            (server.views.receiver_count() > idle).then_some(())
        })
        .await;
        server.show(true, vec![ended(1, true)]);
    };
    let (output, ()) = tokio::join!(waits, goes_on);
    let told = "member 1 has read 5 MiB\nthis is how it is\n".to_owned();
    assert_eq!(texts(&output), (Some(0), format!("{ID}\n"), told));
}

/// Stores what describes a backup, and what was found in it.
async fn stored(folder: &Path, id: &str, key_id: Option<&str>, problem: Option<&str>) {
    let mut manifest = manifest_of(id, DATA_BYTES, key_id.map(str::to_owned));
    manifest.objects.push(Object {
        name: manifest::DATA_FILE.to_owned(),
        bytes: 7 << 20,
        sha256: "ab".repeat(32),
    });
    let store = Store::open(&settings(folder, None)).unwrap();
    fs::create_dir_all(folder.join(id)).unwrap();
    store.complete(&manifest).await.unwrap();
    let document = Document {
        found: Verified {
            format: verified::FORMAT,
            id: manifest.id.clone(),
            sha256: manifest.objects[0].sha256.clone(),
            at: Timestamp::from_millis(1_769_947_200_000),
            good: problem.is_none(),
            problem: problem.map(str::to_owned),
            seconds: 12,
            tables: 3,
            rows: 70,
        },
        damage: Vec::new(),
        row_counts: Vec::new(),
    };
    let noted = store.note_verified(&manifest.id, &manifest, &document);
    assert!(noted.await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backups_are_listed_with_what_was_found_in_them() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::with_backups(folder.path()).await;
    let unknown = texts(&admin(&server, &["backups", "orders"], "").await);
    let sentence = "cotton: there is no cluster \"orders\" (404 Not Found)\n";
    assert_eq!(unknown, (Some(1), String::new(), sentence.to_owned()));

    let root = folder.path();
    stored(root, "orders/20260201T120000Z", Some("00ff"), None).await;
    let bad = "2 tables are damaged";
    stored(root, "orders/20260202T120000Z", None, Some(bad)).await;
    let damaged = root.join("orders/20260203T120000Z");
    fs::create_dir_all(&damaged).unwrap();
    fs::write(damaged.join(manifest::FILE), "{").unwrap();
    let (status, listed, stderr) = texts(&admin(&server, &["backups", "orders"], "").await);
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    let lines: Vec<&str> = listed.lines().collect();
    let about = "mariadb 10.11.14  3073 MiB of data, 7 MiB stored";
    assert_eq!(
        lines[..2],
        [
            format!(
                "orders/20260201T120000Z  {about}, encrypted with the key 00ff, verified 2026-02-01 12:00:00.000 UTC: 3 tables with 70 rows, in 12 s"
            ),
            format!(
                "orders/20260202T120000Z  {about}, VERIFICATION FAILED 2026-02-01 12:00:00.000 UTC: {bad}"
            ),
        ]
    );
    let refused = "orders/20260203T120000Z  the backup orders/20260203T120000Z cannot be used: the backup's manifest is damaged";
    assert!(lines[2].starts_with(refused), "{}", lines[2]);
    assert_eq!(lines.len(), 3);

    let (_, json, _) = texts(&admin(&server, &["backups", "orders", "--json"], "").await);
    let answer: BackupsAnswer = serde_json::from_str(&json).unwrap();
    let found: Vec<_> = answer
        .backups
        .iter()
        .map(|it| (it.about.is_some(), it.verified.as_ref().map(|it| it.good)))
        .collect();
    assert_eq!(
        found,
        [(true, Some(true)), (true, Some(false)), (false, None)]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::with_backups(folder.path()).await;
    let (first, second) = ("orders/20260201T120000Z", "orders/20260202T120000Z");
    stored(folder.path(), first, None, None).await;
    stored(folder.path(), second, None, None).await;
    let remove = |id| ["backup-delete", id, "--password-file", "-"];
    for id in ["orders", "orders/20260201T120000Z/data", ""] {
        let (status, _, told) = texts(&admin(&server, &remove(id), "right").await);
        assert_eq!(status, Some(2), "{id}");
        let sentence =
            "it is not the id of a cluster's backup, such as orders/20261122T193307Z; see --help";
        assert!(told.contains(sentence), "{told}");
    }
    let wrong = texts(&admin(&server, &remove(first), "right").await);
    let sentence = "(403 Forbidden)\n";
    assert!(
        wrong.0 == Some(1) && wrong.2.ends_with(sentence),
        "{}",
        wrong.2
    );
    assert!(folder.path().join(first).exists());

    let administrator = crate::http::double::ADMINISTRATOR;
    let removed = texts(&admin(&server, &remove(first), administrator).await);
    let told = format!("{first} is removed\n");
    assert_eq!(removed, (Some(0), String::new(), told));
    let json = [&remove(second)[..], &["--json"]].concat();
    let removed = texts(&admin(&server, &json, administrator).await);
    let answer = format!("{{\"id\":\"{second}\"}}\n");
    assert_eq!(removed, (Some(0), answer, String::new()));
    assert!(!folder.path().join(first).exists() && !folder.path().join(second).exists());
    let again = texts(&admin(&server, &remove(first), administrator).await);
    let sentence = format!("the backup store has no backup \"{first}\"");
    assert!(
        again.0 == Some(1) && again.2.contains(&sentence),
        "{}",
        again.2
    );
}

/// Goal: how far back a cluster could be brought is told, and so is that it could not be. Method: each thing that a view may say of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn show_tells_up_to_when_a_cluster_is_recoverable() {
    let server = Server::start().await;
    let until = Some(Timestamp::from_millis(1_769_947_200_000));
    let problem = Some("the store is away since then".to_owned());
    for (archived_until, recoverable_until, archive_problem, rows) in [
        (None, None, None, &[][..]),
        (
            until,
            until,
            None,
            &["recoverable until 2026-02-01 12:00:00.000 UTC"],
        ),
        (
            until,
            None,
            problem.clone(),
            &[
                "binlogs archived until 2026-02-01 12:00:00.000 UTC; there is no backup to begin with",
                "archive the store is away since then",
            ],
        ),
        (
            None,
            None,
            problem,
            &["archive the store is away since then"],
        ),
    ] {
        let mut view = pages::view("orders");
        view.standing.archived_until = archived_until;
        view.standing.recoverable_until = recoverable_until;
        view.standing.archive_problem = archive_problem;
        server.show(true, vec![view]);
        let (status, shown, stderr) = texts(&admin(&server, &["show", "orders"], "").await);
        assert_eq!((status, stderr.as_str()), (Some(0), ""));
        let of_archive = |line: &&str| line.contains("rchive") || line.contains("recover");
        let found: Vec<String> = shown
            .lines()
            .filter(of_archive)
            .map(without_columns)
            .collect();
        assert_eq!(found, rows);
    }

    let mut view = ended(3, false);
    view.standing.backups = serde_json::from_value(serde_json::json!({
        "incarnation": uuid::Uuid::from_u128(1), "schedule": "every 6h", "keep": "7",
        "next_at": 1_769_947_200_000_u64,
        "last_complete": {"id": ID, "asked_at": 1_769_860_800_000_u64},
    }))
    .unwrap();
    server.show(true, vec![view]);
    let (_, shown, _) = texts(&admin(&server, &["show", "a"], "").await);
    let line = shown.lines().find(|line| line.starts_with("backups"));
    let expected = format!(
        "backups last {ID} of 2026-01-31 12:00:00.000 UTC; {ID} came to nothing: this is how it is; next due 2026-02-01 12:00:00.000 UTC (every 6h)"
    );
    assert_eq!(line.map(without_columns), Some(expected));
}

fn without_columns(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}
