//! MySQL's GTID sets: which transactions a server has, source by source.
//!
//! The text form is that of `gtid_executed` (MySQL manual, "GTID Format and Storage"), tagged GTIDs of
//! MySQL 8.3 and later included: `uuid:1-5:7, uuid:1-3:tag:1-2`.

use std::{collections::BTreeMap, fmt, str::FromStr};

use uuid::Uuid;

use super::ParseGtidError;

/// The greatest transaction number that MySQL gives: 2^63 - 2.
pub const MAX_NUMBER: u64 = i64::MAX as u64 - 1;

/// Where transactions come from: a server's or cluster's uuid, and a tag (empty: none).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Source {
    uuid: Uuid,
    tag: String,
}

/// A set of MySQL transactions.
///
/// Per source it keeps ranges of numbers, both ends included, sorted, and neither touching nor
/// overlapping; there is no source without a range. Equal sets are therefore equal values.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GtidSet(BTreeMap<Source, Vec<Range>>);

/// Transaction numbers from the first to the last, both included.
type Range = (u64, u64);

impl GtidSet {
    /// The set of no transactions.
    pub fn new() -> Self {
        Self::default()
    }

    /// The set of one transaction without a tag.
    pub fn one(uuid: Uuid, number: u64) -> Self {
        let source = Source {
            uuid,
            tag: String::new(),
        };
        Self(BTreeMap::from([(source, vec![(number, number)])]))
    }

    /// Whether there is no transaction in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many transactions are in it.
    pub fn len(&self) -> u64 {
        self.0
            .values()
            .flatten()
            .fold(0, |sum, (first, last)| sum.saturating_add(last - first + 1))
    }

    /// Whether every transaction of `other` is in it.
    pub fn contains(&self, other: &Self) -> bool {
        other.minus(self).is_empty()
    }

    /// Whether the transaction with this uuid, number and no tag is in it.
    pub fn has(&self, uuid: Uuid, number: u64) -> bool {
        let tag = String::new();
        let ranges = self.0.get(&Source { uuid, tag });
        ranges.is_some_and(|ranges| {
            let after = ranges.partition_point(|(first, _)| *first <= number);
            after > 0 && ranges[after - 1].1 >= number
        })
    }

    /// Takes in one transaction without a tag.
    pub fn insert(&mut self, uuid: Uuid, number: u64) {
        self.insert_range(uuid, number, number);
    }

    /// Takes in all transactions from the first to the last number, both included. Most often they follow what is there.
    pub fn insert_range(&mut self, uuid: Uuid, first: u64, last: u64) {
        if first > last {
            return;
        }
        let tag = String::new();
        let ranges = self.0.entry(Source { uuid, tag }).or_default();
        match ranges.last_mut() {
            Some(previous) if previous.1 + 1 == first => previous.1 = last,
            _ => {
                ranges.push((first, last));
                *ranges = normalised(std::mem::take(ranges));
            }
        }
    }

    /// The transactions of both sets.
    pub fn union(&self, other: &Self) -> Self {
        let mut ranges = self.0.clone();
        for (source, more) in &other.0 {
            ranges.entry(source.clone()).or_default().extend(more);
        }
        Self(
            ranges
                .into_iter()
                .map(|(source, ranges)| (source, normalised(ranges)))
                .collect(),
        )
    }

    /// The transactions of this set that `other` lacks.
    pub fn minus(&self, other: &Self) -> Self {
        let rest = self.0.iter().filter_map(|(source, ranges)| {
            let taken = other.0.get(source).map_or(&[][..], Vec::as_slice);
            let left = ranges_minus(ranges, taken);
            (!left.is_empty()).then(|| (source.clone(), left))
        });
        Self(rest.collect())
    }

    /// The transactions that are in both sets.
    pub fn intersection(&self, other: &Self) -> Self {
        self.minus(&self.minus(other))
    }

    /// The transactions that do not carry this uuid without a tag.
    pub fn without(&self, uuid: Uuid) -> Self {
        let carries = |source: &Source| source.uuid == uuid && source.tag.is_empty();
        let rest = self.0.iter().filter(|(source, _)| !carries(source));
        Self(
            rest.map(|(s, ranges)| (s.clone(), ranges.clone()))
                .collect(),
        )
    }

