//! Voters that are out of their place: since when, and whether they leave for it.
//!
//! Two things put a voter out of its place. It is *absent*: dead, not receiving, or with an applier that stopped. Or it
//! *lags*: it receives and acknowledges, and applies what it receives too late. After [`Policy::voter_patience`] either
//! leaves, unless that would cost more than it brings:
//!
//! * An absent voter brings nothing. It leaves if the others can acknowledge without it and two voters stay.
//! * A lagging voter has every write that it acknowledged, in its relay log; what it costs is time, should it be elected. It
//!   leaves if enough others do not lag, and either a member stands ready to take its place, or as many servers as before have
//!   each write without it and the cluster still survives that any one of those that stay fails. So no voter of three or four leaves for its lag, unless
//!   it is replaced, and one of five does.

use std::collections::BTreeMap;

use super::{
    failover::View,
    observed::{Presence, silence_counts_from},
    state::Policy,
};
use crate::{
    cluster::{
        control::{MemberState, Report},
        flavour::Flavour,
        id::MemberId,
        record::ClusterRecord,
    },
    time::Timestamp,
};

/// How few voters are left in any case. With two, each needs the other's acknowledgement; one alone would promise
/// what a single server can promise, which nobody has asked for.
pub const FEWEST_VOTERS: usize = 2;

/// How few voters may be left: [`FEWEST_VOTERS`], unless a single node was asked for.
pub fn fewest_voters(record: &ClusterRecord) -> usize {
    match record.spec.num_nodes {
        1 => 1,
        _ => FEWEST_VOTERS,
    }
}

/// A voter that lags is well again when it is behind by no more than this part of the bound: one that
/// is about as far behind as the bound allows must not leave and come back all the time.
const WELL_AGAIN: u32 = 4;

/// The voters that are out of their place, as far as this scheduler has seen it.
pub type Unfit = BTreeMap<MemberId, Ailment>;

/// Why and since when a voter is out of its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ailment {
    /// Since when.
    pub since: Timestamp,
    /// What it is.
    pub kind: Kind,
    /// When it leaves for it, if it still lasts then.
    pub due: Timestamp,
    /// Why it stays nonetheless, if it does.
    pub stays: Option<Stays>,
}

/// What puts a voter out of its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It is dead, does not receive, or its applier stopped.
    Absent,
    /// It applies what it receives too late, by so many seconds at the least.
    Lags(u64),
}

/// Why a voter stays though it is out of its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stays {
    /// See [`FEWEST_VOTERS`].
    #[error("two voters stay in any case")]
    Fewest,
    /// Without it there are too few.
    #[error("the others are too few to acknowledge without it")]
    Needed,
    /// It lags, and its acknowledgements are worth more.
    #[error(
        "its acknowledgements count: without it, fewer servers would have each write, or the cluster would not survive another failure"
    )]
    Useful,
}

/// What to do about a voter that is out of its place for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// It leaves.
    Leave,
    /// The master waits for so many acknowledgements only, which gives writes back; then it leaves.
    Lower(u32),
    /// It stays.
    Stay(Stays),
}

impl Ailment {
    /// The same as a sentence about the member.
    pub fn sentence(&self, member: MemberId) -> String {
        let what = match self.kind {
            Kind::Absent => "is dead, does not receive, or its applier has stopped".to_owned(),
            Kind::Lags(seconds) => {
                format!("is {seconds} s or more behind in applying what it receives")
            }
        };
        let course = match self.stays {
            Some(stays) => format!("it stays a voter: {stays}"),
            None => format!("if that lasts until {}, it leaves the voters", self.due),
        };
        format!("voter {member} {what}, since {}; {course}", self.since)
    }
}

/// Which voters are out of their place. Only while there is a master that accepts writes: without one nobody is in
/// it. Silence that may be ZooKeeper's doing does not count.
pub fn unfit(record: &ClusterRecord, view: View<'_>) -> Unfit {
    let Some(elected) = record.elected().filter(|elected| elected.opened) else {
        return view.unfit.clone();
    };
    if view.now < silence_counts_from(view.listening_since, view.policy.session_timeout) {
        return Unfit::new();
    }
    let flavour = record.server.as_ref().map(|server| server.flavour);
    let others = record.voters.members.keys().copied();
    others
        .filter(|member| *member != elected.member)
        .filter_map(|member| {
            let known = view.unfit.get(&member);
            let kind = kind(record, view, member, known)?;
            let since = known
                .filter(|known| known.kind.is_like(kind))
                .map_or(view.now, |known| known.since);
            let stays =
                flavour.and_then(
                    |flavour| match course(record, view, flavour, member, kind) {
                        Course::Stay(stays) => Some(stays),
                        Course::Leave | Course::Lower(_) => None,
                    },
                );
            let ailment = Ailment {
                since,
                kind,
                due: since.plus(view.policy.voter_patience),
                stays,
            };
            Some((member, ailment))
        })
        .collect()
}

