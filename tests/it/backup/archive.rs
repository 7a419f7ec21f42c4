//! Archives with many segments, in a folder: what is read of them, and what is removed.

use std::{
    collections::BTreeSet,
    fs,
    io::Read,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use cotton::{
    backup::{
        archive::{self, Base, Chain, Segment},
        manifest::Object,
        store::{Pruning, Store, StoreError, Way},
        stream::{pack, unpack},
    },
    cluster::{
        backup::{Part, RestorePoint},
        flavour::Flavour,
        gtid::Position,
        id::{ClusterName, DataId, Epoch},
    },
    http::port::{BackupAccess, Views},
    scheduler::sweep::Sweeper,
    time::Timestamp,
};
use tokio::sync::watch;
use uuid::Uuid;

use super::{back_up, id, noise, settings};

/// The incarnation of the backups that are made here.
const INCARNATION: Uuid = Uuid::from_u128(7);

fn cluster() -> ClusterName {
    "orders".parse().unwrap()
}

fn position(data: u64, marker: u64) -> Position {
    let text = format!("0-1-{data},4412494-1-{marker}");
    Position::parse(Flavour::Mariadb, &text).unwrap()
}

/// Segment `number` of an epoch: transaction `begin + number`, begun and archived at that second.
fn segment(epoch: u64, number: u64, begin: u64, chain: Option<Chain>) -> Segment {
    let at = begin + number;
    let from = match number {
        1 => position(at - 1, epoch - 1),
        _ => position(at - 1, epoch),
    };
    Segment {
        cluster: cluster(),
        uuid: INCARNATION,
        epoch: Epoch(epoch),
        number,
        data: DataId(Uuid::from_u128(1)),
        file: "binlog.000001".to_owned(),
        range: (4, 100),
        flavour: Flavour::Mariadb,
        from,
        to: position(at, epoch),
        transactions: 1,
        stamps: (at as u32, at as u32),
        until: Timestamp::from_millis(at * 1000),
        data_bytes: 10,
        key_id: None,
        object: Object {
            name: archive::data_name(number, 7),
            bytes: 4,
            sha256: String::new(),
        },
        read_at: Some(Timestamp::from_millis(at * 1000)),
        chain: Some(Chain::and(chain, number, 10)),
        lineage: Vec::new(),
    }
}

fn folder_of(root: &Path, epoch: u64) -> PathBuf {
    let folder = archive::folder(&cluster(), INCARNATION);
    root.join(folder).join(archive::epoch_name(Epoch(epoch)))
}

/// Writes `count` segments of an epoch, with data, behind transaction `begin`.
async fn archive_epoch(root: &Path, store: &Store, epoch: u64, begin: u64, count: u64) {
    let folder = folder_of(root, epoch);
    fs::create_dir_all(&folder).unwrap();
    let mut chain = None;
    for number in 1..=count {
        let segment = segment(epoch, number, begin, chain);
        chain = segment.chain;
        fs::write(folder.join(&segment.object.name), b"data").unwrap();
        if count > 100 {
            // As the store does, without asking it ten thousand times.
            let path = folder.join(archive::document_name(number));
            fs::write(path, segment.to_json()).unwrap();
        } else {
            store.complete_segment(&segment).await.unwrap();
        }
    }
}

fn base(data: u64, epoch: u64) -> Base {
    Base {
        position: position(data, epoch),
        ended_at: Timestamp::from_millis(data * 1000),
    }
}

fn gtid(data: u64) -> RestorePoint {
    RestorePoint::Gtid(format!("0-1-{data}"))
}

fn part(epoch: u64, first: u64, last: u64) -> Part {
    Part {
        epoch: Epoch(epoch),
        first,
        last,
    }
}

/// Goal: of an archive of 10,000 segments a few dozen documents are read, and the way is the same. Method: points at its ends and in its middle, and
/// a second epoch behind it.
#[tokio::test]
async fn a_few_documents_of_many_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&settings(folder.path(), None)).unwrap();
    archive_epoch(folder.path(), &store, 1, 1000, 10_000).await;
    archive_epoch(folder.path(), &store, 2, 11_000, 50).await;
    let cases = [
        (base(5000, 1), gtid(5100), vec![part(1, 4001, 4100)]),
        (
            base(5000, 1),
            RestorePoint::Time(5100),
            vec![part(1, 4001, 4100)],
        ),
        (
            base(1010, 1),
            RestorePoint::Latest,
            vec![part(1, 11, 10_000), part(2, 1, 50)],
        ),
        (
            base(10_990, 1),
            gtid(11_007),
            vec![part(1, 9991, 10_000), part(2, 1, 7)],
        ),
        (base(11_010, 2), RestorePoint::Latest, vec![part(2, 11, 50)]),
    ];
    for (base, point, parts) in cases {
        let way = way_to(&store, &base, &point).await;
        let plan = archive::plan(&base, &way.firsts, &way.stretches, &point).unwrap();
        let count: u64 = parts.iter().map(|part| part.last - part.first + 1).sum();
        assert_eq!(
            (plan.parts, plan.data_bytes),
            (parts, count * 10),
            "{point}"
        );
        assert!(
            way.documents <= 60,
            "{} documents for {point}",
            way.documents
        );
    }
    let lost = base(5000, 1);
    let late = RestorePoint::Time(12_000);
    let way = way_to(&store, &lost, &late).await;
    let ends = archive::plan(&lost, &way.firsts, &way.stretches, &late).unwrap_err();
    assert!(matches!(ends, archive::NoWay::Ends { .. }), "{ends}");

    // A document that is missing on the way is a gap, though the chain was whole when it was written.
    fs::remove_file(folder_of(folder.path(), 1).join(archive::document_name(4050))).unwrap();
    let way = way_to(&store, &lost, &gtid(5100)).await;
    let gap = archive::plan(&lost, &way.firsts, &way.stretches, &gtid(5100)).unwrap_err();
    assert!(matches!(gap, archive::NoWay::Gap { .. }), "{gap}");
}

