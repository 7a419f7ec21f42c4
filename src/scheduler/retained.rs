//! Slots that nobody is to use any more: those of deleted clusters, and those that were given up.
//!
//! ```text
//! kept --its time has come--> destroying (stored) --offered--> DESTROY, UNRESERVE --feedback--> gone (stored)
//! ```
//!
//! The intention to destroy is stored before the first volume is destroyed, and never taken back. A slot counts as gone when
//! its agent says that the operation is done; an agent that gives no such feedback is asked without it, and then the slot counts
//! as gone when it is not offered any more. The feedback is acknowledged when what follows from it is stored, so that
//! a scheduler that dies in between hears it again.
//!
//! Offers are wanted for it in short windows only: the agent of a slot may be away for ever, and offers that nobody
//! needs must not come every second for as long.
//!
//! What is reserved under Cotton's labels and explained by no record, kept or living, is an *orphan*: it is told of, and never touched.

use std::{collections::BTreeMap, time::Duration};

use uuid::Uuid;

use super::{
    action::Action,
    event::Version,
    placement::{Offer, OfferedSlot},
    state::State,
};
use crate::{
    cluster::{
        id::ClusterName,
        record::ClusterRecord,
        retained::Retained,
        slot::{Slot, SlotId, SlotOwner},
    },
    time::Timestamp,
};

/// How long offers are wanted at a time for what is left of deleted clusters.
const WINDOW: Duration = Duration::from_secs(30);

/// From one window to the next.
const PERIOD: Duration = Duration::from_secs(600);

/// How long after its time has come a slot is looked for that was never heard of, and so may never have been.
const UNSEEN_PATIENCE: Duration = Duration::from_secs(900);

/// How long an agent may take to destroy a volume and say so. Then the offer is given back, in case that the call was lost.
const OPERATION_DEADLINE: Duration = Duration::from_secs(60);

/// After so many refusals the operation is sent without asking for feedback. A master refuses to pass the request for it to
/// agents without `AGENT_OPERATION_FEEDBACK`.
const MOST_REFUSALS: u32 = 2;

/// What is known of slots that nobody is to use.
#[derive(Debug, Default)]
pub struct Keeping {
    /// The deleted clusters, by incarnation.
    pub clusters: BTreeMap<Uuid, Kept>,
    /// Slots that are reserved and that no record explains.
    pub orphans: BTreeMap<SlotId, Orphan>,
    /// When to look again even if nothing happens.
    pub again_at: Option<Timestamp>,
    /// Slots that are gone, with the operation whose feedback is not acknowledged yet, if there was one.
    gone: BTreeMap<SlotId, Option<String>>,
    /// What was tried.
    tries: BTreeMap<SlotId, Try>,
}

/// A deleted cluster.
#[derive(Debug)]
pub struct Kept {
    /// What is stored of it.
    pub retained: Retained,
    /// Its version in the store.
    pub version: Version,
    /// The write that is under way: what will be stored, or nothing if it is being removed.
    pub pending: Option<Option<Box<Retained>>>,
    /// Since when its slots are looked for.
    looking_since: Option<Timestamp>,
}

/// A slot that no record explains.
#[derive(Debug, Clone, PartialEq)]
pub struct Orphan {
    /// Whose it is by its labels.
    pub owner: SlotOwner,
    /// Mesos' id of its agent.
    pub agent_id: String,
    /// The agent's host name.
    pub host: String,
    /// Whether it has a volume.
    pub has_volume: bool,
    /// Whether it was told of.
    pub told: bool,
}

#[derive(Debug, Clone)]
struct Try {
    at: Timestamp,
    /// The offer that it used, until that was given back or the operation was refused.
    offer: Option<String>,
    refusals: u32,
}

/// What is to be done with slots that nobody is to use.
#[derive(Debug, Clone, PartialEq)]
pub enum Deed {
    /// Store what is kept of a deleted cluster.
    Store {
        /// It.
        retained: Box<Retained>,
        /// The version that it replaces.
        expected: Version,
    },
    /// Nothing is left of a deleted cluster.
    Forget {
        /// Its incarnation.
        incarnation: Uuid,
        /// The version of what is stored.
        expected: Version,
    },
    /// Destroy volumes, and give back what is reserved.
    Release {
        /// The offer that holds it, which is used up.
        offer: Box<Offer>,
        /// The slots, and for each whether its agent is asked for feedback.
        slots: BTreeMap<SlotId, bool>,
    },
    /// Acknowledge the feedback about an operation.
    Acknowledge {
        /// The operation.
        operation: String,
    },
}

