//! Looking through archives with many segments: which documents are read, and which segments are removed.
//!
//! Everything that is looked for grows with the number of a segment in its epoch: what the archive holds, and up to when. So it is found by halving,
//! with a few documents of each epoch, however many there are. Names alone tell which numbers there are.

use std::{collections::BTreeMap, ops::Range};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use opendal::ErrorKind;
use uuid::Uuid;

use super::{READERS, Store, StoreError, segments::epoch_folder};
use crate::{
    backup::archive::{self, Base, Segment, Stretch},
    cluster::{
        backup::RestorePoint,
        gtid::Position,
        id::{ClusterName, Epoch},
    },
    time::Timestamp,
};

/// What is known of an archive on the way from a backup to a point.
#[derive(Debug, Default)]
pub struct Way {
    /// The first segments of all epochs.
    pub firsts: Vec<Segment>,
    /// What leads behind the backup.
    pub stretches: Vec<Stretch>,
    /// How many documents were read for it.
    pub documents: usize,
}

/// Which segments of an archive may go.
#[derive(Debug, Clone)]
pub struct Pruning<'a> {
    /// What the backups hold for which the archive stays.
    pub bases: &'a [Position],
    /// Segments stay that were archived after this moment.
    pub before: Timestamp,
    /// Whether the last segment that could go stays: the next one is archived behind it.
    pub keeps_last: bool,
    /// How many files are removed at the most.
    pub most: usize,
}

/// The documents of one epoch.
struct Shelf<'a> {
    store: &'a Store,
    cluster: &'a ClusterName,
    uuid: Uuid,
    epoch: Epoch,
    /// The numbers of its complete segments.
    numbers: Vec<u64>,
    read: BTreeMap<u64, Segment>,
}

impl<'a> Shelf<'a> {
    /// Lists an epoch's documents, and reads the first and the last.
    async fn open(
        store: &'a Store,
        cluster: &'a ClusterName,
        uuid: Uuid,
        epoch: Epoch,
    ) -> Result<Self, StoreError> {
        let folder = archive::folder(cluster, uuid);
        let mut shelf = Self {
            store,
            cluster,
            uuid,
            epoch,
            numbers: store.numbers_in(&folder, epoch).await?,
            read: BTreeMap::new(),
        };
        if let Some(last) = shelf.numbers.len().checked_sub(1) {
            match shelf.get(last).await {
                // It may not have been completed.
                Err(StoreError::Manifest { .. }) => drop(shelf.numbers.pop()),
                read => drop(read?),
            }
        }
        if !shelf.numbers.is_empty() {
            shelf.get(0).await?;
        }
        Ok(shelf)
    }

    async fn get(&mut self, index: usize) -> Result<Segment, StoreError> {
        let number = self.numbers[index];
        if let Some(segment) = self.read.get(&number) {
            return Ok(segment.clone());
        }
        let read = self
            .store
            .segment(self.cluster, self.uuid, self.epoch, number);
        let segment = read.await?;
        self.read.insert(number, segment.clone());
        Ok(segment)
    }

    /// The first one in a range of which something is true that is true of all behind it; the range's end if it is of none.
    async fn first_where(
        &mut self,
        range: Range<usize>,
        is_true: impl Fn(&Segment) -> bool,
    ) -> Result<usize, StoreError> {
        let Range { mut start, mut end } = range;
        while start < end {
            let middle = start + (end - start) / 2;
            match is_true(&self.get(middle).await?) {
                true => end = middle,
                false => start = middle + 1,
            }
        }
        Ok(start)
    }

    /// What there is from one segment to another one.
    async fn stretches(&mut self, first: usize, last: usize) -> Result<Vec<Stretch>, StoreError> {
        let (begin, end) = (self.get(first).await?, self.get(last).await?);
        let are_all_there = self.numbers[last] - self.numbers[first] == (last - first) as u64;
        let between = Stretch::between(&begin, &end).filter(|_| are_all_there);
        if let Some(whole) = between {
            return Ok(vec![whole]);
        }
        let (store, cluster) = (self.store, self.cluster);
        let (uuid, epoch) = (self.uuid, self.epoch);
        let reads = self.numbers[first..=last].iter();
        let reads = reads.map(|number| store.segment(cluster, uuid, epoch, *number));
        let segments: Vec<Segment> = stream::iter(reads.collect::<Vec<_>>())
            .buffered(READERS)
            .try_collect()
            .await?;
        let stretches = segments.iter().map(Stretch::of).collect();
        let read = segments
            .into_iter()
            .map(|segment| (segment.number, segment));
        self.read.extend(read);
        Ok(stretches)
    }

