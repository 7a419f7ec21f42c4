//! Finding a cluster's master and slaves, as a client of Cotton does.
//!
//! A cluster's URL (`zk://servers/path/discover/<cluster>`) names a group node with the groups
//! `master` and `slaves` below it, in the layout of the ServerSet protocol. The group node exists
//! from the acceptance of the cluster until its last task is gone.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::select_all;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::warn;
use zookeeper_client::OneshotWatcher;

use super::operations::{Connection, Error, Refusal};
use super::session::{Session, SessionConfig};
use super::url::ZkUrl;
use crate::cluster::id::MemberId;
use crate::cluster::record::Discovery;
use crate::cluster::service_instance::{ServiceInstance, Status};

/// The pause after an answer that was an error.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// What discovery shows of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Group {
    /// There is no such cluster (any more).
    Absent,
    /// Its master and slaves, as far as there are any.
    Present(Discovery),
}

/// Why a wait has ended without what was waited for.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WaitError {
    /// The deadline has passed.
    #[error("{what} within {}: {seen}", humantime::format_duration(*deadline))]
    TooLate {
        /// What did not happen, as "the cluster at ... got no master".
        what: String,
        /// How long was waited.
        deadline: Duration,
        /// What was seen last.
        seen: String,
    },
    /// ZooKeeper does not let this identity read the group.
    #[error(transparent)]
    Refused(Error),
}

/// Follows the discovery group of one cluster.
#[derive(Debug)]
pub struct ServerSet {
    url: ZkUrl,
    newest: watch::Receiver<Option<Result<Group, Error>>>,
    task: JoinHandle<()>,
}

impl ServerSet {
    /// Begins to follow the cluster at `url`. Must be called within a tokio runtime.
    pub fn follow(url: ZkUrl, session_timeout: Duration) -> Self {
        let session = Session::connect(SessionConfig {
            url: url.clone(),
            identities: Vec::new(),
            timeout: session_timeout,
            root_acl: None,
        });
        let (sender, newest) = watch::channel(None);
        let task = tokio::spawn(follow(session, sender));
        Self { url, newest, task }
    }

    /// The next state of the group that was not returned yet; quick changes may be seen as one.
    pub async fn next(&mut self) -> Result<Group, Error> {
        loop {
            if self.newest.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            if let Some(group) = self.newest.borrow_and_update().clone() {
                return group;
            }
        }
    }

    /// Waits until there is a master. It accepted writes when it was published.
    pub async fn wait_for_master(&self, deadline: Duration) -> Result<ServiceInstance, WaitError> {
        let what = format!("the cluster at {} got no master", self.url);
        let is_there = |group: &Group| match group {
            Group::Present(Discovery {
                master: Some((_, instance)),
                ..
            }) => Some(instance.clone()),
            Group::Present(_) | Group::Absent => None,
        };
        self.wait(what, deadline, is_there).await
    }

    /// Waits until there is a master other than `than`: whoever waits for an answer of that one can give it up. A
    /// host that was cut off answers nothing, not even that it is gone.
    pub async fn wait_for_other_master(
        &self,
        than: &ServiceInstance,
        deadline: Duration,
    ) -> Result<ServiceInstance, WaitError> {
        let what = format!("the cluster at {} got no other master", self.url);
        let is_there = |group: &Group| match group {
            Group::Present(Discovery {
                master: Some((_, instance)),
                ..
            }) if instance != than => Some(instance.clone()),
            Group::Present(_) | Group::Absent => None,
        };
        self.wait(what, deadline, is_there).await
    }

    /// Waits until the group node is gone: the cluster is terminated. A group that is not there yet
    /// counts as gone.
    pub async fn wait_gone(&self, deadline: Duration) -> Result<(), WaitError> {
        let what = format!("the cluster at {} was not terminated", self.url);
        self.wait(what, deadline, |group| {
            (*group == Group::Absent).then_some(())
        })
        .await
    }

