//! `cotton scheduler`

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

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
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the scheduler's threads")?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        stop_on_signals(stop.clone()).context("listen for signals")?;
        crate::scheduler::process::run(settings, stop).await
    })?;
    Ok(Exit::Ok)
}

/// SIGTERM and SIGINT end the scheduler; its tasks go on.
fn stop_on_signals(stop: CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("told to stop; the tasks go on without the scheduler");
        stop.cancel();
    });
    Ok(())
}
