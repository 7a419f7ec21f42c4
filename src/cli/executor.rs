//! `cotton executor`

use anyhow::Context as _;

use super::Exit;
use crate::telemetry;

/// Runs one instance until Mesos ends it.
pub(super) fn run() -> anyhow::Result<Exit> {
    telemetry::start(std::env::var_os("COTTON_VERBOSE").is_some(), false);
    // One thread and no client that is not needed yet: there is one executor per instance on an agent.
    let runtime = super::single_thread_runtime().context("start the executor's thread")?;
    runtime.block_on(async { anyhow::bail!("the executor is not part of this build") })
}
