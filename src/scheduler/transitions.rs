//! The steps in which the voters, and the acknowledgements that elections count with, may change.
//!
//! What is safe in every state between them: *every acknowledged write is held by `k_floor + 1` voters*, so that any
//! `|V| - k_floor` reports meet it. It needs that everybody who may acknowledge is in `V`, and that the master waits for
//! no fewer than `k_floor`. Hence two orders:
//!
//! * What makes an election ask for more, [`admit`] and [`lower`], is stored before the world changes.
//! * What makes it ask for less, [`begin`] ... [`complete`], is stored after the world has changed: the master was told
//!   ([`Terms`]), it has confirmed, and a canary that was asked for after that ([`confirm`]) was acknowledged. That canary's
//!   acknowledgement covers everything before it, so from then on the `k_floor + 1` holders of every write are among the
//!   voters that remain.
//!
//! A scheduler may die after each of them: what is under way stands in the record. A change ends with its epoch
//! ([`begin_epoch`]), because nothing is known of how far its master got; until it is complete nothing counts with it.
//!
//! `scheduler/tests/voters.rs` tries every order of these steps with everything that the world can do between them.

use crate::cluster::{
    id::{DataId, MemberId},
    record::ClusterRecord,
    spec,
    voters::{ChangeKind, Terms, VoterChange},
};

/// Takes a member into the voters, or stores the data that a voter votes with from now on.
///
/// A member that was no voter counts at once, whatever it holds: of the one report more that an election needs, it gives
/// at most one, so the others are as many as before. That also holds for a voter that had left and comes back with its
/// old data: what it acknowledged then is held by `k_floor + 1` of those that remained. A voter with *other* data than it had
/// is another matter: see [`super::voting`].
pub fn admit(record: &mut ClusterRecord, member: MemberId, data: DataId) {
    record.voters.members.insert(member, Some(data));
    record.voters.version += 1;
    record.rejoining.remove(&member);
}

/// Lowers `k_floor`. The master may wait for more until it has read of it.
pub fn lower(record: &mut ClusterRecord, k_floor: u32) {
    record.voters.k_floor = record.voters.k_floor.min(k_floor);
    record.voters.version += 1;
    if let Some(VoterChange {
        kind: ChangeKind::Raise { .. },
        ..
    }) = record.change
    {
        record.change = None;
    }
    tell(record);
}

/// Begins a change that is stored only when the world has changed. One at a time: an earlier one is given up.
pub fn begin(record: &mut ClusterRecord, kind: ChangeKind) {
    give_up(record);
    record.change = Some(VoterChange { kind, canary: None });
    match kind {
        ChangeKind::Remove { member } => {
            record.terms.barred.insert(member);
        }
        ChangeKind::Raise { .. } => {}
    }
    tell(record);
}

/// Takes the master's confirmation of the terms in, and asks for the canary.
pub fn confirm(record: &mut ClusterRecord, in_force: &Terms) {
    if *in_force != record.terms {
        return;
    }
    if let Some(change @ VoterChange { canary: None, .. }) = &mut record.change {
        record.canary += 1;
        change.canary = Some(record.canary);
    }
}

/// Stores the change, if its canary was acknowledged under its terms. `acknowledged` is the highest one that the master
/// has reported together with `in_force`.
pub fn complete(record: &mut ClusterRecord, in_force: &Terms, acknowledged: u64) {
    let Some(VoterChange {
        kind,
        canary: Some(canary),
    }) = record.change
    else {
        return;
    };
    // The master writes the canaries of a goal under the terms of that goal: one of these terms' number was begun since
    // they are in force.
    if *in_force != record.terms || acknowledged < canary {
        return;
    }
    match kind {
        // It stays barred: it may not know yet that it is no voter.
        ChangeKind::Remove { member } => {
            record.voters.members.remove(&member);
            record.rejoining.remove(&member);
        }
        ChangeKind::Raise { k_floor } => record.voters.k_floor = k_floor,
    }
    record.voters.version += 1;
    record.change = None;
}

/// Gives up the change that is under way, if there is one. Nothing counts with it yet.
pub fn give_up(record: &mut ClusterRecord) {
    match record.change.take().map(|change| change.kind) {
        Some(ChangeKind::Remove { member }) => {
            record.terms.barred.remove(&member);
            tell(record);
        }
        Some(ChangeKind::Raise { .. }) => tell(record),
        None => {}
    }
}

/// Lets a member receive again that has left the voters, if it does not acknowledge and has read that it is none of
/// them (`voters_seen` is the version of the voters that it has read): it never will then, before it reads that it is.
pub fn let_in(record: &mut ClusterRecord, member: MemberId, acknowledges: bool, voters_seen: u64) {
    let voter = record.voters.members.contains_key(&member);
    let knows = !acknowledges && voters_seen == record.voters.version;
    if knows && !voter && record.terms.barred.remove(&member) {
        tell(record);
    }
}

/// What an epoch starts with: `k = k_floor`, no voter barred, no change under way.
///
/// Who was barred and is no voter any more stays barred until it knows. Out of touch it may still point at a server that is
/// master again in the new epoch, by its address, and would be heard there as soon as its account is unlocked.
pub fn begin_epoch(record: &mut ClusterRecord) {
    record.change = None;
    let voters = &record.voters.members;
    record
        .terms
        .barred
        .retain(|member| !voters.contains_key(member));
    tell(record);
}

/// A member has left whose server is known to have ended: nothing needs to be kept from it any more.
pub fn forget(record: &mut ClusterRecord, member: MemberId) {
    if !record.voters.members.contains_key(&member) && record.terms.barred.remove(&member) {
        tell(record);
    }
}

/// Has the master make replication accounts for members whose numbers are beyond those that a data directory is born with.
pub fn provide_accounts(record: &mut ClusterRecord) {
    if record.members_made > spec::MAX_NODES && record.members_made > record.terms.accounts {
        record.terms.accounts = record.members_made;
        tell(record);
    }
}

/// Makes the terms what the record says. They get a new number, so that no earlier report confirms them.
fn tell(record: &mut ClusterRecord) {
    let raised = match record.change {
        Some(VoterChange {
            kind: ChangeKind::Raise { k_floor },
            ..
        }) => k_floor,
        Some(VoterChange {
            kind: ChangeKind::Remove { .. },
            ..
        })
        | None => 0,
    };
    record.terms.number += 1;
    record.terms.acknowledgements = raised.max(record.voters.k_floor);
    if let Some(change) = &mut record.change {
        // A canary that was asked for under other terms proves nothing about these.
        change.canary = None;
    }
}
