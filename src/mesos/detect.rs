//! Which Mesos master leads.
//!
//! Given addresses are tried in turn; one that does not lead redirects. Given a ZooKeeper group, the
//! leader is the master whose node `json.info_<sequence>` has the lowest number, and the node's data
//! says where it listens. The group is watched: a new leader is known at once, while a ZooKeeper
//! that is away takes nothing back that was known.
//!
//! Source: `src/master/contender` and `src/master/detector` of Apache Mesos.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

use super::address::{AddressError, MasterAddress, MasterAddresses};
use super::connection::chain;
use crate::backoff::Backoff;
use crate::zookeeper::operations::{self, Connection};
use crate::zookeeper::session::{Session, SessionConfig};

/// What the names of the masters' nodes begin with; ten digits follow.
const NODE_PREFIX: &str = "json.info_";

/// The session is only read with; a short timeout finds a dead server soon.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// The master that leads, by the node that says so: a master that restarts on its old address is
/// another leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leader {
    node: String,
    address: MasterAddress,
}

/// Finds the master to talk to, again and again.
pub(super) enum Detector {
    List {
        addresses: Vec<MasterAddress>,
        next: usize,
    },
    ZooKeeper {
        leaders: watch::Receiver<Option<Leader>>,
        /// The leader that was given out last.
        current: Option<Leader>,
        /// Ends the watching task.
        _stop: DropGuard,
    },
}

impl Detector {
    pub fn start(addresses: MasterAddresses, backoff: Backoff) -> Self {
        match addresses {
            MasterAddresses::List(addresses) => Self::List { addresses, next: 0 },
            MasterAddresses::ZooKeeper(url) => {
                // Whoever only reads makes nothing: the group is the masters' to make.
                let session = Session::connect(SessionConfig {
                    url,
                    identities: Vec::new(),
                    timeout: SESSION_TIMEOUT,
                    root_acl: None,
                });
                let (sender, leaders) = watch::channel(None);
                let stop = CancellationToken::new();
                let task = stop.clone().run_until_cancelled_owned(async move {
                    watch_group(&session, &sender, backoff).await;
                });
                tokio::spawn(task);
                Self::ZooKeeper {
                    leaders,
                    current: None,
                    _stop: stop.drop_guard(),
                }
            }
        }
    }

    /// The master to try next. With a group this waits until somebody leads.
    pub async fn next(&mut self) -> MasterAddress {
        match self {
            Self::List { addresses, next } => {
                let address = addresses[*next % addresses.len()].clone();
                *next = (*next + 1) % addresses.len();
                address
            }
            Self::ZooKeeper {
                leaders, current, ..
            } => {
                let leader = leaders.wait_for(Option::is_some).await;
                let leader = leader.ok().and_then(|leader| leader.clone());
                match leader {
                    Some(leader) => current.insert(leader).address.clone(),
                    // The watching task only ends with this detector.
                    None => std::future::pending().await,
                }
            }
        }
    }

