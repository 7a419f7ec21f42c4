//! The executor's mouth: one ephemeral node with its newest report.

use std::time::Duration;

use tokio::sync::watch;
use tracing::warn;
use zookeeper_client::Acl;

use super::{OwnedTask, RETRY_PAUSE};
use crate::cluster::control::Report;
use crate::cluster::id::{ClusterName, TaskId};
use crate::zookeeper::document::{MAX_DOCUMENT_BYTES, json};
use crate::zookeeper::operations::{Connection, Error, Op};
use crate::zookeeper::paths;
use crate::zookeeper::session::Session;

/// The longest wait before writing is tried again. Where the cluster was deleted there is no place for a report any more, for as
/// long as the executor lives.
const LONGEST_RETRY_PAUSE: Duration = Duration::from_secs(5);

/// A report exceeds [`MAX_DOCUMENT_BYTES`] and was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the report has {0} bytes, and {MAX_DOCUMENT_BYTES} is the most that is written to ZooKeeper"
)]
pub struct ReportTooLarge(usize);

/// Keeps the node of one task. A report that waits is replaced by a newer one, so that nothing
/// queues up during an outage. The node vanishes with the session.
#[derive(Debug)]
pub struct ReportWriter {
    newest: watch::Sender<Numbered>,
    written: watch::Receiver<u64>,
    _task: OwnedTask,
}

/// A report and its number, counted from 1; number 0 is no report yet.
#[derive(Debug, Clone, Default)]
struct Numbered {
    number: u64,
    data: Vec<u8>,
}

impl ReportWriter {
    /// Begins with nothing to report. Must be called within a tokio runtime.
    pub fn start(session: Session, cluster: &ClusterName, task: &TaskId, acl: Vec<Acl>) -> Self {
        let (newest, orders) = watch::channel(Numbered::default());
        let (done, written) = watch::channel(0);
        let writer = Writer {
            path: paths::report(cluster, task),
            acl,
            mine: None,
        };
        let task = tokio::spawn(async move { writer.run(session, orders, done).await });
        Self {
            newest,
            written,
            _task: OwnedTask(task),
        }
    }

    /// Takes a report over and returns its number for [`ReportWriter::written`].
    pub fn put(&self, report: &Report) -> Result<u64, ReportTooLarge> {
        let data = json(report);
        if data.len() > MAX_DOCUMENT_BYTES {
            return Err(ReportTooLarge(data.len()));
        }
        let mut number = 0;
        self.newest.send_modify(|newest| {
            number = newest.number + 1;
            *newest = Numbered { number, data };
        });
        Ok(number)
    }

    /// Waits until the report of this number, or a newer one, is in ZooKeeper; false if that does
    /// not happen within `deadline`.
    pub async fn written(&self, number: u64, deadline: Duration) -> bool {
        let mut written = self.written.clone();
        let wait = written.wait_for(|newest| *newest >= number);
        matches!(tokio::time::timeout(deadline, wait).await, Ok(Ok(_)))
    }
}

struct Writer {
    path: String,
    acl: Vec<Acl>,
    /// The session that owns the node and the node's version, if that is certain.
    mine: Option<(u64, i32)>,
}

impl Writer {
    async fn run(
        mut self,
        session: Session,
        mut orders: watch::Receiver<Numbered>,
        done: watch::Sender<u64>,
    ) {
        let mut state = session.state();
        let mut pause = RETRY_PAUSE;
        loop {
            // Nothing to do until there is a report, and once it is in the node of this session.
            let Some(connection) = session.next_connected(&mut state).await else {
                return;
            };
            let newest = orders.borrow_and_update().clone();
            let is_mine = self
                .mine
                .is_some_and(|(generation, _)| generation == connection.generation);
            if newest.number == 0 || (is_mine && *done.borrow() == newest.number) {
                tokio::select! {
                    more = orders.changed() => if more.is_err() { return },
                    closed = state.changed() => if closed.is_err() { return },
                    () = removed(&connection, &self.path), if is_mine => self.mine = None,
                }
                continue;
            }
            match self.write(&connection, newest.data).await {
                Ok(version) => {
                    self.mine = Some((connection.generation, version));
                    pause = RETRY_PAUSE;
                    done.send_replace(newest.number);
                }
                Err(error) => {
                    // Whatever it was: the next attempt looks first.
                    self.mine = None;
                    warn!(path = self.path, %error, "report not written");
                    // A newer report does not wait.
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        more = orders.changed() => if more.is_err() { return },
                    }
                    pause = (pause * 2).min(LONGEST_RETRY_PAUSE);
                }
            }
        }
    }

    /// Writes the node and returns its version.
    ///
    /// A node of an older session, ours in a former connection, is replaced in one transaction:
    /// nobody sees the member without a report, and when that session expires it takes nothing away.
    async fn write(&self, connection: &Connection, data: Vec<u8>) -> Result<i32, Error> {
        let path = self.path.clone();
        let set = |version| Op::Set {
            path: path.clone(),
            data: data.clone(),
            version: Some(version),
        };
        let create = || Op::Create {
            path: path.clone(),
            data: data.clone(),
            acl: self.acl.clone(),
            ephemeral: true,
        };
        let known = self
            .mine
            .filter(|(generation, _)| *generation == connection.generation);
        let ops = match known {
            Some((_, version)) => vec![set(version)],
            None => match connection.stat(&path).await? {
                None => vec![create()],
                Some(stat) if stat.ephemeral_owner == connection.session_id() => {
                    vec![set(stat.version)]
                }
                Some(stat) => {
                    let version = Some(stat.version);
                    vec![
                        Op::Delete {
                            path: path.clone(),
                            version,
                        },
                        create(),
                    ]
                }
            },
        };
        let versions = connection.transact(&ops).await?;
        Ok(versions.last().copied().flatten().unwrap_or_default())
    }
}

/// Waits until somebody else has removed the node. A report that does not change is written once, so nothing else would tell.
///
/// A node that was replaced is a newer session's of the same member, which knows better. While ZooKeeper does not answer
/// nothing is certain, and the session's own state says when it is again.
async fn removed(connection: &Connection, path: &str) {
    while let Ok((stat, watcher)) = connection.watch_stat(path).await {
        if stat.is_none() {
            return;
        }
        watcher.changed().await;
    }
    std::future::pending().await
}
