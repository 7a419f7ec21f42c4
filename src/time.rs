//! Points in time as plain numbers, so that code which decides can be given one.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch.
///
/// Only the shell asks the clock ([`Timestamp::now`]); everything that decides receives a
/// `Timestamp` as an argument.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Later than any time that is ever reached.
    pub const FAR_FUTURE: Self = Self(u64::MAX);

    /// A point in time, in milliseconds since the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// The milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// What the machine's clock says. Not for code that decides.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that asks the clock"
    )]
    pub fn now() -> Self {
        // A clock before 1970 is read as 1970: durations then are wrong, but nothing panics.
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self(since.as_millis() as u64)
    }

    /// This point in time moved into the future.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_millis() as u64))
    }

    /// This point in time moved into the past.
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration.as_millis() as u64))
    }

    /// How long ago `earlier` was; zero if it lies in the future.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// The last millisecond that is written with four digits of year.
const LAST_WRITABLE: u64 = 253_402_300_799_999;

/// For people, in UTC: `2026-02-01 12:00:00.123 UTC`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 > LAST_WRITABLE {
            return f.write_str("never");
        }
        let time = UNIX_EPOCH + Duration::from_millis(self.0);
        let text = humantime::format_rfc3339_millis(time).to_string();
        write!(f, "{} UTC", text.replace('T', " ").trim_end_matches('Z'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        let time = Timestamp::from_millis(1_769_947_200_123);
        assert_eq!(time.to_string(), "2026-02-01 12:00:00.123 UTC");
        let last = Timestamp(LAST_WRITABLE);
        assert_eq!(last.to_string(), "9999-12-31 23:59:59.999 UTC");
        assert_eq!(Timestamp::FAR_FUTURE.to_string(), "never");
    }

    #[test]
    fn time_before_the_start_counts_as_no_time() {
        let (early, late) = (Timestamp::from_millis(5), Timestamp::from_millis(7));
        assert_eq!(late.since(early), Duration::from_millis(2));
        assert_eq!(early.since(late), Duration::ZERO);
    }
}
