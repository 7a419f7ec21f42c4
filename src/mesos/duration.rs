//! Durations as Mesos writes them into the environment of executors: `5secs`, `2mins`, `1.5hrs`.
//!
//! Source: `stout/duration.hpp` of Apache Mesos: a decimal number and one of eight units.

use std::time::Duration;

/// The units of Mesos with their length in nanoseconds.
const UNITS: [(&str, f64); 8] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("ms", 1e6),
    ("secs", 1e9),
    ("mins", 60e9),
    ("hrs", 3600e9),
    ("days", 86_400e9),
    ("weeks", 604_800e9),
];

/// Why a text is not a duration of Mesos.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a duration: a number and one of ns, us, ms, secs, mins, hrs, days, weeks is expected, as in 5secs"
)]
pub struct DurationError {
    /// What was read.
    pub text: String,
}

/// Reads a duration, such as `250ms` or `1.5hrs`.
///
/// # Errors
///
/// [`DurationError`] when the number or the unit is missing, unknown, negative or too large.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    try_parse(text.trim()).ok_or_else(|| DurationError {
        text: text.to_owned(),
    })
}

fn try_parse(text: &str) -> Option<Duration> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(end);
    let (_, nanoseconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let number: f64 = number.parse().ok()?;
    Duration::try_from_secs_f64(number * nanoseconds / 1e9).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn every_unit_is_read() {
        for (text, millis) in [
            ("5secs", 5_000.0),
            ("2mins", 120_000.0),
            ("1.5hrs", 5_400_000.0),
            ("250ms", 250.0),
            ("1500us", 1.5),
            ("1000000ns", 1.0),
            ("1days", 86_400_000.0),
            ("2weeks", 1_209_600_000.0),
            ("0ns", 0.0),
        ] {
            assert_eq!(
                parse(text).unwrap(),
                Duration::from_secs_f64(millis / 1000.0),
                "{text}"
            );
        }
    }

    #[test]
    fn everything_else_is_refused_with_the_text() {
        for text in [
            "",
            "5",
            "secs",
            "5 secs",
            "5s",
            "-5secs",
            "1e3secs",
            "1.2.3ms",
            "99999999999999999999weeks",
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
    }
}
