//! Reads and writes on one session, with errors that tell what is certain.
//!
//! A write whose connection broke may or may not have been carried out: that is
//! [`Error::Uncertain`], and the caller reads again before it acts. [`Error::Refused`] means that
//! ZooKeeper answered and nothing was changed. All methods have a deadline of their own.
//!
//! Requests of one session are carried out in the order in which they were made, also across a
//! reconnect: a read that is made after an uncertain write sees whatever became of it, unless the
//! session was lost in between. After that only the version checks of the write protect.

use std::future::Future;
use std::time::Duration;

use zookeeper_client as zk;
use zookeeper_client::{
    Acl, Acls, AddWatchMode, CreateMode, OneshotWatcher, PersistentWatcher, Stat,
};

/// The most that one transaction may carry, in bytes of paths and data. The server drops the
/// connection when a request exceeds `jute.maxbuffer`, 1,048,575 bytes by default, which would look
/// like an uncertain answer for ever.
pub const MAX_TRANSACTION_BYTES: usize = 1_000_000;

/// What a request needs beside its paths and data, per operation; a generous guess.
const OPERATION_OVERHEAD_BYTES: usize = 512;

/// What failed, and how sure that is.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// ZooKeeper answered no; nothing was changed.
    #[error("could not {operation} {path} in ZooKeeper: {refusal}")]
    Refused {
        /// A verb, as in "create".
        operation: &'static str,
        /// The node.
        path: String,
        /// The reason.
        refusal: Refusal,
    },
    /// A write got no answer: it may or may not have been carried out.
    #[error(
        "the connection to ZooKeeper was lost while trying to {operation} {path}: whether it was done has to be read"
    )]
    Uncertain {
        /// A verb.
        operation: &'static str,
        /// The node.
        path: String,
        /// What the client said.
        #[source]
        source: zk::Error,
    },
    /// A read got no answer.
    #[error("could not {operation} {path}: there is no answer from ZooKeeper")]
    Unanswered {
        /// A verb.
        operation: &'static str,
        /// The node.
        path: String,
        /// What the client said.
        #[source]
        source: zk::Error,
    },
    /// There is no session; nothing was sent.
    #[error(
        "there is no session with ZooKeeper at {servers}: see whether the servers run and can be reached"
    )]
    NotConnected {
        /// `host:port,host:port`.
        servers: String,
    },
}

/// Why ZooKeeper refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The node, or the parent of one to be created, does not exist.
    #[error("it does not exist")]
    NoNode,
    /// The node to be created exists.
    #[error("it exists already")]
    NodeExists,
    /// Somebody else changed the node.
    #[error("somebody else has changed it")]
    BadVersion,
    /// The node to be deleted has children.
    #[error("there are nodes below it")]
    NotEmpty,
    /// The identity of this session may not do that.
    #[error("this identity is not allowed to; see its access list (getAcl)")]
    NoAuth,
    /// The request exceeds [`MAX_TRANSACTION_BYTES`]; it was not sent.
    #[error("{0} bytes are more than one transaction can carry")]
    TooLarge(usize),
    /// Anything else.
    #[error("{0}")]
    Other(zk::Error),
}

impl Error {
    /// Why ZooKeeper refused, if it did.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal),
            Self::Uncertain { .. } | Self::Unanswered { .. } | Self::NotConnected { .. } => None,
        }
    }

    /// The node that a refusal is about.
    pub fn refused_path(&self) -> Option<&str> {
        match self {
            Self::Refused { path, .. } => Some(path),
            Self::Uncertain { .. } | Self::Unanswered { .. } | Self::NotConnected { .. } => None,
        }
    }

    fn of(operation: &'static str, path: &str, is_write: bool, source: zk::Error) -> Self {
        let path = path.to_owned();
        match Refusal::of(&source) {
            Some(refusal) => Self::Refused {
                operation,
                path,
                refusal,
            },
            None if is_write => Self::Uncertain {
                operation,
                path,
                source,
            },
            None => Self::Unanswered {
                operation,
                path,
                source,
            },
        }
    }
}