/// Archives `count` segments of an epoch as an executor does, each with its number as noise.
async fn archive_in(store: &Store, epoch: u64, begin: u64, count: u64) {
    let (cluster, mut chain) = (cluster(), None);
    for number in 1..=count {
        let mut segment = segment(epoch, number, begin, chain);
        chain = segment.chain;
        let seal = store.seal_for_segment(&cluster, INCARNATION, Epoch(epoch), number);
        let content = noise(8 * number as usize);
        let packing = pack(seal.unwrap(), move |to| to.write_all(&content)).unwrap();
        let name = segment.object.name.clone();
        let put = store.put_segment(&cluster, INCARNATION, Epoch(epoch), &name, packing);
        (segment.object, _) = put.await.unwrap();
        segment.key_id = store.key().map(|key| key.id());
        store.complete_segment(&segment).await.unwrap();
    }
}

async fn content_of(store: &Store, segment: &Segment) -> Vec<u8> {
    let found = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&found);
    let consume =
        move |from: &mut dyn Read| from.read_to_end(&mut into.lock().unwrap()).map(|_| ());
    let got = store.get_segment(segment, |seal| unpack(seal, consume));
    got.await.unwrap();
    let found = found.lock().unwrap();
    found.clone()
}

/// What any store must do: its last segment is found, the way from a backup leads over its segments, their data is what was archived, and those that nobody needs are
/// removed.
pub async fn is_kept(store: &Store) {
    let last = async || store.last_segment(&cluster(), INCARNATION).await.unwrap();
    assert!(last().await.is_none());
    archive_in(store, 1, 100, 4).await;
    let found = last().await.unwrap();
    assert_eq!((found.epoch, found.number), (Epoch(1), 4));
    archive_in(store, 2, 104, 3).await;
    let found = last().await.unwrap();
    assert_eq!((found.epoch, found.number), (Epoch(2), 3));
    assert_eq!(content_of(store, &found).await, noise(8 * 3));

    let first = base(101, 1);
    let planned = async |base: &Base| {
        let way = way_to(store, base, &RestorePoint::Latest).await;
        let plan = archive::plan(base, &way.firsts, &way.stretches, &RestorePoint::Latest);
        plan.map(|plan| plan.parts)
    };
    let all = vec![part(1, 2, 4), part(2, 1, 3)];
    assert_eq!(planned(&first).await.unwrap(), all);

    // What was stored of a segment without its document is none.
    let packing = pack(None, |to| to.write_all(b"half")).unwrap();
    let name = archive::data_name(4, 9);
    let put = store.put_segment(&found.cluster, INCARNATION, Epoch(2), &name, packing);
    put.await.unwrap();
    assert_eq!(last().await.unwrap().number, 3);

    let kept = base(106, 2);
    let bases = [kept.position.clone()];
    assert!(prune(store, &pruning(&bases, 99)).await.unwrap() > 0);
    assert_eq!(planned(&kept).await.unwrap(), [part(2, 3, 3)]);
    assert!(planned(&first).await.is_err());
    assert_eq!(last().await.unwrap().number, 3);
    assert_eq!(prune(store, &pruning(&bases, 99)).await.unwrap(), 0);
}

#[tokio::test]
async fn a_folder_keeps_archived_binlogs() {
    let folder = tempfile::tempdir().unwrap();
    is_kept(&Store::open(&settings(folder.path(), None)).unwrap()).await;
}

/// The numbers of the documents and of the data in an epoch's folder.
fn left(root: &Path, epoch: u64) -> [BTreeSet<u64>; 2] {
    let Ok(entries) = fs::read_dir(folder_of(root, epoch)) else {
        return Default::default();
    };
    let mut left = [BTreeSet::new(), BTreeSet::new()];
    for entry in entries {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let (number, is_data) = archive::file_of(&name).unwrap();
        left[usize::from(is_data)].insert(number);
    }
    left
}

async fn way_to(store: &Store, base: &Base, point: &RestorePoint) -> Way {
    let way = store.way(&cluster(), INCARNATION, base, point).await;
    way.unwrap()
}

/// Removes what the pruning lets go, and returns how many files that were.
async fn prune(store: &Store, pruning: &Pruning<'_>) -> Result<usize, StoreError> {
    store.prune(&cluster(), INCARNATION, pruning, || true).await
}

