//! Counters and gauges, as a flat JSON object with the original's names (`/vars.json`) and for Prometheus
//! (`/metrics`).
//!
//! Both are one registry: the flat object is rendered from the text for Prometheus, so what is registered by
//! anybody shows in both.

use std::{
    sync::{Mutex, atomic::AtomicU64},
    time::Instant,
};

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use serde_json::{Map, Value};

use super::port::SchedulerPort;
use crate::{cluster::id::ClusterName, time::Timestamp};

/// What the scheduler counts. Handles are cheap to clone.
pub struct Metrics {
    registry: Mutex<Registry>,
    started: Instant,
    uptime: Gauge<f64, AtomicU64>,
    /// How many clusters there are.
    pub cluster_count: Gauge,
    /// The cpus of all members of all clusters.
    pub total_requested_cpus: Gauge<f64, AtomicU64>,
    /// Their memory, in MiB.
    pub total_requested_mem_mb: Gauge,
    /// Their disk space, in MiB.
    pub total_requested_disk_mb: Gauge,
    /// 1 while the framework is registered with a Mesos master, else 0.
    pub framework_registered: Gauge,
    /// 1 while this scheduler leads, 0 while it follows another one.
    pub leading: Gauge,
    /// Tasks that run and that no record explains.
    pub unknown_tasks: Gauge,
    /// Slots that are reserved and that no record explains.
    pub orphaned_slots: Gauge,
    /// Tasks that Mesos lost.
    pub tasks_lost: Counter,
    /// Tasks that ended well.
    pub tasks_finished: Counter,
    /// Tasks that failed.
    pub tasks_failed: Counter,
    /// Tasks that were killed.
    pub tasks_killed: Counter,
    /// Tasks that were launched.
    pub tasks_launched: Counter,
    /// Offers that came.
    pub resource_offers: Counter,
    /// Offers declined because all of it belongs to another role.
    pub offers_incompatible_role: Counter,
    /// Offers declined because nothing needed them.
    pub offers_unused: Counter,
    /// Up to when each cluster could be brought back if it were lost altogether, in seconds since 1970; without those that could not be.
    pub recoverable_until: Family<Vec<(String, String)>, Gauge>,
    /// Backups that were completed.
    pub backups_complete: Counter,
    /// Backups that came to nothing.
    pub backups_failed: Counter,
    /// When the last complete backup of each cluster was asked for, in seconds since 1970.
    pub backup_complete_timestamp_seconds: Family<Vec<(String, String)>, Gauge>,
    /// Backups that were verified and found good.
    pub backups_verified: Counter,
    /// Backups whose verification has failed: they are damaged, or it could not be told.
    pub backup_verifications_failed: Counter,
    /// When a backup of each cluster was last verified and found good, in seconds since 1970.
    pub backup_verified_timestamp_seconds: Family<Vec<(String, String)>, Gauge>,
    /// How long that took, in seconds.
    pub backup_verification_seconds: Family<Vec<(String, String)>, Gauge>,
    /// Failovers that came to an end: discovery names a master again.
    pub failovers: Counter,
    /// For how long discovery named no master in each of them, in seconds.
    pub failover_seconds: Histogram,
}

/// Upper bounds of the classes of [`Metrics::failover_seconds`]: finest where failovers are to be.
const FAILOVER_SECONDS: [f64; 12] = [
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0,
];

