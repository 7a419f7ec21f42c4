//! The executor's eye on its cluster's goal.

use tokio::sync::watch;
use tracing::warn;
use zookeeper_client::OneshotWatcher;

use super::{OwnedTask, RETRY_PAUSE};
use crate::cluster::control::{FORMAT, Goal};
use crate::cluster::id::ClusterName;
use crate::zookeeper::document::parse_bounded;
use crate::zookeeper::operations::{Connection, Error};
use crate::zookeeper::paths;
use crate::zookeeper::session::Session;

/// A goal, and when it was seen.
#[derive(Debug, Clone, PartialEq)]
pub struct GoalSeen {
    /// The session in which it was read, after a `sync` of that session. Every new session reads
    /// again and says so, also where nothing has changed.
    pub generation: u64,
    /// What was read.
    pub goal: GoalState,
}

/// What is at a goal's place.
#[derive(Debug, Clone, PartialEq)]
pub enum GoalState {
    /// Nothing: the cluster is not there (any more).
    Absent,
    /// A goal.
    Present(Box<Goal>),
    /// Something that is no goal of this version. What was obeyed before goes on.
    Unreadable(String),
}

/// Follows a cluster's goal. Only the newest is kept: whoever is slow misses intermediate ones.
#[derive(Debug)]
pub struct GoalWatch {
    newest: watch::Receiver<Option<GoalSeen>>,
    _task: OwnedTask,
}

impl GoalWatch {
    /// Begins to watch. Must be called within a tokio runtime.
    pub fn start(session: Session, cluster: &ClusterName) -> Self {
        let (sender, newest) = watch::channel(None);
        let path = paths::goal(cluster);
        let task = tokio::spawn(async move { follow(session, path, sender).await });
        Self {
            newest,
            _task: OwnedTask(task),
        }
    }

    /// Waits for a goal that was not returned yet. Can be cancelled without losing one. Never
    /// returns once the session was closed for good.
    pub async fn next(&mut self) -> GoalSeen {
        loop {
            if self.newest.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            if let Some(seen) = self.newest.borrow_and_update().clone() {
                return seen;
            }
        }
    }
}

async fn follow(session: Session, path: String, newest: watch::Sender<Option<GoalSeen>>) {
    let mut state = session.state();
    while let Some(connection) = session.next_connected(&mut state).await {
        let (goal, watcher) = match read(&connection, &path).await {
            Ok(read) => read,
            Err(error) => {
                warn!(path, %error, "goal not read");
                tokio::time::sleep(RETRY_PAUSE).await;
                continue;
            }
        };
        let seen = GoalSeen {
            generation: connection.generation,
            goal,
        };
        newest.send_if_modified(|current| {
            let is_new = current.as_ref() != Some(&seen);
            *current = Some(seen);
            is_new
        });
        // The library sets the watch again after a reconnect and ZooKeeper then tells what was
        // missed. Reading again by ourselves makes that a help instead of a necessity.
        tokio::select! {
            _ = watcher.changed() => {}
            closed = state.changed() => if closed.is_err() { return },
        }
    }
}

/// What is at `path` after a `sync`, and a watch for its next change.
async fn read(connection: &Connection, path: &str) -> Result<(GoalState, OneshotWatcher), Error> {
    connection.sync().await?;
    loop {
        if let Some((data, _, watcher)) = connection.watch_data(path).await? {
            let goal = match parse_bounded(&data, FORMAT) {
                Ok(goal) => GoalState::Present(Box::new(goal)),
                Err(fault) => GoalState::Unreadable(format!("{path}: {fault}")),
            };
            return Ok((goal, watcher));
        }
        let (stat, watcher) = connection.watch_stat(path).await?;
        if stat.is_none() {
            return Ok((GoalState::Absent, watcher));
        }
        // Created between the two requests: read it.
    }
}
