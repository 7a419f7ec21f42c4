//! The scheduler's eye on the reports of all clusters.
//!
//! One recursive watch on `/control` tells which nodes have changed, and only those are read: the
//! cost follows change, not size. The watch does not survive a broken connection, and ZooKeeper
//! does not tell what happened meanwhile (ZOOKEEPER-4698), so after each reconnect the watch is set
//! again *first*, then everything is listed and what differs from before is told.
//!
//! What waits to be read is a set of nodes, and what waits to be taken is one batch: a slow reader
//! makes reports skip versions, and costs no memory.

use std::collections::{BTreeSet, HashMap, VecDeque};

use futures::future::{BoxFuture, join_all};
use futures::{FutureExt as _, StreamExt as _, stream};
use tokio::sync::mpsc;
use tracing::warn;
use zookeeper_client::{EventType, PersistentWatcher, Stat, WatchedEvent};

use super::{OwnedTask, RETRY_PAUSE};
use crate::cluster::control::{FORMAT, Report};
use crate::cluster::id::{ClusterName, TaskId};
use crate::zookeeper::document::parse_bounded;
use crate::zookeeper::operations::{Connection, Error};
use crate::zookeeper::paths::{self, ControlPath};
use crate::zookeeper::session::Session;

/// How many nodes are read or listed at a time.
const READS_IN_FLIGHT: usize = 64;

/// How many events wait for a slow reader before reading pauses.
const EVENT_QUEUE: usize = 64;

/// What happened to the reports.
#[derive(Debug, Clone, PartialEq)]
pub enum ReportEvent {
    /// A report is new or changed.
    Changed {
        /// The cluster under whose name it stands.
        cluster: ClusterName,
        /// The report.
        report: Box<Report>,
    },
    /// A report is gone: the session of its executor ended.
    Gone {
        /// The cluster.
        cluster: ClusterName,
        /// The task that reported.
        task: TaskId,
        /// Whether we saw it vanish.
        kind: GoneKind,
    },
    /// A node that is no report. It is told once for each content.
    Unreadable {
        /// The node.
        path: String,
        /// What is wrong with it.
        fault: String,
    },
    /// All that was there in the connection that has just begun has been told, and what was not
    /// there any more as gone. Until then silence says nothing.
    Synced,
    /// The connection is away: reports may be old, and silence says nothing.
    Suspended,
}

/// How a report came to be gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoneKind {
    /// It vanished while we watched.
    Watched,
    /// It was found missing after we had been away, perhaps because of the same outage.
    FoundMissing,
}

/// Follows the reports of all clusters.
#[derive(Debug)]
pub struct ReportWatch {
    events: mpsc::Receiver<ReportEvent>,
    _task: OwnedTask,
}

impl ReportWatch {
    /// Begins to watch. The session needs the executors' identity to read their reports. Must be
    /// called within a tokio runtime.
    pub fn start(session: Session) -> Self {
        let (sender, events) = mpsc::channel(EVENT_QUEUE);
        let task = tokio::spawn(async move { follow(session, sender).await });
        Self {
            events,
            _task: OwnedTask(task),
        }
    }

    /// The next event. Can be cancelled without losing one. Never returns once the session was
    /// closed for good.
    pub async fn next(&mut self) -> ReportEvent {
        match self.events.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }
}

type Key = (ClusterName, TaskId);
type Found = Vec<(Key, Option<(Vec<u8>, Stat)>)>;

/// The reader of the events is gone.
struct Unwanted;