impl Metrics {
    /// Registers all of them; others may have registered theirs before.
    pub fn register(mut registry: Registry) -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::default()),
            started: Instant::now(),
            uptime: Gauge::default(),
            cluster_count: Gauge::default(),
            total_requested_cpus: Gauge::default(),
            total_requested_mem_mb: Gauge::default(),
            total_requested_disk_mb: Gauge::default(),
            framework_registered: Gauge::default(),
            leading: Gauge::default(),
            unknown_tasks: Gauge::default(),
            orphaned_slots: Gauge::default(),
            tasks_lost: Counter::default(),
            tasks_finished: Counter::default(),
            tasks_failed: Counter::default(),
            tasks_killed: Counter::default(),
            tasks_launched: Counter::default(),
            resource_offers: Counter::default(),
            offers_incompatible_role: Counter::default(),
            offers_unused: Counter::default(),
            recoverable_until: Family::default(),
            backups_complete: Counter::default(),
            backups_failed: Counter::default(),
            backup_complete_timestamp_seconds: Family::default(),
            backups_verified: Counter::default(),
            backup_verifications_failed: Counter::default(),
            backup_verified_timestamp_seconds: Family::default(),
            backup_verification_seconds: Family::default(),
            failovers: Counter::default(),
            failover_seconds: Histogram::new(FAILOVER_SECONDS),
        };
        metrics.enter_in(registry.sub_registry_with_prefix(PREFIX));
        Self {
            registry: Mutex::new(registry),
            ..metrics
        }
    }

    fn enter_in(&self, to: &mut Registry) {
        to.register(
            "uptime",
            "Seconds since the scheduler started",
            self.uptime.clone(),
        );
        to.register("cluster_count", "Clusters", self.cluster_count.clone());
        let cpus = self.total_requested_cpus.clone();
        to.register("total_requested_cpus", "Cpus of all members", cpus);
        let mem = self.total_requested_mem_mb.clone();
        to.register(
            "total_requested_mem_mb",
            "Memory of all members in MiB",
            mem,
        );
        let disk = self.total_requested_disk_mb.clone();
        to.register(
            "total_requested_disk_mb",
            "Disk space of all members in MiB",
            disk,
        );
        let registered = self.framework_registered.clone();
        to.register(
            "framework_registered",
            "Whether Mesos knows the framework",
            registered,
        );
        let leading = self.leading.clone();
        to.register("leading", "Whether this scheduler leads", leading);
        to.register(
            "unknown_tasks",
            "Tasks that no record explains",
            self.unknown_tasks.clone(),
        );
        to.register(
            "orphaned_slots",
            "Reservations and volumes that no record explains",
            self.orphaned_slots.clone(),
        );
        to.register(
            "tasks_lost",
            "Tasks that Mesos lost",
            self.tasks_lost.clone(),
        );
        to.register(
            "tasks_finished",
            "Tasks that ended well",
            self.tasks_finished.clone(),
        );
        to.register(
            "tasks_failed",
            "Tasks that failed",
            self.tasks_failed.clone(),
        );
        to.register(
            "tasks_killed",
            "Tasks that were killed",
            self.tasks_killed.clone(),
        );
        to.register(
            "tasks_launched",
            "Tasks that were launched",
            self.tasks_launched.clone(),
        );
        to.register(
            "resource_offers",
            "Offers that came",
            self.resource_offers.clone(),
        );
        let incompatible = self.offers_incompatible_role.clone();
        to.register(
            "offers_incompatible_role",
            "Offers for other roles",
            incompatible,
        );
        to.register(
            "offers_unused",
            "Offers that nothing needed",
            self.offers_unused.clone(),
        );
        to.register(
            "recoverable_until_seconds",
            "Up to when a cluster could be brought back from backup and archived binlogs, in seconds since 1970",
            self.recoverable_until.clone(),
        );
        to.register(
            "backups_complete",
            "Backups that were completed",
            self.backups_complete.clone(),
        );
        to.register(
            "backups_failed",
            "Backups that came to nothing",
            self.backups_failed.clone(),
        );
        to.register(
            "backup_complete_timestamp_seconds",
            "When the last complete backup of each cluster was asked for",
            self.backup_complete_timestamp_seconds.clone(),
        );
        to.register(
            "backups_verified",
            "Backups that were verified and found good",
            self.backups_verified.clone(),
        );
        to.register(
            "backup_verifications_failed",
            "Backups whose verification has failed",
            self.backup_verifications_failed.clone(),
        );
        to.register(
            "backup_verified_timestamp_seconds",
            "When a backup of each cluster was last verified and found good",
            self.backup_verified_timestamp_seconds.clone(),
        );
        to.register(
            "backup_verification_seconds",
            "How long it took to restore and to check that backup",
            self.backup_verification_seconds.clone(),
        );
        to.register(
            "failovers",
            "Changes of master that came to an end",
            self.failovers.clone(),
        );
        to.register(
            "failover_seconds",
            "For how long discovery named no master",
            self.failover_seconds.clone(),
        );
    }

    /// Notes up to when a cluster could be brought back; `None`: it could not, or is gone.
    pub fn tell_recoverable(&self, cluster: &ClusterName, until: Option<Timestamp>) {
        let labels = vec![("cluster".to_owned(), cluster.to_string())];
        match until {
            Some(until) => {
                let gauge = self.recoverable_until.get_or_create(&labels);
                gauge.set((until.as_millis() / 1000) as i64);
            }
            None => {
                self.recoverable_until.remove(&labels);
            }
        }
    }

    /// The text for Prometheus (OpenMetrics 1.0).
    pub fn text(&self) -> String {
        self.uptime.set(self.started.elapsed().as_secs_f64());
        let mut text = String::new();
        let registry = self
            .registry
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        // Writing to a String does not fail.
        let _ = encode(&mut text, &registry);
        text
    }

    /// The flat object: `cotton_scheduler_tasks_lost_total 3` becomes `"scheduler.tasks_lost": 3`.
    pub fn vars(&self) -> Map<String, Value> {
        self.text().lines().filter_map(variable).collect()
    }
}

