//! Who leads, when masters stand for election in ZooKeeper.
//!
//! Each makes an ephemeral node `json.info_<sequence>` with what it says of itself; the lowest
//! sequence leads. A master whose session is lost ends, as real ones do: it cannot know what
//! happened meanwhile, and whoever keeps it running starts it with a clean slate.
//!
//! Source: `src/zookeeper/group.cpp` and `src/master/contender` of Apache Mesos; recorded nodes in
//! `08-zookeeper-master-detection.txt`.

use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;
use zookeeper_client::{Acls, Client, CreateMode};

use crate::mesos::json;
use crate::mesos::v1::MasterInfo;
use crate::zookeeper::url::ZkUrl;

/// What the names of the masters' nodes begin with; ten digits follow.
const NODE_PREFIX: &str = "json.info_";

/// Mesos' `MASTER_CONTENDER_ZK_SESSION_TIMEOUT`.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two attempts to find ZooKeeper when the master starts.
const CONNECT_AGAIN: Duration = Duration::from_millis(500);

/// Which master schedulers and agents have to talk to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leader {
    /// This one.
    Me,
    /// Another one, `host:port`.
    Other(String),
    /// Nobody knows (yet).
    Unknown,
}

/// Stands for election for as long as the session lasts.
///
/// # Errors
///
/// Always, in the end: the session is lost, or a node cannot be made.
pub async fn contend(
    url: ZkUrl,
    info: MasterInfo,
    time_scale: f64,
    leader: watch::Sender<Leader>,
) -> anyhow::Result<()> {
    let client = connect(&url, SESSION_TIMEOUT.div_f64(time_scale)).await;
    let group = url.path().to_owned();
    let open = Acls::anyone_all();
    client
        .mkdir(&group, &CreateMode::Persistent.with_acls(open))
        .await
        .with_context(|| format!("make the group {group}"))?;
    let data = json::to_string(&info);
    let node = CreateMode::EphemeralSequential.with_acls(open);
    let (_, sequence) = client
        .create(&format!("{group}/{NODE_PREFIX}"), data.as_bytes(), &node)
        .await
        .with_context(|| format!("stand for election in {group}"))?;
    let own = format!("{NODE_PREFIX}{sequence}");
    loop {
        let (children, _, watcher) = client
            .get_and_watch_children(&group)
            .await
            .with_context(|| format!("watch the group {group}"))?;
        let first = children
            .into_iter()
            .filter(|name| name.starts_with(NODE_PREFIX))
            .min();
        let now = match first {
            Some(name) if name == own => Leader::Me,
            Some(name) => leader_at(&client, &format!("{group}/{name}")).await,
            None => Leader::Unknown,
        };
        anyhow::ensure!(
            now != Leader::Unknown || *leader.borrow() != Leader::Me,
            "the node of this master, which led, is gone"
        );
        tracing::info!(leader = ?now, "election of the masters");
        leader.send_replace(now);
        let event = watcher.changed().await;
        anyhow::ensure!(
            event.event_type != zookeeper_client::EventType::Session,
            "the ZooKeeper session is lost"
        );
    }
}

async fn connect(url: &ZkUrl, timeout: Duration) -> Client {
    let servers = url.connect_string();
    let mut told = false;
    loop {
        let connector = Client::connector().with_session_timeout(timeout);
        match connector.connect(&servers).await {
            Ok(client) => return client,
            Err(error) if !told => tracing::warn!(%servers, %error, "ZooKeeper does not answer"),
            Err(_) => {}
        }
        told = true;
        tokio::time::sleep(CONNECT_AGAIN).await;
    }
}

/// Where the master with this node listens.
async fn leader_at(client: &Client, path: &str) -> Leader {
    // It may be gone already; then the watch says so and the group is read again.
    let Ok((data, _)) = client.get_data(path).await else {
        return Leader::Unknown;
    };
    let Ok(info) = json::from_slice::<MasterInfo>(&data) else {
        return Leader::Unknown;
    };
    let address = info.address.unwrap_or_default();
    let host = address.hostname.or(address.ip);
    host.map_or(Leader::Unknown, |host| {
        Leader::Other(format!("{host}:{}", address.port))
    })
}
