//! Something that Mesos knows nothing of listens on ports that agents offer.

use std::net::TcpListener;
use std::time::Duration;

use cotton::cluster::flavour::Flavour;
use cotton::cluster::view::{ClusterState, ClusterView};

use crate::membership::{assert_complete, assert_released, loaded};
use crate::support::discovery::Masters;
use crate::support::system::{Options, System, slaves};
use crate::support::{CREATE_DEADLINE, FAILOVER_DEADLINE, eventually};

/// Where ports are looked for: in the gap between those of `cotton local` and those of outgoing connections.
const GAP: std::ops::Range<u16> = 32_000..32_760;

/// How many ports each agent has, and how many of them something else holds.
const PORTS: u16 = 5;
const HELD: u16 = 3;

/// How long a relaunched task waits for a former server's end, with the pauses between launches.
const TOLD_WITHIN: Duration = Duration::from_secs(60);

/// Ports for agents, the first ones of which are held.
struct Crowded {
    first: u16,
    _others: Vec<TcpListener>,
}

impl Crowded {
    /// Who has the first ones has the others too.
    fn take(agents: u8) -> Self {
        let mut places = GAP.step_by(PORTS.into());
        let taken = places.find_map(|first| {
            let held = first..first + HELD;
            let addresses = held.flat_map(|port| (1..=agents).map(move |agent| (agent, port)));
            let bind = |(agent, port)| TcpListener::bind((format!("127.0.0.{agent}"), port));
            let others = addresses.map(bind).collect::<Result<_, _>>().ok()?;
            Some(Self {
                first,
                _others: others,
            })
        });
        taken.expect("there are free ports")
    }

    fn range(&self) -> String {
        format!("{}-{}", self.first, self.first + PORTS - 1)
    }

    fn is_held(&self, port: u16) -> bool {
        port < self.first + HELD
    }
}

/// Goal: members go to ports that are free, what is made for others is released, and a member whose own port is taken says so and comes
/// back with its data. Method: three of each agent's five ports are held when a cluster is created; later that of a slave
/// between two of its tasks.
#[tokio::test]
async fn a_port_that_something_else_holds_is_not_insisted_on() {
    let ports = Crowded::take(3);
    let system = System::with_options(Options {
        arguments: vec!["--ports".to_owned(), ports.range()],
        ..Options::new(Flavour::Mariadb)
    });
    let cluster = system.create_running("crowded", 3).await;
    let masters = Masters::watch(&cluster.url).await;
    let mut load = loaded(&system, &cluster).await;
    let view = system.show("crowded").await.unwrap();
    for member in &view.members {
        assert!(!ports.is_held(member.port.unwrap()), "{view:?}");
    }
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
    assert_released(&system, 3).await;
    assert_complete(&system, &cluster, &mut load).await;
    masters.check();
    system.delete_and_wait(&cluster).await;
}
