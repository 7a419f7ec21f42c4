//! Copying a whole MySQL server.

use cotton::cluster::flavour::Flavour;

use super::commits::administration;
use super::*;

/// Goal: a copy that goes on is not given up, however long it takes, on a server without a performance schema too, which every small one is. Method: it is
/// bounded to a rate at which it takes longer than it may stand still.
#[tokio::test]
async fn a_copy_that_takes_its_time_is_not_given_up() {
    const STALL: Duration = Duration::from_secs(6);
    let (donor, _server) = open_master(Flavour::Mysql, 1).await;
    let mut local = donor.local().await;
    let table = "CREATE TABLE d.t (id INT AUTO_INCREMENT PRIMARY KEY, text LONGTEXT)";
    run(&mut local, &["CREATE DATABASE d", table]).await;
    for _ in 0..8 {
        run(
            &mut local,
            &["INSERT INTO d.t (text) VALUES (REPEAT('x', 1000000))"],
        )
        .await;
    }
    let receiver = Mysqld::start(Flavour::Mysql, 2).await;
    let server = receiver.connect().await;
    let before = server.received_bytes().await.unwrap();
    server.limit_clone(2).await.unwrap();
    let target = receiver.path("copy");
    let begun = Instant::now();
    server
        .clone_from(&administration(&donor), &target, STALL)
        .await
        .unwrap();
    assert!(begun.elapsed() > STALL, "{:?}", begun.elapsed());
    assert!(target.join("d/t.ibd").exists());
    let bytes = server.received_bytes().await.unwrap() - before;
    assert!(bytes > 8_000_000, "{bytes}");
}
