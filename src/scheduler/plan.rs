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
    backups, drain, explain,
    failover::{self, View},
    lossy, members, membership,
    mesos_state::FrameworkStored,
    pause,
    placement::{Launch, Offer},
    pool::Pool,
    publish, rebuild, requests, restart,
    retained::{self, Deed, Keeping},
    rolling,
    schedule::{self, Room},
    slots,
    state::{Cluster, State},
    switchover, verification, voting,
};
use crate::{
    cluster::{id::ClusterName, record::ClusterRecord, retained::Retained},
    rules::Rule,
    time::Timestamp,
};

/// For how long Mesos is not to repeat an offer that nobody could use although somebody wants one.
const REFUSE_UNFIT_SECONDS: f64 = 1.0;

/// The same while only verifications of backups wait for room, which have time. A member that is to be launched meanwhile waits no longer than that.
const REFUSE_UNHURRIED_SECONDS: f64 = 5.0;

/// For how long Mesos is not to repeat an offer while nobody wants one. Offers are suppressed as
/// well; [`Action::Revive`] lifts both.
const REFUSE_UNWANTED_SECONDS: f64 = 600.0;

/// For how long Mesos is not to repeat an offer of which nothing is for this framework: a week. What is in it does not change without becoming another one.
const REFUSE_FOREIGN_SECONDS: f64 = 7.0 * 86_400.0;

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
    let mut room = Room::default();
    for name in due {
        match state.clusters.get(name) {
            Some(cluster) if !being_written.contains(name) => {
                plan_cluster(state, cluster, (&mut pool, &mut room), now, &mut plan);
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
        let need = |agent: &str| state.needs_agent(agent, now);
        plan.actions.extend(state.maintenance.answers(need));
        if !state.mesos.foreign.is_empty() {
            plan.actions.push(Action::Decline {
                offers: state.mesos.foreign.iter().cloned().collect(),
                refuse_seconds: REFUSE_FOREIGN_SECONDS,
            });
        }
        let offers = state.offers_of_past();
        if !offers.is_empty() {
            let refuse_seconds = 0.0;
            plan.actions.push(Action::Decline {
                offers,
                refuse_seconds,
            });
        }
    }
}

/// What concerns one cluster.
fn plan_cluster(
    state: &State,
    cluster: &Cluster,
    (pool, room): (&mut Pool<'_>, &mut Room),
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
        let (record, observed) = (&cluster.record, &cluster.observed);
        let mut tasks = members::unconfirmed(record, observed, now, &mut look);
        tasks.extend(verification::unconfirmed(record, observed, now, &mut look));
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
    look.notes.extend(verification::take_end(&mut next, view));
    if next.deleting {
        plan_deletion(state, cluster, &next, now, &mut look, plan);
    } else if !pause::holds(&next) || !state.policy.rules.holds(Rule::PausedIsLeftAlone) {
        if state.mesos.connected {
            plan.actions
                .extend(lossy::kill_missing(&cluster.record, view, &mut look));
            plan.actions
                .extend(membership::kill_leaving(&cluster.record, view, &mut look));
            plan.actions
                .extend(restart::kill_released(&cluster.record, view, &mut look));
        }
        decide(&mut next, view, &state.keeping, &mut look);
        let (policy, clusters) = (&state.policy, &state.clusters);
        schedule::begin_due(&mut next, policy, clusters, room, now, &mut look);
    }
    if !next.deleting && state.mesos.connected {
        plan.actions
            .extend(verification::kill_overdue(&cluster.record, view, &mut look));
    }
    if !next.deleting {
        look.membership.maintenance = drain::told(&next, view);
    }
    let launches = place(state, &mut next, (pool, room), now, &mut look);
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
    let is_elected = next.elected().is_some();
    look.awaited = failover::advance(next, view);
    if next.epoch != before {
        look.notes.push(explain::beginning(next));
    }
    explain::note(next, view);
    switchover::conclude(next, view.now);
    membership::advance(next, view, keeping, look);
    rolling::note_version(next, view);
    rolling::advance(next, view, look);
    restart::advance(next, view, look);
    voting::advance(next, view, is_elected, look);
    publish::advance(next, view);
    rebuild::advance(next, view.observed, &mut look.notes);
    backups::advance(next, view, look);
    verification::advance(next, view);
    members::forgive_serving(next);
    look.offer = lossy::offer(next, view);
    look.membership
        .told
        .extend(rebuild::sentences(next, view.observed));
    look.membership.told.extend(restart::sentences(next, view));
    look.membership.told.extend(rolling::sentence(next, view));
    if let Some(at) = look.awaited.until {
        look.wake_by(at);
    }
}

/// Kills what runs; when nothing does any more, or only on agents that have been away for as long as a living cluster waits for one,
/// removes the cluster. The order matters: discovery goes last, because its disappearance tells clients that the cluster has ended.
fn plan_deletion(
    state: &State,
    cluster: &Cluster,
    next: &ClusterRecord,
    now: Timestamp,
    look: &mut Look,
    plan: &mut Plan,
) {
    let view = state.view(cluster, now);
    look.membership.away = membership::away(next, view);
    if members::may_still_run(next, view, &look.membership.away) {
        let dues = look.membership.away.values().map(|absence| absence.due);
        if let Some(due) = dues.filter(|due| *due > now).min() {
            look.wake_by(due);
        }
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

/// Places members without a task, and what verifies a backup, with what clusters before this one have left of the offers.
fn place(
    state: &State,
    next: &mut ClusterRecord,
    (pool, room): (&mut Pool<'_>, &mut Room),
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
    let mut launches = members::place_missing(next, pool, &state.policy, now, look);
    launches.extend(verification::place(state, next, (pool, room), now, look));
    launches
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
    let urgent = soon || state.wants_offers() || state.keeping.wants_offers(now);
    let verified_soon = plan.actions.iter().any(|action| match action {
        Action::Persist { record, .. } => verification::wants_offers(record),
        _ => false,
    });
    let wanted = urgent || verified_soon || state.wants_to_verify();
    if !pool.is_empty() {
        let refuse_seconds = match (urgent, wanted) {
            (true, _) => REFUSE_UNFIT_SECONDS,
            (false, true) => REFUSE_UNHURRIED_SECONDS,
            (false, false) => REFUSE_UNWANTED_SECONDS,
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
