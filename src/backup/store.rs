//! The store of backups: a folder, HDFS or S3, through Apache OpenDAL.
//!
//! Every operation has a time limit. What reads is tried again a few times. What writes is only where a part that is sent twice
//! replaces itself (S3): a write into a file that timed out may have been carried out. What was written is compared in size
//! with what was sent, in any case.

mod segments;
mod services;
mod shelves;
mod verification;

use std::{path::Path, time::Duration};

pub use self::shelves::{Pruning, Way};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use opendal::{
    ErrorKind, Operator,
    layers::{RetryLayer, TimeoutLayer},
};

use super::{
    cipher::BackupKey,
    hadoop::HadoopError,
    manifest::{self, Manifest, ManifestError, Object},
    removal::Survey,
    stream::{Packing, Seal, StreamError, Totals, Unpacking},
    verified::Verified,
};
use crate::{
    cluster::{
        backup::{BackupId, BackupStore, InvalidBackupId},
        id::ClusterName,
    },
    keyfile::{KeyFileError, SchedulerKey},
};

/// How long a question to the store may take.
const ASK_LIMIT: Duration = Duration::from_secs(15);

/// How long reading or writing one piece may take.
const PIECE_LIMIT: Duration = Duration::from_secs(60);

/// How often a question is asked again, and how long is waited in between at the most.
const RETRIES: usize = 2;
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// The size of the parts in which data goes to S3, in bytes, unless there is so much that it takes larger ones: the least that S3 takes.
/// Three are in memory, of the 32 MiB that are the executor's.
const S3_PART: usize = 5 << 20;

/// In how many parts at the most data goes to S3, if it is as large as expected. S3 takes 10,000 (Amazon S3 User Guide, "Multipart
/// upload limits"); the rest is for data that grows meanwhile.
const S3_PARTS: u64 = 8_000;

/// How much is read from the store at a time, in bytes.
const READ_PIECE: u64 = 1 << 20;

/// How many manifests are read at a time.
const READERS: usize = 8;

/// A store cannot be used, or does not have what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL is not that of a store.
    #[error(
        "{0:?} is not the URL of a backup store; give file:///path, hdfs://namenode:port/path or s3://bucket/prefix"
    )]
    Url(String),
    /// The folder is missing. It is not made, because then a file system that is not mounted would be taken for an empty store.
    #[error("the backup store's folder {0} is not there; make it, or mount what it is on")]
    NoFolder(String),
    /// Only S3 has regions, endpoints and credentials.
    #[error("{0} is for stores at s3:// alone")]
    NotForThis(&'static str),
    /// S3 has to be told where it is.
    #[error("an S3 store needs its region, as in {{\"region\": \"eu-central-1\"}}")]
    NoRegion,
    /// Nothing can be asked over HTTP here, as where no authority is trusted.
    #[error(
        "no HTTP client can be made for the backup store; it needs the certificates of authorities (Debian: ca-certificates)"
    )]
    Http(#[source] reqwest::Error),
    /// A key file cannot be used.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// HDFS is not found.
    #[error(transparent)]
    Hadoop(#[from] HadoopError),
    /// The store refuses, or does not answer.
    #[error("the backup store {url} cannot {what}")]
    Operation {
        /// The store's URL.
        url: String,
        /// What it was to do.
        what: String,
        /// What it says.
        #[source]
        source: Box<opendal::Error>,
    },
    /// The id has another form.
    #[error(transparent)]
    Id(#[from] InvalidBackupId),
    /// There is no such backup.
    #[error(
        "the backup store has no backup {0}; GET /clusters/<name>/backups and cotton admin backups list those that it has"
    )]
    Unknown(String),
    /// Another backup is there under this id.
    #[error("the backup store has a backup {0} already, which is not overwritten")]
    Exists(BackupId),
    /// Its manifest is damaged.
    #[error("the backup {id} cannot be used")]
    Manifest {
        /// The id.
        id: BackupId,
        /// Why.
        #[source]
        source: ManifestError,
    },
    /// Its data is encrypted, and there is no key.
    #[error(
        "the backup {id} is encrypted with the key {key_id}, and {found}; name its file as key in --backup-store-args"
    )]
    Key {
        /// The id.
        id: BackupId,
        /// The id of the key that it takes.
        key_id: String,
        /// What there is instead, as part of a sentence.
        found: String,
    },
    /// A file of it is not what was stored.
    #[error("the backup {id} is damaged: its file {name} {how}")]
    Damaged {
        /// The id.
        id: BackupId,
        /// The file.
        name: String,
        /// In what way, as part of a sentence.
        how: String,
    },
    /// It was verified, and something is wrong with it.
    #[error("the backup {id} was verified, and is not good: {problem}{instead}")]
    Bad {
        /// The id.
        id: BackupId,
        /// What is wrong, as a sentence.
        problem: String,
        /// Which other one may be good, as the end of a sentence, or nothing.
        instead: String,
    },
    /// Packing or unpacking failed.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

