//! When backups are made without being asked for, and for how long they are kept. Pure: the time is an argument.
//!
//! A schedule is an interval (`every 6h`) or a cron pattern in UTC (`30 2 * * *`). Each cluster has a share of its own in the time that follows, by
//! a hash of its incarnation, so that those with the same schedule do not begin together; it is always the same share, so that the distance
//! between two backups is what the schedule says.

use std::{fmt, str::FromStr, time::Duration};

use chrono::{DateTime, NaiveDateTime};
use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::time::Timestamp;

/// How long after the time that a cron pattern names the last cluster begins: no more than half the way to the next such time.
const CRON_SPREAD: Duration = Duration::from_secs(30 * 60);

/// The shortest and the longest interval.
const INTERVALS: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(31 * 86_400)];

/// The longest schedule, in characters.
const LONGEST: usize = 100;

/// The least and the most that can be said of how many backups are kept, and for how long.
const COUNTS: [u32; 2] = [1, 10_000];
const AGES: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(3660 * 86_400)];

/// When backups are made without being asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum BackupSchedule {
    /// Never.
    None,
    /// Again and again after this time, in seconds.
    Every(u64),
    /// At the times of a cron pattern, in UTC.
    Cron(String),
}

impl BackupSchedule {
    /// When the first backup after `after` is due; `None` if none ever is.
    pub fn next_after(&self, incarnation: Uuid, after: Timestamp) -> Option<Timestamp> {
        match self {
            Self::None => None,
            Self::Every(seconds) => {
                let every = seconds * 1000;
                let share = share(incarnation, every);
                let rounds = (after.as_millis() + every - share) / every;
                Some(Timestamp::from_millis(rounds * every + share))
            }
            Self::Cron(pattern) => {
                let cron = parse(pattern).ok()?;
                let from = after
                    .as_millis()
                    .saturating_sub(CRON_SPREAD.as_millis() as u64);
                let mut at = following(&cron, from)?;
                loop {
                    let next = following(&cron, at);
                    let room = next.map_or(u64::MAX, |next| (next - at) / 2);
                    let spread = room.min(CRON_SPREAD.as_millis() as u64);
                    let due = Timestamp::from_millis(at + share(incarnation, spread));
                    // Patterns name whole minutes, so there are few between `from` and `after`.
                    if due > after {
                        return Some(due);
                    }
                    at = next?;
                }
            }
        }
    }
}

/// A cluster's share of a time, in milliseconds.
fn share(incarnation: Uuid, of: u64) -> u64 {
    let digest = Sha256::digest(incarnation.as_bytes());
    let mut number = [0; 8];
    number.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(number).checked_rem(of).unwrap_or(0)
}

fn parse(pattern: &str) -> Result<Cron, croner::errors::CronError> {
    let parser = CronParser::builder()
        .seconds(Seconds::Disallowed)
        .year(Year::Disallowed)
        .build();
    parser.parse(pattern)
}

/// The first time of the pattern after `after`, both in milliseconds since 1970.
fn following(cron: &Cron, after: u64) -> Option<u64> {
    let after = DateTime::from_timestamp_millis(i64::try_from(after).ok()?)?;
    let next: NaiveDateTime = cron.find_next_occurrence(&after.naive_utc(), false).ok()?;
    u64::try_from(next.and_utc().timestamp_millis()).ok()
}

impl FromStr for BackupSchedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let wrong = || {
            let shown: String = text.chars().take(LONGEST).collect();
            format!(
                "a schedule is \"none\", an interval from 1m to 31d such as \"every 6h\", or a cron pattern of five fields in UTC such as \"30 2 * * *\", not {shown:?}"
            )
        };
        if text == "none" {
            return Ok(Self::None);
        }
        if let Some(interval) = text.strip_prefix("every ") {
            let [least, most] = INTERVALS;
            let interval = humantime::parse_duration(interval.trim()).ok();
            let interval = interval.filter(|interval| (least..=most).contains(interval));
            return interval
                .map(|interval| Self::Every(interval.as_secs()))
                .ok_or_else(wrong);
        }
        let five = text.len() <= LONGEST && text.split_whitespace().count() == 5;
        let cron = five.then(|| parse(text).ok()).flatten().ok_or_else(wrong)?;
        // The thirtieth of February never comes.
        following(&cron, 0).ok_or_else(wrong)?;
        Ok(Self::Cron(text.to_owned()))
    }
}