fn pruning(bases: &[Position], most: usize) -> Pruning<'_> {
    Pruning {
        bases,
        before: Timestamp::now(),
        keeps_last: true,
        most,
    }
}

/// Goal: wherever a removal ends, what is left is the archive's end, and leads where it led. Method: it ends after each file.
#[tokio::test]
async fn what_no_backup_needs_is_removed_from_its_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let store = Store::open(&settings(root, None)).unwrap();
    archive_epoch(root, &store, 1, 100, 6).await;
    archive_epoch(root, &store, 2, 106, 5).await;
    // An attempt that came to nothing, of which there is no document.
    fs::write(folder_of(root, 1).join(archive::data_name(3, 99)), b"half").unwrap();
    let kept = base(109, 2);
    let bases = [kept.position.clone(), position(110, 2)];
    let mut ends = 0;
    loop {
        let pruning = pruning(&bases, 1);
        if prune(&store, &pruning).await.unwrap() == 0 {
            break;
        }
        ends += 1;
        let way = way_to(&store, &kept, &RestorePoint::Latest).await;
        let plan = archive::plan(&kept, &way.firsts, &way.stretches, &RestorePoint::Latest);
        assert_eq!(plan.unwrap().parts, [part(2, 4, 5)]);
        // Whoever wants more sees that it is not there.
        let early = base(101, 1);
        let way = way_to(&store, &early, &gtid(111)).await;
        let found = archive::plan(&early, &way.firsts, &way.stretches, &gtid(111));
        // Two segments before the first removal lie before that backup.
        let is_whole = left(root, 1)[0].contains(&2);
        assert_eq!(found.is_ok(), is_whole, "{found:?}");
    }
    // Six with their data, the attempt, and two of the second epoch: the third is kept with those that are needed.
    assert_eq!(ends, 2 * 6 + 1 + 2 * 2);
    assert!(!folder_of(root, 1).exists());
    assert_eq!(
        left(root, 2),
        [BTreeSet::from([3, 4, 5]), BTreeSet::from([3, 4, 5])]
    );
    let last = store.last_segment(&cluster(), INCARNATION).await.unwrap();
    assert_eq!(last.unwrap().number, 5);
}

#[tokio::test]
async fn nothing_is_removed_on_a_guess() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let store = Store::open(&settings(root, None)).unwrap();
    archive_epoch(root, &store, 1, 100, 6).await;
    let bases = [position(106, 1)];
    let all = pruning(&bases, 99);
    let may_not = store.prune(&cluster(), INCARNATION, &all, || false).await;
    assert_eq!(may_not.unwrap(), 0);
    let old = Pruning {
        before: Timestamp::from_millis(0),
        ..all.clone()
    };
    assert_eq!(prune(&store, &old).await.unwrap(), 0);
    // The document that decides is damaged.
    fs::write(folder_of(root, 1).join(archive::document_name(1)), b"{").unwrap();
    let refused = prune(&store, &all).await.unwrap_err();
    assert!(
        matches!(refused, StoreError::Manifest { .. }),
        "{refused:?}"
    );
    assert_eq!(left(root, 1)[0].len(), 6);
}

/// Goal: a turn removes the archive of a cluster that was deleted when its last backup goes, and not before. Method: the turns of a scheduler that has no cluster
/// of that name.
#[tokio::test]
async fn the_archive_of_a_deleted_cluster_goes_with_its_backups() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let settings = settings(root, None);
    let store = Store::open(&settings).unwrap();
    let first = back_up(&store, &id("orders/20260201T120000Z"))
        .await
        .unwrap();
    archive_epoch(root, &store, 1, 100, 6).await;
    let views = Views {
        loaded: true,
        ..Views::default()
    };
    let (_sender, views) = watch::channel(views);
    let sweeper_without = |unusable: &[&str], days: Option<u64>| Sweeper {
        access: Arc::new(BackupAccess {
            store: store.clone(),
            settings: settings.clone(),
        }),
        views: views.clone(),
        unusable: unusable.iter().map(|name| name.parse().unwrap()).collect(),
        keep_deleted: days.map(|days| Duration::from_secs(days * 86_400)),
    };
    let sweeper = |days| sweeper_without(&[], days);
    // Nobody has set an age, or it is not reached.
    sweeper(None).sweep_all().await;
    sweeper(Some(100_000)).sweep_all().await;
    assert_eq!(store.list(&cluster()).await.unwrap().len(), 1);
    assert_eq!(left(root, 1)[0].len(), 6);
    store.remove(&first.id).await.unwrap();
    sweeper(None).sweep_all().await;
    assert_eq!(left(root, 1)[0].len(), 6);
    // A cluster whose record cannot be read may be made from it at the moment.
    sweeper_without(&["billing"], Some(1)).sweep_all().await;
    assert_eq!(left(root, 1)[0].len(), 6);
    sweeper(Some(1)).sweep_all().await;
    assert!(!folder_of(root, 1).exists());
    assert!(!root.join(archive::folder(&cluster(), INCARNATION)).exists());
}
