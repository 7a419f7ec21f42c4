//! `cotton admin replace`

use std::time::Duration;

use clap::Args;
use http::Method;

use super::{Context, password::PasswordArgs};
use crate::{
    cli::{Exit, output},
    cluster::view::ClusterView,
    http::changes::ReplaceAnswer,
};

/// Have another member in the place of one. It comes first, and then the other one goes.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ReplaceArgs {
    /// The cluster's name.
    cluster: String,
    /// The number of the member that is to leave.
    #[arg(long, value_name = "MEMBER")]
    member: u32,
    #[command(flatten)]
    password: PasswordArgs,
    /// Wait until it has left and another one has its place.
    #[arg(long)]
    wait: bool,
    /// How long to wait.
    #[arg(long, value_name = "TIME", default_value = super::DEFAULT_WAIT, value_parser = super::parse_timeout)]
    timeout: Duration,
}

const EXAMPLES: &str = "\
Examples:
  cotton admin replace orders --member 1 --password-file orders.password --wait

The new member gets a number that none had before, copies the data, catches up and votes if the old one did. Then the old one
hands over if it is the master, leaves the vote by safe steps, and its task is ended. Its volume is destroyed when all of its data is
elsewhere. Without an agent that has room for another member it waits, and cotton admin explain says so.";

pub(super) async fn run(context: &Context, arguments: ReplaceArgs) -> anyhow::Result<Exit> {
    let cluster = &arguments.cluster;
    let password = arguments.password.given_or_asked(cluster)?;
    let member = arguments.member.to_string();
    let fields = [
        ("password", Some(password.expose())),
        ("member", Some(member.as_str())),
    ];
    let path = format!("{}/replace", super::api::path_of(cluster));
    let answer: ReplaceAnswer = context.api.send(Method::POST, &path, &fields).await?;
    if context.json {
        output::answer(serde_json::to_string(&answer)?)?;
    } else {
        output::answer(text(&answer))?;
    }
    if arguments.wait {
        let member = arguments.member;
        let over = super::wait::until(
            context,
            cluster,
            arguments.timeout,
            |view| has_left(view, member) && super::scale::is_so(view),
            super::scale::progress,
        );
        over.await?;
        output::tell(format!("member {member} of {cluster} has left"));
    }
    Ok(Exit::Ok)
}

fn has_left(view: &ClusterView, member: u32) -> bool {
    view.members.iter().all(|it| it.id != member)
}

fn text(answer: &ReplaceAnswer) -> String {
    match answer.replacement {
        Some(replacement) => format!(
            "member {replacement} is to take the place of member {}",
            answer.member
        ),
        None => format!("member {} is to leave", answer.member),
    }
}
