//! The scheduler's durable state, and what is published with it.
//!
//! One record per cluster, written with compare-and-set. A record's goal and discovery nodes follow
//! from it and are written in the same transaction, so that nobody ever sees a goal or a master
//! without the record that explains it. With `--state-storage=local` the records are files and the
//! transaction follows the file; see [`Store::commit`] for what a crash between the two means.
//!
//! **Fence.** Opening a store rewrites `/fence`, and every transaction begins with a check of that
//! node's version: from then on a deposed leader cannot change anything, not even of clusters that
//! the new leader has not touched yet, nor of one that was deleted and made again with the version
//! numbers starting anew.
//!
//! **Uncertain answers.** After an error for which [`StoreError::may_have_happened`] is true the
//! caller loads the cluster again ([`Store::load`]) and goes on from what it finds.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::acl::Acls;
use super::document::{json, parse, to_value};
use super::load::read_published;
use super::local::{LocalError, LocalFiles};
use super::operations::{Error, Op, Refusal};
use super::paths;
use super::publish::{self, Published};
use super::session::Session;
use crate::cluster::id::ClusterName;
use crate::cluster::record::ClusterRecord;
use crate::cluster::retained::Retained;

/// How often a transaction is made anew because nodes that it touches had changed. Only executors'
/// reports change without us, and those of a dying cluster do so a few times.
const MAX_ATTEMPTS: usize = 10;

/// The format number of the framework node written by this version.
pub const FRAMEWORK_FORMAT: u32 = 1;

/// Where records are kept. Goals and discovery are in ZooKeeper always.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateStorage {
    /// In ZooKeeper.
    Zk,
    /// In files below this directory.
    Local(PathBuf),
}

/// Counts the writes of one record. It says nothing after the record was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version(pub i32);

/// What Mesos knows the scheduler as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameworkRecord {
    /// See [`FRAMEWORK_FORMAT`].
    pub format: u32,
    /// The id that the Mesos master gave at the first registration.
    pub framework_id: String,
}

/// A cluster as it was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The record.
    pub record: ClusterRecord,
    /// Its version, for the next [`Store::commit`].
    pub version: Version,
    /// Whether goal and discovery are what the record means. If not, commit the record once more.
    pub is_published: bool,
}

/// A record that cannot be used. It is left as it is; a person has to look.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the record at {location} cannot be used: {fault}; it is left as it is, and the cluster is not managed until that is repaired"
)]
pub struct Unusable {
    /// The name of the node or file, which may not be a cluster's name.
    pub name: String,
    /// The node or file.
    pub location: String,
    /// What is wrong with it.
    pub fault: String,
}

