//! Clusters that fail over again and again.
//!
//! Whatever makes one master after the other fall, such as a write that crashes servers or a host that swaps, is seldom healed by
//! the next failover, and each costs the clients their connections. So after
//! [`Policy::failover_limit`](super::state::Policy::failover_limit) of them within
//! [`Policy::failover_window`](super::state::Policy::failover_window) an election waits before it is decided, twice as long each
//! time, and says so. The old master is fenced meanwhile as ever.

use std::time::Duration;

use super::{state::Policy, switchover};
use crate::{cluster::record::ClusterRecord, time::Timestamp};

/// The first wait. Shorter than most restarts of whatever is behind it.
const FIRST_WAIT: Duration = Duration::from_secs(5);

/// The longest wait: an operator who has mended the cause does not wait for longer.
const LONGEST_WAIT: Duration = Duration::from_secs(120);

/// How many failovers are remembered: as many as can be asked for as a limit, and some to double the wait with.
const REMEMBERED: usize = 120;

/// Notes a failover.
pub fn note(next: &mut ClusterRecord, now: Timestamp) {
    next.failover_times.push(now);
    let surplus = next.failover_times.len().saturating_sub(REMEMBERED);
    next.failover_times.drain(..surplus);
}

/// Until when the current election waits, and why; `None` if it need not.
pub fn backs_off(
    record: &ClusterRecord,
    policy: &Policy,
    now: Timestamp,
) -> Option<(Timestamp, String)> {
    if switchover::handed_over(record).is_some() {
        // Nothing has failed, and clients wait.
        return None;
    }
    let window = policy.failover_window;
    let recent = record
        .failover_times
        .iter()
        .filter(|at| now < at.plus(window));
    let recent = u32::try_from(recent.count()).unwrap_or(u32::MAX);
    let surplus = recent.checked_sub(policy.failover_limit)?.checked_sub(1)?;
    let wait = FIRST_WAIT
        .saturating_mul(1 << surplus.min(16))
        .min(LONGEST_WAIT);
    let until = record.epoch_since.plus(wait);
    let reason = format!(
        "the cluster has failed over {recent} times within {}, so the next master is chosen {} after the last one fell",
        humantime::format_duration(window),
        humantime::format_duration(wait)
    );
    (now < until).then_some((until, reason))
}
