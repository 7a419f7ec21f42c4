//! What the API shows of a cluster, and why it is as it is.

use super::{
    backups, durability,
    event::TaskState,
    observed::{Observed, Presence},
    pause, rebuild, rolling,
    state::Cluster,
};
use crate::cluster::{
    control::{MemberState, Report},
    id::MemberId,
    record::{ClusterRecord, Mastership},
    view::{ClusterState, ClusterView, MemberRole, MemberView, MemberViewState, Standing},
};

/// The cluster as the API shows it. `discovery_root` is the URL under which clusters are found.
pub fn view(cluster: &Cluster, discovery_root: &str) -> ClusterView {
    let record = &cluster.record;
    let members: Vec<MemberView> = record
        .members
        .keys()
        .map(|id| member_view(record, &cluster.observed, *id))
        .collect();
    let (state, mut reason) = state_and_reason(cluster, &members);
    let archived = backups::archived(record, &cluster.observed);
    let paused_since = record.paused_since.filter(|_| pause::holds(record));
    if let Some(since) = paused_since {
        reason = format!("paused by an operator since {since}: nothing is decided; {reason}");
    }
    ClusterView {
        name: record.name().clone(),
        user: record.spec.user.to_string(),
        num_nodes: record.spec.num_nodes,
        size: record.spec.size,
        flavour: record.server.as_ref().map(|server| server.flavour),
        version: record
            .server
            .as_ref()
            .map(|server| server.version.to_string()),
        durability: record.spec.durability,
        state,
        reason,
        cluster_url: format!("{discovery_root}/{}", record.name()),
        epoch: record.epoch.0,
        standing: Standing {
            changing: durability::changing(record, &cluster.observed).filter(|_| !record.deleting),
            paused_since,
            failover_offer: cluster.offer.clone().filter(|_| !record.deleting),
            lossy_failover: record.lossy.clone(),
            switchover: record.switchover.clone(),
            change: rolling::show(record),
            backup: backups::under_way(record, &cluster.observed),
            last_backup: record.backups.outcomes.last().cloned(),
            archived_until: archived.and_then(|archived| archived.until),
            recoverable_until: archived
                .filter(|archived| backups::has_one_with(record, archived))
                .and_then(|archived| archived.until),
            archive_problem: archived.and_then(|archived| archived.problem.clone()),
            package: record.spec.package.as_ref().map(|it| it.name.clone()),
            my_cnf: record.spec.my_cnf.clone(),
            replace_after: record.spec.replace_after,
            // Whether there is a store is a setting, and whoever knows the settings adds it.
            backups: None,
            restored_from: record.restore.as_ref().map(|it| it.from.id.clone()),
            restoring: record
                .restore
                .as_ref()
                .filter(|restore| !restore.done)
                .map(|restore| restore.from.id.clone()),
            members_from: rebuild::backups_named(record),
            maintenance: match record.deleting {
                true => Vec::new(),
                false => cluster.membership.maintenance.clone(),
            },
            membership: match record.deleting {
                true => Vec::new(),
                false => cluster.membership.told.clone(),
            },
        },
        members,
    }
}

fn state_and_reason(cluster: &Cluster, members: &[MemberView]) -> (ClusterState, String) {
    let record = &cluster.record;
    let awaited = cluster.awaited.reason.clone();
    if record.deleting {
        let left = members
            .iter()
            .filter(|member| member.task_id.is_some())
            .count();
        return (
            ClusterState::Deleting,
            format!("{left} tasks have not ended yet"),
        );
    }
    if let Some(waits) = &cluster.membership.waits {
        return (ClusterState::Waiting, waits.clone());
    }
    match &record.mastership {
        Mastership::Unborn => (ClusterState::Creating, creating(record, members)),
        Mastership::Electing if cluster.awaited.until.is_some() => {
            (ClusterState::Electing, awaited)
        }
        // What was just stored has not been looked at yet.
        Mastership::Electing if awaited.is_empty() => {
            let reason = format!("a master is being elected in epoch {}", record.epoch);
            (ClusterState::Electing, reason)
        }
        Mastership::Electing => (ClusterState::Waiting, awaited),
        Mastership::Elected(elected) if !elected.opened => {
            let first = record.epoch.0 == 1;
            let awaited = if awaited.is_empty() {
                format!(
                    "member {} becomes master in epoch {}",
                    elected.member, record.epoch
                )
            } else {
                awaited
            };
            (
                if first {
                    ClusterState::Creating
                } else {
                    ClusterState::Electing
                },
                awaited,
            )
        }
        Mastership::Elected(elected) => opened(record, elected.member, members, awaited, cluster),
    }
}

