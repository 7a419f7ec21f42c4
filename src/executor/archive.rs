//! Archiving the binlogs of the master, beside everything else that it does.
//!
//! Every few seconds the server is asked how far its binlog is, which is always the end of a transaction. What is in its files between what was
//! archived and there goes into the store as segments (`segment`); what a segment is for, and what of an archive counts, tells
//! [`crate::backup::archive`]. The files are read from the disk: nothing is asked of the server for them, and no commit waits.
//!
//! The archive itself says how far it is: whoever archives begins with its last complete segment, after every trouble too. A segment is its
//! data, then its document; an executor that ends between the two leaves data that nobody looks at, and the next one makes the segment anew, with data under
//! another name. If the document was written though the store did not say so, it is the last segment that the next look finds.
//!
//! Nobody removes binlogs from members, so a store that is away for long delays the archive and leaves no gap in it.

mod segment;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tokio::{
    task,
    time::{Instant, sleep},
};
use tracing::{info, warn};

use self::segment::{Cursor, Cut, Found, ScanError};
use super::{chain, steps::Context};
use crate::{
    backup::{
        archive::{self, Chain, Resumption, Segment},
        store::{Store, StoreError},
        stream::{self, StreamError},
    },
    cluster::{
        backup::{ArchiveOrder, ArchiveReport},
        control::Lineage,
        gtid::Position,
        id::{DataId, Epoch},
    },
    mysql::{self, Server},
    time::Timestamp,
};

/// How often is looked for what is to be archived. So much of a cluster that is lost altogether can be lost, and what is on the way.
const EVERY: Duration = Duration::from_secs(10);

/// How long is waited after trouble with the store or the server.
const AFTER_TROUBLE: Duration = Duration::from_secs(10);

/// How often it is told up to where everything is archived.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// Nothing is archived at the moment.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The store, or the way into it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stream.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The server does not say how far it is.
    #[error("the server does not say how far its binlog is")]
    Server(#[from] mysql::Error),
    /// The binlogs cannot be read.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// What was archived is not there.
    #[error(
        "the archive of this cluster is not where it was, as in a file system that is not mounted: segment {number} of epoch {epoch} is {found}; nothing is archived before it is there again"
    )]
    Gone {
        /// Its epoch.
        epoch: Epoch,
        /// Its number.
        number: u64,
        /// What is there, as part of a sentence.
        found: &'static str,
    },
    /// Nothing is there, though something was archived.
    #[error(
        "nothing of the archive of this cluster is in {0}, though it was begun there, as in a file system that is not mounted; nothing is archived before it is there again. If it was removed on purpose, \
         start the scheduler with --archive-binlogs off, and with on again when the cluster says that its binlogs are not archived: then a new archive begins"
    )]
    Empty(String),
    /// Another master has archived in a later epoch.
    #[error("the master of epoch {0} archives the cluster's binlogs by now")]
    Replaced(Epoch),
}

/// What is to be archived where.
#[derive(Debug, Clone)]
pub struct Task {
    /// Where, and whether something of it is there.
    pub order: ArchiveOrder,
    /// The epoch whose master this is.
    pub epoch: Epoch,
    /// The data directory.
    pub data: DataId,
    /// What the winners of the last epochs held, with the present one at the end.
    pub lineage: Vec<Lineage>,
}

/// Is told how far the archive is.
pub type Tell = Box<dyn Fn(ArchiveReport) -> BoxFuture<'static, ()> + Send + Sync>;

/// Archives until it is dropped, or another master has taken over.
pub async fn run(context: Arc<Context>, server: Arc<Server>, archiving: Task, tell: Tell) {
    let mut archiver = Archiver {
        folder: context.sandbox.data(archiving.data),
        context,
        server,
        archiving,
        tell,
        told: None,
        lacks: None,
        last: None,
    };
    loop {
        let Err(error) = archiver.keep().await;
        if let ArchiveError::Replaced(epoch) = error {
            info!(%epoch, "another master archives");
            return;
        }
        let problem = format!("binlogs are not archived: {}", chain(&error));
        warn!(problem, "archiving");
        archiver.trouble(problem).await;
        sleep(AFTER_TROUBLE).await;
    }
}

