//! `src/zookeeper/` against a real server, which is killed, restarted and frozen under it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod server;
