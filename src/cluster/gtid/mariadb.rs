//! MariaDB's GTID positions: the last transaction of each replication domain.
//!
//! The text form is that of `gtid_slave_pos`: `0-1-100,1-1-3`, each `domain-server-sequence`
//! (MariaDB knowledge base, "Global Transaction ID").

use std::{cmp::Ordering, collections::BTreeMap, fmt, str::FromStr};

use super::ParseGtidError;

/// The domain of all that clients write. It is the server's default, and the cluster's user cannot
/// choose another (that takes BINLOG REPLAY).
pub const DATA_DOMAIN: u32 = 0;

/// The domain that holds nothing but markers: there the sequence number of a transaction is its epoch.
/// The value spells "CTN" in ASCII, so that no domain that anybody counts up from 0 meets it.
pub const MARKER_DOMAIN: u32 = 0x43_54_4e;

/// The last transaction of each domain. With `gtid_strict_mode` numbers only grow within a domain, so
/// that a server that has this one has all those before it *in the same history*; which history it was,
/// numbers do not tell (see [`super::extras`]).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GtidList(BTreeMap<u32, Last>);

/// The last transaction of one domain. The order is that of the sequence number first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Last {
    sequence: u64,
    server: u32,
}

impl Last {
    /// Whether a server whose last transaction is this one has `other`, as far as numbers tell: the same
    /// number from two servers is two transactions.
    fn covers(self, other: Self) -> bool {
        self.sequence > other.sequence || self == other
    }
}

impl GtidList {
    /// The position before the first transaction.
    pub fn new() -> Self {
        Self::default()
    }

    /// The position at one transaction.
    pub fn one(domain: u32, server: u32, sequence: u64) -> Self {
        Self(BTreeMap::from([(domain, Last { sequence, server })]))
    }

    /// Whether no domain has a transaction.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The last sequence number of a domain; 0 if it has none.
    pub fn sequence(&self, domain: u32) -> u64 {
        self.0.get(&domain).map_or(0, |last| last.sequence)
    }

    /// The sum of all sequence numbers: it grows with every transaction that is added, by one as a rule.
    pub fn sum(&self) -> u64 {
        self.0
            .values()
            .fold(0, |sum, last| sum.saturating_add(last.sequence))
    }

    /// The server that wrote the last transaction of a domain.
    pub fn server(&self, domain: u32) -> Option<u32> {
        self.0.get(&domain).map(|last| last.server)
    }

    /// The domains whose last transaction was written by a server.
    pub fn written_by(&self, server: u32) -> Self {
        let own = self.0.iter().filter(|(_, last)| last.server == server);
        Self(own.map(|(domain, last)| (*domain, *last)).collect())
    }

    /// All domains but one.
    pub fn without(&self, domain: u32) -> Self {
        let mut rest = self.clone();
        rest.0.remove(&domain);
        rest
    }

    /// The part of it in the domains that `other` has.
    pub fn in_domains_of(&self, other: &Self) -> Self {
        let shared = self
            .0
            .iter()
            .filter(|(domain, _)| other.0.contains_key(domain));
        Self(shared.map(|(domain, last)| (*domain, *last)).collect())
    }

    /// Whether it has, in every domain of `other`, that transaction or a later one.
    pub fn contains(&self, other: &Self) -> bool {
        other.minus(self).is_empty()
    }

    /// The later transaction of each domain. Of two with the same number, that of the greater server id.
    pub fn union(&self, other: &Self) -> Self {
        let mut lasts = self.0.clone();
        for (domain, last) in &other.0 {
            let known = lasts.entry(*domain).or_insert(*last);
            *known = (*known).max(*last);
        }
        Self(lasts)
    }

    /// The earlier transaction of each domain that both have: how far they go together, if they lie in one history.
    pub fn intersection(&self, other: &Self) -> Self {
        let both = self.0.iter().filter_map(|(domain, last)| {
            let theirs = other.0.get(domain)?;
            Some((*domain, if theirs.covers(*last) { *last } else { *theirs }))
        });
        Self(both.collect())
    }

    /// The domains in which this position has a transaction that `other` lacks, with the last of them.
    pub fn minus(&self, other: &Self) -> Self {
        let lacking = |(domain, last): &(&u32, &Last)| {
            other
                .0
                .get(domain)
                .is_none_or(|theirs| !theirs.covers(**last))
        };
        Self(
            self.0
                .iter()
                .filter(lacking)
                .map(|(domain, last)| (*domain, *last))
                .collect(),
        )
    }

    /// Takes in one transaction, read from a log in the order of the log: the later one stays.
    pub fn advance(&mut self, domain: u32, server: u32, sequence: u64) {
        self.0.insert(domain, Last { sequence, server });
    }