    /// The numbers below `limit` that no transaction with this uuid and no tag has.
    pub fn holes_of(&self, uuid: Uuid, limit: u64) -> Vec<u64> {
        let source = Source {
            uuid,
            tag: String::new(),
        };
        let taken = self.0.get(&source).map_or(&[][..], Vec::as_slice);
        let all = [(1, limit.saturating_sub(1).max(1))];
        let below = if limit > 1 { &all[..] } else { &[] };
        let holes = ranges_minus(below, taken);
        holes
            .into_iter()
            .flat_map(|(first, last)| first..=last)
            .collect()
    }

    /// The greatest number of the transactions that carry this uuid and no tag; 0 if there is none.
    pub fn highest_of(&self, uuid: Uuid) -> u64 {
        let source = Source {
            uuid,
            tag: String::new(),
        };
        self.0
            .get(&source)
            .and_then(|ranges| ranges.last())
            .map_or(0, |(_, last)| *last)
    }
}

/// Sorts ranges and joins those that touch or overlap.
fn normalised(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut joined: Vec<Range> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match joined.last_mut() {
            Some(previous) if first <= previous.1 + 1 => previous.1 = previous.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    joined
}

/// What of `ranges` lies outside `taken`; both are normalised.
fn ranges_minus(ranges: &[Range], taken: &[Range]) -> Vec<Range> {
    let mut left = Vec::new();
    for &(mut first, last) in ranges {
        for &(taken_first, taken_last) in taken {
            if taken_last < first {
                continue;
            }
            if taken_first > last {
                break;
            }
            if taken_first > first {
                left.push((first, taken_first - 1));
            }
            first = taken_last + 1;
        }
        if first <= last {
            left.push((first, last));
        }
    }
    left
}

impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut previous: Option<Uuid> = None;
        for (source, ranges) in &self.0 {
            // As the server writes it: the tags of one uuid follow each other without repeating it.
            if previous != Some(source.uuid) {
                let comma = if previous.is_some() { "," } else { "" };
                write!(f, "{comma}{}", source.uuid)?;
                previous = Some(source.uuid);
            }
            if !source.tag.is_empty() {
                write!(f, ":{}", source.tag)?;
            }
            for (first, last) in ranges {
                if first == last {
                    write!(f, ":{first}")?;
                } else {
                    write!(f, ":{first}-{last}")?;
                }
            }
        }
        Ok(())
    }
}

impl FromStr for GtidSet {
    type Err = ParseGtidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut sources: BTreeMap<Source, Vec<Range>> = BTreeMap::new();
        // The server itself writes a newline behind each comma, and accepts spaces everywhere.
        let entries = text
            .split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty());
        for entry in entries {
            let malformed = || ParseGtidError::new("MySQL GTID set", entry);
            let mut parts = entry.split(':').map(str::trim);
            let uuid = parts
                .next()
                .and_then(|text| text.parse().ok())
                .ok_or_else(malformed)?;
            let mut tag = String::new();
            let mut seen_range = false;
            for part in parts {
                if part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
                    tag = parse_tag(part).ok_or_else(malformed)?;
                    seen_range = false;
                } else {
                    let range = parse_range(part).ok_or_else(malformed)?;
                    let source = Source {
                        uuid,
                        tag: tag.clone(),
                    };
                    sources.entry(source).or_default().push(range);
                    seen_range = true;
                }
            }
            if !seen_range {
                return Err(malformed());
            }
        }
        Ok(Self(
            sources
                .into_iter()
                .map(|(source, ranges)| (source, normalised(ranges)))
                .collect(),
        ))
    }
}

/// A tag is a letter or underscore and up to 31 letters, digits and underscores; case does not count.
fn parse_tag(text: &str) -> Option<String> {
    let valid = text.len() <= 32 && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    valid.then(|| text.to_ascii_lowercase())
}

fn parse_range(text: &str) -> Option<Range> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (parse_number(first.trim())?, parse_number(last.trim())?);
    (first <= last).then_some((first, last))
}

