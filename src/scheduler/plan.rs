//! From what is known to what must be done.
//!
//! [`plan`] is a function of the state: it waits for nothing and performs nothing. A cluster whose
//! record would change gets that change stored and nothing else; what follows from the record is
//! done once it is stored. So the question "what if the scheduler dies between these two" has one
//! answer, here: whatever was not stored was not done, and whatever was stored is done by the
//! successor.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{
    action::{Action, Look, Plan},
    backups, explain,
    failover::{self, View},
    lossy, members, membership, pause,
    placement::{Launch, Offer},
    pool::Pool,
    publish, rebuild, requests,
    retained::{self, Deed, Keeping},
    slots,
    state::{Cluster, FrameworkStored, State},
    switchover, voting,
};
use crate::{
    cluster::{id::ClusterName, record::ClusterRecord, retained::Retained},
    time::Timestamp,
};

/// For how long Mesos is not to repeat an offer that nobody could use although somebody wants one.
const REFUSE_UNFIT_SECONDS: f64 = 1.0;

/// For how long Mesos is not to repeat an offer while nobody wants one. Offers are suppressed as
/// well; [`Action::Revive`] lifts both.
const REFUSE_UNWANTED_SECONDS: f64 = 600.0;

/// Plans what must be done now for `due`, the clusters that something has happened to.
pub fn plan(state: &State, due: &[ClusterName], now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    plan_framework(state, now, &mut plan);
    plan.actions.extend(
        state
            .answers
            .iter()
            .map(|(token, reply)| Action::Reply(*token, reply.clone())),
    );
    let decided = requests::decide(state, now);
    let being_written: Vec<ClusterName> = decided.iter().filter_map(written_cluster).collect();
    let kept_written: Vec<Uuid> = decided.iter().filter_map(written_kept).collect();
    plan.actions.extend(decided);
    plan_launches(state, &mut plan);
    let mut pool = Pool::of(&state.offers);
    for name in due {
        match state.clusters.get(name) {
            Some(cluster) if !being_written.contains(name) => {
                plan_cluster(state, cluster, &mut pool, now, &mut plan);
            }
            _ => {}
        }
    }
    let mut untouched = pool.into_untouched();
    let (actions, again_at) = retained::plan(state, &kept_written, &mut untouched, now);
    plan.actions.extend(actions);
    plan.keep_again_at = again_at;
    plan_offers(state, &untouched, now, &mut plan);
    plan
}

/// Launches tasks whose records are stored. An offer can be accepted once: one that pays for members of several clusters
/// waits for the records of all of them.
fn plan_launches(state: &State, plan: &mut Plan) {
    if state.mesos.connected {
        let stored = state.accepting.values().filter(|it| it.unstored == 0);
        plan.actions
            .extend(stored.map(|it| Action::Launch(it.launches.clone())));
    }
}

fn written_cluster(action: &Action) -> Option<ClusterName> {
    match action {
        Action::Persist { record, .. } => Some(record.name().clone()),
        Action::Undelete(undeletion) => Some(undeletion.record.name().clone()),
        _ => None,
    }
}

/// The incarnation of the deleted cluster about which something is stored.
fn written_kept(action: &Action) -> Option<Uuid> {
    match action {
        Action::Undelete(undeletion) => Some(undeletion.record.uuid),
        Action::Keep(Deed::Store { retained, .. }) => Some(retained.incarnation()),
        _ => None,
    }
}

/// What concerns the framework as a whole.
fn plan_framework(state: &State, now: Timestamp, plan: &mut Plan) {
    let Some(framework_id) = &state.mesos.framework_id else {
        return;
    };
    if state.mesos.stored == FrameworkStored::No {
        plan.actions.push(Action::StoreFramework {
            framework_id: framework_id.clone(),
        });
    }
    if state.mesos.connected {
        plan.actions
            .extend(state.mesos.reconciliation.questions(now));
        let in_use = |agent: &str| state.uses_agent(agent);
        plan.actions.extend(state.maintenance.answers(in_use));
    }
}

