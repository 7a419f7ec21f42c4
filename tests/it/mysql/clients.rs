//! Clients kept out and let in without a restart, while replication gets in.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use cotton::cluster::flavour::Flavour;
use cotton::mysql::authentication::{Authentication, SALT_LENGTH};
use cotton::secret::Secret;

use super::*;

both_flavours!(
    nobody_but_the_administration_gets_in_until_clients_are_admitted,
    a_handshake_begun_before_does_not_slip_in_later,
    passwords_are_hashed_as_the_server_does,
);

const PASSWORD: &str = "pass'word \\ 21 \u{e4}";

async fn with_user(flavour: Flavour) -> (Mysqld, Server) {
    let mysqld = Mysqld::start(flavour, 1).await;
    let server = mysqld.connect().await;
    server.open_for_writes().await.unwrap();
    let hashed = Authentication::of(&Secret::new(PASSWORD), [3; SALT_LENGTH]);
    server.ensure_cluster_user("app", &hashed).await.unwrap();
    (mysqld, server)
}

async fn can_query(mysqld: &Mysqld, user: &str) -> bool {
    match mysqld.client(user, PASSWORD).await {
        Ok(mut connection) => connection.execute(sqlx::raw_sql("SELECT 1")).await.is_ok(),
        Err(_) => false,
    }
}

/// Goal: closed means closed for every client account, open means open. Method: try before, between and after.
async fn nobody_but_the_administration_gets_in_until_clients_are_admitted(flavour: Flavour) {
    let (mut mysqld, server) = with_user(flavour).await;
    assert!(!can_query(&mysqld, "app").await);
    server.admit_clients().await.unwrap();
    assert!(can_query(&mysqld, "app").await);
    let mut client = mysqld.client("app", PASSWORD).await.unwrap();
    run(
        &mut client,
        &[
            "CREATE USER other@'%' IDENTIFIED BY 'x'",
            "CREATE DATABASE d",
        ],
    )
    .await;
    assert!(server.observe().await.unwrap().clients_admitted);

    server.refuse_clients().await.unwrap();
    assert!(!server.observe().await.unwrap().clients_admitted);
    assert!(!can_query(&mysqld, "app").await);
    let mut other = mysqld.client("other", "x").await.ok();
    if let Some(connection) = &mut other {
        assert!(connection.execute(sqlx::raw_sql("SELECT 1")).await.is_err());
    }
    // Replication accounts get in while clients are out.
    let (_second, follower) = follower(&mysqld, 2, false).await;
    follower
        .wait_executed(&server.executed().await.unwrap(), soon())
        .await
        .unwrap();

    server.admit_clients().await.unwrap();
    assert!(can_query(&mysqld, "app").await);
    mysqld.kill();
    let server = mysqld.restart().await;
    assert!(!can_query(&mysqld, "app").await, "a restart closes");
    assert!(!server.observe().await.unwrap().clients_admitted);
}

/// Goal: a connection that was idle in its handshake while clients were admitted is turned away once they are not.
/// Method: read the greeting of a raw connection, refuse clients, then log in on it with no password.
async fn a_handshake_begun_before_does_not_slip_in_later(flavour: Flavour) {
    let (mysqld, server) = with_user(flavour).await;
    let create = match flavour {
        Flavour::Mysql => "CREATE USER nobody@'%' IDENTIFIED WITH caching_sha2_password BY ''",
        Flavour::Mariadb => "CREATE USER nobody@'%'",
    };
    run(&mut mysqld.local().await, &[create]).await;
    server.admit_clients().await.unwrap();
    let early = greeted(&mysqld);
    let late = greeted(&mysqld);
    assert!(logs_in_and_queries(early), "the test's own client works");
    server.refuse_clients().await.unwrap();
    assert!(!logs_in_and_queries(late));
}

fn greeted(mysqld: &Mysqld) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", mysqld.port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    packet(&mut stream).unwrap();
    stream
}

/// Answers the greeting as `nobody` without a password and asks `DO 1`; whether the answer is OK.
fn logs_in_and_queries(mut stream: TcpStream) -> bool {
    // Protocol 4.1, secure connection, plugin authentication; packets up to 16 MiB; utf8mb4.
    let mut login = 0x0008_8200_u32.to_le_bytes().to_vec();
    login.extend(0x0100_0000_u32.to_le_bytes());
    login.push(45);
    login.extend([0; 23]);
    login.extend(b"nobody\0\0mysql_native_password\0");
    send(&mut stream, 1, &login);
    loop {
        let Some((sequence, answer)) = packet(&mut stream) else {
            return false;
        };
        match answer.first() {
            Some(0x00) => break,
            // The server wants another plugin, or tells how far it is: nothing is the answer to both.
            Some(0xfe) => send(&mut stream, sequence + 1, b""),
            Some(0x01) => (),
            _ => return false,
        }
    }
    send(&mut stream, 0, b"\x03DO 1");
    packet(&mut stream).is_some_and(|(_, answer)| answer.first() == Some(&0x00))
}

fn send(stream: &mut TcpStream, sequence: u8, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
    let mut bytes = vec![length[0], length[1], length[2], sequence];
    bytes.extend(payload);
    // The server may have closed already; reading tells.
    let _ = stream.write_all(&bytes);
}

fn packet(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).ok()?;
    let mut payload =
        vec![0; usize::from(head[0]) | usize::from(head[1]) << 8 | usize::from(head[2]) << 16];
    stream.read_exact(&mut payload).ok()?;
    Some((head[3], payload))
}

/// Goal: hashes that Cotton makes are those of the server. Method: log in, for passwords of all lengths that crypt treats
/// differently; compare with what MariaDB itself computes.
async fn passwords_are_hashed_as_the_server_does(flavour: Flavour) {
    let (mysqld, server) = open_master(flavour, 1).await;
    let passwords = [
        "x".to_owned(),
        "a".repeat(31),
        "b".repeat(32),
        "c".repeat(33),
        "d".repeat(100),
        PASSWORD.to_owned(),
    ];
    for (index, password) in passwords.iter().enumerate() {
        let user = format!("user{index}");
        let hashed = Authentication::of(
            &Secret::new(password),
            std::array::from_fn(|i| (i * 13 + index) as u8),
        );
        server.ensure_cluster_user(&user, &hashed).await.unwrap();
        mysqld.client(&user, password).await.unwrap();
        assert!(mysqld.client(&user, "wrong").await.is_err());
    }
}
