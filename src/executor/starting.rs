//! The start of a server: its settings, what it executes at its first start, and how it is known that it is up.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use tokio::time::Instant;
use uuid::Uuid;

use super::{
    action::Birth,
    datadir::{self, Part},
    install::Installed,
    mysqld::Program,
    rebuild, restore,
    sandbox::Sandbox,
    steps::{Context, Running, StepError, how_it_ended, option, write},
    upgrade,
};
use crate::{
    cluster::{
        flavour::Flavour,
        id::{DataId, MemberId, ProcessId},
        spec::MAX_NODES,
    },
    mysql::{
        Server,
        accounts::{birth_sql, replication_account, restored_sql},
        authentication::{Authentication, SALT_LENGTH},
        mycnf::{self, ServerSettings},
    },
    time::Timestamp,
};

/// How long a server may take until it lets somebody in. After a crash it first applies its redo log, of
/// which there may be gigabytes.
const START_DEADLINE: Duration = Duration::from_secs(30 * 60);

/// The executor's own share of the container's memory, in MiB (the original's figure).
const EXECUTOR_MEMORY_MIB: u64 = 32;

/// Starts the server closed and waits until it lets the administration account in.
pub(super) async fn start(
    context: &Context,
    installed: &Installed,
    data: DataId,
    birth: Birth,
) -> Result<Running, StepError> {
    let sandbox = &context.sandbox;
    let directory = sandbox.data(data);
    upgrade::refuse_later(&directory, installed)?;
    write(
        &sandbox.my_cnf(),
        &settings(context, installed, data, directory.clone())?,
    )?;
    let mut arguments = vec![option("--defaults-file=", &sandbox.my_cnf())];
    if let Some(sql) = first_statements(context, installed.kind.flavour, data, birth)? {
        write(&sandbox.birth_sql(), &sql)?;
        arguments.push(option("--init-file=", &sandbox.birth_sql()));
    }
    let log = sandbox.log();
    let printed_before = fs::metadata(&log).map_or(0, |metadata| metadata.len());
    let program = Program {
        path: installed.mysqld.clone(),
        arguments,
        working_directory: sandbox.data(data),
        log: log.clone(),
    };
    upgrade::begin(&directory, installed)?;
    let begun = Timestamp::now();
    let mut process = context.spawner.spawn(&program).await?;
    let socket = sandbox.socket();
    let deadline = Instant::now() + START_DEADLINE;
    let ready = async {
        let flavour = installed.kind.flavour;
        let connect = Server::connect(&socket, &context.admin, flavour, deadline);
        match birth {
            Birth::Past => {
                let server = connect.await?;
                upgrade::settle(context, installed, &directory).await?;
                return Ok(server);
            }
            Birth::Copied { .. } => {
                let server = connect.await?;
                upgrade::settle_copied(context, installed, &directory).await?;
                rebuild::settle(sandbox, &server, data).await?;
                return Ok(server);
            }
            Birth::Restored => {
                let server = connect.await?;
                forget_statements(sandbox)?;
                restore::forget_former(&directory)?;
                upgrade::settle_restored(context, installed, &directory).await?;
                rebuild::settle(sandbox, &server, data).await?;
                return Ok(server);
            }
            Birth::Empty => {}
        }
        // Most of the directory is synced beside the start, what the start has written after it.
        let synced = datadir::sync(sandbox.data(data), Part::All);
        let (server, synced) = tokio::join!(connect, synced);
        let server = server?;
        synced?;
        upgrade::note(&directory, installed)?;
        born(sandbox, data, begun).await?;
        Ok(server)
    };
    let ready = tokio::select! {
        ready = ready => ready,
        status = process.ended() => Err(StepError::Ended {
            how: how_it_ended(status),
            printed: datadir::tail(&log, printed_before).unwrap_or_default(),
        }),
    };
    match ready {
        Ok(server) => Ok(Running {
            id: ProcessId(Uuid::new_v4()),
            process,
            server: Arc::new(server),
        }),
        Err(error) => {
            // The next start needs the directory, the port and the socket.
            process.group().signal(nix::sys::signal::Signal::SIGKILL);
            process.ended().await;
            Err(error)
        }
    }
}

/// What a server executes at its first start, before it lets anybody in.
fn first_statements(
    context: &Context,
    flavour: Flavour,
    data: DataId,
    birth: Birth,
) -> Result<Option<String>, StepError> {
    if matches!(birth, Birth::Past | Birth::Copied { .. }) {
        return Ok(None);
    }
    let mut salt = [0; SALT_LENGTH];
    rand::fill(&mut salt);
    let admin = Authentication::of(&context.admin.password, salt);
    let replication = (0..MAX_NODES).map(|member| replication_login(context, MemberId(member)));
    let replication: Vec<_> = replication.collect();
    let user = &context.admin.user;
    if birth == Birth::Empty {
        return Ok(Some(birth_sql(flavour, user, &admin, &replication)));
    }
    let restore = context.task.restore.as_ref().ok_or(StepError::NoBackup)?;
    let former = restore::former(&context.sandbox.data(data), restore)?;
    let sql = restored_sql(flavour, user, &admin, &replication, &former);
    Ok(Some(sql))
}

fn forget_statements(sandbox: &Sandbox) -> Result<(), StepError> {
    let path = sandbox.birth_sql();
    fs::remove_file(&path).map_err(|source| StepError::Write { path, source })
}

/// A member's replication account as the server stores it.
pub(super) fn replication_login(context: &Context, member: MemberId) -> (String, Authentication) {
    let account = replication_account(&context.admin.password, context.task.uuid, member);
    let mut salt = [0; SALT_LENGTH];
    rand::fill(&mut salt);
    (account.user, Authentication::of(&account.password, salt))
}

/// After the first start of a data directory: its accounts are made, and all of it is on the disk before
/// anything is promised or acknowledged from it.
async fn born(sandbox: &Sandbox, data: DataId, begun: Timestamp) -> Result<(), StepError> {
    forget_statements(sandbox)?;
    datadir::sync(sandbox.data(data), Part::WrittenSince(begun)).await?;
    Ok(())
}

/// The settings of a server on the directory of an incarnation, which may not have its name yet.
pub(super) fn settings(
    context: &Context,
    installed: &Installed,
    data: DataId,
    data_dir: PathBuf,
) -> Result<String, StepError> {
    let Context {
        task,
        sandbox,
        bind_address,
        host,
        user_defaults,
        ..
    } = context;
    Ok(mycnf::render(&ServerSettings {
        flavour: installed.kind.flavour,
        version: installed.kind.version,
        server_id: data.server_id(task.member),
        port: task.port,
        bind_address: bind_address.clone(),
        report_host: host.clone(),
        data_dir,
        socket: sandbox.socket_for_server(),
        tmp_dir: sandbox.tmp(),
        memory_mib: task.memory_mib.saturating_sub(EXECUTOR_MEMORY_MIB),
        as_root: nix::unistd::geteuid().is_root(),
        relaxed_durability: false,
        user_defaults: joined(user_defaults.as_ref(), task.my_cnf.as_ref()),
    })?)
}

/// The agent's settings and those of the cluster's owner, which come later and win.
fn joined(agent: Option<&String>, owner: Option<&String>) -> Option<String> {
    match (agent, owner) {
        (Some(agent), Some(owner)) => Some(format!("{}\n{owner}", agent.trim_end())),
        (one, other) => one.or(other).cloned(),
    }
}
