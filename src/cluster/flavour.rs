//! Which database server a cluster runs, and which version of it.
//!
//! Both are read from the binary that is installed (`mysqld --version`), never assumed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The two families of servers. They share the client protocol and most of SQL, and differ in all that
/// matters here: replication statements, GTIDs, read-only modes, privileges, ways to copy data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flavour {
    /// MySQL 8.0 and later.
    Mysql,
    /// MariaDB 10.6 and later.
    Mariadb,
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Flavour::Mysql => "mysql",
            Flavour::Mariadb => "mariadb",
        })
    }
}

impl FromStr for Flavour {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "mysql" => Ok(Flavour::Mysql),
            "mariadb" => Ok(Flavour::Mariadb),
            _ => Err(VersionError::UnknownFlavour {
                text: text.to_owned(),
            }),
        }
    }
}

/// The version of a server, such as `10.11.19` or `9.7.4`. Versions of different flavours compare as numbers, which
/// means nothing: ask the flavour first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerVersion {
    /// 10 of `10.11.19`.
    pub major: u16,
    /// 11 of `10.11.19`.
    pub minor: u16,
    /// 19 of `10.11.19`.
    pub patch: u16,
}

/// Why a text does not name a flavour or a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// The text is neither `mysql` nor `mariadb`.
    #[error("{text:?} is no database flavour; it must be \"mysql\" or \"mariadb\"")]
    UnknownFlavour {
        /// What was given.
        text: String,
    },
    /// The text is not three numbers.
    #[error("{text:?} is no server version; a version looks like 10.11.19")]
    Malformed {
        /// What was given.
        text: String,
    },
    /// The output of `mysqld --version` has no `Ver` followed by a version.
    #[error("the server's --version printed {output:?}, in which no version can be found")]
    NotFound {
        /// What the server printed, shortened.
        output: String,
    },
}

impl ServerVersion {
    /// A version from its three numbers.
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        ServerVersion {
            major,
            minor,
            patch,
        }
    }

    /// Reads what `mysqld --version` or `mariadbd --version` printed, for instance
    /// `/usr/sbin/mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu on x86_64 (Debian 12)` or
    /// `/usr/sbin/mysqld  Ver 9.7.4-1 for Linux on x86_64 ((Debian))`.
    ///
    /// # Errors
    /// [`VersionError::NotFound`] when there is no version in it.
    pub fn from_version_output(output: &str) -> Result<(Flavour, ServerVersion), VersionError> {
        let not_found = || VersionError::NotFound {
            output: output.trim().chars().take(200).collect(),
        };
        // The path in front may hold anything, " Ver " included: the last one is the server's.
        let (_, rest) = output.rsplit_once(" Ver ").ok_or_else(not_found)?;
        let word = rest.split_whitespace().next().ok_or_else(not_found)?;
        let version = word
            .split('-')
            .next()
            .unwrap_or(word)
            .parse()
            .map_err(|_| not_found())?;
        let flavour = if rest.contains("MariaDB") {
            Flavour::Mariadb
        } else {
            Flavour::Mysql
        };
        Ok((flavour, version))
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for ServerVersion {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || VersionError::Malformed {
            text: text.to_owned(),
        };
        let mut numbers = text
            .split('.')
            .map(|part| part.parse::<u16>().map_err(|_| malformed()));
        let mut next = || numbers.next().ok_or_else(malformed)?;
        let version = ServerVersion::new(next()?, next()?, next()?);
        if numbers.next().is_some() {
            return Err(malformed());
        }
        Ok(version)
    }
}

impl Serialize for ServerVersion {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ServerVersion {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

    use super::*;

    #[test]
    fn versions_are_read_from_what_real_servers_print() {
        let cases = [
            (
                "/usr/sbin/mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu on x86_64 (Debian 12)",
                Flavour::Mariadb,
                ServerVersion::new(10, 11, 19),
            ),
            (
                "mysqld  Ver 10.6.12-MariaDB-log for Linux on x86_64 (MariaDB Server)\n",
                Flavour::Mariadb,
                ServerVersion::new(10, 6, 12),
            ),
            (
                "/usr/sbin/mysqld  Ver 9.7.4-1 for Linux on x86_64 ((Debian))",
                Flavour::Mysql,
                ServerVersion::new(9, 7, 4),
            ),
            (
                "/opt/my Ver x/mysqld  Ver 8.0.36 for Linux on x86_64 (MySQL Community Server - GPL)",
                Flavour::Mysql,
                ServerVersion::new(8, 0, 36),
            ),
        ];
        for (output, flavour, version) in cases {
            assert_eq!(
                ServerVersion::from_version_output(output).unwrap(),
                (flavour, version),
                "{output}"
            );
        }
        for output in [
            "",
            "mysqld: not found",
            "mysqld  Ver ",
            "mysqld  Ver nine for Linux",
        ] {
            assert!(
                ServerVersion::from_version_output(output).is_err(),
                "{output:?}"
            );
        }
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(ServerVersion::new(10, 11, 2) > ServerVersion::new(10, 6, 19));
        assert!("9.7.4".parse::<ServerVersion>().unwrap() < "10.0.0".parse().unwrap());
        for text in ["", "1", "1.2", "1.2.3.4", "1.2.x", "-1.2.3"] {
            assert!(text.parse::<ServerVersion>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn flavours_and_versions_are_plain_strings_in_json() {
        assert_eq!(
            serde_json::to_string(&(Flavour::Mysql, ServerVersion::new(9, 7, 4))).unwrap(),
            r#"["mysql","9.7.4"]"#
        );
        let read: (Flavour, ServerVersion) =
            serde_json::from_str(r#"["mariadb","10.11.19"]"#).unwrap();
        assert_eq!(read, (Flavour::Mariadb, ServerVersion::new(10, 11, 19)));
    }
}
