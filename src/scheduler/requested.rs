//! What all clusters together ask for, kept up to date as they come, change and go: no figure is ever summed
//! over all of them again.

use crate::{cluster::view::ClusterView, http::metrics::Metrics};

/// The sums over all clusters. Whole numbers, so that nothing is lost in a thousand additions and subtractions.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Requested {
    clusters: u64,
    cpu_millis: u64,
    mem_mib: u64,
    disk_mib: u64,
}

impl Requested {
    /// A cluster that asked for what `before` shows asks for what `after` shows.
    pub fn exchange(&mut self, before: Option<&ClusterView>, after: Option<&ClusterView>) {
        let (before, after) = (Self::of(before), Self::of(after));
        // What is taken away was added before, so nothing gets below zero.
        let exchange = |sum: &mut u64, before, after| *sum = *sum - before + after;
        exchange(&mut self.clusters, before.clusters, after.clusters);
        exchange(&mut self.cpu_millis, before.cpu_millis, after.cpu_millis);
        exchange(&mut self.mem_mib, before.mem_mib, after.mem_mib);
        exchange(&mut self.disk_mib, before.disk_mib, after.disk_mib);
    }

    /// Sets the gauges.
    pub fn tell(&self, metrics: &Metrics) {
        metrics.cluster_count.set(self.clusters as i64);
        let cpus = self.cpu_millis as f64 / 1000.0;
        metrics.total_requested_cpus.set(cpus);
        metrics.total_requested_mem_mb.set(self.mem_mib as i64);
        metrics.total_requested_disk_mb.set(self.disk_mib as i64);
    }

    fn of(cluster: Option<&ClusterView>) -> Self {
        let Some(cluster) = cluster else {
            return Self::default();
        };
        let nodes = u64::from(cluster.num_nodes);
        Self {
            clusters: 1,
            cpu_millis: u64::from(cluster.size.cpu_millis()) * nodes,
            mem_mib: cluster.size.mem_mib() * nodes,
            disk_mib: cluster.size.disk_mib() * nodes,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use crate::cluster::{size::Size, view::ClusterState, voters::Durability};

    fn view(num_nodes: u32, size: &str) -> ClusterView {
        ClusterView {
            name: "a".parse().unwrap(),
            user: "u".to_owned(),
            num_nodes,
            size: Size::parse(size).unwrap(),
            flavour: None,
            version: None,
            durability: Durability::Async,
            state: ClusterState::Running,
            reason: String::new(),
            cluster_url: String::new(),
            epoch: 1,
            standing: Default::default(),
            members: Vec::new(),
        }
    }

    #[test]
    fn clusters_come_change_and_go() {
        let size = r#"{"cpus": 0.1, "mem": "1gb", "disk": "3gb"}"#;
        let (three, five) = (view(3, size), view(5, size));
        let mut requested = Requested::default();
        for _ in 0..1000 {
            requested.exchange(None, Some(&three));
        }
        requested.exchange(Some(&three), Some(&five));
        let metrics = Metrics::register(Default::default());
        requested.tell(&metrics);
        assert_eq!(metrics.cluster_count.get(), 1000);
        assert_eq!(metrics.total_requested_cpus.get(), 300.2);
        assert_eq!(metrics.total_requested_mem_mb.get(), 3002 * 1024);
        assert_eq!(metrics.total_requested_disk_mb.get(), 3 * 3002 * 1024);
        for _ in 0..999 {
            requested.exchange(Some(&three), None);
        }
        requested.exchange(Some(&five), None);
        assert_eq!(requested, Requested::default());
    }
}
