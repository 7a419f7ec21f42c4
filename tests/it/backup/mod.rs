//! The store of backups, on real stores.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod archive;
mod damage;
mod hdfs;
mod s3;
mod verified;

use std::{
    io::Read,
    path::Path,
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use cotton::{
    backup::{
        manifest::{self, Form, Manifest},
        store::{Pace, Store, StoreError},
        stream::{pack, unpack},
    },
    cluster::{
        backup::{BackupId, BackupStore},
        flavour::{Flavour, ServerVersion},
        gtid::Position,
        id::{Epoch, MemberId},
    },
    executor::chain,
    time::Timestamp,
};
use tokio::sync::oneshot;
use uuid::Uuid;

/// A store in a folder.
pub fn settings(folder: &Path, key: Option<&Path>) -> BackupStore {
    BackupStore {
        key: key.map(|path| path.display().to_string()),
        ..at(format!("file://{}", folder.display()))
    }
}

/// A store that a URL says all about.
fn at(url: String) -> BackupStore {
    BackupStore {
        url,
        region: None,
        endpoint: None,
        credentials: None,
        key: None,
        rate_mib: 0,
    }
}

fn id(text: &str) -> BackupId {
    text.parse().unwrap()
}

/// Remembers what it was told last.
struct Seen(u64);

impl Pace for Seen {
    async fn keep(&mut self, read: u64) {
        self.0 = read;
    }
}

/// Two megabytes that do not compress to nothing.
fn data() -> Vec<u8> {
    (0..2_000_000u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[2..3].to_vec())
        .collect()
}

/// What cannot be compressed, the same each time.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut all = vec![0; bytes];
    for part in all.chunks_exact_mut(8) {
        // Marsaglia's xorshift.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        part.copy_from_slice(&state.to_le_bytes());
    }
    all
}

/// Stores a backup as an executor does.
async fn back_up(store: &Store, id: &BackupId) -> Result<Manifest, StoreError> {
    back_up_with(store, id, data).await
}

/// The same, of other data.
async fn back_up_with(
    store: &Store,
    id: &BackupId,
    data: fn() -> Vec<u8>,
) -> Result<Manifest, StoreError> {
    let seal = store.begin(id).await?;
    let packing = pack(seal, move |to| to.write_all(&data()))?;
    let mut seen = Seen(0);
    let (object, data_bytes) = store
        .put(id, manifest::DATA_FILE, packing, &mut seen)
        .await?;
    assert_eq!(seen.0, data_bytes);
    let manifest = Manifest {
        objects: vec![object],
        ..manifest_of(id.as_str(), data_bytes, store.key().map(|key| key.id()))
    };
    store.complete(&manifest).await?;
    Ok(manifest)
}

/// What describes a backup that was made as `id`, but for its files.
pub fn manifest_of(id: &str, data_bytes: u64, key_id: Option<String>) -> Manifest {
    Manifest {
        id: id.parse().unwrap(),
        cluster: "orders".parse().unwrap(),
        uuid: Uuid::from_u128(7),
        epoch: Epoch(3),
        member: MemberId(1),
        flavour: Flavour::Mariadb,
        version: ServerVersion::new(10, 11, 14),
        position: Position::empty(Flavour::Mariadb),
        binlog_state: None,
        admin_user: "admin".to_owned(),
        cluster_user: "app".to_owned(),
        begun_at: Timestamp::from_millis(1),
        ended_at: Timestamp::from_millis(2),
        data_bytes,
        form: Form::Mbstream,
        compression: "zstd".to_owned(),
        key_id,
        objects: Vec::new(),
    }
}

/// Reads a backup as an executor does.
async fn restore(store: &Store, asked: &str) -> Result<Vec<u8>, StoreError> {
    let (id, manifest) = store.find(asked).await?;
    let found = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&found);
    let consume =
        move |from: &mut dyn Read| from.read_to_end(&mut into.lock().unwrap()).map(|_| ());
    let unpacking = unpack(store.seal_of(&manifest)?, consume)?;
    store.get(&id, &manifest.objects[0], unpacking).await?;
    let found = found.lock().unwrap().clone();
    Ok(found)
}

