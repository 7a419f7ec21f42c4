//! `cotton admin wait`

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use http::StatusCode;
use tokio::time::{Instant, sleep};

use super::{Context, api::Refused};
use crate::{
    cli::{Exit, output::Progress},
    cluster::view::{ClusterState, ClusterView},
};

/// Wait until a cluster is in a state.
#[derive(Debug, Args)]
pub(super) struct WaitArgs {
    /// The cluster's name.
    cluster: String,
    /// The state: creating, running, degraded, electing, waiting, deleting, failed, or gone.
    #[arg(long = "for", value_name = "STATE", default_value = "running", value_parser = parse_state)]
    state: Awaited,
    /// How long to wait.
    #[arg(long, value_name = "TIME", default_value = super::DEFAULT_WAIT, value_parser = super::parse_timeout)]
    timeout: Duration,
}

/// How often the scheduler is asked. The API has nothing to watch, and a state lasts longer than this.
const INTERVAL: Duration = Duration::from_millis(300);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    Gone,
    State(ClusterState),
}

fn parse_state(text: &str) -> Result<Awaited, String> {
    if text == "gone" {
        return Ok(Awaited::Gone);
    }
    serde_json::from_value(text.into())
        .map(Awaited::State)
        .map_err(|_| {
            "it is none of creating, running, degraded, electing, waiting, deleting, failed, gone"
                .to_owned()
        })
}

pub(super) async fn run(context: &Context, arguments: WaitArgs) -> anyhow::Result<Exit> {
    let WaitArgs {
        cluster,
        state: awaited,
        timeout,
    } = arguments;
    let deadline = Instant::now() + timeout;
    let mut progress = Progress::start();
    loop {
        let view = look(context, &cluster).await?;
        match (&view, awaited) {
            (None, Awaited::Gone) => return Ok(Exit::Ok),
            (None, Awaited::State(_)) => bail!("there is no cluster {cluster:?}"),
            (Some(view), Awaited::State(state)) if view.state == state => return Ok(Exit::Ok),
            (Some(view), _) if view.state == ClusterState::Failed => {
                bail!("{cluster} has failed: {}", view.reason)
            }
            (Some(view), _) => progress.say(format!(
                "{cluster} is {}: {}",
                view.state.as_str(),
                view.reason
            )),
        }
        if Instant::now() + INTERVAL > deadline {
            let now = view.map_or("gone", |view| view.state.as_str());
            bail!(
                "{cluster} is still {now} after {}",
                humantime::format_duration(timeout)
            );
        }
        sleep(INTERVAL).await;
    }
}

/// The cluster, or `None` if there is none. While the scheduler is away there is nothing to learn but that.
async fn look(context: &Context, cluster: &str) -> anyhow::Result<Option<ClusterView>> {
    match context.api.get(&super::api::path_of(cluster)).await {
        Ok(view) => Ok(Some(view)),
        Err(error) => match error.downcast_ref::<Refused>() {
            Some(refused) if refused.status == StatusCode::NOT_FOUND => Ok(None),
            _ => Err(error),
        },
    }
}