/// A store of backups.
#[derive(Debug, Clone)]
pub struct Store {
    url: String,
    pub(super) reading: Operator,
    pub(super) writing: Operator,
    is_s3: bool,
    key: Option<BackupKey>,
}

/// Who bounds how fast data is stored.
pub trait Pace: Send {
    /// Is told how much of the data was read, in bytes, and returns when more may be.
    fn keep(&mut self, read: u64) -> impl Future<Output = ()> + Send;
}

/// A backup in a list.
#[derive(Debug)]
pub struct Listed {
    /// Its id.
    pub id: BackupId,
    /// What describes it; or why that cannot be used.
    pub manifest: Result<Box<Manifest>, StoreError>,
    /// What was found when it was verified, if it was.
    pub verified: Option<Box<Verified>>,
}

/// The same with a time limit for everything, and for reading, where that is tried again as well.
pub(super) fn with_limits(operator: Operator) -> (Operator, Operator) {
    let limit = TimeoutLayer::new()
        .with_timeout(ASK_LIMIT)
        .with_io_timeout(PIECE_LIMIT);
    let again = RetryLayer::new()
        .with_max_times(RETRIES)
        .with_max_delay(RETRY_DELAY)
        .with_jitter();
    let limited = operator.layer(limit);
    let reading = limited.clone().layer(again);
    (limited, reading)
}

impl Listed {
    /// Whether something can be made from it as far as is known: it is described, and was not found bad.
    pub fn may_be_good(&self) -> bool {
        self.manifest.is_ok() && self.verified.as_ref().is_none_or(|found| found.good)
    }
}

fn bad_one(id: BackupId, found: Verified, instead: Option<Listed>) -> StoreError {
    let instead = instead.map_or(String::new(), |listed| {
        format!(
            "; the newest one before it that is not known to be bad is {}",
            listed.id
        )
    });
    StoreError::Bad {
        id,
        problem: found.problem.unwrap_or_default(),
        instead,
    }
}

impl Store {
    /// Opens a store; nothing is asked of it yet. The files that its settings name are read.
    ///
    /// # Errors
    /// When the settings name no store, or a file of theirs cannot be used.
    pub fn open(settings: &BackupStore) -> Result<Self, StoreError> {
        let url = &settings.url;
        let wrong = || StoreError::Url(url.clone());
        let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let root = format!("/{path}");
        if url.contains(['?', '#', '@']) || root.split('/').any(|part| part == "..") {
            return Err(wrong());
        }
        if scheme != "s3" {
            let given = [
                ("region", settings.region.is_some()),
                ("endpoint", settings.endpoint.is_some()),
                ("credentials", settings.credentials.is_some()),
            ];
            if let Some((name, _)) = given.iter().find(|(_, given)| *given) {
                return Err(StoreError::NotForThis(name));
            }
        }
        let operator = match (scheme, authority) {
            ("file", "") if !path.is_empty() => services::folder(&root),
            ("hdfs", authority) if !authority.is_empty() => services::hdfs(url, authority, &root),
            ("s3", bucket) if !bucket.is_empty() => services::s3(settings, bucket, &root),
            _ => Err(wrong()),
        }?;
        let (limited, reading) = with_limits(operator);
        let is_s3 = scheme == "s3";
        let key = settings.key.as_ref();
        let key = key.map(|path| SchedulerKey::read(Path::new(path)));
        Ok(Self {
            url: url.clone(),
            writing: if is_s3 { reading.clone() } else { limited },
            reading,
            is_s3,
            key: key.transpose()?.map(BackupKey::new),
        })
    }

