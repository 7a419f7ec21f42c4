//! Clusters and a time for each: the earliest are found without a look at the others.

use std::collections::{BTreeMap, BTreeSet};

use crate::{cluster::id::ClusterName, time::Timestamp};

/// Clusters that have a time, one each.
#[derive(Debug, Default)]
pub struct Agenda {
    times: BTreeMap<ClusterName, Timestamp>,
    /// The same, in the order of time.
    order: BTreeSet<(Timestamp, ClusterName)>,
}

impl Agenda {
    /// Gives a cluster this time instead of the one it had; or none.
    pub fn set(&mut self, name: &ClusterName, time: Option<Timestamp>) {
        let before = match time {
            Some(time) => self.times.insert(name.clone(), time),
            None => self.times.remove(name),
        };
        if let Some(before) = before {
            self.order.remove(&(before, name.clone()));
        }
        if let Some(time) = time {
            self.order.insert((time, name.clone()));
        }
    }

    /// The earliest time.
    pub fn first(&self) -> Option<Timestamp> {
        self.order.first().map(|(time, _)| *time)
    }

    /// Takes the clusters out whose time is `now` or earlier.
    pub fn take_due(&mut self, now: Timestamp) -> Vec<ClusterName> {
        let mut due = Vec::new();
        while let Some((time, name)) = self.order.pop_first() {
            if time > now {
                self.order.insert((time, name));
                break;
            }
            self.times.remove(&name);
            due.push(name);
        }
        due
    }

    /// The clusters, those with the earliest times first.
    pub fn names(&self) -> impl Iterator<Item = &ClusterName> {
        self.order.iter().map(|(_, name)| name)
    }

    /// Whether no cluster has a time.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn each_has_one_time_and_the_earliest_are_taken() {
        let name = |text: &str| text.parse::<ClusterName>().unwrap();
        let (a, b, c) = (name("a"), name("b"), name("c"));
        let at = Timestamp::from_millis;
        let mut agenda = Agenda::default();
        agenda.set(&a, Some(at(1)));
        agenda.set(&b, Some(at(5)));
        agenda.set(&c, Some(at(2)));
        agenda.set(&a, Some(at(7)));
        assert_eq!(agenda.names().collect::<Vec<_>>(), [&c, &b, &a]);
        assert_eq!(agenda.take_due(at(1)), Vec::new());
        assert_eq!(agenda.take_due(at(5)), [c.clone(), b]);
        assert_eq!(agenda.first(), Some(at(7)));
        agenda.set(&c, None);
        agenda.set(&a, None);
        assert!(agenda.is_empty() && agenda.times.is_empty());
    }
}