/// What all names begin with in the text for Prometheus.
const PREFIX: &str = "cotton_scheduler";

fn variable(line: &str) -> Option<(String, Value)> {
    if line.starts_with('#') {
        return None;
    }
    let (name, number) = line.rsplit_once(' ')?;
    // The classes of a histogram have labels and no name of their own; its sum and count are there.
    if name.contains('{') {
        return None;
    }
    let name = name.strip_prefix("cotton_")?.replacen('_', ".", 1);
    let name = name.strip_suffix("_total").unwrap_or(&name).to_owned();
    let value = match number.parse::<u64>() {
        Ok(whole) => Value::from(whole),
        Err(_) => Value::from(number.parse::<f64>().ok()?),
    };
    Some((name, value))
}

/// `GET /vars.json`
pub(super) async fn vars(State(port): State<SchedulerPort>) -> Json<Map<String, Value>> {
    Json(port.metrics.vars())
}

/// `GET /metrics`
pub(super) async fn prometheus(State(port): State<SchedulerPort>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], port.metrics.text()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_the_original_and_a_few_more() {
        let metrics = Metrics::register(Registry::default());
        metrics.tasks_lost.inc();
        metrics.total_requested_cpus.set(1.5);
        let vars = metrics.vars();
        let names: Vec<_> = vars.keys().map(String::as_str).collect();
        let mut expected = [
            "scheduler.backups_complete",
            "scheduler.backup_verifications_failed",
            "scheduler.backups_failed",
            "scheduler.backups_verified",
            "scheduler.cluster_count",
            "scheduler.failover_seconds_count",
            "scheduler.failover_seconds_sum",
            "scheduler.failovers",
            "scheduler.framework_registered",
            "scheduler.leading",
            "scheduler.offers_incompatible_role",
            "scheduler.offers_unused",
            "scheduler.orphaned_slots",
            "scheduler.resource_offers",
            "scheduler.tasks_failed",
            "scheduler.tasks_finished",
            "scheduler.tasks_killed",
            "scheduler.tasks_launched",
            "scheduler.tasks_lost",
            "scheduler.total_requested_cpus",
            "scheduler.total_requested_disk_mb",
            "scheduler.total_requested_mem_mb",
            "scheduler.unknown_tasks",
            "scheduler.uptime",
        ];
        expected.sort_unstable();
        assert_eq!(names, expected);
        assert_eq!(vars["scheduler.tasks_lost"], 1);
        assert_eq!(vars["scheduler.total_requested_cpus"], 1.5);
        assert_eq!(vars["scheduler.cluster_count"], 0);
    }
}
