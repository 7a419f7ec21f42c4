//! Another member's server, asked over the network whom it follows or which markers it has.

use std::time::Duration;

use sqlx::{
    AssertSqlSafe, ConnectOptions, Row as _,
    mysql::{MySqlConnectOptions, MySqlRow, MySqlSslMode},
};
use tokio::time::timeout;

use super::{dialect::Dialect, error::Error, server::Credentials};
use crate::cluster::{control::Address, flavour::Flavour};

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

/// The first row of what another server answers, if there is one.
async fn ask(
    server: &Address,
    credentials: &Credentials,
    limit: Duration,
    operation: &'static str,
    statement: &str,
) -> Result<Option<MySqlRow>, Error> {
    // Encrypted without checking who it is: the servers have certificates of their own making.
    let options = MySqlConnectOptions::new()
        .host(&server.host)
        .port(server.port)
        .username(&credentials.user)
        .password(credentials.password.expose())
        .ssl_mode(MySqlSslMode::Preferred)
        .pipes_as_concat(false)
        .no_engine_substitution(false)
        .timezone(None)
        .statement_cache_capacity(0)
        .disable_statement_logging();
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