async fn follow(session: Session, events: mpsc::Sender<ReportEvent>) {
    let mut state = session.state();
    let mut seen = Seen::default();
    while let Some(connection) = session.next_connected(&mut state).await {
        let followed = match begin(&connection).await {
            Ok((watcher, listed)) => {
                let dirty = listed
                    .into_iter()
                    .chain(seen.known.keys().cloned())
                    .collect();
                let round = Round {
                    connection,
                    watcher,
                    dirty,
                    outbox: VecDeque::new(),
                    is_syncing: true,
                };
                round.run(&mut seen, &events).await
            }
            Err(error) => Ok(Some(error)),
        };
        match followed {
            Err(Unwanted) => return,
            Ok(None) => {}
            Ok(Some(error)) => {
                warn!(%error, "reports not read");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

/// Sets the watch, then lists all reports.
async fn begin(connection: &Connection) -> Result<(PersistentWatcher, Vec<Key>), Error> {
    let watcher = connection.watch_tree(paths::CONTROL).await?;
    connection.sync().await?;
    let clusters = connection
        .children(paths::CONTROL)
        .await?
        .unwrap_or_default();
    // Nodes of another form are not Cotton's.
    let clusters: Vec<ClusterName> = clusters.iter().flat_map(|name| name.parse()).collect();
    let mut lists = stream::iter(clusters)
        .map(|cluster| async move {
            let tasks = connection.children(&paths::members(&cluster)).await;
            (cluster, tasks)
        })
        .buffer_unordered(READS_IN_FLIGHT);
    let mut listed = Vec::new();
    while let Some((cluster, tasks)) = lists.next().await {
        let tasks = tasks?.unwrap_or_default();
        listed.extend(
            tasks
                .into_iter()
                .map(|task| (cluster.clone(), TaskId::from_wire(task))),
        );
    }
    drop(lists);
    Ok((watcher, listed))
}

/// One connection's worth of watching.
struct Round {
    connection: Connection,
    watcher: PersistentWatcher,
    /// The nodes to be read.
    dirty: BTreeSet<Key>,
    /// What the last batch of reads has told.
    outbox: VecDeque<ReportEvent>,
    /// Whether what was listed at the beginning is still being read.
    is_syncing: bool,
}

impl Round {
    /// Watches until the connection breaks or an answer is an error.
    async fn run(
        mut self,
        seen: &mut Seen,
        events: &mpsc::Sender<ReportEvent>,
    ) -> Result<Option<Error>, Unwanted> {
        let mut reading: Option<BoxFuture<'static, Result<Found, Error>>> = None;
        let error = loop {
            if reading.is_none() && self.outbox.is_empty() {
                if !self.dirty.is_empty() {
                    reading = Some(read(self.connection.clone(), self.take_batch()).boxed());
                } else if std::mem::replace(&mut self.is_syncing, false) {
                    self.outbox.push_back(ReportEvent::Synced);
                }
            }
            tokio::select! {
                event = self.watcher.changed() => match self.note(event) {
                    Watching::On => {}
                    Watching::Broken => break None,
                },
                permit = events.reserve(), if !self.outbox.is_empty() => {
                    let permit = permit.map_err(|_| Unwanted)?;
                    if let Some(event) = self.outbox.pop_front() {
                        permit.send(event);
                    }
                }
                found = async { reading.as_mut()?.await.into() }, if reading.is_some() => {
                    reading = None;
                    match found {
                        Some(Ok(found)) => self.outbox.extend(seen.take(found, self.is_syncing)),
                        Some(Err(error)) => break Some(error),
                        None => {}
                    }
                }
                () = events.closed() => return Err(Unwanted),
            }
        };
        // Nodes that were dirty or being read are read again when everything is.
        self.outbox.push_back(ReportEvent::Suspended);
        for event in self.outbox {
            events.send(event).await.map_err(|_| Unwanted)?;
        }
        Ok(error)
    }

    fn take_batch(&mut self) -> Vec<Key> {
        let rest = self.dirty.iter().nth(READS_IN_FLIGHT).cloned();
        let rest = rest
            .map(|first| self.dirty.split_off(&first))
            .unwrap_or_default();
        std::mem::replace(&mut self.dirty, rest)
            .into_iter()
            .collect()
    }

    fn note(&mut self, event: WatchedEvent) -> Watching {
        match event.event_type {
            // Up or down: events may have been missed.
            EventType::Session => Watching::Broken,
            EventType::NodeCreated
            | EventType::NodeDeleted
            | EventType::NodeDataChanged
            | EventType::NodeChildrenChanged => {
                if let ControlPath::Report(cluster, task) = ControlPath::parse(&event.path) {
                    self.dirty.insert((cluster, task));
                }
                Watching::On
            }
        }
    }
}

/// Whether a watch still tells everything.
enum Watching {
    On,
    Broken,
}

async fn read(connection: Connection, keys: Vec<Key>) -> Result<Found, Error> {
    let reads = keys.into_iter().map(|key| async {
        let node = connection.get(&paths::report(&key.0, &key.1)).await?;
        Ok((key, node))
    });
    join_all(reads).await.into_iter().collect()
}

/// What was told of each report.
#[derive(Default)]
struct Seen {
    /// The transactions that created and last changed each node: its content's identity.
    known: HashMap<Key, (i64, i64)>,
}

impl Seen {
    fn take(&mut self, found: Found, is_syncing: bool) -> Vec<ReportEvent> {
        let kind = if is_syncing {
            GoneKind::FoundMissing
        } else {
            GoneKind::Watched
        };
        let mut events = Vec::new();
        for ((cluster, task), node) in found {
            let Some((data, stat)) = node else {
                if self
                    .known
                    .remove(&(cluster.clone(), task.clone()))
                    .is_some()
                {
                    events.push(ReportEvent::Gone {
                        cluster,
                        task,
                        kind,
                    });
                }
                continue;
            };
            let identity = (stat.czxid, stat.mzxid);
            if self.known.insert((cluster.clone(), task.clone()), identity) == Some(identity) {
                continue;
            }
            events.push(match parse(&data, &stat, &task) {
                Ok(report) => ReportEvent::Changed {
                    cluster,
                    report: Box::new(report),
                },
                Err(fault) => ReportEvent::Unreadable {
                    path: paths::report(&cluster, &task),
                    fault,
                },
            });
        }
        events
    }
}

fn parse(data: &[u8], stat: &Stat, task: &TaskId) -> Result<Report, String> {
    if stat.ephemeral_owner == 0 {
        return Err("it is not ephemeral: it would outlive the executor".to_owned());
    }
    let report: Report = parse_bounded(data, FORMAT)?;
    if report.task_id == *task {
        Ok(report)
    } else {
        Err(format!("it is a report of {}", report.task_id))
    }
}
