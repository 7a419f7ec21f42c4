//! Handing this member's data out to another executor of the cluster: MariaDB's servers do not copy from each other.
//!
//! A small server listens on a port of its own, from when the MariaDB server is installed; the report names it. Who
//! connects has to prove that it belongs to the cluster ([`stream`](super::stream)) and then gets what
//! `mariadb-backup` makes of the running server, one receiver at a time. What it makes goes nowhere but into the
//! stream: nothing is stored here. A receiver that does not read holds the tool up and loses the stream after a minute.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream, unix::pipe},
    sync::{Semaphore, TryAcquireError},
    time::{Instant, timeout},
};
use tracing::{info, warn};

use super::{
    chain, datadir,
    install::Installed,
    mysqld::{Process, Program, SpawnError},
    pace::Pace,
    steps::{self, Context, StepError},
    stream::{ALIVE_EVERY, Frame, PIECE, Sender, StreamError, StreamKey},
    tools,
};
use crate::{
    cluster::flavour::Flavour,
    mysql::{self, Server},
};

/// How many connections may be trying to prove themselves at the same time.
const STRANGERS: usize = 4;

/// How long the server may take to answer.
const ASK_DEADLINE: Duration = Duration::from_secs(10);

/// How long the tool may bring nothing. It waits for statements that change tables, and for commits.
const STALL: Duration = Duration::from_secs(300);

/// How long the tool may take to end when it has brought everything.
const END_DEADLINE: Duration = Duration::from_secs(60);

/// What a receiver must know of the data beside the data: the last frame's payload, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trailer {
    /// The server's `gtid_binlog_state`, read after the data.
    pub binlog_state: String,
}