struct Archiver {
    context: Arc<Context>,
    server: Arc<Server>,
    archiving: Task,
    folder: PathBuf,
    tell: Tell,
    told: Option<(Instant, ArchiveReport)>,
    /// What will be missing in the archive.
    lacks: Option<String>,
    /// The last segment that was ever seen. A store without it is another one, or is not there.
    last: Option<(Epoch, u64)>,
}

/// How far the archive is.
struct Place {
    reached: Position,
    cursor: Cursor,
    /// The number of the next segment.
    number: u64,
    /// The segments of this epoch before it, if nothing is missing behind them.
    chain: Option<Chain>,
    /// Everything that this master had logged before this moment is archived.
    until: Timestamp,
}

impl Archiver {
    /// Archives as long as there is no trouble.
    async fn keep(&mut self) -> Result<std::convert::Infallible, ArchiveError> {
        let settings = self.archiving.order.store.clone();
        // A file system that hangs must not hang the executor.
        let opened = task::spawn_blocking(move || Store::open(&settings)).await;
        let store =
            opened.map_err(|panicked| StreamError::Thread(io::Error::other(panicked)))??;
        let mut place = self.begin(&store).await?;
        info!(epoch = %self.archiving.epoch, from = %place.reached, file = place.cursor.file, "archiving begun");
        loop {
            let until = Timestamp::now();
            let end = self.server.binlog_end().await?;
            while !self.archive(&store, &mut place, &end, until).await? {}
            self.archived(until).await;
            sleep(EVERY).await;
        }
    }

    /// Where to go on: behind the last segment that is in the history of this master.
    async fn begin(&mut self, store: &Store) -> Result<Place, ArchiveError> {
        let epoch = self.archiving.epoch;
        let (cluster, uuid) = (&self.context.task.cluster, self.context.task.uuid);
        let last = store.last_segment(cluster, uuid).await?;
        let found = last.as_ref().map(|last| (last.epoch, last.number));
        if let Some((epoch, number)) = self.last.filter(|_| found < self.last) {
            let found = "missing";
            return Err(ArchiveError::Gone {
                epoch,
                number,
                found,
            });
        }
        if found.is_none() && self.archiving.order.begun {
            let url = self.archiving.order.store.url.clone();
            return Err(ArchiveError::Empty(url));
        }
        self.last = found;
        if let Some(last) = last.as_ref().filter(|last| last.epoch > epoch) {
            return Err(ArchiveError::Replaced(last.epoch));
        }
        let lineage = self.archiving.lineage.iter();
        let lineage: Vec<_> = lineage
            .map(|past| (past.epoch, past.history.clone()))
            .collect();
        let Resumption {
            archived,
            number,
            chain,
            until,
        } = archive::resume(last.as_ref(), epoch, &lineage, uuid);
        let purged = self.server.purged().await?;
        let folder = self.folder.clone();
        let wanted = archived.clone();
        let flavour = self.server.flavour();
        let (cursor, reached) =
            blocking(move || segment::begin(&folder, flavour, wanted, &purged)).await?;
        self.lacks = archived
            .filter(|archived| !archived.contains(&reached))
            .map(|archived| {
                format!(
                    "the archived binlogs have a gap between {archived} and {reached}, because the binlogs of this master do not go back further; make a backup, behind which everything can be restored again"
                )
            });
        if let Some(lacks) = &self.lacks {
            warn!(lacks, "archiving");
        }
        Ok(Place {
            reached,
            cursor,
            number,
            chain: chain.filter(|_| self.lacks.is_none()),
            until,
        })
    }

    /// Archives a segment of what there is up to an end; `true` when there was nothing more.
    async fn archive(
        &mut self,
        store: &Store,
        place: &mut Place,
        end: &(String, u64),
        until: Timestamp,
    ) -> Result<bool, ArchiveError> {
        let (folder, cursor) = (self.folder.clone(), place.cursor.clone());
        let (reached, end) = (place.reached.clone(), end.clone());
        let Found {
            cut,
            cursor,
            is_all,
        } = blocking(move || segment::find(&folder, cursor, reached, &end)).await?;
        if let Some(cut) = cut {
            // Behind the last transaction of what is only a part, nothing is known. What was known before stays true.
            let last = Timestamp::from_millis(u64::from(cut.stamps.1) * 1000);
            let until = if is_all { until } else { last.min(until) };
            self.check_last(store, &place.reached).await?;
            let stored = self
                .store(store, place, cut, until.max(place.until))
                .await?;
            self.last = Some((self.archiving.epoch, place.number));
            place.chain = stored.chain;
            place.until = stored.until;
            place.reached = stored.to;
            place.number += 1;
        }
        place.cursor = cursor;
        Ok(is_all)
    }

