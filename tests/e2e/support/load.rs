//! Clients that write all the time, through whatever changes of master, and remember what was
//! acknowledged.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cotton::cluster::service_instance::ServiceInstance;
use cotton::zookeeper::serverset::ServerSet;
use sqlx::Connection as _;
use sqlx::mysql::{MySqlConnection, MySqlDatabaseError};
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

/// What was acknowledged, and when.
struct Acknowledged {
    values: BTreeSet<String>,
    /// The last acknowledgement.
    last: Instant,
    /// The longest time between two of them since it was asked for.
    longest_gap: Duration,
    /// The value that was acknowledged last.
    newest: Option<String>,
    /// Writes that were begun and of which nothing was heard, or an error.
    failed: usize,
}

impl Acknowledged {
    fn add(&mut self, value: String) {
        let now = Instant::now();
        self.longest_gap = self.longest_gap.max(now - self.last);
        self.last = now;
        self.newest = Some(value.clone());
        self.values.insert(value);
    }
}

/// A few clients that write.
pub struct Load {
    acknowledged: Arc<Mutex<Acknowledged>>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts the clients; the table must be there.
    pub fn start(cluster_url: &str, account: &Account, clients: usize) -> Self {
        Self::paced(cluster_url, account, clients, Duration::ZERO)
    }

    /// Starts clients that wait for `pause` after each write.
    pub fn paced(cluster_url: &str, account: &Account, clients: usize, pause: Duration) -> Self {
        let acknowledged = Arc::new(Mutex::new(Acknowledged {
            values: BTreeSet::new(),
            last: Instant::now(),
            longest_gap: Duration::ZERO,
            newest: None,
            failed: 0,
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let client = |number| Client {
            number,
            pause,
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
        self.acknowledged.lock().unwrap().values.len()
    }

    /// How many writes were begun so far and not acknowledged: there was an error, no answer, or another master.
    pub fn failed(&self) -> usize {
        self.acknowledged.lock().unwrap().failed
    }

    /// The value that was acknowledged last.
    pub fn newest(&self) -> Option<String> {
        self.acknowledged.lock().unwrap().newest.clone()
    }

    /// All that was acknowledged so far.
    pub fn so_far(&self) -> BTreeSet<String> {
        self.acknowledged.lock().unwrap().values.clone()
    }

    /// From now on the longest time without an acknowledgement is measured anew.
    pub fn measure_gap(&self) {
        let mut acknowledged = self.acknowledged.lock().unwrap();
        acknowledged.longest_gap = Duration::ZERO;
    }

    /// The longest time between two acknowledgements, of whichever clients, since [`Load::measure_gap`].
    pub fn longest_gap(&self) -> Duration {
        self.acknowledged.lock().unwrap().longest_gap
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
    pub async fn stop(&mut self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::Relaxed);
        for client in std::mem::take(&mut self.clients) {
            client.await.unwrap();
        }
        self.so_far()
    }
}

/// Waits until discovery names another master than this one.
async fn another_master(discovery: &ServerSet, than: &ServiceInstance) {
    const LONG: Duration = Duration::from_secs(3600);
    while discovery.wait_for_other_master(than, LONG).await.is_err() {
        sleep(PAUSE).await;
    }
}

/// Whether a server says only that nobody may write there: the connection is as good as another one.
fn is_read_only(error: &sqlx::Error) -> bool {
    const OPTION_PREVENTS_STATEMENT: u16 = 1290;
    let error = error.as_database_error();
    let error = error.and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>());
    error.is_some_and(|error| error.number() == OPTION_PREVENTS_STATEMENT)
}

struct Client {
    number: usize,
    /// After each write.
    pause: Duration,
    written: u64,
    discovery: ServerSet,
    account: Account,
    acknowledged: Arc<Mutex<Acknowledged>>,
    stop: Arc<AtomicBool>,
}

impl Client {
    async fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            let master = self.discovery.wait_for_master(Duration::from_secs(1)).await;
            let Ok(master) = master else { continue };
            // A host that is cut off says nothing; that another master was published says enough.
            let login = connect(&master.service_endpoint, &self.account);
            let login = tokio::select! {
                login = login => login,
                () = another_master(&self.discovery, &master) => continue,
            };
            match login {
                Ok(connection) => self.write_on(connection, &master).await,
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    /// Writes until a write fails, but for one that is refused because nobody may write for the moment. One without an
    /// acknowledgement may be there or not; its value is never used again.
    async fn write_on(&mut self, mut connection: MySqlConnection, master: &ServiceInstance) {
        while !self.stop.load(Ordering::Relaxed) {
            self.written += 1;
            let value = format!("{}-{}", self.number, self.written);
            let insert = sqlx::query("INSERT INTO load_db.writes (value) VALUES (?)").bind(&value);
            let insert = timeout(WRITE_TIMEOUT, insert.execute(&mut connection));
            let written = tokio::select! {
                written = insert => written.ok(),
                () = another_master(&self.discovery, master) => None,
            };
            let error = match written {
                Some(Ok(_)) => {
                    self.acknowledged.lock().unwrap().add(value);
                    sleep(self.pause).await;
                    continue;
                }
                Some(Err(error)) => Some(error),
                None => None,
            };
            self.acknowledged.lock().unwrap().failed += 1;
            // Where another master was published there is nothing to wait for.
            let Some(error) = error else { return };
            // A slave refuses at once; this must not become a busy loop.
            sleep(PAUSE).await;
            if !is_read_only(&error) {
                return;
            }
        }
        let _ = connection.close().await;
    }
}
