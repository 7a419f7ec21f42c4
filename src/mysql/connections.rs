//! Connections to one server's unix socket.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures::TryStreamExt;
use sqlx::{
    AssertSqlSafe, Column, ConnectOptions, Connection, Row as _,
    mysql::{MySqlConnectOptions, MySqlConnection, MySqlRow},
};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::trace;

use super::{
    error::Error,
    server::{Credentials, Source},
};

/// How long a statement may take that waits for nothing but the server itself. Stopping a replication thread
/// is the slowest: it may wait for a network timeout of [`super::dialect::NETWORK_TIMEOUT_SECONDS`].
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(20);

/// How many unused connections are kept. Two are in use at most times: the observer's and the role's.
const IDLE_AT_MOST: usize = 3;

/// The session settings that the statements of this module rely on: see [`super::sql`]. A statement that
/// waits for a lock (the global read lock, say) gives up before [`STATEMENT_TIMEOUT`].
const SESSION: &str =
    "SET SESSION sql_mode='STRICT_ALL_TABLES', lock_wait_timeout=15, autocommit=1";

/// Where a login was refused for good: access denied, and MariaDB's word for the same.
const ACCESS_DENIED: [u16; 2] = [1045, 1698];

/// Opens connections and keeps a few for the next statement.
///
/// It is no pool with a limit, so that a slow statement never keeps another one waiting, and a connection is
/// kept only after its statement ended well: one that was given up half-way is closed.
pub struct Connections {
    socket: PathBuf,
    options: MySqlConnectOptions,
    user: String,
    // Held for a push or pop only.
    idle: Mutex<Vec<MySqlConnection>>,
}

/// One row of an answer in text form, by column name.
#[derive(Debug, Default)]
pub struct Row(HashMap<String, Option<String>>);

impl Row {
    /// A column's text; `None` if it is NULL or absent.
    pub fn get(&self, column: &str) -> Option<&str> {
        self.0.get(column)?.as_deref()
    }

    /// A column that may be neither NULL nor absent.
    pub fn text(&self, operation: &'static str, column: &'static str) -> Result<&str, Error> {
        self.get(column).ok_or(Error::Answer { operation, column })
    }

    /// A number that may be neither NULL nor absent.
    pub fn number<T: std::str::FromStr>(
        &self,
        operation: &'static str,
        column: &'static str,
    ) -> Result<T, Error> {
        self.text(operation, column)?
            .parse()
            .map_err(|_| Error::Answer { operation, column })
    }

    fn read(row: &MySqlRow) -> Result<Self, sqlx::Error> {
        let columns = row.columns().iter().enumerate().map(|(index, column)| {
            // The text protocol sends every type as text.
            let value: Option<Vec<u8>> = row.try_get_unchecked(index)?;
            let text = value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            Ok((column.name().to_owned(), text))
        });
        columns.collect::<Result<_, _>>().map(Row)
    }
}

impl Connections {
    /// Prepares connections for an account; connects to nothing yet.
    pub fn new(socket: &Path, credentials: &Credentials) -> Self {
        let options = MySqlConnectOptions::new()
            .socket(socket)
            .username(&credentials.user)
            .password(credentials.password.expose());
        Self {
            socket: socket.to_owned(),
            options: quiet(options),
            user: credentials.user.clone(),
            idle: Mutex::default(),
        }
    }

    /// The same, for a server on another host.
    pub fn through_network(source: &Source) -> Self {
        let Source {
            host,
            port,
            user,
            password,
        } = source;
        let named = format!("{host}:{port}");
        let mut connections = Self::new(
            Path::new(&named),
            &Credentials {
                user: user.clone(),
                password: password.clone(),
            },
        );
        let options = MySqlConnectOptions::new()
            .host(host)
            .port(*port)
            .username(user)
            .password(password.expose());
        connections.options = quiet(options);
        connections
    }

