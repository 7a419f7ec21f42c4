//! Receiving a copy of a MariaDB server from the executor of another member, and making it one that a server can
//! start on.
//!
//! `mbstream` unpacks what arrives, `mariadb-backup --prepare` applies what was written while the copy was made. Where
//! the copy stands in the cluster's history is what the tool found out under its lock (`xtrabackup_binlog_info`);
//! it is kept in the directory until the first start ([`Begin`]).

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::Path,
    process::Stdio,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, unix::pipe},
    time::{Instant, timeout},
};

use super::{
    copy::EarlyWriting,
    donor::{self, Trailer},
    install::Installed,
    mysqld::{Process, Program},
    pace::Gate,
    steps::{self, Context},
    stream::{Frame, Receiver, StreamError, StreamKey},
    tools::{self, ToolError},
};
use crate::cluster::{
    donor::Donor,
    gtid::{GtidList, ParseGtidError},
};

/// How long connecting to the donor's executor may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// How long the disk may take over one piece of 256 KiB.
const WRITE_DEADLINE: Duration = Duration::from_secs(60);

/// How long a donor may send signs of life and no data: a little longer than it waits itself.
const STALL: Duration = Duration::from_secs(330);

/// How long unpacking may take after the last piece.
const UNPACK_DEADLINE: Duration = Duration::from_secs(60);

/// How long applying may take what was written while the copy was made.
const PREPARE_DEADLINE: Duration = Duration::from_secs(3600);

/// The memory that preparing may use; the server that waits beside it uses little of its share.
const PREPARE_MEMORY: &str = "64M";

/// Where a copy stands, in its directory until its first start.
const BEGIN_FILE: &str = "cotton-copy.json";

/// Where the tool writes it; the second is the name of later versions.
const POSITION_FILES: [&str; 2] = ["xtrabackup_binlog_info", "mariadb_backup_binlog_info"];

/// Where a copied server begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// The position up to which it has everything.
    pub position: String,
    /// See [`GtidList::binlog_state`].
    pub binlog_state: String,
}