    /// Looks whether the last segment is where the next one goes, so that none is ever stored where those before it are not.
    async fn check_last(&self, store: &Store, reached: &Position) -> Result<(), ArchiveError> {
        let Some((epoch, number)) = self.last else {
            return Ok(());
        };
        let task = &self.context.task;
        let found = match store.segment(&task.cluster, task.uuid, epoch, number).await {
            Ok(last) if epoch < self.archiving.epoch || last.to == *reached => return Ok(()),
            Ok(_) => "another one",
            Err(StoreError::Damaged { .. }) => "missing",
            Err(error) => return Err(error.into()),
        };
        Err(ArchiveError::Gone {
            epoch,
            number,
            found,
        })
    }

    async fn store(
        &self,
        store: &Store,
        place: &Place,
        cut: Cut,
        until: Timestamp,
    ) -> Result<Segment, ArchiveError> {
        let task = &self.context.task;
        let (cluster, uuid, epoch) = (&task.cluster, task.uuid, self.archiving.epoch);
        let name = archive::data_name(place.number, rand::random());
        let seal = store.seal_for_segment(cluster, uuid, epoch, place.number)?;
        let path = self.folder.join(&cut.file);
        let runs = cut.runs.clone();
        let packing = stream::pack(seal, move |to| segment::copy(&path, &runs, to))?;
        let (object, data_bytes) = store
            .put_segment(cluster, uuid, epoch, &name, packing)
            .await?;
        let first = cut.runs.first().map_or(0, |(begin, _)| *begin);
        let last = cut.runs.last().map_or(0, |(_, end)| *end);
        let segment = Segment {
            cluster: cluster.clone(),
            uuid,
            epoch,
            number: place.number,
            data: self.archiving.data,
            file: cut.file,
            range: (first, last),
            flavour: self.server.flavour(),
            from: place.reached.clone(),
            to: cut.to,
            transactions: cut.transactions,
            stamps: cut.stamps,
            until,
            data_bytes,
            key_id: store.key().map(|key| key.id()),
            object,
            read_at: Some(cut.read_at),
            chain: Some(Chain::and(place.chain, place.number, data_bytes)),
            // Once for each epoch: whoever restores tells by it what failovers have cut off.
            lineage: match place.number {
                1 => self.archiving.lineage.clone(),
                _ => Vec::new(),
            },
        };
        store.complete_segment(&segment).await?;
        Ok(segment)
    }

    /// Everything before this moment is archived.
    async fn archived(&mut self, until: Timestamp) {
        let is_news = self.told.as_ref().is_none_or(|(at, told)| {
            at.elapsed() >= TELL_EVERY
                || told.until.is_none()
                || told.problem != self.lacks
                || told.begun_in != self.begun_in()
        });
        if is_news {
            let report = ArchiveReport {
                until: Some(until),
                problem: self.lacks.clone(),
                begun_in: self.begun_in(),
            };
            self.tell(report).await;
        }
    }

    /// The store that has something.
    fn begun_in(&self) -> Option<String> {
        self.last.map(|_| self.archiving.order.store.url.clone())
    }

    async fn trouble(&mut self, problem: String) {
        let until = self.told.as_ref().and_then(|(_, told)| told.until);
        let report = ArchiveReport {
            until,
            problem: Some(problem),
            begun_in: self.begun_in(),
        };
        if self.told.as_ref().is_none_or(|(_, told)| *told != report) {
            self.tell(report).await;
        }
    }

    async fn tell(&mut self, report: ArchiveReport) {
        (self.tell)(report.clone()).await;
        self.told = Some((Instant::now(), report));
    }
}

/// Reading files takes as long as the disk does.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ScanError> + Send + 'static,
) -> Result<T, ArchiveError> {
    match task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(panicked) => Err(StreamError::Thread(io::Error::other(panicked)).into()),
    }
}