impl Refusal {
    /// The refusal in a client's error, or `None` for one after which a write may have happened.
    fn of(error: &zk::Error) -> Option<Self> {
        Some(match error {
            zk::Error::NoNode => Self::NoNode,
            zk::Error::NodeExists => Self::NodeExists,
            zk::Error::BadVersion => Self::BadVersion,
            zk::Error::NotEmpty => Self::NotEmpty,
            zk::Error::NoAuth => Self::NoAuth,
            zk::Error::BadArguments(_)
            | zk::Error::InvalidAcl
            | zk::Error::NoChildrenForEphemerals
            | zk::Error::NotReadOnly
            | zk::Error::QuotaExceeded
            | zk::Error::Throttled
            | zk::Error::Unimplemented => Self::Other(error.clone()),
            // A closed list: whatever is not known to leave everything as it was is uncertain.
            _ => return None,
        })
    }
}

/// One operation of a transaction.
#[derive(Debug, Clone)]
pub enum Op {
    /// The node must have this version.
    Check {
        /// The node.
        path: String,
        /// Its version.
        version: i32,
    },
    /// The node is created.
    Create {
        /// The node.
        path: String,
        /// Its data.
        data: Vec<u8>,
        /// Who may do what with it.
        acl: Vec<Acl>,
        /// Whether it vanishes with this session.
        ephemeral: bool,
    },
    /// The node's data is replaced.
    Set {
        /// The node.
        path: String,
        /// The new data.
        data: Vec<u8>,
        /// The version that it must have before, if that matters.
        version: Option<i32>,
    },
    /// The node is deleted.
    Delete {
        /// The node.
        path: String,
        /// The version that it must have before, if that matters.
        version: Option<i32>,
    },
}

impl Op {
    /// A persistent node.
    pub fn create(path: impl Into<String>, data: impl Into<Vec<u8>>, acl: &[Acl]) -> Self {
        Self::Create {
            path: path.into(),
            data: data.into(),
            acl: acl.to_vec(),
            ephemeral: false,
        }
    }

    /// A deletion whatever the version.
    pub fn delete(path: impl Into<String>) -> Self {
        Self::Delete {
            path: path.into(),
            version: None,
        }
    }

    fn verb(&self) -> &'static str {
        match self {
            Self::Check { .. } => "check",
            Self::Create { .. } => "create",
            Self::Set { .. } => "write",
            Self::Delete { .. } => "delete",
        }
    }

    fn path(&self) -> &str {
        match self {
            Self::Check { path, .. }
            | Self::Create { path, .. }
            | Self::Set { path, .. }
            | Self::Delete { path, .. } => path,
        }
    }

    fn size(&self) -> usize {
        let data = match self {
            Self::Create { data, .. } | Self::Set { data, .. } => data.len(),
            Self::Check { .. } | Self::Delete { .. } => 0,
        };
        data + self.path().len() + OPERATION_OVERHEAD_BYTES
    }

    fn add_to(&self, writer: &mut zk::MultiWriter<'_>) -> Result<(), zk::Error> {
        match self {
            Self::Check { path, version } => writer.add_check_version(path, *version),
            Self::Create {
                path,
                data,
                acl,
                ephemeral,
            } => {
                let mode = if *ephemeral {
                    CreateMode::Ephemeral
                } else {
                    CreateMode::Persistent
                };
                writer.add_create(path, data, &mode.with_acls(Acls::new(acl)))
            }
            Self::Set {
                path,
                data,
                version,
            } => writer.add_set_data(path, data, *version),
            Self::Delete { path, version } => writer.add_delete(path, *version),
        }
    }
}

/// One read of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// The data of a node.
    Data(String),
    /// The names of a node's children.
    Children(String),
}

/// The answer to a [`Read`]; a missing node is an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The data of the node.
    Data(Vec<u8>, Stat),
    /// The names of the node's children, in no order.
    Children(Vec<String>),
    /// There is no such node.
    Missing,
}

