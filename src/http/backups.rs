//! Backups: ask for one, list those that the store has, and find the one that a cluster is made from.

use axum::{
    Json,
    extract::{Path, Request, State, rejection::PathRejection},
};
use serde::{Deserialize, Serialize};

use super::{
    clusters::{known_name, name_in},
    errors::ApiError,
    forms::Form,
    port::{ApiRequest, BackupAccess, SchedulerPort, Views},
};
use crate::{
    backup::{
        manifest::Manifest,
        store::{Listed, StoreError},
    },
    cluster::{
        backup::{BackupId, Restore, RestoreFrom},
        flavour::Flavour,
        id::ClusterName,
        size::Size,
        spec::{ClusterSpec, Fault},
    },
    executor::chain,
    time::Timestamp,
};

/// The form fields of a backup.
const BACKUP_FIELDS: &[&str] = &["password"];

const NO_STORE: &str = "no backup store is configured, so there are no backups; see --backup-store of cotton scheduler";

const NOTHING_TO_RESTORE: &str = "backup_id was given, but no backup store is configured, so there is nothing \
     to restore from; leave backup_id out to create an empty cluster";

/// The answer to the request for a backup.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BackupAnswer {
    /// Where clients find master and slaves.
    pub cluster_url: String,
    /// The id that the backup has when it is complete.
    pub id: BackupId,
    /// Counts the cluster's backups. What came of it is in `last_backup` of `GET /clusters/<name>`, under the same number.
    pub number: u64,
}

/// The answer to `GET /clusters/<name>/backups`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BackupsAnswer {
    /// The backups in the store, oldest first.
    pub backups: Vec<StoredBackup>,
}

/// A backup in the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredBackup {
    /// Its id, which `backup_id` takes.
    pub id: BackupId,
    /// What describes it, unless that is damaged.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub about: Option<About>,
    /// Why it cannot be used, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What describes a backup.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct About {
    /// MySQL or MariaDB.
    pub flavour: Flavour,
    /// The version of the server.
    pub version: String,
    /// The transactions that it holds at the least, as GTIDs.
    pub position: String,
    /// When it was begun, in milliseconds since 1970.
    pub begun_at: Timestamp,
    /// When its data was stored.
    pub ended_at: Timestamp,
    /// The size of the server's data, in bytes.
    pub data_bytes: u64,
    /// What it takes in the store, in bytes.
    pub stored_bytes: u64,
    /// Which key it is encrypted with, if with any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
}