impl Kind {
    fn is_like(self, other: Self) -> bool {
        matches!(
            (self, other),
            (Self::Absent, Self::Absent) | (Self::Lags(_), Self::Lags(_))
        )
    }
}

fn kind(
    record: &ClusterRecord,
    view: View<'_>,
    member: MemberId,
    known: Option<&Ailment>,
) -> Option<Kind> {
    let Presence::Live(report) = view.observed.presence(record, member) else {
        return Some(Kind::Absent);
    };
    if !in_place(record, report) {
        return Some(Kind::Absent);
    }
    let lagged = known.is_some_and(|known| matches!(known.kind, Kind::Lags(_)));
    let lags = if lagged {
        !has_caught_up(report, view.policy)
    } else {
        report.lag_seconds >= view.policy.voter_lag.as_secs()
    };
    lags.then_some(Kind::Lags(report.lag_seconds))
}

/// Whether a member lags by so little that it may become a voter.
pub fn has_caught_up(report: &Report, policy: &Policy) -> bool {
    report.lag_seconds <= (policy.voter_lag / WELL_AGAIN).as_secs()
}

/// Whether a member follows the current master, and receives and applies.
pub fn in_place(record: &ClusterRecord, report: &Report) -> bool {
    let state = MemberState::Following {
        epoch: record.epoch,
        ready: true,
    };
    report.state == state && report.process.is_some()
}

/// The voters that can acknowledge, the master not among them.
pub fn acknowledgers<'a>(
    record: &'a ClusterRecord,
    view: View<'a>,
) -> impl Iterator<Item = MemberId> + 'a {
    let voters = record.voters.members.iter();
    voters.filter_map(move |(member, data)| {
        let report = view.observed.live(record, *member)?;
        let able = report.data == *data
            && data.is_some()
            && in_place(record, report)
            && !record.terms.barred.contains(member);
        able.then_some(*member)
    })
}

/// What is to be done about a voter that is out of its place for too long.
pub fn course(
    record: &ClusterRecord,
    view: View<'_>,
    flavour: Flavour,
    member: MemberId,
    kind: Kind,
) -> Course {
    let voters = record.voters.members.len();
    let k = record.voters.k_floor as usize;
    if voters <= fewest_voters(record) {
        return Course::Stay(Stays::Fewest);
    }
    let others = || acknowledgers(record, view).filter(|other| *other != member);
    match kind {
        Kind::Absent => match others().count() {
            left if left >= k => Course::Leave,
            // Too many are gone for the others to acknowledge without them. Waiting for fewer gives writes back, and an
            // election asks for the more reports.
            left if k > 1 && left >= 1 => Course::Lower(left as u32),
            _ => Course::Stay(Stays::Needed),
        },
        Kind::Lags(_) => {
            let well = |other: &MemberId| {
                let report = view.observed.live(record, *other);
                report.is_some_and(|report| has_caught_up(report, view.policy))
            };
            // Where most of them lag, a statement that takes long is at work everywhere, and nobody is better.
            if others().filter(well).count() < k.max(1) {
                return Course::Stay(Stays::Useful);
            }
            let is_replaced = voters > record.spec.durability.most_voters(flavour)
                || spare(record, view, flavour).is_some();
            let after = record.spec.durability.acknowledgements(voters - 1, flavour);
            // Those that lag acknowledge as well as others.
            let as_safe = after as usize >= k && others().count() > k;
            if is_replaced || as_safe {
                Course::Leave
            } else {
                Course::Stay(Stays::Useful)
            }
        }
    }
}

/// A member that could vote in the place of one that lags: one that the flavour's limit alone keeps from voting.
pub fn spare(record: &ClusterRecord, view: View<'_>, flavour: Flavour) -> Option<MemberId> {
    let limit = record.spec.durability.most_voters(flavour);
    if record.voters.members.len() < limit {
        // Who could vote does.
        return None;
    }
    let mut members = record.members.keys();
    let spare = members.find(|member| could_vote(record, view, **member).is_some())?;
    Some(*spare)
}

/// The report of a member that follows, is ready, and does not vote.
pub fn could_vote<'a>(
    record: &ClusterRecord,
    view: View<'a>,
    member: MemberId,
) -> Option<&'a Report> {
    let out = !record.is_voter(member)
        && !record.terms.barred.contains(&member)
        && !record.is_leaving(member);
    let report = view.observed.live(record, member).filter(|_| out)?;
    let is_ready =
        report.data.is_some() && in_place(record, report) && has_caught_up(report, view.policy);
    is_ready.then_some(report)
}
