//! `cotton admin pause` and `cotton admin resume`

use clap::Args;
use http::Method;

use super::{Context, password::PasswordArgs};
use crate::{
    cli::{Exit, output},
    http::changes::ChangeAnswer,
};

/// Decide nothing for a cluster until it is resumed.
///
/// Nobody is elected, launched, let into the vote or taken out of it. What happens is still seen and told.
#[derive(Debug, Args)]
#[command(after_help = PAUSE_EXAMPLES)]
pub(super) struct PauseArgs {
    /// The cluster's name.
    cluster: String,
    #[command(flatten)]
    password: PasswordArgs,
}

const PAUSE_EXAMPLES: &str = "\
Examples:
  cotton admin pause orders --password-file orders.password
  cotton admin resume orders --password-file orders.password

A master that fails while the cluster is paused has no successor before it is resumed. Executors go on by themselves: they start a server
that has ended again, closed, and end a master that can no longer be sure to be one. A paused cluster can be deleted; nothing
else can be asked of it.";

/// Go on with a cluster that was paused.
///
/// What was asked for before the pause, and what happened in it, is taken up at once.
#[derive(Debug, Args)]
#[command(after_help = RESUME_EXAMPLES)]
pub(super) struct ResumeArgs {
    /// The cluster's name.
    cluster: String,
    #[command(flatten)]
    password: PasswordArgs,
}

const RESUME_EXAMPLES: &str = "\
Example:
  cotton admin resume orders --password-file orders.password";

pub(super) async fn pause(context: &Context, arguments: PauseArgs) -> anyhow::Result<Exit> {
    ask(context, &arguments.cluster, arguments.password, "pause").await
}

pub(super) async fn resume(context: &Context, arguments: ResumeArgs) -> anyhow::Result<Exit> {
    ask(context, &arguments.cluster, arguments.password, "resume").await
}

async fn ask(
    context: &Context,
    cluster: &str,
    password: PasswordArgs,
    verb: &str,
) -> anyhow::Result<Exit> {
    let password = password.given_or_asked(cluster)?;
    let fields = [("password", Some(password.expose()))];
    let path = format!("{}/{verb}", super::api::path_of(cluster));
    let answer: ChangeAnswer = context.api.send(Method::POST, &path, &fields).await?;
    let text = match (answer.changed.is_empty(), verb) {
        _ if context.json => serde_json::to_string(&answer)?,
        (false, "pause") => format!(
            "{cluster} is paused: nothing is decided for it until cotton admin resume {cluster}"
        ),
        (false, _) => format!("{cluster} goes on"),
        (true, "pause") => format!("nothing to do: {cluster} is paused already"),
        (true, _) => format!("nothing to do: {cluster} is not paused"),
    };
    output::answer(text)?;
    Ok(Exit::Ok)
}
