//! Removing backups whose time is over, and archived binlogs that none of the rest needs: look into the store, decide, remove, one cluster after the other.
//!
//! All clusters have their turn now and then, and each when a backup of it is complete. What is removed is decided by
//! [`retention`]. A scheduler that ends in between leaves the rest to the next turn; one that was deposed
//! a moment ago removes nothing that its successor would keep, but by a rule that was changed in this moment.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tracing::{info, warn};
use uuid::Uuid;

use crate::{
    backup::{
        manifest::Manifest,
        removal::Survey,
        retention::{self, Fate, Living, Rule},
        store::{Pruning, StoreError},
    },
    cluster::{backup::BackupId, id::ClusterName, view::ClusterView},
    executor::chain,
    http::port::{BackupAccess, Views},
    time::Timestamp,
};

/// How long after its beginning a term looks at all clusters for the first time: what it has loaded is in sight then.
const FIRST: Duration = Duration::from_secs(300);

/// How often all clusters are looked at. Each look reads the manifests of all backups.
const EVERY: Duration = Duration::from_secs(6 * 3600);

/// How many files of an archive are removed in one turn at the most; the rest goes with the next ones. A cluster that writes without a pause archives 4,320 segments
/// of two files each in the time between two turns.
const MOST_FILES: usize = 20_000;

/// How many clusters may wait for their turn. One that finds no place has it with all others.
pub const MOST_WAITING: usize = 1024;

/// Who removes backups.
pub struct Sweeper {
    /// The store.
    pub access: Arc<BackupAccess>,
    /// Where the clusters are seen.
    pub views: watch::Receiver<Views>,
    /// Clusters that are there though they are not seen: their records cannot be read.
    pub unusable: BTreeSet<ClusterName>,
    /// How long backups of former clusters are kept; for ever if nothing is said.
    pub keep_deleted: Option<Duration>,
}

impl Sweeper {
    /// Removes what is to go, until `completed` has no senders any more: there come the clusters of which a backup is complete.
    pub async fn run(self, mut completed: mpsc::Receiver<ClusterName>) {
        let mut next = Instant::now() + FIRST;
        loop {
            tokio::select! {
                name = completed.recv() => match name {
                    Some(name) => self.tell(&name, self.sweep(&name).await),
                    None => return,
                },
                () = sleep_until(next) => {
                    self.sweep_all().await;
                    next = Instant::now() + EVERY;
                }
            }
        }
    }

    /// Removes what is to go of all clusters.
    pub async fn sweep_all(&self) {
        let store = &self.access.store;
        let names = async {
            let mut names: BTreeSet<ClusterName> = store.clusters().await?.into_iter().collect();
            names.extend(store.archived_clusters().await?);
            Ok::<_, StoreError>(names)
        };
        let names = match names.await {
            Ok(names) => names,
            Err(error) => {
                return warn!(error = %chain(&error), "look for backups whose time is over");
            }
        };
        for name in names {
            self.tell(&name, self.sweep(&name).await);
        }
    }

    fn tell(&self, cluster: &ClusterName, swept: Result<(), StoreError>) {
        if let Err(error) = swept {
            warn!(%cluster, error = %chain(&error), "remove backups whose time is over");
        }
    }

    /// Removes what is to go of a cluster.
    ///
    /// # Errors
    /// When the store does not answer. What is left has its turn later.
    pub async fn sweep(&self, cluster: &ClusterName) -> Result<(), StoreError> {
        let store = &self.access.store;
        let mut survey = store.survey(cluster).await?;
        // What is in use is looked for after what is there, so that what was begun in between is known.
        let Some(Known {
            living,
            elsewhere,
            in_use,
        }) = self.known(cluster)
        else {
            return Ok(());
        };
        let mut rule = Rule {
            cluster,
            living,
            elsewhere,
            // A record that cannot be read may be that of a cluster which has another name now.
            keep_deleted: self.keep_deleted.filter(|_| self.unusable.is_empty()),
            in_use: &in_use,
        };
        for id in retention::to_go(&survey, &rule, Timestamp::now()) {
            // A cluster may have been asked for from it since.
            if self::in_use(&self.views.borrow()).contains(&id) {
                continue;
            }
            store.remove(&id).await?;
            survey.complete.retain(|listed| listed.id != id);
            survey.unfinished.retain(|unfinished| *unfinished != id);
            info!(%cluster, %id, "backup removed: its time is over");
        }
        let archives = store.archives(cluster).await?;
        // What cannot be read may be the record of a cluster that is being made from one of them.
        if archives.is_empty() || !self.unusable.is_empty() {
            return Ok(());
        }
        let Some(known) = self.known(cluster) else {
            return Ok(());
        };
        (rule.living, rule.elsewhere) = (known.living, known.elsewhere);
        rule.in_use = &known.in_use;
        let restoring = self.restoring().await;
        for incarnation in archives {
            self.prune(&survey, &restoring, incarnation, &rule).await?;
        }
        Ok(())
    }

