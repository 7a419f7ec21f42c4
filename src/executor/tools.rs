//! Finding the programs that come with a server, and what they need to log in.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{datadir, mysqld::SpawnError};
use crate::mysql::Credentials;

/// A program that comes with a server has come to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It does not start.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// It failed.
    #[error("{tool} {how}; it printed: {printed}")]
    Failed {
        /// Which one.
        tool: &'static str,
        /// How it ended.
        how: String,
        /// The end of what it printed.
        printed: String,
    },
    /// The file system refuses.
    #[error("{path} cannot be read or written")]
    Files {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

impl ToolError {
    /// A tool that printed into this log.
    pub fn failed(tool: &'static str, how: String, log: &Path) -> Self {
        Self::Failed {
            tool,
            how,
            printed: datadir::tail(log, 0).unwrap_or_default(),
        }
    }

    /// What the file system says of this path.
    pub fn files(path: &Path) -> impl Fn(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Files {
            path: path.clone(),
            source,
        }
    }
}

/// Finds a program under one of its names: beside the server, where packages have it, else on the search path.
pub fn find(mysqld: &Path, names: &[&str]) -> Option<PathBuf> {
    let real = fs::canonicalize(mysqld).unwrap_or_else(|_| mysqld.to_owned());
    // Debian has servers in `sbin` and their tools in `bin`.
    let beside = [mysqld, &real].into_iter().filter_map(Path::parent);
    let beside = beside.flat_map(|folder| [folder.to_owned(), folder.join("../bin")]);
    let path = std::env::var_os("PATH").unwrap_or_default();
    beside
        .chain(std::env::split_paths(&path))
        .flat_map(|folder| names.iter().map(move |name| folder.join(name)))
        .find(|program| program.is_file())
}

/// The options file with which a program logs in through the server's socket, for its group of options. `None`: the
/// account's name or password has a character that such a file cannot hold.
pub fn login(group: &str, account: &Credentials, socket: &Path) -> Option<String> {
    let user = quoted(&account.user)?;
    let password = quoted(account.password.expose())?;
    let socket = quoted(&socket.to_string_lossy())?;
    Some(format!(
        "[{group}]\nuser = {user}\npassword = {password}\nsocket = {socket}\n"
    ))
}

/// A value as option files have it (MySQL manual, "Using Option Files"): in quotes, with escapes.
fn quoted(value: &str) -> Option<String> {
    if value.contains(char::is_control) {
        return None;
    }
    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
    Some(format!("\"{escaped}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_leave_their_quotes() {
        assert_eq!(quoted(r#"a"b\c #d"#).as_deref(), Some(r#""a\"b\\c #d""#));
        assert_eq!(quoted("a\n[mysqld]"), None);
    }
}
