//! Clients that write all the time, through whatever changes of master, and remember what was
//! acknowledged.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cotton::zookeeper::serverset::ServerSet;
use sqlx::Connection as _;
use sqlx::mysql::MySqlConnection;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::database::{Account, connect};
use super::discovery::follow;

/// What the clients write into.
pub const TABLE: &str = "CREATE TABLE IF NOT EXISTS load_db.writes (value VARCHAR(40) PRIMARY KEY)";

/// Reads it all.
pub const READ: &str = "SELECT value FROM load_db.writes";

/// How long a client waits for the acknowledgement of a write before it starts anew.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);

/// Between attempts to log in at a master that is going.
const PAUSE: Duration = Duration::from_millis(20);

/// A few clients that write.
pub struct Load {
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts the clients; the table must be there.
    pub fn start(cluster_url: &str, account: &Account, clients: usize) -> Self {
        let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let client = |number| Client {
            number,
            written: 0,
            discovery: follow(cluster_url),
            account: account.clone(),
            acknowledged: acknowledged.clone(),
            stop: stop.clone(),
        };
        let clients = (0..clients).map(|number| tokio::spawn(client(number).run()));
        Self {
            clients: clients.collect(),
            acknowledged,
            stop,
        }
    }

    /// How many writes were acknowledged so far.
    pub fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// Waits until `more` writes were acknowledged since now.
    pub async fn wait_for_more(&self, more: usize, deadline: Duration) {
        let goal = self.count() + more;
        let what = format!("{more} more acknowledged writes");
        super::eventually(&what, deadline, async || {
            (self.count() >= goal).then_some(())
        })
        .await;
    }

    /// Ends the clients and gives all that was acknowledged.
    pub async fn stop(self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
        let acknowledged = self.acknowledged.lock().unwrap();
        acknowledged.clone()
    }
}

struct Client {
    number: usize,
    written: u64,
    discovery: ServerSet,
    account: Account,
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
    stop: Arc<AtomicBool>,
}

impl Client {
    async fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            let master = self.discovery.wait_for_master(Duration::from_secs(1)).await;
            let Ok(master) = master else { continue };
            match connect(&master.service_endpoint, &self.account).await {
                Ok(connection) => self.write_on(connection).await,
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    /// Writes until a write fails. One without an acknowledgement may be there or not; its value is
    /// never used again.
    async fn write_on(&mut self, mut connection: MySqlConnection) {
        while !self.stop.load(Ordering::Relaxed) {
            self.written += 1;
            let value = format!("{}-{}", self.number, self.written);
            let insert = sqlx::query("INSERT INTO load_db.writes (value) VALUES (?)").bind(&value);
            match timeout(WRITE_TIMEOUT, insert.execute(&mut connection)).await {
                Ok(Ok(_)) => drop(self.acknowledged.lock().unwrap().insert(value)),
                _ => {
                    // A slave refuses at once; this must not become a busy loop.
                    sleep(PAUSE).await;
                    return;
                }
            }
        }
        let _ = connection.close().await;
    }
}
