//! Backups in a real HDFS, and what its outages come to.

use std::{
    process::Command,
    sync::mpsc,
    time::{Duration, Instant},
};

use cotton::backup::{
    manifest::{self, Object},
    store::{Pace, Store, StoreError},
    stream::pack,
};
use cotton::executor::{
    chain,
    install::fetch::{FetchError, fetch},
};

use tokio::sync::oneshot;

use super::{
    LARGE, a_frozen_store_is_a_sentence, a_store_keeps_backups, archive, at, back_up, back_up_with,
    data, id, noise, restore, restore_interrupted,
};
use crate::support::{Hdfs, eventually, free_port, hdfs::write_settings};

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

    archive::is_kept(&store).await;
    a_package_is_fetched(&hdfs, &store).await;

    let two = format!("hdfs://127.0.0.1:{},{}/two", free_port(), hdfs.address());
    let through_the_other = Store::open(&at(two)).unwrap();
    a_store_keeps_backups(&through_the_other).await;

    let (freeze, thaw) = (|| hdfs.freeze_name_node(), || hdfs.thaw_name_node());
    a_frozen_store_is_a_sentence(&store, "hdfs", SENTENCE_LIMIT, freeze, thaw).await;
    a_name_node_that_ends_is_one(&mut hdfs, &store).await;
    a_data_node_that_ends_is_one(&mut hdfs, &store).await;
}

/// The data node ends while a backup is being read, and comes back.
async fn a_data_node_that_ends_is_one(hdfs: &mut Hdfs, store: &Store) {
    let large = id("read/20260201T120000Z");
    back_up_with(store, &large, || noise(LARGE)).await.unwrap();
    let asked = Instant::now();
    let read = restore_interrupted(store, "read", || hdfs.stop_data_node()).await;
    assert!(asked.elapsed() < SENTENCE_LIMIT, "{:?}", asked.elapsed());
    let error = read.unwrap_err();
    assert!(matches!(error, StoreError::Operation { .. }), "{error:?}");
    let text = chain(&error);
    assert!(text.contains("the backup store hdfs://"), "{text}");
    assert!(text.contains("cannot read a backup's data"), "{text}");

    hdfs.restart_data_node();
    let read = eventually("the data is read", SENTENCE_LIMIT, async || {
        restore(store, "read").await.ok()
    });
    assert!(read.await == noise(LARGE));
}

/// What tells a process of these tests which store it is to look at, and who may write into it.
const STORE: &str = "COTTON_TEST_STORE";
const MAY_WRITE: &str = "COTTON_TEST_MAY_WRITE";

/// The part of [`a_name_of_hadoops_settings_is_used_as_a_user`] that runs in processes of their own, since the client reads names and users from its environment. By itself it does nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_uses_its_environment() {
    let Ok(url) = std::env::var(STORE) else {
        return;
    };
    let store = Store::open(&at(url)).unwrap();
    if std::env::var_os(MAY_WRITE).is_some() {
        return a_store_keeps_backups(&store).await;
    }
    assert_eq!(restore(&store, "orders").await.unwrap(), data());
    let refused = back_up(&store, &id("orders/20260207T120000Z")).await;
    let text = chain(&refused.unwrap_err());
    assert!(
        text.contains("the backup store hdfs://analytics/"),
        "{text}"
    );
    assert!(text.contains("Permission denied: user=stranger"), "{text}");
}

/// Goal: a store is at the name of a service that Hadoop's settings know, though one of its name nodes is away; and with permissions it is the user of the environment who may write. Method: a name
/// with two nodes of which one does not run, and processes of two users in a folder of one of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_of_hadoops_settings_is_used_as_a_user() {
    let hdfs = Hdfs::start_with_permissions();
    hdfs.shell(&["-mkdir", "/theirs"]);
    hdfs.shell(&["-chown", "writer", "/theirs"]);
    let settings = tempfile::tempdir().unwrap();
    let name = |key: &str| format!("dfs.namenode.rpc-address.analytics.{key}");
    let away = format!("127.0.0.1:{}", free_port());
    write_settings(
        &settings.path().join("core-site.xml"),
        &[("fs.defaultFS", "hdfs://analytics".to_owned())],
    );
    write_settings(
        &settings.path().join("hdfs-site.xml"),
        &[
            ("dfs.nameservices", "analytics".to_owned()),
            ("dfs.ha.namenodes.analytics", "one,two".to_owned()),
            (&name("one"), away),
            (&name("two"), hdfs.address()),
        ],
    );
    for (user, may_write) in [("writer", true), ("stranger", false)] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "backup::hdfs::a_process_uses_its_environment"])
            .env("HADOOP_CONF_DIR", settings.path())
            .env("HADOOP_USER_NAME", user)
            .env(STORE, "hdfs://analytics/theirs/backups");
        if may_write {
            command.env(MAY_WRITE, "yes");
        }
        let output = tokio::task::spawn_blocking(move || command.output().unwrap());
        let output = output.await.unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{user}: {told}");
        assert!(told.contains("1 passed"), "{user}: {told}");
    }
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