    /// What there is to know before anything of a name is removed; `None` if it is not known.
    fn known(&self, cluster: &ClusterName) -> Option<Known> {
        let views = self.views.borrow().clone();
        if !views.loaded || self.unusable.contains(cluster) {
            return None;
        }
        let view = views.clusters.get(cluster);
        let standing = view.and_then(|view| view.standing.backups.as_ref());
        let living = standing.map(|standing| Living {
            incarnation: standing.incarnation,
            keep: standing.keep,
            has_backup: standing.last_complete.is_some(),
            unverified: (standing.verification.iter())
                .flat_map(|it| it.unverified.iter().cloned())
                .collect(),
        });
        let is_known = view.is_none() || living.is_some();
        is_known.then(|| Known {
            living,
            elsewhere: elsewhere(&views, cluster),
            in_use: self::in_use(&views),
        })
    }

    /// What describes the backups that clusters are being made from: they may lie elsewhere than those of their cluster.
    async fn restoring(&self) -> Vec<Result<Manifest, StoreError>> {
        let ids = restoring(&self.views.borrow());
        let mut manifests = Vec::new();
        for id in ids {
            manifests.push(self.access.store.manifest(&id).await);
        }
        manifests
    }

    /// Removes what nobody needs of an archive.
    async fn prune(
        &self,
        survey: &Survey,
        restoring: &[Result<Manifest, StoreError>],
        incarnation: Uuid,
        rule: &Rule<'_>,
    ) -> Result<(), StoreError> {
        let (cluster, now) = (rule.cluster, Timestamp::now());
        let (bases, before, keeps_last) =
            match retention::archive_fate(survey, restoring, incarnation, rule, now) {
                Fate::Stay => return Ok(()),
                Fate::Doubt(why) => {
                    warn!(%cluster, %incarnation, why, "archived binlogs are all kept");
                    return Ok(());
                }
                Fate::Prune { bases, before } => (bases, before, true),
                Fate::Remove { before } => (Vec::new(), before, false),
            };
        let pruning = Pruning {
            bases: &bases,
            before,
            keeps_last,
            most: MOST_FILES,
        };
        // The decision stands while the cluster is the same one, or still none, and nothing is restored that was not looked at. Without a backup that is known, one that
        // is begun meanwhile decides.
        let incarnation_of = |living: &Option<Living>| living.as_ref().map(|it| it.incarnation);
        let stands = || {
            let Some(known) = self.known(cluster) else {
                return false;
            };
            let restoring = self::restoring(&self.views.borrow());
            incarnation_of(&known.living) == incarnation_of(&rule.living)
                && known.elsewhere.is_subset(&rule.elsewhere)
                && restoring.is_subset(rule.in_use)
                && (!bases.is_empty() || known.in_use == *rule.in_use)
        };
        let store = &self.access.store;
        let files = store.prune(cluster, incarnation, &pruning, stands).await?;
        if files > 0 {
            info!(%cluster, %incarnation, files, "archived binlogs removed: no backup needs them");
        }
        Ok(())
    }
}

/// What is known before anything of a name is removed.
struct Known {
    /// The cluster of that name, if there is one.
    living: Option<Living>,
    /// The incarnations of all others.
    elsewhere: BTreeSet<Uuid>,
    /// What is in use.
    in_use: BTreeSet<BackupId>,
}

/// The incarnations of clusters that have other names than this one.
fn elsewhere(views: &Views, than: &ClusterName) -> BTreeSet<Uuid> {
    let others = views.clusters.values().filter(|view| view.name != *than);
    others
        .filter_map(|view| Some(view.standing.backups.as_ref()?.incarnation))
        .collect()
}

/// The backups that are being made or verified, and those that clusters or members are being made from.
pub fn in_use(views: &Views) -> BTreeSet<BackupId> {
    let of = |view: &Arc<ClusterView>| {
        let standing = &view.standing;
        let made = standing.backup.as_ref().map(|backup| backup.id.clone());
        let backups = standing.backups.as_ref();
        let verification = backups.and_then(|backups| backups.verification.as_ref());
        let verified = verification.and_then(|it| it.under_way.clone());
        let one = [made, standing.restoring.clone(), verified];
        let members = standing.members_from.iter().cloned();
        one.into_iter().flatten().chain(members).collect::<Vec<_>>()
    };
    views.clusters.values().flat_map(of).collect()
}

/// The backups that clusters are being made from.
fn restoring(views: &Views) -> BTreeSet<BackupId> {
    let of = |view: &Arc<ClusterView>| view.standing.restoring.clone();
    views.clusters.values().filter_map(of).collect()
}
