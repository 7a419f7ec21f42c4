//! Slots that nobody is to use any more: those of deleted clusters, those of members that have left, and those that were given up.
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
//! While nothing is being destroyed, a deleted cluster can be brought back ([`undelete`](super::undelete)). What is reserved and
//! explained by no record is told of in [`orphans`](super::orphans); what an operator gives up of it is released here.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use uuid::Uuid;

use super::{
    action::{Action, Reply},
    event::{RequestToken, StoredRetained, Version},
    orphans::Orphan,
    placement::{Holds, Offer, OfferedSlot},
    state::State,
};
use crate::{
    cluster::{
        id::ClusterName,
        record::ClusterRecord,
        retained::Retained,
        slot::{Slot, SlotId},
    },
    rules::{Rule, Rules},
    secret::Secret,
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
    /// Incarnations of deleted clusters of which something is stored that cannot be read. It explains their slots.
    pub unusable: BTreeSet<Uuid>,
    /// Slots that are reserved and that no record explains.
    pub orphans: BTreeMap<SlotId, Orphan>,
    /// When to look again even if nothing happens.
    pub again_at: Option<Timestamp>,
    /// Counts the changes of what there is to see: the deleted clusters, what is left of them, and the orphans.
    pub(super) changes: u64,
    /// Slots that are gone, with the operation whose feedback is not acknowledged yet, if there was one.
    gone: BTreeMap<SlotId, Option<String>>,
    /// The slots to be destroyed of members that have left clusters which live on.
    left: BTreeMap<ClusterName, BTreeSet<SlotId>>,
    /// Since when these are looked for.
    left_since: Option<Timestamp>,
    /// What was tried.
    tries: BTreeMap<SlotId, Try>,
}

/// A deleted cluster.
#[derive(Debug)]
pub struct Kept {
    /// What is stored of it.
    pub retained: Retained,
    /// Its version in the store; `None` while it is being stored for the first time.
    pub version: Option<Version>,
    /// The password of its user, if it could be opened: whoever knows it may bring the cluster back.
    pub password: Option<Secret>,
    /// The write that is under way. Until it is done nothing else happens to it.
    pub pending: Option<Writing>,
    /// Since when its slots are looked for.
    looking_since: Option<Timestamp>,
}

/// What is being written about a deleted cluster.
#[derive(Debug)]
pub enum Writing {
    /// It is being replaced.
    Store {
        /// By this.
        retained: Box<Retained>,
        /// To be answered afterwards.
        replies: Vec<(RequestToken, Reply)>,
    },
    /// It is being removed.
    Forget,
    /// The cluster's record is being stored again, in the transaction that removes this.
    Undelete,
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
        /// The version that it replaces; `None` if there is none yet.
        expected: Option<Version>,
        /// Requests to answer once it is stored.
        replies: Vec<(RequestToken, Reply)>,
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
    /// Another number whenever there is something else to see of deleted clusters and orphans.
    pub fn version(&self) -> u64 {
        self.changes
    }

    /// Of the deleted clusters in the store, and those of which something is stored that cannot be read.
    pub fn new(stored: Vec<StoredRetained>, unusable: BTreeSet<Uuid>) -> Self {
        let clusters = stored.into_iter().map(|it| {
            let kept = Kept::new(it.retained, Some(it.version), it.password);
            (kept.retained.incarnation(), kept)
        });
        Self {
            clusters: clusters.collect(),
            unusable,
            changes: 1,
            ..Self::default()
        }
    }

    /// The scheduler is subscribed: slots are looked for from now on.
    pub fn subscribed(&mut self, now: Timestamp) {
        for kept in self.clusters.values_mut() {
            kept.looking_since = Some(now);
        }
        self.left_since = Some(now);
        // Its offers are void, and with them what was tried and not heard of.
        self.tries.retain(|_, tried| tried.refusals > 0);
    }

    /// A cluster was removed, and this is kept of it.
    pub fn removed(&mut self, retained: Retained, version: Version, password: Secret) {
        let kept = Kept::new(retained, Some(version), Some(password));
        self.clusters.insert(kept.retained.incarnation(), kept);
        self.changes += 1;
    }

    /// What was to be stored is. Returns the requests that are to be answered.
    pub fn stored(
        &mut self,
        incarnation: Uuid,
        version: Version,
        now: Timestamp,
    ) -> Vec<(RequestToken, Reply)> {
        let Some(kept) = self.clusters.get_mut(&incarnation) else {
            return Vec::new();
        };
        self.changes += 1;
        kept.version = Some(version);
        let Some(Writing::Store { retained, replies }) = kept.pending.take() else {
            return Vec::new();
        };
        if retained.destroying && *retained != kept.retained {
            kept.looking_since = Some(now);
        }
        kept.retained = *retained;
        let left = &kept.retained.left;
        self.orphans.retain(|slot, _| !left.contains_key(slot));
        replies
    }

