//! `cotton admin switchover`

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use http::Method;

use super::{Context, password::PasswordArgs};
use crate::{
    cli::{Exit, output},
    cluster::{switchover::Outcome, view::ClusterView},
    http::changes::SwitchoverAnswer,
};

/// Make another member the master.
///
/// The old master becomes a slave; no server is restarted. Writes pause for a fraction of a second where the
/// machines have time. If it cannot be done in time the old master goes on.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SwitchoverArgs {
    /// The cluster's name.
    cluster: String,
    /// The number of the member that is to be master. Without it the best voter is chosen.
    #[arg(long, value_name = "MEMBER")]
    to: Option<u32>,
    #[command(flatten)]
    password: PasswordArgs,
    /// Wait until it is over, and tell what came of it. It is an error if the old master is still the master.
    #[arg(long)]
    wait: bool,
    /// How long to wait.
    #[arg(long, value_name = "TIME", default_value = super::DEFAULT_WAIT, value_parser = super::parse_timeout)]
    timeout: Duration,
}

const EXAMPLES: &str = "\
Examples:
  cotton admin switchover orders --password-file orders.password --wait
  cotton admin switchover orders --to 2 --password-file orders.password --wait

The target gets everything first, while clients write on. Then the old master accepts no more writes, the target gets the
rest and is elected, and discovery names it. Transactions that are open at that moment fail at their next write or commit, with
the error of a read-only server (1290): clients look up the master again and repeat them.

It is refused, with the reason, while the cluster has no master, when the target does not vote, does not follow or is behind,
and while voters are being changed. A statement or a transaction that holds a lock for long can keep the master from being closed:
then it goes on after a second or two, and --wait says so. cotton admin explain tells how long each step took.";

pub(super) async fn run(context: &Context, arguments: SwitchoverArgs) -> anyhow::Result<Exit> {
    let cluster = &arguments.cluster;
    let password = arguments.password.given_or_asked(cluster)?;
    let to = arguments.to.map(|to| to.to_string());
    let fields = [("password", Some(password.expose())), ("to", to.as_deref())];
    let path = format!("{}/switchover", super::api::path_of(cluster));
    let answer: SwitchoverAnswer = context.api.send(Method::POST, &path, &fields).await?;
    if context.json {
        output::answer(serde_json::to_string(&answer)?)?;
    } else {
        output::answer(text(&answer))?;
    }
    let Some(asked) = answer.switchover.filter(|_| arguments.wait) else {
        return Ok(Exit::Ok);
    };
    let over = super::wait::until(
        context,
        cluster,
        arguments.timeout,
        |view| is_over(view, asked.number),
        |view| view.reason.clone(),
    );
    let view = over.await?;
    match outcome(&view, asked.number) {
        Some(outcome) if outcome.done => output::tell(&outcome.sentence),
        Some(outcome) => bail!("the switchover did not come about: {}", outcome.sentence),
        None => bail!(
            "another switchover has been asked for since; cotton admin explain {cluster} tells what came of this one"
        ),
    }
    Ok(Exit::Ok)
}

/// Whether that switchover has an outcome, or a later one was asked for.
fn is_over(view: &ClusterView, number: u64) -> bool {
    let last = view.standing.switchover.as_ref();
    last.is_none_or(|last| last.number != number || !last.is_pending())
}

fn outcome(view: &ClusterView, number: u64) -> Option<&Outcome> {
    let last = view.standing.switchover.as_ref();
    last.filter(|last| last.number == number)?.outcome.as_ref()
}

fn text(answer: &SwitchoverAnswer) -> String {
    match &answer.switchover {
        Some(asked) => format!(
            "member {} is to take over from member {}",
            asked.to, asked.from
        ),
        None => format!("nothing to do: member {} is the master already", answer.to),
    }
}
