//! A session that is kept alive.
//!
//! The client library reconnects within a session; when the session itself is lost (expired, or
//! given up after 7/5 of its timeout without an answer) a task here makes a new one, with backoff,
//! for as long as a [`Session`] exists. Everybody is told through a watch channel.
//!
//! A new session is announced only after `sync`, so that what is read in it is at least as new as
//! what anybody had been told before it began.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};
use zookeeper_client as zk;
use zookeeper_client::Acl;

use super::operations::{self, Connection, Error};
use super::url::{Credentials, ZkUrl};
use crate::secret::Secret;

/// The first and the longest pause between two attempts to make a session. An attempt asks every
/// server once; a second is short against session timeouts and long against a server's work for it.
const RETRY_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// What a session needs to be made, again and again.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// The ensemble and the path below which all paths are; its credentials are used.
    pub url: ZkUrl,
    /// More identities, beside the one in the URL.
    pub identities: Vec<Credentials>,
    /// The session timeout to ask for; the server may grant another.
    pub timeout: Duration,
    /// The access list with which the URL's path is made where it does not exist; `None`: who only
    /// reads makes nothing.
    pub root_acl: Option<Vec<Acl>>,
}

/// How a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// Connected, in the session of this number; numbers grow.
    Connected(u64),
    /// The connection is away; the session and its ephemeral nodes may live on.
    Suspended,
    /// There is no session (any more); its ephemeral nodes are gone or will be.
    Lost,
}

/// A supervised session. Clones share it; it is closed when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Session {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    servers: String,
    state: watch::Receiver<SessionState>,
    connection: watch::Receiver<Option<Connection>>,
    closed: CancellationToken,
    _close_on_drop: DropGuard,
}

impl Session {
    /// Begins to make a session; returns at once. Must be called within a tokio runtime.
    pub fn connect(config: SessionConfig) -> Self {
        let servers = config.url.connect_string();
        let (state_sender, state) = watch::channel(SessionState::Lost);
        let (connection_sender, connection) = watch::channel(None);
        let stop = CancellationToken::new();
        let closed = CancellationToken::new();
        let supervisor = Supervisor {
            config,
            generation: 0,
            state: state_sender,
            connection: connection_sender,
        };
        let (token, done) = (stop.clone(), closed.clone().drop_guard());
        tokio::spawn(async move {
            supervisor.run(token).await;
            drop(done);
        });
        let shared = Shared {
            servers,
            state,
            connection,
            closed,
            _close_on_drop: stop.drop_guard(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The state, and its changes. Quick changes may be seen as one.
    pub fn state(&self) -> watch::Receiver<SessionState> {
        self.shared.state.clone()
    }

    /// The newest session if there is one, connected or suspended.
    pub fn connection(&self) -> Result<Connection, Error> {
        let newest = self.shared.connection.borrow().clone();
        newest.ok_or_else(|| Error::NotConnected {
            servers: self.shared.servers.clone(),
        })
    }

    /// Waits until connected.
    pub async fn connected(&self, deadline: Duration) -> Result<Connection, Error> {
        let wait = async {
            let mut state = self.state();
            loop {
                let up = state
                    .wait_for(|state| matches!(state, SessionState::Connected(_)))
                    .await;
                if up.is_err() {
                    return Err(Error::NotConnected {
                        servers: self.shared.servers.clone(),
                    });
                }
                if let Ok(connection) = self.connection() {
                    return Ok(connection);
                }
                // Lost again between the two looks; the state says so and the wait goes on.
            }
        };
        let timed_out = Err(Error::NotConnected {
            servers: self.shared.servers.clone(),
        });
        tokio::time::timeout(deadline, wait)
            .await
            .unwrap_or(timed_out)
    }

    /// Waits until connected; `None` when the session was closed for good. Marks the state as seen,
    /// so that `state.changed()` then tells of whatever happens next.
    pub(super) async fn next_connected(
        &self,
        state: &mut watch::Receiver<SessionState>,
    ) -> Option<Connection> {
        loop {
            let up = state
                .wait_for(|state| matches!(state, SessionState::Connected(_)))
                .await;
            up.ok()?;
            match self.connection() {
                Ok(connection) => return Some(connection),
                // Lost between the two looks.
                Err(_) => state.changed().await.ok()?,
            }
        }
    }

    /// Closes the session and waits (not longer than `deadline`) until the server knows, so that
    /// ephemeral nodes are gone at once. Only the last clone can close.
    pub async fn close(self, deadline: Duration) {
        let closed = self.shared.closed.clone();
        drop(self);
        let _ = tokio::time::timeout(deadline, closed.cancelled()).await;
    }
}

struct Supervisor {
    config: SessionConfig,
    generation: u64,
    state: watch::Sender<SessionState>,
    connection: watch::Sender<Option<Connection>>,
}

impl Supervisor {
    async fn run(mut self, stop: CancellationToken) {
        let mut pause = RETRY_PAUSE.0;
        let mut told = false;
        while !stop.is_cancelled() {
            let made = tokio::select! {
                () = stop.cancelled() => return,
                made = self.make() => made,
            };
            match made {
                Ok(connection) => {
                    (pause, told) = (RETRY_PAUSE.0, false);
                    self.serve(connection, &stop).await;
                }
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        warn!(servers = self.config.url.connect_string(), %error, "no ZooKeeper session yet");
                    }
                    let jitter = rand::rng().random_range(0.5..1.0);
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(pause.mul_f64(jitter)) => {}
                    }
                    pause = (pause * 2).min(RETRY_PAUSE.1);
                }
            }
        }
    }

