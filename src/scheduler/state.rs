//! Everything the scheduler knows, and how a fact changes it.
//!
//! [`State::apply`] folds a fact in; it never fails and never decides. [`State::begin`] notes that
//! a plan is being carried out, so that planning again yields nothing new while it is.
//!
//! Cost follows change: a fact marks the clusters that it touches, and only those are planned.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use uuid::Uuid;

use super::{
    action::{Action, Plan, Reply},
    agenda::Agenda,
    event::{Event, RequestToken, StoredCluster, Version},
    explain,
    failover::{Awaited, View},
    fitness::Unfit,
    maintenance::Maintenance,
    members,
    membership::Outlook,
    mesos_state::{FrameworkStored, MesosState},
    observed::Observed,
    orphans,
    placement::{Launch, Offer, SpreadBy},
    reconcile::Reconciliation,
    requests::Request,
    retained::{self, Deed, Keeping},
    schedule::BackupPolicy,
    undelete::Undeletion,
    unknown::UnknownTasks,
    verification,
};
use crate::{
    cluster::{
        backup::ArchiveOrder,
        configuration::Package,
        data_loss,
        id::{ClusterName, TaskId},
        record::ClusterRecord,
        retained::Retained,
        timings::Timings,
    },
    rules::Rules,
    secret::Secret,
    time::Timestamp,
};

/// The settings that decisions depend on.
#[derive(Debug, Clone)]
pub struct Policy {
    /// How long an election in an `async` cluster waits for voters that do not answer.
    pub election_timeout: Duration,
    /// The ZooKeeper session timeout of the executors.
    pub session_timeout: Duration,
    /// How long a member waits for an agent of its own before it shares one; `None`: for ever.
    pub spread_patience: Option<Duration>,
    /// What members are spread by, beside agents.
    pub spread_by: SpreadBy,
    /// Whether members get slots. Those that have one keep it.
    pub volumes: bool,
    /// How long the data of a deleted cluster is kept.
    pub keep_deleted: Duration,
    /// How long a voter may be out of its place before it leaves the voters.
    pub voter_patience: Duration,
    /// How long an agent may be away before its member is replaced, where the cluster says nothing else.
    pub replace_after: Duration,
    /// How far a voter may be behind in applying what it receives before it is out of its place.
    pub voter_lag: Duration,
    /// How soon executors notice, and how long they wait.
    pub timings: Timings,
    /// How many failovers within the window make a cluster wait before the next one.
    pub failover_limit: u32,
    /// See there.
    pub failover_window: Duration,
    /// Whether masters archive their binlogs, and where.
    pub archive: Option<ArchiveOrder>,
    /// The packages that clusters can choose.
    pub packages: Vec<Package>,
    /// The rules, all of which hold.
    pub rules: Rules,
    /// What holds for backups, if there is a store for them.
    pub backups: Option<BackupPolicy>,
    /// A number from 0 to 1, drawn for this scheduler: what several of them do now and then is not done in step.
    pub chance: f64,
}

/// Everything the scheduler knows.
#[derive(Debug)]
pub struct State {
    /// The settings.
    pub policy: Policy,
    /// What is known of Mesos.
    pub mesos: MesosState,
    /// Tasks that no record explains.
    pub unknown: UnknownTasks,
    /// Agents that are to be taken away.
    pub maintenance: Maintenance,
    /// Offers that can be used.
    pub offers: BTreeMap<String, Offer>,
    /// Offers that are used, until Mesos is told.
    pub accepting: BTreeMap<String, Accepting>,
    /// The clusters.
    pub clusters: BTreeMap<ClusterName, Cluster>,
    /// Their names by incarnation: what slots are labelled with stays when a cluster comes back under another name.
    incarnations: BTreeMap<Uuid, ClusterName>,
    /// What is kept of deleted ones.
    pub keeping: Keeping,
    /// Names whose records exist but cannot be read. They are left alone until a person has looked.
    pub unusable: BTreeSet<ClusterName>,
    /// Requests to decide.
    pub requests: Vec<Request>,
    /// Answers whose records are stored.
    pub answers: Vec<(RequestToken, Reply)>,
    /// Since when the executors are heard without a gap; in the far future while they are not.
    pub listening_since: Timestamp,
    /// The offers that tasks were launched with of which Mesos has said nothing yet.
    pub(super) launched: BTreeMap<TaskId, String>,
    /// Clusters to plan.
    pub(super) touched: BTreeSet<ClusterName>,
    /// When clusters are to be planned although nothing happens.
    due: Agenda,
    /// Clusters with a member to place, in the order in which they were asked for.
    pub(super) unplaced: Agenda,
    /// Clusters with a backup to verify, in the same order.
    pub(super) unverified: Agenda,
}

