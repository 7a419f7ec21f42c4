//! `cotton local` and the hidden commands that it runs: `local-master` and `local-agent`.

use anyhow::Context as _;

use super::Exit;
use crate::{local, telemetry};

/// Brings the whole system up on this machine and takes it down again.
pub(super) fn up(arguments: local::up::LocalArgs) -> anyhow::Result<Exit> {
    run(local::up::run(arguments))
}

/// Runs the stand-in for a Mesos master.
pub(super) fn master(arguments: local::master::MasterArgs) -> anyhow::Result<Exit> {
    run(local::master::run(arguments))
}

/// Runs the stand-in for a Mesos agent.
pub(super) fn agent(arguments: local::agent::AgentArgs) -> anyhow::Result<Exit> {
    run(local::agent::run(arguments))
}

fn run(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<Exit> {
    telemetry::start(std::env::var_os("COTTON_VERBOSE").is_some(), false);
    let runtime = super::single_thread_runtime().context("start the thread")?;
    runtime.block_on(work)?;
    Ok(Exit::Ok)
}