/// A stream could not be completed.
#[derive(Debug, thiserror::Error)]
enum DonorError {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error(transparent)]
    Server(#[from] mysql::Error),
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error(transparent)]
    Step(#[from] StepError),
    #[error("the administration account cannot be written into an options file")]
    Account,
    #[error("the tool's output cannot be read")]
    Read(#[source] io::Error),
    #[error("the tool brought nothing for {STALL:?}")]
    Stalled,
    #[error("the tool {how}; it printed: {printed}")]
    Tool { how: String, printed: String },
    #[error("another copy of this member is being made")]
    Busy,
}

/// What handing out needs.
struct Donor {
    context: Arc<Context>,
    tool: PathBuf,
    key: StreamKey,
    strangers: Semaphore,
    streams: Semaphore,
}

/// Starts to hand out, if this server's data is handed out by executors and its tool is there. Returns the port.
///
/// # Errors
/// When no port can be had.
pub fn start(context: &Arc<Context>, installed: &Installed) -> io::Result<Option<u16>> {
    if installed.kind.flavour != Flavour::Mariadb {
        return Ok(None);
    }
    let Some(tool) = tools::find(&installed.mysqld, &["mariadb-backup", "mariabackup"]) else {
        warn!("mariadb-backup is not installed here; no other member can copy this one");
        return Ok(None);
    };
    let address: IpAddr = context
        .bind_address
        .parse()
        .unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    let listener = std::net::TcpListener::bind((address, 0))?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let port = listener.local_addr()?.port();
    let donor = Arc::new(Donor {
        key: StreamKey::new(&context.admin.password, context.task.uuid),
        context: Arc::clone(context),
        tool,
        strangers: Semaphore::new(STRANGERS),
        streams: Semaphore::new(1),
    });
    tokio::spawn(donor.listen(listener));
    info!(port, "data is handed out to the cluster's other executors");
    Ok(Some(port))
}

impl Donor {
    async fn listen(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((connection, _)) => {
                    tokio::spawn(Arc::clone(&self).meet(connection));
                }
                Err(error) => {
                    warn!(%error, "a connection cannot be accepted");
                    // Such as too many open files, which takes a while to pass.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    async fn meet(self: Arc<Self>, connection: TcpStream) {
        let Ok(stranger) = self.strangers.try_acquire() else {
            return;
        };
        let peer = connection.peer_addr().ok();
        // What is left of a frame does not wait for the receiver's word on the rest of it (Nagle's algorithm, tcp(7)).
        if let Err(error) = connection.set_nodelay(true) {
            warn!(?peer, %error, "a connection cannot be set up");
            return;
        }
        let mut sender = match Sender::accept(connection, &self.key).await {
            Ok(sender) => sender,
            Err(error) => {
                warn!(?peer, error = %chain(&error), "a connection was not let in");
                return;
            }
        };
        drop(stranger);
        let begun = Instant::now();
        match self.give(&mut sender).await {
            Ok(bytes) => info!(?peer, bytes, took = ?begun.elapsed(), "data handed out"),
            Err(error) => {
                let why = chain(&error);
                warn!(?peer, why, "data was not handed out");
                // If it cannot be told, the receiver sees the connection end.
                let _ = sender.send(Frame::Failed(&why)).await;
            }
        }
    }

    /// Streams what the tool makes. Returns the number of bytes.
    async fn give(&self, sender: &mut Sender<TcpStream>) -> Result<u64, DonorError> {
        let _stream = self.streams.try_acquire().map_err(|error| match error {
            TryAcquireError::Closed | TryAcquireError::NoPermits => DonorError::Busy,
        })?;
        let sandbox = &self.context.sandbox;
        let deadline = Instant::now() + ASK_DEADLINE;
        let server = Server::connect(
            &sandbox.socket(),
            &self.context.admin,
            Flavour::Mariadb,
            deadline,
        )
        .await?;
        let data = server.data_directory().await?;
        let (mut process, mut output) = self.start_tool(&data).await?;
        let pace = Pace::of_mib(self.context.task.copy_rate_mib);
        let bytes = pump(&mut output, sender, pace).await?;
        let ended = timeout(END_DEADLINE, process.ended()).await;
        let status = ended.map_err(|_| DonorError::Stalled)?;
        if !status.success() {
            return Err(DonorError::Tool {
                how: steps::how_it_ended(status),
                printed: datadir::tail(&sandbox.copy_log(), 0).unwrap_or_default(),
            });
        }
        let trailer = Trailer {
            binlog_state: server.binlog_state().await?,
        };
        let trailer = serde_json::to_vec(&trailer).unwrap_or_default();
        sender.send(Frame::End(&trailer)).await?;
        Ok(bytes)
    }

    /// Dropping the process kills the tool.
    async fn start_tool(&self, data: &Path) -> Result<(Process, pipe::Receiver), DonorError> {
        let sandbox = &self.context.sandbox;
        let login = tools::login(
            "mariadb-backup",
            &self.context.admin,
            &sandbox.socket_for_server(),
        );
        steps::write(&sandbox.copy_cnf(), &login.ok_or(DonorError::Account)?)?;
        // What an earlier run has printed is of no interest any more.
        let _ = fs::remove_file(sandbox.copy_log());
        let (reader, writer) = tools::pipe().map_err(DonorError::Read)?;
        let output = pipe::Receiver::from_owned_fd(reader.into()).map_err(DonorError::Read)?;
        let program = Program {
            path: self.tool.clone(),
            arguments: tools::backup_arguments(&sandbox.copy_cnf(), data, &sandbox.tmp()),
            working_directory: data.to_owned(),
            log: sandbox.copy_log(),
        };
        let spawner = &self.context.spawner;
        let process = spawner
            .spawn_between(&program, std::process::Stdio::null(), Some(writer.into()))
            .await?;
        Ok((process, output))
    }
}

/// Sends all that comes, and signs of life while nothing does.
async fn pump(
    output: &mut pipe::Receiver,
    sender: &mut Sender<TcpStream>,
    mut pace: Pace,
) -> Result<u64, DonorError> {
    let mut bytes = 0;
    let mut brought = Instant::now();
    let mut piece = vec![0; PIECE];
    loop {
        match timeout(ALIVE_EVERY, output.read(&mut piece)).await {
            Ok(Ok(0)) => return Ok(bytes),
            Ok(Ok(length)) => {
                bytes += length as u64;
                brought = Instant::now();
                sender.send(Frame::Data(&piece[..length])).await?;
                pace.keep(length).await;
            }
            Ok(Err(error)) => return Err(DonorError::Read(error)),
            Err(_) if brought.elapsed() >= STALL => return Err(DonorError::Stalled),
            Err(_) => sender.send(Frame::Alive).await?,
        }
    }
}

/// Kills a tool and waits until it is gone.
pub(super) async fn end(process: &mut Process) {
    process.group().signal(Signal::SIGKILL);
    process.ended().await;
}
