//! The command line: arguments -> settings -> run, one file per command.
//!
//! Everything that is wrong ends in one sentence on stderr and an exit status: 1 when something failed, 2 when
//! the command itself is wrong and nothing was tried.

mod admin;
mod executor;
mod local;
mod output;
mod scheduler;
pub mod settings;

use std::process::ExitCode;

use clap::{Parser, Subcommand, error::ErrorKind};

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// As asked.
    Ok,
    /// Something failed.
    Failed,
    /// The command is wrong; nothing was tried.
    Usage,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Ok => ExitCode::SUCCESS,
            Exit::Failed => ExitCode::from(1),
            Exit::Usage => ExitCode::from(2),
        }
    }
}

/// Self-service MySQL clusters on Apache Mesos.
#[derive(Debug, Parser)]
#[command(
    name = "cotton",
    version,
    max_term_width = 110,
    propagate_version = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the scheduler: the REST API, and the framework on Mesos that carries requests out.
    Scheduler(settings::Arguments),
    /// Run one MySQL instance; started by Mesos agents, with what they put into the environment.
    Executor,
    /// Kill a server when its executor does not say in time that it may go on; started by the executor.
    #[command(hide = true)]
    Watchdog {
        /// The server's process, which leads a group.
        group: i32,
        /// How long it may go on without a word, in milliseconds.
        patience: u64,
    },
    /// Ask a scheduler for clusters.
    Admin(admin::AdminArgs),
    /// Run the whole system on this machine: ZooKeeper, a stand-in for Mesos, and the scheduler.
    Local(crate::local::up::LocalArgs),
    /// Run the stand-in for a Mesos master.
    #[command(hide = true)]
    LocalMaster(crate::local::master::MasterArgs),
    /// Run the stand-in for a Mesos agent.
    #[command(hide = true)]
    LocalAgent(crate::local::agent::AgentArgs),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let result = match Cli::try_parse() {
        Ok(cli) => match cli.command {
            Command::Scheduler(arguments) => scheduler::run(arguments),
            Command::Executor => executor::run(),
            Command::Watchdog { group, patience } => executor::watch(group, patience),
            Command::Admin(arguments) => admin::run(arguments),
            Command::Local(arguments) => local::up(arguments),
            Command::LocalMaster(arguments) => local::master(arguments),
            Command::LocalAgent(arguments) => local::agent(arguments),
        },
        Err(error) => return usage(&error).into(),
    };
    let exit = result.unwrap_or_else(|error| {
        output::complain(&one_line(&error));
        Exit::Failed
    });
    exit.into()
}

/// The error and its causes as one line.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let cause = cause.to_string().replace('\n', " ");
        // Some errors repeat their cause in their own text.
        if line.ends_with(&cause) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&cause);
    }
    line
}

/// Help goes to stdout as it is; of an error only the sentence is told, and the help that was not asked for is
/// left out.
fn usage(error: &clap::Error) -> Exit {
    use ErrorKind as Kind;
    match error.kind() {
        Kind::DisplayHelp | Kind::DisplayVersion => {
            // A closed pipe (`cotton --help | head`) is no failure.
            let _ = error.print();
            Exit::Ok
        }
        Kind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            Exit::Usage
        }
        _ => {
            let text = error.render().to_string();
            let told = text
                .split("\n\n")
                .filter(|part| !part.starts_with("Usage:"));
            let told = told.filter(|part| !part.starts_with("For more information"));
            let in_one_line = |part: &str| part.split_whitespace().collect::<Vec<_>>().join(" ");
            let sentence = told.map(in_one_line).collect::<Vec<_>>().join("; ");
            let sentence = sentence.strip_prefix("error: ").unwrap_or(&sentence);
            output::complain(&format!("{sentence}; see --help"));
            Exit::Usage
        }
    }
}

/// The runtime of commands that wait more than they work: one thread, little memory.
fn single_thread_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }

    #[test]
    fn chains_become_one_line_without_repetitions() {
        let error = anyhow::anyhow!("no route\nto host").context("connect: no route\nto host");
        assert_eq!(
            super::one_line(&error.context("ask")),
            "ask: connect: no route to host"
        );
    }
}
