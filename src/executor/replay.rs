//! Replaying archived binlogs behind a backup, up to a point in time, in a data directory that is not finished yet.
//!
//! ```text
//! the store -> unpacked -> transactions up to the point -> the server's binlog tool -> its client -> a server on the directory
//! ```
//!
//! The server runs for this alone: without network, binlog and events, and nobody but the administration account gets in. It is ended before the directory
//! becomes that of a member, and what it leaves is what the backup would hold had it been made at that point: on MySQL its GTIDs, with which
//! transactions are executed, are those of its past; on MariaDB the note of where it begins ([`receive::Begin`]) is written anew. Whatever goes wrong, the directory
//! is thrown away with everything in it, so nothing needs to be undone.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, PipeWriter},
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::sys::signal::Signal;
use tokio::time::{Instant, timeout};
use tracing::info;

use super::{
    mysqld::{Process, Program},
    receive::{self, Begin, ReceiveError},
    scratch::{Scratch, ScratchError, finish},
    steps::{self, StepError},
    tools::{self, ToolError},
};
use crate::{
    backup::{
        archive::{self, Mismatch, NoWay, Segment},
        binlog::{self, Gtid, Verdict},
        manifest::Manifest,
        store::{Store, StoreError},
        stream,
    },
    cluster::{
        backup::{Replay, RestorePoint},
        flavour::Flavour,
        gtid::{GtidList, MARKER_DOMAIN, Position},
    },
    mysql,
};

/// How long the client may take over what is left when everything was read.
const CLIENT_DEADLINE: Duration = Duration::from_secs(3600);

