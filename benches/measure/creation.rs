//! From the request to a master that is published and accepts writes.

use std::time::{Duration, Instant};

use cotton::cluster::flavour::Flavour;

use crate::bare::Server;
use crate::figures::{Figures, line};
use crate::support::database::{connect, execute};
use crate::support::discovery::follow;
use crate::support::system::System;
use crate::support::{CREATE_DEADLINE, system};

/// How often each is measured. A first creation needs a system that never had one.
const ROUNDS: usize = 5;

/// Measures the bare server and clusters of one and of three in turn, so that whatever else the machine
/// does meets all of them.
pub async fn measure(flavour: Flavour) {
    let server = Server::new(flavour);
    let mut rounds = Vec::new();
    let mut resident = Vec::new();
    for round in 0..ROUNDS {
        let bare = server.measure().await;
        let one = first_creation(flavour, 1, &mut resident).await;
        let three = first_creation(flavour, 3, &mut resident).await;
        eprintln!("{flavour} creation, round {} of {ROUNDS}", round + 1);
        rounds.push((bare, one, three));
    }
    let figures = |pick: fn(&(Duration, Created, Created)) -> Duration| -> Figures {
        rounds.iter().map(pick).collect()
    };
    let bare = figures(|round| round.0);
    let ratio = |figures: &Figures, aim: &str| {
        let ratio = figures.median().as_secs_f64() / bare.median().as_secs_f64();
        format!("{ratio:.2} x bare{aim}")
    };
    let show = |what: &str, figures: Figures, aim: &str| {
        line(what, &figures.seconds(), &ratio(&figures, aim));
    };
    line("bare: initialise, start, log in", &bare.seconds(), "");
    show(
        "one node, first on its agent",
        figures(|round| round.1.first),
        "; aim: 1.2",
    );
    show(
        "one node, a later one",
        figures(|round| round.1.later),
        "; aim: 1.2",
    );
    show(
        "three nodes, first on their agents",
        figures(|round| round.2.first),
        "; aim: 2.0",
    );
    show(
        "three nodes, later ones",
        figures(|round| round.2.later),
        "; aim: 2.0",
    );
    resident.sort_unstable();
    let megabytes = |kib: u64| kib as f64 * 1024.0 / 1e6;
    let figure = format!(
        "{:.1} MB ({:.1} to {:.1})",
        megabytes(resident[resident.len() / 2]),
        megabytes(resident[0]),
        megabytes(resident[resident.len() - 1])
    );
    line("executor's resident memory", &figure, "aim: under 15 MB");
}

/// Times of the first cluster on new agents, and of the next one there.
#[derive(Clone, Copy)]
struct Created {
    first: Duration,
    later: Duration,
}

async fn first_creation(flavour: Flavour, nodes: u32, resident: &mut Vec<u64>) -> Created {
    let system = System::start(flavour);
    let first = create(&system, "first", nodes).await;
    let later = create(&system, "later", nodes).await;
    let view = system.show("later").await.unwrap();
    for member in &view.members {
        resident.push(system.mysqld(member).parent().resident_kib());
    }
    Created { first, later }
}

async fn create(system: &System, name: &str, nodes: u32) -> Duration {
    // Followed before it is there, as the time to connect to ZooKeeper is the client's own.
    let mut discovery = follow(&format!("{}/discover/{name}", system.zk));
    discovery.next().await.unwrap();
    let start = Instant::now();
    let cluster = system.create(name, nodes).await;
    let master = discovery.wait_for_master(CREATE_DEADLINE).await.unwrap();
    let at = master.service_endpoint;
    let mut connection = connect(&at, &cluster.account).await.unwrap();
    execute(&mut connection, "CREATE DATABASE first_write")
        .await
        .unwrap();
    let took = start.elapsed();
    // The rest of it must not weigh on what is measured next.
    system
        .wait_until(&cluster, "is at rest", CREATE_DEADLINE, |view| {
            system::slaves(view).len() + 1 == nodes as usize
        })
        .await;
    took
}
