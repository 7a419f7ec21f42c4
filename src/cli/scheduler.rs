//! `cotton scheduler`

use anyhow::Context as _;

use super::{
    Exit, output,
    settings::{Arguments, LogFormat, Settings},
};
use crate::telemetry;

/// Resolves the settings and runs the scheduler until it is told to stop.
pub(super) fn run(arguments: Arguments) -> anyhow::Result<Exit> {
    let settings = match Settings::resolve(arguments, &|name| std::env::var_os(name)) {
        Ok(settings) => settings,
        Err(faults) => {
            for fault in faults {
                output::complain(&fault.to_string());
            }
            return Ok(Exit::Usage);
        }
    };
    telemetry::start(settings.verbose, settings.log_format == LogFormat::Json);
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the scheduler's threads")?;
    runtime.block_on(async { anyhow::bail!("the scheduler is not part of this build") })
}