    /// What of it leads from a backup to a point, and whether the point is there for certain.
    async fn lead(
        &mut self,
        base: &Base,
        point: &Point,
        limits: &[(Epoch, Position)],
    ) -> Result<(Vec<Stretch>, bool), StoreError> {
        let epoch = self.epoch;
        let counts = |segment: &Segment| archive::counted(epoch, &segment.to, limits);
        let all = self.numbers.len();
        let is_new = |segment: &Segment| !base.position.contains(&counts(segment));
        let begin = self.first_where(0..all, is_new).await?;
        if begin == all {
            return Ok((Vec::new(), false));
        }
        // What a former master has archived behind what was cut off leads nowhere.
        let most = counts(&self.get(all - 1).await?);
        let end = self
            .first_where(begin..all, |segment| counts(segment).contains(&most))
            .await?;
        let is_there = |segment: &Segment| match point {
            Point::Latest => false,
            Point::Time(at) => segment.until.as_millis() / 1000 >= *at,
            Point::Gtid(target) => base
                .position
                .union(&counts(segment))
                .is_ok_and(|reached| reached.contains(target)),
        };
        let found = self.first_where(begin..end + 1, is_there).await?;
        let mut stretches = self.stretches(begin, found.min(end)).await?;
        let Point::Time(at) = point else {
            return Ok((stretches, found <= end));
        };
        // Nothing was begun at that time before it was logged. But what is logged later may have been begun before.
        for index in found..=end {
            let segment = self.get(index).await?;
            if index > found {
                stretches.push(Stretch::of(&segment));
            }
            let is_behind = segment.latest().is_some_and(|latest| latest >= *at);
            if is_behind && counts(&segment) == segment.to {
                return Ok((stretches, true));
            }
        }
        Ok((stretches, false))
    }
}

/// A point, read.
enum Point {
    Latest,
    Time(u64),
    Gtid(Position),
}

