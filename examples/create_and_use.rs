//! Creates a cluster, finds its master through service discovery, uses it, and deletes it again.
//!
//! ```sh
//! cargo run --example create_and_use -- http://scheduler.example.com:8080 [NAME]
//! ```

use std::error::Error;
use std::time::Duration;

use cotton::http::clusters::{CreateAnswer, DeleteAnswer};
use cotton::zookeeper::serverset::ServerSet;
use cotton::zookeeper::url::ZkUrl;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use sqlx::Connection as _;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};

/// How long the cluster may take to come up, and to be gone.
const PATIENCE: Duration = Duration::from_secs(300);

/// How soon ZooKeeper notices that this program is gone.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let api = arguments
        .next()
        .ok_or("usage: create_and_use API_URL [NAME]")?;
    let name = arguments.next().unwrap_or_else(|| "example".to_owned());
    let cluster = format!("{api}/clusters/{name}");

    // The answer comes as soon as the request is recorded, long before the servers run.
    let answer = send(Method::POST, &cluster, "cluster_user=app&num_nodes=1").await?;
    let created: CreateAnswer = serde_json::from_slice(&answer)?;
    println!("The cluster will be found at {}", created.cluster_url);

    // The master appears in discovery once it accepts writes.
    let url: ZkUrl = created.cluster_url.parse()?;
    let discovery = ServerSet::follow(url, SESSION_TIMEOUT);
    let master = discovery.wait_for_master(PATIENCE).await?.service_endpoint;
    println!("Its master is at {}:{}", master.host, master.port);

    let options = MySqlConnectOptions::new()
        .host(&master.host)
        .port(master.port)
        .username("app")
        .password(&created.cluster_password);
    let mut connection = MySqlConnection::connect_with(&options).await?;
    for sql in [
        "CREATE DATABASE shop",
        "CREATE TABLE shop.orders (id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(40))",
        "INSERT INTO shop.orders (what) VALUES ('Hello from the master')",
    ] {
        sqlx::query(sql).execute(&mut connection).await?;
    }
    let what: String = sqlx::query_scalar("SELECT what FROM shop.orders")
        .fetch_one(&mut connection)
        .await?;
    println!("{what}");
    connection.close().await?;

    // Deleting is asked for too; the cluster is gone when its node in discovery is.
    let password = format!("password={}", created.cluster_password);
    let answer = send(Method::DELETE, &cluster, &password).await?;
    let _: DeleteAnswer = serde_json::from_slice(&answer)?;
    discovery.wait_gone(PATIENCE).await?;
    println!("The cluster is gone.");
    Ok(())
}

/// Sends form fields, and gives the answer's body. (The password has letters and digits only, and needs
/// no escaping.)
async fn send(method: Method, url: &str, form: &str) -> Result<Bytes, Box<dyn Error>> {
    let request = Request::builder()
        .method(method)
        .uri(url.parse::<Uri>()?)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Full::new(Bytes::from(form.to_owned())))?;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let response = client.request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if !status.is_success() {
        // Errors are problem documents with a sentence that a person can act on.
        return Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into());
    }
    Ok(body)
}
