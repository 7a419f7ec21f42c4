//! How far the applier is behind what was received, in time. Pure.
//!
//! At each look at a server that follows, what it has received by then is noted, unless all of it is executed. The oldest
//! note that is not executed tells since when the applier is behind. No clock but the executor's own is in it: unlike
//! `Seconds_Behind_Master` it does not jump while the master is idle or when two hosts' clocks differ.

use std::{collections::VecDeque, time::Duration};

use crate::{cluster::gtid::Position, mysql::Observation, time::Timestamp};

/// How many notes are kept. Between two of them there are seconds, so they reach back for minutes; a lag that is
/// longer is told a little too short, by no more than what lies between two notes.
const NOTES: usize = 64;

/// What is told of a lag, in seconds: the greatest of these that it has reached. A report is a write to ZooKeeper, and a
/// lag that grows must not be one each second.
const STEPS: [u64; 13] = [
    5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 10_800, 43_200, 86_400,
];

/// What was received when.
#[derive(Debug, Clone, Default)]
pub(super) struct Lag {
    unapplied: VecDeque<(Timestamp, Position)>,
    behind: Duration,
}

impl Lag {
    /// Takes in a look that was begun then.
    pub(super) fn looked(&mut self, seen: &Observation, begun: Timestamp) {
        let is_applied = |(_, received): &(Timestamp, Position)| seen.executed.contains(received);
        while self.unapplied.front().is_some_and(is_applied) {
            self.unapplied.pop_front();
        }
        let newest = self.unapplied.back();
        if !seen.executed.contains(&seen.received)
            && newest.is_none_or(|(_, known)| *known != seen.received)
        {
            if self.unapplied.len() == NOTES {
                self.thin_out();
            }
            self.unapplied.push_back((begun, seen.received.clone()));
        }
        let oldest = self.unapplied.front();
        self.behind = oldest.map_or(Duration::ZERO, |(since, _)| begun.since(*since));
    }

    /// Drops every other note, not the oldest.
    fn thin_out(&mut self) {
        let mut index = 0;
        self.unapplied.retain(|_| {
            index += 1;
            index % 2 == 1
        });
    }

    /// What the report says, in seconds; 0 for less than the least of [`STEPS`].
    pub(super) fn told(&self) -> u64 {
        let seconds = self.behind.as_secs();
        let reached = STEPS.iter().rev().find(|step| **step <= seconds);
        reached.copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::cluster::flavour::Flavour;

    fn look(received: u64, executed: u64) -> Observation {
        let position =
            |number: u64| Position::parse(Flavour::Mariadb, &format!("0-1-{number}")).unwrap();
        Observation {
            read_only: true,
            clients_admitted: true,
            replication: None,
            received: position(received),
            executed: position(executed),
            acknowledging: true,
            waiting_sessions: 0,
            clients: 0,
        }
    }

    /// Goal: an applier that is a steady minute behind is told to be a minute behind, and not less each time that it
    /// catches a note up. Method: 100 transactions a second, applied 60 s later, for an hour.
    #[test]
    fn a_steady_lag_is_told_as_what_it_is() {
        let mut lag = Lag::default();
        for second in 100..3700 {
            let now = Timestamp::from_millis(second * 1000);
            lag.looked(&look(second * 100, (second - 60) * 100), now);
            if second > 200 {
                assert_eq!(lag.told(), if lag.behind.as_secs() < 60 { 30 } else { 60 });
                assert!(
                    (58..=60).contains(&lag.behind.as_secs()),
                    "{:?}",
                    lag.behind
                );
            }
        }
        lag.looked(&look(400_000, 400_000), Timestamp::from_millis(3_700_000));
        assert_eq!(lag.told(), 0);
    }

    /// Goal: one transaction that takes long is a lag, though nothing else comes; an idle slave has none; and however
    /// long it takes, only so much is kept.
    #[test]
    fn what_takes_long_is_a_lag_and_what_is_idle_is_none() {
        let mut lag = Lag::default();
        for second in 0..10_000 {
            let now = Timestamp::from_millis(1_000_000 + second * 1000);
            lag.looked(&look(100, 100), now);
            assert_eq!(lag.told(), 0);
        }
        for second in 0..10_000 {
            let now = Timestamp::from_millis(20_000_000 + second * 1000);
            lag.looked(&look(101 + second, 100), now);
            assert_eq!(lag.behind.as_secs(), second);
            assert!(lag.unapplied.len() <= NOTES);
        }
        assert_eq!(lag.told(), 3600);
    }
}