/// A session as it is right now. Paths are below the URL's path and begin with a slash.
///
/// While the connection is away, requests wait for it; they fail when the session is lost.
#[derive(Debug, Clone)]
pub struct Connection {
    pub(super) client: zk::Client,
    /// Counts the sessions; a new one has a higher number.
    pub generation: u64,
    /// How long a request may take: longer than the client keeps a silent session.
    pub(super) deadline: Duration,
}

impl Connection {
    /// The id of the ZooKeeper session, which is the owner of its ephemeral nodes.
    pub fn session_id(&self) -> i64 {
        self.client.session_id().0
    }

    /// Waits until the server has caught up with its leader, so that the reads which follow see all
    /// that was written before.
    pub async fn sync(&self) -> Result<(), Error> {
        self.read("synchronise", "/", self.client.sync("/")).await
    }

    /// The data of a node, or `None` if there is no such node.
    pub async fn get(&self, path: &str) -> Result<Option<(Vec<u8>, Stat)>, Error> {
        missing_is_none(self.read("read", path, self.client.get_data(path)).await)
    }

    /// The state of a node, or `None` if there is no such node.
    pub async fn stat(&self, path: &str) -> Result<Option<Stat>, Error> {
        self.read("look up", path, self.client.check_stat(path))
            .await
    }

    /// The names of a node's children in no order, or `None` if there is no such node.
    pub async fn children(&self, path: &str) -> Result<Option<Vec<String>>, Error> {
        missing_is_none(
            self.read("list", path, self.client.list_children(path))
                .await,
        )
    }

    /// Several reads in one request; the answers stand in the same order.
    pub async fn read_all(&self, reads: &[Read]) -> Result<Vec<Answer>, Error> {
        let path = match reads.first() {
            None => return Ok(Vec::new()),
            Some(Read::Data(path) | Read::Children(path)) => path,
        };
        let mut reader = self.client.new_multi_reader();
        for read in reads {
            let added = match read {
                Read::Data(path) => reader.add_get_data(path),
                Read::Children(path) => reader.add_get_children(path),
            };
            added.map_err(|source| Error::of("read", path, false, source))?;
        }
        let results = self.read("read", path, reader.commit()).await?;
        results
            .into_iter()
            .zip(reads)
            .map(|(result, read)| match result {
                zk::MultiReadResult::Data { data, stat } => Ok(Answer::Data(data, stat)),
                zk::MultiReadResult::Children { children } => Ok(Answer::Children(children)),
                zk::MultiReadResult::Error {
                    err: zk::Error::NoNode,
                } => Ok(Answer::Missing),
                zk::MultiReadResult::Error { err } => {
                    let (Read::Data(path) | Read::Children(path)) = read;
                    Err(Error::of("read", path, false, err))
                }
                other => {
                    let text = format!("an answer of an unknown kind: {other:?}");
                    Err(Error::of(
                        "read",
                        path,
                        false,
                        zk::Error::UnexpectedError(text),
                    ))
                }
            })
            .collect()
    }

    /// The data of a node, and a watch for its next change; `None` if there is no such node.
    pub async fn watch_data(
        &self,
        path: &str,
    ) -> Result<Option<(Vec<u8>, Stat, OneshotWatcher)>, Error> {
        missing_is_none(
            self.read("read", path, self.client.get_and_watch_data(path))
                .await,
        )
    }

    /// The state of a node, and a watch for its creation, change or deletion.
    pub async fn watch_stat(&self, path: &str) -> Result<(Option<Stat>, OneshotWatcher), Error> {
        self.read("look up", path, self.client.check_and_watch_stat(path))
            .await
    }

    /// The names of a node's children, and a watch for the next that comes or goes; `None` if there
    /// is no such node.
    pub async fn watch_children(
        &self,
        path: &str,
    ) -> Result<Option<(Vec<String>, OneshotWatcher)>, Error> {
        missing_is_none(
            self.read("list", path, self.client.list_and_watch_children(path))
                .await,
        )
    }

