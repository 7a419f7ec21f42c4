//! `cotton admin change`

use std::time::Duration;

use clap::Args;
use http::Method;

use super::{Context, password::PasswordArgs};
use crate::{
    cli::{Exit, output},
    http::changes::ChangeAnswer,
};

/// Change the settings of a cluster that runs. What is not given stays as it is.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[command(group = clap::ArgGroup::new("settings").required(true).multiple(true).args(["durability", "replace_after"]))]
pub(super) struct ChangeArgs {
    /// The cluster's name.
    cluster: String,
    /// What an acknowledged write is worth: majority or async.
    #[arg(long, value_name = "majority|async")]
    durability: Option<String>,
    /// How long an agent may be away before its member is replaced, such as 15m.
    #[arg(long, value_name = "TIME")]
    replace_after: Option<String>,
    #[command(flatten)]
    password: PasswordArgs,
    /// Wait until the change is in force.
    #[arg(long)]
    wait: bool,
    /// How long to wait.
    #[arg(long, value_name = "TIME", default_value = super::DEFAULT_WAIT, value_parser = super::parse_timeout)]
    timeout: Duration,
}

const EXAMPLES: &str = "\
Examples:
  cotton admin change orders --durability majority --password-file orders.password --wait
  cotton admin change orders --durability async
  cotton admin change orders --replace-after 1h

The change is recorded when this returns, and carried out while the cluster runs: no server is restarted. Until
majority is in force, which --wait waits for, a write is acknowledged by the master alone; cotton admin explain tells how
far it is. A cluster of one node may be majority, which makes no difference before it has more.

It is also the way to get writes back when a master waits for acknowledgements that nobody is there to give:
--durability async lets go of the waiting, and loses nothing.";

pub(super) async fn run(context: &Context, arguments: ChangeArgs) -> anyhow::Result<Exit> {
    let cluster = &arguments.cluster;
    let password = arguments.password.given_or_asked(cluster)?;
    let fields = [
        ("password", Some(password.expose())),
        ("durability", arguments.durability.as_deref()),
        ("replace_after", arguments.replace_after.as_deref()),
    ];
    let path = super::api::path_of(cluster);
    let answer: ChangeAnswer = context.api.send(Method::PATCH, &path, &fields).await?;
    if context.json {
        output::answer(serde_json::to_string(&answer)?)?;
    } else {
        output::answer(text(&answer))?;
    }
    if arguments.wait {
        let in_force = super::wait::until(
            context,
            cluster,
            arguments.timeout,
            |view| view.standing.changing.is_none(),
            |view| view.standing.changing.clone().unwrap_or_default(),
        );
        in_force.await?;
        output::tell(format!("the change of {cluster} is in force"));
    }
    Ok(Exit::Ok)
}

fn text(answer: &ChangeAnswer) -> String {
    if answer.changed.is_empty() {
        return "nothing to change: it is so already".to_owned();
    }
    let changed = answer.changed.iter();
    let lines: Vec<String> = changed
        .map(|changed| format!("{}: from {} to {}", changed.field, changed.from, changed.to))
        .collect();
    lines.join("\n")
}