    /// Waits until another master leads than the one that [`next`](Self::next) gave.
    pub async fn superseded(&mut self) {
        match self {
            Self::List { .. } => std::future::pending().await,
            Self::ZooKeeper {
                leaders, current, ..
            } => {
                let other = |leader: &Option<Leader>| leader.is_some() && leader != current;
                if leaders.wait_for(other).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

/// Publishes the leader of the group for ever, through lost sessions.
async fn watch_group(session: &Session, leaders: &watch::Sender<Option<Leader>>, backoff: Backoff) {
    let mut failures = 0;
    loop {
        // The session itself tells why it is not connected; there is nothing to do but wait.
        let Ok(connection) = session.connected(SESSION_TIMEOUT).await else {
            continue;
        };
        let error = match follow(&connection, leaders, &mut failures).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        warn!(error = %chain(&error), "looking for the leading Mesos master");
        tokio::time::sleep(backoff.delay(failures, rand::random())).await;
        failures = failures.saturating_add(1);
    }
}

/// Publishes the leader until the connection's session is lost.
async fn follow(
    connection: &Connection,
    leaders: &watch::Sender<Option<Leader>>,
    failures: &mut u32,
) -> Result<std::convert::Infallible, operations::Error> {
    loop {
        // The watch is set before the nodes are read, so that no change falls between.
        if let Some((names, watcher)) = connection.watch_children("/").await? {
            publish(find_leader(connection, names).await?, leaders);
            *failures = 0;
            watcher.changed().await;
        } else {
            // No master has ever been there.
            publish(None, leaders);
            let (stat, watcher) = connection.watch_stat("/").await?;
            if stat.is_none() {
                watcher.changed().await;
            }
        }
    }
}

/// The first of the nodes that is still there and names a master.
async fn find_leader(
    connection: &Connection,
    names: Vec<String>,
) -> Result<Option<Leader>, operations::Error> {
    for node in in_order(names) {
        // `None`: gone since the names were listed; the watch has fired.
        if let Some((data, _)) = connection.get(&format!("/{node}")).await? {
            return Ok(match parse_master_info(&data) {
                Ok(address) => Some(Leader { node, address }),
                // Fail closed: the next in line does not lead, whatever this node means.
                Err(error) => {
                    warn!(node, error = %chain(&error), "refuse a Mesos master's node");
                    None
                }
            });
        }
    }
    Ok(None)
}

fn publish(leader: Option<Leader>, leaders: &watch::Sender<Option<Leader>>) {
    leaders.send_if_modified(|known| {
        let changed = *known != leader;
        if changed {
            match &leader {
                Some(leader) => info!(master = %leader.address, node = leader.node, "leading Mesos master found"),
                None => info!("no Mesos master leads"),
            }
            *known = leader;
        }
        changed
    });
}

/// The nodes of masters, lowest sequence first. Other nodes, such as `log_replicas`, are not masters.
fn in_order(names: Vec<String>) -> Vec<String> {
    let mut masters: Vec<(u64, String)> = names
        .into_iter()
        .filter_map(|name| {
            let sequence = name.strip_prefix(NODE_PREFIX)?.parse().ok()?;
            Some((sequence, name))
        })
        .collect();
    masters.sort_unstable();
    masters.into_iter().map(|(_, name)| name).collect()
}

#[derive(Debug, thiserror::Error)]
enum MasterInfoError {
    #[error("read the node's data as a MasterInfo in JSON")]
    Json(#[source] serde_json::Error),
    #[error("read the address in a MasterInfo")]
    Address(#[source] AddressError),
}

/// Where the master listens that a node's data describes. The IP is what it is bound to; its host
/// name is for people and need not resolve here.
fn parse_master_info(data: &[u8]) -> Result<MasterAddress, MasterInfoError> {
    #[derive(serde::Deserialize)]
    struct Info {
        address: Address,
    }
    #[derive(serde::Deserialize)]
    struct Address {
        hostname: Option<String>,
        ip: Option<String>,
        port: u16,
    }
    let Info { address } = serde_json::from_slice(data).map_err(MasterInfoError::Json)?;
    let host = address.ip.or(address.hostname).unwrap_or_default();
    let text = if host.contains(':') {
        format!("[{host}]:{}", address.port)
    } else {
        format!("{host}:{}", address.port)
    };
    MasterAddress::parse(&text).map_err(MasterInfoError::Address)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn the_lowest_sequence_leads_and_other_nodes_do_not_count() {
        let names = [
            "json.info_0000000010",
            "log_replicas",
            "json.info_0000000009",
            "info_0000000001",
            "json.info_x",
        ];
        let ordered = in_order(names.map(str::to_owned).into());
        assert_eq!(ordered, ["json.info_0000000009", "json.info_0000000010"]);
    }

    #[test]
    fn the_recorded_master_info_is_read() {
        let recorded = include_str!("../../tests/fixtures/mesos/08-zookeeper-master-detection.txt");
        let json = recorded.split('\'').nth(1).unwrap();
        let address = parse_master_info(json.as_bytes()).unwrap();
        assert_eq!(address.as_str(), "127.0.0.1:5050");
    }

    #[test]
    fn unknown_data_is_refused() {
        for data in [
            "",
            "{}",
            "[1]",
            r#"{"address":{"ip":"a b","port":1}}"#,
            r#"{"address":{"port":1}}"#,
        ] {
            assert!(parse_master_info(data.as_bytes()).is_err(), "{data}");
        }
        let ipv6 = parse_master_info(br#"{"address":{"ip":"::1","port":5050}}"#).unwrap();
        assert_eq!(ipv6.as_str(), "[::1]:5050");
    }
}
