//! `cotton admin create`

use std::time::Duration;

use clap::Args;
use http::Method;

use super::{Context, discovery, password::PasswordArgs};
use crate::{
    cli::{Exit, output},
    http::clusters::CreateAnswer,
    secret::Secret,
};

/// Create a cluster.
#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// The cluster's name.
    cluster: String,
    /// The account that is made in the cluster.
    #[arg(long, value_name = "NAME")]
    user: String,
    /// How many members [default: 3].
    #[arg(long, value_name = "N")]
    num_nodes: Option<String>,
    /// The resources of each member, such as {"cpus": 1.0, "mem": "512mb", "disk": "2gb"}.
    #[arg(long, value_name = "JSON")]
    size: Option<String>,
    /// The backup to start from: its id, or the name of a cluster for its newest one.
    #[arg(long, value_name = "ID")]
    backup_id: Option<String>,
    /// What an acknowledged write is worth: majority or async [default: majority from 3 nodes on].
    #[arg(long, value_name = "majority|async")]
    durability: Option<String>,
    #[command(flatten)]
    password: PasswordArgs,
    /// Wait for the master to appear in discovery, log in and run SELECT 1.
    #[arg(long)]
    wait: bool,
    /// How long to wait.
    #[arg(long, value_name = "TIME", default_value = super::DEFAULT_WAIT, value_parser = super::parse_timeout)]
    timeout: Duration,
}

pub(super) async fn run(context: &Context, arguments: CreateArgs) -> anyhow::Result<Exit> {
    let password = arguments.password.given()?;
    let fields = [
        ("cluster_user", Some(arguments.user.as_str())),
        ("num_nodes", arguments.num_nodes.as_deref()),
        ("size", arguments.size.as_deref()),
        ("durability", arguments.durability.as_deref()),
        ("backup_id", arguments.backup_id.as_deref()),
        (
            "cluster_password",
            password.as_ref().map(|password| password.expose()),
        ),
    ];
    let path = super::api::path_of(&arguments.cluster);
    let answer: CreateAnswer = context.api.send(Method::POST, &path, &fields).await?;
    // The answer comes first: the password in it must not be lost when waiting fails.
    output::answer(serde_json::to_string(&answer)?)?;
    if arguments.wait {
        let password = Secret::new(answer.cluster_password);
        let (url, user) = (&answer.cluster_url, &arguments.user);
        let master = discovery::wait_for_master(url, user, &password, arguments.timeout).await?;
        output::tell(format!(
            "{} has its master at {}:{}",
            arguments.cluster, master.host, master.port
        ));
    }
    Ok(Exit::Ok)
}
