//! The store of backups, on real stores.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    io::Read,
    path::Path,
    sync::{Arc, Mutex},
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
use uuid::Uuid;

/// A store in a folder.
fn settings(folder: &Path, key: Option<&Path>) -> BackupStore {
    BackupStore {
        url: format!("file://{}", folder.display()),
        region: None,
        endpoint: None,
        credentials: None,
        key: key.map(|path| path.display().to_string()),
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

/// Stores a backup as an executor does.
async fn back_up(store: &Store, id: &BackupId) -> Result<Manifest, StoreError> {
    let seal = store.begin(id).await?;
    let packing = pack(seal, |to| to.write_all(&data()))?;
    let mut seen = Seen(0);
    let (object, data_bytes) = store
        .put(id, manifest::DATA_FILE, packing, &mut seen)
        .await?;
    assert_eq!(seen.0, data_bytes);
    let manifest = Manifest {
        id: id.clone(),
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
        key_id: store.key().map(|key| key.id()),
        objects: vec![object],
    };
    store.complete(&manifest).await?;
    Ok(manifest)
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
        (second.id.clone(), second)
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

/// Goal: a backup of which any file was damaged is refused with a sentence. Method: each file, each kind of damage.
#[tokio::test]
async fn a_damaged_backup_is_refused() {
    type Damage = fn(&mut Vec<u8>);
    let flip: Damage = |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    };
    let cut: Damage = |bytes| bytes.truncate(bytes.len() / 2);
    let empty: Damage = Vec::clear;
    let longer: Damage = |bytes| bytes.extend_from_slice(b"more");
    let table: [(&str, &str, Damage, &str); 8] = [
        (manifest::DATA_FILE, "changed", flip, "is damaged"),
        (
            manifest::DATA_FILE,
            "cut",
            cut,
            "is damaged: its file data has",
        ),
        (
            manifest::DATA_FILE,
            "empty",
            empty,
            "is damaged: its file data has 0 bytes",
        ),
        (
            manifest::DATA_FILE,
            "longer",
            longer,
            "is damaged: its file data has",
        ),
        (manifest::FILE, "changed", flip, "manifest is damaged"),
        (manifest::FILE, "cut", cut, "manifest is damaged"),
        (manifest::FILE, "empty", empty, "manifest is damaged"),
        (manifest::FILE, "longer", longer, "manifest is damaged"),
    ];
    for (file, how, damage, sentence) in table {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&settings(folder.path(), None)).unwrap();
        let id = id("orders/20260201T120000Z");
        back_up(&store, &id).await.unwrap();
        let path = folder.path().join(id.as_str()).join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        damage(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
        let text = chain(&restore(&store, "orders").await.unwrap_err());
        // A changed bit may be noticed by the decompression before all of it was read.
        let noticed = text.contains(sentence) || how == "changed" && text.contains("unpacked");
        assert!(noticed, "{file} {how}: {text}");
        std::fs::remove_file(&path).unwrap();
        assert!(restore(&store, "orders").await.is_err(), "{file} removed");
    }
}
