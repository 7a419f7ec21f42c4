//! A server that runs on a data directory for a while, which is not that of a member (or not yet): without network, binlog and events, and nobody but
//! the administration account gets in.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::signal::Signal;
use tokio::time::{Instant, timeout};

use super::{
    install::Installed,
    mysqld::{Process, Program},
    starting,
    steps::{self, Context, StepError},
    tools::ToolError,
};
use crate::{
    cluster::{flavour::Flavour, id::DataId},
    mysql::{
        self, Server,
        accounts::replay_sql,
        authentication::{Authentication, SALT_LENGTH},
    },
};

/// How long the server may take until it lets the administration account in, and until it has ended.
const SERVER_DEADLINE: Duration = Duration::from_secs(30 * 60);

/// What the server is called in errors.
const NAME: &str = "the server on the restored data";

/// Such a server did not run.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// It does not answer.
    #[error("the server on the restored data does not do what it must")]
    Server(#[from] mysql::Error),
    /// It has ended, or cannot be started.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// A file for it cannot be written.
    #[error("the server on the restored data cannot be set up")]
    SetUp(#[source] Box<StepError>),
}

fn set_up(error: impl Into<StepError>) -> ScratchError {
    ScratchError::SetUp(Box::new(error.into()))
}

/// What such a server runs with.
pub struct Scratch<'a> {
    /// The task.
    pub context: &'a Context,
    /// The server's programs.
    pub installed: &'a Installed,
    /// The identity of the directory.
    pub data: DataId,
    /// The directory.
    pub folder: &'a Path,
}

impl Scratch<'_> {
    /// Starts the server and waits until it lets the administration account in.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(&self) -> Result<(Process, Server), ScratchError> {
        let Context {
            sandbox,
            spawner,
            admin,
            ..
        } = self.context;
        let flavour = self.installed.kind.flavour;
        let cnf = sandbox.replay_cnf();
        let folder: PathBuf = self.folder.to_owned();
        let text = starting::settings(self.context, self.installed, self.data, folder.clone());
        steps::write(&cnf, &text.map_err(set_up)?).map_err(set_up)?;
        let mut salt = [0; SALT_LENGTH];
        rand::fill(&mut salt);
        let authentication = Authentication::of(&admin.password, salt);
        let sql = sandbox.birth_sql();
        steps::write(&sql, &replay_sql(flavour, &admin.user, &authentication)).map_err(set_up)?;
        let mut arguments = vec![
            steps::option("--defaults-file=", &cnf),
            steps::option("--init-file=", &sql),
        ];
        let options = [
            "skip-log-bin",
            "skip-networking",
            "event-scheduler=OFF",
            "read-only=OFF",
            "max-allowed-packet=1G",
            // What it says of tables is read, and must not be in the language of the cluster's settings.
            "lc-messages=en_US",
        ];
        let mysqls = ["super-read-only=OFF", "offline-mode=OFF"];
        let own = match flavour {
            Flavour::Mysql => &mysqls[..],
            Flavour::Mariadb => &[],
        };
        arguments.extend(
            options
                .iter()
                .chain(own)
                .map(|option| format!("--{option}").into()),
        );
        let program = Program {
            path: self.installed.mysqld.clone(),
            arguments,
            working_directory: folder,
            log: sandbox.replay_log(),
        };
        let _ = fs::remove_file(&program.log);
        let mut process = spawner.spawn(&program).await.map_err(ToolError::from)?;
        let socket = sandbox.socket();
        let connect = Server::connect(&socket, admin, flavour, Instant::now() + SERVER_DEADLINE);
        let server = tokio::select! {
            server = connect => server?,
            status = process.ended() => {
                let how = steps::how_it_ended(status);
                return Err(ToolError::failed(NAME, how, &program.log).into());
            }
        };
        fs::remove_file(&sql).map_err(ToolError::files(&sql))?;
        Ok((process, server))
    }

    /// Ends the server, which writes everything down.
    ///
    /// # Errors
    /// When it does not end well.
    pub async fn end(&self, process: &mut Process) -> Result<(), ScratchError> {
        process.group().signal(Signal::SIGTERM);
        let log = self.context.sandbox.replay_log();
        Ok(finish(NAME, process, SERVER_DEADLINE, &log).await?)
    }

    /// How the server has ended that was not told to.
    pub async fn ended(&self, process: &mut Process) -> ScratchError {
        let how = steps::how_it_ended(process.ended().await);
        ToolError::failed(NAME, how, &self.context.sandbox.replay_log()).into()
    }
}

/// Waits until a program has ended well.
///
/// # Errors
/// When it ends otherwise, or takes too long: then it is killed.
pub async fn finish(
    what: &'static str,
    process: &mut Process,
    within: Duration,
    log: &Path,
) -> Result<(), ToolError> {
    let how = match timeout(within, process.ended()).await {
        Ok(status) if status.success() => return Ok(()),
        Ok(status) => steps::how_it_ended(status),
        Err(_) => {
            process.group().signal(Signal::SIGKILL);
            process.ended().await;
            "took too long".to_owned()
        }
    };
    Err(ToolError::failed(what, how, log))
}
