//! `cotton admin change`

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::Args;
use http::Method;

use super::{Context, password::PasswordArgs};
use crate::{
    cli::{Exit, output},
    cluster::view::ClusterView,
    http::changes::ChangeAnswer,
};

/// Change the settings of a cluster that runs. What is not given stays as it is.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[command(group = clap::ArgGroup::new("settings").required(true).multiple(true).args(["durability", "replace_after", "backup_schedule", "backup_keep", "size", "cpus", "mem", "disk", "my_cnf", "package"]))]
pub(super) struct ChangeArgs {
    /// The cluster's name.
    cluster: String,
    /// What an acknowledged write is worth: majority or async.
    #[arg(long, value_name = "majority|async")]
    durability: Option<String>,
    /// How long an agent may be away before its member is replaced, such as 15m.
    #[arg(long, value_name = "TIME")]
    replace_after: Option<String>,
    /// When backups are made: none, an interval such as "every 6h", or a cron pattern in UTC such as "30 2 * * *".
    #[arg(long, value_name = "SCHEDULE")]
    backup_schedule: Option<String>,
    /// Which backups are kept: all, a number, an age such as 30d, or both as in 7,30d: whatever one of them keeps is kept.
    #[arg(long, value_name = "RULE")]
    backup_keep: Option<String>,
    /// The resources of each member as JSON; what is left out stays as it is.
    #[arg(long, value_name = "JSON")]
    size: Option<String>,
    /// The cpus of each member, such as 2.5.
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<String>,
    /// The memory of each member, such as 4gb.
    #[arg(long, value_name = "AMOUNT")]
    mem: Option<String>,
    /// The disk of each member, such as 100gb.
    #[arg(long, value_name = "AMOUNT")]
    disk: Option<String>,
    /// A file with settings for the servers, in the form of my.cnf, in the place of those given before; - reads standard
    /// input. One without any setting takes them back.
    #[arg(long, value_name = "FILE")]
    my_cnf: Option<PathBuf>,
    /// The package with the server: a name that --installer-args of the scheduler has, or default.
    #[arg(long, value_name = "NAME")]
    package: Option<String>,
    /// Go on though writes have to wait while a member is restarted.
    #[arg(long)]
    force: bool,
    /// Print the steps, and do nothing.
    #[arg(long, conflicts_with = "wait")]
    plan: bool,
    #[command(flatten)]
    password: PasswordArgs,
    /// Wait until the change is in force.
    #[arg(long)]
    wait: bool,
    /// How long to wait.
    #[arg(long, value_name = "TIME", default_value = super::DEFAULT_WAIT, value_parser = super::parse_timeout)]
    timeout: Duration,
}

const EXAMPLES: &str = "\
Examples:
  cotton admin change orders --durability majority --password-file orders.password --wait
  cotton admin change orders --durability async
  cotton admin change orders --replace-after 1h
  cotton admin change orders --backup-schedule 'every 6h' --backup-keep 7,30d
  cotton admin change orders --my-cnf orders.cnf --plan
  cotton admin change orders --my-cnf orders.cnf --password-file orders.password --wait
  cotton admin change orders --mem 2gb --cpus 2 --wait
  cotton admin change orders --package mariadb-11.8 --wait

Settings, package and size are changed one member after the other, slaves first, then the master after it has handed over. For
settings and package a member is restarted on its volume; for another size another member takes its place. Each is in
its place again before the next one's turn comes. If one does not come back, the change stops there and says so; the others go on
as they are. The same request resumes it, and one for what was before rolls back. Versions change only along the ways
that the servers support, and never back across series.

What a my.cnf says can be read by whoever can see the tasks of Mesos: no passwords in it.

The change is recorded when this returns, and carried out while the cluster runs. For the durability no server is restarted. Until
majority is in force, which --wait waits for, a write is acknowledged by the master alone; cotton admin explain tells how
far it is. A cluster of one node may be majority, which makes no difference before it has more.

It is also the way to get writes back when a master waits for acknowledgements that nobody is there to give:
--durability async lets go of the waiting, and loses nothing.";

pub(super) async fn run(context: &Context, arguments: ChangeArgs) -> anyhow::Result<Exit> {
    let cluster = &arguments.cluster;
    let password = arguments.password.given_or_asked(cluster)?;
    let my_cnf = arguments.my_cnf.as_deref().map(settings).transpose()?;
    let fields = [
        ("password", Some(password.expose())),
        ("durability", arguments.durability.as_deref()),
        ("replace_after", arguments.replace_after.as_deref()),
        ("backup_schedule", arguments.backup_schedule.as_deref()),
        ("backup_keep", arguments.backup_keep.as_deref()),
        ("size", arguments.size.as_deref()),
        ("cpus", arguments.cpus.as_deref()),
        ("mem", arguments.mem.as_deref()),
        ("disk", arguments.disk.as_deref()),
        ("my_cnf", my_cnf.as_deref()),
        ("package", arguments.package.as_deref()),
        ("force", arguments.force.then_some("true")),
        ("plan", arguments.plan.then_some("true")),
    ];
    let path = super::api::path_of(cluster);
    let answer: ChangeAnswer = context.api.send(Method::PATCH, &path, &fields).await?;
    if context.json {
        output::answer(serde_json::to_string(&answer)?)?;
    } else {
        output::answer(text(&answer))?;
    }
    if arguments.wait {
        let in_force = super::wait::until(context, cluster, arguments.timeout, is_over, progress);
        let view = in_force.await?;
        if let Some(stopped) = stopped(&view) {
            bail!("{stopped}");
        }
        output::tell(format!("the change of {cluster} is in force"));
    }
    Ok(Exit::Ok)
}

/// The settings in a file. A field that is empty would mean that nothing is given.
pub(super) fn settings(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map(|_| ())
    } else {
        std::fs::read_to_string(file).map(|read| text = read)
    };
    read.with_context(|| format!("the settings in {} cannot be read", file.display()))?;
    Ok(match text.trim().is_empty() {
        true => "# no settings\n".to_owned(),
        false => text,
    })
}

fn stopped(view: &ClusterView) -> Option<&String> {
    view.standing.change.as_ref()?.stopped.as_ref()
}

/// Whether the change is in force, or has stopped.
fn is_over(view: &ClusterView) -> bool {
    let standing = &view.standing;
    stopped(view).is_some() || standing.changing.is_none() && standing.change.is_none()
}

fn progress(view: &ClusterView) -> String {
    let changing = view.standing.changing.iter();
    let told = changing.chain(&view.standing.membership);
    told.cloned().collect::<Vec<_>>().join("; ")
}

fn text(answer: &ChangeAnswer) -> String {
    let changed = answer.changed.iter();
    let mut lines: Vec<String> = changed
        .map(|changed| format!("{}: from {} to {}", changed.field, changed.from, changed.to))
        .collect();
    if answer.course.resumed {
        lines.push("the change goes on".to_owned());
    }
    if lines.is_empty() {
        lines.push("nothing to change: it is so already".to_owned());
    }
    if answer.course.planned {
        let steps = match answer.course.steps.is_empty() {
            true => "Nothing was done. No member would be restarted or replaced.",
            false => "Nothing was done. The steps would be:",
        };
        lines.push(steps.to_owned());
    }
    let steps = answer.course.steps.iter();
    lines.extend(steps.map(|step| format!("  {step}")));
    lines.join("\n")
}
