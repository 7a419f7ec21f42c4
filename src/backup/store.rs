//! The store of backups: a folder, HDFS or S3, through Apache OpenDAL.
//!
//! Every operation has a time limit. What reads is tried again a few times. What writes is only where a part that is sent twice
//! replaces itself (S3): a write into a file that timed out may have been carried out. What was written is compared in size
//! with what was sent, in any case.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use opendal::{
    ErrorKind, Operator,
    layers::{RetryLayer, TimeoutLayer},
    services::{Fs, HdfsNative, S3},
};

use super::{
    cipher::BackupKey,
    hadoop::{self, HadoopError},
    manifest::{self, Manifest, ManifestError, Object},
    stream::{Packing, Seal, StreamError, Totals, Unpacking},
};
use crate::{
    cluster::{
        backup::{BackupId, BackupStore, InvalidBackupId},
        id::ClusterName,
    },
    keyfile::{Account, KeyFileError, SchedulerKey},
};

/// How long a question to the store may take.
const ASK_LIMIT: Duration = Duration::from_secs(30);

/// How long reading or writing one piece may take.
const PIECE_LIMIT: Duration = Duration::from_secs(60);

/// How often a question is asked again, and how long is waited in between at the most.
const RETRIES: usize = 3;
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// The size of the parts in which data goes to S3, in bytes, of which it takes 10,000: 160 GB. Two are in memory.
const S3_PART: usize = 16 << 20;

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
    /// Packing or unpacking failed.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

/// A store of backups.
#[derive(Debug, Clone)]
pub struct Store {
    url: String,
    reading: Operator,
    writing: Operator,
    part: Option<usize>,
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
            ("file", "") if !path.is_empty() => folder(&root),
            ("hdfs", authority) if !authority.is_empty() => hdfs(url, authority, &root),
            ("s3", bucket) if !bucket.is_empty() => s3(settings, bucket, &root),
            _ => Err(wrong()),
        }?;
        let limit = TimeoutLayer::new()
            .with_timeout(ASK_LIMIT)
            .with_io_timeout(PIECE_LIMIT);
        let again = RetryLayer::new()
            .with_max_times(RETRIES)
            .with_max_delay(RETRY_DELAY)
            .with_jitter();
        let limited = operator.layer(limit);
        let reading = limited.clone().layer(again);
        let is_s3 = scheme == "s3";
        let key = settings.key.as_ref();
        let key = key.map(|path| SchedulerKey::read(Path::new(path)));
        Ok(Self {
            url: url.clone(),
            writing: if is_s3 { reading.clone() } else { limited },
            reading,
            part: is_s3.then_some(S3_PART),
            key: key.transpose()?.map(BackupKey::new),
        })
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
        let limit = 0..manifest::MOST_BYTES;
        let text = match self.reading.stat(&path).await {
            // A range may not go beyond the end.
            Ok(found) => {
                let end = found.content_length().min(limit.end);
                self.reading.read_with(&path).range(0..end).await
            }
            Err(error) => Err(error),
        };
        let text = text.map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => StoreError::Unknown(id.to_string()),
            _ => self.failed("read a manifest", error),
        })?;
        Manifest::from_json(&text.to_vec()).map_err(|source| StoreError::Manifest {
            id: id.clone(),
            source,
        })
    }

    /// Finds what `backup_id` means: the backup of that id, or the newest one of the cluster of that name. The id is where it lies, which
    /// may be another place than where it was made.
    ///
    /// # Errors
    /// When there is none, or it is damaged: another one than was asked for is never taken.
    pub async fn find(&self, asked: &str) -> Result<(BackupId, Manifest), StoreError> {
        let id: BackupId = asked.parse()?;
        match self.manifest(&id).await {
            Ok(manifest) => return Ok((id, manifest)),
            Err(StoreError::Unknown(_)) => {}
            Err(error) => return Err(error),
        }
        let unknown = || StoreError::Unknown(asked.to_owned());
        let cluster: ClusterName = asked.parse().map_err(|_| unknown())?;
        let newest = self.list(&cluster).await?.pop().ok_or_else(unknown)?;
        Ok((newest.id, *newest.manifest?))
    }

    /// The complete backups of a cluster, oldest first, damaged ones included.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn list(&self, cluster: &ClusterName) -> Result<Vec<Listed>, StoreError> {
        let folder = format!("{cluster}/");
        let entries = match self.reading.list(&folder).await {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(self.failed("list its backups", error)),
        };
        let ids = entries.iter().filter_map(|entry| {
            let id: BackupId = entry.path().trim_matches('/').parse().ok()?;
            (id.as_str() != cluster.as_str()).then_some(id)
        });
        let read = async |id: BackupId| {
            let manifest = self.manifest(&id).await.map(Box::new);
            Listed { id, manifest }
        };
        let reads: Vec<_> = ids.map(read).collect();
        let mut found: Vec<Listed> = stream::iter(reads)
            .buffer_unordered(READERS)
            // It is being made, or was not completed.
            .filter(|listed| {
                let unfinished = matches!(listed.manifest, Err(StoreError::Unknown(_)));
                futures::future::ready(!unfinished)
            })
            .collect()
            .await;
        found.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(found)
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
        if let Some(part) = self.part {
            writing = writing.chunk(part);
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
                // Where a store knows of unfinished uploads, it is to forget this one.
                let _ = writer.abort().await;
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
        written.map_err(|error| self.failed("take a manifest", error))?;
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

    fn failed(&self, what: &str, source: opendal::Error) -> StoreError {
        StoreError::Operation {
            url: self.url.clone(),
            what: what.to_owned(),
            source: Box::new(source),
        }
    }
}

fn damaged(id: &BackupId, name: &str, how: String) -> StoreError {
    StoreError::Damaged {
        id: id.clone(),
        name: name.to_owned(),
        how,
    }
}

fn file_of(id: &BackupId, name: &str) -> String {
    format!("{id}/{name}")
}

fn folder(root: &str) -> Result<Operator, StoreError> {
    if !Path::new(root).is_dir() {
        return Err(StoreError::NoFolder(root.to_owned()));
    }
    made(root, Operator::new(Fs::default().root(root)))
}

fn hdfs(url: &str, authority: &str, root: &str) -> Result<Operator, StoreError> {
    let folder = std::env::var_os("HADOOP_CONF_DIR");
    let nodes = hadoop::name_nodes(authority, folder.as_ref().map(Path::new))?;
    let nodes: Vec<String> = nodes.iter().map(|node| format!("hdfs://{node}")).collect();
    let builder = HdfsNative::default().name_node(&nodes.join(",")).root(root);
    made(url, Operator::new(builder))
}

fn s3(settings: &BackupStore, bucket: &str, root: &str) -> Result<Operator, StoreError> {
    // The HTTP client brings no cryptography of its own. That another part of the process was first is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    opendal::install_default();
    let region = settings.region.as_ref().ok_or(StoreError::NoRegion)?;
    let mut builder = S3::default().bucket(bucket).root(root).region(region);
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.endpoint(endpoint);
    }
    if let Some(path) = &settings.credentials {
        let Account { username, password } = Account::read(Path::new(path))?;
        builder = builder
            .access_key_id(&username)
            .secret_access_key(password.expose())
            .disable_config_load()
            .disable_ec2_metadata();
    }
    made(&settings.url, Operator::new(builder))
}

fn made(url: &str, operator: opendal::Result<Operator>) -> Result<Operator, StoreError> {
    operator.map_err(|source| StoreError::Operation {
        url: url.to_owned(),
        what: "be opened".to_owned(),
        source: Box::new(source),
    })
}
