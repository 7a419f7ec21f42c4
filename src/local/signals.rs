//! How a process of the stand-in tells that it is there, and is told to go.

use std::io::Write as _;

use tokio::signal::unix::{SignalKind, signal};

/// Writes one line on standard output, for whoever started this process.
#[allow(
    clippy::print_stdout,
    reason = "standard output is this program's interface"
)]
pub fn announce(line: &str) {
    println!("{line}");
    // Nobody may be reading; that is no reason to stop.
    let _ = std::io::stdout().flush();
}

/// Waits for SIGTERM or SIGINT.
pub async fn asked_to_stop() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        tracing::error!("signals cannot be watched; stop this process with SIGKILL");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
