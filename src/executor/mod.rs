//! The `executor` part.

pub mod action;
pub mod agent_cache;
pub mod copy;
pub mod datadir;
pub mod event;
pub mod install;
pub mod lifecycle;
pub mod mysqld;
pub mod promise;
pub mod sandbox;

/// An error with all its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
