//! What `--wait` waits for, seen as a client of the cluster sees it: in service discovery, and by logging in.

use std::time::Duration;

use anyhow::Context as _;
use sqlx::{
    ConnectOptions as _, Connection as _,
    mysql::{MySqlConnectOptions, MySqlSslMode},
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    cli::output::Progress,
    cluster::service_instance::Endpoint,
    secret::Secret,
    zookeeper::{serverset::ServerSet, url::ZkUrl},
};

/// The ZooKeeper session of a watcher; nothing depends on how soon its end is noticed.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a login with `SELECT 1` may take.
const LOGIN_DEADLINE: Duration = Duration::from_secs(10);

/// The pause after a login that failed: the master may just have died, and discovery is asked again.
const LOGIN_PAUSE: Duration = Duration::from_millis(300);

/// Waits for the master to appear, logs in and runs `SELECT 1`. Returns where the master is.
///
/// # Errors
/// When there is no working master within `patience`.
pub(super) async fn wait_for_master(
    cluster_url: &str,
    user: &str,
    password: &Secret,
    patience: Duration,
) -> anyhow::Result<Endpoint> {
    let deadline = Instant::now() + patience;
    let discovery = follow(cluster_url)?;
    let mut progress = Progress::start();
    loop {
        progress.say("waiting for the master to appear in discovery");
        let left = deadline.saturating_duration_since(Instant::now());
        let master = discovery.wait_for_master(left).await?.service_endpoint;
        progress.say(format!("logging in at {}:{}", master.host, master.port));
        match timeout(LOGIN_DEADLINE, select_one(&master, user, password)).await {
            Ok(Ok(())) => return Ok(master),
            failed if Instant::now() + LOGIN_PAUSE > deadline => {
                let what = format!("log in at {}:{} as {user}", master.host, master.port);
                return match failed {
                    Ok(Err(error)) => Err(error).context(what),
                    _ => Err(anyhow::anyhow!("no answer in time").context(what)),
                };
            }
            _ => sleep(LOGIN_PAUSE).await,
        }
    }
}

/// Waits until the cluster's group node is gone.
///
/// # Errors
/// When it is still there after `patience`.
pub(super) async fn wait_gone(cluster_url: &str, patience: Duration) -> anyhow::Result<()> {
    let mut progress = Progress::start();
    progress.say("waiting for the cluster's tasks to end");
    Ok(follow(cluster_url)?.wait_gone(patience).await?)
}

fn follow(cluster_url: &str) -> anyhow::Result<ServerSet> {
    let url: ZkUrl = cluster_url.parse().context("read the cluster's URL")?;
    Ok(ServerSet::follow(url, SESSION_TIMEOUT))
}

async fn select_one(master: &Endpoint, user: &str, password: &Secret) -> Result<(), sqlx::Error> {
    // Encrypted where the server can: MySQL makes certificates of its own, MariaDB 10.11 has none.
    let options = MySqlConnectOptions::new()
        .host(&master.host)
        .port(master.port)
        .username(user)
        .password(password.expose())
        .ssl_mode(MySqlSslMode::Preferred);
    let mut connection = options.disable_statement_logging().connect().await?;
    sqlx::query("SELECT 1").fetch_one(&mut connection).await?;
    connection.close().await
}
