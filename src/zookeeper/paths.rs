//! Where everything is, below the path of the `zk://` URL.
//!
//! ```text
//! /leader                                  the scheduler that leads (ephemeral)
//! /fence                                   rewritten by each new leader; its version fences all writes
//! /state/framework                         the framework's id
//! /state/clusters/<cluster>                the record of a cluster
//! /state/retained/<incarnation>            what is kept of a deleted cluster
//! /control/<cluster>/goal                  what its executors are to do
//! /control/<cluster>/members/<task id>     what one of them reports (ephemeral)
//! /discover/<cluster>/master/member_<id>   the master's address
//! /discover/<cluster>/slaves/member_<id>   a slave's address
//! ```

use uuid::Uuid;

use crate::cluster::id::{ClusterName, TaskId};

/// The scheduler that leads.
pub const LEADER: &str = "/leader";
/// The node whose version every write of the scheduler checks.
pub const FENCE: &str = "/fence";
/// The parent of all that the scheduler remembers.
pub const STATE: &str = "/state";
/// The framework's id.
pub const FRAMEWORK: &str = "/state/framework";
/// The parent of the records.
pub const CLUSTERS: &str = "/state/clusters";
/// The parent of what is kept of deleted clusters.
pub const RETAINED: &str = "/state/retained";
/// The parent of goals and reports.
pub const CONTROL: &str = "/control";
/// The parent of service discovery.
pub const DISCOVER: &str = "/discover";

/// The record of a cluster.
pub fn record(cluster: &ClusterName) -> String {
    format!("{CLUSTERS}/{cluster}")
}

/// What is kept of a deleted cluster.
pub fn retained(incarnation: Uuid) -> String {
    format!("{RETAINED}/{incarnation}")
}

/// The parent of a cluster's goal and reports.
pub fn control(cluster: &ClusterName) -> String {
    format!("{CONTROL}/{cluster}")
}

/// The goal of a cluster.
pub fn goal(cluster: &ClusterName) -> String {
    format!("{CONTROL}/{cluster}/goal")
}

/// The parent of a cluster's reports.
pub fn members(cluster: &ClusterName) -> String {
    format!("{CONTROL}/{cluster}/members")
}

/// The report of one task.
pub fn report(cluster: &ClusterName, task: &TaskId) -> String {
    format!("{CONTROL}/{cluster}/members/{task}")
}

/// A cluster in service discovery.
pub fn discover(cluster: &ClusterName) -> String {
    format!("{DISCOVER}/{cluster}")
}

/// The group that holds the master of a cluster.
pub fn master(cluster: &ClusterName) -> String {
    format!("{DISCOVER}/{cluster}/master")
}

/// The group that holds the slaves of a cluster.
pub fn slaves(cluster: &ClusterName) -> String {
    format!("{DISCOVER}/{cluster}/slaves")
}

/// What a path below `/control` is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlPath {
    /// A report.
    Report(ClusterName, TaskId),
    /// `/control` itself, a cluster's node or its `members`: reports may have come or gone below.
    Parent,
    /// A goal, or a node that is not Cotton's.
    Other,
}

impl ControlPath {
    /// Reads a path that a watch on `/control` named.
    pub fn parse(path: &str) -> Self {
        let Some(below) = path.strip_prefix(CONTROL) else {
            return Self::Other;
        };
        let parts: Vec<&str> = below.split('/').skip(1).collect();
        match parts.as_slice() {
            [] | [_] | [_, "members"] => Self::Parent,
            [cluster, "members", task] => match cluster.parse() {
                Ok(cluster) => Self::Report(cluster, TaskId::from_wire(*task)),
                Err(_) => Self::Other,
            },
            _ => Self::Other,
        }
    }
}
