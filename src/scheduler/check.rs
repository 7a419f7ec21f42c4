//! What must never be asked of the world, whatever the plan thought.
//!
//! [`check`] looks at a plan with other eyes than those that made it: it compares records before
//! and after by the invariants alone. A violation is a bug of Cotton. The driver then carries
//! nothing of that plan out for that cluster, and says so loudly: standing still loses no data.

mod drain;
mod members;
mod refuse;
mod slots;
mod undelete;

pub use self::refuse::refuse;

use super::{
    action::{Action, Plan},
    state::State,
};
use crate::cluster::{
    id::ClusterName,
    record::{ClusterRecord, Elected, Mastership},
    voters::{ChangeKind, Durability, VoterChange},
};

/// Something that a plan asks for and that must never be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The cluster.
    pub cluster: ClusterName,
    /// Which rule is broken, as a sentence.
    pub rule: &'static str,
}

/// The violations of a plan.
pub fn check(state: &State, plan: &Plan) -> Vec<Violation> {
    let mut violations = Vec::new();
    for action in &plan.actions {
        match action {
            Action::Persist {
                record,
                expected,
                launches,
                ..
            } => {
                let before = state.clusters.get(record.name());
                let mut rules = match before {
                    Some(before) => broken_by_change(&before.record, record),
                    None => broken_by_birth(record, expected.is_some()),
                };
                if let Some(before) = before {
                    rules.extend(members::broken(&before.record, record));
                }
                rules.extend(slots::broken(before.map(|it| &it.record), record, launches));
                let broken = rules.into_iter().filter(|(_, broken)| *broken);
                violations.extend(broken.map(|(rule, _)| Violation {
                    cluster: record.name().clone(),
                    rule,
                }));
            }
            Action::Undelete(undeletion) => {
                let rules = undelete::broken(state, undeletion).into_iter();
                let broken = rules.filter(|(_, broken)| *broken);
                violations.extend(broken.map(|(rule, _)| Violation {
                    cluster: undeletion.record.name().clone(),
                    rule,
                }));
            }
            Action::Keep(deed) => violations.extend(slots::broken_by(state, deed)),
            Action::Remove {
                cluster, retained, ..
            } => {
                let known = state.clusters.get(cluster);
                let ended =
                    known.is_some_and(|known| known.record.deleting && members::have_ended(known));
                if known.is_some_and(|it| slots::leaves(&it.record, retained.as_deref())) {
                    let rule = "what a deleted cluster has on slots is kept";
                    violations.push(Violation {
                        cluster: cluster.clone(),
                        rule,
                    });
                }
                if !ended {
                    let rule = "only a deleted cluster is removed whose tasks have ended, or are on slots of agents that are away";
                    violations.push(Violation {
                        cluster: cluster.clone(),
                        rule,
                    });
                }
            }
            Action::Launch(launches) => {
                for launch in launches {
                    let name = launch.task.task_id.cluster();
                    let stored = name.as_ref().and_then(|name| state.clusters.get(name));
                    let task_id = &launch.task.task_id;
                    let stored = stored.is_some_and(|it| {
                        it.record.member_of(task_id).is_some() || it.record.is_verification(task_id)
                    });
                    let Some(cluster) = name else { continue };
                    if !stored {
                        let rule = "only a task that is in the stored record is launched";
                        violations.push(Violation { cluster, rule });
                    } else if !state
                        .clusters
                        .get(&cluster)
                        .is_some_and(|c| slots::is_members_own(&c.record, launch))
                    {
                        let rule = "a member is launched on its own slot alone";
                        violations.push(Violation { cluster, rule });
                    }
                }
            }
            Action::Kill { task_id, .. } => {
                violations.extend(members::broken_by_kill(state, task_id))
            }
            Action::AcceptInverse { offers } => violations.extend(drain::broken(state, offers)),
            Action::StoreFramework { .. }
            | Action::Decline { .. }
            | Action::Suppress
            | Action::Revive
            | Action::Reconcile { .. }
            | Action::ReconcileAll
            | Action::DeclineInverse { .. }
            | Action::Reply(..) => {}
        }
    }
    violations
}