/// A copy was not received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The donor hands nothing out.
    #[error("the donor's executor hands out no data")]
    NoPort,
    /// A tool is missing.
    #[error("{0} is neither beside the server nor on the search path; install mariadb-backup")]
    NoTool(&'static str),
    /// The donor's executor cannot be reached.
    #[error("the donor's executor at {host}:{port} cannot be reached")]
    Connect {
        /// Its host.
        host: String,
        /// Its port.
        port: u16,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The stream broke off.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The donor gave up.
    #[error("the donor could not complete the copy: {0}")]
    Donor(String),
    /// No data came.
    #[error("no data has come from the donor for {STALL:?}")]
    Stalled,
    /// A tool, or the file system beneath it.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The donor does not say where the copy stands.
    #[error("the copy does not say where it stands in the cluster's history")]
    NoPosition,
    /// It says so in a form that is not known.
    #[error("the copy says in an unknown form where it stands in the cluster's history")]
    Position(#[from] ParseGtidError),
}

/// Receives a donor's data into `target`, which must not exist, as fast as `gate` lets it through, and prepares it for its first start.
///
/// # Errors
/// [`ReceiveError`]; what is in `target` then is of no use.
pub async fn receive(
    context: &Context,
    installed: &Installed,
    donor: &Donor,
    target: &Path,
    gate: &Gate,
) -> Result<(), ReceiveError> {
    let unpack = tools::find(&installed.mysqld, &["mbstream"]);
    let unpack = unpack.ok_or(ReceiveError::NoTool("mbstream"))?;
    let mut stream = connect(context, donor).await?;
    DirBuilder::new()
        .mode(0o700)
        .create(target)
        .map_err(ToolError::files(target))?;
    let log = context.sandbox.copy_log();
    let program = |path, arguments| Program {
        path,
        arguments,
        working_directory: context.sandbox.tmp(),
        log: log.clone(),
    };
    // What an earlier run has printed is of no interest any more.
    let _ = fs::remove_file(&log);
    let arguments = vec!["-x".into(), "-C".into(), target.into()];
    let writing = EarlyWriting::begin(target);
    let trailer = unpack_stream(context, &program(unpack, arguments), &mut stream, gate).await?;
    gate.is_complete();
    drop(writing);
    prepare(context, installed, target, &log).await?;
    note_begin(target, &trailer.binlog_state, |position| position)
}

/// Applies to a copy what was written while it was made.
///
/// # Errors
/// When the tool is missing or fails.
pub async fn prepare(
    context: &Context,
    installed: &Installed,
    target: &Path,
    log: &Path,
) -> Result<(), ReceiveError> {
    let tool = tools::find(&installed.mysqld, &["mariadb-backup", "mariabackup"]);
    let program = Program {
        path: tool.ok_or(ReceiveError::NoTool("mariadb-backup"))?,
        arguments: vec![
            "--prepare".into(),
            format!("--use-memory={PREPARE_MEMORY}").into(),
            steps::option("--target-dir=", target),
        ],
        working_directory: context.sandbox.tmp(),
        log: log.to_owned(),
    };
    let spawned = context.spawner.spawn(&program).await;
    let mut process = spawned.map_err(ToolError::from)?;
    finish("mariadb-backup", &mut process, PREPARE_DEADLINE, log).await
}

/// Waits until the tool that unpacks has ended, which got everything.
///
/// # Errors
/// When it fails.
pub async fn unpacked(process: &mut Process, log: &Path) -> Result<(), ReceiveError> {
    finish("mbstream", process, UNPACK_DEADLINE, log).await
}

async fn connect(context: &Context, donor: &Donor) -> Result<Receiver<TcpStream>, ReceiveError> {
    let port = donor.stream_port.ok_or(ReceiveError::NoPort)?;
    let failed = |source| ReceiveError::Connect {
        host: donor.host.clone(),
        port,
        source,
    };
    let connecting = TcpStream::connect((donor.host.as_str(), port));
    let connection = timeout(CONNECT_DEADLINE, connecting)
        .await
        .map_err(|_| failed(io::ErrorKind::TimedOut.into()))?
        .map_err(failed)?;
    connection.set_nodelay(true).map_err(failed)?;
    let key = StreamKey::new(&context.admin.password, context.task.uuid);
    Ok(Receiver::connect(connection, &key).await?)
}

/// Hands what arrives to the tool that unpacks it, until the donor says that this was all.
async fn unpack_stream(
    context: &Context,
    program: &Program,
    stream: &mut Receiver<TcpStream>,
    gate: &Gate,
) -> Result<Trailer, ReceiveError> {
    let pipe = || {
        let (reader, writer) = tools::pipe()?;
        Ok((reader, pipe::Sender::from_owned_fd(writer.into())?))
    };
    let (reader, mut input) = pipe().map_err(ToolError::files(&program.log))?;
    let mut process = context
        .spawner
        .spawn_between(program, Stdio::from(reader), None)
        .await
        .map_err(ToolError::from)?;
    let mut entrance = gate.entrance();
    let mut brought = Instant::now();
    let trailer = loop {
        match stream.receive().await? {
            Frame::Data(piece) => {
                brought = Instant::now();
                let written = timeout(WRITE_DEADLINE, input.write_all(piece)).await;
                if !matches!(written, Ok(Ok(()))) {
                    // Why is in what the tool printed: a full disk, say.
                    donor::end(&mut process).await;
                    let how = "does not take the data".to_owned();
                    return Err(ToolError::failed("mbstream", how, &program.log).into());
                }
                let length = piece.len();
                entrance.pass(length).await;
            }
            Frame::Alive if brought.elapsed() < STALL => {}
            Frame::Alive => return Err(ReceiveError::Stalled),
            Frame::Failed(why) => return Err(ReceiveError::Donor(why.to_owned())),
            Frame::End(trailer) => break trailer.to_vec(),
        }
    };
    drop(input);
    finish("mbstream", &mut process, UNPACK_DEADLINE, &program.log).await?;
    serde_json::from_slice(&trailer).map_err(|_| ReceiveError::NoPosition)
}

async fn finish(
    tool: &'static str,
    process: &mut Process,
    within: Duration,
    log: &Path,
) -> Result<(), ReceiveError> {
    let how = match timeout(within, process.ended()).await {
        Ok(status) if status.success() => return Ok(()),
        Ok(status) => steps::how_it_ended(status),
        Err(_) => {
            donor::end(process).await;
            "took too long".to_owned()
        }
    };
    Err(ToolError::failed(tool, how, log).into())
}

/// Writes down where the copy stands, and removes what the tool has left beside it. `begin` makes the position at which the server begins of
/// the one that the copy has; `binlog_state` is that of the server that was copied, read after the data.
///
/// # Errors
/// When the copy does not say where it stands.
pub fn note_begin(
    target: &Path,
    binlog_state: &str,
    begin: impl FnOnce(GtidList) -> GtidList,
) -> Result<(), ReceiveError> {
    let found = POSITION_FILES
        .iter()
        .find_map(|name| fs::read_to_string(target.join(name)).ok());
    // The file's name, the place in it, and the GTIDs, separated by tabs.
    let position = found
        .as_deref()
        .and_then(|text| text.trim().split('\t').nth(2));
    let position = begin(position.ok_or(ReceiveError::NoPosition)?.parse()?);
    let begin = Begin {
        position: position.to_string(),
        binlog_state: position.binlog_state(binlog_state)?,
    };
    write_begin(target, &begin)?;
    for entry in fs::read_dir(target)
        .map_err(ToolError::files(target))?
        .flatten()
    {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_tools = ["xtrabackup_", "mariadb_backup_", "backup-my.cnf"];
        if is_tools.iter().any(|begin| name.starts_with(begin)) {
            fs::remove_file(entry.path()).map_err(ToolError::files(&entry.path()))?;
        }
    }
    Ok(())
}

/// Writes down where the copy stands.
///
/// # Errors
/// When the file system refuses.
pub fn write_begin(target: &Path, begin: &Begin) -> Result<(), ReceiveError> {
    let path = target.join(BEGIN_FILE);
    let text = serde_json::to_vec(begin).unwrap_or_default();
    fs::write(&path, text).map_err(ToolError::files(&path))?;
    Ok(())
}

/// Where the copy in a directory stands, if it was not told its server yet.
///
/// # Errors
/// When the file is there and cannot be read.
pub fn begin_of(data: &Path) -> Result<Option<Begin>, ReceiveError> {
    let path = data.join(BEGIN_FILE);
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|_| ReceiveError::NoPosition),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ToolError::files(&path)(error).into()),
    }
}

/// Removes the note of where a copy stands, which its server knows by itself now.
///
/// # Errors
/// When the file system refuses.
pub fn forget_begin(data: &Path) -> Result<(), ReceiveError> {
    let path = data.join(BEGIN_FILE);
    fs::remove_file(&path).map_err(ToolError::files(&path))?;
    Ok(())
}
