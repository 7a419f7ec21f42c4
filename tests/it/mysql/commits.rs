//! What a copy leaves the clients of a master: how much it commits is asked over the network.

use cotton::cluster::flavour::Flavour;
use cotton::executor::{
    pace::{Clients, Gate},
    tempo::{Manner, Speed},
};
use cotton::mysql::{Commits, Credentials, Source};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;

both_flavours!(
    commits_are_counted,
    a_copy_gives_way_to_clients_that_write_and_to_nobody_else,
);

const TABLE: &[&str] = &[
    "CREATE DATABASE d",
    "CREATE TABLE d.t (id INT AUTO_INCREMENT PRIMARY KEY)",
];

pub fn administration(mysqld: &Mysqld) -> Source {
    let Credentials { user, password } = mysqld.admin();
    Source {
        host: "127.0.0.1".to_owned(),
        port: mysqld.port,
        user,
        password,
    }
}

async fn commits_are_counted(flavour: Flavour) {
    const INSERTS: u64 = 50;
    let (mysqld, _server) = open_master(flavour, 1).await;
    let mut local = mysqld.local().await;
    run(&mut local, TABLE).await;
    let mut commits = Commits::of(&administration(&mysqld)).await.unwrap();
    let before = commits.count().await.unwrap();
    for _ in 0..INSERTS {
        run(&mut local, &["INSERT INTO d.t () VALUES ()"]).await;
    }
    assert_eq!(commits.count().await.unwrap() - before, INSERTS);
    run(&mut local, &["BEGIN", "SELECT * FROM d.t", "COMMIT"]).await;
    assert_eq!(
        commits.count().await.unwrap() - before,
        INSERTS,
        "nothing was written"
    );
}

/// Clients that write as fast as they can, as long as there is a server.
async fn write(mysqld: &Mysqld) -> Vec<JoinHandle<()>> {
    let mut writers = Vec::new();
    for _ in 0..4 {
        let mut connection = mysqld.local().await;
        writers.push(tokio::spawn(async move {
            let insert = || sqlx::raw_sql("INSERT INTO d.t () VALUES ()");
            while connection.execute(insert()).await.is_ok() {}
        }));
    }
    writers
}

async fn becomes(gate: &Gate, what: &str, wanted: impl Fn(Speed) -> bool) {
    let mut speeds: watch::Receiver<Speed> = gate.speeds();
    let changes = timeout(PATIENCE, speeds.wait_for(|speed| wanted(*speed)));
    if changes.await.is_err() {
        panic!(
            "the copy does not become {what} but {:?}",
            *gate.speeds().borrow()
        );
    }
}

/// Goal: a copy slows down for clients that write, and goes on as fast as it can when they stop, and when there is no
/// master to ask.
async fn a_copy_gives_way_to_clients_that_write_and_to_nobody_else(flavour: Flavour) {
    let (mut mysqld, server) = open_master(flavour, 1).await;
    run(&mut mysqld.local().await, TABLE).await;
    let (source, gate) = (administration(&mysqld), Gate::new(Speed::Paused));
    let clients = Clients {
        master: &source,
        manner: Manner {
            cost_percent: 10,
            lag: Duration::from_millis(100),
            count_for: Duration::from_millis(500),
            holds_up: true,
        },
    };
    let slowed = |speed| matches!(speed, Speed::AtMost(_));
    let story = async {
        becomes(&gate, "fast", |speed| speed == Speed::Unhindered).await;
        let writers = write(&mysqld).await;
        becomes(&gate, "slower", slowed).await;
        for writer in writers {
            writer.abort();
            let _ = writer.await;
        }
        becomes(&gate, "fast again", |speed| speed == Speed::Unhindered).await;

        let writers = write(&mysqld).await;
        becomes(&gate, "slower again", slowed).await;
        drop(server);
        mysqld.kill();
        becomes(&gate, "fast without a master", |speed| {
            speed == Speed::Unhindered
        })
        .await;
        for writer in writers {
            writer.await.unwrap();
        }
    };
    tokio::select! {
        () = story => {}
        never = gate.mind(&clients) => match never {},
    }
}
