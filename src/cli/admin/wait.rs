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
    let mut was_reached = false;
    loop {
        let seen = match look(context, &cluster).await {
            Ok(seen) => seen,
            // An address where no scheduler ever was is a mistake; one that was there comes back.
            Err(error) if !was_reached => return Err(error),
            Err(error) => Seen::Nothing(format!("{error:#}")),
        };
        was_reached = true;
        match (&seen, awaited) {
            (Seen::Gone, Awaited::Gone) => return Ok(Exit::Ok),
            (Seen::Gone, Awaited::State(_)) => bail!("there is no cluster {cluster:?}"),
            (Seen::Cluster(view), Awaited::State(state)) if view.state == state => {
                return Ok(Exit::Ok);
            }
            (Seen::Cluster(view), _) if view.state == ClusterState::Failed => {
                bail!("{cluster} has failed: {}", view.reason)
            }
            (Seen::Cluster(view), _) => progress.say(format!(
                "{cluster} is {}: {}",
                view.state.as_str(),
                view.reason
            )),
            (Seen::Nothing(why), _) => progress.say(why),
        }
        if Instant::now() + INTERVAL > deadline {
            let patience = humantime::format_duration(timeout);
            match seen {
                Seen::Cluster(view) => {
                    bail!(
                        "{cluster} is still {} after {patience}",
                        view.state.as_str()
                    )
                }
                Seen::Gone => bail!("{cluster} is gone"),
                Seen::Nothing(why) => {
                    bail!("nothing is known of {cluster} after {patience}: {why}")
                }
            }
        }
        sleep(INTERVAL).await;
    }
}

/// What a look at the cluster shows.
enum Seen {
    Cluster(Box<ClusterView>),
    Gone,
    /// The scheduler cannot say at the moment.
    Nothing(String),
}

async fn look(context: &Context, cluster: &str) -> anyhow::Result<Seen> {
    let error = match context.api.get(&super::api::path_of(cluster)).await {
        Ok(view) => return Ok(Seen::Cluster(view)),
        Err(error) => error,
    };
    match error
        .downcast_ref::<Refused>()
        .map(|refused| refused.status)
    {
        Some(StatusCode::NOT_FOUND) => Ok(Seen::Gone),
        Some(StatusCode::SERVICE_UNAVAILABLE) => Ok(Seen::Nothing(error.to_string())),
        _ => Err(error),
    }
}
