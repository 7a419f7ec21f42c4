//! `cotton admin wait`

use std::{sync::Arc, time::Duration};

use anyhow::bail;
use clap::Args;
use http::{HeaderValue, StatusCode};
use tokio::time::{Instant, sleep_until};

use super::{
    Context,
    api::{Look, Refused},
};
use crate::{
    cli::{Exit, output::Progress},
    cluster::view::{ClusterState, ClusterView},
};

/// Wait until a cluster is in a state.
///
/// The scheduler is not asked again and again: it answers when something has changed. A script can wait in the
/// same way, with GET /clusters/CLUSTER and the headers If-None-Match (the ETag of the last answer) and
/// "Prefer: wait=SECONDS" (30 at most); the answer is 304 if nothing has changed by then.
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

/// The least time between two looks. The scheduler answers when something has changed; it cannot while it
/// starts, and what stands between may not let its answer wait.
const PACE: Duration = Duration::from_millis(100);

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
    let mut watcher = Watcher::default();
    loop {
        let asked = Instant::now();
        let patience = deadline.saturating_duration_since(asked);
        let seen = match watcher.look(context, &cluster, patience).await {
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
        if Instant::now().max(asked + PACE) > deadline {
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
        sleep_until(asked + PACE).await;
    }
}

/// Waits until the cluster looks as wanted, and tells what it does meanwhile.
pub(super) async fn until(
    context: &Context,
    cluster: &str,
    timeout: Duration,
    is_so: impl Fn(&ClusterView) -> bool,
    doing: impl Fn(&ClusterView) -> String,
) -> anyhow::Result<Arc<ClusterView>> {
    let deadline = Instant::now() + timeout;
    let mut progress = Progress::start();
    let mut watcher = Watcher::default();
    loop {
        let asked = Instant::now();
        let patience = deadline.saturating_duration_since(asked);
        let seen = watcher.look(context, cluster, patience).await;
        match seen.unwrap_or_else(|error| Seen::Nothing(format!("{error:#}"))) {
            Seen::Cluster(view) if is_so(&view) => return Ok(view),
            Seen::Cluster(view) => progress.say(doing(&view)),
            Seen::Gone => bail!("{cluster} is gone"),
            Seen::Nothing(why) => progress.say(why),
        }
        if Instant::now().max(asked + PACE) > deadline {
            let patience = humantime::format_duration(timeout);
            bail!(
                "not over after {patience}; cotton admin explain {cluster} tells what it waits for"
            );
        }
        sleep_until(asked + PACE).await;
    }
}

/// What a look at the cluster shows.
enum Seen {
    Cluster(Arc<ClusterView>),
    Gone,
    /// The scheduler cannot say at the moment.
    Nothing(String),
}

/// Knows what was seen last, so that only what is new is answered at once.
#[derive(Default)]
struct Watcher {
    last: Option<(Arc<ClusterView>, Option<HeaderValue>)>,
}

impl Watcher {
    /// Looks at the cluster; when there is nothing new, for as long as `patience` and the scheduler allow.
    async fn look(
        &mut self,
        context: &Context,
        cluster: &str,
        patience: Duration,
    ) -> anyhow::Result<Seen> {
        let path = super::api::path_of(cluster);
        let tag = self.last.as_ref().and_then(|(_, tag)| tag.as_ref());
        match context.api.look(&path, tag, patience).await {
            Ok(Look::New { found, tag }) => {
                let view = Arc::new(found);
                self.last = Some((Arc::clone(&view), tag));
                Ok(Seen::Cluster(view))
            }
            Ok(Look::Same) => match &self.last {
                Some((view, _)) => Ok(Seen::Cluster(Arc::clone(view))),
                None => bail!("the scheduler says that nothing is new to whom it has told nothing"),
            },
            Err(error) => match error.downcast_ref::<Refused>().map(|r| r.status) {
                Some(StatusCode::NOT_FOUND) => Ok(Seen::Gone),
                Some(StatusCode::SERVICE_UNAVAILABLE) => Ok(Seen::Nothing(error.to_string())),
                _ => Err(error),
            },
        }
    }
}