    pub(super) fn is_s3(&self) -> bool {
        self.is_s3
    }

    /// Where it is, as it was given.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What new backups are encrypted with.
    pub fn key(&self) -> Option<&BackupKey> {
        self.key.as_ref()
    }

    /// Reads the manifest of a backup.
    ///
    /// # Errors
    /// When there is none, or it is damaged.
    pub async fn manifest(&self, id: &BackupId) -> Result<Manifest, StoreError> {
        let path = file_of(id, manifest::FILE);
        let text = self.text(&path, manifest::MOST_BYTES).await;
        let unknown = || StoreError::Unknown(id.to_string());
        let text = text.map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => unknown(),
            _ => self.failed("read a manifest", error),
        })?;
        // A folder and HDFS show a file before anything is in it. Whoever was to write it may have ended there.
        if text.is_empty() {
            return Err(unknown());
        }
        Manifest::from_json(&text).map_err(|source| StoreError::Manifest {
            id: id.clone(),
            source,
        })
    }

    /// Reads a document, as far as `most` bytes.
    async fn text(&self, path: &str, most: u64) -> opendal::Result<Vec<u8>> {
        // A range may not go beyond the end.
        let length = self.reading.stat(path).await?.content_length();
        let text = self.reading.read_with(path).range(0..length.min(most));
        Ok(text.await?.to_vec())
    }

    /// Finds what `backup_id` means: the backup of that id, or the newest one of the cluster of that name. The id is where it lies, which
    /// may be another place than where it was made.
    ///
    /// # Errors
    /// When there is none, it is damaged, or it was found bad when it was verified: another one than was asked for is never taken.
    pub async fn find(&self, asked: &str) -> Result<(BackupId, Manifest), StoreError> {
        let id: BackupId = asked.parse()?;
        match self.manifest(&id).await {
            Ok(manifest) => {
                let verified = self.verified(&id, &manifest).await?;
                return match verified.filter(|found| !found.good) {
                    Some(bad) => Err(bad_one(id, bad, None)),
                    None => Ok((id, manifest)),
                };
            }
            Err(StoreError::Unknown(_)) => {}
            Err(error) => return Err(error),
        }
        let unknown = || StoreError::Unknown(asked.to_owned());
        let cluster: ClusterName = asked.parse().map_err(|_| unknown())?;
        let mut backups = self.list(&cluster).await?;
        let newest = backups.pop().ok_or_else(unknown)?;
        let manifest = newest.manifest?;
        match newest.verified.filter(|found| !found.good) {
            Some(bad) => {
                let instead = backups.into_iter().rev().find(Listed::may_be_good);
                Err(bad_one(newest.id, *bad, instead))
            }
            None => Ok((newest.id, *manifest)),
        }
    }

    /// The complete backups of a cluster, oldest first, damaged ones included.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn list(&self, cluster: &ClusterName) -> Result<Vec<Listed>, StoreError> {
        Ok(self.survey(cluster).await?.complete)
    }

    /// What the store has of a cluster.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn survey(&self, cluster: &ClusterName) -> Result<Survey, StoreError> {
        let entries = self.entries(&format!("{cluster}/")).await?;
        let ids = entries
            .iter()
            .filter_map(|path| path.trim_matches('/').parse::<BackupId>().ok());
        let read = async |id: BackupId| {
            let manifest = self.manifest(&id).await.map(Box::new);
            let verified = match &manifest {
                Ok(manifest) => self.verified(&id, manifest).await,
                Err(_) => Ok(None),
            };
            let (manifest, verified) = match verified {
                Ok(verified) => (manifest, verified.map(Box::new)),
                // What may be good is not taken for one that was not verified.
                Err(error) => (Err(error), None),
            };
            Listed {
                id,
                manifest,
                verified,
            }
        };
        let reads: Vec<_> = ids.map(read).collect();
        let mut found: Vec<Listed> = stream::iter(reads)
            .buffer_unordered(READERS)
            .collect()
            .await;
        found.sort_by(|a, b| a.id.cmp(&b.id));
        let mut survey = Survey::default();
        for listed in found {
            match listed.manifest {
                // It is being made, or was not completed; or it is something else.
                Err(StoreError::Unknown(_)) => {
                    let is_own = listed.id.asked_at().is_some();
                    survey.unfinished.extend(is_own.then_some(listed.id));
                }
                _ => survey.complete.push(listed),
            }
        }
        Ok(survey)
    }

    /// What a new backup is encrypted with, and checks that there is none under its id.
    ///
    /// # Errors
    /// When there is, or the store does not answer.
    pub async fn begin(&self, id: &BackupId) -> Result<Seal, StoreError> {
        let path = file_of(id, manifest::FILE);
        let found = self.reading.exists(&path).await;
        match found.map_err(|error| self.failed("look for a backup", error))? {
            true => Err(StoreError::Exists(id.clone())),
            false => Ok(self.key.clone().map(|key| (key, id.clone()))),
        }
    }

    /// Stores what is being packed as a file of a backup.
    ///
    /// # Errors
    /// When the data is not completed or the store does not take it. What was written of it is removed as far as that is possible; without
    /// a manifest it is no backup.
    pub async fn put(
        &self,
        id: &BackupId,
        name: &str,
        packing: Packing,
        pace: &mut impl Pace,
    ) -> Result<(Object, u64), StoreError> {
        let path = file_of(id, name);
        let put = self.put_all(&path, packing, pace).await;
        let checked = match put {
            Ok(totals) => self
                .compare(id, name, &path, &totals)
                .await
                .map(|()| totals),
            Err(error) => Err(error),
        };
        match checked {
            Ok(totals) => Ok((
                Object {
                    name: name.to_owned(),
                    bytes: totals.stored_bytes,
                    sha256: totals.sha256,
                },
                totals.data_bytes,
            )),
            Err(error) => {
                // It is of no use; that it stays is no harm.
                let _ = self.writing.delete(&path).await;
                Err(error)
            }
        }
    }

    async fn put_all(
        &self,
        path: &str,
        mut packing: Packing,
        pace: &mut impl Pace,
    ) -> Result<Totals, StoreError> {
        let failed = |error| self.failed("take a backup's data", error);
        let mut writing = self.writing.writer_with(path);
        if self.is_s3 {
            writing = writing.chunk(part_for(packing.expected()));
        }
        let mut writer = writing.await.map_err(failed)?;
        let all = async {
            while let Some(piece) = packing.next().await? {
                writer.write(piece.bytes).await.map_err(failed)?;
                pace.keep(piece.read).await;
            }
            packing.finish().await.map_err(StoreError::from)
        };
        let totals = match all.await {
            Ok(totals) => totals,
            Err(error) => {
                // S3 knows of unfinished uploads, and is to forget this one. Elsewhere there is nothing of the kind.
                if self.is_s3 {
                    let _ = writer.abort().await;
                }
                return Err(error);
            }
        };
        writer.close().await.map_err(failed)?;
        Ok(totals)
    }

    /// Whether as much is stored as was sent.
    async fn compare(
        &self,
        id: &BackupId,
        name: &str,
        path: &str,
        totals: &Totals,
    ) -> Result<(), StoreError> {
        let found = self.reading.stat(path).await;
        let found = found.map_err(|error| self.failed("tell a file's size", error))?;
        match found.content_length() {
            length if length == totals.stored_bytes => Ok(()),
            length => Err(damaged(
                id,
                name,
                format!(
                    "has {length} bytes in the store, and {} were written",
                    totals.stored_bytes
                ),
            )),
        }
    }

    /// Stores the manifest, which makes a backup of what was stored before.
    ///
    /// # Errors
    /// When the store does not take it.
    pub async fn complete(&self, manifest: &Manifest) -> Result<(), StoreError> {
        let path = file_of(&manifest.id, manifest::FILE);
        let written = self.writing.write(&path, manifest.to_json()).await;
        if let Err(error) = written {
            // A part of it would be taken for one that is damaged.
            let _ = self.writing.delete(&path).await;
            return Err(self.failed("take a manifest", error));
        }
        Ok(())
    }

    /// What a backup is decrypted with.
    ///
    /// # Errors
    /// When the key is missing or another one.
    pub fn seal_of(&self, manifest: &Manifest) -> Result<Seal, StoreError> {
        let Some(key_id) = &manifest.key_id else {
            return Ok(None);
        };
        let refused = |found| StoreError::Key {
            id: manifest.id.clone(),
            key_id: key_id.clone(),
            found,
        };
        let key = self.key.clone();
        let key = key.ok_or_else(|| refused("there is no key here".to_owned()))?;
        match key.id() {
            own if own == *key_id => Ok(Some((key, manifest.id.clone()))),
            own => Err(refused(format!("the key here is {own}"))),
        }
    }

    /// Reads a file of the backup that lies at `id` into what unpacks it, and compares size and digest with the manifest's.
    ///
    /// # Errors
    /// When it is missing, damaged or cut off, or what takes the data does not. What was unpacked is then of no use.
    pub async fn get(
        &self,
        id: &BackupId,
        object: &Object,
        unpacking: Unpacking,
    ) -> Result<Totals, StoreError> {
        let path = file_of(id, &object.name);
        let missing = |error: opendal::Error| match error.kind() {
            ErrorKind::NotFound => damaged(id, &object.name, "is missing".to_owned()),
            _ => self.failed("read a backup's data", error),
        };
        let found = self.reading.stat(&path).await.map_err(missing)?;
        if found.content_length() != object.bytes {
            let how = format!(
                "has {} bytes, and {} were stored",
                found.content_length(),
                object.bytes
            );
            return Err(damaged(id, &object.name, how));
        }
        let reader = self.reading.reader_with(&path).chunk(READ_PIECE as usize);
        let reader = reader.await.map_err(missing)?;
        let stream = reader.into_stream(0..object.bytes).await.map_err(missing)?;
        let mut stream = Box::pin(stream);
        'all: while let Some(buffer) = stream.try_next().await.map_err(missing)? {
            for bytes in buffer {
                let bytes: Bytes = bytes;
                if !unpacking.put(bytes).await? {
                    break 'all;
                }
            }
        }
        let totals = unpacking.finish().await?;
        if totals.sha256 != object.sha256 {
            return Err(damaged(
                id,
                &object.name,
                "has another checksum than what was stored".to_owned(),
            ));
        }
        Ok(totals)
    }

    /// Whether a list failed because its folder is not there. S3 knows no folders: there it is the bucket that is not there, which
    /// must not be taken for an empty store.
    pub(super) fn has_no_such_folder(&self, error: &opendal::Error) -> bool {
        error.kind() == ErrorKind::NotFound && !self.is_s3
    }

    pub(super) fn failed(&self, what: &str, source: opendal::Error) -> StoreError {
        StoreError::Operation {
            url: self.url.clone(),
            what: what.to_owned(),
            source: Box::new(source),
        }
    }
}

/// The size of the parts for so much data, in bytes: no more memory than it takes.
fn part_for(expected: u64) -> usize {
    let needed = expected.div_ceil(S3_PARTS);
    usize::try_from(needed).map_or(S3_PART, |needed| needed.max(S3_PART))
}

fn damaged(id: &BackupId, name: &str, how: String) -> StoreError {
    StoreError::Damaged {
        id: id.clone(),
        name: name.to_owned(),
        how,
    }
}

pub(super) fn file_of(id: &BackupId, name: &str) -> String {
    format!("{id}/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_small_unless_there_would_be_too_many() {
        for (expected, part) in [(0, S3_PART), (40_000_000_000, S3_PART)] {
            assert_eq!(part_for(expected), part);
        }
        // S3's limits: 10,000 parts of up to 5 GiB.
        for terabytes in [1, 10, 30] {
            let expected = terabytes * 1_000_000_000_000;
            let part = part_for(expected) as u64;
            assert!(expected.div_ceil(part) <= 8_000 && part < 5 << 30, "{part}");
        }
    }
}
