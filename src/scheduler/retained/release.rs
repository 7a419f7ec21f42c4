//! The end of slots: which may be released now, what is asked of their agents, and how it is known that it is done.

use std::{collections::BTreeMap, time::Duration};

use super::Deed;
use crate::{
    cluster::slot::{Slot, SlotId},
    rules::Rule,
    scheduler::{
        action::Action,
        placement::{Holds, Offer, OfferedSlot},
        state::State,
    },
    time::Timestamp,
};

/// How long an agent may take to destroy a volume and say so. Then the offer is given back, in case that the call was lost.
const OPERATION_DEADLINE: Duration = Duration::from_secs(60);

/// After so many refusals the operation is sent without asking for feedback. A master refuses to pass the request for it to
/// agents without `AGENT_OPERATION_FEEDBACK`.
const MOST_REFUSALS: u32 = 2;

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
    let member = member.map(|member| &member.given_up);
    let departed = cluster.record.departed.get(&slot.owner.member);
    let departed = departed.map(|left| &left.given_up);
    let mut given_up = member.into_iter().chain(departed).flatten();
    given_up.any(|it| {
        // One whose launch got there is all there, and its executor may hold a part of it for a moment.
        let whole = it.launch_lost_at.is_some() || slot.holds(it) != Holds::Part;
        it.id == slot.id && whole
    })
}

/// Whether a slot may be released now: its cluster was deleted and that is stored as being carried out, it was given up, or its
/// member has left and that is stored.
pub fn may_be_released(state: &State, slot: &OfferedSlot) -> bool {
    let incarnation = slot.owner.incarnation;
    let kept = state.keeping.clusters.get(&incarnation);
    let unstored = !state.policy.rules.holds(Rule::IntentionComesFirst);
    let destroying = kept.is_some_and(|kept| {
        let retained = &kept.retained;
        let left = retained.left.get(&slot.id);
        // An executor may hold a part of it for a moment longer than the task. Of what no record explains nobody knows how much it is.
        let whole = left.is_some_and(|it| {
            retained.record.is_none() || !it.used || slot.holds(it) != Holds::Part
        });
        whole && (retained.is_to_go(&slot.id) || unstored)
    });
    // With local files a crash may leave both the record of a cluster and what is kept of it.
    let deleted = destroying && state.of_incarnation(incarnation).is_none();
    deleted || was_given_up(state, slot) || was_left(state, slot)
}

/// How long after the launch on a slot has come to nothing, an offer of its agent without it says that it was never made, or that it is gone.
const NEVER_MADE_AFTER: Duration = Duration::from_secs(600);

/// The offered slots that may be released, an offer at a time.
pub(super) fn release(
    state: &State,
    pool: &mut BTreeMap<&str, &Offer>,
) -> impl Iterator<Item = Deed> {
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
pub(super) fn overdue(state: &State, now: Timestamp, times: &mut Vec<Timestamp>) -> Vec<Action> {
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

impl State {
    /// Offers are about to come. Slots that were asked to be released without feedback are gone when their agents are offered
    /// without them, a while after that; and so were never there, or are gone, those of living clusters whose launches came to nothing long
    /// ago. An agent that is away is not offered, so it says nothing of its slots.
    pub(in crate::scheduler) fn take_absence_for_gone(&mut self, offers: &[Offer], now: Timestamp) {
        let held = |id: &SlotId| {
            let mut all = self.offers.values().chain(offers);
            all.any(|offer| offer.slot(id).is_some())
        };
        let absent = self.keeping.tries.iter().filter(|(slot, tried)| {
            tried.refusals >= MOST_REFUSALS
                && tried.at.plus(OPERATION_DEADLINE) <= now
                && offers.iter().any(|it| it.agent_id == tried.agent_id)
                && !held(slot)
        });
        let mut absent: Vec<SlotId> = absent.map(|(slot, _)| slot.clone()).collect();
        for (cluster, slots) in &self.keeping.left {
            let never_made = slots.iter().filter(|(slot, sought)| {
                let since = sought.unused_since;
                since.is_some_and(|since| since.plus(NEVER_MADE_AFTER) <= now)
                    && offers.iter().any(|it| it.agent_id == sought.agent_id)
                    && !held(slot)
            });
            let before = absent.len();
            absent.extend(never_made.map(|(slot, _)| slot.clone()));
            if absent.len() > before {
                self.touched.insert(cluster.clone());
            }
        }
        for slot in absent {
            self.keeping.tries.remove(&slot);
            self.keeping.changes += 1;
            self.keeping.gone.entry(slot).or_insert(None);
        }
    }
}