    async fn wait<T>(
        &self,
        what: String,
        deadline: Duration,
        probe: impl Fn(&Group) -> Option<T>,
    ) -> Result<T, WaitError> {
        let mut newest = self.newest.clone();
        let wait = async {
            loop {
                let current = newest.borrow_and_update().clone();
                match current {
                    Some(Ok(group)) => {
                        if let Some(found) = probe(&group) {
                            return Ok(found);
                        }
                    }
                    Some(Err(error)) => return Err(WaitError::Refused(error)),
                    None => {}
                }
                if newest.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        match tokio::time::timeout(deadline, wait).await {
            Ok(result) => result,
            Err(_) => Err(WaitError::TooLate {
                what,
                deadline,
                seen: self.seen(),
            }),
        }
    }

    fn seen(&self) -> String {
        match &*self.newest.borrow() {
            None => format!(
                "ZooKeeper at {} could not be reached",
                self.url.connect_string()
            ),
            Some(Err(error)) => error.to_string(),
            Some(Ok(Group::Absent)) => "it is not in discovery".to_owned(),
            Some(Ok(Group::Present(Discovery { master, slaves }))) => {
                let master = if master.is_some() {
                    "a master"
                } else {
                    "no master"
                };
                format!("discovery shows {master} and {} slaves", slaves.len())
            }
        }
    }
}

impl Drop for ServerSet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(session: Session, newest: watch::Sender<Option<Result<Group, Error>>>) {
    let mut state = session.state();
    while let Some(connection) = session.next_connected(&mut state).await {
        let (group, watchers) = match read(&connection).await {
            Ok((group, watchers)) => (Ok(group), watchers),
            // Asking again would not help, and whoever waits is told. A new session asks again.
            Err(error) if error.refusal() == Some(&Refusal::NoAuth) => (Err(error), Vec::new()),
            Err(error) => {
                warn!(%error, "discovery not read");
                tokio::time::sleep(RETRY_PAUSE).await;
                continue;
            }
        };
        newest.send_if_modified(|current| {
            let is_new = !matches!((&*current, &group), (Some(Ok(old)), Ok(new)) if old == new);
            *current = Some(group);
            is_new
        });
        // An empty list of futures is no future; a session that changes ends the wait too.
        let changed = async {
            match watchers.is_empty() {
                true => std::future::pending().await,
                false => drop(select_all(watchers.into_iter().map(|w| w.changed().boxed())).await),
            }
        };
        tokio::select! {
            () = changed => {}
            closed = state.changed() => if closed.is_err() { return },
        }
    }
}

/// The group as it is, and watches that fire on its next change.
async fn read(connection: &Connection) -> Result<(Group, Vec<OneshotWatcher>), Error> {
    let (root, watcher) = connection.watch_stat("/").await?;
    let mut watchers = vec![watcher];
    if root.is_none() {
        return Ok((Group::Absent, watchers));
    }
    let mut discovery = Discovery::default();
    for path in ["/master", "/slaves"] {
        let Some((names, watcher)) = connection.watch_children(path).await? else {
            // Created and removed together with the root, whose watch fires then.
            continue;
        };
        watchers.push(watcher);
        for name in names {
            let Some(member) = MemberId::from_node_name(&name) else {
                continue;
            };
            // A member that is gone by now fires the watch on its parent.
            let node = connection.watch_data(&format!("{path}/{name}")).await?;
            let Some((data, _, watcher)) = node else {
                continue;
            };
            watchers.push(watcher);
            match serde_json::from_slice::<ServiceInstance>(&data) {
                Ok(instance) if instance.status != Status::Alive => {}
                Ok(instance) if path == "/master" => discovery.master = Some((member, instance)),
                Ok(instance) => drop(discovery.slaves.insert(member, instance)),
                Err(error) => warn!(path, name, %error, "a discovery node cannot be read"),
            }
        }
    }
    Ok((Group::Present(discovery), watchers))
}