/// `POST /clusters/<name>/backups`
pub(super) async fn make(
    State(port): State<SchedulerPort>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<BackupAnswer>, ApiError> {
    let name = known_name(name_in(path)?)?;
    let mut form = Form::read(request).await?;
    let password = form.take_secret("password");
    let faults = form.into_faults(BACKUP_FIELDS);
    if !faults.is_empty() {
        return Err(ApiError::Invalid(faults));
    }
    let store = Box::new(access(&port)?.settings.clone());
    let backing_up = port
        .ask(|reply| ApiRequest::Backup {
            name,
            password,
            store,
            reply,
        })
        .await?;
    Ok(Json(BackupAnswer {
        cluster_url: backing_up.cluster_url,
        id: backing_up.backup.id,
        number: backing_up.backup.number,
    }))
}

/// `GET /clusters/<name>/backups`: of a cluster that was deleted, too.
pub(super) async fn list(
    State(port): State<SchedulerPort>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<BackupsAnswer>, ApiError> {
    let name = known_name(name_in(path)?)?;
    let is_known = port.clusters()?.clusters.contains_key(&name);
    let found = access(&port)?.store.list(&name).await;
    let found = found.map_err(|error| ApiError::Store(chain(&error)))?;
    if found.is_empty() && !is_known {
        return Err(ApiError::UnknownCluster(name.to_string()));
    }
    let backups = found.into_iter().map(stored).collect();
    Ok(Json(BackupsAnswer { backups }))
}

fn access(port: &SchedulerPort) -> Result<&BackupAccess, ApiError> {
    port.backups
        .as_deref()
        .ok_or_else(|| ApiError::NotPossible(NO_STORE.to_owned()))
}

fn stored(listed: Listed) -> StoredBackup {
    let (about, problem) = match listed.manifest {
        Ok(manifest) => (Some(about(&manifest)), None),
        Err(error) => (None, Some(chain(&error))),
    };
    StoredBackup {
        id: listed.id,
        about,
        problem,
    }
}

fn about(manifest: &Manifest) -> About {
    About {
        flavour: manifest.flavour,
        version: manifest.version.to_string(),
        position: manifest.position.to_string(),
        begun_at: manifest.begun_at,
        ended_at: manifest.ended_at,
        data_bytes: manifest.data_bytes,
        stored_bytes: manifest.stored_bytes(),
        key_id: manifest.key_id.clone(),
    }
}

/// What is wrong with any `backup_id` where there is no store.
pub(super) fn without_store(port: &SchedulerPort, asked: Option<&String>) -> Option<Fault> {
    let nothing = asked.is_some() && port.backups.is_none();
    nothing.then(|| Fault::new("backup_id", NOTHING_TO_RESTORE))
}

/// Finds the backup that a cluster is to be made from, and looks whether it can be. Its data is read by the members.
///
/// # Errors
/// What is wrong with `backup_id`, if the store answers.
pub(super) async fn restore(
    port: &SchedulerPort,
    asked: Option<String>,
    spec: &ClusterSpec,
) -> Result<Option<Box<Restore>>, ApiError> {
    // Without a store it was refused before, with all other faults.
    let (Some(asked), Some(access)) = (asked, port.backups.as_deref()) else {
        return Ok(None);
    };
    let fault = |sentence: String| ApiError::Invalid(vec![Fault::new("backup_id", sentence)]);
    let views = port.clusters()?;
    let (id, manifest) = match access.store.find(&asked).await {
        Ok(found) => found,
        Err(error @ StoreError::Operation { .. }) => return Err(ApiError::Store(chain(&error))),
        Err(error) => return Err(fault(chain(&error))),
    };
    if let Err(error) = access.store.seal_of(&manifest) {
        return Err(fault(chain(&error)));
    }
    if let Some(sentence) = too_large(&manifest, &id, &spec.size) {
        return Err(ApiError::Invalid(vec![Fault::new("size", sentence)]));
    }
    let from = RestoreFrom {
        id,
        store: access.settings.clone(),
        flavour: manifest.flavour,
        version: manifest.version,
    };
    if let Some(sentence) = other_flavour(&views, &spec.name, &from) {
        return Err(fault(sentence));
    }
    Ok(Some(Box::new(Restore {
        asked,
        from,
        done: false,
    })))
}

fn too_large(manifest: &Manifest, id: &BackupId, size: &Size) -> Option<String> {
    let mib = manifest.data_bytes.div_ceil(1 << 20);
    (mib >= size.disk_mib()).then(|| {
        format!(
            "the backup {id} holds {mib} MiB, and the disk of size has {}; ask for a larger one",
            size.disk_mib()
        )
    })
}

/// Which servers the agents have is known from clusters that run. Where there is none, the members find it out.
fn other_flavour(views: &Views, name: &ClusterName, from: &RestoreFrom) -> Option<String> {
    let mut known = views.clusters.values().filter(|view| view.name != *name);
    let first = known.find_map(|view| view.flavour)?;
    let any_fits = views
        .clusters
        .values()
        .any(|view| view.flavour == Some(from.flavour));
    (!any_fits).then(|| {
        format!(
            "the backup {} is of {} {}, and the servers here are {first}: a backup is restored by the same flavour",
            from.id, from.flavour, from.version
        )
    })
}
