//! Damage of any file of the store is noticed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use cotton::{
    backup::{
        archive::{self, Base, Segment},
        manifest,
        store::{Store, StoreError},
        stream::{pack, unpack},
    },
    cluster::{
        backup::RestorePoint,
        flavour::Flavour,
        gtid::Position,
        id::{ClusterName, DataId, Epoch},
    },
    executor::chain,
    time::Timestamp,
};
use uuid::Uuid;

use super::{back_up, data, id, restore, settings};

/// What a file may come to. `None` as the file's new content removes it.
type Damage = fn(&[u8]) -> Option<Vec<u8>>;

fn flip(bytes: &[u8], at: usize) -> Option<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1;
    Some(bytes)
}

const DAMAGES: [(&str, Damage); 7] = [
    ("its first bit changed", |bytes| flip(bytes, 0)),
    ("one in the middle changed", |bytes| {
        flip(bytes, bytes.len() / 2)
    }),
    ("its last bit changed", |bytes| flip(bytes, bytes.len() - 1)),
    ("cut by half", |bytes| {
        Some(bytes[..bytes.len() / 2].to_vec())
    }),
    ("empty", |_| Some(Vec::new())),
    ("longer", |bytes| Some([bytes, b"more"].concat())),
    ("missing", |_| None),
];

/// Damages a file; what it is then as it was before is mended by the caller.
fn damage(path: &Path, bytes: &[u8], damage: Damage) {
    match damage(bytes) {
        Some(damaged) => fs::write(path, damaged).unwrap(),
        None => fs::remove_file(path).unwrap(),
    }
}

/// A store in a folder with a key or without one.
struct Place {
    folder: tempfile::TempDir,
    _keys: tempfile::TempDir,
    store: Store,
}

impl Place {
    fn new(is_encrypted: bool) -> Self {
        let (folder, keys) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let key = keys.path().join("key");
        fs::write(&key, [7; 32]).unwrap();
        let key = is_encrypted.then_some(key.as_path());
        let store = Store::open(&settings(folder.path(), key)).unwrap();
        Self {
            folder,
            _keys: keys,
            store,
        }
    }
}

/// Goal: a backup of which any file was damaged is refused with a sentence that names the backup or what is wrong with its data. Method: each file, each
/// kind of damage, encrypted and not; then the file is as it was, and the backup is good.
#[tokio::test]
async fn a_damaged_backup_is_refused() {
    for is_encrypted in [false, true] {
        let place = Place::new(is_encrypted);
        let id = id("orders/20260201T120000Z");
        back_up(&place.store, &id).await.unwrap();
        for file in [manifest::DATA_FILE, manifest::FILE] {
            let path = place.folder.path().join(id.as_str()).join(file);
            let good = fs::read(&path).unwrap();
            for (how, change) in DAMAGES {
                damage(&path, &good, change);
                let error = restore(&place.store, id.as_str()).await.unwrap_err();
                let text = chain(&error);
                let sentences: &[&str] = match (file, how) {
                    // One that is empty was not written: nothing was completed.
                    (manifest::FILE, "missing" | "empty") => &["has no backup orders/"],
                    (manifest::FILE, _) => &["cannot be used", "manifest is damaged"],
                    (_, "missing") => &["is damaged: its file data is missing"],
                    (_, "cut by half" | "empty" | "longer") => &["is damaged: its file data has"],
                    // It is noticed before everything was read.
                    (_, "its first bit changed") if is_encrypted => {
                        &["unpacked", "damaged or replaced"]
                    }
                    (_, _) if is_encrypted => &["unpacked", "does not open with this key"],
                    // By the decompression, or by the digest.
                    (_, _) => &["data"],
                };
                let says_so = sentences.iter().all(|sentence| text.contains(sentence));
                assert!(says_so, "{file} {how}, encrypted {is_encrypted}: {text}");
                let is_about_it = matches!(
                    error,
                    StoreError::Damaged { .. }
                        | StoreError::Manifest { .. }
                        | StoreError::Unknown(_)
                        | StoreError::Stream(_)
                );
                assert!(is_about_it, "{file} {how}: {error:?}");
            }
            fs::write(&path, &good).unwrap();
            assert_eq!(restore(&place.store, "orders").await.unwrap(), data());
        }
    }
}

const UUID: Uuid = Uuid::from_u128(9);

/// Up to a segment, with a transaction in each.
fn position(number: u64) -> Position {
    let text = match number {
        0 => String::new(),
        _ => format!("0-1-{number}"),
    };
    Position::parse(Flavour::Mariadb, &text).unwrap()
}