/// Begins to read a backup, has it interrupted when the first bytes are unpacked, and returns what comes of it.
async fn restore_interrupted(
    store: &Store,
    asked: &str,
    interrupt: impl FnOnce(),
) -> Result<(), StoreError> {
    let (id, manifest) = store.find(asked).await?;
    let (tell, told) = oneshot::channel();
    let (go_on, may_go_on) = mpsc::channel();
    let consume = move |from: &mut dyn Read| {
        from.read_exact(&mut [0])?;
        let _ = tell.send(());
        may_go_on.recv().map_err(std::io::Error::other)?;
        std::io::copy(from, &mut std::io::sink()).map(|_| ())
    };
    let unpacking = unpack(store.seal_of(&manifest)?, consume)?;
    let reading = store.get(&id, &manifest.objects[0], unpacking);
    let interrupting = async {
        told.await.unwrap();
        interrupt();
        go_on.send(()).unwrap();
    };
    let (read, ()) = tokio::join!(reading, interrupting);
    read.map(|_| ())
}

/// A store that keeps its connections and answers nothing is a sentence within a time, and is used again when it answers.
async fn a_frozen_store_is_a_sentence(
    store: &Store,
    scheme: &str,
    limit: Duration,
    freeze: impl Fn(),
    thaw: impl Fn(),
) {
    freeze();
    let asked = Instant::now();
    let error = store.find("orders").await.unwrap_err();
    assert!(asked.elapsed() < limit, "{:?}", asked.elapsed());
    let text = chain(&error);
    assert!(
        text.contains(&format!("the backup store {scheme}://")),
        "{text}"
    );
    thaw();
    assert_eq!(restore(store, "orders").await.unwrap(), data());
}

/// What any store must do.
async fn a_store_keeps_backups(store: &Store) {
    let cluster = "orders".parse().unwrap();
    assert!(store.list(&cluster).await.unwrap().is_empty());
    assert!(matches!(
        store.find("orders").await,
        Err(StoreError::Unknown(_))
    ));
    let first = back_up(store, &id("orders/20260201T120000Z"))
        .await
        .unwrap();
    let second = back_up(store, &id("orders/20260202T120000Z"))
        .await
        .unwrap();
    assert!(first.stored_bytes() > 0 && first.data_bytes == 2_000_000);

    // One without a manifest is none.
    let packing = pack(None, |to| to.write_all(b"unfinished")).unwrap();
    let unfinished = id("orders/20260203T120000Z");
    store
        .put(&unfinished, manifest::DATA_FILE, packing, &mut Seen(0))
        .await
        .unwrap();
    let listed = store.list(&cluster).await.unwrap();
    let ids: Vec<_> = listed.iter().map(|listed| &listed.id).collect();
    assert_eq!(ids, [&first.id, &second.id]);

    assert_eq!(
        store.find("orders").await.unwrap(),
        (second.id.clone(), second.clone())
    );
    assert_eq!(
        store.find(first.id.as_str()).await.unwrap(),
        (first.id.clone(), first.clone())
    );
    for unknown in ["others", "orders/20260203T120000Z", "foo/bar:201503122000"] {
        let error = store.find(unknown).await.unwrap_err();
        assert!(matches!(error, StoreError::Unknown(_)), "{error:?}");
    }
    assert!(matches!(
        store.find("../orders").await,
        Err(StoreError::Id(_))
    ));
    assert_eq!(restore(store, "orders").await.unwrap(), data());
    let again = back_up(store, &first.id).await.unwrap_err();
    assert!(matches!(again, StoreError::Exists(_)), "{again:?}");

    // What cannot be completed leaves nothing that could be taken for a backup.
    let failing = id("orders/20260204T120000Z");
    let packing = pack(None, |to| {
        to.write_all(&data())?;
        Err(std::io::Error::other("the tool has failed"))
    })
    .unwrap();
    let failed = store
        .put(&failing, manifest::DATA_FILE, packing, &mut Seen(0))
        .await
        .unwrap_err();
    assert!(chain(&failed).contains("the tool has failed"));
    assert_eq!(store.list(&cluster).await.unwrap().len(), 2);
    verified::is_kept_with_its_backup(store, &second).await;
    removes_backups(store, &first, &second, &unfinished).await;
}