/// One cluster.
#[derive(Debug)]
pub struct Cluster {
    /// The record, as stored.
    pub record: ClusterRecord,
    /// Its version in the store; `None` while it is being stored for the first time.
    pub version: Option<Version>,
    /// The cluster user's password.
    pub password: Secret,
    /// The write that is under way, if any. Until it is done nothing else happens.
    pub pending: Option<Pending>,
    /// What is known of its members.
    pub observed: Observed,
    /// What is awaited, as the newest look found it.
    pub awaited: Awaited,
    /// When the newest stage of the newest failover was stored, if this scheduler stored it.
    pub stage_stored: Option<Timestamp>,
    /// Which voters are out of their place, as the newest look found it.
    pub unfit: Unfit,
    /// The way out that an operator has, if the newest look found that the cluster cannot go on by itself.
    pub offer: Option<data_loss::Offer>,
    /// What the newest look found of members that come and go.
    pub membership: Outlook,
}

/// The use of an offer: one message to Mesos, whoever it launches.
#[derive(Debug, Default)]
pub struct Accepting {
    /// How many clusters launch with it whose records are not stored yet.
    pub unstored: usize,
    /// The launches whose records are stored.
    pub launches: Vec<Launch>,
}

/// A write that is under way.
#[derive(Debug)]
pub enum Pending {
    /// The record is being replaced.
    Persist {
        /// The record.
        record: Box<ClusterRecord>,
        /// To be launched afterwards.
        launches: Vec<Launch>,
        /// To be answered afterwards.
        replies: Vec<(RequestToken, Reply)>,
    },
    /// Everything of the cluster is being removed, but for what is kept.
    Remove(Option<Box<Retained>>),
}

impl State {
    /// The state of a scheduler that has just loaded what is stored.
    pub fn new(
        policy: Policy,
        framework_id: Option<String>,
        stored: Vec<StoredCluster>,
        unusable: BTreeSet<ClusterName>,
    ) -> Self {
        let mesos = MesosState {
            stored: if framework_id.is_some() {
                FrameworkStored::Yes
            } else {
                FrameworkStored::No
            },
            framework_id,
            connected: false,
            connected_since: Timestamp::FAR_FUTURE,
            reconciliation: Reconciliation::new(policy.chance),
            suppressed: false,
            foreign: BTreeSet::new(),
        };
        let clusters: BTreeMap<_, _> = stored
            .into_iter()
            .map(|s| {
                (
                    s.record.name().clone(),
                    Cluster::new(s.record, Some(s.version), s.password),
                )
            })
            .collect();
        let mut state = Self {
            policy,
            mesos,
            unknown: UnknownTasks::default(),
            maintenance: Maintenance::default(),
            offers: BTreeMap::new(),
            accepting: BTreeMap::new(),
            requests: Vec::new(),
            answers: Vec::new(),
            unusable,
            listening_since: Timestamp::FAR_FUTURE,
            launched: BTreeMap::new(),
            touched: clusters.keys().cloned().collect(),
            incarnations: clusters
                .iter()
                .map(|(name, cluster)| (cluster.record.uuid, name.clone()))
                .collect(),
            due: Agenda::default(),
            unplaced: Agenda::default(),
            unverified: Agenda::default(),
            clusters,
            keeping: Keeping::default(),
        };
        for name in state.touched.clone() {
            state.index(&name);
        }
        state
    }

