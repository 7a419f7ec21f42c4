//! `cotton admin restart`

use std::time::Duration;

use clap::Args;
use http::Method;

use super::{Context, password::PasswordArgs};
use crate::{
    cli::{Exit, output},
    cluster::view::{ClusterView, MemberRole},
    http::restarts::RestartAnswer,
};

/// Restart a member: its task ends, and another one takes its place on its volume.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RestartArgs {
    /// The cluster's name.
    cluster: String,
    /// The number of the member.
    #[arg(long, value_name = "MEMBER")]
    member: u32,
    /// Restart it though writes have to wait until it is back.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    password: PasswordArgs,
    /// Wait until it is back in its place.
    #[arg(long)]
    wait: bool,
    /// How long to wait.
    #[arg(long, value_name = "TIME", default_value = super::DEFAULT_WAIT, value_parser = super::parse_timeout)]
    timeout: Duration,
}

const EXAMPLES: &str = "\
Examples:
  cotton admin restart orders --member 1 --password-file orders.password --wait
  cotton admin restart orders --member 0 --force

A master hands over first, if there is anybody to hand over to. The restart is refused, with the reason, when writes would have to
wait for the member; --force does it all the same. A cluster of one node is down meanwhile. Without a volume the data would
go with the task: such a member is replaced instead, with cotton admin replace.";

pub(super) async fn run(context: &Context, arguments: RestartArgs) -> anyhow::Result<Exit> {
    let cluster = &arguments.cluster;
    let password = arguments.password.given_or_asked(cluster)?;
    let member = arguments.member.to_string();
    let fields = [
        ("password", Some(password.expose())),
        ("member", Some(member.as_str())),
        ("force", arguments.force.then_some("true")),
    ];
    let path = format!("{}/restart", super::api::path_of(cluster));
    let answer: RestartAnswer = context.api.send(Method::POST, &path, &fields).await?;
    if context.json {
        output::answer(serde_json::to_string(&answer)?)?;
    } else {
        output::answer(&answer.note)?;
    }
    if arguments.wait {
        let former = answer.task_id.to_string();
        let over = super::wait::until(
            context,
            cluster,
            arguments.timeout,
            |view| is_back(view, arguments.member, &former),
            super::scale::progress,
        );
        over.await?;
        output::tell(format!("member {member} of {cluster} is back"));
    }
    Ok(Exit::Ok)
}

/// Whether the member has another task and serves clients again.
fn is_back(view: &ClusterView, member: u32, former: &str) -> bool {
    let members = view.members.iter();
    let mut found = members.filter(|it| it.id == member);
    found.any(|it| {
        it.task_id.as_deref().is_some_and(|task| task != former) && it.role != MemberRole::None
    })
}
