//! [`Server`]: a handle on one running server.

mod barring;
mod binlog;
mod clone;
mod health;
mod replication;
pub mod tables;
mod writing;

use std::{path::Path, sync::Mutex};

use tokio::time::Instant;

use super::{
    accounts::{self, Authentication},
    connections::{Connections, Own, Row},
    dialect::{Dialect, SEMI_SYNC_STATUS},
    error::Error,
    observation::{Observation, Replication},
};
use crate::{
    cluster::{
        flavour::{Flavour, ServerVersion},
        gtid::{GtidList, Position},
    },
    secret::Secret,
};

/// An account's name and password.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The user name.
    pub user: String,
    /// The password.
    pub password: Secret,
}

/// A master to replicate from, and the account to do it with.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its host name or address.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
    /// The account's user name.
    pub user: String,
    /// The account's password. The server keeps it, readable, in its data directory.
    pub password: Secret,
}

/// A running server, reached through its unix socket as the administration account.
///
/// All methods take `&self` and may run at the same time; a slow one keeps no other waiting. A handle belongs to
/// one run of mysqld: connect anew after a restart.
///
/// No method of a master kills a connection or a query: on MariaDB a commit that waits for its acknowledgement
/// would then become visible without one.
pub struct Server {
    connections: Connections,
    dialect: &'static Dialect,
    version: ServerVersion,
    /// What the relay log files hold, as long as the receiver of this run has not been started (MariaDB).
    held_in_files: Mutex<Option<GtidList>>,
    /// The connection of the last check, for the next one.
    checks: Mutex<Option<Own>>,
    /// How the variables were set that hold commits back, while they are set otherwise.
    commit_delay_before: Mutex<Option<Vec<(&'static str, u64)>>>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let socket = self.connections.socket();
        f.debug_struct("Server")
            .field("socket", &socket)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Logs in as soon as the server lets it: that is what "ready" means.
    ///
    /// # Errors
    /// [`Error::Refused`] at once when the account is not let in, [`Error::NotReady`] at the deadline, [`Error::OtherFlavour`].
    pub async fn connect(
        socket: &Path,
        credentials: &Credentials,
        flavour: Flavour,
        deadline: Instant,
    ) -> Result<Self, Error> {
        const READ_VERSION: &str = "read the version";
        let connections = Connections::new(socket, credentials);
        connections.wait_until_ready(deadline).await?;
        let row = connections
            .row(READ_VERSION, "SELECT VERSION() AS version")
            .await?;
        let text = row.text(READ_VERSION, "version")?;
        let found = if text.contains("MariaDB") {
            Flavour::Mariadb
        } else {
            Flavour::Mysql
        };
        if found != flavour {
            return Err(Error::OtherFlavour {
                socket: socket.to_owned(),
                expected: flavour,
                found,
            });
        }
        let version = text.split('-').next().unwrap_or(text).parse()?;
        Ok(Self {
            connections,
            dialect: Dialect::of(flavour),
            version,
            held_in_files: Mutex::default(),
            checks: Mutex::default(),
            commit_delay_before: Mutex::default(),
        })
    }

    /// The server's flavour.
    pub fn flavour(&self) -> Flavour {
        self.dialect.flavour
    }

    /// The server's version.
    pub fn version(&self) -> ServerVersion {
        self.version
    }

    /// Looks at everything that roles and reports depend on.
    pub async fn observe(&self) -> Result<Observation, Error> {
        let status = self.replication_status().await?;
        let received = self.received(status.as_ref()).await?;
        let semi_sync = self.semi_sync_status().await?;
        let State {
            read_only,
            clients_admitted,
            executed,
            visible: _,
        } = self.state().await?;
        let names = &self.dialect.semi_sync;
        let count = |name| {
            semi_sync
                .get(name)
                .and_then(|text| text.parse().ok())
                .unwrap_or(0)
        };
        let replication = status.map(|status| status.replication);
        Ok(Observation {
            read_only,
            clients_admitted,
            acknowledging: replication
                .as_ref()
                .is_some_and(|replication| replication.receiving)
                && semi_sync
                    .get(names.acknowledging)
                    .is_some_and(|text| text == "ON"),
            replication,
            received,
            executed,
            waiting_sessions: count(names.waiting_sessions),
            clients: count(names.clients),
        })
    }

    /// What the server received and executed, together.
    pub async fn held(&self) -> Result<Position, Error> {
        let status = self.replication_status().await?;
        let received = self.received(status.as_ref()).await?;
        let executed = self.state().await?.executed;
        // Both are of the server's flavour.
        Ok(executed.union(&received).unwrap_or(executed))
    }

    /// What the server executed. On MariaDB a transaction counts from when it is in the binlog, also while it waits for its
    /// acknowledgement.
    pub async fn executed(&self) -> Result<Position, Error> {
        Ok(self.state().await?.executed)
    }

    /// Lets clients in. Who was turned away must connect again.
    pub async fn admit_clients(&self) -> Result<(), Error> {
        self.connections
            .execute("admit clients", self.dialect.admit)
            .await
    }

    /// Keeps new clients out; a fence is something else (SIGKILL).
    ///
    /// MySQL also ends the sessions that there are, MariaDB leaves them. The administration account and replication always get in.
    pub async fn refuse_clients(&self) -> Result<(), Error> {
        self.connections
            .execute("refuse clients", self.dialect.refuse)
            .await
    }

    /// Makes sure that the cluster's user exists and has exactly the privileges that it must have. Written to the
    /// binlog: it is done on the master and reaches the others. A password that the user changed stays changed.
    ///
    /// If it is cut off in between, the user exists with fewer privileges; doing it again completes it.
    ///
    /// # Errors
    /// [`Error::ReservedUser`]; failing statements.
    pub async fn ensure_cluster_user(
        &self,
        user: &str,
        authentication: &Authentication,
    ) -> Result<(), Error> {
        const OPERATION: &str = "set up the cluster's user";
        if accounts::is_reserved(user, self.connections.user()) {
            return Err(Error::ReservedUser {
                user: user.to_owned(),
            });
        }
        let privileges = self.connections.rows(OPERATION, "SHOW PRIVILEGES").await?;
        let known: Vec<&str> = privileges
            .iter()
            .filter_map(|row| row.get("Privilege"))
            .collect();
        for statement in accounts::cluster_user_sql(self.flavour(), user, authentication, &known) {
            self.connections.execute(OPERATION, statement).await?;
        }
        Ok(())
    }

    async fn state(&self) -> Result<State, Error> {
        const OPERATION: &str = "read the server's state";
        let row = self.connections.row(OPERATION, self.dialect.state).await?;
        let position = |column| {
            Ok::<_, Error>(Position::parse(
                self.flavour(),
                row.text(OPERATION, column)?,
            )?)
        };
        let (applied, logged) = (position("executed")?, position("logged")?);
        let own = match &logged {
            Position::Mysql(_) => logged.clone(),
            Position::Mariadb(list) => {
                Position::Mariadb(list.written_by(row.number(OPERATION, "server_id")?))
            }
        };
        Ok(State {
            read_only: row.number::<u8>(OPERATION, "read_only")? != 0,
            clients_admitted: row.number::<u8>(OPERATION, "clients_admitted")? != 0,
            // All of one flavour.
            visible: applied.union(&own).unwrap_or_else(|_| applied.clone()),
            executed: applied.union(&logged).unwrap_or(applied),
        })
    }

    async fn semi_sync_status(&self) -> Result<std::collections::HashMap<String, String>, Error> {
        let rows = self
            .connections
            .rows("read the semi-sync status", SEMI_SYNC_STATUS)
            .await?;
        let pair = |row: &Row| {
            Some((
                row.get("Variable_name")?.to_owned(),
                row.get("Value")?.to_owned(),
            ))
        };
        Ok(rows.iter().filter_map(pair).collect())
    }

    async fn replication_status(&self) -> Result<Option<Status>, Error> {
        const OPERATION: &str = "read the replication status";
        let rows = self
            .connections
            .rows(OPERATION, self.dialect.replication_status)
            .await?;
        let columns = &self.dialect.columns;
        // A server that never followed anybody has no row; one that replayed relay logs after its master was
        // forgotten has one without a host.
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let error = |column| {
            row.get(column)
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
        };
        Ok(Some(Status {
            replication: Replication {
                host: row.text(OPERATION, columns.host)?.to_owned(),
                port: row.number(OPERATION, columns.port)?,
                receiving: row.text(OPERATION, columns.receiver)? == "Yes",
                applying: row.text(OPERATION, columns.applier)? == "Yes",
                receiver_error: error(columns.receiver_error),
                applier_error: error(columns.applier_error),
            },
            receiver_stopped: row.text(OPERATION, columns.receiver)? == "No",
            received: Position::parse(self.flavour(), row.text(OPERATION, columns.received)?)?,
            relay_log_file: row.text(OPERATION, "Relay_Log_File")?.to_owned(),
            relay_log_position: row.number(OPERATION, "Relay_Log_Pos")?,
        }))
    }
}

/// The server's own state.
struct State {
    read_only: bool,
    clients_admitted: bool,
    /// Executed, or at least in the binlog (MariaDB): a crash would not undo it.
    executed: Position,
    /// Of what was replicated, only that whose commit has ended. MariaDB's binlog is ahead of it for a moment.
    visible: Position,
}

/// The replication status with what is of interest inside only.
struct Status {
    replication: Replication,
    /// Neither connected nor trying to be.
    receiver_stopped: bool,
    /// What the server says that it received. MariaDB forgets it in a restart.
    received: Position,
    /// Where the applier is in the relay logs.
    relay_log_file: String,
    relay_log_position: u64,
}