    /// The `gtid_binlog_state` of a server that begins at this position, from that of one that was here and has gone
    /// further: for each server that ever wrote, how far that is in the past.
    ///
    /// A server that lacks anything from before this position must not begin to follow here, and a master tells by
    /// its state: it refuses whoever asks for what comes after a transaction of a server up to the number that the
    /// state has for that server. The number of one that wrote again later is not known; this position's own
    /// number is not too low for it.
    ///
    /// # Errors
    /// When the text is no such state.
    pub fn binlog_state(&self, later: &str) -> Result<String, ParseGtidError> {
        let mut state = Vec::new();
        let entries: Vec<Self> = later
            .split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        for (domain, here) in &self.0 {
            for entry in &entries {
                if let Some(last) = entry
                    .0
                    .get(domain)
                    .filter(|last| last.server != here.server)
                {
                    let number = last.sequence.min(here.sequence);
                    state.push(format!("{domain}-{}-{number}", last.server));
                }
            }
            // The last one of a domain is the latest.
            state.push(format!("{domain}-{}-{}", here.server, here.sequence));
        }
        Ok(state.join(","))
    }

    /// Compares how far two positions are in a domain.
    pub fn compare_in(&self, other: &Self, domain: u32) -> Ordering {
        self.sequence(domain).cmp(&other.sequence(domain))
    }
}

impl fmt::Display for GtidList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (domain, Last { sequence, server })) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{domain}-{server}-{sequence}")?;
        }
        Ok(())
    }
}

impl FromStr for GtidList {
    type Err = ParseGtidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut list = Self::new();
        for entry in text
            .split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
        {
            let one =
                parse_gtid(entry).ok_or_else(|| ParseGtidError::new("MariaDB GTID list", entry))?;
            // `gtid_binlog_state` names a domain once per server: the last one counts.
            list = list.union(&one);
        }
        Ok(list)
    }
}

fn parse_gtid(text: &str) -> Option<GtidList> {
    if !text.chars().all(|c| c.is_ascii_digit() || c == '-') {
        return None;
    }
    let mut numbers = text.split('-');
    let domain = numbers.next()?.parse().ok()?;
    let server = numbers.next()?.parse().ok()?;
    let sequence = numbers.next()?.parse().ok()?;
    numbers
        .next()
        .is_none()
        .then(|| GtidList::one(domain, server, sequence))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use proptest::prelude::*;

    use super::*;

    fn list(text: &str) -> GtidList {
        text.parse().unwrap()
    }

    #[test]
    fn texts_are_read_and_written_in_the_servers_form() {
        let cases = [
            ("", ""),
            ("0-1-100", "0-1-100"),
            (" 1-1-3 ,\n0-1-100 ", "0-1-100,1-1-3"),
            ("0-1-7,0-2-9,0-3-8", "0-2-9"),
            (
                "4294967295-4294967295-18446744073709551615",
                "4294967295-4294967295-18446744073709551615",
            ),
        ];
        for (text, written) in cases {
            assert_eq!(list(text).to_string(), written, "{text:?}");
        }
        for text in [
            "0-1",
            "0-1-2-3",
            "0--2",
            "a-1-2",
            "+0-1-2",
            "4294967296-1-1",
            "uuid:1-5",
        ] {
            assert!(text.parse::<GtidList>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_same_number_from_two_servers_is_two_transactions() {
        assert!(!list("0-1-5").contains(&list("0-2-5")));
        assert!(list("0-1-6").contains(&list("0-2-5")));
        assert_eq!(list("0-1-5").minus(&list("0-2-5")), list("0-1-5"));
    }

    #[test]
    fn a_state_is_cut_at_a_position_and_names_every_server() {
        let here = list("0-2-100,50-2-3");
        let later = "0-1-90,0-3-120,0-2-110,50-1-2,50-2-3,7-1-1";
        assert_eq!(
            here.binlog_state(later).unwrap(),
            "0-1-90,0-3-100,0-2-100,50-1-2,50-2-3"
        );
        assert_eq!(here.binlog_state("").unwrap(), "0-2-100,50-2-3");
        assert!(here.binlog_state("x").is_err());
    }

    fn any_list() -> impl Strategy<Value = GtidList> {
        proptest::collection::btree_map(0..3u32, (1..3u32, 1..5u64), 0..3).prop_map(|lasts| {
            GtidList(
                lasts
                    .into_iter()
                    .map(|(domain, (server, sequence))| (domain, Last { sequence, server }))
                    .collect(),
            )
        })
    }

    proptest! {
        #[test]
        fn union_minus_and_contains_fit_together(a in any_list(), b in any_list()) {
            let both = a.union(&b);
            prop_assert_eq!(&both, &b.union(&a));
            prop_assert_eq!(a.minus(&b).is_empty(), b.contains(&a));
            // A tie of two servers is in neither, and so not in the union.
            let tie = |l: &GtidList| (0..3).any(|d| l.sequence(d) == both.sequence(d) && l.server(d) != both.server(d));
            prop_assert!(tie(&a) || both.contains(&a));
            prop_assert!(both.minus(&a).minus(&b).is_empty());
            prop_assert_eq!(list(&a.to_string()), a);
        }
    }
}
