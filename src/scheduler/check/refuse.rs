//! What is left of a plan that breaks rules.

use super::Violation;
use crate::{
    cluster::id::ClusterName,
    scheduler::{
        action::{Action, Plan},
        retained::Deed,
        state::State,
    },
};

/// Takes out of a plan whatever concerns a cluster for which it asks something that must never be asked. Standing still loses no data.
pub fn refuse(state: &State, plan: &mut Plan, violations: &[Violation]) {
    if violations.is_empty() {
        return;
    }
    let refused = |name: &ClusterName| violations.iter().any(|v| v.cluster == *name);
    plan.actions.retain_mut(|action| match action {
        Action::Persist { record, .. } => !refused(record.name()),
        Action::Remove { cluster, .. } => !refused(cluster),
        Action::Undelete(undeletion) => !refused(undeletion.record.name()),
        Action::Keep(Deed::Release { offer, .. }) => {
            !offer.slots.iter().any(|slot| refused(&slot.owner.cluster))
        }
        Action::Keep(Deed::Store { retained, .. }) => !retained.name().is_some_and(refused),
        Action::Keep(Deed::Forget { .. } | Deed::Acknowledge { .. }) => true,
        Action::Launch(launches) => {
            launches.retain(|it| !it.task.task_id.cluster().is_some_and(|name| refused(&name)));
            !launches.is_empty()
        }
        Action::Kill { task_id, .. } => !task_id.cluster().is_some_and(|name| refused(&name)),
        Action::AcceptInverse { offers } => {
            offers.retain(|id| !is_on_a_refused_ones_agent(state, id, violations));
            !offers.is_empty()
        }
        Action::StoreFramework { .. }
        | Action::Decline { .. }
        | Action::Suppress
        | Action::Revive
        | Action::Reconcile { .. }
        | Action::ReconcileAll
        | Action::DeclineInverse { .. }
        | Action::Reply(..) => true,
    });
}

/// Whether an inverse offer asks for an agent on which one of these clusters has a member.
fn is_on_a_refused_ones_agent(state: &State, offer: &str, violations: &[Violation]) -> bool {
    let Some(agent) = state.maintenance.asked_for(offer) else {
        return false;
    };
    let clusters = violations
        .iter()
        .filter_map(|v| state.clusters.get(&v.cluster));
    let mut members = clusters.flat_map(|it| it.record.members.values());
    members.any(|member| member.is_on(agent))
}
