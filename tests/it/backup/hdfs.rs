//! Backups in a real HDFS, and what its outages come to.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use cotton::backup::{
    manifest::{self, Object},
    store::{Pace, Store, StoreError},
    stream::pack,
};
use cotton::executor::install::fetch::{FetchError, fetch};

use tokio::sync::oneshot;

use super::{
    a_frozen_store_is_a_sentence, a_store_keeps_backups, at, back_up, data, id, noise, restore,
};
use crate::support::{Hdfs, free_port};

/// How long a sentence may take when the name node answers nothing: three questions of 15 s with their pauses, or a piece of 60 s and its removal, and
/// time to spare on a loaded machine.
const SENTENCE_LIMIT: Duration = Duration::from_secs(150);

/// Goal: HDFS keeps backups as a folder does, through two name nodes of which one is away, too; and an outage is a sentence and leaves
/// nothing that could be taken for a backup.
#[tokio::test(flavor = "multi_thread")]
async fn hdfs_keeps_backups_and_its_outage_is_a_sentence() {
    let mut hdfs = Hdfs::start();
    let store = Store::open(&at(hdfs.url("/cotton/backups"))).unwrap();
    a_store_keeps_backups(&store).await;

    a_package_is_fetched(&hdfs, &store).await;

    let two = format!("hdfs://127.0.0.1:{},{}/two", free_port(), hdfs.address());
    let through_the_other = Store::open(&at(two)).unwrap();
    a_store_keeps_backups(&through_the_other).await;

    let (freeze, thaw) = (|| hdfs.freeze_name_node(), || hdfs.thaw_name_node());
    a_frozen_store_is_a_sentence(&store, "hdfs", SENTENCE_LIMIT, freeze, thaw).await;
    a_name_node_that_ends_is_one(&mut hdfs, &store).await;
}

/// A server's package may lie in HDFS; any file does for one here.
async fn a_package_is_fetched(hdfs: &Hdfs, store: &Store) {
    let manifest = back_up(store, &id("packages/20260201T120000Z"))
        .await
        .unwrap();
    let Object {
        name,
        bytes,
        sha256,
    } = &manifest.objects[0];
    let url = hdfs.url(&format!("/cotton/backups/{}/{name}", manifest.id));
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("download");
    let package = fetch(&url, Some(sha256), &to).await.unwrap();
    assert_eq!(package.path(), to);
    assert_eq!(to.metadata().unwrap().len(), *bytes);
    drop(package);

    let other = "ab".repeat(32);
    let error = fetch(&url, Some(&other), &to).await.unwrap_err();
    assert!(matches!(error, FetchError::Checksum { .. }), "{error}");
    let error = fetch(&format!("{url}.none"), None, &to).await.unwrap_err();
    assert!(matches!(error, FetchError::Hdfs { .. }), "{error}");
    assert!(!to.exists());
}

/// Tells when the first piece is stored.
struct FirstPiece(Option<oneshot::Sender<()>>);

impl Pace for FirstPiece {
    async fn keep(&mut self, _: u64) {
        if let Some(tell) = self.0.take() {
            tell.send(()).unwrap();
        }
    }
}

/// The name node ends while a backup's data is on its way.
async fn a_name_node_that_ends_is_one(hdfs: &mut Hdfs, store: &Store) {
    let interrupted = id("interrupted/20260201T120000Z");
    let (go_on, may_go_on) = mpsc::channel();
    let (tell, told) = oneshot::channel();
    let packing = pack(None, move |to| {
        to.write_all(&noise(8 << 20))?;
        may_go_on.recv().map_err(std::io::Error::other)?;
        to.write_all(&noise(8 << 20))
    })
    .unwrap();
    let mut first = FirstPiece(Some(tell));
    let putting = store.put(&interrupted, manifest::DATA_FILE, packing, &mut first);
    let stopping = async {
        let waited = tokio::time::timeout(SENTENCE_LIMIT, told).await;
        waited.unwrap().unwrap();
        hdfs.stop_name_node();
        go_on.send(()).unwrap();
    };
    let asked = Instant::now();
    let (put, ()) = tokio::join!(putting, stopping);
    let error = put.unwrap_err();
    assert!(asked.elapsed() < SENTENCE_LIMIT, "{:?}", asked.elapsed());
    assert!(matches!(error, StoreError::Operation { .. }), "{error:?}");

    hdfs.restart_name_node();
    let listed = store.list(&"interrupted".parse().unwrap()).await.unwrap();
    assert!(listed.is_empty(), "{listed:?}");
    // It is begun again under another id, by the same process.
    back_up(store, &id("interrupted/20260202T120000Z"))
        .await
        .unwrap();
    assert_eq!(restore(store, "interrupted").await.unwrap(), data());
}
