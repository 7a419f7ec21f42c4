//! What is kept of deleted clusters, one node or file for each.
//!
//! It is made by [`Store::remove`] in the transaction that removes the cluster, so that its slots are never without a
//! record that explains them.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use uuid::Uuid;

use super::{
    document::{json, parse, to_value},
    load::LOADS_IN_FLIGHT,
    local::{LocalError, LocalFiles},
    operations::{Error, Op, Refusal},
    paths,
    store::{Result, Store, StoreError, Unusable, Version, blocking, version_at, versioned},
};
use crate::cluster::{
    record::ClusterRecord,
    retained::{self, Retained},
};

/// What was found, or why it cannot be used.
type Found = std::result::Result<(Retained, Version), Unusable>;

impl Store {
    /// All of them. One that cannot be used does not stand in the way of the others.
    ///
    /// # Errors
    /// When ZooKeeper or the file system does not answer.
    pub async fn load_retained(&self) -> Result<Vec<Found>> {
        let names = self
            .names(paths::RETAINED, LocalFiles::retained_names)
            .await?;
        let loads = stream::iter(names).map(|name| async move { self.retained_named(&name).await });
        let found: Vec<Option<Found>> = loads
            .buffer_unordered(LOADS_IN_FLIGHT)
            .try_collect()
            .await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// One of them, or `None` if there is nothing of it.
    ///
    /// # Errors
    /// When ZooKeeper or the file system does not answer.
    pub async fn retained(&self, incarnation: Uuid) -> Result<Option<Found>> {
        self.retained_named(&incarnation.to_string()).await
    }

    async fn retained_named(&self, name: &str) -> Result<Option<Found>> {
        let node = format!("{}/{name}", paths::RETAINED);
        let file = |files: &LocalFiles| files.retained(name);
        let unusable = |fault: String| Unusable {
            name: name.to_owned(),
            location: self.location(&node, file),
            fault,
        };
        let Some((document, version)) = self.document(&node, file).await? else {
            return Ok(None);
        };
        let parsed = document.and_then(|value| parse::<Retained>(value, retained::FORMAT));
        Ok(Some(match parsed {
            Ok(retained) if retained.incarnation().to_string() == name => Ok((retained, version)),
            Ok(retained) => Err(unusable(format!(
                "it is of the incarnation {}",
                retained.incarnation()
            ))),
            Err(fault) => Err(unusable(fault)),
        }))
    }

    /// Replaces what is stored, if it still has the `expected` version (`None`: there is nothing of it yet).
    ///
    /// # Errors
    /// [`StoreError::RetainedConflict`] if somebody else has changed it.
    pub async fn set_retained(
        &self,
        retained: &Retained,
        expected: Option<Version>,
    ) -> Result<Version> {
        let incarnation = retained.incarnation();
        let expected = expected.map(|Version(number)| number);
        if let Some(files) = &self.files {
            let (files, document) = (files.clone(), to_value(retained));
            let path = files.retained(&incarnation.to_string());
            let written = blocking(move || files.write(&path, &document, expected)).await;
            return written
                .map(Version)
                .map_err(|error| conflict_or(error, incarnation));
        }
        let (path, data) = (paths::retained(incarnation), json(retained));
        let write = versioned(path, data, expected, self.acls());
        let versions = self.transact_retained(write, incarnation).await?;
        Ok(Version(version_at(&versions, 1)))
    }

    /// Brings a deleted cluster back: stores its record, publishes its goal and its discovery group, and removes what was `kept` of it.
    ///
    /// In ZooKeeper that is one transaction. With local files the record's file comes first, and what was kept stays for
    /// [`Store::remove_retained`]: a crash between the two leaves both, and the record counts.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if there is a cluster of its name, [`StoreError::RetainedConflict`] if what is kept was changed.
    pub async fn undelete(&self, record: &ClusterRecord, kept: Version) -> Result<Version> {
        if self.files.is_some() {
            return self.commit(record, None).await;
        }
        let name = record.name();
        let incarnation = record.uuid;
        let writes = [
            versioned(paths::record(name), json(record), None, self.acls()),
            Op::Delete {
                path: paths::retained(incarnation),
                version: Some(kept.0),
            },
        ];
        let versions = self.publish(name, record, &writes).await;
        match versions {
            Ok(versions) => Ok(Version(version_at(&versions, 1))),
            Err(StoreError::ZooKeeper(error)) => Err(retained_conflict_or(error, incarnation)),
            Err(error) => Err(error),
        }
    }

    /// Removes what is stored; what is not there is fine.
    ///
    /// # Errors
    /// [`StoreError::RetainedConflict`] if somebody else has changed it.
    pub async fn remove_retained(&self, incarnation: Uuid, expected: Version) -> Result<()> {
        if let Some(files) = &self.files {
            let (files, path) = (files.clone(), files.retained(&incarnation.to_string()));
            let removed = blocking(move || files.remove(&path, expected.0)).await;
            return removed.map_err(|error| conflict_or(error, incarnation));
        }
        let path = paths::retained(incarnation);
        if self.session.connection()?.stat(&path).await?.is_none() {
            return Ok(());
        }
        let version = Some(expected.0);
        let delete = Op::Delete { path, version };
        self.transact_retained(delete, incarnation).await?;
        Ok(())
    }

    async fn transact_retained(&self, op: Op, incarnation: Uuid) -> Result<Vec<Option<i32>>> {
        let connection = self.session.connection()?;
        let done = connection.transact(&[self.fence.clone(), op]).await;
        done.map_err(|error| match self.deposed_or(error) {
            StoreError::ZooKeeper(error) => retained_conflict_or(error, incarnation),
            deposed => deposed,
        })
    }

    /// Writes what is kept of a cluster whose nodes are removed next. A crash in between leaves both, and the same is found
    /// here when the cluster is removed again. What is found of another record was left by a crash when the cluster was brought back:
    /// it is older than the record that goes now, nothing was destroyed for it, and it is replaced.
    pub(super) async fn begin_retained(&self, retained: &Retained) -> Result<Version> {
        let expected = match self.retained(retained.incarnation()).await? {
            None => None,
            Some(Ok((found, version))) if found.record == retained.record || found.destroying => {
                return Ok(version);
            }
            Some(Ok((_, version))) => Some(version),
            Some(Err(fault)) => return Err(StoreError::Retained(fault)),
        };
        self.set_retained(retained, expected).await
    }
}

fn retained_conflict_or(error: Error, incarnation: Uuid) -> StoreError {
    let is_ours = error.refused_path() == Some(&paths::retained(incarnation));
    match error.refusal() {
        Some(Refusal::BadVersion | Refusal::NoNode | Refusal::NodeExists) if is_ours => {
            StoreError::RetainedConflict(incarnation)
        }
        _ => StoreError::ZooKeeper(error),
    }
}

fn conflict_or(error: LocalError, incarnation: Uuid) -> StoreError {
    match error {
        LocalError::Conflict { .. } => StoreError::RetainedConflict(incarnation),
        other => StoreError::Local(other),
    }
}