/// What became of an operation on a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationUpdate {
    /// The operation's id.
    pub operation: String,
    /// The slot.
    pub slot: SlotId,
    /// Whether it was carried out; if not, it never will be.
    pub done: bool,
}

impl Keeping {
    /// Of the deleted clusters in the store.
    pub fn new(stored: Vec<(Retained, Version)>) -> Self {
        let clusters = stored.into_iter().map(|(retained, version)| {
            let kept = Kept::new(retained, version);
            (kept.retained.incarnation(), kept)
        });
        Self {
            clusters: clusters.collect(),
            ..Self::default()
        }
    }

    /// The scheduler is subscribed: slots are looked for from now on.
    pub fn subscribed(&mut self, now: Timestamp) {
        for kept in self.clusters.values_mut() {
            kept.looking_since = Some(now);
        }
        // Its offers are void, and with them what was tried and not heard of.
        self.tries.retain(|_, tried| tried.refusals > 0);
    }

    /// A cluster was removed, and this is kept of it.
    pub fn removed(&mut self, retained: Retained, version: Version) {
        let kept = Kept::new(retained, version);
        self.clusters.insert(kept.retained.incarnation(), kept);
    }

    /// What was to be stored is.
    pub fn stored(&mut self, incarnation: Uuid, version: Version, now: Timestamp) {
        let Some(kept) = self.clusters.get_mut(&incarnation) else {
            return;
        };
        if let Some(Some(retained)) = kept.pending.take() {
            if retained.destroying && !kept.retained.destroying {
                kept.looking_since = Some(now);
            }
            kept.retained = *retained;
        }
        kept.version = version;
    }

    /// Nothing of a deleted cluster is stored any more.
    pub fn forgotten(&mut self, incarnation: Uuid) {
        self.clusters.remove(&incarnation);
    }

    /// What an agent or a master says of an operation.
    pub fn operation(&mut self, update: OperationUpdate) {
        if update.done {
            self.tries.remove(&update.slot);
            self.gone.insert(update.slot, Some(update.operation));
        } else if let Some(tried) = self.tries.get_mut(&update.slot) {
            tried.refusals += 1;
            tried.offer = None;
        }
    }

    /// Whether a slot is gone.
    pub fn is_gone(&self, slot: &SlotId) -> bool {
        self.gone.contains_key(slot)
    }

    /// Notes that this is being done.
    pub fn begin(&mut self, deed: &Deed, now: Timestamp) {
        match deed {
            Deed::Store { retained, .. } => {
                if let Some(kept) = self.clusters.get_mut(&retained.incarnation()) {
                    kept.pending = Some(Some(retained.clone()));
                }
            }
            Deed::Forget { incarnation, .. } => {
                if let Some(kept) = self.clusters.get_mut(incarnation) {
                    kept.pending = Some(None);
                }
            }
            Deed::Release { offer, slots } => {
                for slot in slots.keys() {
                    let refusals = self.tries.get(slot).map_or(0, |tried| tried.refusals);
                    let tried = Try {
                        at: now,
                        offer: Some(offer.id.clone()),
                        refusals,
                    };
                    self.tries.insert(slot.clone(), tried);
                }
            }
            Deed::Acknowledge { operation } => {
                self.gone.retain(|_, told| told.as_ref() != Some(operation));
            }
        }
    }

    /// Offers were given back.
    pub fn declined(&mut self, offers: &[String]) {
        for tried in self.tries.values_mut() {
            if tried
                .offer
                .as_ref()
                .is_some_and(|offer| offers.contains(offer))
            {
                tried.offer = None;
            }
        }
    }

    /// Whether offers are wanted for what is left of deleted clusters.
    pub fn wants_offers(&self, now: Timestamp) -> bool {
        let mut kept = self.clusters.values();
        kept.any(|kept| kept.releases() && kept.window(now).0)
    }
}

impl Kept {
    fn new(retained: Retained, version: Version) -> Self {
        Self {
            retained,
            version,
            pending: None,
            looking_since: None,
        }
    }

    fn releases(&self) -> bool {
        self.retained.destroying && !self.retained.left.is_empty()
    }

