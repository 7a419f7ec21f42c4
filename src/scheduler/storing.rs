//! Writing to the store, whatever it takes: each write is repeated until it is known to be done, or that it must not be.
//!
//! An uncertain answer is never taken for a yes or a no: what is stored is read first.

use std::{sync::Arc, time::Duration};

use tracing::{info, warn};
use uuid::Uuid;

use super::{
    event::{Event, Version},
    execute::{Ending, Input},
};
use crate::{
    cluster::{id::ClusterName, record::ClusterRecord, retained::Retained},
    zookeeper::store::{Store, StoreError},
};

/// How long to wait before the store is asked again after it failed. ZooKeeper elects a new leader
/// within seconds; asking a few times a second finds it soon and is no load.
pub(super) const STORE_RETRY: Duration = Duration::from_millis(250);

/// Stores a record, whatever it takes. An uncertain answer is never taken for a yes or a no: the
/// record is read again.
pub(super) async fn persist(
    store: Arc<Store>,
    record: ClusterRecord,
    expected: Option<Version>,
) -> Input {
    let cluster = record.name().clone();
    loop {
        let error = match store.commit(&record, expected).await {
            Ok(version) => return Input::Event(Event::Stored { cluster, version }),
            Err(error @ StoreError::Deposed) => return deposed(error),
            Err(error) => error,
        };
        warn!(%cluster, error = %chain(&error), "store the record");
        let conflict = matches!(error, StoreError::Conflict(_));
        if conflict || error.may_have_happened() {
            match store.load(&cluster).await {
                Ok(Some(Ok(loaded))) if loaded.record == record && loaded.is_published => {
                    let version = loaded.version;
                    return Input::Event(Event::Stored { cluster, version });
                }
                // Written, but not published: that is what a commit on top of it mends.
                Ok(Some(Ok(loaded))) if loaded.record == record => {
                    return Box::pin(persist(store, record, Some(loaded.version))).await;
                }
                Ok(found) if conflict => {
                    let found = found.and_then(Result::ok).map(|loaded| loaded.version);
                    return fatal(format!(
                        "the record of {cluster} was changed by another scheduler (expected version {expected:?}, found {found:?}); this scheduler ends"
                    ));
                }
                Ok(_) | Err(_) => {}
            }
        }
        tokio::time::sleep(STORE_RETRY).await;
    }
}

/// Stores the record of a cluster that comes back, whatever it takes. An uncertain answer is read, as in [`persist`]; what was kept
/// of the cluster has gone with it, or is forgotten next.
pub(super) async fn undelete(store: Arc<Store>, record: ClusterRecord, kept: Version) -> Input {
    let cluster = record.name().clone();
    loop {
        let error = match store.undelete(&record, kept).await {
            Ok(version) => {
                info!(%cluster, incarnation = %record.uuid, "the deleted cluster is back");
                return Input::Event(Event::Stored { cluster, version });
            }
            Err(error @ StoreError::Deposed) => return deposed(error),
            Err(error) => error,
        };
        warn!(%cluster, error = %chain(&error), "bring the deleted cluster back");
        let conflict = matches!(
            error,
            StoreError::Conflict(_) | StoreError::RetainedConflict(_)
        );
        if conflict || error.may_have_happened() {
            match store.load(&cluster).await {
                // Where it is not published yet, a commit on top of it mends that.
                Ok(Some(Ok(loaded))) if loaded.record == record => {
                    return persist(store, record, Some(loaded.version)).await;
                }
                Ok(_) if conflict => {
                    return fatal(format!(
                        "the cluster {cluster} could not be brought back because another scheduler has changed what is stored of it; this scheduler ends"
                    ));
                }
                Ok(_) | Err(_) => {}
            }
        }
        tokio::time::sleep(STORE_RETRY).await;
    }
}

/// Removes a cluster, whatever it takes.
pub(super) async fn remove(
    store: Arc<Store>,
    cluster: ClusterName,
    expected: Version,
    retained: Option<Box<Retained>>,
) -> Input {
    loop {
        match store.remove(&cluster, expected, retained.as_deref()).await {
            Ok(retained) => {
                info!(%cluster, "cluster removed");
                return Input::Event(Event::Removed { cluster, retained });
            }
            Err(error @ StoreError::Deposed) => return deposed(error),
            Err(error @ StoreError::Conflict(_)) => return fatal(error.to_string()),
            Err(error) => warn!(%cluster, error = %chain(&error), "remove the cluster"),
        }
        tokio::time::sleep(STORE_RETRY).await;
    }
}

/// Stores what is kept of a deleted cluster, whatever it takes.
pub(super) async fn store_retained(
    store: Arc<Store>,
    retained: Box<Retained>,
    expected: Option<Version>,
) -> Input {
    let incarnation = retained.incarnation();
    loop {
        let error = match store.set_retained(&retained, expected).await {
            Ok(version) => {
                return Input::Event(Event::RetainedStored {
                    incarnation,
                    version,
                });
            }
            Err(error @ StoreError::Deposed) => return deposed(error),
            Err(error) => error,
        };
        warn!(%incarnation, error = %chain(&error), "store what is kept of a deleted cluster");
        // An uncertain answer, or another version: it may stand there already.
        match store.retained(incarnation).await {
            Ok(Some(Ok((stored, version)))) if stored == *retained => {
                return Input::Event(Event::RetainedStored {
                    incarnation,
                    version,
                });
            }
            Ok(Some(Ok((_, version)))) if Some(version) != expected => {
                return fatal(format!(
                    "what is kept of the deleted cluster {incarnation} was changed by another scheduler; this scheduler ends"
                ));
            }
            Ok(_) | Err(_) => tokio::time::sleep(STORE_RETRY).await,
        }
    }
}

/// Forgets a deleted cluster, whatever it takes.
pub(super) async fn forget_retained(
    store: Arc<Store>,
    incarnation: Uuid,
    expected: Version,
) -> Input {
    loop {
        match store.remove_retained(incarnation, expected).await {
            Ok(()) => {
                info!(%incarnation, "nothing is kept of the deleted cluster any more");
                return Input::Event(Event::RetainedForgotten { incarnation });
            }
            Err(error @ StoreError::Deposed) => return deposed(error),
            Err(error @ StoreError::RetainedConflict(_)) => return fatal(error.to_string()),
            Err(error) => {
                warn!(%incarnation, error = %chain(&error), "forget a deleted cluster");
            }
        }
        tokio::time::sleep(STORE_RETRY).await;
    }
}

pub(super) fn deposed(error: StoreError) -> Input {
    Input::End(Ending::TermOver(error.to_string()))
}

pub(super) fn fatal(sentence: String) -> Input {
    Input::End(Ending::Fatal(sentence))
}

/// An error with its causes, as one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
