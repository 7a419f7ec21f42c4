//! `cotton admin backup`, `cotton admin backups` and `cotton admin backup-delete`

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use http::Method;

use super::{Context, password::PasswordArgs};
use crate::{
    backup::verified::Verified,
    cli::{Exit, output},
    cluster::{backup::BackupOutcome, view::ClusterView},
    http::backups::{BackupAnswer, BackupsAnswer, RemovedAnswer, StoredBackup},
};

/// Make a backup of a cluster.
///
/// A slave that has caught up makes it while clients go on; the master only if there is none.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct BackupArgs {
    /// The cluster's name.
    cluster: String,
    #[command(flatten)]
    password: PasswordArgs,
    /// Wait until it is over, and tell what came of it. It is an error if there is no backup then.
    #[arg(long)]
    wait: bool,
    /// How long to wait.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = super::parse_timeout)]
    timeout: Duration,
}

const EXAMPLES: &str = "\
Examples:
  cotton admin backup orders --password-file orders.password --wait
  cotton admin backups orders
  cotton admin create orders2 --user app --backup-id orders --wait

The scheduler must have been given a store (--backup-store). While a backup is being made, another request for one gets the same
answer.";

/// List the backups of a cluster that the store has, oldest first. The cluster may have been deleted.
#[derive(Debug, Args)]
pub(super) struct BackupsArgs {
    /// The cluster's name.
    cluster: String,
}

/// Remove a backup from the store.
///
/// Of a cluster that is there it takes the password of the cluster's user, of one that was deleted that of the administrator
/// (--admin-keypath of the scheduler).
#[derive(Debug, Args)]
#[command(after_help = DELETE_EXAMPLES)]
pub(super) struct BackupDeleteArgs {
    /// The backup's id, as cotton admin backups lists it.
    #[arg(value_parser = parse_id)]
    id: (String, String),
    #[command(flatten)]
    password: PasswordArgs,
}

const DELETE_EXAMPLES: &str = "\
Example:
  cotton admin backup-delete orders/20261122T193307Z --password-file orders.password";

/// A cluster's name, and which of its backups.
fn parse_id(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('/').filter(|(_, time)| !time.contains('/'));
    let (cluster, time) =
        parts.ok_or("it is not the id of a cluster's backup, such as orders/20261122T193307Z")?;
    Ok((cluster.to_owned(), time.to_owned()))
}

pub(super) async fn delete(context: &Context, arguments: BackupDeleteArgs) -> anyhow::Result<Exit> {
    let (cluster, time) = &arguments.id;
    let password = arguments.password.given_or_asked(cluster)?;
    let fields = [("password", Some(password.expose()))];
    let path = format!("{}/backups/{time}", super::api::path_of(cluster));
    let answer: RemovedAnswer = context.api.send(Method::DELETE, &path, &fields).await?;
    if context.json {
        output::answer(serde_json::to_string(&answer)?)?;
    } else {
        output::tell(format!("{} is removed", answer.id));
    }
    Ok(Exit::Ok)
}

pub(super) async fn run(context: &Context, arguments: BackupArgs) -> anyhow::Result<Exit> {
    let cluster = &arguments.cluster;
    let password = arguments.password.given_or_asked(cluster)?;
    let fields = [("password", Some(password.expose()))];
    let path = format!("{}/backups", super::api::path_of(cluster));
    let answer: BackupAnswer = context.api.send(Method::POST, &path, &fields).await?;
    if context.json {
        output::answer(serde_json::to_string(&answer)?)?;
    } else {
        output::answer(&answer.id)?;
    }
    if !arguments.wait {
        return Ok(Exit::Ok);
    }
    let over = super::wait::until(
        context,
        cluster,
        arguments.timeout,
        |view| is_over(view, answer.number),
        progress,
    );
    let view = over.await?;
    match outcome(&view, answer.number) {
        Some(outcome) if outcome.done => output::tell(&outcome.sentence),
        Some(outcome) => bail!("there is no backup {}: {}", answer.id, outcome.sentence),
        None => bail!(
            "another backup has been made since; cotton admin backups {cluster} tells whether {} is complete",
            answer.id
        ),
    }
    Ok(Exit::Ok)
}

fn is_over(view: &ClusterView, number: u64) -> bool {
    let pending = view.standing.backup.as_ref();
    pending.is_none_or(|pending| pending.number != number)
}

fn progress(view: &ClusterView) -> String {
    match &view.standing.backup {
        Some(backup) => match backup.member {
            Some(member) => format!("member {member} has read {} MiB", backup.bytes >> 20),
            None => "no member is ready to make it yet".to_owned(),
        },
        None => view.reason.clone(),
    }
}

fn outcome(view: &ClusterView, number: u64) -> Option<&BackupOutcome> {
    let last = view.standing.last_backup.as_ref();
    last.filter(|last| last.number == number)
}

pub(super) async fn list(context: &Context, arguments: BackupsArgs) -> anyhow::Result<Exit> {
    let path = format!("{}/backups", super::api::path_of(&arguments.cluster));
    let answer: BackupsAnswer = context.api.get(&path).await?;
    if context.json {
        output::answer(serde_json::to_string(&answer)?)?;
        return Ok(Exit::Ok);
    }
    for backup in &answer.backups {
        output::answer(line(backup))?;
    }
    Ok(Exit::Ok)
}

fn line(backup: &StoredBackup) -> String {
    let about = match (&backup.about, &backup.problem) {
        (Some(about), _) => format!(
            "{} {}  {} MiB of data, {} MiB stored{}",
            about.flavour,
            about.version,
            about.data_bytes >> 20,
            about.stored_bytes >> 20,
            about
                .key_id
                .as_ref()
                .map_or_else(String::new, |key| format!(", encrypted with the key {key}"))
        ),
        (None, Some(problem)) => problem.clone(),
        (None, None) => String::new(),
    };
    let verified = backup.verified.as_ref().map_or_else(String::new, verified);
    format!("{}  {about}{verified}", backup.id)
}

/// What a verification has found.
fn verified(found: &Verified) -> String {
    match &found.problem {
        None => format!(
            ", verified {}: {} tables with {} rows, in {} s",
            found.at, found.tables, found.rows, found.seconds
        ),
        Some(problem) => format!(", VERIFICATION FAILED {}: {problem}", found.at),
    }
}
