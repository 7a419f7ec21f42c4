//! `cotton admin show`

use clap::Args;

use super::Context;
use crate::{
    cli::{Exit, output},
    cluster::view::{ClusterView, MemberView, Standing},
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
        let mut told = format!("{}\n\n{}", facts(&view), members(&view.members));
        if let Some(my_cnf) = &view.standing.my_cnf {
            told = format!("{told}\n\nmy.cnf:\n{}", my_cnf.trim_end());
        }
        if !view.standing.maintenance.is_empty() {
            told = format!("{told}\n\n{}", view.standing.maintenance.join("\n"));
        }
        output::answer(told)?;
    }
    Ok(Exit::Ok)
}

fn facts(view: &ClusterView) -> String {
    let server = match (&view.flavour, &view.version) {
        (Some(flavour), Some(version)) => format!("{flavour} {version}"),
        (Some(flavour), None) => flavour.to_string(),
        (None, _) => "not known yet".to_owned(),
    };
    let mut rows = vec![
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
    rows.extend(view.standing.package.clone().map(|it| ("package", it)));
    let replace_after = view.standing.replace_after;
    rows.extend(replace_after.map(|it| ("replace after", it.to_string())));
    rows.extend(change(view));
    rows.extend(archive(view));
    let rows = rows.into_iter();
    let rows: Vec<_> = rows
        .chain(backups(view))
        .map(|(name, value)| vec![name.to_owned(), value])
        .collect();
    output::table(&rows)
}

/// How far back the cluster could be brought if it were lost altogether.
fn archive(view: &ClusterView) -> Vec<(&'static str, String)> {
    let Standing {
        archived_until,
        recoverable_until,
        archive_problem,
        ..
    } = &view.standing;
    let mut rows = Vec::new();
    match (recoverable_until, archived_until) {
        (Some(until), _) => rows.push(("recoverable until", until.to_string())),
        (None, Some(until)) => rows.push((
            "binlogs archived until",
            format!("{until}; there is no backup to begin with"),
        )),
        (None, None) => {}
    }
    rows.extend(archive_problem.clone().map(|problem| ("archive", problem)));
    rows
}

/// Where there is a store.
fn backups(view: &ClusterView) -> Option<(&'static str, String)> {
    let backups = view.standing.backups.as_ref()?;
    Some(("backups", backups.sentence(&view.standing)))
}

/// How far a change of size, settings or package is.
fn change(view: &ClusterView) -> Option<(&'static str, String)> {
    let change = view.standing.change.as_ref()?;
    let with = change.members_with_it.len();
    let all = with + change.members_without_it.len();
    let told = format!(
        "revision {}: {with} of {all} members have it",
        change.revision
    );
    let stopped = change.stopped.iter().map(|it| format!("; {it}"));
    Some(("change", told + &stopped.collect::<String>()))
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
