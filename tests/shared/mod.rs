//! What both test binaries and the measurements share: child processes, and waiting with a deadline.

pub mod process;

use std::future::Future;
use std::time::{Duration, Instant};

/// How long to wait between two looks. A look may start a program, so not less.
const PAUSE: Duration = Duration::from_millis(30);

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
        tokio::time::sleep(PAUSE).await;
    }
}
