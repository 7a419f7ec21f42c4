//! Logging: to stderr, so that stdout stays with what a command answers.

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// The variable that overrides what is logged, in the syntax of `tracing_subscriber::EnvFilter`.
const FILTER_VARIABLE: &str = "COTTON_LOG";

/// Starts logging for this process. A second call changes nothing.
pub fn start(verbose: bool, json: bool) {
    let default = if verbose {
        "info,cotton=debug"
    } else {
        "warn,cotton=info"
    };
    let filter =
        EnvFilter::try_from_env(FILTER_VARIABLE).unwrap_or_else(|_| EnvFilter::new(default));
    let registry = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(std::io::stderr);
    // It fails only if another subscriber is there already, which then goes on.
    let _ = if json {
        registry.with(lines.json().flatten_event(true)).try_init()
    } else {
        let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
        registry.with(lines.with_ansi(colours)).try_init()
    };
}