impl fmt::Display for BackupSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Every(seconds) => {
                let interval = Duration::from_secs(*seconds);
                write!(f, "every {}", humantime::format_duration(interval))
            }
            Self::Cron(pattern) => f.write_str(pattern),
        }
    }
}

impl TryFrom<String> for BackupSchedule {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<BackupSchedule> for String {
    fn from(schedule: BackupSchedule) -> Self {
        schedule.to_string()
    }
}

/// Which of a cluster's backups are kept: the newest ones of that number, and all that are younger than that. With neither, all are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupKeep {
    /// How many are kept however old they are.
    pub count: Option<u32>,
    /// How long each is kept however many there are, in seconds.
    pub age: Option<u64>,
}

impl BackupKeep {
    /// Whether a backup is to go that was made at `at`, and than which `newer` are newer. The newest is never to go.
    pub fn lets_go(self, newer: usize, at: Timestamp, now: Timestamp) -> bool {
        let beyond = self.count.map(|count| newer >= count as usize);
        let old = self
            .age
            .map(|age| now.since(at) >= Duration::from_secs(age));
        let asked = beyond.is_some() || old.is_some();
        asked && newer > 0 && beyond.unwrap_or(true) && old.unwrap_or(true)
    }
}

impl FromStr for BackupKeep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            let shown: String = text.chars().take(LONGEST).collect();
            format!(
                "it is \"all\", a number of backups from 1 to 10000, an age from 1m to 3660d, or both as in \"7,30d\", not {shown:?}"
            )
        };
        let mut keep = Self::default();
        if text.trim() == "all" {
            return Ok(keep);
        }
        for part in text.split(',').map(str::trim) {
            if let Ok(count) = part.parse::<u32>() {
                let [least, most] = COUNTS;
                let fits = (least..=most).contains(&count) && keep.count.is_none();
                keep.count = Some(fits.then_some(count).ok_or_else(wrong)?);
            } else {
                let [least, most] = AGES;
                let age = humantime::parse_duration(part).map_err(|_| wrong())?;
                let fits = (least..=most).contains(&age) && keep.age.is_none();
                keep.age = Some(fits.then_some(age.as_secs()).ok_or_else(wrong)?);
            }
        }
        Ok(keep)
    }
}

impl fmt::Display for BackupKeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let age = self.age.map(|age| {
            humantime::format_duration(Duration::from_secs(age))
                .to_string()
                .replace(' ', "")
        });
        match (self.count, age) {
            (None, None) => f.write_str("all"),
            (Some(count), None) => write!(f, "{count}"),
            (None, Some(age)) => f.write_str(&age),
            (Some(count), Some(age)) => write!(f, "{count},{age}"),
        }
    }
}

