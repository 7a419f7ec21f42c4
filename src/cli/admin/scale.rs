//! `cotton admin scale`

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use http::Method;

use super::{Context, password::PasswordArgs};
use crate::{
    cli::{Exit, output},
    cluster::{
        view::{ClusterState, ClusterView},
        voters::Durability,
    },
    http::changes::ScaleAnswer,
};

/// Have more members or fewer, from 1 to 15. No server that stays is restarted.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ScaleArgs {
    /// The cluster's name.
    cluster: String,
    /// How many members there are to be.
    num_nodes: u32,
    #[command(flatten)]
    password: PasswordArgs,
    /// Wait until there are as many, all of them in their places, and no others.
    #[arg(long)]
    wait: bool,
    /// How long to wait.
    #[arg(long, value_name = "TIME", default_value = super::DEFAULT_WAIT, value_parser = super::parse_timeout)]
    timeout: Duration,
}

const EXAMPLES: &str = "\
Examples:
  cotton admin scale orders 5 --password-file orders.password --wait
  cotton admin scale orders 1

A member that comes copies the data of another one, catches up, votes where that is of use, and is found in discovery.
Of those that go the least useful ones are first: who does not run, then who does not vote, who is farthest behind, who shares an
agent with another member, and of equals the highest number; never the master. Each leaves the vote by safe steps before its task is
ended, and its volume is destroyed only when all of its data is elsewhere.

The durability stays what it is. Asked again while it is carried out, the last number counts; cotton admin explain tells how far it
is. When a single node is left, the master waits for nobody.";

pub(super) async fn run(context: &Context, arguments: ScaleArgs) -> anyhow::Result<Exit> {
    let cluster = &arguments.cluster;
    let password = arguments.password.given_or_asked(cluster)?;
    let number = arguments.num_nodes.to_string();
    let fields = [
        ("password", Some(password.expose())),
        ("num_nodes", Some(number.as_str())),
    ];
    let path = super::api::path_of(cluster);
    let answer: ScaleAnswer = context.api.send(Method::PUT, &path, &fields).await?;
    if context.json {
        output::answer(serde_json::to_string(&answer)?)?;
    } else {
        output::answer(text(cluster, &answer))?;
    }
    if !arguments.wait {
        return Ok(Exit::Ok);
    }
    let wanted = arguments.num_nodes;
    let over = super::wait::until(
        context,
        cluster,
        arguments.timeout,
        |view| view.num_nodes != wanted || is_so(view),
        progress,
    );
    let view = over.await?;
    if view.num_nodes != wanted {
        bail!(
            "another number of members has been asked for since: {}",
            view.num_nodes
        );
    }
    output::tell(format!("{cluster} has {wanted} members"));
    Ok(Exit::Ok)
}

/// Whether a cluster has the members that it is to have, and no others.
pub(super) fn is_so(view: &ClusterView) -> bool {
    view.state == ClusterState::Running
        && view.members.len() == view.num_nodes as usize
        && view.members.iter().all(|member| !member.leaving)
}

/// What is being waited for.
pub(super) fn progress(view: &ClusterView) -> String {
    let told = view.standing.membership.join("; ");
    if told.is_empty() {
        view.reason.clone()
    } else {
        told
    }
}

fn text(cluster: &str, answer: &ScaleAnswer) -> String {
    let (from, to) = (answer.from, answer.num_nodes);
    if from == to {
        return format!("nothing to change: {to} members are asked for already");
    }
    let told = format!("members: from {from} to {to}");
    // A cluster that is created with so many has another durability by default.
    let usual = Durability::default_for(to);
    match from < to && usual != answer.durability && answer.durability == Durability::Async {
        true => format!(
            "{told}\nthe durability stays async, so a failover can lose acknowledged writes; cotton admin change {cluster} --durability {usual} changes that"
        ),
        false => told,
    }
}
