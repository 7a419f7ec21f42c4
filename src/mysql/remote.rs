//! Another member's server, asked over the network whom it follows.

use std::time::Duration;

use sqlx::{
    AssertSqlSafe, ConnectOptions, Row as _,
    mysql::{MySqlConnectOptions, MySqlSslMode},
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
    // Encrypted without checking who it is: the servers have certificates of their own making.
    let options = MySqlConnectOptions::new()
        .host(&replica.host)
        .port(replica.port)
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
        sqlx::raw_sql(AssertSqlSafe(*replication_status))
            .fetch_optional(&mut connection)
            .await
    };
    let answer = match timeout(limit, question).await {
        Ok(answer) => answer.map_err(|source| Error::Statement {
            operation: OPERATION,
            source,
        })?,
        Err(_) => {
            return Err(Error::TimedOut {
                operation: OPERATION,
                waited: limit,
            });
        }
    };
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