    /// The record of a cluster is stored. If that has brought it back, what was kept of it is to be forgotten.
    pub fn record_stored(&mut self, incarnation: Uuid) {
        if let Some(kept) = self.clusters.get_mut(&incarnation)
            && matches!(kept.pending, Some(Writing::Undelete))
        {
            kept.pending = None;
            self.changes += 1;
        }
    }

    /// A cluster is being brought back.
    pub fn begin_undelete(&mut self, incarnation: Uuid) {
        if let Some(kept) = self.clusters.get_mut(&incarnation) {
            kept.pending = Some(Writing::Undelete);
        }
    }

    /// Nothing of a deleted cluster is stored any more.
    pub fn forgotten(&mut self, incarnation: Uuid) {
        self.clusters.remove(&incarnation);
        self.changes += 1;
    }

    /// Whether something is being written about a deleted cluster.
    pub fn is_being_written(&self, incarnation: Uuid) -> bool {
        let kept = self.clusters.get(&incarnation);
        kept.is_some_and(|kept| kept.pending.is_some())
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

    /// The record of a cluster that lives was read or stored, with the slots that members have left. New ones are looked for at
    /// once.
    pub fn note_left(&mut self, record: &ClusterRecord, now: Timestamp) {
        let left = record.departed.values().filter(|left| left.destroy);
        let left: BTreeSet<SlotId> = left
            .filter_map(|left| Some(left.slot.as_ref()?.id.clone()))
            .collect();
        let known = self.left.remove(record.name()).unwrap_or_default();
        if !left.is_subset(&known) {
            self.left_since = Some(now);
        }
        if !left.is_empty() {
            self.left.insert(record.name().clone(), left);
        }
    }

    /// A cluster was removed.
    pub fn forget_left(&mut self, cluster: &ClusterName) {
        self.left.remove(cluster);
    }

    /// Whether it is a time to look for slots that members have left, and when that changes.
    fn window_of_left(&self, now: Timestamp) -> Option<(bool, Timestamp)> {
        (!self.left.is_empty()).then(|| window(self.left_since.unwrap_or(now), now))
    }

    /// Whether a slot is gone.
    pub fn is_gone(&self, slot: &SlotId) -> bool {
        self.gone.contains_key(slot)
    }

    /// Notes that this is being done.
    pub fn begin(&mut self, deed: &Deed, now: Timestamp) {
        match deed {
            Deed::Store {
                retained, replies, ..
            } => {
                let kept = self.clusters.entry(retained.incarnation());
                // Until it is stored it is of no slots.
                let kept = kept.or_insert_with(|| {
                    let left = BTreeMap::new();
                    let none = Retained {
                        left,
                        ..Retained::clone(retained)
                    };
                    Kept::new(none, None, None)
                });
                kept.pending = Some(Writing::Store {
                    retained: retained.clone(),
                    replies: replies.clone(),
                });
            }
            Deed::Forget { incarnation, .. } => {
                if let Some(kept) = self.clusters.get_mut(incarnation) {
                    kept.pending = Some(Writing::Forget);
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

    /// Whether offers are wanted for what is left of deleted clusters, and of members that have left.
    pub fn wants_offers(&self, now: Timestamp) -> bool {
        let mut kept = self.clusters.values();
        kept.any(|kept| kept.releases() && kept.window(now).0)
            || self.window_of_left(now).is_some_and(|(looks, _)| looks)
    }
}

impl Kept {
    fn new(retained: Retained, version: Option<Version>, password: Option<Secret>) -> Self {
        Self {
            retained,
            version,
            password,
            pending: None,
            looking_since: None,
        }
    }

    fn releases(&self) -> bool {
        self.retained.destroying && !self.retained.left.is_empty()
    }

    /// Whether it is a time to look, and when that changes.
    fn window(&self, now: Timestamp) -> (bool, Timestamp) {
        window(self.looking_since.unwrap_or(now), now)
    }

    /// What is to be stored of it next, if that differs from what is.
    fn next(&self, keeping: &Keeping, rules: Rules, now: Timestamp) -> Option<Retained> {
        let Retained {
            destroying,
            destroy_at,
            left,
            ..
        } = &self.retained;
        if !*destroying {
            let due = now >= *destroy_at || !rules.holds(Rule::KeptUntilItsTime);
            return due.then(|| Retained {
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

/// Whether what is looked for since then is looked for now, and when that changes.
fn window(since: Timestamp, now: Timestamp) -> (bool, Timestamp) {
    let millis = now.since(since).as_millis() % PERIOD.as_millis();
    let passed = Duration::from_millis(millis as u64);
    match passed < WINDOW {
        true => (true, now.plus(WINDOW - passed)),
        false => (false, now.plus(PERIOD - passed)),
    }
}

/// Whether a record names a slot as a member's.
pub(super) fn names(record: &ClusterRecord, id: &SlotId) -> bool {
    let mut members = record.members.values();
    let mut departed = record.departed.values().filter_map(|it| it.slot.as_ref());
    let of_a_member = members.any(|member| {
        member
            .slot
            .iter()
            .chain(&member.given_up)
            .any(|slot| slot.id == *id)
    });
    of_a_member || departed.any(|slot| slot.id == *id)
}

/// Whether this is all of the slot of a member that has left a living cluster, and is to be destroyed.
fn was_left(state: &State, slot: &OfferedSlot) -> bool {
    let Some(cluster) = state.of_incarnation(slot.owner.incarnation) else {
        return false;
    };
    let left = cluster.record.departed.get(&slot.owner.member);
    left.is_some_and(|left| {
        // Its executor may hold a part of it for a moment longer than the task.
        let whole = |it: &Slot| it.id == slot.id && slot.holds(it) != Holds::Part;
        left.destroy && left.slot.as_ref().is_some_and(whole)
    })
}

/// Whether a living cluster has given up this slot.
fn was_given_up(state: &State, slot: &OfferedSlot) -> bool {
    let Some(cluster) = state.of_incarnation(slot.owner.incarnation) else {
        return false;
    };
    let member = cluster.record.members.get(&slot.owner.member);
    member.is_some_and(|member| member.given_up.iter().any(|it| it.id == slot.id))
}

/// Whether a slot may be released now: its cluster was deleted and that is stored as being carried out, it was given up, or its
/// member has left and that is stored.
pub fn may_be_released(state: &State, slot: &OfferedSlot) -> bool {
    let incarnation = slot.owner.incarnation;
    let kept = state.keeping.clusters.get(&incarnation);
    let unstored = !state.policy.rules.holds(Rule::IntentionComesFirst);
    let destroying = kept.is_some_and(|kept| {
        (kept.retained.destroying || unstored) && kept.retained.left.contains_key(&slot.id)
    });
    // With local files a crash may leave both the record of a cluster and what is kept of it.
    let deleted = destroying && state.of_incarnation(incarnation).is_none();
    deleted || was_given_up(state, slot) || was_left(state, slot)
}

/// Forgets the slots that a living cluster had given up and that are gone.
pub fn forget_gone(next: &mut ClusterRecord, keeping: &Keeping) {
    for member in next.members.values_mut() {
        member.given_up.retain(|slot| !keeping.is_gone(&slot.id));
    }
}

/// What is to be done with slots that nobody is to use; offers that are used for it are taken out of `pool`. Also, when to look
/// again even if nothing happens. Nothing is stored about those of `written`, about which a request has just had something stored.
pub fn plan(
    state: &State,
    written: &[Uuid],
    pool: &mut BTreeMap<&str, &Offer>,
    now: Timestamp,
) -> (Vec<Action>, Option<Timestamp>) {
    let keeping = &state.keeping;
    let mut actions = Vec::new();
    let mut times = Vec::new();
    times.extend(keeping.window_of_left(now).map(|(_, until)| until));
    let kept = keeping.clusters.iter();
    for (incarnation, kept) in kept.filter(|(incarnation, _)| !written.contains(incarnation)) {
        let Some(expected) = kept.version.filter(|_| kept.pending.is_none()) else {
            continue;
        };
        let (deed, at) = match state.of_incarnation(*incarnation) {
            Some(living) => (of_living(&living.record, kept, expected), None),
            None => of_deleted(keeping, kept, expected, state.policy.rules, now),
        };
        actions.extend(deed.map(Action::Keep));
        times.extend(at);
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

/// What is to be stored about a deleted cluster next, or when to look again.
fn of_deleted(
    keeping: &Keeping,
    kept: &Kept,
    expected: Version,
    rules: Rules,
    now: Timestamp,
) -> (Option<Deed>, Option<Timestamp>) {
    match kept.next(keeping, rules, now) {
        Some(next) if next.left.is_empty() => {
            let incarnation = next.incarnation();
            let forget = Deed::Forget {
                incarnation,
                expected,
            };
            (Some(forget), None)
        }
        Some(next) => {
            let store = Deed::Store {
                retained: Box::new(next),
                expected: Some(expected),
                replies: Vec::new(),
            };
            (Some(store), None)
        }
        None if kept.releases() => (None, Some(kept.window(now).1)),
        None => (None, Some(kept.retained.destroy_at)),
    }
}

/// What is kept of a cluster whose record is there as well.
///
/// If the cluster was brought back, that is to be forgotten; in ZooKeeper it went in the transaction that brought the record, with
/// local files a crash may come between the two. If the cluster is being deleted, with local files a crash came
/// between the file of what is kept and the removal of the record, which is done again. Either way nothing of it is destroyed.
fn of_living(record: &ClusterRecord, kept: &Kept, expected: Version) -> Option<Deed> {
    let came_back = kept.retained.record.is_some() && !kept.retained.destroying;
    (came_back && !record.deleting).then(|| Deed::Forget {
        incarnation: record.uuid,
        expected,
    })
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
    // Several slots may have been in one offer.
    offers.sort_unstable();
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
            self.keeping.changes += 1;
            self.keeping.gone.entry(slot).or_insert(None);
        }
    }
}
