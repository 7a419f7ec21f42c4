//! Discovery seen from outside: how many masters there ever were at the same time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cotton::zookeeper::serverset::ServerSet;
use cotton::zookeeper::url::ZkUrl;
use tokio::task::JoinHandle;
use zookeeper_client::{Client, Error};

/// The ZooKeeper session of a test.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Between attempts to reach a ZooKeeper that is down.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);

/// Follows the cluster at `cluster_url` as a client of Cotton does.
pub fn follow(cluster_url: &str) -> ServerSet {
    let url: ZkUrl = cluster_url.parse().unwrap();
    ServerSet::follow(url, SESSION_TIMEOUT)
}

/// Watches the nodes below `master`, each time that they change.
pub struct Masters {
    seen: Arc<Mutex<Vec<Vec<String>>>>,
    task: JoinHandle<()>,
}

impl Masters {
    /// Begins to watch the cluster at `zk://servers/path`.
    pub async fn watch(cluster_url: &str) -> Self {
        let rest = cluster_url.strip_prefix("zk://").unwrap();
        let (servers, path) = rest.split_once('/').unwrap();
        let path = format!("/{path}/master");
        let mut client = Client::connect(servers).await.unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let all = seen.clone();
        let servers = servers.to_owned();
        let task = tokio::spawn(async move {
            loop {
                match client.list_and_watch_children(&path).await {
                    Ok((names, watcher)) => {
                        all.lock().unwrap().push(names);
                        watcher.changed().await;
                    }
                    // Ends with the group.
                    Err(Error::NoNode) => return,
                    // The session has ended, or ZooKeeper is down.
                    Err(_) => {
                        if let Ok(new) = Client::connect(&servers).await {
                            client = new;
                        }
                        tokio::time::sleep(RECONNECT_PAUSE).await;
                    }
                }
            }
        });
        Self { seen, task }
    }

    /// Every list of masters that was seen, in order. None has two.
    pub fn check(&self) -> Vec<Vec<String>> {
        assert!(
            !self.task.is_finished(),
            "the watch has ended, though the cluster is still there"
        );
        let seen = self.seen.lock().unwrap().clone();
        assert!(!seen.is_empty(), "nothing was seen in discovery");
        for names in &seen {
            assert!(names.len() <= 1, "discovery had several masters: {seen:?}");
        }
        seen
    }
}

impl Drop for Masters {
    fn drop(&mut self) {
        self.task.abort();
    }
}
