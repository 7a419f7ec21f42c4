//! `cotton admin undelete`

use std::time::Duration;

use clap::Args;
use http::Method;
use uuid::Uuid;

use super::{Context, password::PasswordArgs};
use crate::{
    cli::{Exit, output},
    cluster::view::ClusterState,
    http::changes::UndeleteAnswer,
};

/// Bring a deleted cluster back, with its data, user and password.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct UndeleteArgs {
    /// The name that the cluster had.
    cluster: String,
    /// The name that it is to have, if the old one is in use.
    #[arg(long = "as", value_name = "NAME")]
    target: Option<String>,
    /// Which of several deleted clusters of that name, as cotton admin slots lists them. Without it the one that was deleted last.
    #[arg(long, value_name = "UUID")]
    incarnation: Option<Uuid>,
    #[command(flatten)]
    password: PasswordArgs,
    /// Wait until it has a master that accepts writes.
    #[arg(long)]
    wait: bool,
    /// How long to wait.
    #[arg(long, value_name = "TIME", default_value = super::DEFAULT_WAIT, value_parser = super::parse_timeout)]
    timeout: Duration,
}

const EXAMPLES: &str = "\
Examples:
  cotton admin undelete orders --password-file orders.password --wait
  cotton admin undelete orders --as orders-of-yesterday --password-file orders.password

A deleted cluster is kept for the time of the scheduler's --keep-deleted (24 h), if its members have volumes. It comes back
with the members, data, user and password that it had: each member is launched where its volume is, and they elect a master
with what they have. Members without a volume copy the data of the others.

It is refused while a cluster of that name exists (then --as gives it another one), and when its volumes are being
destroyed. cotton admin slots lists what is kept, and until when.";

pub(super) async fn run(context: &Context, arguments: UndeleteArgs) -> anyhow::Result<Exit> {
    let cluster = &arguments.cluster;
    let password = arguments.password.given_or_asked(cluster)?;
    let incarnation = arguments.incarnation.map(|it| it.to_string());
    let fields = [
        ("password", Some(password.expose())),
        ("as", arguments.target.as_deref()),
        ("incarnation", incarnation.as_deref()),
    ];
    let path = format!("{}/undelete", super::api::path_of(cluster));
    let answer: UndeleteAnswer = context.api.send(Method::POST, &path, &fields).await?;
    output::answer(serde_json::to_string(&answer)?)?;
    if arguments.wait {
        let name = arguments.target.as_ref().unwrap_or(cluster);
        let back = super::wait::until(
            context,
            name,
            arguments.timeout,
            |view| matches!(view.state, ClusterState::Running | ClusterState::Degraded),
            |view| view.reason.clone(),
        );
        output::tell(format!("{name} is back: {}", back.await?.reason));
    }
    Ok(Exit::Ok)
}
