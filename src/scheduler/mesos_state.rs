//! What the scheduler knows of Mesos itself.

use std::collections::BTreeSet;

use super::reconcile::Reconciliation;
use crate::time::Timestamp;

/// What is known of Mesos.
#[derive(Debug)]
pub struct MesosState {
    /// The framework id, once known.
    pub framework_id: Option<String>,
    /// Whether the framework id is stored.
    pub stored: FrameworkStored,
    /// Whether the master has taken the framework in and the connection stands.
    pub connected: bool,
    /// Since when.
    pub connected_since: Timestamp,
    /// What the master must be asked about tasks.
    pub reconciliation: Reconciliation,
    /// Whether offers are suppressed.
    pub suppressed: bool,
    /// Offers of which nothing is for this framework.
    pub foreign: BTreeSet<String>,
}

/// How far the storing of the framework id is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FrameworkStored {
    /// It is not stored.
    #[default]
    No,
    /// It is being stored.
    Underway,
    /// It is stored.
    Yes,
}