fn parse_number(text: &str) -> Option<u64> {
    let digits = text.chars().all(|c| c.is_ascii_digit());
    let number = digits.then(|| text.parse().ok())??;
    (1..=MAX_NUMBER).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    const B: &str = "4e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn set(text: &str) -> GtidSet {
        text.parse().unwrap()
    }

    #[test]
    fn texts_are_read_and_written_in_the_servers_form() {
        let cases = [
            ("", String::new()),
            (" , ", String::new()),
            (&format!("{A}:1"), format!("{A}:1")),
            (&format!("{}:1-5:7", A.to_uppercase()), format!("{A}:1-5:7")),
            (&format!("{A}:7:1-3:4-5:2"), format!("{A}:1-5:7")),
            (&format!("{A}:1-5,\n{B}:1 - 3"), format!("{A}:1-5,{B}:1-3")),
            (&format!("{B}:1,{A}:1,{B}:2"), format!("{A}:1,{B}:1-2")),
            (
                &format!("{A}:1-3:Tag_1:1:5-6:b:2"),
                format!("{A}:1-3:b:2:tag_1:1:5-6"),
            ),
            (&format!("{A}:tag:1,{A}:1"), format!("{A}:1:tag:1")),
            (&format!("{A}:{MAX_NUMBER}"), format!("{A}:{MAX_NUMBER}")),
        ];
        for (text, written) in cases {
            assert_eq!(set(text).to_string(), written, "{text:?}");
        }
    }

    #[test]
    fn malformed_texts_are_refused() {
        let too_long_tag = format!("{A}:{}:1", "x".repeat(33));
        let endings = [
            "", ":", ":0", ":5-1", ":1-", ":-1", ":+1", ":1:tag", ":1.5", ":ta-g:1",
        ];
        let too_great = format!("{A}:{}", MAX_NUMBER + 1);
        let mut texts: Vec<String> = endings
            .iter()
            .map(|ending| format!("{A}{ending}"))
            .collect();
        texts.extend([
            too_long_tag,
            too_great,
            "0-1-100".into(),
            "nonsense:1".into(),
        ]);
        for text in texts {
            assert!(text.parse::<GtidSet>().is_err(), "{text:?}");
        }
    }

    /// A naive model: every transaction by itself.
    type Model = BTreeSet<(u8, u8, u64)>;

    /// A few sources, tags and small numbers, so that sets overlap and touch.
    fn model() -> impl Strategy<Value = Model> {
        proptest::collection::btree_set((0..2u8, 0..2u8, 1..12u64), 0..20)
    }

    fn text_of(model: &Model) -> String {
        let entry = |(uuid, tag, number): &(u8, u8, u64)| {
            let uuid = if *uuid == 0 { A } else { B };
            let tag = if *tag == 0 { "" } else { ":t" };
            format!("{uuid}{tag}:{number}")
        };
        model.iter().rev().map(entry).collect::<Vec<_>>().join(",")
    }

    proptest! {
        #[test]
        fn behaves_as_a_set_of_single_transactions(a in model(), b in model()) {
            let (set_a, set_b) = (set(&text_of(&a)), set(&text_of(&b)));
            prop_assert_eq!(set_a.len(), a.len() as u64);
            prop_assert_eq!(set_a.contains(&set_b), a.is_superset(&b));
            prop_assert_eq!(set_a.union(&set_b), set(&text_of(&(&a | &b))));
            prop_assert_eq!(set_a.minus(&set_b), set(&text_of(&(&a - &b))));
            let highest = a.iter().filter(|(uuid, tag, _)| (*uuid, *tag) == (0, 0)).map(|(_, _, n)| *n).max();
            prop_assert_eq!(set_a.highest_of(A.parse().unwrap()), highest.unwrap_or(0));
            let uuid = A.parse().unwrap();
            let of_a = |(uuid, tag, _): &&(u8, u8, u64)| (*uuid, *tag) == (0, 0);
            let others: Model = a.iter().filter(|one| !of_a(one)).copied().collect();
            prop_assert_eq!(set_a.without(uuid), set(&text_of(&others)));
            let holes: Vec<u64> = (1..9).filter(|n| !a.contains(&(0, 0, *n))).collect();
            prop_assert_eq!(set_a.holes_of(uuid, 9), holes);
            prop_assert_eq!(set_a.holes_of(uuid, 1), Vec::<u64>::new());
            prop_assert_eq!(set(&set_a.to_string()), set_a);
        }

        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in "\\PC{0,60}") {
            let _ = text.parse::<GtidSet>();
        }
    }
}