    /// Folds a fact in.
    pub fn apply(&mut self, event: Event, now: Timestamp) {
        match event {
            Event::Subscribed { framework_id } => self.subscribed(framework_id, now),
            Event::MesosLost => {
                self.mesos.connected = false;
                self.mesos.reconciliation.lost();
                self.maintenance.lost();
                // The offers of a lost connection are void.
                self.offers.clear();
                self.mesos.foreign.clear();
            }
            Event::FrameworkStored => self.mesos.stored = FrameworkStored::Yes,
            Event::Offers(offers) => {
                orphans::note(self, &offers, now);
                self.note_replaced_agents(&offers);
                self.take_absence_for_gone(&offers, now);
                self.offers
                    .extend(offers.into_iter().map(|offer| (offer.id.clone(), offer)));
                self.touch_unplaced();
            }
            Event::Foreign(offers) => self.mesos.foreign.extend(offers),
            Event::Rescinded(offer) => {
                self.offers.remove(&offer);
                self.mesos.foreign.remove(&offer);
            }
            Event::Inverse(offer) => {
                self.touch_agent(&offer.agent_id);
                self.maintenance.asked(offer, now);
            }
            Event::InverseWithdrawn(id) => {
                if let Some(agent) = self.maintenance.withdrawn(&id) {
                    self.touch_agent(&agent);
                }
            }
            Event::Task(update) => self.task_updated(update, now),
            Event::Create(request) => self.requests.push(Request::Create(request)),
            Event::Delete {
                token,
                name,
                password,
            } => {
                self.requests.push(Request::Delete {
                    token,
                    name,
                    password,
                });
            }
            Event::Ask(ask) => self.requests.push(Request::Ask(ask)),
            Event::Undelete(undelete) => self.requests.push(Request::Undelete(undelete)),
            Event::Reclaim(reclaim) => self.requests.push(Request::Reclaim(reclaim)),
            Event::Reported { cluster, report } => self.reported(cluster, *report, now),
            Event::ReportGone { cluster, task_id } => self.report_gone(cluster, &task_id, now),
            Event::ControlLost => self.listening_since = Timestamp::FAR_FUTURE,
            Event::ControlRestored => {
                self.listening_since = now;
                self.touched.extend(self.clusters.keys().cloned());
            }
            Event::Stored { cluster, version } => self.stored(cluster, version, now),
            Event::RetainedStored {
                incarnation,
                version,
            } => {
                let replies = self.keeping.stored(incarnation, version, now);
                self.answers.extend(replies);
            }
            Event::RetainedForgotten { incarnation } => {
                self.keeping.forgotten(incarnation);
                // A deletion may wait for it.
                self.touched
                    .extend(self.incarnations.get(&incarnation).cloned());
            }
            Event::Operation(update) => {
                self.touched.extend(retained::named_in(self, &update.slot));
                self.keeping.operation(update);
            }
            Event::Removed { cluster, retained } => {
                if let Some(removed) = self.clusters.remove(&cluster) {
                    self.incarnations.remove(&removed.record.uuid);
                    if let Some(Pending::Remove(Some(kept))) = removed.pending
                        && let Some(version) = retained
                    {
                        self.keeping.removed(*kept, version, removed.password);
                    }
                }
                self.keeping.forget_left(&cluster);
                self.due.set(&cluster, None);
                self.index(&cluster);
                // So that it disappears from what is shown.
                self.touched.insert(cluster);
            }
        }
    }

    fn subscribed(&mut self, framework_id: String, now: Timestamp) {
        if self.mesos.framework_id.as_ref() != Some(&framework_id) {
            self.mesos.stored = FrameworkStored::No;
            self.mesos.framework_id = Some(framework_id);
        }
        self.keeping.subscribed(now);
        for cluster in self.clusters.values() {
            self.keeping.note_left(&cluster.record, now);
        }
        self.mesos.connected = true;
        self.mesos.connected_since = now;
        let tasks = self.known_tasks();
        self.mesos.reconciliation.subscribed(tasks, now);
        // A master starts out sending offers to whoever subscribes.
        self.mesos.suppressed = false;
        self.offers.clear();
        self.mesos.foreign.clear();
        self.launched.clear();
        self.maintenance.lost();
    }

