//! What is asked of a cluster that is there: a switchover, a failover with the loss of data, a change of its settings, a pause, more
//! members, fewer or others.
//!
//! Each needs the password of the cluster's user and is answered when it is recorded. None needs Mesos at that moment: what is
//! recorded is carried out as soon as Mesos is there. A wish that changes nothing is answered at once.

use super::{
    action::{Action, Refusal, Reply},
    backups::{self, Course},
    event::{Ask, RequestToken, Wish},
    failover::View,
    lossy, membership, pause,
    requests::{owner, refuse},
    restart as restarts, rolling,
    state::{Cluster, State},
    switchover,
};
use crate::{
    cluster::{
        backup::{BackupId, BackupStore, BackupsLeft},
        change::{Change, Changed, Course as ChangeCourse},
        data_loss::LossyFailover,
        id::MemberId,
        record::{ClusterRecord, Mastership},
        switchover::Switchover,
    },
    time::Timestamp,
};

/// Decides what is asked of a cluster.
pub fn decide(state: &State, ask: &Ask, now: Timestamp) -> Action {
    let cluster = match owner(state, &ask.name, ask.password.as_ref()) {
        Ok(cluster) => cluster,
        Err(refusal) => return refuse(ask.token, refusal),
    };
    if cluster.record.deleting {
        return refuse(ask.token, Refusal::BeingDeleted(ask.name.clone()));
    }
    let pauses = matches!(ask.wish, Wish::Pause(_));
    if let Some(refusal) = pause::refusal(&cluster.record).filter(|_| !pauses) {
        return refuse(ask.token, refusal);
    }
    match &ask.wish {
        Wish::Failover { accept_data_loss } => {
            let view = state.view(cluster, now);
            fail_over(cluster, ask.token, *accept_data_loss, view)
        }
        Wish::Switchover { to } => {
            let view = state.view(cluster, now);
            switch_over(cluster, ask.token, *to, view)
        }
        Wish::Change(change) => self::change(state, cluster, ask.token, change, now),
        Wish::Restart { member, force } => {
            let view = state.view(cluster, now);
            restart(cluster, ask.token, (*member, *force), view)
        }
        Wish::Pause(paused) => {
            let mut next = cluster.record.clone();
            let changed = pause::set(&mut next, *paused, state.view(cluster, now));
            let name = ask.name.clone();
            let changes = !changed.is_empty();
            let course = ChangeCourse::default();
            let reply = Reply::Changed {
                name,
                changed,
                course,
            };
            match changes {
                true => persist(cluster, next, ask.token, reply),
                false => Action::Reply(ask.token, reply),
            }
        }
        Wish::Backup { store } => back_up(cluster, ask.token, store, now),
        Wish::DeleteBackup { id, left } => delete_backup(cluster, ask.token, id, left.clone()),
        Wish::Scale { num_nodes } => scale(cluster, ask.token, *num_nodes),
        Wish::Replace { member } => {
            let view = state.view(cluster, now);
            replace(cluster, ask.token, *member, view)
        }
    }
}

/// What is left is stored when the backup is gone. Whoever ends in between leaves a record with a backup that is not in the store: then nothing of the
/// archive is removed, and the same request again stores what is left.
fn delete_backup(
    cluster: &Cluster,
    token: RequestToken,
    id: &BackupId,
    left: Option<BackupsLeft>,
) -> Action {
    let pending = cluster.record.backups.pending.as_ref();
    if pending.is_some_and(|pending| pending.id == *id) {
        let sentence = format!("the backup {id} is being made; remove it when it is complete");
        return Action::Reply(token, Reply::Refused(Refusal::NotPossible(sentence)));
    }
    let mut next = cluster.record.clone();
    if let Some(left) = left {
        next.backups.removed(id, left);
    }
    match next == cluster.record {
        true => Action::Reply(token, Reply::MayDeleteBackup),
        false => persist(cluster, next, token, Reply::MayDeleteBackup),
    }
}

