//! What is kept of deleted clusters, one node or file for each.
//!
//! It is made by [`Store::remove`] in the transaction that removes the cluster, so that its slots are never without a
//! record that explains them.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use uuid::Uuid;

use super::{
    document::{json, parse, to_value},
    local::{LocalError, LocalFiles},
    operations::{Op, Refusal},
    paths,
    store::{Result, Store, StoreError, Unusable, Version, blocking, version_at},
};
use crate::cluster::retained::{self, Retained};

/// How many are read at a time.
const LOADS_IN_FLIGHT: usize = 64;

/// What was found, or why it cannot be used.
type Found = std::result::Result<(Retained, Version), Unusable>;

impl Store {
    /// All of them. One that cannot be used does not stand in the way of the others.
    ///
    /// # Errors
    /// When ZooKeeper or the file system does not answer.
    pub async fn load_retained(&self) -> Result<Vec<Found>> {
        let names = match &self.files {
            Some(files) => {
                let files = files.clone();
                blocking(move || files.retained_names()).await?
            }
            None => {
                let connection = self.session.connection()?;
                let names = connection.children(paths::RETAINED).await?;
                names.unwrap_or_default()
            }
        };
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
        let location = self.location(&node, |files| files.retained(name));
        let unusable = |fault: String| Unusable {
            name: name.to_owned(),
            location,
            fault,
        };
        let (document, version) = match &self.files {
            Some(files) => {
                let (files, path) = (files.clone(), files.retained(name));
                match blocking(move || files.read(&path)).await {
                    Ok(Some((document, version))) => (Ok(document), version),
                    Ok(None) => return Ok(None),
                    Err(LocalError::Damaged { fault, .. }) => {
                        return Ok(Some(Err(unusable(fault))));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            None => match self.session.connection()?.get(&node).await? {
                Some((data, stat)) => (
                    serde_json::from_slice(&data).map_err(|error| error.to_string()),
                    stat.version,
                ),
                None => return Ok(None),
            },
        };
        let parsed = document.and_then(|value| parse::<Retained>(value, retained::FORMAT));
        Ok(Some(match parsed {
            Ok(retained) if retained.incarnation().to_string() == name => {
                Ok((retained, Version(version)))
            }
            Ok(retained) => Err(unusable(format!(
                "it is of the incarnation {}",
                retained.incarnation()
            ))),
            Err(fault) => Err(unusable(fault)),
        }))
    }

    /// Replaces what is stored, if it still has the `expected` version.
    ///
    /// # Errors
    /// [`StoreError::RetainedConflict`] if somebody else has changed it.
    pub async fn set_retained(&self, retained: &Retained, expected: Version) -> Result<Version> {
        let incarnation = retained.incarnation();
        if let Some(files) = &self.files {
            let (files, document) = (files.clone(), to_value(retained));
            let path = files.retained(&incarnation.to_string());
            let written = blocking(move || files.write(&path, &document, Some(expected.0))).await;
            return written
                .map(Version)
                .map_err(|error| conflict_or(error, incarnation));
        }
        let set = Op::Set {
            path: paths::retained(incarnation),
            data: json(retained),
            version: Some(expected.0),
        };
        let versions = self.transact_retained(set, incarnation).await?;
        Ok(Version(version_at(&versions, 1)))
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
        done.map_err(|error| {
            let is_ours = error.refused_path() == Some(&paths::retained(incarnation));
            match error.refusal() {
                Some(Refusal::BadVersion | Refusal::NoNode) if is_ours => {
                    StoreError::RetainedConflict(incarnation)
                }
                _ => self.deposed_or(error),
            }
        })
    }

    /// Writes what is kept of a cluster whose nodes are removed next. A crash in between leaves both, and the same is found
    /// here when the cluster is removed again.
    pub(super) async fn begin_retained(
        &self,
        files: &std::sync::Arc<LocalFiles>,
        retained: &Retained,
    ) -> Result<Version> {
        let incarnation = retained.incarnation();
        if let Some(found) = self.retained(incarnation).await? {
            return found
                .map(|(_, version)| version)
                .map_err(StoreError::Retained);
        }
        let (files, document) = (files.clone(), to_value(retained));
        let path = files.retained(&incarnation.to_string());
        let written = blocking(move || files.write(&path, &document, None)).await?;
        Ok(Version(written))
    }
}

fn conflict_or(error: LocalError, incarnation: Uuid) -> StoreError {
    match error {
        LocalError::Conflict { .. } => StoreError::RetainedConflict(incarnation),
        other => StoreError::Local(other),
    }
}
