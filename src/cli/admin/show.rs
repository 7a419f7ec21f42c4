//! `cotton admin show`

use clap::Args;

use super::Context;
use crate::{
    cli::{Exit, output},
    cluster::view::{ClusterView, MemberView},
};

/// Show a cluster.
#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The cluster's name.
    cluster: String,
}

pub(super) async fn run(context: &Context, arguments: ShowArgs) -> anyhow::Result<Exit> {
    let view: ClusterView = context
        .api
        .get(&super::api::path_of(&arguments.cluster))
        .await?;
    if context.json {
        output::answer(serde_json::to_string_pretty(&view)?)?;
    } else {
        output::answer(format!("{}\n\n{}", facts(&view), members(&view.members)))?;
    }
    Ok(Exit::Ok)
}

fn facts(view: &ClusterView) -> String {
    let server = match (&view.flavour, &view.version) {
        (Some(flavour), Some(version)) => format!("{flavour} {version}"),
        (Some(flavour), None) => flavour.to_string(),
        (None, _) => "not known yet".to_owned(),
    };
    let rows = [
        ("name", view.name.to_string()),
        ("state", view.state.as_str().to_owned()),
        ("reason", view.reason.clone()),
        ("user", view.user.clone()),
        ("discovery", view.cluster_url.clone()),
        (
            "members",
            format!("{}, each with {}", view.num_nodes, view.size),
        ),
        ("server", server),
        ("durability", view.durability.to_string()),
        ("epoch", view.epoch.to_string()),
    ];
    output::table(&rows.map(|(name, value)| vec![name.to_owned(), value]))
}

fn members(members: &[MemberView]) -> String {
    let head = ["MEMBER", "ROLE", "STATE", "ADDRESS", "VOTES", "AGENT"]
        .map(String::from)
        .to_vec();
    let row = |member: &MemberView| {
        vec![
            member.id.to_string(),
            member.role.as_str().to_owned(),
            member.state.as_str().to_owned(),
            address(member),
            if member.voter { "yes" } else { "no" }.to_owned(),
            member.agent_id.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    };
    output::table(
        &std::iter::once(head)
            .chain(members.iter().map(row))
            .collect::<Vec<_>>(),
    )
}

/// `host:port` of a member.
pub(super) fn address(member: &MemberView) -> String {
    match (&member.host, member.port) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        _ => "-".to_owned(),
    }
}
