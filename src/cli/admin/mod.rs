//! `cotton admin`: what a person or a script asks of a scheduler, one file per verb.

mod api;
mod backup;
mod change;
mod create;
mod delete;
mod discovery;
mod explain;
mod failover;
mod list;
mod password;
mod pause;
mod replace;
mod restart;
mod scale;
mod show;
mod slots;
mod switchover;
mod undelete;
mod unknown_tasks;
mod wait;

use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use self::api::{Api, BaseUrl};
use super::Exit;

/// Ask a scheduler for clusters.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct AdminArgs {
    /// Where the scheduler is, such as http://scheduler.example.com:8080.
    #[arg(long, env = "COTTON_API", value_name = "URL", global = true)]
    api: Option<BaseUrl>,

    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create a cluster and print its password and the URL where its master and slaves are found.
    Create(create::CreateArgs),
    /// Delete a cluster. Its data is kept for a while, if it has volumes.
    Delete(delete::DeleteArgs),
    /// Bring a deleted cluster back, while its data is kept.
    Undelete(undelete::UndeleteArgs),
    /// List all clusters.
    List,
    /// Show a cluster and its members.
    Show(show::ShowArgs),
    /// Explain what a cluster waits for and how its last failovers came about.
    Explain(explain::ExplainArgs),
    /// Change the settings of a cluster.
    Change(change::ChangeArgs),
    /// Decide nothing for a cluster until it is resumed.
    Pause(pause::PauseArgs),
    /// Go on with a cluster that was paused.
    Resume(pause::ResumeArgs),
    /// Make a backup of a cluster.
    Backup(backup::BackupArgs),
    /// List the backups of a cluster.
    Backups(backup::BackupsArgs),
    /// Remove a backup from the store.
    BackupDelete(backup::BackupDeleteArgs),
    /// Have more members or fewer.
    Scale(scale::ScaleArgs),
    /// Have another member in the place of one.
    Replace(replace::ReplaceArgs),
    /// Restart a member on its volume.
    Restart(restart::RestartArgs),
    /// Make another member the master.
    Switchover(switchover::SwitchoverArgs),
    /// Elect a master without the voters that are missing, and accept that acknowledged writes may be lost.
    Failover(failover::FailoverArgs),
    /// List the members' reservations and volumes, and what is kept of deleted clusters.
    Slots(slots::SlotsArgs),
    /// List tasks that run and that the scheduler's state does not explain.
    UnknownTasks,
    /// Wait until a cluster is in a state.
    Wait(wait::WaitArgs),
}

const EXAMPLES: &str = "\
Examples:
  export COTTON_API=http://scheduler.example.com:8080
  cotton admin create orders --user app --num-nodes 3 --wait
  cotton admin show orders
  cotton admin explain orders
  cotton admin change orders --durability async
  cotton admin change orders --mem 2gb --wait
  cotton admin scale orders 5 --wait
  cotton admin delete orders --password-file orders.password --wait
  cotton admin undelete orders --password-file orders.password --wait

A password is read from a file, from standard input (`--password-file -`) or from the terminal, and never
stands on the command line, where every user of the machine could read it.";

/// What all verbs share.
struct Context {
    api: Api,
    json: bool,
}

pub(super) fn run(arguments: AdminArgs) -> anyhow::Result<Exit> {
    let AdminArgs { api, json, verb } = arguments;
    let Some(api) = api else {
        super::output::complain(
            "--api is missing: say where the scheduler is, with --api http://HOST:PORT or COTTON_API",
        );
        return Ok(Exit::Usage);
    };
    let runtime = super::single_thread_runtime().context("start a thread")?;
    runtime.block_on(async {
        let context = Context {
            api: Api::new(api),
            json,
        };
        match verb {
            Verb::Create(arguments) => create::run(&context, arguments).await,
            Verb::Delete(arguments) => delete::run(&context, arguments).await,
            Verb::Undelete(arguments) => undelete::run(&context, arguments).await,
            Verb::List => list::run(&context).await,
            Verb::Show(arguments) => show::run(&context, arguments).await,
            Verb::Explain(arguments) => explain::run(&context, arguments).await,
            Verb::Change(arguments) => change::run(&context, arguments).await,
            Verb::Pause(arguments) => pause::pause(&context, arguments).await,
            Verb::Resume(arguments) => pause::resume(&context, arguments).await,
            Verb::Backup(arguments) => backup::run(&context, arguments).await,
            Verb::Backups(arguments) => backup::list(&context, arguments).await,
            Verb::BackupDelete(arguments) => backup::delete(&context, arguments).await,
            Verb::Scale(arguments) => scale::run(&context, arguments).await,
            Verb::Replace(arguments) => replace::run(&context, arguments).await,
            Verb::Restart(arguments) => restart::run(&context, arguments).await,
            Verb::Switchover(arguments) => switchover::run(&context, arguments).await,
            Verb::Failover(arguments) => failover::run(&context, arguments).await,
            Verb::Slots(arguments) => slots::run(&context, arguments).await,
            Verb::UnknownTasks => unknown_tasks::run(&context).await,
            Verb::Wait(arguments) => wait::run(&context, arguments).await,
        }
    })
}

/// How long `--wait` waits when nothing is said: a first package may have to be fetched and unpacked.
const DEFAULT_WAIT: &str = "10m";

fn parse_timeout(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "it is not a time such as 30s, 5m or 1h".to_owned())
}