/// Why something was not stored, published or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another scheduler has opened the store since.
    #[error("another scheduler has taken over: this one must not write any more")]
    Deposed,
    /// The record is not of the expected version.
    #[error("the record of {0} was changed by somebody else: it has to be read again")]
    Conflict(ClusterName),
    /// The record is stored, goal and discovery are not: load it and commit again.
    #[error("the record of {cluster} is stored, but its goal and discovery could not be written")]
    Unpublished {
        /// The cluster.
        cluster: ClusterName,
        /// Why.
        #[source]
        source: Error,
    },
    /// What is kept of a deleted cluster is not of the expected version.
    #[error("what is kept of the deleted cluster {0} was changed by somebody else")]
    RetainedConflict(Uuid),
    /// What is kept of a deleted cluster cannot be understood, so it is not replaced.
    #[error(transparent)]
    Retained(Unusable),
    /// The framework's node or file cannot be understood.
    #[error(transparent)]
    Framework(Unusable),
    /// ZooKeeper failed or refused.
    #[error(transparent)]
    ZooKeeper(#[from] Error),
    /// A file failed.
    #[error(transparent)]
    Local(#[from] LocalError),
}

impl StoreError {
    /// Whether something may have been written all the same: then read before anything else.
    pub fn may_have_happened(&self) -> bool {
        match self {
            Self::Unpublished { .. }
            | Self::ZooKeeper(Error::Uncertain { .. })
            | Self::Local(LocalError::Io { .. }) => true,
            Self::Deposed
            | Self::Conflict(_)
            | Self::RetainedConflict(_)
            | Self::Retained(_)
            | Self::Framework(_)
            | Self::ZooKeeper(_)
            | Self::Local(_) => false,
        }
    }
}

pub(super) type Result<T> = std::result::Result<T, StoreError>;

/// The scheduler's state. Only the leader has one.
#[derive(Debug)]
pub struct Store {
    pub(super) session: Session,
    acls: Acls,
    pub(super) files: Option<Arc<LocalFiles>>,
    pub(super) fence: Op,
    /// What was last seen of each cluster's published nodes. Only this store writes them, so this
    /// saves reading; where it is wrong, a transaction fails and the nodes are read again.
    known: Mutex<HashMap<ClusterName, Published>>,
}

impl Store {
    /// Takes the state over: from now on no other scheduler can write. Only for an elected leader,
    /// or where there is one scheduler.
    pub async fn open(session: Session, acls: Acls, storage: StateStorage) -> Result<Self> {
        let files = match storage {
            StateStorage::Zk => None,
            StateStorage::Local(directory) => Some(Arc::new(
                blocking(move || LocalFiles::open(&directory)).await?,
            )),
        };
        let connection = session.connection()?;
        if files.is_none() {
            for path in [paths::CLUSTERS, paths::RETAINED] {
                connection.ensure_path(path, &acls.state).await?;
            }
        }
        connection
            .ensure_path(paths::CONTROL, &acls.control)
            .await?;
        connection
            .ensure_path(paths::DISCOVER, &acls.discovery)
            .await?;
        connection.ensure_path(paths::FENCE, &acls.state).await?;
        let path = paths::FENCE.to_owned();
        let set = Op::Set {
            path: path.clone(),
            data: Vec::new(),
            version: None,
        };
        // If the answer is lost, the fence has moved for nobody's benefit: opening again moves it
        // once more. If two schedulers open at once, the later one wins.
        let versions = connection.transact(&[set]).await?;
        let version = versions.first().copied().flatten().unwrap_or_default();
        let fence = Op::Check { path, version };
        Ok(Self {
            session,
            acls,
            files,
            fence,
            known: Mutex::default(),
        })
    }

    /// The framework's id, if one was stored.
    pub async fn framework(&self) -> Result<Option<(FrameworkRecord, Version)>> {
        let found = self
            .document(paths::FRAMEWORK, LocalFiles::framework)
            .await?;
        let Some((document, version)) = found else {
            return Ok(None);
        };
        let parsed = document.and_then(|value| parse::<FrameworkRecord>(value, FRAMEWORK_FORMAT));
        parsed
            .map(|record| Some((record, version)))
            .map_err(|fault| {
                StoreError::Framework(Unusable {
                    name: "framework".to_owned(),
                    location: self.location(paths::FRAMEWORK, LocalFiles::framework),
                    fault,
                })
            })
    }

    /// Stores the framework's id if the stored one still has the `expected` version.
    pub async fn set_framework(
        &self,
        record: &FrameworkRecord,
        expected: Option<Version>,
    ) -> Result<Version> {
        let expected = expected.map(|Version(number)| number);
        if let Some(files) = &self.files {
            let (files, document) = (files.clone(), to_value(record));
            let written =
                blocking(move || files.write(&files.framework(), &document, expected)).await;
            return Ok(Version(written?));
        }
        let write = versioned(
            paths::FRAMEWORK.to_owned(),
            json(record),
            expected,
            &self.acls,
        );
        let result = self
            .session
            .connection()?
            .transact(&[self.fence.clone(), write])
            .await;
        Ok(Version(
            result
                .map(|versions| version_at(&versions, 1))
                .map_err(|error| self.deposed_or(error))?,
        ))
    }

    /// Stores a record if the stored one still has the `expected` version (`None`: there is none
    /// yet), and publishes the goal and the discovery nodes that follow from it.
    ///
    /// In ZooKeeper that is one transaction: a crash leaves all of it or nothing. With local files
    /// the file comes first, so that nothing is ever published that is not stored; after a crash
    /// between the two, the next scheduler finds [`Loaded::is_published`] false and commits again.
    pub async fn commit(
        &self,
        record: &ClusterRecord,
        expected: Option<Version>,
    ) -> Result<Version> {
        let name = record.name();
        let expected = expected.map(|Version(number)| number);
        let Some(files) = &self.files else {
            let write = versioned(paths::record(name), json(record), expected, &self.acls);
            let versions = self.publish(name, record, &[write]).await?;
            return Ok(Version(version_at(&versions, 1)));
        };
        // Asked before the file is written, to leave less undone during an outage.
        self.session.connection()?;
        let (files, document, file) = (files.clone(), to_value(record), name.to_string());
        let written =
            blocking(move || files.write(&files.cluster(&file), &document, expected)).await;
        let version = written.map_err(|error| conflict_or(error, name))?;
        match self.publish(name, record, &[]).await {
            Ok(_) => Ok(Version(version)),
            Err(StoreError::ZooKeeper(source)) => Err(StoreError::Unpublished {
                cluster: name.clone(),
                source,
            }),
            Err(error) => Err(error),
        }
    }

    /// Removes a cluster's record, goal, reports and discovery group. To be called when its last
    /// task is gone. A cluster that is not there is fine. What is to be `retained` of it is stored in the same step; the
    /// answer is its version.
    ///
    /// In ZooKeeper that is one transaction. With local files the file goes last: after a crash
    /// between the two, the next scheduler finds the record of a deleted cluster that has no tasks,
    /// and removes it again.
    pub async fn remove(
        &self,
        cluster: &ClusterName,
        expected: Version,
        retained: Option<&Retained>,
    ) -> Result<Option<Version>> {
        let connection = self.session.connection()?;
        // A new node's version.
        let mut kept = retained.map(|_| Version(0));
        if let Some(files) = &self.files {
            // The published nodes go first, so the version has to be right before.
            let (of_cluster, path) = (files.clone(), files.cluster(cluster.as_str()));
            let found = blocking(move || of_cluster.read(&path))
                .await?
                .map(|(_, version)| version);
            if found.is_some_and(|version| version != expected.0) {
                return Err(StoreError::Conflict(cluster.clone()));
            }
            // Before anything goes that explains the slots.
            if let Some(retained) = retained {
                kept = Some(self.begin_retained(retained).await?);
            }
        }
        let mut attempt = 1;
        loop {
            let found = read_published(&connection, cluster).await?;
            let reports = connection
                .children(&paths::members(cluster))
                .await?
                .unwrap_or_default();
            let mut ops = vec![self.fence.clone()];
            let has_record =
                self.files.is_none() && connection.stat(&paths::record(cluster)).await?.is_some();
            if has_record {
                ops.push(Op::Delete {
                    path: paths::record(cluster),
                    version: Some(expected.0),
                });
                ops.extend(retained.map(|retained| {
                    let path = paths::retained(retained.incarnation());
                    Op::create(path, json(retained), &self.acls.state)
                }));
            } else if found == Published::default() {
                break;
            }
            ops.extend(publish::removal(cluster, &found, &reports));
            self.known().remove(cluster);
            match connection.transact(&ops).await {
                Ok(_) => break,
                // A dying executor's report came or went in between.
                Err(error) if is_stale(&error, cluster) && attempt < MAX_ATTEMPTS => attempt += 1,
                Err(error) => return Err(self.conflict_or(error, cluster)),
            }
        }
        if let Some(files) = &self.files {
            let (files, file) = (files.clone(), cluster.to_string());
            let removed = blocking(move || files.remove(&files.cluster(&file), expected.0)).await;
            removed.map_err(|error| conflict_or(error, cluster))?;
        }
        Ok(kept)
    }

    /// The transaction of [`Store::commit`]: the fence, what is to be written of the state if that is in ZooKeeper, and what
    /// differs from what is published.
    pub(super) async fn publish(
        &self,
        name: &ClusterName,
        record: &ClusterRecord,
        writes: &[Op],
    ) -> Result<Vec<Option<i32>>> {
        let connection = self.session.connection()?;
        let wanted = Published::of(record);
        // A new cluster has nothing published, which the transaction itself finds out.
        let mut from = self.known().remove(name).unwrap_or_default();
        let mut attempt = 1;
        loop {
            let mut ops = vec![self.fence.clone()];
            ops.extend(writes.iter().cloned());
            ops.extend(publish::operations(name, &from, &wanted, &self.acls));
            match connection.transact(&ops).await {
                Ok(versions) => {
                    self.known().insert(name.clone(), wanted);
                    return Ok(versions);
                }
                Err(error) if is_stale(&error, name) && attempt < MAX_ATTEMPTS => {
                    attempt += 1;
                    from = read_published(&connection, name).await?;
                }
                Err(error) => return Err(self.conflict_or(error, name)),
            }
        }
    }

    pub(super) fn acls(&self) -> &Acls {
        &self.acls
    }

    pub(super) fn known(&self) -> MutexGuard<'_, HashMap<ClusterName, Published>> {
        // The map is whole between any two of its methods.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn location(&self, node: &str, file: impl Fn(&LocalFiles) -> PathBuf) -> String {
        match &self.files {
            Some(files) => file(files).display().to_string(),
            None => format!("ZooKeeper {node}"),
        }
    }

    pub(super) fn deposed_or(&self, error: Error) -> StoreError {
        let is_fence = error.refused_path() == Some(paths::FENCE);
        match error.refusal() {
            Some(Refusal::BadVersion | Refusal::NoNode) if is_fence => StoreError::Deposed,
            _ => StoreError::ZooKeeper(error),
        }
    }

    fn conflict_or(&self, error: Error, cluster: &ClusterName) -> StoreError {
        let is_record = error.refused_path() == Some(&paths::record(cluster));
        match error.refusal() {
            Some(Refusal::BadVersion | Refusal::NoNode | Refusal::NodeExists) if is_record => {
                StoreError::Conflict(cluster.clone())
            }
            _ => self.deposed_or(error),
        }
    }
}

