//! `cotton admin delete`

use std::time::Duration;

use clap::Args;
use http::Method;

use super::{Context, discovery, password::PasswordArgs};
use crate::{
    cli::{Exit, output},
    http::clusters::DeleteAnswer,
};

/// Delete a cluster.
#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// The cluster's name.
    cluster: String,
    #[command(flatten)]
    password: PasswordArgs,
    /// Wait until the cluster is gone.
    #[arg(long)]
    wait: bool,
    /// How long to wait.
    #[arg(long, value_name = "TIME", default_value = super::DEFAULT_WAIT, value_parser = super::parse_timeout)]
    timeout: Duration,
}

pub(super) async fn run(context: &Context, arguments: DeleteArgs) -> anyhow::Result<Exit> {
    let password = arguments.password.given_or_asked(&arguments.cluster)?;
    let fields = [("password", Some(password.expose()))];
    let path = super::api::path_of(&arguments.cluster);
    let answer: DeleteAnswer = context.api.send(Method::DELETE, &path, &fields).await?;
    output::answer(serde_json::to_string(&answer)?)?;
    if arguments.wait {
        discovery::wait_gone(&answer.cluster_url, arguments.timeout).await?;
        output::tell(format!("{} is gone", arguments.cluster));
    }
    Ok(Exit::Ok)
}