/// What concerns one cluster.
fn plan_cluster(
    state: &State,
    cluster: &Cluster,
    pool: &mut Pool<'_>,
    now: Timestamp,
    plan: &mut Plan,
) {
    let mut look = Look::at(cluster.record.name().clone());
    if cluster.pending.is_some() {
        look.awaited = cluster.awaited.clone();
        look.unfit.clone_from(&cluster.unfit);
        look.offer.clone_from(&cluster.offer);
        look.membership.clone_from(&cluster.membership);
        plan.looks.push(look);
        return;
    }
    if state.mesos.connected {
        let tasks = members::unconfirmed(&cluster.record, &cluster.observed, now, &mut look);
        let offers = state.unanswered(&tasks);
        if !offers.is_empty() {
            plan.actions.push(Action::Decline {
                offers,
                refuse_seconds: 0.0,
            });
        }
        if !tasks.is_empty() {
            plan.actions.push(Action::Reconcile { tasks });
        }
        plan.actions.extend(members::kill_former(
            &cluster.record,
            &cluster.observed,
            now,
            &mut look,
        ));
    }
    let mut next = cluster.record.clone();
    let view = state.view(cluster, now);
    slots::note_used(&mut next, &cluster.observed, state.policy.rules);
    retained::forget_gone(&mut next, &state.keeping);
    look.notes = members::forget_ended(&mut next, view);
    if next.deleting {
        plan_deletion(state, cluster, &next, now, &mut look, plan);
    } else if !pause::holds(&next) {
        if state.mesos.connected {
            plan.actions
                .extend(lossy::kill_missing(&cluster.record, view, &mut look));
            plan.actions
                .extend(membership::kill_leaving(&cluster.record, view, &mut look));
        }
        decide(&mut next, view, &state.keeping, &mut look);
    }
    let launches = place(state, &mut next, pool, now, &mut look);
    if next != cluster.record {
        explain::note_stored(cluster, &mut next);
        plan.actions.push(Action::Persist {
            record: Box::new(next),
            expected: cluster.version,
            password: None,
            launches,
            replies: Vec::new(),
        });
    }
    plan.looks.push(look);
}

/// The policy of a living cluster on one screen. Each step changes the record or leaves it.
fn decide(next: &mut ClusterRecord, view: View<'_>, keeping: &Keeping, look: &mut Look) {
    let before = next.epoch;
    look.awaited = failover::advance(next, view);
    if next.epoch != before {
        look.notes.push(explain::beginning(next));
    }
    explain::note(next, view);
    switchover::conclude(next, view.now);
    membership::advance(next, view, keeping, look);
    voting::advance(next, view, look);
    publish::advance(next, view);
    rebuild::advance(next, view.observed);
    backups::advance(next, view, look);
    members::forgive_serving(next);
    look.offer = lossy::offer(next, view);
    if let Some(at) = look.awaited.until {
        look.wake_by(at);
    }
}

/// Kills what runs; when nothing does any more, removes the cluster. The order matters: discovery
/// goes last, because its disappearance tells clients that the cluster has ended.
fn plan_deletion(
    state: &State,
    cluster: &Cluster,
    next: &ClusterRecord,
    now: Timestamp,
    look: &mut Look,
    plan: &mut Plan,
) {
    let former = members::former(next, &cluster.observed).next().is_some();
    if former || next.members.values().any(|member| member.task.is_some()) {
        plan.actions
            .extend(members::kill_all(next, &cluster.observed, now, look));
        return;
    }
    // The cluster has come back a moment ago: what was kept of it then goes first, or it would be taken for what is kept of it now.
    if state.keeping.is_being_written(next.uuid) {
        return;
    }
    // Only a record that already says so is removed: the ends of the tasks are stored first.
    if let (Some(expected), true) = (cluster.version, *next == cluster.record) {
        plan.actions.push(Action::Remove {
            cluster: next.name().clone(),
            expected,
            retained: Retained::of(next, now, state.policy.keep_deleted).map(Box::new),
        });
    }
}

/// Places members without a task, with what clusters before this one have left of the offers.
fn place(
    state: &State,
    next: &mut ClusterRecord,
    pool: &mut Pool<'_>,
    now: Timestamp,
    look: &mut Look,
) -> Vec<Launch> {
    if next.deleting || pause::holds(next) || !state.mesos.connected {
        return Vec::new();
    }
    // A record that is older than the world must not come to the numbers of tasks that run: they would then be taken
    // for former ones, and killed.
    if state.unknown.outdates(next.name()).is_some() {
        return Vec::new();
    }
    members::place_missing(next, pool, &state.policy, now, look)
}

/// Gives back what nobody can use, and asks for more when somebody wants it.
fn plan_offers(state: &State, pool: &BTreeMap<&str, &Offer>, now: Timestamp, plan: &mut Plan) {
    if !state.mesos.connected {
        return;
    }
    // What is being stored may want some as soon as it is.
    let soon = plan.actions.iter().any(|action| match action {
        Action::Persist { record, .. } => members::wants_offers(record),
        Action::Undelete(undeletion) => members::wants_offers(&undeletion.record),
        _ => false,
    });
    let wanted = soon || state.wants_offers() || state.keeping.wants_offers(now);
    if !pool.is_empty() {
        let refuse_seconds = if wanted {
            REFUSE_UNFIT_SECONDS
        } else {
            REFUSE_UNWANTED_SECONDS
        };
        let offers = pool.keys().map(|id| (*id).to_owned()).collect();
        plan.actions.push(Action::Decline {
            offers,
            refuse_seconds,
        });
    }
    if wanted == state.mesos.suppressed {
        plan.actions.push(if wanted {
            Action::Revive
        } else {
            Action::Suppress
        });
    }
}