    /// The server's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The account's user name.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Tries to log in until it works.
    ///
    /// # Errors
    /// [`Error::Refused`] at once, [`Error::NotReady`] at the deadline.
    pub async fn wait_until_ready(&self, deadline: Instant) -> Result<(), Error> {
        // A server that starts announces readiness nowhere but at its socket.
        const PAUSE: Duration = Duration::from_millis(10);
        let start = Instant::now();
        let mut last = sqlx::Error::PoolTimedOut;
        while Instant::now() < deadline {
            match timeout_at(deadline, self.open()).await {
                Ok(Ok(connection)) => {
                    self.keep(connection);
                    return Ok(());
                }
                Ok(Err(source)) if is_refusal(&source) => {
                    return Err(Error::Refused {
                        socket: self.socket.clone(),
                        user: self.user.clone(),
                        source,
                    });
                }
                Ok(Err(source)) => last = source,
                Err(_) => break,
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(Error::NotReady {
            socket: self.socket.clone(),
            waited: start.elapsed(),
            source: last,
        })
    }

    /// A connection of the caller's own, for statements that may block or that change the session. It is closed
    /// when it is dropped.
    pub async fn own(&self, operation: &'static str) -> Result<Own, Error> {
        let connection = in_time(operation, STATEMENT_TIMEOUT, self.open()).await?;
        Ok(Own {
            connection,
            operation,
        })
    }

    /// Runs a statement and returns its rows.
    pub async fn rows(
        &self,
        operation: &'static str,
        sql: impl Into<String>,
    ) -> Result<Vec<Row>, Error> {
        self.rows_within(operation, STATEMENT_TIMEOUT, sql).await
    }

    /// Runs a statement that may take a while and returns its rows.
    pub async fn rows_within(
        &self,
        operation: &'static str,
        limit: Duration,
        sql: impl Into<String>,
    ) -> Result<Vec<Row>, Error> {
        let (sql, begun) = (sql.into(), Instant::now());
        let mut connection = self.take(operation).await?;
        // Dropped half-way, by this timeout or by the caller, the connection is closed: it is out of `idle`.
        let rows = in_time(operation, limit, fetch(&mut connection, sql)).await?;
        self.keep(connection);
        trace!(operation, took = ?begun.elapsed(), "statement");
        Ok(rows)
    }

    /// Runs a statement for its effect.
    pub async fn execute(
        &self,
        operation: &'static str,
        sql: impl Into<String>,
    ) -> Result<(), Error> {
        self.rows(operation, sql).await.map(|_| ())
    }

    /// The one row of an answer.
    pub async fn row(&self, operation: &'static str, sql: impl Into<String>) -> Result<Row, Error> {
        let mut rows = self.rows(operation, sql).await?;
        rows.pop().ok_or(Error::Answer {
            operation,
            column: "row",
        })
    }

    async fn take(&self, operation: &'static str) -> Result<MySqlConnection, Error> {
        let kept = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        if let Some(mut connection) = kept {
            // The server may have been restarted since.
            if timeout(STATEMENT_TIMEOUT, connection.ping())
                .await
                .is_ok_and(|answer| answer.is_ok())
            {
                return Ok(connection);
            }
        }
        in_time(operation, STATEMENT_TIMEOUT, self.open()).await
    }

    fn keep(&self, connection: MySqlConnection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_AT_MOST {
            idle.push(connection);
        }
    }

    async fn open(&self) -> Result<MySqlConnection, sqlx::Error> {
        let mut connection = self.options.connect().await?;
        fetch(&mut connection, SESSION.to_owned()).await?;
        Ok(connection)
    }
}

/// None of the statements that the client library would send by itself is wanted.
fn quiet(options: MySqlConnectOptions) -> MySqlConnectOptions {
    options
        .pipes_as_concat(false)
        .no_engine_substitution(false)
        .timezone(None)
        .statement_cache_capacity(0)
        .disable_statement_logging()
}

/// A connection of somebody's own.
pub struct Own {
    connection: MySqlConnection,
    operation: &'static str,
}

impl Own {
    /// Runs a statement that ends by the deadline or counts as failed. What the server does with it after
    /// that is unknown.
    pub async fn execute_until(
        &mut self,
        deadline: Instant,
        sql: impl Into<String>,
    ) -> Result<Vec<Row>, Error> {
        let limit = deadline.saturating_duration_since(Instant::now());
        in_time(
            self.operation,
            limit,
            fetch(&mut self.connection, sql.into()),
        )
        .await
    }

    /// Runs a statement for its effect that takes as long as it takes. The caller bounds it.
    pub async fn execute(&mut self, sql: String) -> Result<(), Error> {
        let operation = self.operation;
        let done = fetch(&mut self.connection, sql).await;
        done.map(|_| ())
            .map_err(|source| Error::Statement { operation, source })
    }

    /// Runs a statement and hands its rows to `each` as they come, so that a long answer takes no memory.
    /// Rows that came before an error are handed over too.
    pub async fn stream(
        &mut self,
        sql: String,
        limit: Duration,
        mut each: impl FnMut(Row),
    ) -> Result<(), Error> {
        let reading = async {
            let mut rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch(&mut self.connection);
            while let Some(row) = rows.try_next().await? {
                each(Row::read(&row)?);
            }
            Ok(())
        };
        in_time(self.operation, limit, reading).await
    }
}

async fn fetch(connection: &mut MySqlConnection, sql: String) -> Result<Vec<Row>, sqlx::Error> {
    let rows = sqlx::raw_sql(AssertSqlSafe(sql))
        .fetch_all(connection)
        .await?;
    rows.iter().map(Row::read).collect()
}

async fn in_time<T>(
    operation: &'static str,
    limit: Duration,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, Error> {
    match timeout(limit, work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => Err(Error::Statement { operation, source }),
        Err(_) => Err(Error::TimedOut {
            operation,
            waited: limit,
        }),
    }
}

/// The server's error number, if it is the server that complains.
pub fn error_number(error: &sqlx::Error) -> Option<u16> {
    let error = error
        .as_database_error()?
        .try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>()?;
    Some(error.number())
}

fn is_refusal(error: &sqlx::Error) -> bool {
    error_number(error).is_some_and(|number| ACCESS_DENIED.contains(&number))
}