/// A backup that is removed is gone, with all that is left of it, and nothing else is.
async fn removes_backups(
    store: &Store,
    first: &Manifest,
    second: &Manifest,
    unfinished: &BackupId,
) {
    let cluster = "orders".parse().unwrap();
    let before = store.survey(&cluster).await.unwrap();
    assert!(before.unfinished.contains(unfinished), "{before:?}");
    store.remove(&first.id).await.unwrap();
    // Once more, as after a crash.
    store.remove(&first.id).await.unwrap();
    let unknown = store.find(first.id.as_str()).await.unwrap_err();
    assert!(matches!(unknown, StoreError::Unknown(_)), "{unknown:?}");
    for left in &before.unfinished {
        store.remove(left).await.unwrap();
    }
    let after = store.survey(&cluster).await.unwrap();
    let ids: Vec<_> = after.complete.iter().map(|listed| &listed.id).collect();
    assert_eq!((ids, after.unfinished), (vec![&second.id], Vec::new()));
    assert_eq!(store.clusters().await.unwrap(), [cluster]);
    assert_eq!(restore(store, "orders").await.unwrap(), data());
    // A folder that is no longer needed goes too, so that its name is free again.
    back_up(store, &first.id).await.unwrap();
}

#[tokio::test]
async fn a_folder_keeps_backups() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&settings(folder.path(), None)).unwrap();
    a_store_keeps_backups(&store).await;
}

#[tokio::test]
async fn a_folder_keeps_encrypted_backups() {
    let folder = tempfile::tempdir().unwrap();
    let keys = tempfile::tempdir().unwrap();
    let key = keys.path().join("key");
    std::fs::write(&key, [7; 32]).unwrap();
    let store = Store::open(&settings(folder.path(), Some(&key))).unwrap();
    a_store_keeps_backups(&store).await;

    let without = Store::open(&settings(folder.path(), None)).unwrap();
    let text = chain(&restore(&without, "orders").await.unwrap_err());
    assert!(text.contains("there is no key here"), "{text}");
    std::fs::write(&key, [8; 32]).unwrap();
    let other = Store::open(&settings(folder.path(), Some(&key))).unwrap();
    let text = chain(&restore(&other, "orders").await.unwrap_err());
    assert!(text.contains("is encrypted with the key"), "{text}");
}

/// Goal: a folder that loses a file while it is read is a sentence, and what was read is not taken for the data. Method: the data is cut off when its first bytes were unpacked.
#[tokio::test]
async fn a_folder_that_loses_data_while_it_is_read_is_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&settings(folder.path(), None)).unwrap();
    let made = id("orders/20260201T120000Z");
    let large = back_up_with(&store, &made, || noise(LARGE)).await.unwrap();
    let data = folder.path().join(made.as_str()).join(manifest::DATA_FILE);
    let cut = || {
        let file = std::fs::File::options().write(true).open(&data).unwrap();
        file.set_len(LARGE as u64 / 2).unwrap();
    };
    let error = restore_interrupted(&store, "orders", cut)
        .await
        .unwrap_err();
    let text = chain(&error);
    assert!(text.contains("the backup store file://"), "{text}");
    let again = chain(&restore(&store, "orders").await.unwrap_err());
    let how = format!(
        "is damaged: its file data has {} bytes, and {} were stored",
        LARGE / 2,
        large.stored_bytes()
    );
    assert!(again.contains(&how), "{again}");

    // The folder itself goes, as one that is not mounted any more.
    let text = chain(&restore_after_loss(&folder, &store).await);
    assert!(text.contains("has no backup orders"), "{text}");
}

async fn restore_after_loss(folder: &tempfile::TempDir, store: &Store) -> StoreError {
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        std::fs::remove_dir_all(entry.unwrap().path()).unwrap();
    }
    restore(store, "orders").await.unwrap_err()
}

/// More than is on its way from a store at any time.
const LARGE: usize = 40 << 20;