fn creating(record: &ClusterRecord, members: &[MemberView]) -> String {
    if let Some(failing) = failing(record) {
        return failing;
    }
    let placed = members
        .iter()
        .filter(|member| member.task_id.is_some())
        .count();
    let waiting = members.len() - placed;
    if let Some(restore) = record.restore.as_ref().filter(|_| waiting == 0) {
        return format!(
            "{placed} members get the data of the backup {}",
            restore.from.id
        );
    }
    if waiting > 0 {
        format!(
            "{waiting} of {} members wait for an offer with enough room",
            members.len()
        )
    } else {
        format!("the servers of {placed} members are being made ready")
    }
}

/// The member whose tasks come to nothing most often, if there is one.
fn failing(record: &ClusterRecord) -> Option<String> {
    let failing = record
        .members
        .iter()
        .filter_map(|(id, m)| Some((id, m.failing.as_ref()?)));
    let (id, worst) = failing.max_by_key(|(_, failing)| failing.times)?;
    let times = match worst.times {
        1 => "once".to_owned(),
        times => format!("{times} times in a row"),
    };
    Some(format!(
        "member {id} has failed {times} and is tried again: {}",
        worst.message
    ))
}

fn opened(
    record: &ClusterRecord,
    master: MemberId,
    members: &[MemberView],
    awaited: String,
    cluster: &Cluster,
) -> (ClusterState, String) {
    let unready: Vec<&MemberView> = members
        .iter()
        .filter(|member| member.role == MemberRole::None)
        .collect();
    if !awaited.is_empty() {
        return (ClusterState::Degraded, awaited);
    }
    let relearning: Vec<String> = record
        .voters
        .members
        .keys()
        .filter(|id| !votes(record, &cluster.observed, **id))
        .map(|id| format!("member {id} gets its data again and does not vote yet"))
        .collect();
    if unready.is_empty() && !relearning.is_empty() {
        let reason = format!("member {master} is the master; {}", relearning.join("; "));
        return (ClusterState::Degraded, reason);
    }
    if unready.is_empty() {
        return (
            ClusterState::Running,
            format!("member {master} is the master"),
        );
    }
    let why: Vec<String> = unready
        .iter()
        .map(
            |member| match problem(record, &cluster.observed, MemberId(member.id)) {
                Some(problem) => format!("member {}: {problem}", member.id),
                None => {
                    let failing = record.members.get(&MemberId(member.id));
                    match failing.and_then(|member| member.failing.as_ref()) {
                        Some(failing) => {
                            format!("member {} failed: {}", member.id, failing.message)
                        }
                        None => format!("member {} is not ready", member.id),
                    }
                }
            },
        )
        .collect();
    let reason = format!("member {master} is the master; {}", why.join("; "));
    (ClusterState::Degraded, reason)
}

/// Whether a voter's report would count in an election: not while it lacks data that it had.
fn votes(record: &ClusterRecord, observed: &Observed, member: MemberId) -> bool {
    let data = observed.live(record, member).and_then(|report| report.data);
    record.voters.members.contains_key(&member)
        && data.is_none_or(|data| record.voters.counts(member, data))
}

fn problem<'a>(
    record: &ClusterRecord,
    observed: &'a Observed,
    member: MemberId,
) -> Option<&'a str> {
    observed.live(record, member)?.problem.as_deref()
}

fn member_view(record: &ClusterRecord, observed: &Observed, id: MemberId) -> MemberView {
    let task = record.task(id);
    let role = if record.published.master == Some(id) {
        MemberRole::Master
    } else if record.published.slaves.contains(&id) {
        MemberRole::Slave
    } else {
        MemberRole::None
    };
    MemberView {
        id: id.0,
        server_id: record.server_id(id),
        host: task.map(|task| task.host.clone()),
        port: task.map(|task| task.port),
        role,
        state: member_state(record, observed, id),
        voter: votes(record, observed, id),
        leaving: record.is_leaving(id),
        revision: record.members.get(&id).map_or(0, |it| it.revision),
        agent_id: task.map(|task| task.agent_id.clone()),
        task_id: task.map(|task| task.task_id.to_string()),
    }
}

fn member_state(record: &ClusterRecord, observed: &Observed, id: MemberId) -> MemberViewState {
    let Some(task) = record.task(id) else {
        return MemberViewState::Launching;
    };
    match observed.presence(record, id) {
        Presence::Live(report) => reported_state(report),
        Presence::Gone(_) => MemberViewState::Lost,
        Presence::Unknown => match observed.tasks.get(&task.task_id).map(|task| task.state) {
            Some(TaskState::Unreachable | TaskState::Unknown | TaskState::Lost) => {
                MemberViewState::Lost
            }
            Some(TaskState::Starting) => MemberViewState::Provisioning,
            _ => MemberViewState::Launching,
        },
    }
}

fn reported_state(report: &Report) -> MemberViewState {
    match report.state {
        MemberState::Provisioning | MemberState::Dead => MemberViewState::Provisioning,
        MemberState::Closed
        | MemberState::Following { .. }
        | MemberState::Master { .. }
        | MemberState::Refused { .. }
        | MemberState::Stopping => MemberViewState::Running,
        MemberState::Quarantined => MemberViewState::Quarantined,
    }
}
