//! Backups: ask for one, list those that the store has, and find the one that a cluster is made from.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Request, State, rejection::PathRejection},
};
use serde::{Deserialize, Serialize};
use tracing::info;
use uuid::Uuid;

use super::{
    clusters::{known_name, name_in},
    errors::ApiError,
    forms::Form,
    port::{ApiRequest, BackupAccess, SchedulerPort, Views},
};
use crate::{
    backup::{
        archive::{self, Base},
        manifest::Manifest,
        store::{Listed, Store, StoreError},
        verified::Verified,
    },
    cluster::{
        backup::{
            BackupId, BackupsLeft, CompleteBackup, InvalidRestorePoint, Replay, Restore,
            RestoreFrom, RestorePoint,
        },
        configuration::Package,
        control::ServerKind,
        flavour::Flavour,
        id::ClusterName,
        size::Size,
        spec::{ClusterSpec, Fault},
        view::ClusterView,
    },
    executor::chain,
    scheduler::sweep,
    time::Timestamp,
};

/// The form fields of a backup, and of its removal.
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

/// The answer to the removal of a backup.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemovedAnswer {
    /// The backup's id.
    pub id: BackupId,
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
    /// What was found when it was verified, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verified>,
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

/// `DELETE /clusters/<name>/backups/<time>`: of a cluster that was deleted by the administrator, as nobody else owns it any more.
pub(super) async fn remove(
    State(port): State<SchedulerPort>,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Result<Json<RemovedAnswer>, ApiError> {
    let Path((name, time)) = path.map_err(|error| ApiError::UnknownPath(error.body_text()))?;
    let name = known_name(name)?;
    let mut form = Form::read(request).await?;
    let password = form.take_secret("password");
    let faults = form.into_faults(BACKUP_FIELDS);
    if !faults.is_empty() {
        return Err(ApiError::Invalid(faults));
    }
    let store = &access(&port)?.store;
    let text = format!("{name}/{time}");
    let unknown = || ApiError::UnknownBackup(text.chars().take(200).collect());
    let id: BackupId = text.parse().map_err(|_| unknown())?;
    // What is deeper in the store is a file of a backup, or none of this cluster's.
    if time.contains('/') {
        return Err(unknown());
    }
    let views = port.clusters()?;
    let manifest = store.manifest(&id).await;
    // A cluster's user has a say about the cluster's own, not about those of a former one of its name.
    let is_own = views.clusters.get(&name).is_some_and(|view| {
        let standing = view.standing.backups.as_ref();
        match &manifest {
            Ok(manifest) => standing.is_some_and(|own| own.incarnation == manifest.uuid),
            Err(error) => matches!(error, StoreError::Unknown(_)),
        }
    });
    let ask = async |left| {
        port.ask(|reply| ApiRequest::DeleteBackup {
            name: name.clone(),
            password: password.clone(),
            id: id.clone(),
            left,
            reply,
        })
        .await
    };
    if is_own {
        ask(None).await?;
    } else {
        match &password {
            None => return Err(ApiError::AdministratorMissing),
            Some(given) if *given != *port.administrator => {
                return Err(ApiError::AdministratorWrong);
            }
            Some(_) => {}
        }
    }
    if sweep::in_use(&views).contains(&id) {
        let sentence = format!(
            "the backup {id} is in use: it is being made or verified, or a cluster is being made from it"
        );
        return Err(ApiError::NotPossible(sentence));
    }
    match manifest {
        // A damaged one is removed like a good one.
        Ok(_) | Err(StoreError::Manifest { .. }) => {}
        Err(StoreError::Unknown(_)) => return Err(unknown()),
        Err(error) => return Err(ApiError::Store(chain(&error))),
    }
    let removed = store.remove(&id).await;
    removed.map_err(|error| ApiError::Store(chain(&error)))?;
    info!(%id, "backup removed: it was asked for");
    if is_own {
        let view = views.clusters.get(&name);
        let own = view.and_then(|view| view.standing.backups.as_ref());
        let left = left(store, &name, own.map(|own| own.incarnation)).await?;
        ask(Some(left)).await?;
    }
    Ok(Json(RemovedAnswer { id }))
}

/// What the store has of a cluster.
async fn left(
    store: &Store,
    cluster: &ClusterName,
    incarnation: Option<Uuid>,
) -> Result<BackupsLeft, ApiError> {
    let as_of = Timestamp::now();
    let listed = store.list(cluster).await;
    let listed = listed.map_err(|error| ApiError::Store(chain(&error)))?;
    let mut newest: Option<CompleteBackup> = None;
    for Listed { id, manifest, .. } in listed {
        let manifest = match manifest {
            Ok(manifest) => manifest,
            // Nothing can be made from it.
            Err(StoreError::Manifest { .. }) => continue,
            Err(error) => return Err(ApiError::Store(chain(&error))),
        };
        let asked_at = id.asked_at().map_or(manifest.begun_at, |(_, at)| at);
        let is_newer = newest.as_ref().is_none_or(|it| it.asked_at < asked_at);
        if Some(manifest.uuid) == incarnation && is_newer {
            newest = Some(CompleteBackup {
                id,
                asked_at,
                url: Some(store.url().to_owned()),
            });
        }
    }
    Ok(BackupsLeft { newest, as_of })
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
        verified: listed.verified.map(|verified| *verified),
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

/// Reads up to where a backup is to be taken.
///
/// # Errors
/// What is wrong with `restore_to`.
pub(super) fn point(
    asked: Option<&String>,
    restore_to: Option<String>,
) -> Result<Option<RestorePoint>, Fault> {
    let Some(text) = restore_to else {
        return Ok(None);
    };
    let fault = |sentence: String| Fault::new("restore_to", sentence);
    if asked.is_none() {
        return Err(fault("restore_to was given without backup_id, which says what is restored: give the name of the cluster whose data it is as backup_id".to_owned()));
    }
    let point = text.parse();
    point
        .map(Some)
        .map_err(|wrong: InvalidRestorePoint| fault(wrong.to_string()))
}

/// Finds the backup to begin with on the way to a point: the one of that id, or of a cluster's the newest that is not after the point.
async fn find(
    store: &Store,
    asked: &str,
    point: Option<&RestorePoint>,
) -> Result<(BackupId, Manifest), StoreError> {
    let (Some(point), Ok(cluster)) = (point, asked.parse::<ClusterName>()) else {
        return store.find(asked).await;
    };
    let mut backups = store.list(&cluster).await?;
    while let Some(listed) = backups.pop() {
        // A bad one is passed over only for the sake of an earlier one, which leads to the same point.
        if listed.may_be_good()
            && let Ok(manifest) = listed.manifest
            && base(&manifest).is_before(point).is_ok()
        {
            return Ok((listed.id, *manifest));
        }
    }
    // Why there is none tells the newest one.
    store.find(asked).await
}

fn base(manifest: &Manifest) -> Base {
    Base {
        position: manifest.position.clone(),
        ended_at: manifest.ended_at,
    }
}

/// Which archived binlogs lead from a backup to a point.
async fn replay(store: &Store, manifest: &Manifest, to: RestorePoint) -> Result<Replay, ApiError> {
    let fault = |sentence: String| ApiError::Invalid(vec![Fault::new("restore_to", sentence)]);
    let base = base(manifest);
    let way = store.way(&manifest.cluster, manifest.uuid, &base, &to);
    let way = match way.await {
        Ok(way) => way,
        Err(error @ StoreError::Operation { .. }) => return Err(ApiError::Store(chain(&error))),
        Err(error) => return Err(fault(chain(&error))),
    };
    let plan = archive::plan(&base, &way.firsts, &way.stretches, &to)
        .map_err(|no_way| fault(format!("the backup {}: {no_way}", manifest.id)))?;
    Ok(Replay {
        to,
        parts: plan.parts,
        data_bytes: plan.data_bytes,
    })
}

/// What is wrong with a schedule or a rule where there is no store.
pub(super) fn rules_without_store(port: &SchedulerPort, fields: [(&str, bool); 2]) -> Vec<Fault> {
    let wrong = fields
        .iter()
        .filter(|(_, given)| *given && port.backups.is_none());
    wrong
        .map(|(field, _)| Fault::new(*field, NO_STORE))
        .collect()
}

/// Finds the backup that a cluster is to be made from, and looks whether it can be. Its data is read by the members.
///
/// # Errors
/// What is wrong with `backup_id`, if the store answers.
pub(super) async fn restore(
    port: &SchedulerPort,
    asked: Option<String>,
    point: Option<RestorePoint>,
    spec: &ClusterSpec,
) -> Result<Option<Box<Restore>>, ApiError> {
    // Without a store it was refused before, with all other faults.
    let (Some(asked), Some(access)) = (asked, port.backups.as_deref()) else {
        return Ok(None);
    };
    let fault = |sentence: String| ApiError::Invalid(vec![Fault::new("backup_id", sentence)]);
    let views = port.clusters()?;
    let (id, manifest) = match find(&access.store, &asked, point.as_ref()).await {
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
    let replay = match point {
        Some(point) => Some(replay(&access.store, &manifest, point).await?),
        None => None,
    };
    let from = RestoreFrom {
        id,
        store: access.settings.clone(),
        flavour: manifest.flavour,
        version: manifest.version,
        replay,
    };
    let misfit = match &spec.package {
        Some(package) => package_refuses(package, &from),
        None => other_flavour(&views, &spec.name, &from),
    };
    if let Some(sentence) = misfit {
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

/// What is in a package is known before any member has it.
fn package_refuses(package: &Package, from: &RestoreFrom) -> Option<String> {
    let ServerKind { flavour, version } = package.server;
    let why = from.refuses(flavour, version)?;
    Some(format!("the package {} does not fit: {why}", package.name))
}

/// Which servers the agents have is known from clusters that run without a package of their own. Where there is none, the members find it out; and
/// they find out the version, which may be another one on each agent.
fn other_flavour(views: &Views, name: &ClusterName, from: &RestoreFrom) -> Option<String> {
    let is_known = |view: &&Arc<ClusterView>| view.name != *name && view.standing.package.is_none();
    let known = views.clusters.values().filter(is_known);
    let mut known = known.filter_map(|view| view.flavour);
    let first = known.next()?;
    let any_fits = first == from.flavour || known.any(|flavour| flavour == from.flavour);
    (!any_fits).then(|| {
        format!(
            "the backup {} is of {} {}, and the servers here are {first}: a backup is restored by the same flavour",
            from.id, from.flavour, from.version
        )
    })
}