/// The same request again, after an answer that got lost, gets the same answer.
fn fail_over(
    cluster: &Cluster,
    token: RequestToken,
    accept_data_loss: bool,
    view: View<'_>,
) -> Action {
    let record = &cluster.record;
    let name = record.name().clone();
    let accepted = |lossy: &LossyFailover| Reply::FailingOver {
        name,
        prospect: Box::new(lossy::prospect(record, lossy, view)),
    };
    if let Some(pending) = record.lossy.as_ref().filter(|lossy| lossy.is_pending()) {
        return Action::Reply(token, accepted(pending));
    }
    let lossy = match lossy::ask(record, view) {
        Ok(lossy) => lossy,
        Err(sentence) => {
            let sentence = format!("a failover that loses data is not possible: {sentence}");
            return refuse(token, Refusal::NotPossible(sentence));
        }
    };
    if !accept_data_loss {
        let prospect = lossy::prospect(record, &lossy, view);
        return refuse(token, Refusal::LossNotAccepted(Box::new(prospect)));
    }
    let reply = accepted(&lossy);
    let mut next = record.clone();
    next.lossy = Some(lossy);
    persist(cluster, next, token, reply)
}

/// The same request again, while it is carried out, gets the same answer.
fn switch_over(
    cluster: &Cluster,
    token: RequestToken,
    to: Option<MemberId>,
    view: View<'_>,
) -> Action {
    let record = &cluster.record;
    let name = record.name().clone();
    let reply = |to, switchover: Option<Switchover>| Reply::SwitchingOver {
        name,
        to,
        switchover: switchover.map(Box::new),
    };
    match switchover::ask(record, to, view) {
        Err(sentence) => {
            let sentence = format!("a switchover is not possible: {sentence}");
            refuse(token, Refusal::NotPossible(sentence))
        }
        Ok(switchover::Course::IsMaster(member)) => Action::Reply(token, reply(member, None)),
        Ok(switchover::Course::Pending(pending)) => {
            Action::Reply(token, reply(pending.to, Some(pending)))
        }
        Ok(switchover::Course::Store(switchover)) => {
            let mut next = record.clone();
            next.switchover = Some(switchover.clone());
            persist(cluster, next, token, reply(switchover.to, Some(switchover)))
        }
    }
}

/// The same request again, while the backup is being made, gets the same answer.
fn back_up(cluster: &Cluster, token: RequestToken, store: &BackupStore, now: Timestamp) -> Action {
    let record = &cluster.record;
    let reply = |backup| Reply::BackingUp {
        name: record.name().clone(),
        backup: Box::new(backup),
    };
    match backups::ask(record, store, now) {
        Err(sentence) => {
            let sentence = format!("a backup is not possible: {sentence}");
            refuse(token, Refusal::NotPossible(sentence))
        }
        Ok(Course::Pending(backup)) => Action::Reply(token, reply(backup)),
        Ok(Course::Store(backup)) => {
            let mut next = record.clone();
            next.backups.number = backup.number;
            next.backups.pending = Some(backup.clone());
            persist(cluster, next, token, reply(backup))
        }
    }
}

/// The record says what is wanted; voters and members follow it by safe steps, each stored for itself. A scheduler that dies after this
/// write leaves the rest to its successor, which finds the same difference.
fn change(
    state: &State,
    cluster: &Cluster,
    token: RequestToken,
    change: &Change,
    now: Timestamp,
) -> Action {
    let view = state.view(cluster, now);
    let mut next = cluster.record.clone();
    let (changed, mut course) = match changed(state, cluster, &mut next, change, view) {
        Ok(changed) => changed,
        Err(sentence) => return refuse(token, Refusal::NotPossible(sentence)),
    };
    if let Some(sentence) = hindrance(&cluster.record, &changed) {
        return refuse(token, Refusal::NotPossible(sentence));
    }
    if change.configures() {
        let steps = rolling::steps(&next, view).into_iter();
        course.steps = steps.map(rolling::Step::sentence).collect();
    }
    let reply = Reply::Changed {
        name: next.name().clone(),
        changed,
        course,
    };
    match change.plan || next == cluster.record {
        true => Action::Reply(token, reply),
        false => persist(cluster, next, token, reply),
    }
}