/// Whether a transaction failed because published nodes were not as they had been read.
fn is_stale(error: &Error, cluster: &ClusterName) -> bool {
    let is_ours = error.refused_path().is_some_and(|path| {
        [paths::control(cluster), paths::discover(cluster)]
            .iter()
            .any(|parent| {
                path.strip_prefix(parent.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
    });
    let moved = matches!(
        error.refusal(),
        Some(Refusal::NoNode | Refusal::NodeExists | Refusal::NotEmpty | Refusal::BadVersion)
    );
    is_ours && moved
}

pub(super) fn versioned(path: String, data: Vec<u8>, expected: Option<i32>, acls: &Acls) -> Op {
    match expected {
        None => Op::create(path, data, &acls.state),
        version => Op::Set {
            path,
            data,
            version,
        },
    }
}

pub(super) fn version_at(versions: &[Option<i32>], index: usize) -> i32 {
    versions.get(index).copied().flatten().unwrap_or_default()
}

fn conflict_or(error: LocalError, cluster: &ClusterName) -> StoreError {
    match error {
        LocalError::Conflict { .. } => StoreError::Conflict(cluster.clone()),
        other => StoreError::Local(other),
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::result::Result<T, LocalError> + Send + 'static,
) -> std::result::Result<T, LocalError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