    fn stored(&mut self, name: ClusterName, version: Version, now: Timestamp) {
        let Some(cluster) = self.clusters.get_mut(&name) else {
            return;
        };
        if let Some(Pending::Persist {
            record,
            launches,
            replies,
        }) = cluster.pending.take()
        {
            if explain::stage(&record) != explain::stage(&cluster.record) {
                cluster.stage_stored = Some(now);
            }
            self.keeping.note_left(&record, now);
            cluster.record = *record;
            cluster.version = Some(version);
            self.answers.extend(replies);
            cluster.forget_past_tasks();
            let incarnation = cluster.record.uuid;
            self.keeping.record_stored(incarnation);
            self.launches_stored(launches);
        }
        self.index(&name);
        self.touched.insert(name);
    }

    /// Notes that a plan is being carried out, and takes out of the state what it has used.
    pub fn begin(&mut self, plan: &Plan, now: Timestamp) {
        for look in &plan.looks {
            self.due.set(&look.cluster, look.again_at);
            if let Some(cluster) = self.clusters.get_mut(&look.cluster) {
                cluster.awaited = look.awaited.clone();
                cluster.unfit.clone_from(&look.unfit);
                cluster.offer.clone_from(&look.offer);
                cluster.membership.clone_from(&look.membership);
            }
        }
        self.keeping.again_at = plan.keep_again_at;
        if self.mesos.connected {
            self.mesos.reconciliation.asked(now);
        }
        for action in &plan.actions {
            match action {
                Action::StoreFramework { .. } => self.mesos.stored = FrameworkStored::Underway,
                Action::Persist {
                    record,
                    launches,
                    replies,
                    password,
                    ..
                } => {
                    self.begin_persist(record, launches, replies, password.as_ref());
                }
                Action::Remove {
                    cluster, retained, ..
                } => {
                    if let Some(cluster) = self.clusters.get_mut(cluster) {
                        cluster.pending = Some(Pending::Remove(retained.clone()));
                    }
                }
                Action::Undelete(undeletion) => {
                    let Undeletion {
                        record,
                        password,
                        replies,
                        kept: _,
                    } = &**undeletion;
                    self.keeping.begin_undelete(record.uuid);
                    self.begin_persist(record, &[], replies, Some(password));
                }
                Action::Launch(launches) => self.begin_launch(launches),
                Action::Decline { offers, .. } => {
                    for offer in offers {
                        self.offers.remove(offer);
                        self.mesos.foreign.remove(offer);
                    }
                    self.launched.retain(|_, offer| !offers.contains(offer));
                    self.keeping.declined(offers);
                }
                Action::Keep(deed) => {
                    match deed {
                        Deed::Release { offer, .. } => drop(self.offers.remove(&offer.id)),
                        Deed::Store { replies, .. } => self.decided(replies),
                        Deed::Forget { .. } | Deed::Acknowledge { .. } => {}
                    }
                    self.keeping.begin(deed, now);
                }
                Action::Suppress => self.mesos.suppressed = true,
                Action::Revive => self.mesos.suppressed = false,
                Action::Kill { task_id, .. } => {
                    if !self.keeping.kill_asked(task_id, now) {
                        self.note_task(task_id, |task| task.kill_asked = Some(now));
                    }
                }
                Action::ReconcileAll => {}
                Action::AcceptInverse { offers } | Action::DeclineInverse { offers } => {
                    self.maintenance.answered(offers);
                }
                Action::Reconcile { tasks } => {
                    for (task_id, _) in tasks {
                        self.note_task(task_id, |task| task.asked = Some(now));
                    }
                }
                Action::Reply(token, _) => self.answered(*token),
            }
        }
    }