type Rules = Vec<(&'static str, bool)>;

fn broken_by_birth(record: &ClusterRecord, replaces: bool) -> Rules {
    vec![
        ("a new cluster replaces nothing", replaces),
        ("a new cluster has no epoch yet", record.epoch.0 != 0),
        (
            "a new cluster is not in discovery",
            record.published.master.is_some(),
        ),
    ]
}

fn broken_by_change(before: &ClusterRecord, after: &ClusterRecord) -> Rules {
    vec![
        ("a cluster keeps its incarnation", before.uuid != after.uuid),
        (
            "a deletion is never taken back",
            before.deleting && !after.deleting,
        ),
        ("an epoch only grows", after.epoch < before.epoch),
        (
            "nothing is decided for a paused cluster",
            before.paused_since.is_some() && after.paused_since.is_some() && decides(before, after),
        ),
        (
            "an epoch has one master",
            one_epoch_two_choices(before, after),
        ),
        (
            "a master is elected by a stored election",
            elected_out_of_nothing(before, after),
        ),
        (
            "no vote changes in an election",
            (before.epoch != after.epoch || elected(before).is_none())
                && votes_change(before, after)
                && !loss_is_accepted(before, after),
        ),
        (
            "the quorum shrinks by a change whose canary was asked for",
            quorum_shrinks_by_itself(before, after) && !loss_is_accepted(before, after),
        ),
        (
            "a master is never told to wait for fewer than elections count with",
            after.terms.acknowledgements < after.voters.k_floor,
        ),
        (
            "who waits for nobody was asked to, by a single node or durability=async",
            after.voters.k_floor == 0
                && before.voters.k_floor > 0
                && after.spec.durability == Durability::Majority
                && after.spec.num_nodes > 1
                && !loss_is_accepted(before, after),
        ),
        (
            "terms that differ have another number",
            terms_alike(before, after),
        ),
        (
            "discovery names only an opened master",
            names_unopened_master(after),
        ),
        ("discovery names one master", names_master_as_slave(after)),
    ]
}

fn elected(record: &ClusterRecord) -> Option<&Elected> {
    record.elected()
}

fn decides(before: &ClusterRecord, after: &ClusterRecord) -> bool {
    let launches = |record: &ClusterRecord| -> Vec<u32> {
        let members = record.members.values();
        members.map(|member| member.launches).collect()
    };
    before.epoch != after.epoch
        || before.mastership != after.mastership
        || before.voters != after.voters
        || before.terms != after.terms
        || before.change != after.change
        || launches(before) != launches(after)
}

fn one_epoch_two_choices(before: &ClusterRecord, after: &ClusterRecord) -> bool {
    let choice = |e: &Elected| (e.member, e.data, e.process, e.task_id.clone());
    match (elected(before), elected(after)) {
        (Some(b), Some(a)) => before.epoch == after.epoch && choice(b) != choice(a),
        (Some(_), None) => before.epoch == after.epoch,
        (None, _) => false,
    }
}

fn elected_out_of_nothing(before: &ClusterRecord, after: &ClusterRecord) -> bool {
    elected(after).is_some()
        && match before.mastership {
            Mastership::Unborn => after.epoch != before.epoch.next(),
            Mastership::Electing => after.epoch != before.epoch,
            Mastership::Elected(_) => after.epoch != before.epoch,
        }
}

fn votes_change(before: &ClusterRecord, after: &ClusterRecord) -> bool {
    before.epoch.0 != 0
        && (before.voters.k_floor != after.voters.k_floor
            || !before.voters.members.keys().eq(after.voters.members.keys()))
}

/// Whether an operator's word is stored that voters are given up, and this is the election that does it.
fn loss_is_accepted(before: &ClusterRecord, after: &ClusterRecord) -> bool {
    let pending = before
        .lossy
        .as_ref()
        .is_some_and(|lossy| lossy.is_pending());
    let done = after
        .lossy
        .as_ref()
        .is_some_and(|lossy| !lossy.is_pending());
    pending && done && before.epoch == after.epoch && elected(before).is_none()
}

/// Fewer reports elect: only as the change says that was under way, and only after its canary was asked for.
fn quorum_shrinks_by_itself(before: &ClusterRecord, after: &ClusterRecord) -> bool {
    if before.epoch.0 == 0 || after.voters.quorum() >= before.voters.quorum() {
        return false;
    }
    let Some(VoterChange {
        kind,
        canary: Some(_),
    }) = before.change
    else {
        return true;
    };
    let mut expected = before.voters.clone();
    match kind {
        ChangeKind::Remove { member } => {
            expected.members.remove(&member);
        }
        ChangeKind::Raise { k_floor } => expected.k_floor = k_floor,
    }
    let same_members = expected.members.keys().eq(after.voters.members.keys());
    before.epoch != after.epoch || !same_members || expected.k_floor != after.voters.k_floor
}

fn terms_alike(before: &ClusterRecord, after: &ClusterRecord) -> bool {
    after.terms.number < before.terms.number
        || after.terms.number == before.terms.number && after.terms != before.terms
}

fn names_unopened_master(after: &ClusterRecord) -> bool {
    after.published.master.is_some_and(|published| {
        !elected(after).is_some_and(|elected| elected.opened && elected.member == published)
    })
}

fn names_master_as_slave(after: &ClusterRecord) -> bool {
    after
        .published
        .master
        .is_some_and(|master| after.published.slaves.contains(&master))
}
