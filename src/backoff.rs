//! How long to wait before trying again.
//!
//! The waits grow by doubling up to a limit, and each is shortened by chance so that many clients
//! that lost the same server do not come back in step. Chance is an argument: this file decides
//! and asks nobody.

use std::time::Duration;

/// Doubling waits between a first and a longest one. Made by [`Backoff::try_new`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
}

/// Why two durations do not make a [`Backoff`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BackoffError {
    /// The first wait is zero: a client would spin while its server is down.
    #[error("the first wait of a backoff must be longer than zero")]
    Zero,
    /// The longest wait is shorter than the first one.
    #[error("the longest wait of a backoff, {longest:?}, is shorter than the first, {first:?}")]
    Order {
        /// The first wait.
        first: Duration,
        /// The longest wait.
        longest: Duration,
    },
}

impl Backoff {
    /// Waits that start around `first` and never exceed `longest`.
    ///
    /// # Errors
    ///
    /// [`BackoffError`] when `first` is zero or longer than `longest`.
    pub const fn try_new(first: Duration, longest: Duration) -> Result<Self, BackoffError> {
        if first.is_zero() {
            return Err(BackoffError::Zero);
        }
        if first.as_nanos() > longest.as_nanos() {
            return Err(BackoffError::Order { first, longest });
        }
        Ok(Self { first, longest })
    }

    /// The wait before the try that follows `attempt` failed ones (0 before the second try).
    ///
    /// `random` is a number from 0 to 1; the wait lies between a half and the whole of the doubled
    /// one. Numbers outside of that range are taken as its nearest end.
    #[must_use]
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        let doubled = 2_u32
            .checked_pow(attempt)
            .and_then(|factor| self.first.checked_mul(factor))
            .map_or(self.longest, |wait| wait.min(self.longest));
        let random = if random.is_nan() { 0.0 } else { random };
        doubled.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
    }

    /// The limit of all waits.
    #[must_use]
    pub const fn longest(&self) -> Duration {
        self.longest
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use proptest::prelude::*;

    use super::*;

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let backoff = Backoff::try_new(millis(100), millis(1000)).unwrap();
        let waits: Vec<_> = (0..6).map(|attempt| backoff.delay(attempt, 1.0)).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000].map(millis));
        assert_eq!(backoff.delay(1, 0.0), millis(100));
    }

    #[test]
    fn unusable_durations_are_refused() {
        assert_eq!(
            Backoff::try_new(Duration::ZERO, millis(1)),
            Err(BackoffError::Zero)
        );
        assert!(matches!(
            Backoff::try_new(millis(2), millis(1)),
            Err(BackoffError::Order { .. })
        ));
    }

    proptest! {
        #[test]
        fn no_wait_is_zero_or_above_the_longest(attempt: u32, random: f64) {
            let backoff = Backoff::try_new(millis(100), millis(60_000)).unwrap();
            let wait = backoff.delay(attempt, random);
            prop_assert!(wait >= millis(50) && wait <= millis(60_000));
        }
    }
}
