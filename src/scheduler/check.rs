//! What must never be asked of the world, whatever the plan thought.
//!
//! [`check`] looks at a plan with other eyes than those that made it: it compares records before
//! and after by the invariants alone. A violation is a bug of Cotton. The driver then carries
//! nothing of that plan out for that cluster, and says so loudly: standing still loses no data.

use super::{
    action::{Action, Plan},
    state::State,
};
use crate::cluster::{
    id::ClusterName,
    record::{ClusterRecord, Elected, Mastership},
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
                record, expected, ..
            } => {
                let before = state.clusters.get(record.name());
                let rules = match before {
                    Some(before) => broken_by_change(&before.record, record),
                    None => broken_by_birth(record, expected.is_some()),
                };
                let broken = rules.into_iter().filter(|(_, broken)| *broken);
                violations.extend(broken.map(|(rule, _)| Violation {
                    cluster: record.name().clone(),
                    rule,
                }));
            }
            Action::Remove { cluster, .. } => {
                let ended = state.clusters.get(cluster).is_some_and(|known| {
                    known.record.deleting
                        && known
                            .record
                            .members
                            .values()
                            .all(|member| member.task.is_none())
                });
                if !ended {
                    let rule = "only a deleted cluster whose tasks have all ended is removed";
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
                    let stored =
                        stored.is_some_and(|c| c.record.member_of(&launch.task.task_id).is_some());
                    if let (Some(cluster), false) = (name, stored) {
                        let rule = "only a task that is in the stored record is launched";
                        violations.push(Violation { cluster, rule });
                    }
                }
            }
            Action::StoreFramework { .. }
            | Action::Decline { .. }
            | Action::Suppress
            | Action::Revive
            | Action::Kill { .. }
            | Action::Reconcile { .. }
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
    let shrinks = after.voters.quorum() < before.voters.quorum() && before.epoch.0 != 0;
    vec![
        ("a cluster keeps its incarnation", before.uuid != after.uuid),
        (
            "a deletion is never taken back",
            before.deleting && !after.deleting,
        ),
        ("an epoch only grows", after.epoch < before.epoch),
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
            before.epoch != after.epoch && votes_change(before, after),
        ),
        ("the quorum does not shrink by itself", shrinks),
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
