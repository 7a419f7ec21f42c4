//! Clients of the database servers.

use std::collections::BTreeSet;
use std::time::Duration;

use cotton::cluster::service_instance::Endpoint;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use tokio::time::timeout;

use super::eventually;

/// How long a login may take.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a statement may take.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// Who logs in.
#[derive(Debug, Clone)]
pub struct Account {
    /// The cluster's user.
    pub user: String,
    /// Its password.
    pub password: String,
}

/// Logs in, without a database.
pub async fn connect(endpoint: &Endpoint, account: &Account) -> Result<MySqlConnection, String> {
    let options = MySqlConnectOptions::new()
        .host(&endpoint.host)
        .port(endpoint.port)
        .username(&account.user)
        .password(&account.password)
        .disable_statement_logging();
    match timeout(LOGIN_TIMEOUT, options.connect()).await {
        Ok(connection) => connection.map_err(|error| error.to_string()),
        Err(_) => Err("no answer to the login".to_owned()),
    }
}

/// Runs one statement.
pub async fn execute(connection: &mut MySqlConnection, sql: &str) -> Result<(), String> {
    let statement = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection);
    match timeout(STATEMENT_TIMEOUT, statement).await {
        Ok(done) => done.map(drop).map_err(|error| error.to_string()),
        Err(_) => Err("no answer to the statement".to_owned()),
    }
}

/// Logs in, runs the statements, logs out; panics when one fails.
pub async fn run(endpoint: &Endpoint, account: &Account, statements: &[&str]) {
    let mut connection = connect(endpoint, account)
        .await
        .unwrap_or_else(|error| panic!("log in at {endpoint:?}: {error}"));
    for sql in statements {
        if let Err(error) = execute(&mut connection, sql).await {
            panic!("{sql} at {endpoint:?}: {error}");
        }
    }
    let _ = connection.close().await;
}

/// The texts in the first column of a query's answer.
pub async fn texts(
    endpoint: &Endpoint,
    account: &Account,
    sql: &str,
) -> Result<BTreeSet<String>, String> {
    let mut connection = connect(endpoint, account).await?;
    let query = sqlx::query_scalar::<_, String>(AssertSqlSafe(sql.to_owned()));
    let rows = match timeout(STATEMENT_TIMEOUT, query.fetch_all(&mut connection)).await {
        Ok(rows) => rows.map_err(|error| error.to_string())?,
        Err(_) => return Err("no answer to the query".to_owned()),
    };
    let _ = connection.close().await;
    Ok(rows.into_iter().collect())
}

/// Waits until the query's first column holds all of `expected`.
pub async fn wait_for_texts(
    endpoint: &Endpoint,
    account: &Account,
    sql: &str,
    expected: &BTreeSet<String>,
    deadline: Duration,
) {
    let what = format!("{} rows of {sql} at {endpoint:?}", expected.len());
    eventually(&what, deadline, async || {
        let found = texts(endpoint, account, sql).await.ok()?;
        expected.is_subset(&found).then_some(())
    })
    .await;
}
