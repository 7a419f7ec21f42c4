//! What was found in a backup is kept with it, and goes with it.

use std::fs;

use cotton::{
    backup::{
        manifest::Manifest,
        store::Store,
        verified::{self, Document, TableRows, Verified},
    },
    time::Timestamp,
};

use super::{back_up, id, settings};

fn found(manifest: &Manifest) -> Document {
    Document {
        found: Verified {
            format: verified::FORMAT,
            id: manifest.id.clone(),
            sha256: manifest.objects[0].sha256.clone(),
            at: Timestamp::from_millis(3),
            good: true,
            problem: None,
            seconds: 1,
            tables: 1,
            rows: 7,
        },
        damage: Vec::new(),
        row_counts: vec![TableRows {
            database: "shop".to_owned(),
            table: "orders".to_owned(),
            rows: 7,
        }],
    }
}

/// What any store must do. The backup goes on as if nothing had been found.
pub async fn is_kept_with_its_backup(store: &Store, of: &Manifest) {
    let cluster = of.cluster.clone();
    let found_in = async || {
        let listed = store.list(&cluster).await.unwrap();
        let one = listed.into_iter().find(|listed| listed.id == of.id);
        one.unwrap().verified.map(|found| found.rows)
    };
    assert_eq!(found_in().await, None);
    let document = found(of);
    // Once more: what was found last is told.
    for rows in [3, 7] {
        let mut document = document.clone();
        document.found.rows = rows;
        assert!(store.note_verified(&of.id, of, &document).await.unwrap());
        assert_eq!(found_in().await, Some(rows));
    }

    let gone = back_up(store, &id("orders/20260206T120000Z"))
        .await
        .unwrap();
    store.remove(&gone.id).await.unwrap();
    let noted = store.note_verified(&gone.id, &gone, &found(&gone)).await;
    assert!(!noted.unwrap());
    let survey = store.survey(&cluster).await.unwrap();
    assert!(!survey.unfinished.contains(&gone.id), "{survey:?}");
}

/// Goal: nothing of a backup that is removed comes back to life. Method: what was found is stored while the backup is removed, many times; nothing is left
/// whoever was first.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_backup_that_is_removed_while_it_is_verified() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&settings(folder.path(), None)).unwrap();
    for number in 0..60 {
        let id = id("orders/20260201T120000Z");
        let made = back_up(&store, &id).await.unwrap();
        let (remover, removed) = (store.clone(), made.id.clone());
        let removing = tokio::spawn(async move {
            for _ in 0..number {
                tokio::task::yield_now().await;
            }
            remover.remove(&removed).await
        });
        let noted = store.note_verified(&made.id, &made, &found(&made)).await;
        noted.unwrap();
        removing.await.unwrap().unwrap();
        let left: Vec<_> = fs::read_dir(folder.path().join("orders"))
            .unwrap()
            .collect();
        assert!(left.is_empty(), "{number}: {left:?}");
    }
}
