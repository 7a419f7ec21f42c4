//! Another member's server, asked over the network whom it follows or which markers it has.

use std::time::Duration;

use sqlx::{
    AssertSqlSafe, ConnectOptions, Row as _,
    mysql::{MySqlConnectOptions, MySqlConnection, MySqlRow, MySqlSslMode},
};
use tokio::time::{Instant, timeout, timeout_at};

use super::{dialect::Dialect, error::Error, server::Credentials};
use crate::cluster::{control::Address, flavour::Flavour, gtid::Position};

/// Whether the server at `replica` is connected to `source` and receives from it.
///
/// A member stops receiving before it reports in a higher epoch. As long as it receives it has not reported,
/// and nobody was elected with its word.
///
/// # Errors
/// [`Error::Statement`] when it cannot be reached or does not answer; [`Error::TimedOut`] after `limit`.
pub async fn receives_from(
    replica: &Address,
    source: &Address,
    flavour: Flavour,
    credentials: &Credentials,
    limit: Duration,
) -> Result<bool, Error> {
    const OPERATION: &str = "say whom it follows";
    let Dialect {
        replication_status,
        columns,
        ..
    } = Dialect::of(flavour);
    let answer = ask(replica, credentials, limit, OPERATION, replication_status).await?;
    let Some(row) = answer else {
        return Ok(false);
    };
    let text = |column: &'static str| {
        row.try_get_unchecked::<String, _>(column)
            .map_err(|_| Error::Answer {
                operation: OPERATION,
                column,
            })
    };
    Ok(text(columns.receiver)? == "Yes"
        && text(columns.host)? == source.host
        && text(columns.port)? == source.port.to_string())
}

/// The last marker up to an epoch that the MariaDB server at `master` has: its epoch, and the `server_id` of who wrote it.
///
/// # Errors
/// [`Error::Statement`] when it cannot be reached or does not answer; [`Error::TimedOut`] after `limit`.
pub async fn marker_up_to(
    epoch: u64,
    master: &Address,
    credentials: &Credentials,
    limit: Duration,
) -> Result<Option<(u64, u32)>, Error> {
    const OPERATION: &str = "say which markers it has";
    let statement = format!(
        "SELECT epoch, server FROM cotton.marker WHERE epoch <= {epoch} ORDER BY epoch DESC LIMIT 1"
    );
    let Some(row) = ask(master, credentials, limit, OPERATION, &statement).await? else {
        return Ok(None);
    };
    let number = |column: &'static str| {
        let text = row.try_get_unchecked::<String, _>(column).ok();
        text.and_then(|text| text.parse::<u64>().ok())
            .ok_or(Error::Answer {
                operation: OPERATION,
                column,
            })
    };
    let server = u32::try_from(number("server")?).map_err(|_| Error::Answer {
        operation: OPERATION,
        column: "server",
    })?;
    Ok(Some((number("epoch")?, server)))
}

/// A connection to another member's server, to see how far it has got.
pub struct Onlooker {
    connection: MySqlConnection,
    flavour: Flavour,
}

impl Onlooker {
    /// Logs in.
    ///
    /// # Errors
    /// [`Error::Statement`] when it cannot be reached or does not let us in; [`Error::TimedOut`] at the deadline.
    pub async fn connect(
        server: &Address,
        flavour: Flavour,
        credentials: &Credentials,
        deadline: Instant,
    ) -> Result<Self, Error> {
        const OPERATION: &str = "let another member in";
        let options = options(server, credentials);
        let connection = in_time(OPERATION, deadline, options.connect()).await?;
        Ok(Self {
            connection,
            flavour,
        })
    }

    /// Waits until the server has executed a position, as replicated transactions.
    ///
    /// # Errors
    /// [`Error::NotThere`] or [`Error::TimedOut`] at the deadline; [`Error::Statement`] when it does not answer.
    pub async fn wait_executed(
        &mut self,
        position: &Position,
        deadline: Instant,
    ) -> Result<(), Error> {
        const OPERATION: &str = "execute what the master has";
        let left = deadline.saturating_duration_since(Instant::now());
        // Without any time MySQL would wait for ever.
        let left = left.max(Duration::from_millis(1));
        let statement = (Dialect::of(self.flavour).wait)(position, left.as_secs_f64());
        // The server's own time may end a little later than ours.
        let deadline = deadline + Duration::from_millis(100);
        let answer = sqlx::raw_sql(AssertSqlSafe(statement)).fetch_one(&mut self.connection);
        let row = in_time(OPERATION, deadline, answer).await?;
        // 0 in both flavours; 1 or -1 when the time is over.
        match row.try_get_unchecked::<String, _>(0) {
            Ok(text) if text == "0" => Ok(()),
            Ok(_) => Err(Error::NotThere {
                position: position.clone(),
            }),
            Err(_) => Err(Error::Answer {
                operation: OPERATION,
                column: "result",
            }),
        }
    }
}

async fn in_time<T>(
    operation: &'static str,
    deadline: Instant,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, Error> {
    let begun = Instant::now();
    match timeout_at(deadline, work).await {
        Ok(answer) => answer.map_err(|source| Error::Statement { operation, source }),
        Err(_) => Err(Error::TimedOut {
            operation,
            waited: begun.elapsed(),
        }),
    }
}

/// How another member's server is reached. Encrypted without checking who it is: the servers have certificates of their own
/// making.
fn options(server: &Address, credentials: &Credentials) -> MySqlConnectOptions {
    MySqlConnectOptions::new()
        .host(&server.host)
        .port(server.port)
        .username(&credentials.user)
        .password(credentials.password.expose())
        .ssl_mode(MySqlSslMode::Preferred)
        .pipes_as_concat(false)
        .no_engine_substitution(false)
        .timezone(None)
        .statement_cache_capacity(0)
        .disable_statement_logging()
}

/// The first row of what another server answers, if there is one.
async fn ask(
    server: &Address,
    credentials: &Credentials,
    limit: Duration,
    operation: &'static str,
    statement: &str,
) -> Result<Option<MySqlRow>, Error> {
    let options = options(server, credentials);
    let question = async {
        let mut connection = options.connect().await?;
        sqlx::raw_sql(AssertSqlSafe(statement))
            .fetch_optional(&mut connection)
            .await
    };
    match timeout(limit, question).await {
        Ok(answer) => answer.map_err(|source| Error::Statement { operation, source }),
        Err(_) => Err(Error::TimedOut {
            operation,
            waited: limit,
        }),
    }
}
