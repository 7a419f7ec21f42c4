//! What the integration tests share: real servers as child processes, and waiting with a deadline.
#![allow(dead_code, reason = "not every helper is used by every part")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

pub mod mysqld;
pub mod process;
pub mod proxy;
pub mod zookeeper;

use std::future::Future;
use std::time::{Duration, Instant};

/// Waits until `probe` gives a value and returns it; panics with `what` after `deadline`.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    deadline: Duration,
    mut probe: impl FnMut() -> F,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(
            start.elapsed() < deadline,
            "not within {deadline:?}: {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
