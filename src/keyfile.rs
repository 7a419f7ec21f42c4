//! Key files: accounts as YAML, and the scheduler's key.
//!
//! The scheduler and the executors read the same files. No error repeats what stands in a file.

use std::{
    fmt, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use zeroize::Zeroizing;

use crate::{mesos::authentication::Credential, secret::Secret};

/// A user and a password, from a file with the YAML keys `username` and `password`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The user.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// The key that seals cluster passwords: NaCl secretbox, 32 bytes.
#[derive(Clone)]
pub struct SchedulerKey(Zeroizing<[u8; 32]>);

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("the file {path} cannot be read: {source}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is larger than any key file.
    #[error("the file {path} is larger than {MAX_BYTES} bytes, so it is not a key file", path = .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is not the YAML that is expected.
    #[error("the file {path} must be YAML with the two keys {keys}{place}", path = .path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// The keys.
        keys: &'static str,
        /// Where the first mistake is, if that is known.
        place: String,
    },
    /// A value that nobody can log in with.
    #[error("in the file {path}, {key} {fault}", path = .path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What is wrong with its value.
        fault: &'static str,
    },
    /// The scheduler's key has another length.
    #[error(
        "the file {path} must hold exactly 32 bytes (and a newline at most), but it holds {length}; make one with: head -c 32 /dev/urandom > {path}",
        path = .path.display()
    )]
    KeyLength {
        /// The file.
        path: PathBuf,
        /// How long it is.
        length: usize,
    },
}

/// No key file needs more, and `/dev/zero` is not one.
const MAX_BYTES: u64 = 64 * 1024;

/// The longest name or secret in a key file, in characters.
const MAX_VALUE_LENGTH: usize = 128;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAccount {
    username: String,
    password: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCredential {
    principal: String,
    secret: String,
}

impl Account {
    /// Reads an account.
    ///
    /// # Errors
    /// When the file cannot be read or is not such a file.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let RawAccount { username, password } = read_yaml(path, "username and password")?;
        check(path, "username", &username)?;
        check(path, "password", &password)?;
        Ok(Self {
            username,
            password: Secret::new(password),
        })
    }
}

/// Reads a Mesos principal and its secret, from a file with the YAML keys `principal` and `secret`.
///
/// # Errors
/// When the file cannot be read or is not such a file.
pub fn read_credential(path: &Path) -> Result<Credential, KeyFileError> {
    let RawCredential { principal, secret } = read_yaml(path, "principal and secret")?;
    check(path, "principal", &principal)?;
    check(path, "secret", &secret)?;
    Ok(Credential {
        principal,
        secret: Secret::new(secret),
    })
}

impl SchedulerKey {
    /// Reads the key: exactly 32 bytes, one trailing newline tolerated.
    ///
    /// # Errors
    /// When the file cannot be read or has another length.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let bytes = read_bounded(path)?;
        let key = match bytes.as_slice() {
            [key @ .., b'\n'] if key.len() == 32 => key,
            key => key,
        };
        let key = <[u8; 32]>::try_from(key).map_err(|_| KeyFileError::KeyLength {
            path: path.to_owned(),
            length: bytes.len(),
        })?;
        Ok(Self(Zeroizing::new(key)))
    }

    /// A key from its bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for the one place that seals and opens with them.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SchedulerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SchedulerKey(redacted)")
    }
}

/// Whether users other than the file's owner and its group can read it.
pub fn is_readable_by_all(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

fn read_yaml<T: for<'de> Deserialize<'de>>(
    path: &Path,
    keys: &'static str,
) -> Result<T, KeyFileError> {
    let bytes = read_bounded(path)?;
    let yaml = |place: String| KeyFileError::Yaml {
        path: path.to_owned(),
        keys,
        place,
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| yaml("; it is not UTF-8".to_owned()))?;
    // The parser's own message quotes the file, secrets included; only the line is told.
    serde_saphyr::from_str(text).map_err(|error| {
        let line = error.location().map(|location| location.line());
        yaml(line.map_or_else(String::new, |line| format!("; see its line {line}")))
    })
}

fn read_bounded(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    use io::Read as _;
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?
            .take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|source| KeyFileError::Read {
        path: path.to_owned(),
        source,
    })?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(KeyFileError::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(Zeroizing::new(bytes))
}

fn check(path: &Path, key: &'static str, value: &str) -> Result<(), KeyFileError> {
    let fault = if value.is_empty() {
        "is empty"
    } else if value.chars().count() > MAX_VALUE_LENGTH {
        "has more than 128 characters"
    } else if value.chars().any(char::is_control) {
        "contains control characters"
    } else {
        return Ok(());
    };
    Err(KeyFileError::Value {
        path: path.to_owned(),
        key,
        fault,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn file(content: impl AsRef<[u8]>) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        file
    }

    #[test]
    fn accounts_and_principals() {
        let account = Account::read(file("username: admin\npassword: 'p: w'\n").path()).unwrap();
        assert_eq!(
            (account.username.as_str(), account.password.expose()),
            ("admin", "p: w")
        );
        let principal = read_credential(file("{principal: a, secret: b}").path()).unwrap();
        assert_eq!(
            (principal.principal.as_str(), principal.secret.expose()),
            ("a", "b")
        );
    }

    #[test]
    fn passwords_that_look_like_other_yaml_are_taken_as_they_stand() {
        for (yaml, password) in [
            ("007", "007"),
            ("1e3", "1e3"),
            ("true", "true"),
            ("'#x'", "#x"),
            ("0x1F", "0x1F"),
        ] {
            let account =
                Account::read(file(format!("username: a\npassword: {yaml}\n")).path()).unwrap();
            assert_eq!(account.password.expose(), password);
        }
    }

    #[test]
    fn wrong_accounts_and_their_sentences() {
        for (content, sentence) in [
            ("", "must be YAML with the two keys username and password"),
            (
                "username: a",
                "must be YAML with the two keys username and password",
            ),
            (
                "username: a\npassword: hunter2\nextra: hunter2",
                "see its line 3",
            ),
            ("username: a\npassword: [hunter2", "must be YAML"),
            ("username: ''\npassword: hunter2", "username is empty"),
            ("username: a\npassword: ''", "password is empty"),
            (
                "username: a\npassword: \"hunter2\\0\"",
                "password contains control characters",
            ),
            (
                &format!("username: a\npassword: {}", "x".repeat(129)),
                "more than 128 characters",
            ),
            (&"x".repeat(65537), "larger than 65536 bytes"),
        ] {
            let error = Account::read(file(content).path()).unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(text.contains(sentence), "{content}: {text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
        let error = Account::read(Path::new("/nonexistent"))
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "the file /nonexistent cannot be read: No such file or directory (os error 2)"
        );
    }

    #[test]
    fn keys_have_32_bytes_and_a_newline_at_most() {
        for good in ["x".repeat(32), "x".repeat(31) + "\n", "x".repeat(32) + "\n"] {
            assert!(SchedulerKey::read(file(&good).path()).is_ok(), "{good:?}");
        }
        for bad in [
            "".to_owned(),
            "x".repeat(31),
            "x".repeat(33),
            "x".repeat(32) + "\r\n",
            "x".repeat(32) + "\n\n",
        ] {
            let error = SchedulerKey::read(file(&bad).path()).unwrap_err();
            assert!(matches!(error, KeyFileError::KeyLength { length, .. } if length == bad.len()));
        }
    }
}
