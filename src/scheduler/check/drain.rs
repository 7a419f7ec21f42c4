//! What must never be asked of agents that are to be taken away: that one is given away on which a cluster depends.

use super::Violation;
use crate::{
    cluster::{record::ClusterRecord, voters::Durability},
    scheduler::{
        restart,
        state::{Cluster, State},
    },
};

/// The rules that the acceptance of these inverse offers breaks.
pub(super) fn broken(state: &State, offers: &[String]) -> Vec<Violation> {
    let agents = offers
        .iter()
        .filter_map(|id| state.maintenance.asked_for(id));
    let mut violations = Vec::new();
    for agent in agents {
        let there = state
            .clusters
            .values()
            .filter(|it| is_on(&it.record, agent));
        for cluster in there {
            let rules = [
                (
                    "an agent is not given away while a master is there",
                    has_master_on(&cluster.record, agent),
                ),
                (
                    "an agent is not given away while a cluster would fall below its quorum without it",
                    falls_below_quorum(cluster, agent),
                ),
            ];
            let broken = rules.into_iter().filter(|(_, broken)| *broken);
            violations.extend(broken.map(|(rule, _)| Violation {
                cluster: cluster.record.name().clone(),
                rule,
            }));
        }
    }
    violations
}

fn is_on(record: &ClusterRecord, agent: &str) -> bool {
    record.members.values().any(|member| member.is_on(agent))
}

fn has_master_on(record: &ClusterRecord, agent: &str) -> bool {
    // Without a master nobody knows who will be it.
    record.elected().is_none_or(|elected| {
        let task = record.task(elected.member);
        task.is_none_or(|task| task.agent_id == agent)
    })
}

fn falls_below_quorum(cluster: &Cluster, agent: &str) -> bool {
    let record = &cluster.record;
    let elsewhere = record.voters.members.keys().filter(|id| {
        let task = record.task(**id);
        let heard = cluster.observed.live(record, **id);
        task.is_some_and(|task| task.agent_id != agent)
            && !restart::is_going(record, **id)
            && heard.is_some_and(|report| report.process.is_some())
    });
    let needed = match record.rule() {
        Durability::Majority => record.voters.quorum(),
        Durability::Async => 1,
    };
    elsewhere.count() < needed
}
