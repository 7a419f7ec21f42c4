//! What both test binaries and the measurements share: child processes, free ports, and waiting with a deadline.

pub mod hdfs;
pub mod process;
pub mod s3;

use std::future::Future;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long to wait between two looks. A look may start a program, so not less.
const PAUSE: Duration = Duration::from_millis(30);

/// A file of the project. Where the project lies is asked at run time: checkouts that share a build directory share its
/// binaries too, and what was compiled in one may run in another.
pub fn in_project(path: &str) -> PathBuf {
    let root = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or(env!("CARGO_MANIFEST_DIR").into());
    PathBuf::from(root).join(path)
}

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

/// A port on which nobody listens just now, and which this process has not given out before.
///
/// It lies below those that the kernel gives to outgoing connections (32768 and up), one of which could have it by the
/// time that a server wants it, and below those of `cotton local` (20000 and up).
pub fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    const COUNT: u32 = 10_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Test binaries that run at the same time begin at different places.
    let start = std::process::id().wrapping_mul(331);
    let port = (0..COUNT).find_map(|_| {
        let next = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = FIRST + (next % COUNT) as u16;
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
            .is_ok()
            .then_some(port)
    });
    port.expect("one of ten thousand ports is free")
}