    /// Whether it is a time to look, and when that changes.
    fn window(&self, now: Timestamp) -> (bool, Timestamp) {
        let since = self.looking_since.unwrap_or(now);
        let millis = now.since(since).as_millis() % PERIOD.as_millis();
        let passed = Duration::from_millis(millis as u64);
        match passed < WINDOW {
            true => (true, now.plus(WINDOW - passed)),
            false => (false, now.plus(PERIOD - passed)),
        }
    }

    /// What is to be stored of it next, if that differs from what is.
    fn next(&self, keeping: &Keeping, now: Timestamp) -> Option<Retained> {
        let Retained {
            destroying,
            destroy_at,
            left,
            ..
        } = &self.retained;
        if !*destroying {
            return (now >= *destroy_at).then(|| Retained {
                destroying: true,
                ..self.retained.clone()
            });
        }
        let over = now >= destroy_at.plus(UNSEEN_PATIENCE);
        let is_left = |id: &SlotId, slot: &Slot| !keeping.is_gone(id) && (slot.used || !over);
        if left.iter().all(|(id, slot)| is_left(id, slot)) {
            return None;
        }
        let mut next = self.retained.clone();
        next.left.retain(|id, slot| is_left(id, slot));
        Some(next)
    }
}

/// Whether a record, living or kept, explains a slot.
fn is_explained(state: &State, slot: &OfferedSlot) -> bool {
    let owner = &slot.owner;
    let living = state.clusters.get(&owner.cluster).is_some_and(|cluster| {
        // A record that is being written explains as much as the one that it replaces.
        cluster.record.uuid == owner.incarnation && names(&cluster.record, &slot.id)
    });
    let kept = state.keeping.clusters.get(&owner.incarnation);
    living
        || kept.is_some_and(|kept| kept.retained.left.contains_key(&slot.id))
        || state.unusable.contains(&owner.cluster)
}

fn names(record: &ClusterRecord, id: &SlotId) -> bool {
    let mut members = record.members.values();
    members.any(|member| {
        member
            .slot
            .iter()
            .chain(&member.given_up)
            .any(|slot| slot.id == *id)
    })
}

/// Whether a living cluster has given up this slot.
fn was_given_up(state: &State, slot: &OfferedSlot) -> bool {
    let Some(cluster) = state.clusters.get(&slot.owner.cluster) else {
        return false;
    };
    let member = cluster.record.members.get(&slot.owner.member);
    cluster.record.uuid == slot.owner.incarnation
        && member.is_some_and(|member| member.given_up.iter().any(|it| it.id == slot.id))
}

/// Whether a slot may be released now: its cluster was deleted and that is stored as being carried out, or it was given up.
pub fn may_be_released(state: &State, slot: &OfferedSlot) -> bool {
    let owner = &slot.owner;
    let lives = |cluster: &super::state::Cluster| cluster.record.uuid == owner.incarnation;
    let kept = state.keeping.clusters.get(&owner.incarnation);
    let destroying = kept
        .is_some_and(|kept| kept.retained.destroying && kept.retained.left.contains_key(&slot.id));
    // With local files a crash may leave both the record of a deleted cluster and what is kept of it.
    let deleted = destroying && !state.clusters.get(&owner.cluster).is_some_and(lives);
    deleted || was_given_up(state, slot)
}

/// Notes which offered slots no record explains.
pub fn note_orphans(state: &mut State, offers: &[Offer]) {
    for offer in offers {
        for slot in &offer.slots {
            if is_explained(state, slot) {
                state.keeping.orphans.remove(&slot.id);
                continue;
            }
            let known = state.keeping.orphans.entry(slot.id.clone());
            let orphan = known.or_insert_with(|| Orphan {
                owner: slot.owner.clone(),
                agent_id: String::new(),
                host: String::new(),
                has_volume: false,
                told: false,
            });
            orphan.agent_id.clone_from(&offer.agent_id);
            orphan.host.clone_from(&offer.host);
            orphan.has_volume = slot.volume_mib.is_some();
        }
    }
}

/// Forgets the slots that a living cluster had given up and that are gone.
pub fn forget_gone(next: &mut ClusterRecord, keeping: &Keeping) {
    for member in next.members.values_mut() {
        member.given_up.retain(|slot| !keeping.is_gone(&slot.id));
    }
}