/// How many segments are found behind a backup of an empty server.
async fn found(place: &Place, cluster: &ClusterName) -> Result<usize, StoreError> {
    let base = Base {
        position: position(0),
        ended_at: Timestamp::from_millis(1),
    };
    let way = place.store.way(cluster, UUID, &base, &RestorePoint::Latest);
    Ok(way.await?.stretches.len())
}

/// Stores a segment of the first epoch as an executor does, and tells where its data is.
async fn archive_one(place: &Place, cluster: &ClusterName, number: u64) -> PathBuf {
    let store = &place.store;
    let seal = store
        .seal_for_segment(cluster, UUID, Epoch(1), number)
        .unwrap();
    let packing = pack(seal, |to| to.write_all(&data())).unwrap();
    let name = archive::data_name(number, 7);
    let stored = store.put_segment(cluster, UUID, Epoch(1), &name, packing);
    let (object, data_bytes) = stored.await.unwrap();
    let segment = Segment {
        cluster: cluster.clone(),
        uuid: UUID,
        epoch: Epoch(1),
        number,
        data: DataId(Uuid::from_u128(1)),
        file: "binlog.000001".to_owned(),
        range: (4, 100),
        flavour: Flavour::Mariadb,
        from: position(number - 1),
        to: position(number),
        transactions: 1,
        stamps: (1, 2),
        until: Timestamp::from_millis(3),
        data_bytes,
        key_id: store.key().map(|key| key.id()),
        object,
        read_at: None,
        chain: None,
        lineage: Vec::new(),
    };
    store.complete_segment(&segment).await.unwrap();
    let folder = place.folder.path().join(archive::folder(cluster, UUID));
    folder.join(archive::epoch_name(Epoch(1))).join(name)
}

/// Reads a segment as an executor does.
async fn read_one(place: &Place, cluster: &ClusterName, number: u64) -> Result<(), StoreError> {
    let store = &place.store;
    let segment = store.segment(cluster, UUID, Epoch(1), number).await?;
    let unpacking = |seal| {
        unpack(seal, |from| {
            std::io::copy(from, &mut std::io::sink()).map(|_| ())
        })
    };
    store.get_segment(&segment, unpacking).await
}

/// Goal: a damaged segment of the archive is never replayed. Method: each file of the first of two segments, each kind of damage, encrypted and
/// not.
#[tokio::test]
async fn a_damaged_segment_is_refused() {
    let cluster: ClusterName = "orders".parse().unwrap();
    for is_encrypted in [false, true] {
        let place = Place::new(is_encrypted);
        let data_path = archive_one(&place, &cluster, 1).await;
        archive_one(&place, &cluster, 2).await;
        let document = data_path.with_file_name(archive::document_name(1));
        for (path, is_document) in [(&data_path, false), (&document, true)] {
            let good = fs::read(path).unwrap();
            for (how, change) in DAMAGES {
                damage(path, &good, change);
                let error = read_one(&place, &cluster, 1).await.unwrap_err();
                let text = chain(&error);
                let is_about_it = matches!(
                    error,
                    StoreError::Damaged { .. }
                        | StoreError::Manifest { .. }
                        | StoreError::Stream(_)
                );
                assert!(is_about_it, "{how}, document {is_document}: {text}");
                read_one(&place, &cluster, 2).await.unwrap();
                let all = found(&place, &cluster).await;
                match (is_document, how) {
                    (false, _) => assert_eq!(all.unwrap(), 2, "{how}"),
                    // It is the gap before the next one that tells.
                    (true, "missing") => assert_eq!(all.unwrap(), 1),
                    (true, _) => {
                        let text = chain(&all.unwrap_err());
                        assert!(text.contains("cannot be used"), "{how}: {text}");
                    }
                }
            }
            fs::write(path, &good).unwrap();
            read_one(&place, &cluster, 1).await.unwrap();
        }
    }
}

/// The document of the last segment may not have been completed: then the one before it is the last, and the archive goes on behind that.
#[tokio::test]
async fn a_segment_that_was_not_completed_is_none() {
    let cluster: ClusterName = "orders".parse().unwrap();
    let place = Place::new(false);
    archive_one(&place, &cluster, 1).await;
    let document = archive_one(&place, &cluster, 2)
        .await
        .with_file_name(archive::document_name(2));
    let good = fs::read(&document).unwrap();
    for (how, change) in DAMAGES {
        damage(&document, &good, change);
        let last = place.store.last_segment(&cluster, UUID).await.unwrap();
        assert_eq!(last.unwrap().number, 1, "{how}");
        assert_eq!(found(&place, &cluster).await.unwrap(), 1, "{how}");
    }
}
