//! The name of the account that a cluster's owner logs in with.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::spec::shortened;

/// The name of a cluster's user: 1 to 32 printable ASCII characters without spaces, quotes and backslashes,
/// and no account that the servers or Cotton have for themselves.
///
/// 32 is MySQL's limit (MySQL manual, "Account User Names and Passwords").
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserName(String);

/// Why a text cannot be the name of a cluster's user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserNameFault {
    /// Too long, empty, or with characters that are not allowed.
    #[error(
        "cluster_user must be 1 to 32 printable ASCII characters without spaces, quotes and backslashes, not {0:?}"
    )]
    Malformed(String),
    /// The name of an account that the server or Cotton needs.
    #[error(
        "cluster_user {0:?} is the name of an account that the server or Cotton has for itself; take another name"
    )]
    Reserved(String),
}

impl UserName {
    const MAX_LENGTH: usize = 32;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Accounts of the servers (`root`, `mysql`, `mysql.sys`, `mariadb.sys`, ...), MariaDB's role of everybody,
    /// the reserved words by which both name the account itself, and Cotton's own accounts.
    fn is_reserved(text: &str) -> bool {
        let lower = text.to_ascii_lowercase();
        [
            "root",
            "mysql",
            "mariadb",
            "public",
            "current_user",
            "current_role",
            "none",
        ]
        .contains(&lower.as_str())
            || ["mysql.", "mariadb.", "cotton"]
                .iter()
                .any(|prefix| lower.starts_with(prefix))
    }
}

impl FromStr for UserName {
    type Err = UserNameFault;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |c: char| c.is_ascii_graphic() && !matches!(c, '\'' | '"' | '`' | '\\');
        if text.is_empty() || text.len() > Self::MAX_LENGTH || !text.chars().all(allowed) {
            return Err(UserNameFault::Malformed(shortened(text)));
        }
        if Self::is_reserved(text) {
            return Err(UserNameFault::Reserved(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for UserName {
    type Error = UserNameFault;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<UserName> for String {
    fn from(user: UserName) -> Self {
        user.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
