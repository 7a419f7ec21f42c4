//! The members' slots: made with a member's first launch, found again in offers, never given up once they were used.
//!
//! A slot is stored, with the task that is the first to run on it, before Mesos is asked for it. RESERVE, CREATE and
//! LAUNCH go out in one message on one offer, and Mesos carries them out in this order. So:
//!
//! * If the task is heard of, the slot is there.
//! * If its launch is known to have come to nothing, the slot is there, or half of it, or nothing. Whatever there is
//!   comes back in offers within a moment, and the launch goes on from it: with the volume, or with the
//!   reservation and a CREATE. If nothing comes for [`SLOT_PATIENCE`], the slot is given up and another one is made,
//!   under another id. What was given up stays in the record, so that it is known should it turn up after all.
//! * A slot that was used is waited for, for as long as it takes. It never gets a CREATE: a new volume in place of one
//!   that is not offered would be an empty one in place of the member's data.
//!
//! Slots are recognised by the labels of their reservations, not by their agents' ids: an agent that was removed comes back
//! with a new one.

use std::time::Duration;

use super::{
    action::Look,
    event::TaskState,
    observed::Observed,
    placement::{Ground, Holds, Launch, Offer, OfferedSlot},
};
use crate::{
    cluster::{
        id::{MemberId, TaskId},
        record::{ClusterRecord, MemberRecord, TaskRecord},
        size::Size,
        slot::{Slot, SlotId},
    },
    rules::{Rule, Rules},
    time::Timestamp,
};

/// How long a slot whose launch was lost may take to show up in offers. With default settings Mesos makes offers every
/// second, and an offer that was used up by a launch that failed comes back with the next.
pub const SLOT_PATIENCE: Duration = Duration::from_secs(10);

/// Notes which slots are used: a task on them was heard of. It goes into the record together with, or before, anything that
/// makes data on them count, because both follow from what was heard of the task.
pub fn note_used(next: &mut ClusterRecord, observed: &Observed, rules: Rules) {
    if !rules.holds(Rule::UsedSlotIsKept) {
        return;
    }
    for member in next.members.values_mut() {
        let Some(slot) = &mut member.slot else {
            continue;
        };
        let task = member.task.as_ref();
        let heard_of = task.is_some_and(|task| was_heard_of(&task.task_id, observed));
        slot.used |= heard_of || observed.outdated.contains(&slot.id);
    }
}

/// Whether a task was heard of from its agent, or from its executor.
fn was_heard_of(task: &TaskId, observed: &Observed) -> bool {
    let told = observed
        .tasks
        .get(task)
        .is_some_and(|task| match task.state {
            TaskState::Starting
            | TaskState::Running
            | TaskState::Killing
            | TaskState::Finished
            | TaskState::Failed
            | TaskState::Killed => true,
            // The master says so of the agent, whether the launch ever got there or not.
            TaskState::Unreachable => false,
            // A master or an agent has refused the launch, or the executor has made nothing.
            TaskState::Error | TaskState::Unfit | TaskState::Dropped => false,
            // The same words for a task that nobody has ever sent, and for one that is over. What was on its slot counts for
            // nothing if the record does not say yet that the slot is used: see [`note_used`].
            TaskState::Gone | TaskState::GoneByOperator => false,
            TaskState::Staging | TaskState::Unknown | TaskState::Lost => false,
        });
    told || observed.reports.contains_key(task)
}

/// The task of a member has ended. If it was the first on its slot and nobody has heard of it, the slot may not be there. If no
/// server can run on it, it is given up.
pub fn task_ended(member: &mut MemberRecord, last: Option<TaskState>, now: Timestamp) {
    let unused = member.slot.take_if(|slot| !slot.used);
    let Some(mut slot) = unused else { return };
    match last {
        Some(TaskState::Unfit) => member.given_up.push(slot),
        _ => {
            slot.launch_lost_at = Some(now);
            member.slot = Some(slot);
        }
    }
}

/// The slot of the first task of a member that has none.
pub fn new_slot(
    next: &ClusterRecord,
    member: MemberId,
    launch: u32,
    size: Size,
    task: &TaskRecord,
) -> Slot {
    Slot {
        id: SlotId::new(next.uuid, member, launch),
        agent_id: task.agent_id.clone(),
        host: task.host.clone(),
        port: task.port,
        size,
        created_at: task.launched_at,
        used: false,
        agent_gone: false,
        launch_lost_at: None,
        unknown: Default::default(),
    }
}

/// Finds a member's slot in the offers, and launches its next task there.
pub fn relaunch<'a>(
    slot: &mut Slot,
    task_id: TaskId,
    mut offers: impl Iterator<Item = &'a Offer>,
    now: Timestamp,
) -> Option<Launch> {
    let (offer, ground) = offers.find_map(|offer| {
        let offered = offer.slot(&slot.id)?;
        Some((offer, ground(slot, offered)?))
    })?;
    slot.agent_id.clone_from(&offer.agent_id);
    slot.host.clone_from(&offer.host);
    slot.launch_lost_at = None;
    slot.agent_gone = false;
    Some(Launch {
        offer: offer.clone(),
        task: TaskRecord {
            task_id,
            agent_id: slot.agent_id.clone(),
            host: slot.host.clone(),
            port: slot.port,
            launched_at: now,
            unknown: Default::default(),
        },
        size: slot.size,
        ground,
    })
}

/// What a launch on an offered slot takes, if it can be done at all.
fn ground(slot: &Slot, offered: &OfferedSlot) -> Option<Ground> {
    match offered.holds(slot) {
        Holds::Volume => Some(Ground::Volume(slot.id.clone())),
        Holds::Reservation if !slot.used => Some(Ground::Reserved(slot.id.clone())),
        Holds::Reservation | Holds::Part => None,
    }
}

/// Gives up a slot that was never used and does not show up. Until then, a member without a task waits for its slot; tells whether
/// it does.
pub fn awaits_slot(member: &mut MemberRecord, now: Timestamp, look: &mut Look) -> bool {
    let Some(slot) = &member.slot else {
        return false;
    };
    let gives_up_at = slot.launch_lost_at.map(|lost| lost.plus(SLOT_PATIENCE));
    match gives_up_at.filter(|_| !slot.used) {
        Some(at) if at <= now => {
            member.given_up.extend(member.slot.take());
            false
        }
        Some(at) => {
            look.wake_by(at);
            true
        }
        None => true,
    }
}
