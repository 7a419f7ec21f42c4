//! `cotton admin create`

use std::{path::PathBuf, time::Duration};

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
    /// Up to where what was written after that backup is replayed: a time such as 2026-11-22T19:33:07Z, a GTID, or latest [default: not at all].
    #[arg(long, value_name = "POINT", requires = "backup_id")]
    restore_to: Option<String>,
    /// What an acknowledged write is worth: majority or async [default: majority from 3 nodes on].
    #[arg(long, value_name = "majority|async")]
    durability: Option<String>,
    /// When backups are made: none, an interval such as "every 6h", or a cron pattern in UTC such as "30 2 * * *" [default: what the
    /// scheduler says].
    #[arg(long, value_name = "SCHEDULE")]
    backup_schedule: Option<String>,
    /// Which backups are kept: all, a number, an age such as 30d, or both as in 7,30d: whatever one of them keeps is kept [default:
    /// what the scheduler says].
    #[arg(long, value_name = "RULE")]
    backup_keep: Option<String>,
    /// How long an agent may be away before its member is replaced, such as 15m [default: what the scheduler says].
    #[arg(long, value_name = "TIME")]
    replace_after: Option<String>,
    /// A file with settings for the servers, in the form of my.cnf; - reads standard input.
    #[arg(long, value_name = "FILE")]
    my_cnf: Option<PathBuf>,
    /// The package with the server: a name that --installer-args of the scheduler has, or default.
    #[arg(long, value_name = "NAME")]
    package: Option<String>,
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
    let my_cnf = arguments.my_cnf.as_deref();
    let my_cnf = my_cnf.map(super::change::settings).transpose()?;
    let fields = [
        ("cluster_user", Some(arguments.user.as_str())),
        ("num_nodes", arguments.num_nodes.as_deref()),
        ("size", arguments.size.as_deref()),
        ("durability", arguments.durability.as_deref()),
        ("backup_id", arguments.backup_id.as_deref()),
        ("restore_to", arguments.restore_to.as_deref()),
        ("backup_schedule", arguments.backup_schedule.as_deref()),
        ("backup_keep", arguments.backup_keep.as_deref()),
        ("replace_after", arguments.replace_after.as_deref()),
        ("my_cnf", my_cnf.as_deref()),
        ("package", arguments.package.as_deref()),
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