impl Store {
    async fn shelves<'a>(
        &'a self,
        cluster: &'a ClusterName,
        uuid: Uuid,
    ) -> Result<Vec<Shelf<'a>>, StoreError> {
        let epochs = self.epochs_in(&archive::folder(cluster, uuid)).await?;
        let open = epochs.into_iter();
        let open: Vec<_> = open
            .map(|epoch| Shelf::open(self, cluster, uuid, epoch))
            .collect();
        stream::iter(open).buffered(READERS).try_collect().await
    }

    /// Finds what leads from a backup to a point: two documents of each epoch are read, and of those on the way a few more for each halving of
    /// their number. It is for [`archive::plan`] to say whether it leads there.
    ///
    /// # Errors
    /// When the store does not answer, or a document that was looked at is damaged. The last one of an epoch may not have been completed.
    pub async fn way(
        &self,
        cluster: &ClusterName,
        uuid: Uuid,
        base: &Base,
        point: &RestorePoint,
    ) -> Result<Way, StoreError> {
        let point = match point {
            RestorePoint::Latest => Point::Latest,
            RestorePoint::Time(at) => Point::Time(*at),
            // What is no GTID of the flavour leads nowhere; `plan` says so.
            RestorePoint::Gtid(text) => match archive::target(base.position.flavour(), text) {
                Ok(target) => Point::Gtid(target),
                Err(_) => return Ok(Way::default()),
            },
        };
        let mut shelves = self.shelves(cluster, uuid).await?;
        shelves.retain(|shelf| !shelf.numbers.is_empty());
        let mut way = Way::default();
        for shelf in &mut shelves {
            way.firsts.push(shelf.get(0).await?);
        }
        let limits = archive::limits(&way.firsts);
        for shelf in &mut shelves {
            let (stretches, is_there) = shelf.lead(base, &point, &limits).await?;
            way.stretches.extend(stretches);
            if is_there {
                break;
            }
        }
        way.documents = shelves.iter().map(|shelf| shelf.read.len()).sum();
        Ok(way)
    }

    /// Removes the segments of an archive that may go, the first one first, and of each the document before its data: whenever it ends, what is left is the archive's
    /// end, whole. `may` is asked before each. Returns how many files were removed.
    ///
    /// # Errors
    /// When the store does not answer, or a document that decides is damaged: then nothing is removed.
    pub async fn prune(
        &self,
        cluster: &ClusterName,
        uuid: Uuid,
        pruning: &Pruning<'_>,
        mut may: impl FnMut() -> bool,
    ) -> Result<usize, StoreError> {
        let mut shelves = self.shelves(cluster, uuid).await?;
        let Some((epoch, number)) = kept_from(&mut shelves, pruning).await? else {
            return Ok(0);
        };
        let folder = archive::folder(cluster, uuid);
        let mut removed = 0;
        for shelf in shelves.iter().take_while(|shelf| shelf.epoch <= epoch) {
            let place = epoch_folder(cluster, uuid, shelf.epoch)?;
            let names = self.names_in(place.as_str()).await?;
            let mut files: Vec<_> = names
                .into_iter()
                .filter_map(|name| Some((archive::file_of(&name)?, name)))
                .filter(|((of, _), _)| shelf.epoch < epoch || *of < number)
                .collect();
            files.sort();
            for (_, name) in files {
                if removed >= pruning.most || !may() {
                    return Ok(removed);
                }
                self.remove_path(&super::file_of(&place, &name)).await?;
                removed += 1;
            }
            if shelf.epoch < epoch {
                self.remove_empty(&format!("{place}/")).await?;
            }
        }
        if !pruning.keeps_last {
            self.remove_empty(&format!("{folder}/")).await?;
        }
        Ok(removed)
    }

    /// The incarnations of a cluster of which the store has an archive.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn archives(&self, cluster: &ClusterName) -> Result<Vec<Uuid>, StoreError> {
        let names = self.names_in(&archive::folders(cluster)).await?;
        let found = names.iter().filter_map(|name| name.strip_suffix('/'));
        Ok(found.filter_map(|name| name.parse().ok()).collect())
    }

    /// The names of the clusters of which the store has archives.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn archived_clusters(&self) -> Result<Vec<ClusterName>, StoreError> {
        let names = self.names_in(archive::ROOT).await?;
        let found = names.iter().filter_map(|name| name.strip_suffix('/'));
        Ok(found.filter_map(|name| name.parse().ok()).collect())
    }

    async fn remove_path(&self, path: &str) -> Result<(), StoreError> {
        match self.writing.delete(path).await {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(self.failed("remove archived binlogs", error))
            }
            _ => Ok(()),
        }
    }

    /// Removes a folder if nothing is in it. Where folders are no more than the beginnings of names, there is none left.
    async fn remove_empty(&self, folder: &str) -> Result<(), StoreError> {
        match self.entries(folder).await?.is_empty() {
            true => self.remove_path(folder).await,
            false => Ok(()),
        }
    }
}

/// The epoch and the number of the first segment that stays; `None` if all do.
async fn kept_from(
    shelves: &mut [Shelf<'_>],
    pruning: &Pruning<'_>,
) -> Result<Option<(Epoch, u64)>, StoreError> {
    let mut firsts = Vec::new();
    for shelf in shelves.iter_mut().filter(|shelf| !shelf.numbers.is_empty()) {
        firsts.push(shelf.get(0).await?);
    }
    let limits = archive::limits(&firsts);
    let stays = |segment: &Segment| {
        segment.read_at() >= pruning.before || archive::is_needed(segment, pruning.bases, &limits)
    };
    let mut last = None;
    for shelf in shelves.iter_mut() {
        let all = shelf.numbers.len();
        let first = shelf.first_where(0..all, stays).await?;
        if let Some(index) = first.checked_sub(1) {
            last = Some((shelf.epoch, shelf.numbers[index]));
        }
        if first < all {
            let found = (shelf.epoch, shelf.numbers[first]);
            return Ok(match pruning.keeps_last {
                true => last,
                false => Some(found),
            });
        }
    }
    // None is needed.
    Ok(match pruning.keeps_last {
        true => last,
        false => Some((Epoch(u64::MAX), 0)),
    })
}
