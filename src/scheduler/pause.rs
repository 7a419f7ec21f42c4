//! Clusters whose automation is paused: an operator works on them and wants nobody to interfere.
//!
//! Nothing is decided for such a cluster: no election begins or ends, nobody is placed, voters and discovery stay, whatever
//! was asked for waits. What is known of it goes on being noted, because that is no decision: that a task has ended (whose member
//! leaves discovery with it), that a slot is used. Requests to Mesos that follow from what is stored are repeated, such as kills of
//! tasks that members had before: two servers of one member must not run; or of a task that verifies a backup and takes longer than it may. What executors do by themselves goes on too:
//! they fence, and start a server that has ended again, closed.
//!
//! A deletion goes before a pause.

use super::{action::Refusal, failover::View};
use crate::cluster::{change::Changed, record::ClusterRecord};

/// Whether nothing is to be decided.
pub fn holds(record: &ClusterRecord) -> bool {
    record.paused_since.is_some() && !record.deleting
}

/// Pauses a cluster, or takes the pause back. Gives what differs from before, nothing if it was so already.
pub fn set(next: &mut ClusterRecord, paused: bool, view: View<'_>) -> Vec<Changed> {
    let was = next.paused_since.is_some();
    if was == paused {
        return Vec::new();
    }
    next.paused_since = paused.then_some(view.now);
    vec![Changed {
        field: "paused".to_owned(),
        from: was.to_string(),
        to: paused.to_string(),
    }]
}

/// Why nothing else can be asked of a paused cluster.
pub fn refusal(record: &ClusterRecord) -> Option<Refusal> {
    let since = record.paused_since?;
    Some(Refusal::NotPossible(format!(
        "the automation of this cluster is paused since {since}, so what is asked for would not be carried out; resume it first (cotton admin resume {})",
        record.name()
    )))
}