/// How long a program may take to say why it has failed.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Archived binlogs were not replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The store, or what is in it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The point is none of this flavour.
    #[error(transparent)]
    Point(#[from] NoWay),
    /// The archive does not fit.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// The server.
    #[error("the server that replays archived binlogs does not do what it must")]
    Server(#[from] mysql::Error),
    /// A tool is missing.
    #[error("{0} is neither beside the server nor on the search path")]
    NoTool(&'static str),
    /// A tool, or a file.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The note of where the copy stands.
    #[error(transparent)]
    Note(#[from] ReceiveError),
    /// Its server does not run, or does not end.
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    /// A file cannot be written.
    #[error("the client that replays archived binlogs cannot be set up")]
    SetUp(#[source] Box<StepError>),
    /// The administration account has a form that an options file cannot hold.
    #[error("the administration account cannot be written into an options file")]
    Account,
    /// The server has executed something else than was handed to it.
    #[error("the server holds {found} after the replay, which lacks some of {expected}")]
    Lacking {
        /// What it was to hold.
        expected: String,
        /// What it holds.
        found: String,
    },
}

fn set_up(error: impl Into<StepError>) -> ReplayError {
    ReplayError::SetUp(Box::new(error.into()))
}

/// Replays what was planned when the cluster was asked for. `held` is what a directory of MariaDB holds, markers included.
///
/// # Errors
/// When anything of it is missing or damaged, or the server does not take it.
pub async fn run(
    scratch: &Scratch<'_>,
    store: &Store,
    manifest: &Manifest,
    replay: &Replay,
    held: Option<GtidList>,
) -> Result<(), ReplayError> {
    let begun = Instant::now();
    let (mut process, server) = scratch.start().await?;
    let held = match held {
        Some(list) => Position::Mariadb(list),
        None => server.executed().await?,
    };
    let fed = scratch.feed(store, manifest, replay, held).await;
    let (reached, writers) = match fed {
        Ok(fed) => fed,
        Err(error) => {
            process.group().signal(Signal::SIGKILL);
            process.ended().await;
            return Err(error);
        }
    };
    match &reached {
        Position::Mysql(_) => {
            let found = server.executed().await?;
            if !found.contains(&reached) {
                return Err(ReplayError::Lacking {
                    expected: reached.to_string(),
                    found: found.to_string(),
                });
            }
        }
        Position::Mariadb(list) => note(scratch.folder, list, &writers)?,
    }
    drop(server);
    scratch.end(&mut process).await?;
    info!(%reached, took = ?begun.elapsed(), "archived binlogs replayed");
    Ok(())
}

/// The last number of each server in each domain (MariaDB).
type Writers = BTreeMap<(u32, u32), u64>;

/// What the thread that unpacks goes on with from segment to segment.
struct Feeding {
    judge: archive::Replay,
    input: PipeWriter,
    writers: Writers,
    is_first: bool,
    stopped: bool,
    mismatch: Option<Mismatch>,
}

impl Feeding {
    fn take(&mut self, segment: &Segment, from: &mut dyn io::Read) -> io::Result<()> {
        let Self {
            judge,
            input,
            writers,
            is_first,
            mismatch,
            ..
        } = self;
        let told = |error: Mismatch, mismatch: &mut Option<Mismatch>| {
            let told = io::Error::other(error.to_string());
            *mismatch = Some(error);
            told
        };
        judge
            .enters(segment)
            .map_err(|error| told(error, mismatch))?;
        let first = std::mem::take(is_first);
        let read_at = segment.read_at();
        let mut output = io::BufWriter::with_capacity(1 << 16, &mut *input);
        let stopped = binlog::filter(from, &mut output, first, |gtid, stamp| {
            let verdict = judge
                .judge(segment.epoch, gtid, stamp, read_at)
                .map_err(|error| told(error, mismatch))?;
            if let (
                Verdict::Take,
                Gtid::Mariadb {
                    domain,
                    server,
                    sequence,
                },
            ) = (verdict, gtid)
            {
                writers.insert((*domain, *server), *sequence);
            }
            Ok(verdict)
        })?;
        io::Write::flush(&mut output)?;
        drop(output);
        self.stopped |= stopped;
        Ok(())
    }
}

impl Scratch<'_> {
    /// Hands the transactions up to the point to the server, and returns what it holds then.
    async fn feed(
        &self,
        store: &Store,
        manifest: &Manifest,
        replay: &Replay,
        held: Position,
    ) -> Result<(Position, Writers), ReplayError> {
        let target = match &replay.to {
            RestorePoint::Gtid(text) => Some(archive::target(held.flavour(), text)?),
            RestorePoint::Time(_) | RestorePoint::Latest => None,
        };
        let segment =
            |epoch, number| store.segment(&manifest.cluster, manifest.uuid, epoch, number);
        // The first segments of an epoch whose last ones the backup needs may have been removed; they limit only what was before them.
        let begin = replay.parts.first().map(|part| part.epoch);
        let later = replay.parts.iter().filter(|part| Some(part.epoch) > begin);
        let mut firsts = Vec::new();
        for part in later {
            firsts.push(segment(part.epoch, 1).await?);
        }
        let judge = archive::Replay::new(held, &replay.to, target, &firsts)?;
        if replay.parts.is_empty() {
            // The binlog tool takes nothing for a damaged file.
            return Ok((judge.end()?, Writers::new()));
        }
        let log = self.context.sandbox.replay_tool_log();
        let _ = fs::remove_file(&log);
        let (mut tool, mut client, input) = self.pipeline(&log).await?;
        let feeding = Arc::new(Mutex::new(Feeding {
            judge,
            input,
            writers: Writers::new(),
            is_first: true,
            stopped: false,
            mismatch: None,
        }));
        let mut fed = Ok(());
        'all: for part in &replay.parts {
            for number in part.first..=part.last {
                fed = match segment(part.epoch, number).await {
                    Ok(segment) => hand_over(store, segment, &feeding).await,
                    Err(error) => Err(error),
                };
                if fed.is_err() || locked(&feeding).stopped {
                    break 'all;
                }
            }
        }
        // What hands over may be stuck behind a statement, with the lock in its hand: until its pipe is broken.
        let mut last_words = None;
        if fed.is_err() {
            // If the client has given up, it has said why.
            last_words = timeout(LAST_WORDS, client.ended()).await.ok();
            tool.group().signal(Signal::SIGKILL);
            client.group().signal(Signal::SIGKILL);
        }
        if let Some(mismatch) = locked(&feeding).mismatch.take() {
            return Err(mismatch.into());
        }
        if let Err(error) = fed {
            if let Some(status) = last_words.filter(|status| !status.success()) {
                let how = steps::how_it_ended(status);
                return Err(ToolError::failed("the client", how, &log).into());
            }
            return Err(error.into());
        }
        let feeding = Arc::into_inner(feeding)
            .map(|feeding| feeding.into_inner().unwrap_or_else(PoisonError::into_inner));
        let Feeding {
            judge,
            input,
            writers,
            ..
        } = feeding.unwrap_or_else(|| unreachable!("each thread has ended with its segment"));
        let reached = judge.end()?;
        // With its end of the pipe the tool ends, and with it the client.
        drop(input);
        finish("the client", &mut client, CLIENT_DEADLINE, &log).await?;
        finish("the binlog tool", &mut tool, LAST_WORDS, &log).await?;
        Ok((reached, writers))
    }

    /// The binlog tool and the client, and what the tool reads.
    async fn pipeline(&self, log: &Path) -> Result<(Process, Process, PipeWriter), ReplayError> {
        let mysqld = &self.installed.mysqld;
        let (tool, client) = match self.installed.kind.flavour {
            Flavour::Mysql => (
                tools::find(mysqld, &["mysqlbinlog"]),
                tools::find(mysqld, &["mysql"]),
            ),
            Flavour::Mariadb => (
                tools::find(mysqld, &["mariadb-binlog", "mysqlbinlog"]),
                tools::find(mysqld, &["mariadb", "mysql"]),
            ),
        };
        let sandbox = &self.context.sandbox;
        let cnf = sandbox.replay_client_cnf();
        let login = tools::login("client", &self.context.admin, &sandbox.socket_for_server());
        steps::write(&cnf, &login.ok_or(ReplayError::Account)?).map_err(set_up)?;
        let program = |path, arguments| Program {
            path,
            arguments,
            working_directory: self.folder.to_owned(),
            log: log.to_owned(),
        };
        let tool = program(
            tool.ok_or(ReplayError::NoTool("the server's binlog tool"))?,
            ["--no-defaults", "--verify-binlog-checksum", "-"]
                .map(Into::into)
                .to_vec(),
        );
        let client = program(
            client.ok_or(ReplayError::NoTool("the server's client"))?,
            vec![
                steps::option("--defaults-file=", &cnf),
                "--binary-mode".into(),
                "--batch".into(),
                "--max-allowed-packet=1G".into(),
            ],
        );
        let pipe = || tools::pipe().map_err(ToolError::files(log));
        let (reader, input) = pipe()?;
        let (statements, writer) = pipe()?;
        let spawner = &self.context.spawner;
        let tool = spawner.spawn_between(&tool, Stdio::from(reader), Some(writer.into()));
        let tool = tool.await.map_err(ToolError::from)?;
        let client = spawner.spawn_between(&client, Stdio::from(statements), None);
        let client = client.await.map_err(ToolError::from)?;
        Ok((tool, client, input))
    }
}

fn locked(feeding: &Mutex<Feeding>) -> std::sync::MutexGuard<'_, Feeding> {
    feeding.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn hand_over(
    store: &Store,
    segment: Segment,
    feeding: &Arc<Mutex<Feeding>>,
) -> Result<(), StoreError> {
    let feeding = Arc::clone(feeding);
    let own = segment.clone();
    let unpack = move |seal| stream::unpack(seal, move |from| locked(&feeding).take(&own, from));
    store.get_segment(&segment, unpack).await
}

/// Writes down where a directory of MariaDB begins now.
fn note(folder: &Path, reached: &GtidList, writers: &Writers) -> Result<(), ReplayError> {
    let before = receive::begin_of(folder)?.ok_or(ReceiveError::NoPosition)?;
    let mut state = Writers::new();
    for entry in before
        .binlog_state
        .split(',')
        .filter(|entry| !entry.is_empty())
    {
        let numbers: Vec<u64> = entry
            .split('-')
            .filter_map(|number| number.trim().parse().ok())
            .collect();
        let [domain, server, number] = numbers[..] else {
            return Err(ReceiveError::NoPosition.into());
        };
        state.insert((domain as u32, server as u32), number);
    }
    state.extend(writers);
    let state: Vec<String> = state
        .into_iter()
        .map(|((domain, server), number)| format!("{domain}-{server}-{number}"))
        .collect();
    let position = reached.without(MARKER_DOMAIN);
    let begin = Begin {
        position: position.to_string(),
        binlog_state: position
            .binlog_state(&state.join(","))
            .map_err(ReceiveError::from)?,
    };
    Ok(receive::write_begin(folder, &begin)?)
}
