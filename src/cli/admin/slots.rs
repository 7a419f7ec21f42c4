//! `cotton admin slots`

use clap::Args;
use http::Method;

use super::{Context, password::PasswordArgs};
use crate::{
    cli::{Exit, output},
    cluster::slot_view::{DeletedCluster, SlotState, SlotView, WHAT_TO_DO},
    http::slots::{ReclaimAnswer, SlotsAnswer},
};

/// List the members' reservations and volumes, and what is kept of deleted clusters.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SlotsArgs {
    /// Destroy this slot, with the data on it. It must be one that is kept, or that no record explains.
    #[arg(long, value_name = "SLOT")]
    reclaim: Option<String>,
    #[command(flatten)]
    password: PasswordArgs,
}

const EXAMPLES: &str = "\
Examples:
  cotton admin slots
  cotton admin slots --reclaim 1c9e5a2e-8d5b-4f0a-9c0e-0d7f5f0a3b6d.2.1 --password-file admin.password

in-use and waiting slots are those of members that run and that are to be launched. kept ones belong to deleted clusters, which
cotton admin undelete brings back until then, or to members that have left and may have writes that no other member has. destroying ones are released as soon as their agents offer them. given-up ones were
never used and may not exist.

An orphaned slot is reserved under Cotton's labels, and no record explains it. It may be the state that is wrong: a lost
one, or another --zk-url. So it stays until somebody gives it up with --reclaim.

What is kept can be given up in the same way, before its time; the answer says what is lost. A deleted cluster of which a member's
slot was given up cannot be brought back. Slots of members are not given up: see cotton admin replace and scale.

Whose the data is, no cluster's password is asked for: the password is that of the account of the scheduler's --admin-keypath. What
was given up is destroyed when its agent offers it, and that is never taken back.";

pub(super) async fn run(context: &Context, arguments: SlotsArgs) -> anyhow::Result<Exit> {
    match &arguments.reclaim {
        Some(slot) => reclaim(context, slot, &arguments.password).await,
        None => list(context).await,
    }
}

async fn reclaim(context: &Context, slot: &str, password: &PasswordArgs) -> anyhow::Result<Exit> {
    let password = password.given_or_asked("the account of --admin-keypath")?;
    let fields = [("slot", Some(slot)), ("password", Some(password.expose()))];
    let path = "/slots/reclaim";
    let answer: ReclaimAnswer = context.api.send(Method::POST, path, &fields).await?;
    if context.json {
        output::answer(serde_json::to_string(&answer)?)?;
    } else {
        output::answer(format!(
            "the slot {} of the cluster {} is given up, and destroyed when its agent offers it: {}",
            answer.slot, answer.cluster, answer.lost
        ))?;
    }
    Ok(Exit::Ok)
}

async fn list(context: &Context) -> anyhow::Result<Exit> {
    let answer: SlotsAnswer = context.api.get("/slots").await?;
    if context.json {
        output::answer(serde_json::to_string_pretty(&answer)?)?;
        return Ok(Exit::Ok);
    }
    if answer.slots.is_empty() {
        output::tell("nothing is reserved for any member");
        return Ok(Exit::Ok);
    }
    let head = [
        "CLUSTER", "MEMBER", "STATE", "HOST", "AGENT", "SIZE", "SINCE", "SLOT",
    ];
    let head = head.map(String::from).to_vec();
    let rows = std::iter::once(head).chain(answer.slots.iter().map(row));
    output::answer(output::table(&rows.collect::<Vec<_>>()))?;
    if !answer.deleted_clusters.is_empty() {
        let head = [
            "DELETED",
            "USER",
            "NODES",
            "SLOTS",
            "KEPT UNTIL",
            "INCARNATION",
        ];
        let head = head.map(String::from).to_vec();
        let rows = std::iter::once(head).chain(answer.deleted_clusters.iter().map(deleted));
        let table = output::table(&rows.collect::<Vec<_>>());
        output::answer(format!("\n{table}"))?;
    }
    if answer
        .slots
        .iter()
        .any(|slot| slot.state == SlotState::Orphaned)
    {
        output::tell(format!("no record explains orphaned slots; {WHAT_TO_DO}"));
    }
    Ok(Exit::Ok)
}

fn row(slot: &SlotView) -> Vec<String> {
    vec![
        slot.cluster.to_string(),
        slot.member
            .map_or_else(|| "-".to_owned(), |member| member.to_string()),
        slot.state.as_str().to_owned(),
        slot.host.clone(),
        slot.agent_id.clone(),
        slot.size.to_string(),
        slot.since.to_string(),
        slot.slot.to_string(),
    ]
}

fn deleted(cluster: &DeletedCluster) -> Vec<String> {
    vec![
        cluster.name.to_string(),
        cluster.user.clone(),
        cluster.num_nodes.to_string(),
        cluster.slots.to_string(),
        match cluster.destroying {
            true => "being destroyed".to_owned(),
            false => cluster.kept_until.to_string(),
        },
        cluster.incarnation.to_string(),
    ]
}
