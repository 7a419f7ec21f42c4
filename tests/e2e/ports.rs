//! Something that Mesos knows nothing of listens on ports that agents offer.

use std::net::TcpListener;
use std::time::Duration;

use cotton::cluster::flavour::Flavour;
use cotton::cluster::view::{ClusterState, ClusterView};

use crate::membership::{assert_complete, assert_released, loaded};
use crate::support::discovery::Masters;
use crate::support::system::{Options, System, slaves};
use crate::support::{CREATE_DEADLINE, FAILOVER_DEADLINE, eventually};

/// The ports of each agent, in the gap between those of `cotton local` and those of outgoing connections.
const PORTS: std::ops::RangeInclusive<u16> = 32_700..=32_704;

/// How long a relaunched task waits for a former server's end, with the pauses between launches.
const TOLD_WITHIN: Duration = Duration::from_secs(60);

fn listen(agents: u8, port: u16) -> Vec<TcpListener> {
    let hosts = (1..=agents).map(|agent| format!("127.0.0.{agent}"));
    let listeners = hosts.map(|host| TcpListener::bind((host, port)));
    listeners.map(Result::unwrap).collect()
}

/// Goal: members go to ports that are free, what is made for others is released, and a member whose own port is taken says so and comes
/// back with its data. Method: three of each agent's five ports are held when a cluster is created; later that of a slave
/// between two of its tasks.
#[tokio::test]
async fn a_port_that_something_else_holds_is_not_insisted_on() {
    let held: Vec<u16> = PORTS.take(3).collect();
    let _others: Vec<TcpListener> = held.iter().flat_map(|port| listen(3, *port)).collect();
    let range = format!("{}-{}", PORTS.start(), PORTS.end());
    let system = System::with_options(Options {
        arguments: vec!["--ports".to_owned(), range],
        ..Options::new(Flavour::Mariadb)
    });
    let cluster = system.create_running("crowded", 3).await;
    let masters = Masters::watch(&cluster.url).await;
    let mut load = loaded(&system, &cluster).await;
    let view = system.show("crowded").await.unwrap();
    for member in &view.members {
        assert!(!held.contains(&member.port.unwrap()), "{view:?}");
    }
    assert_released(&system, 3).await;

    let slave = slaves(&view)[0].clone();
    let (host, port) = (slave.host.clone().unwrap(), slave.port.unwrap());
    system.mysqld(&slave).parent().kill();
    let other = eventually("its port is taken", FAILOVER_DEADLINE, async || {
        TcpListener::bind((host.as_str(), port)).ok()
    })
    .await;
    let sentence = format!("port {port} is in use");
    let says_so =
        |view: &ClusterView| view.state != ClusterState::Running && view.reason.contains(&sentence);
    system
        .wait_until(&cluster, "says why", TOLD_WITHIN, says_so)
        .await;
    drop(other);
    let after = system.wait_running(&cluster, CREATE_DEADLINE).await;
    let back = &after.members[slave.id as usize];
    assert_eq!((back.port, back.server_id), (slave.port, slave.server_id));
    assert_eq!(after.epoch, view.epoch);
    assert_complete(&system, &cluster, &mut load).await;
    masters.check();
    system.delete_and_wait(&cluster).await;
}