/// Makes `next` want what is asked for. Gives what differs from before, and what becomes of a change that had stopped.
fn changed(
    state: &State,
    cluster: &Cluster,
    next: &mut ClusterRecord,
    change: &Change,
    view: View<'_>,
) -> Result<(Vec<Changed>, ChangeCourse), String> {
    let mut spec = next.spec.clone();
    let mut changed = change.apply(&mut spec);
    if let Some(name) = &change.package {
        let package = rolling::package(state, cluster, name)?;
        if package != spec.package {
            let before = spec.configuration();
            changed.push(Changed::new("package", before.package_name(), name));
            spec.package = package;
        }
    }
    if spec.backup_schedule != next.spec.backup_schedule {
        // Another schedule counts from now.
        next.backups.due_since = None;
    }
    let wanted = spec.configuration();
    let before = next.spec.configuration();
    next.spec = spec;
    next.spec.configure(before);
    let mut course = ChangeCourse {
        planned: change.plan,
        ..ChangeCourse::default()
    };
    if change.configures() {
        course.resumed = rolling::want(next, wanted, change.force, view)?;
    }
    Ok((changed, course))
}

/// The same request again, until the task has ended, gets the same answer.
fn restart(
    cluster: &Cluster,
    token: RequestToken,
    (member, force): (MemberId, bool),
    view: View<'_>,
) -> Action {
    let mut next = cluster.record.clone();
    let asked = restarts::ask(&mut next, member, force, view);
    let task = next.task(member).map(|task| task.task_id.clone());
    let (Ok(()), Some(task_id)) = (&asked, task) else {
        let why = asked.err().unwrap_or_default();
        let sentence = format!("member {member} cannot be restarted: {why}");
        return refuse(token, Refusal::NotPossible(sentence));
    };
    let reply = Reply::Restarting {
        name: next.name().clone(),
        member,
        task_id,
        note: restarts::note(&next, view, member),
    };
    match next == cluster.record {
        true => Action::Reply(token, reply),
        false => persist(cluster, next, token, reply),
    }
}

/// What is recorded is how many there are to be; who comes and who goes follows from the record. Asked again, or for another
/// number, the target is another one.
fn scale(cluster: &Cluster, token: RequestToken, to: u32) -> Action {
    let record = &cluster.record;
    let from = record.spec.num_nodes;
    let name = record.name().clone();
    let reply = Reply::Scaling {
        name,
        from,
        to,
        durability: record.spec.durability,
    };
    if from == to {
        return Action::Reply(token, reply);
    }
    let mut next = record.clone();
    next.spec.num_nodes = to;
    persist(cluster, next, token, reply)
}

/// The same request again, while it is carried out, gets the same answer.
fn replace(cluster: &Cluster, token: RequestToken, member: MemberId, view: View<'_>) -> Action {
    let mut next = cluster.record.clone();
    match membership::replace(&mut next, member, view) {
        Err(sentence) => {
            let sentence = format!("member {member} cannot be replaced: {sentence}");
            refuse(token, Refusal::NotPossible(sentence))
        }
        Ok(replacement) => {
            let name = next.name().clone();
            let reply = Reply::Replacing {
                name,
                member,
                replacement,
            };
            match next == cluster.record {
                true => Action::Reply(token, reply),
                false => persist(cluster, next, token, reply),
            }
        }
    }
}

/// Why the settings cannot be changed now.
fn hindrance(record: &ClusterRecord, changed: &[Changed]) -> Option<String> {
    let durability = changed.iter().any(|changed| changed.field == "durability");
    // An election counts by the durability under which the writes were acknowledged that it must not lose.
    (durability && record.mastership == Mastership::Electing).then(|| {
        format!(
            "the durability cannot be changed while a master is being elected in epoch {}: the election goes by what the writes before it were promised; ask again when the cluster has a master",
            record.epoch
        )
    })
}

fn persist(cluster: &Cluster, next: ClusterRecord, token: RequestToken, reply: Reply) -> Action {
    Action::Persist {
        record: Box::new(next),
        expected: cluster.version,
        password: None,
        launches: Vec::new(),
        replies: vec![(token, reply)],
    }
}
