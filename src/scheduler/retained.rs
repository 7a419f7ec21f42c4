//! Slots that nobody is to use any more: those of deleted clusters, those of members that have left, and those that were given up.
//!
//! ```text
//! kept --its time has come--> destroying (stored) --offered--> DESTROY, UNRESERVE --feedback--> gone (stored)
//! ```
//!
//! The intention to destroy is stored before the first volume is destroyed, and never taken back. A slot counts as gone when
//! its agent says that the operation is done; an agent that gives no such feedback is asked without it, and then the slot counts
//! as gone when that agent is offered without it. The feedback is acknowledged when what follows from it is stored, so that
//! a scheduler that dies in between hears it again.
//!
//! Offers are wanted for it in short windows only: the agent of a slot may be away for ever, and offers that nobody
//! needs must not come every second for as long.
//!
//! While nothing is being destroyed, a deleted cluster can be brought back ([`undelete`](super::undelete)). What is reserved and
//! explained by no record is told of in [`orphans`](super::orphans). What an administrator gives up of what is kept
//! ([`reclaim`](super::reclaim)) is released here, at once.

mod lingering;
mod release;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use uuid::Uuid;

pub(super) use self::lingering::tasks_of;
pub use self::release::may_be_released;
use self::{
    lingering::Lingering,
    release::{overdue, release},
};
use super::{
    action::{Action, Reply},
    event::{RequestToken, StoredRetained, Version},
    orphans::Orphan,
    placement::Offer,
    state::State,
};
use crate::{
    cluster::{
        id::{ClusterName, TaskId},
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

/// How long a slot of a deleted cluster is looked for that was never heard of, and so may never have been.
const UNSEEN_PATIENCE: Duration = Duration::from_secs(900);

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
    /// What clusters that live on do not use any more: the slots to be destroyed of members that have left, and those that were given up.
    left: BTreeMap<ClusterName, BTreeMap<SlotId, Sought>>,
    /// Since when these are looked for.
    left_since: Option<Timestamp>,
    /// What was tried.
    tries: BTreeMap<SlotId, Try>,
    /// Tasks of deleted clusters that run.
    lingering: BTreeMap<TaskId, Lingering>,
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

/// A slot that is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sought {
    agent_id: String,
    /// Of one that was never used, and may not exist: since when its launch is known to have come to nothing.
    unused_since: Option<Timestamp>,
    /// Whether a task may run on it, so that it is not offered.
    runs: bool,
}

#[derive(Debug, Clone)]
struct Try {
    at: Timestamp,
    /// The agent that was asked.
    agent_id: String,
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
        for tried in self.tries.values_mut() {
            // Another master knows what an agent has when that has registered with it.
            tried.at = now;
        }
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
        let releases = retained.destroying || !retained.reclaimed.is_empty();
        if releases && *retained != kept.retained {
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
            && kept.comes_back()
        {
            kept.pending = None;
            self.changes += 1;
            self.forget_lingering(incarnation);
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
        self.forget_lingering(incarnation);
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
        let departed = record.departed.values();
        let departed = departed.flat_map(|left| {
            let own = left.slot.iter().filter(|_| left.destroy);
            let own = own.map(|slot| (slot, left.task.is_some()));
            own.chain(left.given_up.iter().map(|slot| (slot, false)))
        });
        let members = record.members.values();
        let given_up = members.flat_map(|member| member.given_up.iter().map(|slot| (slot, false)));
        let left: BTreeMap<SlotId, Sought> = departed
            .chain(given_up)
            .map(|(slot, runs)| (slot.id.clone(), Sought::new(slot, runs)))
            .collect();
        let known = self.left.remove(record.name()).unwrap_or_default();
        let is_free_now = |(slot, sought): (&SlotId, &Sought)| {
            let before = known.get(slot);
            before.is_none_or(|before| before.runs && !sought.runs)
        };
        if left.iter().any(is_free_now) {
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
                        agent_id: offer.agent_id.clone(),
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

impl Sought {
    fn new(slot: &Slot, runs: bool) -> Self {
        Self {
            runs,
            agent_id: slot.agent_id.clone(),
            unused_since: slot.launch_lost_at.filter(|_| !slot.used),
        }
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

    /// Whether its record is being stored again.
    fn comes_back(&self) -> bool {
        matches!(self.pending, Some(Writing::Undelete))
    }

    fn releases(&self) -> bool {
        let mut left = self.retained.left.keys();
        left.any(|slot| self.retained.is_to_go(slot))
    }

    /// Whether it is a time to look, and when that changes.
    fn window(&self, now: Timestamp) -> (bool, Timestamp) {
        window(self.looking_since.unwrap_or(now), now)
    }

    /// What is to be stored of it next, if that differs from what is. `connected`: a Mesos master makes offers.
    fn next(
        &self,
        keeping: &Keeping,
        rules: Rules,
        connected: bool,
        now: Timestamp,
    ) -> Option<Retained> {
        let Retained {
            destroying,
            destroy_at,
            left,
            ..
        } = &self.retained;
        let due = now >= *destroy_at || !rules.holds(Rule::KeptUntilItsTime);
        if !*destroying && due {
            return Some(Retained {
                destroying: true,
                ..self.retained.clone()
            });
        }
        let looked_for = self.looking_since.filter(|_| connected);
        let over = looked_for.is_some_and(|since| now >= since.plus(UNSEEN_PATIENCE));
        let is_left = |id: &SlotId, slot: &Slot| {
            !self.retained.is_to_go(id) || !keeping.is_gone(id) && (slot.used || !over)
        };
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
    let mut departed = record
        .departed
        .values()
        .flat_map(|left| left.slot.iter().chain(&left.given_up));
    let of_a_member = members.any(|member| {
        member
            .slot
            .iter()
            .chain(&member.given_up)
            .any(|slot| slot.id == *id)
    });
    of_a_member || departed.any(|slot| slot.id == *id)
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
            None => of_deleted(state, kept, expected, now),
        };
        actions.extend(deed.map(Action::Keep));
        times.extend(at);
    }
    if state.mesos.connected {
        actions.extend(keeping.kills(now, &mut times));
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
    state: &State,
    kept: &Kept,
    expected: Version,
    now: Timestamp,
) -> (Option<Deed>, Option<Timestamp>) {
    let (keeping, rules) = (&state.keeping, state.policy.rules);
    match kept.next(keeping, rules, state.mesos.connected, now) {
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
        None => {
            let windows = kept.releases().then(|| kept.window(now).1);
            let due = Some(kept.retained.destroy_at).filter(|_| !kept.retained.destroying);
            (None, windows.into_iter().chain(due).min())
        }
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