/// What is to be done with slots that nobody is to use; offers that are used for it are taken out of `pool`. Also, when to look
/// again even if nothing happens.
pub fn plan(
    state: &State,
    pool: &mut BTreeMap<&str, &Offer>,
    now: Timestamp,
) -> (Vec<Action>, Option<Timestamp>) {
    let keeping = &state.keeping;
    let mut actions = Vec::new();
    let mut times = Vec::new();
    for (incarnation, kept) in &keeping.clusters {
        if kept.pending.is_some() {
            continue;
        }
        let (incarnation, expected) = (*incarnation, kept.version);
        actions.extend(match kept.next(keeping, now) {
            Some(next) if next.left.is_empty() => Some(Action::Keep(Deed::Forget {
                incarnation,
                expected,
            })),
            Some(next) => {
                let retained = Box::new(next);
                Some(Action::Keep(Deed::Store { retained, expected }))
            }
            None => {
                times.push(match kept.releases() {
                    true => kept.window(now).1,
                    false => kept.retained.destroy_at,
                });
                None
            }
        });
    }
    if state.mesos.connected {
        actions.extend(release(state, pool).map(Action::Keep));
        actions.extend(overdue(state, now, &mut times));
    }
    let acknowledged = keeping
        .gone
        .iter()
        .filter(|(slot, _)| !is_named(state, slot));
    let operations = acknowledged.filter_map(|(_, operation)| operation.clone());
    actions.extend(operations.map(|operation| Action::Keep(Deed::Acknowledge { operation })));
    (actions, times.into_iter().min())
}

/// The offered slots that may be released, an offer at a time.
fn release(state: &State, pool: &mut BTreeMap<&str, &Offer>) -> impl Iterator<Item = Deed> {
    let refusals = |id: &SlotId| state.keeping.tries.get(id).map_or(0, |it| it.refusals);
    let mut deeds = Vec::new();
    for offer in pool.values() {
        let slots = offer
            .slots
            .iter()
            .filter(|slot| may_be_released(state, slot));
        let slots: BTreeMap<SlotId, bool> = slots
            .map(|slot| (slot.id.clone(), refusals(&slot.id) < MOST_REFUSALS))
            .collect();
        if !slots.is_empty() {
            let offer = Box::new((*offer).clone());
            deeds.push(Deed::Release { offer, slots });
        }
    }
    for deed in &deeds {
        if let Deed::Release { offer, .. } = deed {
            pool.remove(offer.id.as_str());
        }
    }
    deeds.into_iter()
}

/// The offers of operations that nothing was heard of.
fn overdue(state: &State, now: Timestamp, times: &mut Vec<Timestamp>) -> Vec<Action> {
    let mut offers = Vec::new();
    for tried in state.keeping.tries.values() {
        let Some(offer) = &tried.offer else { continue };
        let at = tried.at.plus(OPERATION_DEADLINE);
        if at <= now {
            offers.push(offer.clone());
        } else {
            times.push(at);
        }
    }
    offers.dedup();
    let refuse_seconds = 0.0;
    let given_back = (!offers.is_empty()).then_some(Action::Decline {
        offers,
        refuse_seconds,
    });
    given_back.into_iter().collect()
}

/// The living cluster whose record names a slot.
pub fn named_in(state: &State, slot: &SlotId) -> Option<ClusterName> {
    let mut clusters = state.clusters.values();
    let found = clusters.find(|cluster| names(&cluster.record, slot))?;
    Some(found.record.name().clone())
}

/// Whether any record still names a slot that is gone.
fn is_named(state: &State, slot: &SlotId) -> bool {
    let mut kept = state.keeping.clusters.values();
    kept.any(|kept| kept.retained.left.contains_key(slot)) || named_in(state, slot).is_some()
}

impl State {
    /// Offers have come. Slots that were asked to be released without feedback, and were not offered again for long enough, are
    /// gone.
    pub(super) fn take_silence_for_gone(&mut self, now: Timestamp) {
        let offered = |id: &SlotId| self.offers.values().any(|offer| offer.slot(id).is_some());
        let silent = self.keeping.tries.iter().filter(|(slot, tried)| {
            tried.refusals >= MOST_REFUSALS
                && tried.at.plus(OPERATION_DEADLINE) <= now
                && !offered(slot)
        });
        let silent: Vec<SlotId> = silent.map(|(slot, _)| slot.clone()).collect();
        for slot in silent {
            self.keeping.tries.remove(&slot);
            self.keeping.gone.entry(slot).or_insert(None);
        }
    }
}