    /// Makes a session that is authenticated, at its path, and in step with the leader.
    async fn make(&mut self) -> Result<Connection, Error> {
        let SessionConfig {
            url,
            identities,
            timeout,
            root_acl,
        } = &self.config;
        // One round over the servers; this supervisor has the patience, not the library.
        let mut connector = zk::Client::connector()
            .with_session_timeout(*timeout)
            .with_fail_eagerly();
        for Credentials { user, password } in url.credentials().into_iter().chain(identities) {
            let identity = Secret::new(format!("{user}:{}", password.expose()));
            connector = connector.with_auth("digest", identity.expose().as_bytes());
        }
        let servers = url.connect_string();
        let client = connector
            .connect(&servers)
            .await
            .map_err(|_| Error::NotConnected { servers })?;
        // The client gives a session up after 7/5 of its timeout; a request must not fail before.
        let deadline = client.session_timeout() * 3 / 2;
        let client = if url.path().is_empty() {
            client
        } else {
            if let Some(acl) = root_acl {
                operations::ensure_path(&client, deadline, url.path(), acl).await?;
            }
            // The path was checked when the URL was parsed.
            client.chroot(url.path()).map_err(|_| Error::NotConnected {
                servers: url.connect_string(),
            })?
        };
        self.generation += 1;
        let connection = Connection {
            client,
            generation: self.generation,
            deadline,
        };
        connection.sync().await?;
        Ok(connection)
    }

    /// Announces the session's ups and downs until it is lost or nobody wants it any more.
    async fn serve(&mut self, connection: Connection, stop: &CancellationToken) {
        let generation = connection.generation;
        let mut library = connection.client.state_watcher();
        info!(generation, session = %connection.client.session_id(), "ZooKeeper session made");
        self.connection.send_replace(Some(connection.clone()));
        self.state.send_replace(SessionState::Connected(generation));
        // What happened since the session was made is not in `changed` but in `state`.
        let mut now = library.state();
        loop {
            match now {
                zk::SessionState::SyncConnected | zk::SessionState::ConnectedReadOnly => {
                    self.announce(SessionState::Connected(generation));
                }
                zk::SessionState::Disconnected => self.announce(SessionState::Suspended),
                zk::SessionState::AuthFailed
                | zk::SessionState::Expired
                | zk::SessionState::Closed => {
                    break;
                }
            }
            now = tokio::select! {
                () = stop.cancelled() => return self.close(connection).await,
                now = library.changed() => now,
            };
        }
        warn!(generation, state = %now, "ZooKeeper session lost");
        self.connection.send_replace(None);
        self.state.send_replace(SessionState::Lost);
    }

    fn announce(&self, state: SessionState) {
        self.state.send_if_modified(|current| {
            let is_new = *current != state;
            *current = state;
            is_new
        });
    }

    /// Drops the client, whose task then closes the session, and waits for that.
    async fn close(&self, connection: Connection) {
        let mut library = connection.client.state_watcher();
        let deadline = connection.deadline;
        drop(connection);
        self.connection.send_replace(None);
        self.state.send_replace(SessionState::Lost);
        let closed = async { while !library.changed().await.is_terminated() {} };
        let _ = tokio::time::timeout(deadline, closed).await;
    }
}
