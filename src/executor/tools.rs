//! Finding the programs that come with a server, and what they need to log in.

use std::{
    ffi::OsString,
    fs,
    io::{self, PipeReader, PipeWriter},
    path::{Path, PathBuf},
};

use nix::fcntl::{FcntlArg, fcntl};

use super::{datadir, mysqld::SpawnError, steps};
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

/// The bytes that a pipe to or from a tool holds, so that neither end waits for the other after each piece.
const PIPE: i32 = 1 << 20;

/// A pipe through which a server's data goes, a long one where the system grants that (`F_SETPIPE_SZ`, fcntl(2)).
///
/// # Errors
/// When there are too many open files.
pub fn pipe() -> io::Result<(PipeReader, PipeWriter)> {
    let (reader, writer) = io::pipe()?;
    // The system's own length, 64 KiB, does as well, only slower.
    let _ = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(PIPE));
    Ok((reader, writer))
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

/// How `mariadb-backup` is asked to stream a running server's data: with the options file `cnf`, from the directory `data`.
pub fn backup_arguments(cnf: &Path, data: &Path, tmp: &Path) -> Vec<OsString> {
    vec![
        steps::option("--defaults-file=", cnf),
        "--backup".into(),
        "--stream=mbstream".into(),
        steps::option("--datadir=", data),
        steps::option("--target-dir=", tmp),
        // At the end it lets nobody commit until it has the redo log up to there, for which it looks this often, in milliseconds. By
        // default clients would wait for a second.
        "--log-copy-interval=20".into(),
    ]
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
