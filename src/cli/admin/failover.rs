//! `cotton admin failover`

use std::time::Duration;

use clap::Args;
use http::Method;

use super::{Context, password::PasswordArgs};
use crate::{
    cli::{Exit, output},
    cluster::data_loss::LossyFailover,
    http::changes::FailoverAnswer,
};

/// Elect a master without the voters that are missing.
///
/// For a cluster that waits for voters that will never come back. What only they hold is lost. It is refused as long as the
/// cluster can go on without it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct FailoverArgs {
    /// The cluster's name.
    cluster: String,
    /// Accept that acknowledged writes may be lost. Without it nothing is done: the refusal tells what would be given up.
    #[arg(long)]
    accept_data_loss: bool,
    #[command(flatten)]
    password: PasswordArgs,
    /// Wait until a master is elected, and tell what was lost.
    #[arg(long)]
    wait: bool,
    /// How long to wait.
    #[arg(long, value_name = "TIME", default_value = super::DEFAULT_WAIT, value_parser = super::parse_timeout)]
    timeout: Duration,
}

const EXAMPLES: &str = "\
Examples:
  cotton admin explain orders
  cotton admin failover orders --password-file orders.password
  cotton admin failover orders --accept-data-loss --password-file orders.password --wait

The first tells what the cluster waits for. The second does nothing, and tells what would be given up: the missing
voters with their tasks and addresses, what they were last known to hold, and what of that is known to be lost. More may be.
The third does it: Mesos is asked to kill the tasks of those that are given up, and after 20 s at the latest the best of the
members in sight is elected. Instances that could not be killed are named; see to it that nobody uses them. One that comes
back is a slave again: what it holds beyond the new history is exported and set aside.

Before it, try to bring the missing hosts back: that loses nothing. If a master is there and only waits for
acknowledgements, use cotton admin change --durability async, which loses nothing either.";

pub(super) async fn run(context: &Context, arguments: FailoverArgs) -> anyhow::Result<Exit> {
    let cluster = &arguments.cluster;
    let password = arguments.password.given_or_asked(cluster)?;
    let fields = [
        ("password", Some(password.expose())),
        (
            "accept_data_loss",
            arguments.accept_data_loss.then_some("true"),
        ),
    ];
    let path = format!("{}/failover", super::api::path_of(cluster));
    let answer: FailoverAnswer = context.api.send(Method::POST, &path, &fields).await?;
    if context.json {
        output::answer(serde_json::to_string(&answer)?)?;
    } else {
        output::answer(answer.prospect.sentences().join("\n"))?;
    }
    if arguments.wait {
        let is_over = |lossy: Option<&LossyFailover>| lossy.is_none_or(|lossy| !lossy.is_pending());
        let over = super::wait::until(
            context,
            cluster,
            arguments.timeout,
            |view| is_over(view.standing.lossy_failover.as_ref()),
            |view| view.reason.clone(),
        );
        let view = over.await?;
        let lossy = view.standing.lossy_failover.as_ref();
        match lossy.and_then(|lossy| lossy.outcome.as_ref()) {
            Some(outcome) => output::tell(outcome.sentences().join("\n")),
            None => output::tell("enough voters came back: nothing was given up"),
        }
    }
    Ok(Exit::Ok)
}