    /// A watch on a node and all below it, which lasts until the *connection* breaks: the client
    /// does not restore it (version 0.11.2 sends only the other kinds again), so that it has to be
    /// set again after each reconnect, and everything read again.
    pub async fn watch_tree(&self, path: &str) -> Result<PersistentWatcher, Error> {
        let watch = self.client.watch(path, AddWatchMode::PersistentRecursive);
        self.read("watch", path, watch).await
    }

    /// All of `operations`, or none of them. The answer holds the new version for each
    /// [`Op::Create`] and [`Op::Set`], and `None` for the others.
    pub async fn transact(&self, operations: &[Op]) -> Result<Vec<Option<i32>>, Error> {
        let Some(first) = operations.first() else {
            return Ok(Vec::new());
        };
        let size = operations.iter().map(Op::size).sum();
        if size > MAX_TRANSACTION_BYTES {
            let path = operations
                .iter()
                .max_by_key(|op| op.size())
                .unwrap_or(first)
                .path();
            let refusal = Refusal::TooLarge(size);
            return Err(Error::Refused {
                operation: "write",
                path: path.to_owned(),
                refusal,
            });
        }
        let mut writer = self.client.new_multi_writer();
        for op in operations {
            let failed = |source| Error::of(op.verb(), op.path(), true, source);
            op.add_to(&mut writer).map_err(failed)?;
        }
        let result = match tokio::time::timeout(self.deadline, writer.commit()).await {
            Ok(result) => result,
            Err(_) => Err(zk::MultiWriteError::RequestFailed {
                source: zk::Error::Timeout,
            }),
        };
        match result {
            Ok(results) => Ok(results.into_iter().map(version_of).collect()),
            Err(zk::MultiWriteError::OperationFailed { index, source }) => {
                let op = operations.get(index).unwrap_or(first);
                Err(Error::of(op.verb(), op.path(), true, source))
            }
            Err(zk::MultiWriteError::RequestFailed { source }) => {
                Err(Error::of(first.verb(), first.path(), true, source))
            }
        }
    }

    /// Makes a persistent node without data if there is none, and the nodes above it likewise.
    pub async fn ensure_path(&self, path: &str, acl: &[Acl]) -> Result<(), Error> {
        ensure_path(&self.client, self.deadline, path, acl).await
    }

    async fn read<T>(
        &self,
        operation: &'static str,
        path: &str,
        request: impl Future<Output = Result<T, zk::Error>>,
    ) -> Result<T, Error> {
        let answer = tokio::time::timeout(self.deadline, request).await;
        answer
            .unwrap_or(Err(zk::Error::Timeout))
            .map_err(|source| Error::of(operation, path, false, source))
    }
}

/// See [`Connection::ensure_path`]; the session needs it before there is a connection to give away.
pub(super) async fn ensure_path(
    client: &zk::Client,
    deadline: Duration,
    path: &str,
    acl: &[Acl],
) -> Result<(), Error> {
    let options = CreateMode::Persistent.with_acls(Acls::new(acl));
    for (end, _) in path.match_indices('/').skip(1).chain([(path.len(), "")]) {
        let part = &path[..end];
        // Asked first, because who may only use the path must not be refused for not making it.
        let exists = tokio::time::timeout(deadline, client.check_stat(part)).await;
        let exists = exists.unwrap_or(Err(zk::Error::Timeout));
        if exists
            .map_err(|source| Error::of("look up", part, false, source))?
            .is_some()
        {
            continue;
        }
        let created = tokio::time::timeout(deadline, client.create(part, b"", &options)).await;
        match created.unwrap_or(Err(zk::Error::Timeout)) {
            Ok(_) | Err(zk::Error::NodeExists) => {}
            Err(source) => return Err(Error::of("create", part, true, source)),
        }
    }
    Ok(())
}

fn missing_is_none<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::Refused {
            refusal: Refusal::NoNode,
            ..
        }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn version_of(result: zk::MultiWriteResult) -> Option<i32> {
    match result {
        // Some servers give an invalid stat here (ZOOKEEPER-4026); a new node's version is 0.
        zk::MultiWriteResult::Create { .. } => Some(0),
        zk::MultiWriteResult::SetData { stat } => Some(stat.version),
        _ => None,
    }
}