impl TryFrom<String> for BackupKeep {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<BackupKeep> for String {
    fn from(keep: BackupKeep) -> Self {
        keep.to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    /// 2026-02-01, a Sunday, at midnight UTC.
    const SUNDAY: u64 = 1_769_904_000_000;

    fn cluster(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    fn schedule(text: &str) -> BackupSchedule {
        text.parse().unwrap()
    }

    #[test]
    fn schedules_and_rules_are_read_and_shown() {
        for text in [
            "none",
            "every 6h",
            "every 1m",
            "every 31days",
            "30 2 * * *",
            "0 */4 * * MON-FRI",
        ] {
            let shown = schedule(text).to_string();
            assert_eq!(schedule(&shown), schedule(text));
        }
        assert_eq!(schedule("every 90m").to_string(), "every 1h 30m");
        for wrong in [
            "",
            "every",
            "every 30s",
            "every 32d",
            "daily",
            "* * *",
            "0 0 30 2 *",
            "0 * * * * *",
            "61 * * * *",
        ] {
            let error = wrong.parse::<BackupSchedule>().unwrap_err();
            assert!(error.contains("a schedule is"), "{wrong:?}: {error}");
        }
        for text in ["all", "7", "30days", "7,30days"] {
            assert_eq!(text.parse::<BackupKeep>().unwrap().to_string(), text);
        }
        for wrong in ["", "0", "7,8", "1s", "30d,1d", "7;30d", "-1", "7,"] {
            let error = wrong.parse::<BackupKeep>().unwrap_err();
            assert!(error.contains("a number of backups"), "{wrong:?}: {error}");
        }
    }

    /// Goal: a cluster's backups have the distance that is asked for, those of many clusters do not begin together, and none is late.
    #[test]
    fn intervals_are_spread_over_all_of_their_time() {
        let every = schedule("every 6h");
        let six_hours = 6 * 3_600_000;
        let mut in_first_hour = 0;
        for number in 0..1000 {
            let now = Timestamp::from_millis(SUNDAY + 12_345);
            let first = every.next_after(cluster(number), now).unwrap();
            let wait = first.as_millis() - now.as_millis();
            assert!((1..=six_hours).contains(&wait), "{wait}");
            let second = every.next_after(cluster(number), first).unwrap();
            assert_eq!(second.as_millis() - first.as_millis(), six_hours);
            in_first_hour += u32::from(wait < 3_600_000);
        }
        assert!((100..=240).contains(&in_first_hour), "{in_first_hour}");
    }

    #[test]
    fn cron_patterns_are_spread_over_half_an_hour_or_half_the_way() {
        let nightly = schedule("30 2 * * *");
        let half_past_two = SUNDAY + 150 * 60_000;
        let mut shares = Vec::new();
        for number in 0..1000 {
            let first = nightly.next_after(cluster(number), Timestamp::from_millis(SUNDAY));
            let first = first.unwrap();
            shares.push(first.as_millis() - half_past_two);
            // From then on the next day's; a moment before, this one's still.
            let again = nightly.next_after(cluster(number), first).unwrap();
            assert_eq!(again.as_millis() - first.as_millis(), 86_400_000);
            let before = Timestamp::from_millis(first.as_millis() - 1);
            assert_eq!(nightly.next_after(cluster(number), before), Some(first));
        }
        assert!(shares.iter().all(|share| *share < 1_800_000));
        assert!(shares.iter().any(|share| *share > 1_500_000));
        let each_minute = schedule("* * * * *");
        for number in 0..100 {
            let now = Timestamp::from_millis(SUNDAY + 59_999);
            let due = each_minute.next_after(cluster(number), now).unwrap();
            assert!(due.as_millis() - now.as_millis() <= 60_000);
            assert!((due.as_millis() - SUNDAY) % 60_000 < 30_000);
        }
        let weekday = schedule("0 0 * * 1").next_after(cluster(1), Timestamp::from_millis(SUNDAY));
        assert!(weekday.unwrap().as_millis() >= SUNDAY + 86_400_000);
    }

    #[test]
    fn what_is_kept_by_number_or_by_age_is_kept() {
        let day = |n: u64| Timestamp::from_millis(SUNDAY + n * 86_400_000);
        let gone = |rule: &str, newer: usize, age: u64| {
            let keep: BackupKeep = rule.parse().unwrap();
            keep.lets_go(newer, day(100 - age), day(100))
        };
        assert!(!gone("all", 1000, 99));
        assert!(!gone("7", 6, 99) && gone("7", 7, 0));
        assert!(!gone("30d", 50, 29) && gone("30d", 1, 30));
        assert!(!gone("7,30d", 6, 99) && !gone("7,30d", 50, 29) && gone("7,30d", 7, 30));
        // The newest one stays, whatever its age.
        assert!(!gone("30d", 0, 99) && !gone("1", 0, 99));
    }
}