    fn begin_persist(
        &mut self,
        record: &ClusterRecord,
        launches: &[Launch],
        replies: &[(RequestToken, Reply)],
        password: Option<&Secret>,
    ) {
        self.launches_begun(launches);
        self.decided(replies);
        if let Some(password) = password {
            let cluster = Cluster::new(record.clone(), None, password.clone());
            self.clusters.insert(record.name().clone(), cluster);
            self.incarnations.insert(record.uuid, record.name().clone());
        }
        if let Some(cluster) = self.clusters.get_mut(record.name()) {
            cluster.pending = Some(Pending::Persist {
                record: Box::new(record.clone()),
                launches: launches.to_vec(),
                replies: replies.to_vec(),
            });
        }
    }

    /// These requests are answered when what they ask for is stored.
    fn decided(&mut self, replies: &[(RequestToken, Reply)]) {
        self.requests
            .retain(|request| replies.iter().all(|(token, _)| *token != request.token()));
    }

    fn answered(&mut self, token: RequestToken) {
        self.requests.retain(|request| request.token() != token);
        self.answers.retain(|(answered, _)| *answered != token);
    }

    /// The clusters to plan now, in the order in which they, or what they still lack, were asked for. They are taken out.
    pub fn take_due(&mut self, now: Timestamp) -> Vec<ClusterName> {
        self.touched.extend(self.due.take_due(now));
        for agent in self.maintenance.forget_past(now) {
            self.touch_agent(&agent);
        }
        let mut names: Vec<ClusterName> = std::mem::take(&mut self.touched).into_iter().collect();
        names.sort_by_cached_key(|name| {
            let cluster = self.clusters.get(name);
            cluster.map(|cluster| members::asked_for_at(&cluster.record))
        });
        names
    }

    /// The living cluster of this incarnation.
    pub fn of_incarnation(&self, incarnation: Uuid) -> Option<&Cluster> {
        self.clusters.get(self.incarnations.get(&incarnation)?)
    }

    /// What decisions about a cluster look at.
    pub fn view<'a>(&'a self, cluster: &'a Cluster, now: Timestamp) -> View<'a> {
        View {
            observed: &cluster.observed,
            policy: &self.policy,
            listening_since: self.listening_since,
            connected_since: self.mesos.connected.then_some(self.mesos.connected_since),
            unfit: &cluster.unfit,
            away: &cluster.membership.away,
            maintenance: &self.maintenance,
            now,
        }
    }

    /// When the next look is due.
    pub fn next_due(&self) -> Option<Timestamp> {
        let asking = Some(self.mesos.reconciliation.due());
        let asking = asking.filter(|_| self.mesos.connected);
        [
            self.due.first(),
            asking,
            self.maintenance.due(),
            self.keeping.again_at,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether any cluster has a member to place.
    pub fn wants_offers(&self) -> bool {
        !self.unplaced.is_empty()
    }

    fn touch_unplaced(&mut self) {
        let waiting = self.unplaced.names().chain(self.unverified.names());
        self.touched.extend(waiting.cloned());
    }

    /// Keeps [`State::unplaced`] and [`State::unverified`] true for one cluster.
    pub(super) fn index(&mut self, name: &ClusterName) {
        let unplaced = self.clusters.get(name).filter(|c| c.wants_offers());
        let asked_for = unplaced.map(|cluster| members::asked_for_at(&cluster.record));
        self.unplaced.set(name, asked_for);
        let cluster = self.clusters.get(name);
        let unverified = cluster.filter(|it| verification::wants_offers(&it.record));
        let asked_for = unverified.map(|cluster| cluster.record.created_at);
        self.unverified.set(name, asked_for);
    }
}

impl Cluster {
    fn new(record: ClusterRecord, version: Option<Version>, password: Secret) -> Self {
        Self {
            record,
            version,
            password,
            pending: None,
            observed: Observed::default(),
            awaited: Awaited::default(),
            stage_stored: None,
            unfit: Unfit::new(),
            offer: None,
            membership: Outlook::default(),
        }
    }

    fn wants_offers(&self) -> bool {
        members::wants_offers(&self.record) || self.observed.missed_with_slot(&self.record)
    }
}
