//! `cotton executor`

use anyhow::Context as _;

use super::Exit;
use crate::{executor, mesos::executor::ExecutorEnvironment, telemetry};

/// Runs one instance until Mesos ends it.
pub(super) fn run() -> anyhow::Result<Exit> {
    telemetry::start(std::env::var_os("COTTON_VERBOSE").is_some(), false);
    let environment = ExecutorEnvironment::from_variables(|name| std::env::var(name).ok())?;
    // One thread and no client that is not needed yet: there is one executor per instance on an agent.
    let runtime = super::single_thread_runtime().context("start the executor's thread")?;
    let ended = runtime.block_on(executor::run(environment));
    // What still runs beside has nothing to say any more, and must not keep the process.
    runtime.shutdown_background();
    ended?;
    Ok(Exit::Ok)
}

/// Watches over a server.
pub(super) fn watch(group: i32, patience: u64) -> anyhow::Result<Exit> {
    telemetry::start(false, false);
    executor::watchdog::run(group, std::time::Duration::from_millis(patience))
        .context("watch over the server")?;
    Ok(Exit::Ok)
}
